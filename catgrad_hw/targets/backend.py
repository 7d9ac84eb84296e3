"""Array backends: what the source made by :func:`catgrad_hw.compile_model` computes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir import arithmetic
from catgrad_hw.ir.operations import Scalar, TanhDerivative
from catgrad_hw.ir.types import Dtype, NdArrayType
from catgrad_hw.ir.windows import Fold, Pad, Windows

Array = npt.NDArray[Any]


class ArrayBackend(Protocol):
    """The operations that Python has no operator for. Arrays have ``+ - * / ** @``, ``shape`` and ``dtype``.

    The methods ``add`` to ``matmul`` are called for int32, which wraps, and for bool, the field Z_2, alone.
    """

    @staticmethod
    def dtype(d: Dtype) -> Any:
        """The library's own name of a dtype."""

    @staticmethod
    def constant(x: Scalar, shape: tuple[int, ...], dtype: Dtype) -> Any:
        """An array filled with ``x``."""

    @staticmethod
    def ncopy(shape: tuple[int, ...], x: Any) -> Any:
        """Repeat ``x`` over new trailing axes."""

    @staticmethod
    def nsplit(x: Any, k: int) -> list[Any]:
        """The ``k`` slices along the last axis, of size ``k``."""

    @staticmethod
    def nconcatenate(xs: Sequence[Any], k: int) -> Any:
        """Stack ``k`` arrays along a new last axis."""

    @staticmethod
    def nadd(dims: tuple[int, ...], x: Any) -> Any:
        """Sum over axes."""

    @staticmethod
    def nmax(dims: tuple[int, ...], x: Any) -> Any:
        """Maximum over axes."""

    @staticmethod
    def first_maximum(axes: int, x: Any) -> Any:
        """1 at the first of the largest entries over the last ``axes`` axes, else 0."""

    @staticmethod
    def reshape(x: Any, shape: tuple[int, ...]) -> Any:
        """The same entries, in row-major order, under another shape."""

    @staticmethod
    def permute(x: Any, p: Sequence[int]) -> Any:
        """Axis ``i`` of the result is axis ``p[i]`` of ``x``."""

    @staticmethod
    def compose(x: Any, y: Any, axes: int) -> Any:
        """Contract the last ``axes`` axes of ``x`` with the first of ``y``."""

    @staticmethod
    def add(x: Any, y: Any) -> Any: ...

    @staticmethod
    def subtract(x: Any, y: Any) -> Any: ...

    @staticmethod
    def negate(x: Any) -> Any: ...

    @staticmethod
    def invert(x: Any) -> Any: ...

    @staticmethod
    def multiply(x: Any, y: Any) -> Any: ...

    @staticmethod
    def divide(x: Any, y: Any) -> Any: ...

    @staticmethod
    def power(x: Any, y: Any) -> Any: ...

    @staticmethod
    def matmul(x: Any, y: Any) -> Any: ...

    @staticmethod
    def gt(x: Any, y: Any) -> Any:
        """1 where ``x > y``, else 0, in the arguments' dtype."""

    @staticmethod
    def select(c: Any, x: Any, y: Any) -> Any:
        """``x`` where ``c > 0``, else ``y``."""

    @staticmethod
    def pad(x: Any, low: Sequence[int], high: Sequence[int], step: Sequence[int], value: Scalar) -> Any:
        """Lay ``x`` out in an array of ``value``, along axis ``i`` from ``low[i]`` in steps of ``step[i]``."""

    @staticmethod
    def windows(x: Any, axis: int, size: int, step: int, dilation: int) -> Any:
        """Windows along ``axis``; their entries lie along a new last axis."""

    @staticmethod
    def fold(x: Any, shape: tuple[int, ...], axis: int, size: int, step: int, dilation: int) -> Any:
        """The adjoint of :meth:`windows`, an array of the given shape."""

    @staticmethod
    def exp(x: Any) -> Any: ...

    @staticmethod
    def sqrt(x: Any) -> Any: ...

    @staticmethod
    def log(x: Any) -> Any:
        """Natural logarithm."""

    @staticmethod
    def tanh(x: Any) -> Any: ...

    @staticmethod
    def tanh_derivative(x: Any) -> Any:
        """The derivative of :meth:`tanh` at ``x``."""

    @staticmethod
    def sigmoid(x: Any) -> Any:
        """``1 / (1 + e^−x)``, without overflow."""

    @staticmethod
    def sigmoid_derivative(x: Any) -> Any:
        """The derivative of :meth:`sigmoid` at ``x``."""


