"""Packing: which axis of each array lies across the lanes, and which loop of each kernel does.

A kernel may spread one loop over the lanes. Arrays that this loop indexes must have that axis as their *vector axis*
and are read or written as rows; all others are read or written as single words. If the loop is reduced, the lanes'
products are summed by the tree (a dot), otherwise each lane accumulates its own result (a mac, or a map). One vector
axis must serve all kernels that touch an array, so the choice is joint: an integer program over "kernel k spreads loop
l" and "array a is packed along axis v", which HiGHS solves exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import highspy
import numpy as np

from catgrad_hw.errors import ScheduleError
from catgrad_hw.ir.kernel import Access, Array
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.events import inside
from catgrad_hw.schedule.form import PLAIN, Form

Axis = int | None

INFINITY = float("inf")

ROW_UPDATE_COST = 0.01
"""Cycles, as a share of the step's, that are worth paying to do without a full-width update path."""
LANE_READ_COST = 0.002
"""The same for a word that must be picked out of a row."""
WORD_COST = 1e-3
"""Cycles that a word of memory is worth."""
PREDICT_WEIGHT = 0.05
"""What a cycle of ``predict`` counts for, beside one of ``step``."""


@dataclass(frozen=True)
class Option:
    """A way to run a form: loop ``lane`` across the lanes (None: one product a cycle), in ``cycles`` cycles.

    ``axes``: what it asks of arrays' vector axes; ``barred``: those that they can't have, for its words would run
    through them (:func:`reaches`). ``rides``: its side sum needs no kernel of its own.
    """

    form: Form
    lane: int | None
    cycles: int
    axes: tuple[tuple[str, Axis], ...]
    barred: tuple[tuple[str, int], ...]
    row_update: bool
    lane_reads: tuple[str, ...]
    rides: bool


@dataclass(frozen=True)
class Packing:
    """The choice: the vector axis of each array, and for each routine the forms in order with their lane loop.

    ``full_path``: the full-width path makes rows wherever it can, not only what it alone can make.
    """

    axes: Mapping[str, Axis]
    kernels: Mapping[str, tuple[tuple[Form, int | None], ...]]
    full_path: bool = True


def split(stride: int, length: int, inner: int) -> tuple[int, int, int]:
    """``stride`` as (outer, along, within) an axis of ``length`` elements that are ``inner`` apart, all of one sign:
    what reaches back from the first element of an array, into padding, stays within."""
    outer, rest = divmod(abs(stride), length * inner)
    along, within = divmod(rest, inner)
    return (-outer, -along, -within) if stride < 0 else (outer, along, within)


def axis_of(array: Array, access: Access, loop: int, size: int) -> int | None:
    """The axis of ``array`` that loop ``loop`` of ``size`` iterations runs along, element by element and alone.

    None if there is no such axis: the loop isn't a whole axis of the array.
    """
    stride = access.strides[loop]
    inner = 1
    for axis in reversed(range(len(array.shape))):
        length = array.shape[axis]
        if inner == stride and length == size and size > 1:
            others = [s for level, s in enumerate(access.strides) if level != loop and s]
            alone = all(s % (inner * length) == 0 or abs(s) < inner for s in others)
            return axis if alone and split(access.offset, length, inner)[1] == 0 else None
        inner *= length
    return None


