"""Walking through arrays in flat order, whatever axis lies across the lanes."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import bits_for, table
from catgrad_hw.schedule.program import Program


class Walk(Component):
    """The (row, lane) of word after word of ``arrays``, one array after the other, and round again.

    Of a data array, one tile is walked. ``step`` moves on to the next word,
    ``restart`` to the first of the first array; ``origin`` is added to every row (a slot) and must be stable between
    restarts. ``array`` is the index of the current array; ``ends_array`` and ``ends`` say that this word is its last,
    and the last of all. Where there are several arrays, all that is so, and ``step`` may be high, only while
    ``settled`` is: from the second cycle after a step or restart on.
    """

    def __init__(self, program: Program, arrays):
        self.program = program
        self.places = [program.placements[name] for name in arrays]
        self.row_bits = bits_for(max(program.banks[place.bank].depth for place in self.places))
        super().__init__(
            {
                "step": In(1),
                "restart": In(1),
                "origin": In(self.row_bits),
                "row": Out(self.row_bits),
                "lane": Out(bits_for(program.lanes)),
                "array": Out(bits_for(len(arrays))),
                "ends_array": Out(1),
                "ends": Out(1),
                "settled": Out(1, init=1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.program.lanes
        numbered = dict(enumerate(self.places))
        # Words before the vector axis, along it, and after it.
        counts = []
        for place in self.places:
            axis, shape = place.axis, place.shape
            if axis is None:
                sizes = (1, 1, place.elements)
            else:
                outer = inner = 1
                for size in shape[:axis]:
                    outer *= size
                for size in shape[axis + 1 :]:
                    inner *= size
                sizes = (outer, place.length, inner)
            counts.append(sizes)

        def constant(values, shape, name):
            return table(m, self.array, dict(enumerate(values)), shape, name)

        inner_size = constant([sizes[2] for sizes in counts], self.row_bits, "inner_size")
        elements = constant([place.elements for place in numbered.values()], self.row_bits, "elements")
        bases = [place.base for place in numbered.values()]
        following_base = constant([*bases[1:], bases[0]], self.row_bits, "following_base")

        outer, along, inner = (
            Signal(bits_for(max(sizes[i] for sizes in counts)), name=name)
            for i, name in enumerate(("outer", "along", "inner"))
        )
        outer_ends, along_ends, inner_ends = (
            Signal(init=counts[0][i] == 1, name=f"{name}_ends") for i, name in enumerate(("outer", "along", "inner"))
        )
        ends = [(outer, outer_ends), (along, along_ends), (inner, inner_ends)]
        lane = Signal(bits_for(lanes))
        group = Signal(self.row_bits)  # rows of the lanes passed along the vector axis
        block = Signal(self.row_bits, init=bases[0])  # where the rows of the outer index begin
        m.d.comb += [
            self.row.eq(self.origin + block + group + inner),
            self.lane.eq(lane),
            self.ends_array.eq(outer_ends & along_ends & inner_ends),
            self.ends.eq(self.ends_array & (self.array == len(self.places) - 1)),
        ]
        # What each counter waits for stands side by side, for the step comes late.
        goes_along, goes_out, goes_on = inner_ends, inner_ends & along_ends, self.ends_array
        lane_ends = along_ends | (lane == lanes - 1)
        for when, statements in (
            (1, [inner.eq(Mux(inner_ends, 0, inner + 1))]),
            (goes_along, [along.eq(Mux(along_ends, 0, along + 1)), lane.eq(Mux(lane_ends, 0, lane + 1))]),
            (goes_along & lane_ends, [group.eq(Mux(along_ends, 0, group + elements))]),
            (goes_out, [outer.eq(Mux(outer_ends, 0, outer + 1))]),
            (goes_out, [block.eq(Mux(outer_ends, following_base, block + inner_size))]),
            (goes_on, [self.array.eq(Mux(self.array == len(self.places) - 1, 0, self.array + 1))]),
        ):
            with m.If(self.step & when):
                m.d.sync += statements
        with m.If(self.restart):
            m.d.sync += [signal.eq(signal.init) for signal in (outer, along, inner, lane, group, block, self.array)]

        # Whether a counter is at its end comes out of a register: of one array it is known a step ahead.
        if len(self.places) == 1:
            m.d.comb += self.settled.eq(1)
            steps = self.step
            for (counter, at_end), size in zip(reversed(ends), reversed(counts[0]), strict=True):
                with m.If(self.restart):
                    m.d.sync += at_end.eq(size == 1)
                with m.Elif(steps):
                    m.d.sync += at_end.eq((size == 1) | (~at_end & (counter == size - 2)))
                steps &= at_end
        else:
            m.d.sync += self.settled.eq(~(self.step | self.restart))
            for i, (counter, at_end) in enumerate(ends):
                last = constant(
                    [sizes[i] - 1 for sizes in counts], range(max(sizes[i] for sizes in counts) + 1), f"last_{i}"
                )
                m.d.sync += at_end.eq(counter == last)
        return m
