"""What a machine kernel does to banks and shared units, and in which cycle, counted from its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.ir.kernel import Bound
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.program import Combination, MachineKernel, Operand, Program

Cycles = NDArray[np.int64]

CAPTURE_REGISTER = "capture register of the slow path"
TREE = "adder tree"
FULL_PATH = "full-width path"


@dataclass(frozen=True)
class Use:
    """Uses of one bank or unit: rising ``cycles`` from the start of the kernel, and the ``rows`` touched (none in a
    unit)."""

    unit: str
    rows: Cycles
    cycles: Cycles


NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Events:
    """All uses of one kernel."""

    reads: tuple[Use, ...]
    writes: tuple[Use, ...]
    units: tuple[Use, ...]


def partial_name(array: str) -> str:
    """The name of the placement that keeps the partial sums of ``array``'s gradient from tile to tile."""
    return f"partial {array}"


def _grid(kernel: MachineKernel) -> Cycles:
    """The index of every level, for every iteration in order."""
    return np.indices(kernel.trips, dtype=np.int64).reshape(kernel.levels, prod(kernel.trips))


def issue_cycles(kernel: MachineKernel) -> Cycles:
    """The cycle of every iteration, in order; they rise."""
    grid = _grid(kernel)
    issue = np.zeros(grid.shape[1], dtype=np.int64)
    span = 1
    for level in reversed(range(kernel.levels)):
        issue += grid[level] * span
        padded = kernel.pad if kernel.reduced and level == kernel.levels - kernel.reduced else 0
        span *= kernel.trips[level] + padded
    return issue


def inside(bounds: Sequence[Bound], index: Cycles) -> NDArray[np.bool_]:
    """Whether each iteration, a column of indices by level, keeps all ``bounds``."""
    found = np.ones(index.shape[1], dtype=bool)
    for bound in bounds:
        place = bound.offset + np.array(bound.strides, dtype=np.int64) @ index
        found &= (place >= 0) & (place < bound.size)
    return found


def events(program: Program, kernel: MachineKernel) -> Events:
    """The uses of ``kernel``, assuming slot 0 of arrays that have several."""
    lanes, latencies = program.lanes, program.timing
    grid, issue = _grid(kernel), issue_cycles(kernel)

    def rows(operand: Operand, select: Cycles) -> Cycles:
        placement = program.placements[operand.array]
        chosen = grid[:, select]
        position = operand.position + np.array(operand.steps, dtype=np.int64) @ chosen
        result: Cycles = placement.base + operand.base + np.array(operand.strides, dtype=np.int64) @ chosen
        result += position // lanes * placement.elements
        if operand.bounds:  # what is read outside of them doesn't matter: any row of the array will do
            last = placement.base + placement.slots * placement.slot_rows - 1
            result = np.where(inside(operand.bounds, chosen), result, np.clip(result, placement.base, last))
        return result

    def use(operand: Operand, select: Cycles, presented: int) -> Use:
        bank = program.placements[operand.array].bank
        return Use(bank, rows(operand, select), issue[select] + presented)

    def last(levels: int) -> Cycles:
        ends = np.ones(grid.shape[1], dtype=bool)
        for level in range(kernel.levels - levels, kernel.levels):
            ends &= grid[level] == kernel.trips[level] - 1
        found: Cycles = np.flatnonzero(ends).astype(np.int64)
        return found

    every = np.arange(grid.shape[1], dtype=np.int64)
    factors = [o for o in (kernel.a, kernel.b) if isinstance(o, Operand)]
    reads = [use(o, every, timing.presented(timing.operand_trigger(o.row))) for o in factors]
    writes: list[Use] = []
    units: list[Use] = []
    row_last = last(kernel.reduced)

    def combined(combination: Combination, select: Cycles, trigger: int) -> None:
        for operand in combination.operands():
            reads.append(use(operand, select, timing.presented(trigger)))

    if kernel.slow:
        slow = kernel.slow
        words = slow.reduced is not None
        outputs = last(slow.reduced) if slow.reduced is not None else row_last
        capture = latencies.capture(words)
        if words:
            units.append(Use(TREE, NO_ROWS, issue + timing.PRODUCT))
        combined(slow.combination, outputs, timing.held_trigger(capture))
        for beat in range(1 if words else program.beats):
            units.append(Use(CAPTURE_REGISTER, NO_ROWS, issue[outputs] + capture + beat))
            writes += [use(w.target, outputs, capture + latencies.slow_stages + beat) for w in slow.writes]
        for write in slow.writes:
            if write.subtraction:
                other = write.subtraction.other
                trigger = timing.held_trigger(capture + latencies.subtract_stage)
                reads.append(use(other, outputs, timing.presented(trigger)))
    if kernel.full:
        units.append(Use(FULL_PATH, NO_ROWS, issue[row_last] + timing.ACCUMULATOR + 1))
        combined(kernel.full.combination, row_last, timing.COMBINED_TRIGGER)
        for finish in kernel.full.writes:
            writes.append(use(finish.target, row_last, latencies.full_write))
            if finish.update:
                reads.append(use(finish.target, row_last, timing.presented(latencies.old_row_trigger)))
    if kernel.sum:
        total = kernel.sum
        entry = timing.PRODUCT if total.source == "product" else latencies.full_write
        units.append(Use(TREE, NO_ROWS, issue + entry))
        sum_last = last(total.reduced)
        ready = latencies.sum_ready(total.source)
        combined(total.combination, sum_last, ready + timing.SUM_COMBINED)
        for finish in total.writes:
            writes.append(use(finish.target, sum_last, ready + latencies.sum_write))
            if finish.update:
                trigger = ready + latencies.sum_update - timing.ROW_LATENCY
                reads.append(use(finish.target, sum_last, timing.presented(trigger)))
        if program.tiles > 1 and kernel.sums_samples:
            first = total.writes[0]
            operand = replace(first.flat, array=partial_name(first.target.array))
            reads.append(use(operand, sum_last, timing.presented(ready - timing.OUTPUT)))
            writes.append(use(operand, sum_last, ready + timing.PARTIAL_WRITE))
    return Events(tuple(reads), tuple(writes), tuple(units))


def results_delay(program: Program) -> int:
    """Cycles from the last issue of ``predict`` until the cycle before its results may be read.

    They are read in flat order, one word a cycle. Single words that were written in that order, row after row, may be
    read as they land; otherwise all must have landed. The kernels' own reads must be over: they use the same ports.
    """
    kernel = program.kernels[-1]
    place = program.placements[program.outputs[0]]
    uses = events(program, kernel)
    landed, rows = (
        np.concatenate([getattr(use, name) for use in uses.writes if use.unit == place.bank])
        for name in ("cycles", "rows")
    )
    words = np.arange(landed.size)
    flat = place.axis is None or prod(place.shape[: place.axis]) == 1
    single = program.tiles == 1 and landed.size == prod(place.shape) and bool((np.diff(landed) > 0).all())
    in_order = flat and single and np.array_equal(rows, place.base + words)
    first = int((landed - words).max() if in_order else landed.max()) + 1
    first = max(first, *(int(use.cycles.max()) + 1 for use in uses.reads))
    return max(0, first - 1 - (kernel.cycles - 1))
