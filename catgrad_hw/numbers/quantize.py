"""From float kernels to integer kernels: every narrowing explicit, every constant an integer.

Each expression is turned into an integer one with the number of its fraction bits. The forms that come out are those
that the machine has (:mod:`catgrad_hw.numbers.check` states them):

* operands of a body: words of at most the multiplier's width; of a wider array (a master weight), the compute copy
  ``saturate(round(word, k), multiplier)``; the mantissa of a constant;
* an accumulator: the reduced value, plus a bias at the accumulator's scale;
* a narrowing: ``saturate(round(accumulator, s), width)``, stored or looked up by a function;
* a difference: ``saturate(round((v << k1) - (y << k2), s), width)``;
* a mask: ``select(condition, value, value)``, before its narrowing where a value is a sum; a condition is the sign of
  a word or a sum, or ``equal(word, position)``;
* a maximum, or its place: the reduced word as it is;
* an update: ``saturate(w - round(accumulator, s), width)``, or, of an optimizer's state, a narrowing.

Fractions are chosen so that all these shifts are >= 0: where calibration asks for a finer format than the sum it is
rounded from, the array takes the sum's.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import floor, frexp, ldexp, prod
from typing import Literal

from catgrad_hw.errors import CapacityError, ModelError, UnsupportedError
from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Constant,
    Expression,
    Kernel,
    KernelProgram,
    Lookup,
    Position,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
    SideSum,
    Write,
)
from catgrad_hw.ir.kernel_check import reads, subexpressions
from catgrad_hw.ir.kernel_print import brief
from catgrad_hw.numbers.calibrate import Ranges
from catgrad_hw.numbers.check import check
from catgrad_hw.numbers.formats import Policy, fitting, mantissa
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.intervals import Interval, accumulator_intervals, stores, word_intervals
from catgrad_hw.numbers.tables import (
    Table,
    sigmoid_derivative_table,
    sigmoid_table,
    tanh_derivative_table,
    tanh_table,
)
from catgrad_hw.numbers.units import Unit, exponential, inverse_root

SMALLEST_RANGE = 2.0**-24
"""Arrays that stay below get the format of this magnitude: finer words would only widen shifts and sums."""

TABLES = {
    "sigmoid": sigmoid_table,
    "sigmoid_derivative": sigmoid_derivative_table,
    "tanh": tanh_table,
    "tanh_derivative": tanh_derivative_table,
}
"""Functions that are one table, by the name that an epilogue gives them."""

DECAY_BITS = 8
"""Bits below those of a gradient that a decayed state keeps where a draw rounds it again: rounded to nearest first, a
state of a few last bits would never decay."""

GREATEST_WIDTH = 32
"""Bits of a format that a user may choose."""

GREATEST_SHIFT = 60
"""Bits: the furthest that a rounding moves, so that the integer reference is exact in 64 bits."""


def quantize(
    program: KernelProgram, ranges: Ranges, policy: Policy, formats: Mapping[str, Format] | None = None
) -> IntegerProgram:
    """The integer program of ``program`` in the formats that ``policy`` and ``ranges`` give, or ``formats`` by array.

    Raises :class:`ModelError` for a format that its array cannot have, :class:`UnsupportedError` for a kernel that is
    of no form above, and :class:`CapacityError` where numbers are too far apart for the widths.
    """
    finest: dict[str, int] = {}
    while True:  # a bias may be no finer than the sums that it joins, which are known once kernels were seen
        quantizer = _Quantizer(program, ranges, policy, finest, formats or {})
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
class _Site:
    """Where an expression stands: what Reduced is there, and how large each part of it was seen to be."""

    kernel: Kernel
    reduced: _Term
    largest: Callable[[Expression], float]

    @property
    def name(self) -> str:
        return self.kernel.name


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
    """One pass over all kernels in order. ``finest`` are upper bounds on arrays' fractions, lowered for the next."""

    def __init__(
        self,
        program: KernelProgram,
        ranges: Ranges,
        policy: Policy,
        finest: dict[str, int],
        given: Mapping[str, Format],
    ) -> None:
        self.program, self.ranges, self.policy, self.given = program, ranges, policy, given
        self._check_given()
        self.bounds, self.finest = finest, dict(finest)
        self.formats: dict[str, Format] = {}
        self.tables: dict[str, Table] = {}
        self.units: dict[str, Unit] = {}
        self.forward = {store.access.array for kernel in program.programs["predict"] for store in stores(kernel)}
        # What a step makes of the optimizer's state alone, to add the gradient to it.
        self.decayed = {
            store.access.array
            for kernel in program.programs["step"]
            for store in stores(kernel)
            if program.arrays[store.access.array].role == "intermediate"
            and kernel.reduction is None
            and (read := {access.array for access in reads(kernel.body)})
            and read <= set(program.states)
        }
        self.first_parameter: dict[str, int] = {}
        words = 0
        for name in program.parameters:
            self.first_parameter[name] = words
            words += prod(program.arrays[name].shape)

    def run(self) -> IntegerProgram:
        policy, states = self.policy, self.program.states
        for names, width, headroom in (
            (tuple(p for p in self.program.parameters if p not in states), policy.master, policy.headroom),
            (states, policy.gradient, policy.headroom),
            (self.program.inputs + self.program.targets, policy.activation, policy.data_headroom),
        ):
            for name in names:
                form = _fitting(width, self.ranges.arrays.get(name, 0.0), headroom)
                self.formats[name] = self.given.get(name) or self._capped(name, form)
        programs = {
            name: tuple(self._kernel(kernel) for kernel in kernels) for name, kernels in self.program.programs.items()
        }
        kernels = replace(self.program, programs=programs)
        for name in self.program.arrays:  # arrays that no kernel touches still have a format
            self.formats.setdefault(name, Format(self.policy.activation, self.policy.activation - 2))
        functions = {**self.tables, **self.units}
        intervals = word_intervals(kernels, self.formats, functions)
        accumulators: dict[str, int] = {}
        for kernel in (kernel for each in programs.values() for kernel in each):
            for accumulator, interval in accumulator_intervals(kernel, intervals, functions).items():
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
            units=self.units,
        )

    # --- kernels ---

    def _kernel(self, kernel: Kernel) -> Kernel:
        body, reduced = self._body(kernel)
        site = _Site(kernel, reduced, lambda expression: self.ranges.of(kernel, expression))
        writes = tuple(self._store(site, write) for write in kernel.writes)
        sides = []
        for i, side in enumerate(kernel.side_sums):
            source = self.formats[kernel.writes[side.source].access.array].fraction
            site = _Site(kernel, _Term(Reduced(), source, "sum"), self._of_side_sum(kernel, i))
            stored = self._store(site, Write(side.access, side.value))
            sides.append(replace(side, value=stored.value))
        return replace(kernel, body=body, writes=writes, side_sums=tuple(sides))

    def _of_side_sum(self, kernel: Kernel, i: int) -> Callable[[Expression], float]:
        """What calibration saw of a side sum: of Reduced, and of what is stored."""
        side = kernel.side_sums[i]
        seen = {side.value: self.ranges.arrays.get(side.access.array, 0.0)}
        seen[Reduced()] = self.ranges.side_sums.get((kernel.name, i), 0.0)
        return lambda expression: seen.get(expression, 0.0)

    def _body(self, kernel: Kernel) -> tuple[Expression, _Term]:
        """The integer body, and what is reduced."""
        match kernel.body:
            case Read(access) if kernel.reduction == "max":
                form = self._format(kernel, access.array)
                return kernel.body, _Term(Reduced(), form.fraction, "word", form.width)
            case Read() if kernel.reduction == "argmax":
                count = prod(loop.size for loop in kernel.loops[len(kernel.loops) - kernel.reduced :])
                return kernel.body, _Term(Reduced(), 0, "word", Interval(0, count - 1).width)
            case Read() if kernel.reduction in (None, "sum"):
                body, fraction = self._operand(kernel, kernel.body)
                return body, _Term(Reduced(), fraction, "sum")
            case Constant(0) if kernel.reduction is None:
                return Constant(0), _Term(Reduced(), GREATEST_SHIFT // 2, "sum")
            case Apply("multiply", (left, right)) if kernel.reduction in (None, "sum"):
                a, fraction_a = self._operand(kernel, left)
                b, fraction_b = self._operand(kernel, right)
                return Apply("multiply", (a, b)), _Term(Reduced(), fraction_a + fraction_b, "sum")
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

    def _store(self, site: _Site, write: Write) -> Write:
        """The integer write."""
        kernel, name = site.kernel, write.access.array
        if self.program.arrays[name].role == "parameter":
            return replace(write, value=self._update(site, write))
        term = self._term(site, write.value)
        if term.kind == "word":
            if isinstance(term.expression, Read):
                raise self._unsupported(kernel, "an epilogue of the reduced value", write.value)
            if name in self.given:
                raise ModelError(
                    f"format of {name}: expected an array that a sum is rounded to, found one whose words are those of "
                    f"a function, a maximum or another array, {term.width}.{term.fraction}; leave {name} out"
                )
            self._set_format(kernel, name, Format(term.width, term.fraction))
            return replace(write, value=term.expression)
        if name in self.given:
            self._set_given(name, term)
            return replace(write, value=self._narrow(kernel, term, self.formats[name], name))
        if kernel.body == Constant(0) and name in self.formats:  # zeros around the entries suit any format
            return replace(write, value=self._narrow(kernel, term, self.formats[name], name))
        form = self._capped(name, _fitting(self._width(name), site.largest(write.value), self.policy.headroom))
        self._set_format(kernel, name, Format(form.width, min(form.fraction, term.fraction)))
        return replace(write, value=self._narrow(kernel, term, self.formats[name], name))

    def _width(self, name: str) -> int:
        if name in self.decayed and self.policy.stochastic:
            return self.policy.gradient + DECAY_BITS
        return self.policy.activation if name in self.forward else self.policy.gradient

    def _update(self, site: _Site, write: Write) -> Expression:
        """A parameter less a change, or an optimizer's state anew."""
        kernel, name = site.kernel, write.access.array
        form = self.formats[name]
        match write.value:
            case Apply("subtract", (Read(access) as old, gradient)) if access == write.access:
                change = self._rounded(kernel, write.access, self._term(site, gradient))
                return Saturate(Apply("subtract", (old, change)), form.width, name)
            case value if name in self.program.states:
                term = self._term(site, value)
                if term.fraction < form.fraction:
                    self._lower(name, term.fraction)
                return Saturate(self._rounded(kernel, write.access, term), form.width, name)
        raise self._unsupported(kernel, "an update that subtracts from its own word", write.value)

    def _rounded(self, kernel: Kernel, access: Access, term: _Term) -> Expression:
        """A sum at the scale of the parameter that is written; by a draw where the policy has it so."""
        name = access.array
        if term.kind != "sum":
            raise self._unsupported(kernel, "an update by the reduced value", term.expression)
        shift = term.fraction - self.formats[name].fraction
        if shift < 0:
            return Shift(term.expression, -shift)
        self._check_shift(kernel, name, shift)
        if self.policy.stochastic and shift > 0:
            draw = Access(name, self.first_parameter[name] + access.offset, access.strides)
            return Round(term.expression, shift, draw)
        return Round(term.expression, shift)

    def _term(self, site: _Site, expression: Expression) -> _Term:
        kernel = site.kernel
        match expression:
            case Reduced():
                return site.reduced
            case Read(access):
                form = self._format(kernel, access.array)
                return _Term(expression, form.fraction, "word", form.width)
            case Apply("add", (Reduced(), Read(access) as bias)) | Apply("add", (Read(access) as bias, Reduced())):
                fraction = site.reduced.fraction
                up = fraction - self._format(kernel, access.array).fraction
                if up < 0:
                    self._lower(access.array, fraction)
                return _Term(Apply("add", (Reduced(), Shift(bias, max(up, 0)))), fraction, "sum")
            case Apply("multiply", (Constant(factor), inner)) | Apply("multiply", (inner, Constant(factor))):
                if factor <= 0 or not is_power_of_two(factor):
                    raise self._unsupported(kernel, "factors in an epilogue that are powers of two", expression)
                term = self._term(site, inner)
                return replace(term, fraction=term.fraction - (frexp(factor)[1] - 1))
            case Apply(function, (inner,)) if function in TABLES:
                return self._lookup(site, function, self._term(site, inner))
            case Apply("exp", (inner,)):
                return self._exponential(site, inner)
            case Apply("divide", (Constant(1), Apply("sqrt", (inner,)))):
                return self._inverse_root(site, expression, inner, 2)
            case Apply("divide", (Constant(1), inner)):
                return self._inverse_root(site, expression, inner, 1)
            case Apply("select", (condition, left, right)):
                return self._select(site, condition, left, right)
            case Apply("equal", (left, Position() as place)):
                term = self._term(site, left)
                if (term.kind, term.fraction) in (("word", 0), ("sum", 0)):
                    return _Term(Apply("equal", (term.expression, place)), 0, "word", 2)
            case Apply("subtract", (left, right)):
                a = self._word(site, left, self._term(site, left))
                b = self._term(site, right)
                if b.kind == "word" and isinstance(b.expression, Read):
                    common = max(a.fraction, b.fraction)
                    shifted = (Shift(t.expression, common - t.fraction) for t in (a, b))
                    return _Term(Apply("subtract", tuple(shifted)), common, "sum")
        expected = "an epilogue of bias, function, mask, difference and power-of-two factor"
        raise self._unsupported(kernel, expected, expression)

    def _select(self, site: _Site, condition: Expression, left: Expression, right: Expression) -> _Term:
        """A mask: of words of one format, or of sums at one scale; constants take theirs from the other value."""
        terms = [None if isinstance(value, Constant) else self._term(site, value) for value in (left, right)]
        found = [term for term in terms if term is not None]
        if not found:
            raise self._unsupported(site.kernel, "a mask of a value that is computed", Apply("select", (left, right)))
        if terms[0] == terms[1]:
            return found[0]
        fraction = max(term.fraction for term in found)
        aligned = all(term.fraction == fraction for term in found)
        word = aligned and all(term.kind == "word" for term in found)
        values: list[Expression] = []
        for value, term in zip((left, right), terms, strict=True):
            if term is None:
                assert isinstance(value, Constant)
                scaled = floor(ldexp(float(value.value), fraction) + 0.5)
                word = word and scaled == 0
                values.append(Constant(scaled))
            else:
                values.append(term.expression if aligned else Shift(term.expression, fraction - term.fraction))
        expression = Apply("select", (self._term(site, condition).expression, *values))
        width = max(term.width for term in found)
        return _Term(expression, fraction, "word", width) if word else _Term(expression, fraction, "sum")

    def _lookup(self, site: _Site, function: str, z: _Term) -> _Term:
        kernel = site.kernel
        if z.kind != "sum":
            raise self._unsupported(kernel, "a function of a sum", z.expression)
        usual = self.policy.preactivation
        form = Format(usual.width, min(usual.fraction, z.fraction))
        if form.fraction < 0:
            raise CapacityError(
                f"kernel {kernel.name}: expected an argument of {function} with at least 0 fraction bits, found "
                f"{form.fraction}; scale the data to magnitudes near 1, or lower the learning rate"
            )
        name = function if form == usual else f"{function}_{form.fraction}"
        result = self.policy.sigmoid_derivative if function == "sigmoid_derivative" else self.policy.sigmoid
        self.tables[name] = TABLES[function](name, form, result)
        narrow = self._narrow(kernel, z, form, f"{kernel.name}.z")
        return _Term(Lookup(name, narrow), result.fraction, "word", result.width)

    def _exponential(self, site: _Site, argument: Expression) -> _Term:
        match argument, site.kernel:
            case Apply("subtract", (Reduced(), Read() as least)), Kernel(body=Read(), reduction=None):
                # Of a word as it is, which needs no narrowing of its own.
                a, b = site.reduced, self._term(site, least)
                common = max(a.fraction, b.fraction)
                shifted = (Shift(t.expression, common - t.fraction) for t in (a, b))
                z = _Term(Apply("subtract", tuple(shifted)), common, "sum")
            case _:
                z = self._term(site, argument)
        if z.kind != "sum":
            raise self._unsupported(site.kernel, "exp of a sum", z.expression)
        usual, result = self.policy.exponent, self.policy.exponential
        form = Format(usual.width, min(usual.fraction, z.fraction))
        if form.fraction < 0:
            raise CapacityError(
                f"kernel {site.name}: expected an argument of exp with at least 0 fraction bits, found "
                f"{form.fraction}; scale the data to magnitudes near 1, or lower the learning rate"
            )
        name = "exp" if form == usual else f"exp_{form.fraction}"
        self.units[name] = exponential(name, form, result)
        narrow = self._narrow(site.kernel, z, form, f"{site.name}.z")
        return _Term(Lookup(name, narrow), result.fraction, "word", result.width)

    def _inverse_root(self, site: _Site, whole: Expression, argument: Expression, root: Literal[1, 2]) -> _Term:
        """1/x or 1/√x, in the formats of the ranges that calibration saw."""
        x = self._term(site, argument)
        if x.kind != "sum":
            raise self._unsupported(site.kernel, "a reciprocal of a sum", x.expression)
        width = max(self.policy.activation, self.policy.gradient)
        form = _fitting(width, site.largest(argument), self.policy.headroom)
        form = Format(width, min(form.fraction, x.fraction))
        result = _fitting(width, site.largest(whole), self.policy.headroom)
        name = f"{'reciprocal' if root == 1 else 'rsqrt'}_{site.name}"
        self.units[name] = inverse_root(name, form, result, root)
        narrow = self._narrow(site.kernel, x, form, f"{site.name}.x")
        return _Term(Lookup(name, narrow), result.fraction, "word", result.width)

    def _word(self, site: _Site, float_form: Expression, term: _Term) -> _Term:
        """A term as a word: a sum is narrowed to an activation of the range that calibration saw."""
        if term.kind == "word":
            return term
        form = _fitting(self.policy.activation, site.largest(float_form), self.policy.headroom)
        form = Format(form.width, min(form.fraction, term.fraction))
        return _Term(self._narrow(site.kernel, term, form, f"{site.name}.z"), form.fraction, "word", form.width)

    def _narrow(self, kernel: Kernel, term: _Term, form: Format, counter: str) -> Expression:
        shift = max(term.fraction - form.fraction, 0)  # negative only before bounds have settled
        self._check_shift(kernel, counter, shift)
        return Saturate(Round(term.expression, shift), form.width, counter)

    # --- formats ---

    def _capped(self, name: str, form: Format, *bounds: int) -> Format:
        return Format(form.width, min(form.fraction, self.finest.get(name, form.fraction), *bounds))

    def _check_given(self) -> None:
        arrays = self.program.arrays
        for name, form in self.given.items():
            if name not in arrays:
                close = difflib.get_close_matches(name, arrays, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise ModelError(f"format of {name}: expected one of {', '.join(arrays)}, found no such array{hint}")
            if not 2 <= form.width <= GREATEST_WIDTH or abs(form.fraction) > GREATEST_SHIFT:
                raise ModelError(
                    f"format of {name}: expected 2 to {GREATEST_WIDTH} bits and a fraction within {GREATEST_SHIFT}, "
                    f"found {form.width}.{form.fraction}; change it"
                )

    def _set_given(self, name: str, term: _Term) -> None:
        """The format that a user chose for what a sum is rounded to."""
        form = self.given[name]
        if form.fraction > term.fraction:
            raise ModelError(
                f"format of {name}: expected at most {term.fraction} fraction bits, as the sum that is rounded to it "
                f"has, found {form.fraction}; take {form.width}.{term.fraction}"
            )
        self.formats[name] = form

    def _lower(self, name: str, fraction: int) -> None:
        if name in self.given:
            raise ModelError(
                f"format of {name}: expected at most {fraction} fraction bits, as the sum that it joins has, found "
                f"{self.given[name].fraction}; take {self.given[name].width}.{fraction}"
            )
        self.finest[name] = min(fraction, self.finest.get(name, fraction))

    def _set_format(self, kernel: Kernel, name: str, form: Format) -> None:
        known = self.formats.setdefault(name, form)
        if known.width != form.width:
            raise self._unsupported(kernel, f"one width for {name}", f"{known.width} and {form.width}")
        if known.fraction != form.fraction:
            fraction = min(known.fraction, form.fraction)
            if self.bounds.get(name, fraction + 1) <= fraction:  # a bound that didn't help
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

    def _unsupported(self, kernel: Kernel, expected: str, found: str | Expression) -> UnsupportedError:
        shown = found if isinstance(found, str) else brief(found)
        return UnsupportedError(
            f"kernel {kernel.name}: integer kernels expect {expected}, found {shown}; change the layer that makes it "
            "(catgrad-hw inspect prints the kernels), or train with a float target"
        )
