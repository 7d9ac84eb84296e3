"""Source of a Python class whose methods compute programs with an array backend."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.types import NdArrayType


def _shape(T: NdArrayType) -> str:
    return repr(T.shape)


def _trailing(T: NdArrayType) -> str:
    return repr(tuple(range(-len(T.shape), 0)))


def _compose(o: ops.Compose, x: str, y: str) -> str:
    if len(o.A.shape) == len(o.B.shape) == len(o.C.shape) == 1:
        return f"{x} @ {y}"
    return f"self.backend.compose({x}, {y}, {len(o.B.shape)})"


# The spelling of each operation's results, given the names of its arguments.
SPELLING: dict[type[ops.Operation], Callable[..., str]] = {
    ops.Copy: lambda o, x: f"{x}, {x}",
    ops.Discard: lambda o, x: "",
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


def _method(name: str, graph: Graph, arguments: Sequence[str]) -> list[str]:
    """A method for the outputs ``name``; nodes that these don't need are left out."""
    graph = graph.restrict([name])
    lines = [f"    def {name}({', '.join(['self', *arguments])}):"]
    for i in graph.inputs:
        if i.name in arguments:
            dtype = f"Dtype.{i.type.dtype.name}"
            lines.append(f"check_argument(self.backend, {name!r}, {i.name!r}, {i.name}, {_shape(i.type)}, {dtype})")
    names = [graph.name(value) for value in range(len(graph.types))]
    for node in graph.nodes:
        operation = node.operation
        spelling = SPELLING.get(type(operation))
        if spelling is None:
            raise UnsupportedError(
                f"{operation}: expected an operation that the Python target spells, found {type(operation).__name__}; "
                "express it by core operations"
            )
        left = ", ".join(names[value] for value in node.outputs)
        if isinstance(operation, ops.NSplit):
            left = f"[{left}]"
        if node.outputs:
            lines.append(f"{left} = {spelling(operation, *(names[value] for value in node.inputs))}")
    lines.append(f"return [{', '.join(names[value] for value in graph.outputs[name])}]")
    return [lines[0], *(f"        {line}" for line in lines[1:])]


def python_class(name: str, graph: Graph, arguments: Mapping[str, Sequence[str]]) -> ast.Module:
    """A module that defines the class ``name``, with a field ``backend`` and a method for each group of outputs.

    ``arguments[group]`` names the inputs that the method takes, in order. Raises :class:`UnsupportedError` for an
    operation without a spelling.
    """
    lines = [
        "from dataclasses import dataclass",
        "from catgrad_hw.ir.types import Dtype",
        "from catgrad_hw.targets.backend import ArrayBackend, check_argument",
        "@dataclass",
        f"class {name}:",
        "    backend: ArrayBackend",
    ]
    for group in graph.outputs:
        lines += _method(group, graph, arguments[group])
    return ast.parse("\n".join(lines))
