"""The machine's program: what the hardware does in every cycle of ``step`` and ``predict``.

The levels of one kernel, outermost first, are its loops; the one that is spread over the lanes counts rows of P
elements. An :class:`Operand` is a stream of rows or of single words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from catgrad_hw.ir.kernel import Bound
from catgrad_hw.numbers.units import Function
from catgrad_hw.schedule.timing import Timing

BankKind: TypeAlias = Literal["block", "late", "single_port"]
Kind: TypeAlias = Literal["alone", "add", "subtract", "replace", "select"]
Reduction: TypeAlias = Literal["sum", "max", "argmax"]


@dataclass(frozen=True)
class Bank:
    """A memory of ``depth`` rows of ``words`` words of ``width`` bits.

    ``kind``: ``block`` has one read and one write port; ``late`` is ``block`` with a register before the address of a
    read, in place of one after its row, which is wider where the memory has none inside; ``single_port`` has one port
    for both, and is for the data set: its loader waits while a kernel reads. ``loader``: the loader alone writes it.
    ``lut_words``: how many words of a row lie in LUT RAM, evenly among those in block RAM.
    """

    name: str
    words: int
    width: int
    depth: int
    kind: BankKind = "block"
    loader: bool = False
    lut_words: int = 0

    @property
    def read_delay(self) -> int:
        """Cycles from a read's address to the memory's reading it: no write may reach the row before."""
        return int(self.kind == "late")


@dataclass(frozen=True)
class Placement:
    """Where an array lies: ``bank`` and the ``base`` row of its first element.

    An array packed along its *vector axis* ``axis``, of ``length`` elements, holds position q of that axis, element r
    of the others, in row ``base + (q // P) * elements + r``, lane ``q % P``. An array that isn't packed (``axis``
    None) holds element r in row ``base + r``; its ``length`` is 1. ``shape`` is that of one tile. ``slots`` copies
    follow one another, ``slot_rows`` apart (tiles of the data set, or of the predictions).
    """

    array: str
    bank: str
    base: int
    elements: int
    axis: int | None
    length: int
    shape: tuple[int, ...]
    slots: int
    slot_rows: int


@dataclass(frozen=True)
class Operand:
    """A stream of rows, or of single words, of ``array``; one stride for each level of the kernel.

    The row is ``base + sum(strides * index) + (q // P) * elements`` where ``q = position + sum(steps * index)`` is the
    position along the vector axis; of a word, ``q % P`` is the lane. In a stream of rows the lanes' loop counts whole
    rows, and ``q`` is 0: its stride is the array's ``elements``. Where an index leaves any of ``bounds`` (strides by
    level, too), the stream's words are 0 and its address means nothing.
    """

    array: str
    row: bool
    base: int
    strides: tuple[int, ...]
    position: int
    steps: tuple[int, ...]
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Narrowing:
    """``saturate((value + 2**(shift-1)) >> shift, width)``; a negative ``shift`` multiplies by ``2**-shift``."""

    shift: int
    width: int
    counter: str | None


@dataclass(frozen=True)
class Ramp:
    """``offset + sum(strides * index)``, a number for each iteration; one stride for each level."""

    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Combination:
    """What becomes of a reduced value r before it is narrowed.

    The value is r (``kind`` ``alone``), ``r + other * 2**shift`` (``add``), ``r - other * 2**shift`` (``subtract``),
    ``other * 2**shift`` (``replace``), or that where ``condition`` is above 0 and r elsewhere (``select``).
    It counts where ``condition`` is above 0 (but for ``select``), r is ``position``, and, where it is ``rectified``,
    the value itself is above 0; elsewhere the narrowed word is 0, and clamps nothing.

    With a ``boost``, ``condition`` or ``rectified`` (one of the two) masks nothing: where that holds, the value counts
    ``2**boost`` times, else once; with a negative one, once where it holds, else ``2**-boost`` times.

    ``"factor"`` is the word that the lane multiplies by a constant, ``"reduced"`` is r.
    """

    kind: Kind = "alone"
    other: Operand | Literal["factor"] | None = None
    shift: int = 0
    condition: Operand | Literal["factor", "reduced"] | None = None
    position: Ramp | None = None
    rectified: bool = False
    boost: int = 0

    def operands(self) -> tuple[Operand, ...]:
        """The streams that are read."""
        return tuple(o for o in (self.other, self.condition) if isinstance(o, Operand))


@dataclass(frozen=True)
class Subtraction:
    """``narrow(value * 2**value_shift - other * 2**other_shift)``."""

    other: Operand
    value_shift: int
    other_shift: int
    narrowing: Narrowing


@dataclass(frozen=True)
class RowWrite:
    """One write of the slow path: z itself (``function`` None) or a function of it, minus another array where given."""

    target: Operand
    function: str | None
    subtraction: Subtraction | None


@dataclass(frozen=True)
class SlowPath:
    """The slow path's work for one kernel: z is the narrowed value of ``combination``, then one or two writes.

    ``counters``: all that count where z is clamped, that of ``narrowing`` first.
    ``reduced``: None where the sums are a row of the lanes' accumulators; else the tree sums the lanes' products over
    that many levels, and the path treats single words.
    """

    reduced: int | None
    combination: Combination
    narrowing: Narrowing
    counters: tuple[str, ...]
    writes: tuple[RowWrite, ...]


@dataclass(frozen=True)
class Finish:
    """One write of a narrowed value: the value itself, or for an ``update`` ``saturate(old - round(value))``.

    ``flat`` is the stream of the word's index among the array's words, from 0, and ``draw`` the flat parameter index of
    the first, which keys a stochastic rounding (None: to nearest).
    """

    target: Operand
    narrowing: Narrowing
    update: bool
    flat: Operand
    draw: int | None


@dataclass(frozen=True)
class FullPath:
    """The full-width path's work: narrow the value of ``combination`` in every lane and write a row, or two."""

    combination: Combination
    writes: tuple[Finish, ...]


