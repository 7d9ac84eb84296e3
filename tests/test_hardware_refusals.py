"""What hardware lacks is refused by name, before anything is calibrated or built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catgrad_hw import Dtype, NdArrayType, Workload, layers
from catgrad_hw.errors import UnsupportedError
from catgrad_hw.hardware import compile_hardware, compile_predictor
from catgrad_hw.numbers import pipeline


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


B, IN, OUT = F(8), F(4), F(3)


def typed(dtype: Dtype) -> tuple[NdArrayType, ...]:
    return tuple(NdArrayType(T.shape, dtype) for T in (B, IN, OUT))


LACKING_INTEGERS = [
    (layers.dense(B, IN, OUT), layers.adam(), layers.mse, "^Sqrt: .*adam use it"),
    (layers.dense(B, IN, OUT), layers.sgd(None), layers.mse, "a learning rate that is a constant"),
    (layers.linear(B, IN, OUT) >> layers.layer_norm(B, OUT), layers.sgd(0.1), layers.mse, "^Sqrt: .*layer_norm"),
    (layers.linear(*typed(Dtype.int32)), layers.sgd(1), layers.mse, r"expected float32.*found int32\[4, 3\]"),
    (layers.linear(*typed(Dtype.bool)), layers.sgd(1), layers.mse, r"expected float32.*found bool\[4, 3\]"),
]

LACKING_HARDWARE = [
    (layers.dense(B, IN, OUT), layers.momentum(0.1), layers.mse, "without state, found one that keeps 2 arrays"),
    (layers.dense(B, IN, OUT, layers.tanh), layers.sgd(0.1), layers.mse, r"^Tanh: .*tanh uses it"),
    (layers.dense(B, IN, OUT, layers.relu), layers.sgd(0.1), layers.mse, r"^Select: .*\(relu, leaky_relu"),
    (layers.linear(B, IN, OUT), layers.sgd(0.1), layers.cross_entropy, "^NMax: .*softmax use it"),
]


def workload(model: Any, optimizer: Any, loss: Any) -> Workload:
    return Workload(model=model, optimizer=optimizer, loss=loss, x=np.zeros((8, 4)), y=np.zeros((8, 3)))


@pytest.mark.parametrize(("model", "optimizer", "loss", "text"), LACKING_INTEGERS)
def test_integers(monkeypatch: pytest.MonkeyPatch, model: Any, optimizer: Any, loss: Any, text: str) -> None:
    monkeypatch.setattr(pipeline, "lower", lambda graph: pytest.fail("lowered before it was refused"))
    with pytest.raises(UnsupportedError, match=text) as caught:
        pipeline.quantize_workload(workload(model, optimizer, loss))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [compile_hardware, compile_predictor])
@pytest.mark.parametrize(("model", "optimizer", "loss", "text"), LACKING_INTEGERS + LACKING_HARDWARE)
def test_hardware(monkeypatch: pytest.MonkeyPatch, make: Any, model: Any, optimizer: Any, loss: Any, text: str) -> None:
    monkeypatch.setattr(pipeline, "lower", lambda graph: pytest.fail("lowered before it was refused"))
    with pytest.raises(UnsupportedError, match=text) as caught:
        make(workload(model, optimizer, loss), lanes=2)
    assert "\n" not in str(caught.value)


def test_padding_is_refused_by_hardware_alone() -> None:
    images = layers.conv2d(B, F(1, 4, 4), 2, 3, padding=1)
    padded = Workload(images, layers.sgd(0.1), layers.mse, x=np.zeros((8, 1, 4, 4)), y=np.zeros((8, 2, 4, 4)))
    with pytest.raises(UnsupportedError, match=r"^Pad: expected an operation that hardware has"):
        compile_hardware(padded, lanes=2)
    assert pipeline.quantize_workload(padded, calibration_steps=2).integer.counters


def test_a_padded_maximum_is_refused() -> None:
    pooled = layers.max_pool2d(B, F(1, 4, 4), 2, 2, padding=1)
    padded = Workload(pooled, layers.sgd(0.1), layers.mse, x=np.zeros((8, 1, 4, 4)), y=np.zeros((8, 1, 3, 3)))
    with pytest.raises(UnsupportedError, match=r"^Pad: expected padding by 0, found .*max_pool2d"):
        pipeline.quantize_workload(padded)
