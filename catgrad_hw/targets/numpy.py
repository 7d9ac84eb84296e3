"""A standalone NumPy module: ``predict`` and ``step`` as static source that imports NumPy alone."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from catgrad_hw.errors import ModelError, UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import ROLES, Learner, joint_graph
from catgrad_hw.ir.graph import Graph, Node
from catgrad_hw.ir.names import output_names, value_names
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import Dtype, NdArrayType
from catgrad_hw.ir.windows import Crop, Flip, Fold, Pad, Windows
from catgrad_hw.workload import Workload

_HELPERS = {
    "_sigmoid": """
def _sigmoid(z):
    return 1 / (1 + np.exp(np.minimum(-z, 88)))  # beyond 88, exp overflows in float32
""",
    "_sigmoid_derivative": """
def _sigmoid_derivative(z):
    e = np.exp(np.minimum(-z, 88))
    a = 1 / (1 + e)
    return e * a * a
""",
    "_sigmoid_and_derivative": """
def _sigmoid_and_derivative(z):
    e = np.negative(z)
    np.exp(np.minimum(e, 88, out=e), out=e)
    a = 1 / (1 + e)
    e *= a
    e *= a  # not a * (1 - a), which loses all digits where a is near 1
    return a, e
""",
    "_tanh_derivative": """
def _tanh_derivative(z):
    e = np.exp(-2 * np.abs(z))
    return 4 * e / np.square(1 + e)  # not 1 - tanh(z)**2, which loses all digits where that is near 0
""",
    "_descend": """
def _descend(p, rate, g):
    g *= rate
    return np.subtract(p, g, out=g)  # p - rate * g, in the place of g
""",
    "_divide": """
def _divide(x, y):
    with np.errstate(divide="ignore", over="ignore"):  # x / 0 is 0, and integers wrap
        return np.floor_divide(x, y)
""",
    "_matmul_mod_2": """
def _matmul_mod_2(x, y):
    return (x.astype(np.uint8) @ y.astype(np.uint8) & 1).astype(np.bool_)
""",
    "_tensordot_mod_2": """
def _tensordot_mod_2(x, y, axes):
    return (np.tensordot(x.astype(np.uint8), y.astype(np.uint8), axes=axes) & 1).astype(np.bool_)
""",
    "_first_maximum": """
def _first_maximum(x, axes):
    flat = x.reshape(*x.shape[: x.ndim - axes], -1)
    first = np.arange(flat.shape[-1]) == flat.argmax(axis=-1)[..., None]
    return first.astype(x.dtype).reshape(x.shape)
""",
    "_pad": """
def _pad(x, shape, places, value):
    result = np.full(shape, value, x.dtype)
    result[places] = x
    return result
""",
    "_windows": """
def _windows(x, axis, size, step, dilation):
    view = np.lib.stride_tricks.sliding_window_view(x, (size - 1) * dilation + 1, axis)[..., ::dilation]
    return view[(slice(None),) * axis + (slice(None, None, step),)]
""",
    "_fold_mod_2": """
def _fold_mod_2(x, shape, axis, step, dilation):
    result = np.zeros(shape, np.bool_)
    reach = (x.shape[axis] - 1) * step + 1
    for k in range(x.shape[-1]):
        result[(slice(None),) * axis + (slice(k * dilation, k * dilation + reach, step),)] ^= x[..., k]
    return result
""",
    "_fold": """
def _fold(x, shape, axis, step, dilation):
    result = np.zeros(shape, x.dtype)
    reach = (x.shape[axis] - 1) * step + 1
    for k in range(x.shape[-1]):
        result[(slice(None),) * axis + (slice(k * dilation, k * dilation + reach, step),)] += x[..., k]
    return result
