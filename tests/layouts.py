"""Layouts for tests: where an element lies, programs packed as a test wants, and the best packing by brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from math import inf, prod
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.ir.kernel import Array
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule import packing, scheduler
from catgrad_hw.schedule.form import Form
from catgrad_hw.schedule.packing import Axis, Option, Packing, options
from catgrad_hw.schedule.program import Placement, Program


def location(lanes: int, place: Placement, index: Sequence[int]) -> tuple[int, int]:
    """(row, lane) of the element ``index`` of one tile of the array that lies in ``place``."""
    flat, position = 0, 0
    for axis, (i, size) in enumerate(zip(index, place.shape, strict=True)):
        if axis == place.axis:
            position = i
        else:
            flat = flat * size + i
    return place.base + position // lanes * place.elements + flat, position % lanes


def locations(lanes: int, place: Placement) -> list[tuple[int, int]]:
    """(row, lane) of every element of one tile, in flat order."""
    return [location(lanes, place, index) for index in itertools.product(*map(range, place.shape))]


BOTH = tuple(itertools.product((False, True), repeat=2))


@dataclass(frozen=True)
class _Way:
    """A form's options with their costs, and those of its side sum alone, where that may not ride."""

    routine: str
    forms: list[tuple[float, Option]]
    sums: list[tuple[float, Option]]

    @property
    def arrays(self) -> list[str]:
        """The arrays whose packing matters."""
        found = {
            name: None for _, o in (*self.forms, *self.sums) for name in (*dict(o.axes), *dict(o.barred), *o.lane_reads)
        }
        return list(found)


