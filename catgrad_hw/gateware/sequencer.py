"""The sequencer: which iteration of which kernel issues in this cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import enum
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Edge, TagLayout, bits_for, member, partial_lanes, table
from catgrad_hw.schedule.program import Program


class State(enum.Enum, shape=2):
    IDLE = 0
    SAMPLES = 1
    ISSUE = 2
    GAP = 3


class Sequencer(Component):
    """Runs the routine ``routine`` when ``start`` is high: ``count`` times, or ``once``. ``count`` must be stable
    meanwhile.

    The loop counters count down; that one is 0 comes out of a register. Between kernels it waits for
    as many cycles as the schedule says; nothing else is decided at run time, but that a tile starts when its samples
    are there (``samples_ready``), and where a program reads while loading, that the first kernel waits for each word
    that is still ``missing``. ``tile_done`` is high for one cycle when a tile no longer needs its samples.

    ``tag`` describes the iteration that issues; ``last_issue`` is high with a routine's last. ``busy`` is high until
    every write has landed; ``running`` is high for exactly ``count`` times the routine's period, plus the cycles spent
    waiting for samples. The last cycle of the gap before a tile is the one in which samples are asked for, so that gap
    is at least one cycle.
    """

    def __init__(self, program: Program):
        self.program = program
        self.layout = TagLayout(program)
        super().__init__(
            {
                "start": In(1),
                "routine": In(bits_for(len(program.routines))),
                "count": In(32),
                "once": In(1),
                "samples_ready": In(1),
                "missing": In(range(program.placements[program.inputs[0]].elements + 1)),
                "slot": In(bits_for(program.slots)),
                "tag": Out(self.layout),
                "step_start": Out(1),
                "step_done": Out(1),
                "tile_done": Out(1),
                "last_issue": Out(1),
                "running": Out(1),
                "waiting": Out(1),
                "busy": Out(1),
            }
        )

    def _edge(self, m, k, counters, ended, last_tile, edge):
        """Drive ``edge`` while kernel ``k`` issues. Only loops that its output keeps matter."""
        program = self.program
        reduced = (k.slow.reduced or 0) if k.slow else k.sum.reduced if k.sum and not k.full else 0
        kept = k.levels - max(k.reduced, reduced)
        spread = k.lane_level is not None and k.lane_level < kept
        if spread and k.lane_level != k.batch_level and partial_lanes(program, k):
            with m.If(ended[k.levels - 1 - k.lane_level]):
                m.d.comb += edge.eq(Edge.PARTIAL)
        elif k.full and k.lane_level is None and program.lanes > 1:
            m.d.comb += edge.eq(Edge.PARTIAL)  # lane 0 alone
        if k.batch_level is not None and k.batch_level < kept:
            counter = counters[k.levels - 1 - k.batch_level]
            per_row = program.lanes if k.batch_level == k.lane_level else 1
            missing = -(-program.tile // per_row) - -(-program.tail // per_row)
            with m.If(last_tile):
                if k.batch_level == k.lane_level and partial_lanes(program, k):
                    with m.If(counter == missing):
                        m.d.comb += edge.eq(Edge.PARTIAL)
                if missing:
                    with m.If(counter < missing):
                        m.d.comb += edge.eq(Edge.EMPTY)

    def elaborate(self, platform):
        m = Module()
        program = self.program
        kernels = program.kernels
        numbered = range(len(kernels))
        depth = self.layout.start

        kernel = Signal(bits_for(len(kernels)))
        level = Signal(self.layout["level"].width)
        tile = Signal(bits_for(program.tiles))
        runs = Signal(32)  # begun
        once = Const(1) if program.predicts_only else Signal()
        counted = Signal()
        reached, begins = Signal(), Signal()
        m.d.comb += counted.eq(runs == self.count)
        m.d.sync += [reached.eq(counted), begins.eq(0)]
        with m.If(begins):
            m.d.sync += runs.eq(runs + 1)

        # Loop counters, innermost level first.
        def trips(k, position):
            """Iterations of level ``position``, bubbles included; 1 above the outermost."""
            if position >= k.levels:
                return 1
            return k.trips[k.levels - 1 - position] + (k.pad if k.reduced and position == k.reduced - 1 else 0)

        counters, ended = [], []
        for position in range(depth):
            most = max(trips(k, position) for k in kernels)
            counters.append(Signal(range(most), name=f"counter_{position}"))
            ended.append(Signal(init=1, name=f"ended_{position}"))

        def loads(kernel_of, name):
            """For each position, what starts the loop of kernel ``kernel_of[kernel]``: its count, whether it ends."""
            values = []
            for position, counter in enumerate(counters):
                starts = {i: trips(kernels[k], position) - 1 for i, k in kernel_of.items()}
                at_end = {i: start == 0 for i, start in starts.items()}
                value = table(m, kernel, starts, counter.shape(), f"{name}_{position}")
                values.append((value, table(m, kernel, at_end, 1, f"{name}_ends_{position}")))
            return values

        reloads = loads({i: i for i in numbered}, "reload")
        upcoming = loads({i: min(i + 1, len(kernels) - 1) for i in numbered}, "upcoming")
        next_level = Signal(range(depth + 1))
        for position in reversed(range(depth)):
            with m.If(~ended[position]):
                m.d.comb += next_level.eq(position)
        finished = Signal()
        m.d.comb += finished.eq(Cat(ended).all())

        # Where one reduction ends and the next begins.
        def delimiters(reduced, name):
            """(first, last, level of the output) of reductions over the innermost ``reduced[kernel]`` levels."""
            first, last = Signal(name=f"{name}_first"), Signal(name=f"{name}_last")
            begun = table(m, kernel, reduced, range(depth + 1), f"{name}_levels")
            m.d.comb += first.eq(level >= begun)
            held = Signal.like(level, name=f"{name}_held")
            current = Signal.like(level, name=f"{name}_level")
            m.d.comb += current.eq(Mux(first, level, held))
            m.d.sync += held.eq(current)  # where nothing issues, nothing begins, or an iteration that sets it follows
            return first, last, current

        valid = Signal()
        row_first, row_last, row_level = delimiters({i: kernels[i].reduced for i in numbered}, "row")
        sums = {i: k.sum.reduced if k.sum else (k.slow.reduced or 0) if k.slow else 0 for i, k in enumerate(kernels)}
        sum_first, sum_last, sum_level = delimiters(sums, "sum")
        m.d.comb += [row_last.eq(1), sum_last.eq(1), valid.eq(1)]
        with m.Switch(kernel):
            for i, k in enumerate(kernels):
                with m.Case(i):
                    if k.reduced:
                        outer = k.reduced - 1
                        ends = counters[outer] == k.pad if k.pad else ended[outer]
                        m.d.comb += valid.eq(counters[outer] >= k.pad)
                        m.d.comb += row_last.eq(Cat(ended[:outer], ends).all())
                    if sums[i]:
                        m.d.comb += sum_last.eq(Cat(ended[: sums[i]]).all())

        # Which tile it is comes out of registers.
        first_tile, last_tile = Signal(init=1), Const(1) if program.tiles == 1 else Signal()

        def first():
            """Statements that go to the first tile."""
            return [tile.eq(0), first_tile.eq(1), *([last_tile.eq(0)] if program.tiles > 1 else [])]

        # Which lanes of a row mean something: those of samples of the batch, and of elements of the lanes' axis.
        edge = Signal(2)
        with m.Switch(kernel):
            for i, k in enumerate(kernels):
                with m.Case(i):
                    self._edge(m, k, counters, ended, last_tile, edge)

        issuing, stalled = Signal(), Signal()
        m.d.comb += [
            self.tag.valid.eq(issuing & valid),
            self.tag.first.eq(row_first),
            self.tag.last.eq(row_last),
            self.tag.sum_first.eq(sum_first),
            self.tag.sum_last.eq(sum_last),
            self.tag.edge.eq(edge),
            self.tag.level.eq(level),
            self.tag.row_level.eq(row_level),
            self.tag.sum_level.eq(sum_level),
            self.tag.kernel.eq(kernel),
            self.tag.slot.eq(self.slot),
            self.tag.first_tile.eq(first_tile),
            self.tag.last_tile.eq(last_tile),
        ]

        # From kernel to kernel.
        tile_ends, routine_ends, first_kernel, back, gaps, loop_gaps = [], [], {}, {}, {}, {}
        index = 0
        for number, r in enumerate(program.routines):
            first_kernel[number] = index
            ends = [s + k.cycles for k, s in zip(r.tile.kernels, r.tile.starts, strict=True)]
            ends += [r.final_start + s + k.cycles for k, s in zip(r.final.kernels, r.final.starts, strict=True)]
            nexts = [*r.tile.starts[1:], *(r.final_start + s for s in r.final.starts)]
            nexts.append(r.period - (r.tiles - 1) * r.tile_period)
            for offset, (end, following) in enumerate(zip(ends, nexts, strict=True)):
                gaps[index + offset] = following - end
            back.update({index + offset: index for offset in range(len(ends))})
            tile_ends.append(index + len(r.tile.kernels) - 1)
            loop_gaps[tile_ends[-1]] = r.tile_period - ends[len(r.tile.kernels) - 1]
            index += len(ends)
            routine_ends.append(index - 1)

        # What decides at the end of a kernel is decoded before it begins: the kernel of a tile's or routine's last
        # cycles, whether another tile follows, and how long the gap is.
        widest = max([*gaps.values(), *loop_gaps.values(), 1])
        # The state in which samples are awaited is the last cycle of a gap before a tile.
        pauses = {i: gap - (i in routine_ends) for i, gap in gaps.items()}
        looping = {i: gap - 1 for i, gap in loop_gaps.items()}
        ends_tile, ends_routine, loops, brief, no_pause = decisions = [
            Signal(name=name) for name in ("ends_tile", "ends_routine", "loops", "brief", "no_pause")
        ]

        def decided(kernel_of, name):
            """Statements that decode ``decisions`` for kernel ``kernel_of[kernel]``."""

            def is_one(members, flag):
                return member(m, kernel, [i for i, k in kernel_of.items() if k in members], f"{name}_{flag}")

            tile_end, routine_end = is_one(tile_ends, "ends_tile"), is_one(routine_ends, "ends_routine")
            again = tile_end & ~last_tile
            values = [tile_end, routine_end, again]
            for cycles in (1, 0):
                after, between = (
                    is_one({i for i, gap in found.items() if gap == cycles}, f"{kind}_{cycles}")
                    for kind, found in (("gap", pauses), ("loop_gap", looping))
                )
                values.append(Mux(again, between, after) if program.tiles > 1 else after)
            return [decision.eq(value) for decision, value in zip(decisions, values, strict=True)]

        def gap_of(values, name):
            """Cycles less one."""
            return table(m, kernel, {i: max(value - 1, 0) for i, value in values.items()}, range(widest + 1), name)

        pause = gap_of(pauses, "gap")
        if program.tiles > 1:
            pause = Mux(loops, gap_of(looping, "loop_gap"), pause)
        loop_entry = table(m, kernel, back, kernel.shape(), "loop_entry")

        state = Signal(State)
        wait, waited = Signal(range(widest + 1)), Signal()
        drained = 0 if program.predicts_only else program.timing.drain  # there, the results tell
        drain = Signal(range(drained + 1))
        stops, draining = Signal(), Signal()
        m.d.comb += [
            issuing.eq((state == State.ISSUE) & ~stalled),
            self.last_issue.eq(issuing & finished & ends_routine & ~loops),
            self.running.eq(state != State.IDLE),
            self.waiting.eq((state == State.SAMPLES) & ~self.samples_ready),
            self.busy.eq(self.running | (stops if drained else 0) | draining),
            self.step_start.eq(issuing & (level == depth) & (kernel == 0) & first_tile),
        ]
        m.d.sync += stops.eq(0)
        with m.If(stops):
            m.d.sync += [runs.eq(0), drain.eq(drained - 1), draining.eq(drained > 1)]
        with m.Elif(draining):
            m.d.sync += [drain.eq(drain - 1), draining.eq(drain != 1)]

        if program.reads_while_loading:
            m.d.comb += stalled.eq((kernel == 0) & (counters[0] < self.missing))

        # A loop starts over when all inside it have ended with it, and at the end of a kernel as the next one's.
        for position, (counter, end) in enumerate(zip(counters, ended, strict=True)):
            inside = Cat(ended[:position]).all()
            with m.If((state == State.SAMPLES) | (issuing & inside & end)):
                for signal, this, following in zip((counter, end), reloads[position], upcoming[position], strict=True):
                    m.d.sync += signal.eq(Mux(issuing & finished, following, this))
            with m.Elif(issuing & inside):
                m.d.sync += [counter.eq(counter - 1), end.eq(counter == 1)]

        # ``leave`` is the last cycle of a kernel and of the gap after it.
        leave = Signal()
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.start & ~self.busy & (self.once | ~reached)):
                    m.d.sync += [begins.eq(1), kernel.eq(0), *first(), state.eq(State.SAMPLES)]
                    if not program.predicts_only:
                        m.d.sync += once.eq(self.once)
                    if len(first_kernel) > 1:
                        m.d.sync += kernel.eq(table(m, self.routine, first_kernel, kernel.shape(), "entry"))
            with m.Case(State.SAMPLES):
                m.d.sync += decided({i: i for i in numbered}, "this")
                with m.If(self.samples_ready):
                    m.d.sync += [state.eq(State.ISSUE), level.eq(depth)]
            with m.Case(State.ISSUE):
                with m.If(stalled):
                    pass
                with m.Elif(~finished):
                    m.d.sync += level.eq(next_level)
                with m.Else():
                    m.d.comb += self.tile_done.eq(ends_tile)
                    m.d.sync += [wait.eq(pause), waited.eq(brief)]
                    with m.If(no_pause):
                        m.d.comb += leave.eq(1)
                    with m.Else():
                        m.d.sync += state.eq(State.GAP)
            with m.Case(State.GAP):
                m.d.sync += [wait.eq(wait - 1), waited.eq(wait == 1)]
                m.d.comb += leave.eq(waited)
        with m.If(leave):
            with m.If(loops):
                m.d.sync += [tile.eq(tile + 1), first_tile.eq(0), kernel.eq(loop_entry), state.eq(State.SAMPLES)]
                if program.tiles > 1:
                    m.d.sync += last_tile.eq(tile == program.tiles - 2)
            with m.Elif(ends_routine):
                m.d.comb += self.step_done.eq(1)
                m.d.sync += [*first(), kernel.eq(loop_entry), state.eq(State.SAMPLES)]
                with m.If(~(once | reached)):
                    m.d.sync += begins.eq(1)
                with m.Else():
                    m.d.sync += [stops.eq(1), state.eq(State.IDLE)]
            with m.Else():
                m.d.sync += [kernel.eq(kernel + 1), state.eq(State.ISSUE), level.eq(depth)]
                m.d.sync += decided({i: min(i + 1, len(kernels) - 1) for i in numbered}, "next")
        return m
