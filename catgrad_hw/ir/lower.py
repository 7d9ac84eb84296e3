"""From the tensor graph to kernels.

Views (permutations, broadcasts, reshapes, splits) become strides of reads. Each contraction, product and sum becomes
one kernel; additions, functions and subtractions that follow it become the epilogue of that kernel. The forms of
kernels that come out:

* *contraction*: body ``read * read``, summed;
* *map*: the same without a reduction; one factor may be a constant;
* *copy* or *sum*: body ``read``, with or without a sum (or a maximum);
* *update*: a parameter is written in place, ``p - r`` or ``p - 2**k * r``, or replaced by ``r``.

An epilogue is ``r``, then optionally ``+ read``, then optionally σ or σ′ (or tanh or tanh′), then optionally
``- read``. Other elementwise functions (:data:`GENERAL`) and factors that are a power of two are epilogues of what
computes one of their arguments, or else of a copy of it. Epilogues have no general multiplication. The loop over the
batch is the innermost one that is not reduced.

Windows are strides, and padding by zeros is a read with bounds. Any other padding makes an array of its own: one kernel
lays out the entries, others fill the rest.

All updates come last, and no kernel that updates a parameter reads another one, so that every read of a parameter
sees its value before the step. A parameter and its optimizer's state are updated by one kernel where they follow from
one value.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.axes import axis_classes, batch_class
from catgrad_hw.ir.cost import is_power_of_two
from catgrad_hw.ir.graph import Graph, Node
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
    Bound,
    Constant,
    Expression,
    Kernel,
    KernelProgram,
    Loop,
    Position,
    Read,
    Reduced,
    Role,
    Write,
    expression_under,
)
from catgrad_hw.ir.kernel_check import check, reads
from catgrad_hw.ir.names import output_names, value_names
from catgrad_hw.ir.passes.attach_side_sums import attach_side_sums
from catgrad_hw.ir.updates import Update, update_of
from catgrad_hw.ir.windows import Crop, Flip, Fold, Pad, Windows

Reduction: TypeAlias = Literal["sum", "max", "argmax"]

Place: TypeAlias = tuple[tuple[int, int], ...]
"""The loops that run along an axis, outermost first, with the steps that they take; none where its size is 1."""

Stage: TypeAlias = Literal["reduced", "sum", "function", "difference", "general"]

KERNEL_ROLES: Mapping[str, Role] = {
    "parameter": "parameter",
    "state": "parameter",
    "input": "input",
    "target": "target",
    "rate": "target",
}
"""The role of an array by that of the graph's input."""

FUNCTIONS: Mapping[type[ops.Operation], str] = {
    ops.Sigmoid: "sigmoid",
    ops.SigmoidDerivative: "sigmoid_derivative",
    ops.Tanh: "tanh",
    ops.TanhDerivative: "tanh_derivative",
}
"""Functions of one argument that an epilogue applies to a sum."""

GENERAL: Mapping[type[ops.Operation], str] = {
    ops.Divide: "divide",
    ops.Power: "power",
    ops.Gt: "greater",
    ops.Select: "select",
    ops.Invert: "invert",
    ops.Exp: "exp",
    ops.Log: "log",
    ops.Sqrt: "sqrt",
}
"""Elementwise functions that go wherever their arguments are."""


def lower(graph: Graph) -> KernelProgram:
    """The kernels of a graph's groups ``predict`` and ``step``; arrays are named by :mod:`catgrad_hw.ir.names`.

    Raises :class:`UnsupportedError` for an operation that no kernel speaks.
    """
    graph = graph.restrict(["predict", "step"])
    classes = axis_classes(graph)
    batch = batch_class(graph, classes)
    size = next((T.shape[axes.index(batch)] for T, axes in zip(graph.types, classes, strict=True) if batch in axes), 1)
    names = value_names(graph)
    arrays: dict[str, Array] = {}
    for i, axes in zip(graph.inputs, classes, strict=False):
        if i.role != "cotangent":
            axis = axes.index(batch) if batch in axes else None
            arrays[i.name] = Array(i.name, i.type.shape, KERNEL_ROLES[i.role], axis, i.type.dtype)
    outputs = output_names(graph)
    programs = {}
    for group in ("predict", "step"):
        lowering = _Lowering(graph, group, names, classes, batch, arrays)
        programs[group] = attach_side_sums(lowering.run())
    program = KernelProgram(
        arrays=arrays,
        programs=programs,
        parameters=tuple(i.name for i in graph.inputs if i.role in ("parameter", "state")),
        inputs=tuple(i.name for i in graph.inputs if i.role == "input"),
        targets=tuple(i.name for i in graph.inputs if i.role in ("target", "rate")),
        outputs=tuple(outputs),
        batch=size,
        states=tuple(i.name for i in graph.inputs if i.role == "state"),
    )
    check(program)
    return program


