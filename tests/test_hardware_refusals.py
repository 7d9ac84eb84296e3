"""What hardware lacks is refused by name, before anything is calibrated or built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catgrad_hw import Dtype, NdArrayType, Workload, layers
from catgrad_hw.errors import UnsupportedError
from catgrad_hw.numbers import pipeline


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


B, IN, OUT = F(8), F(4), F(3)


def typed(dtype: Dtype) -> tuple[NdArrayType, ...]:
    return tuple(NdArrayType(T.shape, dtype) for T in (B, IN, OUT))


@pytest.mark.parametrize(
    ("model", "optimizer", "loss", "text"),
    [
        (layers.dense(B, IN, OUT), layers.adam(), layers.mse, r"without state, found one that keeps 6 arrays"),
        (layers.dense(B, IN, OUT), layers.momentum(0.1), layers.mse, "without state, found one that keeps 2 arrays"),
        (layers.dense(B, IN, OUT), layers.sgd(None), layers.mse, "a learning rate that is a constant"),
        (layers.dense(B, IN, OUT, layers.tanh), layers.sgd(0.1), layers.mse, r"^Tanh: .*tanh uses it"),
        (layers.dense(B, IN, OUT, layers.relu), layers.sgd(0.1), layers.mse, r"^Select: .*\(relu, leaky_relu"),
        (layers.linear(B, IN, OUT), layers.sgd(0.1), layers.cross_entropy, "^NMax: .*softmax use it"),
        (layers.linear(B, IN, OUT) >> layers.layer_norm(B, OUT), layers.sgd(0.1), layers.mse, "^Sqrt: .*layer_norm"),
        (layers.linear(*typed(Dtype.int32)), layers.sgd(1), layers.mse, r"expected float32.*found int32\[4, 3\]"),
        (layers.linear(*typed(Dtype.bool)), layers.sgd(1), layers.mse, r"expected float32.*found bool\[4, 3\]"),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, model: Any, optimizer: Any, loss: Any, text: str) -> None:
    monkeypatch.setattr(pipeline, "lower", lambda graph: pytest.fail("lowered before it was refused"))
    workload = Workload(model=model, optimizer=optimizer, loss=loss, x=np.zeros((8, 4)), y=np.zeros((8, 3)))
    with pytest.raises(UnsupportedError, match=text) as caught:
        pipeline.quantize_workload(workload)
    assert "\n" not in str(caught.value)
