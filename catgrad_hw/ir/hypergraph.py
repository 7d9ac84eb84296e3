"""Open hypergraphs: the morphisms of the free symmetric monoidal (with spiders: hypergraph) category.

An :class:`OpenHypergraph` ``f : A → B`` is a term. ``f >> g`` (composition) and ``f @ g`` (tensor) check types and
build a term in time proportional to the boundary; :attr:`OpenHypergraph.flat` glues the whole term at once by
union-find, iteratively, in almost linear time. A cospan of hypergraphs as in Bonchi et al., "String Diagram Rewrite
Theory I", arXiv 2012.01847.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, Protocol

from catgrad_hw.errors import IllTypedError, ModelError, UnsupportedError
from catgrad_hw.ir.types import NdArrayType, Object, obj


class Generator(Protocol):
    """A generating morphism: anything hashable with a source and a target."""

    def source(self) -> Object: ...
    def target(self) -> Object: ...


@dataclass(frozen=True)
class Edge:
    """One occurrence of an operation, with the nodes at its source and target ports."""

    operation: Generator
    sources: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Flat:
    """An open hypergraph as plain data: ``nodes[i]`` is the type of node ``i``; edges in order of appearance."""

    nodes: tuple[NdArrayType, ...]
    edges: tuple[Edge, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]

    def is_monogamous(self) -> bool:
        """Whether each node is produced exactly once (by a source or an edge) and used exactly once."""
        produced = [*self.sources, *(n for edge in self.edges for n in edge.targets)]
        used = [*self.targets, *(n for edge in self.edges for n in edge.sources)]
        everything = list(range(len(self.nodes)))
        return sorted(produced) == everything and sorted(used) == everything

    def schedule(self) -> list[Edge]:
        """The edges in an order in which each follows those whose results it reads; ties by order of appearance.

        Raises :class:`ModelError` for a node that is produced never or twice, and for a cycle.
        """
        producer: dict[int, int | None] = {}
        for index, ports in [(None, self.sources), *enumerate(edge.targets for edge in self.edges)]:
            for node in ports:
                if node in producer:
                    raise ModelError(
                        f"diagram: wire {node} ({self.nodes[node]}) must be produced once, found two producers; "
                        "replace the merging spider by add"
                    )
                producer[node] = index
        readers: list[list[int]] = [[] for _ in self.edges]
        missing = [0] * len(self.edges)
        for index, edge in enumerate(self.edges):
            for node in edge.sources:
                before = producer.get(node, -1)
                if before == -1:
                    raise ModelError(
                        f"diagram: wire {node} ({self.nodes[node]}) into {edge.operation} must be produced once, "
                        "found no producer; connect it"
                    )
                if before is not None:
                    readers[before].append(index)
                    missing[index] += 1
        for node in self.targets:
            if node not in producer:
                raise ModelError(
                    f"diagram: output wire {node} ({self.nodes[node]}) must be produced once, found no producer; "
                    "connect it"
                )
        ready = [index for index, count in enumerate(missing) if count == 0]
        order: list[Edge] = []
        while ready:
            index = heapq.heappop(ready)
            order.append(self.edges[index])
            for reader in readers[index]:
                missing[reader] -= 1
                if missing[reader] == 0:
                    heapq.heappush(ready, reader)
        if len(order) < len(self.edges):
            stuck = next(edge for edge, count in zip(self.edges, missing, strict=True) if count)
            raise ModelError(f"diagram: expected no cycle, found one through {stuck.operation}; break it")
        return order


class Builder:
    """Glues open hypergraphs: nodes are united by union-find, and numbered afresh by :meth:`build`."""

    def __init__(self) -> None:
        self._types: list[NdArrayType] = []
        self._parent: list[int] = []
        self._edges: list[tuple[Generator, list[int], list[int]]] = []

    def nodes(self, types: Sequence[NdArrayType]) -> list[int]:
        """New nodes of the given types."""
        first = len(self._types)
        self._types.extend(types)
        self._parent.extend(range(first, first + len(types)))
        return list(range(first, first + len(types)))

    def edge(self, operation: Generator, sources: list[int], targets: list[int]) -> None:
        """An operation between nodes."""
        self._edges.append((operation, sources, targets))

    def insert(self, flat: Flat) -> tuple[list[int], list[int]]:
        """A copy of ``flat``; returns its source and its target nodes."""
        node = self.nodes(flat.nodes)
        for edge in flat.edges:
            self._edges.append((edge.operation, [node[n] for n in edge.sources], [node[n] for n in edge.targets]))
        return [node[n] for n in flat.sources], [node[n] for n in flat.targets]

    def _find(self, node: int) -> int:
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def unite(self, left: Sequence[int], right: Sequence[int]) -> None:
        """Identify nodes pairwise. Their types must be equal."""
        for a, b in zip(left, right, strict=True):
            a, b = self._find(a), self._find(b)
            self._parent[max(a, b)] = min(a, b)

    def build(self, sources: Sequence[int], targets: Sequence[int]) -> Flat:
        """The quotient, with nodes numbered in order of creation."""
        number: dict[int, int] = {}
        types: list[NdArrayType] = []
        for node, T in enumerate(self._types):
            root = self._find(node)
            if root == node:
                number[node] = len(types)
                types.append(T)

        place = [number[self._find(node)] for node in range(len(self._types))]

        def renumber(nodes: Sequence[int]) -> tuple[int, ...]:
            return tuple([place[node] for node in nodes])

        edges = tuple([Edge(operation, renumber(s), renumber(t)) for operation, s, t in self._edges])
        return Flat(tuple(types), edges, renumber(sources), renumber(targets))


@dataclass(frozen=True)
class _Term:
    kind: Literal["compose", "tensor"]
    parts: tuple[OpenHypergraph, ...]


@dataclass(frozen=True, eq=False, repr=False)
class OpenHypergraph:
    """A morphism ``source → target``. Compose with ``>>``, tensor with ``@``; see :func:`isomorphic` for equality."""

    source: Object
    target: Object
    _content: Flat | _Term

    @classmethod
    def from_flat(cls, flat: Flat) -> OpenHypergraph:
        """The morphism given by plain data."""
        source, target = (Object(flat.nodes[n] for n in ports) for ports in (flat.sources, flat.targets))
        return cls(source, target, flat)

    def __rshift__(self, other: OpenHypergraph) -> OpenHypergraph:
        """First ``self``, then ``other``."""
        _expect_diagram(">>", other)
        if self.target != other.source:
            raise IllTypedError(_mismatch(self, other))
        return OpenHypergraph(self.source, other.target, _Term("compose", (self, other)))

    def __matmul__(self, other: OpenHypergraph) -> OpenHypergraph:
        """``self`` beside ``other``."""
        _expect_diagram("@", other)
        return tensor(self, other)

    def dagger(self) -> OpenHypergraph:
        """The mirror image. Only for diagrams without operations (:class:`UnsupportedError` otherwise)."""
        flat = self.flat
        if flat.edges:
            raise UnsupportedError(
                f"dagger: expected spiders only, found {flat.edges[0].operation}; use rdiff for reverse derivatives"
            )
        return OpenHypergraph.from_flat(Flat(flat.nodes, (), flat.targets, flat.sources))

    @cached_property
    def flat(self) -> Flat:
        """The glued diagram."""
        if isinstance(self._content, Flat):
            return self._content
        builder = Builder()
        done: list[tuple[list[int], list[int]]] = []
        # An explicit stack, since a term of a deep model nests deeper than Python recurses.
        stack: list[tuple[OpenHypergraph, bool]] = [(self, False)]
        while stack:
            f, parts_done = stack.pop()
            content = f.__dict__.get("flat", f._content)
            if isinstance(content, Flat):
                done.append(builder.insert(content))
            elif not parts_done:
                stack.append((f, True))
                stack.extend((part, False) for part in reversed(content.parts))
            else:
                split = len(done) - len(content.parts)
                pieces = done[split:]
                del done[split:]
                if content.kind == "compose":
                    for (_, targets), (sources, _) in pairwise(pieces):
                        builder.unite(targets, sources)
                    done.append((pieces[0][0], pieces[-1][1]))
                else:
                    done.append(([n for s, _ in pieces for n in s], [n for _, t in pieces for n in t]))
        return builder.build(*done.pop())

    def __repr__(self) -> str:
        return f"<OpenHypergraph {self.source} → {self.target}>"

    def _repr_svg_(self) -> str:
        """The diagram, as notebooks show it."""
        from catgrad_hw.draw import svg

        return svg(self)


def _expect_diagram(operator: str, other: object) -> None:
    if not isinstance(other, OpenHypergraph):
        raise IllTypedError(
            f"composition {operator}: the right side must be a diagram, found {type(other).__name__}; "
            "apply a layer to its type, as in layers.sigmoid(obj(T)), or an operation to op"
        )


def _mismatch(f: OpenHypergraph, g: OpenHypergraph) -> str:
    for position, (found, expected) in enumerate(zip(f.target, g.source, strict=False)):
        if found != expected:
            return (
                f"composition >>: at position {position} the right side expects {expected}, found {found} "
                f"on the left side ({f.target} against {g.source}); change one of the two"
            )
    return (
        f"composition >>: the right side expects {len(g.source)} wires ({g.source}), found {len(f.target)} "
        f"on the left side ({f.target}); change one of the two"
    )


def op(operation: Generator) -> OpenHypergraph:
    """The diagram of a single operation."""
    if isinstance(operation, type) or not (hasattr(operation, "source") and hasattr(operation, "target")):
        raise IllTypedError(f"op: expected an operation, found {operation!r}; write for example op(Negate(T))")
    source, target = operation.source(), operation.target()
    ports = tuple(range(len(source) + len(target)))
    edge = Edge(operation, ports[: len(source)], ports[len(source) :])
    return OpenHypergraph(source, target, Flat(source + target, (edge,), edge.sources, edge.targets))


def tensor(*parts: OpenHypergraph) -> OpenHypergraph:
    """``parts[0] @ parts[1] @ …``; the empty tensor is the identity on I."""
    source = Object(T for f in parts for T in f.source)
    target = Object(T for f in parts for T in f.target)
    return OpenHypergraph(source, target, _Term("tensor", parts))


def spider(sources: Sequence[int], targets: Sequence[int], nodes: Object) -> OpenHypergraph:
    """Wires alone: source port ``i`` is joined to node ``sources[i]``, target port ``j`` to node ``targets[j]``."""
    for port in (*sources, *targets):
        if not 0 <= port < len(nodes):
            raise IllTypedError(f"spider: ports must name one of {len(nodes)} nodes, found {port}; change the ports")
    return OpenHypergraph.from_flat(Flat(tuple(nodes), (), tuple(sources), tuple(targets)))


def identity(A: Object) -> OpenHypergraph:
    """``A → A``."""
    return spider(range(len(A)), range(len(A)), A)


def unit() -> OpenHypergraph:
    """The empty diagram, ``I → I``."""
    return identity(obj())


def permutation(A: Object, p: Sequence[int]) -> OpenHypergraph:
    """``A → B`` where wire ``j`` of ``B`` is wire ``p[j]`` of ``A``."""
    if sorted(p) != list(range(len(A))):
        raise IllTypedError(f"permutation: expected a permutation of {len(A)} wires, found {list(p)}; change it")
    return spider(range(len(A)), p, A)


def twist(A: Object, B: Object) -> OpenHypergraph:
    """The symmetry ``A ● B → B ● A``."""
    a, b = len(A), len(B)
    return permutation(A + B, [*range(a, a + b), *range(a)])


@dataclass(frozen=True)
class Functor:
    """A structure-preserving map of diagrams, given on generators: types to objects, operations to diagrams."""

    on_type: Callable[[NdArrayType], Object]
    on_operation: Callable[[Generator], OpenHypergraph]

    def on_object(self, A: Object) -> Object:
        """The image of an object."""
        return Object(U for T in A for U in self.on_type(T))

    def __call__(self, f: OpenHypergraph) -> OpenHypergraph:
        """The image of a diagram, in time linear in its own size and its result's."""
        flat = f.flat
        builder = Builder()
        images = [builder.nodes(self.on_type(T)) for T in flat.nodes]

        def expand(nodes: Sequence[int]) -> list[int]:
            return [image for node in nodes for image in images[node]]

        diagrams: dict[Generator, Flat | None] = {}
        for edge in flat.edges:
            if edge.operation not in diagrams:
                diagrams[edge.operation] = self._image(edge.operation)
            image = diagrams[edge.operation]
            if image is None:
                builder.edge(edge.operation, expand(edge.sources), expand(edge.targets))
                continue
            sources, targets = builder.insert(image)
            builder.unite(sources, expand(edge.sources))
            builder.unite(targets, expand(edge.targets))
        return OpenHypergraph.from_flat(builder.build(expand(flat.sources), expand(flat.targets)))

    def _image(self, operation: Generator) -> Flat | None:
        """The image of an operation; None where that is the operation itself."""
        image = self.on_operation(operation)
        for end, found, expected in (
            ("source", image.source, self.on_object(operation.source())),
            ("target", image.target, self.on_object(operation.target())),
        ):
            if found != expected:
                raise IllTypedError(
                    f"functor: the image of {operation} must have {end} {expected}, found {found}; "
                    "change the map of operations"
                )
        flat = image.flat
        return None if flat == op(operation).flat else flat


