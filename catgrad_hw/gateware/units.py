"""Function units: exp, 1/x and 1/√x of a word a cycle, read from tables by arguments of reduced range."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import saturated
from catgrad_hw.gateware.tag import Delayed, bits_for
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.units import LOG2_E, LOG2_E_FRACTION, Exponential, Unit


class UnitRead(Component):
    """A unit's result for a word in every cycle: seven cycles after ``z``, ``value_0`` awaits a register.

    That is so for every unit in every format. Three cycles reduce the argument to a row of the table and a power of
    two; the memory has a register, and one more follows it, while the power becomes a shift; two more shift. Rounding
    and saturation are applied after that, in ``value_0``, without a register. Nothing multiplies.

    The memory holds the low ``output_width`` bits of each entry; where entries lie tells the one above.
    """

    latency = 5

    def __init__(self, unit: Unit):
        width = unit.output_width
        least, greatest = (1 << width, (2 << width) - 1) if isinstance(unit, Exponential) else (1 << (width - 1), 1 << width)
        assert least <= min(unit.entries) and max(unit.entries) <= greatest
        self.unit = unit
        super().__init__({"z": In(signed(unit.input_width)), "value_0": Out(signed(width))})

    def elaborate(self, platform):
        m = Module()
        exponential = isinstance(self.unit, Exponential)
        width = self.unit.output_width
        address, rows, places = self._exponential(m) if exponential else self._inverse_root(m)

        # 4, 5: a row. Beside it, how far right twice the result lies in it: from 0, where any entry is too great, to
        # where nothing of an entry is left.
        contents = MemoryData(shape=width, depth=len(rows), init=[row % (1 << width) for row in rows])
        m.submodules[self.unit.name] = memory = Memory(contents, attrs={"ram_style": "block"})
        port = memory.read_port()
        m.d.comb += port.addr.eq(address)
        entry = _registered(m, port.data, "entry")
        furthest = (1 << bits_for(width + 3)) - 1
        shift = Signal(range(furthest + 1), reset_less=True)
        m.d.sync += shift.eq(Mux(places < 0, 0, Mux(places > furthest, furthest, places)))

        # 6, 7: shifted by fours, by ones. An exponential's entry has a 1 above, another's only where it is a power of 2.
        word = Cat(entry, Const(1, 1)) if exponential else Cat(Const(0, 1), entry, ~entry[-1])
        shifted = _registered(m, word >> shift, "shifted")
        rounded = Signal(signed(width + 2))
        m.d.comb += rounded.eq((shifted + 1) >> 1)
        m.d.comb += self.value_0.eq(saturated(m, rounded, width, "value")[0])
        return m

    def _exponential(self, m):
        """``n``, whose low bits are the row; the rows; and ``s - 1``, a cycle later."""
        unit, z = self.unit, self.z
        K = bits_for(len(unit.entries))
        F = unit.input_fraction + LOG2_E_FRACTION - K
        half = 1 << (F - 1)
        assert LOG2_E == 1024 * (8 * 3 - 1) + 17 * 5
        # 1, 2: half of the last place joins above the 10 bits that a shift leaves free, or in them
        by_5 = z + (z << 2)
        by_85 = _registered(m, by_5 + (by_5 << 4), "by_85")
        by_23 = _registered(m, ((z + (z << 1)) << 3) - (z - (half >> 10)), "by_23")
        # 3
        least, greatest = ((word * LOG2_E + half) >> F for word in limits(unit.input_width))
        n = Signal(range(least, greatest + 1), reset_less=True)
        m.d.sync += n.eq((((by_23 << 10) | (half % 1024)) + by_85) >> F)
        places = _registered(m, unit.output_width - unit.output_fraction - 1 - (n >> K), "places")
        return n, unit.entries, places

    def _inverse_root(self, m):
        """``e`` and ``n`` without its leading 1, whose low bits are the row; the rows; and ``s``, a cycle later."""
        unit, z = self.unit, self.z
        K = bits_for(len(unit.entries) // unit.root)
        # 1, 2, 3: the leading 1 moves to the highest bit, which takes a shift for every 0 of e
        levels = max(4, bits_for(unit.input_width - 1))
        size = 1 << levels
        word = Cat(Const(0, max(0, K + 2 - size)), z[:-1], Const(0, size - (unit.input_width - 1)))
        e = []
        for level in reversed(range(levels)):
            stays = Signal(name=f"stays_{level}")
            m.d.comb += stays.eq(word[-(1 << level) :].any())
            word = Mux(stays, word, word << (1 << level))[: len(word)]
            if level == 2:
                word = _registered(m, word, f"word_{level}")
            e.insert(0, Delayed(m, stays, f"e_{level}", reset_less=True)[level > 1])
        position = Signal(range(((unit.input_width - 1) << K) + 1), reset_less=True)
        m.d.sync += position.eq(Cat(word[-1 - K : -1], *e) + word[-2 - K])
        positive = _registered(m, word[-1] & ~Delayed(m, z[-1], "negative", reset_less=True)[1], "positive")
        q = ((position >> K) - unit.input_fraction) >> (unit.root - 1)
        places = _registered(m, Mux(positive, unit.output_width - unit.output_fraction + q, 0), "places")
        # Rows in the order of e, not of e - input_fraction.
        first = (unit.input_fraction % unit.root) << K
        return position, unit.entries[first:] + unit.entries[:first], places


def _registered(m, value, name):
    return Delayed(m, value, name, reset_less=True)[1]
