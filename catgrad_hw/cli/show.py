"""What the command line prints: progress, tables, the loss curve as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from catgrad_hw.bench import Timing
from catgrad_hw.schedule.memory import Family, memories
from catgrad_hw.schedule.program import Program
from catgrad_hw.schedule.view import Account
from catgrad_hw.simulate.tools import Tool
from catgrad_hw.simulate.training import Progress as Report

if TYPE_CHECKING:
    from catgrad_hw.host.training import Progress as BoardProgress
    from catgrad_hw.host.transport import Port
    from catgrad_hw.numbers.profile import Profile

FAMILIES: dict[Family, str] = {"ice40": "iCE40", "ecp5": "ECP5", "gowin": "Gowin"}

WIDTH, HEIGHT = 64, 10
"""Of the loss curve, in characters."""

BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The dots of a braille character by row and column (Unicode, from U+2800)."""

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar on standard error, with the stage's name; gone at the end, absent where that is no terminal."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)
        current = ""

        def report(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                bar.reset(task)
            bar.update(task, description=stage, completed=done, total=total or None)

        yield report


def note(text: str) -> None:
    """A line on standard error that is no error."""
    err.print(f"[yellow]note[/yellow]: {text}", soft_wrap=True)


def written(paths: list[Path]) -> None:
    """The files that a command wrote, one a line."""
    for path in paths:
        out.print(str(path), soft_wrap=True, markup=False)


def timings(found: dict[str, list[Timing]]) -> None:
    """A table of microseconds for each step, and how many times as fast as the NumPy target that is."""
    table = Table("model", "target", "µs a step", "against numpy")
    for model, rows in found.items():
        numpy = next((row.seconds for row in rows if row.target == "numpy"), None)
        for row in rows:
            if row.seconds is None:
                table.add_row(model, row.target, "-", escape(row.reason))
            else:
                table.add_row(
                    model, row.target, f"{1e6 * row.seconds:,.1f}", f"{numpy / row.seconds:.2f}" if numpy else ""
                )
    out.print(table)


def profile(found: Profile) -> None:
    """A table of arrays with their formats and ranges, then advice."""
    out.print(f"{found.name}: {found.steps} steps, numbers {found.numbers}")
    table = Table("array", "role", "format")
    for column in ("largest, float", "integers", "up to", "clamped", "to zero"):
        table.add_column(column, justify="right")
    for t in found.tensors:
        table.add_row(
            t.name,
            t.role,
            f"{t.width}.{t.fraction}",
            f"{t.in_float.largest:.4g}",
            f"{t.in_integers.largest:.4g}",
            f"{t.bound:g}",
            "" if t.saturations is None else f"{t.saturations:,}",
            "" if t.zero_updates is None else f"{100 * t.zero_updates:.1f} %",
        )
    out.print(table)
    out.print("clamped: words; to zero: updates that round to zero", markup=False)
    for text in found.advice:
        out.print(f"[yellow]advice[/yellow]: {escape(text)}", soft_wrap=True)


def tools_table(tools: list[Tool]) -> None:
    """The tools that were found and those that were not."""
    table = Table("tool", "version", "for")
    table.add_column("where, or what to do", overflow="fold")
    for tool in tools:
        state = str(tool.path) if tool.found else f"[red]missing[/red]: {tool.advice}"
        table.add_row(tool.name, tool.version or "-", tool.purpose, state)
    out.print(table)


def _number(value: float | None, kind: str) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f} %" if kind == "accuracy" else f"{value:.5g}"


def _saturations(report: dict[str, Any]) -> str:
    """The tensors of which words were clamped, and how many."""
    return ", ".join(f"{name} {count}" for name, count in report["saturations"].items() if count) or "none"


def _scores(report: dict[str, Any]) -> Table:
    """Loss and accuracy in float, in the reference and in RTL, of the data and of those held out."""
    table = Table("", "float", "reference", "rtl")
    for data, part in (("", report), *([("held-out ", report["heldout"])] if "heldout" in report else [])):
        for kind in ("loss", "accuracy"):
            table.add_row(data + kind, *(_number(part[kind][name], kind) for name in ("float", "reference", "rtl")))
    return table


