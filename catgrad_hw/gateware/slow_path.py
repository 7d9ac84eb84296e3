"""The slow path: E words a cycle of bias, rounding, table functions and subtraction."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.arithmetic import rounded, saturated_for
from catgrad_hw.gateware.tag import Delayed, Edge, TagLayout, bits_for, member, partial_lanes, table
from catgrad_hw.numbers.tables import Table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.memory import table_bits
from catgrad_hw.schedule.program import Program


class TableRead(Component):
    """One function of a word, read from a table: three cycles after ``z``, ``value`` awaits a register.

    The index is registered, the memory has a register, and one more follows it; the symmetry is applied after that,
    in ``value``, without a register.
    """

    latency = 3

    def __init__(self, function: Table):
        self.function = function
        super().__init__({"z": In(signed(function.input_width)), "value": Out(signed(function.output_width))})

    def elaborate(self, platform):
        m = Module()
        f = self.function
        size = len(f.entries)
        half = (1 << f.index_shift) >> 1
        negative = self.z[-1]
        magnitude = Signal(f.input_width)  # |z| + half: never more than 2**(input_width - 1) + half
        m.d.comb += magnitude.eq(Mux(negative, ~self.z, self.z).as_unsigned() + (half + negative))
        index = Signal(range(size))
        position = magnitude >> f.index_shift
        m.d.sync += index.eq(Mux(position >= size, size - 1, position))
        contents = MemoryData(shape=table_bits(f), depth=size, init=f.entries)
        m.submodules.memory = memory = Memory(contents, attrs={"ram_style": "block"})
        port = memory.read_port()
        entry = Signal(table_bits(f), reset_less=True)
        m.d.comb += port.addr.eq(index)
        m.d.sync += entry.eq(port.data)
        sign = Delayed(m, negative, "negative")[self.latency]
        if f.symmetry == "complement":
            m.d.comb += self.value.eq(Mux(sign, f.one - entry, entry))
        else:
            m.d.comb += self.value.eq(entry)
        return m


class SlowPath(Component):
    """Captures a row of accumulators and treats ``slow_words`` of them in each of the following beats, or captures a
    finished sum of the tree and treats that.

    ``tag`` and ``totals`` are the pipeline's at :data:`timing.ACCUMULATOR`; ``sum_tag`` (``valid`` where a sum is
    finished) and ``sum_total`` the tree's. What is added and subtracted comes as a row or a word for a row, or as a
    word for a sum, in the cycle before it is used: ``bias_*`` with the capture, ``other_*`` before the first beat
    reaches :data:`timing.SUBTRACT_STAGE`.

    Each of ``writes`` outputs a row in which the beat's words are repeated; ``row_enables`` are the beat's lanes,
    ``word_enables`` say that it is a single word, the same in all lanes. ``write_tag`` describes the write one cycle
    ahead, with ``first`` on the first beat and the level that advanced in ``row_level``. Latency from capture to
    write: :data:`timing.SLOW_STAGES`.

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
                "other_rows": In(data.ArrayLayout(signed(width), lanes)),
                "other_word": In(signed(width)),
                "other_sum": In(signed(width)),
                "write_tag": Out(self.layout),
                "rows": Out(data.ArrayLayout(data.ArrayLayout(signed(width), lanes), self.writes)),
                "row_enables": Out(data.ArrayLayout(lanes, self.writes)),
                "word_enables": Out(self.writes),
                "z_clamped": Out(range(words + 1)),
                "z_kernel": Out(kernel),
                "difference_clamped": Out(range(words + 1)),
                "difference_kernel": Out(kernel),
            }
        )

    def _follower(self, m, name, streams, bits, load, kernel):
        """Words for the beats: taken where ``load`` is high, from the source that ``kernel`` uses, then one beat's
        words after the other's. ``streams`` maps kernels to operands.

        Returns the words for the current beat.
        """
        program = self.program
        rows, word, total = (getattr(self, f"{name}_{source}") for source in ("rows", "word", "sum"))
        sums = [i for i in streams if self.kernels[i].reduced is not None]
        of_rows = [i for i, operand in streams.items() if operand.row]
        count = program.slow_words
        single = Mux(member(m, kernel, sums, f"{name}_of_sum"), total, word) if sums else word
        if not of_rows:
            held = Signal(signed(bits), name=f"{name}_held", reset_less=True)
            with m.If(load):
                m.d.sync += held.eq(single)
            return [held] * count
        pending = Signal(program.beats * count * bits, name=f"{name}_pending", reset_less=True)
        is_row = member(m, kernel, of_rows, f"{name}_of_row")
        with m.If(load):
            for lane in range(program.lanes):
                m.d.sync += pending[lane * bits : (lane + 1) * bits].eq(Mux(is_row, rows[lane], single))
        with m.Else():
            m.d.sync += pending.eq(pending >> (count * bits))
        return [pending[i * bits : (i + 1) * bits].as_signed() for i in range(count)]

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes, words, width = program.lanes, program.slow_words, program.multiplier
        beats = program.beats
        slow = self.kernels
        of_sums = [i for i, s in slow.items() if s.reduced is not None]
        of_rows = [i for i, s in slow.items() if s.reduced is None]
        bits = max(([program.accumulator] if of_rows else []) + ([program.sum_accumulator] if of_sums else []))

        # Capture, then one beat a cycle.
        meta = data.StructLayout({"tag": self.layout, "active": 1, "beat": bits_for(beats), "present": words})
        entering = Signal(meta)
        row = Signal(beats * words * bits, reset_less=True)
        present = Signal(beats * words)
        row_capture, sum_capture, capture = Signal(), Signal(), Signal()
        source = Signal(self.layout)
        single = Signal()
        m.d.comb += [
            row_capture.eq(self.tag.valid & self.tag.last & member(m, self.tag.kernel, of_rows, "is_row")),
            sum_capture.eq(self.sum_tag.valid & member(m, self.sum_tag.kernel, of_sums, "is_sum")),
            capture.eq(row_capture | sum_capture),
            source.eq(self.tag),
        ]
        with m.If(sum_capture):
            m.d.comb += [source.eq(self.sum_tag), source.row_level.eq(self.sum_tag.sum_level)]
        partial = {i: (1 << partial_lanes(program, program.kernels[i])) - 1 for i in slow}
        with m.If(capture):
            for lane in range(lanes if of_rows else 0):
                m.d.sync += row[lane * bits : (lane + 1) * bits].eq(self.totals[lane])
            with m.If(sum_capture):
                m.d.sync += row[:bits].eq(self.sum_total)
            m.d.sync += [entering.tag.eq(source), single.eq(sum_capture)]
            m.d.sync += [entering.tag.first.eq(1), entering.active.eq(1), entering.beat.eq(0)]
            with m.Switch(source.edge):
                with m.Case(Edge.FULL):
                    m.d.sync += present.eq((1 << lanes) - 1)
                with m.Case(Edge.PARTIAL):
                    m.d.sync += present.eq(table(m, source.kernel, partial, lanes, "partial"))
                with m.Default():
                    m.d.sync += present.eq(0)
            with m.If(sum_capture):
                m.d.sync += present.eq(source.edge != Edge.EMPTY)
        with m.Else():
            m.d.sync += [row.eq(row >> (words * bits)), present.eq(present >> words)]
            m.d.sync += [entering.tag.first.eq(0), entering.beat.eq(entering.beat + 1)]
            with m.If((entering.beat == beats - 1) | single):
                m.d.sync += entering.active.eq(0)
        first_beat = Signal(meta)
        m.d.comb += [first_beat.eq(entering), first_beat.present.eq(present[:words])]
        stage = Delayed(m, first_beat, "beat")

        biased = {i: s.bias for i, s in slow.items() if s.bias}
        biases = self._follower(m, "bias", biased, len(self.bias_word), capture, source.kernel) if biased else []
        subtractions = {i: s.writes[0].subtraction for i, s in slow.items() if s.writes[0].subtraction}
        before = stage[timing.SUBTRACT_STAGE - 1]
        others = (
            self._follower(
                m,
                "other",
                {i: s.other for i, s in subtractions.items()},
                width,
                before.active & before.tag.first,
                before.tag.kernel,
            )
            if subtractions
            else []
        )

        z_bits = {i: s.narrowing.width for i, s in slow.items()}
        z_flags, difference_flags, finished = [], [], []
        for word in range(words):
            total = row[word * bits : (word + 1) * bits].as_signed()
            # 0: bias
            shifts = {i: s.bias_shift for i, s in slow.items() if s.bias}
            addend = Signal(signed(bits), name=f"addend_{word}")
            with m.Switch(stage[0].tag.kernel):
                for shift in sorted(set(shifts.values())):
                    with m.Case(*(i for i, found in shifts.items() if found == shift)):
                        m.d.comb += addend.eq(biases[word] << shift)
            biased = Signal(signed(bits), name=f"biased_{word}", reset_less=True)
            m.d.sync += biased.eq(total + addend)
            # 1, 2: round, saturate
            nearest = rounded(
                m, biased, {i: s.narrowing.shift for i, s in slow.items()}, stage[1].tag.kernel, f"z_{word}"
            )
            narrow = Signal.like(nearest, name=f"narrow_{word}", reset_less=True)
            m.d.sync += narrow.eq(nearest)
            clamped, flag = saturated_for(m, narrow, z_bits, stage[2].tag.kernel, f"z_{word}")
            z = Signal(signed(len(clamped)), name=f"z_{word}", reset_less=True)
            z_flag = Signal(name=f"z_flag_{word}")
            m.d.sync += [z.eq(clamped), z_flag.eq(flag & stage[2].present[word] & stage[2].active)]
            z_flags.append(z_flag)
            # 3 to 6: index, table, register, symmetry
            delayed = Delayed(m, z, f"z_{word}")
            functions = sorted({w.table for s in slow.values() for w in s.writes if w.table})
            values = {None: delayed[TableRead.latency]}
            for name in functions:
                reader = TableRead(program.tables[name])
                m.submodules[f"{name}_{word}"] = reader
                m.d.comb += reader.z.eq(z)
                values[name] = reader.value
            results = []
            for number in range(self.writes):
                chosen = {i: s.writes[number].table for i, s in slow.items() if len(s.writes) > number}
                names = sorted(set(chosen.values()), key=str)
                value = Signal(signed(width), name=f"value_{number}_{word}", reset_less=True)
                if len(names) == 1:
                    m.d.sync += value.eq(values[names[0]])
                else:
                    choice = table(
                        m,
                        stage[6].tag.kernel,
                        {i: names.index(n) for i, n in chosen.items()},
                        range(len(names)),
                        f"function_{number}_{word}",
                    )
                    m.d.sync += value.eq(Array(values[n] for n in names)[choice])
                results.append(value)
            # 7, 8: subtract, round, saturate
            passed = [Delayed(m, value, f"passed_{word}_{n}") for n, value in enumerate(results)]
            outputs = [Signal(signed(width), name=f"output_{n}_{word}", reset_less=True) for n in range(self.writes)]
            present_8 = stage[8].present[word]
            for number, output in enumerate(outputs):
                m.d.sync += output.eq(Mux(present_8, passed[number][1], 0))
            if subtractions:
                other = others[word]
                difference_bits = 2 + width + max(max(s.value_shift, s.other_shift) for s in subtractions.values())
                difference = Signal(signed(difference_bits), name=f"difference_{word}", reset_less=True)
                with m.Switch(stage[7].tag.kernel):
                    for i, s in subtractions.items():
                        with m.Case(i):
                            m.d.sync += difference.eq((results[0] << s.value_shift) - (other << s.other_shift))
                nearest = rounded(
                    m,
                    difference,
                    {i: s.narrowing.shift for i, s in subtractions.items()},
                    stage[8].tag.kernel,
                    f"difference_{word}",
                )
                bounds = {i: s.narrowing.width for i, s in subtractions.items()}
                clamped, flag = saturated_for(m, nearest, bounds, stage[8].tag.kernel, f"difference_{word}")
                difference_flag = Signal(name=f"difference_flag_{word}")
                subtracts = member(m, stage[8].tag.kernel, subtractions, f"subtracts_{word}")
                with m.If(subtracts):
                    m.d.sync += outputs[0].eq(Mux(present_8, clamped, 0))
                m.d.sync += difference_flag.eq(flag & subtracts & present_8 & stage[8].active)
                difference_flags.append(difference_flag)
            finished.append(outputs)

        # 9: write
        writing = stage[timing.SLOW_STAGES]
        is_single = member(m, writing.tag.kernel, of_sums, "writes_sum")
        for number in range(self.writes):
            writers = [i for i, s in slow.items() if len(s.writes) > number]
            enable = Signal(name=f"enable_{number}")
            m.d.comb += [
                enable.eq(writing.active & member(m, writing.tag.kernel, writers, f"writes_{number}")),
                self.word_enables[number].eq(enable & is_single),
            ]
            for lane in range(lanes):
                of_beat = finished[lane % words][number]
                m.d.comb += [
                    self.rows[number][lane].eq(Mux(is_single, finished[0][number], of_beat) if of_sums else of_beat),
                    self.row_enables[number][lane].eq(enable & ~is_single & (writing.beat == lane // words)),
                ]
        ahead = stage[timing.SLOW_STAGES - 1]
        m.d.comb += [self.write_tag.eq(ahead.tag), self.write_tag.valid.eq(ahead.active)]
        m.d.sync += [
            self.z_clamped.eq(sum(z_flags)),
            self.z_kernel.eq(stage[3].tag.kernel),
            self.difference_clamped.eq(sum(difference_flags) if difference_flags else Const(0)),
            self.difference_kernel.eq(stage[9].tag.kernel),
        ]
        return m
