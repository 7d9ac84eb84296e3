"""The full-width path: every lane's accumulator narrowed and written in one cycle."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import rounded, saturated_for
from catgrad_hw.gateware.tag import Choice, Delayed, Edge, TagLayout, member, partial_lanes, table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.program import Program


class FullPath(Component):
    """``totals`` are the accumulators at :data:`timing.ACCUMULATOR`, and ``tag`` is the pipeline's a cycle before; the
    row is written three cycles after ``totals``: rounded, for an update subtracted from the ``old`` row (one cycle
    after ``totals``), saturated.

    ``write_tag`` is two cycles ahead of ``row``; ``write`` enables all lanes, ``writes_soon`` is high a cycle before.
    Lanes without an element write 0.
    ``clamped`` counts clamped words, for kernel ``clamped_kernel``, with the latency of an adder tree.
    """

    def __init__(self, program: Program, width, old_bits):
        self.program, self.width = program, width
        self.layout = TagLayout(program)
        self.kernels = {i: k.full for i, k in enumerate(program.kernels) if k.full}
        lanes = program.lanes
        super().__init__(
            {
                "tag": In(self.layout),
                "totals": In(data.ArrayLayout(signed(program.accumulator), lanes)),
                "old": In(data.ArrayLayout(signed(old_bits), lanes)),
                "write_tag": Out(self.layout),
                "row": Out(data.ArrayLayout(signed(width), lanes)),
                "write": Out(1),
                "writes_soon": Out(1),
                "clamped": Out(range(lanes + 1)),
                "clamped_kernel": Out(self.layout["kernel"].shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes = program.lanes
        stage = Delayed(m, self.tag, "stage")
        kernel = self.tag.kernel
        narrowings = {i: full.narrowing for i, full in self.kernels.items()}
        shift = Choice(m, kernel, {i: n.shift for i, n in narrowings.items()}, "shift")
        width = Choice(m, kernel, {i: n.width for i, n in narrowings.items()}, "width", delay=3)
        updates = [i for i, full in self.kernels.items() if full.update]
        updating = Delayed(m, member(m, kernel, updates, "updates"), "updating", reset_less=True)[2]
        working = Delayed(m, self.tag.valid & self.tag.last & member(m, kernel, narrowings, "is_full"), "working")
        partial = {i: partial_lanes(program, program.kernels[i]) for i in self.kernels}
        masks = table(m, stage[2].kernel, {i: (1 << count) - 1 for i, count in partial.items()}, lanes, "partial")
        present = Signal(lanes, reset_less=True)
        with m.Switch(stage[2].edge):
            with m.Case(Edge.FULL):
                m.d.sync += present.eq((1 << lanes) - 1)
            with m.Case(Edge.PARTIAL):
                m.d.sync += present.eq(masks)
            with m.Default():
                m.d.sync += present.eq(0)
        flags = []
        for lane in range(lanes):
            nearest = rounded(m, self.totals[lane], shift, f"lane_{lane}")
            narrow = Signal.like(nearest, name=f"narrow_{lane}", reset_less=True)
            m.d.sync += narrow.eq(nearest)
            if updates:
                difference = self.old[lane] - narrow
                changed = Signal(difference.shape(), name=f"changed_{lane}", reset_less=True)
                m.d.sync += changed.eq(Mux(updating, difference, narrow))
            else:
                changed = Signal.like(narrow, name=f"changed_{lane}", reset_less=True)
                m.d.sync += changed.eq(narrow)
            clamped, flag = saturated_for(m, changed, width, f"lane_{lane}")
            word = Signal(signed(self.width), name=f"word_{lane}", reset_less=True)
            flagged = Signal(name=f"flag_{lane}")
            m.d.sync += [word.eq(Mux(present[lane], clamped, 0)), flagged.eq(flag & present[lane] & working[3])]
            m.d.comb += self.row[lane].eq(word)
            flags.append(flagged)
        written = timing.FULL_STAGES + 1
        m.d.comb += [
            self.write.eq(working[written]),
            self.writes_soon.eq(working[written - 1]),
            self.write_tag.eq(stage[written - timing.ADDRESS]),
            self.write_tag.valid.eq(working[written - timing.ADDRESS]),
        ]

        # Count the flags in a registered tree.
        level, depth = flags, 0
        while len(level) > 1:
            following = []
            for i in range(0, len(level), 2):
                node = Signal(range(2 ** (depth + 1) + 1), name=f"count_{depth}_{i // 2}")
                m.d.sync += node.eq(sum(level[i + 1 : i + 2], level[i]))
                following.append(node)
            level, depth = following, depth + 1
        m.d.comb += [self.clamped.eq(level[0]), self.clamped_kernel.eq(stage[written + depth].kernel)]
        return m
