"""Random well-typed learners and data for them, for property tests of the compiler's levels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from catgrad_hw import Dtype, NdArrayType, identity, layers, obj, op
from catgrad_hw.compile import Learner, learner
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.hypergraph import OpenHypergraph, permutation


def array(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


def dense_net(batch: int, *widths: int, rate: float = 0.01) -> Learner:
    """Dense layers with σ, as in the iris-hidden workload."""
    model: OpenHypergraph = identity(obj(array(batch, widths[0])))
    for before, after in itertools.pairwise(widths):
        model = model >> layers.dense(array(batch), array(before), array(after), activation=layers.sigmoid)
    return learner(model, layers.sgd(rate), layers.mse)


def random_arrays(graph: Graph, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Normal data, in float64, for each of a graph's inputs."""
    generator = np.random.default_rng(seed)
    return {i.name: generator.normal(size=i.type.shape) for i in graph.inputs}


@st.composite
def learners(draw: st.DrawFn) -> Learner:
    """Learners of two to four layers on a batch of vectors, all operations of the kernels among them."""
    batch = draw(st.integers(1, 4))
    width = draw(st.integers(1, 4))
    model: OpenHypergraph = identity(obj(array(batch, width)))
    for _ in range(draw(st.integers(2, 4))):
        block, width = draw(blocks(batch, width))
        model = model >> block
    model = model >> layers.linear(array(batch), array(width), array(2))
    return learner(model, layers.sgd(draw(st.sampled_from([0.01, 0.25, 1.0]))), layers.mse)


@st.composite
def blocks(draw: st.DrawFn, batch: int, width: int) -> tuple[OpenHypergraph, int]:
    T = array(batch, width)
    X = obj(T)
    kind = draw(st.sampled_from(sorted(BLOCKS)))
    return BLOCKS[kind](batch, width, T, X, draw(st.integers(1, 4)))


def _linear(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return layers.linear(array(B), array(n), array(m)), m


def _dense(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return layers.dense(array(B), array(n), array(m)), m


def _per_sample_bias(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return layers.bias(T), n


def _sigmoid(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return layers.sigmoid(X), n


def _skip(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return ops.copy(X) >> (layers.dense(array(B), array(n), array(n)) @ identity(X)) >> ops.add(X), n


def _product(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return ops.copy(X) >> (layers.linear(array(B), array(n), array(n)) @ layers.sigmoid(X)) >> ops.multiply(X), n


def _difference(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return ops.copy(X) >> (layers.sigmoid(X) @ layers.linear(array(B), array(n), array(n))) >> ops.subtract(X), n


def _transposed(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    U = array(n, B)
    return op(ops.Permute(T, [1, 0])) >> ops.negate(obj(U)) >> op(ops.Permute(U, [1, 0])), n


def _shuffled(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    """Through a reshape of a permutation, which no strides describe."""
    wide = array(B, n, 3)
    turned = array(B, 3, n)
    spread = op(ops.NCopy(T, array(3))) >> op(ops.Permute(wide, [0, 2, 1]))
    return spread >> layers.sigmoid(obj(turned)) >> op(ops.Reshape(turned, array(B, 3 * n))), 3 * n


def _split(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    parts = op(ops.NSplit(array(B), n))
    return parts >> permutation(parts.target, list(reversed(range(n)))) >> op(ops.NConcatenate(array(B), n)), n


def _scaled(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return ops.scale(0.5 if m % 2 else 0.3)(X) >> ops.increment(0.25)(X), n


def _reflected(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    return (ops.constant(1)(X) @ layers.sigmoid(X)) >> ops.subtract(X), n


def _row_sums(B: int, n: int, T: Any, X: Any, m: int) -> Any:
    squares = ops.copy(X) >> ops.multiply(X)
    return squares >> op(ops.NAdd(array(B), array(n))) >> op(ops.NCopy(array(B), array(m))), m


BLOCKS = {
    name[1:]: block
    for name, block in sorted(globals().items())
    if name.startswith("_") and callable(block) and getattr(block, "__module__", None) == __name__
}
