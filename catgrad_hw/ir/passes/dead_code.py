"""Drop nodes on which no output depends.

Precondition: none. The step of catgrad computes the gradient of its input and discards it; here it goes::

    t5 = Compose t4 t3              step -> t6
    t6 = Subtract p0 t4     →
    step -> t6
"""

from __future__ import annotations

from catgrad_hw.ir.graph import Graph


def dead_code(graph: Graph) -> Graph:
    """The graph of the nodes that some output needs."""
    return graph.restrict(list(graph.outputs))
