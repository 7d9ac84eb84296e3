"""The machine in NumPy: what each kernel of a program does to the rows and lanes of the banks, one after the other.

Time is left out (the schedule's checker and the gateware's tests know about that); everything else is as in the
hardware: lanes without an element, rows of samples that don't exist, leftovers of arrays that shared the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from layouts import location, locations
from numpy.typing import NDArray

from catgrad_hw.numbers.rounding import draw, limits, round_nearest, round_stochastic, saturate, step_key
from catgrad_hw.numbers.units import apply
from catgrad_hw.schedule.events import inside, partial_name
from catgrad_hw.schedule.program import Combination, Finish, MachineKernel, Narrowing, Operand, Program

Words = NDArray[np.int64]


def shifted(value: Words, shift: int) -> Words:
    return round_nearest(value, shift) if shift >= 0 else value << -shift


def affine(strides: Sequence[int], grid: Words) -> Words:
    """The sum of strides times indices, for every iteration of ``grid``."""
    return np.array(strides, dtype=np.int64) @ grid


class Machine:
    """The state of a machine that runs ``program``; each step takes one batch, into one slot after the other."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        self.program, self.seed = program, seed
        self.banks = {name: np.zeros((bank.depth, bank.words), np.int64) for name, bank in program.banks.items()}
        self.saturations = dict.fromkeys(program.counters, 0)
        self.steps = 0
        self.slot = 0

    # --- from outside -------------------------------------------------------------------------------------------

    def _cells(self, name: str, copy: int = 0) -> tuple[Words, tuple[Words, Words]]:
        """An array's bank, and the rows and lanes of the elements of one tile, in flat order."""
        place = self.program.placements[name]
        rows, lanes = np.array(locations(self.program.lanes, place), dtype=np.int64).reshape(-1, 2).T
        return self.banks[place.bank], (rows + copy * place.slot_rows, lanes)

    def load(self, parameters: Iterable[Words]) -> None:
        """Set all parameters, in order."""
        for name, words in zip(self.program.parameters, parameters, strict=True):
            bank, cells = self._cells(name)
            bank[cells] = words.ravel()

    def parameters(self) -> list[Words]:
        """All parameters, in order and in their shapes."""
        found = []
        for name in self.program.parameters:
            bank, cells = self._cells(name)
            found.append(bank[cells].reshape(self.program.placements[name].shape))
        return found

    def _fill(self, data: Mapping[str, Words], tile: int) -> None:
        """Put a tile of a batch into the current slot; in the batch's last tile, what lies in the rest stays."""
        program = self.program
        first = tile * program.tile
        for name, words in data.items():
            place = program.placements[name]
            bank = self.banks[place.bank]
            for row, sample in enumerate(words[first : first + program.tile]):
                for index in np.ndindex(sample.shape):
                    at, lane = location(program.lanes, place, (row, *index))
                    bank[at + self.slot * place.slot_rows, lane] = sample[index]

    def step(self, *data: Words) -> None:
        """One step on a batch: inputs, then targets."""
        self._run("step", dict(zip((*self.program.inputs, *self.program.targets), data, strict=True)))
        self.steps += 1

    def predict(self, x: Words) -> Words:
        """The predictions for one batch."""
        program = self.program
        self._run("predict", dict(zip(program.inputs, (x,), strict=True)))
        (output,) = program.outputs
        shape = program.placements[output].shape
        tiles = []
        for tile in range(program.tiles):
            bank, cells = self._cells(output, tile)
            tiles.append(bank[cells].reshape(shape))
        return np.concatenate(tiles)[: program.batch]

    def _run(self, name: str, data: Mapping[str, Words]) -> None:
        routine = self.program.routine(name)
        for tile in range(routine.tiles):
            self._fill(data, tile)
            for kernel in routine.tile.kernels:
                _Run(self, kernel, tile, self.slot)
            self.slot = (self.slot + 1) % self.program.slots
        for kernel in routine.final.kernels:
            _Run(self, kernel, self.program.tiles - 1, 0)


