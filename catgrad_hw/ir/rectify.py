"""The rectifier, whose derivative is a mask: a selection, and no multiplication."""

from __future__ import annotations

from dataclasses import dataclass

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.hypergraph import OpenHypergraph
from catgrad_hw.ir.operations import Derived, Scalar, Select, require_floating, require_scalar
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.types import NdArrayType, Object, obj


@dataclass(frozen=True)
class Rectify(Derived):
    """``x ↦ x`` where ``x > 0``, else ``slope · x``, for a slope ≥ 0.

    The result ``y`` is positive where ``x`` is, so it is the residual, and the reverse map is ``d ↦ d`` where
    ``y > 0``, else ``slope · d``: nothing has to be kept that is not there anyway.
    """

    T: NdArrayType
    slope: Scalar = 0

    def __post_init__(self) -> None:
        require_floating(self, self.T)
        require_scalar(self, "slope", self.slope)
        if self.slope < 0:
            raise IllTypedError(f"Rectify: expected a slope >= 0, found {self.slope}; change the slope")

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def residual(self) -> Object:
        return obj(self.T)

    def _masked(self, mask: Wire, x: Wire) -> Wire:
        return apply1(Select(self.T), mask, x, x * self.slope if self.slope else x.constant(0))

    def core(self) -> OpenHypergraph:
        return trace(self.source(), lambda x: self._masked(x, x))

    def fwd(self) -> OpenHypergraph:
        def fwd(x: Wire) -> tuple[Wire, Wire]:
            y = self._masked(x, x)
            return y, y

        return trace(self.source(), fwd)

    def rev(self) -> OpenHypergraph:
        return trace(obj(self.T, self.T), self._masked)
