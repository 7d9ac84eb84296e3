"""Models made with catgrad 0.2.2, in an environment of its own, since it pins NumPy 1.26."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from catgrad_hw import import_catgrad
from catgrad_hw.errors import ModelError

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.xdist_group("catgrad")  # one worker makes the environment


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has catgrad 0.2.2: the one that CATGRAD_PYTHON names, or that of a new environment."""
    python = os.environ.get("CATGRAD_PYTHON")
    if python is None:
        folder = tmp_path_factory.mktemp("catgrad")
        venv.create(folder, with_pip=True)
        python = str(folder / "bin" / "python")
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "catgrad==0.2.2"]
        quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # pip's own are not this package's
        installed = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"catgrad 0.2.2 cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    return python


def run(python: str, script: str) -> str:
    """What a script of the tests prints in that environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    command = [python, str(ROOT / "tests" / script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(python: str) -> dict[str, Any]:
    """What tests/catgrad_parity.py prints."""
    result: dict[str, Any] = json.loads(run(python, "catgrad_parity.py"))
    return result


@pytest.mark.parametrize("name", ["linear", "simple"])
def test_our_layers_give_catgrads_numbers(report: dict[str, Any], name: str) -> None:
    assert report["own"][name] < 1e-5  # over 25 steps, at the rates of catgrad's example


@pytest.mark.parametrize("name", ["linear", "simple", "dense", "hidden"])
def test_catgrads_models_give_its_own_numbers(report: dict[str, Any], name: str) -> None:
    found = report["models"][name]
    assert found["difference"] < 1e-6  # over 100 steps
    assert found["kernels"] < 1e-5  # one step, in other floating-point operations
    assert "Power" not in found["operations"]
    assert ("Sigmoid" in found["operations"]) == (name != "linear")


def test_the_bias_is_one_for_each_sample(report: dict[str, Any]) -> None:
    assert report["models"]["hidden"]["shapes"] == [[4, 20], [150, 20], [20, 3], [150, 3]]


def test_neither_torch_nor_another_numpy_is_needed(report: dict[str, Any]) -> None:
    assert not report["torch"]
    assert report["numpy"].startswith("1.26.")


def test_definitions_are_converted_and_code_is_refused(report: dict[str, Any]) -> None:
    assert report["twice"] == pytest.approx(0.6224593)
    assert "UnsupportedError: from_catgrad: expected an operation of catgrad's" in report["python"]
    assert "found IdentityPythonOp" in report["python"]
    assert "ModelError: from_catgrad: expected an open hypergraph of catgrad 0.2, found int" in report["nothing"]


def test_a_missing_catgrad_is_named() -> None:
    if importlib.util.find_spec("catgrad") is not None:
        pytest.skip("catgrad is installed beside the tests")
    with pytest.raises(ModelError, match=r"install catgrad-hw\[catgrad\] in an environment of its own"):
        import_catgrad()
