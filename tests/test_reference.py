"""The integer reference against a second executor in plain Python integers, and its own laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_by_hand import SlowReference
from kernels_by_hand import HandWorkload, by_hand, hidden, integer_by_hand, linear

from catgrad_hw.errors import DataError, IllTypedError
from catgrad_hw.ir.kernel import Apply, KernelProgram, Round, Saturate
from catgrad_hw.numbers.calibrate import calibrate
from catgrad_hw.numbers.formats import POLICIES, policy
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.quantize import quantize
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.workload import Workload, load_workload


def assert_same_bits(program: IntegerProgram, workload: Workload, steps: int, seed: int, scale: float = 1.0) -> None:
    """``scale`` above 1 gives parameters and data that calibration did not see, and so saturations."""
    fast, slow = Reference(program, seed), SlowReference(program, seed)
    kernels = program.kernels
    fast.load([scale * p for p in workload.initial_parameters(seed)])
    for name, words in zip(kernels.parameters, fast.parameter_words(), strict=True):
        slow.put(name, words)
    for step in range(steps):
        x, y = (scale * v for v in workload.batch(step))
        fast.step(x, y)
        slow.put(kernels.inputs[0], fast.words_of(kernels.inputs[0], x))
        slow.put(kernels.targets[0], fast.words_of(kernels.targets[0], y))
        slow.run("step")
        for name, words in fast.words().items():
            if slow.memory[name]:
                assert words.ravel().tolist() == [slow.memory[name][i] for i in range(words.size)], name
    assert fast.saturations == slow.saturations
    predictions = fast.predict(x)
    slow.run("predict")
    output = slow.memory[kernels.outputs[0]]
    assert predictions.ravel().tolist() == [output[i] for i in range(predictions.size)]
    assert fast.saturations == slow.saturations


@pytest.mark.parametrize("numbers", POLICIES)
@pytest.mark.parametrize("model", ["iris-linear", "iris-simple", "iris-dense"])
def test_same_bits_on_iris(model: str, numbers: str) -> None:
    workload = load_workload(model)
    assert_same_bits(quantize_workload(workload, numbers, calibration_steps=20).integer, workload, 3, seed=5)


@pytest.mark.parametrize("numbers", POLICIES)
def test_same_bits_on_iris_hidden(numbers: str) -> None:
    workload = load_workload("iris-hidden")
    assert_same_bits(quantize_workload(workload, numbers, calibration_steps=20).integer, workload, 1, seed=3)


@pytest.mark.parametrize("model", ["iris-linear", "iris-hidden"])
def test_kernels_by_hand_and_lowered_train_to_the_same_bits(model: str) -> None:
    _, workload, _ = by_hand(model, steps=50)
    lowered = load_workload(model)
    one = Reference(integer_by_hand(model, steps=50))
    two = Reference(quantize_workload(lowered, calibration_steps=50).integer)
    for machine in (one, two):
        machine.load(workload.initial_parameters(0))
        for step in range(50):
            machine.step(*workload.batch(step))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert (a == b).all()


sizes = st.integers(1, 4)


@st.composite
def small_workloads(draw: st.DrawFn) -> tuple[KernelProgram, HandWorkload]:
    batch, inputs, middle, outputs = draw(sizes), draw(sizes), draw(sizes), draw(sizes)
    power = draw(st.booleans())
    rate = 2.0 ** draw(st.integers(-12, -1)) if power else draw(st.floats(1e-5, 0.5))
    if draw(st.booleans()):
        program = hidden(batch, inputs, middle, outputs, rate, power)
    else:
        program = linear(batch, inputs, outputs, rate / 100 if not power else rate / 128, power)
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    samples = draw(st.integers(batch, 2 * batch))
    x = generator.normal(0, 10.0 ** draw(st.integers(-2, 0)), (samples, inputs))
    return program, HandWorkload(program, x, generator.random((samples, outputs)), "small")


@settings(max_examples=40, deadline=None)
@given(small_workloads(), st.sampled_from(list(POLICIES)), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 40.0]))
def test_same_bits_on_small_programs(
    case: tuple[KernelProgram, HandWorkload], numbers: str, seed: int, scale: float
) -> None:
    program, workload = case
    ranges = calibrate(program, workload, steps=3)
    assert_same_bits(quantize(program, ranges, policy(numbers)), workload, 3, seed, scale)


# --- laws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "beyond_half", "change"), [(1, -1, 0), (1, 0, 1), (1, 1, 1), (-1, -1, 0), (-1, 0, 0), (-1, 1, -1)]
)
def test_an_update_under_at_and_over_half_a_last_bit(error: int, beyond_half: int, change: int) -> None:
    """One weight, one sample: p' = p - round(x e, s), halves up, whichever their sign."""
    kernels = linear(1, 1, 1, rate=2.0**-6, power=True)
    workload = HandWorkload(kernels, [[-1.0]], [[1.0]], "one")
    program = quantize(kernels, calibrate(kernels, workload, 10), policy("16"))
    match program.kernels.programs["step"][1].writes[0].value:
        case Saturate(Apply("subtract", (_, Round(_, shift)))):
            assert 2 <= shift <= 15
        case other:
            raise AssertionError(other)
    assert program.formats["e"] == program.formats["y"]
    machine = Reference(program)
    machine.step(np.array([[2 ** (shift - 1) + beyond_half]]), np.array([[-error]]))
    assert machine.words()["e"].tolist() == [[error]]
    assert machine.parameter_words()[0].tolist() == [[-change]]


