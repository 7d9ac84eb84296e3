"""Scheduling time grows about linearly with the number of kernels."""

from __future__ import annotations

from benchmarks.scheduling import LANES, seconds, stack
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.scheduler import schedule


def test_four_times_the_layers_take_at_most_six_times_as_long():
    taken = {}
    for depth in (16, 64):
        integer = stack(depth)
        taken[depth] = seconds(lambda integer=integer: check(schedule(integer, LANES)))
    assert taken[64] <= 6 * taken[16]
