"""Instruction selection: forms become machine kernels, for a given packing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from catgrad_hw.errors import ScheduleError
from catgrad_hw.ir.kernel import Access, Array
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.form import Form, Store
from catgrad_hw.schedule.packing import Axis, Packing, axis_of
from catgrad_hw.schedule.program import (
    FullPath,
    MachineKernel,
    Narrowing,
    Operand,
    RowWrite,
    SlowPath,
    Subtraction,
    SumPath,
)


@dataclass(frozen=True)
class Selection:
    """The machine kernels of one routine: those of the tile phase, then those of the final phase."""

    tile: tuple[MachineKernel, ...]
    final: tuple[MachineKernel, ...]


def select(program: IntegerProgram, packing: Packing, lanes: int, tile: int, beats: int) -> dict[str, Selection]:
    """Machine kernels for every routine; ``beats``: cycles that the slow path needs for a row."""
    result: dict[str, Selection] = {}
    for name, kernels in packing.kernels.items():
        chosen = [_select(program, packing, form, lane, lanes, tile, beats) for form, lane in kernels]
        result[name] = Selection(
            tuple(kernel for kernel in chosen if kernel.batch_level is not None),
            tuple(kernel for kernel in chosen if kernel.batch_level is None),
        )
    return result


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
            return Operand(array.name, False, access.offset, access.strides, 0, none)
        inner = 1
        for size in array.shape[axis + 1 :]:
            inner *= size
        length = array.shape[axis]
        strides, steps = [], []
        for stride in access.strides:
            outer, rest = divmod(stride, length * inner)
            step, rest = divmod(rest, inner)
            strides.append(outer * inner + rest)
            steps.append(step)
        outer, rest = divmod(access.offset, length * inner)
        position, rest = divmod(rest, inner)
        base = outer * inner + rest
        if self.lane is None or not access.strides[self.lane]:
            for level, step in enumerate(steps):
                if step and axis_of(array, access, level, self.form.loops[level].size) != axis:
                    raise ScheduleError(f"{self.form.name}: {array.name} is packed along a part of an axis")
            return Operand(array.name, False, base, tuple(strides), position, tuple(steps))
        elements = 1
        for i, count in enumerate(array.shape):
            if i != axis:
                elements *= self.tile if i == array.batch_axis else count
        strides[self.lane] = elements
        return Operand(array.name, True, base, tuple(strides), 0, none)

    def flat(self, access: Access) -> Operand:
        return Operand(access.array, False, access.offset, access.strides, 0, (0,) * len(access.strides))


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
    if not isinstance(b, int) and not b.row:  # words alone: b's stands in lane 0, and a constant with it
        (a, a_round), (b, b_round) = (b, b_round), (a, a_round)

    rows_out = lane is not None and lane < len(form.loops) - form.reduced
    store = form.stores[0]
    slow = full = total = None
    if form.simple and rows_out:
        full = FullPath(form.narrowing, streams.operand(store.access), form.update)
    elif form.simple:
        total = _sum(streams, store.access, form.narrowing, form.reduced, form.update, form.draw, "product")
    else:
        slow = SlowPath(
            None if rows_out else form.reduced,
            streams.operand(form.bias) if form.bias else None,
            form.bias_shift,
            form.narrowing,
            tuple(_row_write(streams, s) for s in form.stores),
        )
    if form.rider:
        rider = form.rider
        total = _sum(streams, rider.store.access, rider.narrowing, len(rider.over), rider.update, rider.draw, "row")
    kernel = MachineKernel(
        name=form.name,
        trips=trips,
        reduced=form.reduced if rows_out else 0,
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


def _sum(
    streams: _Streams,
    access: Access,
    narrowing: Narrowing,
    reduced: int,
    update: bool,
    draw: int | None,
    source: Literal["product", "row"],
) -> SumPath:
    return SumPath(source, reduced, narrowing, streams.operand(access), streams.flat(access), update, draw)


def _row_write(streams: _Streams, store: Store) -> RowWrite:
    subtraction = None
    if store.difference:
        d = store.difference
        subtraction = Subtraction(streams.operand(d.other), d.value_shift, d.other_shift, d.narrowing)
    return RowWrite(streams.operand(store.access), store.table, subtraction)


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

    def stream(operand: Operand) -> Operand:
        return replace(operand, strides=(*operand.strides, 0), steps=(*operand.steps, 0))

    assert kernel.slow is not None
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
        a=kernel.a if isinstance(kernel.a, int) else stream(kernel.a),
        b=kernel.b if isinstance(kernel.b, int) else stream(kernel.b),
        slow=replace(kernel.slow, bias=stream(kernel.slow.bias) if kernel.slow.bias else None, writes=writes),
    )
