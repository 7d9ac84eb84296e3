"""The operations: generating morphisms, under catgrad's names.

Arrays are of real numbers (float32), of integers mod 2**32 (int32), or of elements of the field Z_2 (bool); an
operation keeps the dtype. What an operation means on each stands in :mod:`catgrad_hw.ir.arithmetic`.

Beside each class stand its shape rule (:meth:`Operation.source`, :meth:`Operation.target`), its meaning on NumPy
arrays (:meth:`Operation.numpy`), and its optic: the forward map ``fwd : A → B ● M`` which also yields the residual
``M``, and the reverse map ``rev : M ● B' → A'``, which turns cotangents of the results into cotangents of the
arguments (arXiv 1910.07065; the optic form is that of arXiv 2305.01041).

*Core* operations are those which later levels know. The others (:class:`Derived`) stand for diagrams of core
operations and differ from these in their reverse maps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from catgrad_hw.errors import IllTypedError, UnsupportedError
from catgrad_hw.ir import arithmetic
from catgrad_hw.ir.combinators import Canonical, canonical
from catgrad_hw.ir.hypergraph import Functor, Generator, OpenHypergraph, identity, op, permutation, twist
from catgrad_hw.ir.types import Dtype, NdArrayType, Object, obj

Array: TypeAlias = npt.NDArray[Any]
Scalar: TypeAlias = int | float


class Operation(ABC):
    """A generating morphism. Instances are immutable, hashable values."""

    @abstractmethod
    def source(self) -> Object:
        """Types of the arguments."""

    @abstractmethod
    def target(self) -> Object:
        """Types of the results."""

    @abstractmethod
    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        """The meaning: results for arrays of the source's shapes. Floating-point precision follows the arguments."""

    @cached_property
    def signature(self) -> tuple[Object, Object]:
        """Source and target, computed once."""
        return self.source(), self.target()

    def core(self) -> OpenHypergraph:
        """The same map as a diagram of core operations."""
        return op(self)

    @abstractmethod
    def residual(self) -> Object:
        """What the forward map hands to the reverse map."""

    @abstractmethod
    def fwd(self) -> OpenHypergraph:
        """Forward map, ``source → target ● residual``."""

    @abstractmethod
    def rev(self) -> OpenHypergraph:
        """Reverse map, ``residual ● target → source``."""


class Linear(Operation):
    """An operation that is its own derivative: no residual, and the reverse map is the adjoint."""

    def residual(self) -> Object:
        return obj()

    def fwd(self) -> OpenHypergraph:
        return op(self)


class Lens(Operation):
    """An operation whose residual is its arguments."""

    def residual(self) -> Object:
        return self.source()

    def fwd(self) -> OpenHypergraph:
        A = self.source()
        return copy(A) >> (op(self) @ identity(A))


class Derived(Operation):
    """An operation that stands for a diagram of core operations."""

    @abstractmethod
    def core(self) -> OpenHypergraph: ...

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return evaluate(self.core(), *arrays)


def require_floating(operation: Operation, T: NdArrayType) -> None:
    """Refuse dtypes that cannot hold an operation's results."""
    if not T.dtype.is_floating():
        raise UnsupportedError(
            f"{type(operation).__name__}: expected float32, found {T.dtype.name} in {T}; change the dtype"
        )


def holds(T: NdArrayType, x: Scalar) -> bool:
    """Whether entries of a type can be a number: for float32 a rounded one, unless it is an integer or vanishes."""
    match T.dtype:
        case Dtype.bool:
            return x in (0, 1)
        case Dtype.int32:
            return x == int(x) and -(2**31) <= x < 2**31
    if abs(x) >= 2**128:
        return False
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(np.float32(x))
    return math.isfinite(rounded) and (rounded == x or (not isinstance(x, int) and rounded != 0))


def require_scalar(operation: Operation, name: str, found: Scalar) -> None:
    """Check the field ``name`` and make it a number of Python's, whatever library it came from."""
    if not isinstance(found, Real) or not (isinstance(found, Integral) or math.isfinite(found)):
        raise IllTypedError(
            f"{type(operation).__name__}: {name} must be a finite number, found {found!r}; give an int or a float"
        )
    object.__setattr__(operation, name, int(found) if isinstance(found, Integral) else float(found))


