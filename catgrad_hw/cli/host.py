"""The commands that use a board: ``run``, and ``predict --port``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catgrad_hw.cli.options import (
    MISMATCH,
    Batch,
    Debug,
    Epochs,
    Json,
    Memory,
    Model,
    Numbers,
    Seed,
    Steps,
    Tile,
    steps_of,
)
from catgrad_hw.errors import BoardLostError, CatgradError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catgrad_hw.host.device import Board
    from catgrad_hw.host.table import Table
    from catgrad_hw.host.training import Training
    from catgrad_hw.host.transport import Port
    from catgrad_hw.workload import Workload

STOPPED = 130
"""Exit code of a command that Ctrl-C ended."""

SHOWN_ROWS = 20
"""Of answers; the rest is in the file of ``--json``."""

PortName = Annotated[
    str, typer.Option("--port", metavar="PORT", help="The board's serial port; auto lists the ports and asks.")
]
BoardLanes = Annotated[int | None, typer.Option("--lanes", "-P", help="Of the bitstream; default: the board's own.")]
BoardNumbers = Annotated[Numbers | None, typer.Option("--numbers", help="Of the bitstream; default: the board's own.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="FILE.csv", help="Data of your own, in place of MODEL's.")]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="The column of --data to be learned.")]
Rate = Annotated[int | None, typer.Option("--baud", min=1, help="Go over to this rate; default: the board's own.")]


def run(
    model: Model,
    port: PortName,
    steps: Steps = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lanes: BoardLanes = None,
    memory: Memory = None,
    tile: Tile = None,
    numbers: BoardNumbers = None,
    seed: Seed = 0,
    data: Data = None,
    label: Label = None,
    load: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Start from saved parameters.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Keep the trained parameters.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Keep the state of the run.")] = None,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Steps between checkpoints.")] = 100,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the file of --checkpoint.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every word with the integer reference.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Wait so long for a board that was unplugged or reset.")
    ] = 15.0,
    baud: Rate = None,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Train on a board.

    The board has to hold MODEL's bitstream, built with the same --batch, --memory and --tile, if any; the rest is told
    by the board, or found by trying. The number formats were fixed when it was built: other data (--data) are rounded
    to them, and clamped where they are larger.

    Whatever happens, nothing is lost: a board that is reset or unplugged is loaded again with the last checkpoint, and
    a run that was broken off goes on, to the bit, with --resume. Exits with 1 where --verify finds a difference.

    **Train iris on the board at ttyUSB1:** `catgrad-hw run iris-hidden --port /dev/ttyUSB1`

    **Keep what it learned:** `catgrad-hw run iris-hidden --port auto --save a.npz`

    **Keep the way there, and go on after a break:** `catgrad-hw run iris-hidden --port auto --checkpoint c.npz`, then
    the same with `--resume`

    **Flowers of your own:** `catgrad-hw run iris-hidden --port auto --data flowers.csv --label species`
    """
    from catgrad_hw.cli import files, show
    from catgrad_hw.host import training
    from catgrad_hw.host.checkpoint import Checkpoint
    from catgrad_hw.numbers.formats import to_values
    from catgrad_hw.workload import load_workload

    for option, path in (("--json", json_file), ("--save", save), ("--checkpoint", checkpoint)):
        files.check_writable(option, path)
    if resume and checkpoint is None:
        raise CatgradError("--resume: expected --checkpoint FILE, the state to go on from, found none; give it")
    if resume and load is not None:
        raise CatgradError("--resume: expected no --load, found both; the checkpoint has the parameters")
    if checkpoint is not None and checkpoint.exists() and not resume:
        raise CatgradError(
            f"--checkpoint {checkpoint}: expected no such file yet, found the state of a run; go on from it with "
            "--resume, or remove it"
        )
    begin = Checkpoint.load(checkpoint) if resume and checkpoint is not None else None
    design = load_workload(model, batch)
    if load is not None:
        design = files.with_parameters(design, load)
    workload, classes = _own_data(design, data, label)
    count = steps_of(workload, steps, epochs)
    options = {"lanes": lanes, "numbers": numbers and numbers.value, "memory": memory, "tile": tile, "rate": baud}
    with _connected(port, design, **options) as board:
        for note in _fit(board, workload, "--data" if data else "data"):
            show.note(note)
        origin = training.start(board, workload, seed)
        if begin is not None:
            training.require_continuation(begin, origin)
        with show.board_progress() as progress:
            try:
                found = training.train(
                    board,
                    workload,
                    begin or origin,
                    count,
                    every=every,
                    verify=verify,
                    patience=patience,
                    keep=None if checkpoint is None else lambda state: state.save(checkpoint),
                    progress=progress,
                )
            except KeyboardInterrupt:
                kept = f"; {checkpoint} has its last state, from which --resume goes on" if checkpoint else ""
                show.note(f"stopped{kept}")
                raise typer.Exit(STOPPED) from None
            except BoardLostError as lost:
                advice = (
                    "go on with --resume" if checkpoint else "with --checkpoint FILE, --resume would go on from there"
                )
                raise BoardLostError(f"{lost}; {advice}") from None
        names = board.hardware.integer.kernels.parameters
        formats = board.hardware.integer.formats
        report = _report(board, workload, found, verify, classes)
    if save is not None:
        words = zip(found.checkpoint.words, names, strict=True)
        files.save_parameters(save, [to_values(word, formats[name]) for word, name in words])
    if json_file is not None:
        files.write(json_file, json.dumps(report, indent=2) + "\n")
    show.board_training(report)
    if report["mismatches"]:
        raise typer.Exit(MISMATCH)


