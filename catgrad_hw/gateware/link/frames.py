"""Frames on bytes: stuffing, and the CRC."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.link.settings import BUFFER_BYTES
from catgrad_hw.gateware.states import States
from catgrad_hw.host.protocol import CRC_BYTES, CRC_RESIDUE, ESCAPE, ESCAPE_XOR, FLAG

POLYNOMIAL = 0xEDB88320  # of IEEE 802.3, reflected

POINTER_BITS = (BUFFER_BYTES - 1).bit_length()
HEADER_AT = BUFFER_BYTES - 2
"""Sequence number and code lie in the last two bytes of a buffer, and the payload from address 0 on."""


class Crc(Component):
    """A bit a cycle: ``start`` takes in ``byte``, which stays for the 8 cycles of ``busy``, or with ``shift`` only
    moves the next 8 bits to ``low``. ``right``: what was taken in since ``clear`` ended with its own CRC."""

    clear: In(1)
    start: In(1)
    shift: In(1)
    byte: In(8)
    busy: Out(1)
    low: Out(8)
    right: Out(1)

    def elaborate(self, platform):
        m = Module()
        state = Signal(32, init=0xFFFFFFFF, reset_less=True)
        bit = Signal(3)
        feedback = Signal()
        m.d.comb += [
            feedback.eq((state[0] ^ self.byte.bit_select(bit, 1)) & ~self.shift),
            self.low.eq(~state[:8]),
            self.right.eq(state == CRC_RESIDUE ^ 0xFFFFFFFF),
        ]
        with m.If(self.busy):
            m.d.sync += [state.eq((state >> 1) ^ Mux(feedback, POLYNOMIAL, 0)), bit.eq(bit + 1)]
            with m.If(bit == 7):
                m.d.sync += self.busy.eq(0)
        with m.If(self.start):
            m.d.sync += self.busy.eq(1)
        with m.If(self.clear):
            m.d.sync += state.eq(state.init)
        return m


class FrameReceiver(Component):
    """Unstuffs bytes into a buffer, whose ``address`` is also that for reading: ``write`` writes ``content`` there.

    ``good``, for one cycle: a frame with a right CRC has ended; ``end`` is from then on the address behind its payload.
    The address is then its reader's: ``restart`` sets it to the header, ``move`` moves it on. ``bad``: a frame was
    dropped. A byte is there a cycle before it is ``valid``, and stays.
    """

    byte: In(8)
    valid: In(1)
    broken: In(1)
    restart: In(1)
    move: In(1)
    crc_clear: Out(1)
    crc_start: Out(1)
    crc_right: In(1)
    write: Out(1)
    address: Out(POINTER_BITS)
    content: Out(8)
    end: Out(POINTER_BITS)
    good: Out(1)
    bad: Out(1)

    def elaborate(self, platform):
        m = Module()
        position = Signal(POINTER_BITS, init=HEADER_AT, reset_less=True)
        begun, escaped, spoiled = (Signal(reset_less=True) for _ in range(3))
        flip = Signal(reset_less=True)  # of the byte that is written, for as long as the CRC takes it in
        end = Signal(POINTER_BITS, reset_less=True)
        kept_end = Signal(POINTER_BITS, reset_less=True)
        # Addresses from 504 on are no end of a payload: the frame was too short, or too long. That of a frame is known
        # long before the flag that ends it, as the CRC is.
        whole = Signal(reset_less=True)
        m.d.sync += [
            end.eq(position - CRC_BYTES),
            whole.eq(~end[3:].all() & ~escaped & ~spoiled & self.crc_right),
        ]
        m.d.comb += [
            self.address.eq(position),
            self.content.eq(self.byte ^ Mux(flip, ESCAPE_XOR, 0)),
            self.end.eq(kept_end),
            self.crc_clear.eq(self.restart),
            self.crc_start.eq(self.write),
        ]
        with m.If(self.good):
            m.d.sync += kept_end.eq(end)
        m.d.sync += self.write.eq(0)
        is_flag, is_escape = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [is_flag.eq(self.byte == FLAG), is_escape.eq(self.byte == ESCAPE)]
        with m.If(self.valid):
            with m.If(is_flag):
                m.d.comb += [
                    self.good.eq(whole),
                    self.bad.eq(begun & ~self.good),
                    self.crc_clear.eq(1),
                ]
            with m.Elif(is_escape):
                m.d.sync += escaped.eq(1)
            with m.Else():
                m.d.sync += [self.write.eq(1), begun.eq(1), flip.eq(escaped), escaped.eq(0)]
        with m.If(self.write | self.move):
            m.d.sync += position.eq(position + 1)
        with m.If(self.broken | (position == HEADER_AT - 1)):
            m.d.sync += spoiled.eq(1)
        with m.If(self.restart | self.crc_clear):
            m.d.sync += [position.eq(position.init), begun.eq(0), escaped.eq(0), spoiled.eq(0)]
        return m


class FrameTransmitter(Component):
    """Sends a frame when ``start`` is high: flag, the bytes that it is given, their CRC, flag.

    ``byte`` is the next of them, or with ``last`` there is none; after ``advance`` it follows in three cycles. ``done``
    is high when the line is idle again.
    """

    start: In(1)
    byte: In(8)
    last: In(1)
    advance: Out(1)
    done: Out(1)
    crc_clear: Out(1)
    crc_start: Out(1)
    crc_shift: Out(1)
    crc_busy: In(1)
    crc_low: In(8)
    line: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        tail = Signal(reset_less=True)  # the CRC is being sent
        left = Signal(range(CRC_BYTES), reset_less=True)
        current = Signal(8)
        special = Signal(reset_less=True)
        states = States("IDLE", "BEGIN", "LOOK", "BYTE", "ESCAPED", "CRC", "FETCH", "FETCHED", "END", "DRAIN")
        at, go, ready = states.at, states.go, self.line.ready
        m.d.comb += [current.eq(Mux(tail, self.crc_low, self.byte)), self.crc_shift.eq(tail)]
        m.d.sync += special.eq((current == FLAG) | (current == ESCAPE))
        ends, sends = at["BYTE"] & self.last & ~tail, at["BYTE"] & ~(self.last & ~tail)
        moves = at["CRC"] & ~self.crc_busy
        m.d.comb += [
            self.line.valid.eq(sends | states.among("BEGIN", "ESCAPED", "END")),
            self.line.payload.eq(FLAG),
            self.crc_clear.eq(at["BEGIN"]),
            self.crc_start.eq(ready & ((sends & ~special) | at["ESCAPED"])),
            self.advance.eq(moves & ~tail),
            self.done.eq(at["DRAIN"] & ready),
        ]
        with m.If(states.among("BYTE", "ESCAPED")):
            escape = special & at["BYTE"]
            m.d.comb += self.line.payload.eq(Mux(escape, ESCAPE, current ^ Mux(at["ESCAPED"], ESCAPE_XOR, 0)))
        with m.If(at["IDLE"]):
            m.d.sync += [tail.eq(0), left.eq(CRC_BYTES - 1)]
        with m.If(ends):
            m.d.sync += tail.eq(1)
        with m.If(moves):
            m.d.sync += left.eq(left - tail)

        go("IDLE", "BEGIN", self.start)
        go("BEGIN", "LOOK", ready)
        go("LOOK", "BYTE")
        go("BYTE", "LOOK", self.last & ~tail)
        go("BYTE", "ESCAPED", ~(self.last & ~tail) & ready & special)
        go("BYTE", "CRC", ~(self.last & ~tail) & ready & ~special)
        go("ESCAPED", "CRC", ready)
        go("CRC", "FETCH", ~self.crc_busy & ~(tail & (left == 0)))
        go("CRC", "END", ~self.crc_busy & tail & (left == 0))
        go("FETCH", "FETCHED")
        go("FETCHED", "LOOK")
        go("END", "DRAIN", ready)
        go("DRAIN", "IDLE", ready)
        states.build(m)
        return m
