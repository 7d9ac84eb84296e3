"""What hardware lacks is refused by name, before anything is calibrated or built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels_by_hand import integer_by_hand

from catgrad_hw import Dtype, NdArrayType, Workload, layers
from catgrad_hw.errors import UnsupportedError
from catgrad_hw.hardware import compile_hardware, compile_predictor
from catgrad_hw.ir.kernel import Apply, Constant, Expression, Kernel, Lookup, Reduced, Round, Saturate, Shift
from catgrad_hw.numbers import pipeline
from catgrad_hw.schedule.form import forms


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


B, IN, OUT = F(8), F(4), F(3)


def typed(dtype: Dtype) -> tuple[NdArrayType, ...]:
    return tuple(NdArrayType(T.shape, dtype) for T in (B, IN, OUT))


LACKING = [
    (layers.dense(B, IN, OUT), layers.adam(), layers.mse, "^Sqrt: .*adam use it"),
    (layers.dense(B, IN, OUT), layers.sgd(None), layers.mse, "a learning rate that is a constant"),
    (layers.linear(B, IN, OUT) >> layers.layer_norm(B, OUT), layers.sgd(0.1), layers.mse, "^Sqrt: .*layer_norm"),
    (layers.linear(*typed(Dtype.int32)), layers.sgd(1), layers.mse, r"expected float32.*found int32\[4, 3\]"),
    (layers.linear(*typed(Dtype.bool)), layers.sgd(1), layers.mse, r"expected float32.*found bool\[4, 3\]"),
]


def workload(model: Any, optimizer: Any, loss: Any) -> Workload:
    return Workload(model=model, optimizer=optimizer, loss=loss, x=np.zeros((8, 4)), y=np.zeros((8, 3)))


@pytest.mark.parametrize(("model", "optimizer", "loss", "text"), LACKING)
def test_integers(monkeypatch: pytest.MonkeyPatch, model: Any, optimizer: Any, loss: Any, text: str) -> None:
    monkeypatch.setattr(pipeline, "lower", lambda graph: pytest.fail("lowered before it was refused"))
    with pytest.raises(UnsupportedError, match=text) as caught:
        pipeline.quantize_workload(workload(model, optimizer, loss))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [compile_hardware, compile_predictor])
@pytest.mark.parametrize(("model", "optimizer", "loss", "text"), LACKING)
def test_hardware(monkeypatch: pytest.MonkeyPatch, make: Any, model: Any, optimizer: Any, loss: Any, text: str) -> None:
    monkeypatch.setattr(pipeline, "lower", lambda graph: pytest.fail("lowered before it was refused"))
    with pytest.raises(UnsupportedError, match=text) as caught:
        make(workload(model, optimizer, loss), lanes=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [pipeline.quantize_workload, compile_hardware, compile_predictor])
def test_a_padded_maximum_is_refused(make: Any) -> None:
    pooled = layers.max_pool2d(B, F(1, 4, 4), 2, 2, padding=1)
    padded = Workload(pooled, layers.sgd(0.1), layers.mse, x=np.zeros((8, 1, 4, 4)), y=np.zeros((8, 1, 3, 3)))
    lanes = {} if make is pipeline.quantize_workload else {"lanes": 2}
    with pytest.raises(UnsupportedError, match=r"^Pad: expected padding by 0, found .*max_pool2d"):
        make(padded, **lanes)


def test_a_step_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"hardware: expected kernels in step, found none.* learning rate"):
        compile_hardware(workload(layers.linear(B, IN, OUT), layers.sgd(0.0), layers.mse), lanes=2)


# --- kernels of no form -----------------------------------------------------------------------------------------------


def stored(change: Callable[[Expression], Expression]) -> Callable[[Kernel], Kernel]:
    """The first write's value changed."""
    return lambda k: replace(k, writes=(replace(k.writes[0], value=change(k.writes[0].value)), *k.writes[1:]))


def rounded(change: Callable[[Expression], Expression]) -> Callable[[Kernel], Kernel]:
    """What the first write narrows changed, from the reduced value."""
    return stored(lambda value: replace(value, argument=Round(change(Reduced()), 14)))  # type: ignore


def sides(k: Kernel, count: int, value: Expression) -> Kernel:
    return replace(k, side_sums=count * (replace(k.side_sums[0], value=value),))


def negated(r: Expression) -> Expression:
    return Apply("negate", (r,))


