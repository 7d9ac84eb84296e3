"""The end of the tree: partial sums, rounding, parameter updates, one word a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import saturated_for
from catgrad_hw.gateware.tag import Choice, Delayed, Edge, TagLayout, member
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

    ``total`` is the finished sum; ``tag``, ``tag.valid`` high for one cycle, is two cycles ahead of it. ``partial``
    (the sum of the tiles so far) comes with it, ``old`` (the word to update) :data:`timing.SUM_UPDATE` cycles later,
    ``index`` (of a draw) :attr:`draw_lead` cycles earlier. ``partial_sum`` is written at :data:`timing.PARTIAL_WRITE`
    where ``partial_write`` is high, ``word`` at :data:`timing.SUM_WRITE` where ``write`` is (``writes_soon``: a cycle
    before); ``write_tag`` and
    ``partial_tag`` are two cycles ahead of that.
    ``loaded`` takes the place of ``word`` in the cycle after ``loads``.
    """

    draw_lead = Draw.latency - timing.PARTIAL_WRITE
    """The draw is there with the sum to which it is added."""

    def __init__(self, program: Program, old_bits):
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
                "index": In(32),
                "key": In(32),
                "loads": In(1),
                "loaded": In(signed(word)),
                "partial_sum": Out(signed(bits)),
                "partial_write": Out(1),
                "partial_tag": Out(self.layout),
                "write_tag": Out(self.layout),
                "word": Out(signed(word)),
                "write": Out(1),
                "writes_soon": Out(1),
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
        ahead = timing.ADDRESS
        stage = Delayed(m, self.tag, "stage")
        kernel = self.tag.kernel

        # Add the partial sum of the tiles before; keep it for the tiles to come.
        kept = ahead + timing.PARTIAL_WRITE
        sum_ = Signal(signed(bits), name="sum", reset_less=True)
        complete = Const(1)
        if tiled:
            is_tiled = Signal()
            continues, unfinished = Signal(), Signal()
            m.d.comb += is_tiled.eq(member(m, kernel, tiled, "tiled"))
            m.d.comb += [
                continues.eq(is_tiled & ~self.tag.first_tile),
                unfinished.eq(is_tiled & ~self.tag.last_tile),
            ]
            adds = Delayed(m, continues, "continues", reset_less=True)[ahead]
            m.d.sync += sum_.eq(Mux(adds, self.total + self.partial, self.total))
            complete = ~unfinished
            m.d.comb += self.partial_write.eq(Delayed(m, self.tag.valid & unfinished, "keeps")[kept])
        else:
            m.d.sync += sum_.eq(self.total)
        finishes = Delayed(m, self.tag.valid & complete, "finishes")
        m.d.comb += [self.partial_sum.eq(sum_), self.partial_tag.eq(stage[kept - timing.ADDRESS])]

        # Add half of the last place, or a draw below it; shift.
        shifts = {i: s.narrowing.shift for i, s in kernels.items()}
        drawn = {i: s for i, s in kernels.items() if s.draw is not None}
        draw = Const(0, 16)
        if drawn:
            m.submodules.draw = unit = Draw()
            m.d.comb += [unit.key.eq(self.key), unit.index.eq(self.index)]
            draw = unit.value

        def below(form):
            shift, draws = form
            if not draws:
                return Const((1 << shift) >> 1, bits)
            return draw >> (16 - shift) if shift <= 16 else draw << (shift - 16)

        half = Choice(m, kernel, {i: (max(shift, 0), i in drawn) for i, shift in shifts.items()}, "half", delay=kept)
        near = Signal(signed(bits + 1), reset_less=True)
        m.d.sync += near.eq(sum_ + half.of(below))
        shift = Choice(m, kernel, shifts, "shift", delay=kept + 1)
        result_bits = bits + 1 - min(shifts.values())
        inverse = Signal(signed(result_bits), reset_less=True)  # so the subtraction needs no inverters
        nearest = ~inverse
        m.d.sync += inverse.eq(~shift.of(lambda s: near >> s if s > 0 else near << -s))

        # Update; saturate.
        updated = ahead + timing.SUM_UPDATE
        updates = [i for i, s in kernels.items() if s.update]
        changed = Signal(signed(max(result_bits, len(self.old)) + 1), reset_less=True)
        updating = Delayed(m, member(m, kernel, updates, "updates"), "updates", reset_less=True)[updated]
        m.d.sync += changed.eq(Mux(updating, self.old - nearest, nearest))
        width = Choice(m, kernel, {i: s.narrowing.width for i, s in kernels.items()}, "width", delay=updated + 1)
        clamped, clamps = saturated_for(m, changed, width, "changed")
        of_rows = [i for i, s in kernels.items() if s.source == "row"]
        is_present = member(m, kernel, of_rows, "of_rows") | (self.tag.edge != Edge.EMPTY)
        present = Delayed(m, is_present, "present", reset_less=True)[updated + 1]
        word = Signal.like(self.word, reset_less=True)
        flag = Signal()
        m.d.sync += [
            word.eq(Mux(self.loads, self.loaded, Mux(present, clamped, 0))),
            flag.eq(clamps & present & finishes[updated + 1]),
        ]

        # Write.
        written = ahead + timing.SUM_WRITE
        m.d.comb += [
            self.word.eq(word),
            self.write.eq(finishes[written]),
            self.writes_soon.eq(finishes[written - 1]),
            self.write_tag.eq(stage[written - timing.ADDRESS]),
            self.write_tag.valid.eq(finishes[written - timing.ADDRESS]),
            self.clamped.eq(flag),
            self.clamped_kernel.eq(stage[written].kernel),
        ]
        return m
