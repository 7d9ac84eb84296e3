"""Functions read from tables: the logistic function, the hyperbolic tangent, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from catgrad_hw.numbers.integer import Format

TABLE_RANGE = 8
"""Tables cover magnitudes below this: 1 - σ(8) = 3.4e-4. Beyond it the last entry holds."""

TANH_RANGE = 4
"""As :data:`TABLE_RANGE`, for tanh(z) = 2 σ(2z) - 1."""

TABLE_ENTRIES = 1024
"""The most entries that a table has: an error of 1e-3 in σ, which costs nothing in accuracy."""


@dataclass(frozen=True)
class Table:
    """A function of a signed word ``z`` of ``input_width`` bits, read from ``entries`` by its rounded magnitude.

    The magnitude is ``m = min(|z|, 2**(input_width-1) - 1)``, the index ``i = min((m + half) >> index_shift,
    len(entries) - 1)`` with ``half = 2**(index_shift-1)`` (0 where ``index_shift`` is 0), and the result

    * ``entries[i]`` where ``z >= 0``, or where ``symmetry`` is ``"even"``;
    * ``one - entries[i]`` where ``z < 0`` and ``symmetry`` is ``"complement"``: σ(-z) = 1 - σ(z), and, with a
      ``one`` of 0, tanh(-z) = -tanh(z).

    Results are signed words of ``output_width`` bits.
    """

    name: str
    input_width: int
    index_shift: int
    entries: tuple[int, ...]
    symmetry: Literal["even", "complement"]
    one: int
    output_width: int


def _sigmoid(e: Decimal) -> Decimal:
    return 1 / (1 + e)


def _sigmoid_derivative(e: Decimal) -> Decimal:
    return e / (1 + e) ** 2


def _tanh(e: Decimal) -> Decimal:
    return (1 - e * e) / (1 + e * e)


def _tanh_derivative(e: Decimal) -> Decimal:
    return 4 * e * e / (1 + e * e) ** 2


def sigmoid_table(name: str, argument: Format, result: Format) -> Table:
    """σ(z) = 1 / (1 + e**-z), symmetric by complement, for words ``z`` and results of these formats."""
    return _table(name, argument, result, "complement", _sigmoid, 1 << result.fraction)


def sigmoid_derivative_table(name: str, argument: Format, result: Format) -> Table:
    """σ'(z) = σ(z) (1 - σ(z)), an even function, for words ``z`` and results of these formats."""
    return _table(name, argument, result, "even", _sigmoid_derivative, 1 << result.fraction)


def tanh_table(name: str, argument: Format, result: Format) -> Table:
    """tanh(z), an odd function, for words ``z`` and results of these formats."""
    return _table(name, argument, result, "complement", _tanh, 0, TANH_RANGE)


def tanh_derivative_table(name: str, argument: Format, result: Format) -> Table:
    """tanh'(z) = 1 - tanh(z)**2, an even function, for words ``z`` and results of these formats."""
    return _table(name, argument, result, "even", _tanh_derivative, 0, TANH_RANGE)


def lookup(table: Table, z: NDArray[np.int64]) -> NDArray[np.int64]:
    """The table's results for the words ``z``, elementwise."""
    return lookup_all(table)[z + (1 << (table.input_width - 1))]


@lru_cache(maxsize=64)
def lookup_all(table: Table) -> NDArray[np.int64]:
    """The table's results for all words, from the least to the greatest."""
    z = np.arange(-(1 << (table.input_width - 1)), 1 << (table.input_width - 1), dtype=np.int64)
    magnitude = np.minimum(np.abs(z), (1 << (table.input_width - 1)) - 1)
    half = (1 << table.index_shift) >> 1
    index = np.minimum((magnitude + half) >> table.index_shift, len(table.entries) - 1)
    result: NDArray[np.int64] = np.array(table.entries, dtype=np.int64)[index]
    if table.symmetry == "complement":
        result = np.where(z < 0, table.one - result, result)
    return result


def _table(
    name: str,
    argument: Format,
    result: Format,
    symmetry: Literal["even", "complement"],
    function: Callable[[Decimal], Decimal],
    one: int,
    reach: int = TABLE_RANGE,
) -> Table:
    """Entry i holds ``function(e**-z)`` at ``z = i * 2**(index_shift - fraction)``, to the nearest word, halves up.

    One entry for each magnitude below ``reach``, or :data:`TABLE_ENTRIES` of them where that is fewer.
    """
    magnitudes = min(reach << argument.fraction, 1 << (argument.width - 1))
    index_shift = max(0, (magnitudes // TABLE_ENTRIES).bit_length() - 1)
    words = _nearest(function, index_shift - argument.fraction, magnitudes >> index_shift, result.fraction)
    greatest = (1 << (result.width - 1)) - 1
    return Table(
        name=name,
        input_width=argument.width,
        index_shift=index_shift,
        entries=tuple(min(word, greatest) for word in words),
        symmetry=symmetry,
        one=one,
        output_width=result.width,
    )


@lru_cache(maxsize=64)
def _nearest(function: Callable[[Decimal], Decimal], exponent: int, entries: int, fraction: int) -> tuple[int, ...]:
    """Of ``function(e**-z)`` at multiples of ``2**exponent``, the nearest words with ``fraction`` bits below the point.

    Decimal's exp is correctly rounded, so that they are the same on every machine.
    """
    with localcontext(Context(prec=40)):
        step = Decimal(2) ** exponent
        exact = [function((-i * step).exp()) * 2**fraction for i in range(entries)]
        return tuple(int((value + Decimal("0.5")).to_integral_value(ROUND_FLOOR)) for value in exact)
