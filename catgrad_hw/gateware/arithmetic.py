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
    clamped, negative = Signal(name=f"{name}_clamped"), Signal(name=f"{name}_negative")
    m.d.comb += [
        negative.eq(Mux(far, below, value[-1])),
        clamped.eq(choose([~alike(value[width - 1 :]) if width < len(value) else Const(0) for width in widths]) | far),
    ]
    return _bounded(m, value, widths, choose, clamped, negative, name), clamped


def _bounded(m, value, widths, choose, clamped, negative, name):
    """``value``, or where it is ``clamped`` the bound of the chosen width."""
    widest = max(widths)
    greatest, result = Signal(widest, name=f"{name}_greatest"), Signal(signed(widest), name=f"{name}_saturated")
    m.d.comb += greatest.eq(choose([Const((1 << (width - 1)) - 1, widest) for width in widths]))
    m.d.comb += result.eq(Mux(clamped, greatest ^ negative.replicate(widest), value))
    return result


def narrowed(m, value, shift, width, name):
    """:func:`rounded`, then :func:`saturated_for`, with one sum between two registers: whether the result is clamped is
    seen beside the increment, not after it."""
    bits, widest = shifted_bits(len(value), shift.values), max(width.values)
    scaled = Signal(signed(bits + 1), name=f"{name}_scaled")
    m.d.comb += scaled.eq(shift.of(lambda s: value >> (s - 1) if s > 0 else value << (1 - s)))
    nearest = Signal(signed(widest), name=f"{name}_rounded")
    m.d.comb += nearest.eq((scaled[: widest + 1].as_signed() + 1) >> 1)
    wide = Signal(signed(max(bits, widest + 1) + 1), name=f"{name}_wide")
    m.d.comb += wide.eq(scaled)
    negative = wide[-1]
    outside, returns = Signal(name=f"{name}_outside"), Signal(name=f"{name}_returns")
    # The increment leads out of the greatest word, and back into the least: to that, it is clamped as well.
    carries = {width: wide[:width].all() for width in width.values}
    m.d.comb += [
        outside.eq(width.of(lambda width: ~alike(wide[width:]) | (~negative & carries[width]))),
        returns.eq(width.of(lambda width: negative & wide[width + 1 :].all() & carries[width])),
    ]
    return _bounded(m, nearest, width.values, width.of, outside, negative, name), outside & ~returns
