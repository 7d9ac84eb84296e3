"""The end of the tree: partial sums, rounding, parameter updates, one word a cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import alike, bounded
from catgrad_hw.gateware.combine import added, kinds_of
from catgrad_hw.gateware.tag import Choice, Delayed, Edge, TagLayout, counts, member
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
    (the sum of the tiles so far) comes with it, ``other`` (the word that is added to the sum over all tiles)
    :data:`timing.PARTIAL_WRITE` cycles later, ``old`` (the word to update) :attr:`Timing.sum_update` cycles later,
    ``indices`` (of the draw of each write) :attr:`draw_lead` cycles before what is drawn is added. ``partial_sum`` is
    to be written at :data:`timing.PARTIAL_WRITE`, ``words`` at :attr:`Timing.sum_write`, two cycles after
    ``partial_tag`` and ``write_tag`` are valid; of the words that are written then, ``writes_soon`` has a bit for each.
    ``loaded`` takes the place of the first word in the cycle after ``loads``.
    """

    @staticmethod
    def draw_lead(program: Program):
        """Cycles before the sum at which indices come: the draw is there with the value to which it is added."""
        return Draw.latency - timing.PARTIAL_WRITE - program.timing.sum_combines

    def __init__(self, program: Program, word_bits):
        self.program = program
        self.layout = TagLayout(program)
        self.kernels = {i: k.sum for i, k in enumerate(program.kernels) if k.sum}
        self.writes = max(len(s.writes) for s in self.kernels.values())
        bits = program.sum_accumulator
        word = max(finish.narrowing.width for s in self.kernels.values() for finish in s.writes)
        super().__init__(
            {
                "tag": In(self.layout),
                "total": In(signed(bits)),
                "old": In(signed(word_bits)),
                "other": In(signed(word_bits)),
                "partial": In(signed(bits)),
                "indices": In(data.ArrayLayout(32, self.writes)),
                "key": In(32),
                "loads": In(1),
                "loaded": In(signed(word)),
                "partial_sum": Out(signed(bits)),
                "partial_tag": Out(self.layout),
                "write_tag": Out(self.layout),
                "words": Out(data.ArrayLayout(signed(word), self.writes)),
                "writes_soon": Out(self.writes),
                "clamped": Out(self.writes),
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
            keeps = Delayed(m, self.tag.valid & unfinished, "keeps")[kept - timing.ADDRESS]
            m.d.comb += [self.partial_tag.eq(stage[kept - timing.ADDRESS]), self.partial_tag.valid.eq(keeps)]
        else:
            m.d.sync += sum_.eq(self.total)
        finishes = Delayed(m, self.tag.valid & complete, "finishes")
        m.d.comb += self.partial_sum.eq(sum_)

        # Combine.
        value = sum_
        if program.timing.sum_combines:
            kinds = Choice(m, kernel, kinds_of({i: s.combination for i, s in kernels.items()}), "kinds", delay=kept)
            together = added(m, sum_, self.other, kinds, "combine")
            value = Signal(signed(len(together)), name="combined", reset_less=True)
            m.d.sync += value.eq(together)
            kept += 1

        written = ahead + program.timing.sum_write
        for number in range(self.writes):
            of_kernels = {i: s.writes[number] for i, s in kernels.items() if len(s.writes) > number}
            word, flag = self._finish(m, number, of_kernels, value, kept, stage, finishes)
            writes = {cycle: Const(1) for cycle in (written - timing.ADDRESS, written)}
            if len(of_kernels) < len(kernels):
                writes = Delayed(m, member(m, kernel, of_kernels, f"has_{number}"), f"has_{number}", reset_less=True)
            m.d.comb += [
                self.words[number].eq(word),
                self.writes_soon[number].eq(finishes[written - timing.ADDRESS] & writes[written - timing.ADDRESS]),
                self.clamped[number].eq(flag & writes[written]),
            ]
        m.d.comb += [
            self.write_tag.eq(stage[written - timing.ADDRESS]),
            self.write_tag.valid.eq(finishes[written - timing.ADDRESS]),
            self.clamped_kernel.eq(stage[written].kernel),
        ]
        return m

    def _finish(self, m, number, finishes_of, value, kept, stage, finishes):
        """One write of ``value``, which is there ``kept`` cycles after the tag: (the word, whether it was clamped)."""
        kernel = self.tag.kernel
        bits = len(value)
        # Add half of the last place, or a draw below it; shift.
        shifts = {i: f.narrowing.shift for i, f in finishes_of.items()}
        drawn = {i for i, f in finishes_of.items() if f.draw is not None}
        draw = Const(0, 16)
        if drawn:
            m.submodules[f"draw_{number}"] = unit = Draw()
            m.d.comb += [unit.key.eq(self.key), unit.index.eq(self.indices[number])]
            draw = unit.value

        def below(form):
            shift, draws = form
            if not draws:
                return Const((1 << shift) >> 1)
            return draw >> (16 - shift) if shift <= 16 else draw << (shift - 16)

        halves = {i: (max(shift, 0), i in drawn) for i, shift in shifts.items()}
        half = Choice(m, kernel, halves, f"half_{number}", delay=kept)
        near_bits = max(bits, *(shift + 1 for shift in shifts.values())) + 1  # a shift may go beyond the value
        near = Signal(signed(near_bits), name=f"near_{number}", reset_less=True)
        m.d.sync += near.eq(value + half.of(below))
        shift = Choice(m, kernel, shifts, f"shift_{number}", delay=kept + 1)
        result_bits = near_bits - min(shifts.values())
        # inverted, so the subtraction needs no inverters
        inverse = Signal(signed(result_bits), name=f"inverse_{number}", reset_less=True)
        nearest = ~inverse
        m.d.sync += inverse.eq(~shift.of(lambda s: near >> s if s > 0 else near << -s))

        # Update; saturate. What is subtracted from is a word: a value twice as far from 0 as any stays out of their
        # reach, and without an update, what is out of reach is so already. Of that, its side is enough.
        updated = kept + 2
        forms = {i: (f.narrowing.width, f.update) for i, f in finishes_of.items()}
        form = Choice(m, kernel, forms, f"form_{number}", delay=updated)
        reached_bits = min(result_bits, max(width + updates for width, updates in form.values))
        changed_bits = max(reached_bits, *(width * updates for width, updates in form.values)) + 1
        changed = Signal(signed(changed_bits), name=f"changed_{number}", reset_less=True)
        reached = nearest[:reached_bits].as_signed()
        updating = form.of(lambda form: Const(form[1]))
        m.d.sync += changed.eq(Mux(updating, self.old - reached, reached))
        far, below = (Signal(name=f"{name}_{number}", reset_less=True) for name in ("far", "below"))
        m.d.sync += [
            far.eq(form.of(lambda form: ~alike(inverse[min(form[0] - (not form[1]), result_bits - 1) :]))),
            below.eq(~(inverse[-1] ^ updating)),
        ]
        form = Choice(m, kernel, forms, f"form_{number}", delay=updated + 1)
        clamps = far | form.of(lambda form: ~alike(changed[form[0] - 1 :]) if form[1] else Const(0))
        width = Choice(m, kernel, {i: width for i, (width, _) in forms.items()}, f"width_{number}", delay=updated + 1)
        clamped = bounded(m, changed, width, clamps, Mux(far, below, changed[-1]), f"changed_{number}")
        of_rows = [i for i in finishes_of if self.kernels[i].source == "row"]
        is_present = member(m, kernel, of_rows, f"of_rows_{number}") | (self.tag.edge != Edge.EMPTY)
        present = Delayed(m, is_present, f"present_{number}", reset_less=True)[updated + 1]
        counted = counts(m, self.program, self.tag, finishes_of, f"counted_{number}", updated + 1)
        word = Signal(signed(len(self.loaded)), name=f"word_{number}", reset_less=True)
        flag = Signal(name=f"flag_{number}")
        result = Mux(present, clamped, 0)
        m.d.sync += [
            word.eq(Mux(self.loads, self.loaded, result) if number == 0 else result),
            flag.eq(clamps & present & counted & finishes[updated + 1]),
        ]
        return word, flag
