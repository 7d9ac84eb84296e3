"""Rounding, saturation and keyed draws on integer words: the arithmetic that hardware must reproduce.

Keyed draws. A draw depends on the seed, the step and the flat parameter index alone, so that its bits don't depend
on lanes, layout or the order in time:

* the key of a step is ``(seed + step * 0x9E3779B1) mod 2**32``;
* ``x = key ^ index``, of which ``L = x >> 16`` and ``R = x & 0xFFFF``;
* eight Feistel rounds ``(L, R) <- (R ^ F(L), L)`` with ``F(L) = (rotl(L, 1) & rotl(L, 8)) ^ rotl(L, 2)`` on 16-bit
  words, the round function of SIMON without its keys (Beaulieu et al., IACR ePrint 2013/404);
* the draw is ``L`` after the eighth round: 16 random bits.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.int64]

KEY_INCREMENT = 0x9E3779B1
DRAW_BITS = 16
FEISTEL_ROUNDS = 8


def step_key(seed: int, step: int) -> int:
    """The 32-bit key of a step."""
    return (seed + step * KEY_INCREMENT) & 0xFFFFFFFF


def draw(key: int, index: Words) -> Words:
    """The draws, in [0, 2**16), of the parameters with these flat indices."""
    x = np.asarray(index, dtype=np.int64) ^ key
    left, right = (x >> 16) & 0xFFFF, x & 0xFFFF
    for _ in range(FEISTEL_ROUNDS):
        left, right = right ^ (_rotate(left, 1) & _rotate(left, 8)) ^ _rotate(left, 2), left
    return left


def _rotate(word: Words, amount: int) -> Words:
    return ((word << amount) | (word >> (16 - amount))) & 0xFFFF


def round_nearest(value: Words, shift: int) -> Words:
    """``value / 2**shift`` to the nearest integer, halves up. ``shift >= 0``; 0 is the identity."""
    if shift == 0:
        return value
    return (value + (1 << (shift - 1))) >> shift


def round_stochastic(value: Words, shift: int, draws: Words) -> Words:
    """``value / 2**shift`` rounded up with the probability of its fraction, to 16 bits of that fraction.

    ``shift <= 16``: ``(value + (r >> (16 - shift))) >> shift``; above: ``(value + (r << (shift - 16))) >> shift``.
    """
    if shift <= DRAW_BITS:
        return (value + (draws >> (DRAW_BITS - shift))) >> shift
    return (value + (draws << (shift - DRAW_BITS))) >> shift


def limits(width: int) -> tuple[int, int]:
    """The least and the greatest word of ``width`` bits, two's complement."""
    return -(1 << (width - 1)), (1 << (width - 1)) - 1


def saturate(value: Words, width: int) -> Words:
    """``value`` clamped to ``width`` bits, two's complement."""
    low, high = limits(width)
    return np.clip(value, low, high)
