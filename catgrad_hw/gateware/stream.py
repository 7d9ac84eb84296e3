"""Addresses: one (row, lane) register and a table of increments for each stream; and numbers that follow the loops."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import TagLayout, bits_for, choose, member, table
from catgrad_hw.schedule.program import Operand, Program, Ramp


def advances(kernel, strides):
    """What to add when a level advances and all levels inside it start over, innermost level first."""
    result, rewind = [], 0
    for trip, stride in zip(reversed(kernel.trips), reversed(strides), strict=True):
        result.append(stride - rewind)
        rewind += stride * (trip - 1)
    return result


def increments(kernel, operand: Operand):
    """The :func:`advances` of an address: (of the row, of the position along the vector axis) by level."""
    return list(zip(advances(kernel, operand.strides), advances(kernel, operand.steps), strict=True))


class AddressStream(Component):
    """The address of one stream: at a trigger, the base of the kernel or the last address plus an increment.

    ``used`` is high with ``trigger`` for a kernel that has the stream. In the next cycle the increment is there; in the
    one after it (:data:`timing.ADDRESS`) ``row``, and of a word ``lane``, are valid, and ``bank`` tells which of
    ``banks`` they are for. Of the bits that there are for each bank, that of ``active`` is high for this cycle, and
    that of ``coming`` from the cycle before it until the one before the next address. A lane that runs over P loses P,
    and the row moves on to the next lanes' rows of the array. ``operands`` maps kernel indices to streams.
    """

    def __init__(self, program: Program, operands: dict):
        self.program, self.operands = program, operands
        self.layout = TagLayout(program)
        places = [program.placements[operand.array] for operand in operands.values()]
        self.banks = sorted({place.bank for place in places})
        self.picks_lanes = any(any(operand.steps) or operand.position for operand in operands.values())
        depth = max(program.banks[name].depth for name in self.banks)
        level = self.layout["level"].width
        super().__init__(
            {
                "trigger": In(1),
                "kernel": In(bits_for(len(program.kernels))),
                "level": In(level),
                "slot": In(bits_for(program.slots)),
                "first_tile": In(1),
                "row": Out(bits_for(depth)),
                "lane": Out(bits_for(program.lanes)),
                "used": Out(1),
                "active": Out(len(self.banks)),
                "coming": Out(len(self.banks)),
                "bank": Out(bits_for(len(self.banks))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes = program.lanes
        width = len(self.row)
        # A cycle ahead: what to add to the row, also if the lane runs over, and to the lane.
        row_step, wrapped_step = Signal(width), Signal(width)
        lane_step = Signal(bits_for(lanes))
        steps = [{} for _ in range(self.layout.start + 1)]  # by level, of each kernel: (row, wrapped, lane)
        for index, operand in self.operands.items():
            place = program.placements[operand.array]

            def step(row, position, elements=place.elements):
                rows, lane = divmod(position, lanes)
                row += rows * elements
                return row % (1 << width), (row + elements) % (1 << width), lane

            for level, (row, position) in enumerate(increments(program.kernels[index], operand)):
                steps[level][index] = step(row, position)
            steps[-1][index] = step(place.base + operand.base, operand.position)

        def looked_up(number, bits, name):
            """The kernel's step for each level, which comes last: it has fewer values."""
            of_levels = [{index: step[number] for index, step in by_kernel.items()} or {0: 0} for by_kernel in steps]
            return choose(
                (table(m, self.kernel, values, bits, f"{name}_{level}") for level, values in enumerate(of_levels)),
                self.level,
            )

        next_row_step = looked_up(0, width, "row_step")
        next_wrapped_step = looked_up(1, width, "wrapped_step")
        next_lane_step = looked_up(2, len(lane_step), "lane_step")
        starts = Signal()
        ahead = Signal()
        m.d.comb += self.used.eq(self.trigger & member(m, self.kernel, self.operands, "used"))
        m.d.sync += [
            ahead.eq(self.used),
            starts.eq(self.level == self.layout.start),
            row_step.eq(next_row_step),
            wrapped_step.eq(next_wrapped_step),
            lane_step.eq(next_lane_step),
        ]
        chosen = {i: self.banks.index(program.placements[o.array].bank) for i, o in self.operands.items()}
        bank = Signal.like(self.bank)
        m.d.sync += bank.eq(table(m, self.kernel, chosen, len(self.bank), "chosen"))
        if len(self.banks) == 1:
            m.d.comb += self.coming.eq(1)
        else:
            before = Signal.like(self.coming)
            m.d.comb += self.coming.eq(Mux(ahead, Cat(bank == number for number in range(len(self.banks))), before))
            m.d.sync += before.eq(self.coming)
        m.d.sync += self.active.eq(Mux(ahead, self.coming, 0))
        origin = self._origin(m)
        step = row_step
        if self.picks_lanes:
            lane = Signal(range(2 * lanes))
            m.d.comb += lane.eq(self.lane + lane_step)
            wraps = lane >= lanes
            step = Mux(wraps, wrapped_step, row_step)
            with m.If(ahead):
                m.d.sync += self.lane.eq(Mux(starts, lane_step, Mux(wraps, lane - lanes, lane)))
        with m.If(ahead):
            # Loading beside the adder, not before it, takes no logic of its own on iCE40.
            m.d.sync += [self.row.eq(Mux(starts, row_step + origin, self.row + step)), self.bank.eq(bank)]
        return m

    def _origin(self, m):
        """Where the slot of the data set, or the tile of the predictions, begins; a cycle ahead."""
        program = self.program
        places = {index: program.placements[operand.array] for index, operand in self.operands.items()}
        ringed = {index: place for index, place in places.items() if place.slots > 1}
        origin = Const(0, 1)
        for index, place in ringed.items():
            mine = Signal(len(self.row), name=f"origin_{index}")
            if place.array in program.outputs:
                with m.If(self.used & (self.kernel == index) & (self.level == self.layout.start)):
                    m.d.sync += mine.eq(Mux(self.first_tile, 0, mine + place.slot_rows))
                if len(places) > 1:
                    is_mine = Signal(name=f"is_ringed_{index}")
                    m.d.sync += is_mine.eq(self.kernel == index)
                    mine = Mux(is_mine, mine, 0)
            else:
                offsets = {slot: slot * place.slot_rows for slot in range(place.slots)}
                offset = table(m, self.slot, offsets, len(self.row), f"slot_offset_{index}")
                m.d.sync += mine.eq(Mux(self.kernel == index, offset, 0))
            origin = origin | mine
        return origin


