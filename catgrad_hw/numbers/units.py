"""Functions that reduce their argument's range before they read a table: exp, 1/x and 1/√x.

Each is a frozen dataclass whose docstring is its definition in integers; :func:`apply` evaluates it. They hold tables,
shifts, and additions: none multiplies. Their entries depend on formats alone and are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.tables import Table, lookup_all

if TYPE_CHECKING:
    from catgrad_hw.numbers.integer import Format

INDEX_BITS = 9
"""Bits of a fraction that index a table: relative errors of 2**-10, half of what softmax bears (NUMERICS: 2**-9)."""

LOG2_E = 23637
"""log₂ e · 2**14, to the nearest integer: 2**14 + 2**13 - 2**10 + 2**6 + 2**4 + 2**2 + 2**0, so six additions."""

LOG2_E_FRACTION = 14


@dataclass(frozen=True)
class Exponential:
    """``e**z`` of a signed word ``z`` of ``input_width`` bits, of which ``input_fraction`` are a fraction.

    With ``K = log2(len(entries))`` and ``F = input_fraction + 14 - K``:

    * ``n = (z * 23637 + 2**(F-1)) >> F``, the exponent of 2 to ``K`` fraction bits;
    * ``i = n >> K`` and ``j = n & (2**K - 1)``;
    * ``s = output_width - output_fraction - i``, and the result is ``(entries[j] + (2**s >> 1)) >> s``, or
      ``2**(output_width-1) - 1`` where it would be greater.

    ``entries[j]`` is ``2**(output_width + j / 2**K)`` to the nearest integer. The relative error, before the result is
    rounded to its last bit, is below ``ln 2 * 2**-(K+1) + 5e-6 * abs(z) + 2**-output_width``, z as a
    number; ``e**0`` is exact.
    """

    name: str
    input_width: int
    input_fraction: int
    output_width: int
    output_fraction: int
    entries: tuple[int, ...]


@dataclass(frozen=True)
class InverseRoot:
    """``x**(-1/root)`` of a positive word ``v`` of ``input_width`` bits: a reciprocal, or one of a square root.

    With ``K = log2(len(entries) / root)`` and ``e`` the place of the leading 1 of ``v``:

    * ``n = ((v << K) + (2**e >> 1)) >> e``, the significand to ``K`` fraction bits; where it is ``2**(K+1)``, ``e``
      grows by 1 and ``n`` becomes ``2**K``;
    * ``q, p = divmod(e - input_fraction, root)`` and ``j = p * 2**K + n - 2**K``;
    * ``s = output_width - output_fraction + q``, and the result is ``(entries[j] + (2**s >> 1)) >> s`` (a shift to the
      left where ``s < 0``), or ``2**(output_width-1) - 1`` where it would be greater, and where ``v <= 0``.

    ``entries[p * 2**K + k]`` is ``2**output_width * (2**p * (1 + k / 2**K))**(-1/root)`` to the nearest integer. The
    relative error, before the result is rounded to its last bit, is below ``2**-(K+1) / root + 2**-output_width``, and
    its sign alternates; powers of two (of four) are exact.
    """

    name: str
    input_width: int
    input_fraction: int
    output_width: int
    output_fraction: int
    root: Literal[1, 2]
    entries: tuple[int, ...]


Unit: TypeAlias = Exponential | InverseRoot
Function: TypeAlias = Table | Unit


def index_bits(result: Format) -> int:
    """K for a result of this format: no more than its precision is worth."""
    return min(INDEX_BITS, result.width - 4)


def exponential(name: str, argument: Format, result: Format) -> Exponential:
    """``e**z`` for words ``z`` and results of these formats; z has at least ``K - 13`` fraction bits."""
    K = index_bits(result)
    entries = _entries(1 << K, lambda j: Decimal(2) ** (result.width + j / (1 << K)))
    return Exponential(name, argument.width, argument.fraction, result.width, result.fraction, entries)


def inverse_root(name: str, argument: Format, result: Format, root: Literal[1, 2]) -> InverseRoot:
    """``1 / x`` (root 1) or ``1 / sqrt(x)`` (root 2) for words and results of these formats."""
    K = index_bits(result)

    def entry(j: Decimal) -> Decimal:
        p, k = divmod(j, 1 << K)
        x: Decimal = 2**p * (1 + k / (1 << K))
        return Decimal(2) ** result.width / (x if root == 1 else x.sqrt())

    entries = _entries(root << K, entry)
    return InverseRoot(name, argument.width, argument.fraction, result.width, result.fraction, root, entries)


def _entries(count: int, function: Callable[[Decimal], Decimal]) -> tuple[int, ...]:
    with localcontext(Context(prec=40)):
        exact = [function(Decimal(j)) for j in range(count)]
        return tuple(int((value + Decimal("0.5")).to_integral_value(ROUND_FLOOR)) for value in exact)


def apply(function: Function, z: NDArray[np.int64]) -> NDArray[np.int64]:
    """The results for the words ``z``, elementwise."""
    return results(function)[z + (1 << (function.input_width - 1))]


@lru_cache(maxsize=64)
def results(function: Function) -> NDArray[np.int64]:
    """The results for all words, from the least to the greatest."""
    if isinstance(function, Table):
        return lookup_all(function)
    low, high = limits(function.input_width)
    z = np.arange(low, high + 1, dtype=np.int64)
    entries = np.array(function.entries, np.int64)
    if isinstance(function, Exponential):
        K = len(entries).bit_length() - 1
        F = function.input_fraction + LOG2_E_FRACTION - K
        n = (z * LOG2_E + (1 << (F - 1))) >> F
        word, shift = entries[n & ((1 << K) - 1)], function.output_width - function.output_fraction - (n >> K)
        return _shifted(word, shift, function.output_width)
    K = (len(entries) // function.root).bit_length() - 1
    v = np.maximum(z, 1)
    e = np.frexp(v.astype(np.float64))[1] - 1
    n = ((v << K) + ((1 << e) >> 1)) >> e
    e = np.where(n >> (K + 1), e + 1, e)
    n = np.where(n >> (K + 1), 1 << K, n)
    q, p = np.divmod(e - function.input_fraction, function.root)
    word = entries[(p << K) + n - (1 << K)]
    found = _shifted(word, function.output_width - function.output_fraction + q, function.output_width)
    return np.where(z > 0, found, limits(function.output_width)[1])


def _shifted(word: NDArray[np.int64], shift: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """``word / 2**shift`` to the nearest integer, halves up, no greater than ``width`` bits hold."""
    right = np.clip(shift, 0, width + 2)  # beyond which nothing is left
    left = np.clip(-shift, 0, width)
    rounded: NDArray[np.int64] = (word + ((1 << right) >> 1)) >> right
    found: NDArray[np.int64] = np.minimum(rounded << left, limits(width)[1])
    return found
