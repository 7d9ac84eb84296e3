"""Fold constants: identities of arithmetic with arrays whose entries are all equal.

Precondition: none. Exact for finite values (``x · 0`` becomes 0)::

    t1 = Constant 0
    t2 = Add t0 t1       →   t3 = Negate t0
    t3 = Subtract t1 t2
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Builder, Graph, rewrite
from catgrad_hw.ir.operations import Operation, Scalar
from catgrad_hw.ir.types import Dtype, NdArrayType

SIMPLIFIED = (
    ops.Add,
    ops.Subtract,
    ops.Negate,
    ops.Multiply,
    ops.Divide,
    ops.Select,
    ops.Compose,
    ops.MatrixMultiply,
)
"""Operations of which some arguments, not all, being constants or negations says something."""


def fold_constants(graph: Graph) -> Graph:
    """The graph with operations on constants evaluated, and those that change nothing removed."""
    return rewrite(graph, _rule)


def _rule(builder: Builder, operation: Operation, inputs: tuple[int, ...]) -> Sequence[int] | None:
    target = operation.signature[1]
    if not inputs or len(target) != 1:
        return None
    (T,) = target
    if T.dtype is Dtype.bool:  # in Z_2, −x = x
        match operation:
            case ops.Negate():
                return inputs
            case ops.Subtract():
                return builder.add(ops.Add(T), inputs)
    if isinstance(operation, ops.FirstMaximum) and operation.T.size == 1:  # of one entry
        return builder.add(ops.Constant(T, 1))
    known = [builder.constant(value) for value in inputs]
    if all(value is not None for value in known):
        folded = _evaluate(operation, known)
        return None if folded is None or not ops.holds(T, folded) else builder.add(ops.Constant(T, folded))
    if all(value is None for value in known):
        return _signs(builder, operation, inputs, T)
    if type(operation) not in SIMPLIFIED:
        return None
    match operation, known:
        case ops.Add(), [0, None]:
            return inputs[1:]
        case ((ops.Add() | ops.Subtract()), [None, 0]):
            return inputs[:1]
        case ops.Subtract(), [0, None]:
            return builder.add(ops.Negate(T), inputs[1:])
        case ops.Multiply(), [1, None]:
            return inputs[1:]
        case ((ops.Multiply() | ops.Divide()), [None, 1]):
            return inputs[:1]
        case ops.Multiply(), [0, None] | [None, 0]:
            return builder.add(ops.Constant(T, 0))
        case ops.Select(), [c, _, _] if c is not None:
            return inputs[1:2] if c > 0 else inputs[2:]
        case ((ops.Compose() | ops.MatrixMultiply()), [0, None] | [None, 0]):
            return builder.add(ops.Constant(T, 0))
    return _signs(builder, operation, inputs, T)


def _signs(builder: Builder, operation: Operation, inputs: tuple[int, ...], T: NdArrayType) -> Sequence[int] | None:
    """Move negations into additions: ``−−x = x``, ``x + −y = x − y``, ``x − −y = x + y``, ``−(x − y) = y − x``."""
    if type(operation) not in (ops.Add, ops.Subtract, ops.Negate):
        return None
    negated = [_argument(builder, value, ops.Negate) for value in inputs]
    match operation, negated:
        case ops.Negate(), [(x,)]:
            return [x]
        case ops.Add(), [_, (y,)]:
            return builder.add(ops.Subtract(T), (inputs[0], y))
        case ops.Add(), [(x,), _]:
            return builder.add(ops.Subtract(T), (inputs[1], x))
        case ops.Subtract(), [_, (y,)]:
            return builder.add(ops.Add(T), (inputs[0], y))
        case ops.Negate(), _:
            difference = _argument(builder, inputs[0], ops.Subtract)
            if difference is not None:
                return builder.add(ops.Subtract(T), difference[::-1])
    return None


def _argument(builder: Builder, value: int, operation: type[Operation]) -> tuple[int, ...] | None:
    node = builder.producers[value]
    return node.inputs if node is not None and isinstance(node.operation, operation) else None


def _evaluate(operation: Operation, known: Sequence[Scalar | None]) -> Scalar | None:
    """The result's entry where all entries of all arguments are equal; None where entries of the result differ."""
    arguments = []
    for T, value in zip(operation.source(), known, strict=True):
        assert value is not None
        arguments.append(np.full(T.shape, value, np.float64 if T.dtype.is_floating() else T.dtype.value))
    if operation.target()[0].size == 0:
        return None
    (result,) = operation.numpy(*arguments)
    first = result.flat[0]
    return first.item() if np.isfinite(first) and bool(np.all(result == first)) else None
