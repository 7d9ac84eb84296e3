"""Function units: exp, 1/x and 1/√x of a word a cycle, read from tables by arguments of reduced range."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import saturated
from catgrad_hw.gateware.tag import Delayed, bits_for
from catgrad_hw.numbers.rounding import limits
from catgrad_hw.numbers.units import LOG2_E, LOG2_E_FRACTION, Exponential, Unit
from catgrad_hw.schedule import timing


class UnitRead(Component):
    """The result of a function unit for a word in every cycle: five cycles after ``z``, ``value_0`` awaits a register.

    That holds for every unit in every format. Two cycles reduce the argument to a row of the table and a power of two;
    the memory has a register, and one more follows it, while the power becomes a shift; one more shifts. Rounding and
    saturation are applied after that, in ``value_0``, without a register. Nothing multiplies.

    The memory has a row of ``output_width`` bits for each entry: the bit above follows from the range of entries.
    """

    latency = timing.UNIT_STAGES - 1

    def __init__(self, unit: Unit):
        self.unit = unit
        self.exponential = isinstance(unit, Exponential)
        # Of an exponential, from 1 to 2; of a root, from 1/2 to 1. What follows rests on this.
        one = 1 << unit.output_width
        least, greatest = (one, 2 * one - 1) if self.exponential else (one // 2, one)
        assert all(least <= entry <= greatest for entry in unit.entries)
        super().__init__({"z": In(signed(unit.input_width)), "value_0": Out(signed(unit.output_width))})

    def elaborate(self, platform):
        m = Module()
        unit, width = self.unit, self.unit.output_width
        # 0 to 2
        address, rows, places = self._exponential(m) if self.exponential else self._inverse_root(m)

        # 3, 4: the row. Beside it, how far right of the entry, or of its double, the result's half lies: from 0, where
        # each entry saturates, to where none leaves anything.
        contents = MemoryData(shape=width, depth=len(rows), init=[entry % (1 << width) for entry in rows])
        m.submodules[unit.name] = memory = Memory(contents, attrs={"ram_style": "block"})
        port = memory.read_port()
        m.d.comb += port.addr.eq(address)
        row = _registered(m, port.data, "row")
        furthest = (1 << bits_for(width + 3)) - 1
        shift = Signal(range(furthest + 1), reset_less=True)
        m.d.sync += shift.eq(Mux(places < 0, 0, Mux(places > furthest, furthest, places)))

        # 5: shift; one increment then rounds halves up. Only a root's greatest entry is above the row's bits.
        entry = Cat(row, Const(1, 1)) if self.exponential else Cat(Const(0, 1), row, ~row[-1])
        shifted = _registered(m, entry >> shift, "shifted")
        rounded = Signal(signed(width + 2))
        m.d.comb += rounded.eq((shifted + 1) >> 1)
        m.d.comb += self.value_0.eq(saturated(m, rounded, width, "value")[0])
        return m

    def _exponential(self, m):
        """``n`` at 2, whose low bits are the row; the rows; ``s - 1`` at 3."""
        unit, z = self.unit, self.z
        K = bits_for(len(unit.entries))
        F = unit.input_fraction + LOG2_E_FRACTION - K
        half = 1 << (F - 1)
        # Half of n's last place enters before a shift by 10, or in the bits that it leaves free.
        assert LOG2_E == (23 << 10) + 85
        by_5 = z + (z << 2)
        by_85 = _registered(m, by_5 + (by_5 << 4), "by_85")
        by_3 = z + (z << 1)
        by_23 = _registered(m, (by_3 << 3) - (z - (half >> 10)), "by_23")
        least, greatest = ((word * LOG2_E + half) >> F for word in limits(unit.input_width))
        n = Signal(range(least, greatest + 1), reset_less=True)
        m.d.sync += n.eq((((by_23 << 10) | (half % (1 << 10))) + by_85) >> F)
        places = _registered(m, unit.output_width - unit.output_fraction - 1 - (n >> K), "places")
        return n, unit.entries, places

    def _inverse_root(self, m):
        """``(e << K) + n - 2**K`` at 2, whose low bits are the row; the rows; ``s``, or 0 where z <= 0, at 3."""
        unit, z = self.unit, self.z
        K = bits_for(len(unit.entries) // unit.root)
        # The leading 1 moves to the highest bit: by 2**i places where bit i of e is 0.
        levels = max(3, bits_for(unit.input_width - 1))
        size = 1 << levels
        significand = Cat(Const(0, max(0, K + 2 - size)), z[:-1], Const(0, size - (unit.input_width - 1)))
        e = []
        for level in reversed(range(levels)):
            stays = Signal(name=f"stays_{level}")
            m.d.comb += stays.eq(significand[-(1 << level) :].any())
            significand = Mux(stays, significand, significand << (1 << level))[: len(significand)]
            if level == 2:
                significand = _registered(m, significand, "significand")
            e.insert(0, _registered(m, stays, f"e_{level}") if level >= 2 else stays)
        # Rounded up to a power of two, it adds 1 to e.
        position = Signal(range(((unit.input_width - 1) << K) + 1), reset_less=True)
        m.d.sync += position.eq(Cat(significand[-1 - K : -1], *e) + significand[-2 - K])
        positive = _registered(m, significand[-1] & ~_registered(m, z[-1], "negative"), "positive")
        q = ((position >> K) - unit.input_fraction) >> (unit.root - 1)
        places = _registered(m, Mux(positive, unit.output_width - unit.output_fraction + q, 0), "places")
        # In the memory, rows come in the order of e, whose last bit need not be that of e - input_fraction.
        first = (unit.input_fraction % unit.root) << K
        return position, unit.entries[first:] + unit.entries[:first], places


def _registered(m, value, name):
    return Delayed(m, value, name, reset_less=True)[1]