@dataclass(frozen=True)
class _Axis:
    size: int
    batch: bool


@dataclass(frozen=True)
class _Stored:
    """A value that is, or is a view of, an array: ``strides`` by the value's axes. 0 outside of ``bounds``."""

    array: str
    offset: int
    strides: tuple[int, ...]
    bounds: tuple[Bound, ...] = ()

    def view(self, change: Callable[[int, tuple[int, ...]], tuple[int, tuple[int, ...]]]) -> _Stored:
        """Another view of the array, from how an offset and strides change."""
        bounds = tuple(Bound(*change(bound.offset, bound.strides), bound.size) for bound in self.bounds)
        return _Stored(self.array, *change(self.offset, self.strides), bounds)


@dataclass
class _Nest:
    """A kernel under construction. ``updates`` where its write updates a parameter in place."""

    loops: tuple[Loop, ...]
    reduced: int
    body: Expression
    reduction: Reduction | None
    position: int
    writes: list[Write] = field(default_factory=list)
    updates: bool = False


@dataclass(frozen=True)
class _Fused:
    """A value computed in a kernel's epilogue and not stored yet.

    ``loops`` gives the kernel's loops for each of the value's axes. The value is a permutation ``axes`` of the value
    ``origin``. ``exclusive``: nothing else reads it.
    """

    nest: _Nest
    expression: Expression
    stage: Stage
    loops: tuple[Place, ...]
    origin: int
    axes: tuple[int, ...]
    exclusive: bool


@dataclass(frozen=True)
class _Splat:
    """A value all of whose entries are one constant."""

    value: float | int


_State: TypeAlias = _Stored | _Fused | _Splat


