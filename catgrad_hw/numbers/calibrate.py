"""Calibration: the largest magnitude of every tensor over a full float run.

It depends on the workload alone, never on lanes, tiles or memory. Ranges of the first few iterations don't do:
weights, and with them everything else, grow later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import ModelError
from catgrad_hw.ir.kernel import Expression, Kernel, KernelProgram, Reduced
from catgrad_hw.ir.kernel_run import Executor
from catgrad_hw.workload import Floats, Workload

CALIBRATION_STEPS = 1000


Computation: TypeAlias = tuple[tuple[int, ...], int, Expression, str | None]
"""The sizes of a kernel's loops, how many are reduced, its body and its reduction."""


def computation(kernel: Kernel) -> Computation:
    """What the reduced value depends on: equal for the forward kernels of ``step`` and of ``predict``."""
    return tuple(loop.size for loop in kernel.loops), kernel.reduced, kernel.body, kernel.reduction


@dataclass
class Ranges:
    """Largest magnitudes.

    ``arrays``: of each array. ``epilogues``: of each expression of an epilogue, by the computation of what it
    reduces; programs that compute the same share one range, and so one format. ``side_sums``: of the i-th side sum
    of a kernel, by its name and i.
    """

    arrays: dict[str, float] = field(default_factory=dict)
    epilogues: dict[tuple[Computation, Expression], float] = field(default_factory=dict)
    side_sums: dict[tuple[str, int], float] = field(default_factory=dict)

    def of(self, kernel: Kernel, expression: Expression) -> float:
        """The largest magnitude of an expression in the epilogue of ``kernel``; 0 where none was seen."""
        return self.epilogues.get((computation(kernel), expression), 0.0)


def calibrate(
    program: KernelProgram,
    workload: Workload,
    steps: int = CALIBRATION_STEPS,
    seed: int = 0,
    after_step: Callable[[int], None] | None = None,
) -> Ranges:
    """The ranges of a float run of ``steps`` steps from the parameters that ``seed`` gives.

    ``predict`` runs beside every ``step``, and at the end over all data, held-out data too. ``after_step`` is called
    with the number of steps done. Raises :class:`ModelError` where training diverges.
    """
    ranges = Ranges()
    # By identity, and size where it tells a sum from what it sums: hashing an expression takes longer than running it.
    seen: dict[tuple[int, int, int], float] = {}
    sources: dict[tuple[int, int, int], tuple[Kernel, Expression]] = {}

    def observe(kernel: Kernel, expression: Expression, values: NDArray[Any]) -> None:
        key = id(kernel), id(expression), values.size
        if key not in seen:
            sources[key] = kernel, expression
        _widen(seen, key, values)

    def see(memory: dict[str, NDArray[Any]]) -> None:
        for name, values in memory.items():
            _widen(ranges.arrays, name, values)

    parameters = initial_state(program, workload, seed)
    # An array that no program writes (all of training may be dead) still has a range.
    see(dict(zip(program.parameters, parameters, strict=True)))
    given = (*program.parameters, program.inputs[0])
    predict = Executor(program, "predict", given, np.float32, observe)
    train = Executor(program, "step", (*given, program.targets[0]), np.float32, observe)
    for step in range(steps):
        x, y = workload.batch(step)
        see(predict.run(_arguments(program, parameters, x)))
        memory = train.run(_arguments(program, parameters, x, y))
        see(memory)
        parameters = tuple(memory[name] for name in program.parameters)
        if not all(np.isfinite(p).all() for p in parameters):
            raise ModelError(
                f"calibrate {workload.name}: expected float training to converge, found a parameter that is not "
                f"finite after step {step + 1}; lower the learning rate or scale the data"
            )
        if after_step is not None:
            after_step(step + 1)
    for x, y in (workload.x, workload.y), *([workload.heldout] if workload.heldout else []):
        _widen(ranges.arrays, program.inputs[0], x)
        _widen(ranges.arrays, program.targets[0], y)
        for rows, _ in batches(x, workload.batch_size):
            see(predict.run(_arguments(program, parameters, rows)))
    for key, largest in seen.items():
        _keep(ranges, *sources[key], key[2], largest)
    return ranges


def _keep(ranges: Ranges, kernel: Kernel, expression: Expression, size: int, largest: float) -> None:
    """Put the largest magnitude of ``size`` values of an expression where it belongs."""
    kept = kernel.loops[: len(kernel.loops) - kernel.reduced]
    if not isinstance(expression, Reduced) or size == prod(loop.size for loop in kept):
        _raise(ranges.epilogues, (computation(kernel), expression), largest)
        return
    for i, side in enumerate(kernel.side_sums):
        if size == prod(loop.size for loop in kept if loop.name not in side.over):
            _raise(ranges.side_sums, (kernel.name, i), largest)


def initial_state(program: KernelProgram, workload: Workload, seed: int) -> tuple[Floats, ...]:
    """The parameters that training starts from, then the optimizer's state: zeros."""
    zeros = (np.zeros(program.arrays[name].shape, np.float32) for name in program.states)
    return (*workload.initial_parameters(seed), *zeros)


def float_training(
    program: KernelProgram,
    workload: Workload,
    steps: int,
    seed: int,
    after_step: Callable[[int, tuple[Floats, ...]], None],
) -> tuple[Floats, ...]:
    """Train in float32 and return the parameters, the optimizer's state among them; ``after_step`` is called with the
    step (from 1) and parameters."""
    parameters = initial_state(program, workload, seed)
    train = Executor(program, "step", (*program.parameters, program.inputs[0], program.targets[0]), np.float32)
    for step in range(steps):
        memory = train.run(_arguments(program, parameters, *workload.batch(step)))
        parameters = tuple(memory[name].copy() for name in program.parameters)
        after_step(step + 1, parameters)
    return parameters


def float_predictions(program: KernelProgram, parameters: tuple[Floats, ...], x: Floats) -> Floats:
    """What the float model says of all rows of ``x``."""
    predict = Executor(program, "predict", (*program.parameters, program.inputs[0]), np.float32)
    parts = [
        predict.run(_arguments(program, parameters, rows))[program.outputs[0]][:valid].copy()
        for rows, valid in batches(x, program.batch)
    ]
    return np.concatenate(parts)


def batches(x: NDArray[Any], size: int) -> Iterator[tuple[NDArray[Any], int]]:
    """All rows of ``x`` in batches of ``size``, with the number of rows that are data: the last is filled with 0."""
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        valid = len(rows)
        if valid < size:
            rows = np.concatenate([rows, np.zeros((size - valid, *rows.shape[1:]), rows.dtype)])
        yield rows, valid


def _arguments(
    program: KernelProgram, parameters: tuple[Floats, ...], x: Floats, y: Floats | None = None
) -> dict[str, Floats]:
    arguments = dict(zip(program.parameters, parameters, strict=True))
    arguments[program.inputs[0]] = x
    if y is not None:
        arguments[program.targets[0]] = y
    return arguments


def _widen(ranges: dict[Any, float], key: Any, values: NDArray[Any]) -> None:
    _raise(ranges, key, float(np.maximum.reduce(np.abs(values), axis=None, initial=0.0)))


def _raise(ranges: dict[Any, float], key: Any, largest: float) -> None:
    if largest > ranges.get(key, -1.0):
        ranges[key] = largest
