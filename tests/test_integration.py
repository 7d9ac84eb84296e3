"""The page for integrators: its tables are true, its example in plain Verilog trains as the reference does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catgrad_hw.gateware.axi import PREFIX
from catgrad_hw.gateware.ports import REGISTERS
from catgrad_hw.gateware.registers import Register
from catgrad_hw.simulate import tools

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "integration.md").read_text()


def test_the_registers_are_those_of_the_core():
    rows = [f"| {r.value} | 0x{4 * r:02x} | {r.name.lower()} | {meaning} |" for r, meaning in REGISTERS.items()]
    table = re.search(r"\| plain \| AXI \| register .*?\n\n", PAGE, re.DOTALL)[0].splitlines()
    assert table[2:-1] == [*rows, table[-2]]
    assert table[-2].startswith(f"| {Register.SATURATIONS.value} … | 0x{4 * Register.SATURATIONS:02x} … |")


def test_the_streams_are_those_of_the_core():
    assert re.findall(r"^\| `(\w+)` \| `(\w+axis\w+)` \|", PAGE, re.MULTILINE) == [
        (name, PREFIX[name]) for name in ("parameters", "samples", "results")
    ]


@pytest.mark.simulator
def test_the_example_trains_and_sees_a_wrong_word(tmp_path):
    if tools.missing("icarus"):
        pytest.skip("needs Icarus")
    for name in ("examples", "rtl"):
        (tmp_path / name).symlink_to(ROOT / name)
    code, printed = re.search(r"```sh\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL).groups()
    vectors, compile_it, simulate = code.splitlines()

    def run(command, directory=tmp_path):
        words = shlex.split(command)
        words[0] = {"python": sys.executable}.get(words[0], shutil.which(words[0]))
        return subprocess.run(words, cwd=directory, check=True, capture_output=True, text=True).stdout

    run(vectors)
    run(compile_it)
    build = tmp_path / "build"
    step = simulate.removeprefix("cd build && ")
    assert run(step + " -n", build) == printed
    words = (build / "expected.hex").read_text().splitlines()
    words[7] = f"{int(words[7], 16) ^ 1:06x}"
    (build / "expected.hex").write_text("\n".join(words))
    assert run(step + " -n", build) == "163 parameters, 1 wrong\n"