class RampStream(Component):
    """A number that is affine in the loop indices: at a trigger, the offset of the kernel or the last number plus an
    increment. ``value`` is there with the address of an :class:`AddressStream` of the same trigger.

    ``ramps`` maps kernel indices to :class:`Ramp`.
    """

    def __init__(self, program: Program, ramps: dict[int, Ramp]):
        self.program, self.ramps = program, ramps
        self.layout = TagLayout(program)
        ends = [0, -1]
        for index, ramp in ramps.items():
            spans = [s * (t - 1) for s, t in zip(ramp.strides, program.kernels[index].trips, strict=True)]
            ends += [ramp.offset + sum(min(span, 0) for span in spans), ramp.offset + sum(max(s, 0) for s in spans)]
        self.bits = max((end if end >= 0 else ~end).bit_length() for end in ends) + 1
        super().__init__(
            {
                "trigger": In(1),
                "kernel": In(bits_for(len(program.kernels))),
                "level": In(self.layout["level"].width),
                "value": Out(signed(self.bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, following = Signal(signed(self.bits)), Signal(signed(self.bits))
        starts, ahead = Signal(), Signal()
        with m.Switch(self.kernel):
            for index, ramp in self.ramps.items():
                with m.Case(index), m.Switch(self.level):
                    for level, advance in enumerate(advances(self.program.kernels[index], ramp.strides)):
                        with m.Case(level):
                            m.d.comb += following.eq(advance)
                    with m.Case(self.layout.start):
                        m.d.comb += following.eq(ramp.offset)
        m.d.sync += [step.eq(following), starts.eq(self.level == self.layout.start)]
        m.d.sync += ahead.eq(self.trigger & member(m, self.kernel, self.ramps, "used"))
        with m.If(ahead):
            m.d.sync += self.value.eq(Mux(starts, step, self.value + step))
        return m