""",
}

_CHECK = '''
def _check(function, name, array, dtype, shape):
    """Raise TypeError unless the array has the dtype and the shape that the model was compiled for."""
    found = getattr(array, "dtype", type(array).__name__)
    if found is not dtype and found != dtype:
        raise TypeError(f"{function}: {name} must have dtype {dtype}, found {found}; use {name}.astype(np.{dtype})")
    if array.shape != shape:
        raise TypeError(f"{function}: {name} must have shape {shape}, found {array.shape}; compile for that shape")
'''


def emit(model: Workload | Learner, name: str) -> dict[str, str]:
    """The module ``name``, for NumPy: see :func:`emit_module`."""
    return emit_module(model, name, Function)


def emit_module(model: Workload | Learner, name: str, kind: type[Function]) -> dict[str, str]:
    """The files, by name, of a module ``name``: ``predict(p0, …, x)`` and ``step(p0, …, x, y)``, which return lists.

    ``model`` is a workload, or a learner of :func:`catgrad_hw.compile.learner`. The text depends on nothing else.
    Raises :class:`UnsupportedError` for an operation that has no spelling, and :class:`ModelError` for a name that
    cannot be a module's.
    """
    module = re.sub(r"\W", "_", name)
    if not module.isidentifier() or keyword.iskeyword(module):
        raise ModelError(f"emit: expected a name for a module, found {name!r}; start it with a letter")
    graph = simplify(joint_graph(model.learner if isinstance(model, Workload) else model))
    return {f"{module}.py": _module(graph, name, kind)}


def _module(graph: Graph, name: str, kind: type[Function]) -> str:
    predict, step = (
        kind(graph, group, [i.name for role in ROLES[group] for i in graph.inputs if i.role == role])
        for group in ("predict", "step")
    )
    parameters = [i.name for role in ("parameter", "state") for i in graph.inputs if i.role == role]
    kept = "the parameters"
    if any(i.role == "state" for i in graph.inputs):
        kept = "the parameters and the optimizer's state, which starts at zeros,"
    text = "\n\n\n".join(function.source() for function in (predict, step))
    helpers = "".join(f"\n{helper}" for word, helper in kind.helpers.items() if f"{word}(" in text)
    constants = "".join(f"\n{constant}" for constant in kind.constants(text))
    types = "\n".join(f"    {i.name}: {_describe(i.type)}" for i in graph.inputs)
    results = "\n".join(
        f"    {word}: {_describe(graph.types[value])}"
        for word, value in zip(output_names(graph), graph.outputs["predict"], strict=True)
    )
    return f'''"""{name}: written by catgrad-hw; needs {kind.library} alone.

predict({", ".join(predict.arguments)}) returns [{", ".join(output_names(graph))}];
step({", ".join(step.arguments)}) returns {kept} after one step of training, [{", ".join(parameters)}].

Arguments:
{types}
Results of predict:
{results}
"""

{kind.imports}
{constants}
{kind.check}{helpers}

{text}
'''


def _describe(T: NdArrayType) -> str:
    return f"{T.dtype.name} {T.shape}"


@dataclass(frozen=True)
class _View:
    """A value as a view of an expression: for each of its axes the expression's axis, or None where it repeats."""

    base: str
    binds: int  # how tightly the expression's outermost operator binds
    axes: tuple[int | None, ...]


SUM, PRODUCT, SIGN, POWER, ATOM = range(5)

FRESH = (ops.Compose, ops.MatrixMultiply, ops.NAdd, ops.Multiply, ops.Add, ops.Subtract)
"""Operations whose result shares no memory with an operand."""


Spelling: TypeAlias = Callable[[Any, Node], tuple[str, int]]
"""An operation's text, and how tightly its operator binds, given the function that is being written."""


