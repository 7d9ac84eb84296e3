"""Packing: the choice is the best there is, every stream meets the elements that its kernel means, and whatever lies
across the lanes, a program trains as the reference does."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from functools import cache
from math import inf, prod
from pathlib import Path

import numpy as np
import pytest
from layouts import Costs, along_features, location, packed
from machine_model import Machine
from small_workloads import array, dense_workload, workload_of

from catgrad_hw import layers
from catgrad_hw.hardware import Hardware
from catgrad_hw.ir.kernel import Access, Array, Bound
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.events import inside
from catgrad_hw.schedule.form import forms
from catgrad_hw.schedule.packing import Packing, axis_of, pack, reaches, split
from catgrad_hw.schedule.program import Operand
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.schedule.select import select
from catgrad_hw.simulate.training import simulate

# --- the best choice --------------------------------------------------------------------------------------------------


def quantized(workload, numbers="16"):
    return quantize_workload(workload, numbers, calibration_steps=5)


SMALL = {
    "linear": lambda: quantized(workload_of(layers.linear(array(4), array(3), array(2)), samples=4)),
    "linear, 1 sample": lambda: quantized(workload_of(layers.linear(array(1), array(5), array(3)), samples=4)),
    "dense": lambda: quantized(dense_workload(5, (3, 2))),
    "dense, 1 sample": lambda: quantized(dense_workload(1, (6, 4), samples=4)),
    "hidden, 1 sample": lambda: quantized(dense_workload(1, (5, 3, 2), samples=4)),
    "dense, stochastic": lambda: quantized(dense_workload(4, (3, 2)), "small"),
}


@pytest.mark.parametrize("name", SMALL)
def test_no_packing_is_better(name):
    """Against all vector axes of all arrays, with the best loop of every kernel across the lanes."""
    integer = SMALL[name]().integer
    batch = integer.kernels.batch
    for lanes in (1, 2, 3, 4, 16):
        for tile in {batch, *range(lanes, batch, lanes)}:
            tiles = -(-batch // tile)
            routines = forms(integer)
            costs = Costs(integer, routines, lanes, tile, tiles)
            found = costs.of(pack(integer, routines, lanes, tile, tiles))
            best = costs.least()
            assert best < inf
            assert found == pytest.approx(best, rel=1e-9), (lanes, tile)


def convolved(batch, padding=0):
    """A dense layer behind a convolution, whose maxima it takes where there is padding."""
    convolution = layers.conv2d(array(batch), array(2, 4, 4), 3, 3, padding=padding)
    model = convolution >> layers.relu(convolution.target)
    if padding:
        model = model >> layers.max_pool2d(array(batch), array(3, 4, 4), 2)
    return (
        model
        >> layers.flatten(array(batch, 3, 2, 2), array(batch, 12))
        >> layers.dense(array(batch), array(12), array(2))
    )


# --- legality ---------------------------------------------------------------------------------------------------------

WORKLOADS = {
    "linear": lambda: workload_of(layers.linear(array(5), array(3), array(2)), samples=15),
    "dense": lambda: dense_workload(5, (3, 2), samples=15),
    "hidden": lambda: dense_workload(7, (3, 5, 2), samples=21),
    "hidden, 1 sample": lambda: dense_workload(1, (3, 5, 2), samples=5),
    "deep": lambda: dense_workload(3, (2, 3, 1, 4), samples=9, weights=2.0),
    "linear twice": lambda: workload_of(
        layers.linear(array(6), array(3), array(5)) >> layers.linear(array(6), array(5), array(2)), samples=18
    ),
    "convolution": lambda: workload_of(convolved(3), samples=9),
    "convolution, 1 sample": lambda: workload_of(convolved(1), samples=3),
    "maxima": lambda: workload_of(convolved(2, padding=1), samples=6),
}


@cache
def trained(name, numbers):
    workload = WORKLOADS[name]()
    return workload, quantized(workload, numbers)


def random_program(generator, name):
    """A program of one of the workloads, for random lanes and tiles, packed by the solver or at random."""
    while True:
        workload, quantization = trained(name, generator.choice(["16", "18", "small"]))
        integer = quantization.integer
        batch = integer.kernels.batch
        lanes = generator.choice([1, 2, 3, 4, 5, 8])
        settings = {
            "tile": generator.choice([None, *range(lanes, batch, lanes)]),
            "samples": generator.choice([None, len(workload.x)]),
        }
        kind = generator.choice(["solver", "features", "random", "random"])
        often = generator.random()
        if kind == "solver":
            return workload, quantization, schedule(integer, lanes, **settings)

        def axis(array, shape, kind=kind, often=often):
            if kind == "features":
                return along_features(array, shape)
            return generator.choice([None, *range(len(shape))]) if generator.random() < often else None

        try:
            return workload, quantization, packed(integer, lanes, axis, **settings)
        except LookupError:  # no kernels for these axes
            continue


def streams(form, kernel):
    """The accesses of ``form`` with the streams that ``kernel`` makes of them."""
    sides = [operand for operand in (kernel.a, kernel.b) if isinstance(operand, Operand)]
    for factor in form.factors:
        if factor.access:
            (operand,) = [operand for operand in sides if operand.array == factor.access.array]
            yield factor.access, operand
    for path in (kernel.slow, kernel.full, kernel.sum):
        if path and not (path is kernel.sum and form.rider):
            yield from zip(form.combination.accesses, path.combination.operands(), strict=True)
    if kernel.slow:
        for store, write in zip(form.stores, kernel.slow.writes, strict=True):
            yield store.access, write.target
            if store.difference:
                yield store.difference.other, write.subtraction.other
    if kernel.full:
        yield from zip((s.access for s in form.stores), (w.target for w in kernel.full.writes), strict=True)
    if kernel.sum:
        combination, stores = (form.rider or form).combination, (form.rider or form).stores
        yield from zip((s.access for s in stores), (w.target for w in kernel.sum.writes), strict=True)
        if form.rider:
            yield from zip(combination.accesses, kernel.sum.combination.operands(), strict=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", WORKLOADS)
def test_streams_meet_the_elements_that_kernels_mean(name, seed):
    generator = random.Random(f"{name} {seed}")
    for _ in range(4):
        _, quantization, program = random_program(generator, name)
        integer = quantization.integer
        arrays, lanes, tile = integer.kernels.arrays, program.lanes, program.tile
        parsed = {
            (routine, form.name, form.rider is not None): form
            for routine, originals in forms(integer).items()
            for original in originals
            for form in (original, *(original.without_rider() if original.rider else ()))
        }
        for routine, kernel in ((r.name, k) for r in program.routines for k in (*r.tile.kernels, *r.final.kernels)):
            form = parsed[routine, kernel.name, kernel.sum is not None and kernel.sum.source == "row"]
            levels = len(form.loops)
            assert kernel.trips[levels:] in ((), (1,))
            sizes = [tile if loop.batch else loop.size for loop in form.loops]
            expected = [-(-n // lanes) if level == kernel.lane_level else n for level, n in enumerate(sizes)]
            assert list(kernel.trips[:levels]) == expected
            found = list(streams(form, kernel))
            assert len(found) >= 2
            for access, operand in found:
                place = program.placements[access.array]
                assert operand.array == access.array
                if operand.row:
                    assert kernel.lane_level is not None
                    assert access.strides[kernel.lane_level]
                for index in itertools.product(*map(range, kernel.trips[:levels])):
                    if not inside(operand.bounds, np.array([[*index, *(0 for _ in kernel.trips[levels:])]]).T):
                        continue
                    row = place.base + operand.base
                    row += sum(i * s for i, s in zip(index, operand.strides[:levels], strict=True))
                    position = operand.position
                    position += sum(i * s for i, s in zip(index, operand.steps[:levels], strict=True))
                    row += position // lanes * place.elements
                    for lane in range(lanes if operand.row else 1):
                        element = list(index)
                        if operand.row:
                            element[kernel.lane_level] = index[kernel.lane_level] * lanes + lane
                            if element[kernel.lane_level] >= sizes[kernel.lane_level]:
                                continue
                        elif kernel.lane_level is not None:
                            assert not access.strides[kernel.lane_level]
                        flat = access.offset + sum(i * s for i, s in zip(element, access.strides, strict=True))
                        meant = np.unravel_index(flat, arrays[access.array].shape)
                        here = (row, lane if operand.row else position % lanes)
                        assert here == location(lanes, place, meant), (kernel, operand, element)


TABLE = Array("t", (4, 6), "intermediate")


@pytest.mark.parametrize(
    ("offset", "strides", "sizes", "expected"),
    [
        (0, (6, 1), (4, 6), (0, 1)),
        (0, (1, 6), (6, 4), (1, 0)),
        (0, (6, 0, 1), (4, 9, 6), (0, None, 1)),
        (6, (1,), (6,), (1,)),  # the second row
        (2, (6,), (4,), (0,)),  # the third column
        (1, (6, 1), (4, 5), (0, None)),  # a part of the columns
        (0, (6, 1), (3, 6), (None, 1)),  # a part of the rows
        (0, (1,), (24,), (None,)),  # through rows and columns
        (0, (12, 6, 1), (2, 2, 6), (None, None, 1)),  # rows in two loops
        (0, (6, 2, 1), (4, 3, 2), (0, None, None)),  # columns in two loops
        (0, (7,), (4,), (None,)),  # the diagonal
        (5, (6, -1), (4, 6), (0, None)),  # columns backwards
    ],
)
def test_only_a_whole_axis_lies_across_the_lanes(offset, strides, sizes, expected):
    access = Access("t", offset, strides)
    assert tuple(axis_of(TABLE, access, loop, size) for loop, size in enumerate(sizes)) == expected


@pytest.mark.parametrize(
    ("access", "sizes", "expected"),
    [
        (Access("t", 0, (6, 1)), (4, 6), (True, True)),
        (Access("t", 7, (6, 1)), (3, 5), (True, True)),  # a part of both
        (Access("t", 0, (1,)), (24,), (False, False)),  # through rows and columns
        (Access("t", 0, (1,)), (6,), (True, True)),  # through the first row alone
        (Access("t", 2, (1,)), (6,), (False, False)),
        (Access("t", 0, (6, 2, 1)), (4, 3, 2), (True, True)),  # columns in two loops
        (Access("t", 0, (6, 2, 2)), (4, 3, 2), (False, False)),
        (Access("t", 5, (6, -1)), (4, 6), (True, True)),  # columns backwards
        (Access("t", 0, (7,)), (4,), (True, True)),  # the diagonal
        (Access("t", -1, (6, 1, 1)), (4, 6, 3), (False, False)),  # windows of three, beyond both ends
        (Access("t", -1, (6, 1, 1), (Bound(-1, (0, 1, 1), 6),)), (4, 6, 3), (True, True)),  # the same, padded
        (Access("t", -6, (6, 12, 1), (Bound(-1, (1, 2, 0), 4),)), (3, 2, 6), (True, True)),
        (Access("t", -2, (6, 3, 3), (Bound(0, (0, 3, 3), 7),)), (4, 2, 2), (False, False)),  # bounds of another place
    ],
)
def test_words_reach_what_lies_along_an_axis_at_affine_places(access, sizes, expected):
    """Or the array is not packed along that axis: against every word, one by one."""
    found = []
    for axis in range(2):
        assert reaches(TABLE, access, axis, sizes) == expected[axis]
        length, inner = TABLE.shape[axis], prod(TABLE.shape[axis + 1 :])
        parts = np.array([split(s, length, inner) for s in (access.offset, *access.strides)])
        index = np.indices(sizes).reshape(len(sizes), -1)
        index = index[:, inside(access.bounds, index)]
        places = parts[0][:, None] + parts[1:].T @ index
        flat = access.offset + np.array(access.strides) @ index
        meant = np.array([flat // (length * inner), flat // inner % length, flat % inner])
        found.append(bool((places == meant).all()))
    assert tuple(found) == expected


def test_packings_that_break_a_rule_are_refused():
    """The rules by which the brute force above goes, on a hidden layer: what each kernel may have across the lanes."""
    integer = trained("hidden", "16")[1].integer
    routines = forms(integer)
    chosen = pack(integer, routines, 4, 7, 1)
    costs = Costs(integer, routines, 4, 7, 1)
    assert costs.of(chosen) < inf
    rows = {
        access.array
        for form, lane in chosen.kernels["step"]
        for access in form.accesses
        if lane is not None and access.strides[lane]
    }
    assert rows
    for name in rows:
        broken = Packing({**chosen.axes, name: None}, chosen.kernels)
        with pytest.raises(AssertionError):
            costs.of(broken)


# --- whatever lies across the lanes -----------------------------------------------------------------------------------


def compare(workload, integer, program, steps=4):
    """Train on words of all sizes, and predict after each step."""
    machine, reference = Machine(program, seed=7), Reference(integer, seed=7)
    reference.load(workload.parameters)
    machine.load(reference.parameter_words())
    generator = np.random.default_rng(1)
    data = []
    for name, values in zip((*program.inputs, *program.targets), (workload.x, workload.y), strict=True):
        low, high = limits(integer.formats[name].width)
        data.append(generator.integers(low, high + 1, values.shape))
    for step in range(steps):
        batch = np.arange(step * program.batch, (step + 1) * program.batch) % len(workload.x)
        x, y = (words[batch] for words in data)
        reference.step(x, y)
        machine.step(x, y)
        for found, expected in zip(machine.parameters(), reference.parameter_words(), strict=True):
            np.testing.assert_array_equal(found, expected, err_msg=f"step {step}")
        assert machine.saturations == reference.saturations
        np.testing.assert_array_equal(machine.predict(x), reference.predict(x), err_msg=f"step {step}")
        assert machine.saturations == reference.saturations


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_packing_trains_as_the_reference_does(name, seed):
    generator = random.Random(f"{name} {seed}")
    for _ in range(6):
        workload, quantization, program = random_program(generator, name)
        check(program)
        compare(workload, quantization.integer, program)


@pytest.mark.simulator
@pytest.mark.parametrize(
    "name", [name for name in WORKLOADS if name not in ("convolution", "maxima")]
)  # they take long
def test_the_hardware_does_so_too(name):
    """The model of the machine stands for the gateware: here are some of its programs in Amaranth's simulator."""
    workload, quantization, program = random_program(random.Random(name), name)
    simulation = simulate(Hardware(quantization, program), workload, 2, simulator="amaranth")
    assert simulation.differences == ()
    assert simulation.mismatches == 0


