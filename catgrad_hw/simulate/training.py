"""Training in simulated hardware, held to the integer reference word by word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.numbers.calibrate import batches
from catgrad_hw.numbers.formats import to_values
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.simulate import runner, tools
from catgrad_hw.simulate.driver import Words
from catgrad_hw.simulate.job import Job, Outcome
from catgrad_hw.workload import Floats, Workload

if TYPE_CHECKING:
    from catgrad_hw.hardware import Hardware

Progress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and how much there is."""

BURST = 2
"""Steps run by one command at the end: what they take beyond a single step is the time from step to step."""
TOLD_MISMATCHES = 8

QUICK_CYCLES = 1_000_000
"""Up to so many cycles of training, a simulation that Verilator builds quickly is done sooner: on 8 lanes it saves 2.4
(iris-linear) to 8 s (iris-hidden) of processor time in building, and takes 3 s more for each million cycles."""


@dataclass(frozen=True)
class Simulation:
    """What the simulated hardware did in ``steps`` training steps, against the integer reference.

    ``parameters`` are those after the last step. ``predictions`` of the training data and ``heldout`` of the held-out
    data (None without such data) are the outputs' values, one row a sample. ``mismatches`` counts words of
    parameters, predictions and saturation counters that differ from the reference's; ``differences`` tells the first.
    """

    steps: int
    simulator: str
    outcome: Outcome
    words_compared: int
    mismatches: int
    differences: tuple[str, ...]
    parameters: tuple[NDArray[np.float64], ...]
    predictions: NDArray[np.float64]
    heldout: NDArray[np.float64] | None
    saturations: dict[str, int]

    @property
    def cycles_per_step(self) -> float:
        """Cycles from the start of a step to the earliest start of the next, waiting for input included."""
        return self.outcome.cycles_per_step(BURST)


class Differences:
    """What differs from the reference: ``mismatches`` counts words, ``differences`` tells the first of them."""

    def __init__(self) -> None:
        self.compared = 0
        self.mismatches = 0
        self.differences: list[str] = []

    def compare(self, what: str, found: Words, expected: Words) -> None:
        wrong = np.flatnonzero(found.ravel() != expected.ravel())
        self.mismatches += wrong.size
        for index in wrong[: max(0, TOLD_MISMATCHES - len(self.differences))].tolist():
            self.differences.append(f"{what} {index}: expected {expected.flat[index]}, found {found.flat[index]}")


class _Comparison(Differences):
    """The reference beside the hardware: takes the parameter words after each step and compares."""

    def __init__(self, reference: Reference, data: list[tuple[Words, Words]], steps: int, rows: list[Words]) -> None:
        super().__init__()
        self.reference, self.data, self.steps, self.rows = reference, data, steps, rows
        self.parameters: tuple[Words, ...] = ()
        self.predictions: list[Words] = []
        self.saturations: dict[str, int] = {}

    def record(self, words: Words) -> None:
        reference = self.reference
        remaining = self.steps - reference.step_number
        for _ in range(1 if remaining > 0 else BURST):
            reference.step(*self.data[reference.step_number % len(self.data)])
        self.compare(f"step {reference.step_number}: parameter word", words, flat(reference.parameter_words()))
        if remaining > 0:
            self.compared += words.size
        if remaining == 1:
            self.parameters = split(words, reference.parameter_words())
            self.saturations = dict(reference.saturations)
            self.predictions = [reference.predict(rows) for rows in self.rows]


def flat(arrays: tuple[Words, ...]) -> Words:
    """Arrays as one, in flat order."""
    return np.concatenate([array.ravel() for array in arrays]) if arrays else np.zeros(0, np.int64)


def split(words: Words, like: tuple[Words, ...]) -> tuple[Words, ...]:
    """The inverse of :func:`flat`, for arrays of the shapes of ``like``."""
    ends = np.cumsum([array.size for array in like])[:-1]
    return tuple(part.reshape(array.shape) for part, array in zip(np.split(words, ends), like, strict=True))


def sample_words(x: Words, y: Words) -> Words:
    """The ``samples`` stream of a batch: for each sample all words of x, then all words of y."""
    return np.concatenate([x.reshape(len(x), -1), y.reshape(len(y), -1)], axis=1).ravel()


