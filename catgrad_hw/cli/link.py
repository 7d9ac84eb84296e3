"""The command that serves a simulated board: ``board-sim``."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catgrad_hw.cli.options import Batch, Debug, Memory, Model, Numbers, Simulator, Tile
from catgrad_hw.errors import ModelError

if TYPE_CHECKING:
    from catgrad_hw.boards.description import Board
    from catgrad_hw.hardware import Hardware
    from catgrad_hw.simulate.training import Progress
    from catgrad_hw.workload import Workload

POLL = 0.2  # seconds between looks at the simulation
MHZ = 1_000_000


def board_sim(
    model: Model,
    board: Annotated[
        str | None, typer.Option(metavar="BOARD", help="Fit the design to this board, as build does.")
    ] = None,
    batch: Batch = None,
    lanes: Annotated[
        int | None, typer.Option("--lanes", "-P", help="Lanes; by default 8, or what fits --board best.")
    ] = None,
    memory: Memory = None,
    tile: Tile = None,
    numbers: Annotated[
        Numbers | None, typer.Option(help="Number formats; by default 16, or those of --board's multipliers.")
    ] = None,
    predict_only: Annotated[bool, typer.Option("--predict-only", help="A core that does nothing else.")] = False,
    clock: Annotated[
        float, typer.Option(min=1, metavar="MHZ", help="Of the board: the lower, the sooner a byte is simulated.")
    ] = 12.0,
    link: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Make this symbolic link to the terminal, as a name that stays.")
    ] = None,
    simulator: Annotated[Simulator | None, typer.Option(help="verilator (default) or icarus.")] = None,
    vcd: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the waves (verilator).")] = None,
    debug: Debug = False,
) -> None:
    """Serve a simulated board on a pseudo-terminal, until Ctrl-C.

    What is simulated is what a bitstream holds: link, core and data set memory, from the serial pins on. Any client
    may open the terminal, one after the other, as it would open a board's serial port. The signal USR1 is the board's
    reset button; USR2 pulls the cable and plugs it in again, as another terminal.

    **A board, and a client in another shell:** `catgrad-hw board-sim iris-hidden --link /tmp/board`, then
    `catgrad-hw run iris-hidden --port /tmp/board --steps 50`

    **The design of an iCEBreaker:** `catgrad-hw board-sim iris-hidden --board icebreaker`
    """
    from catgrad_hw.boards.fit import fit
    from catgrad_hw.cli import files, show
    from catgrad_hw.gateware.link import LinkSettings
    from catgrad_hw.simulate import runner, tools
    from catgrad_hw.simulate.board import SimulatedBoard
    from catgrad_hw.workload import load_workload

    files.check_writable("--vcd", vcd)
    files.check_writable("--link", link)
    name = runner.choose_simulator(simulator.value if simulator else None)
    workload = load_workload(model, batch)
    with show.progress() as progress:
        if board is not None:
            fitted = fit(
                workload, _board(board, numbers, predict_only), lanes=lanes, memory=memory, tile=tile, progress=progress
            )
            program, settings = fitted.hardware.program, fitted.settings(round(clock * MHZ))
        else:
            hardware = _compile(
                workload,
                8 if lanes is None else lanes,
                memory,
                tile,
                numbers or Numbers.sixteen,
                predict_only,
                progress,
            )
            program = hardware.program
            words = 0 if predict_only else workload.x.size + workload.y.size
            settings = LinkSettings(clock_hz=round(clock * MHZ), data_set_words=words)
        tools.use_yosys(show.note)
        progress("building the simulation", 0, 0)
        served = SimulatedBoard(program, settings, simulator=name, link=link, waves=vcd)
        served.build()
    signals: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    with served:
        print(link or served.port, flush=True)
        words = settings.data_set_words
        show.note(f"{program.lanes} lanes, identity {program.identity:016x}, {words:,} words of data set memory")
        while True:
            served.check()
            for received in signals:
                if received == signal.SIGUSR1:
                    served.reset()
                elif received == signal.SIGUSR2:
                    served.unplug()
                    print(link or served.port, flush=True)
                else:
                    return
            signals.clear()
            time.sleep(POLL)


def _board(name: str, numbers: Numbers | None, predict_only: bool) -> Board:
    """The board of this name; its multipliers decide the number formats, and it trains."""
    from catgrad_hw.boards.description import find_board

    found = find_board(name)
    if predict_only:
        raise ModelError(f"--predict-only: expected no board, found --board {name}; leave one of them out")
    if numbers is not None and numbers.value != found.numbers:
        raise ModelError(f"--numbers: expected {found.numbers}, which suits {name}, found {numbers.value}")
    return found


def _compile(
    workload: Workload,
    lanes: int,
    memory: float | None,
    tile: int | None,
    numbers: Numbers,
    predict_only: bool,
    progress: Progress,
) -> Hardware:
    from catgrad_hw.hardware import compile_hardware, compile_predictor

    if predict_only:
        return compile_predictor(workload, lanes, numbers=numbers.value, progress=progress)
    return compile_hardware(
        workload, lanes, numbers=numbers.value, memory=memory, tile=tile, resident=False, progress=progress
    )
