"""Operations that normalise the last axes of an array: softmax and layer normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import Derived, Exp, Scalar, Sqrt, require_floating, require_same_dtype, require_scalar
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.types import NdArrayType, Object, obj


def softmax(x: Wire, kept: int) -> Wire:
    """``e^x / Σ e^x`` over all axes but the first ``kept``, from differences to the maximum, so that none overflows."""
    over = NdArrayType(x.T.shape[kept:], x.T.dtype)
    e = apply1(Exp(x.T), x - x.largest(kept).spread(over))
    return e / e.total(kept).spread(over)


@dataclass(frozen=True)
class Softmax(Derived):
    """``N + T → N + T``: ``eˣ / Σ eˣ``, summed over the trailing axes ``T``. The residual is the result ``y``, and the
    reverse map is ``d ↦ y · (d − Σ y·d)``."""

    N: NdArrayType
    T: NdArrayType

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.T)
        require_floating(self, self.T)

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return self.source()

    def core(self) -> OpenHypergraph:
        return trace(self.source(), lambda x: softmax(x, len(self.N.shape)))

    def residual(self) -> Object:
        return self.target()

    def fwd(self) -> OpenHypergraph:
        def fwd(x: Wire) -> tuple[Wire, Wire]:
            y = softmax(x, len(self.N.shape))
            return y, y

        return trace(self.source(), fwd)

    def rev(self) -> OpenHypergraph:
        def rev(y: Wire, d: Wire) -> Wire:
            return y * (d - (y * d).total(len(self.N.shape)).spread(self.T))

        return trace(self.source() + self.source(), rev)


@dataclass(frozen=True)
class Standardize(Derived):
    """``N + T → N + T``: ``(x − μ) / √(σ² + ε)`` with mean ``μ`` and variance ``σ²`` over the trailing axes ``T``
    (layer normalisation, arXiv 1607.06450, without gain and bias).

    The residual is the result ``y`` and ``r = 1 / √(σ² + ε)``; the reverse map is ``d ↦ r · (d − mean d − y · mean
    y·d)``.
    """

    N: NdArrayType
    T: NdArrayType
    epsilon: Scalar = 1e-5

    def __post_init__(self) -> None:
        require_same_dtype(self, self.N, self.T)
        require_floating(self, self.T)
        require_scalar(self, "epsilon", self.epsilon)

    def source(self) -> Object:
        return obj(self.N + self.T)

    def target(self) -> Object:
        return self.source()

    def _mean(self, x: Wire) -> Wire:
        return x.total(len(self.N.shape)) * (1 / self.T.size)

    def _standardize(self, x: Wire) -> tuple[Wire, Wire]:
        centred = x - self._mean(x).spread(self.T)
        deviation = apply1(Sqrt(self.N), self._mean(centred * centred) + self.epsilon)
        scale = deviation.constant(1) / deviation
        return centred * scale.spread(self.T), scale

    def core(self) -> OpenHypergraph:
        return trace(self.source(), lambda x: self._standardize(x)[0])

    def residual(self) -> Object:
        return self.target() + obj(self.N)

    def fwd(self) -> OpenHypergraph:
        def fwd(x: Wire) -> tuple[Wire, Wire, Wire]:
            y, scale = self._standardize(x)
            return y, y, scale

        return trace(self.source(), fwd)

    def rev(self) -> OpenHypergraph:
        def rev(y: Wire, scale: Wire, d: Wire) -> Wire:
            rest = self._mean(d).spread(self.T) + y * self._mean(y * d).spread(self.T)
            return (d - rest) * scale.spread(self.T)

        return trace(self.residual() + self.target(), rev)
