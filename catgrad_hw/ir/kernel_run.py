"""The float executor of kernels, in NumPy: the meaning of the level.

A program is made ready once: every access without bounds becomes a strided view of its array, so nothing is copied, a
contraction becomes one ``matmul``, and what expressions share is computed once. Then it runs any number of times.
The program is trusted to be legal: check it once with :func:`catgrad_hw.ir.kernel_check.check`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catgrad_hw.errors import DataError, IllTypedError, UnsupportedError
from catgrad_hw.ir import arithmetic
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
    Position,
    Read,
    Reduced,
    under,
)
from catgrad_hw.ir.kernel_check import stores

Observer: TypeAlias = Callable[[Kernel, Expression, NDArray[Any]], None]
Values: TypeAlias = NDArray[Any]
Memory: TypeAlias = Mapping[str, Values]


def run(
    program: KernelProgram,
    name: str,
    arrays: Mapping[str, NDArray[Any]],
    dtype: DTypeLike = np.float64,
    observe: Observer | None = None,
) -> dict[str, NDArray[Any]]:
    """Run the program ``name`` once; returns every array that it was given or wrote, parameters updated.

    ``arrays`` gives at least the parameters, inputs and targets that the program reads, each of its array's shape;
    they are not changed. The rest as for :class:`Executor`.
    """
    _require_shapes(program, name, arrays)
    return Executor(program, name, arrays, dtype, observe).run(arrays)


class Executor:
    """The program ``name``, ready to be run on the arrays named in ``given``.

    Arithmetic on floats is in ``dtype``. ``observe`` is called with each kernel, each expression of its epilogue
    (subexpressions included) and that expression's values, over the kernel's loops that are not reduced.

    Raises :class:`DataError` where the program reads what is neither given nor written.
    """

    def __init__(
        self,
        program: KernelProgram,
        name: str,
        given: Iterable[str],
        dtype: DTypeLike = np.float64,
        observe: Observer | None = None,
    ) -> None:
        self._program, self._name, kernels = program, name, program.programs[name]
        written = {access.array for kernel in kernels for access in stores(kernel)}
        given = tuple(given)
        self._memory: dict[str, Values] = {
            array: np.zeros(program.arrays[array].shape, _precision(program.arrays[array], dtype))
            for array in (*given, *sorted(written.difference(given)))
        }
        self._own = [self._memory[array] for array in written.difference(given)]
        self._kernels: list[Callable[[], None]] = []
        for kernel in kernels:
            try:
                self._kernels.append(_ready(kernel, self._memory, observe))
            except KeyError as error:
                raise DataError(f"run {name}: kernel {kernel.name} reads array {error}, which was not given") from None

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; ``arrays`` are those that were promised, and are not changed. What is returned, the next run
        changes."""
        _require_shapes(self._program, self._name, arrays)
        for array, values in arrays.items():
            self._memory[array][...] = values
        for own in self._own:
            own.fill(0)
        for kernel in self._kernels:
            kernel()
        return dict(self._memory)


