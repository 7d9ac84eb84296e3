"""The scheduler: the slow path's width, the layout, and the start cycle of every kernel.

Kernels issue in order, one iteration a cycle. Each starts at the earliest cycle at which every read follows the
writes that it needs, no write overtakes a read or a write, and no port or unit is used twice in a cycle; so a kernel
overlaps the pipelines of its predecessors as far as its data allow. The result is checked by
:mod:`catgrad_hw.schedule.check`, which knows nothing of how it was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from catgrad_hw.errors import CapacityError, UnsupportedError
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.events import Cycles, Events, Use, events, partial_name
from catgrad_hw.schedule.layout import place
from catgrad_hw.schedule.program import Bank, BankKind, MachineKernel, Phase, Placement, Program, Routine
from catgrad_hw.schedule.select import Selection, select

MAX_LANES = 128
RESIDENT_BITS = 1 << 20
"""A data set of at most this many bits stays on chip."""


def schedule(
    program: IntegerProgram,
    lanes: int,
    *,
    tile: int | None = None,
    samples: int | None = None,
    slow_words: int | None = None,
    bank_kinds: Mapping[str, BankKind] | None = None,
) -> Program:
    """Schedule ``program`` for ``lanes`` lanes.

    ``tile``: samples per tile (default: the batch); a multiple of ``lanes`` unless it is the batch. ``samples``: size
    of the data set, which stays on chip if it is a multiple of the batch and fits in ``RESIDENT_BITS``.
    ``slow_words``: E, words per cycle of the slow path (default: the smallest with the fewest cycles).
    ``bank_kinds``: kinds of banks by name, where block RAM isn't wanted.

    Raises:
        CapacityError: a number of lanes, a tile or a width out of range.
        UnsupportedError: a kernel has no hardware, or there are no parameters to train.
    """
    batch = program.kernels.batch
    tile = batch if tile is None else tile
    if not program.kernels.parameters:
        raise UnsupportedError("hardware: expected parameters to train, found none; add a layer that has some")
    if not 1 <= lanes <= MAX_LANES:
        raise CapacityError(f"lanes: expected 1 to {MAX_LANES}, found {lanes}; choose --lanes in that range")
    if not 1 <= tile <= batch or (tile != batch and tile % lanes):
        raise CapacityError(
            f"tile: expected the batch ({batch}) or a smaller multiple of the {lanes} lanes, found {tile}"
        )
    tiles, rows = -(-batch // tile), -(-tile // lanes)
    if slow_words is None:
        candidates = {-(-lanes // beats): None for beats in range(lanes, 0, -1)}
        costs = {e: _issue_cycles(_select(program, rows, lanes, e)["step"], tiles) for e in candidates}
        slow_words = min(costs, key=lambda e: (costs[e], e))
    elif not 1 <= slow_words <= lanes:
        raise CapacityError(f"slow path: expected 1 to {lanes} words per cycle, found {slow_words}")
    selections = _select(program, rows, lanes, slow_words)
    kernels = [k for s in selections.values() for k in (*s.tile, *s.final)]

    width = sum(
        program.formats[name].width * int(np.prod(program.kernels.arrays[name].shape)) // batch
        for name in (*program.kernels.inputs, *program.kernels.targets)
    )
    resident = samples is not None and samples % batch == 0 and samples * width <= RESIDENT_BITS
    slots = tiles * samples // batch if resident and samples is not None else 2
    banks, placements = place(program, kernels, lanes, rows, tiles, slots, bank_kinds or {})
    lane_bits = [program.accumulators[k.name] for k in kernels if k.slow or k.full]
    sum_bits = [
        program.accumulators[k.name]
        if k.sum.source == "product"
        else program.multiplier + (rows * tiles * lanes).bit_length()
        for k in kernels
        if k.sum
    ]
    sum_accumulator = max(sum_bits, default=1)
    partial_bank = None
    if tiles > 1:
        partial_bank = "partial"
        _place_partial_sums(kernels, sum_accumulator, banks, placements, (bank_kinds or {}).get("partial", "block"))

    draft = Program(
        lanes=lanes,
        slow_words=slow_words,
        batch=batch,
        tile=tile,
        multiplier=program.multiplier,
        accumulator=max(lane_bits, default=1),
        sum_accumulator=sum_accumulator,
        banks=banks,
        placements=placements,
        routines=(),
        tables=program.tables,
        counters=program.counters,
        parameters=program.kernels.parameters,
        inputs=program.kernels.inputs,
        targets=program.kernels.targets,
        outputs=program.kernels.outputs,
        stochastic=program.stochastic,
        partial_bank=partial_bank,
        resident=resident,
    )
    # ``step`` first: a step's start is the start of the first kernel.
    routines = tuple(
        _routine(draft, name, selections[name], tiles) for name in sorted(selections, key=lambda name: name != "step")
    )
    return replace(draft, routines=routines)


def _select(program: IntegerProgram, rows: int, lanes: int, slow_words: int) -> dict[str, Selection]:
    beats = -(-lanes // slow_words)
    return select(program, rows, lambda length, slow: max(0, beats - length) if slow else 0)


def _issue_cycles(selection: Selection, tiles: int) -> int:
    return tiles * sum(k.cycles for k in selection.tile) + sum(k.cycles for k in selection.final)


def _place_partial_sums(
    kernels: Sequence[MachineKernel],
    width: int,
    banks: dict[str, Bank],
    placements: dict[str, Placement],
    kind: BankKind,
) -> None:
    depth = 0
    for kernel in kernels:
        if kernel.sum and kernel.batch_level is not None:
            name = partial_name(kernel.sum.target.array)
            if name not in placements:
                count = placements[kernel.sum.target.array].elements
                placements[name] = Placement(name, "partial", depth, count, False, 1, count)
                depth += count
    if depth:
        banks["partial"] = Bank("partial", 1, width, depth, kind)


class Timeline:
    """Everything that has been scheduled, in absolute cycles."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.last_read = {name: np.full(bank.depth, -(1 << 40)) for name, bank in program.banks.items()}
        self.last_write = {name: np.full(bank.depth, -(1 << 40)) for name, bank in program.banks.items()}
        self.busy: dict[str, set[int]] = {}

    def ports(self, kernel: Events) -> list[tuple[str, Cycles]]:
        """Every port and unit that ``kernel`` uses, with the cycles."""

        def port(use: Use, kind: str) -> str:
            return use.unit if self.program.banks[use.unit].kind == "single_port" else f"{use.unit} {kind}"

        return (
            [(port(use, "read"), use.cycles) for use in kernel.reads]
            + [(port(use, "write"), use.cycles) for use in kernel.writes]
            + [(use.unit, use.cycles) for use in kernel.units]
        )

    def bound(self, kernel: Events) -> int:
        """The earliest start at which no hazard remains, ports aside."""
        earliest = -(1 << 40)
        for use in kernel.reads:
            earliest = max(earliest, int((self.last_write[use.unit][use.rows] + 1 - use.cycles).max()))
        for use in kernel.writes:
            late = np.maximum(self.last_write[use.unit][use.rows], self.last_read[use.unit][use.rows])
            earliest = max(earliest, int((late + 1 - use.cycles).max()))
        return earliest

    def free(self, kernel: Events, start: int) -> bool:
        """Whether every port that ``kernel`` uses is free when it starts at ``start``."""
        for unit, cycles in self.ports(kernel):
            busy = self.busy.get(unit)
            if busy and int(cycles.min()) + start <= max(busy) and not busy.isdisjoint((cycles + start).tolist()):
                return False
        return True

    def commit(self, kernel: Events, start: int) -> None:
        """Record ``kernel`` at ``start``."""
        for use in kernel.reads:
            np.maximum.at(self.last_read[use.unit], use.rows, use.cycles + start)
        for use in kernel.writes:
            np.maximum.at(self.last_write[use.unit], use.rows, use.cycles + start)
        for unit, cycles in self.ports(kernel):
            self.busy.setdefault(unit, set()).update((cycles + start).tolist())

    def sequence(self, kernels: Sequence[tuple[MachineKernel, Events]], start: int) -> list[int]:
        """Start ``kernels`` one after the other, each as early as can be, the first at ``start`` or later."""
        starts = []
        for kernel, uses in kernels:
            start = max(start, self.bound(uses))
            while not self.free(uses, start):
                start += 1
            self.commit(uses, start)
            starts.append(start)
            start += kernel.cycles
        return starts

    def block(self, kernels: Sequence[tuple[int, Events]], start: int) -> int:
        """The earliest start, from ``start``, of a block of kernels whose starts relative to it are given."""
        for offset, uses in kernels:
            start = max(start, self.bound(uses) - offset)
        while not all(self.free(uses, start + offset) for offset, uses in kernels):
            start += 1
        return start


