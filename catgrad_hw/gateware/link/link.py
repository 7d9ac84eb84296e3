"""The board's end of the link (``docs/link.md``): from the serial line to the ports of a core."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from catgrad_hw.gateware.core import core_signature
from catgrad_hw.gateware.link.data_set import DataSet
from catgrad_hw.gateware.link.execute import Executor
from catgrad_hw.gateware.link.frames import Crc, FrameReceiver, FrameTransmitter
from catgrad_hw.gateware.link.settings import BUFFER_BYTES, DESCRIPTION_AT, LinkSettings, describe, stream_bits
from catgrad_hw.gateware.link.uart import RATE_BITS, Receiver, Transmitter
from catgrad_hw.gateware.registers import Status
from catgrad_hw.host.protocol import LinkRegister, word_bytes
from catgrad_hw.schedule.program import Program


class Link(Component):
    """``rx`` and ``tx`` are the serial line, ``core`` the ports of the core, which ``core_reset`` resets.

    ``alive`` is 1 while a host talks, and blinks else; ``training``: the core was busy when it was last looked at;
    ``error``: the last frame was dropped or refused.
    """

    def __init__(self, program: Program, settings: LinkSettings):
        self.program, self.settings = program, settings
        self.description = describe(program, settings)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "alive": Out(1),
                "training": Out(1),
                "error": Out(1),
                "core": In(core_signature(program)),
                "core_reset": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        settings = self.settings
        m.submodules.uart_receiver = uart_receiver = Receiver()
        m.submodules.uart_transmitter = uart_transmitter = Transmitter()
        m.submodules.crc = crc = Crc()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.transmitter = transmitter = FrameTransmitter()
        m.submodules.executor = executor = Executor(self.program)
        m.submodules.request = request = Memory(shape=8, depth=BUFFER_BYTES, init=[])
        contents = [0] * DESCRIPTION_AT + list(self.description.pack())
        m.submodules.reply = reply = Memory(shape=8, depth=BUFFER_BYTES, init=contents)
        request_write, request_read = request.write_port(), request.read_port()
        reply_write, reply_read = reply.write_port(), reply.read_port()

        # One direction at a time: both use the CRC, and a reply its request's buffer.
        receiving, sending = Signal(init=1), Signal()
        with m.If(executor.start):
            m.d.sync += receiving.eq(0)
        with m.If(executor.send):
            m.d.sync += sending.eq(1)
        with m.If(transmitter.done):
            m.d.sync += [receiving.eq(1), sending.eq(0)]
        rate = Signal(RATE_BITS, init=settings.rate)
        m.d.comb += [
            uart_receiver.rx.eq(self.rx),
            uart_receiver.rate.eq(rate),
            receiver.byte.eq(uart_receiver.byte),
            receiver.restart.eq(transmitter.done | executor.rewind),
            receiver.move.eq(executor.move),
            receiver.crc_right.eq(crc.right),
            request_write.addr.eq(receiver.address),
            request_write.data.eq(receiver.content),
            request_write.en.eq(receiver.write),
            request_read.addr.eq(receiver.address),
            executor.pointer.eq(receiver.address),
            executor.end.eq(receiver.end),
            executor.advance.eq(transmitter.advance),
            reply_write.addr.eq(executor.out),
            reply_write.data.eq(executor.reply_data),
            reply_write.en.eq(executor.reply_write),
            reply_read.addr.eq(executor.out),
            transmitter.start.eq(executor.send),
            transmitter.byte.eq(executor.reply_byte),
            transmitter.last.eq(executor.last),
            transmitter.crc_busy.eq(crc.busy),
            transmitter.crc_low.eq(crc.low),
            crc.clear.eq(receiver.crc_clear | transmitter.crc_clear),
            crc.start.eq(receiver.crc_start | transmitter.crc_start),
            crc.shift.eq(transmitter.crc_shift),
            crc.byte.eq(Mux(sending, executor.reply_byte, receiver.content)),
            uart_transmitter.rate.eq(rate),
            self.tx.eq(uart_transmitter.tx),
        ]
        m.d.sync += [
            receiver.valid.eq(uart_receiver.valid & receiving),  # its byte stays
            receiver.broken.eq(uart_receiver.broken & receiving),
            executor.start.eq(receiver.good),
            executor.sent.eq(transmitter.done),
            executor.byte.eq(request_read.data),  # block RAM is slow: nothing else fits into its cycle
            executor.reply_byte.eq(reply_read.data),
        ]
        connect(m, transmitter.line, uart_transmitter.bytes)

        self._connect_core(m, executor, rate, transmitter.done)

        timer = Signal(settings.fallback_bits + 1)
        m.d.sync += timer.eq(timer + 1)
        with m.If(executor.start | executor.progress):
            m.d.sync += timer.eq(0)
        with m.If(timer[-1]):
            m.d.sync += rate.eq(rate.init)
        m.d.comb += [executor.give_up.eq(timer[settings.patience_bits]), self.alive.eq(~timer[-1])]
        with m.If(receiving):
            m.d.sync += self.training.eq(self.core.bus.read_data & Status.BUSY)
        with m.If(receiver.bad | executor.send):
            m.d.sync += self.error.eq(receiver.bad | executor.refused)
        return m

    def _connect_core(self, m, executor, rate, replied):
        """Registers, streams and the data set memory."""
        core, bits = self.core, stream_bits(self.program)
        connect(m, executor.bus, flipped(core.bus))
        connect(m, flipped(core.results), executor.results)

        def words(name):
            unused = 32 - 8 * word_bytes(bits[name])
            return executor.value[unused : unused + bits[name]]

        m.d.comb += [
            core.parameters.valid.eq(executor.offer_parameters),
            core.parameters.payload.eq(words("parameters")),
            core.samples.valid.eq(executor.offer_samples),
            core.samples.payload.eq(words("samples")),
            executor.accepted.eq(
                (executor.offer_parameters & core.parameters.ready) | (executor.offer_samples & core.samples.ready)
            ),
        ]
        new_rate = Signal()
        m.d.sync += self.core_reset.eq(0)  # from a register to all of the core
        with m.If(executor.start):
            m.d.sync += new_rate.eq(0)
        with m.If(executor.link_write):
            with m.Switch(executor.link_register):
                with m.Case(LinkRegister.RESET & 3):
                    m.d.sync += self.core_reset.eq(1)
                with m.Case(LinkRegister.RATE & 3):
                    m.d.sync += new_rate.eq(1)
        with m.If(replied & new_rate):
            m.d.sync += rate.eq(executor.value)  # the last one that was written

        settings = self.settings
        if settings.data_set_words:
            m.submodules.data_set = data_set = DataSet(settings.data_set_words, bits["samples"], settings.data_set_kind)
            m.d.comb += [
                data_set.value.eq(executor.value),
                data_set.play.eq(executor.value[31]),
                data_set.set_position.eq(
                    executor.link_write & (executor.link_register == LinkRegister.DATA_POSITION & 3)
                ),
                data_set.set_last.eq(executor.link_write & (executor.link_register == LinkRegister.DATA_LAST & 3)),
                data_set.word.eq(words("samples")),
                data_set.write.eq(executor.offer_data),
                data_set.samples.ready.eq(core.samples.ready),
            ]
            with m.If(executor.offer_data):
                m.d.comb += executor.accepted.eq(~data_set.playing)
            # While it plays, nothing else is offered.
            m.d.comb += [
                executor.playing.eq(data_set.playing),
                core.samples.valid.eq(data_set.samples.valid | executor.offer_samples),
            ]
            with m.If(data_set.playing):
                m.d.comb += core.samples.payload.eq(data_set.samples.payload)
