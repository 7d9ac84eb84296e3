"""Simulated hardware against the integer reference, bit for bit, over machines, number formats, models and data.

The full runs of the built-in workloads are in ``test_train.py``. Amaranth's simulator runs most cases here, as it needs
no tools; cases marked ``simulator`` run the Verilog.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from math import prod

import numpy as np
import pytest
from amaranth.sim import Simulator

from catgrad_hw import Workload, layers, obj
from catgrad_hw.errors import CapacityError, CatgradError, UnsupportedError
from catgrad_hw.gateware.core import Core
from catgrad_hw.gateware.registers import Command, DataMode, Register
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.ir import operations as ops
from catgrad_hw.schedule import layout, scheduler
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.amaranth_bench import AmaranthPins
from catgrad_hw.simulate.driver import Driver
from catgrad_hw.simulate.training import Simulation, flat, sample_words, simulate
from tests import campaign
from tests.small_workloads import array, dense_model, dense_workload, workload_of

BATCH = 5


def needs(simulator):
    lacking = tools.missing(simulator)
    reason = f"{simulator} needs {', '.join(tool.name for tool in lacking)}"
    return [pytest.mark.simulator, pytest.mark.skipif(bool(lacking), reason=reason)]


AMARANTH = "amaranth"
ICARUS = pytest.param("icarus", marks=needs("icarus"))


def trained(workload: Workload, lanes: int, *, steps=3, simulator=AMARANTH, backpressure=None, seed=0, **options):
    """Compile, simulate, and compare every parameter word after every step, every prediction, counter and cycle."""
    hardware = compile_hardware(workload, lanes, **{"calibration_steps": 20, **options})
    result = simulate(hardware, workload, steps, seed=seed, simulator=simulator, backpressure=backpressure)
    assert result.differences == ()
    assert result.mismatches == 0
    assert result.words_compared == steps * sum(int(np.prod(shape)) for shape in workload.parameter_shapes)
    assert result.predictions.shape == workload.y.shape
    assert result.outcome.identity == hardware.identity
    assert result.outcome.steps_done == steps
    predict = hardware.program.routine("predict").period
    if hardware.resident:
        assert result.cycles_per_step == hardware.cycles_per_step
        assert set(result.outcome.step_cycles) == {hardware.cycles_per_step}
    else:
        assert min(result.outcome.step_cycles) >= hardware.cycles_per_step
    assert result.outcome.predict_cycles >= predict
    return hardware, result


# --- machines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 3, 37])
def test_any_number_of_lanes(lanes):
    """Fewer lanes than samples, as many as fit once, and most of them without a sample."""
    trained(dense_workload(7, (3, 4, 2)), lanes, steps=2)


def test_the_most_lanes():
    model = layers.linear(array(130), array(2), array(1))
    trained(workload_of(model, samples=130, rate=0.001), 128, steps=1)


@pytest.mark.parametrize(
    ("numbers", "simulator"),
    [("18", AMARANTH), ("small", AMARANTH), pytest.param("small", "icarus", marks=needs("icarus"))],
)
def test_other_number_formats(numbers, simulator):
    """`small` rounds its updates by keyed draws: the seed matters, and the bits are those of the reference."""
    workload = dense_workload(7, (3, 4, 2))
    hardware, first = trained(workload, 3, numbers=numbers, simulator=simulator, steps=4, seed=1)
    assert hardware.integer.stochastic == (numbers == "small")
    if hardware.integer.stochastic:
        _, second = trained(workload, 3, numbers=numbers, simulator=simulator, steps=4, seed=2)
        assert any((a != b).any() for a, b in zip(first.parameters, second.parameters, strict=True))


@pytest.mark.parametrize("rate", [1e-6, 1e-9])
def test_updates_far_below_a_word(rate):
    """At rates so low, an update's product has fewer bits than are rounded off it by a draw."""
    hardware, _ = trained(dense_workload(3, (3, 2), rate=rate), 2, numbers="small")
    program = hardware.program
    updates = [k.sum.writes[0] for k in program.kernels if k.sum and k.sum.writes[0].update]
    assert max(write.narrowing.shift for write in updates) > program.sum_accumulator


