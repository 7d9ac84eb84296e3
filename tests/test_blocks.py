"""Predicted block RAM is what Yosys maps: single memories of many shapes, and whole designs.

``python -m benchmarks.blocks`` compares more designs.
"""

from __future__ import annotations

from collections import Counter

import pytest
from amaranth.back import rtlil

from benchmarks.blocks import DESIGNS, mapped, predicted, run_yosys
from catgrad_hw.gateware.bank import BankMemory
from catgrad_hw.schedule.memory import block_rams, blocks, memories
from catgrad_hw.schedule.program import Bank
from catgrad_hw.simulate import tools

pytestmark = pytest.mark.fpga

# How to map memories, and what to: one cell becomes one block RAM.
MAPPING = {
    "ecp5": ("-lib +/lattice/lutrams_trellis.txt -lib +/lattice/brams_16kd.txt", "t:$__DP16KD_ t:$__PDPW16KD_ %u"),
    "ice40": ("-lib +/ice40/brams.txt -lib +/ice40/spram.txt -no-auto-huge", "t:$__ICE40_RAM4K_"),
}

# words, bits, rows: tiny, bytes that fit and that don't, pages that fill half a block, deep ones that go narrow
SHAPES = [
    (1, 24, 4),
    (8, 24, 1),
    (16, 18, 33),
    (3, 9, 513),
    (1, 39, 163),
    (5, 12, 1025),
    (4, 16, 300),
    (1, 9, 2368),
    (1, 36, 4097),
]


@pytest.fixture(scope="module", autouse=True)
def _yosys():
    if not tools.yosys().found:
        pytest.skip("needs Yosys")


@pytest.mark.parametrize("family", MAPPING)
def test_memories_of_many_shapes(family, tmp_path):
    modules = []
    for number, (words, width, depth) in enumerate(SHAPES):
        text = rtlil.convert(BankMemory(Bank("bank", words, width, depth)), name=f"shape_{number}", emit_src=False)
        modules.append(text.replace("attribute \\top 1\n", ""))
    (tmp_path / "banks.il").write_text("".join(modules))
    libraries, types = MAPPING[family]
    cells = f"tee -q -o cells.txt select -list {types}"
    run_yosys(f"read_rtlil banks.il; proc; flatten; memory -nomap; memory_libmap {libraries}; {cells}", tmp_path)
    found = Counter(cell.split("/")[0] for cell in (tmp_path / "cells.txt").read_text().split())
    assert found == {f"shape_{number}": blocks(*shape, family) for number, shape in enumerate(SHAPES)}


def test_design():
    design = DESIGNS["linear-16"]
    hardware = design.compile()
    assert mapped(hardware, design.family) == (hardware.multipliers, predicted(hardware, design.family))


def test_small_memory():
    """iris-hidden at 4 lanes in 25 block RAMs of 4 kbit, the data set excluded, by Yosys' own count."""
    design = DESIGNS["hidden-4-tiled-ice40"]
    hardware = design.compile()
    multipliers, found = mapped(hardware, "ice40")
    assert multipliers == hardware.multipliers
    assert found == predicted(hardware, "ice40")
    data = {memory.name for memory in memories(hardware.program) if memory.data_set}
    count = sum(blocks for name, blocks in found.items() if name not in data)
    assert count == block_rams(hardware.program).blocks <= 25
    assert 54_613 / (4 * hardware.cycles_per_step) > 0.9
