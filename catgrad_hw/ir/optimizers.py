"""Optimizers, as lenses on parameters (arXiv 2103.01931).

An optimizer at parameters ``P`` with state ``S`` is a diagram ``P ● S ● L → P`` whose forward map is the projection and
whose reverse map takes the gradients in ``P`` to the next parameters and the next state. ``L`` is the learning rate
where that is an argument of ``step``, else nothing. All state starts at zeros.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir.hypergraph import OpenHypergraph, op
from catgrad_hw.ir.operations import Constant, Derived, Lens, Scalar, Sqrt, require_floating, require_scalar
from catgrad_hw.ir.trace import Wire, apply, apply1, trace
from catgrad_hw.ir.types import UNIT, Dtype, NdArrayType, Object, obj

Wires: TypeAlias = list[Wire]

RATE = NdArrayType((), Dtype.float32)
"""The type of a learning rate that is an argument."""


def _no_state(P: Object) -> Object:
    return UNIT


@dataclass(frozen=True)
class Optimizer:
    """An optimizer at each ``P``: ``lens(P) : P ● state(P) ● rate → P``."""

    lens: Callable[[Object], OpenHypergraph]
    state: Callable[[Object], Object] = _no_state
    rate: Object = UNIT

    def __call__(self, P: Object) -> OpenHypergraph:
        return self.lens(P)


@dataclass(frozen=True)
class Update(Derived, Lens):
    """An update rule as a lens: forward the projection to the parameters, reverse :meth:`update`.

    ``c`` is the learning rate; None where it is the last argument.
    """

    @property
    @abstractmethod
    def parameters(self) -> Object:
        """The types of what is updated."""

    @property
    @abstractmethod
    def state(self) -> Object:
        """The types of what is kept from step to step."""

    @property
    @abstractmethod
    def rate(self) -> Scalar | None:
        """The learning rate, or None where it is an argument."""

    @abstractmethod
    def update(
        self, parameters: list[Wire], state: list[Wire], rate: Wire | Scalar, gradients: list[Wire]
    ) -> list[Wire]:
        """The next parameters, then the next state."""

    def source(self) -> Object:
        return self.parameters + self.state + (obj(RATE) if self.rate is None else obj())

    def target(self) -> Object:
        return self.parameters

    def core(self) -> OpenHypergraph:
        return trace(self.source(), lambda *wires: wires[: len(self.parameters)])

    def rev(self) -> OpenHypergraph:
        n, m = len(self.parameters), len(self.state)

        def rev(*wires: Wire) -> list[Wire]:
            held = n + m + (self.rate is None)
            parameters, state, gradients = list(wires[:n]), list(wires[n : n + m]), list(wires[held:])
            if self.rate is None:
                rate = wires[n + m]
                return [*self.update(parameters, state, rate, gradients), rate.constant(0)]
            return self.update(parameters, state, self.rate, gradients)

        return trace(self.source() + self.parameters, rev)

    def _require_rate(self, c: Scalar | None, *types: NdArrayType) -> None:
        if c is not None:
            require_scalar(self, "c", c)
            for T in types:
                Constant(T, c)


def _scaled(x: Wire, rate: Wire | Scalar) -> Wire:
    """``rate · x``."""
    return x * (rate.spread(x.T) if isinstance(rate, Wire) else rate)


@dataclass(frozen=True)
class SGD(Update):
    """Gradient descent: ``p' = p − c·∂p``."""

    T: NdArrayType
    c: Scalar | None

    def __post_init__(self) -> None:
        if self.c is None:
            require_floating(self, self.T)
        self._require_rate(self.c, self.T)

    @property
    def parameters(self) -> Object:
        return obj(self.T)

    @property
    def state(self) -> Object:
        return obj()

    @property
    def rate(self) -> Scalar | None:
        return self.c

    def update(
        self, parameters: list[Wire], state: list[Wire], rate: Wire | Scalar, gradients: list[Wire]
    ) -> list[Wire]:
        return [parameters[0] - _scaled(gradients[0], rate)]


@dataclass(frozen=True)
class Momentum(Update):
    """Gradient descent with momentum: ``v' = μ·v + ∂p``, ``p' = p − c·v'`` (Polyak, 1964)."""

    T: NdArrayType
    c: Scalar | None
    momentum: Scalar = 0.9

    def __post_init__(self) -> None:
        require_floating(self, self.T)
        self._require_rate(self.c, self.T)
        require_scalar(self, "momentum", self.momentum)

    @property
    def parameters(self) -> Object:
        return obj(self.T)

    @property
    def state(self) -> Object:
        return obj(self.T)

    @property
    def rate(self) -> Scalar | None:
        return self.c

    def update(
        self, parameters: list[Wire], state: list[Wire], rate: Wire | Scalar, gradients: list[Wire]
    ) -> list[Wire]:
        velocity = state[0] * self.momentum + gradients[0]
        return [parameters[0] - _scaled(velocity, rate), velocity]


