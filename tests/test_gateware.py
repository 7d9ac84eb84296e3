"""The components one by one, in Amaranth's simulator, against the integer reference's arithmetic and plain loops."""

from __future__ import annotations

import itertools
import random
from collections import deque
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Elaboratable, Module, Signal, signed
from amaranth.sim import Simulator
from layouts import along_features, location, locations, packed
from small_workloads import dense_workload

from catgrad_hw.gateware.arithmetic import narrowed, rounded, saturated, saturated_for
from catgrad_hw.gateware.bank import BankMemory
from catgrad_hw.gateware.combine import BoostedShift, Combiner, boosted_shifts, positive
from catgrad_hw.gateware.counters import Counters
from catgrad_hw.gateware.lanes import Lane, Multiplier, SumAccumulator, Tree
from catgrad_hw.gateware.loader import ParameterLoader, SampleLoader
from catgrad_hw.gateware.reader import Reader
from catgrad_hw.gateware.registers import READ_CYCLES
from catgrad_hw.gateware.sequencer import Sequencer
from catgrad_hw.gateware.slow_path import TableRead
from catgrad_hw.gateware.states import States
from catgrad_hw.gateware.stream import AddressStream, RampStream
from catgrad_hw.gateware.sum_path import Draw
from catgrad_hw.gateware.tag import Choice, Edge, TagLayout, partial_lanes
from catgrad_hw.gateware.walk import Walk
from catgrad_hw.numbers.formats import POLICIES
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.rounding import draw, limits, round_nearest, saturate
from catgrad_hw.numbers.tables import lookup, sigmoid_derivative_table, sigmoid_table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.check import instances
from catgrad_hw.schedule.events import events
from catgrad_hw.schedule.program import (
    Bank,
    Combination,
    MachineKernel,
    Operand,
    Phase,
    Placement,
    Ramp,
    Routine,
)
from catgrad_hw.schedule.scheduler import schedule


def simulate(design, bench):
    """Run ``bench`` on a clocked design."""
    clocked = Module()
    clocked.domains.sync = ClockDomain()
    clocked.submodules.design = design
    simulator = Simulator(clocked)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


def evaluate(module, inputs, output, rows):
    """The values of ``output`` for each row of values of ``inputs``, in a design without registers."""
    found = []

    async def bench(ctx):
        for row in rows:
            for signal, value in zip(inputs, row, strict=True):
                ctx.set(signal, value)
            await ctx.delay(1e-9)
            found.append(tuple(ctx.get(signal) for signal in output))

    simulator = Simulator(module)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(found, dtype=np.int64)


def words(width):
    """All words of ``width`` bits."""
    low, high = limits(width)
    return np.arange(low, high + 1, dtype=np.int64)


# --- rounding and saturation ------------------------------------------------------------------------------------------


def round_reference(value, shift):
    return round_nearest(value, shift) if shift >= 0 else value << -shift


@pytest.mark.parametrize(
    "shifts", [{0: 0}, {0: 3}, {0: 1, 1: 7, 2: 8}, {0: -2, 1: 0, 2: 4}, {0: -3}, {0: 2, 1: 2, 2: 5, 3: 11}]
)
def test_rounding_of_every_word_by_every_kernel(shifts):
    m = Module()
    value, kernel = Signal(signed(8)), Signal(2)
    result = rounded(m, value, Choice(m, kernel, shifts, "shift", delay=0), "r")
    values = words(8)
    for number, shift in shifts.items():
        found = evaluate(m, (value, kernel), (result,), [(v, number) for v in values.tolist()])[:, 0]
        np.testing.assert_array_equal(found, round_reference(values, shift))


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_rounding_is_unbiased_but_for_halves_which_go_up(shift):
    m = Module()
    value = Signal(signed(9))
    result = rounded(m, value, Choice(m, Signal(), {0: shift}, "shift", delay=0), "r")
    values = words(9)
    errors = evaluate(m, (value,), (result,), values[:, None].tolist())[:, 0] - values / 2**shift
    assert errors.max() == 0.5
    assert errors.min() > -0.5
    # Errors cancel but for the ties, one word in 2**shift, which are off by a half each.
    assert errors.mean() == 0.5 / 2**shift
    ties = {int(v): r for v, r in zip(values, errors, strict=True) if abs(r) == 0.5}
    assert set(ties.values()) == {0.5}
    assert min(ties) < 0 < max(ties)


@pytest.mark.parametrize("width", [1, 4, 7, 8, 12])
def test_saturation_of_every_word(width):
    m = Module()
    value = Signal(signed(8))
    result, clamped = saturated(m, value, width, "s")
    values = words(8)
    flag = Signal()
    m.d.comb += flag.eq(clamped)
    found = evaluate(m, (value,), (result, flag), values[:, None].tolist())
    np.testing.assert_array_equal(found[:, 0], saturate(values, width))
    np.testing.assert_array_equal(found[:, 1], saturate(values, width) != values)


def test_saturation_to_the_width_of_the_kernel():
    m = Module()
    value, kernel, flag = Signal(signed(9)), Signal(2), Signal()
    widths = {0: 4, 1: 8, 3: 4}
    chosen, clamped = saturated_for(m, value, Choice(m, kernel, widths, "width", delay=0), "s")
    result = Signal(signed(8))
    m.d.comb += [result.eq(chosen), flag.eq(clamped)]
    values = words(9)
    for number, width in widths.items():
        found = evaluate(m, (value, kernel), (result, flag), [(v, number) for v in values.tolist()])
        np.testing.assert_array_equal(found[:, 0], saturate(values, width))
        np.testing.assert_array_equal(found[:, 1], saturate(values, width) != values)


@pytest.mark.parametrize("widths", [{0: 4, 1: 4, 2: 4, 3: 4}, {0: 3, 1: 8, 2: 5, 3: 1}, {0: 12, 1: 12, 2: 12, 3: 12}])
@pytest.mark.parametrize("shifts", [{0: 0}, {0: 3}, {0: 1, 1: 7, 2: 8}, {0: -2, 1: 0, 2: 4}, {0: 2, 1: 2, 2: 5, 3: 11}])
def test_narrowing_of_every_word_is_rounding_and_saturation(shifts, widths):
    m = Module()
    value, kernel, flag = Signal(signed(8)), Signal(2), Signal()
    shift, width = (Choice(m, kernel, values, name, delay=0) for values, name in ((shifts, "shift"), (widths, "width")))
    result, clamped = narrowed(m, value, shift, width, "n")
    m.d.comb += flag.eq(clamped)
    values = words(8)
    for number, by in shifts.items():
        found = evaluate(m, (value, kernel), (result, flag), [(v, number) for v in values.tolist()])
        exact = round_reference(values, by)
        np.testing.assert_array_equal(found[:, 0], saturate(exact, widths[number]))
        np.testing.assert_array_equal(found[:, 1], saturate(exact, widths[number]) != exact)


# --- states -----------------------------------------------------------------------------------------------------------


