"""PyTorch modules, traced by torch.fx."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catgrad_hw import layers
from catgrad_hw.errors import ModelError, UnsupportedError
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import Parameter
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.types import Dtype, NdArrayType, obj

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]

USUAL: dict[str, tuple[Any, ...]] = {
    "inplace": (False, True),
    "dtype": (None,),
    "_stacklevel": (3,),
    "ceil_mode": (False,),
    "return_indices": (False,),
    "dilation": (1,),
    "count_include_pad": (True,),
    "divisor_override": (None,),
}
"""Options of functions that may be left out where they have these values."""


class Imported(NamedTuple):
    """A model and the parameters that it came with, in the model's order."""

    model: OpenHypergraph
    parameters: list[Floats]


def from_torch(module: torch.nn.Module, batch_size: int, input_shape: tuple[int, ...] | None = None) -> Imported:
    """The model of a PyTorch module for batches of ``batch_size``, and its weights.

    Spoken are Linear, Conv2d (in one group, padded by zeros), ReLU, LeakyReLU, Sigmoid, Tanh, Softmax over the last
    axis, MaxPool2d, AvgPool2d, Flatten, LayerNorm, Identity, Dropout (as in evaluation), their functions in
    torch.nn.functional, additions, and all modules that are built from these without branches, Sequential among them.
    Linear's weights are transposed, so that parameters are those of :func:`catgrad_hw.layers.dense`.

    ``input_shape`` is the shape of one sample; it may be left out where the first layer is Linear. Raises
    :class:`UnsupportedError` for a piece that is not spoken, by its name in the module, and :class:`ModelError` where
    torch is missing or the shape is not known.
    """
    try:
        import torch
        import torch.fx
    except ImportError:
        raise ModelError("from_torch: expected the package torch, found none; install catgrad-hw[torch]") from None
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"from_torch: expected a torch.nn.Module, found {type(module).__name__}; pass the module")
    try:
        tracer = torch.fx.Tracer()
        if tracer.is_leaf_module(module, ""):  # a layer by itself
            module = torch.nn.Sequential(module)
        graph = tracer.trace(module)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UnsupportedError(
            f"from_torch: expected a module without branches on data, found {type(module).__name__}, which torch.fx "
            f"cannot trace ({reason}); build it from layers"
        ) from error
    if input_shape is None:
        input_shape = _first_linear(module, torch)
    X = NdArrayType((batch_size, *input_shape), Dtype.float32)
    converter = _Converter(module, torch)
    model = trace(obj(X), lambda x: converter.run(graph, x))
    return Imported(model, converter.parameters)


def _first_linear(module: Any, torch: Any) -> tuple[int, ...]:
    first = next((m for m in module.modules() if not list(m.children()) and _in_features(m, torch) is not None), None)
    leaf = next((m for m in module.modules() if not list(m.children())), None)
    if first is None or leaf is not first:
        raise ModelError(
            f"from_torch: expected input_shape, the shape of one sample, where the first layer is not Linear, found "
            f"{type(leaf).__name__}; pass for example input_shape=(1, 28, 28)"
        )
    return (_in_features(first, torch) or 0,)


def _in_features(module: Any, torch: Any) -> int | None:
    return int(module.in_features) if isinstance(module, torch.nn.Linear) else None


