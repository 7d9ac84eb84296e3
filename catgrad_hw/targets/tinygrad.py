"""A standalone module that imports tinygrad alone. Its functions may be wrapped in ``TinyJit``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Node
from catgrad_hw.ir.types import NdArrayType
from catgrad_hw.ir.windows import Flip, Fold, Pad, Windows
from catgrad_hw.targets import numpy
from catgrad_hw.targets.numpy import ATOM, SUM, FloatFunction, emit_module
from catgrad_hw.targets.project import Source

HELPERS = {
    "_sigmoid": """
def _sigmoid(z):
    return z.sigmoid()
""",
    "_sigmoid_derivative": """
def _sigmoid_derivative(z):
    e = (-z.abs()).exp()
    return e / (1 + e).square()
""",
    "_sigmoid_and_derivative": """
def _sigmoid_and_derivative(z):
    e = (-z.abs()).exp()
    return z.sigmoid(), e / (1 + e).square()  # not a * (1 - a), which loses all digits where a is near 1
""",
    "_first_maximum": """
def _first_maximum(x, axes):
    flat = x.reshape(*x.shape[: x.ndim - axes], -1)
    return flat.argmax(-1).one_hot(flat.shape[-1]).cast(x.dtype).reshape(x.shape)
""",
    "_tanh_derivative": """
def _tanh_derivative(z):
    e = (-2 * z.abs()).exp()
    return 4 * e / (1 + e).square()
""",
}

CHECK = '''
def _check(function, name, array, dtype, shape):
    """Raise TypeError unless the array has the dtype and the shape that the model was compiled for."""
    found = getattr(array, "dtype", type(array).__name__)
    if found != getattr(dtypes, dtype):
        raise TypeError(f"{function}: {name} must have dtype {dtype}, found {found}; use {name}.cast(dtypes.{dtype})")
    if tuple(array.shape) != shape:
        found = tuple(array.shape)
        raise TypeError(f"{function}: {name} must have shape {shape}, found {found}; compile for that shape")
'''


class Function(FloatFunction):
    """One function of a module for tinygrad."""

    library, target, imports, helpers, check = (
        "tinygrad",
        "tinygrad",
        "from tinygrad import Tensor, dtypes",
        HELPERS,
        CHECK,
    )

    @classmethod
    def spellings(cls) -> Mapping[type[ops.Operation], numpy.Spelling]:
        return SPELLINGS

    def permuted(self, text: str, order: Any) -> str:
        return f"{text}.permute{tuple(order)}"

    def filled(self, T: NdArrayType, literal: str) -> str:
        return f"Tensor.full({T.shape}, {literal}, dtype=dtypes.float32)"

    def repeated(self, text: str, shape: tuple[int, ...]) -> str:
        return f"({text}).expand({shape})"

    def copied(self, text: str) -> str:
        return f"({text}).contiguous()"

    def select(self, node: Node) -> tuple[str, int]:
        condition, x, y = self.operands(node, (SUM, ATOM, ATOM))
        if self.graph.constant(node.inputs[0]) is not None:
            condition = self._full(node.inputs[0], SUM)
        return f"({condition} > 0).where({x}, {y})", ATOM

    def gt(self, node: Node) -> tuple[str, int]:
        left, right = self.operands(node, (ATOM, ATOM))
        return f"({left} > {right}).cast(dtypes.float32)", ATOM

    def power(self, node: Node) -> tuple[str, int]:
        left, right = self.operands(node, (ATOM, ATOM))
        return f"({left} ** {right})", ATOM

    def stack(self, node: Node) -> tuple[str, int]:
        return f"Tensor.stack({', '.join(self._full(value, SUM) for value in node.inputs)}, dim=-1)", ATOM

    def tensordot(self, left: str, right: str, operation: ops.Compose) -> tuple[str, int]:
        a, b, c = (X.size for X in (operation.A, operation.B, operation.C))
        product = f"(({left}).reshape({a}, {b}) @ ({right}).reshape({b}, {c}))"
        return f"{product}.reshape({operation.target()[0].shape})", ATOM

    def flip(self, node: Node) -> tuple[str, int]:
        operation: Any = node.operation
        return f"{self._full(node.inputs[0], ATOM)}.flip({operation.axis})", ATOM

    def method(self, node: Node, name: str) -> tuple[str, int]:
        return f"{self._full(node.inputs[0], ATOM)}.{name}()", ATOM


SPELLINGS: Mapping[type[ops.Operation], numpy.Spelling] = {
    **{kind: spelling for kind, spelling in numpy.SPELLINGS.items() if kind not in (ops.Invert, Pad, Windows, Fold)},
    ops.Exp: lambda f, node: f.method(node, "exp"),
    ops.Log: lambda f, node: f.method(node, "log"),
    ops.Sqrt: lambda f, node: f.method(node, "sqrt"),
    ops.Tanh: lambda f, node: f.method(node, "tanh"),
    ops.Select: lambda f, node: f.select(node),
    ops.Gt: lambda f, node: f.gt(node),
    ops.Power: lambda f, node: f.power(node),
    ops.NConcatenate: lambda f, node: f.stack(node),
    Flip: lambda f, node: f.flip(node),
}
"""As :data:`catgrad_hw.targets.numpy.SPELLINGS`, for tinygrad."""


def emit(model: Source, name: str) -> dict[str, str]:
    """The module ``name``: :func:`catgrad_hw.targets.numpy.emit_module` for tinygrad."""
    return emit_module(model, name, Function)
