"""Source of a Python class whose methods compute programs with an array backend."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.types import NdArrayType
from catgrad_hw.ir.windows import Crop, Flip, Fold, Pad, Windows


def _shape(T: NdArrayType) -> str:
    return repr(T.shape)


def _trailing(T: NdArrayType) -> str:
    return repr(tuple(range(-len(T.shape), 0)))


def _infix(operator: str, method: str) -> Callable[..., str]:
    """An operator where the dtype has it: NumPy's ``+`` is no field's on bool, and warns where int32 wraps."""

    def spell(o: Any, x: str, y: str) -> str:
        return f"{x} {operator} {y}" if o.target()[0].dtype.is_floating() else f"self.backend.{method}({x}, {y})"

    return spell


def _slices(places: Sequence[slice]) -> str:
    return ", ".join(f"{p.start}:{p.stop}" + (f":{p.step}" if p.step != 1 else "") for p in places)


def _compose(o: ops.Compose, x: str, y: str) -> str:
    if o.A.dtype.is_floating() and len(o.A.shape) == len(o.B.shape) == len(o.C.shape) == 1:
        return f"{x} @ {y}"
    return f"self.backend.compose({x}, {y}, {len(o.B.shape)})"


# The spelling of each operation's results, given the names of its arguments.
SPELLING: dict[type[ops.Operation], Callable[..., str]] = {
    ops.Copy: lambda o, x: f"{x}, {x}",
    ops.Discard: lambda o, x: "",
    ops.Add: _infix("+", "add"),
    ops.Subtract: _infix("-", "subtract"),
    ops.Multiply: _infix("*", "multiply"),
    ops.Divide: _infix("/", "divide"),
    ops.Power: _infix("**", "power"),
    ops.Negate: lambda o, x: f"-{x}" if o.T.dtype.is_floating() else f"self.backend.negate({x})",
    ops.Invert: lambda o, x: f"self.backend.invert({x})",
    ops.Gt: lambda o, x, y: f"self.backend.gt({x}, {y})",
    ops.Select: lambda o, c, x, y: f"self.backend.select({c}, {x}, {y})",
    ops.Exp: lambda o, x: f"self.backend.exp({x})",
    ops.Sqrt: lambda o, x: f"self.backend.sqrt({x})",
    ops.Log: lambda o, x: f"self.backend.log({x})",
    ops.Tanh: lambda o, x: f"self.backend.tanh({x})",
    ops.TanhDerivative: lambda o, x: f"self.backend.tanh_derivative({x})",
    ops.Sigmoid: lambda o, x: f"self.backend.sigmoid({x})",
    ops.SigmoidDerivative: lambda o, x: f"self.backend.sigmoid_derivative({x})",
    ops.Constant: lambda o: f"self.backend.constant({o.x!r}, {_shape(o.T)}, Dtype.{o.T.dtype.name})",
    ops.NCopy: lambda o, x: f"self.backend.ncopy({_shape(o.T)}, {x})",
    ops.NAdd: lambda o, x: f"self.backend.nadd({_trailing(o.T)}, {x})",
    ops.NMax: lambda o, x: f"self.backend.nmax({_trailing(o.T)}, {x})",
    ops.FirstMaximum: lambda o, x: f"self.backend.first_maximum({len(o.T.shape)}, {x})",
    ops.NSplit: lambda o, x: f"self.backend.nsplit({x}, {o.k})",
    ops.NConcatenate: lambda o, *xs: f"self.backend.nconcatenate([{', '.join(xs)}], {o.k})",
    ops.Reshape: lambda o, x: f"self.backend.reshape({x}, {_shape(o.Y)})",
    ops.Permute: lambda o, x: f"self.backend.permute({x}, {o.p!r})",
    ops.Compose: _compose,
    ops.MatrixMultiply: _infix("@", "matmul"),
    Pad: lambda o, x: f"self.backend.pad({x}, {o.low}, {o.high}, {o.step}, {o.value!r})",
    Crop: lambda o, x: f"{x}[{_slices(o.slices())}]",
    Windows: lambda o, x: f"self.backend.windows({x}, {o.axis}, {o.size}, {o.step}, {o.dilation})",
    Fold: lambda o, x: f"self.backend.fold({x}, {o.T.shape}, {o.axis}, {o.size}, {o.step}, {o.dilation})",
    Flip: lambda o, x: f"{x}[{':, ' * o.axis}::-1]",
}


def _method(name: str, graph: Graph, arguments: Sequence[str]) -> list[str]:
    """A method for the outputs ``name``; nodes that these don't need are left out."""
    lines = [f"    def {name}({', '.join(['self', *arguments])}):"]
    lines.append(f"check_arguments(self.backend, {name!r}, TYPES, dict({', '.join(f'{a}={a}' for a in arguments)}))")
    names = {value: i.name for value, i in enumerate(graph.inputs)}
    for node in graph.needed([name]):
        operation = node.operation
        for value in node.outputs:
            names[value] = f"t{len(names)}"
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


def python_class(name: str, graph: Graph, arguments: Mapping[str, Sequence[str]]) -> Module:
    """A module that defines the class ``name``, with a field ``backend`` and a method for each group of outputs.

    ``arguments[group]`` names the inputs that the method takes, in order. Raises :class:`UnsupportedError` for an
    operation without a spelling.
    """
    types = [f"{i.name}=({_shape(i.type)}, Dtype.{i.type.dtype.name})" for i in graph.inputs]
    head = [
        "from dataclasses import dataclass",
        "from catgrad_hw.ir.types import Dtype",
        "from catgrad_hw.targets.backend import ArrayBackend, check_arguments",
        f"TYPES = dict({', '.join(types)})",
        "@dataclass",
        f"class {name}:",
        "    backend: ArrayBackend",
    ]
    methods = {group: "\n".join(_method(group, graph, arguments[group])) for group in graph.outputs}
    return Module("\n".join(head), methods)


class Module(ast.Module):
    """A module as a syntax tree, which is parsed when its body is first looked at."""

    def __init__(self, head: str, methods: Mapping[str, str]) -> None:
        super().__init__(body=[], type_ignores=[])
        del self.body  # the property below
        self.head, self.methods = head, methods

    @cached_property
    def body(self) -> list[ast.stmt]:  # type: ignore[override]
        return ast.parse("\n".join([self.head, *self.methods.values()])).body

    def define(self, name: str, file: str, now: Sequence[str]) -> Any:
        """The class ``name`` of the module. Methods but those in ``now`` are compiled when they are first used."""
        namespace: dict[str, Any] = {}
        text = "\n".join([self.head, *(self.methods[method] for method in now)])
        exec(compile(text, file, "exec"), namespace)
        defined = namespace[name]
        for method, source in self.methods.items():
            if method not in now:
                setattr(defined, method, _Deferred(defined, method, source, file, namespace))
        return defined


class _Deferred:
    """A method that is compiled when it is first used."""

    def __init__(self, owner: type, name: str, text: str, file: str, namespace: dict[str, Any]) -> None:
        self.owner, self.name, self.text, self.file, self.namespace = owner, name, text, file, namespace

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        local: dict[str, Any] = {}
        exec(compile(f"class _:\n{self.text}", self.file, "exec"), self.namespace, local)
        function = vars(local["_"])[self.name]
        setattr(self.owner, self.name, function)
        return function if instance is None else function.__get__(instance, owner)