def training(report: dict[str, Any]) -> None:
    """A training run's report: scores, the hardware's figures, the loss curve."""
    lanes = f", {report['lanes']} lanes, {report['simulator']}" if report["simulator"] else ""
    out.print(f"{report['model']}: {report['steps']} steps, numbers {report['numbers']}{lanes}")
    out.print(_scores(report))
    facts = Table(show_header=False)
    if report["simulator"]:
        facts.add_row("parameter words compared", f"{report['words_compared']:,}")
        facts.add_row("mismatches", str(report["mismatches"]))
        facts.add_row("cycles per step", f"{report['cycles_per_step']:,.0f} (scheduled {report['cycles_scheduled']:,})")
        facts.add_row("cycles of a readback", f"{report['cycles_readback']:,}")
        facts.add_row("multipliers", str(report["multipliers"]))
        facts.add_row("block RAMs (iCE40)", f"{report['block_rams']} ({report['block_ram_kbit']} kbit)")
        if report["tiles"] > 1:
            facts.add_row("tiles of the batch", f"{report['tiles']} of {report['tile']} samples")
    facts.add_row("least multiplications per step", f"{report['least_multiplications']:,}")
    if report["simulator"]:
        facts.add_row("multiplier busy", f"{100 * report['multiplier_busy']:.1f} %")
    facts.add_row("saturations", _saturations(report))
    out.print(facts)
    out.print(curve(report["curve"]["reference"]), markup=False)
    for line in report["advice"]:
        out.print(f"[yellow]advice[/yellow]: {line}", soft_wrap=True)
    for line in report.get("differences", ()):
        out.print(f"[red]mismatch[/red]: {line}", soft_wrap=True)


def prediction(report: dict[str, Any]) -> None:
    """The report of a core that only predicts."""
    out.print(
        f"{report['model']}: batches of {report['batch']}, numbers {report['numbers']}, {report['lanes']} lanes, "
        f"{report['simulator']}"
    )
    out.print(_scores(report))
    facts = Table(show_header=False)
    facts.add_row("words compared", f"{report['words_compared']:,}")
    facts.add_row("mismatches", str(report["mismatches"]))
    facts.add_row("cycles per predict", f"{report['cycles_per_predict']:,}")
    facts.add_row("multipliers", str(report["multipliers"]))
    facts.add_row("block RAMs (iCE40)", f"{report['block_rams']} ({report['block_ram_kbit']} kbit)")
    facts.add_row("least multiplications", f"{report['least_multiplications']:,}")
    facts.add_row("multiplier busy", f"{100 * report['multiplier_busy']:.1f} %")
    out.print(facts)


