"""Block RAM: how many blocks of a device family the memories of a program take.

The counts are those of Yosys, to whose ``memory_libmap`` a memory is rows of words with a write enable each:

- A word takes whole *bytes*, the unit of the family's write enables: 9 bits, or 1 on iCE40.
- A port of width w divides the depth into *pages* of 2**k rows, as many as a block of that width has.
- The bytes of all pages stand side by side, and fill blocks of w bits; write enables keep them apart.
- Of all widths, the cheapest is taken: a block costs ``cost``, a bit of the multiplexer that picks a read page a half,
  and so does a write enable of a page.

Every table, and all of a bank but its ``lut_words``, asks for block RAM by an attribute: none is too small for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from catgrad_hw.numbers.tables import Table
from catgrad_hw.numbers.units import Function
from catgrad_hw.schedule.program import Bank, Program

Family = Literal["ice40", "ecp5", "gowin"]


@dataclass(frozen=True)
class BlockRam:
    """A family's block RAM with a read and a write port: the ``widths`` of a port, widest first, ``depth`` rows at the
    widest and twice as many at each next, ``byte`` bits for each write enable, ``cost`` for Yosys, and its ``kbit``."""

    name: str
    widths: tuple[int, ...]
    depth: int
    byte: int
    cost: int
    kbit: int


BLOCK: dict[Family, BlockRam] = {
    "ice40": BlockRam("SB_RAM40_4K", (16, 8, 4, 2), 256, 1, 64, 4),
    "ecp5": BlockRam("DP16KD", (36, 18, 9, 4, 2, 1), 512, 9, 128, 18),
    "gowin": BlockRam("DPX9B", (36, 18, 9, 4, 2, 1), 512, 9, 128, 18),
}


@dataclass(frozen=True)
class Memory:
    """A memory of the hardware: ``depth`` rows of ``words`` words of ``width`` bits, ``copies`` times.

    ``data_set``: it holds samples.
    """

    name: str
    copies: int
    words: int
    width: int
    depth: int
    data_set: bool

    def blocks(self, family: Family) -> int:
        """Block RAMs of all copies."""
        return self.copies * blocks(self.words, self.width, self.depth, family)


@dataclass(frozen=True)
class BlockRams:
    """``blocks`` of a family, and their capacity in ``kbit``."""

    blocks: int
    kbit: int


COUNTER_BITS = 32
OWN_COUNTERS = 2
"""Of cycles and of steps, beside those of clamped words."""


def table_bits(function: Function) -> int:
    """Bits of a row of the memory that a function is read from: entries are never negative, and the bit above the
    result's of a unit's needs no memory."""
    if isinstance(function, Table):
        return max(1, max(function.entries).bit_length())
    return function.output_width


def port(words: int, width: int, depth: int, family: Family) -> tuple[int, int]:
    """The width of the ports of the blocks for ``depth`` rows of ``words`` words of ``width`` bits, as Yosys maps them,
    and how many blocks there are."""
    ram = BLOCK[family]
    choices: list[tuple[float, int, int]] = []
    for level, bits in enumerate(ram.widths):
        byte = min(ram.byte, bits)
        pages = -(-depth // (ram.depth << level))
        count = -(-pages * words * -(-width // byte) * byte // bits)
        multiplexer = (pages - 1) * words * width + (pages * words if pages > 1 else 0)
        choices.append((ram.cost * count + multiplexer / 2, count, bits))
    _, count, best = min(choices)
    return best, count


def blocks(words: int, width: int, depth: int, family: Family) -> int:
    """How many blocks :func:`port` tells of."""
    return port(words, width, depth, family)[1]


def _bank(bank: Bank) -> Memory:
    return Memory(bank.name, 1, bank.words - bank.lut_words, bank.width, bank.depth, bank.loader)


def memories(program: Program) -> Sequence[Memory]:
    """All memories: banks, partial sums among them, a copy of each table for every word of the slow path, and the
    counters, which no choice of tile or packing changes: with the data set, they are beside the budget."""
    used = {write.function for k in program.kernels if k.slow for write in k.slow.writes if write.function}
    # a draft has no kernels yet: all tables count
    tables = [(name, program.functions[name]) for name in sorted(used or program.functions)]
    return [
        *(_bank(bank) for bank in program.banks.values()),
        *(Memory(n, program.slow_words, 1, table_bits(t), len(t.entries), False) for n, t in tables),
        Memory("counters", 1, 1, COUNTER_BITS, len(program.counters) + OWN_COUNTERS, True),
    ]


def block_rams(program: Program, family: Family = "ice40", *, data_set: bool = False) -> BlockRams:
    """The block RAM of ``program``: banks, partial sums and tables; with ``data_set``, the banks of x and y and the
    counters, too."""
    count = sum(memory.blocks(family) for memory in memories(program) if data_set or not memory.data_set)
    return BlockRams(count, count * BLOCK[family].kbit)