def test_the_solver_says_nothing():
    """What a command prints is its own: scripts read it."""
    code = "from test_packing import *; schedule(quantize_workload(dense_workload(4, (3, 2))).integer, 2)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_sums_of_several_tiles_belong_together_only_if_they_are_over_samples():
    """In two linear layers, the tree sums within a sample, too."""
    workload, quantization = trained("linear twice", "18")
    integer = quantization.integer
    program = schedule(integer, 1, tile=2, samples=18)
    kept = [kernel for kernel in program.kernels if kernel.sum and not kernel.sums_samples and kernel.batch_level]
    assert kept
    assert {f"partial {kernel.sum.writes[0].target.array}" for kernel in kept}.isdisjoint(program.placements)
    compare(workload, integer, program)


def test_predictions_of_one_tile_outlast_the_next():
    workload, quantization = trained("deep", "small")
    integer = quantization.integer
    program = schedule(integer, 1, tile=1, samples=9)
    assert program.tiles == 3
    compare(workload, integer, program)


def test_leftovers_in_lanes_without_an_element_are_not_summed():
    """d2 is written word by word and summed over 3 samples in 5 lanes; other arrays must not lie in its rows."""
    workload, quantization = trained("deep", "small")
    integer = quantization.integer
    axes = {"d2": 0, "e1": 1, "d1": 1, "d5": 1, "s3": 1, "y": 0}
    program = packed(integer, 5, lambda array, shape: axes.get(array.name), samples=9)
    place = program.placements["d2"]
    assert place.axis == 0
    assert place.length % 5
    others = [p for p in program.placements.values() if p.bank == place.bank and p != place]
    assert others
    for other in others:
        assert other.base >= place.base + place.slot_rows or place.base >= other.base + other.slots * other.slot_rows
    compare(workload, integer, program)


def test_selection_goes_by_the_packing():
    integer = trained("dense", "16")[1].integer
    routines = forms(integer)
    chosen = pack(integer, routines, 2, 5, 1)
    for name, selection in select(integer, chosen, 2, 5, 1).items():
        lanes = [kernel.lane_level for kernel in (*selection.tile, *selection.final)]
        assert lanes == [lane for _, lane in chosen.kernels[name]]
