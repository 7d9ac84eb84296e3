"""Time a training step of every target side by side, in turn, each on one thread.

The targets run in a process of their own (:func:`bench`), since the number of threads of NumPy's matrix products is
fixed when NumPy is imported. In each round every target does as many steps as fill the same time; its time for a step
is that of the best round. Rounds are shorter than what a busy machine gives a process at a time, so that the best one
is undisturbed by other work.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import CatgradError, ModelError, ToolError, UnsupportedError
from catgrad_hw.importers import import_catgrad
from catgrad_hw.targets import c, cuda
from catgrad_hw.targets.build import FLAGS, build_library
from catgrad_hw.targets.clike import arguments
from catgrad_hw.targets.engine import FastReference
from catgrad_hw.targets.project import kernels_of
from catgrad_hw.targets.registry import TARGETS
from catgrad_hw.workload import Workload, load_workload

ROUNDS = 250
SECONDS = 0.002
"""Of one target in one round."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

Steps = Callable[[int], object]
"""Does a number of steps."""


@dataclass(frozen=True)
class Timing:
    """Seconds of a step of a target, or ``reason``, why it was left out."""

    target: str
    seconds: float | None
    reason: str = ""


def bench(models: Sequence[str], targets: Sequence[str]) -> dict[str, list[Timing]]:
    """The timings of each model, by its name, measured in a process with one thread for each library."""
    command = [sys.executable, "-m", "catgrad_hw.bench", json.dumps(models), json.dumps(targets)]
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CatgradError("bench: expected the measuring process to end well, found that it failed; see above")
    found = json.loads(done.stdout)
    return {model: [Timing(*row) for row in rows] for model, rows in found.items()}


def measure(workload: Workload, targets: Sequence[str]) -> list[Timing]:
    """The timings of one workload in this process."""
    ready: dict[str, Steps] = {}
    result: dict[str, Timing] = {}
    for target in targets:
        try:
            ready[target] = CONTENDERS[target](workload)
            ready[target](1)
        except (UnsupportedError, ModelError, ToolError, ImportError) as error:
            result[target] = Timing(target, None, " ".join(str(error).split()))
    counts = {target: _count(steps) for target, steps in ready.items()}
    best = dict.fromkeys(ready, float("inf"))
    for _ in range(ROUNDS):
        for target, steps in ready.items():
            best[target] = min(best[target], _time(steps, counts[target]) / counts[target])
    result |= {target: Timing(target, seconds) for target, seconds in best.items()}
    return [result[target] for target in targets]


def _time(steps: Steps, count: int) -> float:
    start = time.perf_counter()
    steps(count)
    return time.perf_counter() - start


def _count(steps: Steps) -> int:
    count = 1
    while (seconds := _time(steps, count)) < SECONDS / 10:
        count *= 2
    return max(1, round(count * SECONDS / seconds))


# --- contenders -------------------------------------------------------------------------------------------------


def _module(workload: Workload, target: str) -> Any:
    module = types.ModuleType(f"emitted_{target}")
    sys.modules[module.__name__] = module  # torch.compile looks a function's module up by its name
    exec(compile(TARGETS[target].emit(workload, "model")["model.py"], "model.py", "exec"), module.__dict__)
    return module


def _loop(step: Callable[..., Sequence[Any]], parameters: Sequence[Any], data: Sequence[Any]) -> Steps:
    """Steps on one batch, each from the parameters that the one before it left."""

    def steps(count: int) -> None:
        p = list(parameters)
        for _ in range(count):
            p = list(step(*p, *data))

    return steps


def _numpy(workload: Workload) -> Steps:
    return _loop(_module(workload, "numpy").step, workload.initial_parameters(), workload.batch(0))


def _dense(workload: Workload, contender: str) -> tuple[Callable[..., list[NDArray[Any]]], np.float32]:
    """Backpropagation through dense layers with σ, as one writes it with NumPy by hand, and the learning rate.

    It is checked against the target. Raises :class:`UnsupportedError` for another model.
    """
    shapes = workload.parameter_shapes
    layers = len(shapes) // 2
    if not layers or any(len(shapes[2 * i]) != 2 or len(shapes[2 * i + 1]) != 1 for i in range(layers)):
        raise UnsupportedError(f"{contender}: expected dense layers with biases, found another model")
    p, data = workload.initial_parameters(), workload.batch(0)
    expected = _module(workload, "numpy").step(*p, *data)
    gradients = _gradients(p, *data)  # the target's step tells the learning rate
    rate = np.float32(np.vdot(p[0] - expected[0], gradients[0]) / np.vdot(gradients[0], gradients[0]))

    def step(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        q, (x, y) = arrays[:-2], arrays[-2:]
        return [a - rate * g for a, g in zip(q, _gradients(q, x, y), strict=True)]

    if not all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(step(*p, *data), expected, strict=True)):
        raise UnsupportedError(f"{contender}: expected sigmoids, squared error and plain descent, found another model")
    return step, rate