def test_one_state_is_high_at_a_time_and_leads_to_what_follows():
    m = Module()
    states = States("IDLE", "GOES", "WAITS", "ENDS")
    start, cut = Signal(), Signal()
    states.go("IDLE", "GOES", start)
    states.go("GOES", "WAITS")
    states.go("WAITS", "ENDS", cut)
    states.go("WAITS", "IDLE", ~cut & start)
    states.go("ENDS", "IDLE")
    states.build(m)
    busy = Signal()
    m.d.comb += busy.eq(states.among("GOES", "WAITS"))
    expected = ["IDLE", "IDLE", "GOES", "WAITS", "WAITS", "IDLE", "GOES", "WAITS", "ENDS", "IDLE"]
    inputs = [(0, 1), (1, 0), (0, 0), (0, 0), (1, 0), (1, 1), (0, 0), (1, 1), (0, 0), (0, 0)]

    async def bench(ctx):
        for name, (starts, cuts) in zip(expected, inputs, strict=True):
            ctx.set(start, starts)
            ctx.set(cut, cuts)
            assert [n for n, state in states.at.items() if ctx.get(state)] == [name]
            assert ctx.get(busy) == (name in ("GOES", "WAITS"))
            await ctx.tick()

    simulate(m, bench)


# --- tables and draws -------------------------------------------------------------------------------------------------


def pipelined(design, drive, observe, rows, latency):
    """Feed one row a cycle; what ``observe`` gives ``latency`` cycles later."""
    found = []

    async def bench(ctx):
        for row in itertools.chain(rows, [None] * latency):
            if row is not None:
                drive(ctx, row)
            await ctx.delay(1e-9)
            found.append(observe(ctx))
            await ctx.tick()

    simulate(design, bench)
    return np.array(found[latency:], dtype=np.int64)


