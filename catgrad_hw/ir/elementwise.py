"""Elementwise functions of kernels: what :class:`catgrad_hw.ir.kernel.Apply` means on NumPy arrays.

``ELEMENTWISE`` maps a name to its arity and its meaning. Every meaning broadcasts and keeps the arrays' dtype; those
that int32 and bool have mean what :mod:`catgrad_hw.ir.arithmetic` says. ``select(c, x, y)`` is ``x`` where ``c > 0``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.ir import arithmetic


class Elementwise(NamedTuple):
    """An elementwise function: the number of its arguments and its NumPy meaning."""

    arity: int
    numpy: Callable[..., NDArray[Any]]


def sigmoid(z: NDArray[Any]) -> NDArray[Any]:
    """The logistic function, ``1 / (1 + exp(-z))``, without overflow: only exponentials of ``-|z|`` are taken."""
    e = np.exp(-np.abs(z))
    result: NDArray[Any] = np.where(np.asarray(z) >= 0, 1, e) / (1 + e)
    return result


def sigmoid_derivative(z: NDArray[Any]) -> NDArray[Any]:
    """The derivative of the logistic function, ``e / (1 + e)**2`` with ``e = exp(-|z|)``: exact in both tails."""
    e = np.exp(-np.abs(z))
    result: NDArray[Any] = e / np.square(1 + e)
    return result


def tanh_derivative(z: NDArray[Any]) -> NDArray[Any]:
    """The derivative of the hyperbolic tangent, ``4 e / (1 + e)**2`` with ``e = exp(-2 |z|)``."""
    e = np.exp(-2 * np.abs(z))
    result: NDArray[Any] = 4 * e / np.square(1 + e)
    return result


ELEMENTWISE: Mapping[str, Elementwise] = MappingProxyType(
    {
        "add": Elementwise(2, arithmetic.add),
        "subtract": Elementwise(2, arithmetic.subtract),
        "multiply": Elementwise(2, arithmetic.multiply),
        "divide": Elementwise(2, arithmetic.divide),
        "power": Elementwise(2, arithmetic.power),
        "greater": Elementwise(2, arithmetic.greater),
        "equal": Elementwise(2, arithmetic.equal),
        "select": Elementwise(3, arithmetic.select),
        "invert": Elementwise(1, arithmetic.invert),
        "exp": Elementwise(1, np.exp),
        "log": Elementwise(1, np.log),
        "sqrt": Elementwise(1, np.sqrt),
        "tanh": Elementwise(1, np.tanh),
        "tanh_derivative": Elementwise(1, tanh_derivative),
        "sigmoid": Elementwise(1, sigmoid),
        "sigmoid_derivative": Elementwise(1, sigmoid_derivative),
    }
)
