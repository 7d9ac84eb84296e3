"""Masks, functions, pooling, convolution and momentum in integers: three executors, word for word, and real numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from kernels_by_hand import HandWorkload, linear
from test_c_fixed_target import same
from test_reference import assert_same_bits

from catgrad_hw import Dtype, NdArrayType, Workload, layers, obj, op
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.cost import multiplications
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.kernel import Apply, Constant, Kernel, Position, Read, Reduced
from catgrad_hw.ir.kernel_check import IllegalKernelError, reads, subexpressions
from catgrad_hw.ir.passes import simplify
from catgrad_hw.numbers.calibrate import calibrate, computation, float_predictions, float_training
from catgrad_hw.numbers.check import check
from catgrad_hw.numbers.formats import POLICIES, fitting, policy, to_values
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.pipeline import Quantized, quantize_workload
from catgrad_hw.numbers.print import format_integer
from catgrad_hw.numbers.quantize import quantize
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.train import scorer
from catgrad_hw.targets.engine import FastReference
from catgrad_hw.workload import load_workload

BATCH = 4


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


B, IN, HID, OUT = F(BATCH), F(5), F(4), F(3)
IMAGE = F(2, 6, 6)


def dense(activation: Any, last: Any = layers.identity) -> Any:
    return layers.dense(B, IN, HID, activation) >> layers.dense(B, HID, OUT, last)


def convolved(*, stride: int = 1, padding: int = 0) -> Any:
    return layers.conv2d(B, IMAGE, 3, 3, stride, padding)


def flat(model: Any) -> Any:
    """A dense layer behind images."""
    (T,) = model.target
    size = T.size // BATCH
    return model >> layers.flatten(T, F(BATCH, size)) >> layers.dense(B, F(size), OUT, layers.identity)


def images(T: Any, pool: Any) -> Any:
    return layers.relu(T) >> pool


SMALL = convolved().target
PADDED = convolved(padding=1).target
STRIDED = convolved(stride=2, padding=1)

MODELS: dict[str, tuple[Any, Any, Any]] = {
    "relu": (dense(layers.relu), layers.sgd(0.1), layers.mse),
    "leaky": (dense(layers.leaky_relu(0.01)), layers.sgd(2.0**-3), layers.mse),
    "tanh": (dense(layers.tanh), layers.sgd(0.1), layers.mean_squared_error),
    "cross-entropy": (dense(layers.relu), layers.sgd(0.3), layers.cross_entropy),
    "softmax": (dense(layers.sigmoid, layers.softmax), layers.sgd(0.1), layers.mse),
    "momentum": (dense(layers.relu), layers.momentum(2.0**-3), layers.cross_entropy),
    "momentum, rate of no power": (dense(layers.sigmoid), layers.momentum(0.07, 0.8), layers.mse),
    "convolution": (flat(convolved() >> layers.relu(SMALL)), layers.sgd(2e-3), layers.mse),
    "padded": (flat(convolved(padding=1) >> layers.relu(PADDED)), layers.sgd(2e-3), layers.mse),
    "strided": (
        flat(STRIDED >> layers.relu(STRIDED.target) >> layers.conv2d(B, F(3, 3, 3), 2, 3, 2, 1)),
        layers.sgd(2e-3),
        layers.mse,
    ),
    "max pooling": (
        flat(convolved() >> images(SMALL, layers.max_pool2d(B, F(3, 4, 4), 2))),
        layers.sgd(2e-3),
        layers.cross_entropy,
    ),
    "overlapping": (
        flat(convolved(padding=1) >> images(PADDED, layers.max_pool2d(B, F(3, 6, 6), 3, 2))),
        layers.sgd(2e-3),
        layers.mse,
    ),
    "average pooling": (
        flat(convolved() >> images(SMALL, layers.average_pool2d(B, F(3, 4, 4), 2))),
        layers.sgd(2e-3),
        layers.mse,
    ),
    "two convolutions": (
        flat(
            convolved(padding=1)
            >> images(PADDED, layers.max_pool2d(B, F(3, 6, 6), 2))
            >> layers.conv2d(B, F(3, 3, 3), 2, 2)
        ),
        layers.momentum(2.0**-6),
        layers.cross_entropy,
    ),
    "pools of one, and overlapping means": (
        flat(
            convolved(padding=1)
            >> images(PADDED, layers.max_pool2d(B, F(3, 6, 6), 1, 2))
            >> layers.average_pool2d(B, F(3, 3, 3), 2, 1)
        ),
        layers.sgd(2e-3),
        layers.mse,
    ),
    "leaky by powers of two": (
        dense(layers.leaky_relu(0.25), layers.leaky_relu(2.0)),
        layers.sgd(2.0**-6),
        layers.mse,
    ),
    "leaky by 1/8, pooled": (
        flat(convolved() >> layers.leaky_relu(0.125)(SMALL) >> layers.max_pool2d(B, F(3, 4, 4), 2)),
        layers.sgd(2e-3),
        layers.mse,
    ),
}


@cache
def workload(name: str) -> Workload:
    model, optimizer, loss = MODELS[name]
    generator = np.random.default_rng(1)
    x = generator.normal(0, 1, (3 * BATCH, *model.source[0].shape[1:]))
    x[:BATCH] = np.round(x[:BATCH])  # ties
    y = np.eye(3)[generator.integers(0, 3, len(x))]
    plain = Workload(model, optimizer, loss, x, y, name=name)
    parameters = [generator.normal(0, 0.3, shape) for shape in plain.parameter_shapes]
    return Workload(model, optimizer, loss, x, y, parameters, name=name)


@cache
def quantized(name: str, numbers: str) -> Quantized:
    return quantize_workload(workload(name), numbers, calibration_steps=20)


# --- bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        *((name, "16") for name in MODELS),
        ("leaky by powers of two", "small"),
        *((name, "small") for name in ("leaky", "cross-entropy", "momentum", "padded", "max pooling")),
        *((name, "18") for name in ("relu", "softmax", "average pooling")),
    ],
)
def test_two_executors_agree_on_every_word(name: str, numbers: str) -> None:
    program = quantized(name, numbers).integer
    check(program)
    assert format_integer(program) == format_integer(quantize_workload(workload(name), numbers, 20).integer)
    assert program.stochastic == (numbers == "small")
    assert_same_bits(program, workload(name), 1, seed=3)


@pytest.mark.parametrize("name", ["relu", "tanh", "cross-entropy", "momentum", "padded"])
def test_they_agree_where_words_saturate(name: str) -> None:
    assert_same_bits(quantized(name, "small").integer, workload(name), 2, seed=4, scale=20.0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(("name", "numbers"), [(name, ("16", "small", "18")[i % 3]) for i, name in enumerate(MODELS)])
def test_c_has_the_same_bits(name: str, numbers: str) -> None:
    program = quantized(name, numbers).integer
    reference, fast = Reference(program, seed=7), FastReference(program, seed=7, flags=("-O1",))
    for machine in (reference, fast):
        machine.load([3 * p for p in workload(name).initial_parameters()])
    for step in range(10):
        x, y = workload(name).batch(step)
        for machine in (reference, fast):
            machine.step(3 * x, y)
        same(reference, fast)
    rows = workload(name).x[: BATCH + 1]
    np.testing.assert_array_equal(reference.predict(rows), fast.predict(rows))
    same(reference, fast)


@pytest.mark.parametrize("name", MODELS)
def test_a_few_steps_stay_near_float(name: str) -> None:
    found = quantized(name, "16")
    machine = Reference(found.integer)
    machine.load(workload(name).initial_parameters())
    for step in range(5):
        machine.step(*workload(name).batch(step))
    trained = float_training(found.kernels, workload(name), 5, 0, lambda step, parameters: None)
    start = workload(name).initial_parameters()
    moved = max(float(np.abs(a - b).max()) for a, b in zip(trained, start, strict=False))
    assert moved > 2e-4
    for a, b, p in zip(machine.parameters(), trained, found.kernels.parameters, strict=True):
        tolerance = 5e-2 if "pool" in name or "over" in name or "two" in name else 5e-3  # other ties
        assert np.abs(a - b).max() < tolerance * max(1.0, float(np.abs(b).max())), p


# --- forms ------------------------------------------------------------------------------------------------------


def kernel(program: IntegerProgram, name: str, group: str = "step") -> Kernel:
    return next(kernel for kernel in program.kernels.programs[group] if kernel.name == name)


def test_the_relu_s_derivative_is_a_mask_where_the_gradient_is_made() -> None:
    """No array of derivatives, no multiplication, no kernel of its own."""
    program = quantize_workload(load_workload("digits-relu"), "16", calibration_steps=5).integer
    masked = kernel(program, "d3")
    assert masked.reduction == "sum"
    assert [part.operation for part in subexpressions(masked.writes[0].value) if isinstance(part, Apply)] == ["select"]
    assert not program.tables
    graph = simplify(joint_graph(load_workload("digits-relu").learner))
    assert multiplications(graph) == 32 * (64 * 32 + 32 * 10) * 2 + 32 * 10 * 32 + 2410


def test_momentum_takes_one_kernel_a_parameter_beside_its_decay() -> None:
    program = quantized("momentum", "16").integer
    updates = [k for k in program.kernels.programs["step"] if k.name.startswith("update")]
    assert [[w.access.array for w in k.writes] for k in updates] == [[f"p{i}", f"m{i}"] for i in range(4)]
    assert {program.formats[m].width for m in program.kernels.states} == {policy("16").gradient}
    assert program.kernels.states == ("m0", "m1", "m2", "m3")


def test_digits_conv_has_seven_loops_and_no_columns() -> None:
    kernels = quantize_workload(load_workload("digits-conv"), "16", calibration_steps=3).integer.kernels
    largest = max(kernels.arrays.values(), key=lambda array: np.prod(array.shape))
    assert np.prod(largest.shape) == 32 * 8 * 6 * 6, "an array larger than the layer's results: columns of the input"
    assert len(kernels.programs["predict"][0].loops) == 6  # and a channel of size 1
    multiplied = multiplications(simplify(joint_graph(load_workload("digits-conv").learner)))
    assert multiplied == 2 * 32 * 36 * 72 + 3 * 32 * 72 * 10


def test_zeros_around_entries_take_their_format() -> None:
    program = quantized("pools of one, and overlapping means", "16").integer
    kernels = program.kernels.programs["step"]
    surrounded = {kernel.writes[0].access.array for kernel in kernels if kernel.body == Constant(0)}
    copies = {kernel.writes[0].access.array: kernel.body for kernel in kernels if isinstance(kernel.body, Read)}
    assert len(surrounded) == 4
    for name in surrounded:
        (entries,) = reads(copies[name])
        assert program.formats[name] == program.formats[entries.array]
        assert program.formats[name].fraction > fitting(16, 0.0, policy("16").headroom).fraction


def test_all_writers_of_an_array_take_the_coarsest_format_of_one() -> None:
    parts = op(ops.NSplit(B, 3)) >> (ops.scale(0.3)(obj(B)) @ ops.scale(3.3)(obj(B)) @ ops.scale(7.3)(obj(B)))
    model = parts >> op(ops.NConcatenate(B, 3)) >> layers.linear(B, F(3), OUT)
    x = np.random.default_rng(1).normal(size=(BATCH, 3))
    program = quantize_workload(Workload(model, layers.sgd(2.0**-9), layers.mse, x, x), "16", 5).integer
    assert min(f.fraction for f in program.formats.values()) < program.formats["x"].fraction
    check(program)


def test_padding_is_read_and_not_stored() -> None:
    program = quantized("padded", "16").integer
    first = program.kernels.programs["predict"][0]
    bounds = [part.access.bounds for part in subexpressions(first.body) if isinstance(part, Read)]
    assert [len(b) for b in bounds if b] == [2]
    assert "where 0 <= -1 + " in format_integer(program)
    assert len(first.loops) == 7


def test_the_first_of_tied_maxima_takes_the_gradient() -> None:
    model = layers.conv2d(B, F(1, 2, 2), 1, 1, bias=False) >> layers.max_pool2d(B, F(1, 2, 2), 2)
    x = np.array([[1, 3, 3, 2], [2, 2, 2, 2], [-1, -3, -1, 0], [0, 1, 2, 2]], float).reshape(4, 1, 2, 2)
    tied = Workload(model, layers.sgd(2.0**-4), layers.mse, x, np.zeros((4, 1, 1, 1)), [np.ones((1, 1, 1, 1))])
    program = quantize_workload(tied, "16", calibration_steps=1).integer
    machine = Reference(program)
    machine.load(tied.initial_parameters())
    machine.step(tied.x, tied.y)
    words = machine.words()
    [at] = [name for name in words if name.endswith("_at")]
    assert words[at].ravel().tolist() == [1, 0, 3, 2]
    assert program.formats[at].fraction == 0
    expected = 1 - 2.0**-4 * float(sum(max(row) ** 2 for row in x.reshape(4, 4)))
    assert machine.parameters()[0].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("numbers", POLICIES)
def test_probabilities_sum_to_one(numbers: str) -> None:
    program = quantized("softmax", numbers).integer
    machine = Reference(program)
    machine.load([4 * p for p in workload("softmax").initial_parameters()])
    predicted = to_values(machine.predict(4 * workload("softmax").x), program.formats["yhat"])
    lsb = 2.0 ** -program.formats["yhat"].fraction
    assert np.abs(predicted.sum(axis=1) - 1).max() <= 2.0**-8 + 2 * lsb
    assert predicted.min() >= 0
    assert predicted.max() > 0.9, "nothing was tested"


def test_a_reciprocal_of_a_root_in_an_epilogue() -> None:
    """No layer leads to it: a kernel by hand, whose sums are 1/4 to 4."""
    program = linear(3, 2, 2)
    first, *rest = program.programs["step"]
    value = Apply("divide", (Constant(1.0), Apply("sqrt", (Reduced(),))))
    rooted = replace(first, writes=(replace(first.writes[0], value=value),))
    program = replace(program, programs={**program.programs, "step": (rooted, *rest)})
    x = np.array([[0.25, 0.0], [1.0, 1.0], [2.0, 2.0]])
    data = HandWorkload(program, x, np.zeros((3, 2)), "roots")
    ranges = calibrate(program, data, 0)
    ranges.epilogues |= {(computation(rooted), Reduced()): 4.0, (computation(rooted), value): 2.0}
    ranges.arrays |= {"p0": 1.0, "e": 2.0, "z": 2.0}
    integer = quantize(program, ranges, policy("16"))
    [unit] = integer.units.values()
    assert unit.name == f"rsqrt_{rooted.name}"
    machine = Reference(integer)
    machine.load([np.ones((2, 2))])
    machine.step(x, np.zeros((3, 2)))
    name = rooted.writes[0].access.array
    found = to_values(machine.words()[name], integer.formats[name])
    np.testing.assert_allclose(found, 1 / np.sqrt(x @ np.ones((2, 2))), rtol=2.0**-9)


TWICE = Apply("add", (Reduced(), Reduced()))

CHANGES: dict[str, Callable[[Kernel], Kernel]] = {
    "a maximum of products": lambda k: replace(k, body=Apply("multiply", (k.body, k.body)), reduction="max"),
    "a mask that is not narrowed": lambda k: replace(
        k,
        writes=(
            replace(k.writes[0], value=Apply("select", (Reduced(), Apply("add", (Reduced(), Reduced())), Constant(0)))),
        ),
    ),
    "a position in a body": lambda k: replace(k, body=Apply("equal", (k.body, Position(0, (0,) * len(k.loops))))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_checker_refuses(name: str) -> None:
    program = quantized("max pooling", "16").integer
    step = list(program.kernels.programs["step"])
    at = next(i for i, k in enumerate(step) if k.reduction == "argmax")
    step[at] = CHANGES[name](step[at])
    kernels = replace(program.kernels, programs={**program.kernels.programs, "step": tuple(step)})
    with pytest.raises(IllegalKernelError):
        check(replace(program, kernels=kernels))


# --- learning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least"), [("digits-relu", 0.85), ("digits-conv", 0.7)])
def test_digits_learn_as_in_float(name: str, least: float) -> None:
    data, steps = load_workload(name), 120
    assert data.heldout is not None
    x, y = data.heldout
    score = scorer(data, y)
    found = quantize_workload(data, "16", calibration_steps=steps)
    machine = Reference(found.integer)
    machine.load(data.initial_parameters(1))
    for step in range(steps):
        machine.step(*data.batch(step))
    assert not any(machine.saturations.values())
    trained = float_training(found.kernels, data, steps, 1, lambda step, parameters: None)
    in_float = score(float_predictions(found.kernels, trained, x)).accuracy
    in_integers = score(machine.predict(x)).accuracy
    assert in_float is not None
    assert in_integers is not None
    assert in_float > least
    assert abs(in_integers - in_float) < 0.02


def test_a_slope_of_1_chooses_nothing() -> None:
    model, optimizer, loss = dense(layers.leaky_relu(1.0)), layers.sgd(2.0**-6), layers.mse
    data = Workload(model, optimizer, loss, workload("relu").x, workload("relu").y)
    assert "select" not in format_integer(quantize_workload(data, "16", 5).integer)
