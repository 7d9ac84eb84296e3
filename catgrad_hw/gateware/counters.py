"""Many counters in one memory."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Delayed, bits_for
from catgrad_hw.schedule.memory import COUNTER_BITS

BITS = COUNTER_BITS


class Counters(Component):
    """Counters of 32 bits, of which each may be counted up in every cycle: by ``add_<i>``, at most ``most[i]``.

    A few bits of each are at hand and count; they are added to the rest, which lies in a memory, by turns.
    ``clear_<i>`` starts the count over, with what is added in the same cycle.

    ``value`` is that of counter ``address`` in the cycle after both it and ``select`` are presented, and for as long as
    they stay, refreshed meanwhile; the address may change in every second cycle. It is exact once nothing has been
    added for ``settling`` cycles. In the cycle after ``select`` is low, ``value`` is what was ``other``.
    """

    def __init__(self, most):
        self.most = list(most)
        self.settling = 5 * len(self.most) + 2  # a visit takes three cycles, and waits for the host in two of them
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
        self.at_hand = [(most * self.settling).bit_length() for most in self.most]

    def elaborate(self, platform):
        m = Module()
        count = len(self.most)
        contents = MemoryData(shape=BITS, depth=1 << bits_for(count), init=[])
        m.submodules.memory = memory = Memory(contents, attrs={"ram_style": "block"})
        write, read = memory.write_port(), memory.read_port()

        # A visit reads what lies in the memory, takes it and what is at hand, and writes their sum: from registers, as
        # the memory is slow. The host reads a new address at once, and again when a visit takes; no cycle reads and
        # writes.
        reads, takes, writes = Signal(init=1), Signal(), Signal()
        turn = Signal(range(count))
        before, selected = Signal.like(self.address), Signal()
        changes, hosts = Signal(), Signal()
        m.d.comb += [
            changes.eq(self.select & (~selected | (self.address != before)) & ~Delayed(m, changes, "changes")[1]),
            hosts.eq(changes | (self.select & takes)),
            read.addr.eq(Mux(hosts, self.address, turn)),
            write.addr.eq(turn),
            write.en.eq(writes & ~changes),
        ]
        m.d.sync += selected.eq(self.select)
        with m.If(self.select):
            m.d.sync += before.eq(self.address)
        with m.If(takes | ~changes):
            m.d.sync += [takes.eq(reads), writes.eq(takes), reads.eq(writes)]
        with m.If(write.en):
            m.d.sync += turn.eq(Mux(turn == count - 1, 0, turn + 1))

        anew = Signal(count, init=(1 << count) - 1)  # nothing in the memory counts
        voids = Signal()  # cleared since it was taken
        clears = Cat(getattr(self, f"clear_{i}") for i in range(count))
        hands = [Signal(bits, name=f"hand_{i}") for i, bits in enumerate(self.at_hand)]
        lay = Signal(BITS, reset_less=True)
        hand = Signal(max(self.at_hand), reset_less=True)
        m.d.comb += write.data.eq(lay + hand)
        with m.If(takes):
            m.d.sync += [lay.eq(Mux(anew.bit_select(turn, 1), 0, read.data)), hand.eq(Array(hands)[turn]), voids.eq(0)]
        with m.If(clears.bit_select(turn, 1)):
            m.d.sync += voids.eq(1)
        for i, signal in enumerate(hands):
            add = getattr(self, f"add_{i}")
            m.d.sync += signal.eq(Mux((takes & (turn == i)) | clears[i], add, signal + add))
            with m.If(clears[i]):
                m.d.sync += anew[i].eq(1)
            with m.Elif(write.en & (turn == i) & ~voids):
                m.d.sync += anew[i].eq(0)

        held = Signal(BITS, reset_less=True)
        fresh = Mux(anew.bit_select(before, 1), 0, read.data)
        m.d.comb += self.value.eq(Mux(Delayed(m, hosts, "hosts")[1], fresh, held))
        m.d.sync += held.eq(Mux(self.select, self.value, self.other))
        return m