def simulate(
    hardware: Hardware,
    workload: Workload,
    steps: int,
    *,
    seed: int = 0,
    simulator: str | None = None,
    rtl: Path | None = None,
    waves: Path | None = None,
    backpressure: int | None = None,
    progress: Progress | None = None,
) -> Simulation:
    """Train ``workload`` for ``steps`` steps in simulated ``hardware``, and compare every word with the reference.

    ``seed`` gives the initial parameters and the random key. ``simulator``: ``verilator`` (the default where it can
    run), ``icarus`` or ``amaranth``. ``rtl``: a Verilog file (top module ``core``) to simulate in place of the
    hardware's own. ``waves``: a VCD file to write. ``backpressure``: the seed of random pauses of all streams.

    Raises :class:`~catgrad_hw.errors.ToolError` where a tool is missing, and
    :class:`~catgrad_hw.errors.SimulationError` where the core breaks its protocol.
    """
    report = progress or (lambda stage, done, total: None)
    name = runner.choose_simulator(simulator)
    reference = hardware.reference(seed)
    reference.load(workload.initial_parameters(seed))
    kernels = hardware.integer.kernels
    x_name, y_name, output = kernels.inputs[0], kernels.targets[0], kernels.outputs[0]

    def words_of(x: Floats, y: Floats) -> tuple[Words, Words]:
        return reference.words_of(x_name, x), reference.words_of(y_name, y)

    rotation = lcm(len(workload.x), kernels.batch) // kernels.batch
    needed = rotation if hardware.resident else min(rotation, steps + BURST)
    data = [words_of(*workload.batch(step)) for step in range(needed)]
    sets = [(workload.x, workload.y), *([workload.heldout] if workload.heldout else [])]
    parts = [
        sample_words(*words_of(x, y))
        for xs, ys in sets
        for (x, _), (y, _) in zip(batches(xs, kernels.batch), batches(ys, kernels.batch), strict=True)
    ]
    per_sample = kernels.arrays[output].shape[1:]
    prediction_words = kernels.batch * int(np.prod(per_sample))
    job = Job(
        parameters=flat(reference.parameter_words()),
        batches=np.stack([sample_words(*batch) for batch in data]),
        steps=steps,
        resident=hardware.resident,
        predictions=np.stack(parts),
        prediction_words=prediction_words,
        burst=BURST,
        counters=len(hardware.integer.counters),
        key=reference.key,
        limit=8 * (hardware.cycles_per_step * BURST + prediction_words) + 100_000,
        backpressure=backpressure,
    )
    comparison = _Comparison(reference, data, steps, [reference.words_of(x_name, xs) for xs, _ in sets])

    def record(words: Words) -> None:
        comparison.record(words)
        report("simulating", min(reference.step_number, steps), steps)

    report("building the simulation", 0, 0)
    outcome = runner.run(
        name,
        job,
        record,
        verilog=(lambda: rtl.read_text()) if rtl else hardware.verilog,
        component=hardware.component,
        waves=waves,
        quick=hardware.cycles_per_step * (steps + BURST) <= QUICK_CYCLES,
    )

    counted = dict(zip(hardware.integer.counters, outcome.saturations, strict=True))
    expected = np.array([comparison.saturations[counter] for counter in counted], np.int64)
    comparison.compare("saturation counter", np.array(list(counted.values()), np.int64), expected)
    predicted = np.array(outcome.predictions, np.int64).reshape(-1, kernels.batch, *per_sample)
    formats, results = hardware.integer.formats, []
    for (xs, _), words in zip(sets, comparison.predictions, strict=True):
        count = -(-len(xs) // kernels.batch)
        rows = predicted[:count].reshape(-1, *per_sample)[: len(xs)]
        predicted = predicted[count:]
        comparison.compare("prediction word", rows, words)
        results.append(to_values(rows, formats[output]))
    return Simulation(
        steps=steps,
        simulator=tools.version(name),
        outcome=outcome,
        words_compared=comparison.compared,
        mismatches=comparison.mismatches,
        differences=tuple(comparison.differences),
        parameters=tuple(
            to_values(words, formats[p]) for p, words in zip(kernels.parameters, comparison.parameters, strict=True)
        ),
        predictions=results[0],
        heldout=results[1] if workload.heldout else None,
        saturations=counted,
    )
