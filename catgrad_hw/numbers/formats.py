"""Number formats: the policies that a user chooses among, and the way from values to words and back.

A word of a :class:`~catgrad_hw.numbers.integer.Format` stands for ``word * 2**-fraction``: one power-of-two scale
for each tensor, found by calibration.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catgrad_hw.errors import ModelError
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.rounding import Words, limits


@dataclass(frozen=True)
class Policy:
    """The widths of a design, in bits, sign included.

    ``multiplier``: both operands of a lane's multiplier, and the mantissa of the learning rate; ``master``: the
    parameters as they are stored and updated, of which the multiplier reads a copy rounded to its own width;
    ``activation``: inputs, targets and what the model computes from them; ``gradient``: error, δ and gradients.
    ``preactivation`` is the format in which the argument of a function is looked up; ``sigmoid`` (of tanh and its
    derivative, too) and ``sigmoid_derivative`` those of the results, ``exponent`` and ``exponential`` those of exp.
    ``stochastic``: updates are rounded by keyed draws, not to nearest.
    ``headroom`` is the number of bits above the largest magnitude that calibration saw, ``data_headroom`` that of
    inputs and targets, which are known beforehand.
    """

    name: str
    multiplier: int
    master: int
    activation: int
    gradient: int
    preactivation: Format
    sigmoid: Format
    sigmoid_derivative: Format
    exponent: Format
    exponential: Format
    stochastic: bool
    headroom: int = 1
    data_headroom: int = 1


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy(
            "16",
            multiplier=16,
            master=24,
            activation=16,
            gradient=16,
            preactivation=Format(16, 12),
            sigmoid=Format(16, 15),
            sigmoid_derivative=Format(16, 16),
            exponent=Format(16, 11),
            exponential=Format(16, 14),
            stochastic=False,
        ),
        Policy(
            "18",
            multiplier=18,
            master=24,
            activation=18,
            gradient=18,
            preactivation=Format(18, 14),
            sigmoid=Format(18, 17),
            sigmoid_derivative=Format(18, 18),
            exponent=Format(18, 13),
            exponential=Format(18, 16),
            stochastic=False,
        ),
        Policy(
            "small",
            multiplier=12,
            master=12,
            activation=8,
            gradient=12,
            preactivation=Format(8, 4),
            sigmoid=Format(8, 7),
            sigmoid_derivative=Format(8, 8),
            exponent=Format(12, 8),
            exponential=Format(12, 10),
            stochastic=True,
            data_headroom=0,
        ),
    )
}
"""By name: for 16-bit multipliers (iCE40), for 18-bit ones (ECP5, Gowin), and the smallest that still trains."""


def policy(name: str) -> Policy:
    """The policy of this name; ModelError lists the names."""
    if name not in POLICIES:
        raise ModelError(f"numbers: expected one of {', '.join(POLICIES)}, found {name!r}")
    return POLICIES[name]


def parse_format(text: str) -> tuple[str, Format]:
    """``NAME=BITS.FRACTION``, as ``p0=18.14``: an array's name and its format. Raises :class:`ModelError`."""
    match = re.fullmatch(r"(\w+)=(\d+)\.(-?\d+)", text)
    if match is None:
        raise ModelError(f"format {text!r}: expected NAME=BITS.FRACTION, as p0=18.14, found something else")
    return match[1], Format(int(match[2]), int(match[3]))


def fitting(width: int, largest: float, headroom: int = 0) -> Format:
    """The format of ``width`` bits with the most fraction bits that holds magnitudes below and at ``largest``.

    ``headroom`` bits are left above. Where ``largest`` is 0, as if it were 1.
    """
    exponent = math.frexp(largest)[1] if largest else 1  # largest < 2**exponent
    return Format(width, width - 1 - exponent - headroom)


def to_words(values: ArrayLike, form: Format) -> Words:
    """The words nearest to ``values``, halves up, saturated."""
    scaled = np.ldexp(np.asarray(values, dtype=np.float64), form.fraction)
    return np.clip(np.floor(scaled + 0.5), *limits(form.width)).astype(np.int64)


def to_values(words: Words, form: Format) -> NDArray[np.float64]:
    """What ``words`` stand for, exactly where float64 can."""
    return np.ldexp(words.astype(np.float64), -form.fraction)


def mantissa(value: float, width: int) -> tuple[int, int]:
    """``(m, fraction)`` with ``value`` nearest to ``m * 2**-fraction`` and |m| of ``width - 1`` significant bits.

    The constant has an exponent of its own, so that a learning rate, however small, never becomes 0.
    """
    if value == 0:
        return 0, 0
    significand, exponent = math.frexp(value)
    word = math.floor(significand * 2 ** (width - 1) + 0.5)
    if abs(word) == 2 ** (width - 1):  # rounded up to the next power of two
        word, exponent = word // 2, exponent + 1
    return word, width - 1 - exponent
