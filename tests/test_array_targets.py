"""Modules for torch and tinygrad: what NumPy's computes, computed by another library."""

from __future__ import annotations

import ast
import importlib
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from random_models import array, learners, random_arrays

from catgrad_hw import layers, obj
from catgrad_hw.compile import Learner, learner
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.targets.project import graph_of
from catgrad_hw.targets.registry import TARGETS
from catgrad_hw.workload import load_workload

Convert = Callable[[Any], Any]


def load(model: Any, library: str) -> tuple[Any, Convert, Convert]:
    """The module, and the functions that turn NumPy arrays into the library's and back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            imported = importlib.import_module(library)
        except ImportError:
            pytest.skip(f"{library} is not installed")
    module = types.ModuleType("model")
    exec(compile(TARGETS[library].emit(model, "model")["model.py"], "model.py", "exec"), module.__dict__)
    if library == "torch":
        return module, lambda a: imported.from_numpy(np.array(a)), lambda t: t.numpy()
    return module, lambda a: imported.Tensor(np.array(a)), lambda t: t.numpy()


@pytest.mark.parametrize("library", ["torch", "tinygrad"])
@pytest.mark.parametrize("name", ["iris-linear", "iris-dense", "iris-hidden", "digits-mlp"])
def test_steps_agree_with_numpy(name: str, library: str) -> None:
    workload = load_workload(name)
    module, into, back = load(workload, library)
    reference = types.ModuleType("reference")
    exec(TARGETS["numpy"].emit(workload, "model")["model.py"], reference.__dict__)
    p = list(workload.initial_parameters(0))
    for i in range(10):  # from the same parameters each time: some rates amplify differences
        x, y = workload.batch(i)
        found = [back(q) for q in module.step(*map(into, p), into(x), into(y))]
        p = reference.step(*p, x, y)
        for a, b in zip(found, p, strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
    (found,) = module.predict(*map(into, p), into(x))
    np.testing.assert_allclose(back(found), reference.predict(*p, x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", ["torch", "tinygrad"])
def test_random_models_compute_what_the_graph_computes(library: str) -> None:
    @settings(max_examples=30 if library == "torch" else 5, deadline=None, phases=[Phase.generate], derandomize=True)
    @given(learners())
    def check(net: Learner) -> None:
        graph = graph_of(net)
        arrays = {name: values.astype(np.float32) for name, values in random_arrays(graph).items()}
        module, into, back = load(net, library)
        parameters = [into(arrays[i.name]) for i in graph.inputs if i.role == "parameter"]
        for group, last in (("predict", []), ("step", [into(arrays["y"])])):
            found = getattr(module, group)(*parameters, into(arrays["x"]), *last)
            for a, b in zip(map(back, found), tensor_graph.run(graph, group, arrays), strict=True):
                assert a.dtype == np.float32
                assert a.shape == b.shape
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * (1 + np.abs(b).max(initial=0)))

    check()


@pytest.mark.parametrize("library", ["torch", "tinygrad"])
def test_elementwise_operations_agree(library: str) -> None:
    T = array(2, 3)
    X = obj(T)
    model = layers.relu(X) >> ops.increment(1.5)(X) >> ops.scale_inverse(3)(X) >> ops.exponentiate(2)(X)
    net = learner(model, layers.sgd(0.1), layers.mse)
    module, into, back = load(net, library)
    x = random_arrays(graph_of(net))["x"].astype(np.float32)
    (found,) = module.predict(into(x))
    np.testing.assert_allclose(back(found), ((np.maximum(x, 0) + 1.5) / 3) ** 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("library", "imported"), [("torch", "import torch"), ("tinygrad", "from tinygrad import Tensor, dtypes")]
)
def test_modules_import_their_library_alone(library: str, imported: str) -> None:
    tree = ast.parse(TARGETS[library].emit(load_workload("iris-hidden"), "net")["net.py"])
    assert [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)] == [imported]


@pytest.mark.parametrize("library", ["torch", "tinygrad"])
def test_modules_refuse_wrong_arrays(library: str) -> None:
    workload = load_workload("iris-linear")
    module, into, _ = load(workload, library)
    (p,) = workload.initial_parameters(0)
    with pytest.raises(TypeError, match=r"predict: x must have shape \(150, 4\), found \(1, 4\)"):
        module.predict(into(p), into(workload.x[:1]))
    with pytest.raises(TypeError, match="predict: x must have dtype float32"):
        module.predict(into(p), into(workload.x.astype(np.int32)))