class _Lowering:
    """Lowers one group. ``arrays`` is shared with the other groups and grows."""

    def __init__(
        self,
        graph: Graph,
        group: str,
        names: Sequence[str],
        classes: Sequence[tuple[int, ...]],
        batch: int | None,
        arrays: dict[str, Array],
    ) -> None:
        self.graph, self.group, self.names, self.arrays = graph, group, names, arrays
        self.classes, self.batch = classes, batch
        self.outputs = output_names(graph)
        self.nests: list[_Nest] = []
        self.states: dict[int, _State] = {}
        self.written_at: dict[str, int] = {}
        self.nodes = graph.needed([group])
        reads = [*graph.outputs[group], *(value for node in self.nodes for value in node.inputs)]
        self.uses = Counter(reads)

    def run(self) -> tuple[Kernel, ...]:
        graph, outputs = self.graph, self.graph.outputs[self.group]
        for value, i in enumerate(graph.inputs):
            self.states[value] = _Stored(i.name, 0, _row_major(i.type.shape))
        updates: dict[int, Update] = {}
        if self.group == "step":
            for parameter, value in enumerate(outputs):
                update = update_of(graph, parameter, value)
                if update is not None and self.uses[value] == 1:
                    updates[parameter] = update
        # The subtraction of an update, and a product with a power of two that updates alone read, are no kernels.
        skipped = {outputs[parameter] for parameter in updates}
        products = [update.product for update in updates.values() if update.product != update.gradient]
        skipped.update(product for product in products if products.count(product) == self.uses[product])
        for node in self.nodes:
            if not skipped.intersection(node.outputs):
                self._node(node)
        if self.group == "step":
            self._finish_step(outputs, updates)
        else:
            self._finish_predict(outputs)
        ordered = [n for n in self.nests if not n.updates] + [n for n in self.nests if n.updates]
        writers = Counter(write.access.array for nest in ordered for write in nest.writes)
        return tuple(self._kernel(nest, writers) for nest in ordered)

    # --- operations ---------------------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        operation = node.operation
        match operation:
            case ops.Constant():
                floating = operation.T.dtype.is_floating()
                self.states[node.outputs[0]] = _Splat(float(operation.x) if floating else int(operation.x))
            case ops.Permute():
                self.states[node.outputs[0]] = self._permute(node.inputs[0], node.outputs[0], operation.p)
            case ops.Reshape():
                self.states[node.outputs[0]] = self._reshaped(node.inputs[0], node.outputs[0], operation)
            case ops.NCopy() | ops.NSplit() | Crop() | Windows() | Flip():
                self._view(node)
            case Pad() if self._pads_by_reads(operation, node.inputs[0]):
                self._view(node)
            case Pad():
                self._pad(node.inputs[0], node.outputs[0], operation, operation.value)
            case Fold():
                self._fold(node, operation)
            case ops.NConcatenate():
                self._concatenate(node)
            case ops.Compose() | ops.MatrixMultiply():
                self._contract(node)
            case ops.Multiply():
                self._multiply(node)
            case ops.Negate():
                self._scale(-1, node.inputs[0], node.outputs[0])
            case ops.NAdd():
                self._reduce(node, len(operation.N.shape), "sum")
            case ops.NMax():
                self._reduce(node, len(operation.N.shape), "max")
            case ops.FirstMaximum():
                self._first_maximum(node, len(operation.N.shape))
            case ops.Add():
                self._add(node)
            case ops.Subtract():
                self._subtract(node)
            case _ if type(operation) in FUNCTIONS:
                self._function(FUNCTIONS[type(operation)], node)
            case _ if type(operation) in GENERAL:
                self._general(GENERAL[type(operation)], node)
            case _:
                raise UnsupportedError(
                    f"{type(operation).__name__}: expected an operation with a kernel, found {operation.target()[0]} = "
                    f"{operation}; build the model from other operations"
                )

    def _permute(self, value: int, result: int, p: Sequence[int]) -> _State:
        state = self.states[value]
        match state:
            case _Stored():
                return state.view(lambda offset, strides: (offset, tuple(strides[axis] for axis in p)))
            case _Fused():
                return _Fused(
                    state.nest,
                    state.expression,
                    state.stage,
                    tuple(state.loops[axis] for axis in p),
                    state.origin,
                    tuple(state.axes[axis] for axis in p),
                    state.exclusive and self.uses[result] == 1,
                )
            case _Splat():
                return state

    def _view(self, node: Node) -> None:
        operation: Any = node.operation
        value = node.inputs[0]
        splat = self.states[value]
        if isinstance(splat, _Splat):
            self.states.update((result, splat) for result in node.outputs)
            return
        stored = self._stored(value)
        if isinstance(operation, ops.NSplit):
            for i, result in enumerate(node.outputs):
                self.states[result] = stored.view(lambda o, s, i=i: (o + i * s[-1], s[:-1]))  # type: ignore[misc]
            return
        self.states[node.outputs[0]] = stored.view(lambda offset, strides: _viewed(operation, offset, strides))
        if isinstance(operation, Pad):
            view = self.states[node.outputs[0]]
            assert isinstance(view, _Stored)
            bounds = [
                Bound(-low, _unit(axis, len(view.strides)), size)
                for axis, (low, high, size) in enumerate(
                    zip(operation.low, operation.high, operation.T.shape, strict=True)
                )
                if low or high
            ]
            self.states[node.outputs[0]] = replace(view, bounds=(*view.bounds, *bounds))

    def _pads_by_reads(self, pad: Pad, value: int) -> bool:
        """Whether a read with bounds is the padded value: zeros around, none between, of floats."""
        around = pad.value == 0 and set(pad.step) <= {1}
        return around and not isinstance(self.states[value], _Splat)

    def _reshaped(self, value: int, result: int, reshape: ops.Reshape) -> _State:
        state = self.states[value]
        if isinstance(state, _Splat):
            return state
        old, new = reshape.X.shape, reshape.Y.shape
        whole = state
        if isinstance(state, _Fused):  # as if it were stored
            strides = _row_major(self.graph.types[state.origin].shape)
            whole = _Stored("", 0, tuple(strides[axis] for axis in state.axes))
        assert isinstance(whole, _Stored)
        if all(_reshape(old, s, new) is not None for s in (whole.strides, *(b.strides for b in whole.bounds))):
            return self._stored(value).view(lambda offset, strides: (offset, _reshape(old, strides, new) or ()))
        # Not affine. Where axes become one, a kernel's loops may run along them all the same.
        fused = state if isinstance(state, _Fused) else self._copy(value)
        merged = _merge(old, fused.loops, new)
        if merged is not None:
            exclusive = self.uses[result] == 1
            return _Fused(fused.nest, fused.expression, fused.stage, merged, result, tuple(range(len(new))), exclusive)
        if isinstance(state, _Fused):  # stored as it is now, for a copy in row-major order
            self._stored(value)
            fused = self._copy(value)
        self.states[value] = stored = self._write(fused, self.names[value], "intermediate")
        return _Stored(stored.array, stored.offset, _row_major(new))

    def _concatenate(self, node: Node) -> None:
        (result,) = node.outputs
        whole = self._array(result, self.names[result])
        for i, value in enumerate(node.inputs):
            fused = self._copy(value)
            part = _Stored(whole.array, i * whole.strides[-1], whole.strides[:-1])
            self._write_at(fused.nest, part, fused.loops, fused.expression)
        self.states[result] = whole

    def _pad(self, value: int, result: int, pad: Pad | Crop, fill: float) -> None:
        """Lay a value out in a new array; ``pad`` says where."""
        state = self.states[value]
        whole = self._array(result, self.names[result])
        fused = state if isinstance(state, _Fused) else self._copy(value)
        self._write_at(fused.nest, _laid_out(whole, pad), fused.loops, fused.expression)
        self._fill_rest(whole, pad, self._axes(value), fill)
        self.states[result] = whole

    def _fill_rest(self, whole: _Stored, pad: Pad | Crop, axes: Sequence[_Axis], fill: float) -> None:
        """Fill what a padded array holds besides the entries: before, after and between them, axis by axis."""
        for axis, (low, high, step) in enumerate(zip(pad.low, pad.high, pad.step, strict=True)):
            along, size, padded = whole.strides[axis], pad.T.shape[axis], pad.padded.shape[axis]
            # Along earlier axes where the entries lie, along later ones everywhere.
            before = [(a, whole.strides[i] * pad.step[i]) for i, a in enumerate(axes[:axis])]
            after = [
                (a, n, whole.strides[axis + 1 + i])
                for i, (a, n) in enumerate(zip(axes[axis + 1 :], pad.padded.shape[axis + 1 :], strict=True))
            ]
            offset = whole.offset + sum(whole.strides[i] * pad.low[i] for i in range(axis))
            rest = [(_Axis(n, a.batch and n == a.size), stride) for a, n, stride in after]
            for start, sizes in (
                (0, [(low, along)]),
                (padded - high, [(high, along)]),
                (low + 1, [(size - 1, step * along), (step - 1, along)]),
            ):
                if all(n for n, _ in sizes):
                    loops = [*before, *((_Axis(n, False), stride) for n, stride in sizes), *rest]
                    nest, where = self._open([a for a, _ in loops], [], None)
                    nest.body = Constant(fill)
                    place = _Stored(whole.array, offset + start * along, tuple(stride for _, stride in loops))
                    self._write_at(nest, place, where, Reduced())

    def _fold(self, node: Node, fold: Fold) -> None:
        """Spread the windows out, then sum those that overlap, along a diagonal."""
        (value,), (result,) = node.inputs, node.outputs
        axis, last = fold.axis, len(fold.windows.shape) - 1
        margin = fold.reach - 1
        rest = fold.T.shape[axis] - 1 - (fold.count - 1) * fold.step
        one, none = (1,) * (last + 1), (0,) * (last + 1)
        spread = Pad(
            fold.windows,
            _replaced(none, axis, margin),
            _replaced(none, axis, rest),
            _replaced(one, axis, fold.step),
        )
        padded = spread.padded
        name = f"{self.names[result]}_spread"
        whole = _Stored(name, 0, _row_major(padded.shape))
        batch = [i for i, a in enumerate(self._axes(value)) if a.batch and i != axis]
        self.arrays.setdefault(
            name, Array(name, padded.shape, "intermediate", batch[0] if batch else None, padded.dtype)
        )
        state = self.states[value]
        fused = state if isinstance(state, _Fused) else self._copy(value)
        self._write_at(fused.nest, _laid_out(whole, spread), fused.loops, fused.expression)
        self._fill_rest(whole, spread, self._axes(value), 0.0 if padded.dtype.is_floating() else 0)
        nest, where = self._open(self._axes(result), [_Axis(fold.size, False)], "sum")
        strides = [*whole.strides[:last], whole.strides[last] - fold.dilation * whole.strides[axis]]
        diagonal = _Stored(name, margin * whole.strides[axis], tuple(strides))
        nest.body = Read(_access(nest, diagonal, where))
        self._define(result, nest, where[:last])

    def _contract(self, node: Node) -> None:
        operation: Any = node.operation
        shared = len(operation.N.shape) if isinstance(operation, ops.MatrixMultiply) else 0
        inner = len(operation.B.shape)
        (x, y), (result,) = node.inputs, node.outputs
        left, right = self._stored(x), self._stored(y)
        outer = len(left.strides) - inner  # the axes of N and A
        axes = self._axes(result)
        reduced = self._axes(x)[outer:]
        nest, where = self._open(axes, reduced, "sum")
        kept, summed = where[: len(axes)], where[len(axes) :]
        in_left = [*kept[:outer], *summed]
        in_right = [*kept[:shared], *summed, *kept[outer:]]
        nest.body = Apply("multiply", (Read(_access(nest, left, in_left)), Read(_access(nest, right, in_right))))
        self._define(result, nest, kept)

    def _multiply(self, node: Node) -> None:
        (x, y), (result,) = node.inputs, node.outputs
        for factor, other in ((x, y), (y, x)):
            state = self.states[factor]
            if isinstance(state, _Splat):
                self._scale(state.value, other, result)
                return
        left, right = self._stored(x), self._stored(y)
        nest, where = self._open(self._axes(result), [], None)
        nest.body = Apply("multiply", (Read(_access(nest, left, where)), Read(_access(nest, right, where))))
        self._define(result, nest, where)

    def _scale(self, factor: float, value: int, result: int) -> None:
        fused = self.states[value]
        floating = self.graph.types[value].dtype.is_floating()
        if isinstance(fused, _Fused) and floating and factor > 0 and is_power_of_two(factor):
            scaled = Apply("multiply", (Constant(float(factor)), fused.expression))
            self._extend(fused, scaled, "general", result)
            return
        stored = self._stored(value)
        factor = float(factor) if floating else int(factor)
        nest, where = self._open(self._axes(result), [], None)
        nest.body = Apply("multiply", (Constant(factor), Read(_access(nest, stored, where))))
        self._define(result, nest, where)

    def _first_maximum(self, node: Node, kept: int) -> None:
        """Where the maximum is, in an array of its own, then whether that is here."""
        (value,), (result,) = node.inputs, node.outputs
        axes, shape = self._axes(value), self.graph.types[value].shape
        if all(axis.size == 1 for axis in axes[kept:]):
            self.states[result] = _Splat(1.0)
            return
        stored = self._stored(value)
        nest, where = self._open(axes[:kept], axes[kept:], "argmax")
        nest.body = Read(_access(nest, stored, where))
        batch = next((i for i, axis in enumerate(axes[:kept]) if axis.batch), None)
        name = f"{self.names[result]}_at"
        array = Array(name, shape[:kept], "intermediate", batch, self.graph.types[value].dtype)
        assert self.arrays.setdefault(name, array) == array
        place = _Stored(name, 0, _row_major(shape[:kept]))
        self._write_at(nest, place, where[:kept], Reduced())
        nest, where = self._open(axes, [], None)
        nest.body = Read(_access(nest, place, where[:kept]))
        here = Position(0, _by_loop(nest, (*(0 for _ in range(kept)), *_row_major(shape[kept:])), where))
        fused = _Fused(nest, Reduced(), "reduced", where, result, tuple(range(len(where))), False)
        self._extend(fused, Apply("equal", (Reduced(), here)), "general", result)

    def _reduce(self, node: Node, kept: int, reduction: Literal["sum", "max"]) -> None:
        (value,), (result,) = node.inputs, node.outputs
        state = self.states[value]
        axes = self._axes(value)
        nest, where = self._open(axes[:kept], axes[kept:], reduction)
        if (
            reduction == "sum"
            and isinstance(state, _Fused)
            and state.exclusive
            and state.stage == "reduced"
            and state.nest.reduction is None
            and not state.nest.writes
            and all(len(place) < 2 for place in state.loops)
        ):
            # A product that only this sum reads: one contraction.
            moved = {new[0][0]: old[0][0] for old, new in zip(state.loops, where, strict=True) if old and new}
            nest.body = expression_under(state.nest.body, [moved.get(i) for i in range(len(nest.loops))])
            self._remove(state.nest)
        else:
            nest.body = Read(_access(nest, self._stored(value), where))
        self._define(result, nest, where[:kept])

    def _add(self, node: Node) -> None:
        (result,) = node.outputs
        for value, other in (node.inputs, node.inputs[::-1]):
            if self._fuse(value, other, result, "add", ("reduced",), "sum"):
                return
        x, y = node.inputs
        if isinstance(self.states[x], _Splat):
            x, y = y, x
        self._fuse_into(self._copy(x), y, result, "add", "sum")

    def _subtract(self, node: Node) -> None:
        (x, y), (result,) = node.inputs, node.outputs
        state = self.states[x]
        if isinstance(state, _Splat):
            self._scale(-1.0, y, result)
            fused = self.states[result]
            assert isinstance(fused, _Fused)
            self._fuse_into(fused, x, result, "add", "sum")
        elif not self._fuse(x, y, result, "subtract", ("reduced", "sum", "function"), "difference"):
            self._fuse_into(self._copy(x), y, result, "subtract", "difference")

    def _function(self, name: str, node: Node) -> None:
        (value,), (result,) = node.inputs, node.outputs
        fused = self.states[value]
        if not isinstance(fused, _Fused) or fused.stage not in ("reduced", "sum"):
            fused = self._copy(value)
        self._extend(fused, Apply(name, (fused.expression,)), "function", result)

    def _general(self, name: str, node: Node) -> None:
        """An elementwise function: in the epilogue that computes one of its arguments, or in that of a copy."""
        (result,) = node.outputs
        fused = [state for state in (self.states[value] for value in node.inputs) if isinstance(state, _Fused)]
        for host in sorted(fused, key=lambda state: -state.nest.position):
            if not host.nest.writes:
                self._postpone(host.nest, node.inputs)
            arguments = [self._argument(host, value) for value in node.inputs]
            if all(argument is not None for argument in arguments):
                found = tuple(argument() for argument in arguments if argument is not None)
                self._extend(host, Apply(name, found), "general", result)
                return
        for value in node.inputs:
            if not isinstance(self.states[value], _Splat):
                self._stored(value)  # before the kernel that reads them all
        first = next((value for value in node.inputs if not isinstance(self.states[value], _Splat)), node.inputs[0])
        host = self._copy(first)
        expressions = (self._operand(host.nest, value, host.loops) for value in node.inputs)
        expression = Apply(name, tuple(Reduced() if e == host.nest.body else e for e in expressions))
        self._extend(host, expression, "general", result)

    def _postpone(self, nest: _Nest, values: Sequence[int]) -> None:
        """Put a kernel that has written nothing yet behind those that write, or compute, one of these values."""
        states = [self.states[value] for value in values]
        after = [self.written_at.get(state.array, -1) for state in states if isinstance(state, _Stored)]
        after += [state.nest.position for state in states if isinstance(state, _Fused)]
        if max(after) > nest.position:
            self._remove(nest)
            nest.position = len(self.nests)
            self.nests.append(nest)

    def _argument(self, host: _Fused, value: int) -> Callable[[], Expression] | None:
        """How an epilogue reads a value; None where it cannot."""
        state = self.states[value]
        match state:
            case _Splat():
                constant = Constant(state.value)
                return lambda: constant
            case _Stored() if self.written_at.get(state.array, -1) >= host.nest.position:
                return None
            case _Fused() if state.nest is host.nest:
                expression = state.expression
                return (lambda: expression) if state.loops == host.loops else None
            case _Fused() if state.nest.position >= host.nest.position:
                return None
        return lambda: Read(_access(host.nest, self._stored(value), host.loops))

    def _operand(self, nest: _Nest, value: int, where: Sequence[Place]) -> Expression:
        state = self.states[value]
        if isinstance(state, _Splat):
            return Constant(state.value)
        return Read(_access(nest, self._stored(value), where))

    # --- epilogues ----------------------------------------------------------------------------------------------

    def _fuse(self, value: int, other: int, result: int, name: str, stages: Sequence[Stage], stage: Stage) -> bool:
        """Continue the epilogue that computes ``value``, if there is one and ``other`` can be read in it."""
        fused = self.states[value]
        if not isinstance(fused, _Fused) or fused.stage not in stages:
            return False
        operand = self.states[other]
        match operand:
            case _Fused():
                if operand.nest.position >= fused.nest.position:
                    return False
            case _Stored():
                if self.written_at.get(operand.array, -1) >= fused.nest.position:
                    return False
        self._fuse_into(fused, other, result, name, stage)
        return True

    def _fuse_into(self, fused: _Fused, other: int, result: int, name: str, stage: Stage) -> None:
        operand = self.states[other]
        read: Expression
        if isinstance(operand, _Splat):
            read = Constant(operand.value)
        else:
            read = Read(_access(fused.nest, self._stored(other), fused.loops))
        self._extend(fused, Apply(name, (fused.expression, read)), stage, result)

    def _extend(self, fused: _Fused, expression: Expression, stage: Stage, result: int) -> None:
        exclusive = self.uses[result] == 1
        axes = tuple(range(len(fused.loops)))
        self.states[result] = _Fused(fused.nest, expression, stage, fused.loops, result, axes, exclusive)

    # --- kernels ------------------------------------------------------------------------------------------------

    def _axes(self, value: int) -> list[_Axis]:
        shape = self.graph.types[value].shape
        return [_Axis(size, c == self.batch) for size, c in zip(shape, self.classes[value], strict=True)]

    def _open(
        self, kept: Sequence[_Axis], reduced: Sequence[_Axis], reduction: Reduction | None
    ) -> tuple[_Nest, tuple[Place, ...]]:
        """A new kernel over the given axes, and the loops of each axis. Axes of size 1 have none, except the batch."""
        batch = next((i for i, axis in enumerate((*kept, *reduced)) if axis.batch), None)
        axes = [*enumerate((*kept, *reduced))]
        looped = [i for i, axis in axes if axis.size != 1 or i == batch]
        inner = [i for i in looped if i >= len(kept)]
        outer = sorted((i for i in looped if i < len(kept)), key=lambda i: (i == batch, i))
        letters = (letter for letter in string.ascii_lowercase[8:] + string.ascii_lowercase[:8] if letter != "b")
        loops = tuple(Loop("b" if i == batch else next(letters), axes[i][1].size, i == batch) for i in (*outer, *inner))
        nest = _Nest(loops, len(inner), Reduced(), reduction if inner else None, len(self.nests))
        self.nests.append(nest)
        where: dict[int, Place] = {i: ((loop, 1),) for loop, i in enumerate((*outer, *inner))}
        return nest, tuple(where.get(i, ()) for i, _ in axes)

    def _define(self, result: int, nest: _Nest, loops: Sequence[Place]) -> None:
        axes = tuple(range(len(loops)))
        self.states[result] = _Fused(nest, Reduced(), "reduced", tuple(loops), result, axes, self.uses[result] == 1)

    def _copy(self, value: int) -> _Fused:
        """A new kernel that reads a value, for an epilogue of its own."""
        if not isinstance(self.states[value], _Splat):
            self._stored(value)  # before this kernel
        nest, where = self._open(self._axes(value), [], None)
        nest.body = self._operand(nest, value, where)
        return _Fused(nest, Reduced(), "reduced", where, value, tuple(range(len(where))), False)

    def _remove(self, nest: _Nest) -> None:
        self.nests.remove(nest)
        for position, other in enumerate(self.nests):
            other.position = position
        for array in self.written_at:
            self.written_at[array] -= self.written_at[array] > nest.position

    # --- arrays -------------------------------------------------------------------------------------------------

    def _stored(self, value: int) -> _Stored:
        """The array that a value is, or is a view of; a fused value gets a write into an array of its own."""
        state = self.states[value]
        match state:
            case _Stored():
                return state
            case _Splat():
                self.states[value] = filled = self._write(self._copy(value), self.names[value], "intermediate", value)
                return filled
            case _Fused():
                origin = self.states[state.origin]
                if isinstance(origin, _Fused):
                    name = self.names[state.origin]
                    role: Role = "output" if name in self.outputs else "intermediate"
                    origin = self.states[state.origin] = self._write(origin, name, role, state.origin)
                assert isinstance(origin, _Stored)
                stored = _Stored(origin.array, origin.offset, tuple(origin.strides[axis] for axis in state.axes))
                self.states[value] = stored
                return stored

    def _write(self, fused: _Fused, name: str, role: Role, value: int | None = None) -> _Stored:
        """Store a fused value in an array of its own."""
        whole = self._array(fused.origin if value is None else value, name, role)
        self._write_at(fused.nest, whole, fused.loops, fused.expression)
        return whole

    def _write_at(self, nest: _Nest, place: _Stored, loops: Sequence[Place], expression: Expression) -> None:
        nest.writes.append(Write(_access(nest, place, loops), expression))
        self.written_at[place.array] = max(nest.position, self.written_at.get(place.array, -1))

    def _array(self, value: int, name: str, role: Role | None = None) -> _Stored:
        role = role or ("output" if name in self.outputs else "intermediate")
        shape, classes = self.graph.types[value].shape, self.classes[value]
        batch = classes.index(self.batch) if self.batch in classes else None
        array = Array(name, shape, role, batch, self.graph.types[value].dtype)
        assert self.arrays.setdefault(name, array) == array
        return _Stored(name, 0, _row_major(shape))

    # --- results ------------------------------------------------------------------------------------------------

    def _finish_predict(self, outputs: Sequence[int]) -> None:
        for name, value in zip(self.outputs, outputs, strict=True):
            state = self.states[value]
            if isinstance(state, _Fused) and state.origin == value and self.names[value] == name:
                self._stored(value)
            if name not in self.written_at:
                self._write(self._copy(value), name, "output", value)

    def _finish_step(self, outputs: Sequence[int], updates: dict[int, Update]) -> None:
        for parameter, value in enumerate(outputs):
            state = self.states.get(value)
            if parameter not in updates and value != parameter and self._is_parameter(state):
                # Another parameter's old value: copy it before that parameter is updated.
                name = f"new_{self.names[parameter]}"
                self.states[value] = self._write(self._copy(value), name, "intermediate", value)
        # What several parameters follow from (momentum's velocity, and what it changes) may write them all at once.
        together = Counter(updates[p].gradient if p in updates else v for p, v in enumerate(outputs) if v != p)
        copies: dict[int, _Fused] = {}
        finished: list[tuple[int, _Fused, Expression]] = []
        for parameter, value in enumerate(outputs):
            if value == parameter:
                continue
            update = updates.get(parameter, Update(value, 1.0, value))
            fused = self.states[update.gradient]
            if (
                not isinstance(fused, _Fused)
                or fused.stage not in ("reduced", "sum" if together[update.gradient] > 1 else "reduced")
                or self.uses[update.gradient] != together[update.gradient]
                or fused.nest.writes
                or any(len(place) > 1 for place in fused.loops)
                or any(self._is_parameter_read(e) for e in (fused.nest.body, fused.expression))
            ):
                if update.gradient not in copies:
                    copies[update.gradient] = self._copy(update.gradient)
                fused = copies[update.gradient]
            change = fused.expression
            if update.factor != 1.0:
                change = Apply("multiply", (Constant(update.factor), change))
            place = _Stored(self.names[parameter], 0, _row_major(self.graph.types[parameter].shape))
            if parameter in updates:
                old = Read(_access(fused.nest, place, fused.loops))
                change = Apply("subtract", (old, change))
            finished.append((parameter, fused, change))
        for parameter, fused, change in finished:
            place = _Stored(self.names[parameter], 0, _row_major(self.graph.types[parameter].shape))
            fused.nest.updates = True
            self._write_at(fused.nest, place, fused.loops, change)

    def _is_parameter_read(self, expression: Expression) -> bool:
        return any(self.arrays[access.array].role == "parameter" for access in reads(expression))

    def _is_parameter(self, state: _State | None) -> bool:
        return isinstance(state, _Stored) and self.arrays[state.array].role == "parameter"

    def _kernel(self, nest: _Nest, writers: Counter[str]) -> Kernel:
        place = nest.writes[0].access
        name = place.array
        if nest.updates:
            name = f"update_{name}"
        elif writers[name] > 1:
            name = f"{name}_{place.offset}"
        return Kernel(name, nest.loops, nest.reduced, nest.body, nest.reduction, tuple(nest.writes))


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    return tuple(strides)


