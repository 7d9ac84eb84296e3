"""Random small networks on random machines: simulated hardware against the integer reference, bit for bit.

``python -m tests.campaign --count 200`` runs the long form; the test suite runs the first few cases. A case is given
by its seed alone, so that ``--first SEED --count 1`` runs it again.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from catgrad_hw import layers
from catgrad_hw.cli import show
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.training import Simulation, simulate
from catgrad_hw.workload import Workload
from tests.small_workloads import array, dense_model, workload_of

STEPS = 3
CALIBRATION_STEPS = 50

ACTIVATIONS: dict[str, Any] = {
    "sigmoid": layers.sigmoid,
    "tanh": layers.tanh,
    "relu": layers.relu,
    "leaky relu": layers.leaky_relu(0.01),
    "leaky relu by 1/4": layers.leaky_relu(0.25),
}
ENDS: dict[str, tuple[Any, Any]] = {
    "mse": (None, layers.mse),
    "mean squared error": (None, layers.mean_squared_error),
    "linear, mse": (layers.identity, layers.mse),
    "softmax, mse": (layers.softmax, layers.mse),
    "cross entropy": (layers.identity, layers.cross_entropy),
}
"""The activation of the last layer, where it has another than the rest, and the loss."""
OPTIMIZERS: dict[str, Any] = {
    "sgd": layers.sgd,
    "momentum": layers.momentum,
    "momentum of 3/4": partial(layers.momentum, momentum=0.75),
}
POOLS: dict[str, Any] = {"maximum": layers.max_pool2d, "average": layers.average_pool2d}


@dataclass(frozen=True)
class Front:
    """A convolution before the dense layers, and what pools its results: windows of ``size``, ``apart`` rows apart."""

    image: tuple[int, int, int]
    channels: int
    kernel: tuple[int, int]
    stride: int
    padding: int
    pool: str | None
    size: int
    apart: int


@dataclass(frozen=True)
class Case:
    """A workload, and the machine that is to train it."""

    seed: int
    batch: int
    front: Front | None
    widths: tuple[int, ...]
    activation: str
    end: str
    optimizer: str
    samples: int
    rate: float
    scale: float
    weights: float
    lanes: int
    options: dict[str, Any]
    backpressure: int | None


def front(generator: random.Random) -> Front:
    """A random front: images of up to two channels of 2 to 5 rows and columns, up to three channels of results."""
    choose = generator.choice
    height, width = generator.randint(2, 5), generator.randint(2, 5)
    padding = choose([0, 0, 1])
    kernel = (generator.randint(1, min(3, height)), generator.randint(1, min(3, width)))
    stride = choose([1, 1, 2])
    least = min((n + 2 * padding - k) // stride + 1 for n, k in zip((height, width), kernel, strict=True))
    size = min(choose([1, 2, 2, 3]), least)
    return Front(
        image=(generator.randint(1, 2), height, width),
        channels=generator.randint(1, 3),
        kernel=kernel,
        stride=stride,
        padding=padding,
        pool=choose([None, "maximum", "maximum", "average"]),
        size=size,
        apart=choose([size, 1, 2, 3]),
    )


def case(seed: int) -> Case:
    """The case of a seed: batches of 1 to 12 (of 1 to 4 images), up to three layers of up to 6, up to 20 lanes, every
    option at random."""
    generator = random.Random(seed)
    choose = generator.choice
    chosen_front = front(generator) if generator.random() < 0.25 else None
    batch, lanes = generator.randint(1, 4 if chosen_front else 12), generator.randint(1, choose([9, 9, 9, 20]))
    options: dict[str, Any] = {"numbers": choose(["16", "16", "18", "small"])}
    tiles = range(lanes, batch, lanes)
    if tiles and generator.random() < 0.5:
        options["tile"] = choose(tiles)
    if generator.random() < 0.3:
        options["slow_words"] = generator.randint(1, lanes)
    samples = batch * choose([1, 1, 2, 3]) + choose([0, 0, generator.randint(0, batch)])
    if generator.random() < 0.4:
        kinds = ["block"] if samples % batch == 0 else ["block", "single_port"]
        options["bank_kinds"] = {"x": choose(kinds), "y": choose(kinds)}
        options["lut_words"] = {"x": choose([0, 1]), "y": choose([0, 1])}
    options["block"], options["full_path"] = choose(["block", "late"]), choose([True, True, False])
    activation, end, optimizer = choose(list(ACTIVATIONS)), choose(list(ENDS)), choose(list(OPTIMIZERS))
    # What is bounded bears anything; training of the rest must not diverge.
    bounded = (
        activation in ("sigmoid", "tanh") and end in ("mse", "softmax, mse") and optimizer == "sgd" and not chosen_front
    )
    return Case(
        seed=seed,
        batch=batch,
        front=chosen_front,
        widths=tuple(generator.randint(1, 6) for _ in range(2 if chosen_front else generator.randint(2, 4))),
        activation=activation,
        end=end,
        optimizer=optimizer,
        samples=samples,
        rate=choose([0.25, 1.0, 0.05, 1e-5]) if bounded else choose([2.0**-6, 0.01, 0.003, 1e-6]),
        scale=choose([1.0, 1.0, 30.0 if bounded else 2.0]),
        weights=choose([0.5, 0.5, 3.0 if bounded else 1.0]),
        lanes=lanes,
        options=options,
        backpressure=choose([None, seed]),
    )


def model(chosen: Case) -> tuple[OpenHypergraph, Any]:
    """The case's model, and its loss. Behind a front, the first of the widths is that of its results."""
    activation, (last, loss) = ACTIVATIONS[chosen.activation], ENDS[chosen.end]
    widths, found = chosen.widths, None
    if chosen.front:
        f, B = chosen.front, array(chosen.batch)
        found = layers.conv2d(B, array(*f.image), f.channels, f.kernel, f.stride, f.padding)
        found = found >> activation(found.target)
        if f.pool:
            found = found >> POOLS[f.pool](B, array(*found.target[0].shape[1:]), f.size, f.apart)
        shape = found.target[0].shape
        widths = (prod(shape[1:]), *widths[1:])
        found = found >> layers.flatten(array(*shape), array(chosen.batch, widths[0]))
    net = dense_model(chosen.batch, widths, activation, last)
    return found >> net if found else net, loss


def run(chosen: Case, simulator: str) -> tuple[Workload, Hardware, Simulation]:
    """Train the case's workload for a few steps in simulated hardware."""
    net, loss = model(chosen)
    workload = workload_of(
        net, samples=chosen.samples, rate=chosen.rate, seed=chosen.seed, scale=chosen.scale, weights=chosen.weights,
        optimizer=OPTIMIZERS[chosen.optimizer], loss=loss,
    )  # fmt: skip
    hardware = compile_hardware(workload, chosen.lanes, calibration_steps=CALIBRATION_STEPS, **chosen.options)
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
