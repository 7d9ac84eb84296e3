"""Ways to build diagrams from diagrams."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.hypergraph import OpenHypergraph, identity, op, permutation, spider, tensor, twist, unit
from catgrad_hw.ir.types import NdArrayType, Object

__all__ = ["Canonical", "canonical", "identity", "op", "permutation", "spider", "tensor", "transpose", "twist", "unit"]

Canonical: TypeAlias = Callable[[Object], OpenHypergraph]


def transpose(A: Object, rows: int, columns: int) -> OpenHypergraph:
    """The permutation that transposes ``rows × columns`` wires, listed row by row."""
    if rows * columns != len(A):
        raise IllTypedError(
            f"transpose: expected {rows} x {columns} = {rows * columns} wires, found {len(A)}; change rows or columns"
        )
    return permutation(A, [row * columns + column for column in range(columns) for row in range(rows)])


def canonical(component: Callable[[NdArrayType], OpenHypergraph]) -> Canonical:
    """Lift a diagram for each type to one for each object, with wires interleaved.

    Given ``component(T) : T●…●T → U●…●U``, the result at ``A = T₀●…●Tₙ`` has source ``A●…●A``; for example, copy at
    ``A`` is ``A → A ● A``. Raises :class:`IllTypedError` when components differ in their number of wires.
    """

    def lifted(A: Object) -> OpenHypergraph:
        if not isinstance(A, Object):
            raise IllTypedError(f"expected an object, found {A!r}; write obj(...) around the type")
        components = [component(T) for T in A]
        arities = {(len(f.source), len(f.target)) for f in components}
        if not components:
            return unit()
        if len(arities) > 1:
            raise IllTypedError(
                f"canonical: components must have the same number of wires, found {sorted(arities)}; change the map"
            )
        ((arity, coarity),) = arities
        f = tensor(*components)
        n = len(A)
        # The components' wires are listed type by type; those of the lifted diagram copy by copy.
        source = Object(f.source[i * arity + j] for j in range(arity) for i in range(n))
        return transpose(source, arity, n) >> f >> transpose(f.target, n, coarity)

    return lifted
