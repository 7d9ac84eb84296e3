"""The tensor graph: construction, checker, printer, axes, passes, and the count of multiplications."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from every_operation import concrete_operations, is_core
from hypothesis import given, settings
from random_models import array, dense_net, learners, random_arrays

from catgrad_hw import layers, obj
from catgrad_hw.compile import Learner, learner
from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.axes import AXES, axis_classes, batch_class
from catgrad_hw.ir.cost import breakdown, multiplications
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.graph import Builder, Graph, IllegalGraphError, Input, Node, format_graph
from catgrad_hw.ir.operations import evaluate
from catgrad_hw.ir.passes import PASSES, simplify
from catgrad_hw.workload import load_workload

GROUPS = ("predict", "step", "rev", "rev_p")


def linear_net(batch: int = 150, rate: float = 1e-4, activation: bool = False) -> Learner:
    model = layers.linear(array(batch), array(4), array(3))
    if activation:
        model = model >> layers.sigmoid(obj(array(batch, 3)))
    return learner(model, layers.sgd(rate), layers.mse)


# --- construction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
def test_graph_means_what_the_diagram_means(group: str) -> None:
    net = dense_net(5, 3, 4, 2)
    graph = joint_graph(net, GROUPS)
    tensor_graph.check(graph)
    arrays = random_arrays(graph)
    last = {"predict": [], "step": ["y"]}.get(group, ["dy"])
    arguments = [arrays[name] for name in ["p0", "p1", "p2", "p3", "x", *last]]
    expected = evaluate(getattr(net, group), *arguments)
    found = tensor_graph.run(graph, group, arrays)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)  # evaluate rounds the learning rate to float32


def test_predict_and_step_share_the_forward_pass() -> None:
    graph = simplify(joint_graph(dense_net(5, 3, 4, 2)))
    forward = {node.outputs for node in graph.needed(["predict"])}
    assert forward < {node.outputs for node in graph.needed(["step"])}


def test_run_refuses_wrong_shapes_and_missing_arrays() -> None:
    graph = joint_graph(linear_net(2))
    arrays = random_arrays(graph)
    with pytest.raises(IllTypedError, match=r"x must have shape \(2, 4\), found \(1, 4\)"):
        tensor_graph.run(graph, "predict", {**arrays, "x": arrays["x"][:1]})
    with pytest.raises(IllTypedError, match="expected arrays p0"):
        tensor_graph.run(graph, "predict", {"x": arrays["x"]})


def test_builder_refuses_ill_typed_nodes() -> None:
    builder = Builder([Input("x", "input", array(2))])
    with pytest.raises(IllTypedError, match=r"expected arguments float32\[3\]"):
        builder.add(ops.Negate(array(3)), [0])


def test_builder_shares_equal_nodes() -> None:
    builder = Builder([Input("x", "input", array(2))])
    assert builder.add(ops.Negate(array(2)), [0]) == builder.add(ops.Negate(array(2)), [0])
    assert len(builder.nodes) == 1


def test_checker_finds_each_fault() -> None:
    T = array(2)
    graph = Graph((Input("x", "input", T),), (Node(ops.Negate(T), (0,), (1,)),), {"predict": (1,)})
    tensor_graph.check(graph)
    faults = [
        replace(graph, nodes=(Node(ops.Negate(T), (1,), (1,)),)),  # reads itself
        replace(graph, nodes=(Node(ops.Negate(array(3)), (0,), (1,)),)),  # another type
        replace(graph, nodes=(Node(ops.Negate(T), (0,), (2,)),)),  # out of order
        replace(graph, outputs={"predict": (2,)}),  # dangling
        replace(graph, inputs=graph.inputs * 2),  # one name twice
    ]
    for fault in faults:
        with pytest.raises(IllegalGraphError):
            tensor_graph.check(fault)


def test_printer() -> None:
    text = format_graph(simplify(joint_graph(linear_net(rate=0.01))))
    assert text == (
        "parameter p0: float32[4, 3]\n"
        "input x: float32[150, 4]\n"
        "target y: float32[150, 3]\n"
        "t3: float32[150, 3] = Compose x p0\n"
        "t4: float32[4, 3] = Constant 0.01\n"
        "t5: float32[4, 150] = Permute (1, 0) x\n"
        "t6: float32[150, 3] = Subtract t3 y\n"
        "t7: float32[4, 3] = Compose t5 t6\n"
        "t8: float32[4, 3] = Multiply t4 t7\n"
        "t9: float32[4, 3] = Subtract p0 t8\n"
        "predict -> t3\n"
        "step -> t9"
    )


# --- axes -------------------------------------------------------------------------------------------------------


def test_every_core_operation_has_axes() -> None:
    assert {c for c in concrete_operations() if is_core(c)} == set(AXES)  # parameters are factored out


def test_batch_axis_is_the_one_no_parameter_has() -> None:
    graph = simplify(joint_graph(dense_net(7, 3, 4, 2)))
    classes = axis_classes(graph)
    batch = batch_class(graph, classes)
    assert batch is not None
    for value, (T, axes) in enumerate(zip(graph.types, classes, strict=True)):
        if graph.constant(value) is None:  # which is the same along all axes
            assert [size == 7 for size in T.shape] == [c == batch for c in axes]


def test_a_shared_constant_does_not_make_axes_one() -> None:
    """As many samples as hidden neurons, and one array of zeros for the masks of both orders of axes."""
    graph = simplify(joint_graph(load_workload("digits-relu").learner))
    assert graph.inputs[8].type.shape[0] == graph.inputs[1].type.shape[0] == 32
    assert batch_class(graph, axis_classes(graph)) is not None


def test_a_bias_for_each_sample_leaves_no_batch_axis() -> None:
    model = layers.linear(array(7), array(4), array(3)) >> layers.bias(array(7, 3))
    graph = simplify(joint_graph(learner(model, layers.sgd(0.1), layers.mse)))
    assert batch_class(graph, axis_classes(graph)) is None


def test_axes_survive_a_reshape_where_sizes_before_them_agree() -> None:
    (source,), (target,) = AXES[ops.Reshape](ops.Reshape(array(5, 6, 2), array(5, 2, 3, 2)))
    assert source[0] == target[0] >= 0
    assert source[2] == target[3] >= 0
    assert source[1] == target[1] == target[2] == -1


# --- passes -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(learners())
def test_each_pass_keeps_the_graph_legal_and_its_meaning(net: Learner) -> None:
    graph = joint_graph(net, GROUPS)
    arrays = random_arrays(graph)
    expected = {group: tensor_graph.run(graph, group, arrays) for group in GROUPS}
    for name, transform in PASSES.items():
        graph = transform(graph)
        tensor_graph.check(graph)
        for group in GROUPS:
            for a, b in zip(tensor_graph.run(graph, group, arrays), expected[group], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=f"{name}, {group}")


@settings(max_examples=20, deadline=None)
@given(learners())
def test_simplifying_never_adds_work_and_ends(net: Learner) -> None:
    graph = joint_graph(net)
    once = simplify(graph)
    assert multiplications(once) <= multiplications(graph)
    assert simplify(once) == once


def test_copies_and_dead_gradients_vanish() -> None:
    graph = simplify(joint_graph(dense_net(5, 3, 4, 2)))
    kinds = {type(node.operation) for node in graph.nodes}
    assert not kinds & {ops.Copy, ops.Discard}
    assert not any(node.operation.target() == obj(array(5, 3)) for node in graph.nodes)  # the gradient of x


def folded(build: object, inputs: int = 1) -> str:
    builder = Builder([Input(f"x{i}", "input", array(2)) for i in range(inputs)])
    result = build(builder)  # type: ignore[operator]
    return format_graph(PASSES["dead_code"](PASSES["fold_constants"](builder.build({"f": [result]})))).split(
        "\n", inputs
    )[inputs]


T2 = array(2)


@pytest.mark.parametrize(
    ("build", "inputs", "expected"),
    [
        (lambda b: b.add1(ops.Add(T2), 0, b.add1(ops.Constant(T2, 0))), 1, "f -> x0"),
        (lambda b: b.add1(ops.Add(T2), b.add1(ops.Constant(T2, 0)), 0), 1, "f -> x0"),
        (lambda b: b.add1(ops.Subtract(T2), 0, b.add1(ops.Constant(T2, 0))), 1, "f -> x0"),
        (lambda b: b.add1(ops.Multiply(T2), 0, b.add1(ops.Constant(T2, 1))), 1, None),
        (lambda b: b.add1(ops.Multiply(T2), b.add1(ops.Constant(T2, 1)), 0), 1, "f -> x0"),
        (lambda b: b.add1(ops.Divide(T2), 0, b.add1(ops.Constant(T2, 1))), 1, "f -> x0"),
        (lambda b: b.add1(ops.Negate(T2), b.add1(ops.Negate(T2), 0)), 1, "f -> x0"),
        (
            lambda b: b.add1(ops.Multiply(T2), b.add1(ops.Constant(T2, 0)), 0),
            1,
            "t1: float32[2] = Constant 0\nf -> t1",
        ),
        (
            lambda b: b.add1(ops.Subtract(T2), b.add1(ops.Constant(T2, 0)), 0),
            1,
            "t1: float32[2] = Negate x0\nf -> t1",
        ),
        (
            lambda b: b.add1(ops.Add(T2), 0, b.add1(ops.Negate(T2), 1)),
            2,
            "t2: float32[2] = Subtract x0 x1\nf -> t2",
        ),
        (
            lambda b: b.add1(ops.Negate(T2), b.add1(ops.Subtract(T2), 0, 1)),
            2,
            "t2: float32[2] = Subtract x1 x0\nf -> t2",
        ),
        (
            lambda b: b.add1(ops.Multiply(T2), b.add1(ops.Constant(T2, 3)), b.add1(ops.Constant(T2, 0.5))),
            1,
            "t1: float32[2] = Constant 1.5\nf -> t1",
        ),
        (lambda b: b.add1(ops.FirstMaximum(T2, array()), 0), 1, "t1: float32[2] = Constant 1\nf -> t1"),
        (lambda b: b.add1(ops.Select(T2), b.add1(ops.FirstMaximum(T2, array()), 0), 0, 1), 2, "f -> x0"),
    ],
)
def test_folding(build: object, inputs: int, expected: str | None) -> None:
    assert folded(build, inputs) == (expected or "f -> x0")


def test_views_merge() -> None:
    builder = Builder([Input("x", "input", array(2, 3, 4))])
    a = builder.add1(ops.Permute(array(2, 3, 4), [2, 0, 1]), 0)
    b = builder.add1(ops.Permute(array(4, 2, 3), [1, 2, 0]), a)
    c = builder.add1(ops.Reshape(array(2, 3, 4), array(6, 4)), b)
    d = builder.add1(ops.Reshape(array(6, 4), array(24)), c)
    graph = PASSES["dead_code"](PASSES["merge_views"](builder.build({"f": [d]})))
    assert [node.operation for node in graph.nodes] == [ops.Reshape(array(2, 3, 4), array(24))]


# --- multiplications --------------------------------------------------------------------------------------------


def dense_formula(batch: int, widths: list[int], rate: float, biases: bool = True) -> int:
    """2 x forward + input gradients of all but the first layer + one per unit and sample + the learning rate."""
    pairs = [batch * a * b for a, b in itertools.pairwise(widths)]
    units = batch * sum(widths[1:])
    parameters = sum(a * b + (b if biases else 0) for a, b in itertools.pairwise(widths))
    scale = 0 if np.log2(rate) % 1 == 0 else min(parameters, batch * widths[-1])
    return 2 * sum(pairs) + sum(pairs[1:]) + units + scale


def test_iris_hidden_needs_54613_multiplications() -> None:
    graph = simplify(joint_graph(dense_net(150, 4, 20, 3)))
    assert multiplications(graph) == 54_613 == sum(count for _, count in breakdown(graph))
    assert multiplications(graph, "predict") == 21_000


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (linear_net(), 2 * 1_800 + 12),
        (linear_net(rate=0.01, activation=True), 2 * 1_800 + 450 + 12),
        (dense_net(150, 4, 3), dense_formula(150, [4, 3], 0.01)),
        (dense_net(150, 4, 20, 3, rate=2**-7), dense_formula(150, [4, 20, 3], 2**-7)),
        (dense_net(32, 64, 32, 10), dense_formula(32, [64, 32, 10], 0.01)),
        (dense_net(32, 784, 64, 10), dense_formula(32, [784, 64, 10], 0.01)),
        (dense_net(1, 3, 5, 4, 2), dense_formula(1, [3, 5, 4, 2], 0.01)),
    ],
)
def test_other_nets_need_what_the_formula_says(net: Learner, expected: int) -> None:
    assert multiplications(simplify(joint_graph(net))) == expected


def test_the_learning_rate_goes_where_it_is_cheaper() -> None:
    def rated(net: Learner) -> list[tuple[int, ...]]:
        graph = simplify(joint_graph(net))
        products = [node for node in graph.needed(["step"]) if isinstance(node.operation, ops.Multiply)]
        return [
            node.operation.target()[0].shape
            for node in products
            if any(graph.constant(value) == 0.01 for value in node.inputs)
        ]

    assert rated(dense_net(150, 4, 20, 3)) == [(4, 20), (20,), (20, 3), (3,)]
    assert rated(dense_net(2, 40, 20, 3)) == [(2, 3)]
