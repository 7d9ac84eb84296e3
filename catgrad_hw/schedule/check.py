"""The checker of schedules: replays a program cycle by cycle and refuses any hazard, however it was scheduled.

Two consecutive runs of each routine are laid on one time line. Refused are: kernels out of order or issuing at once;
a port of a bank, the capture register or the tree used twice in a cycle; a read that doesn't follow the write that it
needs (RAW), a write that overtakes a read (WAR) or a write (WAW); a bank that reads and writes one row in one cycle,
also where it reads a cycle late; rows outside a bank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import ScheduleError
from catgrad_hw.schedule.events import Cycles, Events, events
from catgrad_hw.schedule.program import Bank, MachineKernel, Program, Routine


def instances(routine: Routine, start: int) -> Iterator[tuple[MachineKernel, int]]:
    """The kernels of one run of ``routine`` from cycle ``start``, with their absolute start cycles, in order."""
    for tile in range(routine.tiles):
        for kernel, offset in zip(routine.tile.kernels, routine.tile.starts, strict=True):
            yield kernel, start + tile * routine.tile_period + offset
    final = start + (routine.tiles - 1) * routine.tile_period + routine.final_start
    for kernel, offset in zip(routine.final.kernels, routine.final.starts, strict=True):
        yield kernel, final + offset


def check(program: Program) -> None:
    """Check every routine.

    Raises:
        ScheduleError: naming the kernels, the unit or row, and the cycle.
    """
    for routine in program.routines:
        _check_routine(program, routine)


def _check_routine(program: Program, routine: Routine) -> None:
    cache: dict[str, Events] = {k.name: events(program, k) for k in (*routine.tile.kernels, *routine.final.kernels)}
    order = [*instances(routine, 0), *instances(routine, routine.period)]
    free = 0
    for kernel, start in order:
        if start < free:
            raise ScheduleError(
                f"{routine.name}: {kernel.name} starts in cycle {start}, but its predecessor issues until {free - 1}; "
                "expected kernels to issue one after the other"
            )
        free = start + kernel.cycles
    taken: dict[str, list[_Uses]] = defaultdict(list)
    accesses: dict[str, list[_Uses]] = defaultdict(list)
    for position, (kernel, start) in enumerate(order):
        found = cache[kernel.name]
        for kind, group in (("", found.units), ("read", found.reads), ("write", found.writes)):
            for use in group:
                unit = use.unit
                uses = _Uses(use.rows, np.full(len(use.cycles), position), use.cycles + start, kind == "write")
                if kind:
                    bank = program.banks[use.unit]
                    if int(use.rows.min()) < 0 or int(use.rows.max()) >= bank.depth:
                        raise ScheduleError(
                            f"{routine.name}: {kernel.name} reaches rows {use.rows.min()} to {use.rows.max()} of bank "
                            f"{bank.name}; expected 0 to {bank.depth - 1}"
                        )
                    if bank.loader and kind == "write":
                        raise ScheduleError(f"{routine.name}: {kernel.name} writes {bank.name}, which is the loader's")
                    unit = bank.name if bank.kind == "single_port" else f"{bank.name} {kind}"
                    accesses[bank.name].append(uses)
                taken[unit].append(uses)
    names = [kernel.name for kernel, _ in order]
    for unit, all_uses in taken.items():
        _check_unit(routine.name, unit, all_uses, names)
    for bank_name, all_uses in accesses.items():
        _check_bank(routine.name, program.banks[bank_name], all_uses, names)


class _Uses(NamedTuple):
    """Uses of a unit or a bank by the kernel at ``positions``, in absolute ``cycles``."""

    rows: Cycles
    positions: Cycles
    cycles: Cycles
    write: bool


def _check_unit(routine: str, unit: str, group: list[_Uses], names: list[str]) -> None:
    """No cycle may be taken twice."""
    cycles = np.concatenate([uses.cycles for uses in group])
    positions = np.concatenate([uses.positions for uses in group])
    order = np.lexsort((positions, cycles))
    twice = np.flatnonzero(np.diff(cycles[order]) == 0)
    if len(twice):
        first, second = (names[positions[order[twice[0] + i]]] for i in (0, 1))
        raise ScheduleError(
            f"{routine}: {unit} is used twice in cycle {cycles[order[twice[0]]]}, by {first} and {second}"
        )


def _check_bank(routine: str, bank: Bank, group: list[_Uses], names: list[str]) -> None:
    """Find the first row with a hazard, if there is one, and name it."""
    rows, positions, cycles = (np.concatenate([uses[i] for uses in group]) for i in range(3))
    writes = np.concatenate([np.full(len(uses.rows), uses.write) for uses in group])
    order = np.lexsort((writes, cycles, positions, rows))
    rows, positions, cycles, writes = rows[order], positions[order], cycles[order], writes[order]
    # In program order, row after row: the last cycle of a write, and of a read, before each access to the same row.
    delay = bank.read_delay
    origin = rows * (int(cycles.max()) + 2 + delay)
    never = origin - 1 - delay
    when = origin + cycles

    def before(mask: NDArray[np.bool_]) -> Cycles:
        latest = np.maximum.accumulate(np.where(mask, when, never))
        earlier: Cycles = np.maximum(np.concatenate((never[:1], latest[:-1])), never)
        return earlier

    late = (when <= before(writes)) | (writes & (when - delay <= before(~writes)))
    if late.any():
        row = rows[np.argmax(late)]
        found = [
            _Access(int(positions[i]), int(cycles[i]), bool(writes[i]), names[positions[i]])
            for i in np.flatnonzero(rows == row)
        ]
        _check_row(f"{routine}: row {row} of bank {bank.name}", found, delay)


class _Access(NamedTuple):
    """One use of one row; sorted, in program order."""

    position: int
    cycle: int
    write: bool
    kernel: str


def _check_row(where: str, found: list[_Access], delay: int) -> None:
    """In program order, a write must come strictly after all earlier accesses, a read after all earlier writes; reads
    reach the memory ``delay`` cycles after their address."""
    read = write = _Access(-1, -1, False, "nothing")
    for access in found:
        if access.cycle <= write.cycle:
            raise ScheduleError(
                f"{where}: {'WAW' if access.write else 'RAW'} hazard: {access.kernel} accesses it in cycle "
                f"{access.cycle}, {write.kernel} writes it in cycle {write.cycle}"
            )
        if access.write and access.cycle <= read.cycle + delay:
            raise ScheduleError(
                f"{where}: WAR hazard: {access.kernel} writes it in cycle {access.cycle}, {read.kernel} reads it in "
                f"cycle {read.cycle + delay}"
            )
        if access.write:
            write = max(write, access, key=lambda a: a.cycle)
        else:
            read = max(read, access, key=lambda a: a.cycle)
