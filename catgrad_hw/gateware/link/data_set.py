"""The data set memory: words that are loaded once, and replayed into the core's ``samples`` in each run."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.link.settings import SPRAM_BITS, SPRAM_MOST, SPRAM_WORDS, DataSetKind
from catgrad_hw.gateware.tag import bits_for


class SinglePortMemory(Component):
    """``words`` words of ``width`` bits. ``read_data`` follows a ``read`` by a cycle, and stays until the next.

    ``spram`` makes it of SB_SPRAM256KA (Lattice TN1314: the output changes only in a read), else of block RAM.
    """

    def __init__(self, words: int, width: int, kind: DataSetKind):
        self.words, self.width, self.kind = words, width, kind
        super().__init__(
            {
                "address": In(bits_for(words)),
                "read": In(1),
                "read_data": Out(width),
                "write": In(1),
                "write_data": In(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self.kind == "block":
            style = {"ram_style": "block"}
            m.submodules.memory = memory = Memory(shape=self.width, depth=self.words, init=[], attrs=style)
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                Cat(write.addr, write.data, write.en).eq(Cat(self.address, self.write_data, self.write)),
                Cat(read.addr, read.en).eq(Cat(self.address, self.read)),
                self.read_data.eq(read.data),
            ]
            return m
        count = -(-self.words // SPRAM_WORDS)
        address, number = self.address[:14], self.address[14:]
        chosen = Signal(range(SPRAM_MOST))
        with m.If(self.read):
            m.d.sync += chosen.eq(number)
        with m.Switch(chosen):
            for i in range(count):
                data = Signal(SPRAM_BITS, name=f"data_{i}")
                here = Const(1) if count == 1 else number == i
                m.submodules[f"ram_{i}"] = Instance(
                    "SB_SPRAM256KA",
                    i_ADDRESS=address if self.words >= SPRAM_WORDS else Cat(address, Const(0, 14 - len(address))),
                    i_DATAIN=Cat(self.write_data, Const(0, SPRAM_BITS - self.width)),
                    i_MASKWREN=Const(0b1111, 4),
                    i_WREN=self.write,
                    i_CHIPSELECT=(self.read | self.write) & here,
                    i_CLOCK=ClockSignal(),
                    i_STANDBY=Const(0),
                    i_SLEEP=Const(0),
                    i_POWEROFF=Const(1),  # active low
                    o_DATAOUT=data,
                )
                with m.Case(i):
                    m.d.comb += self.read_data.eq(data)
        return m


class DataSet(Component):
    """``words`` words of ``width`` bits behind one port, and one position in them.

    ``write`` stores ``word`` at the position and moves on. ``set_position`` and ``set_last`` load position and the
    ring's last word from ``value``; the former also decides, by ``play``, whether the words from there on are offered
    on ``samples``, one a cycle, word 0 after the last of the ring. Nothing is written meanwhile.
    """

    def __init__(self, words: int, width: int, kind: DataSetKind):
        self.words, self.width, self.kind = words, width, kind
        self.address_bits = bits_for(words)
        super().__init__(
            {
                "value": In(self.address_bits),
                "play": In(1),
                "set_position": In(1),
                "set_last": In(1),
                "word": In(width),
                "write": In(1),
                "playing": Out(1),
                "samples": Out(stream.Signature(signed(width))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = SinglePortMemory(self.words, self.width, self.kind)
        position = Signal(self.address_bits, reset_less=True)
        last, before_last = Signal(self.address_bits, reset_less=True), Signal(self.address_bits, reset_less=True)
        at_last = Signal(reset_less=True)  # where the position is, known as soon as it is there
        # A register follows the memory, which is slow. The memory holds the next word until it moves there; the one at
        # the position follows that.
        fetch, fetched, moves = Signal(), Signal(), Signal()
        m.d.comb += [
            moves.eq(self.samples.ready | ~self.samples.valid),
            fetch.eq(self.playing & (moves | ~fetched)),
            memory.address.eq(position),
            memory.read.eq(fetch),
            memory.write.eq(self.write & ~self.playing),
            memory.write_data.eq(self.word),
        ]
        with m.If(moves):
            m.d.sync += [self.samples.payload.eq(memory.read_data), self.samples.valid.eq(fetched), fetched.eq(0)]
        with m.If(fetch):
            m.d.sync += fetched.eq(1)
        m.d.sync += at_last.eq(position == last)
        with m.If(fetch & at_last):
            m.d.sync += [position.eq(0), at_last.eq(last == 0)]
        with m.Elif(fetch | memory.write):
            m.d.sync += [position.eq(position + 1), at_last.eq(position == before_last)]
        with m.If(self.set_position):
            m.d.sync += [position.eq(self.value), at_last.eq(self.value == last)]
            m.d.sync += [self.playing.eq(self.play), self.samples.valid.eq(0), fetched.eq(0)]
        with m.If(self.set_last):
            m.d.sync += [last.eq(self.value), before_last.eq(self.value - 1)]
        return m
