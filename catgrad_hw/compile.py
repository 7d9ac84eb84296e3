"""From a model to the functions that run and train it."""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.combinators import Canonical
from catgrad_hw.ir.from_hypergraph import ROLES, joint_graph
from catgrad_hw.ir.hypergraph import Flat, OpenHypergraph, identity, twist
from catgrad_hw.ir.operations import Parameter, discard, to_core
from catgrad_hw.ir.optics import optic, rdiff
from catgrad_hw.ir.optimizers import Optimizer
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import UNIT, Object
from catgrad_hw.targets.python import python_class


@dataclass(frozen=True)
class Learner:
    """A model with its optimizer and loss, as diagrams of core operations (arXiv 2103.01931).

    For parameters P, inputs X and outputs Y: ``predict : P ● X → Y``; ``step : P ● S ● X ● Y ● L → P ● S``, the
    parameters and the optimizer's state S after one step of training; ``rev : P ● X ● Y → P ● X`` and
    ``rev_p : P ● X ● Y → P``, gradients for a cotangent in Y. L is the learning rate where that is an argument, else
    nothing.
    """

    predict: OpenHypergraph
    step: OpenHypergraph
    rev: OpenHypergraph
    rev_p: OpenHypergraph
    parameter_types: Object
    input_types: Object
    output_types: Object
    state_types: Object = UNIT
    rate_types: Object = UNIT


def factor_parameters(model: OpenHypergraph) -> tuple[Object, OpenHypergraph]:
    """Turn the parameters inside ``model : X → Y`` into inputs: their types P, in order, and ``P ● X → Y``."""
    flat = model.flat
    inside = [edge for edge in flat.edges if isinstance(edge.operation, Parameter)]
    edges = tuple(edge for edge in flat.edges if not isinstance(edge.operation, Parameter))
    nodes = tuple(node for edge in inside for node in edge.targets)
    P = Object(flat.nodes[node] for node in nodes)
    return P, OpenHypergraph.from_flat(Flat(flat.nodes, edges, nodes + flat.sources, flat.targets))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave the collection of cyclic garbage out: what is built here lives on, and visiting it again and again makes
    the time for deep models grow faster than they do."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_collection()
def learner(model: OpenHypergraph, optimizer: Canonical, loss: Canonical) -> Learner:
    """Compile a model: reverse derivatives by optics, parameters as inputs, everything in core operations.

    ``optimizer`` and ``loss`` give a lens at each object, as :func:`catgrad_hw.layers.sgd` and
    :func:`catgrad_hw.layers.mse` do; the learner is the optic of ``(optimizer ● id) >> model >> loss``. An
    :class:`~catgrad_hw.ir.optimizers.Optimizer` may have state, and the learning rate as an argument.
    """
    if not isinstance(model, OpenHypergraph):
        raise IllTypedError(
            f"compile_model: the model must be an open hypergraph, found {type(model).__name__}; "
            "build it from layers, with >> and @"
        )
    P, parametrised = factor_parameters(model)
    X, Y = model.source, model.target
    S, L = (optimizer.state(P), optimizer.rate) if isinstance(optimizer, Optimizer) else (UNIT, UNIT)
    opt_P = _lens("optimizer", optimizer, P + S + L, P, "layers.sgd(0.01)")
    loss_Y = _lens("loss", loss, Y, Y, "layers.mse")
    trained = (opt_P @ identity(X)) >> parametrised >> loss_Y
    step = optic(trained).adapt() >> (discard(Y) @ identity(P + S) @ discard(L + X))
    step = (identity(P + S) @ twist(X + Y, L)) >> step
    rev = to_core(rdiff(parametrised))
    return Learner(
        predict=to_core(parametrised),
        step=to_core(step),
        rev=rev,
        rev_p=rev >> (identity(P) @ discard(X)),
        parameter_types=P,
        input_types=X,
        output_types=Y,
        state_types=S,
        rate_types=L,
    )


def _lens(what: str, at: Canonical, A: Object, B: Object, example: str) -> OpenHypergraph:
    """The optimizer or loss, a diagram ``A → B``."""
    f = at(B) if callable(at) else at
    if not isinstance(f, OpenHypergraph) or f.source != A or f.target != B:
        found = f if isinstance(f, OpenHypergraph) else type(f).__name__
        raise IllTypedError(f"compile_model: the {what} must give a diagram {A} → {B}, found {found}; write {example}")
    return f


@_no_collection()
def compile_model(
    model: OpenHypergraph, optimizer: Canonical, loss: Canonical
) -> tuple[Callable[[Any], Any], Object, ast.Module]:
    """Compile a model to Python: ``CompiledModel, ParamType, source = compile_model(model, optimizer, loss)``.

    ``CompiledModel(Numpy)`` has methods ``predict(*p, x)``, ``step(*p, x, y)``, ``rev(*p, x, dy)`` and
    ``rev_p(*p, x, dy)``, which return lists of arrays and raise :class:`IllTypedError` for arguments of a wrong shape
    or dtype. ``ParamType`` lists the types of the parameters p. ``ast.unparse(source)`` is the class's text.
    Floating-point operations are those of the model, so that numbers are catgrad's to the last bit where the model is.

    Where the optimizer has state s, ``step(*p, *s, x, y)`` returns ``[*p, *s]``; ``CompiledModel.StateType`` lists the
    types of s, which starts at zeros. A learning rate that is an argument comes last: ``step(*p, x, y, rate)``.
    """
    compiled = learner(model, optimizer, loss)
    graph = simplify(joint_graph(compiled, tuple(ROLES)), keep_rounding=True)
    arguments = {
        group: [i.name for role in roles for i in graph.inputs if i.role == role] for group, roles in ROLES.items()
    }
    source = python_class("CompiledModel", graph, arguments)
    defined = source.define("CompiledModel", "<compile_model>", now=("predict", "step"))
    defined.StateType = compiled.state_types
    return defined, compiled.parameter_types, source
