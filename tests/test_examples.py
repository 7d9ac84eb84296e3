"""The examples run as a newcomer runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


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
