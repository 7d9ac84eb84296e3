"""Executes requests: what stands in the buffer of requests is done to the core, and a reply is left in the other."""

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.core import core_signature
from catgrad_hw.gateware.link.frames import HEADER_AT, POINTER_BITS
from catgrad_hw.gateware.link.settings import DESCRIPTION_AT, REPLY_BYTES, stream_bits
from catgrad_hw.gateware.registers import READ_CYCLES, Register
from catgrad_hw.host.protocol import Description, ReplyCode, RequestCode, word_bytes
from catgrad_hw.schedule.program import Program

UNKEPT_AT = DESCRIPTION_AT - 2
"""The header of replies that are not kept to be sent again: to hello, and refusals."""

REGISTER_BYTES = 4


class Executor(Component):
    """Executes the request before ``end`` when ``start`` is high, then has its reply sent.

    * Request: ``byte`` follows its address ``pointer`` by two cycles; ``rewind`` sets that to the header, ``move``
      goes on.
    * Reply: ``reply_write`` writes ``reply_data`` at ``out``; ``reply_byte`` follows ``out`` by two cycles. ``send``
      starts the transmitter, ``advance`` moves ``out`` on, ``last`` tells that nothing is left, ``sent`` ends it all.
    * Streams: ``offer_parameters``, ``offer_samples``, ``offer_data`` offer a word, of b bytes, in the upper b of
      ``value``; ``accepted`` says that whichever is offered is taken. ``give_up`` ends the wait.
    * ``link_write``: ``value`` is written to the link register of number ``link_register``.
    * ``progress``: in the cycle before, an item was taken. ``refused``: the reply is no OK.

    What goes to the core comes out of registers, as the core is large and decodes far away. ``value`` stays for the
    cycle after its item was taken.
    """

    def __init__(self, program: Program):
        self.bits = stream_bits(program)
        super().__init__(
            {
                "start": In(1),
                "end": In(POINTER_BITS),
                "pointer": In(POINTER_BITS),
                "rewind": Out(1),
                "move": Out(1),
                "byte": In(8),
                "out": Out(POINTER_BITS),
                "reply_write": Out(1),
                "reply_data": Out(8),
                "reply_byte": In(8),
                "send": Out(1),
                "advance": In(1),
                "last": Out(1),
                "sent": In(1),
                "refused": Out(1),
                "bus": In(core_signature(program).members["bus"].signature),
                "results": In(core_signature(program).members["results"].signature),
                "value": Out(32),
                "offer_parameters": Out(1),
                "offer_samples": Out(1),
                "offer_data": Out(1),
                "accepted": In(1),
                "give_up": In(1),
                "progress": Out(1),
                "link_write": Out(1),
                "link_register": Out(2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus, results = self.bus, self.results
        kind = Signal(RequestCode, reset_less=True)
        code = Signal(5, reset_less=True)  # of the reply, less 0x80
        unkept, kept_end = Signal(reset_less=True), Signal(POINTER_BITS, reset_less=True)
        read = Signal(reset_less=True)  # all that was asked for, or what has room
        number = Signal(8, reset_less=True)  # of the last request
        known, answered = Signal(), Signal()  # there is a session; a reply in it may be sent again
        repeated, following, differs, begins = (Signal(reset_less=True) for _ in range(4))
        word = Signal(32, reset_less=True)  # bytes come in at the top and leave at the bottom
        index = Signal(3, reset_less=True)  # of a byte in its item
        item = Signal(8, reset_less=True)  # a register's number, or how many results have been read
        done = Signal(POINTER_BITS, reset_less=True)
        out = Signal(POINTER_BITS, reset_less=True)
        m.d.comb += self.out.eq(out)
        pointer = self.pointer
        ended, item_ends = Signal(reset_less=True), Signal()
        complete = Signal(reset_less=True)  # the byte that is there ends an item
        # Of a request's code: it is hello's; it is none; the request is as long as it asks for, other than of a write.
        is_hello, is_none, whole = (Signal(reset_less=True) for _ in range(3))
        opens, repeats, accepted, malformed = (Signal(reset_less=True) for _ in range(4))

        address, write, link_write = Signal.like(bus.address), Signal(), Signal()
        busy = bus.read_data[0]  # shows a command long before the next item
        m.d.comb += [address.eq(Register.STATUS), bus.write_data.eq(self.value)]
        m.d.sync += [bus.address.eq(address), bus.write_enable.eq(write), self.link_write.eq(link_write)]
        m.d.sync += results.ready.eq(0)
        offers = {
            RequestCode.WRITE_PARAMETERS: self.offer_parameters,
            RequestCode.WRITE_SAMPLES: self.offer_samples,
            RequestCode.WRITE_DATA: self.offer_data,
        }
        wants, offered = Signal(), Signal()
        m.d.comb += offered.eq(Cat(offers.values()).any())
        m.d.sync += self.progress.eq((offered & self.accepted) | link_write | write)
        m.d.sync += [offer.eq(wants & (kind == code) & ~self.accepted) for code, offer in offers.items()]
        of_registers, gives_up = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [of_registers.eq(kind == RequestCode.WRITE_REGISTERS), gives_up.eq(self.give_up & ~offered)]

        # A byte of the request is there four cycles after the pointer is moved; what is decoded of it, a cycle later;
        # how the request is judged by it, one more.
        move, rewind = Signal(), Signal()
        stays, arrives, there, decoded, judged = (Signal(reset_less=True) for _ in range(5))
        moves = move | rewind
        m.d.sync += [self.move.eq(move), self.rewind.eq(rewind)]
        m.d.sync += [
            stays.eq(~moves),
            arrives.eq(stays & ~moves),
            there.eq(arrives & ~moves),
            decoded.eq(there & ~moves),
            judged.eq(decoded & ~moves),
        ]
        m.d.sync += [
            ended.eq(pointer == self.end),
            complete.eq(item_ends),
            is_hello.eq(self.byte == RequestCode.HELLO),
            is_none.eq((self.byte[3:] != 0) | (self.byte[:3] == 0)),
            whole.eq(self.end == Mux(self.byte[1], Mux(self.byte[0], 1, 2), 4)),
        ]
        with m.If(self.advance | self.reply_write):
            m.d.sync += out.eq(out + 1)

        sizes = {
            RequestCode.HELLO: 4,
            RequestCode.READ_REGISTERS: REGISTER_BYTES,
            RequestCode.READ_RESULTS: word_bytes(self.bits["results"]),
            RequestCode.WRITE_REGISTERS: 1 + REGISTER_BYTES,
            RequestCode.WRITE_PARAMETERS: word_bytes(self.bits["parameters"]),
            RequestCode.WRITE_SAMPLES: word_bytes(self.bits["samples"]),
            RequestCode.WRITE_DATA: word_bytes(self.bits["samples"]),
        }
        with m.Switch(kind):
            for size in set(sizes.values()):
                with m.Case(*(code for code, bytes in sizes.items() if bytes == size)):
                    m.d.comb += item_ends.eq(index == size - 1)
        m.d.comb += [
            self.value.eq(Cat(word[8:], self.byte)),
            self.link_register.eq(word[:2]),
            self.refused.eq(code != 0),
            self.reply_data.eq(self.byte),
        ]

        m.d.sync += self.last.eq(
            out == Mux(unkept, Mux(code == 0, DESCRIPTION_AT + Description.SIZE, DESCRIPTION_AT), kept_end)
        )

        # Why a request is refused by its number and its code, and why a write is cut short.
        refusal, cut = Signal(5, reset_less=True), Signal(5, reset_less=True)

        def low(reply_code):
            return reply_code & 0x7F

        wrong = Mux(is_none, low(ReplyCode.COMMAND), low(ReplyCode.LENGTH))
        numbered = Mux(following, wrong, low(ReplyCode.SEQUENCE))
        m.d.sync += [
            opens.eq(is_hello & whole),
            repeats.eq(~is_hello & known & repeated & answered),
            accepted.eq(~is_hello & known & following),
            malformed.eq(is_none | ~(whole | self.byte[2])),
        ]
        m.d.sync += refusal.eq(Mux(is_hello, low(ReplyCode.LENGTH), Mux(known, numbered, low(ReplyCode.SESSION))))
        m.d.sync += cut.eq(Mux(ended, low(ReplyCode.LENGTH), low(ReplyCode.BUSY)))

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += rewind.eq(self.start)
                m.d.sync += [index.eq(0), code.eq(0), unkept.eq(1)]
                m.d.sync += [differs.eq(0), begins.eq(0), item.eq(0)]
                with m.If(self.start):
                    m.next = "NUMBER"
            with m.State("NUMBER"):
                m.d.sync += [repeated.eq(self.byte == number), following.eq(self.byte == (number + 1)[:8])]
                with m.If(there):
                    m.d.comb += move.eq(1)
                    m.next = "CODE"
            with m.State("CODE"):
                m.d.sync += [kind.eq(self.byte[:3]), out.eq(DESCRIPTION_AT + Description.SESSION_OFFSET)]
                with m.If(judged):
                    m.d.comb += move.eq(1)
                    m.next = "REFUSE"
                    with m.If(opens):
                        m.next = "SESSION"
                    with m.If(repeats):
                        m.next = "REPEAT"
                    with m.If(accepted):
                        m.next = "ACCEPT"
            with m.State("REFUSE"):
                m.d.sync += code.eq(refusal)
                m.next = "CLOSE"
            with m.State("REPEAT"):
                m.d.sync += [unkept.eq(0), out.eq(HEADER_AT)]
                m.next = "SEND"
            with m.State("ACCEPT"):
                m.d.sync += [unkept.eq(0), answered.eq(1), out.eq(0)]
                m.next = "FIRST"
                with m.If(kind[0]):
                    m.next = "FETCH"
                with m.If(kind[2]):
                    m.next = "ITEM"
                with m.If(malformed):
                    m.next = "REFUSE"

            # Hello: the session's number goes into the description, and is compared with what was there.
            with m.State("SESSION"):
                with m.If(there):
                    m.d.comb += [move.eq(1), self.reply_write.eq(1)]
                    m.d.sync += [index.eq(index + 1), differs.eq(differs | (self.byte != self.reply_byte))]
                    with m.If(complete):
                        m.next = "OPEN"
            with m.State("OPEN"):
                with m.If(differs | ~known):
                    m.d.sync += [known.eq(1), answered.eq(0), begins.eq(1)]
                m.next = "CLOSE"

            # Reads: up to the item whose number stands in the request.
            with m.State("FIRST"):
                m.d.sync += item.eq(self.byte)
                with m.If(there):
                    m.d.comb += move.eq(1)
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += address.eq(item)
                m.d.sync += [index.eq(0), read.eq((item == self.byte) | (out[3:] == REPLY_BYTES >> 3))]
                with m.If(there):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += address.eq(item)
                m.next = "ASK"
                with m.If(read):
                    m.next = "CLOSE"
            with m.State("ASK"):
                m.d.comb += address.eq(item)
                m.d.sync += index.eq(index + 1)
                with m.If(index == READ_CYCLES - 1):
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += [item.eq(item + 1), index.eq(0)]
                m.next = "EMIT"
                with m.If(kind == RequestCode.READ_RESULTS):
                    m.d.sync += results.ready.eq(results.valid)
                    m.d.sync += word.eq(results.payload[: 8 * sizes[RequestCode.READ_RESULTS]])
                    with m.If(~results.valid):
                        m.next = "CLOSE"
                with m.Else():
                    m.d.sync += word.eq(bus.read_data)
            with m.State("EMIT"):
                m.d.comb += [self.reply_write.eq(1), self.reply_data.eq(word[:8])]
                m.d.sync += [word.eq(self.value), index.eq(index + 1)]
                with m.If(item_ends):
                    m.next = "FETCH"

            # Writes.
            with m.State("ITEM"):
                with m.If(index == 0):
                    m.d.sync += done.eq(pointer)
                with m.If(ended):
                    m.next = "DONE_LOW"
                    with m.If(index != 0):
                        m.next = "CUT"
                with m.Elif(there & complete):
                    m.next = "WRITE"
                with m.Elif(there):
                    m.d.comb += move.eq(1)
                    m.d.sync += [word.eq(self.value), index.eq(index + 1)]
            with m.State("WRITE"):
                m.d.sync += index.eq(0)
                with m.If(self.progress):
                    m.d.comb += move.eq(1)
                    m.next = "ITEM"
                with m.Elif(of_registers):
                    m.d.comb += [link_write.eq(word[7]), write.eq(~word[7] & ~busy), address.eq(word[:8])]
                    with m.If(~word[7] & busy):
                        m.next = "CUT"
                with m.Elif(gives_up):
                    m.next = "CUT"
                with m.Else():
                    m.d.comb += wants.eq(~self.give_up)
            with m.State("CUT"):
                m.d.sync += code.eq(cut)
                m.next = "DONE_LOW"
            with m.State("DONE_LOW"):
                m.d.comb += [self.reply_write.eq(1), self.reply_data.eq(done[:8])]
                m.next = "DONE_HIGH"
            with m.State("DONE_HIGH"):
                m.d.comb += [self.reply_write.eq(1), self.reply_data.eq(done[8:])]
                m.next = "CLOSE"

            # The reply.
            with m.State("CLOSE"):
                m.d.comb += rewind.eq(1)
                m.d.sync += out.eq(Mux(unkept, UNKEPT_AT, HEADER_AT))
                with m.If(~unkept):
                    m.d.sync += kept_end.eq(out)
                m.next = "HEADER_NUMBER"
            with m.State("HEADER_NUMBER"):
                with m.If(there):
                    m.d.comb += self.reply_write.eq(1)
                    with m.If(begins | ~unkept):
                        m.d.sync += number.eq(self.byte)
                    m.next = "HEADER_CODE"
            with m.State("HEADER_CODE"):
                m.d.comb += [self.reply_write.eq(1), self.reply_data.eq(Cat(code, C(0b100, 3)))]
                m.next = "BACK"
            with m.State("BACK"):
                m.d.sync += out.eq(Mux(unkept, UNKEPT_AT, HEADER_AT))
                m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.send.eq(1)
                m.next = "SENDING"
            with m.State("SENDING"):
                with m.If(self.sent):
                    m.next = "IDLE"
        return m
