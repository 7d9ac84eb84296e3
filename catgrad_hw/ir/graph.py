"""Tensor graphs: dataflow in static single assignment, one node for each core operation on typed arrays.

Values are integers: the graph's inputs first, then the results of its nodes in order. One graph holds several
functions of the same inputs (``predict``, ``step``, …), its *groups* of outputs, so that they share their nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from catgrad_hw.errors import CatgradError, IllTypedError
from catgrad_hw.ir.operations import Constant, Operation, Scalar
from catgrad_hw.ir.types import NdArrayType, obj


class IllegalGraphError(CatgradError):
    """A tensor graph breaks a rule of its level: a fault of a pass, not of a user's model."""


@dataclass(frozen=True)
class Input:
    """An argument of the graph's functions.

    ``state`` is the optimizer's, updated with the parameters; ``rate`` a learning rate that is an argument. A
    ``cotangent`` is what ``rev`` takes in the place of a target.
    """

    name: str
    role: Literal["parameter", "state", "input", "target", "rate", "cotangent"]
    type: NdArrayType


@dataclass(frozen=True)
class Node:
    """``outputs = operation(*inputs)``."""

    operation: Operation
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A tensor graph; ``outputs`` maps the name of a group to its values."""

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, tuple[int, ...]]

    @cached_property
    def types(self) -> tuple[NdArrayType, ...]:
        """The type of each value."""
        return (*(i.type for i in self.inputs), *(T for node in self.nodes for T in node.operation.signature[1]))

    @cached_property
    def producers(self) -> tuple[Node | None, ...]:
        """For each value the node that makes it; None for an input."""
        return (*(None for _ in self.inputs), *(node for node in self.nodes for _ in node.outputs))

    @cached_property
    def uses(self) -> tuple[int, ...]:
        """How often each value is read, by nodes and as an output."""
        count = [0] * len(self.types)
        for node in self.nodes:
            for value in node.inputs:
                count[value] += 1
        for values in self.outputs.values():
            for value in values:
                count[value] += 1
        return tuple(count)

    def name(self, value: int) -> str:
        """The name of a value in text: an input's own, else ``t`` and its number."""
        return self.inputs[value].name if value < len(self.inputs) else f"t{value}"

    def constant(self, value: int) -> Scalar | None:
        """The entry that all of a value's entries equal, where a :class:`Constant` makes it, else None."""
        node = self.producers[value]
        return node.operation.x if node is not None and type(node.operation) is Constant else None

    def needed(self, groups: Sequence[str]) -> list[Node]:
        """The nodes that some groups need, in order."""
        live = {value for group in groups for value in self.outputs[group]}
        nodes = []
        for node in reversed(self.nodes):
            if not live.isdisjoint(node.outputs):
                live.update(node.inputs)
                nodes.append(node)
        return nodes[::-1]

    def restrict(self, groups: Sequence[str]) -> Graph:
        """The graph of some of its groups alone, with the nodes that they need; every input is kept."""
        outputs = {group: self.outputs[group] for group in groups}
        needed = self.needed(groups)
        if len(needed) == len(self.nodes):
            return self if outputs.keys() == self.outputs.keys() else replace(self, outputs=outputs)
        builder = Builder(self.inputs)
        renamed = dict(enumerate(range(len(self.inputs))))
        for node in needed:
            results = builder.add(node.operation, [renamed[value] for value in node.inputs])
            renamed.update(zip(node.outputs, results, strict=True))
        return builder.build({group: [renamed[value] for value in values] for group, values in outputs.items()})


class Builder:
    """Makes a graph node by node. A node that exists already is shared (hash-consing)."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = tuple(inputs)
        self.types = [i.type for i in self.inputs]
        self.nodes: list[Node] = []
        self.producers: list[Node | None] = [None] * len(self.inputs)
        self._known: dict[tuple[Operation, tuple[int, ...]], tuple[int, ...]] = {}

    def add(self, operation: Operation, inputs: Sequence[int] = ()) -> tuple[int, ...]:
        """The results of an operation; raises :class:`IllTypedError` where the inputs' types are not its source's."""
        key = (operation, tuple(inputs))
        if key not in self._known:
            source, target = operation.signature
            found = tuple([self.types[value] for value in inputs])
            if found != source:
                raise IllTypedError(f"{operation}: expected arguments {source}, found {obj(*found)}")
            outputs = tuple(range(len(self.types), len(self.types) + len(target)))
            node = Node(operation, key[1], outputs)
            self.types.extend(target)
            self.producers.extend(node for _ in outputs)
            self.nodes.append(node)
            self._known[key] = outputs
        return self._known[key]

    def add1(self, operation: Operation, *inputs: int) -> int:
        """The result of an operation that has one."""
        (result,) = self.add(operation, inputs)
        return result

    def constant(self, value: int) -> Scalar | None:
        """As :meth:`Graph.constant`."""
        node = self.producers[value]
        return node.operation.x if node is not None and type(node.operation) is Constant else None

    def build(self, outputs: Mapping[str, Sequence[int]]) -> Graph:
        return Graph(self.inputs, tuple(self.nodes), {group: tuple(values) for group, values in outputs.items()})


Rule: TypeAlias = Callable[[Builder, Operation, tuple[int, ...]], Sequence[int] | None]


class _Unchanged(Builder):
    """What a rule sees of a graph for as long as it changes nothing: its values, but no way to add one."""

    def __init__(self, graph: Graph) -> None:
        self.inputs, self.types, self.producers = graph.inputs, list(graph.types), list(graph.producers)

    def add(self, operation: Operation, inputs: Sequence[int] = ()) -> tuple[int, ...]:
        raise _ChangedError


class _ChangedError(Exception):
    """A rule found work to do."""


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Build the graph anew; ``rule`` gives the values that replace a node's results, or None to keep the node.

    Where it keeps all nodes, the result is ``graph`` itself.
    """
    view = _Unchanged(graph)
    try:
        if all(rule(view, node.operation, node.inputs) is None for node in graph.nodes):
            return graph
    except _ChangedError:
        pass
    builder = Builder(graph.inputs)
    renamed = list(range(len(graph.inputs)))
    for node in graph.nodes:
        inputs = tuple([renamed[value] for value in node.inputs])
        results = rule(builder, node.operation, inputs)
        renamed.extend(builder.add(node.operation, inputs) if results is None else results)
    return builder.build({group: [renamed[value] for value in values] for group, values in graph.outputs.items()})


