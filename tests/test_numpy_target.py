"""The standalone NumPy module, and the report for ``catgrad-hw inspect``."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest
from every_operation import concrete_operations, is_core
from hypothesis import given, settings
from random_models import array, dense_net, learners, random_arrays

from catgrad_hw import Numpy, compile_model, layers, obj, op
from catgrad_hw.compile import Learner, learner
from catgrad_hw.errors import ModelError
from catgrad_hw.inspect import report
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.passes import simplify
from catgrad_hw.targets.numpy import SPELLINGS, emit
from catgrad_hw.workload import load_workload


def load(files: dict[str, str]) -> Any:
    ((name, text),) = files.items()
    module = types.ModuleType(name.removesuffix(".py"))
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def source(net: Learner) -> str:
    (text,) = emit(net, "net").values()
    return text


def body(text: str, function: str) -> list[str]:
    lines = text.split(f"def {function}(")[1].split("\n\n")[0].splitlines()[1:]
    return [line.strip() for line in lines if "_check" not in line]


def test_iris_hidden_reads_as_written_by_hand() -> None:
    assert body(source(dense_net(150, 4, 20, 3)), "step") == [
        "z2 = x @ p0 + p1",
        "a1, s1 = _sigmoid_and_derivative(z2)",
        "z4 = a1 @ p2 + p3",
        "yhat, s2 = _sigmoid_and_derivative(z4)",
        "e1 = yhat - y",
        "d1 = s2 * e1",
        "d2 = d1 @ p2.T",
        "d3 = s1 * d2",
        "g0 = x.T @ d3",
        "g1 = _ones_150 @ d3",
        "g2 = a1.T @ d1",
        "g3 = _ones_150 @ d1",
        "return [_descend(p0, 0.01, g0), _descend(p1, 0.01, g1), _descend(p2, 0.01, g2), _descend(p3, 0.01, g3)]",
    ]


@settings(max_examples=60, deadline=None)
@given(learners())
def test_modules_compute_what_the_graph_computes(net: Learner) -> None:
    graph = simplify(joint_graph(net))
    arrays = {name: values.astype(np.float32) for name, values in random_arrays(graph).items()}
    module = load(emit(net, "net"))
    parameters = [arrays[i.name] for i in graph.inputs if i.role == "parameter"]
    before = {name: values.copy() for name, values in arrays.items()}
    for group, last in (("predict", []), ("step", [arrays["y"]])):
        found = getattr(module, group)(*parameters, arrays["x"], *last)
        for a, b in zip(found, tensor_graph.run(graph, group, arrays), strict=True):
            assert a.dtype == np.float32
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * (1 + np.abs(b).max(initial=0)))
            assert not any(np.shares_memory(a, values) for values in arrays.values())
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("name", ["iris-linear", "iris-simple", "iris-dense", "iris-hidden"])
def test_modules_agree_with_the_compiled_model(name: str) -> None:
    workload = load_workload(name)
    compiled, _, _ = compile_model(workload.model, workload.optimizer, workload.loss)
    model, module = compiled(Numpy), load(emit(workload, name))
    x, y = workload.batch(0)
    p = list(workload.initial_parameters(0))
    for _ in range(25):  # from the same parameters each time: these rates amplify differences
        q, p = module.step(*p, x, y), model.step(*p, x, y)
        for a, b in zip(p, q, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict(*p, x)[0], module.predict(*p, x)[0], rtol=1e-5, atol=1e-6)


def test_sigmoid_is_right_in_both_tails_and_silent() -> None:
    T = array(4)
    module = load(emit(learner(layers.sigmoid(obj(T)), layers.sgd(0.1), layers.mse), "net"))
    (found,) = module.predict(np.array([-1000, -50, 0, 1000], np.float32))
    np.testing.assert_allclose(found, [0, np.exp(-50.0), 0.5, 1], rtol=1e-5, atol=1e-38)


def test_the_derivative_of_sigmoid_keeps_its_digits_in_both_tails() -> None:
    module = load(emit(dense_net(4, 1, 1, rate=1.0), "net"))
    z = np.array([-80, -20, 20, 80], np.float64)
    zero = np.zeros(1, np.float32)
    for value in z:
        x = np.full((4, 1), value, np.float32)
        (_, p1) = module.step(np.ones((1, 1), np.float32), zero, x, np.zeros((4, 1), np.float32))
        sigma, tail = 1 / (1 + np.exp(-value)), 1 / (1 + np.exp(value))
        np.testing.assert_allclose(-p1, 4 * sigma * sigma * tail, rtol=1e-5, atol=1e-37)


def test_scalars_keep_their_precision() -> None:
    T = array()
    model = ops.scale(0.3)(obj(T)) >> layers.sigmoid(obj(T)) >> layers.linear(array(), array(), array())
    module = load(emit(learner(model, layers.sgd(0.1), layers.mse), "net"))
    half = np.float32(0.5)
    (p,) = module.step(half, half, half)
    assert p.dtype == np.float32
    assert np.shape(p) == ()


def test_modules_import_numpy_alone() -> None:
    tree = ast.parse(source(dense_net(5, 4, 3)))
    imported = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert imported == ["import numpy as np"]


def test_text_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from catgrad_hw.targets.numpy import emit; from catgrad_hw.workload import load_workload; import hashlib; "
        "(text,) = emit(load_workload('iris-hidden'), 'iris-hidden').values(); "
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    (text,) = emit(load_workload("iris-hidden"), "iris-hidden").values()
    expected = hashlib.sha256(text.encode()).hexdigest()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        found = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float64), r"predict: x must have dtype float32, found float64; use x.astype"),
        (lambda x: x[:1], r"predict: x must have shape \(5, 4\), found \(1, 4\)"),
        (lambda x: x.tolist(), r"predict: x must have dtype float32, found list"),
    ],
)
def test_modules_refuse_wrong_arrays(change: Any, message: str) -> None:
    net = dense_net(5, 4, 3)
    arrays = random_arrays(joint_graph(net))
    p0, p1, x = (arrays[name].astype(np.float32) for name in ("p0", "p1", "x"))
    module = load(emit(net, "net"))
    with pytest.raises(TypeError, match=message):
        module.predict(p0, p1, change(x))


@pytest.mark.parametrize("name", ["1net", "class", ""])
def test_names_that_are_no_modules_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="expected a name for a module"):
        emit(dense_net(1, 2, 1), name)


def test_every_core_operation_has_a_spelling() -> None:
    """Constants, copies and views are spelled by what reads them; parameters are factored out."""
    by_readers = {ops.Constant, ops.Copy, ops.Discard, ops.Permute, ops.NCopy, ops.NSplit, ops.Parameter}
    core = {c for c in concrete_operations() if is_core(c)} | {ops.Parameter}
    assert core - by_readers == set(SPELLINGS)


def test_operations_without_hardware_are_spelled() -> None:
    T = array(2, 3)
    X = obj(T)
    model = (
        layers.relu(X) >> ops.increment(1.5)(X) >> op(ops.Log(T)) >> ops.scale_inverse(3)(X) >> ops.exponentiate(2)(X)
    )
    net = learner(model, layers.sgd(0.1), layers.mse)
    graph = simplify(joint_graph(net))
    x = random_arrays(graph)["x"].astype(np.float32)
    (found,) = load(emit(net, "net")).predict(x)
    np.testing.assert_allclose(found, (np.log(np.maximum(x, 0) + 1.5) / 3) ** 2, rtol=1e-5)


# --- report -----------------------------------------------------------------------------------------------------


def test_report_shows_graph_kernels_and_count() -> None:
    text = report(load_workload("iris-hidden"))
    assert "d1: float32[150, 3] = Multiply s2 e1" in text
    assert "  r = sum over j in 20 of a1[b, j] * p2[j, i]" in text
    assert "  12,000  z1 = Compose x p0" in text
    assert text.endswith("  54,613  in total")
