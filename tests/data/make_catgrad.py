"""Record catgrad 0.2.2's own numbers, which tests/test_catgrad_parity.py compares with.

Run in an environment of its own (catgrad pins NumPy 1.26), from the repository root:

    python -m venv cg && cg/bin/pip install catgrad==0.2.2 && cg/bin/python tests/data/make_catgrad.py
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

# catgrad imports torch without declaring it, for a backend that is not used here.
torch = ModuleType("torch")
torch.Tensor = object
sys.modules.setdefault("torch", torch)

from catgrad import Dtype, NdArrayType, compile_model, layers, obj  # noqa: E402
from catgrad.target.python.array_backend import Numpy  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = 25


def iris() -> tuple[np.ndarray, np.ndarray]:
    """The measurements, and one-hot classes in file order."""
    with (ROOT / "catgrad_hw" / "workloads" / "iris.csv").open() as file:
        rows = list(csv.reader(file))[1:]
    x = np.array([[float(word) for word in row[:4]] for row in rows], np.float32)
    return x, np.identity(3, np.float32)[np.repeat(np.arange(3), 50)]


def main() -> None:
    """Train each model for a few steps and write every parameter."""
    batch, inputs, outputs = (NdArrayType((n,), Dtype.float32) for n in (150, 4, 3))
    linear = layers.linear(batch, inputs, outputs)
    simple = linear >> layers.sigmoid(obj(batch + outputs))
    models = {"linear": (linear, 1e-4), "simple": (simple, 1e-3), "simple-fast": (simple, 1e-2)}
    x, y = iris()
    record = {}
    for name, (model, rate) in models.items():
        compiled_class, P, _ = compile_model(model, layers.sgd(rate), layers.mse)
        compiled = compiled_class(Numpy)
        random = np.random.default_rng(0)
        p = [random.normal(0, 0.01, T.shape).astype(np.float32) for T in P]
        parameters = [[a.tolist() for a in p]]
        gradients = [a.tolist() for a in compiled.rev_p(*p, x, y)]
        for _ in range(STEPS):
            p = compiled.step(*p, x, y)
            parameters.append([a.tolist() for a in p])
        record[name] = {
            "learning_rate": rate,
            "shapes": [list(T.shape) for T in P],
            "parameters": parameters,
            "gradients": gradients,
            "predictions": compiled.predict(*p, x)[0].tolist(),
        }
    (Path(__file__).parent / "catgrad.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
