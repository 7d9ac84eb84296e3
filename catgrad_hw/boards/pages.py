"""Writes ``boards/<board>/README.md`` from the descriptions and from what builds have measured.

``python -m catgrad_hw.boards.pages boards`` writes them all. ``catgrad-hw build iris-hidden --board BOARD -o DIR``
measures: ``python -m catgrad_hw.boards.pages boards DIR …`` takes what the builds found into ``measured.json`` beside
this file. ``DIR/measured.json`` of a build of all boards replaces it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from catgrad_hw.boards.description import BEGIN_WITH, BOARDS, WHY_BEGIN_WITH, Board
from catgrad_hw.boards.fit import LINK_BLOCKS
from catgrad_hw.boards.flow import CELLS, SUFFIX
from catgrad_hw.files import write
from catgrad_hw.host.protocol import DEFAULT_BAUD
from catgrad_hw.schedule.memory import BLOCK

MEASURED = Path(__file__).with_name("measured.json")
KEPT = (
    "model", "lanes", "tile", "multiplier_blocks", "luts", "block_rams", "fmax_mhz", "clock_mhz", "cycles_per_step",
    "steps_per_second",
)  # fmt: skip
"""What of a build's report is kept: what the same sources and tools yield again."""


def measured() -> dict[str, dict[str, Any]]:
    """What builds have measured, by board."""
    found: dict[str, dict[str, Any]] = json.loads(MEASURED.read_text())
    return found


def write_measured(path: Path, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what is kept of ``reports``, by board."""
    kept = {name: {key: report[key] for key in KEPT} for name, report in sorted(reports.items())}
    write(path, json.dumps(kept, indent=2) + "\n")


def page(board: Board, found: Mapping[str, Any] | None) -> str:
    """The README of a board; ``found``: its measurements, where there are any."""
    chip, loader = board.chip, board.loader
    memory = f"{chip.block_rams} block RAMs of {BLOCK[chip.family].kbit} kbit ({chip.block_ram_kbit:,} kbit)"
    if chip.single_port_rams:
        memory += f", {chip.single_port_rams} single-port RAMs of 256 kbit"
    lights = {
        3: "three: alive (steady while a host talks, blinking else), training, error",
        2: "two: alive, steady while training; error",
        1: "one: alive; dark while training goes wrong",
        0: "none that is free",
    }[len(board.leds)]
    rows = {
        "chip": board.chip_name,
        "multipliers": f"{chip.multipliers} of {chip.multiplier_bits} bits"
        if chip.multipliers
        else "none: LUTs multiply",
        "LUTs": f"{chip.luts:,}",
        "memory": memory,
        "crystal": f"{board.clock_hz / 1e6:g} MHz; a PLL makes the core's clock",
        "serial port": f"{DEFAULT_BAUD:,} baud, 8N1",
        "lamps": lights,
        "price": f"{board.price}; look up the day's",
    }
    lines = [
        f"# {board.title}",
        "",
        "<!-- Written by python -m catgrad_hw.boards.pages; change the description instead. -->",
        "",
        *_table(("", ""), rows.items()),
        "",
        "## Buy",
        "",
        board.buy,
        "",
        "## Wire",
        "",
        board.wire,
        "",
        "## Type",
        "",
        "```sh",
        "pip install '.[boards]'  # in a copy of this repository",
        f"catgrad-hw build iris-hidden --board {board.name} -o build",
        f"catgrad-hw program build{' --flash' if loader.note else ''}",
        "catgrad-hw run iris-hidden --port auto",
        "```",
        "",
        f"`build` writes `build/top.{SUFFIX[board.family]}`. `program` calls {loader.tool}"
        + (
            ": SRAM, until power goes; `--flash` to keep it."
            if loader.sram is not None
            else ", which writes the flash."
        )
        + (f" {loader.note}" if loader.note else ""),
        "",
        "## Measured",
        "",
    ]
    if found is None:
        lines += ["Nothing yet."]
    else:
        rate, clock = found["steps_per_second"], ceil(1000 * found["clock_mhz"]) / 1000  # the PLL's is the next below
        cells = CELLS[board.family]
        fmax = "not modelled: nextpnr knows no delay of this chip's multipliers"
        command = f"catgrad-hw build {found['model']} --board {board.name} --lanes {found['lanes']} --clock {clock:.7g}"
        lines += [
            f"`{command}`, the whole design with link and PLL, after place-and-route:",
            "",
            *_table(
                ("", ""),
                {
                    "lanes": f"{found['lanes']}, tiles of {found['tile']} samples",
                    "multiplier blocks": f"{found['multiplier_blocks']} of {chip.multipliers}",
                    f"LUTs ({cells.luts})": f"{found['luts']:,} of {chip.luts:,}",
                    "block RAMs": f"{found['block_rams']} of {chip.block_rams} ({LINK_BLOCKS} of them the link's)",
                    "fastest clock": f"{found['fmax_mhz']:.1f} MHz" if found["fmax_mhz"] else fmax,
                    "clock": f"{found['clock_mhz']:g} MHz",
                    "cycles of a step": f"{found['cycles_per_step']:,}",
                    "steps a second": f"{rate['core']:,.0f}; {rate['streamed']:,.0f} with every batch sent",
                }.items(),
            ),
        ]
    return "\n".join([*lines, ""])


def overview(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The README of the folder of boards."""
    rows = []
    for name, board in BOARDS.items():
        one = found.get(name)
        rate = f"{one['steps_per_second']['core']:,.0f}" if one else "-"
        rows.append(
            (f"[{board.title}]({name}/README.md)", board.chip_name, board.price, one["lanes"] if one else "-", rate)
        )
    head = ("board", "chip", "price", "lanes", "steps a second")
    return "\n".join(
        [
            "# Boards",
            "",
            "<!-- Written by python -m catgrad_hw.boards.pages; change the descriptions instead. -->",
            "",
            f"To begin with: **{BOARDS[BEGIN_WITH].title}**: {WHY_BEGIN_WITH}.",
            "",
            "Lanes and steps are those of iris-hidden. How to [add a board](../docs/adding-a-board.md).",
            "",
            *_table(head, rows),
            "",
        ]
    )


def pages() -> dict[str, str]:
    """All pages, by path below the folder of boards."""
    found = measured()
    return {"README.md": overview(found)} | {
        f"{name}/README.md": page(board, found.get(name)) for name, board in BOARDS.items()
    }


def _table(head: tuple[str, ...], rows: Any) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in lines]


def _build(folder: str) -> dict[str, Any]:
    """The report of a build."""
    path = Path(folder) / "build.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        raise argparse.ArgumentTypeError(f"expected the folder of a build, found no report {path}") from None
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the boards' pages, and what builds have measured.")
    parser.add_argument("folder", type=Path, help="the folder of the pages")
    parser.add_argument("builds", nargs="*", type=_build, metavar="build", help="the -o of a catgrad-hw build")
    given = parser.parse_args()
    write_measured(MEASURED, measured() | {build["board"]: build for build in given.builds})
    for path, text in pages().items():
        target = given.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target, text)
        print(target)


if __name__ == "__main__":
    main()
