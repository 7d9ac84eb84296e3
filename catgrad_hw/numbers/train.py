"""Training without hardware: in float, and with the integer reference, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catgrad_hw.errors import ModelError
from catgrad_hw.ir.from_hypergraph import insert
from catgrad_hw.ir.graph import Builder, Graph, Input, run
from catgrad_hw.ir.losses import MSE, Loss
from catgrad_hw.ir.types import Dtype, NdArrayType
from catgrad_hw.numbers.calibrate import CALIBRATION_STEPS, float_predictions, float_training
from catgrad_hw.numbers.formats import to_values
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.pipeline import Progress, Quantized, quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.rounding import Words
from catgrad_hw.workload import Floats, Workload

CURVE_POINTS = 100
"""At most so many losses are taken along a run, evenly spaced."""

RECENT_STEPS = 100
"""The last steps whose mean loss is taken: where training oscillates, its phase at the end is chance."""


@dataclass(frozen=True)
class Score:
    """``loss``: as of :func:`scorer`; ``accuracy``: a fraction, None unless every row of y is one-hot."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Run:
    """One way of training: its scores after the last step, ``recent_loss``, the mean of the loss after each of the
    last :data:`RECENT_STEPS` steps (of the initial loss, where there are no steps), and ``curve``, pairs of step and
    loss on the way. ``parameters`` are without the optimizer's state.
    """

    training: Score
    heldout: Score | None
    recent_loss: float
    curve: tuple[tuple[int, float], ...]
    parameters: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Result:
    """A float run and a reference run of the same steps from the same parameters on the same data.

    ``saturations`` counts, by tensor, the words that training clamped; ``words`` are the reference's parameters.
    """

    name: str
    numbers: str
    steps: int
    seed: int
    float: Run
    reference: Run
    saturations: dict[str, int]
    words: tuple[Words, ...]
    quantized: Quantized


def train_reference(
    workload: Workload,
    numbers: str = "16",
    steps: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    calibration_steps: int = CALIBRATION_STEPS,
    formats: Mapping[str, Format] | None = None,
) -> Result:
    """Train in float and with the integer reference. ``seed`` is that of initial parameters and of keyed draws;
    ``formats`` overrides formats, by array."""
    if steps < 0:
        raise ModelError(f"train {workload.name}: expected a number of steps of 0 or more, found {steps}")

    def report(stage: str, step: int) -> None:
        if progress is not None:
            progress(stage, step, steps)

    quantized = quantize_workload(workload, numbers, calibration_steps, progress, formats)
    kernels, integer = quantized.kernels, quantized.integer
    in_curve = curve_steps(steps)
    x, score = workload.x, scorer(workload, workload.y)

    def finish(
        predict: Callable[[Floats], ArrayLike], losses: dict[int, float], parameters: Iterable[ArrayLike]
    ) -> Run:
        training = score(predict(x))
        heldout = None
        if workload.heldout is not None:
            heldout = scorer(workload, workload.heldout[1])(predict(workload.heldout[0]))
        recent = [loss for step, loss in losses.items() if step > steps - RECENT_STEPS] or [training.loss]
        curve = tuple((step, loss) for step, loss in losses.items() if step in in_curve)
        own = [np.asarray(p, float) for p in parameters][: len(kernels.parameters) - len(kernels.states)]
        return Run(training, heldout, float(np.mean(recent)), curve, tuple(own))

    def wanted(step: int) -> bool:
        return step in in_curve or step > steps - RECENT_STEPS

    losses: dict[int, float] = {}

    def after_float(step: int, parameters: tuple[Floats, ...]) -> None:
        if wanted(step):
            losses[step] = score(float_predictions(kernels, parameters, x)).loss
        report("float", step)

    trained = float_training(kernels, workload, steps, seed, after_float)
    in_float = finish(lambda data: float_predictions(kernels, trained, data), losses, trained)

    # Predictions on the way are another machine's, so that the counts are those of training alone.
    machine, observer = Reference(integer, seed), Reference(integer)
    machine.load(workload.initial_parameters(seed))

    def predict(data: Floats) -> NDArray[np.float64]:
        observer.load(machine.parameter_words())
        return to_values(observer.predict(data), integer.formats[kernels.outputs[0]])

    losses = {}
    for step in range(1, steps + 1):
        machine.step(*workload.batch(step - 1))
        if wanted(step):
            losses[step] = score(predict(x)).loss
        report("reference", step)
    in_integers = finish(predict, losses, machine.parameters())
    words = machine.parameter_words()
    return Result(workload.name, numbers, steps, seed, in_float, in_integers, machine.saturations, words, quantized)


def reference_predictions(program: IntegerProgram, words: tuple[Words, ...], x: Floats) -> NDArray[np.float64]:
    """What the integer reference predicts of all rows of ``x`` with these parameters, as values."""
    machine = Reference(program)
    machine.load(words)
    return to_values(machine.predict(x), program.formats[program.kernels.outputs[0]])


def scorer(workload: Workload, y: Floats) -> Callable[[ArrayLike], Score]:
    """A function that scores predictions of ``y``, which are targets of any number of samples.

    The loss is the value of the workload's own (:meth:`catgrad_hw.ir.losses.Loss.value`) over all of them as one batch,
    in float64: ½Σ(ŷ - y)² for ``mse``, a mean for the other losses of :mod:`catgrad_hw.layers`. A lens that is no
    :class:`Loss` has gradients but no value, and ½Σ(ŷ - y)² is taken in its place. The accuracy is the fraction of rows
    whose largest prediction is where y has its 1.
    """
    value, truth, one_hot = _loss_value(workload, y.shape), y.astype(np.float64), is_one_hot(y)

    def score(predictions: ArrayLike) -> Score:
        guesses = np.asarray(predictions, np.float64)
        (loss,) = run(value, "loss", {"predicted": guesses, "y": truth})
        accuracy = float(np.mean(guesses.argmax(axis=1) == truth.argmax(axis=1))) if one_hot else None
        return Score(float(loss), accuracy)

    return score


def _loss_value(workload: Workload, shape: tuple[int, ...]) -> Graph:
    """The loss, a number, of ``predicted`` and ``y`` of a shape that need not be a batch's."""
    T = NdArrayType(shape, Dtype.float32)
    f = workload.loss(workload.learner.output_types) if callable(workload.loss) else workload.loss
    operation = f.flat.edges[0].operation if len(f.flat.edges) == 1 else None
    loss = replace(operation, T=T) if isinstance(operation, Loss) else MSE(T)
    builder = Builder((Input("predicted", "input", T), Input("y", "target", T)))
    return builder.build({"loss": insert(builder, loss.value(), (0, 1))})


def is_one_hot(y: NDArray[np.floating]) -> bool:
    """Whether every row of a matrix is 0 but for one 1."""
    return y.ndim == 2 and bool(np.isin(y, (0, 1)).all()) and bool((y.sum(axis=1) == 1).all())


def curve_steps(steps: int) -> frozenset[int]:
    """The steps (from 1) after which the loss is taken: the first, the last, and evenly between."""
    return frozenset(round(float(s)) for s in np.linspace(1, steps, min(steps, CURVE_POINTS)))
