"""Benches against the Verilog in `rtl/`: what people get who do not run Python is what was tested.

``core.json`` beside each ``core.v`` says which model it trains. The first test trains in it and compares every word
with the integer reference; the second shows that the file is current.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.training import simulate
from catgrad_hw.workload import load_workload

RTL = Path(__file__).parent.parent / "rtl"
DESIGNS = sorted(path.parent for path in RTL.glob("*/core.json"))
STEPS = 20


@cache
def hardware(design: Path) -> tuple[dict[str, object], Hardware]:
    made_from = json.loads((design / "core.json").read_text())
    workload = load_workload(made_from["model"])
    return made_from, compile_hardware(workload, made_from["lanes"], numbers=made_from["numbers"])


def test_there_are_reference_designs():
    assert [design.name for design in DESIGNS]


@pytest.mark.simulator
@pytest.mark.xdist_group("iris-hidden")  # one worker builds its simulation
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_the_file_trains_as_the_reference_does(design):
    lacking = tools.missing("verilator")
    if lacking:
        pytest.skip(f"verilator needs {', '.join(tool.name for tool in lacking)}")
    made_from, compiled = hardware(design)
    workload = load_workload(made_from["model"])
    result = simulate(compiled, workload, STEPS, simulator="verilator", rtl=design / "core.v")
    assert result.differences == ()
    assert result.mismatches == 0
    assert result.words_compared == STEPS * sum(p.size for p in result.parameters)
    assert result.cycles_per_step == made_from["cycles_per_step"]
    assert f"{result.outcome.identity:016x}" == made_from["identity"]


@pytest.mark.fpga
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_the_file_is_current(design):
    made_from, compiled = hardware(design)
    assert f"{compiled.identity:016x}" == made_from["identity"]
    assert compiled.cycles_per_step == made_from["cycles_per_step"]
    assert compiled.report() == (design / "core.md").read_text()
    if made_from["tools"] == {name: tools.version(name) for name in made_from["tools"]}:
        assert compiled.verilog() == (design / "core.v").read_text()


def lint_with_verilator(source: Path) -> list[str]:
    return ["verilator", "--lint-only", "--top-module", "core", str(source)]


def lint_with_icarus(source: Path) -> list[str]:
    return ["iverilog", "-g2005", "-t", "null", "-s", "core", str(source)]


@pytest.mark.simulator
@pytest.mark.parametrize("lint", [lint_with_verilator, lint_with_icarus])
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_linters_accept_the_file(design, lint):
    command = lint(design / "core.v")
    simulator = {"iverilog": "icarus"}.get(command[0], command[0])
    if tools.missing(simulator):
        pytest.skip(f"no {command[0]}")
    environment = tools.simulator_environment(simulator)
    command[0] = shutil.which(command[0], path=environment["PATH"]) or command[0]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "arning" not in result.stderr


@pytest.mark.fpga
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_yosys_accepts_the_file_and_counts_the_multipliers(design):
    # A product of two variables stays a $mul cell until it is mapped to a device.
    script = "read_verilog core.v; hierarchy -check -top core; proc; flatten; opt_clean; stat"
    command = [tools.yosys().require(), "-Q", "-T", "-p", script]
    # By a relative name: YoWASP's sandbox has a /tmp of its own.
    log = subprocess.run(command, check=True, capture_output=True, text=True, cwd=design).stdout
    counts = {cell: int(number) for number, cell in re.findall(r"^\s+(\d+)\s+(\$\w+)\s*$", log, re.MULTILINE)}
    made_from = json.loads((design / "core.json").read_text())
    assert counts["$mul"] == made_from["multipliers"]
    assert not {"$macc", "$macc_v2", "$alu", "$pow", "$div"} & counts.keys()