def require_same_dtype(operation: Operation, *types: NdArrayType) -> None:
    if len({T.dtype for T in types}) > 1:
        raise IllTypedError(
            f"{type(operation).__name__}: dtypes must be equal, found {', '.join(map(str, types))}; change one of them"
        )


def _count(operation: Operation, k: int) -> None:
    if not isinstance(k, int) or k < 1:
        raise IllTypedError(f"{type(operation).__name__}: expected at least 1 part, found k = {k}; change k")


def _trailing(T: NdArrayType) -> tuple[int, ...]:
    """The axes of ``T`` where it ends an array's shape."""
    return tuple(range(-len(T.shape), 0))


# --- copying and adding -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy(Linear):
    """``x ↦ (x, x)``."""

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T, self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return x, x

    def rev(self) -> OpenHypergraph:
        return op(Add(self.T))


@dataclass(frozen=True)
class Discard(Linear):
    """``x ↦ ()``."""

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj()

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return ()

    def rev(self) -> OpenHypergraph:
        return op(Constant(self.T, 0))


@dataclass(frozen=True)
class Add(Linear):
    """``(x, y) ↦ x + y``."""

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.add(*arrays),)

    def rev(self) -> OpenHypergraph:
        return op(Copy(self.T))


@dataclass(frozen=True)
class Constant(Linear):
    """``() ↦`` an array filled with ``x``. Constant maps have derivative 0, so the cotangent is discarded."""

    T: NdArrayType
    x: Scalar

    def __post_init__(self) -> None:
        require_scalar(self, "x", self.x)
        if not holds(self.T, self.x):
            allowed = {Dtype.bool: "0 or 1", Dtype.int32: "an integer from -2**31 to 2**31 - 1"}
            expected = allowed.get(self.T.dtype, "a number that float32 can hold")
            raise IllTypedError(f"Constant: x must be {expected} in {self.T}, found {self.x}; change it or the dtype")

    def source(self) -> Object:
        return obj()

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.full(self.T.shape, self.x, dtype=self.T.dtype.value),)

    def rev(self) -> OpenHypergraph:
        return op(Discard(self.T))


@dataclass(frozen=True)
class NCopy(Linear):
    """``N → N + T``: repeat an array over new trailing axes."""

    N: NdArrayType
    T: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.T)

    def source(self) -> Object:
        return obj(self.N)

    def target(self) -> Object:
        return obj(self.N + self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.broadcast_to(x.reshape(x.shape + (1,) * len(self.T.shape)), (self.N + self.T).shape),)

    def rev(self) -> OpenHypergraph:
        return op(NAdd(self.N, self.T))


@dataclass(frozen=True)
class NAdd(Linear):
    """``N + T → N``: sum over the trailing axes."""

    N: NdArrayType
    T: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.T)

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return obj(self.N)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (arithmetic.total(x, _trailing(self.T)),)

    def rev(self) -> OpenHypergraph:
        return op(NCopy(self.N, self.T))


@dataclass(frozen=True)
class NSplit(Linear):
    """``T + k → T ● … ● T``: the ``k`` slices along a trailing axis of size ``k``."""

    T: NdArrayType
    k: int

    def __post_init__(self) -> None:
        _count(self, self.k)

    def source(self) -> Object:
        return obj(self.T + self.k)

    def target(self) -> Object:
        return obj(*[self.T] * self.k)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return tuple(x[..., i] for i in range(self.k))

    def rev(self) -> OpenHypergraph:
        return op(NConcatenate(self.T, self.k))


@dataclass(frozen=True)
class NConcatenate(Linear):
    """``T ● … ● T → T + k``: stack ``k`` arrays along a new trailing axis."""

    T: NdArrayType
    k: int

    def __post_init__(self) -> None:
        _count(self, self.k)

    def source(self) -> Object:
        return obj(*[self.T] * self.k)

    def target(self) -> Object:
        return obj(self.T + self.k)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.stack(arrays, axis=-1),)

    def rev(self) -> OpenHypergraph:
        return op(NSplit(self.T, self.k))


@dataclass(frozen=True)
class Negate(Linear):
    """``x ↦ −x``."""

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.negate(*arrays),)

    def rev(self) -> OpenHypergraph:
        return op(self)


