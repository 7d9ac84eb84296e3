"""Calibration and quantisation: forms, widths, degenerate ranges, advice, and a checker that refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernels_by_hand import HandWorkload, by_hand, hidden, integer_by_hand, linear

from catgrad_hw.errors import CapacityError, CatgradError, ModelError, UnsupportedError
from catgrad_hw.ir.kernel import Access, Apply, Constant, Kernel, KernelProgram, Read, Reduced, Round, Saturate, Shift
from catgrad_hw.ir.kernel_check import IllegalKernelError
from catgrad_hw.numbers.calibrate import Ranges, calibrate
from catgrad_hw.numbers.check import check
from catgrad_hw.numbers.formats import POLICIES, policy, to_values
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.intervals import Interval
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.print import format_integer
from catgrad_hw.numbers.quantize import advice, quantize
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.workload import load_workload


def quantized(
    program: KernelProgram, x: Any, y: Any, numbers: str = "16", steps: int = 5
) -> tuple[IntegerProgram, HandWorkload, Ranges]:
    workload = HandWorkload(program, x, y, "data")
    ranges = calibrate(program, workload, steps)
    return quantize(program, ranges, policy(numbers)), workload, ranges


def data(batch: int = 3, inputs: int = 2, outputs: int = 2, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return scale * generator.random((batch, inputs)), generator.random((batch, outputs))


@pytest.mark.parametrize("numbers", POLICIES)
@pytest.mark.parametrize("model", ["iris-linear", "iris-simple", "iris-dense", "iris-hidden"])
def test_lowered_models_are_legal_and_print(model: str, numbers: str) -> None:
    result = quantize_workload(load_workload(model), numbers, calibration_steps=10)
    check(result.integer)
    text = format_integer(result.integer)
    assert f"multiplier: {policy(numbers).multiplier} bits" in text
    assert "program step:" in text


def test_the_default_policy_on_iris_hidden() -> None:
    program = integer_by_hand("iris-hidden", steps=20)
    formats = program.formats
    assert [formats[p].width for p in program.kernels.parameters] == [24] * 4
    assert {formats[a].width for a in program.kernels.arrays if a not in program.kernels.parameters} == {16}
    assert formats["a1"] == formats["yhat"] == Format(16, 15)
    assert formats["s1"] == formats["s2"] == Format(16, 16)
    assert program.tables["sigmoid"].input_width == 16
    assert not program.stochastic
    assert max(program.accumulators.values()) <= 40
    assert set(program.counters) >= {"a1.z", "a2.z", "p0", "p1", "p2", "p3"}


def test_one_bit_above_the_largest_magnitude() -> None:
    program, _, ranges = by_hand("iris-hidden", steps=20)
    integer = quantize(program, ranges, policy("16"))
    for name in ("p0", "p2", "x", "y", "g_p0", "g_p2"):
        bound = 2.0 ** (integer.formats[name].width - 1 - integer.formats[name].fraction)
        assert 2 * ranges.arrays[name] <= bound <= 4 * ranges.arrays[name], name


def test_what_predict_and_step_both_compute_has_the_same_bits() -> None:
    """The error of the linear model is, bit for bit, what predict says minus y."""
    program = integer_by_hand("iris-linear", steps=20)
    _, workload, _ = by_hand("iris-linear", steps=20)
    machine = Reference(program)
    machine.load(workload.initial_parameters(0))
    predicted = to_values(machine.predict(workload.x), program.formats["yhat"])
    machine.step(workload.x, workload.y)
    error = to_values(machine.words()["e"], program.formats["e"])
    assert np.abs(predicted - workload.y - error).max() <= 2.0 ** -(program.formats["e"].fraction + 1)
    z = program.kernels.programs["step"][0].writes[0].value
    narrow = program.kernels.programs["predict"][0].writes[0].value
    match z, narrow:
        case (
            Saturate(Round(Apply("subtract", (Shift(Saturate(in_step, width, _)), _)))),
            Saturate(in_predict, same_width, _),
        ):
            assert (in_step, width) == (in_predict, same_width)
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("numbers", POLICIES)
def test_programs_by_hand_in_both_kinds_of_update(numbers: str, power: bool) -> None:
    for program in (linear(3, 2, 2, 2.0**-7, power), hidden(3, 2, 2, 2, 2.0**-7, power)):
        integer, _, _ = quantized(program, *data(), numbers)
        check(integer)
        assert integer.stochastic == policy(numbers).stochastic


def test_the_worst_sum_fits_its_accumulator_and_needs_it() -> None:
    integer, _, _ = quantized(linear(3, 2, 2), *data())
    low = -(2**15)
    worst = 2 * low * low  # both products of two inputs at their least
    width = integer.accumulators["z"]
    assert worst < 2 ** (width - 1)
    assert worst >= 2 ** (width - 2)
    assert Interval(0, worst).width == width


@pytest.mark.parametrize(
    ("interval", "width"), [((0, 0), 1), ((-1, 0), 1), ((0, 1), 2), ((-128, 127), 8), ((-129, 0), 9), ((0, 128), 9)]
)
def test_interval_widths(interval: tuple[int, int], width: int) -> None:
    assert Interval(*interval).width == width


@pytest.mark.parametrize("rate", [1e-12, 1e-7, 3e-3, 0.7])
def test_the_learning_rate_never_becomes_zero(rate: float) -> None:
    integer, _, _ = quantized(linear(3, 2, 2, rate), *data())
    match integer.kernels.programs["step"][-1].body:
        case Apply("multiply", (Constant(word), _)):
            assert 2**14 <= word < 2**15
        case other:
            raise AssertionError(other)


def test_a_power_of_two_in_an_epilogue_moves_the_binary_point_alone() -> None:
    program = hidden(3, 2, 2, 2)
    step = list(program.programs["step"])
    error, *rest = step[1].writes
    scaled = replace(error, value=Apply("multiply", (Constant(2.0**-3), error.value)))
    step[1] = replace(step[1], writes=(scaled, *rest))
    x, y = data()
    integer, workload, _ = quantized(replace(program, programs={**program.programs, "step": tuple(step)}), x, y)
    machine = Reference(integer)
    machine.load(workload.initial_parameters(0))
    predicted = to_values(machine.predict(x), integer.formats["yhat"])
    machine.step(x, y)
    assert np.abs(to_values(machine.words()["e"], integer.formats["e"]) - (predicted - y) / 8).max() < 2.0**-14


def test_a_table_array_has_one_format() -> None:
    program = hidden(3, 2, 2, 2)
    [first, second] = program.programs["predict"]
    [write] = first.writes
    scaled = replace(write, value=Apply("multiply", (Constant(0.5), write.value)))
    programs = {**program.programs, "predict": (replace(first, writes=(scaled,)), second)}
    with pytest.raises(UnsupportedError, match="expect one fraction for a1, found 15 and 16"):
        quantized(replace(program, programs=programs), *data())


# --- degenerate ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", POLICIES)
def test_data_of_zeros(numbers: str) -> None:
    integer, workload, _ = quantized(hidden(3, 2, 2, 2), np.zeros((3, 2)), np.zeros((3, 2)), numbers)
    machine = Reference(integer)
    machine.load(workload.initial_parameters(0))
    machine.step(*workload.batch(0))
    assert not any(machine.saturations.values())


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_tiny_and_huge_data_keep_their_relative_precision(scale: float) -> None:
    x, y = data(scale=scale)
    integer, workload, _ = quantized(linear(3, 2, 2, rate=1e-3 / scale**2), x, y)
    words = Reference(integer).words_of("x", workload.x)
    assert np.abs(to_values(words, integer.formats["x"]) - workload.x).max() < scale * 2.0**-14


def test_data_beyond_what_a_table_resolves_are_refused() -> None:
    program = hidden(3, 2, 2, 2, rate=1e-9)
    workload = HandWorkload(program, *data(scale=1e9), name="far")
    ranges = calibrate(program, workload, 2)
    ranges.arrays["p0"] = 1e4
    with pytest.raises(CapacityError, match=r"kernel a1: .* scale the data"):
        quantize(program, ranges, policy("16"))


def test_a_bias_finer_than_its_sum_takes_the_scale_of_the_sum() -> None:
    program = hidden(3, 2, 2, 2)
    workload = HandWorkload(program, *data(), name="fine bias")
    ranges = calibrate(program, workload, 3)
    ranges.arrays["p1"] = 1e-6
    integer = quantize(program, ranges, policy("16"))
    match integer.kernels.programs["step"][0].writes[0].value.argument.argument.argument:  # type: ignore[union-attr]
        case Apply("add", (Reduced(), Shift(Read(Access("p1")), up))):
            assert up == 0
        case other:
            raise AssertionError(other)


def test_diverging_training_is_refused() -> None:
    with np.errstate(all="ignore"), pytest.raises(ModelError, match="lower the learning rate"):
        quantized(linear(3, 2, 2, rate=1e20), *data(), steps=10)


def test_advice_where_updates_vanish() -> None:
    program = linear(3, 2, 2, rate=1e-7)
    integer, _, ranges = quantized(program, *data())
    [warning] = advice(program, ranges, integer)
    assert warning.startswith("parameter p0: its largest update")
    assert advice(program, ranges, quantize(program, ranges, policy("small"))) == []
    program = linear(3, 2, 2, rate=1e-2)
    integer, _, ranges = quantized(program, *data())
    assert advice(program, ranges, integer) == []
    fused = linear(3, 2, 2, rate=2.0**-24, power=True)
    integer, _, ranges = quantized(fused, *data())
    assert len(advice(fused, ranges, integer)) == 1


def test_an_epilogue_of_no_known_form_is_refused_by_name() -> None:
    program = linear(3, 2, 2)
    [kernel, *rest] = program.programs["step"]
    value = Apply("sigmoid", (Apply("sigmoid", (Reduced(),)),))
    odd = replace(kernel, writes=(replace(kernel.writes[0], value=value),))
    program = replace(program, programs={**program.programs, "step": (odd, *rest)})
    text = r"^kernel z: .* a function of a sum, found sigmoid\[narrow\(r\)\]; "
    with pytest.raises(UnsupportedError, match=text) as refused:
        quantized(program, *data())
    assert "\n" not in str(refused.value)


# --- the checker ------------------------------------------------------------------------------------------------


def change_kernel(index: int, change: Callable[[Kernel], Kernel]) -> Callable[[IntegerProgram], IntegerProgram]:
    def apply(program: IntegerProgram) -> IntegerProgram:
        step = list(program.kernels.programs["step"])
        step[index] = change(step[index])
        programs = {**program.kernels.programs, "step": tuple(step)}
        return replace(program, kernels=replace(program.kernels, programs=programs))

    return apply


def with_value(kernel: Kernel, value: Any) -> Kernel:
    return replace(kernel, writes=(replace(kernel.writes[0], value=value),))


BREAKS: dict[str, Callable[[IntegerProgram], IntegerProgram]] = {
    "a missing format": lambda p: replace(p, formats={k: v for k, v in p.formats.items() if k != "e"}),
    "too narrow an accumulator": lambda p: replace(p, accumulators={**p.accumulators, "z": p.accumulators["z"] - 1}),
    "too wide an accumulator": lambda p: replace(p, accumulators={**p.accumulators, "z": p.accumulators["z"] + 1}),
    "a counter that nothing counts": lambda p: replace(p, counters=(*p.counters, "other")),
    "a counter left out": lambda p: replace(p, counters=p.counters[1:]),
    "draws that don't occur": lambda p: replace(p, stochastic=True),
    "an operand wider than the multiplier": lambda p: replace(p, multiplier=15),
    "a store wider than its array": lambda p: replace(p, formats={**p.formats, "e": Format(12, 10)}),
    "a constant wider than the multiplier": change_kernel(
        2,
        lambda k: replace(k, body=Apply("multiply", (Constant(2**15), k.body.arguments[1]))),  # type: ignore
    ),
    "a float constant": change_kernel(
        2,
        lambda k: replace(k, body=Apply("multiply", (Constant(0.5), k.body.arguments[1]))),  # type: ignore
    ),
    "a sum stored without narrowing": change_kernel(1, lambda k: with_value(k, Reduced())),
    "a narrowing that is not counted": change_kernel(
        1,
        lambda k: with_value(k, replace(k.writes[0].value, counter=None)),  # type: ignore
    ),
    "an update of another word": change_kernel(
        2,
        lambda k: with_value(
            k,
            Saturate(Apply("subtract", (k.writes[0].value.argument.arguments[0], Reduced())), 24, "p0"),  # type: ignore
        ),
    ),
    "a shift beyond 64 bits": change_kernel(
        2,
        lambda k: with_value(
            k,
            Saturate(
                Apply("subtract", (k.writes[0].value.argument.arguments[0], Shift(Reduced(), 40))),  # type: ignore
                24,
                "p0",
            ),
        ),
    ),
    "a max": change_kernel(1, lambda k: replace(k, reduction="max")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_checker_refuses(name: str) -> None:
    program = integer_by_hand("iris-linear", steps=5)
    check(program)
    broken = BREAKS[name](program)
    with pytest.raises(IllegalKernelError):
        check(broken)


def test_the_checker_refuses_draws_of_another_parameter() -> None:
    program = integer_by_hand("iris-hidden", "small", steps=5)

    def shifted(kernel: Kernel) -> Kernel:
        match kernel.writes[0].value:
            case Saturate(Apply("subtract", (old, Round(argument, shift, draw))), width, counter) if draw:
                off = Round(argument, shift, replace(draw, offset=draw.offset + 1))
                return with_value(kernel, Saturate(Apply("subtract", (old, off)), width, counter))
        raise AssertionError(kernel)

    with pytest.raises(IllegalKernelError, match="no known form"):
        check(change_kernel(-1, shifted)(program))


def test_errors_are_of_the_one_family() -> None:
    assert issubclass(IllegalKernelError, CatgradError)
