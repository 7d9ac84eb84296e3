"""Drop copies and discards.

Precondition: none. In a tensor graph a value may be read any number of times, so copying needs no node::

    t1, t2 = Copy t0        t3 = Multiply t0 t0
    t3 = Multiply t1 t2  →
    Discard t1
"""

from __future__ import annotations

from collections.abc import Sequence

from catgrad_hw.ir.graph import Builder, Graph, rewrite
from catgrad_hw.ir.operations import Copy, Discard, Operation


def drop_copies(graph: Graph) -> Graph:
    """The graph without :class:`Copy` and :class:`Discard`."""

    def rule(builder: Builder, operation: Operation, inputs: tuple[int, ...]) -> Sequence[int] | None:
        if type(operation) is Copy:
            return inputs * 2
        if type(operation) is Discard:
            return ()
        return None

    return rewrite(graph, rule)
