"""What a person wants to see of a program: where the multipliers' cycles go, and when each unit is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.check import instances
from catgrad_hw.schedule.events import CAPTURE_REGISTER, FULL_PATH, TREE, events, issue_cycles
from catgrad_hw.schedule.program import MachineKernel, Program, Routine

PARTIAL_ROW = "lanes without an element"
"""A row ends before the last lane, or the kernel makes one product a cycle."""
BEYOND_BATCH = "samples beyond the batch"
"""The last tile is filled up with samples that don't count."""
BUBBLE = "bubbles for the slow path"
"""A reduction is shorter than the slow path needs for a row."""
GAP = "waiting to start"
"""Operands have not landed yet, or a port is taken."""
NO_MULTIPLICATION = "copies and powers of two"
"""A factor is a power of two, which is no multiplication."""
REPEATED = "products made again"
"""More products than the graph needs."""

CAUSES = (PARTIAL_ROW, BEYOND_BATCH, BUBBLE, GAP, NO_MULTIPLICATION, REPEATED)
"""Where multiplier cycles go that do no multiplication which is needed."""


@dataclass(frozen=True)
class Idle:
    """``cycles`` of multipliers (lanes times cycles) that are lost to ``cause`` in ``kernel`` (None: in all)."""

    cause: str
    kernel: str | None
    cycles: int


@dataclass(frozen=True)
class Account:
    """Multiplier cycles of one run of a routine: ``total = least + sum of idle``."""

    total: int
    least: int
    idle: tuple[Idle, ...]

    @property
    def busy(self) -> float:
        """The share of the multipliers' cycles that do a multiplication which is needed."""
        return self.least / self.total

    def by_cause(self) -> dict[str, int]:
        """Cycles lost to each cause, in the order of :data:`CAUSES`."""
        return {
            cause: cycles
            for cause in CAUSES
            if (cycles := sum(idle.cycles for idle in self.idle if idle.cause == cause))
        }


def multiplies(kernel: MachineKernel) -> bool:
    """Whether the kernel's products count as multiplications: no factor is a power of two."""
    return not any(isinstance(side, int) and is_power_of_two(side) for side in (kernel.a, kernel.b))


def _elements(kernel: MachineKernel, samples: int) -> int:
    """Products that one run of ``kernel`` makes of ``samples`` samples."""
    sizes = list(kernel.trips)
    if kernel.lane_level is not None:
        sizes[kernel.lane_level] = kernel.lane_length
    if kernel.batch_level is not None:
        sizes[kernel.batch_level] = samples
    return prod(sizes)


def account(program: Program, routine: Routine, least: int) -> Account:
    """Where the multiplier cycles of ``routine`` go, of which ``least`` are needed, from start to start."""
    lanes = program.lanes
    lost: dict[tuple[str, str | None], int] = {}

    def lose(cause: str, kernel: str | None, cycles: int) -> None:
        lost[cause, kernel] = lost.get((cause, kernel), 0) + cycles

    free = counted = 0
    before_last_tile = (routine.tiles - 1) * len(routine.tile.kernels)
    runs = list(instances(routine, 0))
    for number, (kernel, start) in enumerate(runs):
        lose(GAP, kernel.name, lanes * (start - free))
        free = start + kernel.cycles
        full = _elements(kernel, program.tile)
        present = _elements(kernel, program.tail) if number >= before_last_tile else full
        iterations = prod(kernel.trips)
        lose(BUBBLE, kernel.name, lanes * (kernel.cycles - iterations))
        lose(PARTIAL_ROW, kernel.name, lanes * iterations - full)
        lose(BEYOND_BATCH, kernel.name, full - present)
        if multiplies(kernel):
            counted += present
        else:
            lose(NO_MULTIPLICATION, kernel.name, present)
    lose(GAP, runs[0][0].name, lanes * (routine.period - free))
    lose(REPEATED, None, counted - least)
    idle = tuple(Idle(cause, kernel, cycles) for (cause, kernel), cycles in lost.items() if cycles)
    return Account(lanes * routine.period, least, idle)


@dataclass(frozen=True)
class Span:
    """A track is used by ``kernel`` from cycle ``first`` to ``last``, for ``share`` of these cycles."""

    kernel: str
    first: int
    last: int
    share: float


@dataclass(frozen=True)
class Track:
    """A unit or a port, with its uses in the order in which they begin."""

    name: str
    spans: tuple[Span, ...]


LANES = "lanes"
UNITS: Mapping[str, str] = {TREE: TREE, FULL_PATH: FULL_PATH, CAPTURE_REGISTER: "slow path"}
"""Units of :mod:`catgrad_hw.schedule.events`, with their names for a person."""


def track_names(program: Program) -> list[str]:
    """All tracks: the units, then the ports of each bank."""
    names = [LANES, *UNITS.values()]
    for bank in program.banks.values():
        ports = ["port"] if bank.kind == "single_port" else ["read", "write"]
        names += [f"{bank.name} {port}" for port in ports]
    return names


def _uses(program: Program, kernel: MachineKernel) -> Iterator[tuple[str, NDArray[np.int64], float]]:
    """Each track that ``kernel`` uses, the cycles from its start, and the share of the track that a cycle uses."""
    issue = issue_cycles(kernel)
    yield LANES, issue + timing.PRODUCT, _elements(kernel, program.tile) / (len(issue) * program.lanes)
    found = events(program, kernel)
    for use in found.units:
        yield UNITS[use.unit], use.cycles, 1.0
    for kind, uses in (("read", found.reads), ("write", found.writes)):
        for use in uses:
            single = program.banks[use.unit].kind == "single_port"
            yield f"{use.unit} {'port' if single else kind}", use.cycles, 1.0


def tracks(program: Program, routine: Routine, first: int, last: int, gap: int) -> list[Track]:
    """When each unit and port is used from cycle ``first`` until before ``last``, in steady state: the runs before and
    after this one are seen, too. Uses by one run of a kernel that are at most ``gap`` cycles apart make one span.
    """
    spans: dict[str, list[Span]] = {name: [] for name in track_names(program)}
    cache: dict[str, list[tuple[str, NDArray[np.int64], float]]] = {}
    for origin in (-routine.period, 0, routine.period):
        for kernel, start in instances(routine, origin):
            if kernel.name not in cache:
                merged: dict[str, tuple[list[NDArray[np.int64]], float]] = {}
                for track, cycles, share in _uses(program, kernel):
                    merged.setdefault(track, ([], share))[0].append(cycles)
                cache[kernel.name] = [
                    (track, np.unique(np.concatenate(found)), share) for track, (found, share) in merged.items()
                ]
            for track, cycles, share in cache[kernel.name]:
                low, high = np.searchsorted(cycles, (first - start, last - start))
                used = cycles[low:high] + start
                for run in np.split(used, np.flatnonzero(np.diff(used) > gap) + 1):
                    if len(run):
                        begin, end = int(run[0]), int(run[-1])
                        spans[track].append(Span(kernel.name, begin, end, share * len(run) / (end - begin + 1)))
    return [Track(name, tuple(sorted(found, key=lambda span: span.first))) for name, found in spans.items()]
