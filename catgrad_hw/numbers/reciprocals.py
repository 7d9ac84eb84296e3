"""Divide by multiplying: a machine of multipliers has a unit for ``1 / y``, and none for ``x / y``.

A pass over the tensor graph that integer programs alone take; it costs multiplications where a processor would divide.
The reciprocal is taken of what is spread over the axes of a quotient, so a softmax takes one for each sample::

    t3 = NCopy t2          t3 = Divide 1 t2
    t4 = Divide t1 t3  →   t4 = NCopy t3
                           t5 = Multiply t1 t4
"""

from __future__ import annotations

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Builder, Graph


def divide_by_multiplying(graph: Graph) -> Graph:
    """The graph with every quotient as a product with a reciprocal, ``1 / y``, which alone stay."""
    builder = Builder(graph.inputs)
    renamed = list(range(len(graph.inputs)))
    for node in graph.nodes:
        inputs = [renamed[value] for value in node.inputs]
        if not isinstance(node.operation, ops.Divide) or graph.constant(node.inputs[0]) == 1:
            renamed += builder.add(node.operation, inputs)
            continue
        x, y = inputs
        spread = graph.producers[node.inputs[1]]
        if spread is not None and isinstance(spread.operation, ops.NCopy):
            y = renamed[spread.inputs[0]]
        T = builder.types[y]
        reciprocal = builder.add1(ops.Divide(T), builder.add1(ops.Constant(T, 1.0)), y)
        if spread is not None and isinstance(spread.operation, ops.NCopy):
            reciprocal = builder.add1(spread.operation, reciprocal)
        renamed.append(builder.add1(ops.Multiply(node.operation.T), x, reciprocal))
    return builder.build({group: [renamed[value] for value in values] for group, values in graph.outputs.items()})
