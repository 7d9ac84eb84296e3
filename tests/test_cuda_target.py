"""CUDA: the written kernels, run on the CPU through a shim of CUDA's interface, compiled by nvcc, and run on a GPU."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from random_models import learners, random_arrays

from catgrad_hw.bench import cuda_loop
from catgrad_hw.compile import Learner
from catgrad_hw.ir.kernel import KernelProgram
from catgrad_hw.ir.kernel_run import run
from catgrad_hw.targets import cuda
from catgrad_hw.targets.clike import arguments
from catgrad_hw.targets.project import graph_of, kernels_of
from catgrad_hw.workload import Workload, load_workload

ROOT = Path(__file__).parents[1]
SHIM = ROOT / "tests" / "cuda_shim"

# For each function two that ctypes can call, which take and return host arrays: launched as it is, and as a graph.
WRAPPER = """
extern "C" int plain_{group}(float **p) {{
  return on_device(p, [](float **p, model_scratch *s, cudaStream_t stream) {{
    return model_{group}({arguments}, s, stream);
  }}, {count}, {group}_sizes);
}}
extern "C" int graph_{group}(float **p) {{
  return on_device(p, [](float **p, model_scratch *s, cudaStream_t stream) {{
    cudaGraphExec_t graph;
    cudaError_t error = model_{group}_graph({arguments}, s, stream, &graph);
    if (error == cudaSuccess) error = cudaGraphLaunch(graph, stream);
    if (error == cudaSuccess) error = cudaGraphExecDestroy(graph);
    return error;
  }}, {count}, {group}_sizes);
}}
"""
COMMON = """
#include "model.h"
template <class F> int on_device(float **host, F function, int count, const int *sizes) {
  float *device[64] = {};
  static model_scratch *scratch = nullptr;
  if (scratch == nullptr && cudaMalloc(&scratch, sizeof *scratch) != cudaSuccess) return -1;
  for (int i = 0; i < count; i++) {
    if (cudaMalloc(&device[i], sizes[i] * sizeof(float)) != cudaSuccess) return -2;
    if (cudaMemcpy(device[i], host[i], sizes[i] * sizeof(float), cudaMemcpyHostToDevice) != cudaSuccess) return -3;
  }
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  int error = function(device, scratch, stream);
  if (error == 0) error = cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
  for (int i = 0; i < count; i++) {
    if (cudaMemcpy(host[i], device[i], sizes[i] * sizeof(float), cudaMemcpyDeviceToHost) != cudaSuccess) return -4;
    cudaFree(device[i]);
  }
  return error;
}
"""


def build(model: Workload | Learner, folder: Path, command: Sequence[str]) -> ctypes.CDLL:
    program = kernels_of(model)
    source = COMMON
    for name, text in cuda.emit(model, "model").items():
        (folder / name).write_text(text)
    for group in ("predict", "step"):
        names = arguments(program, group)
        sizes = ", ".join(f"MODEL_{name.upper()}" for name in names)
        source += f"static const int {group}_sizes[] = {{{sizes}}};"
        given = ", ".join(f"p[{i}]" for i in range(len(names)))
        source += WRAPPER.format(group=group, arguments=given, count=len(names))
    (folder / "wrapper.cu").write_text(source)
    done = subprocess.run([*command, "-o", "model.so"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "model.so"))


def build_for_cpu(model: Workload | Learner, folder: Path) -> ctypes.CDLL:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", f"-I{SHIM}", "-x", "c++"]
    return build(model, folder, ["g++", *flags, "model.cu", "wrapper.cu"])


def build_for_gpu(model: Workload | Learner, folder: Path) -> ctypes.CDLL:
    for needed in ("nvcc", "nvidia-smi"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is missing: it needs CUDA's toolkit and a GPU")
    return build(
        model, folder, ["nvcc", "-O3", "-shared", "-Xcompiler=-fPIC", "-arch=native", "model.cu", "wrapper.cu"]
    )


def call(library: ctypes.CDLL, function: str, arrays: Sequence[np.ndarray]) -> None:
    """Call a function of the library, which changes the arrays in place."""
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    assert getattr(library, function)(pointers) == 0


def agrees(program: KernelProgram, library: ctypes.CDLL, workload: Workload, kind: str, steps: int) -> None:
    """Train side by side with the float executor, and compare to 1e-4."""
    p = [q.copy() for q in workload.initial_parameters(0)]
    p += [np.zeros(program.arrays[name].shape, np.float32) for name in program.states]
    expected: list[Any] = list(p)
    for i in range(steps):
        x, y = (np.ascontiguousarray(a) for a in workload.batch(i))
        memory = run(program, "step", dict(zip((*program.parameters, "x", "y"), (*expected, x, y), strict=True)))
        expected = [memory[name] for name in program.parameters]
        call(library, f"{kind}_step", [*p, x.copy(), y.copy()])
    for a, b in zip(p, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())
    found = np.zeros(program.arrays["yhat"].shape, np.float32)
    trained = dict(zip(program.parameters, p, strict=True))
    given = [trained[name] for name in program.parameters if name not in program.states]
    call(library, f"{kind}_predict", [*given, x, found])
    memory = run(program, "predict", {**trained, "x": x})
    np.testing.assert_allclose(found, memory["yhat"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [
        ("iris-hidden", "plain", 100),
        ("iris-hidden", "graph", 10),
        ("digits-mlp", "plain", 5),
        ("digits-relu", "plain", 2),
        ("digits-conv", "plain", 2),
    ],
)
def test_kernels_agree_with_numpy_on_the_cpu(tmp_path: Path, name: str, kind: str, steps: int) -> None:
    workload = load_workload(name)
    agrees(kernels_of(workload), build_for_cpu(workload, tmp_path), workload, kind, steps)


def test_what_is_timed_trains_too(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    workload = load_workload("iris-hidden")
    for name, text in cuda_loop(workload).items():
        (tmp_path / name).write_text(text)
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", f"-I{SHIM}", "-x", "c++"]
    command = ["g++", *flags, "model.cu", "loop.cu", "-o", "loop.so"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(tmp_path / "loop.so"))
    p, data = list(workload.initial_parameters(0)), [np.ascontiguousarray(a) for a in workload.batch(0)]
    found = [q.copy() for q in p]
    pointers = (ctypes.c_void_p * 6)(*(a.ctypes.data for a in (*found, *data)))
    for count in (2, 1):  # the second call goes on where the first one stopped
        assert library.loop(count, pointers) == 0
    program = kernels_of(workload)
    for _ in range(3):
        memory = run(program, "step", dict(zip((*program.parameters, "x", "y"), (*p, *data), strict=True)))
        p = [memory[name] for name in program.parameters]
    for a, b in zip(found, p, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@settings(max_examples=6, deadline=None, phases=[Phase.generate], derandomize=True)
@given(learners())
def test_random_models_agree_on_the_cpu(tmp_path_factory: pytest.TempPathFactory, net: Learner) -> None:
    program = kernels_of(net)
    library = build_for_cpu(net, tmp_path_factory.mktemp("cuda"))
    arrays = {name: values.astype(np.float32) for name, values in random_arrays(graph_of(net)).items()}
    for group in ("predict", "step"):
        names = arguments(program, group)
        found = [np.array(arrays.get(n, np.zeros(program.arrays[n].shape, np.float32)), order="C") for n in names]
        call(library, f"plain_{group}", found)
        expected = run(program, group, {name: arrays[name] for name in names if name in arrays})
        for name, a in zip(names, found, strict=True):
            b = expected[name]
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * (1 + np.abs(b).max(initial=0)))


def test_a_step_without_kernels_changes_nothing(tmp_path: Path) -> None:
    from catgrad_hw import Dtype, NdArrayType, layers
    from catgrad_hw.compile import learner

    B, A, C = (NdArrayType((size,), Dtype.float32) for size in (2, 3, 4))
    net = learner(layers.linear(B, A, C), layers.sgd(0.0), layers.mse)
    assert not kernels_of(net).programs["step"]
    library = build_for_cpu(net, tmp_path)
    for kind in ("plain", "graph"):
        arrays = [np.ones(shape, np.float32) for shape in ((3, 4), (2, 3), (2, 4))]
        call(library, f"{kind}_step", arrays)
        assert (arrays[0] == 1).all()


def test_a_large_model_is_launched_phase_by_phase() -> None:
    from catgrad_hw import Dtype, NdArrayType, layers
    from catgrad_hw.compile import learner

    B, A, C = (NdArrayType((size,), Dtype.float32) for size in (2, 1100, 1000))
    source = cuda.emit(learner(layers.linear(B, A, C), layers.sgd(0.5), layers.mse), "large")["large.cu"]
    launches = re.findall(r"cudaLaunchKernel\((\w+), dim3\((\d+)\)", source)
    outputs, weights = (
        2 * 1000 * 32 // 256,
        -(-1100 * 1000 // 256),
    )  # 32 threads sum 1100 terms, one 2
    assert launches == [("step_launch_1", str(outputs)), ("step_launch_2", str(weights))]
    assert "cudaLaunchCooperativeKernel(predict_whole" in source  # predict has but 2000 points


@pytest.mark.parametrize("name", ["iris-hidden", "digits-relu", "digits-conv"])
def test_nvcc_compiles_for_two_architectures_without_warnings(tmp_path: Path, name: str) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    for file, text in cuda.emit(load_workload(name), "model").items():
        (tmp_path / file).write_text(text)
    architectures = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in cuda.ARCHITECTURES]
    command = ["nvcc", "-O1", *architectures, "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]
    done = subprocess.run([*command, "-c", "model.cu"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["plain", "graph"])
@pytest.mark.parametrize("name", ["iris-hidden", "digits-mlp", "mlp-784-64-10"])
def test_kernels_agree_with_numpy_on_a_gpu(tmp_path: Path, name: str, kind: str) -> None:
    workload = load_workload(name)
    agrees(kernels_of(workload), build_for_gpu(workload, tmp_path), workload, kind, 100)


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer_finds_nothing(tmp_path: Path, tool: str) -> None:
    for needed in ("nvcc", "nvidia-smi", "compute-sanitizer"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is missing: it needs CUDA's toolkit and a GPU")
    for name, text in cuda.emit(load_workload("iris-hidden"), "iris_hidden").items():
        (tmp_path / name).write_text(text)
    example = ROOT / "examples" / "iris.cu"
    command = ["nvcc", "-O1", "-lineinfo", "-arch=native", "-I.", str(example), "iris_hidden.cu", "-o", "iris"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check = ["compute-sanitizer", f"--tool={tool}", "--error-exitcode=1"]
    data = ROOT / "catgrad_hw" / "workloads" / "iris.csv"
    done = subprocess.run([*check, "./iris", str(data), "3"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
