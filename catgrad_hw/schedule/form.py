"""Forms: integer kernels as the machine understands them, before any layout is chosen.

Each integer kernel must have one of the forms that the machine speaks (docs/machine.md); any other is refused by name,
before anything is built. Nothing chosen here or below changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Constant,
    Expression,
    Kernel,
    Lookup,
    Loop,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
)
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.program import Narrowing


@dataclass(frozen=True)
class Factor:
    """One side of a product: an array (its low ``rounding`` bits rounded off), or a constant."""

    access: Access | None
    constant: int = 0
    rounding: int = 0


@dataclass(frozen=True)
class Difference:
    """``narrow(value * 2**value_shift - other * 2**other_shift)``."""

    other: Access
    value_shift: int
    other_shift: int
    narrowing: Narrowing


@dataclass(frozen=True)
class Store:
    """A write of z, or of a function of it, minus another array where ``difference`` is given."""

    access: Access
    table: str | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class Rider:
    """A side sum: the stored values summed over the loops ``over`` and finished like a kernel of its own."""

    over: tuple[str, ...]
    store: Store
    narrowing: Narrowing
    update: bool
    draw: int | None


@dataclass(frozen=True)
class Form:
    """``stores <- epilogue(sum over the last ``reduced`` loops of first * second)``.

    ``update``: the one store becomes ``saturate(old - round(sum))``. ``draw``: the flat parameter index of the store's
    first word, where that rounding is stochastic.
    """

    name: str
    loops: tuple[Loop, ...]
    reduced: int
    factors: tuple[Factor, Factor]
    bias: Access | None
    bias_shift: int
    narrowing: Narrowing
    stores: tuple[Store, ...]
    update: bool = False
    draw: int | None = None
    rider: Rider | None = None

    @property
    def batch_level(self) -> int | None:
        """The level of the loop over samples, or None."""
        return next((level for level, loop in enumerate(self.loops) if loop.batch), None)

    @property
    def simple(self) -> bool:
        """Whether there is nothing but narrowing, or an update, after the sum."""
        store = self.stores[0]
        return len(self.stores) == 1 and self.bias is None and store.table is None and store.difference is None

    @property
    def accesses(self) -> tuple[Access, ...]:
        """Every array access, the product's first."""
        found = [factor.access for factor in self.factors if factor.access]
        found += [self.bias] if self.bias else []
        for store in self.stores:
            found += [store.access] + ([store.difference.other] if store.difference else [])
        return tuple(found)

    def without_rider(self) -> tuple[Form, Form]:
        """The same work as two kernels: this one alone, and one that sums what it stored."""
        assert self.rider is not None
        kept = [level for level, loop in enumerate(self.loops) if loop.name not in self.rider.over]
        order = kept + [level for level in range(len(self.loops)) if level not in kept]

        def reordered(access: Access) -> Access:
            return Access(access.array, access.offset, tuple(access.strides[level] for level in order))

        alone = Form(**{**self.__dict__, "rider": None})
        target = self.rider.store.access
        total = Form(
            name=f"{self.name}.{target.array}",
            loops=tuple(self.loops[level] for level in order),
            reduced=len(order) - len(kept),
            factors=(Factor(None, 1), Factor(reordered(self.stores[0].access))),
            bias=None,
            bias_shift=0,
            narrowing=self.rider.narrowing,
            stores=(Store(reordered(target)),),
            update=self.rider.update,
            draw=self.rider.draw,
        )
        return alone, total


class _Epilogue(NamedTuple):
    bias: Access | None
    bias_shift: int
    narrowing: Narrowing


def parameter_offsets(program: IntegerProgram) -> dict[str, int]:
    """The flat index, over all parameters in order, of each parameter's first word."""
    offsets: dict[str, int] = {}
    total = 0
    for name in program.kernels.parameters:
        offsets[name] = total
        size = 1
        for axis in program.kernels.arrays[name].shape:
            size *= axis
        total += size
    return offsets


