"""How ``step`` changes a parameter, as the tensor graph spells it."""

from __future__ import annotations

from dataclasses import dataclass

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.ir.graph import Graph


@dataclass(frozen=True)
class Update:
    """A parameter's new value, ``parameter - product`` where ``product = factor * gradient``; factor is 2**k."""

    product: int
    factor: float
    gradient: int


def update_of(graph: Graph, parameter: int, value: int) -> Update | None:
    """How ``value`` is ``parameter`` less a product, or None where it is something else."""
    node = graph.producers[value]
    if node is None or not isinstance(node.operation, ops.Subtract) or node.inputs[0] != parameter:
        return None
    product = node.inputs[1]
    factored = scaled(graph, product)
    if factored is None or not is_power_of_two(factored[0]):
        return Update(product, 1.0, product)
    return Update(product, *factored)


def scaled(graph: Graph, value: int) -> tuple[float, int] | None:
    """``(factor, other)`` where ``value`` is a constant times another value."""
    product = graph.producers[value]
    if product is not None and isinstance(product.operation, ops.Multiply):
        for factor, other in (product.inputs, product.inputs[::-1]):
            c = graph.constant(factor)
            if c is not None:
                return float(c), other
    return None