def predict(
    model: str,
    port: str,
    *,
    batch: int | None,
    lanes: int | None,
    memory: float | None,
    tile: int | None,
    numbers: str | None,
    seed: int,
    data: Path | None,
    label: str | None,
    classes: str | None,
    load: Path | None,
    baud: int | None,
    json_file: Path | None,
) -> None:
    """``catgrad-hw predict --port``: ask a board, and compare every word with the reference."""
    from catgrad_hw.cli import files, show
    from catgrad_hw.host.table import read_table
    from catgrad_hw.numbers.formats import to_values
    from catgrad_hw.numbers.train import scorer
    from catgrad_hw.simulate.training import Differences
    from catgrad_hw.workload import load_workload

    design = load_workload(model, batch)
    if load is not None:
        design = files.with_parameters(design, load)
    table = read_table(data, design, label) if data is not None else None
    x, y = (table.x, table.y) if table else (design.x, design.y)
    names = _classes(table, classes, int(design.output_shape[-1]))
    options = {"lanes": lanes, "numbers": numbers, "memory": memory, "tile": tile, "rate": baud}
    with _connected(port, design, **options) as board:
        trains = bool(board.description.trains)
        if load is not None or not trains:
            board.load(design.initial_parameters(seed))
        reference = board.hardware.reference()
        reference.load(board.parameter_words() if trains else design.initial_parameters(seed))
        found = board.prediction_words(x)
        differences = Differences()
        differences.compare("prediction word", found, reference.predict(x))
        form = board.hardware.integer.formats[board.hardware.integer.kernels.outputs[0]]
    values = to_values(found, form)
    scores = scorer(design, y)(values) if y is not None else None
    report: dict[str, Any] = {
        "model": design.name,
        "port": port,
        "identity": f"{board.hardware.identity:016x}",
        "samples": len(x),
        "classes": list(names),
        "predictions": values.tolist(),
        "loss": scores and scores.loss,
        "accuracy": scores and scores.accuracy,
        "words_compared": int(found.size),
        "mismatches": differences.mismatches,
        "differences": differences.differences,
    }
    if json_file is not None:
        files.write(json_file, json.dumps(report, indent=2) + "\n")
    show.answers(report, x.reshape(len(x), -1)[:SHOWN_ROWS])
    if differences.mismatches:
        raise typer.Exit(MISMATCH)