def forms(program: IntegerProgram) -> dict[str, tuple[Form, ...]]:
    """The forms of every routine's kernels.

    Raises:
        UnsupportedError: a kernel has a form that the hardware lacks.
    """
    offsets = parameter_offsets(program)
    result: dict[str, tuple[Form, ...]] = {}
    for name, kernels in program.kernels.programs.items():
        parsed = tuple(_Parser(program, kernel, offsets).form() for kernel in kernels)
        final = [form for form in parsed if form.batch_level is None]
        if parsed[len(parsed) - len(final) :] != tuple(final):
            raise UnsupportedError(
                f"{name}: {final[0].name} doesn't run over samples, but a kernel after it does; expected all kernels "
                "over samples first; order the parameter updates last"
            )
        result[name] = parsed
    return result


class _Parser:
    def __init__(self, program: IntegerProgram, kernel: Kernel, offsets: Mapping[str, int]) -> None:
        self.program, self.kernel, self.offsets = program, kernel, offsets
        if sum(loop.batch for loop in kernel.loops) > 1:
            self.refuse("two loops over samples", "at most one")

    def refuse(self, found: str, expected: str) -> NoReturn:
        raise UnsupportedError(
            f"kernel {self.kernel.name}: no hardware for {found}; expected {expected}; "
            "train this model with a software target, or change the layer that makes it"
        )

    def factor(self, expression: Expression) -> Factor:
        limit = self.program.multiplier
        match expression:
            case Constant(value):
                if not -(1 << (limit - 1)) <= value < 1 << (limit - 1):
                    self.refuse(f"the constant {value}", f"one of {limit} bits")
                return Factor(None, int(value))
            case Read(access):
                rounding = 0
            case Saturate(Round(Read(access), rounding, None), width, None) if width == limit:
                pass
            case _:
                self.refuse(f"the operand {expression}", "an array, a weight's compute copy or a constant")
        width = self.program.formats[access.array].width - rounding
        if width > limit:
            self.refuse(f"{access.array}, {width} bits wide, at a multiplier", f"at most {limit} bits")
        return Factor(access, 0, rounding)

    def narrowing(self, expression: Expression) -> tuple[Expression, Narrowing]:
        """Split ``saturate(round(inner))`` (an exact shift to the left may stand inside) into inner and narrowing."""
        match expression:
            case Saturate(Round(inner, shift, None), width, counter):
                pass
            case Saturate(inner, width, counter):
                shift = 0
            case _:
                self.refuse(f"the unsaturated value {expression}", "a narrowing")
        if isinstance(inner, Shift) and isinstance(inner.argument, Reduced):
            return inner.argument, Narrowing(shift - inner.amount, width, counter)
        return inner, Narrowing(shift, width, counter)

    @staticmethod
    def scaled(expression: Expression) -> tuple[Expression, int]:
        return (expression.argument, expression.amount) if isinstance(expression, Shift) else (expression, 0)

    def value(self, expression: Expression) -> tuple[str | None, _Epilogue]:
        """z or a function of it: (table, how z is made)."""
        table = None
        if isinstance(expression, Lookup):
            table, expression = expression.table, expression.argument
        inner, narrowing = self.narrowing(expression)
        match inner:
            case Reduced():
                return table, _Epilogue(None, 0, narrowing)
            case Apply("add", (Reduced(), addend)):
                bias, shift = self.scaled(addend)
                if isinstance(bias, Read) and bias.access.array in self.program.kernels.parameters:
                    return table, _Epilogue(bias.access, shift, narrowing)
        self.refuse(f"the epilogue {inner}", "the reduced value, or its sum with a parameter")

    def store(self, access: Access, value: Expression) -> tuple[Store, _Epilogue]:
        match value:
            case Saturate(Apply("subtract", _)) | Saturate(Round(Apply("subtract", _))):
                difference, narrowing = self.narrowing(value)
                assert isinstance(difference, Apply)
                left, left_shift = self.scaled(difference.arguments[0])
                right, right_shift = self.scaled(difference.arguments[1])
                if not isinstance(right, Read):
                    self.refuse(f"the subtraction of {right}", "an array")
                table, epilogue = self.value(left)
                return Store(access, table, Difference(right.access, left_shift, right_shift, narrowing)), epilogue
        table, epilogue = self.value(value)
        return Store(access, table), epilogue

    def update(self, access: Access, value: Expression) -> tuple[Narrowing, int | None] | None:
        """The rounding of ``saturate(old - round(sum))`` in place, or None where ``value`` is no such thing."""
        match value:
            case Saturate(Apply("subtract", (Read(old), step)), width, counter) if old == access:
                pass
            case _:
                return None
        shift, draw = 0, None  # type: int, Access | None
        if isinstance(step, Round):
            shift, draw = step.shift, step.draw
            step = step.argument
        inner, left = self.scaled(step)
        if not isinstance(inner, Reduced) or width != self.program.formats[access.array].width:
            self.refuse(f"the update {value}", "old - round(sum)")
        offset = None
        if draw is not None:
            offset = self.offsets[access.array]
            if draw != Access(draw.array, access.offset + offset, access.strides):
                self.refuse("a draw that is not keyed by the parameter's flat index", "the flat index")
        return Narrowing(shift - left, width, counter), offset

    def form(self) -> Form:
        kernel = self.kernel
        if kernel.reduction not in (None, "sum"):
            self.refuse(f"the reduction {kernel.reduction!r}", "'sum'")
        match kernel.body:
            case Apply("multiply", (left, right)):
                factors = (self.factor(left), self.factor(right))
            case Read() | Saturate():
                factors = (Factor(None, 1), self.factor(kernel.body))
            case _:
                self.refuse(f"the body {kernel.body}", "a product of two arrays, or one array")
        if factors[0].access is None and factors[1].access is None:
            self.refuse(f"the body {kernel.body}", "at least one array")
        rider = self.rider() if kernel.side_sums else None
        first = kernel.writes[0]
        if updated := self.update(first.access, first.value):
            if len(kernel.writes) != 1:
                self.refuse("an update beside another write", "an update alone")
            narrowing, draw = updated
            stores: tuple[Store, ...] = (Store(first.access),)
            return Form(
                kernel.name, kernel.loops, kernel.reduced, factors, None, 0, narrowing, stores, True, draw, rider
            )
        parsed = [self.store(write.access, write.value) for write in kernel.writes]
        epilogues = [epilogue for _, epilogue in parsed]
        if any(epilogue != epilogues[0] for epilogue in epilogues):
            self.refuse("writes of different narrowings", "writes that share one pre-activation")
        stores = tuple(sorted((store for store, _ in parsed), key=lambda store: store.difference is None))
        if len(stores) > 2 or sum(store.difference is not None for store in stores) > 1:
            self.refuse(f"{len(stores)} writes of one row", "two, one of them a difference")
        bias, shift, narrowing = epilogues[0]
        form = Form(kernel.name, kernel.loops, kernel.reduced, factors, bias, shift, narrowing, stores, rider=rider)
        if rider and (not form.simple or form.reduced):
            self.refuse("a side sum beside a table or a reduction", "one of a narrowed product")
        return form

    def rider(self) -> Rider:
        kernel = self.kernel
        if len(kernel.side_sums) > 1:
            self.refuse("more than one side sum", "one")
        side = kernel.side_sums[0]
        store = Store(side.access)
        if updated := self.update(side.access, side.value):
            return Rider(side.over, store, updated[0], True, updated[1])
        inner, narrowing = self.narrowing(side.value)
        if not isinstance(inner, Reduced):
            self.refuse(f"the epilogue {inner} of a side sum", "the sum itself or an update")
        return Rider(side.over, store, narrowing, False, None)
