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
    12     full-width path writes; its row may enter the tree      Timing.full_write
    19     slow path writes its first beat                         CAPTURE + Timing.slow_stages

What few programs need takes its cycles in these alone: :class:`Timing`.
"""

from __future__ import annotations

from dataclasses import dataclass

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

TABLE_STAGES = 4
"""Of a function that is read from a table: index, table, table register, symmetry."""
UNIT_STAGES = 6
"""Of a function that has a unit of its own: two of range reduction, table, table register, shift, rounding."""

PARTIAL_WRITE = 1
"""From the tree's finished sum (:meth:`Timing.sum_ready`): the partial sum of the tiles before is added, and kept."""
SUM_LEAD = 6
"""Cycles by which what finishes a sum is known before it."""

COMBINED_TRIGGER = ACCUMULATOR - WORD_LATENCY
"""The cycle that triggers a row or word that the full-width path combines with the accumulators."""
SUM_COMBINED = PARTIAL_WRITE - WORD_LATENCY
"""From the tree's finished sum to the trigger of the word that it is combined with."""


def latency(row: bool) -> int:
    """Cycles from a stream's trigger to its row or word."""
    return ROW_LATENCY if row else WORD_LATENCY


def operand_trigger(row: bool) -> int:
    """The cycle that triggers an operand of the multipliers."""
    return FETCHED - latency(row)


def held_trigger(stage: int) -> int:
    """The cycle that triggers a stream whose word or row is held in a register from cycle ``stage`` on."""
    return stage - 1 - OUTPUT


def presented(trigger: int) -> int:
    """The cycle in which a stream presents the address that is triggered in cycle ``trigger``."""
    return trigger + ADDRESS


def tree_levels(lanes: int) -> int:
    """Levels of the adder tree over ``lanes`` lanes, a register after each."""
    return (lanes - 1).bit_length()


@dataclass(frozen=True)
class Timing:
    """Latencies that depend on the machine.

    ``function_stages``: of the slow path's functions of z. ``full_combines``, ``sum_combines``: 1 where the full-width
    path, or the path of finished sums, combines values with words that are read; else 0. ``full_updates``: 1 where the
    full-width path subtracts from a row that is read.
    """

    lanes: int
    function_stages: int = TABLE_STAGES
    full_combines: int = 0
    sum_combines: int = 0
    full_updates: int = 1

    @property
    def slow_stages(self) -> int:
        """Stages of the slow path from a beat's entry to its write: combine, round, saturate, the function, subtract,
        saturate."""
        return self.subtract_stage + 2

    @property
    def subtract_stage(self) -> int:
        """The stage of the slow path at which a row is subtracted."""
        return 3 + self.function_stages

    @property
    def full_stages(self) -> int:
        """Stages of the full-width path: (combine,) round, (update,) saturate."""
        return 2 + self.full_combines + self.full_updates

    @property
    def full_write(self) -> int:
        """The cycle in which the full-width path writes."""
        return ACCUMULATOR + self.full_stages

    @property
    def old_row_trigger(self) -> int:
        """The cycle that triggers the row which the full-width path updates."""
        return ACCUMULATOR + self.full_combines + 1 - ROW_LATENCY

    @property
    def sum_update(self) -> int:
        """From the tree's finished sum until the old value is subtracted from: (combined,) half of the last place
        added, shifted."""
        return PARTIAL_WRITE + self.sum_combines + 2

    @property
    def sum_write(self) -> int:
        """From the tree's finished sum until its write: subtracted, saturated."""
        return self.sum_update + 2

    def sum_ready(self, source: str) -> int:
        """Cycles from issue until the tree's accumulator holds the iteration's sum."""
        return (PRODUCT if source == "product" else self.full_write) + tree_levels(self.lanes) + 1

    def capture(self, words: bool) -> int:
        """The cycle in which the slow path holds a row of accumulators, or a finished sum of the tree."""
        return self.sum_ready("product") + 1 if words else CAPTURE

    @property
    def sample_reads(self) -> int:
        """Cycles from an iteration's issue to its last read of a sample: a target, subtracted in the slow path."""
        return max(presented(held_trigger(self.capture(words) + self.subtract_stage)) for words in (False, True))

    @property
    def drain(self) -> int:
        """Cycles after the last issue until every write has landed, whatever the path (E = 1 included)."""
        return max(self.capture(True) + self.slow_stages + self.lanes, self.sum_ready("row") + self.sum_write) + 2
