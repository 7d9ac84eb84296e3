"""Another batch for a model whose types hold one already.

The batch is the first axis of the inputs and outputs, and every axis that operations make correspond to it (the rules
of :mod:`catgrad_hw.ir.axes`), in the model's reverse derivative as in the model itself. These get another size; then
every operation is given the types that it has now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catgrad_hw.errors import IllTypedError, ModelError, UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.axes import AXES
from catgrad_hw.ir.hypergraph import Edge, Flat, OpenHypergraph, op
from catgrad_hw.ir.operations import Derived, Operation, known, to_core
from catgrad_hw.ir.optics import Optic, optic
from catgrad_hw.ir.types import NdArrayType, Object, obj
from catgrad_hw.ir.windows import Crop, Flip, Fold, Pad, Windows


def rebatch(f: OpenHypergraph, parameters: int, batch: int) -> OpenHypergraph:
    """``f : P ● X → Y`` for batches of ``batch`` samples, where P is the first ``parameters`` wires.

    Numbers inside the model stay as they are; a loss or an optimizer is none of its business. Raises
    :class:`ModelError` where there is no batch or a parameter has its axis, and :class:`UnsupportedError`, with the
    operation's name, where an operation works across samples.
    """
    lens = optic(f)
    M = len(lens.residual)
    forward, fwd, rev = (to_core(g).flat for g in (f, lens.fwd, lens.rev))
    axes = _Axes([forward, fwd, rev])
    X, Y = forward.sources[parameters:], forward.targets
    for one, other in (
        ((0, (*forward.sources, *forward.targets)), (1, (*fwd.sources, *fwd.targets[: len(Y)]))),
        ((1, fwd.targets[len(Y) :]), (2, rev.sources[:M])),
        ((0, (*forward.targets, *forward.sources)), (2, (*rev.sources[M:], *rev.targets))),
    ):
        axes.unite(one, other)

    ends = [forward.nodes[node] for node in (*X, *Y)]
    sizes = sorted({T.shape[0] for T in ends if T.shape})
    if len(sizes) != 1 or not all(T.shape for T in ends):
        raise ModelError(
            f"batch {batch}: expected inputs and outputs whose first axis is the batch, found {obj(*ends)}; "
            "build the model with that batch instead"
        )
    samples = {axes.of(0, node)[0] for node in (*X, *Y)}
    for number, node in enumerate(forward.sources[:parameters]):
        if samples.intersection(axes.of(0, node)):
            raise ModelError(
                f"batch {batch}: expected parameters that all samples share, found p{number} of type "
                f"{forward.nodes[node]} with the batch's axis; build the model with that batch instead"
            )
    for edge in forward.edges:
        has = [[bool(samples.intersection(axes.of(0, n))) for n in nodes] for nodes in (edge.sources, edge.targets)]
        if any(has[0]) and not all(has[1]):
            raise _refusal(edge.operation, batch, "it works across samples")

    def resized(part: int, flat: Flat) -> OpenHypergraph:
        def size(node: int) -> NdArrayType:
            T = flat.nodes[node]
            shape = zip(T.shape, axes.of(part, node), strict=True)
            return NdArrayType(tuple(batch if axis in samples else n for n, axis in shape), T.dtype)

        nodes = tuple(size(node) for node in range(len(flat.nodes)))
        edges = tuple(_resized(edge, nodes, batch) for edge in flat.edges)
        return OpenHypergraph.from_flat(Flat(nodes, edges, flat.sources, flat.targets))

    model, forward_map, reverse_map = (resized(part, flat) for part, flat in enumerate((forward, fwd, rev)))
    return op(_Rebatched(model, Optic(forward_map, reverse_map, forward_map.target[len(Y) :])))


@dataclass(frozen=True)
class _Rebatched(Derived):
    """A model for another batch: a diagram of core operations, with the optic that :func:`rebatch` made for it."""

    diagram: OpenHypergraph
    optic: Optic

    def source(self) -> Object:
        return self.diagram.source

    def target(self) -> Object:
        return self.diagram.target

    def core(self) -> OpenHypergraph:
        return self.diagram

    def residual(self) -> Object:
        return self.optic.residual

    def fwd(self) -> OpenHypergraph:
        return self.optic.fwd

    def rev(self) -> OpenHypergraph:
        return self.optic.rev


class _Axes:
    """The classes of the axes of all wires of some diagrams: axes are the same where operations make them so.

    The same relation as :func:`catgrad_hw.ir.axes.axis_classes` finds, on diagrams instead of a graph: in a graph
    equal constants are one value, and so are axes that merely have the same size.
    """

    def __init__(self, flats: Sequence[Flat]) -> None:
        self._flats = flats
        self._parent: list[int] = []
        self._first: list[list[int]] = []
        for flat in flats:
            self._first.append([])
            for T in flat.nodes:
                self._first[-1].append(len(self._parent))
                self._parent.extend(range(len(self._parent), len(self._parent) + len(T.shape)))
        for part, flat in enumerate(flats):
            for edge in flat.edges:
                operation = known(edge.operation)
                rule = AXES.get(type(operation))
                if rule is None:
                    raise UnsupportedError(f"{operation}: expected an entry in AXES, found none; add one")
                sources, targets = rule(operation)
                seen: dict[int, int] = {}
                for node, labels in zip((*edge.sources, *edge.targets), sources + targets, strict=True):
                    for axis, label in enumerate(labels, self._first[part][node]):
                        if label >= 0:
                            self._unite(seen.setdefault(label, axis), axis)

    def unite(self, one: tuple[int, Sequence[int]], other: tuple[int, Sequence[int]]) -> None:
        """Wires of one part, each with a wire of another part of the same type, axis by axis."""
        for left, right in zip(one[1], other[1], strict=True):
            for axis in range(len(self._flats[one[0]].nodes[left].shape)):
                self._unite(self._first[one[0]][left] + axis, self._first[other[0]][right] + axis)

    def of(self, part: int, node: int) -> tuple[int, ...]:
        """The classes of the axes of a wire."""
        first = self._first[part][node]
        return tuple(self._find(first + axis) for axis in range(len(self._flats[part].nodes[node].shape)))

    def _find(self, axis: int) -> int:
        parent = self._parent
        while parent[axis] != axis:
            parent[axis] = parent[parent[axis]]
            axis = parent[axis]
        return axis

    def _unite(self, a: int, b: int) -> None:
        low, high = sorted((self._find(a), self._find(b)))
        self._parent[high] = low


# --- operations by their arguments' and results' types ------------------------------------------------------------

Types = Sequence[NdArrayType]


def _cut(T: NdArrayType, start: int, stop: int | None = None) -> NdArrayType:
    return NdArrayType(T.shape[start:stop], T.dtype)


def _of_source(operation: Any, sources: Types, targets: Types) -> Any:
    return replace(operation, T=sources[0])


def _of_target(operation: Any, sources: Types, targets: Types) -> Any:
    return replace(operation, T=targets[0])


def _spread(operation: Any, sources: Types, targets: Types) -> Any:
    return replace(operation, N=sources[0], T=_cut(targets[0], len(sources[0].shape)))


def _reduce(operation: Any, sources: Types, targets: Types) -> Any:
    return replace(operation, N=targets[0], T=_cut(sources[0], len(targets[0].shape)))


def _compose(operation: Any, sources: Types, targets: Types) -> Any:
    a, b = len(operation.A.shape), len(operation.B.shape)
    return replace(operation, A=_cut(sources[0], 0, a), B=_cut(sources[0], a), C=_cut(sources[1], b))


def _matrix_multiply(operation: Any, sources: Types, targets: Types) -> Any:
    n = len(operation.N.shape)
    A, B = (_cut(sources[0], n + i, n + i + 1) for i in (0, 1))
    return replace(operation, N=_cut(sources[0], 0, n), A=A, B=B, C=_cut(sources[1], n + 1))


def _reshape(operation: Any, sources: Types, targets: Types) -> Any:
    return replace(operation, X=sources[0], Y=targets[0])


RETYPE: Mapping[type[Operation], Callable[[Any, Types, Types], Any]] = {
    ops.Copy: _of_source,
    ops.Discard: _of_source,
    ops.Add: _of_source,
    ops.Subtract: _of_source,
    ops.Negate: _of_source,
    ops.Multiply: _of_source,
    ops.Divide: _of_source,
    ops.Power: _of_source,
    ops.Invert: _of_source,
    ops.Select: _of_source,
    ops.Exp: _of_source,
    ops.Log: _of_source,
    ops.Sqrt: _of_source,
    ops.Tanh: _of_source,
    ops.TanhDerivative: _of_source,
    ops.Gt: _of_source,
    ops.Sigmoid: _of_source,
    ops.SigmoidDerivative: _of_source,
    ops.Constant: _of_target,
    ops.NCopy: _spread,
    ops.NAdd: _reduce,
    ops.NMax: _reduce,
    ops.FirstMaximum: lambda o, sources, targets: replace(
        o, N=_cut(sources[0], 0, len(o.N.shape)), T=_cut(sources[0], len(o.N.shape))
    ),
    ops.NSplit: _of_target,
    ops.NConcatenate: _of_source,
    ops.Permute: _of_source,
    ops.Reshape: _reshape,
    ops.Compose: _compose,
    ops.MatrixMultiply: _matrix_multiply,
    Pad: _of_source,
    Crop: _of_target,
    Windows: _of_source,
    Fold: _of_target,
    Flip: _of_source,
}
"""For each operation the same operation with arguments and results of other types, of as many axes."""


def _resized(edge: Edge, nodes: Types, batch: int) -> Edge:
    """The edge with the operation for its wires' new types."""
    sources, targets = [nodes[n] for n in edge.sources], [nodes[n] for n in edge.targets]
    try:
        operation = RETYPE[type(known(edge.operation))](edge.operation, sources, targets)
        found = operation.source(), operation.target()
    except IllTypedError as error:
        raise _refusal(edge.operation, batch, str(error)) from None
    if found != (obj(*sources), obj(*targets)):
        raise _refusal(edge.operation, batch, f"it cannot have type {obj(*sources)} → {obj(*targets)}")
    return Edge(operation, edge.sources, edge.targets)


def _refusal(operation: object, batch: int, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"batch {batch}: {operation}: expected an operation that does the same for every sample, found that {why}; "
        "build the model with that batch instead"
    )
