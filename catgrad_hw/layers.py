"""Layers, losses and optimizers: the vocabulary of models."""

from __future__ import annotations

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.combinators import (
    Canonical,
    canonical,
    identity,
    op,
    permutation,
    spider,
    tensor,
    transpose,
    twist,
    unit,
)
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import (
    MSE,
    SGD,
    Add,
    Compose,
    Constant,
    Copy,
    Discard,
    Divide,
    Exponentiate,
    Gt,
    Log,
    MatrixMultiply,
    Multiply,
    NAdd,
    NConcatenate,
    NCopy,
    Negate,
    NMax,
    NSplit,
    Parameter,
    Permute,
    Power,
    Reshape,
    ScaleInverse,
    Sigmoid,
    SigmoidDerivative,
    Subtract,
    add,
    constant,
    copy,
    discard,
    divide,
    exp1,
    exponentiate,
    gt,
    gt_constant,
    increment,
    mse,
    multiply,
    negate,
    parameter,
    scale,
    scale_inverse,
    sgd,
    sigmoid,
    subtract,
    zero,
)
from catgrad_hw.ir.types import NdArrayType, Object, obj

__all__ = [  # noqa: RUF022
    # layers
    "bias", "dense", "flatten", "linear", "relu", "shared_bias", "sigmoid",
    # losses and optimizers
    "mse", "sgd",
    # maps at each object
    "add", "constant", "copy", "discard", "divide", "exp1", "exponentiate", "gt", "gt_constant", "increment",
    "multiply", "negate", "parameter", "scale", "scale_inverse", "subtract", "zero",
    # diagrams
    "canonical", "identity", "op", "permutation", "spider", "tensor", "transpose", "twist", "unit",
    # operations, for ``op``
    "Add", "Compose", "Constant", "Copy", "Discard", "Divide", "Exponentiate", "Gt", "Log", "MSE", "MatrixMultiply",
    "Multiply", "NAdd", "NConcatenate", "NCopy", "NMax", "NSplit", "Negate", "Parameter", "Permute", "Power",
    "Reshape", "SGD", "ScaleInverse", "Sigmoid", "SigmoidDerivative", "Subtract",
]  # fmt: skip


def flatten(X: NdArrayType, Y: NdArrayType) -> OpenHypergraph:
    """``X → Y``: the same entries under another shape."""
    return op(Reshape(X, Y))


def linear(A: NdArrayType, B: NdArrayType, C: NdArrayType) -> OpenHypergraph:
    """``A + B → A + C``: a batch ``A`` of inputs ``B``, all multiplied by one matrix of type ``B + C``."""
    if not A.dtype == B.dtype == C.dtype:
        raise IllTypedError(f"linear: dtypes must be equal, found {A}, {B} and {C}; change one of them")
    return (identity(obj(A + B)) @ parameter(obj(B + C))) >> op(Compose(A, B, C))


def bias(A: NdArrayType) -> OpenHypergraph:
    """``A → A``: add a parameter of type ``A``. In a batch, each sample has its own; see :func:`shared_bias`."""
    return (parameter(obj(A)) @ identity(obj(A))) >> add(obj(A))


def shared_bias(A: NdArrayType, B: NdArrayType) -> OpenHypergraph:
    """``A + B → A + B``: add one parameter of type ``B`` to each entry of the batch ``A``."""
    a, b = len(A.shape), len(B.shape)
    spread = op(NCopy(B, A)) >> op(Permute(B + A, [*range(b, a + b), *range(b)]))
    return ((parameter(obj(B)) >> spread) @ identity(obj(A + B))) >> add(obj(A + B))


def dense(A: NdArrayType, B: NdArrayType, C: NdArrayType, activation: Canonical = sigmoid) -> OpenHypergraph:
    """``A + B → A + C``: :func:`linear`, a bias of type ``C`` shared over the batch ``A``, and an activation."""
    return linear(A, B, C) >> shared_bias(A, C) >> activation(obj(A + C))


def relu(X: Object) -> OpenHypergraph:
    """``x ↦ max(x, 0)``, as ``(x > 0) · x``."""
    return copy(X) >> (gt_constant(0)(X) @ identity(X)) >> multiply(X)