def reaches(array: Array, access: Access, axis: int, sizes: Sequence[int]) -> bool:
    """Whether every word of ``access``, in loops of ``sizes``, lies at a place along ``axis`` that is affine in the
    loop indices: that of :func:`split`'s parts. It does not where one loop runs through several axes.
    """
    inner = 1
    for size in array.shape[axis + 1 :]:
        inner *= size
    length = array.shape[axis]
    # Levels that no bound has go to their ends, whatever the others do; those that bounds have are gone through.
    bounded = [any(bound.strides[level] for bound in access.bounds) for level in range(len(sizes))]
    trips = [size if inside_bounds else 1 for size, inside_bounds in zip(sizes, bounded, strict=True)]
    index = np.indices(trips, dtype=np.int64).reshape(len(trips), -1)
    index = index[:, inside(access.bounds, index)]
    steps = [split(stride, length, inner)[1:] for stride in access.strides]
    for first, *parts, limit in zip(split(access.offset, length, inner)[1:], *steps, (length, inner), strict=True):
        places = first + np.array(parts, dtype=np.int64) @ index
        ends = [part * (size - trip) for part, size, trip in zip(parts, sizes, trips, strict=True)]
        low, high = sum(min(0, end) for end in ends), sum(max(0, end) for end in ends)
        if ((places + low < 0) | (places + high >= limit)).any():
            return False
    return True


_reaches = lru_cache(maxsize=4096)(reaches)
"""Asked again for every number of lanes that is tried."""


