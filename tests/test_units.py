"""exp, 1/x and 1/√x: every word by the definition, in Python integers, and against real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pytest

from catgrad_hw.numbers.formats import POLICIES
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.units import Exponential, InverseRoot, Unit, apply, exponential, inverse_root, results


def unit_by_definition(unit: Unit, z: int) -> int:
    """The docstrings of the units, word by word, in exact fractions."""
    greatest = 2 ** (unit.output_width - 1) - 1
    if isinstance(unit, Exponential):
        K = int(math.log2(len(unit.entries)))
        F = unit.input_fraction + 14 - K
        n = math.floor(Fraction(z * 23637 + 2 ** (F - 1), 2**F))
        i, j = divmod(n, 2**K)
        entry, s = unit.entries[j], unit.output_width - unit.output_fraction - i
    else:
        if z <= 0:
            return greatest
        K = int(math.log2(len(unit.entries) // unit.root))
        e = len(f"{z:b}") - 1
        n = math.floor(Fraction(z * 2**K, 2**e) + Fraction(2**e // 2, 2**e))
        if n == 2 ** (K + 1):
            e, n = e + 1, 2**K
        q, p = divmod(e - unit.input_fraction, unit.root)
        entry, s = unit.entries[p * 2**K + n - 2**K], unit.output_width - unit.output_fraction + q
    half = Fraction(1, 2) if s > 0 else 0
    return min(math.floor(entry / Fraction(2) ** s + half), greatest)


FORMATS = {name: (policy.exponent, policy.exponential) for name, policy in POLICIES.items()}
MAKERS: dict[str, Callable[[Format, Format], Unit]] = {
    "exp": lambda argument, result: exponential("u", argument, result),
    "reciprocal": lambda argument, result: inverse_root("u", argument, result, 1),
    "rsqrt": lambda argument, result: inverse_root("u", argument, result, 2),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("argument", "result"),
    [(Format(12, 8), Format(12, 10)), (Format(9, 3), Format(12, 2)), (Format(10, 9), Format(16, 15))],
)
def test_every_word_is_that_of_the_definition(kind: str, argument: Format, result: Format) -> None:
    unit = MAKERS[kind](argument, result)
    low, high = limits(argument.width)
    assert results(unit).tolist() == [unit_by_definition(unit, z) for z in range(low, high + 1)]


@pytest.mark.parametrize("numbers", POLICIES)
@pytest.mark.parametrize("kind", MAKERS)
def test_the_stated_error_holds_for_every_word(kind: str, numbers: str) -> None:
    argument, result = FORMATS[numbers]
    unit = MAKERS[kind](argument, result)
    low, high = limits(argument.width)
    z: Any = np.arange(low if kind == "exp" else 1, high + 1)
    x = z / 2.0**argument.fraction
    if isinstance(unit, InverseRoot):
        exact = x ** (-1 / unit.root)
        relative = 2.0 ** -(int(math.log2(len(unit.entries) // unit.root)) + 1) / unit.root
    else:
        exact = np.exp(x)
        relative = math.log(2) * 2.0 ** -(int(math.log2(len(unit.entries))) + 1) + 5e-6 * np.abs(x)
    found = apply(unit, z) / 2.0**result.fraction
    error = np.abs(found - exact)
    greatest = (2 ** (result.width - 1) - 1) / 2**result.fraction
    bound = exact * (relative + 2.0**-result.width) + 2.0 ** -(result.fraction + 1)
    inside = exact + bound < greatest
    assert inside.sum() > 100
    assert (error <= bound)[inside].all()
    assert (error > 0.5 * bound)[inside].any(), "the bound says nothing"
    assert (found[~inside] >= greatest * (1 - 2 * np.max(relative)) - 2.0**-result.fraction).all()


@pytest.mark.parametrize("numbers", POLICIES)
def test_exp_of_zero_is_one_and_a_reciprocal_is_not_biased(numbers: str) -> None:
    argument, result = FORMATS[numbers]
    assert apply(exponential("u", argument, result), np.array([0])).tolist() == [2**result.fraction]
    unit = inverse_root("u", argument, result, 1)
    assert apply(unit, np.array([2**argument.fraction])).tolist() == [2**result.fraction]
    assert apply(unit, np.array([0, -1])).tolist() == [2 ** (result.width - 1) - 1] * 2
    x = np.arange(2**argument.fraction, 2 * 2**argument.fraction)  # [1, 2)
    relative = apply(unit, x) / 2.0**result.fraction * (x / 2.0**argument.fraction) - 1
    assert abs(relative.mean()) < 2.0**-12
    assert np.abs(relative).max() <= 2.0**-9 or numbers == "small"


@pytest.mark.parametrize("root", [1, 2])
def test_roots_of_powers_are_exact(root: Literal[1, 2]) -> None:
    """Of two where it is a reciprocal, of four where it is one of a square root."""
    unit = inverse_root("u", Format(18, 8), Format(18, 8), root)
    x = 2 ** np.arange(0, 17, root)
    exact = (x / 2.0**8) ** (-1 / root) * 2.0**8
    assert (exact == np.round(exact)).all()
    assert (exact < 2**17 - 1).all()
    assert (apply(unit, x) == exact).all()
