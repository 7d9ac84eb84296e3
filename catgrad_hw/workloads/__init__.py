"""Built-in workloads: catgrad's four iris models, with their data.

The data are Fisher's iris (R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936) as
distributed with scikit-learn: 150 rows in file order, 50 each of setosa, versicolor and virginica.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.workload import Workload

SPECIES = ("setosa", "versicolor", "virginica")


def load_iris() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Iris: ``x`` of shape (150, 4) (sepal length and width, petal length and width, in cm), ``y`` one-hot (150, 3)."""
    text = resources.files(__package__).joinpath("iris.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    x = np.array([[float(v) for v in row[:4]] for row in rows], dtype=np.float32)
    y = np.eye(len(SPECIES), dtype=np.float32)[[SPECIES.index(row[4]) for row in rows]]
    return x, y


def _iris(name: str) -> Workload:
    # The front end is imported here, because it re-exports Workload.
    from catgrad_hw import layers
    from catgrad_hw.ir.types import Dtype, NdArrayType, obj

    def array(*shape: int) -> NdArrayType:
        return NdArrayType(shape, Dtype.float32)

    x, y = load_iris()
    batch, inputs, hidden, outputs = array(len(x)), array(4), array(20), array(3)
    if name == "iris-linear":
        model, rate = layers.linear(batch, inputs, outputs), 1e-4
    elif name == "iris-simple":
        model, rate = layers.linear(batch, inputs, outputs) >> layers.sigmoid(obj(batch + outputs)), 1e-2
    elif name == "iris-dense":
        model, rate = layers.dense(batch, inputs, outputs, activation=layers.sigmoid), 1e-2
    else:
        model = layers.dense(batch, inputs, hidden, activation=layers.sigmoid) >> layers.dense(
            batch, hidden, outputs, activation=layers.sigmoid
        )
        rate = 1e-2
    return Workload(model=model, optimizer=layers.sgd(rate), loss=layers.mse, x=x, y=y, name=name)


def iris_linear() -> Workload:
    """4-3, no bias, no activation; learning rate 1e-4; full batch."""
    return _iris("iris-linear")


def iris_simple() -> Workload:
    """4-3, no bias, sigmoid; learning rate 1e-2; full batch."""
    return _iris("iris-simple")


def iris_dense() -> Workload:
    """4-3, bias shared over the batch, sigmoid; learning rate 1e-2; full batch."""
    return _iris("iris-dense")


def iris_hidden() -> Workload:
    """4-20-3, biases shared over the batch, sigmoids; learning rate 1e-2; full batch."""
    return _iris("iris-hidden")


BUILT_IN: dict[str, Callable[[], Workload]] = {
    "iris-linear": iris_linear,
    "iris-simple": iris_simple,
    "iris-dense": iris_dense,
    "iris-hidden": iris_hidden,
}
"""The models that a command line may name, with the function that makes each."""