@dataclass(frozen=True)
class Invert(Linear):
    """The complement: ``x ↦ −x − 1`` on int32, ``x ↦ 1 + x`` on Z_2. Float32 has none."""

    T: NdArrayType

    def __post_init__(self) -> None:
        if self.T.dtype.is_floating():
            raise UnsupportedError(f"Invert: expected int32 or bool, found {self.T}; use Negate, or change the dtype")

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.invert(*arrays),)

    def rev(self) -> OpenHypergraph:
        return op(Negate(self.T))


@dataclass(frozen=True)
class Subtract(Linear):
    """``(x, y) ↦ x − y``."""

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.subtract(*arrays),)

    def rev(self) -> OpenHypergraph:
        return op(Copy(self.T)) >> (identity(obj(self.T)) @ op(Negate(self.T)))


# --- views ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reshape(Linear):
    """``X → Y``: the same entries, in row-major order, under another shape."""

    X: NdArrayType
    Y: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.X, self.Y)
        if self.X.size != self.Y.size:
            raise IllTypedError(
                f"Reshape: numbers of entries must be equal, found {self.X} ({self.X.size}) and {self.Y} "
                f"({self.Y.size}); change a shape"
            )

    def source(self) -> Object:
        return obj(self.X)

    def target(self) -> Object:
        return obj(self.Y)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (x.reshape(self.Y.shape),)

    def rev(self) -> OpenHypergraph:
        return op(Reshape(self.Y, self.X))


@dataclass(frozen=True)
class Permute(Linear):
    """Permute axes: axis ``i`` of the result is axis ``p[i]`` of the argument."""

    T: NdArrayType
    p: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", tuple(self.p))
        if sorted(self.p) != list(range(len(self.T.shape))):
            raise IllTypedError(
                f"Permute: expected a permutation of the {len(self.T.shape)} axes of {self.T}, found {self.p}; change p"
            )

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(NdArrayType(tuple(self.T.shape[i] for i in self.p), self.T.dtype))

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (x.transpose(self.p),)

    def rev(self) -> OpenHypergraph:
        (U,) = self.target()
        return op(Permute(U, [self.p.index(i) for i in range(len(self.p))]))


# --- multiplying ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Multiply(Lens):
    """``(x, y) ↦ x · y``, entry by entry."""

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.multiply(*arrays),)

    def rev(self) -> OpenHypergraph:
        T = obj(self.T)  # x, y, d ↦ y·d, x·d
        return (identity(T + T) @ copy(T)) >> permutation(T + T + T + T, [1, 2, 0, 3]) >> (op(self) @ op(self))


@dataclass(frozen=True)
class Compose(Lens):
    """``(A + B) ● (B + C) → A + C``: contract over all axes of ``B``."""

    A: NdArrayType
    B: NdArrayType
    C: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.A, self.B, self.C)

    def source(self) -> Object:
        return obj(self.A + self.B, self.B + self.C)

    def target(self) -> Object:
        return obj(self.A + self.C)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (arithmetic.contract(x, y, len(self.B.shape)),)

    def rev(self) -> OpenHypergraph:
        # x, y, d ↦ d·yᵀ, xᵀ·d
        swap = _swap_axes(obj(self.A + self.B), 0, len(self.A.shape), len(self.B.shape))
        swap = swap @ _swap_axes(obj(self.B + self.C), 0, len(self.B.shape), len(self.C.shape))
        return _matrix_rev(swap, self.target(), Compose(self.A, self.C, self.B), Compose(self.B, self.A, self.C))


@dataclass(frozen=True)
class MatrixMultiply(Lens):
    """``(N + A + B) ● (N + B + C) → N + A + C``: a matrix product for each index of ``N``; A, B, C have one axis."""

    N: NdArrayType
    A: NdArrayType
    B: NdArrayType
    C: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.A, self.B, self.C)
        for T in (self.A, self.B, self.C):
            if len(T.shape) != 1:
                raise IllTypedError(f"MatrixMultiply: A, B and C must have one axis, found {T}; use Compose")

    def source(self) -> Object:
        return obj(self.N + self.A + self.B, self.N + self.B + self.C)

    def target(self) -> Object:
        return obj(self.N + self.A + self.C)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.matmul(*arrays),)

    def rev(self) -> OpenHypergraph:
        N, A, B, C = self.N, self.A, self.B, self.C
        swap = _swap_axes(obj(N + A + B), len(N.shape), 1, 1) @ _swap_axes(obj(N + B + C), len(N.shape), 1, 1)
        return _matrix_rev(swap, self.target(), MatrixMultiply(N, A, C, B), MatrixMultiply(N, B, A, C))


