"""Benches against the Verilog in `rtl/`: what people get who do not run Python is what was tested.

``core.json`` beside each ``core.v`` says which model it trains. The first test trains in it and compares every word
with the integer reference; the second shows that the file is current.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.training import simulate
from catgrad_hw.workload import load_workload

RTL = Path(__file__).parent.parent / "rtl"
DESIGNS = sorted(path.parent for path in RTL.glob("*/core.json"))
STEPS = {"verilator": 20, "icarus": 2}


@cache
def hardware(design: Path) -> tuple[dict[str, object], Hardware]:
    made_from = json.loads((design / "core.json").read_text())
    workload = load_workload(made_from["model"])
    return made_from, compile_hardware(workload, made_from["lanes"], numbers=made_from["numbers"])


def test_there_are_reference_designs():
    assert [design.name for design in DESIGNS]


@pytest.mark.simulator
@pytest.mark.parametrize("simulator", STEPS)
@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_the_file_trains_as_the_reference_does(design, simulator):
    lacking = tools.missing(simulator)
    if lacking:
        pytest.skip(f"{simulator} needs {', '.join(tool.name for tool in lacking)}")
    made_from, compiled = hardware(design)
    workload = load_workload(made_from["model"])
    result = simulate(compiled, workload, STEPS[simulator], simulator=simulator, rtl=design / "core.v")
    assert result.differences == ()
    assert result.mismatches == 0
    assert result.words_compared == STEPS[simulator] * sum(p.size for p in result.parameters)
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
