"""The work of a tensor graph, counted in multiplications."""

from __future__ import annotations

import math

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Graph, Node


def is_power_of_two(value: float) -> bool:
    """Whether a factor is 0 or plus or minus a power of two: multiplying by it moves the binary point alone."""
    return value == 0 or abs(math.frexp(value)[0]) == 0.5


def node_multiplications(graph: Graph, node: Node) -> int:
    """Multiplications of one node: one for each pair of numbers that is multiplied.

    Functions (σ and σ′ are one look-up in a table), divisions, additions and factors that are a power of two count 0.
    """
    match node.operation:
        case ops.Multiply(T):
            constants = [graph.constant(value) for value in node.inputs]
            return 0 if any(c is not None and is_power_of_two(c) for c in constants) else T.size
        case ops.Compose(A, B, C):
            return A.size * B.size * C.size
        case ops.MatrixMultiply(N, A, B, C):
            return N.size * A.size * B.size * C.size
    return 0


def breakdown(graph: Graph, group: str = "step") -> list[tuple[Node, int]]:
    """The nodes that multiply, among those that a group needs, in order, with their multiplications."""
    counts = [(node, node_multiplications(graph, node)) for node in graph.needed([group])]
    return [(node, count) for node, count in counts if count]


def multiplications(graph: Graph, group: str = "step") -> int:
    """The multiplications that one evaluation of a group does, nodes that it does not need excluded."""
    return sum(count for _, count in breakdown(graph, group))
