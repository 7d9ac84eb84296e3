"""Each operation: shape rule, precision, and its reverse map against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from every_operation import concrete_operations

from catgrad_hw.errors import IllTypedError, UnsupportedError
from catgrad_hw.ir import losses, normalize, optimizers, rectify, windows
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.hypergraph import OpenHypergraph, op
from catgrad_hw.ir.operations import evaluate
from catgrad_hw.ir.optics import rdiff
from catgrad_hw.ir.types import Dtype, NdArrayType, Object, obj

Float64 = npt.NDArray[np.float64]


def F(*shape: int) -> NdArrayType:
    return NdArrayType(shape, Dtype.float32)


def anywhere(random: np.random.Generator, A: Object) -> list[Float64]:
    return [random.normal(size=T.shape) for T in A]


def positive(random: np.random.Generator, A: Object) -> list[Float64]:
    return [random.uniform(0.5, 2, size=T.shape) for T in A]


def distinct(random: np.random.Generator, A: Object) -> list[Float64]:
    """Entries at least 0.1 apart, over all arrays: away from ties."""
    entries = iter(random.permutation(sum(T.size for T in A)) * 0.1)
    return [np.array([next(entries) for _ in range(T.size)]).reshape(T.shape) for T in A]


Sampler = Callable[[np.random.Generator, Object], list[Float64]]

# Every operation with a reverse derivative, and where it is differentiable.
CASES: list[tuple[ops.Operation, Sampler]] = [
    (ops.Copy(F(2, 3)), anywhere),
    (ops.Discard(F(2, 3)), anywhere),
    (ops.Add(F(2, 3)), anywhere),
    (ops.Add(F()), anywhere),
    (ops.Constant(F(2), 3.5), anywhere),
    (ops.NCopy(F(2), F(3, 4)), anywhere),
    (ops.NCopy(F(), F(3)), anywhere),
    (ops.NCopy(F(3), F()), anywhere),
    (ops.NAdd(F(2), F(3, 4)), anywhere),
    (ops.NAdd(F(), F(3)), anywhere),
    (ops.NAdd(F(3), F()), anywhere),
    (ops.NSplit(F(2), 3), anywhere),
    (ops.NSplit(F(2), 1), anywhere),
    (ops.NConcatenate(F(2), 3), anywhere),
    (ops.Negate(F(2, 3)), anywhere),
    (ops.Subtract(F(2, 3)), anywhere),
    (ops.Reshape(F(2, 6), F(3, 4)), anywhere),
    (ops.Permute(F(2, 3, 4), [2, 0, 1]), anywhere),
    (ops.Multiply(F(2, 3)), anywhere),
    (ops.Compose(F(2), F(3), F(4)), anywhere),
    (ops.Compose(F(2, 2), F(3, 2), F(4)), anywhere),
    (ops.Compose(F(), F(3), F()), anywhere),
    (ops.MatrixMultiply(F(2), F(3), F(4), F(2)), anywhere),
    (ops.MatrixMultiply(F(), F(3), F(4), F(2)), anywhere),
    (ops.Gt(F(2, 3)), distinct),
    (ops.NMax(F(2), F(3, 2)), distinct),
    (ops.NMax(F(2), F()), distinct),
    (ops.FirstMaximum(F(2), F(3, 2)), distinct),
    (rectify.Rectify(F(2, 3)), anywhere),
    (rectify.Rectify(F(2, 3), 0.25), anywhere),
    (ops.Divide(F(2, 3)), positive),
    (ops.Power(F(2, 3)), positive),
    (ops.Log(F(2, 3)), positive),
    (ops.Exp(F(2, 3)), anywhere),
    (ops.Sqrt(F(2, 3)), positive),
    (ops.Tanh(F(2, 3)), anywhere),
    (ops.TanhDerivative(F(2, 3)), anywhere),
    (ops.Select(F(2, 3)), distinct),
    (ops.Sigmoid(F(2, 3)), anywhere),
    (ops.SigmoidDerivative(F(2, 3)), anywhere),
    (ops.ScaleInverse(F(2, 3), 3), anywhere),
    (ops.Exponentiate(F(2, 3), 3), anywhere),
    (ops.Exponentiate(F(2, 3), -0.5), positive),
    (ops.Exponentiate(F(2, 3), 0), anywhere),
    (windows.Pad(F(2, 3), (1, 0), (0, 2), (2, 3), 0.5), anywhere),
    (windows.Crop(F(2, 3), (1, 0), (0, 2), (2, 3)), anywhere),
    (windows.Windows(F(2, 7), 1, 3, 2, 1), anywhere),
    (windows.Windows(F(7, 2), 0, 2, 1, 3), anywhere),
    (windows.Fold(F(2, 7), 1, 3, 2, 1), anywhere),
    (windows.Fold(F(6, 2), 0, 2, 3, 2), anywhere),
    (windows.Flip(F(2, 3), 1), anywhere),
    (windows.Convolution(F(2), F(2, 5, 4), F(3, 2, 3, 2)), anywhere),
    (windows.Convolution(F(2), F(1, 6, 7), F(2, 1, 2, 3), (2, 3), (1, 2), (2, 1)), anywhere),
    (windows.Convolution(F(), F(2, 4, 4), F(1, 2, 1, 2), (1, 1), (2, 3)), anywhere),
    (normalize.Softmax(F(2), F(3)), anywhere),
    (normalize.Softmax(F(), F(2, 3)), anywhere),
    (normalize.Standardize(F(2), F(3, 2), 0.1), anywhere),
]
# Invert has no float32, and tests of its own.
REFUSED = {ops.Parameter, ops.Invert}
# Lenses whose reverse map is not a derivative, by design; they have tests of their own.
LEARNERS = {
    optimizers.SGD,
    optimizers.Momentum,
    optimizers.Adam,
    losses.MSE,
    losses.MeanSquaredError,
    losses.CrossEntropy,
    losses.Huber,
}


def names(case: object) -> str:
    return repr(case).replace("NdArrayType", "") if isinstance(case, ops.Operation) else ""


def test_every_operation_has_a_case_or_a_refusal() -> None:
    assert set(concrete_operations()) == {type(o) for o, _ in CASES} | REFUSED | LEARNERS


@pytest.mark.parametrize(("operation", "sample"), CASES, ids=names)
def test_shapes_precision_and_types_of_the_optic(operation: ops.Operation, sample: Sampler) -> None:
    A, B, M = operation.source(), operation.target(), operation.residual()
    arrays = [x.astype(np.float32) for x in sample(np.random.default_rng(0), A)]
    results = operation.numpy(*arrays)
    assert [(y.shape, y.dtype) for y in results] == [(T.shape, np.dtype(np.float32)) for T in B]
    assert (operation.fwd().source, operation.fwd().target) == (A, B + M)
    assert (operation.rev().source, operation.rev().target) == (M + B, A)
    assert (operation.core().source, operation.core().target) == (A, B)
    assert hash(operation) == hash(operation)


@pytest.mark.parametrize(("operation", "sample"), CASES, ids=names)
def test_reverse_map_against_finite_differences(operation: ops.Operation, sample: Sampler) -> None:
    random = np.random.default_rng(1)
    f = op(operation)
    x, d = sample(random, f.source), anywhere(random, f.target)
    for found, expected in zip(evaluate(rdiff(f), *x, *d), finite_differences(f, x, d), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def finite_differences(f: OpenHypergraph, x: list[Float64], d: list[Float64], step: float = 1e-5) -> list[Float64]:
    """The gradient of ``<d, f(x)>`` in ``x`` by central differences, with the step's square as relative error."""

    def pairing() -> float:
        return sum(float(np.sum(a * b)) for a, b in zip(d, evaluate(f, *x), strict=True))

    gradients = [np.zeros_like(a) for a in x]
    for a, gradient in zip(x, gradients, strict=True):
        for index in np.ndindex(a.shape):
            middle = a[index]
            a[index] = middle + step
            above = pairing()
            a[index] = middle - step
            gradient[index] = (above - pairing()) / (2 * step)
            a[index] = middle
    return gradients


