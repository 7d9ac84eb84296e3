"""Draws the timeline of a program as SVG: lanes, other units, and every port of every bank, by kernel and cycle.

The shapes are in the template ``timeline.svg.jinja``; here is where they go.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from catgrad_hw.schedule.program import Program, Routine
from catgrad_hw.schedule.view import LANES, tracks

WIDTH, MARGIN, PLOT = 1200, 150, 1030
"""Of the picture, of the tracks' names, of the tracks; in pixels."""
BAR, PITCH = 16, 20
"""Height of a track, and from one to the next."""
LEGEND_COLUMNS = 4
TICKS = 10
CLOSE_UP = 90, 30
"""Cycles before and after the end that the close-up shows."""
BARS = 50
"""A whole routine shows uses as one bar that are at most this fraction of it apart."""
CHARACTER = 7
"""About the width of a letter."""
KEY = (
    "A solid bar's height is the share of the cycles in which the unit or port is used; of the lanes, the share that "
    "multiplies."
)


def _colour(number: int) -> str:
    """Colours far apart for neighbours: hues by the golden angle."""
    return f"hsl({number * 137.5 % 360:.0f} 65% {(60, 72)[number % 2]}%)"


def _step(cycles: int) -> int:
    """The distance of ticks: 1, 2 or 5 times a power of ten."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if cycles <= TICKS * step * factor:
                return step * factor
        step *= 10


def _panel(
    program: Program, routine: Routine, first: int, last: int, gap: int, caption: str, colours: dict[str, str]
) -> dict[str, Any]:
    """Cycles ``first`` until before ``last``; uses at most ``gap`` cycles apart are drawn as one bar."""
    scale = PLOT / (last - first)

    def place(cycle: float) -> float:
        return round(MARGIN + (cycle - first) * scale, 2)

    drawn: list[dict[str, Any]] = []
    loaders = {f"{bank.name} write" for bank in program.banks.values() if bank.loader}
    for number, track in enumerate(tracks(program, routine, first, last, gap)):
        spans = []
        for span in track.spans:
            width = max(round((span.last + 1 - span.first) * scale, 2), 0.8)
            height = round(max(span.share * BAR, 1), 2)
            spans.append(
                {
                    "kernel": span.kernel,
                    "first": span.first,
                    "last": span.last,
                    "percent": f"{100 * span.share:.0f}",
                    "x": place(span.first),
                    "width": width,
                    "y": BAR - height,
                    "height": height,
                    "colour": colours[span.kernel],
                    "label": track.name == LANES and width > CHARACTER * len(span.kernel),
                }
            )
        note = "written by the loader, whenever samples come" if track.name in loaders else ""
        drawn.append({"name": track.name, "y": 12 + PITCH * number, "spans": spans, "note": note})
    step = _step(last - first)
    ticks = [{"x": place(cycle), "label": f"{cycle:,}"} for cycle in range(-(-first // step) * step, last + 1, step)]
    return {
        "caption": caption,
        "bottom": 12 + PITCH * len(drawn),
        "tracks": drawn,
        "ticks": ticks,
        "end": place(routine.period) if routine.period < last else None,
    }


def timeline_svg(program: Program, title: str, name: str = "step") -> str:
    """The timeline of the routine ``name``, from start to start, and a close-up of its last cycles, as SVG.

    ``title``: what the program is of.
    """
    routine = program.routine(name)
    kernels = (*routine.tile.kernels, *routine.final.kernels)
    starts = (*routine.tile.starts, *(routine.final_start + start for start in routine.final.starts))
    colours = {kernel.name: _colour(number) for number, kernel in enumerate(kernels)}
    before, after = CLOSE_UP
    end = routine.period
    panels = [
        _panel(program, routine, 0, end, end // BARS, f"{name}: {end:,} cycles", colours),
        _panel(program, routine, max(0, end - before), end + after, 1, "its end, and the start of the next", colours),
    ]
    top = 60
    for panel in panels:
        panel["top"] = top
        top += panel["bottom"] + 60
    legend = []
    for number, (kernel, start) in enumerate(zip(kernels, starts, strict=True)):
        row, column = divmod(number, LEGEND_COLUMNS)
        legend.append(
            {
                "x": MARGIN + column * PLOT // LEGEND_COLUMNS,
                "y": top + 18 * row,
                "colour": colours[kernel.name],
                "text": f"{kernel.name}: from cycle {start:,}, {kernel.cycles:,} cycles",
            }
        )
    bottom = top + 18 * -(-len(kernels) // LEGEND_COLUMNS)
    tiles = f", {program.tiles} tiles of {program.tile}" if program.tiles > 1 else ""
    loader = PackageLoader("catgrad_hw.schedule", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("timeline.svg.jinja").render(
        title=f"{title}: {program.lanes} lanes, batch {program.batch}{tiles}",
        routine=name,
        width=WIDTH,
        height=bottom + 30,
        margin=MARGIN,
        plot=PLOT,
        bar=BAR,
        panels=panels,
        legend=legend,
        key=KEY,
    )
