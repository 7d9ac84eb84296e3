"""Rounding and saturation, as the integer reference defines them."""

from amaranth.hdl import Mux, Signal, signed

from catgrad_hw.gateware.tag import table


def shifted_bits(width, shifts):
    """Bits of ``round(value, shift)`` for a signed ``value`` of ``width`` bits and any shift of ``shifts``."""
    return width - min(shifts) + 1


def rounded(m, value, shifts, kernel, name):
    """``(value + 2**(shift-1)) >> shift`` with the shift of the current kernel; a negative shift multiplies.

    One increment serves all: halves go up, so the result is ``((value >> (shift-1)) + 1) >> 1``.

    Args:
        shifts: by kernel index.
    """
    width = len(value)
    bits = shifted_bits(width, shifts.values())
    scaled = Signal(signed(bits + 1), name=f"{name}_scaled")

    def scale(shift):
        return value >> (shift - 1) if shift > 0 else value << (1 - shift)

    distinct = sorted(set(shifts.values()))
    if len(distinct) == 1:
        m.d.comb += scaled.eq(scale(distinct[0]))
    else:
        choice = table(
            m, kernel, {k: distinct.index(s) for k, s in shifts.items()}, range(len(distinct)), f"{name}_shift"
        )
        with m.Switch(choice):
            for index, shift in enumerate(distinct):
                with m.Case(index):
                    m.d.comb += scaled.eq(scale(shift))
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


def saturated_for(m, value, widths, kernel, name):
    """:func:`saturated` to the width of the current kernel; ``widths`` by kernel index. The result has the widest."""
    distinct = sorted(set(widths.values()))
    if len(distinct) == 1:
        return saturated(m, value, distinct[0], name)
    result = Signal(signed(distinct[-1]), name=f"{name}_narrow")
    flag = Signal(name=f"{name}_flag")
    choice = table(m, kernel, {k: distinct.index(w) for k, w in widths.items()}, range(len(distinct)), f"{name}_width")
    with m.Switch(choice):
        for index, width in enumerate(distinct):
            clamped, clamps = saturated(m, value, width, f"{name}_{width}")
            with m.Case(index):
                m.d.comb += [result.eq(clamped), flag.eq(clamps)]
    return result, flag
