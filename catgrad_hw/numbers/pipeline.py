"""From a workload to its integer program, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.kernel import KernelProgram
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import Dtype
from catgrad_hw.ir.windows import Fold
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
    graph = simplify(joint_graph(workload.learner))
    require_hardware(graph)
    kernels = lower(graph)

    def calibrated(step: int) -> None:
        if progress is not None:
            progress("calibrate", step, calibration_steps)

    ranges = calibrate(kernels, workload, calibration_steps, after_step=calibrated)
    integer = quantize(kernels, ranges, chosen)
    return Quantized(kernels, ranges, integer, tuple(advice(kernels, ranges, integer)))


USED_BY = {
    ops.Select: "relu, leaky_relu and huber use it",
    ops.Exp: "softmax and cross_entropy use it",
    ops.Sqrt: "layer_norm and adam use it",
    ops.NMax: "pooling and softmax use it",
    ops.Tanh: "tanh uses it",
}
"""Where users meet operations that hardware lacks."""

LACKING = (ops.Divide, ops.Gt, ops.Invert, ops.Log, ops.Power, ops.TanhDerivative, Fold, *USED_BY)
"""Operations that have kernels, but no hardware."""


def require_hardware(graph: Graph) -> None:
    """Raise :class:`UnsupportedError` for what the hardware lacks, by the name that the model gives it."""
    roles = [i.role for i in graph.inputs]
    if "state" in roles:
        raise UnsupportedError(
            "hardware: expected an optimizer without state, found one that keeps "
            f"{roles.count('state')} arrays from step to step; use layers.sgd, or a software target"
        )
    if "rate" in roles:
        raise UnsupportedError(
            "hardware: expected a learning rate that is a constant, found one that is an argument of step; give "
            "layers.sgd a number, or use a software target"
        )
    for T in graph.types:
        if T.dtype is not Dtype.float32:
            raise UnsupportedError(
                f"hardware: expected float32, for which number formats are chosen, found {T}; change the dtype, or use "
                "a software target"
            )
    for node in graph.needed(["predict", "step"]):
        if isinstance(node.operation, LACKING):
            name, hint = type(node.operation).__name__, USED_BY.get(type(node.operation))
            raise UnsupportedError(
                f"{name}: expected an operation that hardware has, found it with result "
                f"{node.operation.target()[0]}{f' ({hint})' if hint else ''}; use sigmoid and mse, or a software target"
            )