@dataclass(frozen=True)
class SumPath:
    """The tree's work: sum across the lanes, accumulate over the innermost ``reduced`` levels, finish one word or two.

    ``source``: the lanes' products, or the rows that the full-width path writes first.
    """

    source: Literal["product", "row"]
    reduced: int
    combination: Combination
    writes: tuple[Finish, ...]


@dataclass(frozen=True)
class MachineKernel:
    """One kernel as the machine runs it.

    ``trips``: iterations of each level, outermost first. The innermost ``reduced`` levels accumulate in the lanes:
    their ``reduction`` is a sum, the greatest, or the place of the first of the greatest, from 0.
    ``pad``: bubbles at the end of each reduction, in iterations of its outermost level.
    ``a``: a row, a word for every lane, or a constant for every lane; ``b``: a row, or a word or constant in lane 0 and
    zeros elsewhere. ``a_round``, ``b_round``: low bits rounded off (the compute copy of a master weight).
    ``batch_level``: the level that runs over samples, or None; ``lane_level``: the one that is spread over the lanes,
    of ``lane_length`` elements, or None.
    """

    name: str
    trips: tuple[int, ...]
    reduction: Reduction
    reduced: int
    pad: int
    a: Operand | int
    a_round: int
    b: Operand | int
    b_round: int
    slow: SlowPath | None
    full: FullPath | None
    sum: SumPath | None
    batch_level: int | None
    lane_level: int | None
    lane_length: int

    @property
    def levels(self) -> int:
        """The number of loop levels."""
        return len(self.trips)

    @property
    def cycles(self) -> int:
        """Cycles in which the kernel issues iterations, bubbles included."""
        total = 1
        for level, trip in enumerate(self.trips):
            padded = self.pad if self.reduced and level == self.levels - self.reduced else 0
            total *= trip + padded
        return total

    @property
    def sums_samples(self) -> bool:
        """Whether the tree sums over samples, so that its words are complete only after the last tile."""
        if self.sum is None or self.batch_level is None:
            return False
        return self.batch_level >= self.levels - self.sum.reduced

    def operands(self) -> tuple[Operand, ...]:
        """All streams of the kernel."""
        found: list[Operand] = [o for o in (self.a, self.b) if isinstance(o, Operand)]
        if self.slow:
            found += self.slow.combination.operands()
            for write in self.slow.writes:
                found += [write.target] + ([write.subtraction.other] if write.subtraction else [])
        for path in (self.full, self.sum):
            if path:
                found += [*path.combination.operands(), *(write.target for write in path.writes)]
        return tuple(found)