class _Run:
    """One run of one kernel."""

    def __init__(self, machine: Machine, kernel: MachineKernel, tile: int, slot: int) -> None:
        self.machine, self.kernel, self.tile, self.slot = machine, kernel, tile, slot
        self.program = program = machine.program
        self.grid = np.indices(kernel.trips, dtype=np.int64).reshape(kernel.levels, prod(kernel.trips))
        every = np.arange(self.grid.shape[1])
        low, high = limits(program.multiplier)

        a = self.operand(kernel.a, kernel.a_round, every)
        b = self.operand(kernel.b, kernel.b_round, every)
        if isinstance(kernel.b, int) or not kernel.b.row:
            b = b * (np.arange(program.lanes) == 0)
        assert low <= min(a.min(), b.min())
        assert max(a.max(), b.max()) <= high
        # What the lanes multiply by a constant: the words of side b, or in lane 0 of a alone.
        self.factor = b
        products = a * b
        rows = None
        if kernel.full:
            rows = self.full(products)
        if kernel.slow:
            self.slow(products)
        if kernel.sum:
            self.sum(products if kernel.sum.source == "product" else rows)

    # --- streams ------------------------------------------------------------------------------------------------

    def cells(self, operand: Operand, select: Words, array: str | None = None) -> tuple[Words, Words, Words]:
        """(bank, rows, lanes) of a stream in the iterations ``select``; any cell where it leaves its bounds."""
        program = self.program
        name = array or operand.array
        place = program.placements[name]
        grid = self.grid[:, select]
        copy = self.tile if name in program.outputs else self.slot if place.slots > 1 else 0
        position = operand.position + affine(operand.steps, grid)
        first = place.base + copy * place.slot_rows
        rows = first + operand.base + affine(operand.strides, grid)
        rows = np.where(inside(operand.bounds, grid), rows + position // program.lanes * place.elements, first)
        assert rows.min() >= first, name
        assert rows.max() < first + place.slot_rows, name
        return self.machine.banks[place.bank], rows, position % program.lanes

    def read(self, operand: Operand, select: Words) -> Words:
        """Rows, or words for all lanes; 0 outside the bounds."""
        bank, rows, lanes = self.cells(operand, select)
        words = bank[rows] if operand.row else np.repeat(bank[rows, lanes][:, None], self.program.lanes, axis=1)
        return np.where(inside(operand.bounds, self.grid[:, select])[:, None], words, 0)

    def write(self, operand: Operand, select: Words, words: Words) -> None:
        """Rows, or the words of lane 0."""
        bank, rows, lanes = self.cells(operand, select)
        low, high = limits(self.program.banks[self.program.placements[operand.array].bank].width)
        assert low <= words.min()
        assert words.max() <= high
        if operand.row:
            bank[rows] = words
        else:
            bank[rows, lanes] = words[:, 0]

    def operand(self, operand: Operand | int, rounding: int, select: Words) -> Words:
        if isinstance(operand, int):
            return np.full((len(select), self.program.lanes), operand, dtype=np.int64)
        words = self.read(operand, select)
        return saturate(round_nearest(words, rounding), self.program.multiplier) if rounding else words

    # --- what comes out -----------------------------------------------------------------------------------------

    def last(self, levels: int) -> Words:
        """The last iterations of reductions over the innermost ``levels``."""
        trips = np.array(self.kernel.trips)[:, None]
        inner = slice(self.kernel.levels - levels, None)
        return np.flatnonzero((self.grid[inner] == trips[inner] - 1).all(axis=0))

    def present(self, select: Words, levels: int) -> NDArray[np.bool_]:
        """Which lanes hold an element, of what is made when the innermost ``levels`` have been reduced."""
        kernel, program = self.kernel, self.program
        lanes = np.arange(program.lanes)
        found = np.ones((len(select), program.lanes), dtype=bool)
        samples = program.tile if self.tile < program.tiles - 1 else program.tail
        kept = range(kernel.levels - levels)
        for level in {kernel.batch_level, kernel.lane_level} & set(kept):
            index = self.grid[level, select][:, None]
            if level == kernel.lane_level:
                index = index * program.lanes + lanes
            found &= index < (samples if level == kernel.batch_level else kernel.lane_length)
        return found

    def saturated(self, value: Words, narrowing: Narrowing, present: NDArray[np.bool_]) -> Words:
        result = saturate(value, narrowing.width)
        repeated = self.kernel.batch_level is None and self.tile < self.program.tiles - 1
        if narrowing.counter is not None and not repeated:
            self.machine.saturations[narrowing.counter] += int(((result != value) & present).sum())
        return np.where(present, result, 0)

    def summed(self, words: Words, levels: int, bits: int) -> Words:
        """Sums over the innermost ``levels``, which the accumulator must hold."""
        total = self.runs(words, levels).sum(axis=1)
        self.fits(total, bits)
        return total

    def runs(self, words: Words, levels: int) -> Words:
        """``words`` of the iterations by output, by the iterations that are reduced in it, and by lane."""
        count = int(np.prod(self.kernel.trips[self.kernel.levels - levels :], dtype=np.int64))
        return words.reshape(-1, count, words.shape[1])

    @staticmethod
    def fits(words: Words, bits: int) -> None:
        low, high = limits(bits)
        assert low <= words.min()
        assert words.max() <= high

    def combined(
        self, combination: Combination, total: Words, select: Words, bits: int
    ) -> tuple[Words, NDArray[np.bool_]]:
        """What ``combination`` makes of reduced values, and where it counts."""
        found = {"reduced": total}
        if "factor" in (combination.other, combination.condition):
            found["factor"] = self.factor[select]

        def source(operand: Operand | str) -> Words:
            return found[operand] if isinstance(operand, str) else self.read(operand, select)

        value, counts = total, np.ones(total.shape, dtype=bool)
        other = None if combination.other is None else source(combination.other) << combination.shift
        holds = None if combination.condition is None else source(combination.condition) > 0
        match combination.kind:
            case "add":
                value = total + other
            case "subtract":
                value = total - other
            case "replace":
                value = other
            case "select":
                value = np.where(holds, other, total)
        if combination.kind in ("alone", "add"):
            self.fits(value, bits)
        if combination.position is not None:
            ramp = combination.position
            counts &= total == (ramp.offset + affine(ramp.strides, self.grid[:, select]))[:, None]
        if boost := combination.boost:
            assert combination.rectified == (holds is None)
            boosted = value > 0 if holds is None else holds
            return np.where(boosted, value << max(boost, 0), value << max(-boost, 0)), counts
        if combination.kind != "select" and holds is not None:
            counts &= holds
        if combination.rectified:
            counts &= value > 0
        return value, counts

    def finished(
        self, finish: Finish, value: Words, select: Words, present: NDArray[np.bool_], places: Words | None
    ) -> Words:
        """One write: the value rounded, or drawn, and what it updates; ``places`` keys the draws."""
        if finish.draw is not None:
            assert places is not None
            draws = draw(step_key(self.machine.seed, self.machine.steps), (places + finish.draw)[:, None])
            value = round_stochastic(value, finish.narrowing.shift, draws)
        else:
            value = shifted(value, finish.narrowing.shift)
        if finish.update:
            value = self.read(finish.target, select)[:, : value.shape[1]] - value
        return self.saturated(value, finish.narrowing, present)

    def full(self, products: Words) -> Words:
        full, kernel, program = self.kernel.full, self.kernel, self.program
        assert full is not None
        select = self.last(kernel.reduced)
        present = self.present(select, kernel.reduced)
        if kernel.lane_level is None:  # one product a cycle: lane 0 alone
            present &= np.arange(program.lanes) == 0
        if kernel.reduction == "sum":
            kept = np.repeat(present, len(products) // len(present), axis=0)
            total = self.summed(np.where(kept, products, 0), kernel.reduced, program.accumulator)
        else:
            total = getattr(self.runs(products, kernel.reduced), kernel.reduction)(axis=1)
        value, counts = self.combined(full.combination, total, select, program.accumulator)
        written = [self.finished(finish, value, select, present & counts, None) for finish in full.writes]
        for finish, rows in zip(full.writes, written, strict=True):
            self.write(finish.target, select, rows)
        return written[0]

    def slow(self, products: Words) -> None:
        slow, kernel, program = self.kernel.slow, self.kernel, self.program
        assert slow is not None
        levels = kernel.reduced if slow.reduced is None else slow.reduced
        select = self.last(levels)
        present = self.present(select, levels)
        if slow.reduced is not None:
            present = np.repeat(present[:, :1], program.lanes, axis=1)
            products = np.repeat(products.sum(axis=1)[:, None], program.lanes, axis=1)
        products = np.where(np.repeat(present, len(products) // len(present), axis=0), products, 0)
        bits = program.accumulator if slow.reduced is None else program.sum_accumulator
        value, counts = self.combined(slow.combination, self.summed(products, levels, bits), select, bits)
        once = present if slow.reduced is None else present & (np.arange(program.lanes) == 0)
        z = shifted(value, slow.narrowing.shift)
        for counter in slow.counters:
            self.saturated(z, replace(slow.narrowing, counter=counter), once & counts)
        z = np.where(counts, saturate(z, slow.narrowing.width), 0)
        for write in slow.writes:
            value = apply(program.functions[write.function], z) if write.function else z
            if write.subtraction:
                s = write.subtraction
                value = (value << s.value_shift) - (self.read(s.other, select) << s.other_shift)
                value = shifted(value, s.narrowing.shift)
                self.saturated(value, s.narrowing, once)
                value = saturate(value, s.narrowing.width)
            self.write(write.target, select, np.where(present, value, 0))

    def sum(self, words: Words | None) -> None:
        path, kernel, program = self.kernel.sum, self.kernel, self.program
        assert path is not None
        assert words is not None
        select = self.last(path.reduced)
        total = self.summed(words.sum(axis=1)[:, None], path.reduced, program.sum_accumulator)
        first = path.writes[0]
        if program.tiles > 1 and kernel.sums_samples:
            partial, rows, lanes = self.cells(first.flat, select, partial_name(first.target.array))
            if self.tile > 0:
                total = total + partial[rows, lanes][:, None]
            if self.tile < program.tiles - 1:
                partial[rows, lanes] = total[:, 0]
                return
        value, _ = self.combined(path.combination, total, select, program.sum_accumulator)
        value = value[:, :1]
        levels = path.reduced if path.source == "product" else kernel.levels
        present = self.present(select, levels)[:, :1]
        written = []
        for finish in path.writes:
            places = finish.flat.base + affine(finish.flat.strides, self.grid[:, select])
            written.append(self.finished(finish, value, select, present, places))
        for finish, found in zip(path.writes, written, strict=True):
            self.write(finish.target, select, found)
