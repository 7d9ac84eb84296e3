"""C in float32: warnings, agreement with NumPy, refusals, and what Python builds from it."""

from __future__ import annotations

import shutil
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from random_models import array, dense_net, learners, random_arrays

from catgrad_hw import Dtype, NdArrayType, identity, layers, obj, op
from catgrad_hw.compile import Learner, learner
from catgrad_hw.errors import IllTypedError, ToolError, UnsupportedError
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.kernel_run import run
from catgrad_hw.targets import c, clike, cuda
from catgrad_hw.targets.build import build_c, compiler
from catgrad_hw.targets.project import graph_of, kernels_of
from catgrad_hw.targets.registry import TARGETS
from catgrad_hw.workload import load_workload

SAFE = ("-O2",)


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("name", ["iris-linear", "iris-hidden"])
def test_compilers_have_nothing_to_say(tmp_path: Path, name: str, cc: str) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    for file, text in TARGETS["c"].emit(load_workload(name), "model").items():
        (tmp_path / file).write_text(text)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
    done = subprocess.run([cc, *flags, "-c", "model.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "user.cpp").write_text('#include "model.h"\nvoid (*f)(...) = (void (*)(...))model_step;\n')
    done = subprocess.run(["g++", "-Wall", "-c", "user.cpp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["iris-linear", "iris-hidden", "digits-mlp"])
def test_training_agrees_with_numpy_over_100_steps(name: str) -> None:
    workload = load_workload(name)
    reference = types.ModuleType("reference")
    exec(TARGETS["numpy"].emit(workload, "m")["m.py"], reference.__dict__)
    compiled = build_c(workload)
    p = q = list(workload.initial_parameters(0))
    for i in range(100):
        x, y = workload.batch(i)
        p, q = compiled.step(*p, x, y), reference.step(*q, x, y)
    for a, b in zip(p, q, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
    np.testing.assert_allclose(compiled.predict(*p, x)[0], reference.predict(*p, x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["iris-simple", "iris-dense"])
def test_each_step_agrees_where_training_amplifies_differences(name: str) -> None:
    workload = load_workload(name)
    program, compiled = kernels_of(workload), build_c(workload)
    p = list(workload.initial_parameters(0))
    for i in range(100):
        x, y = workload.batch(i)
        memory = run(program, "step", dict(zip((*program.parameters, "x", "y"), (*p, x, y), strict=True)))
        p = compiled.step(*p, x, y)
        for name, a in zip(program.parameters, p, strict=True):
            np.testing.assert_allclose(a, memory[name], rtol=1e-5, atol=1e-5 * np.abs(a).max())


@settings(max_examples=15, deadline=None, phases=[Phase.generate], derandomize=True)
@given(learners())
def test_random_models_compute_what_the_graph_computes(net: Learner) -> None:
    graph, compiled = graph_of(net), build_c(net, SAFE)
    arrays = {name: values.astype(np.float32) for name, values in random_arrays(graph).items()}
    p = [arrays[i.name] for i in graph.inputs if i.role == "parameter"]
    for group, last in (("predict", []), ("step", [arrays["y"]])):
        found = getattr(compiled, group)(*p, arrays["x"], *last)
        for a, b in zip(found, tensor_graph.run(graph, group, arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * (1 + np.abs(b).max(initial=0)))


def test_wide_layers_are_summed_in_parts() -> None:
    B, A, C = (NdArrayType((size,), Dtype.float32) for size in (3, 13, clike.COLUMNS + 7))
    net = learner(layers.linear(B, A, C), layers.sgd(0.5), layers.mse)
    assert f"i_low += {clike.COLUMNS}" in c.emit(net, "wide")["wide.c"]
    arrays = {name: v.astype(np.float32) for name, v in random_arrays(graph_of(net)).items()}
    (found,) = build_c(net, SAFE).step(arrays["p0"], arrays["x"], arrays["y"])
    (expected,) = tensor_graph.run(graph_of(net), "step", arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_elementwise_functions_agree() -> None:
    X = obj(array(2, 3))
    model = layers.sigmoid(X) >> ops.increment(1.5)(X) >> op(ops.Log(array(2, 3))) >> ops.exponentiate(2)(X)
    model = model >> ops.scale_inverse(3)(X) >> layers.relu(X) >> layers.tanh(X)
    net = learner(model, layers.sgd(0.1), layers.mse)
    x = random_arrays(graph_of(net))["x"].astype(np.float32)
    (found,) = build_c(net, SAFE).predict(x)
    np.testing.assert_allclose(found, np.tanh(np.log(1 / (1 + np.exp(-x)) + 1.5) ** 2 / 3), rtol=1e-5)


def test_sigmoid_is_right_in_both_tails() -> None:
    compiled = build_c(learner(layers.sigmoid(obj(array(5))), layers.sgd(0.1), layers.mse), SAFE)
    (found,) = compiled.predict(np.array([-1000, -50, 0, 3, 1000], np.float32))
    np.testing.assert_allclose(found, [0, np.exp(-50.0), 0.5, 1 / (1 + np.exp(-3)), 1], rtol=1e-5, atol=1e-37)


def test_maps_are_fused_into_the_sums_before_them() -> None:
    program = clike.prepare(kernels_of(load_workload("iris-hidden")))
    names = [kernel.name for kernel in program.programs["step"]]
    assert names == ["a1", "s2", "d1_g3", "d2", "d3_g1", "g0", "g2"]
    assert c.scratch_arrays(program) == ["a1", "d1", "s1", "d3"]


def test_functions_run_over_all_sums_at_once() -> None:
    program = clike.prepare(kernels_of(load_workload("iris-hidden")))
    parts = [p for kernel in program.programs["step"] for p in clike.apart_from_sums(kernel, c.FUNCTIONS)]
    loops = {part.name: [loop.size for loop in part.loops] for part in parts}
    assert list(loops) == ["a1", "a1_of_sums", "s2", "s2_of_sums", "d1_g3", "d2", "d3_g1", "g0", "g2"]
    assert (loops["a1_of_sums"], loops["s2_of_sums"]) == ([3000], [450])


@pytest.mark.parametrize("bias", [False, True])
def test_a_function_stays_with_a_sum_that_is_used_elsewhere(bias: bool) -> None:
    B, A, Z = array(5), array(3), obj(array(5, 4))
    gate = layers.bias(array(5, 4)) >> layers.sigmoid(Z) if bias else layers.sigmoid(Z)
    model = layers.linear(B, A, array(4)) >> layers.copy(Z) >> (identity(Z) @ gate) >> layers.multiply(Z)
    net = learner(model, layers.sgd(0.1), layers.mse)
    (kernel,) = clike.prepare(kernels_of(net)).programs["predict"]
    assert len(clike.apart_from_sums(kernel, c.FUNCTIONS)) == (1 if bias else 2)  # z * sigmoid(z) needs z alone
    arrays = {name: v.astype(np.float32) for name, v in random_arrays(graph_of(net)).items()}
    names = ["p0", "p1", "x"] if bias else ["p0", "x"]
    (found,) = build_c(net, SAFE).predict(*(arrays[name] for name in names))
    z = arrays["x"] @ arrays["p0"]
    np.testing.assert_allclose(found, z / (1 + np.exp(-z - (arrays["p1"] if bias else 0))), rtol=1e-4, atol=1e-6)


def test_arguments_are_checked_and_not_changed() -> None:
    net = dense_net(5, 4, 3)
    arrays = {name: v.astype(np.float32) for name, v in random_arrays(graph_of(net)).items()}
    p, x, y = [arrays["p0"], arrays["p1"]], arrays["x"], arrays["y"]
    compiled, before = build_c(net, SAFE), p[0].copy()
    assert not np.array_equal(compiled.step(*p, x, y)[0], p[0])
    np.testing.assert_array_equal(p[0], before)
    with pytest.raises(IllTypedError, match=r"predict: x must be float32 of shape \(5, 4\), found float64"):
        compiled.predict(*p, x.astype(np.float64))
    with pytest.raises(IllTypedError, match=r"predict: expected 3 arrays \(p0, p1, x\), found 2"):
        compiled.predict(*p)


def test_what_c_does_not_speak_is_refused_by_name() -> None:
    T = NdArrayType((2,), Dtype.int32)
    net = learner(op(ops.Negate(T)), layers.sgd(1.0), layers.mse)
    with pytest.raises(UnsupportedError, match=r"the target cuda speaks float32, found int32.*numpy or c"):
        cuda.emit(net, "model")


def test_a_missing_compiler_is_named() -> None:
    with pytest.raises(ToolError, match="C compiler: expected no-such-compiler, found none; install gcc"):
        compiler("no-such-compiler")
