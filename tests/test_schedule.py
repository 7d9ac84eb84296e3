"""Schedules: what is chosen, that the checker accepts it, and that it refuses every way of breaking it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import test_integer_forms as forms
from small_workloads import dense_workload

from catgrad_hw.errors import CapacityError, ScheduleError
from catgrad_hw.ir.cost import multiplications
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.passes import simplify
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.memory import memories
from catgrad_hw.schedule.print import program_text
from catgrad_hw.schedule.program import Operand, Phase, Program
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.workload import load_workload


@pytest.fixture(scope="module")
def integer():
    return quantize_workload(load_workload("iris-hidden"), calibration_steps=50).integer


@pytest.fixture(scope="module")
def program(integer):
    return schedule(integer, 8, samples=150)


def changed(program: Program, *, tile=None, final=None, placements=None, banks=None, **fields) -> Program:
    """``program`` with other placements, banks or parts of its step."""
    step = program.routine("step")
    if tile is not None:
        fields["tile"] = tile
    if final is not None:
        fields["final"] = final
    step = replace(step, **fields)
    return replace(
        program,
        routines=(step, *(r for r in program.routines if r.name != "step")),
        placements={**program.placements, **(placements or {})},
        banks={**program.banks, **(banks or {})},
    )


def started(phase: Phase, moves: dict[int, int]) -> Phase:
    """``phase`` with some kernels starting earlier or later."""
    return replace(phase, starts=tuple(s + moves.get(i, 0) for i, s in enumerate(phase.starts)))


def index_of(phase: Phase, array: str) -> int:
    """The kernel of ``phase`` that writes ``array``."""
    for index, kernel in enumerate(phase.kernels):
        targets = [w.target.array for w in kernel.slow.writes] if kernel.slow else []
        targets += [w.target.array for path in (kernel.full, kernel.sum) if path for w in path.writes]
        if array in targets:
            return index
    raise AssertionError(array)


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8, 16, 37, 128])
def test_any_number_of_lanes_has_a_schedule_that_the_checker_accepts(integer, lanes):
    program = schedule(integer, lanes, samples=150)
    check(program)
    step = program.routine("step")
    work = sum(kernel.cycles for kernel in (*step.tile.kernels, *step.final.kernels))
    assert work <= step.period <= work + 60 * len(program.kernels)
    for kernel in program.kernels:
        if kernel.lane_level is not None:
            assert kernel.trips[kernel.lane_level] == -(-kernel.lane_length // lanes)
            assert kernel.lane_level != kernel.batch_level or kernel.lane_length == 150


@pytest.mark.parametrize(("lanes", "tile"), [(4, 40), (8, 8), (7, 49), (16, 144)])
def test_tiles_are_scheduled_and_accepted(integer, lanes, tile):
    program = schedule(integer, lanes, tile=tile, samples=150)
    check(program)
    assert program.tiles == -(-150 // tile)
    step = program.routine("step")
    assert step.period > (program.tiles - 1) * step.tile_period + step.final_start
    assert program.banks["partial"].width == program.sum_accumulator


def products(integer) -> int:
    """Products that a step needs."""
    return sum(prod(loop.size for loop in kernel.loops) for kernel in integer.kernels.programs["step"])


def busy(integer, program) -> float:
    """Products for each cycle and multiplier of a step."""
    return products(integer) / (program.lanes * program.routine("step").period)


def test_products_of_hidden(integer):
    assert products(integer) == 54_613


@pytest.mark.parametrize(("lanes", "least"), [(3, 0.95), (4, 0.95), (8, 0.95), (16, 0.88)])
def test_hidden_keeps_its_multipliers_busy(integer, lanes, least):
    assert busy(integer, schedule(integer, lanes, samples=150)) >= least


@pytest.mark.parametrize(
    ("name", "lanes", "least"),
    [
        ("digits-mlp", 16, 0.97),
        ("mlp-784-64-10", 64, 0.98),
        ("one sample a step", 16, 0.95),
        ("digits-relu", 16, 0.93),
        ("digits-conv", 8, 0.8),
    ],
)
def test_nets_for_digits_keep_their_multipliers_busy(name, lanes, least):
    if name == "one sample a step":
        workload = dense_workload(1, (784, 64, 10), samples=8)
    else:
        workload = load_workload(name)
    integer = quantize_workload(workload, calibration_steps=3).integer
    program = schedule(integer, lanes, samples=len(workload.x))
    check(program)
    needed = multiplications(simplify(joint_graph(workload.learner)))
    assert needed / (lanes * program.routine("step").period) >= least


def test_the_slow_path_is_the_narrowest_that_costs_no_cycle(integer, program):
    assert program.slow_words == 2
    narrower = schedule(integer, 8, samples=150, slow_words=1)
    wider = schedule(integer, 8, samples=150, slow_words=3)
    check(narrower)
    assert narrower.routine("step").period > program.routine("step").period
    assert wider.routine("step").period == pytest.approx(program.routine("step").period, abs=4)
    assert any(kernel.pad for kernel in narrower.kernels)
    assert schedule(integer, 5, samples=150, slow_words=4).slow_words == 3  # a row takes two beats with either


def test_every_kernel_starts_as_early_as_it_can(program):
    """One cycle earlier, the checker refuses any start (and the period): the schedule has no slack."""
    step = program.routine("step")
    for number in range(1, len(step.tile.kernels)):
        moves = dict.fromkeys(range(number, len(step.tile.kernels)), -1)
        with pytest.raises(ScheduleError):
            check(changed(program, tile=started(step.tile, moves), final_start=step.final_start - 1))
    with pytest.raises(ScheduleError):
        check(changed(program, final_start=step.final_start - 1))


def test_overlapping_issue_is_refused(program):
    step = program.routine("step")
    with pytest.raises(ScheduleError, match="one after the other"):
        check(changed(program, tile=started(step.tile, {1: -1})))


def test_read_before_write_is_refused(program):
    """An update right behind the kernel that makes its gradient, which it reads last word first: RAW."""
    step = program.routine("step")
    made = step.tile.kernels[-1].sum.writes[0].target.array
    update = next(k for k in step.final.kernels if isinstance(k.b, Operand) and k.b.array == made)
    strides = tuple(-stride for stride in update.b.strides)
    backwards = replace(update.b, base=program.placements[made].slot_rows - 1, strides=strides)
    final = Phase((replace(update, b=backwards),), (0,))
    end = step.tile.starts[-1] + step.tile.kernels[-1].cycles
    with pytest.raises(ScheduleError, match="RAW"):
        check(changed(program, final=final, final_start=end))


def test_write_before_read_is_refused(program):
    """A full-width write right behind the kernel whose slow path still has to read that row: WAR."""
    step = program.routine("step")
    reader = index_of(step.tile, "e1")
    kernels, starts = list(step.tile.kernels), list(step.tile.starts)
    writer = kernels[reader + 1]
    assert writer.full is not None
    x = Operand("x", True, 0, (1, 4), 0, (0, 0))
    kernels[reader + 1] = replace(writer, a=1, b=x, sum=None)
    starts[reader + 1] = starts[reader] + kernels[reader].cycles
    y = program.placements["y"]
    last = y.base + y.slot_rows - 1
    d1 = replace(program.placements["d1"], bank="y", base=last)
    banks = {"y": replace(program.banks["y"], loader=False, depth=last + d1.slot_rows)}
    with pytest.raises(ScheduleError, match="WAR"):
        check(changed(program, tile=Phase(tuple(kernels), tuple(starts)), placements={"d1": d1}, banks=banks))


def test_write_while_a_late_bank_reads_is_refused(program):
    """What a bank with a registered address reads in a cycle, the memory itself reads in the next: as soon as a write
    may follow such a read elsewhere, it is a cycle too early here."""
    step = program.routine("step")
    reader = index_of(step.tile, "e1")
    kernels, starts = list(step.tile.kernels), list(step.tile.starts)
    writer = kernels[reader + 1]
    kernels[reader + 1] = replace(writer, a=1, b=Operand("x", True, 0, (1, 4), 0, (0, 0)), sum=None)
    y = program.placements["y"]
    last = y.base + y.slot_rows - 1
    d1 = replace(program.placements["d1"], bank="y", base=last)

    def moved(later, kind):
        starts[reader + 1] = starts[reader] + kernels[reader].cycles + later
        tile = Phase(tuple(kernels[: reader + 2]), tuple(starts[: reader + 2]))
        banks = {"y": replace(program.banks["y"], loader=False, depth=last + d1.slot_rows, kind=kind)}
        return changed(program, tile=tile, final=Phase((), ()), placements={"d1": d1}, banks=banks)

    def refused(later):
        try:
            check(moved(later, "block"))
        except ScheduleError:
            return True
        return False

    later = next(later for later in itertools.count() if not refused(later))
    assert later > 0
    with pytest.raises(ScheduleError, match="WAR"):
        check(moved(later, "late"))
    check(moved(later + 1, "late"))


def test_early_next_step_is_refused(program):
    """The next step must not read weights that this one still has to update."""
    step = program.routine("step")
    with pytest.raises(ScheduleError):
        check(changed(program, period=step.period - 1))


def test_write_over_write_is_refused(program):
    """Two arrays in the same rows."""
    placements = program.placements
    step = program.routine("step")
    kernel = step.tile.kernels[0]
    first, second = (write.target.array for write in kernel.slow.writes)
    moved = replace(placements[second], bank=placements[first].bank, base=placements[first].base)
    with pytest.raises(ScheduleError, match=r"twice in cycle|WAW"):
        check(changed(program, placements={second: moved}))


def test_two_reads_of_one_port_are_refused(program):
    """A product of x with itself would read one bank twice in a cycle."""
    step = program.routine("step")
    kernels = list(step.tile.kernels)
    number = index_of(step.tile, "g0")
    x = next(o for o in (kernels[number].a, kernels[number].b) if isinstance(o, Operand) and o.array == "x")
    kernels[number] = replace(kernels[number], a=x, b=x)
    with pytest.raises(ScheduleError, match="x read is used twice in cycle"):
        check(changed(program, tile=replace(step.tile, kernels=tuple(kernels))))


def test_single_port_bank_serves_one_access_a_cycle(program):
    bank = program.placements["a1"].bank
    with pytest.raises(ScheduleError, match="is used twice"):
        check(changed(program, banks={bank: replace(program.banks[bank], kind="single_port")}))


def test_single_port_is_for_the_data_set(integer):
    program = schedule(integer, 8, samples=150, bank_kinds={"x": "single_port", "y": "single_port"})
    check(program)
    assert {program.banks[name].kind for name in ("x", "y")} == {"single_port"}
    with pytest.raises(CapacityError, match=r"row16_0.*data set"):
        schedule(integer, 8, samples=150, bank_kinds={"row16_0": "single_port"})
    with pytest.raises(CapacityError, match=r"no bank is called z.*x, y"):
        schedule(integer, 8, samples=150, bank_kinds={"z": "late"})


def test_lut_ram_is_for_words_of_banks_and_changes_no_cycle(integer):
    program = schedule(integer, 8, samples=150)
    bank = program.placements["a1"].bank
    mixed = schedule(integer, 8, samples=150, lut_words={bank: 3})
    check(mixed)
    assert changed(mixed, banks=program.banks) == program
    taken = {each.name: each.words for each in memories(mixed)}
    assert taken[bank] == program.banks[bank].words - 3
    with pytest.raises(CapacityError, match=r"no bank is called z; there are .*row16_0"):
        schedule(integer, 8, samples=150, lut_words={"z": 1})
    with pytest.raises(CapacityError, match="expected 0 to 8 words of bank row16_0, found 9"):
        schedule(integer, 8, samples=150, lut_words={"row16_0": 9})


def test_capture_register_is_not_overrun(integer):
    """A row every cycle is too much for a slow path that takes four."""
    program = schedule(integer, 8, samples=150, slow_words=2)
    step = program.routine("step")
    first = step.tile.kernels[0]
    faster = replace(first, reduced=0)
    phase = replace(step.tile, kernels=(faster, *step.tile.kernels[1:]))
    with pytest.raises(ScheduleError, match="capture register"):
        check(changed(program, tile=phase))


def test_tree_takes_one_row_a_cycle(program):
    """A dot right behind a kernel with a side sum: their words would meet at the tree."""
    step = program.routine("step")
    kernels, starts = list(step.tile.kernels), list(step.tile.starts)
    side, dot = index_of(step.tile, "d3"), index_of(step.tile, "g0")
    assert dot == side + 1
    kernels[dot] = replace(kernels[dot], b=Operand("y", True, 0, (0, 0, 3), 0, (0, 0, 0)))
    starts[dot] = starts[side] + kernels[side].cycles
    with pytest.raises(ScheduleError, match="adder tree"):
        check(changed(program, tile=Phase(tuple(kernels), tuple(starts))))


def test_rows_outside_a_bank_are_refused(program):
    place = program.placements["x"]
    with pytest.raises(ScheduleError, match="reaches rows"):
        check(changed(program, placements={"x": replace(place, base=place.base + 1)}))


def test_the_loaders_bank_is_not_written_by_kernels(program):
    step = program.routine("step")
    bank = program.placements[step.tile.kernels[0].slow.writes[0].target.array].bank
    with pytest.raises(ScheduleError, match="loader's"):
        check(changed(program, banks={bank: replace(program.banks[bank], loader=True)}))


# --- forms beyond dense nets ------------------------------------------------------------------------------------------


def program_of(name: str, lanes: int, **options: Any) -> Program:
    found = schedule(forms.quantized(name, "16").integer, lanes, samples=len(forms.workload(name).x), **options)
    check(found)
    return found


@pytest.mark.parametrize("lanes", [2, 4])
@pytest.mark.parametrize("name", ["leaky", "softmax", "momentum", "padded", "max pooling", "average pooling"])
def test_no_form_has_slack(name, lanes):
    """Wherever kernels wait, one cycle less is refused: reads of biases, masks, states and windows are seen."""
    program = program_of(name, lanes)
    step = program.routine("step")
    starts, kernels = step.tile.starts, step.tile.kernels
    waiting = [i for i in range(1, len(kernels)) if starts[i] > starts[i - 1] + kernels[i - 1].cycles]
    assert waiting
    for number in waiting:
        moves = dict.fromkeys(range(number, len(kernels)), -1)
        with pytest.raises(ScheduleError, match=r"hazard|twice"):
            check(changed(program, tile=started(step.tile, moves), final_start=step.final_start - 1))


def test_padding_is_no_access():
    """Without its bounds, a window reaches beyond the bank."""
    program = program_of("padded", 2)
    step = program.routine("step")
    kernels = list(step.tile.kernels)
    number = next(i for i, k in enumerate(kernels) for o in (k.a, k.b) if isinstance(o, Operand) and o.bounds)
    bare = {
        side: replace(operand, bounds=())
        for side, operand in (("a", kernels[number].a), ("b", kernels[number].b))
        if isinstance(operand, Operand) and operand.bounds
    }
    kernels[number] = replace(kernels[number], **bare)
    with pytest.raises(ScheduleError, match="reaches rows -"):
        check(changed(program, tile=replace(step.tile, kernels=tuple(kernels))))


def test_a_condition_has_a_port_of_its_own():
    """The gradient of a maximum reads the result and its place in one cycle."""
    program = program_of("max pooling", 4)
    kernel = next(k for k in program.routine("step").tile.kernels if k.full and k.full.combination.position)
    assert kernel.full is not None
    (condition,) = kernel.full.combination.operands()[:1]
    place = program.placements[condition.array]
    (factor,) = (o for o in (kernel.a, kernel.b) if isinstance(o, Operand))
    other = program.placements[factor.array]
    bank = program.banks[other.bank]
    grown = replace(bank, depth=bank.depth + place.slots * place.slot_rows)
    moved = replace(place, bank=other.bank, base=bank.depth)
    with pytest.raises(ScheduleError, match=f"{other.bank} read is used twice in cycle"):
        check(changed(program, placements={condition.array: moved}, banks={other.bank: grown}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lanes": 0}, "lanes: expected 1 to 128, found 0"),
        ({"lanes": 129}, "found 129"),
        ({"lanes": 8, "tile": 12}, "smaller multiple of the 8 lanes, found 12"),
        ({"lanes": 8, "tile": 152}, "found 152"),
        ({"lanes": 8, "memory": 0}, "expected a positive number of kbit, found 0"),
        ({"lanes": 8, "memory": math.nan}, "expected a positive number of kbit, found nan"),
        ({"lanes": 8, "slow_words": 9}, "expected 1 to 8 words"),
    ],
)
def test_arguments_out_of_range_are_refused(integer, arguments, message):
    with pytest.raises(CapacityError, match=message):
        schedule(integer, **arguments)


def test_identity_tells_designs_apart(integer, program):
    assert program.identity == schedule(integer, 8, samples=150).identity
    assert program.identity != schedule(integer, 4, samples=150).identity
    assert program.identity != schedule(integer, 8, samples=150, slow_words=3).identity


def test_listing_names_every_array_bank_and_kernel(program):
    text = program_text(program)
    for name in [*program.placements, *program.banks, *(kernel.name for kernel in program.kernels)]:
        assert name in text
    assert f"{program.routine('step').period} cycles from start to start" in text
