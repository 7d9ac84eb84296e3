"""Random small dense networks on random machines: simulated hardware against the integer reference, bit for bit.

``python -m tests.campaign --count 200`` runs the long form; the test suite runs the first few cases. A case is given
by its seed alone, so that ``--first SEED --count 1`` runs it again.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from typing import Any

from catgrad_hw.cli import show
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.training import Simulation, simulate
from catgrad_hw.workload import Workload
from tests.small_workloads import dense_workload

STEPS = 3


@dataclass(frozen=True)
class Case:
    """A workload, and the machine that is to train it."""

    seed: int
    batch: int
    widths: tuple[int, ...]
    samples: int
    rate: float
    scale: float
    weights: float
    lanes: int
    options: dict[str, Any]
    backpressure: int | None


def case(seed: int) -> Case:
    """The case of a seed: batches of 1 to 12, up to three layers of up to 6, up to 9 lanes, every option at random."""
    generator = random.Random(seed)
    choose = generator.choice
    batch, lanes = generator.randint(1, 12), generator.randint(1, 9)
    options: dict[str, Any] = {"numbers": choose(["16", "16", "18", "small"])}
    tiles = range(lanes, batch, lanes)
    if tiles and generator.random() < 0.5:
        options["tile"] = choose(tiles)
    if generator.random() < 0.3:
        options["slow_words"] = generator.randint(1, lanes)
    samples = batch * choose([1, 1, 2, 3]) + choose([0, 0, generator.randint(0, batch)])
    if generator.random() < 0.4:
        kinds = ["block", "distributed"] if samples % batch == 0 else ["block", "distributed", "single_port"]
        options["bank_kinds"] = {"x": choose(kinds), "y": choose(kinds)}
    return Case(
        seed=seed,
        batch=batch,
        widths=tuple(generator.randint(1, 6) for _ in range(generator.randint(2, 4))),
        samples=samples,
        rate=choose([0.25, 1.0, 0.05, 0.3]),
        scale=choose([1.0, 1.0, 30.0]),
        weights=choose([0.5, 0.5, 3.0]),
        lanes=lanes,
        options=options,
        backpressure=choose([None, seed]),
    )


def run(chosen: Case, simulator: str) -> tuple[Workload, Hardware, Simulation]:
    """Train the case's workload for a few steps in simulated hardware."""
    workload = dense_workload(
        chosen.batch, chosen.widths, samples=chosen.samples, rate=chosen.rate, seed=chosen.seed, scale=chosen.scale,
        weights=chosen.weights,
    )  # fmt: skip
    hardware = compile_hardware(workload, chosen.lanes, **chosen.options)
    simulation = simulate(
        hardware, workload, STEPS, seed=chosen.seed, simulator=simulator, backpressure=chosen.backpressure
    )
    return workload, hardware, simulation


def faults(hardware: Hardware, simulation: Simulation) -> list[str]:
    """What is wrong with a run, in words: differing words and cycles that were not scheduled."""
    found = list(simulation.differences)
    scheduled, counted = hardware.cycles_per_step, simulation.outcome.step_cycles
    if min(counted) < scheduled or (hardware.resident and max(counted) > scheduled):
        found.append(f"cycles per step: scheduled {scheduled}, counted {counted}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="number of cases")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--simulator", choices=tools.SIMULATORS, default="amaranth")
    arguments = parser.parse_args()
    wrong = 0
    with show.progress() as progress:
        for number in range(arguments.count):
            progress(f"case {arguments.first + number}", number, arguments.count)
            chosen = case(arguments.first + number)
            _, hardware, simulation = run(chosen, arguments.simulator)
            for fault in faults(hardware, simulation):
                wrong += 1
                show.err.print(f"{chosen}: {fault}")
    print(f"{arguments.count} cases, {wrong} faults")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
