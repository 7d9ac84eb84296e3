"""Workloads: data checked against the model, batches, names and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catgrad_hw import Dtype, NdArrayType, layers
from catgrad_hw.errors import DataError, ModelError
from catgrad_hw.workload import Workload, load_workload
from catgrad_hw.workloads import BUILT_IN, load_digits, load_iris


def array(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


def workload(x: Any, y: Any, batch: int = 4, **more: Any) -> Workload:
    model = layers.linear(array(batch), array(2), array(1))
    return Workload(model=model, optimizer=layers.sgd(0.1), loss=layers.mse, x=x, y=y, **more)


X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0).reshape(6, 1)


def test_iris() -> None:
    x, y = load_iris()
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((150, 4), (150, 3), np.float32, np.float32)
    assert y.sum(axis=0).tolist() == [50, 50, 50]
    assert x[0].tolist() == np.array([5.1, 3.5, 1.4, 0.2], np.float32).tolist()
    assert y.argmax(axis=1).tolist() == [0] * 50 + [1] * 50 + [2] * 50


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("iris-linear", [(4, 3)]),
        ("iris-simple", [(4, 3)]),
        ("iris-dense", [(4, 3), (3,)]),
        ("iris-hidden", [(4, 20), (20,), (20, 3), (3,)]),
    ],
)
def test_built_in(name: str, shapes: list[tuple[int, ...]]) -> None:
    built_in = load_workload(name)
    assert list(built_in.parameter_shapes) == shapes
    assert (built_in.batch_size, built_in.name) == (150, name)
    parameters = built_in.initial_parameters(3)
    assert [p.shape for p in parameters] == shapes
    assert all(p.dtype == np.float32 for p in parameters)
    again = built_in.initial_parameters(3)
    assert all((a == b).all() for a, b in zip(parameters, again, strict=True))
    assert 0 < np.abs(parameters[0]).max() < 0.06


def test_batches_are_consecutive_and_wrap_round() -> None:
    x, y = workload(X, Y).batch(1)
    assert y.ravel().tolist() == [4, 5, 0, 1]
    assert x[:, 0].tolist() == [8, 10, 0, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint64, bool])
def test_numbers_of_all_dtypes_become_float32(dtype: Any) -> None:
    made = workload(X.astype(dtype), Y.astype(dtype))
    assert made.x.dtype == np.float32
    assert (made.x == X.astype(dtype)).all()
    with pytest.raises(ValueError, match="read-only"):
        made.x[0, 0] = 1


def test_later_changes_to_the_users_array_have_no_effect() -> None:
    x = X.astype(np.float32)
    made = workload(x, Y)
    x[0, 0] = 99
    assert made.x[0, 0] == 0


def broken(place: tuple[int, int], value: float) -> np.ndarray:
    x = X.copy()
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (broken((2, 1), np.nan), Y, r"x: expected finite float32 values, found nan at \(2, 1\)"),
        (broken((2, 1), np.inf), Y, r"found inf at \(2, 1\)"),
        (broken((0, 0), 1e300), Y, r"found 1e\+300 at \(0, 0\)"),
        (X.astype(np.int64) + 2**24, Y, "expected integers that float32 holds exactly, found 16777217"),
        (np.full((6, 2), 2**64 - 1, np.uint64), Y, "holds exactly, found 18446744073709551615"),
        (X.astype(complex), Y, "expected numbers, found dtype complex128"),
        (X.astype(str), Y, "expected numbers, found dtype <U32"),
        ([[1.0], [1.0, 2.0]], Y, "expected a rectangular array of numbers"),
        (X.reshape(4, 3), Y, r"x: expected shape \(samples, 2\) as the model's type says, found \(4, 3\)"),
        (X, Y.ravel(), r"y: expected shape \(samples, 1\).*found \(6,\)"),
        (X, Y[:5], "as many samples in y as in x, found 5 and 6"),
        (X[:3], Y[:3], "at least one batch of 4 samples, found 3"),
        (1.0, Y, r"found \(\)"),
    ],
)
def test_unusable_data_are_refused(x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        workload(x, y)
    assert "\n" not in str(error.value)


def test_heldout_and_parameters() -> None:
    made = workload(X, Y, heldout=(X[:1], Y[:1]), parameters=[[[1], [2]]])
    assert made.heldout is not None
    assert made.initial_parameters(5)[0].tolist() == [[1], [2]]
    with pytest.raises(DataError, match=r"heldout: expected a pair \(x, y\), found list"):
        workload(X, Y, heldout=[X, Y])
    with pytest.raises(DataError, match="heldout: expected as many samples in y as in x, and at least one"):
        workload(X, Y, heldout=(X[:0], Y[:0]))
    with pytest.raises(DataError, match=r"parameters: expected shapes \[\(2, 1\)\], found \[\(1, 2\)\]"):
        workload(X, Y, parameters=[[[1, 2]]])


# --- by name ----------------------------------------------------------------------------------------------------

GOOD = """
from catgrad_hw import *
import numpy as np
B, I, O = (NdArrayType((n,), Dtype.float32) for n in (4, 2, 1))

def mine():
    return Workload(
        model=layers.linear(B, I, O), optimizer=layers.sgd(0.1), loss=layers.mse, x=np.ones((4, 2)), y=np.ones((4, 1))
    )

def fails():
    return 1 / 0

def other():
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "user_model.py"
    path.write_text(GOOD)
    return path


def test_a_function_of_a_file(file: Path) -> None:
    made = load_workload(f"{file}:mine")
    assert (made.batch_size, made.name) == (4, "mine")


def test_wrong_names_and_files_say_what_to_change(file: Path) -> None:
    for model, message in {
        "iris-hiden": "expected one of iris-linear, .*; did you mean iris-hidden?",
        "nothing": "or give FILE.py:NAME",
        str(file): "write .*user_model.py:NAME",
        f"{file}:mime": "did you mean mine?",
        f"{file}:B": r"expected a function B in the file, found none; it has .*mine",
        f"{file}:other": r"expected a catgrad_hw.Workload from other\(\), found int",
        f"{file}:fails": r"user_model.py:12: ZeroDivisionError: division by zero",
        f"{file.parent}/absent.py:mine": "found none at .*absent.py",
    }.items():
        with pytest.raises(ModelError, match=message) as error:
            load_workload(model)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def mine(:\n", r"broken.py:1: expected Python, found "),
        ("x = 1\nimport no_such_module\n", r"broken.py:2: ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_that_does_not_load_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        load_workload(f"{path}:mine")


def test_built_in_names() -> None:
    iris = ["iris-linear", "iris-simple", "iris-dense", "iris-hidden"]
    assert list(BUILT_IN) == [*iris, "digits-mlp", "digits-relu", "digits-conv", "mlp-784-64-10"]


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    expected = datasets.load_digits()
    x, y = load_digits()
    np.testing.assert_array_equal(16 * x, expected.data)
    np.testing.assert_array_equal(y.argmax(axis=1), expected.target)


def test_digits_split_is_fixed():
    workload = load_workload("digits-mlp")
    assert (len(workload.x), len(workload.heldout[0])) == (1437, 360)
    assert workload.y[:8].argmax(axis=1).tolist() == load_workload("digits-mlp").y[:8].argmax(axis=1).tolist()