@contextmanager
def board_progress() -> Iterator[Callable[[BoardProgress], None]]:
    """A progress bar of a run on a board: steps, samples a second, loss and accuracy at the last checkpoint."""
    columns = (
        TextColumn("train"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} samples/s{task.fields[score]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None, rate=0.0, score="")

        def report(progress: BoardProgress) -> None:
            found = ""
            if progress.score is not None:
                found = f", loss {_number(progress.score.loss, 'loss')}"
                if progress.score.accuracy is not None:
                    found += f", accuracy {_number(progress.score.accuracy, 'accuracy')}"
            rate = progress.samples_per_second
            bar.update(task, completed=progress.done, total=progress.steps, rate=rate, score=found)

        yield report


def board_training(report: dict[str, Any]) -> None:
    """The report of a run on a board: scores of the board's own predictions, its figures, the loss curve."""
    out.print(
        f"{report['model']}: {report['steps']} steps on a board of {report['lanes']} lanes at "
        f"{report['clock_mhz']:g} MHz"
    )
    scores = Table("", "board")
    for data, part in (("", report), *([("held-out ", report["heldout"])] if "heldout" in report else [])):
        for kind in ("loss", "accuracy"):
            scores.add_row(data + kind, _number(part[kind], kind))
    out.print(scores)
    facts = Table(show_header=False)
    if report["classes"]:
        facts.add_row("classes", ", ".join(report["classes"]))
    if report["verified"]:
        facts.add_row("words compared", f"{report['words_compared']:,}")
        facts.add_row("mismatches", str(report["mismatches"]))
    facts.add_row("samples a second", f"{report['samples_per_second']:,.0f}")
    if report["cycles_per_step"]:
        facts.add_row("cycles per step", f"{report['cycles_per_step']:,.0f} (scheduled {report['cycles_scheduled']:,})")
    if report["recoveries"]:
        facts.add_row("times that the board was lost", str(report["recoveries"]))
    facts.add_row("saturations", _saturations(report))
    out.print(facts)
    if report["curve"]:
        out.print(curve(report["curve"]), markup=False)
    for line in report["differences"]:
        out.print(f"[red]mismatch[/red]: {line}", soft_wrap=True)


def answers(report: dict[str, Any], inputs: NDArray[np.floating[Any]]) -> None:
    """A board's predictions of the first rows, and scores where the truth is known."""
    names = report["classes"]
    table = Table("inputs", "answer", "outputs")
    for row, outputs in zip(inputs.tolist(), report["predictions"], strict=False):
        flat = np.ravel(outputs)
        best = int(flat.argmax())
        answer = f"{flat[0]:.4g}" if flat.size == 1 else names[best] if names else f"class {best}"
        shown = " ".join(f"{value:g}" for value in row[:8]) + (" …" if len(row) > 8 else "")
        table.add_row(shown, answer, " ".join(f"{value:.3f}" for value in flat))
    out.print(table)
    if report["samples"] > len(inputs):
        out.print(f"and {report['samples'] - len(inputs):,} more samples (--json FILE has all)")
    facts = Table(show_header=False)
    for kind in ("loss", "accuracy"):
        if report[kind] is not None:
            facts.add_row(kind, _number(report[kind], kind))
    facts.add_row("words compared", f"{report['words_compared']:,}")
    facts.add_row("mismatches", str(report["mismatches"]))
    out.print(facts)
    for line in report["differences"]:
        out.print(f"[red]mismatch[/red]: {line}", soft_wrap=True)


def ports(found: Sequence[Port]) -> None:
    """The serial ports, numbered from 1."""
    table = Table("", "port", "what is there")
    for number, port in enumerate(found, 1):
        table.add_row(str(number), port.name, port.description)
    err.print(table)


def account(name: str, found: Account) -> None:
    """Where the multipliers' cycles go in a run of the routine ``name``."""
    table = Table(f"cycles of the multipliers, {name}", "in")
    for column in ("cycles", "share"):
        table.add_column(column, justify="right")

    def row(cause: str, kernels: str, cycles: int) -> None:
        table.add_row(cause, kernels, f"{cycles:,}", f"{100 * cycles / found.total:.2f} %")

    row("needed multiplications", "", found.least)
    for cause, cycles in found.by_cause().items():
        parts = [idle for idle in found.idle if idle.cause == cause and idle.kernel]
        kernels = ", ".join(f"{idle.kernel} {idle.cycles:,}" for idle in sorted(parts, key=lambda idle: -idle.cycles))
        row(cause, kernels, cycles)
    table.add_section()
    row("in total", "", found.total)
    out.print(table)


def block_rams(program: Program) -> None:
    """The block RAMs of every memory, in every family of devices."""
    table = Table("block RAMs of")
    for column in ("copies", "rows", "words", "bits", *FAMILIES.values()):
        table.add_column(column, justify="right")
    found = memories(program)
    for memory in found:
        shape = (
            memory.copies,
            memory.depth,
            memory.words,
            memory.width,
            *(memory.blocks(family) for family in FAMILIES),
        )
        table.add_row(memory.name, *(f"{number:,}" for number in shape))
    table.add_section()
    for title, data_set in (("without the data set", False), ("in total", True)):
        counted = [memory for memory in found if data_set or not memory.data_set]
        counts = [sum(memory.blocks(family) for memory in counted) for family in FAMILIES]
        table.add_row(title, "", "", "", "", *(f"{count:,}" for count in counts))
    out.print(table)


def curve(points: list[list[float]]) -> str:
    """Losses over steps, pairs (step, loss), as lines of braille dots with the scales at the left and below."""
    steps, losses = np.array(points, np.float64).T
    low, high = losses.min(), losses.max()
    columns = np.linspace(steps[0], steps[-1], 2 * WIDTH)
    level = (np.interp(columns, steps, losses) - low) / (high - low or 1.0)
    dots = np.rint((1 - level) * (4 * HEIGHT - 1)).astype(int)
    cells = np.zeros((HEIGHT, WIDTH), int)
    previous = dots[0]
    for column, dot in enumerate(dots):
        for row in range(min(previous, dot), max(previous, dot) + 1):
            cells[row // 4, column // 2] |= BRAILLE[row % 4][column % 2]
        previous = dot
    labels = {0: f"{high:.4g}", HEIGHT - 1: f"{low:.4g}"}
    margin = max(map(len, labels.values()))
    lines = [f"{'loss':>{margin}}"]
    for row, line in enumerate(cells.tolist()):
        lines.append(f"{labels.get(row, ''):>{margin}} │" + "".join(chr(0x2800 + cell) for cell in line))
    first, last = f"{steps[0]:.0f}", f"step {steps[-1]:.0f}"
    lines += [" " * margin + " └" + "─" * WIDTH, " " * (margin + 2) + first + last.rjust(WIDTH - len(first))]
    return "\n".join(lines)
