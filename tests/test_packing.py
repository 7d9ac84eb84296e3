"""Packing: the choice is the best there is, and every stream meets the elements that its kernel means."""

from __future__ import annotations

import itertools
import random
from math import inf

import numpy as np
import pytest
from layouts import Costs, along_features, location, packed
from random_models import learners
from small_workloads import array, dense_workload, workload_of

from catgrad_hw import layers
from catgrad_hw.ir.kernel import Access, Array
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.form import forms
from catgrad_hw.schedule.packing import axis_of, options, pack
from catgrad_hw.schedule.program import Operand
from catgrad_hw.schedule.scheduler import schedule


def quantized(workload, numbers="16"):
    return quantize_workload(workload, numbers, calibration_steps=5).integer


NETS = {
    "linear": lambda: quantized(workload_of(layers.linear(array(4), array(3), array(2)), samples=4)),
    "linear, 1 sample": lambda: quantized(workload_of(layers.linear(array(1), array(5), array(3)), samples=4)),
    "dense": lambda: quantized(dense_workload(5, (3, 2))),
    "dense, 1 sample": lambda: quantized(dense_workload(1, (6, 4), samples=4)),
    "hidden, 1 sample": lambda: quantized(dense_workload(1, (5, 3, 2), samples=4)),
    "dense, stochastic": lambda: quantized(dense_workload(4, (3, 2)), "small"),
}


@pytest.fixture(scope="module", params=NETS)
def small(request):
    return NETS[request.param]()


@pytest.mark.parametrize(("lanes", "tile"), [(1, None), (2, None), (2, 2), (3, None), (4, None), (16, None)])
def test_no_packing_is_better(small, lanes, tile):
    """Against all vector axes of all arrays, with the best loop of every kernel across the lanes."""
    batch = small.kernels.batch
    if tile is not None and tile >= batch:
        pytest.skip("a tile is less than the batch")
    tile = tile or batch
    tiles = -(-batch // tile)
    routines = forms(small)
    costs = Costs(small, routines, lanes, tile, tiles)
    found = costs.of(pack(small, routines, lanes, tile, tiles))
    best = costs.least()
    assert best < inf
    assert found == pytest.approx(best, rel=1e-9)
