"""Instruction selection: integer kernels become machine kernels.

Each integer kernel must be one of the forms that the machine speaks (docs/machine.md); any other is refused by name,
before anything is built. Nothing chosen here changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
    Constant,
    Expression,
    Kernel,
    Lookup,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
)
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.program import (
    FullPath,
    MachineKernel,
    Narrowing,
    Operand,
    RowWrite,
    SlowPath,
    Subtraction,
    SumPath,
)


class _Epilogue(NamedTuple):
    """What the slow path does before its writes part: z = narrow(accumulator + bias * 2**bias_shift)."""

    bias: Operand | None
    bias_shift: int
    narrowing: Narrowing


@dataclass(frozen=True)
class Selection:
    """The machine kernels of one routine: those of the tile phase, then those of the final phase."""

    tile: tuple[MachineKernel, ...]
    final: tuple[MachineKernel, ...]


def elements(array: Array) -> int:
    """Words of an array, or, for a batched one, words per sample."""
    count = 1
    for axis, size in enumerate(array.shape):
        count *= 1 if axis == array.batch_axis else size
    return count


def parameter_offsets(program: IntegerProgram) -> dict[str, int]:
    """The flat index, over all parameters in order, of each parameter's first word."""
    offsets: dict[str, int] = {}
    total = 0
    for name in program.kernels.parameters:
        offsets[name] = total
        total += elements(program.kernels.arrays[name])
    return offsets


def select(program: IntegerProgram, rows: int, pad: Callable[[int, bool], int]) -> dict[str, Selection]:
    """Choose machine kernels for every routine.

    ``rows``: rows of samples in a tile. ``pad(reduction, slow)``: bubbles after a reduction of that many iterations.

    Raises:
        UnsupportedError: a kernel has a form that the hardware lacks.
    """
    offsets = parameter_offsets(program)
    result: dict[str, Selection] = {}
    for name, kernels in program.kernels.programs.items():
        tile: list[MachineKernel] = []
        final: list[MachineKernel] = []
        for kernel in kernels:
            chosen = _Selector(program, kernel, rows, pad, offsets).select()
            if chosen.batch_level is None:
                final.append(chosen)
            elif final:
                raise UnsupportedError(
                    f"kernel {kernel.name} of {name}: runs over samples after {final[-1].name}, which does not; "
                    "expected all kernels over samples first; order the parameter updates last"
                )
            else:
                tile.append(chosen)
        result[name] = Selection(tuple(tile), tuple(final))
    return result


