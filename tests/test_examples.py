"""The examples run as a newcomer runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("model", "least"), [("linear", 78), ("simple", 90), ("dense", 90), ("hidden", 96)])
def test_iris_trains(model: str, least: float) -> None:
    command = [sys.executable, "-W", "error", "-m", "examples.iris", model]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "class CompiledModel:" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("accuracy: ")
    assert float(last.split()[1]) >= least


def test_iris_explains_a_wrong_name() -> None:
    command = [sys.executable, "-m", "examples.iris", "deep"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "linear" in done.stderr


def emitted(target: str, folder: Path) -> None:
    from catgrad_hw.targets.registry import TARGETS
    from catgrad_hw.workload import load_workload

    for name, text in TARGETS[target].emit(load_workload("iris-hidden"), "iris-hidden").items():
        (folder / name).write_text(text)


def trained(target: str, folder: Path, steps: int) -> tuple[float, float]:
    """Accuracy in percent and loss that the example prints; CUDA runs on the CPU, through the tests' shim."""
    for tool in ("cc", "make") if target == "c" else ("g++",):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder.mkdir()
    emitted(target, folder)
    if target == "c":
        subprocess.run(["make", "-s"], cwd=folder, check=True)
        command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{folder}"]
        command += [str(ROOT / "examples" / "iris.c"), "libiris_hidden.a", "-lm"]
    else:
        command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", f"-I{folder}", f"-I{ROOT / 'tests' / 'cuda_shim'}"]
        command += ["-x", "c++", str(ROOT / "examples" / "iris.cu"), "iris_hidden.cu"]
    subprocess.run([*command, "-o", "iris"], cwd=folder, check=True)
    data = ROOT / "catgrad_hw" / "workloads" / "iris.csv"
    done = subprocess.run([folder / "iris", data, str(steps)], capture_output=True, text=True, check=True)
    words = done.stdout.split()
    return float(words[1]), float(words[4])


def test_iris_trains_in_compiled_code(tmp_path: Path) -> None:
    accuracy, loss = trained("c", tmp_path / "c", 1000)
    assert accuracy >= 96
    assert loss < 15


def test_iris_in_cuda_does_what_c_does(tmp_path: Path) -> None:
    _, expected = trained("c", tmp_path / "c", 40)
    _, loss = trained("cuda", tmp_path / "cuda", 40)
    assert loss == pytest.approx(expected, rel=1e-4)
