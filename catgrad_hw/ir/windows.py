"""Operations that move windows over arrays: padding, cropping, windows, convolution.

All but :class:`Convolution` are linear and come in adjoint pairs: :class:`Pad` and :class:`Crop`, :class:`Windows` and
:class:`Fold`; :class:`Flip` is its own adjoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from catgrad_hw.errors import IllTypedError
from catgrad_hw.ir import arithmetic
from catgrad_hw.ir.hypergraph import OpenHypergraph, op
from catgrad_hw.ir.operations import (
    Array,
    Compose,
    Constant,
    Derived,
    Lens,
    Linear,
    Operation,
    Scalar,
    require_same_dtype,
    require_scalar,
)
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.types import NdArrayType, Object, obj

Pair: TypeAlias = tuple[int, int]
Sizes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class _Padding:
    """Where the entries of ``T`` lie in the padded array: along axis ``i`` at ``low[i] + step[i] · index``."""

    T: NdArrayType
    low: tuple[int, ...]
    high: tuple[int, ...]
    step: tuple[int, ...]

    def __post_init__(self) -> None:
        name, n = type(self).__name__, len(self.T.shape)
        for field, least in (("low", 0), ("high", 0), ("step", 1)):
            found = tuple(getattr(self, field))
            object.__setattr__(self, field, found)
            if len(found) != n or any(type(k) is not int or k < least for k in found):
                raise IllTypedError(
                    f"{name}: {field} must be {n} integers >= {least}, one for each axis of {self.T}, found {found}; "
                    f"change {field}"
                )
        if self.T.size == 0:
            raise IllTypedError(f"{name}: expected at least one entry, found {self.T}; change the shape")

    @property
    def padded(self) -> NdArrayType:
        """The type of the padded array."""
        sizes = zip(self.low, self.T.shape, self.step, self.high, strict=True)
        return NdArrayType(tuple(low + (n - 1) * step + 1 + high for low, n, step, high in sizes), self.T.dtype)

    def slices(self) -> tuple[slice, ...]:
        """The entries within the padded array."""
        places = zip(self.low, self.T.shape, self.step, strict=True)
        return tuple(slice(low, low + (n - 1) * step + 1, step) for low, n, step in places)


@dataclass(frozen=True)
class Pad(_Padding, Operation):
    """``T → padded``: lay the entries out in an array of ``value``: ``low`` before, ``high`` after them along each
    axis, and ``step − 1`` between neighbours."""

    value: Scalar = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scalar(self, "value", self.value)
        Constant(self.T, self.value)

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.padded)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        result = np.full(self.padded.shape, self.value, x.dtype)
        result[self.slices()] = x
        return (result,)

    def residual(self) -> Object:
        return obj()

    def fwd(self) -> OpenHypergraph:
        return op(self)

    def rev(self) -> OpenHypergraph:
        return op(Crop(self.T, self.low, self.high, self.step))


@dataclass(frozen=True)
class Crop(_Padding, Linear):
    """``padded → T``: the entries that :class:`Pad` would lay out."""

    def source(self) -> Object:
        return obj(self.padded)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (x[self.slices()],)

    def rev(self) -> OpenHypergraph:
        return op(Pad(self.T, self.low, self.high, self.step))


@dataclass(frozen=True)
class _Windowed:
    """Windows of ``size`` entries, ``dilation`` apart, along ``axis`` of ``T``; windows start ``step`` apart."""

    T: NdArrayType
    axis: int
    size: int
    step: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0 <= self.axis < len(self.T.shape):
            raise IllTypedError(f"{name}: axis must be one of the {len(self.T.shape)} of {self.T}, found {self.axis}")
        for field in ("size", "step", "dilation"):
            if type(getattr(self, field)) is not int or getattr(self, field) < 1:
                raise IllTypedError(f"{name}: {field} must be an integer >= 1, found {getattr(self, field)!r}")
        if self.reach > self.T.shape[self.axis]:
            raise IllTypedError(
                f"{name}: windows must fit into axis {self.axis} of {self.T}, found windows that reach over "
                f"{self.reach} entries; make them smaller, or pad the array"
            )

    @property
    def reach(self) -> int:
        """Entries from a window's first to its last, both included."""
        return (self.size - 1) * self.dilation + 1

    @property
    def count(self) -> int:
        """The number of windows."""
        return (self.T.shape[self.axis] - self.reach) // self.step + 1

    @property
    def windows(self) -> NdArrayType:
        """The type of the windows: ``axis`` counts them, and a new last axis runs within them."""
        shape = (*self.T.shape[: self.axis], self.count, *self.T.shape[self.axis + 1 :], self.size)
        return NdArrayType(shape, self.T.dtype)

    def entry(self, k: int) -> tuple[slice, ...]:
        """Entry ``k`` of every window, within ``T``."""
        first = k * self.dilation
        along = slice(first, first + (self.count - 1) * self.step + 1, self.step)
        return (*(slice(None) for _ in range(self.axis)), along)