def _routine(program: Program, name: str, selection: Selection, tiles: int) -> Routine:
    tile = [(kernel, events(program, kernel)) for kernel in selection.tile]
    final = [(kernel, events(program, kernel)) for kernel in selection.final]
    timeline = Timeline(program)
    starts = timeline.sequence(tile, 0)
    tile_end = starts[-1] + tile[-1][0].cycles if tile else 0
    block = list(zip(starts, (uses for _, uses in tile), strict=True))
    period = tile_end + 1
    if tiles > 1:
        period = timeline.block(block, tile_end + 1)
        for index in range(1, tiles):
            for offset, uses in block:
                timeline.commit(uses, index * period + offset)
    last = (tiles - 1) * period
    final_starts = timeline.sequence(final, last + tile_end)
    end = final_starts[-1] + final[-1][0].cycles if final else last + tile_end
    whole = [(index * period + offset, uses) for index in range(tiles) for offset, uses in block]
    whole += list(zip(final_starts, (uses for _, uses in final), strict=True))
    return Routine(
        name=name,
        tile=Phase(selection.tile, tuple(starts)),
        final=Phase(selection.final, tuple(start - (final_starts[0] if final else 0) for start in final_starts)),
        tiles=tiles,
        tile_period=period,
        final_start=(final_starts[0] - last) if final else tile_end,
        period=timeline.block(whole, end + 1),
    )
