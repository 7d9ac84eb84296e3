"""The checker of integer programs: what the schedule, the machine and the reference rely on.

Broken rules raise :class:`~catgrad_hw.ir.kernel_check.IllegalKernelError`; they are faults of a pass, not of a
user's model.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from catgrad_hw.ir.kernel import (
    Apply,
    Constant,
    Expression,
    Kernel,
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
from catgrad_hw.ir.kernel_check import IllegalKernelError, check_structure, subexpressions
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.intervals import (
    Interval,
    accumulator_intervals,
    of_expression,
    of_reduced,
    of_side_sum,
    stores,
    word_intervals,
)
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.tables import Table

GREATEST_WIDTH = 64
"""Bits of every value on the way: what the integer reference computes exactly."""


def check(program: IntegerProgram) -> None:
    """Raise unless ``program`` is legal.

    * The kernels keep the rules of :func:`~catgrad_hw.ir.kernel_check.check_structure`.
    * Every array has a format; what is stored in it fits its width, whatever the data.
    * Bodies and epilogues are of the forms that :mod:`catgrad_hw.numbers.quantize` lists; both operands of a product
      fit the multiplier, and constants are below ``2**(multiplier - 1)``.
    * ``accumulators`` are the least widths that hold the final sums; no value on the way is wider than 64 bits.
    * ``counters`` lists each counter once, in order of occurrence; ``stochastic`` is true where a draw occurs.
    * Tables are as wide as their arguments, and draws are keyed by the flat index of the word that is updated.
    """
    check_structure(program.kernels)
    missing = [name for name in program.kernels.arrays if name not in program.formats]
    _require(not missing, "formats", f"no format for {missing}")
    for name, table in program.tables.items():
        _check_table(name, table)
    intervals = word_intervals(program.kernels, program.formats, program.functions)
    expected: dict[str, int] = {}
    counters: list[str] = []
    draws = False
    for kernels in program.kernels.programs.values():
        for kernel in kernels:
            _check_body(kernel, program, intervals)
            for name, interval in accumulator_intervals(kernel, intervals, program.functions).items():
                expected[name] = max(interval.width, expected.get(name, 0))
            total = of_reduced(kernel, intervals, program.functions)
            for i, store in enumerate(stores(kernel)):
                side = i - len(kernel.writes)
                reduced = total if side < 0 else of_side_sum(kernel, side, intervals, program.functions)
                _check_store(kernel, store, reduced, program, intervals)
                for part in subexpressions(store.value):
                    if isinstance(part, Saturate) and part.counter is not None and part.counter not in counters:
                        counters.append(part.counter)
                    draws |= isinstance(part, Round) and part.draw is not None
    _require(dict(program.accumulators) == expected, "accumulators", f"{program.accumulators}, derived: {expected}")
    _require(list(program.counters) == counters, "counters", f"listed are {program.counters}, found {counters}")
    _require(program.stochastic == draws, "stochastic", f"is {program.stochastic}, but draws occur: {draws}")


def _check_table(name: str, table: Table) -> None:
    _require(table.name == name, f"table {name}", f"is named {table.name}")
    _require(0 <= table.index_shift < table.input_width, f"table {name}", f"index shift {table.index_shift}")
    low, high = limits(table.output_width)
    results = [*table.entries, *(table.one - e for e in table.entries if table.symmetry == "complement")]
    _require(bool(table.entries), f"table {name}", "has no entries")
    _require(low <= min(results) and max(results) <= high, f"table {name}", f"leaves {table.output_width} bits")


def _check_body(kernel: Kernel, program: IntegerProgram, intervals: Mapping[str, Interval]) -> None:
    match kernel.body:
        case Apply("multiply", (left, right)):
            operands = [left, right]
        case _:
            operands = [kernel.body]
    picks = kernel.reduction in ("max", "argmax")
    _require(not picks or isinstance(kernel.body, Read), kernel.name, f"{kernel.reduction} of {kernel.body}")
    low, high = limits(program.multiplier)
    for operand in operands:
        match operand:
            case Constant(int()):
                pass
            case Read(access):
                width = program.formats[access.array].width
                _require(width <= program.multiplier, kernel.name, f"{access.array} of {width} bits as an operand")
            case Saturate(Round(Read(access), shift, None), width, None):
                excess = program.formats[access.array].width - program.multiplier
                copied = (shift, width) == (excess, program.multiplier) and excess > 0
                _require(copied, kernel.name, f"compute copy of {access.array} by {shift} to {width} bits")
            case _:
                _require(False, kernel.name, f"operand {operand}")
        interval = of_expression(operand, intervals, program.functions)
        _require(low <= interval.low and interval.high <= high, kernel.name, f"operand {operand} leaves the multiplier")


def _check_store(
    kernel: Kernel,
    store: Write | SideSum,
    reduced: Interval,
    program: IntegerProgram,
    intervals: Mapping[str, Interval],
) -> None:
    name = store.access.array
    width = program.formats[name].width

    def of(expression: Expression) -> Interval:
        return of_expression(expression, intervals, program.functions, reduced)

    update = program.kernels.arrays[name].role == "parameter"
    legal = _is_update(kernel, store, program) if update else _is_value(store.value, kernel, program)
    _require(legal, kernel.name, f"{name} is stored by an expression of no known form: {store.value}")
    for part in subexpressions(store.value):
        if isinstance(part, Position):
            continue
        intermediate = of(part)
        if isinstance(part, Round) and part.shift:
            argument = of(part.argument)
            # Before the shift, up to 2**shift is added.
            intermediate |= Interval(argument.low, argument.high + (1 << part.shift) - 1)
        _require(intermediate.width <= GREATEST_WIDTH, kernel.name, f"{name}: {intermediate.width} bits in {part}")
        if isinstance(part, Lookup):
            table = program.functions[part.table]
            exact = isinstance(part.argument, Saturate) and part.argument.width == table.input_width
            _require(exact, kernel.name, f"{name}: table {part.table} takes {table.input_width} bits")
    (low, high), found = limits(width), of(store.value)
    _require(low <= found.low and found.high <= high, kernel.name, f"{name} of {width} bits is given {found}")


def _is_sum(expression: Expression, kernel: Kernel, program: IntegerProgram) -> bool:
    """What may be narrowed: the accumulator, with a bias; a difference of words; either of them, masked."""
    match expression:
        case Reduced() | Apply("add", (Reduced(), Shift(Read(), _))):
            return True
        case Apply("subtract", (Shift(value, _), Shift(Read(), _))):
            return value == Reduced() or _is_value(value, kernel, program)
        case Apply("select", (condition, left, right)):
            return _is_condition(condition, kernel, program) and all(
                _is_masked(value, kernel, program) for value in (left, right)
            )
    return False


def _is_masked(expression: Expression, kernel: Kernel, program: IntegerProgram) -> bool:
    match expression:
        case Shift(argument, _):
            return _is_masked(argument, kernel, program)
        case Constant(int()) | Read():
            return True
    return _is_sum(expression, kernel, program) or _is_value(expression, kernel, program)


def _is_condition(expression: Expression, kernel: Kernel, program: IntegerProgram) -> bool:
    if isinstance(expression, Read):
        return True
    return _is_sum(expression, kernel, program) or _is_value(expression, kernel, program)


def _is_narrow(expression: Expression, kernel: Kernel, program: IntegerProgram) -> bool:
    match expression:
        case Saturate(Round(argument, _, None), _, str()):
            return _is_sum(argument, kernel, program)
    return False


def _is_value(expression: Expression, kernel: Kernel, program: IntegerProgram) -> bool:
    """A word that is computed: narrowed, looked up, the greatest of words, or one of these or of words read, masked."""
    match expression:
        case Lookup(function, argument):
            return function in program.functions and _is_narrow(argument, kernel, program)
        case Reduced():
            return kernel.reduction in ("max", "argmax")
        case Apply("equal", (Reduced() | Read(), Position())):
            return True
        case Apply("select", (condition, left, right)):
            return _is_condition(condition, kernel, program) and all(
                value == Constant(0) or isinstance(value, Read) or _is_value(value, kernel, program)
                for value in (left, right)
            )
    return _is_narrow(expression, kernel, program)


def _is_update(kernel: Kernel, store: Write | SideSum, program: IntegerProgram) -> bool:
    """``saturate(word - change, width)`` of the word that is stored, or of an optimizer's state the change alone."""
    name = store.access.array
    match store.value:
        case Saturate(Apply("subtract", (Read(access), change)), width, counter) if access == store.access:
            pass
        case Saturate(Round() | Shift() as change, width, counter) if name in program.kernels.states:
            pass
        case _:
            return False
    if width != program.formats[name].width or counter != name:
        return False
    match change:
        case Round(argument, _, None) | Shift(argument, _):
            return _is_sum(argument, kernel, program)
        case Round(argument, shift, draw) if draw is not None:
            first = 0
            for parameter in program.kernels.parameters:
                if parameter == name:
                    break
                first += prod(program.kernels.arrays[parameter].shape)
            keyed = (draw.offset, draw.strides) == (first + store.access.offset, store.access.strides)
            return shift > 0 and keyed and _is_sum(argument, kernel, program)
    return False


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise IllegalKernelError(f"{where}: {message}")
