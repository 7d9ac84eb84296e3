"""Objects: types of arrays, and lists of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, overload

from catgrad_hw.errors import IllTypedError


class Dtype(Enum):
    """The rig that an array's entries belong to. ``bool`` is the field Z_2."""

    int32 = "int32"
    float32 = "float32"
    bool = "bool"

    def is_floating(self) -> bool:  # type: ignore[valid-type]  # the member ``bool`` hides the builtin in this scope
        """Whether the entries are floating-point numbers."""
        return self is Dtype.float32

    def __repr__(self) -> str:
        return f"Dtype.{self.name}"


@dataclass(frozen=True)
class NdArrayType:
    """The type of an n-dimensional array: a generating object. ``A + B`` is the type of their outer product."""

    shape: tuple[int, ...]
    dtype: Dtype

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not all(type(n) is int and n >= 0 for n in self.shape):
            raise IllTypedError(
                f"NdArrayType: shape must be a tuple of integers >= 0, found {self.shape!r}; write (3,) for 3 entries"
            )
        if not isinstance(self.dtype, Dtype):
            raise IllTypedError(f"NdArrayType: dtype must be a Dtype, found {self.dtype!r}; write Dtype.float32")
        object.__setattr__(self, "_hash", hash((self.shape, self.dtype.name)))

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]  # types are hashed far more often than made

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    def __add__(self, other: NdArrayType | int) -> NdArrayType:
        if isinstance(other, int):
            return NdArrayType((*self.shape, other), self.dtype)
        if not isinstance(other, NdArrayType):
            return NotImplemented
        if self.dtype != other.dtype:
            raise IllTypedError(f"{self} + {other}: dtypes must be equal; change one of the two")
        return _concatenate(self, other)

    def __radd__(self, other: int) -> NdArrayType:
        if isinstance(other, int):
            return NdArrayType((other, *self.shape), self.dtype)
        return NotImplemented

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


@lru_cache(maxsize=4096)
def _concatenate(left: NdArrayType, right: NdArrayType) -> NdArrayType:
    """One object for each pair, so that comparing types is mostly comparing identities."""
    return NdArrayType(left.shape + right.shape, left.dtype)


class Object(tuple[NdArrayType, ...]):
    """An object of the category: an immutable list of array types. ``A + B`` is their tensor product A ● B."""

    __slots__ = ()

    def __new__(cls, types: Iterable[NdArrayType] = ()) -> Object:
        self = super().__new__(cls, types)
        if set(map(type, self)) <= {NdArrayType}:
            return self
        for position, T in enumerate(self):
            if not isinstance(T, NdArrayType):
                raise IllTypedError(
                    f"obj: argument {position} must be an NdArrayType, found {T!r}; write NdArrayType(shape, dtype)"
                )
        return self

    def __add__(self, other: Any) -> Object:
        return Object(tuple.__add__(self, Object(other)))

    def __call__(self, position: int) -> NdArrayType:
        """The type at ``position``."""
        return self[position]

    @overload  # type: ignore[override]
    def __getitem__(self, key: int) -> NdArrayType: ...
    @overload
    def __getitem__(self, key: slice) -> Object: ...
    def __getitem__(self, key: int | slice) -> NdArrayType | Object:
        if isinstance(key, slice):
            return Object(tuple.__getitem__(self, key))
        return tuple.__getitem__(self, key)

    def __str__(self) -> str:
        return " ● ".join(map(str, self)) or "I"

    def __repr__(self) -> str:
        return f"obj({', '.join(map(repr, self))})"


def obj(*types: NdArrayType) -> Object:
    """The object ``types[0] ● types[1] ● …``; ``obj()`` is the unit I."""
    return Object(types)


UNIT = obj()
"""The unit I, the list of no types."""
