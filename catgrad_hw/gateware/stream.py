"""Addresses: one (row, lane) register and a table of increments for each stream."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import TagLayout, bits_for, table
from catgrad_hw.schedule.program import Operand, Program


def increments(kernel, operand: Operand):
    """What to add when a level advances and all levels inside it start over: (to the row, to the position along the
    vector axis); innermost level first."""
    result = []
    rewind_row = rewind_position = 0
    levels = zip(reversed(kernel.trips), reversed(operand.strides), reversed(operand.steps), strict=True)
    for trip, stride, step in levels:
        result.append((stride - rewind_row, step - rewind_position))
        rewind_row += stride * (trip - 1)
        rewind_position += step * (trip - 1)
    return result


class AddressStream(Component):
    """The address of one stream: at a trigger, the base of the kernel or the last address plus an increment.

    ``row``, and of a word ``lane``, are valid and ``active`` is high in the cycle after ``trigger``; ``bank`` then
    tells which of ``banks`` they are for. A lane that runs over P loses P, and the row moves on to the next lanes' rows
    of the array. ``operands`` maps kernel indices to streams.
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
                "tile": In(bits_for(program.tiles)),
                "row": Out(bits_for(depth)),
                "lane": Out(bits_for(program.lanes)),
                "active": Out(1),
                "bank": Out(bits_for(len(self.banks))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        lanes = program.lanes
        width = len(self.row)
        row_step = Signal(width)
        lane_step = Signal(bits_for(lanes))
        with m.Switch(self.kernel):
            for index, operand in self.operands.items():
                kernel = program.kernels[index]
                place = program.placements[operand.array]

                def step(row, position, elements=place.elements):
                    rows, lane = divmod(position, lanes)
                    m.d.comb += [row_step.eq((row + rows * elements) % (1 << width)), lane_step.eq(lane)]

                with m.Case(index), m.Switch(self.level):
                    for level, (row, position) in enumerate(increments(kernel, operand)):
                        with m.Case(level):
                            step(row, position)
                    with m.Case(self.layout.start):
                        step(place.base + operand.base, operand.position)
        origin = self._origin(m)
        starts = self.level == self.layout.start
        m.d.sync += self.active.eq(self.trigger)
        carry = Signal(width)
        if self.picks_lanes:
            lane = Signal(range(2 * lanes))
            m.d.comb += lane.eq(Mux(starts, 0, self.lane) + lane_step)
            wraps = lane >= lanes
            elements = {i: program.placements[o.array].elements for i, o in self.operands.items()}
            m.d.comb += carry.eq(Mux(wraps, table(m, self.kernel, elements, width, "elements"), 0))
            with m.If(self.trigger):
                m.d.sync += self.lane.eq(Mux(wraps, lane - lanes, lane))
        with m.If(self.trigger):
            m.d.sync += self.row.eq(Mux(starts, origin, self.row) + row_step + carry)
            if len(self.banks) > 1:
                chosen = {
                    index: self.banks.index(program.placements[operand.array].bank)
                    for index, operand in self.operands.items()
                }
                m.d.sync += self.bank.eq(table(m, self.kernel, chosen, len(self.bank), "chosen"))
        return m

    def _origin(self, m):
        """Where the slot of the data set, or the tile of the predictions, begins."""
        program = self.program
        origin = Signal(len(self.row))
        for index_signal, copies, name in ((self.slot, program.slots, "slot"), (self.tile, program.tiles, "tile")):
            ringed = {
                index: program.placements[operand.array]
                for index, operand in self.operands.items()
                if program.placements[operand.array].slots > 1
                and (operand.array in program.outputs) == (name == "tile")
            }
            if copies > 1 and ringed:
                rows = sorted({place.slot_rows for place in ringed.values()})
                offsets = {
                    size: table(
                        m, index_signal, {i: i * size for i in range(copies)}, len(self.row), f"{name}_offset_{size}"
                    )
                    for size in rows
                }
                with m.Switch(self.kernel):
                    for index, place in ringed.items():
                        with m.Case(index):
                            m.d.comb += origin.eq(offsets[place.slot_rows])
        return origin
