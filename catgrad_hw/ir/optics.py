"""Reverse derivatives by optics.

The reverse derivative R[f] : A ● B' → A' of f : A → B (arXiv 1910.07065) is computed by a functor into optics: each
operation is sent to its forward and its reverse map, and a diagram to the composites of these, joined by the
residuals (arXiv 2305.01041). Everything here is linear in the size of the diagram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catgrad_hw.errors import IllTypedError, ModelError, UnsupportedError
from catgrad_hw.ir.hypergraph import Builder, Edge, Flat, OpenHypergraph, identity
from catgrad_hw.ir.operations import Operation, discard, known
from catgrad_hw.ir.types import Object


@dataclass(frozen=True)
class Optic:
    """A map A → B with its reverse: ``fwd : A → B ● residual`` and ``rev : residual ● B → A``."""

    fwd: OpenHypergraph
    rev: OpenHypergraph
    residual: Object

    def adapt(self) -> OpenHypergraph:
        """Both maps as one diagram, ``A ● B' → B ● A'``."""
        B = self.rev.source[len(self.residual) :]
        return (self.fwd @ identity(B)) >> (identity(B) @ self.rev)


def optic(f: OpenHypergraph) -> Optic:
    """The optic of a diagram of operations.

    Each wire must be used exactly once (:class:`ModelError` otherwise): sharing is an operation, copy, since its
    reverse is a sum. Raises :class:`UnsupportedError` for an operation without a reverse derivative.
    """
    flat = f.flat
    if not flat.is_monogamous():
        raise ModelError(
            f"reverse derivative of {f.source} → {f.target}: expected each wire to be used exactly once, found a "
            "spider; replace it by copy, add or discard"
        )
    forward, reverse = Builder(), Builder()
    primal, cotangent = forward.nodes(flat.nodes), reverse.nodes(flat.nodes)
    residual: list[int] = []
    reverse_residual: list[int] = []
    maps: dict[Operation, tuple[Flat, Flat, int]] = {}

    def take(nodes: Sequence[int], indices: Sequence[int]) -> list[int]:
        return [nodes[index] for index in indices]

    for edge in flat.edges:
        try:
            operation = known(edge.operation)
            if operation not in maps:
                maps[operation] = _maps(operation)
        except UnsupportedError as error:
            raise UnsupportedError(f"{error} (reverse derivative, reached by {path_to(flat, edge)})") from None
        fwd, rev, M = maps[operation]
        sources, targets = forward.insert(fwd)
        forward.unite(sources, take(primal, edge.sources))
        forward.unite(targets[: len(targets) - M], take(primal, edge.targets))
        residual += targets[len(targets) - M :]
        sources, targets = reverse.insert(rev)
        reverse_residual += sources[:M]
        reverse.unite(sources[M:], take(cotangent, edge.targets))
        reverse.unite(targets, take(cotangent, edge.sources))
    whole = forward.build(take(primal, flat.sources), take(primal, flat.targets) + residual)
    whole_reverse = reverse.build(reverse_residual + take(cotangent, flat.targets), take(cotangent, flat.sources))
    M_types = Object(whole.nodes[node] for node in whole.targets[len(flat.targets) :])
    return Optic(OpenHypergraph.from_flat(whole), OpenHypergraph.from_flat(whole_reverse), M_types)


def path_to(flat: Flat, edge: Edge) -> str:
    """The operations on a way from the inputs of a diagram to an edge, as text: ``input 0 → Compose → Add``."""
    producers = {node: e for e in flat.edges for node in e.targets}
    names = [type(edge.operation).__name__]
    seen = {id(edge)}
    while edge.sources:
        before = producers.get(edge.sources[0])
        if before is None:
            names.append(f"input {flat.sources.index(edge.sources[0])}" if edge.sources[0] in flat.sources else "…")
            break
        if id(before) in seen:
            break
        seen.add(id(before))
        edge = before
        names.append(type(edge.operation).__name__)
    if len(names) > 9:
        names[4:-4] = ["…"]
    return " → ".join(reversed(names))


def _maps(operation: Operation) -> tuple[Flat, Flat, int]:
    """Forward and reverse map, checked, and the number of wires in the residual."""
    A, B, M = operation.source(), operation.target(), operation.residual()
    fwd, rev = operation.fwd(), operation.rev()
    for name, f, source, target in (("fwd", fwd, A, B + M), ("rev", rev, M + B, A)):
        if (f.source, f.target) != (source, target):
            raise IllTypedError(
                f"{operation}: {name} must have type {source} → {target}, found {f.source} → {f.target}; change {name} "
                "or residual"
            )
    return fwd.flat, rev.flat, len(M)


def rdiff(f: OpenHypergraph) -> OpenHypergraph:
    """The reverse derivative of ``f : A → B``: the map ``A ● B → A`` from arguments and cotangents to cotangents."""
    return optic(f).adapt() >> (discard(f.target) @ identity(f.source))