def test_updates_of_words_wider_than_what_is_subtracted():
    """Nothing is summed but updates, all rounded by so much that fewer bits are left than a parameter has."""
    workload = dense_workload(1, (1, 3), samples=3, rate=0.001, optimizer=layers.momentum)
    hardware = compile_hardware(workload, 2, numbers="18", full_path=False, calibration_steps=20)
    result = simulate(hardware, workload, 3, simulator=AMARANTH)
    assert (result.mismatches, result.words_compared) == (0, 3 * 2 * 6)  # parameters and their velocities
    program = hardware.program
    finishes = [write for k in program.kernels if k.sum for write in k.sum.writes if write.update]
    assert all(program.sum_accumulator - write.narrowing.shift < write.narrowing.width for write in finishes)


def test_a_constant_factor_takes_the_shift_of_other_kernels(monkeypatch):
    """That of a bias's update, by which no lane need choose; bits and cycles stay as they are."""
    workload = dense_workload(4, (12, 8, 2), samples=8, rate=2.0**-4)

    def compiled():
        return compile_hardware(workload, 8, calibration_steps=20)

    def rounded(hardware):
        """Factor and shift, by kernel of the full-width path."""
        kernels = [k for k in hardware.program.kernels if k.full]
        return {k.name: (k.a if isinstance(k.a, int) else None, k.full.writes[0].narrowing.shift) for k in kernels}

    hardware = compiled()
    monkeypatch.setattr(scheduler, "fewer_shifts", lambda selections, bits, multiplier: selections)
    before, after = rounded(compiled()), rounded(hardware)
    assert before.pop("d3.p1") == (1, 0)
    assert after.pop("d3.p1") == (1 << 13, 13)
    assert before == after
    assert 13 in {shift for _, shift in after.values()}
    assert hardware.cycles_per_step == compiled().cycles_per_step
    assert simulate(hardware, workload, 2, simulator=AMARANTH).mismatches == 0


