"""Rounding and saturation, as the integer reference defines them."""

from amaranth.hdl import Const, Mux, Signal, signed


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


def copied(m, value, shift, width, name):
    """:func:`rounded`, then clamped to ``width`` bits; whether it is clamped is known beside the sum, not after it."""
    bits = shifted_bits(len(value), shift.values)
    scaled = Signal(signed(bits + 1), name=f"{name}_scaled")
    m.d.comb += scaled.eq(shift.of(lambda s: value >> (s - 1) if s > 0 else value << (1 - s)))
    nearest, result = Signal(width, name=f"{name}_rounded"), Signal(signed(width), name=f"{name}_saturated")
    m.d.comb += nearest.eq((scaled[: width + 1] + 1) >> 1)
    # Too large already, or by the increment. At the lower bound, that the increment leads back to is what is clamped to.
    negative, clamped = scaled[-1], Signal(name=f"{name}_clamped")
    m.d.comb += clamped.eq(~alike(scaled[width:]) | (~negative & scaled[:width].all()))
    m.d.comb += result.eq(Mux(clamped, ((1 << (width - 1)) - 1) ^ negative.replicate(width), nearest))
    return result


def alike(bits):
    """Whether all ``bits`` are the same."""
    return bits.all() | ~bits.any()


def saturated(m, value, width, name, far=0, below=0):
    """Clamp to ``width`` bits: (result, whether it was clamped). Where ``far`` is high, the value is out of reach on the
    side that ``below`` tells, whatever ``value`` is."""
    return _saturated(m, value, [width], lambda results: results[0], name, far, below)


def saturated_for(m, value, width, name, far=0, below=0):
    """:func:`saturated` to the width that the :class:`Choice` ``width`` makes. The result has the widest."""
    return _saturated(m, value, width.values, width.of, name, far, below)


def _saturated(m, value, widths, choose, name, far, below):
    """What is chosen decides on a flag and a bound, so that each bit has one place where it may be replaced."""
    widest = max(widths)
    result, clamped = Signal(signed(widest), name=f"{name}_saturated"), Signal(name=f"{name}_clamped")
    negative = Signal(name=f"{name}_negative")
    m.d.comb += [
        negative.eq(Mux(far, below, value[-1])),
        clamped.eq(choose([~alike(value[width - 1 :]) if width < len(value) else Const(0) for width in widths]) | far),
    ]
    greatest = Signal(widest, name=f"{name}_greatest")
    m.d.comb += greatest.eq(choose([Const((1 << (width - 1)) - 1, widest) for width in widths]))
    m.d.comb += result.eq(Mux(clamped, greatest ^ negative.replicate(widest), value))
    return result, clamped
