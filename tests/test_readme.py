"""The README says what is so: its commands, snippets and folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catgrad_hw.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_second_command():
    _, second = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == second


def test_commands_exist():
    commands = set(re.findall(r"catgrad-hw ([a-z-]+)", README))
    assert commands == {command.name or command.callback.__name__ for command in app.registered_commands}


def test_snippets_run(monkeypatch):
    # In one namespace, in order: later snippets use the names of earlier ones.
    names: dict[str, object] = {}
    for marked, code in re.findall(r"(<!-- snippet: needs a simulator -->\n)?```python\n(.*?)```", README, re.DOTALL):
        if not marked:
            exec(compile(code, "README.md", "exec"), names)
    assert names["flowers"]().batch_size == 150
    assert names["predictions"].shape == (150, 3)


@pytest.mark.parametrize("folder", sorted(set(re.findall(r"`([a-z_]+/(?:[a-z]+/)?)`", README))))
def test_folders_exist(folder):
    assert (ROOT / folder).is_dir()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