@pytest.mark.parametrize("kind", [sigmoid_table, sigmoid_derivative_table], ids=["sigmoid", "derivative"])
@pytest.mark.parametrize("name", POLICIES)
def test_tables_answer_as_the_reference(name, kind):
    """Every word of up to 16 bits; of wider ones all around the places where the index changes, and the extremes."""
    policy = POLICIES[name]
    result = policy.sigmoid if kind is sigmoid_table else policy.sigmoid_derivative
    table = kind("f", policy.preactivation, result)
    z = words(table.input_width)
    if table.input_width > 16:
        step = 1 << table.index_shift
        near = np.isin((np.abs(z) + step // 2) % step, [step - 1, 0, 1])
        z = z[near | (np.abs(z) >= z[-1] - step) | (np.abs(z) <= step)]
    component = TableRead([table])
    found = pipelined(
        component, lambda ctx, v: ctx.set(component.z, v), lambda ctx: ctx.get(component.value_0), z.tolist(), 3
    )
    np.testing.assert_array_equal(found, lookup(table, z))


def test_draws_are_the_references():
    generator = np.random.default_rng(1)
    keys, indices = generator.integers(1 << 32, size=1 << 12), generator.integers(1 << 20, size=1 << 12)
    component = Draw()

    def drive(ctx, row):
        ctx.set(component.key, row[0])
        ctx.set(component.index, row[1])

    rows = list(zip(keys.tolist(), indices.tolist(), strict=True))
    found = pipelined(component, drive, lambda ctx: ctx.get(component.value), rows, component.latency)
    np.testing.assert_array_equal(found, [int(draw(key, np.array(index))) for key, index in rows])


# --- lanes and tree ---------------------------------------------------------------------------------------------------


def test_products_of_all_small_words_and_of_the_extremes():
    component = Multiplier(16)
    extremes = [-32768, -32767, -1, 0, 1, 32767]
    rows = [*itertools.product(range(-8, 8), repeat=2), *itertools.product(extremes, repeat=2)]

    def drive(ctx, row):
        ctx.set(component.a, row[0])
        ctx.set(component.b, row[1])

    found = pipelined(component, drive, lambda ctx: ctx.get(component.product), rows, component.latency)
    np.testing.assert_array_equal(found, [a * b for a, b in rows])


@pytest.mark.parametrize("bits", [33, 40])
def test_lane_accumulates_modulo_its_width(bits):
    component = Lane(16, bits)
    generator = random.Random(bits)
    rows = [
        (generator.choice([-32768, 32767, generator.randrange(-999, 999)]), generator.randrange(-32768, 32768))
        for _ in range(300)
    ]
    flags = [(generator.random() < 0.8, generator.random() < 0.1) for _ in rows]
    flags[0] = (True, True)
    expected, total = [], 0
    for (a, b), (accumulate, first) in zip(rows, flags, strict=True):
        if accumulate:
            total = a * b + (0 if first else total)
            total = (total + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
        expected.append(total)
    # The flags belong to the product, two cycles behind its operands.
    late = [(False, False)] * 2 + flags

    def drive(ctx, row):
        ctx.set(component.a, row[0][0])
        ctx.set(component.b, row[0][1])
        ctx.set(component.accumulate, row[1][0])
        ctx.set(component.first, row[1][1])

    driven = zip([*rows, (0, 0), (0, 0)], late, strict=True)
    found = pipelined(component, drive, lambda ctx: ctx.get(component.total), list(driven), 1)
    np.testing.assert_array_equal(found[2:], expected)


@pytest.mark.parametrize("index_bits", [0, 4])
def test_lane_picks_the_greatest_of_each_run_and_the_first_of_equals(index_bits):
    """Runs of words of all signs, of few values so that many are equal, with pauses, and sums of products between."""
    component = Lane(8, 20, picks=True, index_bits=index_bits)
    generator = random.Random(index_bits)
    rows, expected = [], []
    total = place = 0
    for run in range(60):
        picks = run == 0 or generator.random() < 0.7
        values = generator.choice([range(-128, 128), [-128, -127, -1], [-1, 0, 1], [126, 127], [5]])
        for index in range(generator.randrange(1, 12)):
            while generator.random() < 0.2:
                rows.append((7, 1, 0, 1, picks, 0))
                expected.append((total, place))
            word, factor = generator.choice(list(values)), 1 if picks else generator.randrange(-128, 128)
            rows.append((word, factor, 1, index == 0, picks, index))
            if picks:
                if index == 0 or word > total:
                    total, place = word, index
            else:
                total = word * factor + (0 if index == 0 else total)
                place = 0 if index == 0 else place
            expected.append((total, place))
    # What belongs to the product is two cycles behind the operands.
    driven = zip([*rows, rows[0], rows[0]], [(0, 0, 0, 0, 0, 0)] * 2 + rows, strict=True)

    def drive(ctx, row):
        (a, b, *_), (*_, accumulate, first, picks, index) = row
        for signal, value in zip(
            ("a", "b", "accumulate", "first", "picks"), (a, b, accumulate, first, picks), strict=True
        ):
            ctx.set(getattr(component, signal), value)
        if index_bits:
            ctx.set(component.index, index)

    def observe(ctx):
        return ctx.get(component.total), ctx.get(component.place) if index_bits else 0

    found = pipelined(component, drive, observe, list(driven), 1)[2:]
    np.testing.assert_array_equal(found[:, 0], [total for total, _ in expected])
    if index_bits:
        picked = [i for i, row in enumerate(rows) if row[4]]
        np.testing.assert_array_equal(found[picked, 1], [expected[i][1] for i in picked])


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8])
def test_tree_sums_a_row_a_cycle(lanes):
    component = Tree(lanes, 10)
    assert component.latency == timing.tree_levels(lanes)
    rows = np.random.default_rng(lanes).integers(-512, 512, (100, lanes))
    rows[:2] = [[-512] * lanes, [511] * lanes]

    def drive(ctx, row):
        for lane, word in enumerate(row):
            ctx.set(component.words[lane], word)

    found = pipelined(component, drive, lambda ctx: ctx.get(component.sum), rows.tolist(), component.latency)
    np.testing.assert_array_equal(found, rows.sum(axis=1))


def test_sum_accumulator_starts_over_at_first():
    component = SumAccumulator(12, 14)
    generator = random.Random(5)
    rows = [(generator.randrange(-2048, 2048), generator.random() < 0.7, generator.random() < 0.2) for _ in range(200)]
    rows[0] = (7, True, True)
    expected, total = [], 0
    for word, accumulate, first in rows:
        if accumulate:
            total = (word + (0 if first else total) + (1 << 13)) % (1 << 14) - (1 << 13)
        expected.append(total)

    def drive(ctx, row):
        word, accumulate, first = row
        ctx.set(component.word, word * accumulate)
        ctx.set(component.first, first and accumulate)

    found = pipelined(component, drive, lambda ctx: ctx.get(component.total), rows, 1)
    np.testing.assert_array_equal(found, expected)


# --- combinations -----------------------------------------------------------------------------------------------------

STREAM = Operand("any", True, 0, (), 0, ())
WORD = replace(STREAM, row=False)

COMBINATIONS = {
    "alone": Combination(),
    "added": Combination("add", STREAM, 2),
    "added word": Combination("add", WORD),
    "subtracted": Combination("subtract", STREAM, 1),
    "subtracted, masked": Combination("subtract", STREAM, 0, "factor"),
    "masked": Combination(condition=WORD),
    "masked by itself": Combination(condition="reduced"),
    "replaced": Combination("replace", STREAM, 3),
    "replaced where here": Combination("replace", WORD, 0, STREAM, Ramp(0, ())),
    "selected": Combination("select", STREAM, 1, STREAM),
    "selected by itself": Combination("select", WORD, 0, "reduced"),
    "selected factor": Combination("select", "factor", 4, "factor"),
    "here": Combination(position=Ramp(0, ())),
}


def combined_by_definition(combination, total, others, conditions, place):
    """(value, whether it counts) of a reduced value, for words by their source, by :class:`Combination`."""

    def source(operand):
        return operand if isinstance(operand, str) else "row" if operand.row else "word"

    other = 0 if combination.other is None else others[source(combination.other)] << combination.shift
    holds = combination.condition is None or conditions[source(combination.condition)] > 0
    chosen = other if holds else total
    values = {"alone": total, "add": total + other, "subtract": total - other, "replace": other, "select": chosen}
    counts = (holds or combination.kind == "select") and (combination.position is None or total == place)
    return values[combination.kind], int(counts)


@pytest.mark.parametrize("names", [*((name,) for name in COMBINATIONS), tuple(COMBINATIONS)], ids=" or ".join)
def test_combinations_by_their_definition(names):
    """Each alone, and all in one machine, from one cycle to the next."""
    combinations = {i: COMBINATIONS[name] for i, name in enumerate(names)}
    generator = random.Random(len(names))
    kernel, result, counts = Signal(range(len(names) + 1)), Signal(signed(24)), Signal()
    ports = {name: Signal(signed(6), name=name) for name in ("row", "word", "factor", "if_row", "if_word", "place")}
    ports["total"] = total = Signal(signed(10))  # holds what is added to, too

    class Design(Elaboratable):
        def elaborate(self, platform):
            m = Module()
            combiner = Combiner(m, kernel, combinations, ports["place"])
            conditions = {"row": ports["if_row"], "word": ports["if_word"], "factor": ports["factor"], "reduced": total}
            bits = {name: positive(word) for name, word in conditions.items()}
            value, counting, _ = combiner.lane(m, total, ports, bits, "lane")
            m.d.comb += [result.eq(value), counts.eq(counting)]
            return m

    found, expected = [], []

    async def bench(ctx):
        for _ in range(400):
            number = generator.randrange(len(names))
            words = {name: generator.choice([-32, -1, 0, 1, 31, generator.randrange(-32, 32)]) for name in ports}
            words["total"] = generator.choice([-384, 384, words["place"], generator.randrange(-40, 40)])
            ctx.set(kernel, number)  # in the cycle before the words
            await ctx.tick()
            for name, word in words.items():
                ctx.set(ports[name], word)
            await ctx.delay(1e-9)
            found.append((ctx.get(result), ctx.get(counts)))
            conditions = {"row": words["if_row"], "word": words["if_word"], "factor": words["factor"],
                          "reduced": words["total"]}  # fmt: skip
            expected.append(
                combined_by_definition(combinations[number], words["total"], words, conditions, words["place"])
            )

    simulate(Design(), bench)
    assert found == expected
    assert len(set(found)) > 20


@pytest.mark.parametrize(
    "kernels",
    [
        ((3, 0, False), (1, 0, True)),
        ((3, 2, True), (4, -2, True)),
        ((2, 5, False), (5, 0, False), (2, -1, False), (7, 3, True)),
    ],
)
def test_every_word_boosted_and_rounded_by_every_kernel(kernels):
    """Of each kernel (shift, boost, whether the value's own sign decides): the value times a power of two, rounded."""
    m = Module()
    value, condition, kernel = Signal(signed(8)), Signal(), Signal(2)
    combinations = {i: Combination(rectified=own, boost=boost) for i, (_, boost, own) in enumerate(kernels)}
    shifts = {i: shift for i, (shift, _, _) in enumerate(kernels)}
    choice = Choice(m, kernel, boosted_shifts(shifts, combinations), "shift", delay=0)
    result = rounded(m, value, BoostedShift(choice, value, condition), "r")
    values = words(8)
    for (number, (shift, boost, own)), condition_holds in itertools.product(enumerate(kernels), (0, 1)):
        rows = [(v, condition_holds, number) for v in values.tolist()]
        found = evaluate(m, (value, condition, kernel), (result,), rows)[:, 0]
        holds = values > 0 if own else np.full(values.shape, bool(condition_holds))
        boosted = np.where(holds, values << max(boost, 0), values << max(-boost, 0))
        np.testing.assert_array_equal(found, round_reference(boosted, shift))


# --- memories ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "lut_words", "depth"), [(1, 0, 11), (3, 0, 11), (5, 2, 11), (3, 3, 11), (3, 2, 1)])
@pytest.mark.parametrize("kind", ["block", "late", "single_port"])
def test_banks_keep_words_and_obey_their_enables(kind, count, lut_words, depth):
    width = 5
    component = BankMemory(Bank("b", count, width, depth, kind, lut_words=lut_words))
    generator = random.Random(count)
    contents = [[0] * count for _ in range(depth)]
    expected = {}
    found = []

    async def bench(ctx):
        read = None
        for cycle in range(800):
            write, read, before = generator.randrange(depth), generator.randrange(depth), read
            enables = generator.choice([0, generator.randrange(1 << count)])
            if kind == "late" and write == before:
                enables = 0  # the memory reads this row now
            row = [generator.randrange(1 << width) for _ in range(count)]
            if enables and kind == "single_port":
                read = None  # the write has the port
            elif enables and read == write:
                read = (write + 1) % depth if depth > 1 else None
            if read is not None:
                ctx.set(component.read_address, read)
                expected[cycle + 2] = [*contents[read]]
            else:
                ctx.set(component.read_address, generator.randrange(depth))
            ctx.set(component.write_address, write)
            ctx.set(component.write_data, sum(word << (i * width) for i, word in enumerate(row)))
            ctx.set(component.write_enable, enables)
            for i in range(count):
                if enables >> i & 1:
                    contents[write][i] = row[i]
            data = ctx.get(component.read_data)
            found.append([data >> (i * width) & (1 << width) - 1 for i in range(count)])
            await ctx.tick()

    simulate(component, bench)
    for cycle, row in expected.items():
        if cycle < len(found):
            assert found[cycle] == row, cycle


@pytest.mark.parametrize("most", [(1,), (1, 3, 8), (1, 1, 2, 4, 0, 64, 1, 5)])
def test_counters_count_what_is_added_since_they_were_cleared(most):
    """Each may count in every cycle, whatever is read meanwhile; once settled, every value is exact."""
    component = Counters(most)
    generator = random.Random(len(most))
    exact, settled = [0] * len(most), []
    recent = deque([tuple(exact)], maxlen=8 + READ_CYCLES)  # a value that is read may be so old

    async def tick(ctx, busy):
        recent.append(tuple(exact))
        for i, limit in enumerate(most):
            add, clear = generator.choice([0, limit, limit]) * busy, busy and generator.random() < 0.002
            ctx.set(getattr(component, f"add_{i}"), add)
            ctx.set(getattr(component, f"clear_{i}"), clear)
            exact[i] = 0 if clear else exact[i] + add
        await ctx.tick()

    async def bench(ctx):
        for _ in range(4):
            for _ in range(500):
                index = generator.randrange(len(most))
                ctx.set(component.select, generator.random() < 0.9)
                ctx.set(component.address, index)
                ctx.set(component.other, 12345)
                for _ in range(READ_CYCLES):
                    await tick(ctx, True)
                selected, value = ctx.get(component.select), ctx.get(component.value)
                limit = 12345 if not selected else max(values[index] for values in recent)
                assert value <= limit
                assert selected or value == limit
                await tick(ctx, True)
            for _ in range(component.settling):
                await tick(ctx, False)
            ctx.set(component.select, 1)
            for index in generator.sample(range(len(most)), len(most)):
                ctx.set(component.address, index)
                for _ in range(READ_CYCLES):
                    await tick(ctx, False)
                settled.append((ctx.get(component.value), exact[index]))
                await tick(ctx, False)
                settled.append((ctx.get(component.value), exact[index]))

    simulate(component, bench)
    assert all(found == expected for found, expected in settled)
    assert max(expected for _, expected in settled) > 100


# --- programs, for what runs them -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def integer():
    return quantize_workload(dense_workload(13, (3, 5, 2)), calibration_steps=20).integer


@pytest.fixture(scope="module")
def rowless():
    """A program of one sample a step, whose loops over samples can't fill the lanes."""
    return quantize_workload(dense_workload(1, (7, 5, 6), samples=4), calibration_steps=20).integer


def random_operand(generator, array, kind, trips, lanes):
    """A random stream over a nest, and the shape (elements, length) of an array that holds what it addresses."""

    def affine(smallest, largest):
        """Random strides over the nest; their lowest and highest sum."""
        strides = tuple(generator.randrange(smallest, largest) for _ in trips)
        ends = [stride * (trip - 1) for stride, trip in zip(strides, trips, strict=True)]
        return strides, sum(min(0, end) for end in ends), sum(max(0, end) for end in ends)

    strides, lowest, highest = affine(-3, 7)
    base = -lowest + generator.randrange(3)
    elements = base + highest + 1 + generator.randrange(2)
    steps, position, length = (0,) * len(trips), 0, 1
    if kind == "word":
        steps, lowest, highest = affine(-2 * lanes, 2 * lanes)
        position = -lowest + generator.randrange(2 * lanes)
        length = position + highest + 1 + generator.randrange(lanes)
    if kind == "row":  # the strides may cross groups of rows
        length = generator.randrange(1, 3 * lanes)
        elements = -(-elements // -(-length // lanes))
    return Operand(array, kind == "row", base, strides, position, steps), elements, length


def random_nests(program, lanes, seed):
    """``program`` with three kernels of random nests, and the streams of three arrays that they address.

    ``x`` lies in slots, ``yhat`` in tiles; each is packed along an axis, and addressed by words or by rows, or isn't.
    """
    generator = random.Random(f"{seed} {lanes}")
    kernels, operands, placements = [], {}, {}
    depths = {"data": 5, "weights": 7}
    deepest = generator.randrange(1, 5)
    for number, (array, bank, slots) in enumerate((("x", "data", 3), ("w", "weights", 1), ("yhat", "weights", 2))):
        levels = deepest if number == 0 else generator.randrange(1, deepest + 1)
        trips = tuple(generator.randrange(1, 5) for _ in range(levels))
        kind = generator.choice(["word", "word", "unpacked", "row"])
        operand, elements, length = random_operand(generator, array, kind, trips, lanes)
        operands[number] = operand
        axis, shape = (None, (elements,)) if kind == "unpacked" else (1, (elements, length))
        slot_rows = elements * -(-length // lanes)
        placements[array] = Placement(array, bank, depths[bank], elements, axis, length, shape, slots, slot_rows)
        depths[bank] += slots * slot_rows
        kernels.append(
            MachineKernel(f"k{number}", trips, "sum", 0, 0, operand, 0, 1, 0, None, None, None, None, None, 1)
        )
    banks = {name: Bank(name, lanes, 16, depth) for name, depth in depths.items()}
    routine = Routine("step", Phase(tuple(kernels), (0, 0, 0)), Phase((), ()), 2, 0, 0, 0)
    program = replace(
        program, batch=2 * lanes, tile=lanes, lanes=lanes, banks=banks, placements=placements, routines=(routine,),
        inputs=("x",), outputs=("yhat",), parameters=("w",), targets=(),
    )  # fmt: skip
    return program, operands


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("seed", range(8))
def test_addresses_are_affine_in_the_loop_indices(integer, lanes, seed):
    program, operands = random_nests(schedule(integer, lanes, samples=13), lanes, seed)
    component = AddressStream(program, operands)
    start = TagLayout(program).start
    generator = random.Random(seed)
    wrong = []
    due = [None] * (timing.ADDRESS - 1)
    coming = 0 if len(component.banks) > 1 else 1  # a bit for each bank, as those of ``active``

    async def tick(ctx, trigger, expected=None):
        """One cycle; what was expected of the trigger before is due."""
        nonlocal coming
        ctx.set(component.trigger, trigger)
        await ctx.tick()
        due.append(expected)
        wanted, following = due.pop(0), due[0]
        bank, active = component.banks[ctx.get(component.bank)], ctx.get(component.active)
        found = (bank, ctx.get(component.row), ctx.get(component.lane)) if active else None
        if active and active != 1 << component.banks.index(bank):
            wrong.append((active, bank))
        if found != wanted:
            wrong.append((found, wanted))
        if following is not None:
            coming = 1 << component.banks.index(following[0])
        if ctx.get(component.coming) != coming:
            wrong.append((ctx.get(component.coming), coming))

    async def bench(ctx):
        for number, slot, tile in itertools.product(operands, range(3), range(2)):
            kernel, operand = program.kernels[number], operands[number]
            place = program.placements[operand.array]
            copy = {"x": slot, "w": 0, "yhat": tile}[operand.array]
            before = None
            for index in itertools.product(*map(range, kernel.trips)):
                changed = [i for i, _ in enumerate(index) if before is not None and index[i] != before[i]]
                level = kernel.levels - 1 - changed[0] if changed else start
                while generator.random() < 0.3:
                    await tick(ctx, 0)
                inputs = {"kernel": number, "level": level, "slot": slot, "first_tile": tile == 0}
                for signal, value in inputs.items():
                    ctx.set(getattr(component, signal), value)
                position = operand.position + sum(i * s for i, s in zip(index, operand.steps, strict=True))
                row = place.base + copy * place.slot_rows + operand.base
                row += sum(i * s for i, s in zip(index, operand.strides, strict=True))
                await tick(ctx, 1, (place.bank, row + position // lanes * place.elements, position % lanes))
                before = index
        for _ in range(timing.ADDRESS):
            await tick(ctx, 0)

    simulate(component, bench)
    assert not wrong, wrong[0]


@pytest.mark.parametrize("seed", range(8))
def test_ramps_are_affine_in_the_loop_indices(integer, seed):
    """Numbers of either sign, there with the address of the same trigger, and kept until the next; kernels that have
    none trigger nothing."""
    program, _ = random_nests(schedule(integer, 2, samples=13), 2, seed)
    generator = random.Random(seed)
    ramps = {
        number: Ramp(generator.randrange(-20, 20), tuple(generator.randrange(-9, 10) for _ in kernel.trips))
        for number, kernel in enumerate(program.kernels[:2])
    }
    component = RampStream(program, ramps)
    start = TagLayout(program).start
    wrong = []
    due = [None] * (timing.ADDRESS - 1)

    async def tick(ctx, trigger, expected):
        ctx.set(component.trigger, trigger)
        await ctx.tick()
        due.append(expected)
        wanted = due.pop(0)
        if wanted is not None and ctx.get(component.value) != wanted:
            wrong.append((ctx.get(component.value), wanted))

    async def bench(ctx):
        last = None
        for number in (0, 1, 2, 1, 0, 2):
            kernel, before = program.kernels[number], None
            for index in itertools.product(*map(range, kernel.trips)):
                changed = [i for i, _ in enumerate(index) if before is not None and index[i] != before[i]]
                while generator.random() < 0.3:
                    await tick(ctx, 0, last)
                ctx.set(component.kernel, number)
                ctx.set(component.level, kernel.levels - 1 - changed[0] if changed else start)
                if number in ramps:
                    strides = ramps[number].strides
                    last = ramps[number].offset + sum(i * s for i, s in zip(index, strides, strict=True))
                await tick(ctx, 1, last)
                before = index
        for _ in range(timing.ADDRESS):
            await tick(ctx, 0, last)

    simulate(component, bench)
    assert not wrong, wrong[0]


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_walks_go_through_arrays_in_flat_order(integer, lanes, seed):
    """Arrays of any shape, in any banks, packed along any axis or not; with restarts, and from any origin."""
    generator = random.Random(f"{seed} {lanes}")
    banks = {"rows": 3, "words": 1}
    places = {}
    for number in range(generator.randrange(1, 5)):
        shape = tuple(generator.choice([1, 2, 3, 4, 5, 9]) for _ in range(generator.randrange(4)))
        axis = generator.choice([None, *range(len(shape))])
        length = 1 if axis is None else shape[axis]
        elements = prod(shape) // length
        rows = elements * -(-length // lanes)
        bank = "words" if axis is None else "rows"
        places[f"a{number}"] = Placement(f"a{number}", bank, banks[bank], elements, axis, length, shape, 1, rows)
        banks[bank] += rows
    spare = 20  # rows beyond those, for origins
    program = replace(
        schedule(integer, lanes, samples=13),
        placements=places,
        banks={name: Bank(name, 1 if name == "words" else lanes, 16, depth + spare) for name, depth in banks.items()},
    )
    order = [
        (row, lane, array, offset == prod(place.shape) - 1)
        for array, place in enumerate(places.values())
        for offset, (row, lane) in enumerate(locations(lanes, place))
    ]
    walk = Walk(program, list(places))

    async def bench(ctx):
        step = 0
        for _ in range(3 * len(order)):
            if generator.random() < 1 / len(order):
                ctx.set(walk.step, generator.randrange(2))
                ctx.set(walk.restart, 1)
                ctx.set(walk.origin, origin := generator.randrange(spare))
                await ctx.tick()
                ctx.set(walk.restart, 0)
                step = 0
            else:
                origin = ctx.get(walk.origin)
            if not ctx.get(walk.settled):
                assert len(places) > 1
                ctx.set(walk.step, 0)
                await ctx.tick()
            assert ctx.get(walk.settled)
            row, lane, array, last = order[step % len(order)]
            expected = (row + origin, lane, array, last, step % len(order) == len(order) - 1)
            found = [ctx.get(getattr(walk, name)) for name in ("row", "lane", "array", "ends_array", "ends")]
            assert tuple(found) == expected, (step, places)
            going = generator.random() < 0.7
            ctx.set(walk.step, going)
            step += going
            await ctx.tick()

    simulate(walk, bench)


def expected_tags(program, routine, start, numbers):
    """All iterations of one run of ``routine``: cycle -> the tag's fields, by plain loops."""
    tags = {}
    tail = program.batch - (program.tiles - 1) * program.tile
    per_tile = len(routine.tile.kernels)
    for position, (kernel, begin) in enumerate(instances(routine, start)):
        tile = min(position // per_tile, program.tiles - 1) if per_tile else 0
        padded = [
            trip + (kernel.pad if kernel.reduced and level == kernel.levels - kernel.reduced else 0)
            for level, trip in enumerate(kernel.trips)
        ]
        before, rows, sums = None, None, None
        for offset, index in enumerate(itertools.product(*map(range, padded))):
            if any(i >= trip for i, trip in zip(index, kernel.trips, strict=True)):
                continue

            def advanced(previous, outer, index=index, kernel=kernel):
                """The level that advanced since an earlier iteration, among the ``outer`` outermost."""
                if previous is None:
                    return None
                changed = [i for i in range(outer) if index[i] != previous[i]]
                return kernel.levels - 1 - changed[0] if changed else "same"

            def delimited(inner, index=index, kernel=kernel):
                reduced = range(kernel.levels - inner, kernel.levels)
                return (
                    all(index[i] == 0 for i in reduced),
                    all(index[i] == kernel.trips[i] - 1 for i in reduced),
                )

            tag = {"kernel": numbers[kernel.name], "level": advanced(before, kernel.levels)}
            tag["first"], tag["last"] = delimited(kernel.reduced)
            before = index
            if tag["last"]:
                tag["row_level"] = advanced(rows, kernel.levels - kernel.reduced)
                rows = index
            if kernel.sum:
                tag["sum_first"], tag["sum_last"] = delimited(kernel.sum.reduced)
                if tag["sum_last"]:
                    tag["sum_level"] = advanced(sums, kernel.levels - kernel.sum.reduced)
                    sums = index
            if kernel.batch_level is not None:
                tag["first_tile"], tag["last_tile"] = tile == 0, tile == program.tiles - 1
            if kernel.full or kernel.slow:  # what they keep: rows, or words in any lane
                reduced = max(kernel.reduced, (kernel.slow.reduced or 0) if kernel.slow else 0)
                kept = range(kernel.levels - reduced)
                samples = program.tile if tile < program.tiles - 1 else tail
                present = program.lanes
                for level in {kernel.batch_level, kernel.lane_level} & set(kept):
                    length = samples if level == kernel.batch_level else kernel.lane_length
                    per_row = program.lanes if level == kernel.lane_level else 1
                    there = min(max(length - index[level] * per_row, 0), per_row)
                    present = min(present, there if per_row > 1 else there * program.lanes)
                tag["edge"] = {0: Edge.EMPTY, program.lanes: Edge.FULL}.get(present, Edge.PARTIAL)
                assert tag["edge"] != Edge.PARTIAL or present == partial_lanes(program, kernel)
            tags[begin + offset] = tag
    return tags


def run_sequencer(program, routine, count, names, late):
    """Tags by cycle, the cycles in which tiles end, and how many cycles were running, waiting, and ends of a step.

    Cycles spent waiting for samples are left out of the count.
    """
    sequencer = Sequencer(program)
    generator = random.Random(program.lanes)
    tags, tiles, counts = {}, [], {"running": 0, "waiting": 0, "step_done": 0}
    valid, fields = sequencer.tag.valid, {name: getattr(sequencer.tag, name) for name in names}  # a look-up takes long

    async def bench(ctx):
        ctx.set(sequencer.routine, routine)
        ctx.set(sequencer.count, count)
        ctx.set(sequencer.start, 1)
        await ctx.tick()
        ctx.set(sequencer.start, 0)
        cycle = -1  # samples are asked for in the cycle before the first iteration
        patience = 0
        while ctx.get(sequencer.busy):
            ctx.set(sequencer.samples_ready, patience == 0)
            stalled = ctx.get(sequencer.waiting)
            patience = patience - 1 if stalled else generator.randrange(1, 6) * late
            for name in counts:
                counts[name] += ctx.get(getattr(sequencer, name))
            if ctx.get(sequencer.tile_done):
                tiles.append(cycle)
            if ctx.get(valid):
                tags[cycle] = {name: ctx.get(field) for name, field in fields.items()}
            await ctx.tick()
            cycle += not stalled

    simulate(sequencer, bench)
    return tags, tiles, *counts.values()


SCHEDULES = [
    ("13 samples", 1, {}),
    ("13 samples", 2, {"slow_words": 1}),
    ("13 samples", 3, {"tile": 3}),
    ("13 samples", 4, {"tile": 8, "slow_words": 1}),
    ("13 samples", 2, {"tile": 10}),
    ("13 samples", 8, {}),
    ("13 samples", 16, {}),
    ("1 sample", 2, {}),
    ("1 sample", 4, {"slow_words": 1}),
    ("along features", 3, {}),
    ("along features", 3, {"tile": 3}),
    ("along features", 4, {"tile": 8, "slow_words": 1}),
]


@pytest.fixture(params=SCHEDULES, ids=lambda param: f"{param[0]}-P{param[1]}{param[2] or ''}")
def issued(request, integer, rowless):
    """Programs that spread samples over the lanes, or the features of one sample, or those of several."""
    return chosen_schedule(integer, rowless, *request.param)


def chosen_schedule(integer, rowless, kind, lanes, options):
    if kind == "1 sample":
        return schedule(rowless, lanes, samples=4, **options)
    if kind == "along features":
        # The gradients of several tiles are summed word by word.
        unpacked = integer.kernels.parameters if "tile" in options else ()
        return packed(integer, lanes, along_features, unpacked, samples=13, **options)
    return schedule(integer, lanes, samples=13, **options)


def test_schedules_have_rows_of_every_kind(integer, rowless):
    """Rows of samples and of others, in which all lanes, some or none hold an element."""
    found = set()
    for kind, lanes, options in SCHEDULES:
        program = chosen_schedule(integer, rowless, kind, lanes, options)
        for routine in program.routines:
            kernels = (*routine.tile.kernels, *routine.final.kernels)
            tags = expected_tags(program, routine, 0, {kernel.name: i for i, kernel in enumerate(kernels)})
            for tag in tags.values():
                if "edge" in tag:
                    kernel = kernels[tag["kernel"]]
                    across = "samples" if kernel.lane_level == kernel.batch_level else "others"
                    beside = kernel.batch_level is not None and kernel.batch_level < kernel.levels - kernel.reduced
                    found.add((across, "samples beside" if beside else "", tag["edge"]))
    for edge in (Edge.FULL, Edge.PARTIAL, Edge.EMPTY):
        assert ("samples", "samples beside", edge) in found
        assert ("others", "samples beside", edge) in found
    assert ("others", "", Edge.PARTIAL) in found


@pytest.mark.parametrize("late", [False, True], ids=["present", "late"])
def test_the_sequencer_issues_what_is_scheduled(issued, late):
    program = issued
    start = TagLayout(program).start
    for number, routine in enumerate(program.routines):
        offset = sum(len(r.tile.kernels) + len(r.final.kernels) for r in program.routines[:number])
        kernels = (*routine.tile.kernels, *routine.final.kernels)
        numbers = {kernel.name: offset + i for i, kernel in enumerate(kernels)}
        count = 2
        expected = {}
        for run in range(count):
            expected |= expected_tags(program, routine, run * routine.period, numbers)
        names = sorted({name for tag in expected.values() for name in tag})
        found, tiles, running, waiting, done = run_sequencer(program, number, count, names, late)
        assert list(found) == list(expected)
        for cycle, tag in expected.items():
            for name, value in tag.items():
                if value != "same":
                    assert found[cycle][name] == (start if value is None else value), (cycle, name, tag)
        assert running == count * routine.period + waiting
        assert (waiting > 0) == late
        assert done == count
        # Samples are let go in the last cycle in which a tile's kernels issue.
        per_tile = len(routine.tile.kernels)
        ends = [
            begin + kernel.cycles - 1
            for run in range(count)
            for i, (kernel, begin) in enumerate(instances(routine, run * routine.period))
            if i % per_tile == per_tile - 1 and i < per_tile * program.tiles
        ]
        assert tiles == ends


def test_events_are_counted_from_the_cycles_in_which_iterations_issue(issued):
    """The schedule's model of a kernel and the loops above agree: so does the sequencer with the schedule."""
    program = issued
    for routine in program.routines:
        kernels = (*routine.tile.kernels, *routine.final.kernels)
        tags = expected_tags(program, routine, 0, {kernel.name: i for i, kernel in enumerate(kernels)})
        for kernel, start in instances(routine, 0):
            issued = [cycle for cycle in tags if start <= cycle < start + kernel.cycles]
            operands = [o for o in (kernel.a, kernel.b) if isinstance(o, Operand)]
            uses = events(program, kernel).reads[: len(operands)]
            for operand, use in zip(operands, uses, strict=True):
                presented = timing.presented(timing.operand_trigger(operand.row))
                assert (use.cycles + start - presented).tolist() == issued


# --- samples and parameters in, results out ---------------------------------------------------------------------------


def repacked(program, axes):
    """``program`` with some arrays in banks of their own, packed along other axes, or not."""
    banks, placements = dict(program.banks), dict(program.placements)
    for name, axis in axes.items():
        place, bank = placements[name], banks[placements[name].bank]
        length = 1 if axis is None else place.shape[axis]
        elements = prod(place.shape) // length
        slot_rows = elements * -(-length // program.lanes)
        base = 2 * len(placements[name].shape) - 1
        words = 1 if axis is None else program.lanes
        banks[f"{name}_bank"] = Bank(
            f"{name}_bank", words, bank.width, base + place.slots * slot_rows, bank.kind, bank.loader
        )
        placements[name] = Placement(
            name, f"{name}_bank", base, elements, axis, length, place.shape, place.slots, slot_rows
        )
    return replace(program, banks=banks, placements=placements)


class Ring:
    """A sample loader with the banks that it writes, fed and drained at random."""

    def __init__(self, program, seed):
        self.program, self.random = program, random.Random(seed)
        self.loader = SampleLoader(program)
        self.arrays = [program.placements[name] for name in (*program.inputs, *program.targets)]
        banks = {place.bank: program.banks[place.bank] for place in self.arrays}
        self.banks = {name: np.zeros((bank.depth, bank.words), np.int64) for name, bank in banks.items()}
        self.cycle = 0
        self.accepted = []
        self.inputs = dict.fromkeys(("consume", "forget", "blocked"), 0)

    def tiles(self, count, seed):
        """Random samples: for each of ``count`` tiles one row of words for each of its samples."""
        generator = np.random.default_rng(seed)
        width = sum(prod(p.shape[1:]) for p in self.arrays)
        tail = self.program.batch - (self.program.tiles - 1) * self.program.tile
        sizes = [tail if i % self.program.tiles == self.program.tiles - 1 else self.program.tile for i in range(count)]
        return [generator.integers(-(2**15), 2**15, (size, width)) for size in sizes]

    async def tick(self, ctx, **inputs):
        loader = self.loader
        for name, before in self.inputs.items():
            if (value := inputs.get(name, 0)) != before:
                ctx.set(getattr(loader, name), value)
                self.inputs[name] = value
        await ctx.delay(1e-9)
        taken = ctx.get(loader.samples.valid) and ctx.get(loader.samples.ready)
        for place in self.arrays:
            if ctx.get(getattr(loader, f"enable_{place.bank}")):
                row, lane = (ctx.get(getattr(loader, f"{port}_{place.bank}")) for port in ("row", "lane"))
                self.banks[place.bank][row, lane] = ctx.get(loader.word)
        await ctx.tick()
        self.cycle += 1
        return taken

    def stored(self, slot, size):
        """The samples that lie in a slot."""
        rows = []
        for b in range(size):
            row = []
            for place in self.arrays:
                for index in np.ndindex(place.shape[1:]):
                    at, lane = location(self.program.lanes, place, (b, *index))
                    row.append(self.banks[place.bank][at + slot * place.slot_rows, lane])
            rows.append(row)
        return np.array(rows)


PACKINGS = {
    "samples": {"x": 0, "y": 0, "yhat": 0, "p0": 0, "p1": None, "p2": 0, "p3": None},
    "features": {"x": 1, "y": 1, "yhat": 1, "p0": 1, "p1": 0, "p2": 1, "p3": 0},
    "words": dict.fromkeys(("x", "y", "yhat", "p0", "p1", "p2", "p3")),
    "mixed": {"x": 1, "y": None, "yhat": None, "p0": None, "p1": 0, "p2": 0, "p3": None},
}


def packings(*settings):
    """Every one of some (lanes, options) with every packing."""
    return [
        pytest.param((lanes, options, axes), id=f"P{lanes}{'-tiles' if options else ''}-{name}")
        for lanes, options in settings
        for name, axes in PACKINGS.items()
    ]


def with_packing(integer, param, samples):
    lanes, options, axes = param
    return repacked(schedule(integer, lanes, samples=samples, **options), axes)


@pytest.fixture(scope="module", params=packings((3, {}), (2, {"tile": 4}), (16, {})))
def streamed(request, integer):
    return with_packing(integer, request.param, None)


@pytest.fixture(scope="module", params=packings((3, {}), (2, {"tile": 4})))
def kept(request, integer):
    return with_packing(integer, request.param, 39)


async def feed(ctx, ring, tiles, consume=None):
    """Send all words of ``tiles``, with pauses; ``consume`` is asked in every cycle whether to consume."""
    loader = ring.loader
    for word in np.concatenate([tile.ravel() for tile in tiles]).tolist():
        while ring.random.random() < 0.2:
            ctx.set(loader.samples.valid, 0)
            await ring.tick(ctx, consume=consume(ctx) if consume else 0)
        ctx.set(loader.samples.valid, 1)
        ctx.set(loader.samples.payload, word)
        while not await ring.tick(ctx, consume=consume(ctx) if consume else 0, blocked=ring.random.random() < 0.2):
            pass
    ctx.set(loader.samples.valid, 0)


def test_samples_are_read_for_as_long_as_the_loader_thinks(issued):
    """Cycles after the last issue of a tile in which its samples may still be read."""
    program = issued
    data = {program.placements[name].bank for name in (*program.inputs, *program.targets)}
    late = [
        int(use.cycles.max()) - (kernel.cycles - 1)
        for kernel in program.kernels
        for use in events(program, kernel).reads
        if use.unit in data
    ]
    assert 0 < max(late) <= program.timing.sample_reads


@pytest.mark.parametrize("seed", range(3))
def test_streamed_tiles_stay_until_they_are_read(streamed, seed):
    program = streamed
    ring = Ring(program, seed)
    tiles = ring.tiles(7, seed)
    used, checks = [], []

    def consume(ctx):
        for slot, index, due in list(checks):
            if ring.cycle == due:
                checks.remove((slot, index, due))
                np.testing.assert_array_equal(ring.stored(slot, len(tiles[index])), tiles[index])
        if ctx.get(ring.loader.available) and ring.random.random() < 0.05:
            slot, index = ctx.get(ring.loader.slot), len(used)
            used.append(slot)
            # The last word of a tile is written in the cycle in which it becomes available.
            for due in (1, program.timing.sample_reads):
                checks.append((slot, index, ring.cycle + due))
            return 1
        return 0

    async def bench(ctx):
        await feed(ctx, ring, tiles, consume)
        for _ in range(2000):
            await ring.tick(ctx, consume=consume(ctx))

    simulate(ring.loader, bench)
    assert used == [i % program.slots for i in range(7)]
    assert not checks


def test_a_full_ring_takes_no_more_until_a_tile_is_freed(streamed):
    program = streamed
    ring = Ring(program, 0)
    tiles = ring.tiles(program.slots + 1, 4)

    async def bench(ctx):
        await feed(ctx, ring, tiles[: program.slots])
        ctx.set(ring.loader.samples.valid, 1)
        for _ in range(50):
            assert not await ring.tick(ctx)
        await ring.tick(ctx, consume=1)
        waited = 1
        while not await ring.tick(ctx):
            waited += 1
        in_flight = program.timing.sample_reads
        assert in_flight < waited <= in_flight + 4
        ctx.set(ring.loader.samples.valid, 0)

    simulate(ring.loader, bench)


def test_resident_tiles_come_round(kept):
    program = kept
    assert program.slots == 3 * program.tiles
    for count in (program.tiles, 2 * program.tiles, program.slots):
        ring = Ring(program, count)
        tiles = ring.tiles(count, count)

        async def bench(ctx, ring=ring, tiles=tiles, count=count):
            ctx.set(ring.loader.resident, 1)
            await feed(ctx, ring, tiles)
            for _ in range(4):
                await ring.tick(ctx)
            for use in range(3 * count + 1):
                assert ctx.get(ring.loader.available)
                slot = ctx.get(ring.loader.slot)
                np.testing.assert_array_equal(
                    ring.stored(slot, len(tiles[use % count])), tiles[use % count], err_msg=f"use {use}"
                )
                await ring.tick(ctx, consume=1)

        simulate(ring.loader, bench)


def test_forgetting_empties_the_ring_wherever_it_was(streamed):
    """After some words and a pause, one case after the other."""
    ring = Ring(streamed, 9)
    old, new = ring.tiles(2, 1), ring.tiles(2, 2)
    sent = np.concatenate([tile.ravel() for tile in old])
    counts = {"nothing": 0, "a word": 1, "a row": old[0].shape[1], "a tile": old[0].size,
              "a tile and a word": old[0].size + 1, "all but a word": sent.size - 1}  # fmt: skip

    async def bench(ctx):
        for case in itertools.product(counts, (0, 1, 2, 3, 40)):
            given, pause = case
            if counts[given]:
                await feed(ctx, ring, [sent[: counts[given]]])
            for _ in range(pause):
                await ring.tick(ctx)
            await ring.tick(ctx, forget=1)
            for _ in range(5):
                assert not ctx.get(ring.loader.available), case
                await ring.tick(ctx)
            await feed(ctx, ring, new[:1])
            for _ in range(4):
                await ring.tick(ctx)
            assert ctx.get(ring.loader.available), case
            slot = ctx.get(ring.loader.slot)
            np.testing.assert_array_equal(ring.stored(slot, len(new[0])), new[0], err_msg=str(case))
            await ring.tick(ctx, consume=1)
            assert not ctx.get(ring.loader.available), case

    simulate(ring.loader, bench)


@pytest.mark.parametrize("setting", packings((1, {}), (3, {}), (4, {})))
def test_parameters_arrive_in_flat_order_and_wrap_round(integer, setting):
    program = with_packing(integer, setting, 13)
    loader = ParameterLoader(program, 24)
    places = [program.placements[name] for name in program.parameters]
    order = [(place.bank, *at) for place in places for at in locations(program.lanes, place)]
    generator = random.Random(3)
    total = len(order)
    sent = list(range(1, 2 * total + 6))
    written = []

    async def bench(ctx):
        async def tick(**inputs):
            ctx.set(loader.enable, inputs.get("enable", generator.random() < 0.7))
            ctx.set(loader.rewind, inputs.get("rewind", 0))
            await ctx.delay(1e-9)
            for number, bank in enumerate(loader.banks):
                if ctx.get(loader.enables) >> number & 1:
                    written.append((bank, ctx.get(loader.row), ctx.get(loader.lane), ctx.get(loader.word)))
            taken = ctx.get(loader.parameters.valid) and ctx.get(loader.parameters.ready)
            await ctx.tick()
            return taken

        for word in sent:
            ctx.set(loader.parameters.valid, 1)
            ctx.set(loader.parameters.payload, word)
            while not await tick():
                pass
        ctx.set(loader.parameters.valid, 0)
        await tick(rewind=1)
        ctx.set(loader.parameters.valid, 1)
        ctx.set(loader.parameters.payload, -5)
        while not await tick():
            pass
        ctx.set(loader.parameters.valid, 0)
        await tick()

    simulate(loader, bench)
    assert written == [(*order[i % total], word) for i, word in enumerate(sent)] + [(*order[0], -5)]


@pytest.mark.parametrize("readiness", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("setting", packings((1, {}), (3, {}), (2, {"tile": 4}), (16, {})))
def test_results_leave_in_order_and_none_is_lost(integer, setting, readiness):
    program = with_packing(integer, setting, 13)
    lanes = program.lanes
    reader = Reader(program, 24)
    generator = random.Random(lanes)
    memory = {}
    for bank in program.banks.values():
        low, high = limits(bank.width)
        memory[bank.name] = [[generator.randint(low, high) for _ in range(bank.words)] for _ in range(bank.depth)]
    parameters = [
        memory[place.bank][row][lane]
        for place in map(program.placements.get, program.parameters)
        for row, lane in locations(lanes, place)
    ]
    (output,) = map(program.placements.get, program.outputs)
    predictions = []
    for tile, b in (divmod(b, program.tile) for b in range(program.batch)):
        for index in np.ndindex(output.shape[1:]):
            row, lane = location(lanes, output, (b, *index))
            predictions.append(memory[output.bank][row + tile * output.slot_rows][lane])

    async def bench(ctx):
        for group, expected in ((0, parameters), (1, predictions), (0, parameters)):
            ctx.set(reader.group, group)
            ctx.set(reader.start, 1)
            rows, old_bank, old, found, cycles, held = [0, 0], 0, [0] * lanes, [], 0, None
            ctx.set(reader.results.ready, 0)
            await ctx.tick()
            ctx.set(reader.start, 0)
            while ctx.get(reader.busy):
                ctx.set(reader.old_row, old)
                for name in reader.direct:
                    bank = program.banks[name]
                    row = memory[name][min(rows[0], bank.depth - 1)]
                    packed = sum((word & (1 << bank.width) - 1) << (i * bank.width) for i, word in enumerate(row))
                    ctx.set(getattr(reader, f"row_{name}"), packed)
                ready = generator.random() < readiness
                ctx.set(reader.results.ready, ready)
                await ctx.delay(1e-9)
                valid, word = ctx.get(reader.results.valid), ctx.get(reader.results.payload)
                if not ctx.get(reader.hold):
                    if reader.updated:
                        bank = program.banks[reader.updated[old_bank]]
                        old = memory[bank.name][min(rows[0], bank.depth - 1)]
                    rows, old_bank = [rows[1], ctx.get(reader.row)], ctx.get(reader.old_bank)
                if held is not None:
                    assert (valid, word) == (1, held)
                held = word if valid and not ready else None
                if valid and ready:
                    found.append(word)
                await ctx.tick()
                cycles += 1
                assert cycles < 100_000
            assert found == expected
            if readiness == 1.0:
                assert cycles <= len(expected) * (1 if group else 2) + 9

    simulate(reader, bench)