def test_the_optic_of_a_derived_operation_is_that_of_its_diagram() -> None:
    """For the operations that are not learners', ``core`` computes the same map and the same derivative."""
    random = np.random.default_rng(2)
    for operation in (ops.ScaleInverse(F(4), 3), ops.Exponentiate(F(4), 3)):
        x, d = positive(random, operation.source()), anywhere(random, operation.target())
        core = operation.core()
        np.testing.assert_allclose(evaluate(op(operation), *x), evaluate(core, *x), rtol=1e-6)
        np.testing.assert_allclose(evaluate(rdiff(op(operation)), *x, *d), evaluate(rdiff(core), *x, *d), rtol=1e-6)


def test_learner_lenses() -> None:
    T = F(3)
    p, g = np.array([1.0, 2.0, 3.0]), np.array([4.0, -8.0, 0.0])
    (updated,) = evaluate(optimizers.SGD(T, 0.5).rev(), p, g)
    np.testing.assert_array_equal(updated, p - 0.5 * g)
    (error,) = evaluate(losses.MSE(T).rev(), p, g)
    np.testing.assert_array_equal(error, p - g)
    for lens in (optimizers.SGD(T, 0.5), losses.MSE(T)):
        (forward,) = evaluate(op(lens), p)
        np.testing.assert_array_equal(forward, p)


