"""The commands for boards: ``boards``, ``build`` and ``program``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from catgrad_hw.cli.options import USAGE, Batch, Debug, Json, Model, Tile
from catgrad_hw.errors import CatgradError, ModelError

if TYPE_CHECKING:
    from catgrad_hw.boards.description import Board
    from catgrad_hw.numbers.pipeline import Progress
    from catgrad_hw.workload import Workload

PRICE: dict[str | None, str] = {"under 30 €": "€", "30 to 100 €": "€€", "over 100 €": "€€€"}

BoardName = Annotated[
    str | None,
    typer.Option("--board", metavar="BOARD", help="A name that catgrad-hw boards lists, or module:Platform."),
]
BoardLanes = Annotated[
    str, typer.Option("--lanes", "-P", metavar="N", help="Lanes; auto: as many as fit and make it faster.")
]
BoardMemory = Annotated[
    float | None,
    typer.Option("--memory", metavar="KBIT", help="Use, or of module:Platform there is, so much block RAM."),
]
Multipliers = Annotated[int | None, typer.Option(min=0, help="Of module:Platform: multiplier blocks.")]
Luts = Annotated[int | None, typer.Option(min=1, help="Of module:Platform: LUTs.")]


def boards(model: Annotated[str, typer.Argument(metavar="MODEL")] = "iris-hidden", debug: Debug = False) -> None:
    """List the boards, what they hold, and how many lanes for MODEL fit; recommend one to begin with.

    **What can I build for?** `catgrad-hw boards`

    **How fast would my model be?** `catgrad-hw boards mine.py:flowers`
    """
    from catgrad_hw.boards.description import BEGIN_WITH, BOARDS, WHY_BEGIN_WITH
    from catgrad_hw.boards.fit import fit
    from catgrad_hw.boards.pages import measured
    from catgrad_hw.cli import show
    from catgrad_hw.workload import load_workload

    workload = load_workload(model)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("board", "device"):
        table.add_column(column, no_wrap=True)
    for column in ("multi-\npliers", "memory\nkbit", "lanes", "clock\nMHz"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("price", no_wrap=True)
    known = measured()
    with show.progress() as progress:
        for number, (name, board) in enumerate(BOARDS.items()):
            progress("fitting", number, len(BOARDS))
            try:
                lanes = str(fit(workload, board).hardware.lanes)
            except CatgradError:
                lanes = "-"
            chip, found = board.chip, known.get(name)
            shown = found is not None and found["model"] == workload.name
            clock = f"{found['clock_mhz']:.1f}" if found and shown else "-"
            memory = f"{chip.block_ram_kbit}" + (f"+{chip.single_port_kbit}" if chip.single_port_kbit else "")
            multipliers = str(chip.multipliers or "LUTs")
            table.add_row(name, board.chip_name, multipliers, memory, lanes, clock, PRICE.get(board.price, "-"))
    show.out.print(table)
    show.out.print(f"{'; '.join(f'{sign} {price}' for price, sign in PRICE.items())}")
    show.out.print(f"To begin with: [bold]{BEGIN_WITH}[/bold]: {WHY_BEGIN_WITH}.", soft_wrap=True)


def build(
    model: Model,
    board: BoardName = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")
    ] = None,
    all_boards: Annotated[bool, typer.Option("--all-boards", help="Every board, each into DIR/BOARD.")] = False,
    lanes: BoardLanes = "auto",
    memory: BoardMemory = None,
    tile: Tile = None,
    clock: Annotated[
        float | None, typer.Option(metavar="MHZ", help="The core's clock; default: as fast as routing gives.")
    ] = None,
    batch: Batch = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of placement.")] = 1,
    multipliers: Multipliers = None,
    luts: Luts = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Make a bitstream that trains MODEL on a board.

    DIR gets `top.bin`, `top.bit` or `top.fs`, what it takes and how fast it is (`build.json`), and the tools' logs.
    Lanes, tile, number formats and clock are chosen for the board. What did not change since the last build is taken
    from the cache.

    **For an iCEBreaker:** `catgrad-hw build iris-hidden --board icebreaker -o build`

    **Eight lanes, at 100 MHz:** `catgrad-hw build iris-hidden --board ulx3s-25f --lanes 8 --clock 100 -o build`

    **Every board:** `catgrad-hw build iris-hidden --all-boards -o build`

    **A board of your own:** `catgrad-hw build iris-hidden --board mine:Platform -o build`
    """
    from catgrad_hw.boards.description import BOARDS, find_board
    from catgrad_hw.boards.pages import write_measured
    from catgrad_hw.cli import files, show
    from catgrad_hw.simulate import tools
    from catgrad_hw.workload import load_workload

    files.check_writable("--json", json_file)
    if output is None:
        raise ModelError("--output: expected a folder to write to, found none; give -o DIR")
    if (board is None) != all_boards:
        found = "both" if all_boards else "neither"
        raise ModelError(f"--board: expected a board, or --all-boards, found {found}; catgrad-hw boards lists them")
    wanted = _lanes(lanes)
    chosen = list(BOARDS.values()) if board is None else [
        find_board(board, multipliers=multipliers, memory=memory if ":" in board else None, luts=luts)
    ]  # fmt: skip
    workload = load_workload(model, batch)
    reports: dict[str, Any] = {}
    failed: dict[str, str] = {}
    options = {"lanes": wanted, "memory": memory, "tile": tile, "clock_mhz": clock, "seed": seed}
    with show.progress() as progress:
        tools.use_yosys(show.note)
        for family in sorted({one.family for one in chosen}):
            tools.ready(tools.place_and_route(family), show.note)
            tools.ready(tools.packer(family), show.note)
        for one in chosen:
            folder = output / one.name if all_boards else output
            try:
                reports[one.name] = _build(workload, one, folder, options, progress)
            except CatgradError as error:
                if not all_boards:
                    raise
                failed[one.name] = str(error)
    if all_boards:
        write_measured(output / "measured.json", reports)
    if json_file is not None:
        content = reports if all_boards else next(iter(reports.values()))
        files.write(json_file, json.dumps(content, indent=2) + "\n")
    _show(reports)
    for name, reason in failed.items():
        show.err.print(f"[red]{name}[/red]: {reason}", soft_wrap=True)
    if failed:
        raise typer.Exit(USAGE)