def _swap_axes(A: Object, leading: int, first: int, second: int) -> OpenHypergraph:
    """Exchange two groups of axes that follow ``leading`` others."""
    (T,) = A
    middle = leading + first
    return op(Permute(T, [*range(leading), *range(middle, middle + second), *range(leading, middle)]))


def _matrix_rev(swap: OpenHypergraph, D: Object, left: Operation, right: Operation) -> OpenHypergraph:
    """``x, y, d ↦ left(d, yᵀ), right(xᵀ, d)``, where ``swap`` transposes x and y."""
    f = swap @ copy(D)
    return f >> permutation(f.target, [2, 1, 0, 3]) >> (op(left) @ op(right))


# --- comparing --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gt(Operation):
    """``(x, y) ↦ 1`` where ``x > y``, else 0. Locally constant, so cotangents are 0 wherever it is differentiable.

    On Z_2 it is the polynomial ``x · (1 + y)``, with derivatives ``1 + y`` and ``x``.
    """

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.greater(*arrays),)

    def residual(self) -> Object:
        return self.source() if self.T.dtype is Dtype.bool else obj()

    def fwd(self) -> OpenHypergraph:
        A = self.source()
        return copy(A) >> (op(self) @ identity(A)) if self.T.dtype is Dtype.bool else op(self)

    def rev(self) -> OpenHypergraph:
        if self.T.dtype is Dtype.bool:
            from catgrad_hw.ir.trace import trace

            return trace(obj(self.T, self.T, self.T), lambda x, y, d: (d * (y + 1), d * x))
        return op(Discard(self.T)) >> zero(obj(self.T, self.T))


@dataclass(frozen=True)
class Select(Operation):
    """``(c, x, y) ↦ x`` where ``c > 0``, else ``y``. Linear in ``x`` and ``y``, and locally constant in ``c``.

    On Z_2 it is the polynomial ``c · x + (1 + c) · y``.
    """

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.select(*arrays),)

    def residual(self) -> Object:
        return self.source() if self.T.dtype is Dtype.bool else obj(self.T)

    def fwd(self) -> OpenHypergraph:
        A = self.source()
        kept = identity(A) if self.T.dtype is Dtype.bool else identity(A[:1]) @ discard(A[1:])
        return copy(A) >> (op(self) @ kept)

    def rev(self) -> OpenHypergraph:
        from catgrad_hw.ir.trace import Wire, apply1, trace

        def rev(*wires: Wire) -> tuple[Wire, ...]:
            c, d = wires[0], wires[-1]
            zeros = c.constant(0)
            by_c = d * (wires[1] + wires[2]) if self.T.dtype is Dtype.bool else zeros
            return by_c, apply1(self, c, d, zeros), apply1(self, c, zeros, d)

        return trace(self.residual() + self.target(), rev)


@dataclass(frozen=True)
class NMax(Operation):
    """``N + T → N``: the largest entry over the trailing axes.

    The first of the largest entries takes the cotangent; on Z_2 the maximum is the polynomial ``1 + Π(1 + xᵢ)``.
    """

    N: NdArrayType
    T: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.T)
        if (self.N + self.T).size == 0:
            raise IllTypedError(f"NMax: expected at least one entry, found {self.N + self.T}; change the shape")

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return obj(self.N)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.asarray(x.max(axis=_trailing(self.T))),)

    def _chain(self) -> OpenHypergraph:
        """The maximum as a chain of maxima of two."""
        from catgrad_hw.ir.trace import Wire, apply, apply1, trace

        def chain(x: Wire) -> Wire:
            N = self.N
            largest, *others = apply(NSplit(N, self.T.size), x.reshape((*N.shape, self.T.size)))
            for other in others:
                if N.dtype is Dtype.bool:
                    largest = (largest + 1) * (other + 1) + 1
                else:
                    largest = apply1(Select(N), apply1(Gt(N), other, largest), other, largest)
            return largest

        return trace(self.source(), chain)

    def residual(self) -> Object:
        from catgrad_hw.ir.optics import optic

        return self.source() if self.T.dtype.is_floating() else optic(self._chain()).residual

    def fwd(self) -> OpenHypergraph:
        from catgrad_hw.ir.optics import optic

        if not self.T.dtype.is_floating():
            return optic(self._chain()).fwd
        return copy(self.source()) >> (op(self) @ identity(self.source()))

    def rev(self) -> OpenHypergraph:
        from catgrad_hw.ir.optics import optic
        from catgrad_hw.ir.trace import Wire, apply1, trace

        if not self.T.dtype.is_floating():
            return optic(self._chain()).rev

        def rev(x: Wire, d: Wire) -> Wire:
            first = apply1(FirstMaximum(self.N, self.T), x)
            return apply1(Select(x.T), first, d.spread(self.T), x.constant(0))

        return trace(self.source() + self.target(), rev)


