"""Trains what a tool made of a design, through the board's serial pins, and compares every word with the reference."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catgrad_hw.boards.description import Board
from catgrad_hw.boards.fit import Fit, fit
from catgrad_hw.boards.flow import Stages
from catgrad_hw.errors import LinkError
from catgrad_hw.host.device import connect
from catgrad_hw.numbers.pipeline import Progress
from catgrad_hw.numbers.rounding import Words
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.board import SimulatedBoard
from catgrad_hw.simulate.training import Differences, flat
from catgrad_hw.verify.netlist import CLOCK_MHZ, Damage, Level, Netlist, check_level, netlist
from catgrad_hw.workload import Workload

SIMULATOR = "verilator"
TIMEOUT = 20.0
"""Seconds that the board may take for a reply: a netlist is simulated slowly, and has no time of its own to lose."""


@dataclass(frozen=True)
class Verification:
    """What was simulated, and how it compares with the integer reference.

    ``words_compared``: parameter words after each step, predictions and saturation counters; ``differences`` tells the
    first of the ``mismatches``, or why the board did not answer.
    """

    design: Fit
    level: Level
    netlist: Netlist
    steps: int
    words_compared: int
    mismatches: int
    differences: tuple[str, ...]
    seconds: Mapping[str, float]

    def report(self) -> dict[str, Any]:
        """The keys that ``--json`` writes."""
        hardware = self.design.hardware
        return {
            "board": self.design.board.name,
            "device": self.design.board.chip_name,
            "level": self.level,
            "lanes": hardware.lanes,
            "identity": f"{hardware.identity:016x}",
            "steps": self.steps,
            "simulator": tools.version(SIMULATOR),
            "cells": dict(self.netlist.cells),
            "models": dict(self.netlist.sources),
            "words_compared": self.words_compared,
            "mismatches": self.mismatches,
            "differences": list(self.differences),
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
        }


def verify(
    workload: Workload,
    board: Board,
    level: Level,
    *,
    lanes: int | None = None,
    memory: float | None = None,
    tile: int | None = None,
    clock_mhz: float = CLOCK_MHZ,
    steps: int = 2,
    seed: int = 0,
    damage: Damage | None = None,
    logs: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Train ``workload`` for ``steps`` steps in the simulated netlist of ``board``, with the driver that a real board
    has, and compare.

    ``lanes``, ``memory`` and ``tile`` as for :func:`catgrad_hw.boards.fit.fit`; ``clock_mhz``: of the design, which is
    the one that a build for that clock makes; ``seed`` gives the initial parameters.
    ``damage`` changes a cell at that level: what it does must be found. ``logs``: a folder for the tools' logs.

    Raises:
        ModelError: no open tool goes down to that level of this chip.
        CatgradError: the workload has no hardware, does not fit, or a tool is missing or fails.
    """
    check_level(board, level)
    tools.require_simulator(SIMULATOR)
    with tempfile.TemporaryDirectory(prefix="catgrad-hw-") as name:
        stages = Stages(board, logs or Path(name), progress)
        with stages.timed("fit"):
            design = fit(workload, board, lanes=lanes, memory=memory, tile=tile, progress=progress)
        found = netlist(design, level, stages, clock_mhz=clock_mhz, damage=damage)
        with stages.timed("building the simulation"):
            program = design.hardware.program
            simulated = SimulatedBoard(program, found.settings, simulator=SIMULATOR, netlist=found.verilog, quick=True)
            simulated.build()
        comparison = Differences()
        with stages.timed("simulating"), simulated:
            try:
                _train(simulated.port, design, found.settings.baud, workload, steps, seed, comparison)
            except LinkError as error:
                comparison.mismatches += 1
                comparison.differences.append(str(error))
    return Verification(
        design=design,
        level=level,
        netlist=found,
        steps=steps,
        words_compared=comparison.compared,
        mismatches=comparison.mismatches,
        differences=tuple(comparison.differences),
        seconds=stages.seconds,
    )


def _train(
    port: str, design: Fit, baud: int, workload: Workload, steps: int, seed: int, comparison: Differences
) -> None:
    """Train the board at ``port`` beside the reference: on samples that it keeps and, by turns, is sent."""
    hardware = design.hardware
    kernels, reference = hardware.integer.kernels, hardware.reference(seed)
    reference.load(workload.initial_parameters(seed))
    x_name, y_name = kernels.inputs[0], kernels.targets[0]

    def compare(what: str, found: Words, expected: Words) -> None:
        comparison.compare(what, found, expected)
        comparison.compared += expected.size

    with connect(port, hardware, baud=baud, timeout=TIMEOUT) as board:
        board.load(reference.parameter_words(), seed=seed)
        batches = [workload.batch(step) for step in range(steps)]
        xs, ys = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        for step, (x, y) in enumerate(batches):
            if step % 2:
                board.step(x, y)
            else:
                board.train(xs, ys, steps=1)
            reference.step(reference.words_of(x_name, x), reference.words_of(y_name, y))
            expected = flat(reference.parameter_words())
            compare(f"step {step + 1}: parameter word", flat(board.parameter_words()), expected)
        counted = board.saturations()
        counters = np.array([reference.saturations[name] for name in counted], np.int64)
        compare("saturation counter", np.array(list(counted.values()), np.int64), counters)
        x, _ = batches[0]
        compare("prediction word", board.prediction_words(x), reference.predict(reference.words_of(x_name, x)))
