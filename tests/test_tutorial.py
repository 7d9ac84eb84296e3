"""The tutorial, as a newcomer works through it: every command runs, and prints what the page says.

The board is a simulated one, so ``--port`` names its terminal. The commands that set up the machine are CI's own; those
that take a real board's bitstream run with ``--all-boards``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from catgrad_hw.simulate import tools

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
PORT = "/dev/ttyUSB1"
PATIENCE = 300  # seconds
CODE = "from catgrad_hw.cli import main; main()"


@dataclass
class Block:
    """Code, the mark before it, and the output that the page shows after it."""

    mark: str
    language: str
    code: str
    shown: str


def blocks() -> list[Block]:
    pattern = r"(?:<!-- ([\w -]+) -->\n)?```(sh|python)\n(.*?)```(?:\n\n```text\n(.*?)```)?"
    return [Block(*(part or "" for part in found)) for found in re.findall(pattern, PAGE, re.DOTALL)]


def test_the_page_has_what_the_test_looks_for():
    found = blocks()
    assert [block.mark for block in found if block.mark] == ["set-up", "with a board", "second terminal"]
    assert [block.language for block in found].count("python") == 1
    assert sum(PORT in block.code for block in found) == 4
    fences = PAGE.count("```sh") + PAGE.count("```python")
    assert len(found) == fences


def test_the_machine_is_set_up_as_ci_does():
    (setup,) = [block.code for block in blocks() if block.mark == "set-up"]
    ours, theirs = (ROOT / ".ci" / "run").read_text(), setup.splitlines()
    assert theirs[0].split()[:3] == ["sudo", "apt", "install"]
    assert all(package in ours for package in theirs[0].split()[3:] if package != "python3-venv")
    assert theirs[1] in ours
    assert theirs[3] == "pip install ."


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """Runs code as in a terminal: in a folder that stays, with ``catgrad-hw`` at hand."""
    if lacking := tools.missing("verilator"):
        pytest.skip(f"a simulated board needs {', '.join(tool.name for tool in lacking)}")
    folder, programs = tmp_path_factory.mktemp("evening"), tmp_path_factory.mktemp("bin")
    for name, arguments in (("catgrad-hw", f'-c "{CODE}"'), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    python = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return folder, {**os.environ, "PATH": path, "PYTHONPATH": python, "COLUMNS": "100"}


@pytest.fixture(scope="module")
def board(terminal, tmp_path_factory):
    """The second terminal; the name of the board's port."""
    folder, environment = terminal
    (code,) = [block.code for block in blocks() if block.mark == "second terminal"]
    link = tmp_path_factory.mktemp("dev") / "board"
    assert "--link /tmp/board" in code
    command = ["sh", "-c", "exec " + code.replace("/tmp/board", str(link))]
    with open(folder / "second.txt", "w") as log:
        serving = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + PATIENCE
    while not link.exists():
        assert serving.poll() is None, (folder / "second.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield str(link)
    serving.send_signal(signal.SIGINT)  # Ctrl-C
    assert serving.wait(60) == 0


def run(block: Block, terminal, port: str = "") -> str:
    folder, environment = terminal
    code = block.code.replace(PORT, port)
    command = ["sh", "-e", "-c", code] if block.language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stdout}"
    return done.stdout


FLOAT = re.compile(r"(?<=│ loss     │ )[\d.]+(?= +│ +\d)")
"""The loss of a float run, whose sums a processor makes in an order of its own."""


def says(printed: str, line: str) -> bool:
    """Whether a line was printed as the page has it, but for the loss of a float run, which is as good as there."""
    if FLOAT.sub("", line).rstrip() not in FLOAT.sub("", printed):
        return False
    expected, found = (FLOAT.findall(text) for text in (line, printed))
    return all(float(f) == pytest.approx(float(e), rel=0.01) for e, f in zip(expected, found, strict=False))


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("│ loss     │ 3.1673  │ 3.1585    │ -   │", True),
        ("│ loss     │ 3.1655  │ 3.1585    │ -   │", True),
        ("│ loss     │ 3.2673  │ 3.1585    │ -   │", False),
        ("│ loss     │ 3.1673  │ 3.1586    │ -   │", False),
        ("│ loss     │ -       │ 3.1585    │ -   │", False),
    ],
)
def test_what_depends_on_the_processor_is_compared_as_such(printed, same):
    assert says(printed, "│ loss     │ 3.1673  │ 3.1585    │ -   │") == same


@pytest.mark.simulator
def test_every_command_does_what_the_page_says(terminal, board):
    for block in blocks():
        if block.mark:
            continue
        printed = run(block, terminal, board)
        lines = printed.splitlines()
        for line in block.shown.splitlines():
            assert any(says(printed_line, line) for printed_line in lines), f"{line}\n\nfound:\n{printed}"


@pytest.mark.fpga
def test_the_bitstream(terminal, request):
    if not request.config.getoption("--all-boards"):
        pytest.skip("takes minutes; run with --all-boards")
    (block,) = [block for block in blocks() if block.mark == "with a board"]
    build, program = block.code.splitlines()
    run(Block("", "sh", build, ""), terminal)
    folder, environment = terminal
    done = subprocess.run(program.split(), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    # Without a board, it says what to do; with one, it is loaded.
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_errors_are_quoted_as_they_are():
    source = "".join(path.read_text() for path in (ROOT / "catgrad_hw" / "host").glob("*.py"))
    for quoted in re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE):
        for part in quoted.split("…"):
            assert part.strip(" ,") in re.sub(r'"\s+f?"', "", source), quoted
