"""Forms: integer kernels as the machine understands them, before any layout is chosen.

Each integer kernel must have one of the forms that the machine speaks (docs/machine.md); any other is refused by name,
before anything is built. Nothing chosen here or below changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Constant,
    Expression,
    Kernel,
    Lookup,
    Loop,
    Position,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
    under,
)
from catgrad_hw.ir.kernel_print import brief
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.program import Kind, Narrowing, Reduction


@dataclass(frozen=True)
class Factor:
    """One side of a product: an array (its low ``rounding`` bits rounded off), or a constant."""

    access: Access | None
    constant: int = 0
    rounding: int = 0


@dataclass(frozen=True)
class Combination:
    """As :class:`catgrad_hw.schedule.program.Combination`, of accesses."""

    kind: Kind = "alone"
    other: Access | Literal["factor"] | None = None
    shift: int = 0
    condition: Access | Literal["factor", "reduced"] | None = None
    position: Position | None = None
    rectified: bool = False
    boost: int = 0

    @property
    def accesses(self) -> tuple[Access, ...]:
        """What is read."""
        return tuple(access for access in (self.other, self.condition) if isinstance(access, Access))


PLAIN = Combination()
"""The reduced value itself."""


@dataclass(frozen=True)
class Difference:
    """``narrow(value * 2**value_shift - other * 2**other_shift)``."""

    other: Access
    value_shift: int
    other_shift: int
    narrowing: Narrowing


@dataclass(frozen=True)
class Store:
    """A write of the narrowed value z, or of a function of it, minus another array where ``difference`` is given.

    ``update``: the write is ``saturate(old - round(value))``. ``draw``: the flat parameter index of the access's first
    word, where the rounding is stochastic.
    """

    access: Access
    narrowing: Narrowing
    function: str | None = None
    difference: Difference | None = None
    update: bool = False
    draw: int | None = None


@dataclass(frozen=True)
class Rider:
    """A side sum: the values of ``source`` summed over the loops ``over`` and finished like a kernel of its own."""

    source: Access
    over: tuple[str, ...]
    combination: Combination
    stores: tuple[Store, ...]
    accumulator: int


@dataclass(frozen=True)
class Form:
    """``stores <- narrow(combination(reduction over the last ``reduced`` loops of first * second))``.

    ``accumulator``: bits that hold the reduced value and, where something is added to it, the sum.
    """

    name: str
    loops: tuple[Loop, ...]
    reduction: Reduction
    reduced: int
    factors: tuple[Factor, Factor]
    combination: Combination
    stores: tuple[Store, ...]
    accumulator: int
    rider: Rider | None = None

    @property
    def batch_level(self) -> int | None:
        """The level of the loop over samples, or None."""
        return next((level for level, loop in enumerate(self.loops) if loop.batch), None)

    @property
    def sums_samples(self) -> bool:
        """Whether the reduction runs over samples."""
        return self.batch_level is not None and self.batch_level >= len(self.loops) - self.reduced

    @property
    def updates(self) -> bool:
        """Whether a parameter is updated."""
        return any(store.update for store in self.stores)

    @property
    def needs_slow_path(self) -> bool:
        """Whether there is a function or a difference, or two arrays share z."""
        several = len(self.stores) > 1 and not self.updates
        return several or any(store.function or store.difference for store in self.stores)

    @property
    def needs_full_path(self) -> bool:
        """Whether the full-width path alone can do it."""
        combination = self.combination
        chooses = combination.kind in ("replace", "select") or combination.condition in ("reduced", "factor")
        return self.reduction != "sum" or chooses or combination.position is not None

    @property
    def accesses(self) -> tuple[Access, ...]:
        """Every array access, the product's first."""
        found = [factor.access for factor in self.factors if factor.access]
        found += self.combination.accesses
        for store in self.stores:
            found += [store.access] + ([store.difference.other] if store.difference else [])
        return tuple(found)

    def without_rider(self) -> tuple[Form, Form]:
        """The same work as two kernels: this one alone, and one that sums what it stored."""
        assert self.rider is not None
        rider = self.rider
        kept = [level for level, loop in enumerate(self.loops) if loop.name not in rider.over]
        order = kept + [level for level in range(len(self.loops)) if level not in kept]
        combination = rider.combination
        if isinstance(combination.other, Access):
            combination = replace(combination, other=under(combination.other, order))
        total = Form(
            name=f"{self.name}.{rider.stores[0].access.array}",
            loops=tuple(self.loops[level] for level in order),
            reduction="sum",
            reduced=len(order) - len(kept),
            factors=(Factor(None, 1), Factor(under(rider.source, order))),
            combination=combination,
            stores=tuple(replace(store, access=under(store.access, order)) for store in rider.stores),
            accumulator=rider.accumulator,
        )
        return replace(self, rider=None), total


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
    """The forms of every routine's kernels: those up to the last that runs over samples, then the others.

    Raises:
        UnsupportedError: a kernel has a form that the hardware lacks.
    """
    offsets = parameter_offsets(program)
    result: dict[str, tuple[Form, ...]] = {}
    for name, kernels in program.kernels.programs.items():
        parsed = tuple(_Parser(program, kernel, offsets).form() for kernel in kernels)
        if not any(form.batch_level is not None for form in parsed):
            raise UnsupportedError(
                f"hardware: expected kernels that run over samples in {name}, found none: the first axis of the input "
                "is one of a parameter, too; share the parameter over the batch, or use a software target"
            )
        complete: set[str] = set()  # arrays that are there when all samples have been
        for form in parsed[: tile_phase(parsed)]:
            early = [access.array for access in form.accesses if access.array in complete]
            if form.batch_level is None and early:
                raise UnsupportedError(
                    f"{name}: {form.name} reads {early[0]}, a sum over samples, but a kernel after it runs over "
                    "samples; expected all kernels over samples first; order the parameter updates last"
                )
            stores = form.stores if form.sums_samples else ()
            if form.rider and any(loop.batch and loop.name in form.rider.over for loop in form.loops):
                stores += form.rider.stores
            complete |= {store.access.array for store in stores}
        result[name] = parsed
    return result


