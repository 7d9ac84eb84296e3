"""Identity of axes: which axes of which arrays are the same axis, and which of them is the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.operations import Operation
from catgrad_hw.ir.windows import Crop, Flip, Fold, Pad, Windows

Labels = tuple[list[list[int]], list[list[int]]]


def _elementwise(operation: Operation) -> Labels:
    axes = list(range(len(operation.source()[0].shape)))
    return [axes for _ in operation.source()], [axes for _ in operation.target()]


def _leading(operation: Operation) -> Labels:
    """The axes of the smaller type lead those of the larger one."""
    return (
        [list(range(len(T.shape))) for T in operation.source()],
        [list(range(len(T.shape))) for T in operation.target()],
    )


def _apart(operation: Operation) -> Labels:
    return [[-1] * len(T.shape) for T in operation.source()], [[-1] * len(T.shape) for T in operation.target()]


def _permute(operation: Any) -> Labels:
    return [list(range(len(operation.p)))], [list(operation.p)]


def _reshape(operation: Any) -> Labels:
    """An axis survives where the products of the sizes before it and its own size agree on both sides."""
    left, right = operation.X.shape, operation.Y.shape
    sources, targets = [-1] * len(left), [-1] * len(right)
    i = j = label = 0
    before, after = 1, 1
    while i < len(left) and j < len(right):
        if before == after and left[i] == right[j]:
            sources[i] = targets[j] = label
            label += 1
            before *= left[i]
            after *= right[j]
            i += 1
            j += 1
        elif before * left[i] <= after * right[j]:
            before *= left[i]
            i += 1
        else:
            after *= right[j]
            j += 1
    return [sources], [targets]


def _compose(operation: Any) -> Labels:
    a, b, c = (len(T.shape) for T in (operation.A, operation.B, operation.C))
    A, B, C = list(range(a)), list(range(a, a + b)), list(range(a + b, a + b + c))
    return [A + B, B + C], [A + C]


def _matrix_multiply(operation: Any) -> Labels:
    n = len(operation.N.shape)
    N, (A, B, C) = list(range(n)), (n, n + 1, n + 2)
    return [[*N, A, B], [*N, B, C]], [[*N, A, C]]


def _pad(operation: Any) -> Labels:
    """Axes that are not padded survive."""
    places = zip(operation.low, operation.high, operation.step, strict=True)
    labels = [i if place == (0, 0, 1) else -1 for i, place in enumerate(places)]
    return [labels], [labels]


def _fold(operation: Any) -> Labels:
    labels = [-1 if i == operation.axis else i for i in range(len(operation.T.shape))]
    return [[*labels, -1]], [labels]


def _windows(operation: Any) -> Labels:
    sources, targets = _fold(operation)
    return targets, sources


def _flip(operation: Any) -> Labels:
    labels = [-1 if i == operation.axis else i for i in range(len(operation.T.shape))]
    return [labels], [labels]


AXES: Mapping[type[Operation], Callable[[Any], Labels]] = {
    ops.Copy: _elementwise,
    ops.Discard: _leading,
    ops.Add: _elementwise,
    ops.Subtract: _elementwise,
    ops.Negate: _elementwise,
    ops.Multiply: _elementwise,
    ops.Divide: _elementwise,
    ops.Power: _elementwise,
    ops.Invert: _elementwise,
    ops.Select: _elementwise,
    ops.Exp: _elementwise,
    ops.Log: _elementwise,
    ops.Sqrt: _elementwise,
    ops.Tanh: _elementwise,
    ops.TanhDerivative: _elementwise,
    ops.Gt: _elementwise,
    ops.Sigmoid: _elementwise,
    ops.SigmoidDerivative: _elementwise,
    ops.Constant: _apart,
    ops.NCopy: _leading,
    ops.NAdd: _leading,
    ops.NMax: _leading,
    ops.FirstMaximum: _leading,
    ops.NSplit: _leading,
    ops.NConcatenate: _leading,
    ops.Permute: _permute,
    ops.Reshape: _reshape,
    ops.Compose: _compose,
    ops.MatrixMultiply: _matrix_multiply,
    Pad: _pad,
    Crop: _pad,
    Windows: _windows,
    Fold: _fold,
    Flip: _flip,
}
"""For each operation its axes' labels, by source and by target; axes of one label are the same, -1 is like no other."""


def axis_classes(graph: Graph) -> list[tuple[int, ...]]:
    """For each value the classes of its axes: axes are the same where operations make them correspond."""
    parent: list[int] = []

    def find(axis: int) -> int:
        while parent[axis] != axis:
            parent[axis] = parent[parent[axis]]
            axis = parent[axis]
        return axis

    first: list[int] = []
    for T in graph.types:
        first.append(len(parent))
        parent.extend(range(len(parent), len(parent) + len(T.shape)))
    constants = {value for node in graph.nodes if isinstance(node.operation, ops.Constant) for value in node.outputs}
    for node in graph.nodes:
        rule = AXES.get(type(node.operation))
        if rule is None:
            raise UnsupportedError(f"{type(node.operation).__name__}: expected an entry in AXES, found none; add one")
        sources, targets = rule(node.operation)
        seen: dict[int, int] = {}
        for value, labels in zip((*node.inputs, *node.outputs), sources + targets, strict=True):
            for axis, label in enumerate(labels, first[value]):
                # A constant is the same along all axes, and may be shared by values that have nothing else in common.
                if label >= 0 and value not in constants:
                    low, high = sorted((find(seen.setdefault(label, axis)), find(axis)))
                    parent[high] = low
    return [tuple(find(first[v] + i) for i in range(len(T.shape))) for v, T in enumerate(graph.types)]


def batch_class(graph: Graph, classes: list[tuple[int, ...]]) -> int | None:
    """The class of the batch axis: that of the first input's first axis, unless it occurs in a parameter."""
    samples = next((classes[v][0] for v, i in enumerate(graph.inputs) if i.role == "input" and i.type.shape), None)
    shared = {c for v, i in enumerate(graph.inputs) if i.role == "parameter" for c in classes[v]}
    return None if samples in shared else samples