@dataclass(frozen=True)
class FirstMaximum(Operation):
    """``N + T → N + T``: 1 at the first of the largest entries over the trailing axes, in row-major order, else 0.

    Locally constant, so cotangents are 0 wherever it is differentiable.
    """

    N: NdArrayType
    T: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.T)
        require_floating(self, self.T)
        if (self.N + self.T).size == 0:
            raise IllTypedError(f"FirstMaximum: expected at least one entry, found {self.N + self.T}; change the shape")

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return self.source()

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (arithmetic.first_maximum(x, len(self.T.shape)),)

    def residual(self) -> Object:
        return obj()

    def fwd(self) -> OpenHypergraph:
        return op(self)

    def rev(self) -> OpenHypergraph:
        return op(Discard(self.N + self.T)) >> zero(self.source())


# --- partial functions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Divide(Lens):
    """``(x, y) ↦ x / y``, for ``y ≠ 0``.

    On int32 the quotient is rounded down, a step function, so that its derivative is 0; in Z_2 one divides by 1 alone.
    For ``y = 0`` the quotient is 0 on int32 and in Z_2.
    """

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.divide(*arrays),)

    def rev(self) -> OpenHypergraph:
        from catgrad_hw.ir.trace import Wire, trace

        def rev(x: Wire, y: Wire, d: Wire) -> tuple[Wire, Wire]:
            if self.T.dtype is Dtype.int32:
                return d.constant(0), d.constant(0)
            by_x = d / y
            return by_x, -((x / y) * by_x)

        return trace(obj(self.T, self.T, self.T), rev)


@dataclass(frozen=True)
class Power(Lens):
    """``(x, y) ↦ x^y``, where ``x^0 = 1``; on int32 for ``y ≥ 0``. In Z_2 it is the polynomial ``1 + (1 + x) · y``.

    The cotangent of the exponent is 0 where ``x ≤ 0`` and on int32: there exponents are integers, which do not vary
    continuously. For a constant exponent use :class:`Exponentiate`.
    """

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        return (arithmetic.power(*arrays),)

    def rev(self) -> OpenHypergraph:
        from catgrad_hw.ir.trace import Wire, apply1, trace

        def rev(x: Wire, y: Wire, d: Wire) -> tuple[Wire, Wire]:
            if self.T.dtype is Dtype.bool:
                return d * y, d * (x + 1)
            nonzero = y if self.T.dtype is Dtype.int32 else y * y
            lower = apply1(Select(self.T), nonzero, y - 1, y.constant(0))  # x^−1 may not exist; it is multiplied by 0
            by_x = d * (y * apply1(self, x, lower))
            if self.T.dtype is Dtype.int32:
                return by_x, d.constant(0)
            positive = apply1(Select(self.T), x, x, x.constant(1))
            return by_x, d * (apply1(Log(self.T), positive) * apply1(self, x, y))

        return trace(obj(self.T, self.T, self.T), rev)


@dataclass(frozen=True)
class Log(Lens):
    """The natural logarithm, for ``x > 0``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.log(x),)

    def rev(self) -> OpenHypergraph:
        T = obj(self.T)
        return twist(T, T) >> divide(T)


@dataclass(frozen=True)
class Exp(Operation):
    """``e^x``. The residual is the result."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.exp(x),)

    def residual(self) -> Object:
        return obj(self.T)

    def fwd(self) -> OpenHypergraph:
        return op(self) >> copy(obj(self.T))

    def rev(self) -> OpenHypergraph:
        return multiply(obj(self.T))