def check(graph: Graph) -> None:
    """Raise :class:`IllegalGraphError` unless values are numbered in order, defined before use, and well typed."""
    defined = len(graph.inputs)
    names = [i.name for i in graph.inputs]
    _require(len(set(names)) == len(names), f"names of inputs must differ, found {names}")
    for node in graph.nodes:
        _require(all(0 <= value < defined for value in node.inputs), f"{node} reads values that are not yet defined")
        found = obj(*(graph.types[value] for value in node.inputs))
        _require(found == node.operation.source(), f"{node} expects {node.operation.source()}, found {found}")
        expected = tuple(range(defined, defined + len(node.operation.target())))
        _require(node.outputs == expected, f"{node} must define {expected}")
        defined += len(expected)
    for group, values in graph.outputs.items():
        _require(all(0 <= value < defined for value in values), f"group {group} has values that are not defined")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise IllegalGraphError(f"tensor graph: {message}")


def describe(operation: Operation) -> str:
    """An operation's name and what its types do not tell: ``Constant 0.01``, ``Permute (1, 0)``."""
    text = type(operation).__name__
    if isinstance(operation, Constant):
        return f"{text} {operation.x:g}"
    permutation = getattr(operation, "p", None)
    return text if permutation is None else f"{text} {permutation}"


def format_graph(graph: Graph, names: Sequence[str] | None = None) -> str:
    """The graph as text, one line for each input, node and group, without a newline at the end.

    ``names`` replaces the names of the values, as :func:`catgrad_hw.ir.names.value_names` gives them.
    """
    names = [graph.name(value) for value in range(len(graph.types))] if names is None else names
    lines = [f"{i.role} {i.name}: {i.type}" for i in graph.inputs]
    for node in graph.nodes:
        left = ", ".join(f"{names[value]}: {graph.types[value]}" for value in node.outputs)
        right = " ".join([describe(node.operation), *(names[value] for value in node.inputs)])
        lines.append(f"{left} = {right}" if left else right)
    lines += [f"{group} -> {', '.join(names[value] for value in values)}" for group, values in graph.outputs.items()]
    return "\n".join(lines)


def run(
    graph: Graph, group: str, arrays: Mapping[str, NDArray[Any]], dtype: DTypeLike = np.float64
) -> list[NDArray[Any]]:
    """The values of a group for arrays by name of input; all floating-point arithmetic is in ``dtype``.

    The executor interprets node by node and serves comparisons, not speed. Inputs that the group does not need may
    be left out. Raises :class:`IllTypedError` for an array of another shape than its input's.
    """
    values: dict[int, NDArray[Any]] = {}
    for number, i in enumerate(graph.inputs):
        if i.name in arrays:
            array = np.asarray(arrays[i.name])
            if array.shape != i.type.shape:
                raise IllTypedError(f"run {group}: {i.name} must have shape {i.type.shape}, found {array.shape}")
            values[number] = array.astype(dtype if i.type.dtype.is_floating() else i.type.dtype.value)
    for node in graph.needed([group]):
        missing = [graph.name(value) for value in node.inputs if value not in values]
        if missing:
            raise IllTypedError(f"run {group}: expected arrays {', '.join(missing)}, found none of that name")
        if isinstance(node.operation, Constant) and node.operation.T.dtype.is_floating():
            # Not rounded to the type's own precision, so that executors agree to that of ``dtype``.
            values[node.outputs[0]] = np.full(node.operation.T.shape, node.operation.x, dtype)
            continue
        results = node.operation.numpy(*(values[value] for value in node.inputs))
        for value, result in zip(node.outputs, results, strict=True):
            floating = graph.types[value].dtype.is_floating()
            values[value] = result.astype(dtype, copy=False) if floating else result
    return [values[value] for value in graph.outputs[group]]
