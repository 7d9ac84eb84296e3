"""From a workload to its integer program, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.kernel import KernelProgram
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.passes import simplify
from catgrad_hw.numbers.calibrate import CALIBRATION_STEPS, Ranges, calibrate
from catgrad_hw.numbers.formats import policy
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.quantize import advice, quantize
from catgrad_hw.workload import Workload

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Quantized:
    """A workload's float kernels, their ranges, the integer program that follows, and warnings in words."""

    kernels: KernelProgram
    ranges: Ranges
    integer: IntegerProgram
    advice: tuple[str, ...]


def quantize_workload(
    workload: Workload,
    numbers: str = "16",
    calibration_steps: int = CALIBRATION_STEPS,
    progress: Progress | None = None,
) -> Quantized:
    """Compile, calibrate and quantise; ``numbers`` names a policy (:data:`catgrad_hw.numbers.formats.POLICIES`).

    The result depends on these arguments alone: calibration starts from the parameters of seed 0, whatever the seed
    of the run that follows, so that one circuit serves all seeds.
    """
    chosen = policy(numbers)
    kernels = lower(simplify(joint_graph(workload.learner)))

    def calibrated(step: int) -> None:
        if progress is not None:
            progress("calibrate", step, calibration_steps)

    ranges = calibrate(kernels, workload, calibration_steps, after_step=calibrated)
    integer = quantize(kernels, ranges, chosen)
    return Quantized(kernels, ranges, integer, tuple(advice(kernels, ranges, integer)))