class _Converter:
    """Walks a graph of torch.fx. ``parameters`` collects weights in the order in which the model's come."""

    def __init__(self, module: Any, torch: Any) -> None:
        self.module, self.torch = module, torch
        self.parameters: list[Floats] = []

    def run(self, graph: Any, x: Wire) -> Wire:
        values: dict[Any, Any] = {}
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise UnsupportedError(f"from_torch: expected a module with one input, found {len(inputs)}; change forward")

        def value(argument: Any) -> Any:
            return values[argument] if isinstance(argument, self.torch.fx.Node) else argument

        for node in graph.nodes:
            arguments = [value(argument) for argument in node.args]
            keywords = {name: value(argument) for name, argument in node.kwargs.items()}
            match node.op:
                case "placeholder":
                    values[node] = x
                case "call_module":
                    values[node] = self._call(node.target, self.module.get_submodule(node.target), arguments[0])
                case "call_function" | "call_method":
                    values[node] = self._function(node, arguments, keywords)
                case "output":
                    (result,) = arguments
                    if not isinstance(result, Wire):
                        raise UnsupportedError(
                            f"from_torch: expected a module with one output, found {type(result).__name__}"
                        )
                    return result
                case _:
                    raise self._unsupported(str(node.target), f"an attribute ({node.op})")
        raise UnsupportedError("from_torch: expected a module with an output, found none; change forward")

    # --- modules ------------------------------------------------------------------------------------------------

    def _call(self, name: str, module: Any, x: Wire) -> Wire:
        nn = self.torch.nn
        match module:
            case nn.Linear():
                return self._linear(module, x)
            case nn.Conv2d():
                return self._conv2d(name, module, x)
            case nn.ReLU():
                return self._at(layers.relu, x)
            case nn.LeakyReLU():
                return self._at(layers.leaky_relu(module.negative_slope), x)
            case nn.Sigmoid():
                return self._at(layers.sigmoid, x)
            case nn.Tanh():
                return self._at(layers.tanh, x)
            case nn.Softmax():
                return self._softmax(name, module.dim, x)
            case nn.MaxPool2d():
                plain = module.dilation in (1, (1, 1)) and not module.ceil_mode and not module.return_indices
                self._require(plain, name, "MaxPool2d with dilation, ceil_mode or return_indices")
                return self._pool(layers.max_pool2d, x, module.kernel_size, module.stride, module.padding)
            case nn.AvgPool2d():
                plain = module.count_include_pad and not module.ceil_mode and module.divisor_override is None
                self._require(plain, name, "AvgPool2d with ceil_mode, divisor_override or without count_include_pad")
                return self._pool(layers.average_pool2d, x, module.kernel_size, module.stride, module.padding)
            case nn.Flatten():
                return self._flatten(x, module.start_dim, module.end_dim)
            case nn.LayerNorm():
                return self._layer_norm(name, module, x)
            case nn.Identity() | nn.Dropout():
                return x
        raise self._unsupported(name, type(module).__name__)

    def _parameter(self, x: Wire, tensor: Any) -> Wire:
        array = np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float32))
        self.parameters.append(array)
        return x.produce(Parameter(NdArrayType(array.shape, Dtype.float32)))

    def _linear(self, module: Any, x: Wire) -> Wire:
        A, B = x.cut(len(x.T.shape) - 1)
        weight = self._parameter(x, module.weight.T)
        y = apply1(layers.Compose(A, B, NdArrayType((module.out_features,), Dtype.float32)), x, weight)
        if module.bias is None:
            return y
        return y + self._parameter(x, module.bias).spread_leading(A)

    def _conv2d(self, name: str, module: Any, x: Wire) -> Wire:
        self._require(module.groups == 1, name, f"Conv2d in {module.groups} groups")
        self._require(module.padding_mode == "zeros", name, f"Conv2d with padding_mode {module.padding_mode}")
        self._require(not isinstance(module.padding, str), name, f"Conv2d with padding {module.padding!r}")
        self._require(len(x.T.shape) == 4, name, f"Conv2d of an array of {len(x.T.shape)} axes")
        A, image = x.cut(1)
        weight = self._parameter(x, module.weight)
        y = apply1(layers.Convolution(A, image, weight.T, module.stride, module.padding, module.dilation), x, weight)
        if module.bias is None:
            return y
        bias = self._parameter(x, module.bias)
        over = NdArrayType((y.T.shape[0], *y.T.shape[2:]), Dtype.float32)
        return y + bias.spread(over).permute([1, 0, 2, 3])

    def _layer_norm(self, name: str, module: Any, x: Wire) -> Wire:
        A, B = x.cut(len(x.T.shape) - len(module.normalized_shape))
        self._require(B.shape == tuple(module.normalized_shape), name, f"LayerNorm of {B}")
        y = apply1(layers.Standardize(A, B, module.eps), x)
        if module.weight is not None:
            y = y * self._parameter(x, module.weight).spread_leading(A)
        if module.bias is not None:
            y = y + self._parameter(x, module.bias).spread_leading(A)
        return y

    def _at(self, activation: Callable[..., OpenHypergraph], x: Wire) -> Wire:
        return apply1(activation(obj(x.T)), x)

    def _softmax(self, name: str, axis: int | None, x: Wire) -> Wire:
        last = len(x.T.shape) - 1
        self._require(axis in (-1, last), name, f"Softmax over axis {axis}")
        return self._at(layers.softmax, x)

    def _pool(self, layer: Callable[..., OpenHypergraph], x: Wire, size: Any, stride: Any, padding: Any) -> Wire:
        A, image = x.cut(len(x.T.shape) - 3)
        return apply1(layer(A, image, size, stride, padding), x)

    def _flatten(self, x: Wire, start: int, end: int) -> Wire:
        shape = x.T.shape
        first, last = start % len(shape), end % len(shape)
        return x.reshape((*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))

    # --- functions and methods ----------------------------------------------------------------------------------

    def _function(self, node: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        first = arguments[0] if arguments else None
        options = {key: value for key, value in keywords.items() if key not in USUAL or value not in USUAL[key]}
        if not isinstance(first, Wire):
            raise self._unsupported(node.name, name)
        match name, arguments[1:], options:
            case "relu" | "relu_", [] | [_], {}:
                return self._at(layers.relu, first)
            case "leaky_relu", [], {"negative_slope": slope}:
                return self._at(layers.leaky_relu(slope), first)
            case "leaky_relu", [slope, *_], {}:
                return self._at(layers.leaky_relu(slope), first)
            case "sigmoid", [], {}:
                return self._at(layers.sigmoid, first)
            case "tanh", [], {}:
                return self._at(layers.tanh, first)
            case "softmax", [], {"dim": axis}:
                return self._softmax(node.name, axis, first)
            case "softmax", [axis, *_], {}:
                return self._softmax(node.name, axis, first)
            case "flatten", [*ends], _ if len(ends) <= 2:
                return self._flatten(first, *self._ends(ends, options))
            case "add" | "iadd", [Wire() as other], {} if other.T == first.T:
                return first + other
            case "dropout", _, _:
                return first
            case (("max_pool2d" | "avg_pool2d"), sizes, _) if set(options) <= {"kernel_size", "stride", "padding"}:
                given = dict(zip(("kernel_size", "stride", "padding"), sizes, strict=False)) | options
                layer = layers.max_pool2d if name == "max_pool2d" else layers.average_pool2d
                if len(sizes) <= 3:
                    stride = given.get("stride")
                    return self._pool(layer, first, given["kernel_size"], stride or None, given.get("padding", 0))
            case (("view" | "reshape"), sizes, {}):
                sizes = list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple) else list(sizes)
                if all(isinstance(size, int) for size in sizes):
                    known = math.prod(size for size in sizes if size != -1)
                    return first.reshape([first.T.size // known if size == -1 else size for size in sizes])
            case "size", [axis], {} if isinstance(axis, int):
                return first.T.shape[axis]
        raise self._unsupported(node.name, name)

    @staticmethod
    def _ends(ends: list[int], options: dict[str, int]) -> tuple[int, int]:
        start, end = (*ends, *(0, -1)[len(ends) :])
        return options.get("start_dim", start), options.get("end_dim", end)

    # --- errors -------------------------------------------------------------------------------------------------

    def _require(self, condition: bool, name: str, found: str) -> None:
        if not condition:
            raise self._unsupported(name, found)

    def _unsupported(self, name: str, found: str) -> UnsupportedError:
        return UnsupportedError(
            f"from_torch: expected layers that are spoken (see help of from_torch), found {found} at {name}; replace it"
        )
