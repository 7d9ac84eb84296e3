"""Rounding and saturation, as the integer reference defines them."""

from amaranth.hdl import Mux, Signal, signed


def shifted_bits(width, shifts):
    """Bits of ``round(value, shift)`` for a signed ``value`` of ``width`` bits and any shift of ``shifts``."""
    return width - min(shifts) + 1


def rounded(m, value, shift, name):
    """``(value + 2**(shift-1)) >> shift`` with the shift that the :class:`Choice` ``shift`` makes; a negative shift
    multiplies.

    One increment serves all: halves go up, so the result is ``((value >> (shift-1)) + 1) >> 1``.
    """
    bits = shifted_bits(len(value), shift.values)
    scaled = Signal(signed(bits + 1), name=f"{name}_scaled")
    m.d.comb += scaled.eq(shift.of(lambda s: value >> (s - 1) if s > 0 else value << (1 - s)))
    result = Signal(signed(bits), name=f"{name}_rounded")
    m.d.comb += result.eq((scaled + 1) >> 1)
    return result


def saturated(m, value, width, name):
    """Clamp to ``width`` bits: (result, whether it was clamped)."""
    result = Signal(signed(width), name=f"{name}_saturated")
    if len(value) <= width:
        m.d.comb += result.eq(value)
        return result, 0
    clamped = Signal(name=f"{name}_clamped")
    sign = value[-1]
    high = value[width - 1 :]
    m.d.comb += clamped.eq(Mux(sign, ~high.all(), high.any()))
    m.d.comb += result.eq(
        Mux(clamped, Mux(sign, -(1 << (width - 1)), (1 << (width - 1)) - 1), value[:width].as_signed())
    )
    return result, clamped


def saturated_for(m, value, width, name):
    """:func:`saturated` to the width that the :class:`Choice` ``width`` makes. The result has the widest."""
    results = [saturated(m, value, bits, f"{name}_{bits}") for bits in width.values]
    return width.of([result for result, _ in results]), width.of([flag for _, flag in results])
