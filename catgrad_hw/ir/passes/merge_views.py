"""Merge chains of views, and drop views that change nothing.

Precondition: none::

    t1 = Permute (1, 0) t0
    t2 = Permute (1, 0) t1   →   t3 = Sigmoid t0
    t3 = Sigmoid t2
"""

from __future__ import annotations

from collections.abc import Sequence

from catgrad_hw.ir.graph import Builder, Graph, rewrite
from catgrad_hw.ir.operations import NAdd, NCopy, Operation, Permute, Reshape

MERGED = (Permute, Reshape, NCopy, NAdd)


def merge_views(graph: Graph) -> Graph:
    """The graph with :class:`Permute`, :class:`Reshape` and :class:`NCopy` merged with those that they read."""

    def rule(builder: Builder, operation: Operation, inputs: tuple[int, ...]) -> Sequence[int] | None:
        if type(operation) not in MERGED:
            return None
        before = builder.producers[inputs[0]]
        first = None if before is None else before.operation
        match first, operation:
            case Permute(), Permute():
                merged = Permute(first.T, [first.p[axis] for axis in operation.p])
                return _simple(builder, merged, before.inputs[0])  # type: ignore[union-attr]
            case Reshape(), Reshape():
                return _simple(builder, Reshape(first.X, operation.Y), before.inputs[0])  # type: ignore[union-attr]
            case NCopy(), NCopy():
                return builder.add(NCopy(first.N, first.T + operation.T), before.inputs)  # type: ignore[union-attr]
            case NAdd(), NAdd():
                return builder.add(NAdd(operation.N, operation.T + first.T), before.inputs)  # type: ignore[union-attr]
            case _, (Permute() | Reshape() | NCopy() | NAdd()):
                return [inputs[0]] if _is_identity(operation) else None
        return None

    return rewrite(graph, rule)


def _simple(builder: Builder, operation: Operation, value: int) -> Sequence[int]:
    return [value] if _is_identity(operation) else builder.add(operation, [value])


def _is_identity(operation: Operation) -> bool:
    """Views whose result has the argument's type and order of entries are the argument itself."""
    source, target = operation.signature
    return source == target and (not isinstance(operation, Permute) or list(operation.p) == sorted(operation.p))
