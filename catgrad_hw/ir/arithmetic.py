"""Arithmetic of the dtypes on NumPy arrays: the meaning that every executor shares.

* ``float32``: real numbers, in the precision of the arrays;
* ``int32``: integers mod 2**32, which wrap without a warning;
* ``bool``: the field Z_2, in which adding is exclusive or and multiplying is and (arXiv 2101.10488).

Functions broadcast and keep the arrays' dtype.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from catgrad_hw.errors import UnsupportedError

Array: TypeAlias = npt.NDArray[Any]


def is_bool(x: Array) -> bool:
    """Whether an array's entries are those of Z_2."""
    return bool(np.asarray(x).dtype == np.bool_)


def add(x: Array, y: Array) -> Array:
    return np.asarray(np.logical_xor(x, y) if is_bool(x) else np.add(x, y))


def subtract(x: Array, y: Array) -> Array:
    return np.asarray(np.logical_xor(x, y) if is_bool(x) else np.subtract(x, y))


def negate(x: Array) -> Array:
    return np.asarray(x if is_bool(x) else np.negative(x))


def invert(x: Array) -> Array:
    """``−x − 1`` on int32, ``1 + x`` on Z_2."""
    return np.asarray(np.invert(x))


def multiply(x: Array, y: Array) -> Array:
    return np.asarray(np.logical_and(x, y) if is_bool(x) else np.multiply(x, y))


def divide(x: Array, y: Array) -> Array:
    """``x / y``; on int32 rounded down, and 0 where ``y`` is 0; on Z_2 likewise 0 where ``y`` is 0."""
    if is_bool(x):
        return np.asarray(np.logical_and(x, y))
    if np.issubdtype(np.asarray(x).dtype, np.integer):
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(np.floor_divide(x, y))
    return np.asarray(np.divide(x, y))


def power(x: Array, y: Array) -> Array:
    """``x ** y``; an empty product, ``y = 0``, is 1. Raises :class:`UnsupportedError` for a negative integer ``y``."""
    if is_bool(x):
        return np.asarray(np.logical_or(x, np.logical_not(y)))
    if np.issubdtype(np.asarray(x).dtype, np.integer) and np.any(np.less(y, 0)):
        raise UnsupportedError(f"Power: exponents on int32 must be >= 0, found {np.min(y)}; use float32")
    return np.asarray(np.power(x, y))


def greater(x: Array, y: Array) -> Array:
    """1 where ``x > y``, else 0, in the arrays' dtype."""
    return np.asarray(np.greater(x, y)).astype(np.result_type(x, y))


def first_maximum(x: Array, axes: int) -> Array:
    """1 at the first of the largest entries over the last ``axes`` axes, in row-major order, else 0."""
    flat = x.reshape(*x.shape[: x.ndim - axes], -1)
    first = np.arange(flat.shape[-1]) == flat.argmax(axis=-1)[..., None]
    return np.asarray(first, x.dtype).reshape(x.shape)


def equal(x: Array, y: Array) -> Array:
    """1 where ``x = y``, else 0, in the arrays' dtype."""
    return np.asarray(np.equal(x, y)).astype(np.result_type(x, y))


def select(c: Array, x: Array, y: Array) -> Array:
    """``x`` where ``c > 0``, else ``y``."""
    return np.asarray(np.where(c if is_bool(c) else np.greater(c, 0), x, y))


def total(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over axes."""
    if is_bool(x):
        return np.asarray(np.sum(x, axis=axes, dtype=np.uint8) & 1).astype(np.bool_)
    return np.asarray(np.sum(x, axis=axes, dtype=x.dtype))


def contract(x: Array, y: Array, axes: int) -> Array:
    """The sum of products over the last ``axes`` axes of ``x`` and the first of ``y``."""
    if is_bool(x):  # parities survive wrapping mod 256
        return (np.tensordot(x.astype(np.uint8), y.astype(np.uint8), axes=axes) & 1).astype(np.bool_)
    return np.asarray(np.tensordot(x, y, axes=axes))


def matmul(x: Array, y: Array) -> Array:
    """A matrix product for each index of the leading axes."""
    if is_bool(x):
        return np.asarray(np.matmul(x.astype(np.uint8), y.astype(np.uint8)) & 1).astype(np.bool_)
    return np.asarray(np.matmul(x, y))
