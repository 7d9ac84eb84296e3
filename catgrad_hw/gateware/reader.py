"""How words leave: parameters in flat order, or predictions sample by sample."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Delayed, bits_for, table
from catgrad_hw.gateware.walk import Walk
from catgrad_hw.schedule.program import Program

MEMORY_LATENCY = 2

DEPTH = MEMORY_LATENCY + 2
"""Words that may be on their way, or wait: so many that one is issued in every cycle."""


class Queue(Component):
    """A first-in first-out queue of ``DEPTH`` words in registers, the oldest first: a word is there in the cycle after
    ``push``. So few words would waste a block RAM where a family has no smaller memory."""

    def __init__(self, width):
        self.width = width
        super().__init__({"push": In(1), "word": In(width), "words": Out(stream.Signature(signed(width)))})

    def elaborate(self, platform):
        m = Module()
        held = [Signal(self.width, name=f"held_{i}", reset_less=True) for i in range(DEPTH)]
        level = Signal(range(DEPTH + 1))
        pop = self.words.valid & self.words.ready
        m.d.comb += [self.words.valid.eq(level != 0), self.words.payload.eq(held[0].as_signed())]
        m.d.sync += level.eq(level + self.push - pop)
        for i, word in enumerate(held):
            following = held[i + 1] if i + 1 < DEPTH else self.word
            with m.If(pop):
                m.d.sync += word.eq(Mux(level == i + 1, self.word, following))
            with m.Elif(level == i):
                m.d.sync += word.eq(self.word)
        return m


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
        m.submodules.queue = queue = Queue(self.width)
        running = Signal()
        group = Signal()
        outstanding = Signal(range(DEPTH + 1))
        issue = Signal()
        m.d.comb += [issue.eq(running & (outstanding != DEPTH)), self.busy.eq(running | (outstanding != 0))]
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
            queue.push.eq(valid),
            queue.word.eq(Array(words)[bank_read] if len(words) > 1 else words[0]),
            self.results.valid.eq(queue.words.valid),
            self.results.payload.eq(queue.words.payload),
            queue.words.ready.eq(self.results.ready),
        ]
        return m

    def _prediction_words(self):
        words = self.program.batch
        (output,) = self.program.outputs
        for size in self.program.placements[output].shape[1:]:
            words *= size
        return words
