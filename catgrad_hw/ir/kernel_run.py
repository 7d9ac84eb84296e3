"""The float executor of kernels, in NumPy: the meaning of the level.

Every access without bounds becomes a strided view of its array, so nothing is copied, and a contraction runs as one
``einsum``.
The program is trusted to be legal: check it once with :func:`catgrad_hw.ir.kernel_check.check`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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


def run(
    program: KernelProgram,
    name: str,
    arrays: Mapping[str, NDArray[Any]],
    dtype: DTypeLike = np.float64,
    observe: Observer | None = None,
) -> dict[str, NDArray[Any]]:
    """Run the program ``name`` once; returns every array that it was given or wrote, parameters updated.

    ``arrays`` gives at least the parameters, inputs and targets that the program reads, each of its array's shape;
    they are not changed. Arithmetic on floats is in ``dtype``. ``observe`` is called with each kernel, each expression
    of its epilogue (subexpressions included) and that expression's values, over the kernel's loops that are not
    reduced.
    """
    kernels = program.programs[name]
    memory: dict[str, NDArray[Any]] = {}
    written = set[str]()
    for kernel in kernels:
        written.update(access.array for access in stores(kernel))
    for array, values in arrays.items():
        if array not in program.arrays:
            raise DataError(f"run {name}: expected arrays of the program, found {array!r}")
        expected = program.arrays[array].shape
        if np.shape(values) != expected:
            raise IllTypedError(f"run {name}: array {array!r} must have shape {expected}, found {np.shape(values)}")
        memory[array] = np.array(values, _precision(program.arrays[array], dtype), order="C", copy=True)
    for array in sorted(written - memory.keys()):
        memory[array] = np.zeros(program.arrays[array].shape, _precision(program.arrays[array], dtype))
    for kernel in kernels:
        try:
            run_kernel(kernel, memory, observe)
        except KeyError as error:
            raise DataError(f"run {name}: kernel {kernel.name} reads array {error}, which was not given") from None
    return memory


def _precision(array: Array, dtype: DTypeLike) -> DTypeLike:
    return dtype if array.dtype.is_floating() else array.dtype.value


def run_kernel(kernel: Kernel, memory: Mapping[str, NDArray[Any]], observe: Observer | None = None) -> None:
    """Run one kernel on C-contiguous arrays, which it changes in place."""
    sizes = [loop.size for loop in kernel.loops]
    kept = len(sizes) - kernel.reduced
    reduced = _reduce(kernel, memory, sizes, kept)

    def evaluate(expression: Expression, reduced: NDArray[Any], sizes: Sequence[int]) -> NDArray[Any]:
        result: NDArray[Any]
        match expression:
            case Constant(value):
                return np.asarray(value, reduced.dtype)
            case Read(access):
                return _view(memory[access.array], access, sizes)
            case Position(offset, strides):
                return np.asarray(_affine(offset, strides, sizes), reduced.dtype)
            case Reduced():
                result = reduced
            case Apply(operation, arguments):
                result = ELEMENTWISE[operation].numpy(*(evaluate(argument, reduced, sizes) for argument in arguments))
            case _:
                raise UnsupportedError(_not_float(kernel, expression))
        if observe is not None:
            observe(kernel, expression, result)
        return result

    # All values first: a write may go to an array that another write's expression reads.
    values = [evaluate(write.value, reduced, sizes[:kept]) for write in kernel.writes]
    for write, value in zip(kernel.writes, values, strict=True):
        _view(memory[write.access.array], write.access, sizes[:kept])[...] = value
    for side in kernel.side_sums:
        axes = tuple(i for i, loop in enumerate(kernel.loops[:kept]) if loop.name in side.over)
        remaining = [1 if i in axes else size for i, size in enumerate(sizes[:kept])]
        stored = _view(memory[kernel.writes[side.source].access.array], kernel.writes[side.source].access, sizes[:kept])
        total = np.expand_dims(arithmetic.total(stored, axes), axes)
        _view(memory[side.access.array], side.access, remaining)[...] = evaluate(side.value, total, remaining)


def _reduce(kernel: Kernel, memory: Mapping[str, NDArray[Any]], sizes: list[int], kept: int) -> NDArray[Any]:
    """The body over all loops, reduced over the last ones: an array over the loops that are kept."""
    match kernel.reduction, kernel.body:
        case "sum", Apply("multiply", (Read(a), Read(b))):
            return _contract(memory[a.array], a, memory[b.array], b, sizes, kept)
    values = np.broadcast_to(_body(kernel, kernel.body, memory, sizes), sizes)
    axes = tuple(range(kept, len(sizes)))
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


def _body(
    kernel: Kernel, expression: Expression, memory: Mapping[str, NDArray[Any]], sizes: Sequence[int]
) -> NDArray[Any]:
    match expression:
        case Constant(value):
            return np.asarray(value, memory[kernel.writes[0].access.array].dtype)
        case Read(access):
            return _view(memory[access.array], access, sizes)
        case Apply(operation, arguments):
            return ELEMENTWISE[operation].numpy(*(_body(kernel, argument, memory, sizes) for argument in arguments))
        case _:
            raise UnsupportedError(_not_float(kernel, expression))


def _contract(
    a: NDArray[Any], read_a: Access, b: NDArray[Any], read_b: Access, sizes: Sequence[int], kept: int
) -> NDArray[Any]:
    """Sum of products. Loops that an operand does not vary with are left out of it, so that this runs as a matmul."""
    used_a, used_b = _varying(read_a), _varying(read_b)
    used = sorted({*used_a, *used_b})
    view_a = _view(a, under(read_a, used_a), [sizes[loop] for loop in used_a])
    view_b = _view(b, under(read_b, used_b), [sizes[loop] for loop in used_b])
    out = [loop for loop in used if loop < kept]
    boolean = arithmetic.is_bool(a)
    if boolean:  # einsum's sum of bools is an or; parities survive wrapping mod 256
        view_a, view_b = view_a.astype(np.uint8), view_b.astype(np.uint8)
    # Some BLAS kernels compute on past the end of a vector and so raise flags of numbers that are in no result
    # (numpy#24067). Whoever runs a program looks at the results.
    with np.errstate(all="ignore"):
        total = np.einsum(view_a, used_a, view_b, used_b, out, optimize=["einsum_path", (0, 1)])
    repeated = math.prod(sizes[loop] for loop in range(kept, len(sizes)) if loop not in used)
    if repeated != 1:
        total = total * np.asarray(repeated % 256 if boolean else repeated).astype(total.dtype)
    if boolean:
        total = (total & 1).astype(np.bool_)
    shape = [sizes[loop] if loop in used else 1 for loop in range(kept)]
    return np.broadcast_to(np.reshape(total, shape), sizes[:kept])


def _varying(access: Access) -> list[int]:
    """The loops that an access varies with."""
    forms: list[Access | Bound] = [access, *access.bounds]
    return [loop for loop in range(len(access.strides)) if any(form.strides[loop] for form in forms)]


def _view(array: NDArray[Any], access: Access, sizes: Sequence[int]) -> NDArray[Any]:
    """The words at ``access`` over the first ``len(sizes)`` loops: a view, or where there are bounds a copy."""
    if access.bounds:
        inside = np.ones(tuple(sizes), bool)
        for bound in access.bounds:
            index = _affine(bound.offset, bound.strides, sizes)
            inside &= (index >= 0) & (index < bound.size)
        words = np.broadcast_to(_affine(access.offset, access.strides, sizes), inside.shape)
        result = np.zeros(inside.shape, array.dtype)
        result[inside] = array.ravel()[words[inside]]
        return result
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
