"""Tables of the logistic function and its derivative."""

from __future__ import annotations

import math

import numpy as np
import pytest

from catgrad_hw.numbers.formats import POLICIES, Policy
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.tables import Table, lookup, sigmoid_derivative_table, sigmoid_table


def tables(policy: Policy) -> tuple[Table, Table]:
    z = policy.preactivation
    return sigmoid_table("s", z, policy.sigmoid), sigmoid_derivative_table("d", z, policy.sigmoid_derivative)


def words(table: Table) -> np.ndarray:
    return np.arange(-(2 ** (table.input_width - 1)), 2 ** (table.input_width - 1))


def by_definition(table: Table, z: int) -> int:
    """One result, as the docstring of Table says, in plain Python."""
    m = min(abs(z), 2 ** (table.input_width - 1) - 1)
    half = 2 ** (table.index_shift - 1) if table.index_shift else 0
    i = min((m + half) >> table.index_shift, len(table.entries) - 1)
    return table.one - table.entries[i] if z < 0 and table.symmetry == "complement" else table.entries[i]


@pytest.mark.parametrize("name", POLICIES)
def test_lookup_is_the_documented_function(name: str) -> None:
    for table in tables(POLICIES[name]):
        z = words(table)
        assert lookup(table, z).tolist() == [by_definition(table, int(v)) for v in z]


@pytest.mark.parametrize(("name", "entries", "bound"), [("16", 1024, 1e-3), ("18", 1024, 1e-3), ("small", 128, 8e-3)])
def test_size_and_error(name: str, entries: int, bound: float) -> None:
    policy = POLICIES[name]
    sigmoid, derivative = tables(policy)
    assert len(sigmoid.entries) == len(derivative.entries) == entries
    z = words(sigmoid)
    exact = 1 / (1 + np.exp(-z / 2.0**policy.preactivation.fraction))
    assert np.abs(lookup(sigmoid, z) / 2.0**policy.sigmoid.fraction - exact).max() < bound
    slope = lookup(derivative, z) / 2.0**policy.sigmoid_derivative.fraction
    assert np.abs(slope - exact * (1 - exact)).max() < bound / 2


@pytest.mark.parametrize("name", POLICIES)
def test_symmetry_monotony_and_width(name: str) -> None:
    sigmoid, derivative = tables(POLICIES[name])
    z = words(sigmoid)[1:]
    both = lookup(sigmoid, z) + lookup(sigmoid, -z)
    assert (np.abs(both - sigmoid.one) <= 1).all()
    assert (np.diff(lookup(sigmoid, words(sigmoid))) >= 0).all()
    assert (lookup(derivative, z) == lookup(derivative, -z)).all()
    for table in (sigmoid, derivative):
        results = lookup(table, words(table))
        assert results.min() >= 0
        assert results.max() < 2 ** (table.output_width - 1)


def test_entries_are_the_nearest_words() -> None:
    table = sigmoid_table("s", Format(16, 12), Format(16, 15))
    step = 2.0 ** (table.index_shift - 12)
    assert list(table.entries) == [math.floor(2**15 / (1 + math.exp(-i * step)) + 0.5) for i in range(1024)]


def test_a_coarser_argument_has_a_wider_reach() -> None:
    table = sigmoid_table("s", Format(16, 5), Format(16, 15))
    assert len(table.entries) == 8 * 2**5
    assert lookup(table, np.array([100 << 5, -(100 << 5)])).tolist() == [table.entries[-1], 2**15 - table.entries[-1]]