@dataclass(frozen=True)
class Phase:
    """Kernels with their start cycles, relative to the start of the phase, and the cycles until what follows it."""

    kernels: tuple[MachineKernel, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Routine:
    """``step`` or ``predict``: the ``tile`` phase runs once for every tile, ``tile_period`` cycles apart; the
    ``final`` phase starts ``final_start`` cycles after the last tile's start; ``period`` is the number of cycles from
    the start of the routine to the earliest start of the next."""

    name: str
    tile: Phase
    final: Phase
    tiles: int
    tile_period: int
    final_start: int
    period: int


@dataclass(frozen=True)
class Program:
    """All that the hardware generator needs to know.

    ``lanes`` P; ``slow_words`` E; ``tile`` samples per tile; ``batch`` samples per step; ``multiplier`` operand bits;
    ``accumulator``, ``sum_accumulator`` bits of the lanes' and of the tree's accumulator; ``timing`` the latencies of
    the paths as these programs need them.
    """

    lanes: int
    slow_words: int
    batch: int
    tile: int
    multiplier: int
    accumulator: int
    sum_accumulator: int
    banks: Mapping[str, Bank]
    placements: Mapping[str, Placement]
    routines: tuple[Routine, ...]
    functions: Mapping[str, Function]
    timing: Timing
    counters: tuple[str, ...]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    outputs: tuple[str, ...]
    stochastic: bool
    partial_bank: str | None
    resident: bool

    @property
    def tiles(self) -> int:
        """Tiles per step."""
        return -(-self.batch // self.tile)

    @property
    def tail(self) -> int:
        """Samples in the last tile."""
        return self.batch - (self.tiles - 1) * self.tile

    @property
    def slots(self) -> int:
        """Tiles of samples that the input banks hold."""
        return self.placements[self.inputs[0]].slots

    @property
    def data_set_banks(self) -> tuple[str, ...]:
        """The banks that hold samples."""
        return tuple(sorted({self.placements[name].bank for name in (*self.inputs, *self.targets)}))

    @property
    def kernels(self) -> tuple[MachineKernel, ...]:
        """All kernels of all routines, in the order in which the sequencer numbers them."""
        return tuple(k for r in self.routines for k in (*r.tile.kernels, *r.final.kernels))

    @property
    def beats(self) -> int:
        """Cycles that the slow path needs for one row: ceil(P / E)."""
        return -(-self.lanes // self.slow_words)

    @property
    def predicts_only(self) -> bool:
        """Whether there is no ``step``: the core then predicts every sample that it is given, unasked."""
        return all(r.name != "step" for r in self.routines)

    @property
    def reads_while_loading(self) -> bool:
        """Whether the first kernel reads a sample's words in the order in which they arrive, so that it may begin
        with the first of them."""
        first = self.kernels[0]
        streams = [o for o in (first.a, first.b) if isinstance(o, Operand) and o.array in self.inputs]
        if not self.predicts_only or self.batch != 1 or len(streams) != 1 or streams[0].row:
            return False
        *outer, inner = zip(first.trips, streams[0].strides, strict=True)
        place = self.placements[streams[0].array]
        return place.axis is None and inner == (place.elements, 1) and all(t == 1 or s == 0 for t, s in outer)

    @property
    def identity(self) -> int:
        """A 64-bit hash of the whole program: two designs that answer alike have the same."""
        text = repr((self, sorted(self.banks.items()), sorted(self.placements.items()), sorted(self.functions.items())))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def routine(self, name: str) -> Routine:
        """The routine called ``name``."""
        return next(r for r in self.routines if r.name == name)
