"""A serial port: 8 data bits, no parity, 1 stop bit, least significant first.

Bits are timed by a 16-bit phase to which ``rate`` (2**16 * baud / clock) is added in every cycle: a bit ends where it
wraps. So any rate up to an eighth of the clock is met to within rounding, at the price of one adder.
"""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

PHASE_BITS = 16
RATE_BITS = 14


class Receiver(Component):
    """``byte`` is valid in the cycle of ``valid``, and stays for at least one bit; ``broken`` tells of a byte whose
    stop bit was 0. The line is looked at in the middle of each bit, start bit included, by a majority of three samples.
    """

    rx: In(1, init=1)
    rate: In(RATE_BITS)
    byte: Out(8)
    valid: Out(1)
    broken: Out(1)

    def elaborate(self, platform):
        m = Module()
        samples = Signal(4, init=0b1111)  # the first two synchronise
        m.d.sync += samples.eq(Cat(self.rx, samples))
        _, a, b, c = samples
        line = Signal(init=1)
        m.d.sync += line.eq((a & b) | (a & c) | (b & c))

        phase = Signal(PHASE_BITS, init=1 << (PHASE_BITS - 1), reset_less=True)
        left = Signal(range(11))  # start bit, data bits, stop bit
        bit = Signal(reset_less=True)
        with m.If(left == 0):
            m.d.sync += phase.eq(phase.init)  # so that the phase wraps in the middle of bits
            with m.If(~line):
                m.d.sync += left.eq(10)
        with m.Else():
            m.d.sync += Cat(phase, bit).eq(phase + self.rate)
            with m.If(bit):
                m.d.sync += left.eq(left - 1)
        data = Signal()
        m.d.comb += [
            data.eq(bit & (left != 10) & (left != 1)),
            self.valid.eq(bit & (left == 1) & line),
            self.broken.eq(bit & (left == 1) & ~line),
        ]
        byte = Signal(8, reset_less=True)
        m.d.comb += self.byte.eq(byte)
        with m.If(data):
            m.d.sync += byte.eq(Cat(byte[1:], line))
        with m.If(left == 0):
            m.d.sync += bit.eq(0)
        with m.Elif(bit & (left == 10) & line):
            m.d.sync += left.eq(0)  # no start bit: noise
        return m


class Transmitter(Component):
    """Sends ``bytes``; ``ready`` in the cycle in which a byte is taken, when the stop bit before it has ended."""

    bytes: In(stream.Signature(8))
    rate: In(RATE_BITS)
    tx: Out(1, init=1)

    def elaborate(self, platform):
        m = Module()
        phase = Signal(PHASE_BITS, reset_less=True)
        wrapped = Signal(reset_less=True)
        word = Signal(9, init=0b1_1111_1111)  # the bit on the line first; ones follow the byte
        left = Signal(range(10), reset_less=True)  # bits after the one on the line
        busy = Signal()
        m.d.comb += [self.tx.eq(word[0]), self.bytes.ready.eq(~busy)]
        with m.If(~busy):
            m.d.sync += [phase.eq(0), wrapped.eq(0), left.eq(9)]
            with m.If(self.bytes.valid):
                m.d.sync += [word.eq(Cat(Const(0, 1), self.bytes.payload)), busy.eq(1)]
        with m.Else():
            m.d.sync += Cat(phase, wrapped).eq(phase + self.rate)
            with m.If(wrapped):
                m.d.sync += [word.eq(Cat(word[1:], Const(1, 1))), left.eq(left - 1), busy.eq(left != 0)]
        return m
