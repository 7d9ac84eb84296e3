"""The classes of operations that the package has."""

from __future__ import annotations

import inspect

import catgrad_hw.layers  # noqa: F401 -- brings in every module that defines operations
from catgrad_hw.ir import operations as ops


def concrete_operations() -> list[type[ops.Operation]]:
    """Every operation that can be made, in order of name."""

    def below(c: type[ops.Operation]) -> set[type[ops.Operation]]:
        found = {d for subclass in c.__subclasses__() for d in below(subclass)}
        private = c.__name__.startswith("_") or not c.__module__.startswith("catgrad_hw.ir")
        return found if inspect.isabstract(c) or private else {c, *found}

    return sorted(below(ops.Operation), key=lambda c: c.__name__)  # type: ignore[type-abstract]


def is_core(c: type[ops.Operation]) -> bool:
    """Whether later levels know an operation, rather than the diagram that it stands for."""
    return not issubclass(c, ops.Derived | ops.Parameter)
