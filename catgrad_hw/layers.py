"""Layers, losses and optimizers: the vocabulary of models."""

from __future__ import annotations

from functools import partial

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
from catgrad_hw.ir.losses import MSE, CrossEntropy, Huber, MeanSquaredError
from catgrad_hw.ir.normalize import Softmax, Standardize
from catgrad_hw.ir.operations import (
    Add,
    Compose,
    Constant,
    Copy,
    Discard,
    Divide,
    Exp,
    Exponentiate,
    FirstMaximum,
    Gt,
    Invert,
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
    Scalar,
    ScaleInverse,
    Select,
    Sigmoid,
    SigmoidDerivative,
    Sqrt,
    Subtract,
    Tanh,
    TanhDerivative,
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
    invert,
    multiply,
    negate,
    parameter,
    scale,
    scale_inverse,
    sigmoid,
    subtract,
    tanh,
    zero,
)
from catgrad_hw.ir.optimizers import SGD, Adam, Momentum, Optimizer, adam, momentum, sgd
from catgrad_hw.ir.rectify import Rectify
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.types import NdArrayType, Object, obj
from catgrad_hw.ir.windows import (
    Convolution,
    Crop,
    Flip,
    Fold,
    Pad,
    Pair,
    Windows,
    crop_image,
    image_windows,
    pad_image,
)

__all__ = [  # noqa: RUF022
    # layers
    "average_pool2d", "bias", "conv2d", "dense", "flatten", "layer_norm", "leaky_relu", "linear", "max_pool2d", "relu",
    "residual", "shared_bias", "sigmoid", "softmax", "tanh",
    # losses
    "cross_entropy", "huber", "mean_squared_error", "mse",
    # optimizers
    "Optimizer", "adam", "momentum", "sgd",
    # maps at each object
    "add", "constant", "copy", "discard", "divide", "exp1", "exponentiate", "gt", "gt_constant", "increment", "invert",
    "multiply", "negate", "parameter", "scale", "scale_inverse", "subtract", "zero",
    # diagrams
    "canonical", "identity", "op", "permutation", "spider", "tensor", "trace", "transpose", "twist", "unit",
    # operations, for ``op``
    "Adam", "Add", "Compose", "Constant", "Convolution", "Copy", "Crop", "CrossEntropy", "Discard", "Divide", "Exp",
    "Exponentiate", "FirstMaximum", "Flip", "Fold", "Gt", "Huber", "Invert", "Log", "MSE", "MatrixMultiply",
    "MeanSquaredError", "Momentum", "Multiply", "NAdd", "NConcatenate", "NCopy", "NMax", "NSplit", "Negate", "Pad",
    "Parameter", "Permute", "Power", "Rectify", "Reshape", "SGD", "ScaleInverse", "Select", "Sigmoid",
    "SigmoidDerivative", "Softmax", "Sqrt", "Standardize", "Subtract", "Tanh", "TanhDerivative", "Windows",
]  # fmt: skip


# --- affine layers ----------------------------------------------------------------------------------------------


def linear(A: NdArrayType, B: NdArrayType, C: NdArrayType) -> OpenHypergraph:
    """``A + B → A + C``: a batch ``A`` of inputs ``B``, all multiplied by one matrix ``W`` of type ``B + C``:
    ``y = x W``."""
    if not A.dtype == B.dtype == C.dtype:
        raise IllTypedError(f"linear: dtypes must be equal, found {A}, {B} and {C}; change one of them")
    return (identity(obj(A + B)) @ parameter(obj(B + C))) >> op(Compose(A, B, C))


def bias(A: NdArrayType) -> OpenHypergraph:
    """``A → A``: add a parameter of type ``A``: ``y = x + b``. In a batch, each sample has its own; see
    :func:`shared_bias`."""
    return (parameter(obj(A)) @ identity(obj(A))) >> add(obj(A))


def shared_bias(A: NdArrayType, B: NdArrayType) -> OpenHypergraph:
    """``A + B → A + B``: add one parameter ``b`` of type ``B`` to each entry of the batch ``A``: ``y = x + b``."""
    a, b = len(A.shape), len(B.shape)
    spread = op(NCopy(B, A)) >> op(Permute(B + A, [*range(b, a + b), *range(b)]))
    return ((parameter(obj(B)) >> spread) @ identity(obj(A + B))) >> add(obj(A + B))


