"""Recognise the logistic function and its derivative where they are written out.

Precondition: folded constants (:mod:`~catgrad_hw.ir.passes.fold_constants`). catgrad writes ``σ(x) = 1 / (1 + e^−x)``
and ``σ′ = σ · (1 − σ)``; the first loses digits where ``e^−x`` is large, the second where ``σ`` is near 1, and kernels
and hardware have both as functions::

    t1 = Negate t0
    t2 = Power 2.718281828 t1
    t3 = Add 1 t2                 t4 = Sigmoid t0
    t4 = Divide 1 t3         →    t6 = SigmoidDerivative t0
    t5 = Subtract 1 t4
    t6 = Multiply t4 t5
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Builder, Graph, rewrite
from catgrad_hw.ir.operations import Operation


def recognize_sigmoid(graph: Graph) -> Graph:
    """The graph with σ and σ′ as operations."""
    return rewrite(graph, _rule)


def _rule(builder: Builder, operation: Operation, inputs: tuple[int, ...]) -> Sequence[int] | None:
    match operation:
        case ops.Divide(T) if builder.constant(inputs[0]) == 1:
            x = _logistic_argument(builder, inputs[1])
            return None if x is None else builder.add(ops.Sigmoid(T), (x,))
        case ops.Multiply(T):
            for sigma, rest in (inputs, inputs[::-1]):
                node, complement = builder.producers[sigma], _inputs(builder, rest, ops.Subtract)
                one = complement is not None and builder.constant(complement[0]) == 1 and complement[1] == sigma
                if node is not None and isinstance(node.operation, ops.Sigmoid) and one:
                    return builder.add(ops.SigmoidDerivative(T), node.inputs)
    return None


def _logistic_argument(builder: Builder, value: int) -> int | None:
    """``x`` where ``value`` is ``1 + e^−x``."""
    for one, power in _orders(_inputs(builder, value, ops.Add)):
        if builder.constant(one) != 1:
            continue
        exponent = _exponent(builder, power)
        negated = None if exponent is None else _inputs(builder, exponent, ops.Negate)
        if negated is not None:
            return negated[0]
    return None


def _exponent(builder: Builder, value: int) -> int | None:
    """``y`` where ``value`` is ``e^y``."""
    exponential = _inputs(builder, value, ops.Exp)
    if exponential is not None:
        return exponential[0]
    power = _inputs(builder, value, ops.Power)
    base = None if power is None else builder.constant(power[0])
    return power[1] if power is not None and base is not None and math.isclose(base, math.e, rel_tol=1e-7) else None


def _inputs(builder: Builder, value: int, operation: type[Operation]) -> tuple[int, ...] | None:
    node = builder.producers[value]
    return node.inputs if node is not None and isinstance(node.operation, operation) else None


def _orders(pair: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    return [] if pair is None else [pair, pair[::-1]]