@dataclass(frozen=True)
class Windows(_Windowed, Linear):
    """``T → windows``: the windows of an array along an axis, which may overlap."""

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.windows)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        view = np.lib.stride_tricks.sliding_window_view(x, self.reach, self.axis)
        return (view[(*self.entry(0)[:-1], slice(None, None, self.step))][..., :: self.dilation],)

    def rev(self) -> OpenHypergraph:
        return op(Fold(self.T, self.axis, self.size, self.step, self.dilation))


@dataclass(frozen=True)
class Fold(_Windowed, Linear):
    """``windows → T``: add up windows where they overlap; 0 where there are none."""

    def source(self) -> Object:
        return obj(self.windows)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        result = np.zeros(self.T.shape, x.dtype)
        for k in range(self.size):
            place = self.entry(k)
            result[place] = arithmetic.add(result[place], x[..., k])
        return (result,)

    def rev(self) -> OpenHypergraph:
        return op(Windows(self.T, self.axis, self.size, self.step, self.dilation))


@dataclass(frozen=True)
class Flip(Linear):
    """``T → T``: reverse the order along an axis."""

    T: NdArrayType
    axis: int

    def __post_init__(self) -> None:
        if not 0 <= self.axis < len(self.T.shape):
            raise IllTypedError(f"Flip: axis must be one of the {len(self.T.shape)} of {self.T}, found {self.axis}")

    def source(self) -> Object:
        return obj(self.T)

    def target(self) -> Object:
        return obj(self.T)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.flip(x, self.axis),)

    def rev(self) -> OpenHypergraph:
        return op(self)


