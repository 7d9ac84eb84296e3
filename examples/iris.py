"""Train a small net on Fisher's irises with NumPy: ``python -m examples.iris (linear|simple|dense|hidden)``.

The model is compiled, with its reverse derivative, to a Python class; training is a loop over its ``step``.
"""

from __future__ import annotations

import argparse
import ast

import numpy as np

from catgrad_hw import *
from catgrad_hw.workloads import load_iris

BATCH = NdArrayType((150,), Dtype.float32)
INPUT = NdArrayType((4,), Dtype.float32)
HIDDEN = NdArrayType((20,), Dtype.float32)
OUTPUT = NdArrayType((3,), Dtype.float32)

# Each model with its learning rate.
MODELS = {
    "linear": (layers.linear(BATCH, INPUT, OUTPUT), 1e-4),
    "simple": (layers.linear(BATCH, INPUT, OUTPUT) >> layers.sigmoid(obj(BATCH + OUTPUT)), 1e-2),
    "dense": (layers.dense(BATCH, INPUT, OUTPUT, activation=layers.sigmoid), 1e-2),
    "hidden": (layers.dense(BATCH, INPUT, HIDDEN) >> layers.dense(BATCH, HIDDEN, OUTPUT), 1e-2),
}


def accuracy(predictions: np.ndarray, targets: np.ndarray) -> float:
    """Fraction of rows whose largest entry is where the target's is."""
    return float(np.mean(predictions.argmax(axis=1) == targets.argmax(axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small net on Fisher's irises with NumPy.")
    parser.add_argument("model", choices=MODELS, help="what to train")
    parser.add_argument("--iterations", type=int, default=1000, help="steps of training (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the initial parameters (default: 0)")
    arguments = parser.parse_args()

    model, learning_rate = MODELS[arguments.model]
    CompiledModel, ParamType, source = compile_model(model, layers.sgd(learning_rate), layers.mse)
    print(ast.unparse(source))

    compiled = CompiledModel(Numpy)
    random = np.random.default_rng(arguments.seed)
    p = [random.normal(0, 0.01, T.shape).astype(np.float32) for T in ParamType]
    x, y = load_iris()  # float32; with other data write .astype(np.float32)

    print(f"\ntraining {arguments.model}: {sum(T.size for T in ParamType)} parameters, {len(x)} samples")
    print("iteration    loss    accuracy")
    for i in range(arguments.iterations + 1):
        if i % max(1, arguments.iterations // 10) == 0 or i == arguments.iterations:
            [predictions] = compiled.predict(*p, x)
            loss = 0.5 * np.sum((predictions - y) ** 2)
            print(f"{i:9d} {loss:7.2f} {100 * accuracy(predictions, y):9.1f} %")
        if i < arguments.iterations:
            p = compiled.step(*p, x, y)

    [predictions] = compiled.predict(*p, x)
    print(f"accuracy: {100 * accuracy(predictions, y):.1f} %")


if __name__ == "__main__":
    main()
