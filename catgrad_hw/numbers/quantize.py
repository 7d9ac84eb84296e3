"""From float kernels to integer kernels: every narrowing explicit, every constant an integer.

Each expression is turned into an integer one with the number of its fraction bits. The forms that come out are those
that the machine has (:mod:`catgrad_hw.numbers.check` states them):

* operands of a body: words of at most the multiplier's width; of a wider array (a master weight), the compute copy
  ``saturate(round(word, k), multiplier)``; the mantissa of a constant;
* an accumulator: the reduced value, plus a bias at the accumulator's scale;
* a narrowing: ``saturate(round(accumulator, s), width)``, stored or looked up in a table;
* an error: ``saturate(round((v << k1) - (y << k2), s), width)``;
* an update: ``saturate(w - round(accumulator, s), width)``.

Fractions are chosen so that all these shifts are >= 0: where calibration asks for a finer format than the sum it is
rounded from, the array takes the sum's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import frexp, prod
from typing import Literal

from catgrad_hw.errors import CapacityError, UnsupportedError
from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Constant,
    Expression,
    Kernel,
    KernelProgram,
    Lookup,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
    SideSum,
    Write,
)
from catgrad_hw.ir.kernel_check import subexpressions
from catgrad_hw.numbers.calibrate import Ranges
from catgrad_hw.numbers.check import check
from catgrad_hw.numbers.formats import Policy, fitting, mantissa
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.intervals import accumulator_intervals, stores, word_intervals
from catgrad_hw.numbers.tables import Table, sigmoid_derivative_table, sigmoid_table

SMALLEST_RANGE = 2.0**-24
"""Arrays that stay below get the format of this magnitude: finer words would only widen shifts and sums."""

GREATEST_SHIFT = 60
"""Bits: the furthest that a rounding moves, so that the integer reference is exact in 64 bits."""


def quantize(program: KernelProgram, ranges: Ranges, policy: Policy) -> IntegerProgram:
    """The integer program of ``program`` in the formats that ``policy`` and ``ranges`` give.

    Raises :class:`UnsupportedError` for a kernel that is of no form above, :class:`CapacityError` where numbers are
    too far apart for the widths.
    """
    finest: dict[str, int] = {}
    while True:  # a bias may be no finer than the sums that it joins, which are known once kernels were seen
        quantizer = _Quantizer(program, ranges, policy, finest)
        result = quantizer.run()
        if quantizer.finest == finest:
            check(result)
            return result
        finest = quantizer.finest


def advice(program: KernelProgram, ranges: Ranges, integer: IntegerProgram) -> list[str]:
    """Warnings in words: updates that are about to vanish (lr · max|g| < 2**6 · LSB of the parameter)."""
    result = []
    if not integer.stochastic:
        for kernel in program.programs["step"]:
            for target, reduced in _targets(kernel, ranges):
                match target.value:
                    case Apply("subtract", (Read(Access(name)), update)) if name in program.parameters:
                        lsb = 2.0 ** -integer.formats[name].fraction
                        largest = _largest(update, reduced)
                        if 0 < largest < 2**6 * lsb:
                            result.append(
                                f"parameter {name}: its largest update, {largest:.2g}, is less than 64 times its last "
                                f"bit, {lsb:.2g}: training may stall; use stochastic rounding or a wider master, or "
                                "raise the learning rate"
                            )
    return result


def _targets(kernel: Kernel, ranges: Ranges) -> list[tuple[Write | SideSum, float]]:
    """Writes and side sums, each with the largest value that Reduced had there."""
    main = ranges.of(kernel, Reduced())
    sides = [(side, ranges.side_sums.get((kernel.name, i), 0.0)) for i, side in enumerate(kernel.side_sums)]
    return [*((write, main) for write in kernel.writes), *sides]


def _largest(update: Expression, reduced: float) -> float:
    match update:
        case Apply("multiply", (Constant(factor), inner)) | Apply("multiply", (inner, Constant(factor))):
            return abs(factor) * _largest(inner, reduced)
    return reduced


def _fitting(width: int, largest: float, headroom: int) -> Format:
    return fitting(width, max(largest, SMALLEST_RANGE) if largest else 0.0, headroom)


@dataclass(frozen=True)
class _Term:
    """An integer expression that stands for ``expression * 2**-fraction``.

    A ``word`` is narrow (of ``width`` bits); a ``sum`` must be narrowed before it is stored or looked up.
    """

    expression: Expression
    fraction: int
    kind: Literal["word", "sum"]
    width: int = 0


class _Quantizer:
    """One pass over all kernels in order. ``finest`` are upper bounds on arrays' fractions, lowered on the way."""

    def __init__(self, program: KernelProgram, ranges: Ranges, policy: Policy, finest: dict[str, int]) -> None:
        self.program, self.ranges, self.policy = program, ranges, policy
        self.finest = dict(finest)
        self.formats: dict[str, Format] = {}
        self.tables: dict[str, Table] = {}
        self.forward = {store.access.array for kernel in program.programs["predict"] for store in stores(kernel)}
        self.first_parameter: dict[str, int] = {}
        words = 0
        for name in program.parameters:
            self.first_parameter[name] = words
            words += prod(program.arrays[name].shape)

    def run(self) -> IntegerProgram:
        policy = self.policy
        for names, width, headroom in (
            (self.program.parameters, policy.master, policy.headroom),
            (self.program.inputs + self.program.targets, policy.activation, policy.data_headroom),
        ):
            for name in names:
                form = _fitting(width, self.ranges.arrays.get(name, 0.0), headroom)
                self.formats[name] = self._capped(name, form)
        programs = {
            name: tuple(self._kernel(kernel) for kernel in kernels) for name, kernels in self.program.programs.items()
        }
        kernels = replace(self.program, programs=programs)
        for name in self.program.arrays:  # arrays that no kernel touches still have a format
            self.formats.setdefault(name, Format(self.policy.activation, self.policy.activation - 2))
        intervals = word_intervals(kernels, self.formats, self.tables)
        accumulators: dict[str, int] = {}
        for kernel in (kernel for each in programs.values() for kernel in each):
            for accumulator, interval in accumulator_intervals(kernel, intervals, self.tables).items():
                accumulators[accumulator] = max(interval.width, accumulators.get(accumulator, 0))
        stages = [
            part
            for each in programs.values()
            for kernel in each
            for store in stores(kernel)
            for part in subexpressions(store.value)
        ]
        return IntegerProgram(
            kernels=kernels,
            formats={name: self.formats[name] for name in self.program.arrays},
            tables=self.tables,
            multiplier=self.policy.multiplier,
            accumulators=accumulators,
            counters=tuple(
                dict.fromkeys(part.counter for part in stages if isinstance(part, Saturate) and part.counter)
            ),
            stochastic=any(isinstance(part, Round) and part.draw is not None for part in stages),
        )

    # --- kernels ---

    def _kernel(self, kernel: Kernel) -> Kernel:
        body, fraction = self._body(kernel)
        writes = tuple(
            self._store(kernel, write, fraction, self.ranges.of(kernel, write.value)) for write in kernel.writes
        )
        sides = []
        for side in kernel.side_sums:
            source = self.formats[kernel.writes[side.source].access.array].fraction
            largest = self.ranges.arrays.get(side.access.array, 0.0)
            stored = self._store(kernel, Write(side.access, side.value), source, largest)
            sides.append(replace(side, value=stored.value))
        return replace(kernel, body=body, writes=writes, side_sums=tuple(sides))

    def _body(self, kernel: Kernel) -> tuple[Expression, int]:
        match kernel.body:
            case Read() if kernel.reduction in (None, "sum"):
                return self._operand(kernel, kernel.body)
            case Apply("multiply", (left, right)) if kernel.reduction in (None, "sum"):
                a, fraction_a = self._operand(kernel, left)
                b, fraction_b = self._operand(kernel, right)
                return Apply("multiply", (a, b)), fraction_a + fraction_b
        raise self._unsupported(kernel, "a body that is a word or a product of two, summed or not", kernel.body)

    def _operand(self, kernel: Kernel, expression: Expression) -> tuple[Expression, int]:
        match expression:
            case Read(access):
                form = self._format(kernel, access.array)
                narrower = form.width - self.policy.multiplier
                if narrower <= 0:
                    return expression, form.fraction
                copy = Saturate(Round(expression, narrower), self.policy.multiplier)
                return copy, form.fraction - narrower
            case Constant(value):
                word, fraction = mantissa(value, self.policy.multiplier)
                return Constant(word), fraction
        raise self._unsupported(kernel, "operands that are words or constants", expression)

    # --- epilogues ---

    def _store(self, kernel: Kernel, write: Write, fraction: int, largest: float) -> Write:
        """The integer write; ``fraction`` is that of Reduced, ``largest`` the largest magnitude that is stored."""
        name = write.access.array
        if self.program.arrays[name].role == "parameter":
            return replace(write, value=self._update(kernel, write, fraction))
        term = self._term(kernel, write.value, fraction)
        if term.kind == "word":
            if isinstance(term.expression, Read):
                raise self._unsupported(kernel, "an epilogue of the reduced value", write.value)
            self._set_format(kernel, name, Format(term.width, term.fraction))
            return replace(write, value=term.expression)
        width = self.policy.activation if name in self.forward else self.policy.gradient
        form = self._capped(name, _fitting(width, largest, self.policy.headroom), term.fraction)
        self._set_format(kernel, name, form)
        return replace(write, value=self._narrow(kernel, term, self.formats[name], name))

    def _update(self, kernel: Kernel, write: Write, fraction: int) -> Expression:
        name = write.access.array
        match write.value:
            case Apply("subtract", (Read(access) as old, gradient)) if access == write.access:
                term = self._term(kernel, gradient, fraction)
            case _:
                raise self._unsupported(kernel, "an update that subtracts from its own word", write.value)
        if term.kind != "sum":
            raise self._unsupported(kernel, "an update by the reduced value", write.value)
        form = self.formats[name]
        shift = term.fraction - form.fraction
        change = term.expression
        if shift < 0:
            change = Shift(change, -shift)
        elif self.policy.stochastic and shift > 0:
            self._check_shift(kernel, name, shift)
            first = self.first_parameter[name]
            draw = Access(name, first + write.access.offset, write.access.strides)
            change = Round(change, shift, draw)
        else:
            self._check_shift(kernel, name, shift)
            change = Round(change, shift)
        return Saturate(Apply("subtract", (old, change)), form.width, name)

    def _term(self, kernel: Kernel, expression: Expression, fraction: int) -> _Term:
        match expression:
            case Reduced():
                return _Term(expression, fraction, "sum")
            case Read(access):
                form = self._format(kernel, access.array)
                return _Term(expression, form.fraction, "word", form.width)
            case Apply("add", (Reduced(), Read(access) as bias)) | Apply("add", (Read(access) as bias, Reduced())):
                up = fraction - self._format(kernel, access.array).fraction
                if up < 0:
                    self._lower(access.array, fraction)
                return _Term(Apply("add", (Reduced(), Shift(bias, max(up, 0)))), fraction, "sum")
            case Apply("multiply", (Constant(factor), inner)) | Apply("multiply", (inner, Constant(factor))):
                if factor <= 0 or not is_power_of_two(factor):
                    raise self._unsupported(kernel, "factors in an epilogue that are powers of two", expression)
                term = self._term(kernel, inner, fraction)
                return replace(term, fraction=term.fraction - (frexp(factor)[1] - 1))
            case Apply("sigmoid" | "sigmoid_derivative" as function, (inner,)):
                return self._lookup(kernel, function, self._term(kernel, inner, fraction))
            case Apply("subtract", (left, right)):
                a = self._word(kernel, left, self._term(kernel, left, fraction))
                b = self._term(kernel, right, fraction)
                if b.kind == "word" and isinstance(b.expression, Read):
                    common = max(a.fraction, b.fraction)
                    shifted = (Shift(t.expression, common - t.fraction) for t in (a, b))
                    return _Term(Apply("subtract", tuple(shifted)), common, "sum")
        raise self._unsupported(kernel, "an epilogue of bias, function, difference and power-of-two factor", expression)

    def _lookup(self, kernel: Kernel, function: str, z: _Term) -> _Term:
        if z.kind != "sum":
            raise self._unsupported(kernel, "a function of a sum", z.expression)
        usual = self.policy.preactivation
        form = Format(usual.width, min(usual.fraction, z.fraction))
        if form.fraction < 0:
            raise CapacityError(
                f"kernel {kernel.name}: expected an argument of {function} with at least 0 fraction bits, found "
                f"{form.fraction}; scale the data to magnitudes near 1"
            )
        name = function if form == usual else f"{function}_{form.fraction}"
        if function == "sigmoid":
            result = self.policy.sigmoid
            table = sigmoid_table(name, form, result)
        else:
            result = self.policy.sigmoid_derivative
            table = sigmoid_derivative_table(name, form, result)
        self.tables[name] = table
        narrow = self._narrow(kernel, z, form, f"{kernel.name}.z")
        return _Term(Lookup(name, narrow), result.fraction, "word", result.width)

    def _word(self, kernel: Kernel, float_form: Expression, term: _Term) -> _Term:
        """A term as a word: a sum is narrowed to an activation of the range that calibration saw."""
        if term.kind == "word":
            return term
        largest = self.ranges.of(kernel, float_form)
        form = _fitting(self.policy.activation, largest, self.policy.headroom)
        form = Format(form.width, min(form.fraction, term.fraction))
        return _Term(self._narrow(kernel, term, form, f"{kernel.name}.z"), form.fraction, "word", form.width)

    def _narrow(self, kernel: Kernel, term: _Term, form: Format, counter: str) -> Expression:
        shift = max(term.fraction - form.fraction, 0)  # negative only before bounds have settled
        self._check_shift(kernel, counter, shift)
        return Saturate(Round(term.expression, shift), form.width, counter)

    # --- formats ---

    def _capped(self, name: str, form: Format, *bounds: int) -> Format:
        return Format(form.width, min(form.fraction, self.finest.get(name, form.fraction), *bounds))

    def _lower(self, name: str, fraction: int) -> None:
        self.finest[name] = min(fraction, self.finest.get(name, fraction))

    def _set_format(self, kernel: Kernel, name: str, form: Format) -> None:
        known = self.formats.setdefault(name, form)
        if known.width != form.width:
            raise self._unsupported(kernel, f"one width for {name}", f"{known.width} and {form.width}")
        if known.fraction != form.fraction:
            fraction = min(known.fraction, form.fraction)
            if self.finest.get(name, fraction + 1) <= fraction:  # a bound that didn't help
                raise self._unsupported(kernel, f"one fraction for {name}", f"{known.fraction} and {form.fraction}")
            self._lower(name, fraction)

    def _format(self, kernel: Kernel, name: str) -> Format:
        if name not in self.formats:
            raise self._unsupported(kernel, "arrays to be written before they are read", name)
        return self.formats[name]

    # --- errors ---

    def _check_shift(self, kernel: Kernel, name: str, shift: int) -> None:
        if shift > GREATEST_SHIFT:
            raise CapacityError(
                f"kernel {kernel.name}: expected {name} within 2**{GREATEST_SHIFT} of the sum that it is rounded from, "
                f"found 2**{shift}; scale the data or raise the learning rate"
            )

    def _unsupported(self, kernel: Kernel, expected: str, found: object) -> UnsupportedError:
        return UnsupportedError(f"kernel {kernel.name}: integer kernels expect {expected}, found {found}")
