"""Diagrams written as expressions.

``trace(A, f)`` calls ``f`` with a wire for each type of ``A`` and returns the diagram from ``A`` to the wires that
``f`` returns. Wires that are used more than once are copied, those that are not used discarded, so that the diagram
has a reverse derivative where its operations have one.

>>> from catgrad_hw import Dtype, NdArrayType, obj
>>> T = NdArrayType((3,), Dtype.float32)
>>> trace(obj(T, T), lambda x, y: x * y + 1)
<OpenHypergraph float32[3] ● float32[3] → float32[3]>
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.hypergraph import Edge, Flat, Generator, OpenHypergraph
from catgrad_hw.ir.types import NdArrayType, Object


class _Tracer:
    def __init__(self) -> None:
        self.types: list[NdArrayType] = []
        self.edges: list[tuple[Generator, list[int], list[int]]] = []

    def wires(self, types: Sequence[NdArrayType]) -> tuple[Wire, ...]:
        first = len(self.types)
        self.types.extend(types)
        return tuple(Wire(self, first + i, T) for i, T in enumerate(types))


class Wire:
    """A wire of a diagram that is being traced. Numbers in ``+ - * /`` become constants of the wire's type."""

    def __init__(self, tracer: _Tracer, node: int, T: NdArrayType) -> None:
        self._tracer, self._node, self.T = tracer, node, T

    def __add__(self, other: Wire | float) -> Wire:
        return apply1(ops.Add(self.T), self, self._lift(other))

    def __sub__(self, other: Wire | float) -> Wire:
        return apply1(ops.Subtract(self.T), self, self._lift(other))

    def __rsub__(self, other: float) -> Wire:
        return apply1(ops.Subtract(self.T), self._lift(other), self)

    def __mul__(self, other: Wire | float) -> Wire:
        return apply1(ops.Multiply(self.T), self._lift(other), self)

    def __truediv__(self, other: Wire | float) -> Wire:
        return apply1(ops.Divide(self.T), self, self._lift(other))

    def __neg__(self) -> Wire:
        return apply1(ops.Negate(self.T), self)

    def _lift(self, other: Wire | float) -> Wire:
        return other if isinstance(other, Wire) else self.constant(other)

    def constant(self, value: float) -> Wire:
        """An array of this wire's type filled with a number."""
        return self.produce(ops.Constant(self.T, value))

    def produce(self, operation: ops.Operation) -> Wire:
        """The result of an operation without arguments, in this wire's diagram."""
        (result,) = self._tracer.wires(operation.target())
        self._tracer.edges.append((operation, [], [result._node]))
        return result

    def spread(self, over: NdArrayType) -> Wire:
        """Repeated over new trailing axes."""
        return apply1(ops.NCopy(self.T, over), self)

    def spread_leading(self, over: NdArrayType) -> Wire:
        """Repeated over new leading axes."""
        a, b = len(over.shape), len(self.T.shape)
        return apply1(ops.Permute(self.T + over, [*range(b, a + b), *range(b)]), self.spread(over))

    def total(self, kept: int) -> Wire:
        """Summed over all axes but the first ``kept``."""
        return apply1(ops.NAdd(*self.cut(kept)), self)

    def largest(self, kept: int) -> Wire:
        """The maximum over all axes but the first ``kept``."""
        return apply1(ops.NMax(*self.cut(kept)), self)

    def permute(self, p: Sequence[int]) -> Wire:
        """Axis ``i`` of the result is axis ``p[i]``."""
        return apply1(ops.Permute(self.T, p), self)

    def reshape(self, shape: Sequence[int]) -> Wire:
        """The same entries under another shape."""
        return apply1(ops.Reshape(self.T, NdArrayType(tuple(shape), self.T.dtype)), self)

    def cut(self, kept: int) -> tuple[NdArrayType, NdArrayType]:
        """The types of the first ``kept`` axes and of the others."""
        shape, dtype = self.T.shape, self.T.dtype
        return NdArrayType(shape[:kept], dtype), NdArrayType(shape[kept:], dtype)


def apply(f: ops.Operation | OpenHypergraph, *wires: Wire) -> tuple[Wire, ...]:
    """The results of an operation, or of a diagram, on wires."""
    tracer = wires[0]._tracer
    source = f.source if isinstance(f, OpenHypergraph) else f.source()
    found = Object(wire.T for wire in wires)
    if found != source:
        raise IllTypedError(f"{f}: expected arguments {source}, found {found}; change one of them")
    nodes = [wire._node for wire in wires]
    if isinstance(f, OpenHypergraph):
        flat = f.flat
        inside = dict(zip(flat.sources, nodes, strict=True))
        types = {node: T for node, T in enumerate(flat.nodes) if node not in inside}
        inside.update(zip(types, (wire._node for wire in tracer.wires(list(types.values()))), strict=True))
        for edge in flat.edges:
            sources, targets = ([inside[node] for node in end] for end in (edge.sources, edge.targets))
            tracer.edges.append((edge.operation, sources, targets))
        return tuple(Wire(tracer, inside[node], flat.nodes[node]) for node in flat.targets)
    results = tracer.wires(f.target())
    tracer.edges.append((f, nodes, [wire._node for wire in results]))
    return results


def apply1(f: ops.Operation | OpenHypergraph, *wires: Wire) -> Wire:
    """The result of an operation or a diagram that has one."""
    (result,) = apply(f, *wires)
    return result


def trace(source: Object, f: Callable[..., Any]) -> OpenHypergraph:
    """The diagram of ``f``, which takes a wire for each type of ``source`` and returns a wire or several."""
    tracer = _Tracer()
    wires = tracer.wires(source)
    results = f(*wires)
    targets = [wire._node for wire in ((results,) if isinstance(results, Wire) else results)]
    reads: dict[int, list[tuple[list[int], int]]] = {node: [] for node in range(len(tracer.types))}
    for _, sources, _ in tracer.edges:
        for position, node in enumerate(sources):
            reads[node].append((sources, position))
    for position, node in enumerate(targets):
        reads[node].append((targets, position))
    for node, places in reads.items():
        T = tracer.types[node]
        if not places:
            tracer.edges.append((ops.Discard(T), [node], []))
        current = node
        for ports, position in places[:-1]:
            one, rest = (wire._node for wire in tracer.wires([T, T]))
            tracer.edges.append((ops.Copy(T), [current], [one, rest]))
            ports[position] = one
            current = rest
        if len(places) > 1:
            ports, position = places[-1]
            ports[position] = current
    edges = tuple(Edge(operation, tuple(sources), tuple(results)) for operation, sources, results in tracer.edges)
    flat = Flat(tuple(tracer.types), edges, tuple(wire._node for wire in wires), tuple(targets))
    return OpenHypergraph.from_flat(flat)
