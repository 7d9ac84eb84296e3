"""Elementwise functions of kernels: what :class:`catgrad_hw.ir.kernel.Apply` means on NumPy arrays.

``ELEMENTWISE`` maps a name to its arity and its meaning. Every meaning broadcasts and keeps the arrays' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


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


ELEMENTWISE: Mapping[str, Elementwise] = MappingProxyType(
    {
        "add": Elementwise(2, np.add),
        "subtract": Elementwise(2, np.subtract),
        "multiply": Elementwise(2, np.multiply),
        "sigmoid": Elementwise(1, sigmoid),
        "sigmoid_derivative": Elementwise(1, sigmoid_derivative),
    }
)
