"""Readable names for the values of a tensor graph.

A graph's inputs keep their names. ``yhat`` (or ``yhat0, yhat1, …``) is what ``predict`` returns, ``a1, a2, …`` are
activations, ``s1, …`` derivatives of activations, ``e1, …`` errors, ``d1, …`` cotangents, ``g0, …`` gradients of the
parameters ``p0, …``, ``z1, …`` other results of contractions and sums, and ``t1, …`` other values.
"""

from __future__ import annotations

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Graph, Node
from catgrad_hw.ir.updates import scaled, update_of

VIEWS = (ops.Permute, ops.Reshape, ops.NCopy, ops.NSplit)


def output_names(graph: Graph) -> list[str]:
    """The names of what ``predict`` returns."""
    count = len(graph.outputs["predict"])
    return ["yhat"] if count == 1 else [f"yhat{i}" for i in range(count)]


def value_names(graph: Graph) -> list[str]:
    """A readable name for each value of a graph with the groups ``predict`` and ``step``; names differ."""
    special: dict[int, str] = {}
    for value, name in zip(graph.outputs["predict"], output_names(graph), strict=True):
        node = graph.producers[value]
        if node is not None and _is_computed(node):
            special.setdefault(value, name)
    for i, value in enumerate(graph.outputs["step"]):
        update = update_of(graph, i, value)
        if update is not None:
            _, gradient = scaled(graph, update.product) or (1.0, update.gradient)
            special.setdefault(gradient, f"g{i}")
    names = [i.name for i in graph.inputs]
    targets = {value for value, i in enumerate(graph.inputs) if i.role == "target"}
    after_targets = set(targets)
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if after_targets.intersection(node.inputs):
            after_targets.update(node.outputs)
        for value in node.outputs:
            letter = _letter(node, targets, value in after_targets)
            if value not in special:
                counts[letter] = counts.get(letter, 0) + 1
            names.append(special.get(value, f"{letter}{counts.get(letter)}"))
    return names


def _is_computed(node: Node) -> bool:
    return not isinstance(node.operation, (*VIEWS, ops.Constant))


def _letter(node: Node, targets: set[int], after_targets: bool) -> str:
    match node.operation:
        case ops.Sigmoid():
            return "a"
        case ops.SigmoidDerivative():
            return "s"
        case ops.Subtract() if targets.intersection(node.inputs):
            return "e"
    if not _is_computed(node):
        return "t"
    if after_targets:
        return "d"
    return "z" if isinstance(node.operation, ops.Compose | ops.MatrixMultiply | ops.NAdd | ops.Add) else "t"