def _by_hand(workload: Workload) -> Steps:
    return _loop(_dense(workload, "by-hand")[0], workload.initial_parameters(), workload.batch(0))


def _catgrad(workload: Workload) -> Steps:
    """catgrad 0.2's own step of the model's layers, whose biases are one for each sample."""
    catgrad = import_catgrad()
    from catgrad.target.python.array_backend import Numpy

    _, rate = _dense(workload, "catgrad")
    p, (x, y) = workload.initial_parameters(), workload.batch(0)
    batch, *widths = (
        catgrad.NdArrayType((n,), catgrad.Dtype.float32) for n in (len(x), *(len(b) for b in p[::2]), len(p[-1]))
    )
    parts = [catgrad.layers.dense(batch, i, o) for i, o in pairwise(widths)]
    compiled, _, _ = catgrad.compile_model(
        reduce(lambda f, g: f >> g, parts), catgrad.layers.sgd(float(rate)), catgrad.layers.mse
    )
    start = [a if i % 2 == 0 else np.tile(a, (len(x), 1)) for i, a in enumerate(p)]
    return _loop(compiled(Numpy).step, start, (x, y))


def _gradients(p: Sequence[NDArray[Any]], x: NDArray[Any], y: NDArray[Any]) -> list[NDArray[Any]]:
    activations = [x]
    for i in range(0, len(p), 2):
        activations.append(1 / (1 + np.exp(-(activations[-1] @ p[i] + p[i + 1]))))
    delta = activations[-1] - y
    gradients: list[NDArray[Any]] = []
    for i in reversed(range(0, len(p), 2)):
        a = activations[i // 2 + 1]
        delta = delta * a * (1 - a)
        gradients = [activations[i // 2].T @ delta, delta.sum(axis=0), *gradients]
        if i:
            delta = delta @ p[i].T
    return gradients


def _torch(workload: Workload) -> Steps:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
    torch.set_num_threads(1)
    start, batch = workload.initial_parameters(), workload.batch(0)
    p, data = ([torch.from_numpy(a.copy()) for a in arrays] for arrays in (start, batch))
    return _loop(_module(workload, "torch").step, p, data)


def _torch_cuda(workload: Workload) -> Steps:
    """The emitted step on the GPU, as it is."""
    step, p, data, torch = _on_gpu(workload)
    steps = _loop(step, p, data)

    def finished(count: int) -> None:
        steps(count)
        torch.cuda.synchronize()

    return finished


def _torch_cuda_compiled(workload: Workload) -> Steps:
    """The emitted step compiled by torch, parameters changed in place, captured as a CUDA graph and replayed.

    Of torch's own ways the fastest: ``mode="reduce-overhead"`` captures, too, but copies the parameters at each step.
    """
    step, p, data, torch = _on_gpu(workload)

    def update() -> None:
        for a, b in zip(p, step(*p, *data), strict=True):
            a.copy_(b)

    in_place = torch.compile(update)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what compiles and warms up is not to be captured
        for _ in range(3):
            in_place()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        in_place()

    def steps(count: int) -> None:
        for _ in range(count):
            graph.replay()
        torch.cuda.synchronize()

    return steps


def _on_gpu(workload: Workload) -> tuple[Callable[..., Sequence[Any]], list[Any], list[Any], Any]:
    """The emitted step, parameters and a batch on the GPU, and torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
    if not torch.cuda.is_available():
        raise ToolError("torch: expected a GPU, found none")
    start, batch = workload.initial_parameters(), workload.batch(0)
    p, data = ([torch.from_numpy(a.copy()).cuda() for a in arrays] for arrays in (start, batch))
    return _module(workload, "torch").step, p, data, torch


CUDA_LOOP = """\
#include "model.h"
static float *device[64];
static model_scratch *scratch;
static cudaStream_t stream;
static cudaGraphExec_t graph;
static int prepare(float **host, const int *sizes, int arrays) {{
  int error = cudaMalloc(&scratch, sizeof *scratch);
  if (error == 0) error = cudaStreamCreate(&stream);
  for (int i = 0; error == 0 && i < arrays; i++) {{
    error = cudaMalloc(&device[i], sizes[i] * sizeof(float));
    if (error == 0) error = cudaMemcpy(device[i], host[i], sizes[i] * sizeof(float), cudaMemcpyHostToDevice);
  }}
  return error;
}}
extern "C" int loop(int count, float **host) {{
  static const int sizes[] = {{{sizes}}};
  static int ready = 0;
  int error = 0;
  if (!ready) {{
    error = prepare(host, sizes, {arrays});
    float **p = device;
    if (error == 0) error = model_step_graph({arguments}, scratch, stream, &graph);
    ready = 1;
  }}
  for (int step = 0; error == 0 && step < count; step++)
    error = cudaGraphLaunch(graph, stream);
  if (error == 0) error = cudaStreamSynchronize(stream);
  for (int i = 0; error == 0 && i < {parameters}; i++)
    error = cudaMemcpy(host[i], device[i], sizes[i] * sizeof(float), cudaMemcpyDeviceToHost);
  return error;
}}
"""


def cuda_loop(workload: Workload) -> dict[str, str]:
    """The emitted CUDA, and ``loop``, which does a number of steps on the GPU's own copies of arrays."""
    program = kernels_of(workload)
    names = arguments(program, "step")
    source = CUDA_LOOP.format(
        sizes=", ".join(f"MODEL_{name.upper()}" for name in names),
        arrays=len(names),
        arguments=", ".join(f"p[{i}]" for i in range(len(names))),
        parameters=len(program.parameters),
    )
    return {**cuda.emit(workload, "model"), "loop.cu": source}


def _cuda(workload: Workload) -> Steps:
    for tool in ("nvcc", "nvidia-smi"):
        if shutil.which(tool) is None:
            raise ToolError(f"cuda: expected {tool}, found none; install the CUDA toolkit, on a machine with a GPU")
    with tempfile.TemporaryDirectory(prefix="catgrad_hw_") as folder:
        for name, text in cuda_loop(workload).items():
            Path(folder, name).write_text(text)
        command = ["nvcc", "-O3", "-shared", "-Xcompiler=-fPIC", "-arch=native", "model.cu", "loop.cu", "-o", "loop.so"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"cuda: expected nvcc to compile, found: {done.stderr.strip()}")
        library = ctypes.CDLL(str(Path(folder, "loop.so")))
    arrays = [a.copy() for a in (*workload.initial_parameters(), *workload.batch(0))]
    pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))

    def steps(count: int, kept: object = arrays) -> None:  # the arrays live as long as the function
        error = library.loop(count, pointers)
        if error:
            raise ToolError(f"cuda: expected steps on the GPU, found CUDA's error {error}")

    return steps


def _tinygrad(workload: Workload) -> Steps:
    from tinygrad import Tensor, TinyJit  # type: ignore[attr-defined,unused-ignore]

    module = _module(workload, "tinygrad")
    jitted = TinyJit(lambda *arrays: [q.contiguous().realize() for q in module.step(*arrays)])
    start, batch = workload.initial_parameters(), workload.batch(0)
    p, data = ([Tensor(a.copy()).realize() for a in arrays] for arrays in (start, batch))

    def steps(count: int) -> None:
        q = p
        for _ in range(count):
            q = [Tensor(a.numpy()).realize() for a in jitted(*q, *data)]

    steps(3)  # TinyJit runs twice before it replays
    return steps


def _c(workload: Workload) -> Steps:
    files, names = c.emit(workload, "model"), arguments(kernels_of(workload), "step")
    head = ", ".join(f"float *{name}" for name in names)
    files["loop.c"] = f"""\
#include "model.h"
void loop(int count, {head}) {{
  static struct model_scratch scratch;
  for (int i = 0; i < count; i++)
    model_step({", ".join(names)}, &scratch);
}}
"""
    library = build_library(files, FLAGS)
    arrays = [a.copy() for a in (*workload.initial_parameters(), *workload.batch(0))]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]

    def steps(count: int, kept: object = arrays) -> object:  # the arrays live as long as the function
        return library.loop(count, *pointers)

    return steps


def _c_fixed(workload: Workload) -> Steps:
    from catgrad_hw.numbers.pipeline import quantize_workload

    machine = FastReference(quantize_workload(workload, calibration_steps=100).integer)
    machine.load(workload.initial_parameters())
    x, y = (machine.words_of(n, a) for n, a in zip(("x", "y"), workload.batch(0), strict=True))
    machine.step(x, y)
    return machine.repeat


CONTENDERS: dict[str, Callable[[Workload], Steps]] = {
    "numpy": _numpy,
    "by-hand": _by_hand,
    "catgrad": _catgrad,
    "torch": _torch,
    "tinygrad": _tinygrad,
    "c": _c,
    "c-fixed": _c_fixed,
    "cuda": _cuda,
    "torch-cuda": _torch_cuda,
    "torch-cuda-compiled": _torch_cuda_compiled,
}
"""What is timed: targets, NumPy as one writes it by hand, and catgrad 0.2."""


def main() -> None:
    models, targets = map(json.loads, sys.argv[1:])
    rows = {}
    for model in models:
        timings = measure(load_workload(model), targets)
        rows[model] = [(t.target, t.seconds, t.reason) for t in timings]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