def options(
    program: IntegerProgram, form: Form, lanes: int, tile: int, tiles: int, full_path: bool = True
) -> list[Option]:
    """Every way in which the machine can run ``form``."""
    arrays = program.kernels.arrays
    outer = len(form.loops) - form.reduced
    sizes = tuple(tile if loop.batch else loop.size for loop in form.loops)
    stored = {store.access.array for store in form.stores}
    read = any(factor.access for factor in form.factors)
    riders: tuple[Access, ...] = ()
    if form.rider:
        riders = (*form.rider.combination.accesses, *(store.access for store in form.rider.stores))
    barred = {
        access: {
            (access.array, axis)
            for axis, size in enumerate(arrays[access.array].shape)
            if size > 1 and not _reaches(arrays[access.array], access, axis, sizes)
        }
        for access in (*form.accesses, *riders)
    }
    found: list[Option] = []
    for lane in (None, *range(len(form.loops))):
        cycles = 1
        for level, size in enumerate(sizes):
            cycles *= -(-size // lanes) if level == lane else size
        axes: dict[str, Axis] = {}
        words: list[str] = []
        never: set[tuple[str, int]] = set()
        legal = True
        for access in form.accesses:
            # Lanes keep a bound together: a row, or a word that all of them get.
            legal &= lane is None or not any(bound.strides[lane] for bound in access.bounds)
            if lane is not None and access.strides[lane]:
                axis = axis_of(arrays[access.array], access, lane, form.loops[lane].size)
                legal &= axis is not None and axes.setdefault(access.array, axis) == axis
            else:
                words.append(access.array)
                never |= barred[access]
        rows_out = lane is not None and lane < outer
        in_full_path = uses_full_path(form, rows_out, full_path)
        if lane is not None and read:
            legal &= any(factor.access and factor.access.strides[lane] for factor in form.factors)
        if rows_out:
            legal &= all(store.access.strides[lane] != 0 and store.draw is None for store in form.stores)
            legal &= not (tiles > 1 and form.sums_samples) and (in_full_path or not form.updates)
        else:
            legal &= all(lane is None or not store.access.strides[lane] for store in form.stores)
            legal &= lane is None or not form.needs_full_path
            legal &= not (tiles > 1 and form.sums_samples and form.needs_slow_path)
            if form.needs_full_path:  # lane 0 alone, so there is no lane to pick
                legal &= all(axes.setdefault(name, None) is None for name in stored)
            for store in form.stores:
                legal &= not store.update or axes.setdefault(store.access.array, None) is None
        if any(axes.get(name) is not None for name in words):
            legal = False  # one array as rows and as words in one kernel
        if not legal:
            continue
        rides = False
        if form.rider and in_full_path:
            innermost = {loop.name for loop in form.loops[len(form.loops) - len(form.rider.over) :]}
            rides = rows_out and innermost == set(form.rider.over) and form.loops[lane or 0].name in innermost
            if rides:
                never |= {pair for access in riders for pair in barred[access]}
                for store in form.rider.stores:
                    if store.update:
                        axes[store.access.array] = None
        updates = form.updates and not rows_out
        reads = tuple(dict.fromkeys(name for name in words if name not in stored or updates))
        found.append(
            Option(
                form,
                lane,
                cycles,
                tuple(sorted(axes.items())),
                tuple(sorted(never)),
                form.updates and rows_out,
                reads,
                rides,
            )
        )
    return found


def uses_full_path(form: Form, rows_out: bool, full_path: bool) -> bool:
    """Whether the full-width path makes the form's result, of a lanes' loop that is kept (``rows_out``) or not, where
    it does so if it can (``full_path``) or only if it must.

    Sums that something is combined with have time for the slow path, which treats fewer words a cycle.
    """
    if form.needs_full_path:
        return True
    alone = not form.reduced or form.updates or form.combination == PLAIN
    return full_path and rows_out and alone and not form.needs_slow_path


def pack(
    program: IntegerProgram,
    routines: Mapping[str, Sequence[Form]],
    lanes: int,
    tile: int,
    tiles: int,
    narrow: bool = False,
    unpacked: Sequence[str] = (),
    full_path: bool = True,
) -> Packing:
    """Choose vector axes and lane loops so that a step takes the fewest cycles.

    ``narrow``: arrays without a batch axis (parameters and gradients) stay single words; so do those of ``unpacked``.
    ``full_path``: as in :class:`Packing`.

    Raises:
        ScheduleError: no choice is legal, which no program of legal forms should meet.
    """
    problem = _Problem(program, lanes, tile, tiles, full_path)
    for name in dict.fromkeys(a.array for fs in routines.values() for f in fs for a in _all_accesses(f)):
        array = program.kernels.arrays[name]
        drawn = program.stochastic and name in program.kernels.parameters
        problem.array(name, drawn or (narrow and array.batch_axis is None) or name in unpacked)
    for routine, parsed in routines.items():
        weight = 1.0 if routine == "step" or "step" not in routines else PREDICT_WEIGHT
        for form in parsed:
            ways = problem.form(routine, form, weight, [problem.one])
            alone = [variable for option, variable in ways if not option.rides]
            if form.rider and alone:
                problem.form(routine, form.without_rider()[1], weight, alone)
    return problem.solve(routines)


class _Problem:
    """The integer program, built piece by piece. A variable, 0 or 1, is its number."""

    def __init__(self, program: IntegerProgram, lanes: int, tile: int, tiles: int, full_path: bool) -> None:
        self.program, self.lanes, self.tile, self.tiles, self.full_path = program, lanes, tile, tiles, full_path
        self.costs: list[float] = []
        self.lows: list[float] = []
        self.highs: list[float] = []
        self.rows: list[dict[int, float]] = []
        self.axis: dict[tuple[str, Axis], int] = {}
        self.chosen: dict[str, list[tuple[Option, int]]] = {}
        self.one, self.row_update, self.lane_read = (self.variable(0.0) for _ in range(3))
        self.require(1.0, {self.one: 1.0}, 1.0)
        self.ideal = 0.0

    def variable(self, cost: float) -> int:
        """A new variable, and what it costs where it is 1."""
        self.costs.append(cost)
        return len(self.costs) - 1

    def require(self, low: float, terms: Mapping[int, float], high: float) -> None:
        """``low <= sum(factor * variable) <= high``, with the factors of ``terms``."""
        self.lows.append(low)
        self.highs.append(high)
        self.rows.append(dict(sorted(terms.items())))

    def array(self, name: str, unpacked: bool) -> None:
        """One vector axis for ``name``, or none; only none where ``unpacked``."""
        array = self.program.kernels.arrays[name]
        shape = [self.tile if i == array.batch_axis else size for i, size in enumerate(array.shape)]
        total = 1
        for size in shape:
            total *= size
        choices: list[Axis] = [None] if unpacked else [None, *(i for i, size in enumerate(shape) if size > 1)]
        for choice in choices:
            rows = total if choice is None else total // shape[choice] * -(-shape[choice] // self.lanes)
            cost = WORD_COST * rows * (1 if choice is None else self.lanes)
            self.axis[name, choice] = self.variable(cost)
        self.require(1.0, {self.axis[name, choice]: 1.0 for choice in choices}, 1.0)

    def form(self, routine: str, form: Form, weight: float, needed: Sequence[int]) -> list[tuple[Option, int]]:
        """One way to run ``form``, if one of the variables ``needed`` is 1."""
        ways = options(self.program, form, self.lanes, self.tile, self.tiles, self.full_path)
        ways = [option for option in ways if all(axis in self.axis for axis in option.axes)]
        if not ways:
            raise ScheduleError(f"{form.name}: no loop can be spread over the lanes, nor can it run on one")
        repeat = self.tiles if form.batch_level is not None else 1
        # a hair for the kernel itself, so that a side sum rides where that costs nothing
        picked = [(option, self.variable(weight * repeat * (option.cycles + 0.01))) for option in ways]
        self.ideal += weight * repeat * min(option.cycles for option in ways)
        for option, variable in picked:
            for requirement in option.axes:
                self.require(-INFINITY, {variable: 1.0, self.axis[requirement]: -1.0}, 0.0)
            for refused in option.barred:
                if refused in self.axis:
                    self.require(-INFINITY, {variable: 1.0, self.axis[refused]: 1.0}, 1.0)
            if option.row_update:
                self.require(-INFINITY, {variable: 1.0, self.row_update: -1.0}, 0.0)
            for name in option.lane_reads:
                self.require(0.0, {self.axis[name, None]: 1.0, self.lane_read: 1.0, variable: -1.0}, INFINITY)
        sign = 1.0 if len(picked) >= len(needed) else -1.0
        taken = {variable: sign for _, variable in picked}
        self.require(0.0, taken | dict.fromkeys(needed, -sign), 0.0)
        self.chosen.setdefault(routine, []).extend(picked)
        return picked

    def solve(self, routines: Mapping[str, Sequence[Form]]) -> Packing:
        self.costs[self.row_update] = ROW_UPDATE_COST * self.ideal
        self.costs[self.lane_read] = LANE_READ_COST * self.ideal
        values = _minimum(self.costs, self.lows, self.rows, self.highs)
        axes = {name: choice for (name, choice), variable in self.axis.items() if values[variable]}
        kernels: dict[str, tuple[tuple[Form, int | None], ...]] = {}
        for routine in routines:
            kernels[routine] = tuple(
                (option.form if option.rides or not option.form.rider else option.form.without_rider()[0], option.lane)
                for option, variable in self.chosen[routine]
                if values[variable]
            )
        return Packing(axes, kernels, self.full_path)


def _minimum(
    costs: Sequence[float], lows: Sequence[float], rows: Sequence[Mapping[int, float]], highs: Sequence[float]
) -> list[bool]:
    """Which of the variables are 1 at the least cost, where each row of factors is between its ``lows`` and ``highs``.

    HiGHS is handed the whole model at once: variable by variable, building it takes as long as solving it.
    """
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(costs), len(rows)
    model.col_cost_ = np.array(costs)
    model.col_lower_, model.col_upper_ = np.zeros(len(costs)), np.ones(len(costs))
    model.integrality_ = [highspy.HighsVarType.kInteger] * len(costs)
    model.row_lower_, model.row_upper_ = np.array(lows), np.array(highs)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    model.a_matrix_.index_ = np.array([variable for row in rows for variable in row], dtype=np.int32)
    model.a_matrix_.value_ = np.array([factor for row in rows for factor in row.values()])
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.silent()
    solver.setOptionValue("random_seed", 1)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise ScheduleError(f"packing: expected an optimal choice, found {solver.getModelStatus()}")
    return [value > 0.5 for value in solver.getSolution().col_value]


def _all_accesses(form: Form) -> tuple[Access, ...]:
    return form.accesses + (form.without_rider()[1].accesses if form.rider else ())
