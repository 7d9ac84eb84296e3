"""Kernels: perfect loop nests over named axes, the level below the tensor graph.

A :class:`Kernel` iterates over ``loops`` (outermost first; the last ``reduced`` of them are reduced), evaluates
``body`` at every point, combines the values by ``reduction``, and evaluates each write's expression once for every
reduced value. Reads and writes are affine: ``offset + sum(stride[l] * index[l])`` into the row-major flattening of
an array, so copies, broadcasts, reshapes and permutations cost nothing. A read may have bounds, outside of which it
yields 0, so padding costs nothing, too.

The same types serve two levels:

* *float kernels*, whose expressions use :class:`Read`, :class:`Constant`, :class:`Reduced` and :class:`Apply`;
* *integer kernels*, in which every narrowing is explicit: :class:`Shift`, :class:`Round`, :class:`Saturate` and
  :class:`Lookup` join in, and every constant is an integer.

Kernels of one program run in order; a kernel may update a parameter in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from catgrad_hw.ir.types import Dtype

Role: TypeAlias = Literal["parameter", "input", "target", "intermediate", "output"]


@dataclass(frozen=True)
class Array:
    """A flat, row-major array of words.

    ``batch_axis`` is the position in ``shape`` of the batch axis (an axis that never occurs in a parameter), or None.
    ``role``: ``parameter`` (persistent, updated in place by ``step``: the optimizer's state, too), ``input`` (x),
    ``target`` (what ``step`` alone reads: y, and a learning rate that is an argument), ``intermediate``, or ``output``
    (what ``predict`` returns). All arrays of a kernel have one ``dtype``; arithmetic on it is that of
    :mod:`catgrad_hw.ir.arithmetic`.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    batch_axis: int | None = None
    dtype: Dtype = Dtype.float32


@dataclass(frozen=True)
class Loop:
    """One level of a loop nest. ``batch`` marks the loop that runs over samples."""

    name: str
    size: int
    batch: bool = False


@dataclass(frozen=True)
class Bound:
    """Where ``0 <= offset + sum(strides[l] * index[l]) < size``: the inside of an array along one of its axes."""

    offset: int
    strides: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Access:
    """Address ``offset + sum(strides[l] * index[l])`` in the flattened ``array``; one stride for each loop.

    Where any of ``bounds`` is left, a read yields 0 and its address means nothing. Writes have none.
    """

    array: str
    offset: int
    strides: tuple[int, ...]
    bounds: tuple[Bound, ...] = ()


# --- expressions ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """The word of an array at an affine address."""

    access: Access


@dataclass(frozen=True)
class Constant:
    """A number: a float in float kernels, an integer in integer kernels."""

    value: float | int


@dataclass(frozen=True)
class Position:
    """In an epilogue: ``offset + sum(strides[l] * index[l])`` itself, as a number; compared with an argmax."""

    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Reduced:
    """In an epilogue: the value of the main reduction (or of the body, where nothing is reduced)."""


@dataclass(frozen=True)
class Apply:
    """An elementwise operation by name: a key of ``ELEMENTWISE`` in :mod:`catgrad_hw.ir.elementwise`."""

    operation: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Shift:
    """Integer kernels: ``argument * 2**amount``, exact; ``amount >= 0``."""

    argument: Expression
    amount: int


@dataclass(frozen=True)
class Round:
    """Integer kernels: ``argument / 2**shift`` to the nearest integer, halves up: ``(v + 2**(shift-1)) >> shift``.

    ``shift >= 0``; 0 is the identity. With ``draw`` the rounding is stochastic (Gupta et al., arXiv 1502.02551): the
    half is replaced by the keyed draw of the parameter whose flat index (over all parameters, in order) is ``draw``.
    """

    argument: Expression
    shift: int
    draw: Access | None = None


@dataclass(frozen=True)
class Saturate:
    """Integer kernels: clamp to ``width`` bits, two's complement.

    Each element that is clamped counts once in the saturation counter ``counter`` (None: not counted).
    """

    argument: Expression
    width: int
    counter: str | None = None


@dataclass(frozen=True)
class Lookup:
    """Integer kernels: a function of one word, by its name in ``tables`` (:mod:`catgrad_hw.numbers.tables`)."""

    table: str
    argument: Expression


Expression: TypeAlias = Read | Constant | Position | Reduced | Apply | Shift | Round | Saturate | Lookup


def under(access: Access, order: Sequence[int | None]) -> Access:
    """The access under other loops: loop ``i`` of them is the old loop ``order[i]``, or new where that is None."""

    def moved(strides: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(0 if old is None else strides[old] for old in order)

    bounds = tuple(Bound(bound.offset, moved(bound.strides), bound.size) for bound in access.bounds)
    return Access(access.array, access.offset, moved(access.strides), bounds)


def expression_under(expression: Expression, order: Sequence[int | None]) -> Expression:
    """The expression under other loops, as :func:`under`, draws included."""
    match expression:
        case Read(access):
            return Read(under(access, order))
        case Position(offset, strides):
            return Position(offset, tuple(0 if old is None else strides[old] for old in order))
        case Apply(name, arguments):
            return Apply(name, tuple(expression_under(argument, order) for argument in arguments))
        case Shift(argument, amount):
            return Shift(expression_under(argument, order), amount)
        case Round(argument, shift, draw):
            return Round(expression_under(argument, order), shift, None if draw is None else under(draw, order))
        case Saturate(argument, width, counter):
            return Saturate(expression_under(argument, order), width, counter)
        case Lookup(table, argument):
            return Lookup(table, expression_under(argument, order))
    return expression


# --- kernels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Write:
    """Store ``value`` at ``access``, whose strides over reduced loops are 0."""

    access: Access
    value: Expression


@dataclass(frozen=True)
class SideSum:
    """Beside the writes: the sum of the ``source``-th write's stored value over the loops named in ``over``.

    ``value`` is an expression in which :class:`Reduced` stands for that sum; it is stored at ``access``, whose
    strides over the loops in ``over`` are 0.
    """

    source: int
    over: tuple[str, ...]
    access: Access
    value: Expression


@dataclass(frozen=True)
class Kernel:
    """A perfect loop nest. ``loops`` outermost first; the last ``reduced`` loops are reduced by ``reduction``."""

    name: str
    loops: tuple[Loop, ...]
    reduced: int
    body: Expression
    reduction: Literal["sum", "max", "argmax"] | None
    writes: tuple[Write, ...]
    side_sums: tuple[SideSum, ...] = ()


@dataclass(frozen=True)
class KernelProgram:
    """Several programs (``step``, ``predict``) over the same arrays.

    ``parameters``, ``inputs`` and ``targets`` list array names in the order of the compiled functions' arguments;
    ``outputs`` those that ``predict`` returns. The last of the parameters, ``states``, are the optimizer's state, which
    starts at zeros and which ``predict`` does not read.
    """

    arrays: Mapping[str, Array]
    programs: Mapping[str, tuple[Kernel, ...]]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int = field(default=1)
    states: tuple[str, ...] = ()