def test_the_first_of_tied_maxima_takes_the_cotangent() -> None:
    x = np.array([[1.0, 5.0, 5.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    d = np.array([6.0, 8.0])
    (gradient,) = evaluate(rdiff(op(ops.NMax(F(2), F(4)))), x, d)
    np.testing.assert_array_equal(gradient, [[0, 6, 0, 0], [8, 0, 0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_is_exact_at_the_ends_and_keeps_small_values(dtype: type) -> None:
    x: npt.NDArray[Any] = np.array([-np.inf, -1000, -50, 0, 50, 1000, np.inf], dtype)
    with np.errstate(all="raise", under="ignore"):
        (y,), (slope,) = ops.Sigmoid(F(7)).numpy(x), ops.SigmoidDerivative(F(7)).numpy(x)
    np.testing.assert_allclose(y, [0, 0, np.exp(-50.0), 0.5, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(slope, [0, 0, np.exp(-50.0), 0.25, np.exp(-50.0), 0, 0], rtol=1e-6)
    spread: npt.NDArray[Any] = np.random.default_rng(3).uniform(-80, 80, 1000).astype(dtype)
    exact = 1 / (1 + np.exp(-spread.astype(np.longdouble)))
    assert np.max(np.abs(ops.Sigmoid(F(1000)).numpy(spread)[0] / exact - 1)) < 4 * np.finfo(dtype).eps


def test_parameters_must_be_factored_out() -> None:
    with pytest.raises(UnsupportedError, match="factor_parameters"):
        rdiff(op(ops.Parameter(F(2))))
    with pytest.raises(UnsupportedError, match="factor_parameters"):
        evaluate(op(ops.Parameter(F(2))))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: ops.Reshape(F(2, 3), F(5)), IllTypedError, r"Reshape: numbers of entries must be equal"),
        (lambda: ops.Permute(F(2, 3), [0, 0]), IllTypedError, "Permute: expected a permutation of the 2 axes"),
        (lambda: ops.MatrixMultiply(F(), F(2, 2), F(2), F(2)), IllTypedError, "one axis.*use Compose"),
        (lambda: ops.NSplit(F(2), 0), IllTypedError, "at least 1 part"),
        (lambda: ops.NMax(F(2), F(0)), IllTypedError, "at least one entry"),
        (lambda: ops.ScaleInverse(F(2), 0), IllTypedError, "other than 0"),
        (lambda: ops.Constant(F(2), "1"), IllTypedError, "a finite number, found '1'"),  # type: ignore[arg-type]
        (lambda: ops.Constant(F(2), float("nan")), IllTypedError, "a finite number, found nan"),
        (lambda: ops.Constant(NdArrayType((2,), Dtype.int32), 0.5), IllTypedError, "an integer from"),
        (lambda: optimizers.SGD(F(2), float("inf")), IllTypedError, "SGD: c must be a finite number"),
        (lambda: op(ops.Negate), IllTypedError, "op: expected an operation"),  # type: ignore[arg-type]
        (lambda: op(ops.Negate(F(2))) >> ops.copy, IllTypedError, "apply a layer"),  # type: ignore[operator]
        (lambda: op(ops.Negate(F(2))) @ 3, IllTypedError, "must be a diagram"),  # type: ignore[operator]
        (lambda: ops.Sigmoid(NdArrayType((2,), Dtype.int32)), UnsupportedError, "Sigmoid: expected float32"),
        (lambda: ops.Invert(F(2)), UnsupportedError, "Invert: expected int32 or bool"),
        (lambda: ops.Exponentiate(NdArrayType((2,), Dtype.int32), -1), UnsupportedError, "must be >= 0, found -1"),
        (lambda: ops.Constant(NdArrayType((2,), Dtype.int32), 2**31), IllTypedError, "an integer from"),
        (lambda: ops.Constant(NdArrayType((2,), Dtype.bool), 2), IllTypedError, "0 or 1"),
        (lambda: ops.Constant(F(2), 2**24 + 1), IllTypedError, "a number that float32 can hold"),
        (lambda: ops.Constant(F(2), 1e39), IllTypedError, "a number that float32 can hold"),
        (lambda: ops.Constant(F(2), 1e-50), IllTypedError, "a number that float32 can hold"),
        (lambda: ops.Constant(F(2), 10**400), IllTypedError, "a number that float32 can hold"),
        (lambda: windows.Windows(F(3), 0, 4), IllTypedError, "windows must fit"),
        (lambda: windows.Pad(F(3), (0, 0), (0,), (1,)), IllTypedError, "Pad: low must be 1 integers"),
        (lambda: windows.Convolution(F(2), F(2, 3, 3), F(1, 1, 2, 2)), IllTypedError, "as many channels"),
        (lambda: ops.Compose(F(2), F(3), NdArrayType((2,), Dtype.int32)), IllTypedError, "dtypes must be equal"),
        (lambda: NdArrayType([2], Dtype.float32), IllTypedError, "tuple of integers"),  # type: ignore[arg-type]
        (lambda: NdArrayType((2,), "float32"), IllTypedError, "write Dtype.float32"),  # type: ignore[arg-type]
        (lambda: F(2) + NdArrayType((2,), Dtype.int32), IllTypedError, "dtypes must be equal"),
        (lambda: obj((2,)), IllTypedError, "must be an NdArrayType"),  # type: ignore[arg-type]
        (lambda: ops.copy(F(2)), IllTypedError, "write obj"),  # type: ignore[arg-type]
    ],
)
def test_ill_typed_operations_are_refused_in_one_line(
    make: Callable[[], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_types_concatenate() -> None:
    assert F(2) + F(3, 4) == F(2, 3, 4)
    assert F(2) + 3 == F(2, 3)
    assert 3 + F(2) == F(3, 2)
    A = obj(F(2), F(3)) + obj(F())
    assert (len(A), A[1], A(2), A[1:]) == (3, F(3), F(), obj(F(3), F()))
    assert str(A) == "float32[2] ● float32[3] ● float32[]"