class Numpy:
    """The :class:`ArrayBackend` on NumPy arrays."""

    @staticmethod
    def dtype(d: Dtype) -> type[np.generic]:
        dtypes: dict[Dtype, type[np.generic]] = {
            Dtype.float32: np.float32,
            Dtype.int32: np.int32,
            Dtype.bool: np.bool_,
        }
        return dtypes[d]

    @staticmethod
    def constant(x: Scalar, shape: tuple[int, ...], dtype: Dtype) -> Array:
        return np.full(shape, x, dtype=Numpy.dtype(dtype))

    @staticmethod
    def ncopy(shape: tuple[int, ...], x: Array) -> Array:
        return np.broadcast_to(x.reshape(x.shape + (1,) * len(shape)), x.shape + shape)

    @staticmethod
    def nsplit(x: Array, k: int) -> list[Array]:
        return [x[..., i] for i in range(k)]

    @staticmethod
    def nconcatenate(xs: Sequence[Array], k: int) -> Array:
        return np.stack(xs, axis=-1)

    @staticmethod
    def nadd(dims: tuple[int, ...], x: Array) -> Array:
        return arithmetic.total(x, dims)

    @staticmethod
    def nmax(dims: tuple[int, ...], x: Array) -> Array:
        return np.asarray(x.max(axis=dims))

    @staticmethod
    def first_maximum(axes: int, x: Array) -> Array:
        return arithmetic.first_maximum(x, axes)

    @staticmethod
    def reshape(x: Array, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)

    @staticmethod
    def permute(x: Array, p: Sequence[int]) -> Array:
        return x.transpose(tuple(p))

    @staticmethod
    def compose(x: Array, y: Array, axes: int) -> Array:
        return arithmetic.contract(x, y, axes)

    add = staticmethod(arithmetic.add)
    subtract = staticmethod(arithmetic.subtract)
    negate = staticmethod(arithmetic.negate)
    invert = staticmethod(arithmetic.invert)
    multiply = staticmethod(arithmetic.multiply)
    divide = staticmethod(arithmetic.divide)
    power = staticmethod(arithmetic.power)
    matmul = staticmethod(arithmetic.matmul)
    gt = staticmethod(arithmetic.greater)
    select = staticmethod(arithmetic.select)

    @staticmethod
    def pad(x: Array, low: Sequence[int], high: Sequence[int], step: Sequence[int], value: Scalar) -> Array:
        return Pad(_type(x.shape), tuple(low), tuple(high), tuple(step), value).numpy(x)[0]

    @staticmethod
    def windows(x: Array, axis: int, size: int, step: int, dilation: int) -> Array:
        return Windows(_type(x.shape), axis, size, step, dilation).numpy(x)[0]

    @staticmethod
    def fold(x: Array, shape: tuple[int, ...], axis: int, size: int, step: int, dilation: int) -> Array:
        return Fold(_type(shape), axis, size, step, dilation).numpy(x)[0]

    @staticmethod
    def exp(x: Array) -> Array:
        return np.asarray(np.exp(x))

    @staticmethod
    def sqrt(x: Array) -> Array:
        return np.asarray(np.sqrt(x))

    @staticmethod
    def log(x: Array) -> Array:
        return np.asarray(np.log(x))

    @staticmethod
    def tanh(x: Array) -> Array:
        return np.asarray(np.tanh(x))

    @staticmethod
    def tanh_derivative(x: Array) -> Array:
        return TanhDerivative(_FLOAT).numpy(x)[0]

    @staticmethod
    def sigmoid(x: Array) -> Array:
        # catgrad's formula, to the last bit: at its example's rate, what differs grows tenfold every two steps.
        one = x.dtype.type(1)
        with np.errstate(over="ignore"):
            return np.asarray(one / (one + np.power(x.dtype.type(np.e), -x)))

    @staticmethod
    def sigmoid_derivative(x: Array) -> Array:
        y = Numpy.sigmoid(x)
        return np.asarray(y * (y.dtype.type(1) - y))


_FLOAT = NdArrayType((), Dtype.float32)


def _type(shape: tuple[int, ...]) -> NdArrayType:
    """A type for operations on arrays of any dtype."""
    return NdArrayType(shape, Dtype.float32)


def check_arguments(
    backend: ArrayBackend | type[ArrayBackend],
    function: str,
    types: Mapping[str, tuple[tuple[int, ...], Dtype]],
    arrays: Mapping[str, Any],
) -> None:
    """Raise :class:`IllTypedError` unless each array has the shape and dtype that ``types`` gives for its name."""
    for name, array in arrays.items():
        shape, dtype = types[name]
        check_argument(backend, function, name, array, shape, dtype)


def check_argument(
    backend: ArrayBackend | type[ArrayBackend],
    function: str,
    name: str,
    array: Any,
    shape: tuple[int, ...],
    dtype: Dtype,
) -> None:
    """Raise :class:`IllTypedError` unless ``array`` has the given shape and dtype."""
    if getattr(array, "shape", None) == shape and array.dtype == backend.dtype(dtype):
        return
    expected = NdArrayType(shape, dtype)
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise IllTypedError(
            f"{function}: argument {name} must be an array {expected}, found {type(array).__name__}; "
            f"make an array of it"
        )
    if tuple(array.shape) != shape:
        found = ", ".join(map(str, array.shape))
        raise IllTypedError(
            f"{function}: argument {name} must be {expected}, found shape [{found}]; reshape it, or build the model "
            "for that shape"
        )
    if array.dtype != backend.dtype(dtype):
        advice = f".astype(np.{dtype.name})" if isinstance(array, np.ndarray) else f"the dtype {dtype.name}"
        raise IllTypedError(f"{function}: argument {name} must be {expected}, found dtype {array.dtype}; use {advice}")
