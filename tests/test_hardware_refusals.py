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
