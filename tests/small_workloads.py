"""Small dense models with random data, for tests of the hardware."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from catgrad_hw import Dtype, NdArrayType, Workload, identity, layers, obj
from catgrad_hw.ir.hypergraph import OpenHypergraph


def array(*shape: int) -> NdArrayType:
    """The type of a float32 array."""
    return NdArrayType(shape, Dtype.float32)


def workload_of(
    model: OpenHypergraph,
    *,
    samples: int,
    rate: float = 0.05,
    loss: Any = layers.mse,
    seed: int = 0,
    scale: float = 1.0,
    weights: float = 0.5,
) -> Workload:
    """``model`` on ``samples`` random rows: x uniform within ``scale``, targets a random class, weights normal."""
    generator = np.random.default_rng(seed)
    batch, *inputs = model.source[0].shape
    outputs = model.target[0].shape[1:]
    classes = generator.integers(outputs[-1], size=samples)
    bare = Workload(model, layers.sgd(rate), layers.mse, np.zeros((batch, *inputs)), np.zeros((batch, *outputs)))
    return Workload(
        model=model,
        optimizer=layers.sgd(rate),
        loss=loss,
        x=generator.uniform(-scale, scale, (samples, *inputs)),
        y=np.eye(outputs[-1])[classes],
        parameters=[generator.normal(0, weights, shape) for shape in bare.parameter_shapes],
        name="small",
    )


def dense_model(batch: int, widths: Sequence[int]) -> OpenHypergraph:
    """Dense layers with σ between widths."""
    model: OpenHypergraph = identity(obj(array(batch, widths[0])))
    for before, after in itertools.pairwise(widths):
        model = model >> layers.dense(array(batch), array(before), array(after), activation=layers.sigmoid)
    return model


def dense_workload(batch: int, widths: Sequence[int], *, samples: int | None = None, **options) -> Workload:
    """:func:`dense_model` on one batch, or on ``samples`` rows; ``options`` as of :func:`workload_of`."""
    return workload_of(dense_model(batch, widths), samples=samples or batch, **options)