class Function:
    """One function of the module. Values that are read once, and views, are spelled where they are read.

    Modules for other libraries of arrays are written by subclasses, which spell what differs.
    """

    library, target, imports, helpers, check = "NumPy", "numpy", "import numpy as np", _HELPERS, _CHECK
    axis = "axis"
    """The keyword of reductions."""
    in_place = True
    """Whether ``_descend`` may overwrite a gradient."""

    @classmethod
    def spellings(cls) -> Mapping[type[ops.Operation], Spelling]:
        """The operations that the library speaks."""
        return SPELLINGS

    @classmethod
    def constants(cls, text: str) -> list[str]:
        """The lines of constants that the functions use."""
        dtypes = sorted(set(re.findall(r"_check\(.*, _(\w+), \(", text)))
        rows = sorted(set(map(int, re.findall(r"\b_ones_(\d+)", text))))
        lines = [f'_{name} = np.dtype("{name}")' for name in dtypes]
        lines += [f"_ones_{n} = np.ones({n}, np.float32)" for n in rows]
        return [*lines, ""] if lines else []

    def __init__(self, graph: Graph, group: str, arguments: Sequence[str]) -> None:
        self.graph, self.group, self.arguments = graph, group, arguments
        self.types, self.names = graph.types, value_names(graph)
        self.nodes = graph.needed([group])
        self.readers: dict[int, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                self.readers.setdefault(value, []).append(node)
        self.lines: list[str] = []
        self.views: dict[int, _View] = {}
        results = {
            kind: {node.inputs[0]: node.outputs[0] for node in self.nodes if isinstance(node.operation, kind)}
            for kind in (ops.Sigmoid, ops.SigmoidDerivative)
        }
        # σ and σ′ of one argument share their exponential.
        self.pairs = {
            argument: (a, results[ops.SigmoidDerivative][argument])
            for argument, a in results[ops.Sigmoid].items()
            if argument in results[ops.SigmoidDerivative] and self.types[argument].shape
        }

    def source(self) -> str:
        graph = self.graph
        head = f"def {self.group}({', '.join(self.arguments)}):"
        checks = []
        for value, i in enumerate(graph.inputs):
            if i.name in self.arguments:
                dtype = self.dtype(i.type)
                checks.append(f"    _check({self.group!r}, {i.name!r}, {i.name}, {dtype}, {i.type.shape})")
                self.views[value] = _View(i.name, ATOM, tuple(range(len(i.type.shape))))
        for node in self.nodes:
            self._node(node)
        results = [self._result(value) for value in graph.outputs[self.group]]
        return "\n".join([head, *checks, *self.lines, f"    return [{', '.join(results)}]"])

    def _node(self, node: Node) -> None:
        operation = node.operation
        match operation:
            case ops.Constant():
                return  # spelled where it is read
            case ops.Permute() if node.inputs[0] in self.views:
                view = self.views[node.inputs[0]]
                self.views[node.outputs[0]] = _View(view.base, view.binds, tuple(view.axes[i] for i in operation.p))
                return
            case ops.NCopy() if node.inputs[0] in self.views:
                view = self.views[node.inputs[0]]
                axes = view.axes + (None,) * len(operation.T.shape)
                self.views[node.outputs[0]] = _View(view.base, view.binds, axes)
                return
            case ops.NSplit():
                for i, value in enumerate(node.outputs):
                    self._define(value, f"{self._full(node.inputs[0], ATOM)}[..., {i}]", ATOM)
                return
            case ops.Sigmoid() | ops.SigmoidDerivative() if node.inputs[0] in self.pairs:
                self._sigmoid_pair(node.inputs[0])
                return
        spelling = self.spellings().get(type(operation))
        if spelling is None:
            raise UnsupportedError(
                f"{type(operation).__name__}: expected an operation that the target {self.target} speaks, found "
                f"{operation}; choose another target, or build the model from other operations"
            )
        text, binds = spelling(self, node)
        self._define(node.outputs[0], text, binds)

    def _sigmoid_pair(self, argument: int) -> None:
        pair = self.pairs[argument]
        if pair[0] not in self.views:
            a, s = (self.names[value] for value in pair)
            self.lines.append(f"    {a}, {s} = _sigmoid_and_derivative({self._full(argument, SUM)})")
            for value in pair:
                self.views[value] = _View(self.names[value], ATOM, tuple(range(len(self.types[value].shape))))

    def _define(self, value: int, text: str, binds: int) -> None:
        """Name a value by a line of its own, or spell it where it is read."""
        T = self.types[value]
        if not T.shape:  # operators on NumPy 1's scalars do not keep their precision; integers' would warn of wrapping
            text, binds = self.without_axes(text, binds, T)
        axes = tuple(range(len(T.shape)))
        if self._inline(value):
            self.views[value] = _View(text, binds, axes)
        else:
            self.lines.append(f"    {self.names[value]} = {text}")
            self.views[value] = _View(self.names[value], ATOM, axes)

    def dtype(self, T: NdArrayType) -> str:
        """What the module compares an argument's dtype with."""
        return f"_{T.dtype.name}"

    def without_axes(self, text: str, binds: int, T: NdArrayType) -> tuple[str, int]:
        """An expression without axes, whose type the library's operators may not keep."""
        return f"{'np.asarray' if T.dtype is Dtype.int32 else f'np.{_dtype(T)}'}({text})", ATOM

    def filled(self, T: NdArrayType, literal: str) -> str:
        """An array of one number."""
        return f"np.full({T.shape}, {literal}, np.{_dtype(T)})"

    def repeated(self, text: str, shape: tuple[int, ...]) -> str:
        """An array over more axes, as a view."""
        return f"np.broadcast_to({text}, {shape})"

    def permuted(self, text: str, order: Sequence[int]) -> str:
        """An array, an atom, with other axes."""
        return f"{text}.transpose{tuple(order)}"

    def copied(self, text: str) -> str:
        """An array in the place of a view."""
        return f"np.array({text})"

    def _inline(self, value: int) -> bool:
        """Read where they are spelled: what is only returned, contractions in a sum, and scaled gradients."""
        readers = self.readers.get(value, [])
        returned = self.graph.outputs[self.group].count(value)
        if len(readers) + returned != 1:
            return False
        if returned:
            return True
        node = self.graph.producers[value]
        assert node is not None
        match node.operation, readers[0].operation:
            case ((ops.Compose() | ops.MatrixMultiply()), ops.Add()):
                return True
            case ops.Multiply(), ops.Subtract():
                return any(self.graph.constant(factor) is not None for factor in node.inputs)
        return False

    # --- operands -----------------------------------------------------------------------------------------------

    def _literal(self, value: int) -> str | None:
        constant = self.graph.constant(value)
        T = self.types[value]
        if constant is None:
            return None
        match T.dtype:
            case Dtype.bool:
                return f"np.bool_({bool(constant)})"
            case Dtype.int32:
                return f"np.int32({int(constant)})"
        # A Python float takes the array's precision, but not a NumPy 1 scalar's.
        return repr(float(constant)) if T.shape else f"np.float32({float(constant)!r})"

    def _full(self, value: int, binds: int) -> str:
        """A value in its full shape, in parentheses if its operator binds less tightly than ``binds``."""
        T = self.types[value]
        literal = self._literal(value)
        if literal is not None:
            return self.filled(T, literal)
        view = self.views[value]
        if None in view.axes:
            return self.repeated(self._broadcast(view, SUM), T.shape)
        order = [axis for axis in view.axes if axis is not None]
        if order == sorted(order):
            return _group(view.base, view.binds, binds)
        base = _group(view.base, view.binds, ATOM)
        return f"{base}.T" if order == [1, 0] else self.permuted(base, order)

    def _broadcast(self, view: _View, binds: int) -> str:
        """A view as an operand of an elementwise operation whose other operand has the full shape."""
        axes = list(view.axes)
        while axes and axes[0] is None:  # NumPy adds leading axes by itself
            axes.pop(0)
        order = [axis for axis in axes if axis is not None]
        text, bound = view.base, view.binds
        if order != sorted(order):
            text, bound = self.permuted(_group(text, bound, ATOM), order), ATOM
        if None in axes:
            index = ", ".join("None" if axis is None else ":" for axis in axes)
            text, bound = f"{_group(text, bound, ATOM)}[{index}]", ATOM
        return _group(text, bound, binds)

    def _repeats(self, value: int) -> bool:
        return self.graph.constant(value) is not None or None in self.views[value].axes

    def operands(self, node: Node, binds: Sequence[int]) -> list[str]:
        """The operands of an elementwise operation; at least one is spelled in full shape."""
        repeated = [self._repeats(value) for value in node.inputs]
        texts = []
        for position, value in enumerate(node.inputs):
            literal = self._literal(value)
            if all(repeated) and position == 0:
                texts.append(self._full(value, binds[position]))
            elif literal is not None:
                texts.append(literal)
            elif repeated[position]:
                texts.append(self._broadcast(self.views[value], binds[position]))
            else:
                texts.append(self._full(value, binds[position]))
        return texts

    def _result(self, value: int) -> str:
        view = self.views.get(value)
        text = self._full(value, SUM)
        return text if view is None or None not in view.axes else self.copied(text)

    # --- spellings ----------------------------------------------------------------------------------------------

    def infix(self, node: Node, operator: str, binds: int, method: str) -> tuple[str, int]:
        """An operator where it means what the dtype demands, else a function."""
        T = self.types[node.outputs[0]]
        if T.dtype is Dtype.bool or (T.dtype is Dtype.int32 and not T.shape):
            return self.function(node, method)
        left, right = self.operands(node, (binds, binds + 1))
        return f"{left} {operator} {right}", binds

    def function(self, node: Node, name: str) -> tuple[str, int]:
        return f"{name}({', '.join(self.operands(node, [SUM] * len(node.inputs)))})", ATOM

    def add(self, node: Node) -> tuple[str, int]:
        """A repeated operand, such as a bias, goes last, as one writes it by hand."""
        x, y = node.inputs
        if self._repeats(x) and not self._repeats(y):
            node = Node(node.operation, (y, x), node.outputs)
        return self.infix(node, "+", SUM, "np.logical_xor" if self._bool(node) else "np.add")

    def subtract(self, node: Node) -> tuple[str, int]:
        descent = self._descent(*node.inputs) if self.in_place else None
        if descent is not None:
            return f"_descend({', '.join(descent)})", ATOM
        return self.infix(node, "-", SUM, "np.logical_xor" if self._bool(node) else "np.subtract")

    def _descent(self, p: int, scaled: int) -> tuple[str, str, str] | None:
        """Parameters, rate and gradient of ``p - rate * g``, where nothing else reads the gradient, a new array."""
        product = self.graph.producers[scaled]
        if product is None or not isinstance(product.operation, ops.Multiply) or self._repeats(p):
            return None
        for rate, g in (product.inputs, product.inputs[::-1]):
            literal, producer = self._literal(rate), self.graph.producers[g]
            whole = self.views.get(g) == _View(self.names[g], ATOM, tuple(range(len(self.types[g].shape))))
            fresh = producer is not None and isinstance(producer.operation, FRESH)
            once = len(self.readers[g]) == len(self.readers[scaled]) == 1 and g not in self.graph.outputs[self.group]
            if literal is not None and whole and fresh and once and _descends(self.types[g]):
                return self._full(p, SUM), literal, self.names[g]
        return None

    def multiply(self, node: Node) -> tuple[str, int]:
        return self.infix(node, "*", PRODUCT, "np.logical_and" if self._bool(node) else "np.multiply")

    def divide(self, node: Node) -> tuple[str, int]:
        if self.types[node.outputs[0]].dtype is Dtype.int32:
            return self.function(node, "_divide")
        return self.infix(node, "/", PRODUCT, "np.logical_and")

    def select(self, node: Node) -> tuple[str, int]:
        condition, x, y = node.inputs
        if x == condition and self.graph.constant(y) == 0 and not self._bool(node):
            return f"np.maximum({self._full(x, SUM)}, {self._literal(y)})", ATOM
        texts = self.operands(node, (SUM, SUM, SUM))
        for position, value in enumerate(node.inputs[1:], 1):
            literal = self.graph.constant(value)
            if literal is not None:  # two Python floats would make float64
                texts[position] = f"np.{_dtype(self.types[value])}({literal!r})"
        return f"np.where({texts[0]}{'' if self._bool(node) else ' > 0'}, {texts[1]}, {texts[2]})", ATOM

    def _bool(self, node: Node) -> bool:
        return self.types[node.outputs[0]].dtype is Dtype.bool

    def gt(self, node: Node) -> tuple[str, int]:
        left, right = self.operands(node, (SUM, SUM))
        return f"np.greater({left}, {right}).astype(np.{_dtype(self.types[node.outputs[0]])})", ATOM

    def power(self, node: Node) -> tuple[str, int]:
        x, y = self.operands(node, (SUM, SUM))
        return (f"np.logical_or({x}, np.logical_not({y}))" if self._bool(node) else f"np.power({x}, {y})"), ATOM

    def call(self, node: Node, function: str) -> tuple[str, int]:
        return f"{function}({self._full(node.inputs[0], SUM)})", ATOM

    def negate(self, node: Node) -> tuple[str, int]:
        if self.types[node.outputs[0]].dtype is Dtype.int32:
            return self.call(node, "np.negative")
        return f"-{self._full(node.inputs[0], SIGN)}", SIGN

    def reshape(self, node: Node) -> tuple[str, int]:
        return f"{self._full(node.inputs[0], ATOM)}.reshape({self.types[node.outputs[0]].shape})", ATOM

    def reduce(self, node: Node, method: str) -> tuple[str, int]:
        operation: Any = node.operation
        kept = len(operation.N.shape)
        view = self.views.get(node.inputs[0])
        if view is not None and None not in view.axes and list(view.axes[:kept]) == sorted(view.axes[:kept]):  # type: ignore[type-var]
            # Summing over other axes replaces the permutation.
            axes = tuple(sorted(axis for axis in view.axes[kept:] if axis is not None))
            text = _group(view.base, view.binds, ATOM)
        else:
            axes = tuple(range(kept, len(self.types[node.inputs[0]].shape)))
            text = self._full(node.inputs[0], ATOM)
        T = self.types[node.inputs[0]]
        if method == "sum" and axes == (0,) and len(T.shape) == 2 and T.dtype is Dtype.float32:
            return self.column_sums(text, T.size // self.types[node.outputs[0]].size)
        over = f"{self.axis}={axes[0] if len(axes) == 1 else axes}"
        if method == "sum" and self._bool(node):
            return f"({text}.sum({over}, dtype=np.uint8) & 1).astype(np.bool_)", ATOM
        dtype = ", dtype=np.int32" if method == "sum" and self.types[node.outputs[0]].dtype is Dtype.int32 else ""
        return f"{text}.{method}({over}{dtype})", ATOM

    def first_maximum(self, node: Node) -> tuple[str, int]:
        operation: Any = node.operation
        return f"_first_maximum({self._full(node.inputs[0], SUM)}, {len(operation.T.shape)})", ATOM

    def column_sums(self, text: str, rows: int) -> tuple[str, int]:
        """The sums down the columns of a matrix: as a product, which NumPy does three times as fast as a sum."""
        return f"_ones_{rows} @ {text}", PRODUCT

    def stack(self, node: Node) -> tuple[str, int]:
        return f"np.stack([{', '.join(self._full(value, SUM) for value in node.inputs)}], axis=-1)", ATOM

    def contract(self, node: Node) -> tuple[str, int]:
        operation: Any = node.operation
        x, y = node.inputs
        if isinstance(operation, ops.Compose) and (len(operation.B.shape) != 1 or len(operation.C.shape) > 1):
            left, right = self._full(x, SUM), self._full(y, SUM)
            if self._bool(node):
                return f"_tensordot_mod_2({left}, {right}, axes={len(operation.B.shape)})", ATOM
            return self.tensordot(left, right, operation)
        if self._bool(node):
            return f"_matmul_mod_2({self._full(x, SUM)}, {self._full(y, SUM)})", ATOM
        return f"{self._full(x, PRODUCT)} @ {self._full(y, SIGN)}", PRODUCT

    def tensordot(self, left: str, right: str, operation: ops.Compose) -> tuple[str, int]:
        return f"np.tensordot({left}, {right}, axes={len(operation.B.shape)})", ATOM

    def pad(self, node: Node) -> tuple[str, int]:
        operation: Any = node.operation
        shape, places = operation.padded.shape, _places(operation)
        return f"_pad({self._full(node.inputs[0], SUM)}, {shape}, np.s_[{places}], {operation.value!r})", ATOM

    def crop(self, node: Node) -> tuple[str, int]:
        return f"{self._full(node.inputs[0], ATOM)}[{_places(node.operation)}]", ATOM

    def windows(self, node: Node) -> tuple[str, int]:
        o: Any = node.operation
        return f"_windows({self._full(node.inputs[0], SUM)}, {o.axis}, {o.size}, {o.step}, {o.dilation})", ATOM

    def fold(self, node: Node) -> tuple[str, int]:
        o: Any = node.operation
        function = "_fold_mod_2" if self._bool(node) else "_fold"
        x = self._full(node.inputs[0], SUM)
        return f"{function}({x}, {o.T.shape}, {o.axis}, {o.step}, {o.dilation})", ATOM

    def flip(self, node: Node) -> tuple[str, int]:
        o: Any = node.operation
        return f"{self._full(node.inputs[0], ATOM)}[{':, ' * o.axis}::-1]", ATOM


def slices_of(operation: Any) -> str:
    """Where a padded array holds the entries, as a tuple's elements."""
    return ", ".join(f"slice({p.start}, {p.stop}, {p.step})" for p in operation.slices())


def _places(operation: Any) -> str:
    """Where a padded array holds the entries, as slices."""
    return ", ".join(f"{p.start}:{p.stop}" + (f":{p.step}" if p.step != 1 else "") for p in operation.slices())


def _group(text: str, binds: int, needed: int) -> str:
    return text if binds >= needed else f"({text})"


def _descends(T: NdArrayType) -> bool:
    """Whether NumPy overwrites arrays of this type in place: scalars it does not."""
    return T.dtype is Dtype.float32 and bool(T.shape)


def _dtype(T: NdArrayType) -> str:
    return "bool_" if T.dtype is Dtype.bool else T.dtype.name


class FloatFunction(Function):
    """One function of a module for a library whose arrays without axes keep their type; of float32 alone."""

    in_place = False

    @classmethod
    def constants(cls, text: str) -> list[str]:
        return []

    def __init__(self, graph: Graph, group: str, arguments: Sequence[str]) -> None:
        super().__init__(graph, group, arguments)
        for T in graph.types:
            if T.dtype is not Dtype.float32:
                raise UnsupportedError(
                    f"{T}: the target {self.target} speaks float32, found {T.dtype.name}; change the dtype, or choose "
                    "the target numpy"
                )

    def without_axes(self, text: str, binds: int, T: NdArrayType) -> tuple[str, int]:
        return text, binds

    def dtype(self, T: NdArrayType) -> str:
        return repr(T.dtype.name)

    def column_sums(self, text: str, rows: int) -> tuple[str, int]:
        return f"{text}.sum({self.axis}=0)", ATOM

    def _literal(self, value: int) -> str | None:
        constant = self.graph.constant(value)
        return None if constant is None else repr(float(constant))


SPELLINGS: Mapping[type[ops.Operation], Spelling] = {
    ops.Add: Function.add,
    ops.Subtract: Function.subtract,
    ops.Multiply: Function.multiply,
    ops.Divide: Function.divide,
    ops.Power: Function.power,
    ops.Gt: Function.gt,
    ops.Select: Function.select,
    ops.Negate: Function.negate,
    ops.Invert: lambda f, node: f.call(node, "np.invert"),
    ops.Exp: lambda f, node: f.call(node, "np.exp"),
    ops.Log: lambda f, node: f.call(node, "np.log"),
    ops.Sqrt: lambda f, node: f.call(node, "np.sqrt"),
    ops.Sigmoid: lambda f, node: f.call(node, "_sigmoid"),
    ops.SigmoidDerivative: lambda f, node: f.call(node, "_sigmoid_derivative"),
    ops.Tanh: lambda f, node: f.call(node, "np.tanh"),
    ops.TanhDerivative: lambda f, node: f.call(node, "_tanh_derivative"),
    ops.NAdd: lambda f, node: f.reduce(node, "sum"),
    ops.NMax: lambda f, node: f.reduce(node, "max"),
    ops.FirstMaximum: Function.first_maximum,
    ops.NConcatenate: Function.stack,
    ops.Reshape: Function.reshape,
    ops.Compose: Function.contract,
    ops.MatrixMultiply: Function.contract,
    Pad: Function.pad,
    Crop: Function.crop,
    Windows: Function.windows,
    Fold: Function.fold,
    Flip: Function.flip,
}
"""The spelling of each operation, with the precedence of its operator. Constants and views are spelled by readers."""
