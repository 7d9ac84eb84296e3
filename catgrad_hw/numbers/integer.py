"""Integer programs: kernels in which every number is an integer and every narrowing is explicit.

The bits of a training run are decided at this level and above. The integer reference
(:mod:`catgrad_hw.numbers.reference`) executes it in NumPy and is its definition; the schedule and the hardware must
reproduce it, whatever the number of lanes, the layout or the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from catgrad_hw.ir.kernel import KernelProgram
from catgrad_hw.numbers.tables import Table
from catgrad_hw.numbers.units import Function, Unit


@dataclass(frozen=True)
class Format:
    """Signed two's complement of ``width`` bits; the value of a word is ``word * 2**-fraction``."""

    width: int
    fraction: int


@dataclass(frozen=True)
class IntegerProgram:
    """A :class:`KernelProgram` of integer kernels with the formats of its arrays.

    ``formats`` gives the stored format of every array; ``tables`` and ``units`` the functions that kernels look up;
    ``multiplier`` the width in bits of both operands of a lane's multiplier; ``accumulators``, by kernel name, the
    smallest width that provably holds the kernel's final sum (bias included), that of its i-th side sum under
    ``NAME.side_i``; ``stochastic`` whether any rounding draws random numbers; ``counters`` the names of all
    saturation counters, in order.
    """

    kernels: KernelProgram
    formats: Mapping[str, Format]
    tables: Mapping[str, Table]
    multiplier: int
    accumulators: Mapping[str, int]
    counters: tuple[str, ...]
    stochastic: bool
    units: Mapping[str, Unit] = field(default_factory=dict)

    @property
    def functions(self) -> Mapping[str, Function]:
        """All functions of one word, by the name that a :class:`~catgrad_hw.ir.kernel.Lookup` gives."""
        return {**self.tables, **self.units}
