"""The data set memory: words that are loaded once, and replayed into the core's ``samples`` in each run."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.errors import CapacityError
from catgrad_hw.gateware.link.settings import DataSetKind
from catgrad_hw.gateware.tag import bits_for

SPRAM_BITS, SPRAM_WORDS = 16, 1 << 16

RAM_STYLE = {"spram": "huge", "block": "block"}


class DataSet(Component):
    """``words`` words of ``width`` bits behind one port, and one position in them.

    ``write`` stores ``word`` at the position and moves on. ``set_position`` and ``set_last`` load position and the
    ring's last word from ``value``; the former also decides, by ``play``, whether the words from there on are offered
    on ``samples``, one a cycle, word 0 after the last of the ring. Nothing is written meanwhile.
    """

    def __init__(self, words: int, width: int, kind: DataSetKind):
        if kind == "spram" and (width > SPRAM_BITS or words > SPRAM_WORDS):
            raise CapacityError(
                f"data set memory: expected at most {SPRAM_WORDS} words of {SPRAM_BITS} bits of single-port RAM, found "
                f"{words} of {width}; choose numbers 16, fewer words, or block RAM"
            )
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
        style = RAM_STYLE[self.kind]
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.words, init=[], attrs={"ram_style": style})
        write, read = memory.write_port(), memory.read_port()
        position, last = Signal(self.address_bits), Signal(self.address_bits)
        # The memory's output holds a word until it is taken; the one at the position follows it.
        fetch = Signal()
        m.d.comb += [
            fetch.eq(self.playing & (self.samples.ready | ~self.samples.valid)),
            read.addr.eq(position),
            read.en.eq(fetch),
            write.addr.eq(position),
            write.en.eq(self.write & ~self.playing),
            write.data.eq(self.word),
            self.samples.payload.eq(read.data),
        ]
        with m.If(fetch):
            m.d.sync += self.samples.valid.eq(1)
        with m.If(fetch & (position == last)):
            m.d.sync += position.eq(0)
        with m.Elif(fetch | write.en):
            m.d.sync += position.eq(position + 1)
        with m.If(self.set_position):
            m.d.sync += [position.eq(self.value), self.playing.eq(self.play), self.samples.valid.eq(0)]
        with m.If(self.set_last):
            m.d.sync += last.eq(self.value)
        return m
