"""Formats and constants: against exact fractions and an independent library."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from catgrad_hw.errors import ModelError
from catgrad_hw.numbers.formats import POLICIES, fitting, mantissa, policy, to_values, to_words
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.rounding import limits

formats = st.builds(Format, st.integers(2, 24), st.integers(-10, 30))


@given(st.floats(-1e6, 1e6, width=32), formats)
def test_words_are_nearest_halves_up_and_saturated(value: float, form: Format) -> None:
    low, high = limits(form.width)
    exact = floor(Fraction(value) * Fraction(2) ** form.fraction + Fraction(1, 2))
    assert to_words(value, form) == min(max(exact, low), high)


@given(formats, st.data())
def test_words_survive_the_way_to_values_and_back(form: Format, data: st.DataObject) -> None:
    word = data.draw(st.integers(*limits(form.width)))
    assert to_words(to_values(np.array(word), form), form) == word


@given(st.floats(-(2.0**20), 2.0**20, width=32), st.integers(4, 20), st.integers(0, 12))
def test_words_equal_apytypes(value: float, width: int, fraction: int) -> None:
    apytypes = pytest.importorskip("apytypes", reason="apytypes is not installed: no independent library to compare")
    fine = apytypes.APyFixed.from_float(value, int_bits=64, frac_bits=160)
    narrow = fine.cast(
        bits=width,
        frac_bits=fraction,
        quantization=apytypes.QuantizationMode.TIES_POS,
        overflow=apytypes.OverflowMode.SAT,
    )
    assert float(narrow) == float(to_values(to_words(value, Format(width, fraction)), Format(width, fraction)))


@given(st.floats(1e-30, 1e30), st.integers(2, 32), st.integers(0, 2))
def test_fitting_holds_its_range_and_is_the_finest(largest: float, width: int, headroom: int) -> None:
    form = fitting(width, largest, headroom)
    bound = Fraction(2) ** (width - 1 - form.fraction - headroom)
    assert Fraction(largest) < bound <= 2 * Fraction(largest)


@given(st.floats(1e-300, 1e300), st.sampled_from([12, 16, 18]), st.sampled_from([-1, 1]))
def test_a_constant_never_becomes_zero_and_keeps_its_bits(value: float, width: int, sign: int) -> None:
    word, fraction = mantissa(sign * value, width)
    assert 2 ** (width - 2) <= abs(word) < 2 ** (width - 1)
    error = abs(Fraction(word) / Fraction(2) ** fraction - Fraction(sign * value))
    assert error <= Fraction(1, 2) / Fraction(2) ** fraction


def test_a_constant_that_rounds_up_to_a_power_of_two() -> None:
    assert mantissa(1 - 2.0**-30, 16) == (2**14, 14)
    assert mantissa(0.0, 16) == (0, 0)


@given(st.floats(-1, 1))
def test_small_learning_rates_stay(rate: float) -> None:
    assume(rate != 0)
    assert mantissa(rate, 16)[0] != 0


def test_policies() -> None:
    assert [p.multiplier for p in POLICIES.values()] == [16, 18, 12]
    with pytest.raises(ModelError, match=r"numbers: expected one of 16, 18, small, found '17'"):
        policy("17")