def _lanes(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise ModelError(f"--lanes: expected auto or a number of lanes, found {text!r}")
    return int(text)


def _build(
    workload: Workload, board: Board, folder: Path, options: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    from catgrad_hw.boards.build import build as run

    return run(workload, board, folder, progress=progress, **options).report


def _show(reports: dict[str, dict[str, Any]]) -> None:
    from catgrad_hw.cli import show

    table = Table("board", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = ("lanes", "multiplier blocks", "LUTs", "block RAMs", "Fmax MHz", "clock MHz", "cycles a step", "steps a "
               "second", "streamed", "seconds")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="right")
    for name, r in reports.items():
        rate = r["steps_per_second"]
        table.add_row(
            name, str(r["lanes"]), str(r["multiplier_blocks"]), f"{r['luts']:,}", str(r["block_rams"]),
            "-" if r["fmax_mhz"] is None else f"{r['fmax_mhz']:.1f}", f"{r['clock_mhz']:.2f}",
            f"{r['cycles_per_step']:,}", f"{rate['core']:,.0f}", f"{rate['streamed']:,.1f}",
            f"{sum(r['seconds'].values()):.0f}",
        )  # fmt: skip
    show.out.print(table)


def program(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_DIR", help="A folder of build, or a model to build first.")],
    board: BoardName = None,
    flash: Annotated[bool, typer.Option("--flash", help="Keep it when power goes; default: SRAM.")] = False,
    debug: Debug = False,
) -> None:
    """Load a bitstream into the board that is plugged in.

    By default into SRAM, which power cycles clear; `--flash` keeps it.

    **What was built:** `catgrad-hw program build`

    **Build with default settings, and load:** `catgrad-hw program iris-hidden --board ulx3s-85f`
    """
    from catgrad_hw.boards.description import find_board
    from catgrad_hw.boards.program import bitstream_of, command
    from catgrad_hw.boards.program import program as load
    from catgrad_hw.cli import show
    from catgrad_hw.simulate import tools
    from catgrad_hw.workload import load_workload

    wanted = find_board(board) if board is not None else None
    if Path(model).is_dir():
        found, path = bitstream_of(Path(model), wanted)
    elif wanted is None:
        raise ModelError(f"--board: expected the board to build {model} for, found none; or give a folder of build")
    else:
        found, path = wanted, Path()
        command(found, path, flash=flash)  # what is missing is told before a build of minutes
        folder = tools.cache_directory() / "programmed" / f"{Path(model).name}-{found.name}"
        with show.progress() as progress:
            _build(load_workload(model), found, folder, {}, progress)
        found, path = bitstream_of(folder, found)
    load(found, path, flash=flash)
    place = "flash" if flash else "SRAM, until power goes"
    show.out.print(f"{found.title}: {path} is loaded ({place})", soft_wrap=True)
