"""The checker of schedules: replays a program cycle by cycle and refuses any hazard, however it was scheduled.

Two consecutive runs of each routine are laid on one time line. Refused are: kernels out of order or issuing at once;
a port of a bank, the capture register or the tree used twice in a cycle; a read that doesn't follow the write that it
needs (RAW), a write that overtakes a read (WAR) or a write (WAW); a bank that reads and writes one row in one cycle;
rows outside a bank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from catgrad_hw.errors import ScheduleError
from catgrad_hw.schedule.events import Events, events
from catgrad_hw.schedule.program import MachineKernel, Program, Routine


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
    taken: dict[str, dict[int, str]] = defaultdict(dict)
    accesses: dict[tuple[str, int], list[_Access]] = defaultdict(list)
    for position, (kernel, start) in enumerate(order):
        uses = cache[kernel.name]
        for kind, group in (("", uses.units), ("read", uses.reads), ("write", uses.writes)):
            for use in group:
                cycles = (use.cycles + start).tolist()
                unit = use.unit
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
                    for row, cycle in zip(use.rows.tolist(), cycles, strict=True):
                        accesses[bank.name, row].append(_Access(position, cycle, kind == "write", kernel.name))
                for cycle in cycles:
                    if cycle in taken[unit]:
                        raise ScheduleError(
                            f"{routine.name}: {unit} is used twice in cycle {cycle}, by {taken[unit][cycle]} and "
                            f"{kernel.name}"
                        )
                    taken[unit][cycle] = kernel.name
    for (bank_name, row), found in accesses.items():
        _check_row(f"{routine.name}: row {row} of bank {bank_name}", sorted(found))


class _Access(NamedTuple):
    """One use of one row; sorted, in program order."""

    position: int
    cycle: int
    write: bool
    kernel: str


def _check_row(where: str, found: list[_Access]) -> None:
    """In program order, a write must come strictly after all earlier accesses, a read after all earlier writes."""
    read = write = _Access(-1, -1, False, "nothing")
    for access in found:
        if access.cycle <= write.cycle:
            raise ScheduleError(
                f"{where}: {'WAW' if access.write else 'RAW'} hazard: {access.kernel} accesses it in cycle "
                f"{access.cycle}, {write.kernel} writes it in cycle {write.cycle}"
            )
        if access.write and access.cycle <= read.cycle:
            raise ScheduleError(
                f"{where}: WAR hazard: {access.kernel} writes it in cycle {access.cycle}, {read.kernel} reads it in "
                f"cycle {read.cycle}"
            )
        if access.write:
            write = max(write, access, key=lambda a: a.cycle)
        else:
            read = max(read, access, key=lambda a: a.cycle)
