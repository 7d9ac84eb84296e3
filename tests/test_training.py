"""The integer reference trains as float does (NUMERICS: accuracy within a point, two-sided, and loss within 5 %)."""

from __future__ import annotations

import numpy as np
import pytest

from catgrad_hw.errors import ModelError
from catgrad_hw.numbers.train import Result, curve_steps, is_one_hot, score, train_reference
from catgrad_hw.workload import Workload, load_workload

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


def test_scores() -> None:
    y = np.array([[1, 0], [0, 1]], np.float32)
    assert score([[0.9, 0.1], [0.8, 0.2]], y).accuracy == 0.5
    assert score([[1.0, 0.0], [1.0, 1.0]], y).loss == 0.5
    assert score([[1.0, 0.0], [1.0, 1.0]], y * 2).accuracy is None
    assert not is_one_hot(np.array([[1.0, 1.0]]))
    assert not is_one_hot(np.array([1.0]))


def test_curve_steps() -> None:
    assert curve_steps(3) == {1, 2, 3}
    steps = curve_steps(1000)
    assert len(steps) == 100
    assert {1, 1000} <= steps
    assert curve_steps(0) == frozenset()
