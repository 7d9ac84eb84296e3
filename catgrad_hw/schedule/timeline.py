"""The time line: when each kernel may start, given all that runs before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catgrad_hw.schedule.events import Cycles, Events, Use, events
from catgrad_hw.schedule.program import MachineKernel, Phase, Program, Routine
from catgrad_hw.schedule.select import Selection


class Timeline:
    """Everything that has been scheduled, in absolute cycles. Kernels are committed in the order of their starts."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.last_read = {name: np.full(bank.depth, -(1 << 40)) for name, bank in program.banks.items()}
        self.last_write = {name: np.full(bank.depth, -(1 << 40)) for name, bank in program.banks.items()}
        self.busy: dict[str, Cycles] = {}

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
            read = self.last_read[use.unit][use.rows] + self.program.banks[use.unit].read_delay
            late = np.maximum(self.last_write[use.unit][use.rows], read)
            earliest = max(earliest, int((late + 1 - use.cycles).max()))
        return earliest

    def free(self, kernel: Events, start: int) -> bool:
        """Whether every port that ``kernel`` uses is free when it starts at ``start``."""
        for unit, cycles in self.ports(kernel):
            busy = self.busy.get(unit)
            if busy is not None:
                # both rise: only the first of ``cycles`` can meet the last of ``busy``
                early = cycles[: np.searchsorted(cycles, busy[-1] - start, side="right")] + start
                if len(early) and np.isin(early, busy[np.searchsorted(busy, early[0]) :]).any():
                    return False
        return True

    def commit(self, kernel: Events, start: int) -> None:
        """Record ``kernel`` at ``start``."""
        for last, uses in ((self.last_read, kernel.reads), (self.last_write, kernel.writes)):
            for use in uses:
                # cycles rise, and of a row that is met again the last assignment holds
                rows = last[use.unit]
                rows[use.rows] = np.maximum(rows[use.rows], use.cycles + start)
        for unit, cycles in self.ports(kernel):
            busy = self.busy.get(unit, cycles[:0])
            # what follows starts no earlier, and meets nothing before ``start``; two rising runs are soon merged
            merged = np.concatenate([busy[np.searchsorted(busy, start) :], cycles + start])
            merged.sort(kind="stable")
            self.busy[unit] = merged

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


def routine(program: Program, name: str, selection: Selection) -> Routine:
    """Start cycles for the kernels of one routine, each as early as can be."""
    tiles = program.tiles
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
