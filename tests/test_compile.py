"""Models compiled to Python: catgrad's code, its numbers, and an independent autodiff."""

from __future__ import annotations

import ast
import cProfile
import json
import os
import subprocess
import sys
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from every_operation import concrete_operations, is_core

from catgrad_hw import *  # noqa: F403 -- what a newcomer writes
from catgrad_hw import Dtype, NdArrayType, Numpy, compile_model, identity, layers, obj, rdiff
from catgrad_hw.compile import factor_parameters, learner
from catgrad_hw.errors import IllTypedError, UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir import windows
from catgrad_hw.ir.combinators import Canonical
from catgrad_hw.ir.graph import Builder, Input
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import evaluate
from catgrad_hw.ir.types import Object
from catgrad_hw.targets.backend import ArrayBackend
from catgrad_hw.targets.python import SPELLING, python_class
from catgrad_hw.workloads import load_iris

Floats = npt.NDArray[np.float32]
ROOT = Path(__file__).parents[1]
BATCH, INPUT, HIDDEN, OUTPUT = (NdArrayType((n,), Dtype.float32) for n in (150, 4, 20, 3))
MODELS: dict[str, tuple[OpenHypergraph, float]] = {
    "linear": (layers.linear(BATCH, INPUT, OUTPUT), 1e-4),
    "simple": (layers.linear(BATCH, INPUT, OUTPUT) >> layers.sigmoid(obj(BATCH + OUTPUT)), 1e-2),
    "dense": (layers.dense(BATCH, INPUT, OUTPUT), 1e-2),
    "hidden": (layers.dense(BATCH, INPUT, HIDDEN) >> layers.dense(BATCH, HIDDEN, OUTPUT), 1e-2),
}


def initial(types: Object, seed: int = 0) -> list[Floats]:
    random = np.random.default_rng(seed)
    return [random.normal(0, 0.01, T.shape).astype(np.float32) for T in types]


