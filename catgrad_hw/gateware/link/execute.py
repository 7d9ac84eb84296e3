"""Executes requests: what stands in the buffer of requests is done to the core, and a reply is left in the other."""

from functools import reduce
from operator import or_

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.core import core_signature
from catgrad_hw.gateware.link.frames import HEADER_AT, POINTER_BITS
from catgrad_hw.gateware.link.settings import DESCRIPTION_AT, REPLY_BYTES, stream_bits
from catgrad_hw.gateware.registers import READ_CYCLES, Register
from catgrad_hw.gateware.states import States
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
      ``value``; ``accepted`` says that whichever is offered is taken. ``give_up`` ends the wait. No samples are
      offered while ``playing``.
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
                "playing": In(1),
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
        failed = Signal(reset_less=True)  # that is not OK
        unkept, kept_end = Signal(reset_less=True), Signal(POINTER_BITS, reset_less=True)
        read = Signal(reset_less=True)  # all that was asked for, or what has room
        number, successor = Signal(8, reset_less=True), Signal(8, reset_less=True)  # of the last request, and the next
        known, answered = Signal(), Signal()  # there is a session; a reply in it may be sent again
        repeated, following, differs, begins = (Signal(reset_less=True) for _ in range(4))
        word = Signal(32, reset_less=True)  # bytes come in at the top and leave at the bottom
        index = Signal(3, reset_less=True)  # of a byte in its item
        begun = Signal(reset_less=True)  # an item's first byte has been taken
        item = Signal(8, reset_less=True)  # a register's number, or how many results have been read
        done = Signal(POINTER_BITS, reset_less=True)
        out = Signal(POINTER_BITS, reset_less=True)
        m.d.comb += self.out.eq(out)
        pointer = self.pointer
        ended, item_ends = Signal(reset_less=True), Signal()
        complete = Signal(reset_less=True)  # the byte that is there ends an item
        # Of a request's code: it is hello's; it is none; the request is as long as it asks for, other than of a write.
        is_hello, is_none, whole = (Signal(reset_less=True) for _ in range(3))
        opens, repeats, accepted, refused, malformed = (Signal(reset_less=True) for _ in range(5))

        states = States(
            *("IDLE", "NUMBER", "CODE", "REFUSE", "REPEAT", "ACCEPT"),
            *("SESSION", "OPEN"),
            *("FIRST", "FETCH", "CHECK", "ASK", "LOAD", "EMIT", "EMITTED"),
            *("ITEM", "WRITE", "CUT", "DONE_LOW", "DONE_HIGH"),
            *("CLOSE", "HEADER_NUMBER", "HEADER_CODE", "BACK", "SEND", "SENDING"),
        )
        at, among, go = states.at, states.among, states.go

        write, link_write = Signal(), Signal()
        busy = bus.read_data[0]  # shows a command long before the next item
        m.d.comb += bus.write_data.eq(self.value)
        m.d.sync += [bus.write_enable.eq(write), self.link_write.eq(link_write), bus.address.eq(Register.STATUS)]
        with m.If(among("FETCH", "CHECK", "ASK")):
            m.d.sync += bus.address.eq(item)
        offers = {
            RequestCode.WRITE_PARAMETERS: self.offer_parameters,
            RequestCode.WRITE_SAMPLES: self.offer_samples,
            RequestCode.WRITE_DATA: self.offer_data,
        }
        wants, offered = Signal(), Signal()
        m.d.comb += offered.eq(Cat(offers.values()).any())
        m.d.sync += self.progress.eq((offered & self.accepted) | link_write | write)
        of_registers, of_results, gives_up = (Signal(reset_less=True) for _ in range(3))
        m.d.sync += [
            of_registers.eq(kind == RequestCode.WRITE_REGISTERS),
            of_results.eq(kind == RequestCode.READ_RESULTS),
            gives_up.eq(self.give_up & ~offered),
        ]
        for request, offer in offers.items():
            mine = Signal(name=f"is_{request.name.lower()}", reset_less=True)
            may = kind == request
            if request is RequestCode.WRITE_SAMPLES:
                may &= ~self.playing
            m.d.sync += [mine.eq(may), offer.eq(wants & mine & ~self.accepted)]

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
            begun.eq(index != 0),
            is_hello.eq(self.byte == RequestCode.HELLO),
            is_none.eq((self.byte[3:] != 0) | (self.byte[:3] == 0)),
            whole.eq(self.end == Mux(self.byte[1], Mux(self.byte[0], 1, 2), 4)),
        ]

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
            self.refused.eq(failed),
        ]
        m.d.sync += self.last.eq(
            out == Mux(unkept, Mux(failed, DESCRIPTION_AT, DESCRIPTION_AT + Description.SIZE), kept_end)
        )

        # Why a request is refused by its number and its code, and why a write is cut short.
        refusal, cut = Signal(5, reset_less=True), Signal(5, reset_less=True)

        def low(reply_code):
            return reply_code & 0x7F

        wrong = Mux(is_none, low(ReplyCode.COMMAND), low(ReplyCode.LENGTH))
        numbered = Mux(following, wrong, low(ReplyCode.SEQUENCE))
        repeats_now, accepted_now = ~is_hello & known & repeated & answered, ~is_hello & known & following
        m.d.sync += [
            opens.eq(is_hello & whole),
            repeats.eq(repeats_now),
            accepted.eq(accepted_now),
            refused.eq(~((is_hello & whole) | repeats_now | accepted_now)),
            malformed.eq(is_none | ~(whole | self.byte[2])),
        ]
        m.d.sync += refusal.eq(Mux(is_hello, low(ReplyCode.LENGTH), Mux(known, numbered, low(ReplyCode.SESSION))))
        m.d.sync += cut.eq(Mux(ended, low(ReplyCode.LENGTH), low(ReplyCode.BUSY)))

        # What the states do. Where several write one register, no more than one does in a cycle.
        taken = there & ~complete
        m.d.comb += [
            rewind.eq((at["IDLE"] & self.start) | at["CLOSE"]),
            move.eq(
                (there & among("NUMBER", "SESSION", "FIRST"))
                | (judged & at["CODE"])
                | (taken & ~ended & at["ITEM"])
                | (self.progress & at["WRITE"])
            ),
            self.reply_write.eq(
                (there & among("SESSION", "HEADER_NUMBER")) | among("EMIT", "DONE_LOW", "DONE_HIGH", "HEADER_CODE")
            ),
        ]
        contents = [
            (among("SESSION", "HEADER_NUMBER"), self.byte),
            (at["EMIT"], word[:8]),
            (at["DONE_LOW"], done[:8]),
            (at["DONE_HIGH"], done[8:]),
            (at["HEADER_CODE"], Cat(code, C(0b100, 3))),
        ]
        m.d.comb += self.reply_data.eq(reduce(or_, (Mux(here, byte, 0) for here, byte in contents)))

        with m.If(self.advance | self.reply_write):
            m.d.sync += out.eq(out + 1)
        heads = Mux(unkept, UNKEPT_AT, HEADER_AT)
        places = [
            (at["CODE"], DESCRIPTION_AT + Description.SESSION_OFFSET),
            (at["REPEAT"], HEADER_AT),
            (at["ACCEPT"], 0),
            (among("CLOSE", "BACK"), heads),
        ]
        with m.If(among("CODE", "REPEAT", "ACCEPT", "CLOSE", "BACK")):
            m.d.sync += out.eq(reduce(or_, (Mux(here, place, 0) for here, place in places)))
        with m.If((there & at["SESSION"]) | (taken & at["ITEM"]) | among("ASK", "EMITTED")):
            m.d.sync += index.eq(index + 1)
        with m.If(among("IDLE", "FETCH", "LOAD", "WRITE")):
            m.d.sync += index.eq(0)

        with m.If(at["IDLE"]):
            m.d.sync += [code.eq(0), failed.eq(0), unkept.eq(1), differs.eq(0), begins.eq(0)]
        go("IDLE", "NUMBER", self.start)

        m.d.sync += successor.eq(number + 1)
        with m.If(at["NUMBER"]):
            m.d.sync += [repeated.eq(self.byte == number), following.eq(self.byte == successor)]
        go("NUMBER", "CODE", there)

        with m.If(at["CODE"]):
            m.d.sync += kind.eq(self.byte[:3])
        for judgement, target in ((refused, "REFUSE"), (opens, "SESSION"), (repeats, "REPEAT"), (accepted, "ACCEPT")):
            go("CODE", target, judged & judgement)

        with m.If(among("REFUSE", "CUT")):
            m.d.sync += [code.eq(Mux(at["REFUSE"], refusal, cut)), failed.eq(1)]
        go("REFUSE", "CLOSE")

        with m.If(among("REPEAT", "ACCEPT")):
            m.d.sync += unkept.eq(0)
        go("REPEAT", "SEND")

        with m.If(at["ACCEPT"]):
            m.d.sync += answered.eq(1)
        go("ACCEPT", "REFUSE", malformed)
        go("ACCEPT", "ITEM", ~malformed & kind[2])
        go("ACCEPT", "FETCH", ~malformed & ~kind[2] & kind[0])
        go("ACCEPT", "FIRST", ~malformed & ~kind[2] & ~kind[0])

        # Hello: the session's number goes into the description, and is compared with what was there.
        with m.If(at["SESSION"] & there):
            m.d.sync += differs.eq(differs | (self.byte != self.reply_byte))
        go("SESSION", "OPEN", there & complete)

        with m.If(at["OPEN"] & (differs | ~known)):
            m.d.sync += [known.eq(1), answered.eq(0), begins.eq(1)]
        go("OPEN", "CLOSE")

        # Reads: up to the item whose number stands in the request.
        with m.If(among("IDLE", "FIRST", "LOAD")):
            m.d.sync += item.eq(Mux(at["FIRST"], self.byte, Mux(at["LOAD"], item + 1, 0)))
        go("FIRST", "FETCH", there)

        with m.If(at["FETCH"]):
            m.d.sync += read.eq((item == self.byte) | (out[3:] == REPLY_BYTES >> 3))
        go("FETCH", "CHECK", there)

        go("CHECK", "CLOSE", read)
        go("CHECK", "ASK", ~read)

        go("ASK", "LOAD", index == READ_CYCLES - 1)

        with m.If(at["LOAD"]):
            m.d.sync += word.eq(Mux(of_results, results.payload[: 8 * sizes[RequestCode.READ_RESULTS]], bus.read_data))
        m.d.sync += results.ready.eq(at["LOAD"] & of_results & results.valid)
        go("LOAD", "CLOSE", of_results & ~results.valid)
        go("LOAD", "EMIT", ~(of_results & ~results.valid))

        with m.If(at["EMIT"] | (taken & at["ITEM"])):
            m.d.sync += word.eq(self.value)
        go("EMIT", "EMITTED")
        go("EMITTED", "FETCH", complete)
        go("EMITTED", "EMIT", ~complete)

        # Writes.
        with m.If(at["ITEM"] & ~begun):
            m.d.sync += done.eq(pointer)
        go("ITEM", "CUT", ended & begun)
        go("ITEM", "DONE_LOW", ended & ~begun)
        go("ITEM", "WRITE", ~ended & there & complete)

        writes_register = at["WRITE"] & of_registers & ~self.progress
        m.d.comb += [
            link_write.eq(writes_register & word[7]),
            write.eq(writes_register & ~word[7] & ~busy),
            wants.eq(at["WRITE"] & ~self.progress & ~gives_up & ~self.give_up),
        ]
        with m.If(at["WRITE"] & of_registers):
            m.d.sync += bus.address.eq(word[:8])
        go("WRITE", "ITEM", self.progress)
        go("WRITE", "CUT", ~self.progress & Mux(of_registers, ~word[7] & busy, gives_up))

        go("CUT", "DONE_LOW")
        go("DONE_LOW", "DONE_HIGH")
        go("DONE_HIGH", "CLOSE")

        # The reply.
        with m.If(at["CLOSE"] & ~unkept):
            m.d.sync += kept_end.eq(out)
        go("CLOSE", "HEADER_NUMBER")

        with m.If(at["HEADER_NUMBER"] & there & (begins | ~unkept)):
            m.d.sync += number.eq(self.byte)
        go("HEADER_NUMBER", "HEADER_CODE", there)

        go("HEADER_CODE", "BACK")
        go("BACK", "SEND")
        m.d.comb += self.send.eq(at["SEND"])
        go("SEND", "SENDING")
        go("SENDING", "IDLE", self.sent)
        states.build(m)
        return m
