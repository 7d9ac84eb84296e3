"""Instruction selection: forms become machine kernels, for a given packing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from catgrad_hw.ir.kernel import Access, Array
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.form import PLAIN, Form, Store, tile_phase
from catgrad_hw.schedule.form import Combination as FormCombination
from catgrad_hw.schedule.packing import Axis, Packing, split, uses_full_path
from catgrad_hw.schedule.program import (
    Combination,
    Finish,
    FullPath,
    MachineKernel,
    Operand,
    Ramp,
    RowWrite,
    SlowPath,
    Subtraction,
    SumPath,
)

Stream = TypeVar("Stream")


@dataclass(frozen=True)
class Selection:
    """The machine kernels of one routine: those of the tile phase, then those of the final phase."""

    tile: tuple[MachineKernel, ...]
    final: tuple[MachineKernel, ...]


def select(program: IntegerProgram, packing: Packing, lanes: int, tile: int, beats: int) -> dict[str, Selection]:
    """Machine kernels for every routine; ``beats``: cycles that the slow path needs for a row."""
    result: dict[str, Selection] = {}
    for name, kernels in packing.kernels.items():
        chosen = tuple(_select(program, packing, form, lane, lanes, tile, beats) for form, lane in kernels)
        count = tile_phase([form for form, _ in kernels])
        result[name] = Selection(chosen[:count], chosen[count:])
    return result


def fewer_shifts(selections: Mapping[str, Selection], bits: Mapping[str, int], multiplier: int) -> dict[str, Selection]:
    """``selections`` with constant factors multiplied by powers of two, so that their products are rounded by a shift
    that other kernels of the full-width path have, too: each lane chooses among fewer.

    ``bits``: of the accumulators, by kernel; none takes more than the greatest. ``multiplier``: bits of a factor.
    """

    def scalable(kernel: MachineKernel) -> bool:
        sums = kernel.sum is not None and kernel.sum.source == "product"
        plain = kernel.full is not None and kernel.full.combination == Combination() and len(kernel.full.writes) == 1
        return plain and isinstance(kernel.a, int) and kernel.reduction == "sum" and not kernel.slow and not sums

    kernels = [k for s in selections.values() for k in (*s.tile, *s.final) if k.full]
    shifts = {write.narrowing.shift for k in kernels if k.full and not scalable(k) for write in k.full.writes}
    greatest = max((bits[k.name] for k in kernels), default=0)

    def scaled(kernel: MachineKernel) -> MachineKernel:
        if not scalable(kernel):
            return kernel
        assert isinstance(kernel.a, int)
        assert kernel.full
        (write,) = kernel.full.writes
        narrowing = write.narrowing
        most = min(greatest - bits[kernel.name], multiplier - 1 - abs(kernel.a).bit_length())
        found = [more for more in range(most + 1) if narrowing.shift + more in shifts]
        more = found[0] if found else 0
        shifts.add(narrowing.shift + more)
        write = replace(write, narrowing=replace(narrowing, shift=narrowing.shift + more))
        return replace(kernel, a=kernel.a << more, full=replace(kernel.full, writes=(write,)))

    return {
        name: Selection(*(tuple(map(scaled, part)) for part in (s.tile, s.final))) for name, s in selections.items()
    }


class _Streams:
    """Makes operands for the accesses of one kernel."""

    def __init__(
        self, arrays: Mapping[str, Array], axes: Mapping[str, Axis], form: Form, lane: int | None, tile: int
    ) -> None:
        self.arrays, self.axes, self.form, self.lane, self.tile = arrays, axes, form, lane, tile

    def operand(self, access: Access) -> Operand:
        array, axis = self.arrays[access.array], self.axes[access.array]
        none = (0,) * len(access.strides)
        if axis is None:
            return Operand(array.name, False, access.offset, access.strides, 0, none, access.bounds)
        inner = 1
        for size in array.shape[axis + 1 :]:
            inner *= size
        length = array.shape[axis]
        strides, steps = [], []
        for stride in access.strides:
            outer, step, within = split(stride, length, inner)
            strides.append(outer * inner + within)
            steps.append(step)
        outer, position, within = split(access.offset, length, inner)
        base = outer * inner + within
        if self.lane is None or not access.strides[self.lane]:
            return Operand(array.name, False, base, tuple(strides), position, tuple(steps), access.bounds)
        elements = 1
        for i, count in enumerate(array.shape):
            if i != axis:
                elements *= self.tile if i == array.batch_axis else count
        strides[self.lane] = elements
        return Operand(array.name, True, base, tuple(strides), 0, none, access.bounds)

    def flat(self, access: Access) -> Operand:
        return Operand(access.array, False, access.offset, access.strides, 0, (0,) * len(access.strides))

    def combination(self, found: FormCombination) -> Combination:
        other = self.operand(found.other) if isinstance(found.other, Access) else found.other
        condition = self.operand(found.condition) if isinstance(found.condition, Access) else found.condition
        position = Ramp(found.position.offset, found.position.strides) if found.position else None
        return Combination(found.kind, other, found.shift, condition, position, found.rectified, found.boost)

    def finishes(self, stores: Sequence[Store]) -> tuple[Finish, ...]:
        return tuple(Finish(self.operand(s.access), s.narrowing, s.update, self.flat(s.access), s.draw) for s in stores)

    def row_write(self, store: Store) -> RowWrite:
        subtraction = None
        if store.difference:
            d = store.difference
            subtraction = Subtraction(self.operand(d.other), d.value_shift, d.other_shift, d.narrowing)
        return RowWrite(self.operand(store.access), store.function, subtraction)


def _select(
    program: IntegerProgram, packing: Packing, form: Form, lane: int | None, lanes: int, tile: int, beats: int
) -> MachineKernel:
    streams = _Streams(program.kernels.arrays, packing.axes, form, lane, tile)
    sizes = [tile if loop.batch else loop.size for loop in form.loops]
    trips = tuple(-(-size // lanes) if level == lane else size for level, size in enumerate(sizes))

    # Which factor goes where: b is a row if any is; a is a row only if both are.
    operands = [(streams.operand(f.access) if f.access else f.constant, f.rounding) for f in form.factors]

    def rank(side: tuple[Operand | int, int]) -> int:
        return 0 if isinstance(side[0], int) else 2 if side[0].row else 1

    (a, a_round), (b, b_round) = sorted(operands, key=rank)
    keeps_factor = "factor" in (form.combination.other, form.combination.condition)
    if not isinstance(b, int) and not b.row and not keeps_factor:  # words alone: b's, or a constant, stands in lane 0
        (a, a_round), (b, b_round) = (b, b_round), (a, a_round)

    rows_out = lane is not None and lane < len(form.loops) - form.reduced
    in_lanes = uses_full_path(form, rows_out, packing.full_path)
    combination = streams.combination(form.combination)
    slow = full = total = None
    if in_lanes:
        full = FullPath(combination, streams.finishes(form.stores))
    elif not rows_out and not form.needs_slow_path and (form.updates or form.sums_samples or form.combination == PLAIN):
        total = SumPath("product", form.reduced, combination, streams.finishes(form.stores))
    else:
        writes = tuple(streams.row_write(store) for store in form.stores)
        counters = tuple(dict.fromkeys(s.narrowing.counter for s in form.stores if s.narrowing.counter))
        slow = SlowPath(None if rows_out else form.reduced, combination, form.stores[0].narrowing, counters, writes)
    if form.rider:
        rider = form.rider
        riding = streams.combination(rider.combination)
        total = SumPath("row", len(rider.over), riding, streams.finishes(rider.stores))
    kernel = MachineKernel(
        name=form.name,
        trips=trips,
        reduction=form.reduction,
        reduced=form.reduced if rows_out or in_lanes else 0,
        pad=0,
        a=a,
        a_round=a_round,
        b=b,
        b_round=b_round,
        slow=slow,
        full=full,
        sum=total,
        batch_level=form.batch_level,
        lane_level=lane,
        lane_length=sizes[lane] if lane is not None else 1,
    )
    return _padded(kernel, beats) if slow and rows_out else kernel


def _padded(kernel: MachineKernel, beats: int) -> MachineKernel:
    """Bubbles after each reduction, until the slow path has time for a row."""
    length = 1
    for trip in kernel.trips[kernel.levels - kernel.reduced :]:
        length *= trip
    missing = max(0, beats - length)
    if not missing:
        return kernel
    if kernel.reduced:
        return replace(kernel, pad=-(-missing // (length // kernel.trips[kernel.levels - kernel.reduced])))
    return replace(_deeper(kernel), pad=missing)


def _deeper(kernel: MachineKernel) -> MachineKernel:
    """The same kernel with one more, innermost, level of one iteration, which counts as a reduction."""

    def stream(operand: Stream) -> Stream:
        if not isinstance(operand, Operand):
            return operand
        bounds = tuple(replace(bound, strides=(*bound.strides, 0)) for bound in operand.bounds)
        return replace(operand, strides=(*operand.strides, 0), steps=(*operand.steps, 0), bounds=bounds)

    assert kernel.slow is not None
    combination = kernel.slow.combination
    writes = tuple(
        replace(
            write,
            target=stream(write.target),
            subtraction=replace(write.subtraction, other=stream(write.subtraction.other))
            if write.subtraction
            else None,
        )
        for write in kernel.slow.writes
    )
    return replace(
        kernel,
        trips=(*kernel.trips, 1),
        reduced=1,
        a=stream(kernel.a),
        b=stream(kernel.b),
        slow=replace(
            kernel.slow,
            combination=replace(combination, other=stream(combination.other), condition=stream(combination.condition)),
            writes=writes,
        ),
    )
