"""Every form of integer kernel in hardware: the models of ``test_integer_forms`` against the reference, word for word.

The machine model runs them on machines of all kinds; Amaranth's simulator runs the gateware, each model once on a
machine of its own kind, Verilator and Icarus those of images.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from machine_model import Machine
from small_workloads import dense_model, workload_of
from test_hardware import needs
from test_integer_forms import MODELS, quantized, workload

from catgrad_hw import layers
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.program import Program
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.simulate.training import simulate
from tests import campaign

LANES = (1, 2, 3, 4, 5, 8)


def scheduled(name: str, numbers: str, lanes: int, **options: Any) -> Program:
    options = {"samples": len(workload(name).x), **options}
    program = schedule(quantized(name, numbers).integer, lanes, **options)
    check(program)
    return program


def compare(name: str, numbers: str, program: Program, steps: int = 2) -> None:
    """Train on the model's data, then on words of all sizes, and predict after each step."""
    data, integer = workload(name), quantized(name, numbers).integer
    machine, reference = Machine(program, seed=7), Reference(integer, seed=7)
    reference.load(data.initial_parameters())
    machine.load(reference.parameter_words())
    generator = np.random.default_rng(1)
    for step in range(steps):
        words = []
        for array, values in zip((*program.inputs, *program.targets), data.batch(step), strict=True):
            low, high = limits(integer.formats[array].width)
            wild = generator.integers(low, high + 1, values.shape)
            words.append(wild if step else reference.words_of(array, values))
        reference.step(*words)
        machine.step(*words)
        for p, found, expected in zip(
            program.parameters, machine.parameters(), reference.parameter_words(), strict=True
        ):
            np.testing.assert_array_equal(found, expected, err_msg=f"step {step}: {p}")
        assert machine.saturations == reference.saturations
        np.testing.assert_array_equal(machine.predict(words[0]), reference.predict(words[0]), err_msg=f"step {step}")
        assert machine.saturations == reference.saturations


@pytest.mark.parametrize("numbers", ["16", "18", "small"])
@pytest.mark.parametrize("name", MODELS)
def test_every_machine_trains_as_the_reference_does(name: str, numbers: str) -> None:
    for lanes in LANES:
        compare(name, numbers, scheduled(name, numbers, lanes))


@pytest.mark.parametrize("number", range(len(MODELS)))
def test_tiles_slow_paths_and_little_memory(number: int) -> None:
    """Tiles of which the last is short, the narrowest slow path, and parameters as single words."""
    name, numbers = list(MODELS)[number], ("16", "small", "18")[number % 3]
    for lanes, options in (
        (1, {"tile": 3}),
        (2, {"tile": 2}),
        (3, {"tile": 3, "slow_words": 1}),
        (4, {"samples": None}),
    ):
        compare(name, numbers, scheduled(name, numbers, lanes, **options))
    program = scheduled(name, numbers, 2, memory=400)
    compare(name, numbers, program)


# --- the gateware -----------------------------------------------------------------------------------------------------


def trained(name: str, numbers: str, lanes: int, steps: int, simulator: str, **options: Any) -> None:
    hardware = Hardware(quantized(name, numbers), scheduled(name, numbers, lanes, **options))
    result = simulate(hardware, workload(name), steps, seed=1, simulator=simulator)
    assert result.differences == ()
    assert result.mismatches == 0
    assert result.predictions.shape == workload(name).y.shape
    assert set(result.outcome.step_cycles) == {hardware.cycles_per_step}
    assert result.cycles_per_step == hardware.cycles_per_step
    assert result.outcome.predict_cycles >= hardware.program.routine("predict").period


DENSE: dict[str, tuple[str, int, dict[str, Any]]] = {
    "relu": ("18", 3, {"tile": 3}),
    "leaky": ("small", 2, {"tile": 2}),
    "leaky by powers of two": ("small", 3, {"tile": 3}),
    "tanh": ("16", 5, {"slow_words": 2}),
    "cross-entropy": ("small", 4, {}),
    "softmax": ("18", 3, {"slow_words": 1}),
    "momentum": ("small", 3, {"tile": 3}),
    "momentum, rate of no power": ("16", 1, {"tile": 2}),
}
IMAGES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "convolution": ("small", 3, {}),
    "padded": ("16", 4, {"slow_words": 1}),
    "strided": ("18", 2, {"tile": 2}),
    "max pooling": ("small", 8, {}),
    "overlapping": ("16", 3, {"tile": 3}),
    "average pooling": ("16", 3, {}),
    "two convolutions": ("small", 5, {}),
    "pools of one, and overlapping means": ("16", 5, {}),
    "leaky by 1/8, pooled": ("18", 3, {"tile": 3}),
}