class _Selector:
    def __init__(
        self,
        program: IntegerProgram,
        kernel: Kernel,
        rows: int,
        pad: Callable[[int, bool], int],
        offsets: Mapping[str, int],
    ) -> None:
        self.program = program
        self.arrays = program.kernels.arrays
        self.kernel = kernel
        self.rows = rows
        self.pad = pad
        self.offsets = offsets
        batch = [level for level, loop in enumerate(kernel.loops) if loop.batch]
        if len(batch) > 1:
            self.refuse("two loops over samples", "at most one")
        self.batch_level = batch[0] if batch else None

    def refuse(self, found: str, expected: str) -> NoReturn:
        raise UnsupportedError(
            f"kernel {self.kernel.name}: no hardware for {found}; expected {expected}; "
            "train this model with a software target, or change the layer that makes it"
        )

    # --- streams ---

    def operand(self, access: Access) -> Operand:
        array = self.arrays[access.array]
        if array.batch_axis is None:
            if self.batch_level is not None and access.strides[self.batch_level]:
                self.refuse(f"{array.name}, which is indexed by samples but has no batch axis", "a batched array")
            return Operand(array.name, access.offset, access.strides)
        if self.batch_level is None:
            self.refuse(f"{array.name}, a batched array, outside a loop over samples", "a loop over samples")
        inner = 1
        for size in array.shape[array.batch_axis + 1 :]:
            inner *= size
        batch = array.shape[array.batch_axis]
        count = elements(array)
        strides = []
        for level, stride in enumerate(access.strides):
            if level == self.batch_level:
                if stride != inner:
                    self.refuse(f"a stride of {stride} over samples in {array.name}", f"{inner}")
                strides.append(count)
            else:
                strides.append(stride if abs(stride) < inner else stride // batch)
        outer, rest = divmod(access.offset, batch * inner)
        if rest >= inner:
            self.refuse(f"an access to {array.name} that skips samples", "one that starts at the first sample")
        return Operand(array.name, outer * inner + rest, tuple(strides))

    def batched(self, access: Access) -> bool:
        return self.arrays[access.array].batch_axis is not None

    def factor(self, expression: Expression) -> tuple[Operand | int, bool, int]:
        """An operand of the body: (stream or constant, whether it is a row, low bits rounded off)."""
        match expression:
            case Constant(value):
                return int(value), False, 0
            case Read(access):
                return self.operand(access), self.batched(access), 0
            case Saturate(Round(Read(access), shift, None), width, None) if not self.batched(access):
                if width != self.program.multiplier:
                    self.refuse(f"a compute copy of {width} bits", f"{self.program.multiplier}")
                return self.operand(access), False, shift
        self.refuse(f"the operand {expression}", "an array, a weight's compute copy or a constant")

    def check_width(self, operand: Operand | int, rounded: int) -> None:
        limit = self.program.multiplier
        if isinstance(operand, int):
            if not -(1 << (limit - 1)) <= operand < 1 << (limit - 1):
                self.refuse(f"the constant {operand}", f"one of {limit} bits")
        elif self.program.formats[operand.array].width - rounded > limit:
            width = self.program.formats[operand.array].width - rounded
            self.refuse(f"{operand.array}, {width} bits wide, at a multiplier", f"at most {limit} bits")

    # --- epilogues ---

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

    def scaled(self, expression: Expression) -> tuple[Expression, int]:
        return (expression.argument, expression.amount) if isinstance(expression, Shift) else (expression, 0)

    def slow_value(self, expression: Expression) -> tuple[str | None, _Epilogue]:
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
                if isinstance(bias, Read) and not self.batched(bias.access):
                    return table, _Epilogue(self.operand(bias.access), shift, narrowing)
        self.refuse(f"the epilogue {inner}", "the reduced value, or its sum with a parameter")

    def row_write(self, access: Access, value: Expression) -> tuple[RowWrite, _Epilogue]:
        target = self.operand(access)
        match value:
            case Saturate(Apply("subtract", _)) | Saturate(Round(Apply("subtract", _))):
                difference, narrowing = self.narrowing(value)
                assert isinstance(difference, Apply)
                left, left_shift = self.scaled(difference.arguments[0])
                right, right_shift = self.scaled(difference.arguments[1])
                if not isinstance(right, Read) or not self.batched(right.access):
                    self.refuse(f"the subtraction of {right}", "a batched array")
                table, epilogue = self.slow_value(left)
                subtraction = Subtraction(self.operand(right.access), left_shift, right_shift, narrowing)
                return RowWrite(target, table, subtraction), epilogue
        table, epilogue = self.slow_value(value)
        return RowWrite(target, table, None), epilogue

    def sum_path(self, access: Access, value: Expression, source: Literal["product", "row"], reduced: int) -> SumPath:
        if self.batched(access):
            self.refuse(f"a sum over samples into {access.array}, which is batched", "an array without batch axis")
        target = self.operand(access)
        width = self.program.formats[access.array].width
        match value:
            case Saturate(Apply("subtract", (Read(old), step)), width_, counter):
                if old != access:
                    self.refuse(f"an update of {access.array} from another place", "an update in place")
                match step:
                    case Round(inner, shift, draw):
                        pass
                    case inner:
                        shift, draw = 0, None
                inner, left = self.scaled(inner)
                if not isinstance(inner, Reduced) or width_ != width:
                    self.refuse(f"the update {value}", "old - round(sum)")
                offset = None
                if draw is not None:
                    offset = self.offsets[access.array]
                    if draw != Access(draw.array, access.offset + offset, access.strides):
                        self.refuse("a draw that is not keyed by the parameter's flat index", "the flat index")
                narrowing = Narrowing(shift - left, width, counter)
                return SumPath(source, reduced, narrowing, target, True, offset)
        inner, narrowing = self.narrowing(value)
        if not isinstance(inner, Reduced):
            self.refuse(f"the epilogue {inner} of a sum over samples", "the sum itself or an update")
        return SumPath(source, reduced, narrowing, target, False, None)

    # --- the whole kernel ---

    def select(self) -> MachineKernel:
        kernel = self.kernel
        if kernel.reduction not in (None, "sum"):
            self.refuse(f"the reduction {kernel.reduction!r}", "'sum'")
        match kernel.body:
            case Apply("multiply", (left, right)):
                first, second = self.factor(left), self.factor(right)
            case Read() | Saturate():
                first, second = (1, False, 0), self.factor(kernel.body)
            case _:
                self.refuse(f"the body {kernel.body}", "a product of two arrays, or one array")
        rows = [factor for factor in (first, second) if factor[1]]
        if len(rows) == 2:
            (a, _, a_round), (b, _, b_round) = first, second
        elif rows:
            ((b, _, b_round),) = rows
            a, _, a_round = second if first[1] else first
        elif isinstance(first[0], int) != isinstance(second[0], int):
            # single words times a constant: the word is broadcast, the constant stands in lane 0 alone
            (b, _, b_round), (a, _, a_round) = sorted(
                (first, second), key=lambda factor: isinstance(factor[0], Operand)
            )
        else:
            self.refuse(f"the product of two arrays without batch axis in {kernel.body}", "one batched operand")
        self.check_width(a, a_round)
        self.check_width(b, b_round)
        to_samples = self.batched(kernel.writes[0].access)
        over_batch = self.batch_level is not None and self.batch_level >= len(kernel.loops) - kernel.reduced
        if rows and not to_samples and not over_batch:
            self.refuse("a batched operand and a result without batch axis", "a reduction over samples")
        trips = tuple(self.rows if loop.batch else loop.size for loop in kernel.loops)
        slow, full, total, reduced = None, None, None, 0
        if to_samples:
            if self.batch_level is None or over_batch:
                self.refuse("a batched result without a loop over samples", "a loop over samples")
            reduced = kernel.reduced
            slow, full = self._row_paths()
        else:
            if len(kernel.writes) != 1:
                self.refuse(f"{len(kernel.writes)} writes of one sum", "one")
            write = kernel.writes[0]
            total = self.sum_path(write.access, write.value, "product", kernel.reduced)
        if kernel.side_sums:
            if len(kernel.side_sums) > 1 or full is None:
                self.refuse("a side sum beside a slow epilogue, or more than one", "one, of a narrowed product")
            side = kernel.side_sums[0]
            innermost = tuple(loop.name for loop in kernel.loops[len(kernel.loops) - len(side.over) :])
            if sorted(innermost) != sorted(side.over) or kernel.reduced or self.batch_level is None:
                self.refuse(f"a side sum over {side.over}", f"the innermost loops, such as {innermost}")
            total = self.sum_path(side.access, side.value, "row", len(side.over))
        length = 1
        for trip in trips[len(trips) - reduced :]:
            length *= trip
        pad = self.pad(length, True) if slow else 0
        if pad and not reduced:
            trips, reduced = (*trips, 1), 1
            slow = _deeper_slow(slow) if slow else None
            a = _deeper(a)
            b = _deeper(b)
        elif pad:
            inner = length // trips[len(trips) - reduced]
            pad = -(-pad // inner)
        return MachineKernel(kernel.name, trips, reduced, pad, a, a_round, b, slow, full, total, self.batch_level)

    def _row_paths(self) -> tuple[SlowPath | None, FullPath | None]:
        kernel = self.kernel
        parsed = [self.row_write(write.access, write.value) for write in kernel.writes]
        writes = [write for write, _ in parsed]
        epilogues = [epilogue for _, epilogue in parsed]
        if any(epilogue != epilogues[0] for epilogue in epilogues):
            self.refuse("writes of different narrowings", "writes that share one pre-activation")
        bias, bias_shift, narrowing = epilogues[0]
        if len(writes) == 1 and bias is None and writes[0].table is None and writes[0].subtraction is None:
            return None, FullPath(narrowing, writes[0].target)
        writes.sort(key=lambda write: write.subtraction is None)
        if len(writes) > 2 or sum(write.subtraction is not None for write in writes) > 1:
            self.refuse(f"{len(writes)} writes of one row", "two, one of them a difference")
        return SlowPath(bias, bias_shift, narrowing, tuple(writes)), None


def _deeper(operand: Operand | int) -> Operand | int:
    """The same stream with one more, innermost, level."""
    return operand if isinstance(operand, int) else Operand(operand.array, operand.base, (*operand.strides, 0))


def _deeper_slow(slow: SlowPath) -> SlowPath:
    def deeper(operand: Operand) -> Operand:
        return Operand(operand.array, operand.base, (*operand.strides, 0))

    return SlowPath(
        deeper(slow.bias) if slow.bias else None,
        slow.bias_shift,
        slow.narrowing,
        tuple(
            RowWrite(
                deeper(write.target),
                write.table,
                Subtraction(
                    deeper(write.subtraction.other),
                    write.subtraction.value_shift,
                    write.subtraction.other_shift,
                    write.subtraction.narrowing,
                )
                if write.subtraction
                else None,
            )
            for write in slow.writes
        ),
    )
