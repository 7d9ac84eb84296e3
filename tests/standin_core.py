"""A tiny core with the ports and registers of the real one, and a trivial step: the test of driver and benches.

``step``: every parameter grows by the sum of all words of the batch plus the low byte of the key.
``predict``: one word for each sample, its first word plus the first parameter.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature

IDENTITY = 0x0123_4567_89AB_CDEF
KEY_INCREMENT = 0x9E37_79B1
STEP_CYCLES = 11


class StandinCore(Component):
    """``parameters`` words, ``slots`` batches of ``batch`` samples of ``sample`` words.

    ``fault``: "payload" changes a result while it waits, "valid" withdraws it, "wait" makes valid wait for ready,
    "extra" offers a word too many, "hang" never ends a step.
    """

    def __init__(self, parameters=5, batch=3, sample=3, slots=2, fault=None):
        self.sizes = parameters, batch, sample, slots
        self.fault = fault
        bus = Signature(
            {
                "address": Out(6),
                "write_data": Out(32),
                "write_enable": Out(1),
                "read_data": In(32),
            }
        )
        super().__init__(
            {
                "samples": In(stream.Signature(signed(16))),
                "parameters": In(stream.Signature(signed(24))),
                "results": Out(stream.Signature(signed(28))),
                "bus": In(bus),
            }
        )

    def elaborate(self, platform):
        m = Module()
        parameters, batch, sample, slots = self.sizes
        words = Array(Signal(signed(24), name=f"p{i}") for i in range(parameters))
        ring = Array(Signal(signed(16), name=f"s{i}") for i in range(slots * batch * sample))

        # Loading.
        slot_words = batch * sample
        parameter = Signal(range(parameters))
        m.d.comb += self.parameters.ready.eq(1)
        with m.If(self.parameters.valid):
            m.d.sync += words[parameter].eq(self.parameters.payload)
            m.d.sync += parameter.eq(Mux(parameter == parameters - 1, 0, parameter + 1))

        resident = Signal()
        fill_slot = Signal(range(slots))
        fill_word = Signal(range(slot_words))
        loaded = Signal(range(slots + 1))
        slot = Signal(range(slots))
        filled = Signal()
        used = Signal()
        forget = Signal()
        m.d.comb += self.samples.ready.eq(loaded != slots)
        with m.If(self.samples.valid & self.samples.ready):
            m.d.sync += ring[fill_slot * slot_words + fill_word].eq(self.samples.payload)
            m.d.sync += fill_word.eq(fill_word + 1)
            with m.If(fill_word == slot_words - 1):
                m.d.comb += filled.eq(1)
                m.d.sync += fill_word.eq(0)
                m.d.sync += fill_slot.eq(Mux(fill_slot == slots - 1, 0, fill_slot + 1))
        m.d.sync += loaded.eq(loaded + filled - (used & ~resident))
        with m.If(used):
            last = Mux(resident, loaded - 1, slots - 1)
            m.d.sync += slot.eq(Mux(slot == last, 0, slot + 1))
        with m.If(forget):
            m.d.sync += [loaded.eq(0), slot.eq(0), fill_slot.eq(0), fill_word.eq(0)]

        # Registers.
        key, steps, count, cycles = (Signal(32, name=name) for name in ("key", "steps", "count", "cycles"))
        busy, waiting, running = Signal(), Signal(), Signal()
        with m.Switch(self.bus.address):
            for address, value in {
                0: Const(IDENTITY & 0xFFFFFFFF, 32),
                1: Const(IDENTITY >> 32, 32),
                2: Cat(busy, waiting),
                4: count,
                5: cycles,
                6: key,
                7: steps,
                8: resident,
                16: Const(3, 32),
                17: Const(0, 32),
            }.items():
                with m.Case(address):
                    m.d.sync += self.bus.read_data.eq(value)
        command = Signal(4)
        with m.If(self.bus.write_enable):
            with m.Switch(self.bus.address):
                with m.Case(3):
                    m.d.comb += command.eq(self.bus.write_data)
                with m.Case(4):
                    m.d.sync += count.eq(self.bus.write_data)
                with m.Case(6):
                    m.d.sync += key.eq(self.bus.write_data)
                with m.Case(8):
                    m.d.sync += resident.eq(self.bus.write_data)

        # Programs.
        left = Signal(32)
        timer = Signal(8)
        index = Signal(8)
        predicting = Signal()
        outputs = Array(Signal(signed(24), name=f"y{i}") for i in range(batch))
        total = sum(ring[slot * slot_words + i] for i in range(slot_words))
        m.d.comb += [busy.eq(1), waiting.eq(running & (loaded == 0))]
        with m.If(running):
            m.d.sync += cycles.eq(cycles + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += busy.eq(0)
                m.d.sync += [index.eq(0), timer.eq(0), left.eq(Mux(command == 1, count, 1))]
                with m.Switch(command):
                    with m.Case(1, 2):
                        m.d.sync += [predicting.eq(command == 2), cycles.eq(0)]
                        m.next = "RUN"
                    with m.Case(3):
                        m.next = "READ"
                    with m.Case(4):
                        m.next = "READ_PREDICTIONS"
                    with m.Case(5):
                        m.d.comb += forget.eq(1)
                    with m.Case(6):
                        m.d.sync += parameter.eq(0)
            with m.State("RUN"):
                m.d.comb += running.eq(1)
                with m.If((loaded != 0) & (self.fault != "hang")):
                    m.d.sync += timer.eq(timer + 1)
                with m.If(timer == STEP_CYCLES - 1):
                    m.d.sync += timer.eq(0)
                    m.d.sync += left.eq(left - 1)
                    m.d.comb += used.eq(1)
                    with m.If(predicting):
                        for i in range(batch):
                            m.d.sync += outputs[i].eq(ring[slot * slot_words + i * sample] + words[0])
                    with m.Else():
                        m.d.sync += [w.eq(w + total + key[:8]) for w in words]
                        m.d.sync += [key.eq(key + KEY_INCREMENT), steps.eq(steps + 1)]
                    with m.If(left == 1):
                        m.next = "IDLE"
            offered = Signal(signed(24))
            for state, memory, size in (("READ", words, parameters), ("READ_PREDICTIONS", outputs, batch)):
                with m.State(state):
                    m.d.comb += offered.eq(memory[index])
                    self._offer(m, offered)
                    with m.If(self.results.valid & self.results.ready):
                        m.d.sync += index.eq(index + 1)
                        with m.If(index == size - (self.fault != "extra")):
                            m.next = "IDLE"
        return m

    def _offer(self, m, word):
        toggle = Signal(name="toggle")
        m.d.sync += toggle.eq(~toggle)
        m.d.comb += self.results.payload.eq(Mux(toggle & (self.fault == "payload"), word ^ 1, word))
        m.d.comb += self.results.valid.eq(1)
        if self.fault == "valid":
            m.d.comb += self.results.valid.eq(toggle)
        if self.fault == "wait":
            m.d.comb += self.results.valid.eq(self.results.ready)


def expected(job):
    """The records and predictions that the core gives for ``job``."""
    words, key, records = job.parameters.copy(), job.key, []

    def step(number):
        nonlocal words, key
        words = words + job.batches[number % len(job.batches)].sum() + (key & 0xFF)
        key = (key + KEY_INCREMENT) % 2**32

    for number in range(job.steps):
        step(number)
        records.append(words)
    predictions = [
        tuple(int(v) for v in batch.reshape(job.prediction_words, -1)[:, 0] + words[0]) for batch in job.predictions
    ]
    for number in range(job.burst):
        step(job.steps + number)
    if job.burst:
        records.append(words)
    return records, predictions