@pytest.mark.parametrize(
    ("lanes", "options"),
    [
        (4, {"slow_words": 1}),
        (2, {"tile": 4}),
        (3, {"tile": 3, "slow_words": 1}),
        (2, {"lut_words": {"x": 1, "row16_0": 1}}),
        (2, {"tile": 2, "lut_words": {"partial": 1}, "numbers": "small"}),
        (2, {"block": "late"}),
        (3, {"tile": 3, "block": "late", "full_path": False}),
        (2, {"full_path": False, "slow_words": 1}),
    ],
    ids=str,
)
def test_tiles_slow_paths_and_banks(lanes, options):
    """Tiles of which the last is short, in a batch that no number of lanes here divides."""
    hardware, _ = trained(dense_workload(7, (3, 4, 2)), lanes, **options)
    assert hardware.program.tiles == -(-7 // options.get("tile", 7))


@cache
def bits_of(lanes: int, **options) -> list[bytes]:
    _, result = trained(dense_workload(7, (3, 4, 2)), lanes, steps=2, **options)
    return [parameter.tobytes() for parameter in result.parameters]


def test_bits_do_not_depend_on_the_machine():
    assert bits_of(1) == bits_of(3, slow_words=1) == bits_of(5, slow_words=4) == bits_of(2, tile=4)


@pytest.mark.parametrize("simulator", [AMARANTH, ICARUS])
def test_batches_that_stay_on_chip(simulator):
    workload = dense_workload(4, (3, 2), samples=12)
    hardware, _ = trained(workload, 3, steps=5, simulator=simulator)
    assert hardware.resident
    assert hardware.program.slots == 3


@pytest.mark.parametrize(
    ("kind", "options", "simulator"),
    [
        *((kind, options, AMARANTH) for kind in ("block", "single_port") for options in ({}, {"tile": 2})),
        pytest.param("single_port", {"tile": 2}, "icarus", marks=needs("icarus")),
    ],
    ids=str,
)
def test_batches_that_are_streamed(kind, options, simulator):
    """10 rows in batches of 4 wrap round, through a ring of two tiles, with every stream pausing at random."""
    workload = dense_workload(4, (3, 2), samples=10)
    kinds = {"x": kind, "y": kind}
    hardware, _ = trained(workload, 2, steps=4, simulator=simulator, backpressure=7, bank_kinds=kinds, **options)
    assert not hardware.resident
    assert hardware.program.slots == 2


def test_samples_arrive_while_kernels_write_elsewhere():
    """They enter by the register of the slow path's second word, which most kernels do not write."""
    workload = workload_of(dense_model(12, (1, 5), last=layers.softmax), samples=26, rate=0.01)
    hardware, _ = trained(workload, 4)
    program = hardware.program
    seconds = {k.slow.writes[1].target.array for k in program.kernels if k.slow and len(k.slow.writes) > 1}
    firsts = {k.slow.writes[0].target.array for k in program.kernels if k.slow}
    bank_of = {name: place.bank for name, place in program.placements.items()}
    assert not hardware.resident
    assert bank_of["y"] in {bank_of[name] for name in seconds} - {bank_of[name] for name in firsts}


def test_a_deep_array_of_the_data_set_has_a_bank_of_its_own(monkeypatch):
    """Two slots of samples, of which no kernel writes any; targets lie among the other words."""
    monkeypatch.setattr(layout, "DEEP", 6)
    hardware, _ = trained(dense_workload(4, (3, 2), samples=10), 2, backpressure=3, tile=2)
    places = hardware.program.placements
    found = {name: hardware.program.banks[places[name].bank] for name in ("x", "y")}
    assert not hardware.resident
    assert found["x"].loader
    assert not found["y"].loader


@pytest.mark.parametrize(("lanes", "inputs", "outputs"), [(1, 1, 1), (1, 1, 2), (4, 4, 1), (4, 3, 2), (9, 1, 9)])
@pytest.mark.parametrize("biased", [False, True])
def test_parameters_are_read_right_after_one_of_them_is_taken(lanes, inputs, outputs, biased):
    """A command to read in the cycle in which the first parameter is taken for the second time, or soon after it."""
    layer = layers.dense if biased else layers.linear
    workload = workload_of(layer(array(5), array(inputs), array(outputs)), samples=5, rate=0.25)
    core = Core(compile_hardware(workload, lanes, calibration_steps=5).program)
    count = sum(prod(shape) for shape in workload.parameter_shapes)
    sent = list(range(1, count + 2))

    async def command(ctx, code, after=0):
        """Give a command ``after`` some cycles, and return what is read in a while."""
        found = []
        for cycle in range(after + 60):
            ctx.set(core.bus.write_enable, cycle == after)
            ctx.set(core.bus.address, Register.COMMAND)
            ctx.set(core.bus.write_data, code)
            if ctx.get(core.results.valid):
                found.append(ctx.get(core.results.payload))
            await ctx.tick()
            ctx.set(core.parameters.valid, 0)
        return found

    async def bench(ctx):
        ctx.set(core.results.ready, 1)
        for later in range(3):
            ctx.set(core.parameters.valid, 1)
            for word in sent:
                ctx.set(core.parameters.payload, word)
                while not ctx.get(core.parameters.ready):
                    await ctx.tick()
                if word != sent[-1]:
                    await ctx.tick()
            assert await command(ctx, Command.READ_PARAMETERS, later) == [sent[-1], *sent[1:-1]]
            await command(ctx, Command.REWIND_PARAMETERS)

    simulator = Simulator(core)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("optimizer", [layers.sgd, layers.momentum])
@pytest.mark.parametrize("activation", [layers.relu, layers.sigmoid])
def test_parameters_may_be_loaded_after_steps_and_predictions(activation, optimizer):
    """Whatever ran before, what is loaded is what is read, and what the next step begins with."""
    model = dense_model(4, (3, 4, 2), activation, last=activation)
    workload = workload_of(model, samples=4, rate=0.1, optimizer=optimizer)
    hardware = compile_hardware(workload, 3, calibration_steps=20)
    reference = hardware.reference(0)
    kernels = hardware.integer.kernels
    names = (*kernels.inputs, *kernels.targets)
    x, y = (reference.words_of(name, values) for name, values in zip(names, workload.batch(0), strict=True))
    core = Core(hardware.program)

    async def bench(ctx):
        driver = Driver(AmaranthPins(core, ctx), limit=10_000)
        await driver.reset()
        for seed in range(3):
            reference.load(workload.initial_parameters(seed))
            loaded = flat(reference.parameter_words())
            await driver.send("parameters", loaded)
            assert (await driver.results(Command.READ_PARAMETERS, loaded.size) == loaded).all()
            await driver.command(Command.FORGET_SAMPLES)
            await driver.write(Register.DATA_MODE, DataMode.STREAM)
            reference.step(x, y)
            await driver.run(Command.STEP, 1, [sample_words(x, y)])
            expected = flat(reference.parameter_words())
            assert (expected != loaded).any()
            assert (await driver.results(Command.READ_PARAMETERS, loaded.size) == expected).all()
            await driver.run(Command.PREDICT, 1, [sample_words(x, y)])
            predicted = reference.predict(x).ravel()
            assert (await driver.results(Command.READ_PREDICTIONS, predicted.size) == predicted).all()

    simulator = Simulator(core)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


# --- models -----------------------------------------------------------------------------------------------------------


def linear(inputs, outputs):
    return layers.linear(array(BATCH), array(inputs), array(outputs))


def dense(inputs, outputs):
    return layers.dense(array(BATCH), array(inputs), array(outputs), activation=layers.sigmoid)


def sigmoid(width):
    return layers.sigmoid(obj(array(BATCH, width)))


def constant(kernel):
    """The constant by which a kernel multiplies; 1 where it multiplies arrays."""
    return next((factor for factor in (kernel.a, kernel.b) if isinstance(factor, int)), 1)


MODELS = {
    "a skip": ops.copy(obj(array(BATCH, 3))) >> (dense(3, 3) @ sigmoid(3)) >> ops.add(obj(array(BATCH, 3))),
    "linear, linear": linear(3, 4) >> linear(4, 2),
    "dense, linear": dense(3, 4) >> linear(4, 2),
    "linear, dense": linear(3, 4) >> dense(4, 2),
    "dense without function": layers.dense(array(BATCH), array(3), array(2)),
    "rectified result": layers.dense(array(BATCH), array(3), array(2), activation=layers.relu),
    "function first": sigmoid(3) >> dense(3, 2),
    "function twice": linear(3, 2) >> sigmoid(2) >> sigmoid(2),
    "function twice inside": dense(3, 4) >> sigmoid(4) >> dense(4, 2),
    "one weight": linear(1, 1),
    "one weight and its bias": dense(1, 1),
}


@pytest.mark.parametrize("rate", [0.05, 0.25], ids=["multiplied", "shifted"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name, rate):
    """A learning rate that is a power of two is a shift in the kernel that sums the gradient; others are factors."""
    hardware, _ = trained(workload_of(MODELS[name], samples=BATCH, rate=rate), 2, steps=2)
    step = hardware.program.routine("step")
    factors = [k.name for k in (*step.tile.kernels, *step.final.kernels) if abs(constant(k)).bit_count() > 1]
    assert bool(factors) == (rate == 0.05)


def test_a_learning_rate_is_applied_where_it_costs_least():
    """To the error, where there are fewer of its words than parameters: then updates are fused, too."""
    hardware, _ = trained(dense_workload(3, (6, 5, 1), rate=0.3), 2)
    step = hardware.program.routine("step")
    assert step.final.kernels == ()
    assert [k.batch_level is not None for k in step.tile.kernels if abs(constant(k)).bit_count() > 1] == [True]


REFUSED = {
    "a square": linear(3, 3) >> ops.copy(obj(array(BATCH, 3))) >> ops.multiply(obj(array(BATCH, 3))),
    "a bias for each sample": layers.bias(array(BATCH, 3)),
    "no parameters": sigmoid(3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_hardware_is_refused_in_one_line(name):
    with pytest.raises(UnsupportedError, match=r"^(kernel \w+|hardware): .*expect") as refused:
        compile_hardware(workload_of(REFUSED[name], samples=BATCH), 2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, "lanes: expected 1 to 128, found 0"),
        ({"lanes": 2, "tile": 3}, "tile: expected the batch .5. or a smaller multiple of the 2 lanes, found 3"),
        ({"lanes": 2, "slow_words": 3}, "slow path: expected 1 to 2 words per cycle, found 3"),
        ({"lanes": 2, "bank_kinds": {"row16_0": "single_port"}}, "row16_0 reads and writes in one cycle"),
        ({"lanes": 2, "numbers": "17"}, "numbers: expected one of 16, 18, small, found '17'"),
    ],
)
def test_machines_out_of_range_are_refused(options, message):
    with pytest.raises(CatgradError, match=message):
        compile_hardware(dense_workload(BATCH, (3, 2)), **options)


def test_a_full_data_set_is_no_longer_resident():
    small, large = dense_workload(4, (3, 2), samples=8), dense_workload(4, (3, 2), samples=20_000)
    assert compile_hardware(small, 2, calibration_steps=1).resident
    assert not compile_hardware(large, 2, calibration_steps=1).resident
    with pytest.raises(CapacityError):
        compile_hardware(small, 129)


# --- numbers at their limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "simulator"),
    [("16", AMARANTH), ("small", AMARANTH), pytest.param("16", "icarus", marks=needs("icarus"))],
)
def test_saturation_is_counted_as_in_the_reference(numbers, simulator):
    """Calibrated on mild weights, then started from weights at both ends of their format."""
    mild = dense_workload(6, (3, 4, 2), rate=1.0)
    hardware = compile_hardware(mild, 4, numbers=numbers, calibration_steps=20)
    wild = [np.where(np.indices(p.shape).sum(axis=0) % 3, 99.0, -99.0) for p in mild.initial_parameters()]
    workload = Workload(mild.model, mild.optimizer, mild.loss, mild.x, mild.y, parameters=wild)
    result = simulate(hardware, workload, 4, simulator=simulator)
    assert result.differences == ()
    assert result.mismatches == 0
    assert sum(count > 0 for count in result.saturations.values()) >= 2
    assert any(name.endswith(".z") and count for name, count in result.saturations.items())


# --- random networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_on_random_machines(seed):
    chosen = campaign.case(seed)
    _, hardware, simulation = campaign.run(chosen, AMARANTH)
    assert campaign.faults(hardware, simulation) == [], chosen


def test_the_campaign_reports_what_it_did():
    command = [sys.executable, "-m", "tests.campaign", "--first", "7", "--count", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "1 cases, 0 faults\n"


# --- negative control: the comparison sees one wrong operator ---------------------------------------------------------


@cache
def small_design() -> tuple[Workload, Hardware]:
    workload = workload_of(dense_model(6, (3, 4, 2)), samples=6, scale=8.0, weights=3.0, rate=1.0)
    return workload, compile_hardware(workload, 4, calibration_steps=20)


def in_module(text: str, module: str, pattern: str, replacement: str) -> str:
    """``text`` with the first match of ``pattern`` inside a Verilog module replaced."""
    start = text.index(f"module {module} ")
    end = text.index("endmodule", start)
    body, count = re.subn(pattern, replacement, text[start:end], count=1)
    assert count == 1, f"{module}: no {pattern}"
    return text[:start] + body + text[end:]


MUTATIONS = {
    "an adder of the tree subtracts": (r"\core.product_tree", r" \+ ", " - "),
    "a bias is subtracted": (r"\core.slow_path", r"(\$signed\(row_0\)) \+ ", r"\1 - "),
    "the rounding of the full-width path adds nothing": (r"\core.full_path", r"\$signed\(2'h1\)", "$signed(2'h0)"),
    "a saturation forgets large positive words": (r"\core.slow_path", r"= \| (narrow_0\[)", r"= & \1"),
    "an update adds": (r"\core.sum_path", r"(\$signed\(old\)) - ", r"\1 + "),
    "a product is a sum": (r"\core.lane_1.multiplier", r" \* ", " + "),
}


def mutated(name: str) -> Simulation:
    workload, hardware = small_design()
    module, pattern, replacement = MUTATIONS[name]
    text = in_module(hardware.verilog(), module, pattern, replacement)
    return simulate_text(workload, hardware, text)


def simulate_text(workload, hardware, text) -> Simulation:
    class Changed:
        """The hardware, with other Verilog."""

        def __getattr__(self, name):
            return getattr(hardware, name)

        def verilog(self):
            return text

    return simulate(Changed(), workload, 4, simulator="icarus")


@pytest.mark.parametrize("simulator", [ICARUS])
def test_the_unchanged_design_agrees(simulator):
    workload, hardware = small_design()
    assert simulate_text(workload, hardware, hardware.verilog()).mismatches == 0


@pytest.mark.parametrize("simulator", [ICARUS])
@pytest.mark.parametrize("name", MUTATIONS)
def test_one_changed_operator_is_seen(name, simulator):
    result = mutated(name)
    assert result.mismatches > 0
    assert result.differences
