"""GGML: the written C++ built against a real ggml, whose sources come from a source package on PyPI.

Building ggml takes about 20 s of processor time, once for each user: it is kept in the user's cache folder. It
needs cmake, a C++ compiler and a package index.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from hypothesis import Phase, given, settings
from random_models import array, learners, random_arrays

from catgrad_hw import layers, obj, op
from catgrad_hw.compile import Learner, learner
from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import ROLES
from catgrad_hw.targets import ggml
from catgrad_hw.targets.project import graph_of
from catgrad_hw.targets.registry import TARGETS
from catgrad_hw.workload import load_workload

pytestmark = pytest.mark.xdist_group("ggml")  # one worker builds it

PACKAGE = "ggml-python==0.0.45"


def run(*command: object, cwd: Path) -> None:
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # pip's own are not this package's
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ggml cannot be built here: {command[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def installed() -> Path:
    """The folder in which ggml is installed, with ``include`` and ``lib``."""
    cache = Path(platformdirs.user_cache_dir("catgrad-hw")) / PACKAGE.replace("==", "-")
    if (cache / "include" / "ggml.h").exists():
        return cache
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: ggml cannot be built here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        run(*pip, "--no-binary", "ggml-python", PACKAGE, cwd=folder)
        (package,) = folder.glob("ggml_python-*.tar.gz")
        with tarfile.open(package) as archive:
            archive.extractall(folder, filter="data")
        (source,) = folder.glob("ggml_python-*/vendor/ggml")
        (source / "ggml.pc.in").touch()  # which the package leaves out
        off = [f"-DGGML_{option}=OFF" for option in ("NATIVE", "OPENMP", "LLAMAFILE", "BUILD_TESTS", "BUILD_EXAMPLES")]
        # The models are small: to optimise takes longer than they would save.
        quick = [f"-DCMAKE_{language}_FLAGS=-O0" for language in ("C", "CXX")]
        kind = ["-DBUILD_SHARED_LIBS=OFF", "-DCMAKE_POSITION_INDEPENDENT_CODE=ON", "-DCMAKE_BUILD_TYPE=None", *quick]
        where = f"-DCMAKE_INSTALL_PREFIX={folder / 'installed'}"
        run("cmake", "-S", source, "-B", folder / "build", *off, *kind, where, "-DCMAKE_INSTALL_LIBDIR=lib", cwd=folder)
        run("cmake", "--build", folder / "build", "-j2", "--target", "install", cwd=folder)
        cache.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder / "installed", cache, dirs_exist_ok=True)
    return cache


class Model:
    """The functions of a built model, on arrays; ``step`` returns new parameters."""

    def __init__(self, model: Any, installed: Path, folder: Path) -> None:
        self.graph = graph_of(model)
        for name, text in ggml.emit(model, "model").items():
            (folder / name).write_text(text)
        libraries = [installed / "lib" / f"lib{name}.a" for name in ("ggml", "ggml-cpu", "ggml-base")]
        flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", f"-I{installed / 'include'}"]
        command = ["g++", *flags, "model.cpp", "-o", "model.so", *map(str, libraries), "-lpthread", "-ldl"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.library = ctypes.CDLL(str(folder / "model.so"))
        self.library.model_create.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.library.model_create(1))
        assert self.handle

    def call(self, group: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        names = [i.name for role in ROLES[group] for i in self.graph.inputs if i.role == role]
        given = [np.array(arrays[name], np.float32, order="C") for name in names]
        results = [np.zeros(self.graph.types[value].shape, np.float32) for value in self.graph.outputs[group]]
        changed = results if group == "predict" else given[: len(results)]
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (given + results if group == "predict" else given)]
        assert getattr(self.library, f"model_{group}")(self.handle, *pointers) == 0
        return changed


@pytest.mark.parametrize("name", ["iris-linear", "iris-hidden", "digits-mlp"])
def test_training_agrees_with_numpy(name: str, installed: Path, tmp_path: Path) -> None:
    workload = load_workload(name)
    model = Model(workload, installed, tmp_path)
    reference = types.ModuleType("reference")
    exec(TARGETS["numpy"].emit(workload, "m")["m.py"], reference.__dict__)
    p = q = list(workload.initial_parameters(0))
    for i in range(20):
        x, y = workload.batch(i)
        arrays = {**{f"p{k}": a for k, a in enumerate(p)}, "x": x, "y": y}
        p, q = model.call("step", arrays), reference.step(*q, x, y)
    for a, b in zip(p, q, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    arrays = {**{f"p{k}": a for k, a in enumerate(p)}, "x": x}
    np.testing.assert_allclose(model.call("predict", arrays)[0], reference.predict(*p, x)[0], rtol=1e-4, atol=1e-5)


@settings(max_examples=8, deadline=None, phases=[Phase.generate], derandomize=True)
@given(net=learners())
def test_random_models_compute_what_the_graph_computes(
    net: Learner, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = Model(net, installed, tmp_path_factory.mktemp("ggml"))
    arrays = {name: values.astype(np.float32) for name, values in random_arrays(model.graph).items()}
    for group in ("predict", "step"):
        for a, b in zip(model.call(group, arrays), tensor_graph.run(model.graph, group, arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * (1 + np.abs(b).max(initial=0)))


def test_the_build_file_finds_ggml(installed: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    for name, text in TARGETS["ggml"].emit(load_workload("iris-linear"), "model").items():
        (tmp_path / name).write_text(text)
    for command in (["-B", "build", f"-DCMAKE_PREFIX_PATH={installed}"], ["--build", "build"]):
        done = subprocess.run(["cmake", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "build" / "libmodel.a").exists()


def test_operations_that_ggml_lacks_are_named() -> None:
    net = learner(op(ops.NMax(array(2), array(3))), layers.sgd(0.1), layers.mse)
    with pytest.raises(UnsupportedError, match="NMax: expected an operation that the target ggml speaks"):
        ggml.emit(net, "model")
    five = learner(layers.sigmoid(obj(array(2, 2, 2, 2, 2))), layers.sgd(0.1), layers.mse)
    with pytest.raises(UnsupportedError, match="the target ggml has 4 axes at most, found 5"):
        ggml.emit(five, "model")
