"""The work of scheduling grows about linearly with the number of kernels; `benchmarks.scheduling` times it."""

from __future__ import annotations

import cProfile

from benchmarks.scheduling import LANES, stack
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.scheduler import schedule


def calls_of_scheduling(depth: int) -> int:
    """How many functions are called while a stack of layers is scheduled and checked: a time without noise."""
    integer, profile = stack(depth), cProfile.Profile()
    profile.enable()
    check(schedule(integer, LANES))
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def test_four_times_the_layers_take_at_most_six_times_the_work() -> None:
    assert calls_of_scheduling(64) <= 6 * calls_of_scheduling(16)
