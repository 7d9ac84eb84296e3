"""The full-width path: every lane's accumulator combined, narrowed and written in one cycle."""

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.adder import Adder
from catgrad_hw.gateware.arithmetic import narrowed, rounded, saturated_for
from catgrad_hw.gateware.combine import BoostedShift, Combiner, boosted_shifts, positive
from catgrad_hw.gateware.tag import GROUP, Choice, Delayed, Edge, TagLayout, counts, fixed, member, partial_lanes, table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.program import Combination, Program


class FullPath(Component):
    """``totals`` are the accumulators at :data:`timing.ACCUMULATOR`, and ``tag`` is the pipeline's a cycle before; rows
    are written :attr:`Timing.full_stages` cycles after ``totals``: combined with the words that come with them (where
    any kernel combines), rounded, for an update subtracted from the ``old`` row (two cycles before the write; where any
    kernel updates; 0 for those that do not), saturated.

    Words that are combined, and those that are conditions, come as a row or a single one (``other_rows``,
    ``other_word``, ``condition_rows``, ``condition_word``); ``factors`` are the words that the lanes multiplied,
    ``position`` the number to compare with.
    ``rows``, one for each write, are to be written two cycles after ``write_tag`` is valid; ``writes_soon`` has a bit
    for each that is written then. Lanes without an element write 0.
    Parameters enter by the registers of the rows that update them (``loads``: of which write, by bank), while nothing
    is written: in the cycle after ``loading``, ``loaded`` has a word for each ``GROUP`` of lanes, or 0, which is in
    those rows a cycle later.
    ``clamped`` counts clamped words of each write, for kernel ``clamped_kernel``, with the latency of an adder tree.
    """

    def __init__(self, program: Program, width, word_bits, position_bits=1):
        self.program, self.width = program, width
        self.layout = TagLayout(program)
        self.kernels = {i: k.full for i, k in enumerate(program.kernels) if k.full}
        self.writes = max(len(full.writes) for full in self.kernels.values())
        self.loads = {
            program.placements[finish.target.array].bank: number
            for full in self.kernels.values()
            for number, finish in enumerate(full.writes)
            if finish.update and finish.target.array in program.parameters
        }
        lanes = program.lanes
        rows = data.ArrayLayout(signed(word_bits), lanes)
        super().__init__(
            {
                "tag": In(self.layout),
                "totals": In(data.ArrayLayout(signed(program.accumulator), lanes)),
                "old": In(rows),
                "other_rows": In(rows),
                "other_word": In(signed(word_bits)),
                "condition_rows": In(rows),
                "condition_word": In(signed(word_bits)),
                "factors": In(data.ArrayLayout(signed(program.multiplier), lanes)),
                "position": In(signed(position_bits)),
                "loading": In(1),
                "loaded": In(data.ArrayLayout(signed(width), -(-lanes // GROUP))),
                "write_tag": Out(self.layout),
                "rows": Out(data.ArrayLayout(data.ArrayLayout(signed(width), lanes), self.writes)),
                "writes_soon": Out(self.writes),
                "clamped": Out(data.ArrayLayout(range(lanes + 1), self.writes)),
                "clamped_kernel": Out(self.layout["kernel"].shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes = program.lanes
        stage = Delayed(m, self.tag, "stage")
        kernel = self.tag.kernel
        combines = program.timing.full_combines
        saturated_at = program.timing.full_stages - 1  # cycles from the accumulators to what is saturated
        combinations = {i: full.combination for i, full in self.kernels.items()}
        working = Delayed(m, self.tag.valid & self.tag.last & member(m, kernel, self.kernels, "is_full"), "working")
        partial = {i: partial_lanes(program, program.kernels[i]) for i in self.kernels}
        before = stage[saturated_at]
        all_lanes = (1 << lanes) - 1
        beyond = table(m, before.kernel, {i: all_lanes >> n << n for i, n in partial.items()}, lanes, "beyond")
        absent = Signal(lanes, reset_less=True)
        with m.Switch(before.edge):
            with m.Case(Edge.FULL):
                m.d.sync += absent.eq(0)
            with m.Case(Edge.PARTIAL):
                m.d.sync += absent.eq(beyond)
            with m.Default():
                m.d.sync += absent.eq(all_lanes)
        with m.If(self.loading):
            m.d.sync += absent.eq(0)

        # What is narrowed, whether its condition holds, and whether it counts two cycles later.
        values = [self.totals[lane] for lane in range(lanes)]
        counted = holds = [Const(1)] * lanes
        if combines:
            values, holds, counted = self._combine(m, kernel, combinations, saturated_at)
        rectifies = [i for i, c in combinations.items() if c.rectified and not c.boost]
        rectified = member(m, stage[saturated_at + 1].kernel, rectifies, "rectifies")

        loading = Signal()
        m.d.sync += loading.eq(self.loading)
        once = counts(m, program, self.tag, self.kernels, "once", saturated_at + 1)
        flags = [[] for _ in range(self.writes)]
        updated = {i for i, full in self.kernels.items() if any(finish.update for finish in full.writes)}
        for number in range(self.writes):
            finishes = {i: full.writes[number] for i, full in self.kernels.items() if len(full.writes) > number}
            narrowings = {i: finish.narrowing for i, finish in finishes.items()}
            shifts = {i: n.shift for i, n in narrowings.items()}
            shift = Choice(m, kernel, boosted_shifts(shifts, combinations), f"shift_{number}", delay=1 + combines)
            width = Choice(m, kernel, {i: n.width for i, n in narrowings.items()}, f"width_{number}", saturated_at + 1)
            updates = [i for i, finish in finishes.items() if finish.update]
            # The old row is 0 of kernels that update nothing, though not for a write beside one that updates.
            beside = set(finishes) & updated - set(updates)
            updating = Delayed(m, member(m, kernel, updates, f"updates_{number}"), f"updating_{number}", True)
            writes = Const(1)
            if len(finishes) < len(self.kernels):
                writes = Delayed(m, member(m, kernel, finishes, f"writes_{number}"), f"writing_{number}", True)
                writes = writes[saturated_at + 2]
            loads = number in self.loads.values()
            for lane in range(lanes):
                name = f"{number}_{lane}"
                boosted = BoostedShift(shift, values[lane], holds[lane])
                if program.timing.full_updates:
                    # A word is subtracted next, and clamped then: with two bits more it comes to the same.
                    enough = fixed(max(*width.values, len(self.old[lane])) + 2)
                    nearest, _ = narrowed(m, values[lane], boosted, enough, f"lane_{name}")
                else:
                    nearest = rounded(m, values[lane], boosted, f"lane_{name}")
                changed = Signal.like(nearest, name=f"narrow_{name}", reset_less=True)
                m.d.sync += changed.eq(nearest)
                if program.timing.full_updates:
                    m.submodules[f"adder_{name}"] = adder = Adder(len(changed) + 1, subtracts=True)
                    old, updates_now = self.old[lane], updating[saturated_at] if updates else Const(0)
                    m.d.comb += [
                        adder.base.eq(Mux(updates_now, old, 0) if beside else old),
                        adder.addend.eq(changed),
                        adder.alone.eq(~updates_now),
                    ]
                    changed = Signal(signed(adder.width), name=f"changed_{name}", reset_less=True)
                    m.d.sync += changed.eq(adder.sum)
                clamped, flag = saturated_for(m, changed, width, f"lane_{name}", loading if loads else None)
                means = counted[lane]
                if rectifies:
                    means &= ~(rectified & changed[-1])
                kept = ~absent[lane] & (means | loading)
                word = Signal(signed(self.width), name=f"word_{name}", reset_less=True)
                flagged = Signal(name=f"flag_{name}")
                m.d.sync += flagged.eq(flag & kept & once & working[saturated_at + 1])
                if loads:
                    m.d.sync += word.eq(Mux(kept, clamped | self.loaded[lane // GROUP], 0))
                else:
                    m.d.sync += word.eq(Mux(kept, clamped, 0))
                m.d.comb += self.rows[number][lane].eq(word)
                flags[number].append(flagged & writes)
            written = program.timing.full_stages + 1
            soon = working[written - 2]
            if not isinstance(writes, Const):
                soon = (
                    soon
                    & Delayed(m, member(m, kernel, finishes, f"soon_{number}"), f"is_soon_{number}", True)[saturated_at]
                )
            m.d.comb += self.writes_soon[number].eq(soon)
        m.d.comb += [
            self.write_tag.eq(stage[written - timing.ADDRESS]),
            self.write_tag.valid.eq(working[written - timing.ADDRESS]),
        ]

        # Count the flags in a registered tree.
        for number, level in enumerate(flags):
            depth = 0
            while len(level) > 1:
                following = []
                for i in range(0, len(level), 2):
                    node = Signal(range(2 ** (depth + 1) + 1), name=f"count_{number}_{depth}_{i // 2}")
                    m.d.sync += node.eq(sum(level[i + 1 : i + 2], level[i]))
                    following.append(node)
                level, depth = following, depth + 1
            m.d.comb += self.clamped[number].eq(level[0])
        m.d.comb += self.clamped_kernel.eq(stage[written + depth].kernel)
        return m

    def _combine(self, m, kernel, combinations: dict[int, Combination], saturated_at):
        """The values of all lanes and whether the condition of each holds, a cycle after the accumulators, and whether
        each counts, ``saturated_at`` cycles after them."""
        combiner = Combiner(m, kernel, combinations, self.position)
        boosts = any(c.boost and c.condition is not None for c in combinations.values())
        values, held, counted = [], [], []
        for lane in range(self.program.lanes):
            words = {"row": self.other_rows[lane], "word": self.other_word, "factor": self.factors[lane]}
            conditions = {
                "row": positive(self.condition_rows[lane]),
                "word": positive(self.condition_word),
                "factor": positive(self.factors[lane]),
                "reduced": positive(self.totals[lane]),
            }
            value, counts, holds = combiner.lane(m, self.totals[lane], words, conditions, f"combine_{lane}")
            combined = Signal(signed(len(value)), name=f"combined_{lane}", reset_less=True)
            m.d.sync += combined.eq(value)
            values.append(combined)
            held.append(Delayed(m, holds, f"holds_{lane}", reset_less=True)[int(boosts)])
            counted.append(Delayed(m, counts, f"counts_{lane}", reset_less=True)[saturated_at])
        return values, held, counted