def isomorphic(f: OpenHypergraph, g: OpenHypergraph) -> bool:
    """Whether two diagrams are equal up to the numbering of nodes and edges.

    Only for diagrams without operations, or with at most one producer and one use of each node
    (:class:`UnsupportedError` otherwise): then a traversal from the boundary numbers everything in one way.
    """
    return f.source == g.source and f.target == g.target and _canonical(f.flat) == _canonical(g.flat)


def _canonical(flat: Flat) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The numbering found from the boundary, and the sorted numberings of the components that it doesn't reach."""
    touching: list[list[int]] = [[] for _ in flat.nodes]
    for kind in ("sources", "targets"):
        seen = [False] * len(flat.nodes)
        for index, edge in enumerate(flat.edges):
            for node in getattr(edge, kind):
                if seen[node]:
                    raise UnsupportedError(
                        f"isomorphic: expected each wire to be used once, found {edge.operation} sharing a wire; "
                        "replace the spider by an operation"
                    )
                seen[node] = True
                touching[node].append(index)

    def number(first_nodes: Sequence[int], first_edges: Sequence[int]) -> tuple[list[str], dict[int, int], list[int]]:
        names: dict[int, int] = {}
        queue: list[int] = []
        edges: list[int] = []
        found = set(first_edges)

        def visit(nodes: Sequence[int]) -> None:
            for node in nodes:
                if node not in names:
                    names[node] = len(names)
                    queue.append(node)

        def enter(index: int) -> None:
            edges.append(index)
            visit(flat.edges[index].sources)
            visit(flat.edges[index].targets)

        visit(first_nodes)
        for index in first_edges:
            enter(index)
        position = 0
        while position < len(queue):
            for index in touching[queue[position]]:
                if index not in found:
                    found.add(index)
                    enter(index)
            position += 1
        text = [str(flat.nodes[node]) for node in queue]
        for index in edges:
            edge = flat.edges[index]
            text.append(f"{edge.operation!r} {[names[n] for n in edge.sources]} {[names[n] for n in edge.targets]}")
        return text, names, edges

    text, names, edges = number([*flat.sources, *flat.targets], [])
    text.append(f"{[names[n] for n in flat.sources]} {[names[n] for n in flat.targets]}")
    done_edges = set(edges)
    done_nodes = set(names)
    islands = []
    for index in range(len(flat.edges)):
        if index not in done_edges:
            component = number([], [index])
            islands.append(min(tuple(number([], [start])[0]) for start in component[2]))
            done_edges.update(component[2])
            done_nodes.update(component[1])
    islands.extend((str(T),) for node, T in enumerate(flat.nodes) if node not in done_nodes)
    return tuple(text), tuple(sorted(islands))
