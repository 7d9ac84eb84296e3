"""Rounding, saturation and keyed draws, against exact fractions and plain Python."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catgrad_hw.numbers.rounding import draw, limits, round_nearest, round_stochastic, saturate, step_key

VALUES = np.arange(-1024, 1025, dtype=np.int64)


@pytest.mark.parametrize("shift", range(9))
def test_nearest_is_half_up_exhaustively(shift: int) -> None:
    expected = [floor(Fraction(int(v), 2**shift) + Fraction(1, 2)) if shift else int(v) for v in VALUES]
    assert round_nearest(VALUES, shift).tolist() == expected


def test_negative_ties_go_up() -> None:
    assert round_nearest(np.array([-3, -1, 1, 3]), 1).tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize("shift", range(1, 9))
def test_nearest_is_symmetric_but_for_ties_and_its_mean_error_is_half_a_fine_step(shift: int) -> None:
    tie = VALUES % 2**shift == 2 ** (shift - 1)
    up, down = round_nearest(VALUES, shift), round_nearest(-VALUES, shift)
    assert (up + down == tie).all()
    period = np.arange(2**shift, dtype=np.int64)
    error = (round_nearest(period, shift) << shift) - period
    assert error.sum() == 2 ** (shift - 1)  # the tie alone is biased


@given(st.integers(-(2**40), 2**40), st.integers(1, 24))
def test_stochastic_rounding_is_unbiased_over_all_draws(value: int, shift: int) -> None:
    every = np.arange(2**16, dtype=np.int64)
    rounded = round_stochastic(np.int64(value) + 0 * every, shift, every)
    assert set(rounded.tolist()) <= {value >> shift, (value >> shift) + 1}
    # Of a fraction of more than 16 bits, the first 16 count.
    cut = max(0, shift - 16)
    assert Fraction(int(rounded.sum()), 2**16) == Fraction(value >> cut, 2 ** (shift - cut))


def test_stochastic_rounding_of_an_exact_value_keeps_it() -> None:
    every = np.arange(2**16, dtype=np.int64)
    assert (round_stochastic(np.full(2**16, -5 << 9), 9, every) == -5).all()


@pytest.mark.parametrize("width", [2, 8, 16])
def test_saturation_clamps(width: int) -> None:
    low, high = limits(width)
    values = np.array([low - 1, low, -1, 0, high, high + 1, 2**40, -(2**40)])
    assert saturate(values, width).tolist() == [low, low, -1, 0, high, high, high, low]


def python_draw(key: int, index: int) -> int:
    """The draw in plain Python, a bit at a time: independent of the vectorised one."""

    def rotate(word: int, amount: int) -> int:
        bits = f"{word:016b}"
        return int(bits[amount:] + bits[:amount], 2)

    x = key ^ index
    left, right = divmod(x, 2**16)
    for _ in range(8):
        left, right = right ^ (rotate(left, 1) & rotate(left, 8)) ^ rotate(left, 2), left
    return left


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1))
def test_draws_equal_plain_python(key: int, index: int) -> None:
    assert draw(key, np.array([index])).tolist() == [python_draw(key, index)]


def test_draws_are_fixed_for_ever() -> None:
    # Designs and checkpoints in the field depend on these.
    assert step_key(0, 1) == 0x9E3779B1
    assert step_key(2**32 - 1, 1) == 0x9E3779B0
    assert draw(step_key(0, 0), np.arange(4)).tolist() == [0, 16384, 32768, 54292]
    assert draw(step_key(1, 1), np.arange(4)).tolist() == [47958, 60798, 372, 51048]


def test_draws_look_random_over_indices_and_steps() -> None:
    count = 2**16
    over_indices = draw(step_key(7, 3), np.arange(count))
    over_steps = np.array([draw(step_key(7, step), np.array(5)) for step in range(count // 8)])
    for draws in (over_indices, over_steps):
        deviation = 2**16 / np.sqrt(12)
        assert abs(draws.mean() - (2**16 - 1) / 2) < 5 * deviation / np.sqrt(len(draws))
        for bit in range(16):
            assert abs((draws >> bit & 1).mean() - 0.5) < 5 * 0.5 / np.sqrt(len(draws))
        assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 5 / np.sqrt(len(draws))


def test_the_mean_of_drawn_roundings_is_the_value() -> None:
    """lr · g survives on average where nearest rounding would lose all of it."""
    value, shift = np.int64(1234), 14  # 0.075 of a last bit
    rounded = round_stochastic(value + np.zeros(2**16, np.int64), shift, draw(step_key(1, 1), np.arange(2**16)))
    assert abs(rounded.mean() - 1234 / 2**14) < 5 * np.sqrt(0.075 * 0.925 / 2**16)
    assert round_nearest(value, shift) == 0