def dense(A: NdArrayType, B: NdArrayType, C: NdArrayType, activation: Canonical = sigmoid) -> OpenHypergraph:
    """``A + B → A + C``: :func:`linear`, a bias of type ``C`` shared over the batch ``A``, and an activation:
    ``y = f(x W + b)``."""
    return linear(A, B, C) >> shared_bias(A, C) >> activation(obj(A + C))


def conv2d(
    A: NdArrayType,
    B: NdArrayType,
    channels: int,
    kernel: int | Pair,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    bias: bool = True,
) -> OpenHypergraph:
    """``A + B → A + (m, h', w')``: a batch ``A`` of images ``B = (c, h, w)`` with ``m = channels`` filters.

    ``y[m, i, j] = b[m] + Σ x[c, i·s + k·d − p, j·s + l·d − p] · w[m, c, k, l]``, summed over ``c``, ``k`` and ``l``,
    with stride ``s``, padding ``p`` by zeros and dilation ``d``; ``h' = ⌊(h + 2p − d·(k − 1) − 1) / s⌋ + 1``.
    Parameters: ``w`` of shape ``(m, c, kernel, kernel)``, then ``b`` of shape ``(m,)`` unless ``bias`` is false.
    """
    _image("conv2d", B)
    filters = NdArrayType((channels, B.shape[0], *_pair(kernel)), B.dtype)
    operation = Convolution(A, B, filters, _pair(stride), _pair(padding), _pair(dilation))
    convolution = (identity(obj(A + B)) @ parameter(obj(filters))) >> op(operation)
    if not bias:
        return convolution
    (Y,) = convolution.target
    rows, M = NdArrayType(A.shape + Y.shape[-2:], A.dtype), NdArrayType((channels,), A.dtype)
    n, r = len(A.shape), len(rows.shape)
    spread = op(NCopy(M, rows)) >> op(Permute(M + rows, [*range(1, n + 1), 0, *range(n + 1, r + 1)]))
    return (convolution @ (parameter(obj(M)) >> spread)) >> add(obj(Y))


# --- activations ------------------------------------------------------------------------------------------------


def relu(X: Object) -> OpenHypergraph:
    """``y = max(x, 0)``, with derivative 0 at 0."""
    return leaky_relu(0)(X)


def leaky_relu(slope: Scalar = 0.01) -> Canonical:
    """``y = x`` where ``x > 0``, else ``slope · x``."""

    def rectified(x: Wire) -> Wire:
        if x.T.dtype.is_floating() and slope >= 0:
            return apply1(Rectify(x.T, slope), x)
        return apply1(Select(x.T), x, x, x * slope)

    return lambda X: _each(X, rectified)


def softmax(X: Object) -> OpenHypergraph:
    """``y = eˣ / Σ eˣ``, summed over the last axis."""
    for T in X:
        if not T.shape:
            raise IllTypedError(f"softmax: expected an axis to sum over, found {T}; change the shape")
    return canonical(lambda T: op(Softmax(*_cut(T, len(T.shape) - 1))))(X)


def _each(X: Object, f) -> OpenHypergraph:  # type: ignore[no-untyped-def]
    return canonical(lambda T: trace(obj(T), f))(X)


# --- pooling, views, structure ----------------------------------------------------------------------------------


def max_pool2d(
    A: NdArrayType, B: NdArrayType, size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
) -> OpenHypergraph:
    """``A + B → A + (c, h', w')``: the largest entry of each window of images ``B = (c, h, w)``; ``stride`` is
    ``size`` if not given. ``y[c, i, j] = max x[c, i·s + k − p, j·s + l − p]`` over ``k`` and ``l``; padding counts as
    the lowest number. The gradient goes to the first of the largest entries."""
    lowest = -(2.0**127) * (2 - 2**-23) if B.dtype.is_floating() else 0
    pooled = partial(_pool, A, B, _pair(size), _pair(size if stride is None else stride), _pair(padding), lowest)
    return trace(obj(A + B), lambda x: pooled(x).largest(len(A.shape) + 3))


