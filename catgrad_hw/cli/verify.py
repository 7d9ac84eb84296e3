"""The command that looks below RTL: ``verify``."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from catgrad_hw.cli.options import MISMATCH, Debug, Json, Memory, Seed, Tile

if TYPE_CHECKING:
    from catgrad_hw.verify.verification import Verification


class LevelName(StrEnum):
    """The names of catgrad_hw.verify.netlist.LEVELS."""

    netlist = "netlist"
    routed = "routed"
    bitstream = "bitstream"


class Break(StrEnum):
    """The names of catgrad_hw.verify.damage.DAMAGES."""

    lut = "lut"
    block_ram = "block-ram"


def verify(
    board: Annotated[str, typer.Option(metavar="BOARD", help="A name that catgrad-hw boards lists.")],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As in other commands; a small one, since netlists simulate slowly.")
    ] = "iris-linear",
    level: Annotated[LevelName, typer.Option(help="What to simulate.")] = LevelName.netlist,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a step, in place of the model's own number.")] = 6,
    lanes: Annotated[int, typer.Option("--lanes", "-P", min=1, help="Multiply-accumulate lanes.")] = 2,
    memory: Memory = None,
    tile: Tile = None,
    clock: Annotated[
        float | None,
        typer.Option(metavar="MHZ", help="The core's clock, as of catgrad-hw build; default: a slow one."),
    ] = None,
    seed: Seed = 0,
    break_it: Annotated[
        Break | None, typer.Option("--break", hidden=True, help="Invert a LUT, or a word of block RAM's contents.")
    ] = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Train what the tools made of a design, in simulation, and compare every word with the integer reference.

    Simulated is the board's whole top level, pins, PLL, link and core, as catgrad-hw build makes it with the same
    options. The driver that a real board has speaks to it through the pins of the serial port. Parameters after each
    step, predictions and saturation counters are compared. Exits with 1 where any word differs.

    **netlist**: after synthesis, every board. **routed**: after place-and-route, iCE40 and ECP5. **bitstream**:
    recovered from the very bits, ice40-hx8k-evn.

    **A net that learns iris, on an ECP5's cells:** `catgrad-hw verify --board ulx3s-25f`

    **As routed on an iCEBreaker, DSPs and all:** `catgrad-hw verify --board icebreaker --level routed`

    **From the bitstream:** `catgrad-hw verify iris-linear --board ice40-hx8k-evn --level bitstream --lanes 1`
    """
    from catgrad_hw.boards.description import find_board
    from catgrad_hw.cli import files, show
    from catgrad_hw.simulate import tools
    from catgrad_hw.verify.damage import DAMAGES
    from catgrad_hw.verify.netlist import CLOCK_MHZ
    from catgrad_hw.verify.verification import verify as run
    from catgrad_hw.workload import load_workload

    files.check_writable("--json", json_file)
    found_board, workload = find_board(board), load_workload(model, batch)
    with show.progress() as progress:
        tools.use_yosys(show.note)
        found = run(
            workload,
            found_board,
            level.value,
            lanes=lanes,
            memory=memory,
            tile=tile,
            clock_mhz=CLOCK_MHZ if clock is None else clock,
            steps=steps,
            seed=seed,
            damage=DAMAGES[break_it.value] if break_it else None,
            progress=progress,
        )
    if json_file is not None:
        files.write(json_file, json.dumps({"model": workload.name, **found.report()}, indent=2) + "\n")
    _show(workload.name, found)
    if found.mismatches:
        raise typer.Exit(MISMATCH)


def _show(model: str, found: Verification) -> None:
    from catgrad_hw.cli import show
    from catgrad_hw.verify.netlist import LEVELS

    report = found.report()
    show.out.print(
        f"{model} on {report['board']}, {LEVELS[found.level]}: {found.steps} steps, {report['lanes']} lanes, "
        f"{report['simulator']}",
        soft_wrap=True,
    )
    table = Table("cell", "number", "model")
    for name, count in found.netlist.cells.items():
        table.add_row(name, f"{count:,}", found.netlist.sources[name])
    show.out.print(table)
    show.out.print(f"words compared: {found.words_compared:,}; mismatches: {found.mismatches:,}")
    for line in found.differences:
        show.out.print(line, soft_wrap=True, markup=False)
