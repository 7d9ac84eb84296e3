"""Rounding and saturation, as the integer reference defines them."""

from amaranth.hdl import Const, Mux, Signal, signed

from catgrad_hw.gateware.tag import fixed


def shifted_bits(width, shifts):
    """Bits of ``round(value, shift)`` for a signed ``value`` of ``width`` bits and any shift of ``shifts``."""
    return width - min(shifts) + 1


def shifted(value, shift):
    """``value >> shift``; a negative shift multiplies."""
    return value >> shift if shift >= 0 else value << -shift


def rounded(m, value, shift, name):
    """``(value + 2**(shift-1)) >> shift`` with the shift that the :class:`Choice` ``shift`` makes; a negative shift
    multiplies.

    One increment serves all: halves go up, so the result is ``((value >> (shift-1)) + 1) >> 1``.
    """
    bits = shifted_bits(len(value), shift.values)
    scaled = Signal(signed(bits + 1), name=f"{name}_scaled")
    m.d.comb += scaled.eq(shift.of(lambda s: shifted(value, s - 1)))
    result = Signal(signed(bits), name=f"{name}_rounded")
    m.d.comb += result.eq((scaled + 1) >> 1)
    return result


def alike(bits):
    """Whether all ``bits`` are the same."""
    return bits.all() | ~bits.any()


def saturated(m, value, width, name):
    """Clamp to ``width`` bits: (result, whether it was clamped)."""
    return saturated_for(m, value, fixed(width), name)


def saturated_for(m, value, width, name, cleared=None):
    """:func:`saturated` to the width that the :class:`Choice` ``width`` makes; 0 where it is ``cleared``. The result
    has the widest."""
    clamped = Signal(name=f"{name}_clamped")
    m.d.comb += clamped.eq(width.of(lambda bits: ~alike(value[bits - 1 :]) if bits < len(value) else Const(0)))
    return bounded(m, value, width, clamped, value[-1], name, cleared), clamped


def bounded(m, value, width, outside, negative, name, cleared=None):
    """``value``; or where it is ``outside``, the bound of the chosen width on the side that ``negative`` tells, and
    where it is ``cleared``, 0: one place in which a bit may be replaced, whatever the choice."""
    widest = max(width.values)
    greatest, result = Signal(widest, name=f"{name}_greatest"), Signal(signed(widest), name=f"{name}_saturated")
    m.d.comb += greatest.eq(width.of(lambda bits: Const((1 << (bits - 1)) - 1, widest)))
    bound = greatest ^ negative.replicate(widest)
    if cleared is not None:
        outside, bound = outside | cleared, Mux(cleared, 0, bound)
    m.d.comb += result.eq(Mux(outside, bound, value))
    return result


def narrowed(m, value, shift, width, name):
    """:func:`rounded`, then :func:`saturated_for`, with one sum between two registers: whether the result is clamped is
    seen beside the increment, not after it."""
    bits, widest = shifted_bits(len(value), shift.values), max(width.values)
    scaled = Signal(signed(bits + 1), name=f"{name}_scaled")
    m.d.comb += scaled.eq(shift.of(lambda s: shifted(value, s - 1)))
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
    return bounded(m, nearest, width, outside, negative, name), outside & ~returns
