"""From a workload to its integer program, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from catgrad_hw.ir.windows import Pad
from catgrad_hw.numbers.calibrate import CALIBRATION_STEPS, Ranges, calibrate
from catgrad_hw.numbers.formats import policy
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.quantize import advice, quantize
from catgrad_hw.numbers.reciprocals import divide_by_multiplying
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
    formats: Mapping[str, Format] | None = None,
) -> Quantized:
    """Compile, calibrate and quantise; ``numbers`` names a policy (:data:`catgrad_hw.numbers.formats.POLICIES`).
    ``formats`` overrides the formats of arrays, by name.

    The result depends on these arguments alone: calibration starts from the parameters of seed 0, whatever the seed
    of the run that follows, so that one circuit serves all seeds.
    """
    chosen = policy(numbers)
    graph = simplify(joint_graph(workload.learner))
    require_integers(graph)
    kernels = lower(simplify(divide_by_multiplying(graph)))

    def calibrated(step: int) -> None:
        if progress is not None:
            progress("calibrate", step, calibration_steps)

    ranges = calibrate(kernels, workload, calibration_steps, after_step=calibrated)
    integer = quantize(kernels, ranges, chosen, formats)
    return Quantized(kernels, ranges, integer, tuple(advice(kernels, ranges, integer)))


USED_BY: dict[type[ops.Operation], str] = {ops.Sqrt: "layer_norm and adam use it"}
"""Where users meet operations that integers lack."""

WITHOUT_INTEGERS = (ops.Gt, ops.Invert, ops.Log, ops.Power, ops.Sqrt)
"""Operations that have kernels, but no integer kernels, and so no hardware."""


def require_integers(graph: Graph) -> None:
    """Raise :class:`UnsupportedError` for what integer kernels lack, by the name that the model gives it."""
    if any(i.role == "rate" for i in graph.inputs):
        raise UnsupportedError(
            "integers: expected a learning rate that is a constant, found one that is an argument of step; give the "
            "optimizer a number, or use a software target"
        )
    for T in graph.types:
        if T.dtype is not Dtype.float32:
            raise UnsupportedError(
                f"integers: expected float32, for which number formats are chosen, found {T}; change the dtype, or use "
                "a software target"
            )
    for node in graph.needed(["predict", "step"]):
        if isinstance(node.operation, WITHOUT_INTEGERS):
            name, hint = type(node.operation).__name__, USED_BY.get(type(node.operation))
            raise UnsupportedError(
                f"{name}: expected an operation that integer kernels have, found it with result "
                f"{node.operation.target()[0]}{f' ({hint})' if hint else ''}; use sigmoid and mse, or a software target"
            )
    for node in graph.needed(["predict", "step"]):
        if isinstance(node.operation, Pad) and node.operation.value != 0:
            raise UnsupportedError(
                f"Pad: expected padding by 0, found {node.operation.value:.3g} (max_pool2d pads with it); leave the "
                "padding out, pad the convolution before it, or use a software target"
            )
