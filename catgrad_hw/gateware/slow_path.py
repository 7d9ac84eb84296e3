"""The slow path: E words a cycle, combined with others, rounded, masked, looked up, and subtracted from."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import narrowed, rounded, saturated_for
from catgrad_hw.gateware.combine import (
    BoostedShift,
    added,
    boosted_shifts,
    condition_operands,
    kinds_of,
    other_operands,
)
from catgrad_hw.gateware.tag import Choice, Delayed, Edge, TagLayout, bits_for, counts, member, partial_lanes, table
from catgrad_hw.gateware.units import UnitRead
from catgrad_hw.numbers.tables import Table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.memory import table_bits
from catgrad_hw.schedule.program import Program


class TableRead(Component):
    """Functions of a word, read from tables that are indexed alike: three cycles after ``z``, each ``value_<i>`` awaits
    a register.

    The index is registered, the memories have a register, and one more follows it; the symmetry is applied after that,
    in ``value_<i>``, without a register.
    """

    latency = timing.TABLE_STAGES - 1

    def __init__(self, functions: list[Table]):
        self.functions = functions
        (self.index,) = {TableRead.indexing(function) for function in functions}
        super().__init__(
            {
                "z": In(signed(functions[0].input_width)),
                **{f"value_{i}": Out(signed(f.output_width)) for i, f in enumerate(functions)},
            }
        )

    @staticmethod
    def indexing(function: Table):
        """Equal for tables that are indexed alike."""
        return function.input_width, function.index_shift, len(function.entries)

    def elaborate(self, platform):
        m = Module()
        width, shift, size = self.index
        half = (1 << shift) >> 1
        negative = self.z[-1]
        magnitude = Signal(width)  # |z| + half: never more than 2**(width - 1) + half
        m.d.comb += magnitude.eq(Mux(negative, ~self.z, self.z).as_unsigned() + (half + negative))
        index = Signal(range(size))
        position = magnitude >> shift
        m.d.sync += index.eq(Mux(position >= size, size - 1, position))
        sign = Delayed(m, negative, "negative", reset_less=True)[self.latency]
        for number, f in enumerate(self.functions):
            contents = MemoryData(shape=table_bits(f), depth=size, init=f.entries)
            m.submodules[f.name] = memory = Memory(contents, attrs={"ram_style": "block"})
            port = memory.read_port()
            entry = Signal(table_bits(f), name=f"entry_{number}", reset_less=True)
            m.d.comb += port.addr.eq(index)
            m.d.sync += entry.eq(port.data)
            value = Mux(sign, f.one - entry, entry) if f.symmetry == "complement" else entry
            m.d.comb += getattr(self, f"value_{number}").eq(value)
        return m


class SlowPath(Component):
    """Captures a row of accumulators and treats ``slow_words`` of them in each of the following beats, or captures a
    finished sum of the tree and treats that. A word of a beat treats neighbouring lanes, one after the other.

    ``totals`` are the accumulators at :data:`timing.ACCUMULATOR`, ``tag`` is the pipeline's a cycle before; so is
    ``sum_tag`` (``valid`` where a sum is finished) a cycle before ``sum_total``, the tree's. What is combined with
    them comes as a row or a word for a row, or as a word for a sum, in the cycle before it is used: ``bias_*`` (added
    or subtracted) and ``condition_*`` (a bit each: the word is 0, or not boosted, where it is low) with the capture,
    ``other_*`` (subtracted from the result) before the first beat reaches :attr:`Timing.subtract_stage`.

    Each of ``writes`` outputs a row in which the beat's words are repeated. A cycle before, ``row_enables`` are the
    beat's lanes, ``word_enables`` say that it is a single word, the same in all lanes, and ``writing`` is high for
    both; ``writes_soon``, two cycles before. ``write_tag`` describes the write two cycles ahead, with ``first`` on the
    first beat and the level that advanced in ``row_level``. Latency from capture to write: :attr:`Timing.slow_stages`.
    In the cycle after ``loads``, the row of that write is of words ``loaded``.

    ``z_clamped`` and ``difference_clamped`` count clamped words, for the kernels ``z_kernel``, ``difference_kernel``.
    """

    def __init__(self, program: Program, bias_bits):
        self.program = program
        self.layout = TagLayout(program)
        lanes, words = program.lanes, program.slow_words
        self.kernels = {i: k.slow for i, k in enumerate(program.kernels) if k.slow}
        self.writes = max(len(slow.writes) for slow in self.kernels.values())
        kernel = self.layout["kernel"].shape
        width = program.multiplier
        super().__init__(
            {
                "tag": In(self.layout),
                "totals": In(data.ArrayLayout(signed(program.accumulator), lanes)),
                "sum_tag": In(self.layout),
                "sum_total": In(signed(program.sum_accumulator)),
                "bias_rows": In(data.ArrayLayout(signed(bias_bits), lanes)),
                "bias_word": In(signed(bias_bits)),
                "bias_sum": In(signed(bias_bits)),
                "condition_rows": In(data.ArrayLayout(signed(1), lanes)),
                "condition_word": In(signed(1)),
                "condition_sum": In(signed(1)),
                "other_rows": In(data.ArrayLayout(signed(width), lanes)),
                "other_word": In(signed(width)),
                "other_sum": In(signed(width)),
                "loads": In(self.writes),
                "loaded": In(signed(width)),
                "write_tag": Out(self.layout),
                "rows": Out(data.ArrayLayout(data.ArrayLayout(signed(width), lanes), self.writes)),
                "row_enables": Out(data.ArrayLayout(lanes, self.writes)),
                "word_enables": Out(self.writes),
                "writing": Out(self.writes),
                "writes_soon": Out(self.writes),
                "z_clamped": Out(range(words + 1)),
                "z_kernel": Out(kernel),
                "difference_clamped": Out(range(words + 1)),
                "difference_kernel": Out(kernel),
            }
        )

    def _follower(self, m, name, streams, bits, load, kernel, delay):
        """Words for the beats: taken where ``load`` is high, from the source that the kernel uses, ``delay`` cycles
        after ``kernel``, then one beat's words after the other's. ``streams`` maps kernels to operands.

        Returns the words for the current beat.
        """
        program = self.program
        rows, word, total = (getattr(self, f"{name}_{source}") for source in ("rows", "word", "sum"))
        sources = {
            i: 2 if self.kernels[i].reduced is not None else int(not operand.row) for i, operand in streams.items()
        }
        source = Choice(m, kernel, sources, f"{name}_source", delay)
        count = program.slow_words
        if 0 not in source.values:
            held = Signal(signed(bits), name=f"{name}_held", reset_less=True)
            with m.If(load):
                m.d.sync += held.eq(source.of([(rows, word, total)[s] for s in source.values]))
            return [held] * count
        pending = [Signal(signed(bits), name=f"{name}_pending_{i}", reset_less=True) for i in range(program.lanes)]
        with m.If(load):
            for lane in range(program.lanes):
                places = rows[lane], word, total if lane == 0 else rows[lane]  # a sum is lane 0's alone
                m.d.sync += pending[lane].eq(source.of([places[s] for s in source.values]))
        with m.Else():
            m.d.sync += self._next_beat(pending)
        return pending[:: program.beats]

    def _next_beat(self, lanes):
        """Moves what is kept for the lanes of each word on by one."""
        beats = self.program.beats
        return [lanes[i].eq(lanes[i + 1] if i + 1 < len(lanes) and (i + 1) % beats else 0) for i in range(len(lanes))]

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes, words, width = program.lanes, program.slow_words, program.multiplier
        beats = program.beats
        slow = self.kernels
        of_sums = [i for i, s in slow.items() if s.reduced is not None]
        of_rows = [i for i, s in slow.items() if s.reduced is None]
        subtract_stage, slow_stages = program.timing.subtract_stage, program.timing.slow_stages
        bits = max(([program.accumulator] if of_rows else []) + ([program.sum_accumulator] if of_sums else []))

        # Capture, then one beat a cycle. A cycle ahead of the sums:
        ahead = Signal(self.layout)
        row_captures = self.tag.valid & self.tag.last & member(m, self.tag.kernel, of_rows, "is_row")
        sum_captures = self.sum_tag.valid & member(m, self.sum_tag.kernel, of_sums, "is_sum")
        m.d.comb += ahead.eq(self.tag)
        with m.If(sum_captures):
            m.d.comb += [ahead.eq(self.sum_tag), ahead.row_level.eq(self.sum_tag.sum_level)]
        source = Signal(self.layout)
        capture, sum_capture = Signal(), Signal()
        m.d.sync += [source.eq(ahead), capture.eq(row_captures | sum_captures), sum_capture.eq(sum_captures)]

        meta = data.StructLayout({"tag": self.layout, "active": 1, "beat": bits_for(beats), "present": words})
        entering = Signal(meta)
        row = [Signal(signed(bits), name=f"row_{lane}", reset_less=True) for lane in range(lanes)]
        present = [Signal(name=f"present_{lane}") for lane in range(lanes)]
        single = Signal()
        partial = {i: (1 << partial_lanes(program, program.kernels[i])) - 1 for i in slow}
        with m.If(capture):
            for lane in range(lanes if of_rows else 0):
                m.d.sync += row[lane].eq(self.totals[lane])
            with m.If(sum_capture):
                m.d.sync += row[0].eq(self.sum_total)
            m.d.sync += [entering.tag.eq(source), single.eq(sum_capture)]
            m.d.sync += [entering.tag.first.eq(1), entering.active.eq(1), entering.beat.eq(0)]
            with m.Switch(source.edge):
                with m.Case(Edge.FULL):
                    m.d.sync += Cat(present).eq((1 << lanes) - 1)
                with m.Case(Edge.PARTIAL):
                    m.d.sync += Cat(present).eq(table(m, source.kernel, partial, lanes, "partial"))
                with m.Default():
                    m.d.sync += Cat(present).eq(0)
            with m.If(sum_capture):
                m.d.sync += Cat(present).eq(source.edge != Edge.EMPTY)
        with m.Else():
            m.d.sync += [self._next_beat(row), self._next_beat(present)]
            m.d.sync += [entering.tag.first.eq(0), entering.beat.eq(entering.beat + 1)]
            with m.If((entering.beat == beats - 1) | single):
                m.d.sync += entering.active.eq(0)
        first_beat = Signal(meta)
        m.d.comb += [first_beat.eq(entering), first_beat.present.eq(Cat(present[::beats]))]
        stage = Delayed(m, first_beat, "beat")
        kernel = entering.tag.kernel  # at stage 0; what a later one needs of it is decoded there

        combinations = {i: s.combination for i, s in slow.items()}
        biases_of, conditions_of = other_operands(combinations), condition_operands(combinations)
        biases, conditions = [Const(0, signed(1))] * words, []
        if biases_of:
            biases = self._follower(m, "bias", biases_of, len(self.bias_word), capture, ahead.kernel, 1)
        kinds = Choice(m, source.kernel, kinds_of(combinations), "kinds", load=capture)
        # A word is 0 where its condition does not hold, or where it would be negative and is rectified.
        masked = rectified = Const(0)
        masks = [i for i in conditions_of if not combinations[i].boost]
        if conditions_of:
            conditions = self._follower(m, "condition", conditions_of, 1, capture, ahead.kernel, 1)
        if masks:
            masked = Delayed(m, member(m, kernel, masks, "masks"), "masks", reset_less=True)[2]
        rectifies = [i for i, c in combinations.items() if c.rectified and not c.boost]
        if rectifies:
            rectified = Delayed(m, member(m, kernel, rectifies, "rectifies"), "rectifies", reset_less=True)[2]
        subtractions = {i: s.writes[0].subtraction for i, s in slow.items() if s.writes[0].subtraction}
        others, subtracting = [], Const(0)
        if subtractions:
            before = stage[subtract_stage - 1]
            streams = {i: s.other for i, s in subtractions.items()}
            load = before.active & before.tag.first
            others = self._follower(m, "other", streams, width, load, kernel, subtract_stage - 1)
            difference_shift = Choice(
                m,
                kernel,
                {i: (s.value_shift, s.other_shift) for i, s in subtractions.items()},
                "difference_shift",
                delay=subtract_stage,
            )
            narrowings = {i: s.narrowing for i, s in subtractions.items()}
            after = subtract_stage + 1
            rounding = Choice(m, kernel, {i: n.shift for i, n in narrowings.items()}, "difference_rounding", after)
            bound = Choice(m, kernel, {i: n.width for i, n in narrowings.items()}, "difference_width", after)
            still = counts(m, program, entering.tag, subtractions, "still", after)
            subtracts = Delayed(m, member(m, kernel, subtractions, "subtracts"), "subtracts", reset_less=True)
            subtracting, subtracts = subtracts[after - 1], subtracts[after]
        shifts = {i: s.narrowing.shift for i, s in slow.items()}
        z_shift = Choice(m, kernel, boosted_shifts(shifts, combinations), "z_shift")
        z_width = Choice(m, kernel, {i: s.narrowing.width for i, s in slow.items()}, "z_width", delay=2)
        functions = sorted({w.function for s in slow.values() for w in s.writes if w.function})
        groups = {}
        for name in functions:
            function = program.functions[name]
            key = TableRead.indexing(function) if isinstance(function, Table) else name
            groups.setdefault(key, []).append(name)
        waits = program.timing.function_stages - 1  # from z to the choice of a result
        functions_of = [
            Choice(
                m,
                kernel,
                {i: str(s.writes[number].function) for i, s in slow.items() if len(s.writes) > number},
                f"function_{number}",
                delay=subtract_stage - 1,
            )
            for number in range(self.writes)
        ]

        writes_to = []
        for number in range(self.writes):
            writers = [i for i, s in slow.items() if len(s.writes) > number]
            writes_to.append(Delayed(m, member(m, kernel, writers, f"writes_{number}"), f"writes_{number}"))

        once = counts(m, program, entering.tag, slow, "once", 2)
        z_flags, difference_flags, finished = [], [], []
        for word in range(words):
            total = row[word * beats]
            # 0: combine
            value = added(m, total, biases[word], kinds, f"combine_{word}")
            biased = Signal(signed(len(value)), name=f"biased_{word}", reset_less=True)
            m.d.sync += biased.eq(value)
            # 1, 2: round; saturate and mask
            condition = [Const(1)] * 3
            if conditions:
                condition = Delayed(m, conditions[word][0], f"condition_{word}", reset_less=True)
            nearest = rounded(m, biased, BoostedShift(z_shift, biased, condition[1]), f"z_{word}")
            narrow = Signal.like(nearest, name=f"narrow_{word}", reset_less=True)
            m.d.sync += narrow.eq(nearest)
            clamped, flag = saturated_for(m, narrow, z_width, f"z_{word}")
            cleared = rectified & narrow[-1]
            if masks:
                cleared |= masked & ~condition[2]
            z = Signal(signed(max(z_width.values)), name=f"z_{word}", reset_less=True)
            z_flag = Signal(name=f"z_flag_{word}")
            counted = stage[2].present[word] & stage[2].active & once
            if masks or rectifies:
                clamped, counted = Mux(cleared, 0, clamped), counted & ~cleared
            m.d.sync += [z.eq(clamped), z_flag.eq(flag & counted)]
            z_flags.append(z_flag)
            # from 3: the function (index, table, register, symmetry; a unit takes longer)
            values = {"None": Delayed(m, z, f"z_{word}", reset_less=True)[waits]}
            for number, names in enumerate(groups.values()):
                found = [program.functions[name] for name in names]
                reader = TableRead(found) if isinstance(found[0], Table) else UnitRead(found[0])
                m.submodules[f"table_{number}_{word}"] = reader
                m.d.comb += reader.z.eq(z)
                for i, name in enumerate(names):
                    late = Delayed(m, getattr(reader, f"value_{i}"), f"late_{name}_{word}", reset_less=True)
                    values[name] = late[waits - reader.latency]
            results = []
            for number, function in enumerate(functions_of):
                value = Signal(signed(width), name=f"value_{number}_{word}", reset_less=True)
                m.d.sync += value.eq(function.of(lambda name, values=values: values[name]))
                results.append(value)
            # then subtract, round, saturate; of what may be written, all but one is 0
            outputs = [Signal(signed(width), name=f"output_{n}_{word}", reset_less=True) for n in range(self.writes)]
            present = stage[subtract_stage + 1].present[word] & stage[subtract_stage + 1].active
            passes = stage[subtract_stage].present[word] & stage[subtract_stage].active
            passed = []
            for number, value in enumerate(results):
                kept = Signal.like(value, name=f"passed_{number}_{word}", reset_less=True)
                is_kept = passes & ~subtracting if number == 0 else passes & writes_to[number][subtract_stage]
                m.d.sync += kept.eq(Mux(is_kept, value, 0))
                passed.append(kept)
            if subtractions:
                difference_bits = 2 + width + max(max(shifts) for shifts in difference_shift.values)
                difference = Signal(signed(difference_bits), name=f"difference_{word}", reset_less=True)
                value, other = (
                    difference_shift.of(lambda shifts, side=side, word=operand: word << shifts[side])
                    for side, operand in enumerate((results[0], others[word]))
                )
                m.d.sync += difference.eq(value - other)
                clamped, flag = narrowed(m, difference, rounding, bound, f"difference_{word}")
                difference_flag = Signal(name=f"difference_flag_{word}")
                m.d.sync += difference_flag.eq(flag & subtracts & present & still)
                difference_flags.append(difference_flag)
            for number, output in enumerate(outputs):
                value = passed[number] | Mux(self.loads[number], self.loaded, 0)
                if number == 0 and subtractions:
                    value |= Mux(subtracts & present, clamped, 0)
                m.d.sync += output.eq(value)
            finished.append(outputs)

        # write
        last = stage[slow_stages - 1]
        is_single = Delayed(m, member(m, kernel, of_sums, "writes_sum"), "writes_sum", reset_less=True)
        for number in range(self.writes):
            enable = last.active & writes_to[number][slow_stages - 1]
            single = is_single[slow_stages - 1]
            soon = stage[slow_stages - 2].active & writes_to[number][slow_stages - 2]
            m.d.comb += self.writes_soon[number].eq(soon)
            m.d.comb += [self.writing[number].eq(enable), self.word_enables[number].eq(enable & single)]
            for lane in range(lanes):
                of_beat = finished[lane // beats][number]
                if of_sums:
                    of_beat = Mux(is_single[slow_stages], finished[0][number], of_beat)
                m.d.comb += self.rows[number][lane].eq(of_beat)
                m.d.comb += self.row_enables[number][lane].eq(enable & ~single & (last.beat == lane % beats))
        before = stage[slow_stages - timing.ADDRESS]
        m.d.comb += [self.write_tag.eq(before.tag), self.write_tag.valid.eq(before.active)]
        m.d.sync += [
            self.z_clamped.eq(sum(z_flags)),
            self.z_kernel.eq(stage[3].tag.kernel),
            self.difference_clamped.eq(sum(difference_flags) if difference_flags else Const(0)),
            self.difference_kernel.eq(stage[slow_stages].tag.kernel),
        ]
        return m