def average_pool2d(
    A: NdArrayType, B: NdArrayType, size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
) -> OpenHypergraph:
    """``A + B → A + (c, h', w')``: the mean of each window of images ``B = (c, h, w)``; ``stride`` is ``size`` if not
    given. ``y[c, i, j] = (1/(k·l)) Σ x[c, i·s + k − p, j·s + l − p]``; padding counts as 0."""
    pooled = partial(_pool, A, B, _pair(size), _pair(size if stride is None else stride), _pair(padding), 0)
    h, w = _pair(size)
    return trace(obj(A + B), lambda x: pooled(x).total(len(A.shape) + 3) * (1 / (h * w)))


def _pool(A: NdArrayType, B: NdArrayType, size: Pair, stride: Pair, padding: Pair, value: Scalar, x: Wire) -> Wire:
    """The windows of a batch of images: ``A + (c, h, w) → A + (c, h', w', kh, kw)``."""
    _image("pooling", B)
    x = pad_image(x, padding, padding, value=value)
    if size != stride or any(n < k for n, k in zip(x.T.shape[-2:], size, strict=True)):
        return image_windows(x, size, stride)
    # Windows that touch but do not overlap are a reshape.
    h, w = (n // k for n, k in zip(x.T.shape[-2:], size, strict=True))
    rest = (x.T.shape[-2] - h * size[0], x.T.shape[-1] - w * size[1])
    x = crop_image(x, (0, 0), rest)
    n = len(x.T.shape) - 2
    x = x.reshape((*x.T.shape[:-2], h, size[0], w, size[1]))
    return x.permute([*range(n), n, n + 2, n + 1, n + 3])


def flatten(X: NdArrayType, Y: NdArrayType) -> OpenHypergraph:
    """``X → Y``: the same entries, in row-major order, under another shape."""
    return op(Reshape(X, Y))


def layer_norm(A: NdArrayType, B: NdArrayType, epsilon: Scalar = 1e-5) -> OpenHypergraph:
    """``A + B → A + B``: ``y = g · (x − μ) / √(σ² + ε) + b`` with mean ``μ`` and variance ``σ²`` over ``B``, for each
    entry of the batch ``A`` (arXiv 1607.06450). Parameters: the gain ``g`` and the bias ``b``, both of type ``B``."""
    a, b = len(A.shape), len(B.shape)
    spread = op(NCopy(B, A)) >> op(Permute(B + A, [*range(b, a + b), *range(b)]))
    gain = ((parameter(obj(B)) >> spread) @ identity(obj(A + B))) >> multiply(obj(A + B))
    return op(Standardize(A, B, epsilon)) >> gain >> shared_bias(A, B)


def residual(f: OpenHypergraph) -> OpenHypergraph:
    """``X → X``: ``y = x + f(x)`` for ``f : X → X``."""
    if f.source != f.target:
        raise IllTypedError(f"residual: expected a map X → X, found {f.source} → {f.target}; change the map")
    X = f.source
    return copy(X) >> (identity(X) @ f) >> add(X)


def _pair(k: int | Pair) -> Pair:
    return (k, k) if isinstance(k, int) else (k[0], k[1])


def _image(name: str, B: NdArrayType) -> None:
    if len(B.shape) != 3:
        raise IllTypedError(f"{name}: expected images (channels, height, width), found {B}; change the shape")


def _cut(T: NdArrayType, at: int) -> tuple[NdArrayType, NdArrayType]:
    return NdArrayType(T.shape[:at], T.dtype), NdArrayType(T.shape[at:], T.dtype)


# --- losses -----------------------------------------------------------------------------------------------------

mse = canonical(lambda T: op(MSE(T)))
mean_squared_error = canonical(lambda T: op(MeanSquaredError(T)))
cross_entropy = canonical(lambda T: op(CrossEntropy(T)))


def huber(delta: Scalar = 1.0) -> Canonical:
    """The Huber loss, quadratic for errors up to ``delta`` and linear beyond; see :class:`Huber`."""
    return canonical(lambda T: op(Huber(T, delta)))