@pytest.mark.parametrize("name", DENSE)
def test_the_gateware_does_so_too(name: str) -> None:
    numbers, lanes, options = DENSE[name]
    trained(name, numbers, lanes, 2, "amaranth", **options)


FOUR_VALUED = ("convolution", "leaky by 1/8, pooled")
"""Of few cycles: Icarus simulates those, as Verilator knows no undefined values."""


@pytest.mark.parametrize(
    ("name", "simulator"),
    [
        pytest.param(name, simulator, marks=needs(simulator))
        for name in IMAGES
        for simulator in ["icarus" if name in FOUR_VALUED else "verilator"]
    ],
)
def test_the_gateware_of_images_does_so_too(name: str, simulator: str) -> None:
    numbers, lanes, options = IMAGES[name]
    trained(name, numbers, lanes, 1, simulator, **options)


def test_what_every_tile_makes_alike_counts_once() -> None:
    """The decayed velocity has nothing to do with samples, but the update waits for it: here it is clamped."""
    name = "momentum, rate of no power"
    form = quantized(name, "16").integer.formats["t9"]
    narrow = quantize_workload(workload(name), "16", 20, formats={"t9": replace(form, width=form.width - 6)})
    for lanes, tile in ((1, 1), (3, 3)):
        program = schedule(narrow.integer, lanes, tile=tile, samples=len(workload(name).x))
        assert any(k.batch_level is None for k in program.routine("step").tile.kernels)
        result = simulate(Hardware(narrow, program), workload(name), 4, simulator="amaranth")
        assert result.differences == ()
        assert result.saturations["t9"] > 0


def test_a_word_masks_its_own_error_one_at_a_time_too() -> None:
    """The lanes know the words that they multiply; the slow path, which treats single words otherwise, does not."""
    data = workload_of(dense_model(2, (3, 2), layers.relu), samples=6, rate=0.1)
    hardware = compile_hardware(data, 1, tile=1, calibration_steps=20)
    (masked,) = (k for k in hardware.program.kernels if k.full and k.full.combination.condition == "factor")
    assert masked.lane_level is None
    assert simulate(hardware, data, 2, simulator="amaranth").differences == ()


def test_every_model_is_simulated() -> None:
    assert {*DENSE, *IMAGES} == {*MODELS}


def test_words_that_are_wider_than_parameters_are_combined_whole() -> None:
    """What decays a momentum has 20 bits in ``small``, and parameters 12."""
    program = scheduled("momentum", "small", 3)
    (update,) = (k for k in program.routine("step").tile.kernels if k.name == "update_p0")
    assert update.sum is not None
    (decayed,) = update.sum.combination.operands()
    width = program.banks[program.placements[decayed.array].bank].width
    assert width > max(program.banks[program.placements[p].bank].width for p in program.parameters)
    hardware = Hardware(quantized("momentum", "small"), program)
    assert simulate(hardware, workload("momentum"), 4, simulator="amaranth").differences == ()


def test_a_word_for_all_lanes_keeps_its_bounds() -> None:
    """The derivative of an average pool, whose windows leave rows and columns over, is one word within a window: lanes
    that lie in it side by side with others would all get the word."""
    front = campaign.Front(
        image=(1, 5, 5), channels=3, kernel=(1, 2), stride=1, padding=0, pool="average", size=3, apart=3
    )
    case = replace(campaign.case(0), batch=1, front=front, widths=(6, 5), activation="relu", end="mse")
    model, loss = campaign.model(case)
    data = workload_of(model, samples=3, rate=0.01, weights=1.0, loss=loss)
    integer = quantize_workload(data, "16", 20).integer
    program = schedule(integer, 3, full_path=False)
    check(program)
    machine, reference = Machine(program), Reference(integer)
    reference.load(data.initial_parameters())
    machine.load(reference.parameter_words())
    batch = data.batch(0)
    words = [reference.words_of(n, v) for n, v in zip((*program.inputs, *program.targets), batch, strict=True)]
    reference.step(*words)
    machine.step(*words)
    for found, expected in zip(machine.parameters(), reference.parameter_words(), strict=True):
        np.testing.assert_array_equal(found, expected)
