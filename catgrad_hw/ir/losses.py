"""Losses, as lenses: forward the identity, reverse ``(ŷ, y) ↦`` the gradient of the loss in ``ŷ``.

What a loss is a function of, and its value, are given by :meth:`Loss.value`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.hypergraph import OpenHypergraph, identity
from catgrad_hw.ir.normalize import softmax
from catgrad_hw.ir.operations import Derived, Exp, Lens, Log, Scalar, Select, require_floating, require_scalar
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.types import NdArrayType, Object, obj


@dataclass(frozen=True)
class Loss(Derived, Lens):
    """A loss on predictions and targets of type ``T``, whose first axis is the batch.

    Training reports its value over all data as one batch: the same loss with another ``T``.
    """

    T: NdArrayType

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def core(self) -> OpenHypergraph:
        return identity(obj(self.T))

    @abstractmethod
    def gradient(self, predicted: Wire, y: Wire) -> Wire:
        """The gradient of :meth:`loss` in the prediction."""

    @abstractmethod
    def loss(self, predicted: Wire, y: Wire) -> Wire:
        """The loss, a number."""

    def value(self) -> OpenHypergraph:
        """The loss as a diagram, ``T ● T → ()``, of predictions and targets."""
        return trace(obj(self.T, self.T), self.loss)

    def rev(self) -> OpenHypergraph:
        return trace(obj(self.T, self.T), self.gradient)


@dataclass(frozen=True)
class MSE(Loss):
    """catgrad's ``½Σ(ŷ − y)²``, over all entries, with gradient ``ŷ − y``."""

    def gradient(self, predicted: Wire, y: Wire) -> Wire:
        return predicted - y

    def loss(self, predicted: Wire, y: Wire) -> Wire:
        e = predicted - y
        return (e * e).total(0) * 0.5


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """The mean of ``(ŷ − y)²`` over all ``n`` entries, with gradient ``2(ŷ − y)/n``."""

    def __post_init__(self) -> None:
        require_floating(self, self.T)

    def gradient(self, predicted: Wire, y: Wire) -> Wire:
        return (predicted - y) * (2 / self.T.size)

    def loss(self, predicted: Wire, y: Wire) -> Wire:
        e = predicted - y
        return (e * e).total(0) * (1 / self.T.size)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """``−(1/b) Σ y · log softmax(ŷ)``, the mean over ``b`` samples of the cross-entropy of the classes' distribution
    ``softmax(ŷ)`` over the last axis with the target ``y``, which sums to 1. Its gradient is ``(softmax(ŷ) − y)/b``.

    A model trained with it ends in scores, not in a softmax.
    """

    def __post_init__(self) -> None:
        require_floating(self, self.T)
        if not self.T.shape:
            raise IllTypedError(f"CrossEntropy: expected an axis of classes, found {self.T}; change the shape")

    @property
    def samples(self) -> int:
        """The number of distributions."""
        return self.T.size // self.T.shape[-1]

    def gradient(self, predicted: Wire, y: Wire) -> Wire:
        return (softmax(predicted, len(self.T.shape) - 1) - y) * (1 / self.samples)

    def loss(self, predicted: Wire, y: Wire) -> Wire:
        kept = len(self.T.shape) - 1
        classes = NdArrayType(self.T.shape[-1:], self.T.dtype)
        shifted = predicted - predicted.largest(kept).spread(classes)
        total = apply1(Exp(self.T), shifted).total(kept)
        logarithm = shifted - apply1(Log(total.T), total).spread(classes)
        return (y * logarithm).total(0) * (-1 / self.samples)


@dataclass(frozen=True)
class Huber(Loss):
    """The mean over all ``n`` entries of ``½e²`` where ``|e| ≤ δ``, else ``δ(|e| − ½δ)``, for errors ``e = ŷ − y``;
    its gradient is ``e`` clipped to ``±δ``, over ``n`` (Huber, 1964)."""

    delta: Scalar = 1.0

    def __post_init__(self) -> None:
        require_floating(self, self.T)
        require_scalar(self, "delta", self.delta)
        if self.delta <= 0:
            raise IllTypedError(f"Huber: delta must be > 0, found {self.delta}; change delta")

    def _clipped(self, e: Wire) -> Wire:
        high, low = e.constant(self.delta), e.constant(-self.delta)
        above = apply1(Select(self.T), e - self.delta, high, e)
        return apply1(Select(self.T), low - e, low, above)

    def gradient(self, predicted: Wire, y: Wire) -> Wire:
        return self._clipped(predicted - y) * (1 / self.T.size)

    def loss(self, predicted: Wire, y: Wire) -> Wire:
        e = predicted - y
        clipped = self._clipped(e)  # c·e − ½c² is ½e² inside, δ|e| − ½δ² outside
        return (clipped * e - clipped * clipped * 0.5).total(0) * (1 / self.T.size)
