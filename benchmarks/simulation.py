"""How fast training is simulated, and where the time goes: ``python -m benchmarks.simulation [MODEL]``.

All figures are processor time, of the simulator's process and of the one that holds the reference, so that other
load on the machine matters little. *Simulator* is what the same number of cycles takes while Python sleeps, measured
by one command that runs all steps; what else a checked run takes is outside of it: Python's callbacks (commands, and
a call for each word that is read back), the reference with the comparison, and the start of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.simulate import runner
from catgrad_hw.simulate.job import Job
from catgrad_hw.simulate.training import flat, sample_words, simulate
from catgrad_hw.workload import Workload, load_workload

T = TypeVar("T")

RUNS = 2


@dataclass(frozen=True)
class Figures:
    """Seconds of processor time but for ``elapsed``; ``outside`` is a fraction of their sum."""

    cycles: int
    mismatches: int
    simulator: float
    callbacks: float
    reference: float
    start: float
    elapsed: float

    @property
    def total(self) -> float:
        return self.simulator + self.callbacks + self.reference + self.start

    @property
    def outside(self) -> float:
        return 1 - self.simulator / self.total


def measure(hardware: Hardware, workload: Workload, steps: int) -> Figures:
    """Simulate ``steps`` checked steps; what is built is built before."""
    runner.build(hardware.verilog(), "verilator")
    # The least of a few runs, in turn: what other load does to the caches comes and goes.
    runs = [
        (
            timed(lambda: uninterrupted(hardware, workload, 2)),
            timed(lambda: uninterrupted(hardware, workload, steps)),
            timed(lambda: simulate(hardware, workload, steps, simulator="verilator")),
        )
        for _ in range(RUNS)
    ]
    (short, shortly, _), (long, at_length, _), (result, (own, children), elapsed) = (
        min(column, key=lambda run: sum(run[1])) for column in zip(*runs, strict=True)
    )
    per_cycle = (at_length[1] - shortly[1]) / (long - short)
    cycles = result.outcome.total_cycles
    began = shortly[1] - per_cycle * short
    return Figures(
        cycles=cycles,
        mismatches=result.mismatches,
        simulator=per_cycle * cycles,
        callbacks=children - began - per_cycle * cycles,
        reference=own,
        start=began,
        elapsed=elapsed,
    )


def uninterrupted(hardware: Hardware, workload: Workload, steps: int) -> int:
    """Cycles of a run whose steps are all but the first one command, during which Python sleeps."""
    reference = hardware.reference()
    reference.load(workload.initial_parameters())
    kernels = hardware.integer.kernels
    x, y = workload.batch(0)
    batch = sample_words(reference.words_of(kernels.inputs[0], x), reference.words_of(kernels.targets[0], y))
    job = Job(
        parameters=flat(reference.parameter_words()),
        batches=batch[np.newaxis],
        steps=1,
        burst=steps - 1,
        limit=8 * hardware.cycles_per_step * steps + 100_000,
    )
    outcome = runner.run("verilator", job, lambda words: None, verilog=hardware.verilog, component=hardware.component)
    return outcome.total_cycles


def timed(action: Callable[[], T]) -> tuple[T, tuple[float, float], float]:
    """The result, the processor time of this process and of its children, and the time that passed."""
    before, start = _processor_time(), time.perf_counter()
    result = action()
    after = _processor_time()
    return result, (after[0] - before[0], after[1] - before[1]), time.perf_counter() - start


def _processor_time() -> tuple[float, float]:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, children = (usage.ru_utime + usage.ru_stime for usage in usages)
    return own, children


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="iris-hidden")
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    workload = load_workload(arguments.model)
    hardware = compile_hardware(workload, arguments.lanes)
    if not hardware.resident:
        parser.error(f"{arguments.model}: expected data that stay on chip, found more; give another model")
    figures = measure(hardware, workload, arguments.steps)
    print(f"{arguments.model}, {arguments.lanes} lanes, {arguments.steps} steps: {figures.cycles:,} cycles")
    print(f"mismatches           {figures.mismatches}")
    checked, alone = figures.cycles / figures.total, figures.cycles / figures.simulator
    print(f"cycles a second      {checked:,.0f} checked, {alone:,.0f} in the simulator alone")
    for name in ("simulator", "callbacks", "reference", "start"):
        seconds = getattr(figures, name)
        print(f"{name:<20} {seconds:.2f} s, {100 * seconds / figures.total:.1f} %")
    share = f"{100 * figures.outside:.1f} % of {figures.total:.2f} s"
    print(f"outside simulator    {share} of processor time ({figures.elapsed:.1f} s passed)")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(figures) | {"outside": figures.outside}, indent=2) + "\n")


if __name__ == "__main__":
    main()
