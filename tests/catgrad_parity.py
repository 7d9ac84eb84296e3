"""Runs in an environment that has catgrad 0.2.2: prints a report of what its models become, as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import numpy as np

import catgrad_hw
from catgrad_hw import from_catgrad, import_catgrad
from catgrad_hw.compile import learner
from catgrad_hw.errors import CatgradError
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.kernel_run import run
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.passes import simplify
from catgrad_hw.workloads import load_iris

import_catgrad()

from catgrad import Dtype, NdArrayType, compile_model, layers, obj  # noqa: E402
from catgrad.signature import op  # noqa: E402
from catgrad.special.definition import Definition  # noqa: E402
from catgrad.target.python.array_backend import Numpy  # noqa: E402
from catgrad.target.python.special import IdentityPythonOp  # noqa: E402

B, I, H, O = (NdArrayType((n,), Dtype.float32) for n in (150, 4, 20, 3))  # noqa: E741


@dataclass(frozen=True)
class Twice(Definition):
    """A definition of a user's."""

    T: NdArrayType

    def arrow(self):
        return layers.sigmoid(obj(self.T)) >> layers.sigmoid(obj(self.T))


MODELS = {
    "linear": (layers.linear(B, I, O), 1e-4),
    "simple": (layers.linear(B, I, O) >> layers.sigmoid(obj(B + O)), 1e-2),
    "dense": (layers.dense(B, I, O), 1e-2),
    "hidden": (layers.dense(B, I, H) >> layers.dense(B, H, O), 1e-2),
}


def parity(name: str) -> dict[str, object]:
    """Train in catgrad, in the imported model, and once in its kernels."""
    model, rate = MODELS[name]
    imported = from_catgrad(model)
    x, y = load_iris()
    theirs, P, _ = compile_model(model, layers.sgd(rate), layers.mse)
    ours, Q, _ = catgrad_hw.compile_model(imported, catgrad_hw.layers.sgd(rate), catgrad_hw.layers.mse)
    random = np.random.default_rng(0)
    p = [random.normal(0, 0.01, T.shape).astype(np.float32) for T in P]
    q = [a.copy() for a in p]
    graph = simplify(joint_graph(learner(imported, catgrad_hw.layers.sgd(rate), catgrad_hw.layers.mse)))
    kernels = lower(graph)
    arrays = {f"p{i}": a for i, a in enumerate(p)} | {"x": x, "y": y}
    after = run(kernels, "step", arrays)
    difference = 0.0
    for step in range(100):
        p, q = theirs(Numpy).step(*p, x, y), ours(catgrad_hw.Numpy).step(*q, x, y)
        if step == 0:
            by_kernels = max(float(np.abs(a - after[f"p{i}"]).max()) for i, a in enumerate(p))
        difference = max(difference, *(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(p, q, strict=True)))
    operations = sorted({type(node.operation).__name__ for node in graph.nodes})
    shapes = [list(T.shape) for T in Q]
    return {"difference": difference, "kernels": by_kernels, "operations": operations, "shapes": shapes}


def own(name: str) -> float:
    """The largest difference over 25 steps between catgrad's model and that of our own layers, which is the same."""
    b, i, o = (catgrad_hw.NdArrayType((n,), catgrad_hw.Dtype.float32) for n in (150, 4, 3))
    ours = catgrad_hw.layers.linear(b, i, o)
    if name == "simple":
        ours = ours >> catgrad_hw.layers.sigmoid(catgrad_hw.obj(b + o))
    model, rate = MODELS[name]
    x, y = load_iris()
    theirs, P, _ = compile_model(model, layers.sgd(rate), layers.mse)
    compiled, _, _ = catgrad_hw.compile_model(ours, catgrad_hw.layers.sgd(rate), catgrad_hw.layers.mse)
    p = [np.random.default_rng(0).normal(0, 0.01, T.shape).astype(np.float32) for T in P]
    q, difference = p, 0.0
    for _ in range(25):
        p, q = theirs(Numpy).step(*p, x, y), compiled(catgrad_hw.Numpy).step(*q, x, y)
        difference = max(difference, *(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(p, q, strict=True)))
    return difference


def refusal(make) -> str:
    try:
        make()
    except CatgradError as error:
        return f"{type(error).__name__}: {error}"
    return ""


T = NdArrayType((3,), Dtype.float32)
[twice] = catgrad_hw.compile_model(from_catgrad(op(Twice(T))), catgrad_hw.layers.sgd(1), catgrad_hw.layers.mse)[0](
    catgrad_hw.Numpy
).predict(np.zeros(3, np.float32))
report = {
    "models": {name: parity(name) for name in MODELS},
    "own": {name: own(name) for name in ("linear", "simple")},
    "torch": "torch" in sys.modules,
    "numpy": np.__version__,
    "twice": float(twice[0]),
    "python": refusal(lambda: from_catgrad(op(IdentityPythonOp(T)))),
    "nothing": refusal(lambda: from_catgrad(3)),
}
print(json.dumps(report))
