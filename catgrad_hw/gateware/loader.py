"""How words enter: samples into a ring of tile slots, parameters into their banks."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Delayed, bits_for, table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.program import Program


class SampleLoader(Component):
    """Takes sample after sample, each all its input words and then all its target words, and fills tile slots.

    Sample b of a tile goes to lane ``b % P`` of rows from ``(b // P) * elements``. ``available`` says that the slot
    ``slot`` holds a tile; ``consume`` (one cycle) moves on to the next. A ``resident`` ring never frees a slot: once
    consumed, it comes round again. ``forget`` empties the ring.

    Writes are presented one cycle after a word is taken: an address and an enable for each bank, and ``lane``. None is
    taken while ``blocked``: a single-port bank is read in the next cycle.
    """

    def __init__(self, program: Program):
        self.program = program
        self.arrays = [program.placements[name] for name in (*program.inputs, *program.targets)]
        self.width = max(program.banks[place.bank].width for place in self.arrays)
        super().__init__(
            {
                "samples": In(stream.Signature(signed(self.width))),
                "resident": In(1),
                "forget": In(1),
                "consume": In(1),
                "blocked": In(1),
                "available": Out(1),
                "slot": Out(bits_for(program.slots)),
                "word": Out(signed(self.width)),
                "lane": Out(bits_for(program.lanes)),
                **{f"address_{place.bank}": Out(bits_for(program.banks[place.bank].depth)) for place in self.arrays},
                **{f"enable_{place.bank}": Out(1) for place in self.arrays},
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        tail = program.batch - (program.tiles - 1) * program.tile
        array = Signal(bits_for(len(self.arrays)))
        element = Signal(bits_for(max(place.elements for place in self.arrays)))
        lane = Signal(bits_for(program.lanes))
        sample = Signal(range(max(program.tile, 2)))
        tile = Signal(bits_for(program.tiles))
        filling = Signal(bits_for(program.slots))
        loaded = Signal(range(program.slots + 1))
        occupied = Signal(range(program.slots + 1))
        bases = [Signal(bits_for(program.banks[p.bank].depth), name=f"base_{p.bank}") for p in self.arrays]

        take = Signal()
        m.d.comb += [
            self.samples.ready.eq((occupied != program.slots) & ~self.blocked),
            take.eq(self.samples.ready & self.samples.valid),
        ]
        m.d.sync += [self.word.eq(self.samples.payload), self.lane.eq(lane)]
        sizes = table(m, array, {i: p.elements - 1 for i, p in enumerate(self.arrays)}, element.shape(), "size")
        last_sample = sample == (
            Mux(tile == program.tiles - 1, tail - 1, program.tile - 1) if program.tiles > 1 else tail - 1
        )
        tile_filled = Signal()
        with m.If(take):
            m.d.sync += element.eq(element + 1)
            with m.If(element == sizes):
                m.d.sync += [element.eq(0), array.eq(array + 1)]
                with m.If(array == len(self.arrays) - 1):
                    m.d.sync += [array.eq(0), sample.eq(sample + 1), lane.eq(lane + 1)]
                    with m.If(lane == program.lanes - 1):
                        m.d.sync += lane.eq(0)
                        m.d.sync += [base.eq(base + p.elements) for base, p in zip(bases, self.arrays, strict=True)]
                    with m.If(last_sample):
                        m.d.comb += tile_filled.eq(1)
                        m.d.sync += [sample.eq(0), lane.eq(0)]
                        m.d.sync += tile.eq(Mux(tile == program.tiles - 1, 0, tile + 1))
                        m.d.sync += filling.eq(Mux(filling == program.slots - 1, 0, filling + 1))
                        following = Mux(filling == program.slots - 1, 0, filling + 1)[: len(filling)]
                        for base, p in zip(bases, self.arrays, strict=True):
                            starts = {i: p.base + i * p.slot_rows for i in range(program.slots)}
                            m.d.sync += base.eq(table(m, following, starts, base.shape(), f"start_{p.bank}"))
        for i, (base, place) in enumerate(zip(bases, self.arrays, strict=True)):
            m.d.sync += getattr(self, f"address_{place.bank}").eq(base + element)
            m.d.sync += getattr(self, f"enable_{place.bank}").eq(take & (array == i))

        # ``loaded`` tiles may be used; ``occupied`` slots may not be written, for as long as reads are in flight.
        # A tile counts as loaded only once its last word is in the bank.
        filled = Delayed(m, tile_filled, "filled")[2]
        freed = Delayed(m, self.consume & ~self.resident, "freed")
        in_flight = timing.SUBTRACT_TRIGGER + 2
        m.d.sync += [
            loaded.eq(loaded + filled - freed[0]),
            occupied.eq(occupied + tile_filled - freed[in_flight]),
        ]
        m.d.comb += self.available.eq(loaded != 0)
        with m.If(self.consume):
            last = Mux(self.resident, loaded - 1, program.slots - 1)
            m.d.sync += self.slot.eq(Mux(self.slot == last, 0, self.slot + 1))
        with m.If(self.forget):
            m.d.sync += [s.eq(0) for s in (array, element, lane, sample, tile, filling, occupied, self.slot)]
            m.d.sync += [base.eq(p.base) for base, p in zip(bases, self.arrays, strict=True)]
        # A tile whose last word is still on its way to the bank is forgotten, too.
        forgotten = Delayed(m, self.forget, "forgotten")
        with m.If(forgotten[0] | forgotten[1] | forgotten[2]):
            m.d.sync += loaded.eq(0)
        return m


class ParameterLoader(Component):
    """Takes all parameters in flat order and starts over after the last; ``rewind`` starts over at once.

    A word is taken where ``enable`` is high; ``address`` and ``word`` are presented in the next cycle, with one of
    ``enables`` for the bank.
    """

    def __init__(self, program: Program, width):
        self.program = program
        self.arrays = [program.placements[name] for name in program.parameters]
        self.banks = sorted({place.bank for place in self.arrays})
        super().__init__(
            {
                "parameters": In(stream.Signature(signed(width))),
                "enable": In(1),
                "rewind": In(1),
                "address": Out(bits_for(max(program.banks[name].depth for name in self.banks))),
                "word": Out(signed(width)),
                "enables": Out(len(self.banks)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        array = Signal(bits_for(len(self.arrays)))
        element = Signal(bits_for(max(place.elements for place in self.arrays)))
        numbered = dict(enumerate(self.arrays))
        base = table(m, array, {i: p.base for i, p in numbered.items()}, self.address.shape(), "base")
        size = table(m, array, {i: p.elements - 1 for i, p in numbered.items()}, element.shape(), "size")
        take = Signal()
        m.d.comb += [self.parameters.ready.eq(self.enable), take.eq(self.enable & self.parameters.valid)]
        m.d.sync += [self.word.eq(self.parameters.payload), self.address.eq(base + element), self.enables.eq(0)]
        with m.If(take):
            for i, bank in enumerate(self.banks):
                with m.Switch(array):
                    with m.Case(*(n for n, place in numbered.items() if place.bank == bank)):
                        m.d.sync += self.enables[i].eq(1)
            m.d.sync += element.eq(element + 1)
            with m.If(element == size):
                m.d.sync += [element.eq(0), array.eq(Mux(array == len(self.arrays) - 1, 0, array + 1))]
        with m.If(self.rewind):
            m.d.sync += [element.eq(0), array.eq(0)]
        return m
