"""Block RAM: how many blocks of a device family the memories of a program take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from catgrad_hw.numbers.tables import Table
from catgrad_hw.schedule.program import Program

Family = Literal["ice40", "ecp5", "gowin"]

SHAPES: dict[Family, tuple[tuple[int, int], ...]] = {
    "ice40": ((16, 256), (8, 512), (4, 1024), (2, 2048)),
    "ecp5": ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
    "gowin": ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)),
}
"""(width, depth) of one block with one read and one write port: SB_RAM40_4K, DP16KD, SDPX9B."""

BLOCK_KBIT: dict[Family, int] = {"ice40": 4, "ecp5": 18, "gowin": 18}


@dataclass(frozen=True)
class BlockRams:
    """``blocks`` of a family, and their capacity in ``kbit``."""

    blocks: int
    kbit: int


def table_bits(table: Table) -> int:
    """Bits of a table's entries, which are never negative."""
    return max(1, max(table.entries).bit_length())


def blocks(width: int, depth: int, family: Family) -> int:
    """Blocks for ``depth`` rows of ``width`` bits, in the best of the family's shapes."""
    return min(-(-width // w) * -(-depth // d) for w, d in SHAPES[family])


def block_rams(program: Program, family: Family = "ice40", *, data_set: bool = False) -> BlockRams:
    """The block RAM of ``program``: banks, partial sums and tables; with ``data_set``, the banks of x and y, too."""
    count = 0
    for bank in program.banks.values():
        if bank.kind != "distributed" and (data_set or not bank.loader):
            count += blocks(bank.words * bank.width, bank.depth, family)
    used = {w.table for k in program.kernels if k.slow for w in k.slow.writes if w.table}
    for name in sorted(used or program.tables):
        table = program.tables[name]
        count += program.slow_words * blocks(table_bits(table), len(table.entries), family)
    return BlockRams(count, count * BLOCK_KBIT[family])
