"""The integer reference trains as float does (NUMERICS: accuracy within a point, two-sided, and loss within 5 %)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catgrad_hw import layers, obj
from catgrad_hw.errors import ModelError
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.numbers.train import Result, curve_steps, is_one_hot, scorer, train_reference
from catgrad_hw.workload import Workload, load_workload
from tests.small_workloads import array, dense_model

INTENDED = ".z"
"""Counters of pre-activations: clamping them at ±8 is what the tables are for."""


def assert_follows_float(result: Result) -> None:
    in_float, reference = result.float, result.reference
    assert in_float.training.accuracy is not None
    assert reference.training.accuracy is not None
    assert abs(in_float.training.accuracy - reference.training.accuracy) <= 0.01
    # Where training oscillates, as iris-simple does with a period of two steps, the phase at the end is chance, and
    # the loss after the last step with it: the mean of the last 100 is compared.
    assert abs(reference.recent_loss / in_float.recent_loss - 1) <= 0.05
    assert all(count == 0 for name, count in result.saturations.items() if not name.endswith(INTENDED))
    assert not result.quantized.advice


@pytest.mark.parametrize(
    ("model", "numbers"), [("iris-linear", "16"), ("iris-simple", "16"), ("iris-hidden", "16"), ("iris-simple", "18")]
)
def test_1000_steps_follow_float(model: str, numbers: str) -> None:
    result = train_reference(load_workload(model), numbers, steps=1000, seed=0)
    assert_follows_float(result)
    assert abs(result.reference.training.loss / result.float.training.loss - 1) <= 0.05


def test_the_small_preset_follows_float_on_iris_hidden() -> None:
    assert_follows_float(train_reference(load_workload("iris-hidden"), "small", steps=1000, seed=0))


def test_early_steps_are_close_to_float() -> None:
    """The largest |ΔW| after 10 steps is 2e-4: the table's error in σ, 1e-3, is the same for all samples then."""
    result = train_reference(load_workload("iris-hidden"), steps=10, calibration_steps=50)
    for a, b in zip(result.float.parameters, result.reference.parameters, strict=True):
        assert np.abs(a - b).max() < 5e-4


def test_the_result_is_complete_and_repeats() -> None:
    stages: list[tuple[str, int, int]] = []
    workload = load_workload("iris-linear")
    heldout = Workload(
        workload.model,
        workload.optimizer,
        workload.loss,
        workload.x,
        workload.y,
        heldout=(workload.x[:10], workload.y[:10]),
    )
    one = train_reference(heldout, steps=5, seed=4, progress=lambda *event: stages.append(event), calibration_steps=10)
    two = train_reference(heldout, steps=5, seed=4, calibration_steps=10)
    assert one.reference.heldout is not None
    assert one.reference.heldout.accuracy is not None
    assert [step for step, _ in one.reference.curve] == [1, 2, 3, 4, 5]
    assert one.reference.curve[-1][1] == one.reference.training.loss
    assert all((a == b).all() for a, b in zip(one.words, two.words, strict=True))
    assert one.reference.training == two.reference.training
    assert {stage for stage, _, _ in stages} == {"calibrate", "float", "reference"}
    assert ("reference", 5, 5) in stages
    untrained = train_reference(workload, steps=0, calibration_steps=1)
    assert untrained.reference.curve == ()
    with pytest.raises(ModelError, match="0 or more, found -1"):
        train_reference(workload, steps=-1)


BATCH, CLASSES = 4, 3
Values = NDArray[np.float64]


def trained_with(loss: Any) -> Workload:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(BATCH, 2)), np.eye(CLASSES)[random.integers(0, CLASSES, BATCH)]
    return Workload(dense_model(BATCH, (2, CLASSES)), layers.sgd(0.1), loss, x, y)


def half_sum(predicted: Values, y: Values) -> float:
    return 0.5 * float(np.sum((predicted - y) ** 2))


def mean_square(predicted: Values, y: Values) -> float:
    return float(np.mean((predicted - y) ** 2))


def cross_entropy(predicted: Values, y: Values) -> float:
    probabilities = np.exp(predicted) / np.exp(predicted).sum(axis=1, keepdims=True)
    return float(-np.mean(np.log(probabilities[y == 1])))


def huber(predicted: Values, y: Values) -> float:
    e = np.abs(predicted - y)
    return float(np.mean(np.where(e <= 0.5, e**2 / 2, 0.5 * (e - 0.25))))


def two_lenses(Y: Any) -> OpenHypergraph:
    return layers.sigmoid(Y) >> layers.mean_squared_error(Y)


@pytest.mark.parametrize("samples", [1, BATCH, 7, 1437])
@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (layers.mse, half_sum),
        (layers.mean_squared_error, mean_square),
        (layers.cross_entropy, cross_entropy),
        (layers.huber(0.5), huber),
        (layers.cross_entropy(obj(array(BATCH, CLASSES))), cross_entropy),
        (layers.sigmoid, half_sum),  # a lens that is no loss has no value
        (two_lenses, half_sum),
    ],
    ids=["mse", "mean_squared_error", "cross_entropy", "huber", "of the batch's type", "a lens", "two lenses"],
)
def test_the_loss_is_the_workloads_own_over_all_samples(
    loss: Any, formula: Callable[[Values, Values], float], samples: int
) -> None:
    random = np.random.default_rng(samples)
    y = np.eye(CLASSES, dtype=np.float32)[random.integers(0, CLASSES, samples)]
    predicted = random.normal(0, 2, (samples, CLASSES))
    found = scorer(trained_with(loss), y)(predicted)
    assert found.loss == pytest.approx(formula(predicted, y), rel=1e-13)
    assert found.accuracy == np.mean(predicted.argmax(axis=1) == y.argmax(axis=1))
    if formula is half_sum:
        assert found.loss == half_sum(predicted, y)


def test_cross_entropy_of_large_scores_is_finite() -> None:
    y = np.eye(2, CLASSES, dtype=np.float32)
    assert scorer(trained_with(layers.cross_entropy), y)([[1000, 0, 0], [1000, 0, 0]]).loss == 500


def test_reported_losses_fall_as_cross_entropy_is_learned() -> None:
    workload = load_workload("digits-relu")
    assert workload.heldout is not None
    result = train_reference(workload, steps=100, calibration_steps=100)
    for run in (result.float, result.reference):
        assert run.heldout is not None
        losses = dict(run.curve)
        assert losses[1] == pytest.approx(np.log(10), rel=0.05)  # nothing is known at first: the classes' entropy
        assert losses[100] == run.training.loss < run.recent_loss < losses[1]
        assert run.training.loss < 0.5
        assert run.heldout.loss < 0.5
    assert result.reference.training.loss == pytest.approx(result.float.training.loss, rel=0.05)


def test_scores() -> None:
    y = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    workload = trained_with(layers.mse)
    assert scorer(workload, y)([[0.9, 0.1, 0], [0.8, 0.2, 0]]).accuracy == 0.5
    assert scorer(workload, y)([[1.0, 0.0, 0], [1.0, 1.0, 0]]).loss == 0.5
    assert scorer(workload, y * 2)([[1.0, 0.0, 0], [1.0, 1.0, 0]]).accuracy is None
    assert not is_one_hot(np.array([[1.0, 1.0]]))
    assert not is_one_hot(np.array([1.0]))


def test_curve_steps() -> None:
    assert curve_steps(3) == {1, 2, 3}
    steps = curve_steps(1000)
    assert len(steps) == 100
    assert {1, 1000} <= steps
    assert curve_steps(0) == frozenset()
