"""From open hypergraphs to a tensor graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.graph import Builder, Graph, Input
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import Operation, to_core
from catgrad_hw.ir.types import Object

ROLES: dict[str, tuple[str, ...]] = {
    "predict": ("parameter", "input"),
    "step": ("parameter", "state", "input", "target", "rate"),
    "rev": ("parameter", "input", "cotangent"),
    "rev_p": ("parameter", "input", "cotangent"),
}
"""The functions of a learner, and the roles of their arguments, in order."""


class Learner(Protocol):
    """What :func:`catgrad_hw.compile.learner` gives: open hypergraphs over parameters P, inputs X and outputs Y."""

    @property
    def predict(self) -> OpenHypergraph: ...
    @property
    def step(self) -> OpenHypergraph: ...
    @property
    def rev(self) -> OpenHypergraph: ...
    @property
    def rev_p(self) -> OpenHypergraph: ...
    @property
    def parameter_types(self) -> Object: ...
    @property
    def input_types(self) -> Object: ...
    @property
    def output_types(self) -> Object: ...
    @property
    def state_types(self) -> Object: ...
    @property
    def rate_types(self) -> Object: ...


def joint_graph(learner: Learner, groups: Sequence[str] = ("predict", "step")) -> Graph:
    """One graph of the functions in ``groups``, with equal nodes shared.

    Groups: ``predict : P ● X → Y``, ``step : P ● S ● X ● Y ● L → P ● S``, ``rev : P ● X ● Y' → P' ● X'`` (all
    gradients) and ``rev_p : P ● X ● Y' → P'``. Inputs are named ``p0, p1, …``, ``m0, m1, …`` (the optimizer's state),
    ``x`` (``x0, x1, …`` if there are several), ``y``, ``rate`` and, where a group needs cotangents, ``dy``.
    """
    inputs = [Input(f"p{i}", "parameter", T) for i, T in enumerate(learner.parameter_types)]
    inputs += [Input(f"m{i}", "state", T) for i, T in enumerate(learner.state_types)]
    for name, role, types in (
        ("x", "input", learner.input_types),
        ("y", "target", learner.output_types),
        ("rate", "rate", learner.rate_types),
        ("dy", "cotangent", learner.output_types),
    ):
        if role == "cotangent" and not {"rev", "rev_p"}.intersection(groups):
            continue
        inputs += [Input(name if len(types) == 1 else f"{name}{i}", role, T) for i, T in enumerate(types)]  # type: ignore[arg-type]
    arguments = {
        group: [n for role in ROLES[group] for n, i in enumerate(inputs) if i.role == role] for group in groups
    }
    builder = Builder(inputs)
    outputs: dict[str, list[int]] = {}
    for group in groups:
        if group == "rev_p" and "rev" in outputs:
            outputs[group] = outputs["rev"][: len(learner.parameter_types)]
        else:
            outputs[group] = insert(builder, getattr(learner, group), arguments[group])
    return builder.build(outputs)


def insert(builder: Builder, f: OpenHypergraph, arguments: Sequence[int]) -> list[int]:
    """Add the operations of a diagram to a graph; returns the values of its targets."""
    flat = to_core(f).flat
    values = dict(zip(flat.sources, arguments, strict=True))
    for edge in flat.schedule():
        if not isinstance(edge.operation, Operation):
            raise UnsupportedError(
                f"{edge.operation}: expected a core operation, found {type(edge.operation).__name__}; "
                "derive it from Operation"
            )
        results = builder.add(edge.operation, [values[node] for node in edge.sources])
        values.update(zip(edge.targets, results, strict=True))
    return [values[node] for node in flat.targets]
