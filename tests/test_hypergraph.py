"""Laws of open hypergraphs, as properties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catgrad_hw.errors import IllTypedError, ModelError, UnsupportedError
from catgrad_hw.ir.combinators import canonical, transpose
from catgrad_hw.ir.hypergraph import (
    Flat,
    Functor,
    Generator,
    OpenHypergraph,
    identity,
    isomorphic,
    op,
    permutation,
    spider,
    tensor,
    twist,
    unit,
)
from catgrad_hw.ir.operations import Add, Copy, Multiply, Negate, Sigmoid, Subtract, copy, evaluate
from catgrad_hw.ir.optics import Optic, optic, rdiff
from catgrad_hw.ir.types import Dtype, NdArrayType, Object, obj

T = NdArrayType((2,), Dtype.float32)
U = NdArrayType((3, 2), Dtype.float32)
settings.register_profile("laws", max_examples=60, deadline=None, derandomize=True)
laws = settings.get_profile("laws")


@dataclass(frozen=True)
class Box:
    """An uninterpreted operation."""

    name: str
    A: Object
    B: Object

    def source(self) -> Object:
        return self.A

    def target(self) -> Object:
        return self.B


objects = st.lists(st.sampled_from([T, U]), max_size=3).map(Object)


@st.composite
def diagrams(draw: st.DrawFn, source: Object | None = None, differentiable: bool = False) -> OpenHypergraph:
    """A monogamous acyclic diagram: boxes (or operations on T) and permutations."""
    if source is None:
        source = draw(st.lists(st.just(T), min_size=1, max_size=3).map(Object) if differentiable else objects)
    f = identity(source)
    for _ in range(draw(st.integers(0, 4))):
        A = f.target
        f = f >> permutation(A, draw(st.permutations(range(len(A)))))
        A = f.target
        if differentiable:
            operation: Generator = draw(
                st.sampled_from([o(T) for o in (Add, Copy, Multiply, Negate, Sigmoid, Subtract)])
            )
            taken = len(operation.source())
            if taken > len(A):
                continue
        else:
            taken = draw(st.integers(0, min(2, len(A))))
            operation = Box(draw(st.sampled_from("abc")), A[:taken], draw(objects))
        f = f >> (op(operation) @ identity(A[taken:]))
    return f


@st.composite
def chains(draw: st.DrawFn, differentiable: bool = False, length: int = 3) -> list[OpenHypergraph]:
    """Composable diagrams."""
    result = [draw(diagrams(differentiable=differentiable))]
    while len(result) < length:
        result.append(draw(diagrams(result[-1].target, differentiable)))
    return result


@laws
@given(chains())
def test_composition_is_associative_and_unital(fgh: list[OpenHypergraph]) -> None:
    f, g, h = fgh
    assert isomorphic((f >> g) >> h, f >> (g >> h))
    assert isomorphic(identity(f.source) >> f, f)
    assert isomorphic(f >> identity(f.target), f)


@laws
@given(diagrams(), diagrams(), diagrams())
def test_tensor_is_associative_and_unital(f: OpenHypergraph, g: OpenHypergraph, h: OpenHypergraph) -> None:
    assert isomorphic((f @ g) @ h, f @ (g @ h))
    assert isomorphic(tensor(f, g, h), f @ (g @ h))
    assert isomorphic(unit() @ f, f)
    assert isomorphic(f @ unit(), f)


@laws
@given(chains(length=2), chains(length=2))
def test_interchange(first: list[OpenHypergraph], second: list[OpenHypergraph]) -> None:
    (f, g), (h, k) = first, second
    assert isomorphic((f >> g) @ (h >> k), (f @ h) >> (g @ k))


@laws
@given(diagrams(), diagrams())
def test_the_twist_is_natural_and_its_own_inverse(f: OpenHypergraph, g: OpenHypergraph) -> None:
    assert isomorphic((f @ g) >> twist(f.target, g.target), twist(f.source, g.source) >> (g @ f))
    assert isomorphic(twist(f.source, g.source) >> twist(g.source, f.source), identity(f.source + g.source))


@laws
@given(objects, objects, objects)
def test_hexagon(A: Object, B: Object, C: Object) -> None:
    assert isomorphic(twist(A, B + C), (twist(A, B) @ identity(C)) >> (identity(B) @ twist(A, C)))


@laws
@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3))
def test_connected_spiders_fuse(m: int, middle: int, n: int) -> None:
    left = spider([0] * m, [0] * middle, obj(T))
    right = spider([0] * middle, [0] * n, obj(T))
    assert isomorphic(left >> right, spider([0] * m, [0] * n, obj(T)))


def test_frobenius_laws() -> None:
    one = identity(obj(T))
    split, merge = spider([0], [0, 0], obj(T)), spider([0, 0], [0], obj(T))
    assert isomorphic(split.dagger(), merge)
    assert isomorphic((split @ one) >> (one @ merge), merge >> split)
    assert isomorphic(split >> merge, one)
    assert isomorphic(split >> twist(obj(T), obj(T)), split)
    assert isomorphic(split >> (split @ one), split >> (one @ split))
    assert isomorphic(split >> (spider([0], [], obj(T)) @ one), one)
    cup, cap = spider([], [0, 0], obj(T)), spider([0, 0], [], obj(T))
    assert isomorphic((cup @ one) >> (one @ cap), one)
    assert not isomorphic(split >> merge, spider([0], [], obj(T)) >> spider([], [0], obj(T)))
    assert not isomorphic(cup >> cap, unit())


def test_isomorphism_tells_diagrams_apart() -> None:
    A = obj(T, T)
    f, g = op(Box("f", obj(T), obj(T))), op(Box("g", obj(T), obj(T)))
    assert not isomorphic(f, g)
    assert not isomorphic(f >> g, g >> f)
    assert not isomorphic(identity(A), twist(obj(T), obj(T)))
    pair = op(Box("pair", A, obj(T)))
    assert not isomorphic(pair, twist(obj(T), obj(T)) >> pair)
    start, end = op(Box("start", obj(), obj(T))), op(Box("end", obj(T), obj()))
    assert isomorphic((start >> f >> end) @ (start >> g >> end), (start >> g >> end) @ (start >> f >> end))
    assert not isomorphic(start >> f >> end, start >> g >> end)
    assert not isomorphic(start >> end, unit())
    with pytest.raises(UnsupportedError, match="sharing a wire"):
        isomorphic(spider([0], [0, 0], obj(T)) >> (f @ f), spider([0], [0, 0], obj(T)) >> (f @ f))


def double(operation: Generator) -> OpenHypergraph:
    """Two copies of each operation, on interleaved wires."""
    f = op(operation)

    def interleave(A: Object) -> OpenHypergraph:
        return transpose(Object(U for U in A for _ in range(2)), len(A), 2)

    return interleave(f.source) >> (f @ f) >> interleave(f.target).dagger()


@laws
@given(chains(length=2), diagrams())
def test_functors_preserve_structure(fg: list[OpenHypergraph], h: OpenHypergraph) -> None:
    f, g = fg
    F = Functor(on_type=lambda T: obj(T, T), on_operation=double)
    assert isomorphic(F(f >> g), F(f) >> F(g))
    assert isomorphic(F(f @ h), F(f) @ F(h))
    assert isomorphic(F(identity(f.source)), identity(F.on_object(f.source)))
    assert len(F(f).flat.edges) == 2 * len(f.flat.edges)


def test_a_functor_checks_the_images_types() -> None:
    F = Functor(on_type=lambda T: obj(T), on_operation=lambda _: identity(obj(U)))
    with pytest.raises(IllTypedError, match="functor: the image of"):
        F(op(Negate(T)))


def composite(f: Optic, g: Optic) -> OpenHypergraph:
    """The chain rule: forward f, forward g, reverse g, reverse f."""
    B, C, M = g.fwd.source, g.rev.source[len(g.residual) :], f.residual
    start = (f.fwd @ identity(C)) >> (identity(B) @ twist(M, C)) >> (g.adapt() @ identity(M))
    return start >> (identity(C) @ twist(B, M)) >> (identity(C) @ f.rev)


@laws
@given(chains(differentiable=True, length=2), diagrams(differentiable=True))
def test_optics_are_functorial(fg: list[OpenHypergraph], h: OpenHypergraph) -> None:
    f, g = fg
    assert isomorphic(optic(f >> g).adapt(), composite(optic(f), optic(g)))
    A, B, C, D = f.source, f.target, h.source, h.target
    beside = (identity(A) @ twist(C, B) @ identity(D)) >> (optic(f).adapt() @ optic(h).adapt())
    assert isomorphic(optic(f @ h).adapt(), beside >> (identity(B) @ twist(A, D) @ identity(C)))
    assert isomorphic(optic(identity(A)).adapt(), identity(A + A))


@laws
@given(chains(differentiable=True, length=2), st.integers(0, 2**32 - 1))
def test_evaluation_is_functorial(fg: list[OpenHypergraph], seed: int) -> None:
    f, g = fg
    x = [np.random.default_rng(seed).normal(size=A.shape) for A in f.source]
    np.testing.assert_array_equal(evaluate(f >> g, *x), evaluate(g, *evaluate(f, *x)))


@laws
@given(diagrams(differentiable=True), st.integers(0, 2**32 - 1))
def test_reverse_derivatives_of_diagrams(f: OpenHypergraph, seed: int) -> None:
    """Against the directional derivative, and linear in the cotangent (RD.2 of arXiv 1910.07065)."""
    random = np.random.default_rng(seed)
    x, v = ([random.uniform(-1, 1, size=A.shape) for A in f.source] for _ in range(2))
    d, e = ([random.uniform(-1, 1, size=A.shape) for A in f.target] for _ in range(2))
    gradient = evaluate(rdiff(f), *x, *d)
    step = 1e-5
    above, below = (evaluate(f, *(a + sign * step * b for a, b in zip(x, v, strict=True))) for sign in (1, -1))
    slope = sum(np.sum(c * (a - b)) for a, b, c in zip(above, below, d, strict=True)) / (2 * step)
    np.testing.assert_allclose(
        sum(np.sum(a * b) for a, b in zip(gradient, v, strict=True)), slope, rtol=1e-5, atol=1e-7
    )
    both = evaluate(rdiff(f), *x, *(a + b for a, b in zip(d, e, strict=True)))
    for total, a, b in zip(both, gradient, evaluate(rdiff(f), *x, *e), strict=True):
        np.testing.assert_allclose(total, a + b, rtol=1e-12, atol=1e-12)


def test_a_foreign_generator_has_no_derivative_and_no_meaning() -> None:
    f = op(Box("f", obj(T), obj(T)))
    with pytest.raises(UnsupportedError, match="derive it from Operation"):
        rdiff(f)
    with pytest.raises(UnsupportedError, match="derive it from Operation"):
        evaluate(f, np.zeros(2))


class Lopsided(Negate):
    """An operation whose reverse map has another type than its own."""

    def rev(self) -> OpenHypergraph:
        return op(Copy(self.T))


def test_optics_check_the_types_of_reverse_maps() -> None:
    with pytest.raises(IllTypedError, match=r"rev must have type float32\[2\] → float32\[2\], found"):
        rdiff(op(Lopsided(T)))


@laws
@given(objects)
def test_canonical_copies_whole_objects(A: Object) -> None:
    f = copy(A)
    assert (f.source, f.target) == (A, A + A)
    x = [np.full(B.shape, float(i)) for i, B in enumerate(A)]
    assert [float(y.flat[0]) for y in evaluate(f, *x)] == [*range(len(A)), *range(len(A))]


def test_canonical_refuses_components_of_different_arity() -> None:
    with pytest.raises(IllTypedError, match="same number of wires"):
        canonical(lambda B: op(Copy(B)) if B == T else op(Negate(B)))(obj(T, U))


def test_ill_typed_composition_names_types_and_position() -> None:
    text = r"at position 1 the right side expects float32\[3, 2\], found float32\[2\]"
    with pytest.raises(IllTypedError, match=text):
        identity(obj(T, T)) >> identity(obj(T, U))
    with pytest.raises(IllTypedError, match="expects 1 wires"):
        identity(obj(T, T)) >> identity(obj(T))


def test_a_cycle_and_a_merged_wire_are_refused() -> None:
    loop = Flat((T,), op(Negate(T)).flat.edges, (), ())
    with pytest.raises(ModelError, match="no producer"):
        loop.schedule()
    one = identity(obj(T))
    cup, cap = spider([], [0, 0], obj(T)), spider([0, 0], [], obj(T))
    cycle = cup >> (op(Negate(T)) @ one) >> cap
    with pytest.raises(ModelError, match="found one through Negate"):
        cycle.flat.schedule()
    with pytest.raises(ModelError, match="two producers"):
        (op(Negate(T)) @ one >> spider([0, 0], [0], obj(T))).flat.schedule()
    with pytest.raises(ModelError, match="replace it by copy"):
        rdiff(spider([0], [0, 0], obj(T)))
    with pytest.raises(UnsupportedError, match="dagger: expected spiders only"):
        op(Negate(T)).dagger()


@pytest.mark.parametrize("right_nested", [False, True])
def test_deep_terms_do_not_recurse(right_nested: bool) -> None:
    layers = [op(Negate(T))] * 5000
    f = layers[0]
    for layer in layers[1:]:
        f = layer >> f if right_nested else f >> layer
    assert len(f.flat.edges) == 5000
    assert len(f.flat.nodes) == 5001
    assert len(rdiff(f).flat.schedule()) == 10001  # forward, reverse, one discarded result