# --- convolution ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Convolution(Derived, Lens):
    """``(A + (c, h, w)) ● (m, c, kh, kw) → A + (m, h', w')``: a batch ``A`` of images with a bank of ``m`` filters.

    ``y[a, m, i, j] = Σ x[a, c, i·s₁ + k·d₁ − p₁, j·s₂ + l·d₂ − p₂] · w[m, c, k, l]`` with strides ``s``, dilations
    ``d`` and paddings ``p``; entries outside of the image are 0.
    """

    A: NdArrayType
    image: NdArrayType
    filters: NdArrayType
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def __post_init__(self) -> None:
        require_same_dtype(self, self.A, self.image, self.filters)
        if len(self.image.shape) != 3 or len(self.filters.shape) != 4 or self.image.shape[0] != self.filters.shape[1]:
            raise IllTypedError(
                f"Convolution: expected images [c, h, w] and filters [m, c, kh, kw] of as many channels c, found "
                f"{self.image} and {self.filters}; change one of them"
            )
        for field, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            found = getattr(self, field)
            if len(found) != 2 or any(type(k) is not int or k < least for k in found):
                raise IllTypedError(f"Convolution: {field} must be two integers >= {least}, found {found}")
        self._windows_type()

    @property
    def _kernel(self) -> Pair:
        return self.filters.shape[2], self.filters.shape[3]

    def _windows_type(self) -> NdArrayType:
        return trace(obj(self.A + self.image), self._windows).target[0]

    def source(self) -> Object:
        return obj(self.A + self.image, self.filters)

    def target(self) -> Object:
        n = len(self.A.shape)
        return obj(self.A + NdArrayType((self.filters.shape[0], *self._windows_type().shape[n : n + 2]), self.A.dtype))

    def _windows(self, x: Wire) -> Wire:
        """``A + (c, h, w) → A + (h', w', c, kh, kw)``."""
        x = pad_image(x, self.padding, self.padding)
        x = image_windows(x, self._kernel, self.stride, self.dilation)
        n = len(self.A.shape)
        return x.permute([*range(n), n + 1, n + 2, n, n + 3, n + 4])

    def core(self) -> OpenHypergraph:
        def core(x: Wire, w: Wire) -> Wire:
            windows = self._windows(x)
            n = len(self.A.shape)
            rows, inner = _cut(windows.T, n + 2)
            result = apply1(Compose(rows, inner, _cut(w.T, 1)[0]), windows, w.permute([1, 2, 3, 0]))
            return result.permute([*range(n), n + 2, n, n + 1])

        return trace(self.source(), core)

    def rev(self) -> OpenHypergraph:
        n = len(self.A.shape)
        (m, c, *kernel), (_, *size) = self.filters.shape, self.image.shape
        dtype = self.A.dtype

        def rev(x: Wire, w: Wire, d: Wire) -> tuple[Wire, Wire]:
            windows = self._windows(x)
            rows, inner = _cut(windows.T, n + 2)
            by_filter = d.permute([n, *range(n), n + 1, n + 2])
            dw = apply1(Compose(NdArrayType((m,), dtype), rows, inner), by_filter, windows)
            # The transposed convolution: d, spread by the stride and padded, with the filters flipped.
            reach = [(k - 1) * dilation for k, dilation in zip(kernel, self.dilation, strict=True)]
            extra = tuple(max(0, p - r) for p, r in zip(self.padding, reach, strict=True))
            low = tuple(r + e - p for r, e, p in zip(reach, extra, self.padding, strict=True))
            outputs = d.T.shape[n + 1 :]
            high = tuple(
                h + 2 * e + r - at - (o - 1) * s - 1
                for h, e, r, at, o, s in zip(size, extra, reach, low, outputs, self.stride, strict=True)
            )
            spread = image_windows(pad_image(d, low, high, self.stride), (kernel[0], kernel[1]), (1, 1), self.dilation)
            spread = spread.permute([*range(n), n + 1, n + 2, n, n + 3, n + 4])
            flipped = apply1(Flip(self.filters, 3), apply1(Flip(self.filters, 2), w)).permute([0, 2, 3, 1])
            rows, inner = _cut(spread.T, n + 2)
            dx = apply1(Compose(rows, inner, NdArrayType((c,), dtype)), spread, flipped)
            dx = dx.permute([*range(n), n + 2, n, n + 1])
            return crop_image(dx, extra), dw

        return trace(self.source() + self.target(), rev)


def _cut(T: NdArrayType, at: int) -> tuple[NdArrayType, NdArrayType]:
    return NdArrayType(T.shape[:at], T.dtype), NdArrayType(T.shape[at:], T.dtype)


def pad_image(x: Wire, low: Sizes, high: Sizes, step: Sizes = (1, 1), value: Scalar = 0) -> Wire:
    """Pad the last two axes."""
    if low == high == (0, 0) and step == (1, 1):
        return x
    none = (0,) * (len(x.T.shape) - 2)
    return apply1(Pad(x.T, none + low, none + high, tuple(1 for _ in none) + step, value), x)


def crop_image(x: Wire, by: Sizes, end: Sizes | None = None) -> Wire:
    """Take ``by`` entries off the start and ``end`` (default: as many) off the end of the last two axes."""
    end = by if end is None else end
    if by == end == (0, 0):
        return x
    none = (0,) * (len(x.T.shape) - 2)
    h, w = (n - a - b for n, a, b in zip(x.T.shape[-2:], by, end, strict=True))
    T = NdArrayType((*x.T.shape[:-2], h, w), x.T.dtype)
    return apply1(Crop(T, none + by, none + end, (1,) * len(T.shape)), x)


def image_windows(x: Wire, size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Wire:
    """``A + (h, w) → A + (h', w', kh, kw)``: windows along the last two axes."""
    first = len(x.T.shape) - 2
    for axis in (0, 1):
        x = apply1(Windows(x.T, first + axis, size[axis], stride[axis], dilation[axis]), x)
    return x
