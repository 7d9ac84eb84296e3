"""Predicting in simulated hardware that does nothing else, held to the integer reference word by word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.numbers.calibrate import batches, float_predictions, initial_state
from catgrad_hw.numbers.formats import to_values
from catgrad_hw.numbers.train import scorer
from catgrad_hw.simulate import runner, tools
from catgrad_hw.simulate.job import Job, Outcome
from catgrad_hw.simulate.report import hardware_facts
from catgrad_hw.simulate.training import QUICK_CYCLES, Progress, flat
from catgrad_hw.workload import Floats, Workload

if TYPE_CHECKING:
    from catgrad_hw.hardware import Hardware


@dataclass(frozen=True)
class Prediction:
    """What a predict-only core answered: ``predictions`` as values, one row a sample (held-out ones follow), beside the
    reference's and float's. ``mismatches`` counts words, and saturation counters, that differ from the reference's."""

    simulator: str
    outcome: Outcome
    words_compared: int
    mismatches: int
    predictions: NDArray[np.float64]
    reference: NDArray[np.float64]
    float: NDArray[np.float64]
    saturations: dict[str, int]


def predict(
    hardware: Hardware,
    workload: Workload,
    *,
    seed: int = 0,
    simulator: str | None = None,
    waves: Path | None = None,
    backpressure: int | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Predict all samples of ``workload``, held-out ones too, in a simulated core made by
    :func:`catgrad_hw.hardware.compile_predictor`, with the workload's initial parameters for ``seed``.

    Raises :class:`~catgrad_hw.errors.ToolError` where a tool is missing, and
    :class:`~catgrad_hw.errors.SimulationError` where the core breaks its protocol.
    """
    report = progress or (lambda stage, done, total: None)
    name = runner.choose_simulator(simulator)
    reference = hardware.reference(seed)
    reference.load(workload.initial_parameters(seed))
    kernels = hardware.integer.kernels
    x_name, output = kernels.inputs[0], kernels.outputs[0]
    x = np.concatenate([workload.x, *([workload.heldout[0]] if workload.heldout else [])])
    words = reference.words_of(x_name, x)
    parts = [reference.words_of(x_name, part).ravel() for part, _ in batches(x, kernels.batch)]
    prediction_words = int(np.prod(kernels.arrays[output].shape))
    about = hardware.program.routine("predict").period + parts[0].size + prediction_words  # cycles of a batch
    job = Job(
        parameters=flat(reference.parameter_words()),
        batches=np.zeros((0, 0), np.int64),
        steps=0,
        burst=0,
        unasked=True,
        predictions=np.stack(parts),
        prediction_words=prediction_words,
        counters=len(hardware.program.counters),
        limit=8 * about + 10_000,
        backpressure=backpressure,
    )
    report("building the simulation", 0, 0)
    outcome = runner.run(
        name,
        job,
        lambda _: None,
        verilog=hardware.verilog,
        component=hardware.component,
        waves=waves,
        quick=about * len(parts) <= QUICK_CYCLES,
    )
    before = dict(reference.saturations)
    expected = reference.predict(words)
    counted = dict(zip(hardware.program.counters, outcome.saturations, strict=True))
    found = np.array(outcome.predictions, np.int64).reshape(-1, *expected.shape[1:])[: len(expected)]
    mismatches = int((found != expected).sum())
    if len(x) % kernels.batch == 0:  # the core also counts the samples that fill up a last batch
        mismatches += sum(counted[name] != reference.saturations[name] - before[name] for name in counted)
    form, in_float = hardware.integer.formats[output], hardware.quantized.kernels
    return Prediction(
        simulator=tools.version(name),
        outcome=outcome,
        words_compared=expected.size,
        mismatches=mismatches,
        predictions=to_values(found, form),
        reference=to_values(expected, form),
        float=np.asarray(float_predictions(in_float, initial_state(in_float, workload, seed), x), np.float64),
        saturations=counted,
    )


def predict_report(
    workload: Workload, hardware: Hardware, prediction: Prediction, least_multiplications: int, numbers: str, seed: int
) -> dict[str, Any]:
    """What ``catgrad-hw predict --json`` writes. ``least_multiplications`` are those of one batch; ``loss`` is that of
    :func:`catgrad_hw.numbers.train.scorer`."""
    cycles = prediction.outcome.predict_cycles

    def scores(rows: slice, y: Floats) -> dict[str, Any]:
        runs = {"float": prediction.float, "reference": prediction.reference, "rtl": prediction.predictions}
        score = scorer(workload, y)
        found = {name: score(values[rows]) for name, values in runs.items()}
        return {kind: {name: getattr(s, kind) for name, s in found.items()} for kind in ("loss", "accuracy")}

    count = len(workload.x)
    heldout = {"heldout": scores(slice(count, None), workload.heldout[1])} if workload.heldout else {}
    return {
        "model": workload.name,
        "numbers": numbers,
        "seed": seed,
        **hardware_facts(hardware),
        "simulator": prediction.simulator,
        "identity": f"{prediction.outcome.identity:016x}",
        "least_multiplications": least_multiplications,
        "cycles_per_predict": cycles,
        "cycles_scheduled": hardware.program.routine("predict").period,
        "multiplier_busy": least_multiplications / (hardware.multipliers * cycles),
        "words_compared": prediction.words_compared,
        "mismatches": prediction.mismatches,
        "saturations": prediction.saturations,
        **scores(slice(count), workload.y),
        **heldout,
        "advice": list(hardware.quantized.advice),
    }