@dataclass(frozen=True)
class Adam(Update):
    """Adam (arXiv 1412.6980, algorithm 1): ``m' = β₁m + (1−β₁)∂p``, ``v' = β₂v + (1−β₂)∂p²``, and
    ``p' = p − c · (m'/k₁') / (√(v'/k₂') + ε)``.

    The corrections ``kᵢ = 1 − βᵢᵗ`` are state as well, ``kᵢ' = βᵢkᵢ + (1−βᵢ)``, so that all state starts at zeros: the
    ``m`` of each parameter, the ``v`` of each parameter, ``k₁`` and ``k₂``.
    """

    types: Object
    c: Scalar | None
    beta1: Scalar = 0.9
    beta2: Scalar = 0.999
    epsilon: Scalar = 1e-8

    def __post_init__(self) -> None:
        for T in self.types:
            require_floating(self, T)
        self._require_rate(self.c, *self.types)
        for field in ("beta1", "beta2", "epsilon"):
            require_scalar(self, field, getattr(self, field))
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise IllTypedError(f"Adam: expected 0 <= β < 1, found {self.beta1} and {self.beta2}; change them")

    @property
    def parameters(self) -> Object:
        return self.types

    @property
    def state(self) -> Object:
        return self.types + self.types + obj(RATE, RATE)

    @property
    def rate(self) -> Scalar | None:
        return self.c

    def update(
        self, parameters: list[Wire], state: list[Wire], rate: Wire | Scalar, gradients: list[Wire]
    ) -> list[Wire]:
        n = len(self.types)
        *moments, k1, k2 = state
        k1 = k1 * self.beta1 + (1 - self.beta1)
        k2 = k2 * self.beta2 + (1 - self.beta2)
        size = rate / k1 if isinstance(rate, Wire) else k1.constant(rate) / k1
        first, second, updated = [], [], []
        for p, m, v, d in zip(parameters, moments[:n], moments[n:], gradients, strict=True):
            m = m * self.beta1 + d * (1 - self.beta1)
            v = v * self.beta2 + d * d * (1 - self.beta2)
            deviation = apply1(Sqrt(v.T), v / k2.spread(v.T)) + self.epsilon
            updated.append(p - _scaled(m, size) / deviation)
            first.append(m)
            second.append(v)
        return [*updated, *first, *second, k1, k2]


def each(rule: Callable[[NdArrayType], Update], rate: Scalar | None) -> Optimizer:
    """An update rule for one array, applied to each parameter; the learning rate is shared."""

    def lens(P: Object) -> OpenHypergraph:
        def apply_each(*wires: Wire) -> list[Wire]:
            state, results = list(wires[len(P) : len(wires) - (rate is None)]), list[Wire]()
            for p in wires[: len(P)]:
                operation = rule(p.T)
                own = [state.pop(0) for _ in operation.state]
                results += apply(operation, p, *own, *([wires[-1]] if rate is None else []))
            return results

        return trace(P + state(P) + rates, apply_each)

    def state(P: Object) -> Object:
        return Object(S for T in P for S in rule(T).state)

    rates = obj(RATE) if rate is None else obj()
    return Optimizer(lens, state, rates)


def sgd(c: Scalar | None) -> Optimizer:
    """Gradient descent with learning rate ``c``; None makes it the last argument of ``step``."""
    return each(lambda T: SGD(T, c), c)


def momentum(c: Scalar | None, momentum: Scalar = 0.9) -> Optimizer:
    """Gradient descent with momentum and learning rate ``c``; None makes that the last argument of ``step``."""
    return each(lambda T: Momentum(T, c, momentum), c)


def adam(c: Scalar | None = 1e-3, beta1: Scalar = 0.9, beta2: Scalar = 0.999, epsilon: Scalar = 1e-8) -> Optimizer:
    """Adam with learning rate ``c``; None makes that the last argument of ``step``."""

    def at(P: Object) -> Adam:
        return Adam(P, c, beta1, beta2, epsilon)

    return Optimizer(lambda P: op(at(P)), lambda P: at(P).state, obj(RATE) if c is None else obj())
