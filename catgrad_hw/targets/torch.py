"""A standalone module that imports torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.graph import Node
from catgrad_hw.ir.types import NdArrayType
from catgrad_hw.ir.windows import Flip, Pad
from catgrad_hw.targets import numpy
from catgrad_hw.targets.numpy import ATOM, SUM, FloatFunction, emit_module, slices_of
from catgrad_hw.targets.project import Source

HELPERS = {
    "_sigmoid": """
def _sigmoid(z):
    return torch.sigmoid(z)
""",
    "_sigmoid_derivative": """
def _sigmoid_derivative(z):
    e = torch.exp(-z.abs())
    return e / (1 + e).square()
""",
    "_sigmoid_and_derivative": """
def _sigmoid_and_derivative(z):
    e = torch.exp(-z.abs())
    return torch.sigmoid(z), e / (1 + e).square()  # not a * (1 - a), which loses all digits where a is near 1
""",
    "_tanh_derivative": """
def _tanh_derivative(z):
    e = torch.exp(-2 * z.abs())
    return 4 * e / (1 + e).square()
""",
    "_first_maximum": """
def _first_maximum(x, axes):
    flat = x.reshape(*x.shape[: x.ndim - axes], -1)
    first = torch.arange(flat.shape[-1], device=x.device) == flat.argmax(dim=-1, keepdim=True)
    return first.to(x.dtype).reshape(x.shape)
""",
    "_pad": """
def _pad(x, shape, places, value):
    result = torch.full(shape, value, dtype=x.dtype, device=x.device)
    result[places] = x
    return result
""",
    "_windows": """
def _windows(x, axis, size, step, dilation):
    return x.unfold(axis, (size - 1) * dilation + 1, step)[..., ::dilation]
""",
    "_fold": """
def _fold(x, shape, axis, step, dilation):
    result = torch.zeros(shape, dtype=x.dtype, device=x.device)
    reach = (x.shape[axis] - 1) * step + 1
    for k in range(x.shape[-1]):
        result[(slice(None),) * axis + (slice(k * dilation, k * dilation + reach, step),)] += x[..., k]
    return result
""",
}

CHECK = '''
def _check(function, name, array, dtype, shape):
    """Raise TypeError unless the array has the dtype and the shape that the model was compiled for."""
    found = getattr(array, "dtype", type(array).__name__)
    if found != getattr(torch, dtype):
        raise TypeError(f"{function}: {name} must have dtype {dtype}, found {found}; use {name}.to(torch.{dtype})")
    if tuple(array.shape) != shape:
        found = tuple(array.shape)
        raise TypeError(f"{function}: {name} must have shape {shape}, found {found}; compile for that shape")
'''


class Function(FloatFunction):
    """One function of a module for torch."""

    library, target, imports, helpers, check = "torch", "torch", "import torch", HELPERS, CHECK
    axis = "dim"

    @classmethod
    def spellings(cls) -> Mapping[type[ops.Operation], numpy.Spelling]:
        return SPELLINGS

    def permuted(self, text: str, order: Any) -> str:
        return f"{text}.permute{tuple(order)}"

    def filled(self, T: NdArrayType, literal: str) -> str:
        return f"torch.full({T.shape}, {literal}, dtype=torch.float32)"

    def repeated(self, text: str, shape: tuple[int, ...]) -> str:
        return f"torch.broadcast_to({text}, {shape})"

    def copied(self, text: str) -> str:
        return f"({text}).clone()"

    def select(self, node: Node) -> tuple[str, int]:
        condition, x, y = self.operands(node, (SUM, SUM, SUM))
        return f"torch.where({condition} > 0, {x}, {y})", ATOM

    def gt(self, node: Node) -> tuple[str, int]:
        left, right = self.operands(node, (SUM, SUM))
        return f"torch.gt({left}, {right}).to(torch.float32)", ATOM

    def power(self, node: Node) -> tuple[str, int]:
        return f"torch.pow({', '.join(self.operands(node, (SUM, SUM)))})", ATOM

    def stack(self, node: Node) -> tuple[str, int]:
        return f"torch.stack([{', '.join(self._full(value, SUM) for value in node.inputs)}], dim=-1)", ATOM

    def tensordot(self, left: str, right: str, operation: ops.Compose) -> tuple[str, int]:
        return f"torch.tensordot({left}, {right}, dims={len(operation.B.shape)})", ATOM

    def pad(self, node: Node) -> tuple[str, int]:
        operation: Any = node.operation
        places = f"({slices_of(operation)},)"
        return f"_pad({self._full(node.inputs[0], SUM)}, {operation.padded.shape}, {places}, {operation.value!r})", ATOM

    def flip(self, node: Node) -> tuple[str, int]:
        operation: Any = node.operation
        return f"{self._full(node.inputs[0], ATOM)}.flip({operation.axis})", ATOM


SPELLINGS: Mapping[type[ops.Operation], numpy.Spelling] = {
    **{kind: spelling for kind, spelling in numpy.SPELLINGS.items() if kind not in (ops.Invert,)},
    ops.Exp: lambda f, node: f.call(node, "torch.exp"),
    ops.Log: lambda f, node: f.call(node, "torch.log"),
    ops.Sqrt: lambda f, node: f.call(node, "torch.sqrt"),
    ops.Tanh: lambda f, node: f.call(node, "torch.tanh"),
    ops.NMax: lambda f, node: f.reduce(node, "amax"),
    ops.Select: lambda f, node: f.select(node),
    ops.Gt: lambda f, node: f.gt(node),
    ops.Power: lambda f, node: f.power(node),
    ops.NConcatenate: lambda f, node: f.stack(node),
    Flip: lambda f, node: f.flip(node),
    Pad: lambda f, node: f.pad(node),
}
"""As :data:`catgrad_hw.targets.numpy.SPELLINGS`, for torch."""


def emit(model: Source, name: str) -> dict[str, str]:
    """The module ``name``: :func:`catgrad_hw.targets.numpy.emit_module` for torch."""
    return emit_module(model, name, Function)
