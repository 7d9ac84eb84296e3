"""How words leave: parameters in flat order, or predictions sample by sample."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import GROUP, WITHIN, bits_for, choose, of_groups, table
from catgrad_hw.gateware.walk import Walk
from catgrad_hw.schedule.program import Program


class Reader(Component):
    """Reads arrays of a group through the banks' own ports and offers them on ``results``.

    ``start`` begins with group ``group``: 0, the parameters; 1, the predictions of all tiles. While ``busy`` it
    owns the read ports: ``row`` is presented to all banks, whose rows (``row_<bank>``) come back two cycles later,
    and stay while ``hold`` is high. Of the ``updated`` banks, ``old_bank`` tells a cycle before that which one's row
    is to be in ``old_row`` a cycle after: in the register that updates have for it. A word is picked in one cycle, of
    rows of more than ``GROUP`` in two. As long as the receiver is ready, a prediction leaves in every cycle, a
    parameter in every second. ``hold`` follows a cycle after the receiver is not, so that it is a register, which tells
    all lanes; the word that is ready by then waits beside the next one.
    """

    def __init__(self, program: Program, width):
        self.program, self.width = program, width
        self.groups = [program.parameters, program.outputs]
        places = [program.placements[name] for group in self.groups for name in group]
        self.banks = sorted({place.bank for place in places})
        self.updated = updated_banks(program)
        self.direct = [name for name in self.banks if name not in self.updated]
        super().__init__(
            {
                "start": In(1),
                "group": In(1),
                "busy": Out(1),
                "hold": Out(1),
                "row": Out(bits_for(max(program.banks[name].depth for name in self.banks))),
                "results": Out(stream.Signature(signed(width))),
                **{f"row_{name}": In(program.banks[name].words * program.banks[name].width) for name in self.direct},
                "old_row": In(data.ArrayLayout(signed(width), program.lanes)),
                "old_bank": Out(bits_for(len(self.updated))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        running = [Signal(name=f"running_{number}") for number in range(2)]  # by group
        group = Signal()
        issues = [Signal(name=f"issues_{number}") for number in range(2)]
        issue = issues[0] | issues[1]
        steps = ["asked", "read", "row_of"]
        steps += ["old_of"] if self.updated else []
        steps += ["group_of"] if program.lanes > GROUP else []
        steps += ["out"]
        valid = [Signal(name=f"{step}_valid") for step in steps]
        m.d.comb += [
            self.results.valid.eq(valid[-1] | self.hold),
            self.busy.eq(Cat(running, valid, self.hold).any()),
        ]
        with m.If(~self.hold):
            m.d.sync += Cat(valid).eq(Cat(issue, valid))
            m.d.sync += self.hold.eq(valid[-1] & ~self.results.ready)
        with m.Elif(self.results.ready):
            m.d.sync += self.hold.eq(0)
        with m.If(self.start):
            m.d.sync += [running[0].eq(~self.group), running[1].eq(self.group), group.eq(self.group)]

        # Predictions: tile after tile, the last cut short.
        left = Signal(range(self._prediction_words() + 1))
        walks, bank_of = [], []
        for number, names in enumerate(self.groups):
            walk = Walk(program, names)
            m.submodules[f"walk_{number}"] = walk
            walks.append(walk)
            m.d.comb += [walk.step.eq(issues[number]), walk.restart.eq(self.start)]
            chosen = {i: self.banks.index(program.placements[name].bank) for i, name in enumerate(names)}
            bank_of.append(table(m, walk.array, chosen, range(len(self.banks)), f"bank_{number}"))
        # A parameter may be taken in the cycle of the command: a walk through one array would overtake its write.
        settled = walks[0].settled
        if len(program.parameters) == 1:
            settled = Signal()
            m.d.sync += settled.eq(~self.start)
        m.d.comb += issues[0].eq(running[0] & ~self.hold & settled)
        m.d.comb += issues[1].eq(running[1] & ~self.hold)
        (output,) = program.outputs
        origin = Signal(walks[1].row_bits)
        m.d.comb += walks[1].origin.eq(origin)
        with m.If(issues[0] & walks[0].ends):
            m.d.sync += running[0].eq(0)
        with m.If(issues[1]):
            m.d.sync += left.eq(left - 1)
            with m.If(left == 1):
                m.d.sync += running[1].eq(0)
            with m.If(walks[1].ends & (program.tiles > 1)):
                m.d.sync += origin.eq(origin + program.placements[output].slot_rows)
        with m.If(self.start):
            m.d.sync += [left.eq(self._prediction_words()), origin.eq(0)]

        # Which word of which bank's row: that of its address, two cycles later, and as words come out of rows.
        where = Signal(data.StructLayout({"lane": bits_for(program.lanes), "bank": bits_for(len(self.banks))}))
        at = {step: Signal.like(where, name=step, reset_less=True) for step in steps}
        m.d.comb += [
            where.lane.eq(Mux(group, walks[1].lane, walks[0].lane)),
            where.bank.eq(Mux(group, bank_of[1], bank_of[0])),
        ]
        with m.If(~self.hold):
            m.d.sync += self.row.eq(Mux(group, walks[1].row, walks[0].row))
            m.d.sync += [after.eq(before) for before, after in pairwise([where, *at.values()])]
        codes = {i: self.updated.index(name) for i, name in enumerate(self.banks) if name in self.updated} or {0: 0}
        m.d.comb += self.old_bank.eq(table(m, at["read"].bank, codes, self.old_bank.shape(), "old_bank_of"))
        sources = {}  # by the name: the first stage at which the words are there, and these
        for name in self.direct:
            bank, row = program.banks[name], getattr(self, f"row_{name}")
            parts = [row[i * bank.width : (i + 1) * bank.width].as_signed() for i in range(bank.words)]
            sources[name] = steps.index("row_of"), parts
        if self.updated:
            sources["old"] = steps.index("old_of"), [self.old_row[lane] for lane in range(program.lanes)]
        words = []
        for name, (stage, row) in sources.items():
            lane = at[steps[stage]].lane
            if program.lanes > GROUP:
                row, stage = of_groups(m, row, lane, name, ~self.hold), stage + 1
                lane = at[steps[stage]].lane[WITHIN:]
            word = choose(row, lane)
            for step in steps[stage + 1 :]:
                taken = Signal(signed(self.width), name=f"word_{name}_{step}", reset_less=True)
                with m.If(~self.hold):
                    m.d.sync += taken.eq(word)
                word = taken
            words.append(word)
        names = list(sources)
        chosen = {i: names.index(name if name in names else "old") for i, name in enumerate(self.banks)}
        word = choose(words, table(m, at["out"].bank, chosen, range(len(words)), "source"))
        waiting = Signal(signed(self.width), reset_less=True)
        m.d.comb += self.results.payload.eq(Mux(self.hold, waiting, word))
        with m.If(~self.hold):
            m.d.sync += waiting.eq(word)
        return m

    def _prediction_words(self):
        words = self.program.batch
        (output,) = self.program.outputs
        for size in self.program.placements[output].shape[1:]:
            words *= size
        return words


def updated_banks(program: Program) -> list[str]:
    """The banks whose rows the full-width path updates, in the order of its stream of old ones."""
    finishes = [finish for kernel in program.kernels if kernel.full for finish in kernel.full.writes]
    return sorted({program.placements[finish.target.array].bank for finish in finishes if finish.update})
