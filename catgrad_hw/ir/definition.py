"""Definitions: operations that are named diagrams."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property

from catgrad_hw.errors import ModelError, UnsupportedError
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import Derived, to_core
from catgrad_hw.ir.optics import Optic, optic
from catgrad_hw.ir.types import Object

DEPTH = 64
"""Definitions may be nested this deep. Deeper ones are taken to be recursive, since their parameters may grow."""

_open: ContextVar[tuple[Definition, ...]] = ContextVar("_open", default=())


class Definition(Derived):
    """An operation that stands for the diagram :meth:`arrow`. Derive from it, preferably as a frozen dataclass.

    Its reverse derivative is that of the diagram; override ``fwd``, ``rev`` and ``residual`` to give another one.
    Raises :class:`ModelError` where a definition expands to itself.
    """

    @abstractmethod
    def arrow(self) -> OpenHypergraph:
        """The diagram that the operation stands for."""

    @cached_property
    def diagram(self) -> OpenHypergraph:
        """:meth:`arrow`, with the definitions in it checked for recursion."""
        with _expanding(self):
            diagram = self.arrow()
            for edge in diagram.flat.edges:
                if isinstance(edge.operation, Definition):
                    edge.operation.diagram  # noqa: B018 -- raises for recursion
            return diagram

    def source(self) -> Object:
        return self.diagram.source

    def target(self) -> Object:
        return self.diagram.target

    def core(self) -> OpenHypergraph:
        return to_core(self.diagram)

    def residual(self) -> Object:
        return self._optic.residual

    def fwd(self) -> OpenHypergraph:
        return self._optic.fwd

    def rev(self) -> OpenHypergraph:
        return self._optic.rev

    @cached_property
    def _optic(self) -> Optic:
        try:
            return optic(self.diagram)
        except UnsupportedError as error:
            raise UnsupportedError(f"in definition {type(self).__name__}: {error}") from None


@contextmanager
def _expanding(definition: Definition) -> Iterator[None]:
    path = _open.get()
    names = [type(d).__name__ for d in (*path, definition)]
    if definition in path:
        cycle = " → ".join(names[path.index(definition) :])
        raise ModelError(f"definition {names[-1]}: expected no recursion, found {cycle}; define it by other operations")
    if len(path) >= DEPTH:
        raise ModelError(
            f"definition {names[0]}: expected definitions at most {DEPTH} deep, found {' → '.join(names[:4])} → …; "
            "it may be recursive"
        )
    token = _open.set((*path, definition))
    try:
        yield
    finally:
        _open.reset(token)