# Of iris-hidden, kernel 2: d2 = narrow(r) with r = e * s2 and a side sum; 3: c1, a sum; 5: g_p2, a sum over samples.
OF_NO_FORM: dict[str, tuple[int, Callable[[Kernel], Kernel], str]] = {
    "a body": (2, lambda k: replace(k, body=negated(k.body)), r"a product of two arrays, or one .*negate\(e \* s2\);"),
    "an operand": (
        2,
        lambda k: replace(k, body=Apply("multiply", (negated(k.body), k.body))),
        r"operands that are .* found negate\(e \* s2\);",
    ),
    "a wide constant": (
        2,
        lambda k: replace(k, body=Apply("multiply", (Constant(2**15), reads(k)[0]))),
        "constants of at most 16 bits, found 32768;",
    ),
    "a wide operand": (
        7,
        lambda k: replace(k, body=Apply("multiply", (Constant(1), k.writes[0].value.argument.arguments[0]))),  # type: ignore
        "operands of at most 16 bits, found p0 of 24;",
    ),
    "no narrowing": (2, stored(lambda value: Shift(Reduced(), 1)), "a value that is narrowed, found r << 1;"),
    "an epilogue": (2, rounded(negated), r"perhaps with an array, masked or chosen once, found negate\(r\);"),
    "two masks": (
        2,
        lambda k: rounded(lambda r: mask(reads(k)[0], mask(reads(k)[1], r)))(k),
        r"chosen once, found select\(e, select\(s2, r, 0\), 0\); put a layer between two activations",
    ),
    "a sum with an expression": (
        2,
        rounded(lambda r: Apply("add", (r, negated(r)))),
        r"an array beside the reduced value r, found r \+ negate\(r\);",
    ),
    "two multiples": (
        2,
        lambda k: rounded(lambda r: Apply("select", (r, reads(k)[0], negated(r))))(k),
        r"one multiple of the reduced value r, found select\(r, e, negate\(r\)\);",
    ),
    "a condition": (
        2,
        lambda k: rounded(lambda r: Apply("select", (negated(r), reads(k)[0], r)))(k),
        r"a condition that is .*, found negate\(r\);",
    ),
    "a sum, masked": (5, lambda k: rounded(lambda r: mask(reads(k)[0], r))(k), "one that is masked or chosen;"),
    "a sum, or another": (
        3,
        lambda k: rounded(lambda r: chosen(k))(k),
        "not summed where another may take its place, found a sum;",
    ),
    "a function of a choice": (
        2,
        lambda k: stored(lambda value: Lookup("sigmoid", Saturate(Round(chosen(k), 1), 16, "z")))(k),
        "found both;",
    ),
    "different values": (
        0,
        lambda k: replace(k, writes=(k.writes[0], replace(k.writes[1], value=Saturate(Round(Reduced(), 1), 16, "z")))),
        "writes that share one value, found different values;",
    ),
    "three writes": (2, lambda k: replace(k, writes=3 * k.writes), "two writes of a row, .*, found 3, 0 of them;"),
    "two side sums": (2, lambda k: sides(k, 2, k.side_sums[0].value), "at most one side sum, found 2;"),
    "a masked side sum": (
        2,
        lambda k: sides(k, 1, Saturate(Round(mask(Reduced(), Reduced()), 1), 16, "g")),
        r"a side sum, .*, found narrow\(select\(r, r, 0\)\);",
    ),
    "two loops over samples": (
        2,
        lambda k: replace(k, loops=tuple(replace(loop, batch=True) for loop in k.loops)),
        "at most one loop over samples, found two;",
    ),
}


def reads(kernel: Kernel) -> tuple[Expression, ...]:
    """The operands of a product."""
    assert isinstance(kernel.body, Apply)
    return kernel.body.arguments


def chosen(kernel: Kernel) -> Expression:
    """An operand where the reduced value is above 0, else that."""
    return Apply("select", (Reduced(), reads(kernel)[0], Reduced()))


def mask(condition: Expression, value: Expression) -> Expression:
    return Apply("select", (condition, value, Constant(0)))


@pytest.mark.parametrize("name", OF_NO_FORM)
def test_a_kernel_of_no_form_is_refused_in_a_few_words(name: str) -> None:
    index, change, text = OF_NO_FORM[name]
    program = integer_by_hand("iris-hidden", steps=5)
    step = list(program.kernels.programs["step"])
    step[index] = change(step[index])
    programs = {**program.kernels.programs, "step": tuple(step)}
    with pytest.raises(UnsupportedError, match=rf"^kernel {step[index].name}: hardware expects .*{text}") as caught:
        forms(replace(program, kernels=replace(program.kernels, programs=programs)))
    assert_short(caught.value)


ACTIVATIONS = {"relu": layers.relu, "leaky": layers.leaky_relu(0.125), "0.3": layers.leaky_relu(0.3)}
IN_TURN = [("relu", "leaky"), ("leaky", "relu"), ("leaky", "leaky"), ("0.3", "leaky"), ("leaky", "0.3")]


@pytest.mark.parametrize("names", IN_TURN, ids=" ".join)
def test_activations_that_follow_each_other_are_refused(names: tuple[str, str]) -> None:
    first, second = (ACTIVATIONS[name] for name in names)
    model = layers.dense(B, IN, OUT, lambda X: first(X) >> second(X))
    with pytest.raises(UnsupportedError, match=r"^kernel .*put a layer between two activations") as caught:
        compile_hardware(workload(model, layers.sgd(0.1), layers.mse), lanes=2, calibration_steps=10)
    assert_short(caught.value)


def assert_short(error: Exception) -> None:
    """One line for a person, and no text of an object."""
    assert "\n" not in str(error)
    assert "=" not in str(error)
    assert len(str(error)) < 320
