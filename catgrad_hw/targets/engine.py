"""The integer reference at the speed of compiled C: the written c-fixed code in the place of NumPy."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from catgrad_hw.ir.kernel_check import stores
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.targets import c_fixed
from catgrad_hw.targets.build import build_library

FLAGS = ("-O3", "-march=native")


class FastReference(Reference):
    """A :class:`~catgrad_hw.numbers.reference.Reference` whose programs run as C compiled on this machine.

    The same words, saturation counts and random bits. Raises :class:`ToolError` without a C compiler.
    """

    def __init__(self, program: IntegerProgram, seed: int = 0, flags: tuple[str, ...] = FLAGS) -> None:
        super().__init__(program, seed)
        self._library = build_library(c_fixed.emit(program, "model"), flags, libraries=())
        members: list[tuple[str, Any]] = []
        for kind, name, length in c_fixed.state_members(program):
            word = getattr(ctypes, f"c_{kind.removesuffix('_t')}")
            members.append((name, word * length if length else word))
        self._state: Any = type("State", (ctypes.Structure,), {"_fields_": members})()
        kernels = program.kernels
        self._inside = {name for name, _ in members} & set(kernels.arrays)
        # Arrays that a function takes, and those that it changes.
        self._buffers = {
            name: np.zeros(words.size, c_fixed.word_type(program.formats[name]).removesuffix("_t"))
            for name, words in self._memory.items()
        }
        self._changed = {
            group: list(dict.fromkeys(access.array for kernel in each for access in stores(kernel)))
            for group, each in kernels.programs.items()
        }

    def _run(self, name: str, data: Mapping[str, ArrayLike], valid: int) -> None:
        for array, values in data.items():
            self._put(array, values)
        kernels, state = self.program.kernels, self._state
        state.seed, state.step = self.seed & 0xFFFFFFFF, self.step_number & 0xFFFFFFFF
        state.saturations[:] = [0] * len(state.saturations)
        for parameter in kernels.parameters:
            np.ctypeslib.as_array(getattr(state, parameter))[:] = self._memory[parameter]
        for array in data:
            self._buffers[array][:] = self._memory[array]
        extra = [ctypes.c_int(valid)] if name == "predict" else []
        getattr(self._library, f"model_{name}")(*self._arguments(name), *extra)
        for array in self._changed[name]:
            inside = name == "step" or array not in kernels.outputs
            source = np.ctypeslib.as_array(getattr(state, array)) if inside else self._buffers[array]
            self._memory[array][:] = source
        for counter, count in zip(self.program.counters, state.saturations, strict=False):
            self.saturations[counter] += count

    def repeat(self, count: int) -> None:
        """``count`` further steps on the batch of the last one, without copying anything: for measurements."""
        arguments = self._arguments("step")
        for _ in range(count):
            self._library.model_step(*arguments)

    def _arguments(self, name: str) -> list[Any]:
        kernels = self.program.kernels
        last = kernels.targets if name == "step" else kernels.outputs
        buffers = [ctypes.c_void_p(self._buffers[array].ctypes.data) for array in (*kernels.inputs, *last)]
        return [ctypes.byref(self._state), *buffers]