def _laid_out(whole: _Stored, pad: Pad | Crop) -> _Stored:
    """The entries of a padded array."""
    offset = whole.offset + sum(low * stride for low, stride in zip(pad.low, whole.strides, strict=True))
    return _Stored(whole.array, offset, tuple(s * step for s, step in zip(whole.strides, pad.step, strict=True)))


def _unit(axis: int, axes: int) -> tuple[int, ...]:
    return tuple(int(i == axis) for i in range(axes))


def _viewed(operation: Any, offset: int, strides: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """How a view changes an offset and strides by axes."""
    match operation:
        case ops.NCopy():
            return offset, (*strides, *(0 for _ in operation.T.shape))
        case Crop():
            offset += sum(low * stride for low, stride in zip(operation.low, strides, strict=True))
            return offset, tuple(s * step for s, step in zip(strides, operation.step, strict=True))
        case Pad():
            return offset - sum(low * stride for low, stride in zip(operation.low, strides, strict=True)), strides
        case Windows():
            along = strides[operation.axis]
            return offset, (*_replaced(strides, operation.axis, along * operation.step), along * operation.dilation)
    assert isinstance(operation, Flip)
    along = strides[operation.axis]
    return offset + (operation.T.shape[operation.axis] - 1) * along, _replaced(strides, operation.axis, -along)


def _merge(shape: Sequence[int], loops: Sequence[Place], new: Sequence[int]) -> tuple[Place, ...] | None:
    """The loops along the axes of another shape, each of whose axes is several of the old ones; None where not."""
    result: list[Place] = []
    rest = list(zip(shape, loops, strict=True))
    for size in new:
        place: Place = ()
        have = 1
        while have < size and rest:
            inner, along = rest.pop(0)
            place = (*((loop, step * inner) for loop, step in place), *along)
            have *= inner
        if have != size:
            return None
        result.append(place)
    return tuple(result) if all(size == 1 for size, _ in rest) else None


def _replaced(values: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _access(nest: _Nest, stored: _Stored, loops: Sequence[Place]) -> Access:
    """The access of a stored value whose axes run along the given loops."""
    bounds = tuple(Bound(b.offset, _by_loop(nest, b.strides, loops), b.size) for b in stored.bounds)
    return Access(stored.array, stored.offset, _by_loop(nest, stored.strides, loops), bounds)


def _by_loop(nest: _Nest, strides: Sequence[int], loops: Sequence[Place]) -> tuple[int, ...]:
    """The strides by loop of something that has strides by axis."""
    result = [0] * len(nest.loops)
    for place, stride in zip(loops, strides, strict=True):
        for loop, step in place:
            result[loop] += stride * step
    return tuple(result)


def _reshape(shape: Sequence[int], strides: Sequence[int], new: Sequence[int]) -> tuple[int, ...] | None:
    """The strides of a strided array under another shape, or None where no strides describe it."""
    old = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    result: list[int] = []
    available: list[tuple[int, int]] = list(reversed(old))
    for size in reversed(new):
        if size == 1:
            result.append(0)
            continue
        if not available:
            return None
        have, stride = available.pop(0)
        while have < size and available and available[0][1] == stride * have:
            have *= available.pop(0)[0]
        if have % size:
            return None
        result.append(stride)
        if have > size:
            available.insert(0, (have // size, stride * size))
    return tuple(reversed(result))
