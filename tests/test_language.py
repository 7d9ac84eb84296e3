"""Layers, losses, optimizers and dtypes: each against torch, finite differences, and every level below."""

from __future__ import annotations

import math
import shutil
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catgrad_hw import Dtype, NdArrayType, Numpy, compile_model, identity, layers, obj, op
from catgrad_hw.compile import Learner, learner
from catgrad_hw.errors import ModelError
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import ROLES, joint_graph
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.kernel_run import run
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.operations import evaluate
from catgrad_hw.ir.optics import rdiff
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import Object
from catgrad_hw.targets import c, c_fixed
from catgrad_hw.targets.build import build_c
from catgrad_hw.targets.numpy import emit

Arrays = list[NDArray[Any]]
SINGLE = {"rtol": 1e-6, "atol": 1e-8}  # constants are float32, whatever the arrays are


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


BATCH, IMAGE = F(2), F(2, 5, 6)
IMAGES = BATCH + IMAGE


def convolution(**options: Any) -> OpenHypergraph:
    return layers.conv2d(BATCH, IMAGE, 3, (3, 2), **options)


LAYERS: dict[str, OpenHypergraph] = {
    "linear": layers.linear(F(2), F(3), F(4)),
    "dense": layers.dense(F(2), F(3), F(4)),
    "bias": layers.bias(F(2, 3)),
    "sigmoid": layers.sigmoid(obj(F(2, 3))),
    "tanh": layers.tanh(obj(F(2, 3))),
    "relu": layers.relu(obj(F(2, 3))),
    "leaky_relu": layers.leaky_relu(0.1)(obj(F(2, 3))),
    "softmax": layers.softmax(obj(F(2, 3))),
    "conv2d": convolution(),
    "conv2d_strided": convolution(stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
    "conv2d_wide": layers.conv2d(BATCH, F(1, 3, 3), 2, 1, padding=2, stride=2, bias=False),
    "max_pool2d": layers.max_pool2d(BATCH, IMAGE, 2),
    "max_pool2d_overlapping": layers.max_pool2d(BATCH, IMAGE, 3, 2, 1),
    "average_pool2d": layers.average_pool2d(BATCH, IMAGE, (2, 3)),
    "average_pool2d_overlapping": layers.average_pool2d(BATCH, IMAGE, 2, 1, 1),
    "flatten": layers.flatten(IMAGES, F(2, 60)),
    "layer_norm": layers.layer_norm(F(2), F(5)),
    "residual": layers.residual(layers.dense(F(2), F(3), F(3), layers.tanh)),
    "deep": layers.conv2d(BATCH, IMAGE, 2, 2)
    >> layers.relu(obj(F(2, 2, 4, 5)))
    >> layers.max_pool2d(BATCH, F(2, 4, 5), 2)
    >> layers.flatten(F(2, 2, 2, 2), F(2, 8))
    >> layers.dense(F(2), F(8), F(3), layers.softmax),
}

OPTIMIZERS = {
    "sgd": layers.sgd(0.1),
    "sgd_rate": layers.sgd(None),
    "momentum": layers.momentum(0.1, 0.8),
    "momentum_rate": layers.momentum(None),
    "adam": layers.adam(0.01),
    "adam_rate": layers.adam(None, 0.8, 0.99),
}


def data(source: Object, seed: int = 0) -> Arrays:
    """Entries at least 0.03 apart over all arrays, so that maxima and steps are differentiable."""
    generator = np.random.default_rng(seed)
    entries = iter((generator.permutation(sum(T.size for T in source)) - sum(T.size for T in source) / 2 + 0.3) * 0.03)
    return [np.array([next(entries) for _ in range(T.size)]).reshape(T.shape) for T in source]


def parametrised(name: str) -> tuple[Learner, OpenHypergraph]:
    compiled = learner(LAYERS[name], layers.sgd(0.1), layers.mse)
    return compiled, compiled.predict


def gradient_by_differences(f: Callable[[Arrays], float], x: Arrays, step: float = 1e-5) -> Arrays:
    result = [np.zeros_like(a) for a in x]
    for a, gradient in zip(x, result, strict=True):
        for index in np.ndindex(a.shape):
            middle = a[index]
            a[index] = middle + step
            above = f(x)
            a[index] = middle - step
            gradient[index] = (above - f(x)) / (2 * step)
            a[index] = middle
    return result


@pytest.mark.parametrize("name", LAYERS)
def test_layers_against_finite_differences(name: str) -> None:
    compiled, f = parametrised(name)
    x = data(f.source)
    d = [np.cos(np.arange(T.size)).reshape(T.shape) for T in f.target]
    found = evaluate(compiled.rev, *x, *d)
    expected = gradient_by_differences(
        lambda x: sum(float(np.sum(a * b)) for a, b in zip(d, evaluate(f, *x), strict=True)), x
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def torch_layers(torch: Any) -> dict[str, Callable[..., Any]]:
    nn = torch.nn.functional
    return {
        "linear": lambda w, x: x @ w,
        "dense": lambda w, b, x: torch.sigmoid(x @ w + b),
        "bias": lambda b, x: x + b,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "leaky_relu": lambda x: nn.leaky_relu(x, 0.1),
        "softmax": lambda x: nn.softmax(x, -1),
        "conv2d": lambda w, b, x: nn.conv2d(x, w, b),
        "conv2d_strided": lambda w, b, x: nn.conv2d(x, w, b, (2, 1), (1, 2), (1, 2)),
        "conv2d_wide": lambda w, x: nn.conv2d(x, w, None, 2, 2),
        "max_pool2d": lambda x: nn.max_pool2d(x, 2),
        "max_pool2d_overlapping": lambda x: nn.max_pool2d(x, 3, 2, 1),
        "average_pool2d": lambda x: nn.avg_pool2d(x, (2, 3)),
        "average_pool2d_overlapping": lambda x: nn.avg_pool2d(x, 2, 1, 1),
        "flatten": lambda x: x.flatten(1),
        "layer_norm": lambda g, b, x: nn.layer_norm(x, (5,), g, b),
        "residual": lambda w, b, x: x + torch.tanh(x @ w + b),
        "deep": lambda k, c, w, b, x: nn.softmax(
            nn.max_pool2d(torch.relu(nn.conv2d(x, k, c)), 2).flatten(1) @ w + b, -1
        ),
    }


@pytest.mark.parametrize("name", LAYERS)
def test_layers_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: no independent autodiff to compare with")
    compiled, f = parametrised(name)
    x = data(f.source)
    d = [np.cos(np.arange(T.size)).reshape(T.shape) for T in f.target]
    tensors = [torch.tensor(a, requires_grad=True) for a in x]
    y = torch_layers(torch)[name](*tensors)
    y.backward(torch.tensor(d[0]))
    (found,) = evaluate(f, *x)
    np.testing.assert_allclose(found, y.detach().numpy(), **SINGLE)
    for a, b in zip(evaluate(compiled.rev, *x, *d), tensors, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), **SINGLE)


# --- every level says the same ----------------------------------------------------------------------------------


def graph_data(graph: Graph) -> dict[str, NDArray[Any]]:
    result = {}
    for i, array in zip(graph.inputs, data(obj(*(i.type for i in graph.inputs))), strict=True):
        if i.name.startswith("m"):
            array = np.abs(array)  # second moments and corrections are positive
        result[i.name] = array if i.type.dtype.is_floating() else np.round(array * 40).astype(i.type.dtype.value)
    return result


STRICT = ("-O1", "-Wall", "-Wextra", "-Werror", "-pedantic")


def agree(net: Learner, tolerance: float = 1e-3) -> None:
    """The graph and its kernels in float64, the standalone NumPy module and the C code in float32."""
    graph = simplify(joint_graph(net))
    program = lower(graph)
    arrays = graph_data(graph)
    typed = {i.name: arrays[i.name].astype(i.type.dtype.value) for i in graph.inputs}
    (text,) = emit(net, "net").values()
    module = types.ModuleType("net")
    exec(compile(text, "net", "exec"), module.__dict__)
    raw = joint_graph(net)
    compiled = build_c(net, STRICT) if shutil.which("cc") else None
    for group in ("predict", "step"):
        names = [i.name for role in ROLES[group] for i in graph.inputs if i.role == role]
        expected = tensor_graph.run(graph, group, arrays)
        for a, b in zip(expected, tensor_graph.run(raw, group, arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        by_kernels = run(program, group, {name: arrays[name] for name in names})
        stored = program.outputs if group == "predict" else program.parameters
        by_module = getattr(module, group)(*(typed[name] for name in names))
        by_c = getattr(compiled, group)(*(typed[name] for name in names)) if compiled else by_module
        for name, a, b, compiled_b in zip(stored, expected, by_module, by_c, strict=True):
            assert compiled_b.dtype == b.dtype
            assert b.dtype == program.arrays[name].dtype.value
            assert b.shape == a.shape
            np.testing.assert_allclose(by_kernels[name], a, rtol=1e-9, atol=1e-9, err_msg=f"{group}: {name}")
            if a.dtype == np.float64:
                for found in (b, compiled_b):
                    np.testing.assert_allclose(found, a, rtol=tolerance, atol=tolerance * (1e-3 + np.abs(a).max()))
            else:
                np.testing.assert_array_equal(b, a)
                np.testing.assert_array_equal(compiled_b, a)


@pytest.mark.parametrize("name", LAYERS)
def test_levels_of_layers_agree(name: str) -> None:
    agree(learner(LAYERS[name], layers.sgd(0.1), layers.mse))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_levels_of_optimizers_agree(name: str) -> None:
    agree(learner(layers.dense(F(2), F(3), F(4), layers.tanh), OPTIMIZERS[name], layers.cross_entropy))


# --- losses -----------------------------------------------------------------------------------------------------

LOSSES = {
    "mse": layers.mse,
    "mean_squared_error": layers.mean_squared_error,
    "cross_entropy": layers.cross_entropy,
    "huber": layers.huber(0.2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    T = F(3, 4)
    random = np.random.default_rng(0)
    predicted, y = random.normal(size=(3, 4)), random.uniform(size=(3, 4))
    y /= y.sum(axis=1, keepdims=True)
    (edge,) = LOSSES[name](obj(T)).flat.edges
    loss: Any = edge.operation
    (gradient,) = evaluate(loss.rev(), predicted, y)
    (expected,) = gradient_by_differences(lambda x: float(evaluate(loss.value(), x[0], y)[0]), [predicted])
    np.testing.assert_allclose(gradient, expected, **SINGLE)
    (by_rdiff, _) = evaluate(rdiff(loss.value()), predicted, y, np.ones(()))
    np.testing.assert_allclose(gradient, by_rdiff, **SINGLE)
    agree(learner(layers.linear(F(3), F(2), F(4)), layers.sgd(0.1), LOSSES[name]))
    torch = pytest.importorskip("torch", reason="torch is not installed: no independent autodiff to compare with")
    nn = torch.nn.functional
    reference = {
        "mse": lambda a, b: 0.5 * ((a - b) ** 2).sum(),
        "mean_squared_error": nn.mse_loss,
        "cross_entropy": nn.cross_entropy,
        "huber": lambda a, b: nn.huber_loss(a, b, delta=0.2),
    }[name]
    tensor = torch.tensor(predicted, requires_grad=True)
    value = reference(tensor, torch.tensor(y))
    value.backward()
    np.testing.assert_allclose(evaluate(loss.value(), predicted, y)[0], value.item(), **SINGLE)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), **SINGLE)


# --- optimizers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: no independent autodiff to compare with")
    model = layers.dense(F(5), F(3), F(4), layers.tanh) >> layers.dense(F(5), F(4), F(2), layers.sigmoid)
    net = learner(model, OPTIMIZERS[name], layers.mse)
    random = np.random.default_rng(0)
    p = [random.normal(size=T.shape) for T in net.parameter_types]
    s = [np.zeros(T.shape) for T in net.state_types]
    x, y = random.normal(size=(5, 3)), random.uniform(size=(5, 2))
    q = [torch.tensor(a, requires_grad=True) for a in p]
    at_run_time = name.endswith("_rate")
    chosen = {
        "sgd": lambda rate: torch.optim.SGD(q, rate or 0.1),
        "momentum": lambda rate: torch.optim.SGD(q, rate or 0.1, momentum=0.9 if rate else 0.8),
        "adam": lambda rate: torch.optim.Adam(q, rate or 0.01, betas=(0.8, 0.99) if rate else (0.9, 0.999)),
    }[name.removesuffix("_rate")](0.05 if at_run_time else None)
    for step in range(20):
        rate = 0.05 / (1 + step)
        if at_run_time:
            chosen.param_groups[0]["lr"] = rate
        new = evaluate(net.step, *p, *s, x, y, *([np.array(rate)] if at_run_time else []))
        p, s = list(new[: len(p)]), list(new[len(p) :])
        chosen.zero_grad()
        hidden = torch.tanh(torch.tensor(x) @ q[0] + q[1])
        (0.5 * (torch.sigmoid(hidden @ q[2] + q[3]) - torch.tensor(y)).square().sum()).backward()
        chosen.step()
        for a, b in zip(p, q, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-5, atol=1e-7)


def test_a_stateful_optimizer_trains() -> None:
    model = layers.dense(F(8), F(3), F(6), layers.tanh) >> layers.linear(F(8), F(6), F(2))
    CompiledModel, P, _ = compile_model(model, layers.adam(0.02), layers.mean_squared_error)
    compiled = CompiledModel(Numpy)
    random = np.random.default_rng(0)
    p = [random.normal(0, 0.5, T.shape).astype(np.float32) for T in P]
    s = [np.zeros(T.shape, np.float32) for T in CompiledModel.StateType]
    x = random.normal(size=(8, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], np.abs(x[:, 2])], axis=1)
    for _ in range(400):
        new = compiled.step(*p, *s, x, y)
        p, s = new[: len(p)], new[len(p) :]
    assert np.mean((compiled.predict(*p, x)[0] - y) ** 2) < 1e-3


def test_a_rate_at_run_time_needs_no_recompilation() -> None:
    CompiledModel, P, _ = compile_model(layers.linear(F(4), F(3), F(2)), layers.sgd(None), layers.mse)
    compiled = CompiledModel(Numpy)
    p = [np.ones(T.shape, np.float32) for T in P]
    x, y = np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32)
    for rate in (0.5, 0.25):
        (new,) = compiled.step(*p, x, y, np.array(rate, np.float32))
        np.testing.assert_array_equal(new, 1 - rate * 12)


# --- dtypes -----------------------------------------------------------------------------------------------------


def I(*shape: int) -> NdArrayType:  # noqa: E743
    return NdArrayType(shape, Dtype.int32)


def B(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.bool)


def test_fixed_point_c_of_integers_is_c() -> None:
    net = learner(layers.linear(I(2), I(3), I(4)), layers.sgd(1), layers.mse)
    assert c_fixed.emit(net, "net") == c.emit(net, "net")
    assert "float" not in "".join(c_fixed.emit(net, "net").values())
    with pytest.raises(ModelError, match="c-fixed: expected a Workload"):
        c_fixed.emit(learner(layers.linear(F(2), F(3), F(4)), layers.sgd(1), layers.mse), "net")


@pytest.mark.parametrize("dtype", [Dtype.int32, Dtype.bool])
def test_models_of_other_dtypes(dtype: Dtype) -> None:
    T, N = NdArrayType((3, 4), dtype), NdArrayType((3,), dtype)
    one = NdArrayType((4,), dtype)
    model = (
        layers.linear(N, one, one)
        >> layers.shared_bias(N, one)
        >> layers.invert(obj(T))
        >> ops.increment(1)(obj(T))
        >> layers.residual(ops.copy(obj(T)) >> ops.gt(obj(T)))
        >> ops.copy(obj(T))
        >> (identity(obj(T)) @ (op(ops.NMax(N, one)) >> op(ops.NCopy(N, one))))
        >> ops.multiply(obj(T))
    )
    agree(learner(model, layers.sgd(1), layers.mse))
    image = NdArrayType((1, 4, 5), dtype)
    agree(learner(layers.conv2d(N, image, 2, 2, (1, 2), 1), layers.sgd(1), layers.mse))
    agree(learner(layers.max_pool2d(N, image, 2, 1), layers.sgd(1), layers.mse))


def test_int32_wraps_in_silence() -> None:
    for shape in ((), (2,)):
        T = I(*shape)
        big = np.full(shape, 2**31 - 1, np.int32)
        model = ops.increment(1)(obj(T)) >> ops.scale(3)(obj(T)) >> ops.negate(obj(T)) >> layers.bias(T)
        CompiledModel, _, _ = compile_model(model, layers.sgd(1), layers.mse)
        (text,) = emit(learner(model, layers.sgd(1), layers.mse), "net").values()
        module = types.ModuleType("net")
        exec(compile(text, "net", "exec"), module.__dict__)
        for found in (*CompiledModel(Numpy).predict(big, big), *module.predict(big, big)):
            assert np.asarray(found).dtype == np.int32
            np.testing.assert_array_equal(found, 2**31 + 2**31 - 1 - 2**32)  # −3·(−2³¹) + 2³¹ − 1, mod 2³²


def test_meanings_on_int32_and_bool() -> None:
    x, y = np.array([7, -7, 5, -(2**31)], np.int32), np.array([2, 2, 0, -1], np.int32)
    np.testing.assert_array_equal(ops.Divide(I(4)).numpy(x, y)[0], [3, -4, 0, -(2**31)])
    np.testing.assert_array_equal(ops.Power(I(2)).numpy(np.int32([3, 2]), np.int32([4, 33]))[0], [81, 0])
    with pytest.raises(ops.UnsupportedError, match=r"exponents on int32 must be >= 0, found -1"):
        ops.Power(I(4)).numpy(x, y)
    p, q = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    tables = {ops.Add: "0110", ops.Subtract: "0110", ops.Multiply: "0001", ops.Gt: "0010", ops.Power: "1011"}
    for operation, table in tables.items():
        (found,) = operation(B(4)).numpy(p, q)
        assert "".join(str(int(v)) for v in found) == table
    (parity,) = ops.NAdd(B(), B(4)).numpy(np.array([1, 1, 1, 0], bool))
    assert parity.dtype == np.bool_
    assert parity


BOOLEAN: dict[str, OpenHypergraph] = {
    "gt": op(ops.Gt(B(2))),
    "select": op(ops.Select(B(2))),
    "nmax": op(ops.NMax(B(2), B(3))),
    "power": op(ops.Power(B(2))),
    "invert": op(ops.Invert(B(2))),
    "compose": op(ops.Compose(B(2), B(2), B(2))),
}


@pytest.mark.parametrize("name", BOOLEAN)
def test_derivatives_in_z2_are_boolean_differences(name: str) -> None:
    """∂f/∂xᵢ = f(x) + f(x + eᵢ), for maps that are linear in each variable (arXiv 2101.10488)."""
    f = BOOLEAN[name]
    random = np.random.default_rng(0)
    for _ in range(30):
        x = [random.integers(0, 2, T.shape).astype(bool) for T in f.source]
        d = [random.integers(0, 2, T.shape).astype(bool) for T in f.target]
        found = evaluate(rdiff(f), *x, *d)
        before = evaluate(f, *x)
        for a, gradient in zip(x, found, strict=True):
            for index in np.ndindex(a.shape):
                a[index] ^= True
                after = evaluate(f, *x)
                a[index] ^= True
                change = sum(int(np.sum(e & (b ^ c))) for b, c, e in zip(before, after, d, strict=True))
                assert gradient[index] == change % 2


def test_circuits_over_z2_learn() -> None:
    """Reverse Derivative Ascent: a linear map over Z_2 is learned from its own samples, one at a time."""
    model = layers.linear(B(1), B(4), B(1))
    CompiledModel, P, _ = compile_model(model, layers.sgd(1), layers.mse)
    compiled = CompiledModel(Numpy)
    p = [np.zeros(T.shape, bool) for T in P]
    wanted = np.array([[1], [0], [1], [1]], bool)
    for k in range(4):
        x = np.eye(4, dtype=bool)[k : k + 1]
        p = compiled.step(*p, x, wanted[k : k + 1])
    np.testing.assert_array_equal(p[0], wanted)


def test_the_first_maximum_takes_the_cotangent_on_int32() -> None:
    f = op(ops.NMax(I(2), I(3)))
    x = np.array([[1, 5, 5], [-2, -3, -2]], np.int32)
    (gradient,) = evaluate(rdiff(f), x, np.array([6, 8], np.int32))
    np.testing.assert_array_equal(gradient, [[0, 6, 0], [8, 0, 0]])


def test_a_sigmoid_that_is_written_out_is_recognised() -> None:
    T = F(2, 3)
    X = obj(T)
    one = ops.constant(1)(X)
    exponential = (op(ops.Constant(T, math.e)) @ identity(X)) >> op(ops.Power(T))
    for power in (exponential, op(ops.Exp(T))):
        for denominator in ((one @ (ops.negate(X) >> power)), ((ops.negate(X) >> power) @ one)):
            sigmoid = (one @ (denominator >> ops.add(X))) >> ops.divide(X)
            net = learner(layers.linear(F(2), F(4), F(3)) >> sigmoid, layers.sgd(0.1), layers.mse)
            used = {type(node.operation) for node in simplify(joint_graph(net)).needed(["predict"])}
            assert used == {ops.Compose, ops.Sigmoid}
            agree(net)
            exact = simplify(joint_graph(net), keep_rounding=True)
            assert ops.Sigmoid not in {type(node.operation) for node in exact.nodes}
