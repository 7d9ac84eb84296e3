"""The machine's latencies, in one place: the gateware builds its pipelines from them, the scheduler counts with them.

All times are cycles after the issue of an iteration (the cycle in which the sequencer's registers hold it). A memory
read is *presented* in the cycle in which its address is at the port; a write is presented in the cycle in which its
address, data and enable are. A read sees a write that was presented at least one cycle before it.

::

    0      the sequencer holds the iteration
    1      increments of addresses of words; 2, of rows
    2      addresses of words at the ports of their banks; 3, of rows
    4, 5   memory output, output register, for rows
    6      bank (and lane) chosen; a weight rounded to its compute copy
    7      operand registers of the multipliers
    8      products; the tree's first adders for a dot             PRODUCT
    9      lane accumulators                                       ACCUMULATOR
    10     slow path captures the row; beats follow                CAPTURE
    12     full-width path writes; its row may enter the tree      FULL_WRITE
    19     slow path writes its first beat                         SLOW_WRITE
"""

from __future__ import annotations

ADDRESS = 2
"""Cycles from a stream's trigger to its address: the increment is looked up, and added."""
OUTPUT = ADDRESS + 2
"""Cycles from a stream's trigger until the output register of the memory holds its row."""
ROW_LATENCY = OUTPUT + 1
"""Cycles from a stream's trigger to its row: the bank is chosen."""
WORD_LATENCY = ROW_LATENCY + 1
"""The same for a word, which is then picked out of its row."""

FETCHED = WORD_LATENCY
PRODUCT = FETCHED + 2
ACCUMULATOR = PRODUCT + 1
CAPTURE = ACCUMULATOR + 1
FULL_STAGES = 3
"""Stages of the full-width path: round, update, saturate."""
FULL_WRITE = ACCUMULATOR + FULL_STAGES

SLOW_STAGES = 9
"""Stages of the slow path from a beat's entry to its write: bias, round, saturate, index, table, table register,
symmetry, subtract, saturate."""

SUBTRACT_STAGE = 7
"""The stage of the slow path at which a row is subtracted."""

SLOW_WRITE = CAPTURE + SLOW_STAGES

PARTIAL_WRITE = 1
"""From the tree's finished sum (:func:`sum_ready`): the partial sum of the tiles before is added, and kept."""
SUM_LEAD = 6
"""Cycles by which what finishes a sum is known before it."""
SUM_UPDATE = PARTIAL_WRITE + 2
"""From the tree's finished sum until the old value is subtracted from: half of the last place added, shifted."""
SUM_WRITE = SUM_UPDATE + 2
"""Subtracted, saturated."""


def latency(row: bool) -> int:
    """Cycles from a stream's trigger to its row or word."""
    return ROW_LATENCY if row else WORD_LATENCY


def operand_trigger(row: bool) -> int:
    """The cycle that triggers an operand of the multipliers."""
    return FETCHED - latency(row)


def held_trigger(stage: int) -> int:
    """The cycle that triggers a stream whose word or row is held in a register from cycle ``stage`` on."""
    return stage - 1 - OUTPUT


def old_row_trigger() -> int:
    """The cycle that triggers the row which the full-width path updates."""
    return ACCUMULATOR + 1 - ROW_LATENCY


def presented(trigger: int) -> int:
    """The cycle in which a stream presents the address that is triggered in cycle ``trigger``."""
    return trigger + ADDRESS


def tree_levels(lanes: int) -> int:
    """Levels of the adder tree over ``lanes`` lanes, a register after each."""
    return (lanes - 1).bit_length()


def sum_ready(lanes: int, source: str) -> int:
    """Cycles from issue until the tree's accumulator holds the iteration's sum."""
    return (PRODUCT if source == "product" else FULL_WRITE) + tree_levels(lanes) + 1


def capture(lanes: int, words: bool) -> int:
    """The cycle in which the slow path holds a row of accumulators, or a finished sum of the tree."""
    return sum_ready(lanes, "product") + 1 if words else CAPTURE


def sample_reads(lanes: int) -> int:
    """Cycles from an iteration's issue to its last read of a sample: a target, subtracted in the slow path."""
    return max(presented(held_trigger(capture(lanes, words) + SUBTRACT_STAGE)) for words in (False, True))


def drain(lanes: int) -> int:
    """Cycles after the last issue until every write has landed, whatever the path (E = 1 included)."""
    return max(capture(lanes, True) + SLOW_STAGES + lanes, sum_ready(lanes, "row") + SUM_WRITE) + 2
