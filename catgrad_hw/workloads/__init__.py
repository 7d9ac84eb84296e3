"""Built-in workloads: catgrad's four iris models, and nets for digits, with their data.

The flowers are Fisher's iris (R. A. Fisher, "The use of multiple measurements in taxonomic problems", 1936) as
distributed with scikit-learn: 150 rows in file order, 50 each of setosa, versicolor and virginica. The digits are
those of scikit-learn, the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI, 1998):
1797 pictures of 8 x 8 pixels with 17 grey levels.
"""

from __future__ import annotations

import csv
import functools
import itertools
from collections.abc import Callable
from importlib import resources
from typing import Any

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


DIGIT_PIXELS = "0123456789abcdefg"
"""How the file spells the 17 grey levels."""


def load_digits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Digits: ``x`` of shape (1797, 64), grey levels from 0 to 1, row-major, and ``y`` one-hot (1797, 10)."""
    text = resources.files(__package__).joinpath("digits.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))[1:]
    x = np.array([[DIGIT_PIXELS.index(p) / 16 for p in row[0]] for row in rows], dtype=np.float32)
    y = np.eye(10, dtype=np.float32)[[int(row[1]) for row in rows]]
    return x, y


def _mlp(name: str, widths: tuple[int, ...], batch: int, rate: float, **data: Any) -> Workload:
    """Dense layers with sigmoids."""
    from catgrad_hw import layers
    from catgrad_hw.ir.types import Dtype, NdArrayType

    B, *types = (NdArrayType((size,), Dtype.float32) for size in (batch, *widths))
    parts = [layers.dense(B, A, C, activation=layers.sigmoid) for A, C in itertools.pairwise(types)]
    model = functools.reduce(lambda f, g: f >> g, parts)
    return Workload(model=model, optimizer=layers.sgd(rate), loss=layers.mse, name=name, **data)


def _split_digits() -> dict[str, Any]:
    """The digits, of which a fifth, drawn once and for all, is held out."""
    x, y = load_digits()
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[: len(x) * 4 // 5], order[len(x) * 4 // 5 :]
    return {"x": x[train], "y": y[train], "heldout": (x[test], y[test])}


def digits_mlp() -> Workload:
    """64-32-10, sigmoids; learning rate 0.2, batch 32; a fifth of the digits, drawn once and for all, is held out."""
    return _mlp("digits-mlp", (64, 32, 10), 32, 0.2, **_split_digits())


def digits_relu() -> Workload:
    """64-32-10, relu, softmax and cross-entropy; learning rate 2**-4, momentum 0.9, batch 32; data of digits-mlp."""
    from catgrad_hw import layers
    from catgrad_hw.ir.types import Dtype, NdArrayType

    B, pixels, hidden, classes = (NdArrayType((size,), Dtype.float32) for size in (32, 64, 32, 10))
    model = layers.dense(B, pixels, hidden, layers.relu) >> layers.dense(B, hidden, classes, layers.identity)
    optimizer = layers.momentum(2.0**-4)
    return Workload(model, optimizer, layers.cross_entropy, name="digits-relu", **_split_digits())


def digits_conv() -> Workload:
    """A convolution of 8 filters of 3 x 3, relu, the largest of each 2 x 2, and a dense layer of 10 with softmax and
    cross-entropy; learning rate 2**-2, batch 32; data of digits-mlp."""
    from catgrad_hw import layers
    from catgrad_hw.ir.types import Dtype, NdArrayType, obj

    def array(*shape: int) -> NdArrayType:
        return NdArrayType(shape, Dtype.float32)

    B = array(32)
    model = (
        layers.flatten(array(32, 64), array(32, 1, 8, 8))
        >> layers.conv2d(B, array(1, 8, 8), channels=8, kernel=3)
        >> layers.relu(obj(array(32, 8, 6, 6)))
        >> layers.max_pool2d(B, array(8, 6, 6), 2)
        >> layers.flatten(array(32, 8, 3, 3), array(32, 72))
        >> layers.dense(B, array(72), array(10), layers.identity)
    )
    return Workload(model, layers.sgd(2.0**-2), layers.cross_entropy, name="digits-conv", **_split_digits())


def mlp_784_64_10() -> Workload:
    """784-64-10, sigmoids; MNIST's shape on synthetic data: a noisy prototype for each class; batch 32."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 1024)
    prototypes = random.random((10, 784))
    x = np.clip(prototypes[labels] + random.normal(0, 0.3, (1024, 784)), 0, 1)
    return _mlp("mlp-784-64-10", (784, 64, 10), 32, 2.0**-6, x=x, y=np.eye(10, dtype=np.float32)[labels])


BUILT_IN: dict[str, Callable[[], Workload]] = {
    "iris-linear": iris_linear,
    "iris-simple": iris_simple,
    "iris-dense": iris_dense,
    "iris-hidden": iris_hidden,
    "digits-mlp": digits_mlp,
    "digits-relu": digits_relu,
    "digits-conv": digits_conv,
    "mlp-784-64-10": mlp_784_64_10,
}
"""The models that a command line may name, with the function that makes each."""
