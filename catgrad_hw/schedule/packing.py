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

import highspy

from catgrad_hw.errors import ScheduleError
from catgrad_hw.ir.kernel import Access, Array
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.form import Form

Axis = int | None

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

    ``axes``: what it asks of arrays' vector axes. ``rides``: its side sum needs no kernel of its own.
    """

    form: Form
    lane: int | None
    cycles: int
    axes: tuple[tuple[str, Axis], ...]
    row_update: bool
    lane_reads: tuple[str, ...]
    rides: bool


@dataclass(frozen=True)
class Packing:
    """The choice: the vector axis of each array, and for each routine the forms in order with their lane loop."""

    axes: Mapping[str, Axis]
    kernels: Mapping[str, tuple[tuple[Form, int | None], ...]]


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
            return axis if alone and (access.offset // inner) % length == 0 else None
        inner *= length
    return None


def options(program: IntegerProgram, form: Form, lanes: int, tile: int, tiles: int) -> list[Option]:
    """Every way in which the machine can run ``form``."""
    arrays = program.kernels.arrays
    outer = len(form.loops) - form.reduced
    sizes = [tile if loop.batch else loop.size for loop in form.loops]
    over_samples = form.batch_level is not None and form.batch_level >= outer
    found: list[Option] = []
    for lane in (None, *range(len(form.loops))):
        cycles = 1
        for level, size in enumerate(sizes):
            cycles *= -(-size // lanes) if level == lane else size
        axes: dict[str, Axis] = {}
        words: list[str] = []
        legal = True
        for number, access in enumerate(form.accesses):
            if lane is not None and access.strides[lane]:
                axis = axis_of(arrays[access.array], access, lane, form.loops[lane].size)
                legal &= axis is not None and axes.setdefault(access.array, axis) == axis
            else:
                words.append(access.array)
        indexed = [f for f in form.factors if f.access and lane is not None and f.access.strides[lane]]
        rows_out = lane is not None and lane < outer
        if lane is not None:
            legal &= bool(indexed)
        if rows_out:
            legal &= all(store.access.strides[lane] != 0 for store in form.stores)
            legal &= form.draw is None and not (tiles > 1 and over_samples)
        else:
            legal &= all(lane is None or not store.access.strides[lane] for store in form.stores)
            if form.update:
                target = form.stores[0].access.array
                legal &= axes.setdefault(target, None) is None
        if any(axes.get(name, None) is not None for name in words):
            legal = False  # one array as rows and as words in one kernel
        if not legal:
            continue
        rides = False
        if form.rider and rows_out and lane is not None:
            innermost = tuple(loop.name for loop in form.loops[len(form.loops) - len(form.rider.over) :])
            rides = set(innermost) == set(form.rider.over) == {form.loops[lane].name}
            if rides and form.rider.update:
                axes[form.rider.store.access.array] = None
        reads = tuple(
            dict.fromkeys(
                name
                for name in words
                if name not in {store.access.array for store in form.stores} or (form.update and not rows_out)
            )
        )
        found.append(
            Option(form, lane, cycles, tuple(sorted(axes.items())), form.update and rows_out, reads, rides)
        )
    return found


def pack(
    program: IntegerProgram, routines: Mapping[str, Sequence[Form]], lanes: int, tile: int, tiles: int
) -> Packing:
    """Choose vector axes and lane loops so that a step takes the fewest cycles.

    Raises:
        ScheduleError: no choice is legal, which no program of legal forms should meet.
    """
    arrays = program.kernels.arrays
    used = list(dict.fromkeys(a.array for fs in routines.values() for f in fs for a in _all_accesses(f)))
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("random_seed", 1)
    solver.setOptionValue("threads", 1)
    objective: list[tuple[float, object]] = []

    axis: dict[tuple[str, Axis], object] = {}
    for name in used:
        array = arrays[name]
        shape = [tile if i == array.batch_axis else size for i, size in enumerate(array.shape)]
        total = 1
        for size in shape:
            total *= size
        choices: list[Axis] = [None, *(i for i, size in enumerate(shape) if size > 1)]
        if program.stochastic and name in program.kernels.parameters:
            choices = [None]
        variables = []
        for choice in choices:
            variable = solver.addBinary()
            axis[name, choice] = variable
            variables.append(variable)
            words = total if choice is None else total // shape[choice] * -(-shape[choice] // lanes) * lanes
            objective.append((WORD_COST * words, variable))
        solver.addConstr(sum(variables[1:], start=variables[0]) == 1)

    row_update, lane_read = solver.addBinary(), solver.addBinary()
    chosen: dict[str, list[tuple[Option, object]]] = {}
    ideal = 0.0
    for routine, parsed in routines.items():
        weight = 1.0 if routine == "step" or "step" not in routines else PREDICT_WEIGHT
        chosen[routine] = []

        def add(form: Form, needed: object) -> list[tuple[Option, object]]:
            ways = [o for o in options(program, form, lanes, tile, tiles) if all(a in axis for a in o.axes)]
            if not ways:
                raise ScheduleError(f"{form.name}: no loop can be spread over the lanes, nor can it run on one")
            picked = []
            for option in ways:
                variable = solver.addBinary()
                picked.append((option, variable))
                repeat = tiles if form.batch_level is not None else 1
                objective.append((weight * repeat * (option.cycles + 0.01), variable))
                for requirement in option.axes:
                    solver.addConstr(variable <= axis[requirement])
                if option.row_update:
                    solver.addConstr(variable <= row_update)
                for name in option.lane_reads:
                    solver.addConstr(variable <= axis[name, None] + lane_read)
            total = picked[0][1]
            for _, variable in picked[1:]:
                total = total + variable
            solver.addConstr(total == needed)
            chosen[routine] += picked
            return picked

        for form in parsed:
            picked = add(form, 1)
            ideal += weight * min(option.cycles for option, _ in picked)
            if form.rider:
                alone = [variable for option, variable in picked if not option.rides]
                if alone:
                    needed = alone[0]
                    for variable in alone[1:]:
                        needed = needed + variable
                    add(form.without_rider()[1], needed)
    objective += [(ROW_UPDATE_COST * ideal, row_update), (LANE_READ_COST * ideal, lane_read)]
    cost = objective[0][0] * objective[0][1]
    for coefficient, variable in objective[1:]:
        cost = cost + coefficient * variable
    solver.minimize(cost)
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise ScheduleError(f"packing: expected an optimal choice, found {solver.getModelStatus()}; report this model")

    axes = {name: choice for (name, choice), variable in axis.items() if solver.val(variable) > 0.5}
    kernels: dict[str, tuple[tuple[Form, int | None], ...]] = {}
    for routine, picked in chosen.items():
        sequence = []
        for option, variable in picked:
            if solver.val(variable) > 0.5:
                form = option.form
                if form.rider and not option.rides:
                    form = form.without_rider()[0]
                sequence.append((form, option.lane))
        kernels[routine] = tuple(sequence)
    return Packing(axes, kernels)


def _all_accesses(form: Form) -> tuple[Access, ...]:
    return form.accesses + ((form.rider.store.access,) if form.rider else ())
