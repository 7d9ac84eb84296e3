"""The operations: generating morphisms, under catgrad's names.

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
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from catgrad_hw.errors import IllTypedError, UnsupportedError
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


def _arithmetic(operation: Operation, T: NdArrayType, floating: bool = False) -> None:
    """Refuse dtypes on which an operation has no meaning here."""
    allowed = (Dtype.float32,) if floating else (Dtype.float32, Dtype.int32)
    if T.dtype not in allowed:
        names = " or ".join(dtype.name for dtype in allowed)
        raise UnsupportedError(
            f"{type(operation).__name__}: expected {names}, found {T.dtype.name} in {T}; change the dtype"
        )


def _scalar(operation: Operation, name: str, found: Scalar) -> None:
    """Check the field ``name`` and make it a number of Python's, whatever library it came from."""
    if not isinstance(found, Real) or not math.isfinite(found):
        raise IllTypedError(
            f"{type(operation).__name__}: {name} must be a finite number, found {found!r}; give an int or a float"
        )
    object.__setattr__(operation, name, int(found) if isinstance(found, Integral) else float(found))


def _same_dtype(operation: Operation, *types: NdArrayType) -> None:
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

    def __post_init__(self) -> None:
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (x + y,)

    def rev(self) -> OpenHypergraph:
        return op(Copy(self.T))


@dataclass(frozen=True)
class Constant(Linear):
    """``() ↦`` an array filled with ``x``. Constant maps have derivative 0, so the cotangent is discarded."""

    T: NdArrayType
    x: Scalar

    def __post_init__(self) -> None:
        _scalar(self, "x", self.x)
        if not self.T.dtype.is_floating() and self.x != int(self.x):
            raise IllTypedError(f"Constant: x must be an integer in {self.T}, found {self.x}; round it")

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
        _same_dtype(self, self.N, self.T)

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
        _same_dtype(self, self.N, self.T)
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return obj(self.N)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (x.sum(axis=_trailing(self.T), dtype=x.dtype),)

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

    def __post_init__(self) -> None:
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (-x,)

    def rev(self) -> OpenHypergraph:
        return op(self)


@dataclass(frozen=True)
class Subtract(Linear):
    """``(x, y) ↦ x − y``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (x - y,)

    def rev(self) -> OpenHypergraph:
        return op(Copy(self.T)) >> (identity(obj(self.T)) @ op(Negate(self.T)))


# --- views ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reshape(Linear):
    """``X → Y``: the same entries, in row-major order, under another shape."""

    X: NdArrayType
    Y: NdArrayType

    def __post_init__(self) -> None:
        _same_dtype(self, self.X, self.Y)
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

    def __post_init__(self) -> None:
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (x * y,)

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
        _same_dtype(self, self.A, self.B, self.C)
        _arithmetic(self, self.A)

    def source(self) -> Object:
        return obj(self.A + self.B, self.B + self.C)

    def target(self) -> Object:
        return obj(self.A + self.C)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (np.tensordot(x, y, axes=len(self.B.shape)),)

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
        _same_dtype(self, self.N, self.A, self.B, self.C)
        _arithmetic(self, self.A)
        for T in (self.A, self.B, self.C):
            if len(T.shape) != 1:
                raise IllTypedError(f"MatrixMultiply: A, B and C must have one axis, found {T}; use Compose")

    def source(self) -> Object:
        return obj(self.N + self.A + self.B, self.N + self.B + self.C)

    def target(self) -> Object:
        return obj(self.N + self.A + self.C)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (x @ y,)

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
class Gt(Linear):
    """``(x, y) ↦ 1`` where ``x > y``, else 0. Locally constant, so cotangents are 0 wherever it is differentiable."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (np.greater(x, y).astype(np.result_type(x, y)),)

    def rev(self) -> OpenHypergraph:
        return op(Discard(self.T)) >> zero(obj(self.T, self.T))


@dataclass(frozen=True)
class NMax(Lens):
    """``N + T → N``: the largest entry over the trailing axes. Entries that tie share the cotangent equally."""

    N: NdArrayType
    T: NdArrayType

    def __post_init__(self) -> None:
        _same_dtype(self, self.N, self.T)
        _arithmetic(self, self.T)
        if (self.N + self.T).size == 0:
            raise IllTypedError(f"NMax: expected at least one entry, found {self.N + self.T}; change the shape")

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return obj(self.N)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (x.max(axis=_trailing(self.T)),)

    def rev(self) -> OpenHypergraph:
        _arithmetic(self, self.T, floating=True)
        N, X = obj(self.N), obj(self.N + self.T)
        spread = op(NCopy(self.N, self.T))
        less = copy(X) >> ((op(self) >> spread) @ identity(X)) >> gt(X)
        mask = less >> (constant(1)(X) @ identity(X)) >> subtract(X)  # 1 at each maximum
        shares = (mask >> copy(X) >> (identity(X) @ op(NAdd(self.N, self.T)))) @ identity(N)  # mask, ties, d
        return shares >> (identity(X) @ (twist(N, N) >> divide(N) >> spread)) >> multiply(X)