@dataclass(frozen=True)
class Sqrt(Operation):
    """``√x``, for ``x ≥ 0``; its reverse map needs ``x > 0``. The residual is the result."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.sqrt(x),)

    def residual(self) -> Object:
        return obj(self.T)

    def fwd(self) -> OpenHypergraph:
        return op(self) >> copy(obj(self.T))

    def rev(self) -> OpenHypergraph:
        T = obj(self.T)  # √x, d ↦ d / 2√x
        return twist(T, T) >> (scale(0.5)(T) @ identity(T)) >> divide(T)


# --- functions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sigmoid(Operation):
    """``σ(x) = 1 / (1 + e^−x)``. The residual is ``σ′(x)``, a function of ``x`` beside ``σ``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        e = np.exp(-np.abs(x))  # never overflows
        return (np.where(x >= 0, np.ones_like(e), e) / (np.ones_like(e) + e),)

    def residual(self) -> Object:
        return obj(self.T)

    def fwd(self) -> OpenHypergraph:
        return copy(obj(self.T)) >> (op(self) @ op(SigmoidDerivative(self.T)))

    def rev(self) -> OpenHypergraph:
        return multiply(obj(self.T))


@dataclass(frozen=True)
class SigmoidDerivative(Lens):
    """``σ′(x) = e^−|x| / (1 + e^−|x|)²``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        e = np.exp(-np.abs(x))
        return (e / np.square(np.ones_like(e) + e),)

    def rev(self) -> OpenHypergraph:
        # σ″ = σ′·(1 − 2σ)
        T = obj(self.T)
        slope = op(Sigmoid(self.T)) >> scale(2)(T)
        slope = (constant(1)(T) @ slope) >> subtract(T)
        second = copy(T) >> (op(self) @ slope) >> multiply(T)
        return (second @ identity(T)) >> multiply(T)


@dataclass(frozen=True)
class Tanh(Operation):
    """``tanh(x) = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)``. The residual is ``tanh′(x)``, a function of ``x`` beside it."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.tanh(x),)

    def residual(self) -> Object:
        return obj(self.T)

    def fwd(self) -> OpenHypergraph:
        return copy(obj(self.T)) >> (op(self) @ op(TanhDerivative(self.T)))

    def rev(self) -> OpenHypergraph:
        return multiply(obj(self.T))


