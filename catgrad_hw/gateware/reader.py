"""How words leave: parameters in flat order, or predictions sample by sample."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import fifo, stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Delayed, bits_for, table
from catgrad_hw.gateware.walk import Walk
from catgrad_hw.schedule.program import Program

MEMORY_LATENCY = 2


class Reader(Component):
    """Reads arrays of a group through the banks' own ports and offers them on ``results``.

    ``start`` begins with group ``group``: 0, the parameters; 1, the predictions of all tiles. While ``busy`` it owns
    the read ports: ``row`` is presented to all banks, whose rows (``row_<bank>``) come back two cycles later. A word
    leaves in every cycle as long as the receiver is ready.
    """

    def __init__(self, program: Program, width):
        self.program, self.width = program, width
        self.groups = [program.parameters, program.outputs]
        places = [program.placements[name] for group in self.groups for name in group]
        self.banks = sorted({place.bank for place in places})
        super().__init__(
            {
                "start": In(1),
                "group": In(1),
                "busy": Out(1),
                "row": Out(bits_for(max(program.banks[name].depth for name in self.banks))),
                "results": Out(stream.Signature(signed(width))),
                **{f"row_{name}": In(program.banks[name].words * program.banks[name].width) for name in self.banks},
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        depth = 8
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=self.width, depth=depth)
        running = Signal()
        group = Signal()
        outstanding = Signal(range(depth + 1))
        issue = Signal()
        m.d.comb += [issue.eq(running & (outstanding != depth)), self.busy.eq(running | (outstanding != 0))]
        m.d.sync += outstanding.eq(outstanding + issue - (self.results.valid & self.results.ready))
        with m.If(self.start):
            m.d.sync += [running.eq(1), group.eq(self.group)]

        # Predictions: tile after tile, the last cut short.
        left = Signal(range(self._prediction_words() + 1))
        tile = Signal(bits_for(program.tiles))
        walks, bank_of = [], []
        for number, names in enumerate(self.groups):
            walk = Walk(program, names)
            m.submodules[f"walk_{number}"] = walk
            walks.append(walk)
            m.d.comb += [walk.step.eq(issue & (group == number)), walk.restart.eq(self.start)]
            chosen = {i: self.banks.index(program.placements[name].bank) for i, name in enumerate(names)}
            bank_of.append(table(m, walk.array, chosen, range(len(self.banks)), f"bank_{number}"))
        (output,) = program.outputs
        size = program.placements[output].slot_rows
        m.d.comb += walks[1].origin.eq(
            table(m, tile, {t: t * size for t in range(program.tiles)}, walks[1].row_bits, "tile_origin")
        )
        with m.If(issue):
            m.d.sync += left.eq(left - 1)
            with m.If(Mux(group, left == 1, walks[0].ends)):
                m.d.sync += running.eq(0)
            with m.If(group & walks[1].ends):
                m.d.sync += tile.eq(tile + 1)
        with m.If(self.start):
            m.d.sync += [left.eq(self._prediction_words()), tile.eq(0)]

        m.d.comb += self.row.eq(Mux(group, walks[1].row, walks[0].row))
        valid = Delayed(m, issue, "valid")[MEMORY_LATENCY]
        lane = Signal(bits_for(program.lanes))
        bank = Signal(bits_for(len(self.banks)))
        m.d.comb += [lane.eq(Mux(group, walks[1].lane, walks[0].lane)), bank.eq(Mux(group, bank_of[1], bank_of[0]))]
        lane_read = Delayed(m, lane, "lane")[MEMORY_LATENCY]
        bank_read = Delayed(m, bank, "bank")[MEMORY_LATENCY]
        words = []
        for name in self.banks:
            memory = program.banks[name]
            row = getattr(self, f"row_{name}")
            parts = Array(row[i * memory.width : (i + 1) * memory.width].as_signed() for i in range(memory.words))
            word = Signal(signed(self.width), name=f"word_{name}")
            m.d.comb += word.eq(parts[lane_read] if memory.words > 1 else parts[0])
            words.append(word)
        m.d.comb += [
            queue.w_en.eq(valid),
            queue.w_data.eq(Array(words)[bank_read] if len(words) > 1 else words[0]),
            self.results.valid.eq(queue.r_rdy),
            self.results.payload.eq(queue.r_data.as_signed()),
            queue.r_en.eq(self.results.ready),
        ]
        return m

    def _prediction_words(self):
        words = self.program.batch
        (output,) = self.program.outputs
        for size in self.program.placements[output].shape[1:]:
            words *= size
        return words
