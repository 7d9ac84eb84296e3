"""The linear model by which ``catgrad-hw build`` predicts LUTs: measured, fitted and compared, for each family.

``python -m benchmarks.luts ice40`` synthesises some designs with their link, has nextpnr pack them, and fits
``base + lane P + slow E + kernel K`` to the LUTs, by least squares without negative coefficients. LUT RAM is counted
apart. ``catgrad_hw.boards.fit.LUTS`` holds what it prints.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.boards.build import synthesise
from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.fit import LUT_RAM_LUTS, LUTS, Search
from catgrad_hw.boards.flow import CELLS, CONSTRAINTS, Stages, route_arguments, watched
from catgrad_hw.boards.pll import MHZ, find_pll
from catgrad_hw.hardware import Hardware
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.simulate import tools
from catgrad_hw.workload import load_workload

Design: TypeAlias = tuple[str, int]

DESIGNS: dict[str, tuple[str, tuple[Design, ...]]] = {
    "ice40": ("icebreaker", (("iris-linear", 1), ("iris-hidden", 2), ("iris-hidden", 4), ("digits-mlp", 4))),
    "ecp5": ("ulx3s-85f", (("iris-linear", 2), ("iris-hidden", 4), ("iris-hidden", 16), ("digits-mlp", 16))),
    "gowin": ("tang-primer-20k", (("iris-linear", 2), ("iris-hidden", 2), ("iris-hidden", 8), ("digits-mlp", 8))),
}
"""Designs of each family, and the board that they are made for, whether they fit it or not."""

CLOCK = 24 * MHZ


def measure(board_name: str, model: str, lanes: int) -> tuple[list[float], int]:
    """Features 1, P, E, K of a design, and its LUTs, LUT RAM excluded."""
    board, workload = BOARDS[board_name], load_workload(model)
    quantized = quantize_workload(workload, board.numbers)
    design = Search(workload, board, quantized.integer, None, None).design(lanes)
    pll = find_pll(board, CLOCK)
    fitted = design.on(board, Hardware(quantized, design.program))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        netlist, constraints = synthesise(fitted, fitted.settings(pll.output_hz), pll, Stages(board, folder))
        (folder / "top.json").write_bytes(netlist)
        (folder / f"top.{CONSTRAINTS[board.family]}").write_text(constraints)
        path = tools.ready(tools.place_and_route(board.family))
        arguments = route_arguments(board, CLOCK / MHZ)
        _, said = watched([str(path), *arguments, "--pack-only"], folder, lambda: None)
    found = re.search(rf"\b{CELLS[board.family].luts}:\s+(\d+)/", said)
    if found is None:
        raise RuntimeError(said[-1000:])
    program = design.program
    luts = int(found[1]) - LUT_RAM_LUTS * design.needs.lut_rams
    return [1.0, program.lanes, program.slow_words, len(program.kernels)], luts


def least_squares(features: NDArray[np.float64], luts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients without negative ones: of all subsets of features whose own are positive, the closest."""
    best, error = np.zeros(features.shape[1]), np.inf
    for count in range(1, features.shape[1] + 1):
        for chosen in map(list, combinations(range(features.shape[1]), count)):
            found, *_ = np.linalg.lstsq(features[:, chosen], luts, rcond=None)
            off = float(np.abs((features[:, chosen] @ found - luts) / luts).max())
            if (found >= 0).all() and off < error:
                best, error = np.zeros(features.shape[1]), off
                best[chosen] = found
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=DESIGNS)
    parser.add_argument("--json", type=Path, help="add the measurements to those of this file, and fit them all")
    arguments = parser.parse_args()
    board, designs = DESIGNS[arguments.family]
    known = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for model, lanes in designs:
        key = f"{arguments.family} {model} {lanes}"
        if key not in known:
            known[key] = measure(board, model, lanes)
            print(f"{key}: {known[key][1]} LUTs", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(known, indent=2))
    rows = {key: row for key, row in known.items() if key.startswith(arguments.family)}
    features = np.array([row[0] for row in rows.values()], np.float64)
    luts = np.array([row[1] for row in rows.values()], np.float64)
    found = least_squares(features, luts)
    print("base {:.0f}, lane {:.0f}, slow {:.0f}, kernel {:.0f}".format(*found))
    held = LUTS[arguments.family]
    used = np.array([held.base, held.lane, held.slow, held.kernel]) * (1 + held.margin)
    for key, row, count in zip(rows, features, luts, strict=True):
        print(f"{key:24} P {row[1]:.0f} E {row[2]:.0f} K {row[3]:.0f}: {count:.0f}, fitted {row @ found:.0f}, "
              f"held {row @ used:.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
