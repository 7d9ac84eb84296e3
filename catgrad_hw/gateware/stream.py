"""Addresses: one register and a table of increments for each stream of rows."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import TagLayout, bits_for, table
from catgrad_hw.schedule.program import Operand, Program


def increments(kernel, operand: Operand):
    """What to add when a level advances and all levels inside it start over; innermost level first."""
    result = []
    rewind = 0
    for trip, stride in zip(reversed(kernel.trips), reversed(operand.strides), strict=True):
        result.append(stride - rewind)
        rewind += stride * (trip - 1)
    return result


class AddressStream(Component):
    """The address of one stream: at a trigger, the base of the kernel or the last address plus an increment.

    ``address`` is valid, and ``active`` high, in the cycle after ``trigger``; ``bank`` then tells which of ``banks``
    it is for. ``operands`` maps kernel indices to streams.
    """

    def __init__(self, program: Program, operands: dict):
        self.program, self.operands = program, operands
        self.layout = TagLayout(program)
        places = [program.placements[operand.array] for operand in operands.values()]
        self.banks = sorted({place.bank for place in places})
        depth = max(program.banks[name].depth for name in self.banks)
        level = self.layout["level"].width
        super().__init__(
            {
                "trigger": In(1),
                "kernel": In(bits_for(len(program.kernels))),
                "level": In(level),
                "slot": In(bits_for(program.slots)),
                "tile": In(bits_for(program.tiles)),
                "address": Out(bits_for(depth)),
                "active": Out(1),
                "bank": Out(bits_for(len(self.banks))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        width = len(self.address)
        amount = Signal(width)
        with m.Switch(self.kernel):
            for index, operand in self.operands.items():
                kernel = program.kernels[index]
                base = program.placements[operand.array].base + operand.base
                with m.Case(index), m.Switch(self.level):
                    for level, step in enumerate(increments(kernel, operand)):
                        with m.Case(level):
                            m.d.comb += amount.eq(step % (1 << width))
                    with m.Case(self.layout.start):
                        m.d.comb += amount.eq(base)
        origin = Signal(width)
        for index_signal, copies, name in ((self.slot, program.slots, "slot"), (self.tile, program.tiles, "tile")):
            ringed = {
                index: program.placements[operand.array]
                for index, operand in self.operands.items()
                if program.placements[operand.array].slots > 1
                and (operand.array in program.outputs) == (name == "tile")
            }
            if copies > 1 and ringed:
                rows = {place.slot_rows for place in ringed.values()}
                offsets = {
                    size: table(m, index_signal, {i: i * size for i in range(copies)}, width, f"{name}_offset_{size}")
                    for size in sorted(rows)
                }
                with m.Switch(self.kernel):
                    for index, place in ringed.items():
                        with m.Case(index):
                            m.d.comb += origin.eq(offsets[place.slot_rows])
        m.d.sync += self.active.eq(self.trigger)
        with m.If(self.trigger):
            m.d.sync += self.address.eq(Mux(self.level == self.layout.start, origin, self.address) + amount)
            if len(self.banks) > 1:
                chosen = {
                    index: self.banks.index(program.placements[operand.array].bank)
                    for index, operand in self.operands.items()
                }
                m.d.sync += self.bank.eq(table(m, self.kernel, chosen, len(self.bank), "chosen"))
        return m
