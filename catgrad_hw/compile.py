"""From a model to the functions that run and train it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.combinators import Canonical
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.hypergraph import Flat, OpenHypergraph, identity
from catgrad_hw.ir.operations import Parameter, discard, to_core
from catgrad_hw.ir.optics import optic, rdiff
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import Object
from catgrad_hw.targets.python import python_class

# The functions of a compiled model, and the role of what each takes after parameters and inputs.
GROUPS = {"predict": None, "step": "target", "rev": "cotangent", "rev_p": "cotangent"}


@dataclass(frozen=True)
class Learner:
    """A model with its optimizer and loss, as diagrams of core operations (arXiv 2103.01931).

    For parameters P, inputs X and outputs Y: ``predict : P ● X → Y``; ``step : P ● X ● Y → P``, the parameters after
    one step of training; ``rev : P ● X ● Y → P ● X`` and ``rev_p : P ● X ● Y → P``, gradients for a cotangent in Y.
    """

    predict: OpenHypergraph
    step: OpenHypergraph
    rev: OpenHypergraph
    rev_p: OpenHypergraph
    parameter_types: Object
    input_types: Object
    output_types: Object


def factor_parameters(model: OpenHypergraph) -> tuple[Object, OpenHypergraph]:
    """Turn the parameters inside ``model : X → Y`` into inputs: their types P, in order, and ``P ● X → Y``."""
    flat = model.flat
    inside = [edge for edge in flat.edges if isinstance(edge.operation, Parameter)]
    edges = tuple(edge for edge in flat.edges if not isinstance(edge.operation, Parameter))
    nodes = tuple(node for edge in inside for node in edge.targets)
    P = Object(flat.nodes[node] for node in nodes)
    return P, OpenHypergraph.from_flat(Flat(flat.nodes, edges, nodes + flat.sources, flat.targets))


def learner(model: OpenHypergraph, optimizer: Canonical, loss: Canonical) -> Learner:
    """Compile a model: reverse derivatives by optics, parameters as inputs, everything in core operations.

    ``optimizer`` and ``loss`` give a lens at each object, as :func:`catgrad_hw.layers.sgd` and
    :func:`catgrad_hw.layers.mse` do; the learner is the optic of ``(optimizer ● id) >> model >> loss``.
    """
    if not isinstance(model, OpenHypergraph):
        raise IllTypedError(
            f"compile_model: the model must be an open hypergraph, found {type(model).__name__}; "
            "build it from layers, with >> and @"
        )
    P, parametrised = factor_parameters(model)
    X, Y = model.source, model.target
    opt_P = _lens("optimizer", optimizer, P, "layers.sgd(0.01)")
    loss_Y = _lens("loss", loss, Y, "layers.mse")
    trained = (opt_P @ identity(X)) >> parametrised >> loss_Y
    step = optic(trained).adapt() >> (discard(Y) @ identity(P) @ discard(X))
    rev = rdiff(parametrised)
    return Learner(
        predict=to_core(parametrised),
        step=to_core(step),
        rev=to_core(rev),
        rev_p=to_core(rev >> (identity(P) @ discard(X))),
        parameter_types=P,
        input_types=X,
        output_types=Y,
    )


def _lens(what: str, at: Canonical, A: Object, example: str) -> OpenHypergraph:
    """The optimizer or loss at ``A``."""
    f = at(A) if callable(at) else at
    if not isinstance(f, OpenHypergraph) or f.source != A or f.target != A:
        found = f if isinstance(f, OpenHypergraph) else type(f).__name__
        raise IllTypedError(f"compile_model: the {what} must give a diagram {A} → {A}, found {found}; write {example}")
    return f


def compile_model(
    model: OpenHypergraph, optimizer: Canonical, loss: Canonical
) -> tuple[Callable[[Any], Any], Object, ast.Module]:
    """Compile a model to Python: ``CompiledModel, ParamType, source = compile_model(model, optimizer, loss)``.

    ``CompiledModel(Numpy)`` has methods ``predict(*p, x)``, ``step(*p, x, y)``, ``rev(*p, x, dy)`` and
    ``rev_p(*p, x, dy)``, which return lists of arrays and raise :class:`IllTypedError` for arguments of a wrong shape
    or dtype. ``ParamType`` lists the types of the parameters p. ``ast.unparse(source)`` is the class's text.
    """
    compiled = learner(model, optimizer, loss)
    graph = simplify(joint_graph(compiled, tuple(GROUPS)))
    arguments = {
        group: [i.name for role in ("parameter", "input", last) for i in graph.inputs if i.role == role]
        for group, last in GROUPS.items()
    }
    source = python_class("CompiledModel", graph, arguments)
    namespace: dict[str, Any] = {}
    exec(compile(source, "<compile_model>", "exec"), namespace)
    return namespace["CompiledModel"], compiled.parameter_types, source
