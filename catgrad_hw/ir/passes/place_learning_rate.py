"""Put the learning rate where it costs fewest multiplications.

Precondition: no copies (:mod:`~catgrad_hw.ir.passes.drop_copies`). Gradients are linear in the error, so the learning
rate may multiply either the gradients of the parameters or the error. A small net at a large batch has fewer
parameters, a large net at a small batch has fewer errors. A power of two costs nothing and stays::

    t1 = Subtract yhat y                  t1 = Subtract yhat y
    t2 = Compose xt t1               →    t2 = Multiply lr t1
    t3 = Multiply lr t2                   t3 = Compose xt t2
    t4 = Subtract p0 t3                   t4 = Subtract p0 t3
"""

from __future__ import annotations

from enum import IntEnum

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.ir.graph import Builder, Graph, Node
from catgrad_hw.ir.operations import Operation, Scalar

VIEWS = (ops.Permute, ops.Reshape, ops.NCopy, ops.NSplit, ops.NConcatenate)
LINEAR = (*VIEWS, ops.NAdd, ops.Negate, ops.Add, ops.Subtract)
BILINEAR = (ops.Multiply, ops.Compose, ops.MatrixMultiply)


class _Degree(IntEnum):
    """How a value depends on the errors: values that read a target and from which gradients flow."""

    NONE = 0
    LINEAR = 1
    OTHER = 2


def place_learning_rate(graph: Graph) -> Graph:
    """The graph with the learning rate of ``step`` on the errors, where that is cheaper than on the gradients."""
    found = _updates(graph)
    if found is None:
        return graph
    rate, gradients = found
    degrees, errors = _degrees(graph)
    if any(degrees[value] != _Degree.LINEAR for value in gradients.values()):
        return graph
    needed = _needed(graph, degrees, errors, set(gradients.values()))
    on_gradients = sum(graph.types[value].size for value in gradients.values())
    on_errors = sum(graph.types[value].size for value in sorted(needed & errors))
    return _move(graph, rate, gradients, errors, needed) if on_errors < on_gradients else graph


def _updates(graph: Graph) -> tuple[Scalar, dict[int, int]] | None:
    """The learning rate and, by the value of a new parameter, its gradient; None where there is not one such rate."""
    rates: list[Scalar] = []
    gradients: dict[int, int] = {}
    for parameter, value in enumerate(graph.outputs.get("step", ())):
        if value == parameter:
            continue
        node = graph.producers[value]
        if node is None or not isinstance(node.operation, ops.Subtract) or node.inputs[0] != parameter:
            return None
        product = graph.producers[node.inputs[1]]
        if product is None or not isinstance(product.operation, ops.Multiply):
            return None
        constants = [graph.constant(factor) for factor in product.inputs]
        position = next((i for i, c in enumerate(constants) if c is not None), None)
        if position is None:
            return None
        rate = constants[position]
        assert rate is not None
        rates.append(rate)
        gradients[value] = product.inputs[1 - position]
    if not rates or any(rate != rates[0] for rate in rates) or is_power_of_two(rates[0]):
        return None
    return rates[0], gradients


def _degrees(graph: Graph) -> tuple[list[_Degree], set[int]]:
    """Each value's degree in the errors, and the errors: what is computed from a target directly."""
    degrees = [_Degree.OTHER if i.role == "target" else _Degree.NONE for i in graph.inputs]
    targets = {value for value, i in enumerate(graph.inputs) if i.role == "target"}
    errors: set[int] = set()
    for node in graph.nodes:
        if targets.intersection(node.inputs):
            if isinstance(node.operation, VIEWS):
                targets.update(node.outputs)
                degrees += [_Degree.OTHER] * len(node.outputs)
            else:
                errors.update(node.outputs)
                degrees += [_Degree.LINEAR] * len(node.outputs)
            continue
        degree = _degree(node.operation, [degrees[value] for value in node.inputs])
        degrees += [degree] * len(node.outputs)
    return degrees, errors


def _degree(operation: Operation, inputs: list[_Degree]) -> _Degree:
    if all(degree == _Degree.NONE for degree in inputs):
        return _Degree.NONE
    if _Degree.OTHER in inputs:
        return _Degree.OTHER
    linear = inputs.count(_Degree.LINEAR)
    match operation:
        case _ if isinstance(operation, LINEAR):
            return _Degree.LINEAR if linear == len(inputs) else _Degree.OTHER
        case _ if isinstance(operation, BILINEAR):
            return _Degree.LINEAR if linear == 1 else _Degree.OTHER
        case ops.Divide():
            return _Degree.LINEAR if inputs == [_Degree.LINEAR, _Degree.NONE] else _Degree.OTHER
    return _Degree.OTHER


def _needed(graph: Graph, degrees: list[_Degree], errors: set[int], gradients: set[int]) -> set[int]:
    """The values between the errors and the gradients, both included: those that will be scaled."""
    needed = set(gradients)
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs) and not errors.intersection(node.outputs):
            needed.update(value for value in node.inputs if degrees[value] == _Degree.LINEAR)
    return needed


def _move(graph: Graph, rate: Scalar, gradients: dict[int, int], errors: set[int], needed: set[int]) -> Graph:
    builder = Builder(graph.inputs)
    renamed = list(range(len(graph.inputs)))
    scaled: dict[int, int] = {}

    def scale(node: Node) -> None:
        for value in node.outputs:
            if value in errors:
                T = graph.types[value]
                factor = builder.add1(ops.Constant(T, rate))
                scaled[value] = builder.add1(ops.Multiply(T), factor, renamed[value])
                return
        results = builder.add(node.operation, [scaled.get(value, renamed[value]) for value in node.inputs])
        scaled.update(zip(node.outputs, results, strict=True))

    for node in graph.nodes:
        inputs = [renamed[value] for value in node.inputs]
        if node.outputs and node.outputs[0] in gradients:
            inputs[1] = scaled[gradients[node.outputs[0]]]
        renamed += builder.add(node.operation, inputs)
        if needed.intersection(node.outputs):
            scale(node)
    return builder.build({group: [renamed[value] for value in values] for group, values in graph.outputs.items()})
