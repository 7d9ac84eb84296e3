"""Open hypergraphs made with catgrad 0.2.

catgrad pins NumPy 1.26 and imports torch without declaring it; :func:`import_catgrad` imports it where torch is
missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from catgrad_hw.errors import ModelError, UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.definition import Definition
from catgrad_hw.ir.hypergraph import Edge, Flat, OpenHypergraph
from catgrad_hw.ir.losses import MSE
from catgrad_hw.ir.operations import Derived, Operation
from catgrad_hw.ir.optimizers import SGD
from catgrad_hw.ir.types import Dtype, NdArrayType, Object


def import_catgrad() -> ModuleType:
    """The package catgrad; an empty module stands in for torch while it is imported, where torch is not installed.

    Raises :class:`ModelError` where catgrad is not installed.
    """
    if importlib.util.find_spec("catgrad") is None:
        raise ModelError(
            "catgrad: expected the package catgrad 0.2, found none; install catgrad-hw[catgrad] in an environment of "
            "its own, since it pins NumPy 1.26"
        )
    if importlib.util.find_spec("torch") is not None:
        return importlib.import_module("catgrad")
    placeholder = ModuleType("torch")
    placeholder.Tensor = object  # type: ignore[attr-defined]
    sys.modules["torch"] = placeholder
    try:
        return importlib.import_module("catgrad")
    finally:
        del sys.modules["torch"]


def from_catgrad(f: Any) -> OpenHypergraph:
    """The same diagram in this package's operations, for a diagram ``f`` built with catgrad 0.2.

    Its operations become those of the same name. Definitions and operations of the user's become operations that stand
    for the converted diagrams, with the forward and reverse maps that they give. Raises :class:`ModelError` for what is
    no open hypergraph of catgrad's, and :class:`UnsupportedError` for an operation that has neither a counterpart nor
    diagrams, as code in Python has not.
    """
    try:
        types = [_type(T) for T in f.H.w.table]
        sources, targets = ([port.table.tolist() for port in ports] for ports in (f.H.s, f.H.t))
        operations = list(f.H.x.table)
        boundary = [tuple(map(int, end.table)) for end in (f.s, f.t)]
    except AttributeError as error:
        raise ModelError(
            f"from_catgrad: expected an open hypergraph of catgrad 0.2, found {type(f).__name__} ({error}); "
            "build it with catgrad's layers"
        ) from None
    edges = tuple(Edge(_operation(x), tuple(s), tuple(t)) for x, s, t in zip(operations, sources, targets, strict=True))
    return OpenHypergraph.from_flat(Flat(tuple(types), edges, *boundary))


def _type(T: Any) -> NdArrayType:
    return NdArrayType(tuple(int(n) for n in T.shape), Dtype[T.dtype.name])


def _object(A: Any) -> Object:
    return Object(_type(T) for T in A.table)


def _with(operation: Callable[..., Operation], *fields: str) -> Callable[[Any], Operation]:
    """An operation of the same fields, of which types are converted."""

    def convert(x: Any) -> Operation:
        values = (getattr(x, field) for field in fields)
        return operation(*(_type(value) if hasattr(value, "dtype") else value for value in values))

    return convert


COUNTERPARTS: dict[str, Callable[[Any], Operation]] = {
    "Copy": _with(ops.Copy, "T"),
    "NCopy": _with(ops.NCopy, "N", "T"),
    "Discard": _with(ops.Discard, "T"),
    "NSplit": _with(ops.NSplit, "T", "k"),
    "NConcatenate": _with(ops.NConcatenate, "T", "k"),
    "Add": _with(ops.Add, "T"),
    "NAdd": _with(ops.NAdd, "N", "T"),
    "NMax": _with(ops.NMax, "N", "T"),
    "Negate": _with(ops.Negate, "T"),
    "Invert": _with(ops.Invert, "T"),
    "Subtract": _with(ops.Subtract, "T"),
    "Constant": _with(ops.Constant, "T", "x"),
    "Reshape": _with(ops.Reshape, "X", "Y"),
    "Permute": _with(ops.Permute, "T", "p"),
    "Multiply": _with(ops.Multiply, "T"),
    "Gt": _with(ops.Gt, "T"),
    "Divide": _with(ops.Divide, "T"),
    "Power": _with(ops.Power, "T"),
    "MatrixMultiply": _with(ops.MatrixMultiply, "N", "A", "B", "C"),
    "Compose": _with(ops.Compose, "A", "B", "C"),
    "Parameter": _with(ops.Parameter, "T"),
    "ScaleInverse": _with(ops.ScaleInverse, "T", "s"),
    "Exponentiate": _with(ops.Exponentiate, "T", "s"),
    "SGD": _with(SGD, "T", "c"),
    "MSE": _with(MSE, "T"),
}
"""catgrad's own operations by name, and what they become.

Sigmoid is none of them, so that it keeps catgrad's formulas, and its numbers; a pass recognises it for the targets.
"""


def _operation(x: Any) -> Operation:
    kind = type(x)
    if kind.__module__.split(".")[0] == "catgrad" and kind.__name__ in COUNTERPARTS:
        return COUNTERPARTS[kind.__name__](x)
    if all(hasattr(x, name) for name in ("fwd", "rev", "residual")):
        return ImportedOptic(x)
    if hasattr(x, "arrow"):
        return ImportedDefinition(x)
    raise UnsupportedError(
        f"from_catgrad: expected an operation of catgrad's or one with diagrams, found {kind.__name__}; "
        "give it an arrow, or fwd, rev and residual"
    )


@dataclass(frozen=True)
class ImportedDefinition(Definition):
    """A definition of catgrad's."""

    definition: Any

    def arrow(self) -> OpenHypergraph:
        return from_catgrad(self.definition.arrow())


@dataclass(frozen=True, eq=False)  # catgrad's dataclasses need not be hashable
class ImportedOptic(Derived):
    """An operation with a forward and a reverse map of its own: catgrad's sigmoid, or a user's."""

    operation: Any

    def source(self) -> Object:
        return _object(self.operation.source())

    def target(self) -> Object:
        return _object(self.operation.target())

    def core(self) -> OpenHypergraph:
        arrow = self.operation.arrow() if hasattr(self.operation, "arrow") else self.operation.to_core()
        return ops.to_core(from_catgrad(arrow))

    def residual(self) -> Object:
        return _object(self.operation.residual())

    def fwd(self) -> OpenHypergraph:
        return from_catgrad(self.operation.fwd())

    def rev(self) -> OpenHypergraph:
        return from_catgrad(self.operation.rev())
