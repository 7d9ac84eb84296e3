"""The full-width path: every lane's accumulator narrowed and written in one cycle."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import rounded, saturated_for
from catgrad_hw.gateware.tag import Delayed, Edge, TagLayout, member
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.program import Program


class FullPath(Component):
    """``tag`` and ``totals`` are the pipeline's at :data:`timing.ACCUMULATOR`; the row is written two cycles later.

    ``write_tag`` is one cycle ahead of ``row``; ``write`` enables all lanes. Lanes without a sample write 0.
    ``clamped`` counts clamped words, for kernel ``clamped_kernel``, with the latency of an adder tree.
    """

    latency = timing.FULL_WRITE - timing.ACCUMULATOR

    def __init__(self, program: Program):
        self.program = program
        self.layout = TagLayout(program)
        self.kernels = {i: k.full for i, k in enumerate(program.kernels) if k.full}
        lanes = program.lanes
        super().__init__(
            {
                "tag": In(self.layout),
                "totals": In(data.ArrayLayout(signed(program.accumulator), lanes)),
                "write_tag": Out(self.layout),
                "row": Out(data.ArrayLayout(signed(program.multiplier), lanes)),
                "write": Out(1),
                "clamped": Out(range(lanes + 1)),
                "clamped_kernel": Out(self.layout["kernel"].shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes = program.lanes
        stage = Delayed(m, self.tag, "stage")
        tail = (program.batch - (program.tiles - 1) * program.tile) % lanes
        shifts = {i: full.narrowing.shift for i, full in self.kernels.items()}
        widths = {i: full.narrowing.width for i, full in self.kernels.items()}
        width = max(widths.values())
        working = [Signal(name=f"working_{n}") for n in range(3)]
        m.d.comb += working[0].eq(self.tag.valid & self.tag.last & member(m, self.tag.kernel, shifts, "is_full"))
        m.d.sync += [working[1].eq(working[0]), working[2].eq(working[1])]
        flags = []
        for lane in range(lanes):
            nearest = rounded(m, self.totals[lane], shifts, self.tag.kernel, f"lane_{lane}")
            narrow = Signal.like(nearest, name=f"narrow_{lane}", reset_less=True)
            m.d.sync += narrow.eq(nearest)
            clamped, flag = saturated_for(m, narrow, widths, stage[1].kernel, f"lane_{lane}")
            edge = stage[1].edge
            present = (edge == Edge.FULL) | ((edge == Edge.PARTIAL) if lane < tail else 0)
            word = Signal(signed(width), name=f"word_{lane}", reset_less=True)
            flagged = Signal(name=f"flag_{lane}")
            m.d.sync += [word.eq(Mux(present, clamped, 0)), flagged.eq(flag & present & working[1])]
            m.d.comb += self.row[lane].eq(word)
            flags.append(flagged)
        m.d.comb += [self.write.eq(working[2]), self.write_tag.eq(stage[1]), self.write_tag.valid.eq(working[1])]

        # Count the flags in a registered tree.
        level, depth = flags, 0
        while len(level) > 1:
            following = []
            for i in range(0, len(level), 2):
                node = Signal(range(2 ** (depth + 1) + 1), name=f"count_{depth}_{i // 2}")
                m.d.sync += node.eq(sum(level[i + 1 : i + 2], level[i]))
                following.append(node)
            level, depth = following, depth + 1
        m.d.comb += [self.clamped.eq(level[0]), self.clamped_kernel.eq(stage[2 + depth].kernel)]
        return m