def relative(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Largest difference over largest magnitude."""
    a, b = np.asarray(found, float), np.asarray(expected, float)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


@pytest.mark.parametrize("name", ["linear", "simple", "simple-fast"])
def test_numbers_of_catgrad(name: str) -> None:
    record = json.loads((ROOT / "tests" / "data" / "catgrad.json").read_text())[name]
    model, _ = MODELS[name.removesuffix("-fast")]
    CompiledModel, P, _ = compile_model(model, layers.sgd(record["learning_rate"]), layers.mse)
    assert [list(T.shape) for T in P] == record["shapes"]
    compiled = CompiledModel(Numpy)
    x, y = load_iris()
    steps = [[np.array(a, np.float32) for a in p] for p in record["parameters"]]
    assert len(steps) == 26
    for found, expected in zip(compiled.rev_p(*steps[0], x, y), record["gradients"], strict=True):
        assert relative(found, expected) < 1e-5
    p = steps[0]
    for before, after in pairwise(steps):
        # At the rate of catgrad's example, training is chaotic: a last bit grows tenfold every two steps, in either
        # program. There each step starts from catgrad's own parameters.
        p = compiled.step(*(before if name == "simple-fast" else p), x, y)
        for found, expected in zip(p, after, strict=True):
            assert relative(found, expected) < 1e-5
    [predictions] = compiled.predict(*steps[-1], x)
    assert relative(predictions, record["predictions"]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_step_agrees_with_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: no independent autodiff to compare with")
    model, rate = MODELS[name]
    x, y = load_iris()
    compiled = learner(model, layers.sgd(rate), layers.mse)
    p = [a.astype(np.float64) for a in initial(compiled.parameter_types)]
    q = [torch.tensor(a, requires_grad=True) for a in p]
    activations = torch.tensor(x, dtype=torch.float64)
    if name in ("linear", "simple"):
        activations = activations @ q[0]
        activations = torch.sigmoid(activations) if name == "simple" else activations
    else:
        for weight, bias in zip(q[::2], q[1::2], strict=True):
            activations = torch.sigmoid(activations @ weight + bias)
    loss = 0.5 * ((activations - torch.tensor(y, dtype=torch.float64)) ** 2).sum()
    loss.backward()
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    [predicted] = evaluate(compiled.predict, *p, x64)
    np.testing.assert_allclose(predicted, activations.detach().numpy(), rtol=1e-12)
    error = predicted - y64
    single = compile_model(model, layers.sgd(rate), layers.mse)[0](Numpy)
    p32 = [a.astype(np.float32) for a in p]
    for found, in_single, a in zip(
        evaluate(compiled.rev_p, *p, x64, error), single.rev_p(*p32, x, error.astype(np.float32)), q, strict=True
    ):
        assert relative(found, a.grad.numpy()) < 1e-12
        assert relative(in_single, a.grad.numpy()) < 2e-6  # float32, sums of 150 terms
    steps = zip(evaluate(compiled.step, *p, x64, y64), single.step(*p32, x, y), q, strict=True)
    for found, in_single, a in steps:
        expected = a.detach().numpy() - rate * a.grad.numpy()
        assert relative(found, expected) < 1e-7  # the learning rate is a float32
        assert relative(in_single, expected) < 1e-6


def test_shapes_and_order_of_parameters() -> None:
    _, P, _ = compile_model(MODELS["hidden"][0], layers.sgd(1e-2), layers.mse)
    assert [T.shape for T in P] == [(4, 20), (20,), (20, 3), (3,)]
    assert sum(T.size for T in P) == 163
    per_sample = layers.linear(BATCH, INPUT, OUTPUT) >> layers.bias(BATCH + OUTPUT)
    assert [T.shape for T in compile_model(per_sample, layers.sgd(1e-2), layers.mse)[1]] == [(4, 3), (150, 3)]


@pytest.mark.parametrize("name", MODELS)
def test_methods_agree_with_the_diagrams(name: str) -> None:
    model, rate = MODELS[name]
    compiled = learner(model, layers.sgd(rate), layers.mse)
    P, X, Y = compiled.parameter_types, compiled.input_types, compiled.output_types
    types = {"predict": (P + X, Y), "step": (P + X + Y, P), "rev": (P + X + Y, P + X), "rev_p": (P + X + Y, P)}
    methods = compile_model(model, layers.sgd(rate), layers.mse)[0](Numpy)
    p = initial(P)
    x, y = load_iris()
    for method, (source, target) in types.items():
        f: OpenHypergraph = getattr(compiled, method)
        assert (f.source, f.target) == (source, target)
        arguments = [*p, x, y][: len(source)]
        found = getattr(methods, method)(*arguments)
        assert [(a.shape, a.dtype) for a in found] == [(T.shape, np.float32) for T in target]
        for a, b in zip(found, evaluate(f, *(a.astype(np.float64) for a in arguments)), strict=True):
            assert relative(a, b) < 1e-5


def test_source_is_a_syntax_tree_that_defines_the_class() -> None:
    CompiledModel, _, source = compile_model(MODELS["linear"][0], layers.sgd(1e-4), layers.mse)
    assert isinstance(source, ast.Module)
    namespace: dict[str, Any] = {}
    exec(ast.unparse(source), namespace)
    x, y = load_iris()
    p = initial(obj(INPUT + OUTPUT))
    for method in ("step", "rev", "rev_p"):
        [a, b] = (getattr(c(Numpy), method)(*p, x, y)[0] for c in (CompiledModel, namespace["CompiledModel"]))
        np.testing.assert_array_equal(a, b)


def test_source_does_no_dead_work() -> None:
    """The step of one layer needs two products: forward, and the gradient of the weights."""
    text = ast.unparse(compile_model(MODELS["dense"][0], layers.sgd(1e-2), layers.mse)[2])
    step = text[text.index("def step") : text.index("def rev")]
    assert step.count("@") == 2
    assert step.count("sigmoid(") == step.count("sigmoid_derivative(") == 1


def test_source_does_not_depend_on_hash_seeds() -> None:
    program = (
        "import ast\n"
        "from catgrad_hw import *\n"
        "B, I, O = (NdArrayType((n,), Dtype.float32) for n in (5, 4, 3))\n"
        "model = layers.dense(B, I, O) >> layers.dense(B, O, I)\n"
        "print(ast.unparse(compile_model(model, layers.sgd(0.1), layers.mse)[2]))\n"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert "def step(self, p0, p1, p2, p3, x, y):" in texts[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: x.astype(np.float64), r"predict: argument x must be float32\[150, 4\].*\.astype\(np\.float32\)"),
        (lambda x: x[:1], r"predict: argument x must be float32\[150, 4\], found shape \[1, 4\]"),
        (lambda x: x.tolist(), "must be an array.*found list"),
        (lambda x: x.astype(np.int32), "found dtype int32"),
    ],
)
def test_wrong_arguments_are_refused(change: Any, text: str) -> None:
    CompiledModel, P, _ = compile_model(MODELS["dense"][0], layers.sgd(1e-2), layers.mse)
    x, _ = load_iris()
    with pytest.raises(IllTypedError, match=text):
        CompiledModel(Numpy).predict(*initial(P), change(x))


def test_several_inputs_and_outputs() -> None:
    batch, wide, narrow = (NdArrayType((n,), Dtype.float32) for n in (5, 4, 3))
    model = layers.linear(batch, wide, narrow) @ layers.dense(batch, narrow, wide)
    CompiledModel, P, source = compile_model(model, layers.sgd(0.5), layers.mse)
    assert "def step(self, p0, p1, p2, x0, x1, y0, y1):" in ast.unparse(source)
    random = np.random.default_rng(0)
    p = initial(P)
    xs = [random.normal(size=T.shape).astype(np.float32) for T in model.source]
    ys = CompiledModel(Numpy).predict(*p, *xs)
    assert [a.shape for a in ys] == [(5, 3), (5, 4)]
    for before, after in zip(p, CompiledModel(Numpy).step(*p, *xs, *ys), strict=True):
        np.testing.assert_array_equal(before, after)  # no error, no update


def test_factoring_keeps_the_order_of_parameters() -> None:
    P, f = factor_parameters(layers.bias(OUTPUT) >> layers.bias(OUTPUT) @ layers.parameter(obj(INPUT)))
    assert list(P) == [OUTPUT, OUTPUT, INPUT]
    assert (f.source, f.target) == (P + obj(OUTPUT), obj(OUTPUT, INPUT))
    a, b, c, x = np.array([1.0, 2, 3]), np.array([10.0, 20, 30]), np.arange(4.0), np.array([100.0, 200, 300])
    total, passed = evaluate(f, a, b, c, x)
    np.testing.assert_array_equal(total, a + b + x)
    np.testing.assert_array_equal(passed, c)


def test_rdiff_of_relu() -> None:
    f = layers.relu(obj(OUTPUT))
    x, d = np.array([-1.0, 2.0, 3.0]), np.array([5.0, 6.0, 7.0])
    assert rdiff(f).source == obj(OUTPUT, OUTPUT)
    np.testing.assert_array_equal(evaluate(rdiff(f), x, d)[0], [0, 6, 7])
    np.testing.assert_array_equal(evaluate(rdiff(identity(obj(OUTPUT))), x, d)[0], d)


def test_errors_of_models() -> None:
    with pytest.raises(IllTypedError, match="linear: dtypes must be equal"):
        layers.linear(BATCH, INPUT, NdArrayType((3,), Dtype.int32))
    with pytest.raises(IllTypedError, match="must be an open hypergraph, found function"):
        compile_model(layers.linear, layers.sgd(1), layers.mse)  # type: ignore[arg-type]
    model, _ = MODELS["linear"]
    with pytest.raises(IllTypedError, match=r"the optimizer must give .* found Optimizer; write layers.sgd"):
        compile_model(model, layers.sgd, layers.mse)  # type: ignore[arg-type]
    with pytest.raises(IllTypedError, match=r"the loss must give a diagram float32\[150, 3\]"):
        compile_model(model, layers.sgd(1), layers.copy)
    with pytest.raises(IllTypedError, match=r"position 0 .*\[150, 20\], found float32\[150, 3\]"):
        layers.dense(BATCH, INPUT, OUTPUT) >> layers.dense(BATCH, HIDDEN, OUTPUT)


def test_constants_from_numpy_are_numbers_in_the_source() -> None:
    f = layers.scale(np.float64(0.5))(obj(OUTPUT)) >> layers.increment(np.float64(2))(obj(OUTPUT))
    CompiledModel, _, source = compile_model(f, layers.sgd(1), layers.mse)
    assert "np." not in ast.unparse(source)
    [y] = CompiledModel(Numpy).predict(np.array([1, 2, 3], np.float32))
    np.testing.assert_array_equal(y, [2.5, 3, 3.5])


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


def spelled() -> list[ops.Operation]:
    T = F(2, 3)
    binary = [o(T) for o in (ops.Add, ops.Subtract, ops.Multiply, ops.Divide, ops.Power, ops.Gt, ops.Select)]
    functions = (ops.Log, ops.Exp, ops.Sqrt, ops.Sigmoid, ops.SigmoidDerivative, ops.Tanh, ops.TanhDerivative)
    unary = [o(T) for o in (ops.Negate, *functions, ops.Copy, ops.Discard)]
    return [
        *binary,
        *unary,
        *(ops.Invert(NdArrayType((2, 3), dtype)) for dtype in (Dtype.int32, Dtype.bool)),
        windows.Pad(T, (1, 0), (0, 2), (1, 2), 0.5),
        windows.Crop(F(2, 2), (0, 1), (2, 0), (1, 2)),
        windows.Windows(F(5, 2), 0, 2, 2, 1),
        windows.Fold(F(2, 5), 1, 2, 1, 2),
        windows.Flip(T, 1),
        ops.Constant(F(2), 0.5),
        ops.Constant(F(2), 3),
        ops.NCopy(F(2), F(3, 4)),
        ops.NAdd(F(2), F(3, 4)),
        ops.NMax(F(2), F(3, 4)),
        ops.FirstMaximum(F(2), F(3, 4)),
        ops.NSplit(F(2), 3),
        ops.NSplit(F(2), 1),
        ops.NConcatenate(F(2), 3),
        ops.Reshape(F(2, 3), F(6)),
        ops.Permute(F(2, 3), (1, 0)),
        ops.Compose(F(2), F(3), F(4)),
        ops.Compose(F(2, 2), F(3, 2), F(4)),
        ops.MatrixMultiply(F(2), F(3), F(4), F(2)),
    ]


@pytest.mark.parametrize("operation", spelled(), ids=repr)
def test_the_spelling_of_each_operation_means_the_same(operation: ops.Operation) -> None:
    inputs = [Input(f"x{i}", "input", T) for i, T in enumerate(operation.source())]
    builder = Builder(inputs)
    graph = builder.build({"f": builder.add(operation, range(len(inputs)))})
    namespace: dict[str, Any] = {}
    exec(ast.unparse(python_class("C", graph, {"f": [i.name for i in inputs]})), namespace)
    random = np.random.default_rng(0)
    x = [random.uniform(0.5, 2, T.shape).astype(T.dtype.value) for T in operation.source()]
    found, expected = namespace["C"](Numpy).f(*x), operation.numpy(*x)
    assert len(found) == len(expected)
    for a, b, T in zip(found, expected, operation.target(), strict=True):
        assert a.dtype == T.dtype.value
        if isinstance(operation, ops.Sigmoid | ops.SigmoidDerivative):  # in catgrad's formula
            np.testing.assert_allclose(a, b, rtol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)


def test_every_core_operation_is_spelled_or_refused() -> None:
    assert set(SPELLING) == {type(o) for o in spelled()} == {o for o in concrete_operations() if is_core(o)}
    builder = Builder([])
    graph = builder.build({"f": builder.add(ops.Parameter(F(2)))})
    with pytest.raises(UnsupportedError, match="that the Python target spells"):
        python_class("C", graph, {"f": []})


README = """
from catgrad_hw import *
import ast, numpy as np

BATCH_TYPE = NdArrayType((2,), Dtype.float32)
INPUT_TYPE = NdArrayType((3,), Dtype.float32)
OUTPUT_TYPE = NdArrayType((1,), Dtype.float32)
learning_rate = 0.1
model = layers.linear(BATCH_TYPE, INPUT_TYPE, OUTPUT_TYPE)
CompiledModel, ParamType, source = compile_model(model, layers.sgd(learning_rate), layers.mse)
compiled = CompiledModel(Numpy)
x, y = np.identity(3, np.float32)[:2], np.ones((2, 1), np.float32)
p = [np.zeros(T.shape, np.float32) for T in ParamType]
for i in range(0, 100):
    p = compiled.step(*p, x, y)
[y_hat] = compiled.predict(*p, x)
gradients = compiled.rev(*p, x, y_hat - y)
[gradient] = compiled.rev_p(*p, x, y_hat - y)
"""


def test_the_code_of_catgrads_readme() -> None:
    namespace: dict[str, Any] = {}
    exec(README, namespace)
    np.testing.assert_allclose(namespace["p"][0], np.array([[1], [1], [0]]) * (1 - 0.9**100), rtol=1e-5)
    np.testing.assert_allclose(namespace["y_hat"], 1, atol=1e-4)
    assert [g.shape for g in namespace["gradients"]] == [(3, 1), (2, 3)]
    assert namespace["gradient"].shape == (3, 1)
    assert "Workload" in namespace


def test_public_names() -> None:
    import catgrad_hw

    assert set(catgrad_hw.__all__) <= set(globals()) | {"Workload"}
    assert {"Workload", "Numpy", "rdiff", "compile_model"} <= set(catgrad_hw.__all__)
    assert all(hasattr(layers, name) for name in layers.__all__)
    backend: type[ArrayBackend] = Numpy
    optimizer: Canonical = layers.sgd(1)
    assert backend.dtype(Dtype.float32) is np.float32
    assert optimizer(obj()).flat.edges == ()


def calls_of_compiling(depth: int) -> int:
    """How many functions are called while a stack of dense layers is built and compiled: a time without noise."""
    profile = cProfile.Profile()
    profile.enable()
    batch, width = (NdArrayType((n,), Dtype.float32) for n in (32, 8))
    model = reduce(lambda f, g: f >> g, [layers.dense(batch, width, width) for _ in range(depth)])
    compile_model(model, layers.sgd(0.01), layers.mse)
    profile.disable()
    return sum(entry.callcount for entry in profile.getstats())


def test_the_work_of_compiling_is_linear_in_the_depth() -> None:
    small, large = calls_of_compiling(32), calls_of_compiling(256)
    assert large < 8.2 * small
