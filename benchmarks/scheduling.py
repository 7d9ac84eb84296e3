"""How the time that scheduling takes grows with the model: dense stacks of 8-8 units, batch 16, on 8 lanes.

``python -m benchmarks.scheduling`` prints CPU seconds, each the least of three runs: of the whole of
:func:`catgrad_hw.schedule.scheduler.schedule` and its check, and beside it of its parts: the integer program that
chooses the packing, the start cycles, the check.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from catgrad_hw import layers
from catgrad_hw.ir.types import Dtype, NdArrayType
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.form import forms
from catgrad_hw.schedule.packing import pack
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.schedule.select import Selection
from catgrad_hw.schedule.timeline import routine
from catgrad_hw.workload import Workload

LAYERS = (4, 8, 16, 32, 64)
BATCH, UNITS, LANES = 16, 8, 8
RUNS = 3


@dataclass(frozen=True)
class Timing:
    """CPU seconds that a stack of ``layers`` layers, of ``kernels`` kernels, takes."""

    layers: int
    kernels: int
    packing: float
    starts: float
    check: float
    total: float


def stack(depth: int) -> IntegerProgram:
    """``depth`` dense layers with sigmoids."""
    batch, units = NdArrayType((BATCH,), Dtype.float32), NdArrayType((UNITS,), Dtype.float32)
    parts = [layers.dense(batch, units, units, activation=layers.sigmoid) for _ in range(depth)]
    data = np.random.default_rng(0).random((BATCH, UNITS))
    workload = Workload(
        model=functools.reduce(lambda f, g: f >> g, parts),
        optimizer=layers.sgd(2**-4),
        loss=layers.mse,
        x=data,
        y=data,
        name=f"{depth} layers",
    )
    return quantize_workload(workload, calibration_steps=2).integer


def seconds(work: Callable[[], object]) -> float:
    """The least CPU time of some runs of ``work``."""
    found = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def measure(depth: int) -> Timing:
    """Schedule and check a stack of ``depth`` layers."""
    integer = stack(depth)
    program = schedule(integer, LANES)

    def starts() -> None:
        for r in program.routines:
            routine(program, r.name, Selection(r.tile.kernels, r.final.kernels))

    return Timing(
        depth,
        len(program.kernels),
        seconds(lambda: pack(integer, forms(integer), LANES, BATCH, 1)),
        seconds(starts),
        seconds(lambda: check(program)),
        seconds(lambda: check(schedule(copy.copy(integer), LANES))),  # of a program that it has not met
    )


def main() -> None:
    """Print the curve."""
    print("layers  kernels   packing    starts     check     total   ratio")
    before: Timing | None = None
    timings: dict[int, Timing] = {}
    for depth in LAYERS:
        found = timings[depth] = measure(depth)
        ratio = f"{found.total / before.total:8.2f}" if before else ""
        print(
            f"{depth:6} {found.kernels:8} {found.packing:8.3f} s {found.starts:7.3f} s {found.check:7.3f} s "
            f"{found.total:7.3f} s{ratio}",
            flush=True,
        )
        before = found
    print(f"from 16 to 64 layers: {timings[64].total / timings[16].total:.2f} times")


if __name__ == "__main__":
    main()
