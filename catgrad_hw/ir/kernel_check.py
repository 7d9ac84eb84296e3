"""The checker of kernels: what a legal :class:`~catgrad_hw.ir.kernel.KernelProgram` promises to the levels below.

``check_structure`` holds for float and integer kernels alike; ``check`` adds what is particular to float kernels.
Broken rules raise :class:`IllegalKernelError`; they are faults of a pass, not of a user's model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import CatgradError
from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.ir.elementwise import ELEMENTWISE
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
    Bound,
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
)


class IllegalKernelError(CatgradError):
    """A kernel program breaks a rule of its level."""


def subexpressions(expression: Expression) -> Iterator[Expression]:
    """The expression and all that it contains, outermost first."""
    yield expression
    match expression:
        case Apply(_, arguments):
            for argument in arguments:
                yield from subexpressions(argument)
        case Shift(argument, _) | Saturate(argument, _, _) | Lookup(_, argument):
            yield from subexpressions(argument)
        case Round(argument, _, _):
            yield from subexpressions(argument)


def reads(expression: Expression) -> list[Access]:
    """The accesses of all reads in an expression, draws excluded."""
    return [part.access for part in subexpressions(expression) if isinstance(part, Read)]


def stores(kernel: Kernel) -> list[Access]:
    """Where a kernel stores: the accesses of its writes, then of its side sums."""
    return [*(write.access for write in kernel.writes), *(side.access for side in kernel.side_sums)]


def results(kernel: Kernel) -> list[tuple[Access, Expression]]:
    """What a kernel stores where: its writes, then its side sums."""
    writes = [(write.access, write.value) for write in kernel.writes]
    return writes + [(side.access, side.value) for side in kernel.side_sums]


def check_structure(program: KernelProgram) -> None:
    """Raise :class:`IllegalKernelError` unless the program is legal at either level.

    * Arrays: names agree, every array of a role is listed under it, in no list twice; the batch axis has the batch's
      length.
    * Loops: distinct names, positive sizes; at most one runs over the batch; loops are reduced exactly where there
      is a reduction.
    * Accesses: one stride for each loop, inside the array; a read's bounds, where it has any, keep it inside. Writes
      and side sums do not vary with the loops that were reduced, and store no word twice.
    * Data flow: words are written before they are read; inputs and targets are never written; within a program a
      word is written at most once; a parameter is never read after it was updated, and only ``step`` updates any.
      A write's expression may read the array that it writes at that write's own access alone (an update in place).
    """
    _check_arrays(program)
    for name, kernels in program.programs.items():
        names = [kernel.name for kernel in kernels]
        _require(len(set(names)) == len(names), name, f"kernel names must differ, found {names}")
        flow = _Flow(program, name)
        for kernel in kernels:
            _check_loops(kernel, program.batch)
            _check_accesses(kernel, program)
            flow.run(kernel)
        if name == "predict":
            for output in program.outputs:
                _require(bool(flow.written[output].all()), name, f"output {output!r} is not written completely")


def check(program: KernelProgram) -> None:
    """Raise :class:`IllegalKernelError` unless the program is a legal program of float kernels.

    Beyond :func:`check_structure`: expressions are of :class:`Read`, :class:`Constant`, :class:`Reduced` and
    :class:`Apply` with a known function and its number of arguments; a kernel has one general multiplication at
    most, at the root of its body; factors in an epilogue are powers of two.
    """
    check_structure(program)
    for kernels in program.programs.values():
        for kernel in kernels:
            _check_body(kernel)
            for _, value in results(kernel):
                for part in subexpressions(value):
                    _check_float(kernel, part)
                    if isinstance(part, Apply) and part.operation == "multiply":
                        free = any(isinstance(a, Constant) and is_power_of_two(a.value) for a in part.arguments)
                        _require(free, kernel.name, f"epilogues multiply by powers of two alone, found {part}")


def _check_arrays(program: KernelProgram) -> None:
    listed = {
        "parameter": program.parameters,
        "input": program.inputs,
        "target": program.targets,
        "output": program.outputs,
    }
    for role, names in listed.items():
        found = [array.name for array in program.arrays.values() if array.role == role]
        _require(sorted(names) == sorted(found), "arrays", f"{role}s are listed as {names}, but arrays have {found}")
    for name, array in program.arrays.items():
        _require(array.name == name, "arrays", f"array {array.name!r} is stored under {name!r}")
        if array.batch_axis is not None:
            _require(
                0 <= array.batch_axis < len(array.shape) and array.shape[array.batch_axis] == program.batch,
                "arrays",
                f"{name!r} has shape {array.shape}, of which axis {array.batch_axis} is not a batch of {program.batch}",
            )


def _check_loops(kernel: Kernel, batch: int) -> None:
    names = [loop.name for loop in kernel.loops]
    _require(len(set(names)) == len(names), kernel.name, f"loop names must differ, found {names}")
    _require(all(loop.size >= 1 for loop in kernel.loops), kernel.name, "loops must run at least once")
    batches = [loop.size for loop in kernel.loops if loop.batch]
    _require(batches in ([], [batch]), kernel.name, f"expected at most one loop over the batch of {batch}: {batches}")
    _require(0 <= kernel.reduced <= len(names), kernel.name, f"cannot reduce {kernel.reduced} of {len(names)} loops")
    _require((kernel.reduction is None) == (kernel.reduced == 0), kernel.name, "loops and reduction disagree")
    _require(bool(kernel.writes), kernel.name, "nothing is written")
    kept = names[: len(names) - kernel.reduced]
    for side in kernel.side_sums:
        _require(0 <= side.source < len(kernel.writes), kernel.name, f"side sum of write {side.source}, which is none")
        _require(set(side.over) <= set(kept) and bool(side.over), kernel.name, f"side sum over {side.over} of {kept}")


def _check_accesses(kernel: Kernel, program: KernelProgram) -> None:
    kept = len(kernel.loops) - kernel.reduced
    sizes = [loop.size for loop in kernel.loops]

    def inside(access: Access, fixed: Sequence[int], what: str) -> None:
        _require(access.array in program.arrays, kernel.name, f"{what} of array {access.array!r}, which is none")
        affine: list[Access | Bound] = [access, *access.bounds]
        short = [form for form in affine if len(form.strides) != len(sizes)]
        _require(not short, kernel.name, f"{what} needs {len(sizes)} strides: {access}")
        moving = any(form.strides[i] for form in affine for i in fixed)
        _require(not moving, kernel.name, f"{what} varies with a reduced loop: {access}")
        if access.bounds:
            _require(what == "read", kernel.name, f"a {what} has bounds: {access}")
            words = _addresses(kernel, access)
            low, high = words.min(initial=0), words.max(initial=0)
            length = math.prod(program.arrays[access.array].shape)
            _require(
                low >= 0 and high < length, kernel.name, f"{what} leaves the {length} words of its array: {access}"
            )
            return
        spans = [stride * (size - 1) for stride, size in zip(access.strides, sizes, strict=True)]
        low = access.offset + sum(span for span in spans if span < 0)
        high = access.offset + sum(span for span in spans if span > 0)
        length = math.prod(program.arrays[access.array].shape)
        _require(low >= 0 and high < length, kernel.name, f"{what} leaves the {length} words of its array: {access}")

    reduced = range(kept, len(sizes))
    everything = [*reads(kernel.body), *stores(kernel), *(a for _, value in results(kernel) for a in reads(value))]
    dtypes = sorted({program.arrays[a.array].dtype.name for a in everything if a.array in program.arrays})
    _require(len(dtypes) <= 1, kernel.name, f"all arrays of a kernel have one dtype, found {', '.join(dtypes)}")
    for access in reads(kernel.body):
        inside(access, (), "read")
    for write in kernel.writes:
        inside(write.access, reduced, "write")
        for access in reads(write.value):
            inside(access, reduced, "read")
        _check_once(kernel, write.access, range(kept))
    for side in kernel.side_sums:
        over = [i for i in range(kept) if kernel.loops[i].name in side.over]
        inside(side.access, (*over, *reduced), "side sum")
        for access in reads(side.value):
            inside(access, (*over, *reduced), "read")
        _check_once(kernel, side.access, [i for i in range(kept) if i not in over])


def _check_once(kernel: Kernel, access: Access, loops: Sequence[int]) -> None:
    constant = [kernel.loops[i].name for i in loops if access.strides[i] == 0 and kernel.loops[i].size > 1]
    words = _addresses(kernel, access)
    once = not constant and len(np.unique(words)) == words.size
    _require(once, kernel.name, f"a word is written more than once: {access}")


def _addresses(kernel: Kernel, access: Access) -> NDArray[np.int64]:
    """All addresses of an access within its bounds, over the loops that it varies with."""
    forms: list[Access | Bound] = [access, *access.bounds]
    used = [i for i in range(len(kernel.loops)) if any(form.strides[i] for form in forms)]
    values = []
    for form in forms:
        words = np.array([form.offset], np.int64)
        for i in used:
            words = (words[:, None] + form.strides[i] * np.arange(kernel.loops[i].size, dtype=np.int64)).ravel()
        values.append(words)
    inside = np.ones(values[0].shape, bool)
    for bound, words in zip(access.bounds, values[1:], strict=True):
        inside &= (words >= 0) & (words < bound.size)
    return values[0][inside]


def _check_body(kernel: Kernel) -> None:
    for part in subexpressions(kernel.body):
        _check_float(kernel, part)
        early = isinstance(part, Reduced | Position)
        _require(not early, kernel.name, "the body is evaluated before anything is reduced, and has no positions")
        inner = isinstance(part, Apply) and part.operation == "multiply" and part is not kernel.body
        _require(not inner, kernel.name, "a kernel has one multiplication, at the root of its body")


def _check_float(kernel: Kernel, expression: Expression) -> None:
    match expression:
        case Apply(operation, arguments):
            _require(operation in ELEMENTWISE, kernel.name, f"no elementwise function is named {operation!r}")
            arity = ELEMENTWISE[operation].arity
            _require(len(arguments) == arity, kernel.name, f"{operation} takes {arity} arguments: {len(arguments)}")
        case Position(_, strides):
            _require(len(strides) == len(kernel.loops), kernel.name, f"{expression} needs a stride for each loop")
            reduced = strides[len(kernel.loops) - kernel.reduced :]
            _require(not any(reduced), kernel.name, f"{expression} varies with a reduced loop")
        case Read() | Constant() | Reduced():
            pass
        case _:
            _require(False, kernel.name, f"float kernels have no {type(expression).__name__}")


class _Flow:
    """Which words of each array have been written while a program runs."""

    def __init__(self, program: KernelProgram, name: str) -> None:
        self.program, self.name = program, name
        self.written = {array.name: np.zeros(math.prod(array.shape), bool) for array in program.arrays.values()}

    def run(self, kernel: Kernel) -> None:
        stored = stores(kernel)
        for access in reads(kernel.body):
            self._read(kernel, access)
            if kernel.reduction is not None:
                clash = any(access.array == other.array for other in stored)
                _require(not clash, kernel.name, f"{access.array!r} is written while it is reduced")
        for place, value in results(kernel):
            for access in reads(value):
                self._read(kernel, access)
                others = [other for other in stored if other is not place and other.array == access.array]
                _require(not others, kernel.name, f"{access.array!r} is read beside another write of it")
            for access in (*reads(kernel.body), *reads(value)):
                clash = any(other.array == access.array and other != access for other in stored)
                _require(not clash, kernel.name, f"{access.array!r} is read and written at different words")
        for access in stored:
            self._write(kernel, access)

    def _read(self, kernel: Kernel, access: Access) -> None:
        array = self.program.arrays[access.array]
        words = self.written[array.name][_addresses(kernel, access)]
        if array.role == "parameter":
            _require(not words.any(), kernel.name, f"{array.name!r} is read after it was updated")
        elif array.role not in ("input", "target"):
            _require(bool(words.all()), kernel.name, f"{array.name!r} is read before it is written")

    def _write(self, kernel: Kernel, access: Access) -> None:
        array: Array = self.program.arrays[access.array]
        _require(array.role not in ("input", "target"), kernel.name, f"{array.role} {array.name!r} is written")
        _require(array.role != "parameter" or self.name == "step", kernel.name, f"{self.name} updates {array.name!r}")
        words = _addresses(kernel, access)
        _require(not self.written[array.name][words].any(), kernel.name, f"{array.name!r} is written twice")
        self.written[array.name][words] = True


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise IllegalKernelError(f"{where}: {message}")
