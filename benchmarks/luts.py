"""The linear model by which ``catgrad-hw build`` predicts LUTs: measured, fitted and compared, for each family.

``python -m benchmarks.luts ice40`` synthesises some designs with their link, has nextpnr pack them, and fits
the coefficients of :class:`catgrad_hw.boards.fit.LutModel` to the LUTs, by least squares of what is off in relation,
without negative coefficients. LUT RAM is counted apart. ``catgrad_hw.boards.fit.LUTS`` holds what it prints.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
from scipy.optimize import nnls

from catgrad_hw.boards.build import synthesise
from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.fit import LEANER, LUT_RAM_LUTS, LUTS, LutModel, Search
from catgrad_hw.boards.flow import CONSTRAINTS, Stages, luts_taken, route_arguments, watched
from catgrad_hw.boards.pll import MHZ, find_pll
from catgrad_hw.hardware import Hardware
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.simulate import tools
from catgrad_hw.workload import load_workload

Design: TypeAlias = tuple[str, int, int]

DESIGNS: dict[str, dict[str, tuple[Design, ...]]] = {
    "ice40": {
        "icebreaker": (
            ("iris-linear", 1, 0), ("iris-hidden", 2, 0), ("iris-hidden", 4, 0), ("iris-hidden", 4, 3),
            ("digits-mlp", 4, 0), ("digits-relu", 2, 0), ("iris-hidden", 8, 0), ("iris-hidden", 8, 1),
        ),
        "ice40-hx8k-evn": (("iris-linear", 1, 0), ("iris-hidden", 2, 0)),
    },
    "ecp5": {
        "ulx3s-85f": (
            ("iris-linear", 2, 0), ("iris-hidden", 4, 0), ("iris-hidden", 16, 0), ("iris-hidden", 16, 1),
            ("iris-hidden", 8, 3), ("digits-mlp", 16, 0), ("digits-relu", 8, 0), ("digits-conv", 8, 0),
        ),
    },
    "gowin": {
        "tang-primer-20k": (
            ("iris-linear", 2, 0), ("iris-hidden", 2, 0), ("iris-hidden", 8, 0), ("iris-hidden", 8, 1),
            ("iris-hidden", 8, 2), ("iris-hidden", 8, 3), ("digits-mlp", 8, 0), ("digits-relu", 4, 0),
        ),
    },
}  # fmt: skip
"""Designs of each family by the board that they are made for, whether they fit it or not: model, lanes, which of
``LEANER``."""

CLOCK = 24 * MHZ


def measure(board_name: str, model: str, lanes: int, leaner: int) -> tuple[list[float], int]:
    """Features of a design, and its LUTs, LUT RAM excluded."""
    board, workload = BOARDS[board_name], load_workload(model)
    quantized = quantize_workload(workload, board.numbers)
    design = Search(workload, board, quantized.integer, None, None).with_options(lanes, LEANER[leaner])
    pll = find_pll(board, CLOCK)
    fitted = design.on(board, Hardware(quantized, design.program))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        netlist, constraints = synthesise(fitted, pll, Stages(board, folder))
        (folder / "top.json").write_bytes(netlist)
        (folder / f"top.{CONSTRAINTS[board.family]}").write_text(constraints)
        path = tools.ready(tools.place_and_route(board.family))
        arguments = route_arguments(board, CLOCK / MHZ)
        _, said = watched([str(path), *arguments, "--pack-only"], folder, lambda: None)
    features = LutModel.features(design.program, soft=not board.chip.multipliers)
    return list(map(float, features)), luts_taken(said, board.family) - LUT_RAM_LUTS * design.needs.lut_rams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=DESIGNS)
    parser.add_argument("--json", type=Path, help="add the measurements to those of this file, and fit them all")
    arguments = parser.parse_args()
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    designs = [(board, *design) for board, found in DESIGNS[arguments.family].items() for design in found]
    for board, model, lanes, leaner in designs:
        key = f"{arguments.family} {board} {model} {lanes} {leaner}"
        if key not in known:
            known[key] = measure(board, model, lanes, leaner)
            print(f"{key}: {known[key][1]} LUTs", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(known, indent=2))
    rows = {key: row for key, row in known.items() if key.startswith(arguments.family)}
    features = np.array([row[0] for row in rows.values()], np.float64)
    luts = np.array([row[1] for row in rows.values()], np.float64)
    found, _ = nnls(features / luts[:, None], np.ones(len(luts)))
    names = ("base", "lane", "full", "update", "slow", "kernel", "unit", "multiplier")
    print(", ".join(f"{name} {value:.0f}" for name, value in zip(names, found, strict=True)))
    held = LUTS[arguments.family]
    used = np.array(held.coefficients) * (1 + held.margin)
    for key, row, count in zip(rows, features, luts, strict=True):
        print(f"{key:40} {row.astype(int)}: {count:.0f}, fitted {row @ found:.0f}, held {row @ used:.0f}")


if __name__ == "__main__":
    main()