def _require_shapes(program: KernelProgram, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    for array, values in arrays.items():
        if array not in program.arrays:
            raise DataError(f"run {name}: expected arrays of the program, found {array!r}")
        expected = program.arrays[array].shape
        if np.shape(values) != expected:
            raise IllTypedError(f"run {name}: array {array!r} must have shape {expected}, found {np.shape(values)}")


def _precision(array: Array, dtype: DTypeLike) -> DTypeLike:
    return dtype if array.dtype.is_floating() else array.dtype.value


def _ready(kernel: Kernel, memory: Memory, observe: Observer | None) -> Callable[[], None]:
    """What runs a kernel on the arrays in ``memory``, C-contiguous, which it changes in place."""
    sizes = [loop.size for loop in kernel.loops]
    kept = len(sizes) - kernel.reduced
    reduce = _reduction(kernel, memory, sizes, kept)
    tape = _Tape(kernel, memory, sizes[:kept], observe)
    writes = [
        (_view(memory[write.access.array], write.access, sizes[:kept]), tape.slot(write.value))
        for write in kernel.writes
    ]
    sides = []
    for side in kernel.side_sums:
        axes = tuple(i for i, loop in enumerate(kernel.loops[:kept]) if loop.name in side.over)
        remaining = [1 if i in axes else size for i, size in enumerate(sizes[:kept])]
        stored, _ = writes[side.source]
        own = _Tape(kernel, memory, remaining, observe)
        slot = own.slot(side.value)
        sides.append((stored, axes, own, slot, _view(memory[side.access.array], side.access, remaining)))

    def run() -> None:
        # All values first: a write may go to an array that another write's expression reads.
        slots = tape.run(reduce())
        for place, slot in writes:
            place[...] = slots[slot]
        for stored, axes, own, slot, place in sides:
            total = np.expand_dims(arithmetic.total(stored, axes), axes)
            place[...] = own.run(total)[slot]

    return run


class _Tape:
    """Expressions as a list of operations on numbered slots; the reduced value is in the first."""

    def __init__(self, kernel: Kernel, memory: Memory, sizes: Sequence[int], observe: Observer | None) -> None:
        self._kernel, self._memory, self._sizes, self._observe = kernel, memory, sizes, observe
        self._dtype = memory[kernel.writes[0].access.array].dtype
        self._numbers: dict[Expression, int] = {}
        self._slots: list[Any] = [None]
        self._operations: list[tuple[int, Callable[..., Values], list[int], Expression]] = []

    def slot(self, expression: Expression) -> int:
        """The slot of an expression's values, over the loops of ``sizes``."""
        if expression not in self._numbers:
            self._numbers[expression] = self._add(expression)
        return self._numbers[expression]

    def _add(self, expression: Expression) -> int:
        function: Callable[..., Values]
        operands: list[int] = []
        match expression:
            case Constant(value):
                return self._put(np.asarray(value, self._dtype))
            case Position(offset, strides):
                return self._put(np.asarray(_affine(offset, strides, self._sizes), self._dtype))
            case Read(access) if not access.bounds:
                return self._put(_view(self._memory[access.array], access, self._sizes))
            case Read(access):
                function = _gather(self._memory[access.array], access, self._sizes)
            case Reduced():
                function, operands = lambda value: value, [0]
            case Apply(operation, arguments):
                function, operands = ELEMENTWISE[operation].numpy, [self.slot(argument) for argument in arguments]
            case _:
                raise UnsupportedError(_not_float(self._kernel, expression))
        slot = self._put(None)
        self._operations.append((slot, function, operands, expression))
        return slot

    def _put(self, values: Values | None) -> int:
        self._slots.append(values)
        return len(self._slots) - 1

    def run(self, reduced: Values | None) -> list[Any]:
        """The values of all slots."""
        slots, observe = self._slots.copy(), self._observe
        slots[0] = reduced
        for slot, function, operands, expression in self._operations:
            slots[slot] = result = function(*[slots[operand] for operand in operands])
            if observe is not None and not isinstance(expression, Read):
                observe(self._kernel, expression, result)
        return slots


def _reduction(kernel: Kernel, memory: Memory, sizes: list[int], kept: int) -> Callable[[], Values]:
    """What gives the body over all loops, reduced over the last ones: an array over the loops that are kept."""
    match kernel.reduction, kernel.body:
        case "sum", Apply("multiply", (Read(a), Read(b))):
            return _contraction(memory[a.array], a, memory[b.array], b, sizes, kept)
    tape = _Tape(kernel, memory, sizes, None)
    slot = tape.slot(kernel.body)
    axes = tuple(range(kept, len(sizes)))

    def run() -> Values:
        values = np.broadcast_to(tape.run(None)[slot], sizes)
        match kernel.reduction:
            case None:
                return values
            case "sum":
                return arithmetic.total(values, axes)
            case "max":
                return np.asarray(values.max(axis=axes))
            case "argmax":
                flat = values.reshape(*sizes[:kept], math.prod(sizes[kept:]))
                return np.asarray(flat.argmax(axis=-1), values.dtype)

    return run


def _contraction(
    a: Values, read_a: Access, b: Values, read_b: Access, sizes: Sequence[int], kept: int
) -> Callable[[], Values]:
    """What gives a sum of products. Loops that an operand does not vary with are left out of it, so that this is a
    product of matrices, one for each index of the loops that are kept and that both vary with."""
    used_a, used_b = _varying(read_a), _varying(read_b)
    both = [loop for loop in used_a if loop in used_b]
    batch, inner = [loop for loop in both if loop < kept], [loop for loop in both if loop >= kept]
    rows = [loop for loop in used_a if loop not in both and loop < kept]
    columns = [loop for loop in used_b if loop not in both and loop < kept]
    left = _operand(a, read_a, used_a, (batch, rows, inner), sizes)
    right = _operand(b, read_b, used_b, (batch, inner, columns), sizes)
    out = [*batch, *rows, *columns]
    order = [out.index(loop) for loop in sorted(out)]
    produced = [sizes[loop] for loop in out]
    full = list(sizes[:kept])
    shape = [size if loop in out else 1 for loop, size in enumerate(full)]
    repeated = math.prod(sizes[loop] for loop in range(kept, len(sizes)) if loop not in used_a and loop not in used_b)
    boolean = arithmetic.is_bool(a)
    factor = np.asarray(repeated % 256 if boolean else repeated).astype(np.uint8 if boolean else a.dtype)
    product = np.matmul if inner else np.multiply

    def run() -> Values:
        # Some BLAS kernels compute on past the end of a vector and so raise flags of numbers that are in no result
        # (numpy#24067). Whoever runs a program looks at the results.
        with np.errstate(all="ignore"):
            total = product(left(), right())
        total = total.reshape(produced).transpose(order).reshape(shape)
        if repeated != 1:
            total = total * factor
        if boolean:
            total = (total & 1).astype(np.bool_)
        return total if shape == full else np.broadcast_to(total, full)

    return run


def _operand(
    array: Values, access: Access, used: Sequence[int], groups: Sequence[Sequence[int]], sizes: Sequence[int]
) -> Callable[[], Values]:
    """What gives a factor over the loops ``used``, each of three groups of them flattened to one axis; it is summed
    over loops that are in no group."""
    own = under(access, used)
    extents = [sizes[loop] for loop in used]
    order = [used.index(loop) for group in groups for loop in group]
    lone = tuple(axis for axis in range(len(used)) if axis not in order)
    shape = [math.prod(sizes[loop] for loop in group) for group in groups]
    boolean = arithmetic.is_bool(array)  # a sum of bools would be an or; parities survive wrapping mod 256

    def arranged(values: Values) -> Values:
        if boolean:
            values = values.astype(np.uint8)
        if lone:
            values = values.sum(axis=lone, keepdims=True, dtype=values.dtype)
        return values.transpose([*order, *lone]).reshape(shape)

    if access.bounds:
        gather = _gather(array, own, extents)
        return lambda: arranged(gather())
    view = _view(array, own, extents)
    if np.shares_memory(fixed := arranged(view), array):
        return lambda: fixed
    return lambda: arranged(view)


def _varying(access: Access) -> list[int]:
    """The loops that an access varies with."""
    forms: list[Access | Bound] = [access, *access.bounds]
    return [loop for loop in range(len(access.strides)) if any(form.strides[loop] for form in forms)]


def _gather(array: Values, access: Access, sizes: Sequence[int]) -> Callable[[], Values]:
    """What gives the words at an ``access`` with bounds over the first ``len(sizes)`` loops: a copy."""
    inside = np.ones(tuple(sizes), bool)
    for bound in access.bounds:
        index = _affine(bound.offset, bound.strides, sizes)
        inside &= (index >= 0) & (index < bound.size)
    words = np.broadcast_to(_affine(access.offset, access.strides, sizes), inside.shape)[inside]
    places, flat = np.flatnonzero(inside), array.reshape(-1)

    def run() -> Values:
        result = np.zeros(inside.size, array.dtype)
        result[places] = flat[words]
        return result.reshape(inside.shape)

    return run


def _view(array: Values, access: Access, sizes: Sequence[int]) -> Values:
    """The words at an ``access`` without bounds over the first ``len(sizes)`` loops."""
    word = array.itemsize
    strides = tuple(stride * word for stride in access.strides[: len(sizes)])
    return np.ndarray(tuple(sizes), array.dtype, array, access.offset * word, strides)


def _affine(offset: int, strides: Sequence[int], sizes: Sequence[int]) -> NDArray[np.int64]:
    """``offset + sum(strides[l] * index[l])`` over the first ``len(sizes)`` loops, of length 1 where it is constant."""
    result = np.full((1,) * len(sizes), offset, np.int64)
    for loop, (stride, size) in enumerate(zip(strides, sizes, strict=False)):
        if stride:
            shape = [size if i == loop else 1 for i in range(len(sizes))]
            result = result + stride * np.arange(size, dtype=np.int64).reshape(shape)
    return result


def _not_float(kernel: Kernel, expression: Expression) -> str:
    return f"kernel {kernel.name}: the float executor has no {type(expression).__name__}; run the integer reference"
