"""How words leave: parameters in flat order, or predictions sample by sample."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import fifo, stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Delayed, bits_for, table
from catgrad_hw.schedule.program import Program

MEMORY_LATENCY = 2


class Reader(Component):
    """Reads arrays of a group through the banks' own ports and offers them on ``results``.

    ``start`` begins with group ``group``: 0, the parameters; 1, the predictions. While ``busy`` it owns the read
    ports: ``address`` is presented to all banks, whose rows (``row_<bank>``) come back two cycles later. A word leaves
    in every cycle as long as the receiver is ready.
    """

    def __init__(self, program: Program, width):
        self.program, self.width = program, width
        groups = [[program.placements[n] for n in names] for names in (program.parameters, program.outputs)]
        self.groups = groups
        self.banks = sorted({place.bank for group in groups for place in group})
        super().__init__(
            {
                "start": In(1),
                "group": In(1),
                "busy": Out(1),
                "address": Out(bits_for(max(program.banks[name].depth for name in self.banks))),
                "results": Out(stream.Signature(signed(width))),
                **{f"row_{name}": In(program.banks[name].words * program.banks[name].width) for name in self.banks},
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        arrays = [place for group in self.groups for place in group]
        numbered = dict(enumerate(arrays))
        ends = {len(self.groups[0]) - 1, len(arrays) - 1}
        depth = 8
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=self.width, depth=depth)

        array = Signal(bits_for(len(arrays)))
        element = Signal(bits_for(max(place.elements for place in arrays)))
        lane = Signal(bits_for(program.lanes))
        sample = Signal(bits_for(program.batch))
        running = Signal()
        outstanding = Signal(range(depth + 1))
        issue = Signal()
        m.d.comb += issue.eq(running & (outstanding != depth))
        m.d.sync += outstanding.eq(outstanding + issue - (self.results.valid & self.results.ready))
        m.d.comb += self.busy.eq(running | (outstanding != 0))

        base = table(m, array, {i: p.base for i, p in numbered.items()}, self.address.shape(), "base")
        size = table(m, array, {i: p.elements - 1 for i, p in numbered.items()}, element.shape(), "size")
        passed = [Signal(self.address.shape(), name=f"passed_{i}") for i in range(len(self.groups[1]))]
        m.d.comb += self.address.eq(base + element)
        for i, rows in enumerate(passed):
            with m.If(array == len(self.groups[0]) + i):
                m.d.comb += self.address.eq(base + element + rows)
        predictions = array >= len(self.groups[0])
        with m.If(issue):
            m.d.sync += element.eq(element + 1)
            with m.If(element == size):
                m.d.sync += [element.eq(0), array.eq(array + 1)]
                with m.If(~predictions & (array == min(ends))):
                    m.d.sync += running.eq(0)
                with m.If(predictions & (array == max(ends))):
                    m.d.sync += [array.eq(len(self.groups[0])), sample.eq(sample + 1), lane.eq(lane + 1)]
                    with m.If(lane == program.lanes - 1):
                        m.d.sync += lane.eq(0)
                        for rows, place in zip(passed, self.groups[1], strict=True):
                            m.d.sync += rows.eq(rows + place.elements)
                    with m.If(sample == program.batch - 1):
                        m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += [running.eq(1), element.eq(0), lane.eq(0), sample.eq(0), [rows.eq(0) for rows in passed]]
            m.d.sync += array.eq(Mux(self.group, len(self.groups[0]), 0))

        valid = Delayed(m, issue, "valid")[MEMORY_LATENCY]
        lane_read = Delayed(m, lane, "lane")[MEMORY_LATENCY]
        array_read = Delayed(m, array, "array")[MEMORY_LATENCY]
        words = []
        for name in self.banks:
            bank = program.banks[name]
            row = getattr(self, f"row_{name}")
            parts = Array(row[i * bank.width : (i + 1) * bank.width].as_signed() for i in range(bank.words))
            word = Signal(signed(self.width), name=f"word_{name}")
            m.d.comb += word.eq(parts[lane_read] if bank.words > 1 else parts[0])
            words.append(word)
        bank_read = table(
            m, array_read, {i: self.banks.index(p.bank) for i, p in numbered.items()}, range(len(words)), "bank"
        )
        m.d.comb += [
            queue.w_en.eq(valid),
            queue.w_data.eq(Array(words)[bank_read] if len(words) > 1 else words[0]),
            self.results.valid.eq(queue.r_rdy),
            self.results.payload.eq(queue.r_data.as_signed()),
            queue.r_en.eq(self.results.ready),
        ]
        return m