def tile_phase(kernels: Sequence[Form]) -> int:
    """How many of the kernels run for each tile: those up to the last that runs over samples."""
    return 1 + max((i for i, form in enumerate(kernels) if form.batch_level is not None), default=-1)


class _Parser:
    def __init__(self, program: IntegerProgram, kernel: Kernel, offsets: Mapping[str, int]) -> None:
        self.program, self.kernel, self.offsets = program, kernel, offsets
        self.scale: int | None = None
        """The exponent of the power of two by which every write multiplies the reduced value."""
        self.factors: tuple[Factor, Factor] = (Factor(None, 1), Factor(None, 0))
        if sum(loop.batch for loop in kernel.loops) > 1:
            self.refuse("at most one loop over samples", "two")

    def refuse(self, expected: str, found: str, change: str = "change the layer that makes it") -> NoReturn:
        raise UnsupportedError(
            f"kernel {self.kernel.name}: hardware expects {expected}, found {found}; {change} (catgrad-hw inspect "
            "prints the kernels), or train with a software target"
        )

    # --- the product ------------------------------------------------------------------------------------------------

    def factor(self, expression: Expression) -> Factor:
        limit = self.program.multiplier
        match expression:
            case Constant(value):
                if not -(1 << (limit - 1)) <= value < 1 << (limit - 1):
                    self.refuse(f"constants of at most {limit} bits", str(value))
                return Factor(None, int(value))
            case Read(access):
                rounding = 0
            case Saturate(Round(Read(access), rounding, None), width, None) if width == limit:
                pass
            case _:
                self.refuse("operands that are arrays, compute copies of weights or constants", brief(expression))
        width = self.program.formats[access.array].width - rounding
        if width > limit:
            self.refuse(f"operands of at most {limit} bits", f"{access.array} of {width}")
        return Factor(access, 0, rounding)

    def product(self) -> tuple[Factor, Factor]:
        body = self.kernel.body
        match body:
            case Apply("multiply", (left, right)):
                return self.factor(left), self.factor(right)
            case Constant(0):
                return Factor(None, 1), Factor(None, 0)
            case Read() | Saturate():
                return Factor(None, 1), self.factor(body)
        self.refuse("a product of two arrays, or one array", brief(body))

    def is_factor(self, access: Access) -> bool:
        """Whether a lane multiplies exactly this word by a constant."""
        constant, array = sorted(self.factors, key=lambda factor: factor.access is not None)
        return constant.access is None and (array.access, array.rounding) == (access, 0)

    # --- the value --------------------------------------------------------------------------------------------------

    def narrowing(self, expression: Expression) -> tuple[Expression, Narrowing, Access | None]:
        """Split ``saturate(round(inner))`` into inner, narrowing and draw."""
        match expression:
            case Saturate(Round(inner, shift, draw), width, counter):
                pass
            case Saturate(inner, width, counter):
                shift, draw = 0, None
            case _:
                self.refuse("a value that is narrowed", brief(expression))
        inner, left = self.scaled(inner)
        return inner, Narrowing(shift - left, width, counter), draw

    @staticmethod
    def scaled(expression: Expression) -> tuple[Expression, int]:
        return (expression.argument, expression.amount) if isinstance(expression, Shift) else (expression, 0)

    def reduced(self, expression: Expression, whole: Expression) -> None:
        """Take ``r * 2**amount``, the same in every write."""
        inner, amount = self.scaled(expression)
        if not isinstance(inner, Reduced) or self.scale not in (None, amount):
            self.refuse("one multiple of the reduced value r", brief(whole))
        self.scale = amount

    def whole(self, expression: Expression) -> Expression:
        """The reduced value itself in place of a word that is narrowed to no fewer bits than it has."""
        match expression, self.kernel.body:
            case Shift(Saturate(Round(Reduced(), 0, None), width), amount), Read(access):
                if width >= self.program.formats[access.array].width:
                    return Shift(Reduced(), amount)
        return expression

    def read(self, expression: Expression, whole: Expression) -> tuple[Access, int]:
        inner, amount = self.scaled(expression)
        if not isinstance(inner, Read):
            self.refuse("an array beside the reduced value r", brief(whole))
        return inner.access, amount

    def combination(self, expression: Expression) -> Combination:
        """What is narrowed, or stored as it is."""
        match expression:
            case Reduced() | Shift(Reduced()):
                self.reduced(expression, expression)
                return PLAIN
            case Read() | Shift(Read()):
                return Combination("replace", *self.read(expression, expression))
            case Apply("add" | "subtract" as kind, (left, right)):
                self.reduced(self.whole(left), expression)
                other, shift = self.read(right, expression)
                return Combination("add" if kind == "add" else "subtract", other, shift)
            case Apply("select", (condition, value, Constant(0))):
                masked = self.combination(value)
                match condition:
                    case Apply("equal", (Reduced(), Position() as position)) if masked.position is None:
                        return replace(masked, position=position)
                    case _ if masked.boost:
                        pass
                    case _ if condition == value and not masked.rectified:
                        return replace(masked, rectified=True)
                    case Read() | Reduced() if masked.condition is None:
                        return replace(masked, condition=self.condition(condition))
            case Apply("select", (condition, Shift(value, up), Shift(alternative, down))) if value == alternative:
                boosted = self.combination(value)
                if 0 in (up, down) and boosted.condition is None and not boosted.rectified:
                    if condition == value:
                        return replace(boosted, rectified=True, boost=up - down)
                    return replace(boosted, condition=self.condition(condition), boost=up - down)
            case Apply("select", (condition, value, alternative)):
                self.reduced(alternative, expression)
                access, shift = self.read(value, expression)
                instead: Access | Literal["factor"] = "factor" if self.is_factor(access) else access
                return Combination("select", instead, shift, self.condition(condition))
        self.refuse(
            "the reduced value r, perhaps with an array, masked or chosen once",
            brief(expression),
            "put a layer between two activations, or change the one that makes it",
        )

    def condition(self, expression: Expression) -> Access | Literal["factor", "reduced"]:
        match expression:
            case Reduced():
                return "reduced"
            case Read(access):
                return "factor" if self.is_factor(access) else access
        self.refuse("a condition that is an array, or the reduced value r", brief(expression))

    # --- stores -----------------------------------------------------------------------------------------------------

    def store(self, access: Access, value: Expression) -> tuple[Store, Combination]:
        name = access.array
        match value:
            case Saturate(Apply("subtract", (Read(old), step)), width, counter) if old == access:
                inner, narrowing, draw = self.narrowing(Saturate(step, width, counter))
                return Store(access, narrowing, update=True, draw=self.draw(access, draw)), self.combination(inner)
            case Reduced() | Apply("select", _):
                width = self.program.formats[name].width
                return Store(access, Narrowing(0, width, None)), self.combination(value)
            case Saturate(Apply("subtract", (Shift(left, left_shift), right))) | Saturate(
                Round(Apply("subtract", (Shift(left, left_shift), right)))
            ) if not isinstance(left, Reduced):
                _, narrowing, _ = self.narrowing(value)
                other, other_shift = self.read(right, value)
                function, z, combination = self.word(left)
                difference = Difference(other, left_shift, other_shift, narrowing)
                return Store(access, z, function, difference), combination
            case Lookup():
                function, z, combination = self.word(value)
                return Store(access, z, function), combination
        inner, narrowing, draw = self.narrowing(value)
        return Store(access, narrowing, draw=self.draw(access, draw)), self.combination(inner)

    def word(self, expression: Expression) -> tuple[str | None, Narrowing, Combination]:
        """z or a function of it: (the function, how z is narrowed, of what)."""
        function = None
        if isinstance(expression, Lookup):
            function, expression = expression.table, expression.argument
        inner, narrowing, _ = self.narrowing(expression)
        return function, narrowing, self.combination(inner)

    def draw(self, access: Access, draw: Access | None) -> int | None:
        if draw is None:
            return None
        offset = self.offsets[access.array]
        if draw != Access(draw.array, access.offset + offset, access.strides):
            self.refuse("draws that are keyed by the parameter's flat index", "another key")
        return offset

    def stores(self, written: Sequence[tuple[Access, Expression]]) -> tuple[tuple[Store, ...], Combination]:
        self.scale = None
        parsed = [self.store(access, value) for access, value in written]
        combinations = [combination for _, combination in parsed]
        if any(combination != combinations[0] for combination in combinations):
            self.refuse("writes that share one value", "different values")
        stores = tuple(store for store, _ in parsed)
        differences = sum(store.difference is not None for store in stores)
        if len(stores) > 2 or differences > 1:
            self.refuse("two writes of a row, one of them a difference", f"{len(stores)}, {differences} of them")
        return stores, combinations[0]

    def form(self) -> Form:
        kernel, program = self.kernel, self.program
        self.factors = self.product()
        stores, combination = self.stores([(write.access, write.value) for write in kernel.writes])
        factors = self.factors
        if self.scale:  # the lane multiplies by that power of two
            constant = [factor.constant for factor in factors if factor.access is None]
            if len(constant) != 1 or constant[0] << self.scale >= 1 << (program.multiplier - 1):
                self.refuse("a value times a smaller power of two, or none", f"2**{self.scale}")
            (array,) = (factor for factor in factors if factor.access is not None)
            factors = Factor(None, constant[0] << self.scale), array
        shared = {(store.narrowing.shift, store.narrowing.width) for store in stores}
        if len(shared) > 1 and not any(store.update for store in stores):
            self.refuse("writes that share one narrowing", "different ones")
        # What is subtracted from, or updated, is written first.
        stores = tuple(sorted(stores, key=lambda store: store.difference is None and not store.update))
        bits = program.accumulators[kernel.name] + (self.scale or 0)
        form = Form(
            kernel.name,
            kernel.loops,
            kernel.reduction or "sum",
            kernel.reduced,
            factors,
            combination,
            stores,
            bits,
            self.rider() if kernel.side_sums else None,
        )
        if form.needs_full_path and form.needs_slow_path:
            self.refuse("a value that is chosen, or a function or a difference of a value", "both")
        if form.reduction == "sum" and form.needs_full_path and form.reduced:
            self.refuse("a value that is not summed where another may take its place", "a sum")
        masked = combination.condition is not None or combination.rectified
        if (form.updates or form.sums_samples) and (masked or combination.kind not in ("alone", "add")):
            self.refuse(
                "sums over samples, and updates, to which an array at most is added", "one that is masked or chosen"
            )
        return form

    def rider(self) -> Rider:
        kernel = self.kernel
        if len(kernel.side_sums) > 1:
            self.refuse("at most one side sum", str(len(kernel.side_sums)))
        side = kernel.side_sums[0]
        factors, self.factors = self.factors, (Factor(None, 1), Factor(None, 0))
        stores, combination = self.stores([(side.access, side.value)])
        self.factors = factors
        bits = self.program.accumulators[f"{kernel.name}.side_0"]
        if combination.kind == "add" and isinstance(combination.other, Access):
            added = self.program.formats[combination.other.array].width + combination.shift
            bits = max(bits, added) + 1
        if combination.kind not in ("alone", "add") or combination.condition or combination.rectified or self.scale:
            self.refuse("a side sum, perhaps with an array added, or an update by it", brief(side.value))
        return Rider(kernel.writes[side.source].access, side.over, combination, stores, bits)
