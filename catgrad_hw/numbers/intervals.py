"""Exact intervals of integer expressions: which values a word or an accumulator can take.

They follow from the formats alone, not from data, so that a width derived from them is proven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.kernel import (
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
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.units import Function, results


@dataclass(frozen=True)
class Interval:
    """All integers from ``low`` to ``high``."""

    low: int
    high: int

    def __or__(self, other: Interval) -> Interval:
        return Interval(min(self.low, other.low), max(self.high, other.high))

    @property
    def width(self) -> int:
        """The least width in bits, two's complement, that holds the interval."""
        return max(self.high.bit_length(), (~self.low).bit_length() if self.low < 0 else 0) + 1

    @property
    def largest(self) -> int:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


ZERO = Interval(0, 0)


def stores(kernel: Kernel) -> tuple[Write | SideSum, ...]:
    """Everything that a kernel stores: its writes, then its side sums."""
    return (*kernel.writes, *kernel.side_sums)


def of_expression(
    expression: Expression,
    arrays: Mapping[str, Interval],
    tables: Mapping[str, Function],
    reduced: Interval = ZERO,
) -> Interval:
    """The interval of an expression, given those of the arrays' words and of ``Reduced()``."""

    def of(e: Expression) -> Interval:
        match e:
            case Read(access):
                return arrays[access.array] | ZERO if access.bounds else arrays[access.array]
            case Constant(value):
                return Interval(int(value), int(value))
            case Reduced():
                return reduced
            case Shift(argument, amount):
                a = of(argument)
                return Interval(a.low << amount, a.high << amount)
            case Round(argument, shift, draw):
                a = of(argument)
                if shift == 0:
                    return a
                if draw is None:
                    half = 1 << (shift - 1)
                    return Interval((a.low + half) >> shift, (a.high + half) >> shift)
                return Interval(a.low >> shift, (a.high + (1 << shift) - 1) >> shift)
            case Saturate(argument, width):
                a, (low, high) = of(argument), limits(width)
                return Interval(min(max(a.low, low), high), min(max(a.high, low), high))
            case Lookup(table, argument):
                return _of_function(tables[table])
            case Apply("select", (condition, left, right)):
                a, b = of(left), of(right)
                if condition == left:  # positive where it is taken
                    a = Interval(max(a.low, 0), max(a.high, 0))
                return a | b
            case Apply("equal", _):
                return Interval(0, 1)
            case Apply(operation, (left, right)):
                a, b = of(left), of(right)
                if operation == "add":
                    return Interval(a.low + b.low, a.high + b.high)
                if operation == "subtract":
                    return Interval(a.low - b.high, a.high - b.low)
                if operation == "multiply":
                    corners = [p * q for p in (a.low, a.high) for q in (b.low, b.high)]
                    return Interval(min(corners), max(corners))
        raise UnsupportedError(f"interval: expected an integer expression, found {e}")

    return of(expression)


def of_sum(term: Interval, count: int) -> Interval:
    """The interval of a sum of up to ``count`` terms: samples beyond the data add nothing."""
    return Interval(min(0, term.low * count), max(0, term.high * count))


def of_reduced(kernel: Kernel, arrays: Mapping[str, Interval], tables: Mapping[str, Function]) -> Interval:
    """The interval of the kernel's main reduction, or of its body where nothing is reduced."""
    body = of_expression(kernel.body, arrays, tables)
    if kernel.reduction in (None, "max"):
        return body
    count = prod(loop.size for loop in kernel.loops[len(kernel.loops) - kernel.reduced :])
    return of_sum(body, count) if kernel.reduction == "sum" else Interval(0, count - 1)


def of_side_sum(kernel: Kernel, side: int, arrays: Mapping[str, Interval], tables: Mapping[str, Function]) -> Interval:
    """The interval of the ``side``-th side sum of the kernel."""
    side_sum = kernel.side_sums[side]
    source = kernel.writes[side_sum.source].value
    term = of_expression(source, arrays, tables, of_reduced(kernel, arrays, tables))
    return of_sum(term, prod(loop.size for loop in kernel.loops if loop.name in side_sum.over))


def accumulator_intervals(
    kernel: Kernel, arrays: Mapping[str, Interval], tables: Mapping[str, Function]
) -> dict[str, Interval]:
    """By accumulator name: the interval of its final sum, bias included.

    The main accumulator has the kernel's name; that of the i-th side sum ``NAME.side_i``.
    """

    def with_bias(expression: Expression, total: Interval) -> Interval:
        match expression:
            case Apply("add", (Reduced(), _)):
                return total | of_expression(expression, arrays, tables, total)
            case Apply(_, arguments):
                found = total
                for argument in arguments:
                    found |= with_bias(argument, total)
                return found
            case Shift(argument) | Round(argument) | Saturate(argument) | Lookup(_, argument):
                return with_bias(argument, total)
            case _:
                return total

    total = of_reduced(kernel, arrays, tables)
    result = {kernel.name: total}
    for write in kernel.writes:
        result[kernel.name] |= with_bias(write.value, total)
    for i in range(len(kernel.side_sums)):
        result[f"{kernel.name}.side_{i}"] = of_side_sum(kernel, i, arrays, tables)
    return result


def word_intervals(
    program: KernelProgram, formats: Mapping[str, Format], tables: Mapping[str, Function]
) -> dict[str, Interval]:
    """The interval of the words of every array: of its format, or narrower where all its writes are; 0 included.

    Parameters, inputs and targets come from outside and can hold every word of their format.
    """
    result = {
        name: Interval(*limits(formats[name].width))
        for name, array in program.arrays.items()
        if array.role in ("parameter", "input", "target")
    }
    outside = set(result)
    for kernels in program.programs.values():
        for kernel in kernels:
            found = [
                (write.access.array, of_expression(write.value, result, tables, of_reduced(kernel, result, tables)))
                for write in kernel.writes
            ] + [
                (side.access.array, of_expression(side.value, result, tables, of_side_sum(kernel, i, result, tables)))
                for i, side in enumerate(kernel.side_sums)
            ]
            for name, interval in found:
                if name not in outside:
                    result[name] = result.get(name, ZERO) | interval
    return result


def _of_function(function: Function) -> Interval:
    found = results(function)
    return Interval(int(found.min()), int(found.max()))
