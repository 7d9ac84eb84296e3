"""Definitions, errors that teach, and the pages made from docstrings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from catgrad_hw import Definition, Dtype, NdArrayType, compile_model, identity, layers, obj, op, rdiff
from catgrad_hw.compile import learner
from catgrad_hw.docs import KINDS, pages
from catgrad_hw.errors import IllTypedError, ModelError, UnsupportedError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.operations import evaluate
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import Object

T = NdArrayType((3,), Dtype.float32)
X = obj(T)
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Silu(Definition):
    """``x · σ(x)``."""

    T: NdArrayType

    def arrow(self) -> OpenHypergraph:
        X = obj(self.T)
        return ops.copy(X) >> (identity(X) @ layers.sigmoid(X)) >> ops.multiply(X)


@dataclass(frozen=True)
class Twice(Definition):
    T: NdArrayType

    def arrow(self) -> OpenHypergraph:
        return op(Silu(self.T)) >> op(Silu(self.T))


def test_definitions_mean_their_diagrams() -> None:
    x, d = np.array([-1.0, 0.5, 2.0]), np.array([1.0, 2.0, 3.0])
    (y,) = evaluate(op(Twice(T)), x)
    once = x / (1 + np.exp(-x))
    np.testing.assert_allclose(y, once / (1 + np.exp(-once)))
    inside = op(Silu(T)).flat.edges[0].operation
    assert isinstance(inside, Silu)
    np.testing.assert_allclose(
        evaluate(rdiff(op(Twice(T))), x, d)[0],
        evaluate(rdiff(inside.diagram >> inside.diagram), x, d)[0],
    )
    net = learner(op(Twice(T)) >> layers.bias(T), layers.sgd(0.1), layers.mse)
    lower(simplify(joint_graph(net)))
    compile_model(op(Twice(T)), layers.sgd(0.1), layers.mse)


@dataclass(frozen=True)
class Loop(Definition):
    """Expands to itself by way of :class:`Detour`."""

    T: NdArrayType

    def arrow(self) -> OpenHypergraph:
        return op(Detour(self.T))


@dataclass(frozen=True)
class Detour(Definition):
    T: NdArrayType

    def arrow(self) -> OpenHypergraph:
        return op(Loop(self.T))


@dataclass(frozen=True)
class Growing(Definition):
    n: int

    def arrow(self) -> OpenHypergraph:
        return op(Growing(self.n + 1))


@dataclass(frozen=True)
class Hidden(Definition):
    """Recursive, with types that do not tell."""

    def source(self) -> Object:
        return X

    def target(self) -> Object:
        return X

    def arrow(self) -> OpenHypergraph:
        return op(Hidden())


def test_recursion_is_found_before_compiling() -> None:
    with pytest.raises(ModelError, match="definition Loop: expected no recursion, found Loop → Detour → Loop"):
        op(Loop(T))
    with pytest.raises(ModelError, match="definitions at most 64 deep, found Growing → Growing"):
        op(Growing(0))
    with pytest.raises(ModelError, match="definition Hidden: expected no recursion, found Hidden → Hidden"):
        learner(op(Hidden()), layers.sgd(0.1), layers.mse)


@dataclass(frozen=True)
class Opaque(ops.Negate):
    """An operation without a reverse derivative."""

    def rev(self) -> OpenHypergraph:
        raise UnsupportedError("Opaque: expected a reverse derivative, found none; give it rev")


@dataclass(frozen=True)
class Wrapper(Definition):
    def arrow(self) -> OpenHypergraph:
        return layers.sigmoid(X) >> op(Opaque(T))


def test_a_missing_derivative_names_the_operation_and_the_way_to_it() -> None:
    model = layers.tanh(X) >> layers.bias(T) >> op(Opaque(T))
    with pytest.raises(UnsupportedError, match=r"^Opaque: .*reached by input 0 → Opaque"):
        rdiff(op(Opaque(T)))
    with pytest.raises(UnsupportedError, match=r"reached by input \d → \w+( → \w+)* → Opaque\)"):
        compile_model(model, layers.sgd(0.1), layers.mse)
    with pytest.raises(UnsupportedError, match=r"in definition Wrapper: Opaque: .* input 0 → Sigmoid → Opaque\) \("):
        rdiff(op(Wrapper()))


def test_ill_typed_composition_names_both_types_and_the_position() -> None:
    wide = NdArrayType((4,), Dtype.float32)
    text = (
        r"at position 1 the right side expects float32\[4\], found float32\[3\] on the left side "
        r"\(float32\[3\] ● float32\[3\] against float32\[3\] ● float32\[4\]\)"
    )
    with pytest.raises(IllTypedError, match=text):
        ops.copy(X) >> (identity(X) @ layers.tanh(obj(wide)))


# --- pages ------------------------------------------------------------------------------------------------------


def test_pages_are_current() -> None:
    """``python -m catgrad_hw.docs docs/layers`` makes them so."""
    folder = ROOT / "docs" / "layers"
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == pages()


def test_each_layer_loss_and_optimizer_has_a_page_with_a_formula() -> None:
    named = {name for members in KINDS.values() for name in members}
    source = inspect.getsource(layers)
    wanted = source[source.index("# layers\n") : source.index("# maps at each object")]
    listed = {
        word.strip('" ') for line in wanted.splitlines() for word in line.split(",") if word.strip().startswith('"')
    }
    assert named == listed - {"Optimizer"}
    for name, text in pages().items():
        assert name == "README.md" or any(sign in text.split("```")[2] for sign in "=→Σ²"), name