class Costs:
    """The cost of every way to run every form, as the module under test states it, and no solver."""

    def __init__(
        self, program: IntegerProgram, routines: Mapping[str, Sequence[Form]], lanes: int, tile: int, tiles: int
    ) -> None:
        self.program, self.lanes, self.tile = program, lanes, tile
        forms = [(name, form) for name, parsed in routines.items() for form in parsed]
        accesses = [access for _, form in forms for access in form.accesses]
        accesses += [a for _, form in forms if form.rider for a in form.without_rider()[1].accesses]
        self.arrays = {a.array: program.kernels.arrays[a.array] for a in accesses}
        self.ways: list[_Way] = []
        self.ideal = 0.0
        for name, form in forms:
            weight = packing.PREDICT_WEIGHT if name == "predict" and "step" in routines else 1.0

            def priced(form: Form, weight: float = weight) -> list[tuple[float, Option]]:
                repeat = weight * (tiles if form.batch_level is not None else 1)
                found = [(repeat * (o.cycles + 0.01), o) for o in options(program, form, lanes, tile, tiles)]
                self.ideal += repeat * min(o.cycles for _, o in found)
                return found

            ways = priced(form)
            riderless = form.rider is not None and not all(o.rides for _, o in ways)
            self.ways.append(_Way(name, ways, priced(form.without_rider()[1]) if riderless else []))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tile."""
        array = self.arrays[name]
        return tuple(self.tile if i == array.batch_axis else size for i, size in enumerate(array.shape))

    def choices(self, name: str) -> list[Axis]:
        """The axes that an array may be packed along."""
        if self.program.stochastic and name in self.program.kernels.parameters:
            return [None]
        return [None, *(i for i, size in enumerate(self.shape(name)) if size > 1)]

    def words(self, axes: Mapping[str, Axis]) -> float:
        """What the arrays cost."""
        total = 0
        for name, axis in axes.items():
            shape = self.shape(name)
            padded = [-(-n // self.lanes) * self.lanes if i == axis else n for i, n in enumerate(shape)]
            total += prod(padded)
        return packing.WORD_COST * total

    def flags(self, updates: bool, reads: bool) -> float:
        """What it costs to be able to update rows, and to read single words of packed arrays."""
        return self.ideal * (packing.ROW_UPDATE_COST * updates + packing.LANE_READ_COST * reads)

    @staticmethod
    def legal(option: Option, axes: Mapping[str, Axis], updates: bool = True, reads: bool = True) -> bool:
        """Whether ``option`` can run where arrays are packed so."""
        return (
            all(axes[name] == axis for name, axis in option.axes)
            and all(axes[name] != axis for name, axis in option.barred)
            and (updates or not option.row_update)
            and (reads or all(axes[name] is None for name in option.lane_reads))
        )

    def pick(
        self, way: _Way, axes: Mapping[str, Axis], updates: bool, reads: bool
    ) -> tuple[float, tuple[tuple[Form, int | None], ...]]:
        """The best way to run one form where arrays are packed so: the cost and the kernels; infinite if none."""
        best: tuple[float, tuple[tuple[Form, int | None], ...]] = (inf, ())
        sums = [(cost, option) for cost, option in way.sums if self.legal(option, axes, updates, reads)]
        for cost, option in way.forms:
            if not self.legal(option, axes, updates, reads):
                continue
            if option.rides or not option.form.rider:
                best = min(best, (cost, ((option.form, option.lane),)), key=lambda found: found[0])
            elif sums:
                extra, total = min(sums, key=lambda found: found[0])
                kernels = ((option.form.without_rider()[0], option.lane), (total.form, total.lane))
                best = min(best, (cost + extra, kernels), key=lambda found: found[0])
        return best

    def _price_of(self, way: _Way, updates: bool, reads: bool, axes: Mapping[str, Axis]) -> float:
        return self.pick(way, axes, updates, reads)[0]

    def _words_of(self, name: str, axes: Mapping[str, Axis]) -> float:
        return self.words({name: axes[name]})

    def cheapest(self, axes: Mapping[str, Axis]) -> tuple[float, Packing | None]:
        """The best kernels where arrays are packed so, and the cost of all; (infinite, None) if there are none."""
        best: tuple[float, Packing | None] = (inf, None)
        for updates, reads in BOTH:
            cost = self.words(axes) + self.flags(updates, reads)
            kernels: dict[str, tuple[tuple[Form, int | None], ...]] = {}
            for way in self.ways:
                price, chosen = self.pick(way, axes, updates, reads)
                cost += price
                kernels[way.routine] = (*kernels.get(way.routine, ()), *chosen)
            if cost < best[0]:
                best = (cost, Packing(dict(axes), kernels))
        return best

    def least(self) -> float:
        """The lowest cost over all vector axes of all arrays, and all ways to run all forms."""
        names = list(self.arrays)
        grids = []

        def over(involved: Sequence[str], cost: Callable[[dict[str, Axis]], float]) -> NDArray[np.float64]:
            """``cost`` for all axes of the arrays ``involved``, one dimension for each of all arrays."""
            choices = [self.choices(name) if name in involved else [None] for name in names]
            found = [cost(dict(zip(names, axes, strict=True))) for axes in itertools.product(*choices)]
            return np.array(found).reshape([len(choice) for choice in choices])

        for updates, reads in BOTH:
            total = np.full([len(self.choices(name)) for name in names], self.flags(updates, reads))
            for name in names:
                total += over([name], partial(self._words_of, name))
            for way in self.ways:
                total += over(way.arrays, partial(self._price_of, way, updates, reads))
            grids.append(total.min())
        return float(min(grids))

    def of(self, choice: Packing) -> float:
        """The cost of a packing, which must be legal."""
        cost, updates, reads = self.words(choice.axes), False, False
        rest = {name: list(kernels) for name, kernels in choice.kernels.items()}
        for way in self.ways:
            form, lane = rest[way.routine].pop(0)
            taken = [(way.forms, form, lane)]
            if way.forms[0][1].form.rider and not form.rider:
                taken.append((way.sums, *rest[way.routine].pop(0)))
            for offered, form, lane in taken:
                ((price, option),) = [(c, o) for c, o in offered if o.lane == lane]
                assert form in (option.form, option.form.rider and option.form.without_rider()[0])
                assert self.legal(option, choice.axes), (form.name, lane, option.axes)
                cost += price
                updates |= option.row_update
                reads |= any(choice.axes[name] is not None for name in option.lane_reads)
        assert not any(rest.values())
        return cost + self.flags(updates, reads)


def packed(
    program: IntegerProgram,
    lanes: int,
    axis_of: Callable[[Array, tuple[int, ...]], Axis],
    unpacked: Collection[str] = (),
    **settings: object,
) -> Program:
    """Schedule ``program`` with arrays packed as ``axis_of`` says of an array and the shape of its tile.

    ``unpacked``: arrays that aren't packed. ``settings`` as of :func:`schedule`.

    Raises:
        LookupError: no kernels can run so.
    """

    def pack(
        program: IntegerProgram,
        routines: Mapping[str, Sequence[Form]],
        lanes: int,
        tile: int,
        tiles: int,
        *_: object,
    ) -> Packing:
        costs = Costs(program, routines, lanes, tile, tiles)
        axes = {name: axis_of(array, costs.shape(name)) for name, array in costs.arrays.items()}
        for name, axis in axes.items():
            if name in unpacked or axis not in costs.choices(name):
                axes[name] = None
        _, found = costs.cheapest(axes)
        if found is None:
            raise LookupError(f"no kernels for {axes}")
        return found

    with mock.patch.object(scheduler, "pack", pack):
        # A copy, since the scheduler remembers how it packed a program.
        return scheduler.schedule(copy(program), lanes, **settings)  # type: ignore[arg-type]


def along_features(array: Array, shape: tuple[int, ...]) -> Axis:
    """The last axis of an array that isn't that of samples."""
    return max((axis for axis in range(len(shape)) if axis != array.batch_axis), default=None)
