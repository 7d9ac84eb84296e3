"""Kernels: lowering, side sums, checker, printer and float executor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from random_models import array, dense_net, learners, random_arrays

from catgrad_hw import Dtype, identity, layers, obj, op
from catgrad_hw.compile import Learner, learner
from catgrad_hw.errors import DataError, IllTypedError, UnsupportedError
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
    Constant,
    Expression,
    Kernel,
    KernelProgram,
    Loop,
    Read,
    Reduced,
    Round,
    SideSum,
    Write,
)
from catgrad_hw.ir.kernel_check import IllegalKernelError, check, reads, stores, subexpressions
from catgrad_hw.ir.kernel_print import format_kernel
from catgrad_hw.ir.kernel_run import run
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.passes.attach_side_sums import attach_side_sums


def agree(net: Learner, seed: int = 0) -> KernelProgram:
    """Lower a learner and compare the kernels with the graph, in float64."""
    graph = simplify(joint_graph(net))
    program = lower(graph)
    arrays = random_arrays(graph, seed)
    for group, names in (("predict", program.outputs), ("step", program.parameters)):
        given = {name: arrays[name] for name in arrays if group == "step" or not name.startswith("y")}
        found = run(program, group, given)
        for name, expected in zip(names, tensor_graph.run(graph, group, arrays), strict=True):
            np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9, err_msg=f"{group}: {name}")
    return program


def sources(program: KernelProgram, group: str) -> list[str]:
    return [format_kernel(kernel, program) for kernel in program.programs[group]]


# --- lowering ---------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(learners())
def test_kernels_compute_what_the_graph_computes(net: Learner) -> None:
    agree(net)


@settings(max_examples=30, deadline=None)
@given(learners())
def test_every_kernel_has_a_form_that_hardware_knows(net: Learner) -> None:
    program = agree(net)
    for kernel in (kernel for kernels in program.programs.values() for kernel in kernels):
        match kernel.body:
            case Read() | Apply("multiply", (Read() | Constant(), Read())):
                pass
            case _:
                pytest.fail(f"{kernel.name}: {kernel.body}")
        batch = [i for i, loop in enumerate(kernel.loops) if loop.batch]
        kept = len(kernel.loops) - kernel.reduced
        assert all(i in (kept - 1, *range(kept, len(kernel.loops))) for i in batch)
        for write in kernel.writes:
            # r, then + read, then one function, then - read, then a power of two; or an update.
            order = [part.operation for part in subexpressions(write.value) if isinstance(part, Apply)]
            if order[:1] == ["multiply"]:
                order = order[1:]
            update = order in (["subtract"], ["subtract", "multiply"]) and kernel.name.startswith("update")
            functions = {"sigmoid", "sigmoid_derivative"}
            ranks = [{"subtract": 0, "add": 2}.get(name, 1) for name in order]
            assert update or (ranks == sorted(set(ranks)) and set(order) <= {"add", "subtract"} | functions)


def test_iris_hidden() -> None:
    program = agree(dense_net(150, 4, 20, 3))
    assert sources(program, "predict") == [
        "a1: for i in 20, b in 150 (batch):\n"
        "  r = sum over j in 4 of x[b, j] * p0[j, i]\n"
        "  a1[b, i] = sigmoid(r + p1[i])",
        "yhat: for i in 3, b in 150 (batch):\n"
        "  r = sum over j in 20 of a1[b, j] * p2[j, i]\n"
        "  yhat[b, i] = sigmoid(r + p3[i])",
    ]
    step = sources(program, "step")
    assert len(step) == 11
    assert step[2] == (
        "d1: for i in 3, b in 150 (batch):\n"
        "  r = s2[b, i] * e1[b, i]\n"
        "  d1[b, i] = r\n"
        "  side sum r of d1 over b:\n"
        "    g3[i] = r"
    )
    assert step[-1] == "update_p3: for i in 3:\n  r = 0.01 * g3[i]\n  p3[i] = p3[i] - r"
    assert program.batch == 150
    assert program.arrays["a1"] == Array("a1", (150, 20), "intermediate", 0)
    assert program.arrays["yhat"] == Array("yhat", (150, 3), "output", 0)


def test_a_power_of_two_fuses_the_update_into_the_gradient() -> None:
    program = agree(dense_net(150, 4, 20, 3, rate=2**-7))
    step = sources(program, "step")
    assert len(step) == 7
    assert step[-2] == (
        "update_p0: for i in 4, j in 20:\n"
        "  r = sum over b in 150 (batch) of x[b, i] * d3[b, j]\n"
        "  p0[i, j] = p0[i, j] - (0.0078125 * r)"
    )
    assert not any(name.startswith("g") for name in program.arrays)


def test_a_learning_rate_on_the_error_fuses_the_update_too() -> None:
    program = agree(dense_net(2, 40, 20, 3))
    (scaled,) = (text for text in sources(program, "step") if "0.01" in text)
    assert "r = 0.01 * e1[b, i]" in scaled
    assert not any(name.startswith("g") for name in program.arrays)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_batch_has_its_loop_whatever_its_size(batch: int) -> None:
    program = agree(dense_net(batch, 3, 1, 2))
    for kernel in program.programs["predict"]:
        assert [loop.size for loop in kernel.loops if loop.batch] == [batch]


def test_updates_follow_every_read_of_old_parameters() -> None:
    """Gradients that read another parameter must not see it updated."""
    T = array(3)
    product = (ops.parameter(obj(T)) @ ops.parameter(obj(T))) >> ops.multiply(obj(T))
    model = (identity(obj(T)) @ product) >> ops.multiply(obj(T))
    agree(learner(model, layers.sgd(0.5), layers.mse))


def test_a_parameter_that_is_not_used_keeps_its_value() -> None:
    T = array(2, 3)
    model = (identity(obj(T)) @ ops.parameter(obj(T))) >> (identity(obj(T)) @ ops.discard(obj(T)))
    program = agree(learner(model >> layers.sigmoid(obj(T)), layers.sgd(0.1), layers.mse))
    assert program.programs["step"] == ()


def test_outputs_that_are_arguments_or_views_are_copied() -> None:
    T = array(2, 3)
    program = agree(learner(op(ops.Permute(T, [1, 0])), layers.sgd(0.1), layers.mse))
    assert sources(program, "predict") == ["yhat: for i in 3, b in 2 (batch):\n  r = x[b, i]\n  yhat[i, b] = r"]


def test_several_inputs_and_outputs() -> None:
    T = array(2, 3)
    f = layers.dense(array(2), array(3), array(3))
    model = (f @ identity(obj(T))) >> ops.twist(obj(T), obj(T))
    program = agree(learner(model, layers.sgd(0.1), layers.mse))
    assert (program.inputs, program.targets) == (("x0", "x1"), ("y0", "y1"))
    assert program.outputs == ("yhat0", "yhat1")


def test_a_product_that_is_only_summed_is_one_contraction() -> None:
    B, n = array(4), array(5)
    T = B + n
    squares = ops.copy(obj(T)) >> ops.multiply(obj(T)) >> op(ops.NAdd(B, n))
    program = agree(learner(squares, layers.sgd(0.1), layers.mse))
    assert sources(program, "predict") == [
        "yhat: for b in 4 (batch):\n  r = sum over i in 5 of x[b, i] * x[b, i]\n  yhat[b] = r"
    ]


def test_matrix_multiply_and_compose_over_several_axes() -> None:
    A, B, C = array(2, 3), array(4, 2), array(5)
    composed = (identity(obj(A + B)) @ ops.parameter(obj(B + C))) >> op(ops.Compose(A, B, C))
    agree(learner(composed, layers.sgd(0.1), layers.mse))
    N = array(2)
    batched = (identity(obj(N + 3 + 4)) @ ops.parameter(obj(N + 4 + 5))) >> op(
        ops.MatrixMultiply(N, array(3), array(4), array(5))
    )
    agree(learner(batched, layers.sgd(0.1), layers.mse))


def test_maximum_runs_in_float() -> None:
    graph_inputs = [tensor_graph.Input("x", "input", array(2, 3))]
    builder = tensor_graph.Builder(graph_inputs)
    largest = builder.add1(ops.NMax(array(2), array(3)), 0)
    program = lower(builder.build({"predict": [largest], "step": []}))
    x = np.array([[1.0, -2.0, 0.5], [-3.0, -1.0, -2.0]])
    np.testing.assert_array_equal(run(program, "predict", {"x": x})["yhat"], [1.0, -1.0])


def test_operations_without_a_kernel_are_named() -> None:
    builder = tensor_graph.Builder([tensor_graph.Input("x", "input", array(2))])
    with pytest.raises(UnsupportedError, match=r"^Parameter: expected an entry in AXES"):
        lower(builder.build({"predict": [builder.add1(ops.Parameter(array(2)))], "step": []}))


def test_the_arrays_of_a_kernel_have_one_dtype() -> None:
    mixed = {**PROGRAM.arrays, "p0": replace(PROGRAM.arrays["p0"], dtype=Dtype.int32)}
    with pytest.raises(IllegalKernelError, match="one dtype, found float32, int32"):
        check(replace(PROGRAM, arrays=mixed))


# --- side sums --------------------------------------------------------------------------------------------------


def test_side_sums_need_a_producer_that_reduces_nothing() -> None:
    T = array(4, 3)
    model = layers.linear(array(4), array(2), array(3)) >> layers.shared_bias(array(4), array(3))
    assert model.target == obj(T)
    program = agree(learner(model, layers.sgd(0.1), layers.mse))
    assert not any(kernel.side_sums for kernel in program.programs["step"])
    assert "r = sum over b in 4 (batch) of e1[b, i]" in "\n".join(sources(program, "step"))


def test_a_side_sum_does_not_overtake_a_read_of_what_it_updates() -> None:
    program = agree(dense_net(4, 3, 2, rate=0.5))
    d1 = next(kernel for kernel in program.programs["step"] if kernel.side_sums)
    (side,) = d1.side_sums
    alone = replace(d1, side_sums=())
    total = Kernel("total", (Loop("i", 2), Loop("b", 4, True)), 1, Read(d1.writes[0].access), "sum",
                   (Write(side.access, side.value),))  # fmt: skip
    assert attach_side_sums([alone, total])[0].side_sums == (side,)
    reader = Kernel("reader", (Loop("i", 2),), 0, Read(Access("p1", 0, (1,))), None,
                    (Write(Access("t", 0, (1,)), Reduced()),))  # fmt: skip
    assert attach_side_sums([alone, reader, total]) == (alone, reader, total)


# --- checker ----------------------------------------------------------------------------------------------------

LOOPS = (Loop("i", 3), Loop("b", 2, True), Loop("j", 4))
PRODUCT = Apply("multiply", (Read(Access("x", 0, (0, 4, 1))), Read(Access("p0", 0, (1, 0, 3)))))
OUT = Write(Access("yhat", 0, (1, 3, 0)), Reduced())
KERNEL = Kernel("k", LOOPS, 1, PRODUCT, "sum", (OUT,))
PROGRAM = KernelProgram(
    arrays={
        "p0": Array("p0", (4, 3), "parameter"),
        "x": Array("x", (2, 4), "input", 0),
        "y": Array("y", (2, 3), "target", 0),
        "t": Array("t", (3,), "intermediate"),
        "yhat": Array("yhat", (2, 3), "output", 0),
    },
    programs={"predict": (KERNEL,), "step": ()},
    parameters=("p0",),
    inputs=("x",),
    targets=("y",),
    outputs=("yhat",),
    batch=2,
)


def predicting(*kernels: Kernel) -> KernelProgram:
    return replace(PROGRAM, programs={"predict": kernels, "step": ()})


def writing(value: Expression) -> KernelProgram:
    return predicting(replace(KERNEL, writes=(Write(OUT.access, value),)))


def updating(*kernels: Kernel) -> KernelProgram:
    return replace(PROGRAM, programs={"predict": (KERNEL,), "step": kernels})


P0 = Access("p0", 0, (3, 1))
MAP = Kernel("map", (Loop("i", 4), Loop("j", 3)), 0, Apply("multiply", (Constant(0.1), Read(P0))), None,
             (Write(P0, Apply("subtract", (Read(P0), Reduced()))),))  # fmt: skip
LATE = replace(KERNEL, name="late", writes=(Write(OUT.access, Reduced()),))
SIDE = SideSum(0, ("b",), Access("t", 0, (1, 0, 0)), Reduced())


def test_legal_programs_pass() -> None:
    check(PROGRAM)
    check(updating(replace(KERNEL, side_sums=(SIDE,)), MAP))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (replace(PROGRAM, inputs=()), "inputs are listed as"),
        (replace(PROGRAM, batch=3), "not a batch of 3"),
        (replace(PROGRAM, arrays={**PROGRAM.arrays, "u": PROGRAM.arrays["t"]}), "stored under 'u'"),
        (predicting(KERNEL, KERNEL), "names must differ"),
        (predicting(), "'yhat' is not written completely"),
        (predicting(replace(KERNEL, loops=(LOOPS[0], LOOPS[1], Loop("i", 4)))), "loop names must differ"),
        (predicting(replace(KERNEL, loops=(Loop("i", 0), *LOOPS[1:]))), "at least once"),
        (predicting(replace(KERNEL, loops=(Loop("i", 3, True), *LOOPS[1:]))), "one loop over the batch"),
        (predicting(replace(KERNEL, reduced=4)), "cannot reduce 4 of 3"),
        (predicting(replace(KERNEL, reduction=None)), "disagree"),
        (predicting(replace(KERNEL, writes=())), "nothing is written"),
        (predicting(replace(KERNEL, side_sums=(replace(SIDE, source=1),))), "side sum of write 1"),
        (predicting(replace(KERNEL, side_sums=(replace(SIDE, over=("j",)),))), "side sum over"),
        (predicting(replace(KERNEL, side_sums=(replace(SIDE, over=("i",)),))), "varies with a reduced loop"),
        (predicting(replace(KERNEL, body=Read(Access("u", 0, (0, 0, 0))))), "which is none"),
        (predicting(replace(KERNEL, body=Read(Access("x", 0, (0, 4))))), "needs 3 strides"),
        (predicting(replace(KERNEL, body=Read(Access("x", 1, (0, 4, 1))))), "leaves the 8 words"),
        (predicting(replace(KERNEL, body=Read(Access("x", 0, (0, -4, 1))))), "leaves the 8 words"),
        (predicting(replace(KERNEL, writes=(Write(Access("yhat", 0, (1, 0, 0)), Reduced()),))), "more than once"),
        (predicting(replace(KERNEL, writes=(Write(Access("yhat", 0, (1, 2, 0)), Reduced()),))), "more than once"),
        (predicting(replace(KERNEL, writes=(Write(Access("yhat", 0, (1, 0, 1)), Reduced()),))), "reduced loop"),
        (predicting(replace(KERNEL, writes=(OUT, OUT))), "'yhat' is written twice"),
        (predicting(KERNEL, LATE), "'yhat' is written twice"),
        (predicting(replace(KERNEL, writes=(Write(Access("x", 0, (1, 4, 0)), Reduced()),))), "while it is reduced"),
        (predicting(replace(KERNEL, writes=(Write(Access("y", 0, (1, 3, 0)), Reduced()),))), "target 'y' is written"),
        (predicting(MAP), "predict updates 'p0'"),
        (updating(MAP, KERNEL), "'p0' is read after it was updated"),
        (writing(Apply("add", (Reduced(), Read(Access("t", 0, (1, 0, 0)))))), "'t' is read before it is written"),
        (updating(replace(MAP, body=Read(Access("p0", 0, (0, 0))))), "read and written at different words"),
        (writing(Read(Access("x", 0, (0, 4, 1)))), "varies with a reduced loop"),
        (writing(Apply("multiply", (Reduced(), Constant(0.3)))), "powers of two alone"),
        (writing(Apply("multiply", (Reduced(), Read(Access("y", 0, (1, 3, 0)))))), "powers of two alone"),
        (writing(Apply("cosine", (Reduced(),))), "no elementwise function is named 'cosine'"),
        (writing(Apply("sigmoid", (Reduced(), Reduced()))), "sigmoid takes 1 arguments"),
        (writing(Round(Reduced(), 3)), "float kernels have no Round"),
        (predicting(replace(KERNEL, body=Reduced())), "evaluated before anything is reduced"),
        (predicting(replace(KERNEL, body=Apply("add", (PRODUCT, Constant(1.0))))), "one multiplication"),
    ],
)  # fmt: skip
def test_the_checker_names_each_fault(program: KernelProgram, message: str) -> None:
    with pytest.raises(IllegalKernelError, match=message):
        check(program)


def test_accesses_of_a_kernel() -> None:
    assert [access.array for access in reads(KERNEL.body)] == ["x", "p0"]
    assert stores(replace(KERNEL, side_sums=(SIDE,))) == [OUT.access, SIDE.access]


# --- printer ----------------------------------------------------------------------------------------------------


def test_accesses_that_follow_no_axis_are_printed_flat() -> None:
    diagonal = replace(KERNEL, body=Read(Access("p0", 1, (0, 5, 0))))
    assert "p0[flat 1 + 5 b]" in format_kernel(diagonal, PROGRAM)
    shifted = replace(KERNEL, body=Read(Access("p0", 3, (1, 3, 0))))
    assert "p0[1 + b, i]" in format_kernel(shifted, PROGRAM)


# --- executor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduction", "meaning"),
    [("sum", np.sum), ("max", np.max), ("argmax", lambda values, axis: np.argmax(values, axis))],
)
def test_reductions(reduction: str, meaning: Callable[..., np.ndarray]) -> None:
    body = Apply("add", (Read(Access("x", 0, (0, 4, 1))), Read(Access("p0", 0, (1, 0, 3)))))
    program = predicting(replace(KERNEL, body=body, reduction=reduction))  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    x, p0 = generator.normal(size=(2, 4)), generator.normal(size=(4, 3))
    expected = meaning(x[:, :, None] + p0[None], axis=1)
    np.testing.assert_allclose(run(program, "predict", {"x": x, "p0": p0})["yhat"], expected)


def test_the_lowest_index_wins_ties() -> None:
    body = Read(Access("x", 0, (0, 4, 1)))
    program = predicting(replace(KERNEL, body=body, reduction="argmax"))
    x = np.array([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    np.testing.assert_array_equal(run(program, "predict", {"x": x})["yhat"], [[1, 1, 1], [0, 0, 0]])


def test_sums_over_loops_that_no_factor_varies_with() -> None:
    body = Apply("multiply", (Read(Access("x", 0, (0, 4, 0))), Read(Access("p0", 0, (1, 0, 0)))))
    program = predicting(replace(KERNEL, body=body))
    x, p0 = np.arange(8.0).reshape(2, 4), np.arange(12.0).reshape(4, 3)
    expected = 4 * x[:, :1] * p0[:1]
    np.testing.assert_allclose(run(program, "predict", {"x": x, "p0": p0})["yhat"], expected)


def test_arguments_are_not_changed_and_updates_are_returned() -> None:
    p0 = np.ones((4, 3))
    found = run(updating(MAP), "step", {"p0": p0})
    np.testing.assert_allclose(found["p0"], 0.9)
    np.testing.assert_array_equal(p0, 1.0)


def test_precision_is_the_callers_choice() -> None:
    found = run(updating(MAP), "step", {"p0": np.ones((4, 3))}, np.float32)
    assert found["p0"].dtype == np.float32


def test_run_refuses_unknown_misshapen_and_missing_arrays() -> None:
    with pytest.raises(DataError, match="found 'q'"):
        run(PROGRAM, "predict", {"q": np.ones(1)})
    with pytest.raises(IllTypedError, match=r"'x' must have shape \(2, 4\)"):
        run(PROGRAM, "predict", {"x": np.ones((4, 2))})
    with pytest.raises(DataError, match="kernel k reads array 'p0', which was not given"):
        run(PROGRAM, "predict", {"x": np.ones((2, 4))})


def test_observers_see_every_value_of_the_epilogue() -> None:
    program = agree(dense_net(5, 4, 3))
    arrays = random_arrays(simplify(joint_graph(dense_net(5, 4, 3))))
    seen: dict[Expression, np.ndarray] = {}
    run(
        program,
        "predict",
        {name: arrays[name] for name in ("p0", "p1", "x")},
        observe=lambda kernel, expression, values: seen.setdefault(expression, values.copy()),
    )
    (z,) = (expression for expression in seen if isinstance(expression, Apply) and expression.operation == "add")
    expected = (arrays["x"] @ arrays["p0"] + arrays["p1"]).T  # over the kernel's loops: unit, then sample
    np.testing.assert_allclose(seen[z], expected)
    np.testing.assert_allclose(seen[Apply("sigmoid", (z,))], 1 / (1 + np.exp(-expected)))