@dataclass(frozen=True)
class TanhDerivative(Lens):
    """``tanh′(x) = 4e / (1 + e)²`` where ``e = e^−2|x|``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        e = np.exp(-2 * np.abs(x))
        return (4 * e / np.square(np.ones_like(e) + e),)

    def rev(self) -> OpenHypergraph:
        # tanh″ = −2 · tanh · tanh′
        T = obj(self.T)
        second = copy(T) >> ((op(Tanh(self.T)) >> scale(-2)(T)) @ op(self)) >> multiply(T)
        return (second @ identity(T)) >> multiply(T)


# --- parameters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter(Operation):
    """``() → T``: a trainable array inside a model. :func:`catgrad_hw.compile.factor_parameters` makes it an input."""

    T: NdArrayType

    def source(self) -> Object:
        return obj()

    def target(self) -> Object:
        return obj(self.T)

    def _refuse(self) -> UnsupportedError:
        return UnsupportedError(
            f"Parameter: expected parameters as inputs, found {self.T} inside the diagram; call factor_parameters first"
        )

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        raise self._refuse()

    def residual(self) -> Object:
        raise self._refuse()

    def fwd(self) -> OpenHypergraph:
        raise self._refuse()

    def rev(self) -> OpenHypergraph:
        raise self._refuse()


# --- derived operations -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScaleInverse(Derived, Linear):
    """``x ↦ x / s``."""

    T: NdArrayType
    s: Scalar

    def __post_init__(self) -> None:
        require_floating(self, self.T)
        require_scalar(self, "s", self.s)
        if self.s == 0:
            raise IllTypedError("ScaleInverse: expected a divisor other than 0, found 0; change s")

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def core(self) -> OpenHypergraph:
        return (identity(obj(self.T)) @ op(Constant(self.T, self.s))) >> op(Divide(self.T))

    def rev(self) -> OpenHypergraph:
        return op(self)


@dataclass(frozen=True)
class Exponentiate(Derived, Lens):
    """``x ↦ x^s`` for a constant ``s``, which on int32 is an integer ≥ 0, on Z_2 0 or 1."""

    T: NdArrayType
    s: Scalar

    def __post_init__(self) -> None:
        require_scalar(self, "s", self.s)
        if self.T.dtype is Dtype.int32 and self.s < 0:
            raise UnsupportedError(
                f"Exponentiate: exponents on int32 must be >= 0, found {self.s}; use float32, or change s"
            )
        Constant(self.T, self.s)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def core(self) -> OpenHypergraph:
        return (identity(obj(self.T)) @ op(Constant(self.T, self.s))) >> op(Power(self.T))

    def rev(self) -> OpenHypergraph:
        T = obj(self.T)
        if self.s == 0:
            return discard(T + T) >> zero(T)
        return ((op(Exponentiate(self.T, self.s - 1)) >> scale(self.s)(T)) @ identity(T)) >> multiply(T)


# --- at each object ---------------------------------------------------------------------------------------------

copy = canonical(lambda T: op(Copy(T)))
discard = canonical(lambda T: op(Discard(T)))
add = canonical(lambda T: op(Add(T)))
zero = canonical(lambda T: op(Constant(T, 0)))
negate = canonical(lambda T: op(Negate(T)))
subtract = canonical(lambda T: op(Subtract(T)))
multiply = canonical(lambda T: op(Multiply(T)))
divide = canonical(lambda T: op(Divide(T)))
gt = canonical(lambda T: op(Gt(T)))
invert = canonical(lambda T: op(Invert(T)))
sigmoid = canonical(lambda T: op(Sigmoid(T)))
tanh = canonical(lambda T: op(Tanh(T)))
parameter = canonical(lambda T: op(Parameter(T)))


def constant(c: Scalar) -> Canonical:
    """Arrays filled with ``c``."""
    return canonical(lambda T: op(Constant(T, c)))


def increment(c: Scalar) -> Canonical:
    """``x ↦ c + x``."""
    return canonical(lambda T: (op(Constant(T, c)) @ identity(obj(T))) >> op(Add(T)))


def scale(c: Scalar) -> Canonical:
    """``x ↦ c · x``."""
    return canonical(lambda T: (op(Constant(T, c)) @ identity(obj(T))) >> op(Multiply(T)))


def scale_inverse(s: Scalar) -> Canonical:
    """``x ↦ x / s``."""
    return canonical(lambda T: op(ScaleInverse(T, s)))


def exponentiate(s: Scalar) -> Canonical:
    """``x ↦ x^s``."""
    return canonical(lambda T: op(Exponentiate(T, s)))


def gt_constant(c: Scalar) -> Canonical:
    """``x ↦ 1`` where ``x > c``, else 0."""
    return canonical(lambda T: (identity(obj(T)) @ op(Constant(T, c))) >> op(Gt(T)))


def exp1(T: NdArrayType) -> OpenHypergraph:
    """``x ↦ e^x``."""
    return op(Exp(T))


# --- meaning of diagrams ----------------------------------------------------------------------------------------


def known(generator: Generator) -> Operation:
    """The generator, if it is an :class:`Operation`; raises :class:`UnsupportedError` otherwise."""
    if not isinstance(generator, Operation):
        raise UnsupportedError(f"{generator!r}: expected an Operation, found another class; derive it from Operation")
    return generator


_to_core = Functor(on_type=lambda T: obj(T), on_operation=lambda g: known(g).core())


def to_core(f: OpenHypergraph) -> OpenHypergraph:
    """Replace derived operations by their diagrams of core operations."""
    kinds = {type(edge.operation) for edge in f.flat.edges}
    return _to_core(f) if any(issubclass(kind, Derived) for kind in kinds) else f


def evaluate(f: OpenHypergraph, *arrays: Array) -> tuple[Array, ...]:
    """The meaning of a diagram, operation by operation: results for arrays of the source's shapes.

    Floating-point precision follows the arrays, so that derivatives can be checked in float64.
    """
    flat = f.flat
    if len(arrays) != len(flat.sources):
        raise IllTypedError(f"evaluate: expected {len(flat.sources)} arrays ({f.source}), found {len(arrays)}")
    values = dict(zip(flat.sources, arrays, strict=True))
    for edge in flat.schedule():
        results = known(edge.operation).numpy(*(values[node] for node in edge.sources))
        values.update(zip(edge.targets, results, strict=True))
    return tuple(values[node] for node in flat.targets)
