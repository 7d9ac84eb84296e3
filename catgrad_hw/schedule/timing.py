"""The machine's latencies, in one place: the gateware builds its pipelines from them, the scheduler counts with them.

All times are cycles after the issue of an iteration (the cycle in which the sequencer's registers hold it). A memory
read is *presented* in the cycle in which its address is at the port; a write is presented in the cycle in which its
address, data and enable are. A read sees a write that was presented at least one cycle before it.

::

    0      the sequencer holds the iteration
    1      operand addresses at the ports of their banks          OPERAND_READ
    2, 3   memory output, output register
    4      bank chosen; a weight rounded to its compute copy
    5      operand registers of the multipliers
    6      products; the tree's first adders for a dot             PRODUCT
    7      lane accumulators                                       ACCUMULATOR
    8      slow path captures the row; beats follow                CAPTURE
    9      full-width path writes; its row may enter the tree      FULL_WRITE
    17     slow path writes its first beat                         SLOW_WRITE
"""

from __future__ import annotations

READ_LATENCY = 4
"""Cycles from a stream's trigger to its word: address, memory, output register, choice of the bank."""

OPERAND_READ = 1
PRODUCT = 6
ACCUMULATOR = 7
CAPTURE = 8
FULL_WRITE = 9

BIAS_TRIGGER = CAPTURE - READ_LATENCY - 1
"""The bias is held in a register from CAPTURE on."""

SLOW_STAGES = 9
"""Stages of the slow path from a beat's entry to its write: bias, round, saturate, index, table, table register,
symmetry, subtract, saturate."""

SUBTRACT_STAGE = 7
"""The stage of the slow path at which a row is subtracted."""

SLOW_WRITE = CAPTURE + SLOW_STAGES
SUBTRACT_TRIGGER = CAPTURE + SUBTRACT_STAGE - READ_LATENCY - 1

SUM_TRIGGER = 0
"""Streams of the narrow path trigger when the tree's accumulator holds the finished sum; times below count from there.
"""
SUM_READ = SUM_TRIGGER + 1
PARTIAL_WRITE = READ_LATENCY + 1
SUM_WRITE = PARTIAL_WRITE + 3
"""Partial sum added, rounded, subtracted from the old value, saturated."""


def tree_levels(lanes: int) -> int:
    """Levels of the adder tree over ``lanes`` lanes, a register after each."""
    return (lanes - 1).bit_length()


def sum_ready(lanes: int, source: str) -> int:
    """Cycles from issue until the tree's accumulator holds the iteration's sum."""
    return (PRODUCT if source == "product" else FULL_WRITE) + tree_levels(lanes) + 1


def drain(lanes: int) -> int:
    """Cycles after the last issue until every write has landed, whatever the path (E = 1 included)."""
    return max(SLOW_WRITE + lanes, sum_ready(lanes, "row") + SUM_WRITE) + 2
