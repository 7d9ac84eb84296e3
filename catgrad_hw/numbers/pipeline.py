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
from catgrad_hw.ir.windows import Fold, Pad
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


USED_BY = {
    ops.Select: "relu, leaky_relu and huber use it",
    ops.Exp: "softmax and cross_entropy use it",
    ops.Sqrt: "layer_norm and adam use it",
    ops.NMax: "pooling and softmax use it",
    ops.Tanh: "tanh uses it",
}
"""Where users meet operations that integers or hardware lack."""

WITHOUT_INTEGERS = (ops.Gt, ops.Invert, ops.Log, ops.Power, ops.Sqrt)
"""Operations that have kernels, but no integer kernels."""

WITHOUT_HARDWARE = (
    *WITHOUT_INTEGERS,
    ops.Select,
    ops.Exp,
    ops.NMax,
    ops.FirstMaximum,
    ops.Divide,
    ops.Tanh,
    ops.TanhDerivative,
    Fold,
    Pad,
)
"""Operations that hardware does not train."""


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
    _refuse(graph, WITHOUT_INTEGERS, "integer kernels have", "a software target")
    for node in graph.needed(["predict", "step"]):
        if isinstance(node.operation, Pad) and node.operation.value != 0:
            raise UnsupportedError(
                f"Pad: expected padding by 0, found {node.operation.value:.3g} (max_pool2d pads with it); leave the "
                "padding out, pad the convolution before it, or use a software target"
            )


def require_hardware(workload: Workload) -> None:
    """Raise :class:`UnsupportedError` for what hardware does not train, by the name that the model gives it."""
    graph = simplify(joint_graph(workload.learner))
    require_integers(graph)
    states = sum(i.role == "state" for i in graph.inputs)
    if states:
        raise UnsupportedError(
            f"hardware: expected an optimizer without state, found one that keeps {states} arrays from step to step; "
            "use layers.sgd, or the target c-fixed"
        )
    _refuse(graph, WITHOUT_HARDWARE, "hardware has", "the target c-fixed")


def _refuse(graph: Graph, lacking: tuple[type[ops.Operation], ...], has: str, instead: str) -> None:
    for node in graph.needed(["predict", "step"]):
        if isinstance(node.operation, lacking):
            name, hint = type(node.operation).__name__, USED_BY.get(type(node.operation))
            raise UnsupportedError(
                f"{name}: expected an operation that {has}, found it with result "
                f"{node.operation.target()[0]}{f' ({hint})' if hint else ''}; use sigmoid and mse, or {instead}"
            )
