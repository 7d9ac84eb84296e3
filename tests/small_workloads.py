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
    seed: int = 0,
    scale: float = 1.0,
    weights: float = 0.5,
    optimizer: Any = layers.sgd,
    loss: Any = layers.mse,
) -> Workload:
    """``model`` on ``samples`` random rows: x uniform within ``scale``, targets a random class, weights normal.

    ``optimizer`` takes the rate.
    """
    generator = np.random.default_rng(seed)
    batch, *inputs = model.source[0].shape
    outputs = model.target[0].shape[1:]
    classes = generator.integers(outputs[-1], size=samples)
    bare = Workload(model, optimizer(rate), loss, np.zeros((batch, *inputs)), np.zeros((batch, *outputs)))
    return Workload(
        model=model,
        optimizer=optimizer(rate),
        loss=loss,
        x=generator.uniform(-scale, scale, (samples, *inputs)),
        y=np.eye(outputs[-1])[classes],
        parameters=[generator.normal(0, weights, shape) for shape in bare.parameter_shapes],
        name="small",
    )


def dense_model(
    batch: int, widths: Sequence[int], activation: Any = layers.sigmoid, last: Any = None
) -> OpenHypergraph:
    """Dense layers between widths, each with ``activation``, but the last with ``last`` where that is given."""
    model: OpenHypergraph = identity(obj(array(batch, widths[0])))
    pairs = list(itertools.pairwise(widths))
    for number, (before, after) in enumerate(pairs):
        chosen = last if last and number == len(pairs) - 1 else activation
        model = model >> layers.dense(array(batch), array(before), array(after), activation=chosen)
    return model


def dense_workload(batch: int, widths: Sequence[int], *, samples: int | None = None, **options) -> Workload:
    """:func:`dense_model` on one batch, or on ``samples`` rows; ``options`` as of :func:`workload_of`."""
    return workload_of(dense_model(batch, widths), samples=samples or batch, **options)
