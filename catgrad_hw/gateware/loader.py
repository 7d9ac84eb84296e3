"""How words enter: samples into a ring of tile slots, parameters into their banks."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import Delayed, bits_for, table
from catgrad_hw.gateware.walk import Walk
from catgrad_hw.schedule.program import Program


def words_per_sample(program: Program):
    """Words of one sample of each array of the data set, in the order in which they arrive."""
    counts = []
    for name in (*program.inputs, *program.targets):
        words = 1
        for size in program.placements[name].shape[1:]:
            words *= size
        counts.append(words)
    return counts


class SampleLoader(Component):
    """Takes sample after sample, each all its input words and then all its target words, and fills tile slots.

    ``available`` says that the slot ``slot`` holds a tile; ``consume`` (one cycle) moves on to the next. A ``resident``
    ring never frees a slot: once consumed, it comes round again. ``forget`` empties the ring. Where a program
    reads while loading, a slot is available from its first word on, and ``missing`` counts the words still to come.

    Writes are presented one cycle after a word is taken: a row, a lane and an enable for each bank. None is taken while
    in the cycle after ``blocked``: in the next one a single-port bank is read, or a kernel may write one of the banks.
    """

    def __init__(self, program: Program):
        self.program = program
        self.arrays = [program.placements[name] for name in (*program.inputs, *program.targets)]
        self.width = max(program.banks[place.bank].width for place in self.arrays)
        ports = {}
        for place in self.arrays:
            ports[f"row_{place.bank}"] = Out(bits_for(program.banks[place.bank].depth))
            ports[f"lane_{place.bank}"] = Out(bits_for(program.lanes))
            ports[f"enable_{place.bank}"] = Out(1)
        super().__init__(
            {
                "samples": In(stream.Signature(signed(self.width))),
                "resident": In(1),
                "forget": In(1),
                "consume": In(1),
                "blocked": In(1),
                "available": Out(1),
                "missing": Out(range(max(words_per_sample(program)) + 1)),
                "slot": Out(bits_for(program.slots)),
                "takes": Out(1),
                "word": Out(signed(self.width)),
                **ports,
            }
        )

    def elaborate(self, platform):
        m = Module()
        program = self.program
        per_sample = words_per_sample(program)
        array = Signal(bits_for(len(self.arrays)))
        element = Signal(bits_for(max(per_sample)))
        sample = Signal(bits_for(program.tile))
        tile = Signal(bits_for(program.tiles))
        filling = Signal(bits_for(program.slots))
        loaded = Signal(range(program.slots + 1))
        occupied = Signal(range(program.slots + 1))

        # What decides comes out of registers: in the cycle after the last word of a tile none is taken.
        take, filled = self.takes, Signal()
        room = Signal()
        m.d.comb += [self.samples.ready.eq(room), take.eq(room & self.samples.valid)]
        m.d.sync += [
            self.word.eq(self.samples.payload),
            room.eq((occupied != program.slots) & ~self.blocked & ~filled & ~self.forget),
        ]
        last_tile = tile == program.tiles - 1
        last_sample = sample == Mux(last_tile, program.tail - 1, program.tile - 1)
        ends = Signal(init=per_sample[0] == 1)  # this word is its array's last, of this sample
        if sum(per_sample) > 1:
            ends_tile = Signal(init=program.tile == 1)
            m.d.sync += ends_tile.eq(last_sample)  # a sample lasts for two cycles, at least
        else:
            ends_tile = last_sample
        size, following_size = (
            table(m, array, dict(enumerate(sizes)), range(max(per_sample) + 1), name)
            for name, sizes in (("size", per_sample), ("following_size", [*per_sample[1:], per_sample[0]]))
        )
        following = Signal.like(filling)
        m.d.comb += following.eq(Mux(filling == program.slots - 1, 0, filling + 1))
        with m.If(take):
            m.d.sync += [element.eq(element + 1), ends.eq(element + 2 == size)]
            with m.If(ends):
                m.d.sync += [element.eq(0), array.eq(array + 1), ends.eq(following_size == 1)]
                with m.If(array == len(self.arrays) - 1):
                    m.d.sync += [array.eq(0), sample.eq(sample + 1)]
                    with m.If(ends_tile):
                        m.d.comb += filled.eq(1)
                        m.d.sync += [sample.eq(0), tile.eq(Mux(last_tile, 0, tile + 1)), filling.eq(following)]
        restart = Signal()
        m.d.sync += restart.eq(self.forget | (filled if program.tail != program.tile else 0))
        for i, place in enumerate(self.arrays):
            walk = Walk(program, [place.array])
            m.submodules[f"walk_{place.array}"] = walk
            origins = {s: s * place.slot_rows for s in range(program.slots)}
            m.d.comb += [
                walk.step.eq(take & (array == i)),
                walk.restart.eq(restart),
                walk.origin.eq(table(m, filling, origins, walk.row_bits, f"slot_{i}")),
            ]
            row, lane, enable = (getattr(self, f"{port}_{place.bank}") for port in ("row", "lane", "enable"))
            if i == min(n for n, other in enumerate(self.arrays) if other.bank == place.bank):
                m.d.sync += [row.eq(walk.row), lane.eq(walk.lane), enable.eq(walk.step)]
            else:
                with m.If(array == i):
                    m.d.sync += [row.eq(walk.row), lane.eq(walk.lane), enable.eq(walk.step)]

        # ``loaded`` tiles may be used; ``occupied`` slots may not be written, for as long as reads are in flight.
        freed = Delayed(m, self.consume & ~self.resident, "freed")
        m.d.sync += [
            loaded.eq(loaded + filled - freed[0]),
            occupied.eq(occupied + filled - freed[program.timing.sample_reads]),
        ]
        m.d.comb += self.available.eq(loaded != 0)
        if program.reads_while_loading:
            with m.If((loaded == 0) & (element != 0)):
                m.d.comb += [self.available.eq(1), self.missing.eq(per_sample[0] - element)]
        with m.If(self.consume):
            last = Mux(self.resident, loaded - 1, program.slots - 1)
            m.d.sync += self.slot.eq(Mux(self.slot == last, 0, self.slot + 1))
        with m.If(self.forget):
            m.d.sync += [s.eq(0) for s in (array, element, sample, tile, filling, loaded, occupied, self.slot)]
            m.d.sync += ends.eq(per_sample[0] == 1)
        return m


class ParameterLoader(Component):
    """Takes all parameters in flat order and starts over after the last; ``rewind`` starts over at once.

    A word is taken where ``enable`` is high, in every second cycle at most; ``row``, ``lane`` and ``word`` are
    presented in the next cycle, with one of ``enables`` for the bank.
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
                "row": Out(bits_for(max(program.banks[name].depth for name in self.banks))),
                "lane": Out(bits_for(program.lanes)),
                "takes": Out(1),
                "word": Out(signed(width)),
                "enables": Out(len(self.banks)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        names = [place.array for place in self.arrays]
        m.submodules.walk = walk = Walk(self.program, names)
        m.d.comb += [
            self.parameters.ready.eq(self.enable & walk.settled),
            self.takes.eq(self.parameters.ready & self.parameters.valid),
            walk.step.eq(self.takes),
            walk.restart.eq(self.rewind),
        ]
        m.d.sync += [self.word.eq(self.parameters.payload), self.row.eq(walk.row), self.lane.eq(walk.lane)]
        for i, bank in enumerate(self.banks):
            with m.Switch(walk.array):
                with m.Case(*(n for n, place in enumerate(self.arrays) if place.bank == bank)):
                    m.d.sync += self.enables[i].eq(walk.step)
                with m.Default():
                    m.d.sync += self.enables[i].eq(0)
        return m