# --- partial functions ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Divide(Lens):
    """``(x, y) ↦ x / y``, for ``y ≠ 0``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T, floating=True)

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (x / y,)

    def rev(self) -> OpenHypergraph:
        # x, y, d ↦ d/y, −(x/y)·(d/y)
        T = obj(self.T)
        f = (identity(T) @ copy(T) @ identity(T)) >> (divide(T) @ twist(T, T)) >> (identity(T) @ divide(T))
        f = f >> (identity(T) @ copy(T)) >> permutation(T + T + T, [1, 0, 2])
        return f >> (identity(T) @ (multiply(T) >> negate(T)))


@dataclass(frozen=True)
class Power(Lens):
    """``(x, y) ↦ x^y``; its reverse map needs ``x > 0``. For a constant exponent use :class:`Exponentiate`."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T, floating=True)

    def source(self) -> Object:
        return obj(self.T, self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        return (np.power(x, y),)

    def rev(self) -> OpenHypergraph:
        # x, y, d ↦ d·y·x^(y−1), d·log(x)·x^y
        T = obj(self.T)
        by_base = (identity(T) @ copy(T)) >> (identity(T) @ increment(-1)(T) @ identity(T))
        by_base = by_base >> (op(self) @ identity(T)) >> multiply(T)
        by_exponent = (copy(T) @ identity(T)) >> (op(Log(self.T)) @ op(self)) >> multiply(T)
        f = copy(T + T) >> (by_base @ by_exponent)
        f = (f @ copy(T)) >> permutation(T + T + T + T, [0, 2, 1, 3])
        return f >> (multiply(T) @ multiply(T))


@dataclass(frozen=True)
class Log(Lens):
    """The natural logarithm, for ``x > 0``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T, floating=True)

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


# --- functions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sigmoid(Operation):
    """``σ(x) = 1 / (1 + e^−x)``. The residual is ``σ′(x)``, a function of ``x`` beside ``σ``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T, floating=True)

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
        _arithmetic(self, self.T, floating=True)

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
        _arithmetic(self, self.T, floating=True)
        _scalar(self, "s", self.s)
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
    """``x ↦ x^s`` for a constant ``s``."""

    T: NdArrayType
    s: Scalar

    def __post_init__(self) -> None:
        _arithmetic(self, self.T, floating=True)
        _scalar(self, "s", self.s)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def core(self) -> OpenHypergraph:
        return (identity(obj(self.T)) @ op(Constant(self.T, self.s))) >> op(Power(self.T))

    def rev(self) -> OpenHypergraph:
        T = obj(self.T)
        return ((op(Exponentiate(self.T, self.s - 1)) >> scale(self.s)(T)) @ identity(T)) >> multiply(T)


@dataclass(frozen=True)
class SGD(Derived, Lens):
    """Gradient descent as a lens on parameters: forward the identity, reverse ``(p, ∂p) ↦ p − c·∂p``."""

    T: NdArrayType
    c: Scalar

    def __post_init__(self) -> None:
        _arithmetic(self, self.T, floating=True)
        _scalar(self, "c", self.c)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def core(self) -> OpenHypergraph:
        return identity(obj(self.T))

    def rev(self) -> OpenHypergraph:
        T = obj(self.T)
        return (identity(T) @ scale(self.c)(T)) >> subtract(T)


@dataclass(frozen=True)
class MSE(Derived, Lens):
    """The loss ``½Σ(ŷ − y)²`` as a lens: forward the identity, reverse ``(ŷ, y) ↦ ŷ − y``."""

    T: NdArrayType

    def __post_init__(self) -> None:
        _arithmetic(self, self.T)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def core(self) -> OpenHypergraph:
        return identity(obj(self.T))

    def rev(self) -> OpenHypergraph:
        return subtract(obj(self.T))


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
sigmoid = canonical(lambda T: op(Sigmoid(T)))
parameter = canonical(lambda T: op(Parameter(T)))
mse = canonical(lambda T: op(MSE(T)))


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


def sgd(c: Scalar) -> Canonical:
    """Gradient descent with learning rate ``c``."""
    return canonical(lambda T: op(SGD(T, c)))


def exp1(T: NdArrayType) -> OpenHypergraph:
    """``x ↦ e^x``."""
    return (op(Constant(T, math.e)) @ identity(obj(T))) >> op(Power(T))


# --- meaning of diagrams ----------------------------------------------------------------------------------------


def known(generator: Generator) -> Operation:
    """The generator, if it is an :class:`Operation`; raises :class:`UnsupportedError` otherwise."""
    if not isinstance(generator, Operation):
        raise UnsupportedError(f"{generator!r}: expected an Operation, found another class; derive it from Operation")
    return generator


to_core = Functor(on_type=lambda T: obj(T), on_operation=lambda g: known(g).core())
"""Replace derived operations by their diagrams of core operations."""


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
