"""Source of a Python class whose methods compute programs with an array backend."""

from __future__ import annotations

import ast
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.hypergraph import Generator
from catgrad_hw.ir.types import NdArrayType


@dataclass(frozen=True)
class Statement:
    """``targets = operation(sources)``; values are named by anything hashable."""

    operation: Generator
    sources: tuple[Hashable, ...]
    targets: tuple[Hashable, ...]


@dataclass(frozen=True)
class Function:
    """A method: named and typed arguments, statements in order, returned values."""

    arguments: tuple[tuple[str, NdArrayType, Hashable], ...]
    body: Sequence[Statement]
    results: tuple[Hashable, ...]


def _shape(T: NdArrayType) -> str:
    return repr(T.shape)


def _trailing(T: NdArrayType) -> str:
    return repr(tuple(range(-len(T.shape), 0)))


def _compose(o: ops.Compose, x: str, y: str) -> str:
    if len(o.A.shape) == len(o.B.shape) == len(o.C.shape) == 1:
        return f"{x} @ {y}"
    return f"self.backend.compose({x}, {y}, {len(o.B.shape)})"


# The spelling of each operation with one result, given the names of its arguments.
SPELLING: dict[type[ops.Operation], Callable[..., str]] = {
    ops.Add: lambda o, x, y: f"{x} + {y}",
    ops.Subtract: lambda o, x, y: f"{x} - {y}",
    ops.Multiply: lambda o, x, y: f"{x} * {y}",
    ops.Divide: lambda o, x, y: f"{x} / {y}",
    ops.Power: lambda o, x, y: f"{x} ** {y}",
    ops.Negate: lambda o, x: f"-{x}",
    ops.Gt: lambda o, x, y: f"self.backend.gt({x}, {y})",
    ops.Log: lambda o, x: f"self.backend.log({x})",
    ops.Sigmoid: lambda o, x: f"self.backend.sigmoid({x})",
    ops.SigmoidDerivative: lambda o, x: f"self.backend.sigmoid_derivative({x})",
    ops.Constant: lambda o: f"self.backend.constant({o.x!r}, {_shape(o.T)}, Dtype.{o.T.dtype.name})",
    ops.NCopy: lambda o, x: f"self.backend.ncopy({_shape(o.T)}, {x})",
    ops.NAdd: lambda o, x: f"self.backend.nadd({_trailing(o.T)}, {x})",
    ops.NMax: lambda o, x: f"self.backend.nmax({_trailing(o.T)}, {x})",
    ops.NSplit: lambda o, x: f"self.backend.nsplit({x}, {o.k})",
    ops.NConcatenate: lambda o, *xs: f"self.backend.nconcatenate([{', '.join(xs)}], {o.k})",
    ops.Reshape: lambda o, x: f"self.backend.reshape({x}, {_shape(o.Y)})",
    ops.Permute: lambda o, x: f"self.backend.permute({x}, {o.p!r})",
    ops.Compose: _compose,
    ops.MatrixMultiply: lambda o, x, y: f"{x} @ {y}",
}


def _method(name: str, function: Function) -> list[str]:
    names = {value: argument for argument, _, value in function.arguments}
    lines = [f"    def {name}({', '.join(['self', *(argument for argument, _, _ in function.arguments)])}):"]
    for argument, T, _ in function.arguments:
        lines.append(
            f"        check_argument(self.backend, {name!r}, {argument!r}, {argument}, {_shape(T)}, "
            f"Dtype.{T.dtype.name})"
        )
    count = 0
    for statement in function.body:
        operation = statement.operation
        sources = [names[value] for value in statement.sources]
        if isinstance(operation, ops.Copy):
            names.update(dict.fromkeys(statement.targets, sources[0]))
            continue
        if isinstance(operation, ops.Discard):
            continue
        spelling = SPELLING.get(type(operation))  # type: ignore[arg-type]  # any class may be asked for
        if spelling is None:
            raise UnsupportedError(
                f"{operation}: expected an operation that the Python target spells, found {type(operation).__name__}; "
                "express it by core operations"
            )
        for value in statement.targets:
            names[value] = f"v{count}"
            count += 1
        left = ", ".join(names[value] for value in statement.targets)
        if isinstance(operation, ops.NSplit):
            left = f"[{left}]"
        lines.append(f"        {left} = {spelling(operation, *sources)}")
    lines.append(f"        return [{', '.join(names[value] for value in function.results)}]")
    return lines


def python_class(name: str, functions: Mapping[str, Function]) -> ast.Module:
    """A module that defines the class ``name``, with one method for each function and one field, ``backend``."""
    lines = [
        "from dataclasses import dataclass",
        "from catgrad_hw.ir.types import Dtype",
        "from catgrad_hw.targets.backend import ArrayBackend, check_argument",
        "@dataclass",
        f"class {name}:",
        "    backend: ArrayBackend",
    ]
    for method, function in functions.items():
        lines += _method(method, function)
    return ast.parse("\n".join(lines))