@contextmanager
def _connected(port: str, workload: Workload, **options: Any) -> Iterator[Board]:
    """A board on a port that may have to be asked for."""
    from catgrad_hw.cli import show
    from catgrad_hw.host import transport
    from catgrad_hw.host.device import connect

    if port == "auto":
        port = transport.choose_port(transport.ports(), _ask if sys.stdin.isatty() else None)
        show.note(f"port {port}")
    with show.progress() as progress:
        board = connect(port, workload, progress=progress, **options)
    with board:
        yield board


def _ask(ports: Sequence[Port]) -> int:
    """The index of the port that the user chooses."""
    from rich.prompt import IntPrompt

    from catgrad_hw.cli import show

    show.ports(ports)
    choices = [str(number) for number in range(1, len(ports) + 1)]
    return IntPrompt.ask("port number", console=show.err, choices=choices) - 1


def _own_data(workload: Workload, data: Path | None, label: str | None) -> tuple[Workload, tuple[str, ...]]:
    """``workload`` with the data of a CSV file, where one is given; the names of the classes."""
    from catgrad_hw.host.table import read_table

    if data is None:
        if label is not None:
            raise CatgradError("--label: expected --data FILE.csv, found none; give the file that has the column")
        return workload, ()
    if label is None:
        raise CatgradError("--data: expected --label COLUMN, the column to be learned, found none; name it")
    table = read_table(data, workload, label)
    assert table.y is not None  # there is a label
    return replace(workload, x=table.x, y=table.y, heldout=None), table.classes


def _classes(table: Table | None, given: str | None, outputs: int) -> tuple[str, ...]:
    """What the outputs stand for, by name where names are known."""
    if given is None:
        return table.classes if table else ()
    names = tuple(name.strip() for name in given.split(","))
    if len(names) != outputs:
        raise CatgradError(f"--classes: expected {outputs} names with commas between, found {len(names)}: {given}")
    return names


def _fit(board: Board, workload: Workload, what: str) -> list[str]:
    """Notes about data that the formats of the design do not suit."""
    import numpy as np

    notes = []
    for name, limit in board.limits().items():
        values = np.abs(getattr(workload, name))
        beyond = int((values >= limit).sum())
        if beyond:
            notes.append(
                f"{what}: {beyond} of {values.size} values of {name} are beyond ±{limit:g}, what the bitstream was "
                "calibrated for, and are clamped; scale the columns, or build a bitstream with these data"
            )
        elif values.max(initial=0.0) < limit / 64:
            notes.append(
                f"{what}: all values of {name} are below {values.max(initial=0.0):g}, and the bitstream was calibrated "
                f"for ±{limit:g}: they lose precision; scale the columns, or build a bitstream with these data"
            )
    return notes


def _report(
    board: Board, workload: Workload, found: Training, verified: bool, classes: tuple[str, ...]
) -> dict[str, Any]:
    """What ``run --json`` writes. ``seconds`` are those of training, transfers included; losses are those of
    :func:`catgrad_hw.numbers.train.scorer`."""
    from catgrad_hw.numbers.train import scorer

    result = scorer(workload, workload.y)(found.predictions)
    report: dict[str, Any] = {
        "model": workload.name,
        "identity": f"{board.hardware.identity:016x}",
        "lanes": board.hardware.lanes,
        "clock_mhz": board.description.clock_hz / 1e6,
        "batch": board.batch,
        "seed": found.checkpoint.seed,
        "first_step": found.first,
        "steps": found.checkpoint.step,
        "classes": list(classes),
        "loss": result.loss,
        "accuracy": result.accuracy,
        "seconds": found.seconds,
        "samples_per_second": found.samples_per_second,
        "cycles_per_step": found.cycles_per_step,
        "cycles_scheduled": board.hardware.cycles_per_step,
        "recoveries": found.recoveries,
        "verified": verified,
        "words_compared": found.differences.compared,
        "mismatches": found.differences.mismatches,
        "differences": found.differences.differences,
        "saturations": found.checkpoint.saturations,
        "curve": [list(point) for point in found.curve],
    }
    if workload.heldout is not None and found.heldout is not None:
        heldout = scorer(workload, workload.heldout[1])(found.heldout)
        report["heldout"] = {"loss": heldout.loss, "accuracy": heldout.accuracy}
    return report
