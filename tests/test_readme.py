"""The README says what is so: its commands, snippets and folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from catgrad_hw.cli.app import app
from catgrad_hw.simulate import tools

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_second_command():
    _, second = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == second


def test_commands_exist():
    commands = set(re.findall(r"catgrad-hw ([a-z-]+)", README))
    assert commands == {command.name or command.callback.__name__ for command in app.registered_commands}


def run_snippets(simulated: bool) -> dict[str, Any]:
    """The names that the snippets define, run in order, as later ones use the names of earlier ones."""
    names: dict[str, Any] = {}
    for marked, code in re.findall(r"(<!-- snippet: needs a simulator -->\n)?```python\n(.*?)```", README, re.DOTALL):
        if bool(marked) == simulated:
            exec(compile(code, "README.md", "exec"), names)
    return names


def test_snippets_run():
    names = run_snippets(simulated=False)
    assert names["flowers"]().batch_size == 150
    assert names["predictions"].shape == (150, 3)


@pytest.mark.simulator
@pytest.mark.xdist_group("iris-hidden")  # one worker builds its simulation
def test_snippets_run_in_simulation():
    lacking = tools.missing("verilator")
    if lacking:
        pytest.skip(f"verilator needs {', '.join(tool.name for tool in lacking)}")
    names = run_snippets(simulated=True)
    assert names["result"].mismatches == 0
    assert names["result"].cycles_per_step == names["hardware"].cycles_per_step
    assert "module core(" in names["verilog"]
    assert names["reference"].parameter_words()[0].shape == (4, 20)


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"`([a-z_]+/(?:[a-z]+/)?)`", README))))
def test_folders_exist(folder):
    assert (ROOT / folder).is_dir()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
