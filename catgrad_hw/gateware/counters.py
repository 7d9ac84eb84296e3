"""Many counters in one memory."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import bits_for, choose
from catgrad_hw.schedule.memory import COUNTER_BITS

BITS = COUNTER_BITS

FEW = 4
"""Of so many counters one is picked in a cycle."""


class Counters(Component):
    """Counters of 32 bits, of which each may be counted up in every cycle: by ``add_<i>``, at most ``most[i]``.

    The low bits of each are a counter at hand. By turns they go to a memory, which counts how often they ran over.
    ``clear_<i>`` starts the count over, with what is added from the next cycle on.

    ``value`` is that of counter ``address`` six cycles after both it and ``select`` are presented, and for as long as
    they stay, refreshed meanwhile. It is exact once nothing has been added for ``settling`` cycles. Where ``select`` is
    low, ``value`` is what was ``other`` a cycle before.
    """

    def __init__(self, most):
        self.most = list(most)
        self.settling = 4 * len(self.most) + 3  # a visit takes four cycles
        super().__init__(
            {
                "select": In(1),
                "address": In(bits_for(len(self.most))),
                "other": In(BITS),
                "value": Out(BITS),
                **{f"add_{i}": In(range(most + 1)) for i, most in enumerate(self.most)},
                **{f"clear_{i}": In(1) for i in range(len(self.most))},
            }
        )
        self.at_hand = (max(self.most) * self.settling).bit_length()
        """Bits that do not run over twice between two visits."""

    def elaborate(self, platform):
        m = Module()
        count = len(self.most)
        contents = MemoryData(shape=BITS, depth=1 << bits_for(count), init=[])
        m.submodules.memory = memory = Memory(contents, attrs={"ram_style": "block"})
        write, read = memory.write_port(), memory.read_port()

        # A visit reads what lies in the memory, takes it and what is at hand, compares them while the host's counter is
        # read, and writes both together while nothing is. ``lay`` follows the slow memory without logic. What
        # is at hand is picked in two cycles: one of few, then of these.
        reads, takes, compares, writes = Signal(init=1), Signal(), Signal(), Signal()
        m.d.sync += [takes.eq(reads), compares.eq(takes), writes.eq(compares), reads.eq(writes)]
        turn = Signal(range(count))
        m.d.comb += [
            read.addr.eq(Mux(compares, self.address, turn)),
            read.en.eq(~writes),
            write.addr.eq(turn),
            write.en.eq(writes),
        ]
        with m.If(writes):
            m.d.sync += turn.eq(Mux(turn == count - 1, 0, turn + 1))

        anew = Signal(count, init=(1 << count) - 1)  # nothing in the memory counts
        voids = Signal()  # cleared in this visit
        nothing = Signal()  # anew, of the counter that was addressed in the cycle before
        clears = Cat(getattr(self, f"clear_{i}") for i in range(count))
        hands = [Signal(self.at_hand, name=f"hand_{i}") for i in range(count)]
        lay = Signal(BITS, reset_less=True)
        hand = Signal(self.at_hand, reset_less=True)
        picked = [Signal.like(hand, name=f"picked_{i}", reset_less=True) for i in range(0, count, FEW)]
        ran_over = Signal(reset_less=True)
        m.d.sync += nothing.eq(anew.bit_select(Mux(compares, self.address, turn), 1))
        m.d.sync += ran_over.eq(hand < lay[: self.at_hand])
        with m.If(~compares):
            m.d.sync += lay.eq(Mux(nothing, 0, read.data))
        m.d.comb += write.data.eq(Cat(hand, lay[self.at_hand :] + ran_over))
        low = bits_for(FEW)
        m.d.sync += [few.eq(Array(hands[FEW * i : FEW * (i + 1)])[turn[:low]]) for i, few in enumerate(picked)]
        with m.If(takes):
            m.d.sync += hand.eq(choose(picked, turn[low:]))
        with m.If(reads):
            m.d.sync += voids.eq(0)
        with m.If(clears.bit_select(turn, 1)):
            m.d.sync += voids.eq(1)
        for i, signal in enumerate(hands):
            m.d.sync += signal.eq(signal + getattr(self, f"add_{i}"))
            with m.If(clears[i]):
                m.d.sync += [signal.eq(0), anew[i].eq(1)]
            with m.Elif(writes & (turn == i) & ~voids):
                m.d.sync += anew[i].eq(0)

        with m.If(~self.select):
            m.d.sync += self.value.eq(self.other)
        with m.Elif(reads):
            m.d.sync += self.value.eq(lay)
        return m
