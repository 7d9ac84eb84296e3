"""Compile the written C on this machine and call it from Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import IllTypedError, ToolError
from catgrad_hw.ir.kernel import KernelProgram
from catgrad_hw.targets import c
from catgrad_hw.targets.clike import arguments, prepare
from catgrad_hw.targets.project import Source, kernels_of

FLAGS = ("-O3", "-march=native", "-ffast-math")


def compiler(name: str | None = None) -> str:
    """The C compiler: ``name``, or the environment's CC, or the first of cc, gcc, clang; ToolError if missing."""
    candidates = [name] if name else [word for word in (os.environ.get("CC"), "cc", "gcc", "clang") if word]
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return found
    raise ToolError(f"C compiler: expected {' or '.join(candidates)}, found none; install gcc (apt install gcc)")


def build_library(
    files: Mapping[str, str], flags: Sequence[str] = FLAGS, cc: str | None = None, libraries: Sequence[str] = ("-lm",)
) -> ctypes.CDLL:
    """Compile the .c files among ``files`` (texts by name) to a shared library, and load it."""
    command = compiler(cc)
    with tempfile.TemporaryDirectory(prefix="catgrad_hw_") as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text)
        sources = sorted(name for name in files if name.endswith(".c"))
        objects = [f"{name}.o" for name in sources]
        for source, target in zip(sources, objects, strict=True):
            _run([command, "-std=c99", "-fPIC", *flags, "-c", source, "-o", target], folder)
        # Linked without the flags: under -ffast-math some linkers make all of the process flush denormals to zero.
        _run([command, "-shared", *objects, "-o", "library.so", *libraries], folder)
        return ctypes.CDLL(str(Path(folder, "library.so")))


def _run(command: Sequence[str], folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise ToolError(f"{' '.join(command)}: expected to compile, found: {lines[0]}; give a compiler of C99")


class CompiledC:
    """``predict`` and ``step`` of a model as compiled C, on NumPy arrays: see :func:`build_c`."""

    def __init__(self, program: KernelProgram, library: ctypes.CDLL, name: str) -> None:
        self.program, self._library, self._name = program, library, name
        scratch = c.scratch_arrays(prepare(program))
        words = sum(int(np.prod(program.arrays[array].shape)) + 1 for array in scratch)  # bytes may be padded
        self._scratch = np.zeros(words + 1, np.float32)

    def predict(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs for parameters and inputs, in order."""
        program = self.program
        given = self._check("predict", arguments(program, "predict")[: -len(program.outputs)], arrays)
        types = [program.arrays[name] for name in program.outputs]
        results = [np.empty(T.shape, T.dtype.value) for T in types]
        self.call("predict", [*given, *results])
        return results

    def step(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """The parameters, with the optimizer's state, after one step, for parameters, inputs and targets, in order."""
        program = self.program
        given = self._check("step", arguments(program, "step"), arrays)
        count = len(program.parameters)
        parameters = [array.copy() for array in given[:count]]
        self.call("step", [*parameters, *given[count:]])
        return parameters

    def call(self, group: str, arrays: Sequence[NDArray[Any]]) -> None:
        """Call a function on contiguous arrays, which it changes in place."""
        function = getattr(self._library, f"{self._name}_{group}")
        function(*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, self._scratch)))

    def _check(self, group: str, names: Sequence[str], arrays: Sequence[Any]) -> list[NDArray[Any]]:
        if len(arrays) != len(names):
            raise IllTypedError(f"{group}: expected {len(names)} arrays ({', '.join(names)}), found {len(arrays)}")
        result = []
        for name, values in zip(names, arrays, strict=True):
            array, shape = np.asarray(values), self.program.arrays[name].shape
            dtype = self.program.arrays[name].dtype.value
            if array.dtype != dtype or array.shape != shape:
                raise IllTypedError(
                    f"{group}: {name} must be {dtype} of shape {shape}, found {array.dtype} of shape {array.shape}; "
                    f"convert it with .astype(np.{dtype}), or compile for that shape"
                )
            result.append(np.ascontiguousarray(array))
        return result


def build_c(model: Source, flags: Sequence[str] = FLAGS, cc: str | None = None) -> CompiledC:
    """Compile a workload's or learner's float32 C code for this machine; its functions take and return arrays.

    ``predict(p0, …, x)`` returns ``[yhat]``, ``step(p0, …, x, y)`` the new parameters; arguments are not changed.
    Raises :class:`UnsupportedError` for what C does not speak, and :class:`ToolError` without a C compiler.
    """
    files = c.emit(model, "model")
    return CompiledC(kernels_of(model), build_library(files, flags, cc), "model")
