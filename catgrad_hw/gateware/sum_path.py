"""The end of the tree: partial sums, rounding, parameter updates, one word a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import saturated_for
from catgrad_hw.gateware.tag import Delayed, Edge, TagLayout, member, table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.program import Program


def feistel_round(m, left, right, name):
    """One keyless Feistel round on 16-bit halves: (right ^ F(left), left)."""
    mixed = Signal(16, name=name)
    m.d.comb += mixed.eq(right ^ ((left.rotate_left(1) & left.rotate_left(8)) ^ left.rotate_left(2)))
    return mixed, left


class Draw(Component):
    """The random number of one parameter and step: 8 Feistel rounds over ``key ^ index``, two a cycle."""

    latency = 4

    def __init__(self):
        super().__init__({"key": In(32), "index": In(32), "value": Out(16)})

    def elaborate(self, platform):
        m = Module()
        mixed = self.key ^ self.index
        left, right = mixed[16:], mixed[:16]
        for cycle in range(self.latency):
            for half in range(2):
                left, right = feistel_round(m, left, right, f"round_{cycle}_{half}")
            state = Signal(32, name=f"state_{cycle}", reset_less=True)
            m.d.sync += state.eq(Cat(right, left))
            left, right = state[16:], state[:16]
        m.d.comb += self.value.eq(left)
        return m


class SumPath(Component):
    """Finishes the tree's sums.

    ``tag`` and ``total`` are those of the finished sum, ``tag.valid`` high for one cycle. ``index`` (the word's among
    its array's, for a draw) arrives one cycle later, ``old`` (the word to update) and ``partial`` (the sum of the tiles
    so far) :data:`timing.WORD_LATENCY` cycles later. ``partial_sum`` is written at :data:`timing.PARTIAL_WRITE` where
    ``partial_write`` is high, ``word`` at :data:`timing.SUM_WRITE` where ``write`` is; ``write_tag`` is one cycle ahead
    of that.
    """

    def __init__(self, program: Program, old_bits, index_bits):
        self.program = program
        self.layout = TagLayout(program)
        self.kernels = {i: k.sum for i, k in enumerate(program.kernels) if k.sum}
        bits = program.sum_accumulator
        word = max(s.narrowing.width for s in self.kernels.values())
        super().__init__(
            {
                "tag": In(self.layout),
                "total": In(signed(bits)),
                "old": In(signed(old_bits)),
                "partial": In(signed(bits)),
                "index": In(index_bits),
                "key": In(32),
                "partial_sum": Out(signed(bits)),
                "partial_write": Out(1),
                "partial_tag": Out(self.layout),
                "write_tag": Out(self.layout),
                "word": Out(signed(word)),
                "write": Out(1),
                "clamped": Out(1),
                "clamped_kernel": Out(self.layout["kernel"].shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        kernels = self.kernels
        bits = program.sum_accumulator
        tiled = [i for i in kernels if program.tiles > 1 and program.kernels[i].sums_samples]
        stage = Delayed(m, self.tag, "stage")
        total = Delayed(m, self.total, "total")

        # Add the partial sum of the tiles before; keep it for the tiles to come.
        read, kept = timing.WORD_LATENCY, timing.PARTIAL_WRITE
        sum_ = Signal(signed(bits), name="sum", reset_less=True)
        begins = stage[read].tile == 0
        is_tiled = member(m, stage[read].kernel, tiled, "is_tiled")
        m.d.sync += sum_.eq(total[read] + Mux(is_tiled & ~begins, self.partial, 0) if tiled else total[read])
        complete = Signal()
        if tiled:
            m.d.comb += complete.eq(
                ~member(m, stage[kept].kernel, tiled, "was_tiled") | (stage[kept].tile == program.tiles - 1)
            )
            m.d.comb += self.partial_write.eq(stage[kept].valid & ~complete)
        else:
            m.d.comb += complete.eq(1)
        m.d.comb += [self.partial_sum.eq(sum_), self.partial_tag.eq(stage[read])]

        # Round, to nearest or by a draw.
        shifts = {i: s.narrowing.shift for i, s in kernels.items()}
        drawn = {i: s for i, s in kernels.items() if s.draw is not None}
        value = Const(0, 16)
        if drawn:
            m.submodules.draw = draw = Draw()
            offset = table(m, stage[1].kernel, {i: s.draw for i, s in drawn.items()}, 32, "draw_offset")
            m.d.comb += [draw.key.eq(self.key), draw.index.eq(self.index + offset)]
            value = Delayed(m, draw.value, "draw")[kept - 1 - Draw.latency]
        kernel = stage[kept].kernel
        half = Signal(bits, name="half")
        result_bits = bits + 1 - min(0, *shifts.values(), 0)
        nearest = Signal(signed(result_bits), reset_less=True)
        for shift, stochastic in sorted({(shifts[i], i in drawn) for i in kernels}):
            members = [i for i in kernels if (shifts[i], i in drawn) == (shift, stochastic)]
            with m.If(member(m, kernel, members, f"rounds_{shift % 256}_{int(stochastic)}")):
                if shift > 0:
                    if stochastic:
                        m.d.comb += half.eq(value >> (16 - shift) if shift <= 16 else value << (shift - 16))
                    else:
                        m.d.comb += half.eq(1 << (shift - 1))
                    m.d.sync += nearest.eq((sum_ + half) >> shift)
                else:
                    m.d.sync += nearest.eq(sum_ << -shift)

        # Update; saturate.
        updates = [i for i, s in kernels.items() if s.update]
        old = Delayed(m, self.old, "old")[kept + 1 - read]
        changed = Signal(signed(max(result_bits, len(self.old)) + 1), reset_less=True)
        m.d.sync += changed.eq(Mux(member(m, stage[kept + 1].kernel, updates, "updates"), old - nearest, nearest))
        is_complete = Delayed(m, complete, "complete")
        widths = {i: s.narrowing.width for i, s in kernels.items()}
        clamped, clamps = saturated_for(m, changed, widths, stage[kept + 2].kernel, "changed")
        word = Signal.like(self.word, reset_less=True)
        flag = Signal()
        of_rows = [i for i, s in kernels.items() if s.source == "row"]
        is_row = member(m, stage[kept + 2].kernel, of_rows, "is_of_rows")
        present = is_row | (stage[kept + 2].edge != Edge.EMPTY)
        m.d.sync += [
            word.eq(Mux(present, clamped, 0)),
            flag.eq(clamps & present & stage[kept + 2].valid & is_complete[2]),
        ]

        # Write.
        m.d.comb += [
            self.word.eq(word),
            self.write.eq(stage[timing.SUM_WRITE].valid & is_complete[3]),
            self.write_tag.eq(stage[timing.SUM_WRITE - 1]),
            self.write_tag.valid.eq(stage[timing.SUM_WRITE - 1].valid),
            self.clamped.eq(flag),
            self.clamped_kernel.eq(stage[timing.SUM_WRITE].kernel),
        ]
        return m