def test_forced_saturations_clamp_and_count() -> None:
    program = integer_by_hand("iris-linear", steps=20)
    machine = Reference(program)
    low, high = limits(24)
    machine.load([np.full((4, 3), high)])
    machine.step(np.full((150, 4), 2**15 - 1), np.zeros((150, 3)))
    assert machine.saturations["z.z"] == 150 * 3
    assert machine.saturations["g_p0"] == 4 * 3
    assert (machine.words()["g_p0"] == 2**15 - 1).all()
    # The gradients are as large as can be: clamped, they take the parameters down.
    assert (machine.parameter_words()[0] < high).all()
    machine.load([np.full((4, 3), low)])
    machine.step(np.full((150, 4), 2**15 - 1), np.zeros((150, 3)))
    assert machine.saturations["z.z"] == 2 * 150 * 3
    assert (machine.words()["g_p0"] == -(2**15)).all()


def test_rows_of_zeros_that_fill_the_last_batch_count_no_saturation() -> None:
    """A large bias saturates rows of zeros too, but they are no data."""
    kernels, workload, ranges = by_hand("iris-hidden", steps=20)
    program = quantize(kernels, replace(ranges, arrays={**ranges.arrays, "p1": 50.0}), policy("16"))
    machine = Reference(program)
    machine.load([np.full(shape, 50.0 * (i == 1)) for i, shape in enumerate(workload.parameter_shapes)])
    assert machine.predict(workload.x[:7]).shape == (7, 3)
    assert machine.saturations["a1.z"] == 7 * 20
    machine.predict(workload.x)
    assert machine.saturations["a1.z"] == 157 * 20


def test_predictions_of_any_number_of_rows() -> None:
    program = integer_by_hand("iris-linear", steps=20)
    _, workload, _ = by_hand("iris-linear", steps=20)
    machine = Reference(program)
    machine.load(workload.initial_parameters(1))
    twice = np.concatenate([workload.x, workload.x])[:200]
    assert (machine.predict(twice) == np.concatenate([machine.predict(workload.x)] * 2)[:200]).all()


def test_the_order_of_samples_has_no_effect() -> None:
    """Sums are exact: a permuted batch trains to the same bits."""
    program = integer_by_hand("iris-hidden", steps=20)
    _, workload, _ = by_hand("iris-hidden", steps=20)
    order = np.random.default_rng(0).permutation(150)
    machines = Reference(program, 9), Reference(program, 9)
    for machine, rows in zip(machines, (np.arange(150), order), strict=True):
        machine.load(workload.initial_parameters(2))
        for _ in range(5):
            machine.step(workload.x[rows], workload.y[rows])
    for a, b in zip(machines[0].parameter_words(), machines[1].parameter_words(), strict=True):
        assert (a == b).all()


def test_draws_depend_on_seed_and_step() -> None:
    program = integer_by_hand("iris-linear", "small", steps=20)
    _, workload, _ = by_hand("iris-linear", steps=20)

    def trained(seed: int, steps: int) -> np.ndarray:
        machine = Reference(program, seed)
        machine.load(workload.initial_parameters(0))
        for step in range(steps):
            machine.step(*workload.batch(step))
        assert machine.step_number == steps
        assert machine.key == (seed + steps * 0x9E3779B1) % 2**32
        return machine.parameter_words()[0]

    assert program.stochastic
    assert (trained(1, 5) == trained(1, 5)).all()
    assert (trained(1, 5) != trained(2, 5)).any()


def test_words_outside_their_format_and_wrong_shapes_are_refused() -> None:
    program = integer_by_hand("iris-linear", steps=20)
    machine = Reference(program)
    with pytest.raises(DataError, match="array p0: expected floats or words of 24 bits"):
        machine.load([np.full((4, 3), 2**23)])
    with pytest.raises(IllTypedError, match=r"array p0: expected shape \(4, 3\), found \(3, 4\)"):
        machine.load([np.zeros((3, 4))])
    with pytest.raises(IllTypedError, match="expected 1 parameters, found 2"):
        machine.load([np.zeros((4, 3))] * 2)
    with pytest.raises(DataError, match="expected finite values"):
        machine.load([np.full((4, 3), np.nan)])
