"""The core: banks, lanes, tree and paths, run by the sequencer, behind streams and a register file."""

from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from math import prod
from operator import or_
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature

from catgrad_hw.gateware.arithmetic import narrowed, shifted
from catgrad_hw.gateware.bank import BankMemory
from catgrad_hw.gateware.combine import condition_operands, other_operands, positive
from catgrad_hw.gateware.counters import Counters
from catgrad_hw.gateware.full_path import FullPath
from catgrad_hw.gateware.lanes import Lane, SumAccumulator, Tree
from catgrad_hw.gateware.loader import ParameterLoader, SampleLoader
from catgrad_hw.gateware.reader import Reader
from catgrad_hw.gateware.registers import KEY_INCREMENT, Command, Register
from catgrad_hw.gateware.sequencer import Sequencer
from catgrad_hw.gateware.slow_path import SlowPath
from catgrad_hw.gateware.stream import AddressStream, RampStream
from catgrad_hw.gateware.sum_path import SumPath
from catgrad_hw.gateware.tag import GROUP, WITHIN, Choice, Delayed, TagLayout, choose, fixed, member, of_groups, table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.events import partial_name, results_delay
from catgrad_hw.schedule.program import Program, Ramp

BUS_ADDRESS_BITS = 8


def core_signature(program: Program):
    """The core's ports, of the widths that the program's arrays need."""

    def bits(*names):
        return max(program.banks[program.placements[name].bank].width for name in names)

    bus = {
        "address": Out(BUS_ADDRESS_BITS),
        "write_data": Out(32),
        "write_enable": Out(1),
        "read_data": In(32),
    }
    return Signature(
        {
            "samples": In(stream.Signature(signed(bits(*program.inputs, *program.targets)))),
            "parameters": In(stream.Signature(signed(bits(*program.parameters)))),
            "results": Out(stream.Signature(signed(bits(*program.parameters, *program.outputs)))),
            "bus": In(Signature(bus)),
        }
    )


class Writer(NamedTuple):
    """A stream that writes a bank, while ``writing`` is high: its words to ``row_enables``, or to its lane where
    ``word_enable`` is high; ``soon``: perhaps in two cycles, to this bank or another."""

    unit: AddressStream
    words: list
    writing: Value
    row_enables: list
    word_enable: Value
    soon: Value


class Core(Component):
    """A machine specialised to ``program``.

    Streams (valid and ready): ``samples`` in (each sample's input words, then its target words), ``parameters`` in
    (flat order, round and round), ``results`` out (what a read command asked for, sign-extended). ``bus``: the
    registers of :class:`catgrad_hw.gateware.registers.Register`. Commands
    are ignored while busy. ``docs/machine.md`` describes the pipeline.
    """

    def __init__(self, program: Program):
        super().__init__(core_signature(program))
        self.program = program
        self.parameter_bits = len(self.parameters.payload)
        paths = [path for kernel in program.kernels for path in (kernel.slow, kernel.full, kernel.sum) if path]
        combined = [operand.array for path in paths for operand in path.combination.operands()]
        banks = [program.banks[program.placements[name].bank] for name in combined]
        self.word_bits = max(self.parameter_bits, program.multiplier, *(bank.width for bank in banks))
        self.result_bits = len(self.results.payload)

    # --- memory ports -----------------------------------------------------------------------------------------------

    def _address(self, m, name, operands, tag, active):
        """An address stream for ``operands`` (by kernel), triggered by ``active`` for the kernels that have one.

        Args:
            tag: (pipeline tag, name of its field with the level that advanced).
        """
        layout, level = tag
        unit = AddressStream(self.program, operands)
        m.submodules[name] = unit
        m.d.comb += [
            unit.trigger.eq(active),
            unit.kernel.eq(layout.kernel),
            unit.level.eq(layout[level]),
            unit.slot.eq(layout.slot),
            unit.first_tile.eq(layout.first_tile),
        ]
        return unit

    def _ramp(self, m, name, ramps, tag, active):
        """Numbers that are affine in the loop indices, by kernel: there when an address of the same trigger is."""
        layout, level = tag
        unit = RampStream(self.program, ramps)
        m.submodules[name] = unit
        m.d.comb += [unit.trigger.eq(active), unit.kernel.eq(layout.kernel), unit.level.eq(layout[level])]
        return unit.value

    def _inside(self, m, name, operands, tag, active):
        """Whether a stream keeps its bounds, when its address is there."""
        layout, _ = tag
        kept = []
        for number in range(max(len(operand.bounds) for operand in operands.values())):
            bounds = {i: o.bounds[number] for i, o in operands.items() if len(o.bounds) > number}
            ramps = {i: Ramp(bound.offset, bound.strides) for i, bound in bounds.items()}
            place = self._ramp(m, f"{name}_place_{number}", ramps, tag, active)
            sizes = Choice(m, layout.kernel, {i: b.size for i, b in bounds.items()}, f"{name}_size_{number}", 2)
            bounded = Delayed(m, member(m, layout.kernel, bounds, f"{name}_bounded_{number}"), f"{name}_b_{number}")
            within = ~place[-1] & sizes.of(lambda size, place=place: place < size)
            kept.append(~bounded[timing.ADDRESS] | within)
        return Cat(kept).all()

    def _read(self, m, name, operands, tag, active, width, registers, roundings=None, gated=False, shared=False):
        """The words of a stream of rows, or the word of one of words, ``registers`` after the memories' output.

        Args:
            width: bits to which each word is sign-extended.
            registers: the first follows the choice of bank and lane; the last, a rounding. Where there are two and a
                word is picked out of more than ``GROUP``, the first follows the choice within groups.
            roundings: by kernel, low bits to round off each word (saturating to ``width``).
            gated: 0 while no kernel that has the stream needs it.
            shared: the reader of results has the rows that it asks for in the (one) register, too.
        """
        layout, _ = tag
        (of_rows,) = {operand.row for operand in operands.values()}
        unit = self._address(m, name, operands, tag, active)
        in_groups = not of_rows and registers > 1 and self.program.lanes > GROUP
        banks = Delayed(m, unit.bank, f"{name}_bank")
        if shared:
            select = Signal.like(unit.bank, name=f"{name}_shared_bank")
            with m.If(~self.reader.hold):
                m.d.sync += select.eq(Mux(self.reader.busy, self.reader.old_bank, banks[1]))
        else:
            select = banks[2 + in_groups]
        lane = Delayed(m, unit.lane, f"{name}_lane")
        rows = []
        for bank_name in unit.banks:
            self.readers.setdefault(bank_name, []).append((unit, unit.banks.index(bank_name)))
            bank = self.program.banks[bank_name]
            data = self.memories[bank_name].read_data
            row = [data[i * bank.width : (i + 1) * bank.width].as_signed() for i in range(bank.words)]
            if in_groups:
                rows.append([choose(of_groups(m, row, lane[2], f"{name}_{bank_name}"), lane[3][WITHIN:])])
            else:
                rows.append(row if of_rows else [choose(row, lane[2])])
        last = timing.OUTPUT + registers - 1
        # Told by a register that is high where the words are to be 0: it resets them, without a LUT between.
        unneeded = []
        if gated:
            idle = Delayed(m, ~member(m, layout.kernel, operands, f"{name}_needed"), f"{name}_unneeded")
            if shared:
                unshared = Signal(name=f"{name}_unshared")
                m.d.sync += unshared.eq(idle[last - 1] & ~self.reader.busy)
                unneeded.append(unshared)
            else:
                unneeded.append(idle[last])
        if any(operand.bounds for operand in operands.values()):
            inside = self._inside(m, name, operands, tag, active)
            unneeded.append(~Delayed(m, inside, f"{name}_inside")[last - timing.ADDRESS])
        # Where each bank has one rounding, its words are shifted before one is chosen; else, by the kernel.
        rounds = bool(roundings) and any(roundings.values())
        of_banks = {name: {roundings[i] for i in self._readers_of(operands, name)} for name in unit.banks if rounds}
        aligned = rounds and all(len(found) == 1 for found in of_banks.values())
        if aligned:
            rounding = fixed(1)
            rows = [
                [shifted(word, shift - 1) for word in row]
                for row, (shift,) in zip(rows, of_banks.values(), strict=True)
            ]
        elif rounds:
            rounding = Choice(m, layout.kernel, roundings, f"{name}_rounding", delay=last)
        words = []
        widest = max(len(row[0]) for row in rows)
        for number in range(len(rows[0])):
            value = Signal(signed(widest), name=f"{name}_raw_{number}")
            m.d.comb += value.eq(choose([row[number] for row in rows], select))
            if registers > 1 and not in_groups:
                picked = Signal.like(value, name=f"{name}_picked", reset_less=True)
                m.d.sync += picked.eq(value)
                value = picked
            if rounds:
                value, _ = narrowed(m, value, rounding, fixed(width), f"{name}_copy_{number}")
            word = Signal(signed(width), name=f"{name}_{number}", reset_less=True)
            if registers:
                with m.If(~self.reader.hold) if shared else nullcontext():
                    m.d.sync += word.eq(value)
                if unneeded:  # which the reader's are not: nothing is held then
                    with m.If(Cat(unneeded).any()):
                        m.d.sync += word.eq(0)
            else:
                m.d.comb += word.eq(value)
            words.append(word)
        return words

    def _readers_of(self, operands, bank):
        """The kernels whose operand lies in ``bank``."""
        return [i for i, operand in operands.items() if self.program.placements[operand.array].bank == bank]

    def _write(self, m, name, operands, tag, words, soon, enables):
        """A write stream; returns the words that each bank gets.

        ``tag`` triggers the address, :data:`timing.ADDRESS` cycles before ``words`` are written.

        Args:
            words: one for each lane.
            soon: high two cycles before any is written.
            enables: a function of two bits of the address stream for a bank, ``active`` and ``coming``: (high while the
                bank is written, the lanes to write, whether to write the lane of the address alone, in which all
                ``words`` are alike).
        """
        program = self.program
        layout, level, active = tag
        unit = self._address(m, name, operands, (layout, level), active)
        written = {}
        for number, bank_name in enumerate(unit.banks):
            count = program.banks[bank_name].words
            writing, row_enables, word_enable = enables(unit.active[number], unit.coming[number])
            writer = Writer(unit, words[:count], writing, row_enables[:count], word_enable, soon)
            self.writers.setdefault(bank_name, []).append(writer)
            written[bank_name] = writer.words
        return written

    def _connect_memories(self, m):
        program = self.program
        data_set = program.data_set_banks
        blocking = [
            unit.used
            for name in data_set
            if program.banks[name].kind == "single_port"
            for unit, _ in self.readers.get(name, [])
        ]
        blocking += [writer.soon for name in data_set for writer in self.writers.get(name, [])]
        m.d.comb += self.sample_loader.blocked.eq(Cat(blocking).any())
        for name, memory in self.memories.items():
            bank = program.banks[name]

            def decoded(lane, enable, words=bank.words):
                return [enable & (lane == i) for i in range(words)] if words > 1 else [enable]

            # Sources of addresses, and of writes: (when, address, words, enables). No two are there in a cycle.
            reads, writes = [], []
            for unit, number in self.readers.get(name, []):
                reads.append((unit.active[number], unit.row))
            if name in self.reader.banks:
                reads.append((self.reader.busy, self.reader.row))
                m.d.comb += memory.hold.eq(self.reader.hold)
                if name in self.reader.direct:
                    m.d.comb += getattr(self.reader, f"row_{name}").eq(memory.read_data)
            for w in self.writers.get(name, []):
                picked = zip(decoded(w.unit.lane, w.word_enable), w.row_enables, strict=True)
                writes.append((w.writing, w.unit.row, w.words, [one | row for one, row in picked]))
            if name in self.parameter_loader.banks:
                enable, row, lane, words = self._loaded(m, name)
                writes.append((enable, row, words, decoded(lane, enable)))
            if name in data_set:
                loader = self.sample_loader
                row, lane, enable = (getattr(loader, f"{port}_{name}") for port in ("row", "lane", "enable"))
                words = self.sample_words.get(name, [loader.word] * bank.words)
                writes.append((enable, row, words, decoded(lane, enable)))
            for position, (active, row) in enumerate(reads):
                with m.If(active) if position else nullcontext():
                    m.d.comb += memory.read_address.eq(row)
            for position, (active, row, words, _) in enumerate(writes):
                with m.If(active) if position else nullcontext():
                    m.d.comb += [
                        memory.write_address.eq(row),
                        memory.write_data.eq(Cat(word[: bank.width] for word in words)),
                    ]
            columns = zip(*(enables for *_, enables in writes), strict=True)
            m.d.comb += memory.write_enable.eq(Cat(Cat(column).any() for column in columns))

    def _loaded(self, m, name):
        """What the loader of parameters writes to a bank: (enable, row, lane, words).

        A word for many lanes crosses the chip: each group of them gets it in a register of its own, a cycle later. The
        rows that the full-width path updates take it from there, another cycle later.
        """
        loader, bank = self.parameter_loader, self.program.banks[name]
        through = self.full_loads.get(name)
        if through is None and bank.words <= GROUP:
            delay, words = 0, [self.parameter_word] * bank.words
        else:
            copies = self._parameter_copies(m)
            delay, words = (
                (1, [copies[word // GROUP] for word in range(bank.words)]) if through is None else (2, through)
            )
        enable = loader.enables[loader.banks.index(name)]
        when = [
            Delayed(m, signal, f"{name}_loads_{i}")[delay] for i, signal in enumerate((enable, loader.row, loader.lane))
        ]
        return *when, words

    def _parameter_copies(self, m):
        """A parameter that is loaded, in a register of each group of lanes; 0 while there is none."""
        if not self.parameter_copies:
            loader = self.parameter_loader
            for group in range(-(-self.program.lanes // GROUP)):
                copy = Signal(signed(self.parameter_bits), name=f"parameter_{group}", reset_less=True)
                here = loader.enables.any() & (loader.lane[WITHIN:] == group)
                m.d.sync += copy.eq(Mux(here, self.parameter_word, 0))
                self.parameter_copies.append(copy)
        return self.parameter_copies

    # --- the pipeline -----------------------------------------------------------------------------------------------

    def elaborate(self, platform):
        m = Module()
        program = self.program
        kernels = dict(enumerate(program.kernels))
        self.layout = TagLayout(program)
        self.memories = {name: BankMemory(bank) for name, bank in program.banks.items()}
        self.readers, self.writers = {}, {}
        self.sample_words = {}
        self.parameter_copies, self.full_loads = [], {}
        for name, memory in self.memories.items():
            m.submodules[f"bank_{name}"] = memory
        m.submodules.sequencer = self.sequencer = sequencer = Sequencer(program)
        m.submodules.sample_loader = self.sample_loader = SampleLoader(program)
        m.submodules.parameter_loader = self.parameter_loader = ParameterLoader(program, self.parameter_bits)
        m.submodules.reader = self.reader = Reader(program, self.result_bits)
        self.parameter_word = self.parameter_loader.word

        tag = Delayed(m, sequencer.tag, "tag")
        self._lanes(m, tag, kernels)
        counts = []
        full = self._full_path(m, tag, kernels, counts) if any(k.full for k in kernels.values()) else None
        ready, total = self._tree(m, tag, kernels, full)
        if any(k.slow for k in kernels.values()):
            self._slow_path(m, tag, kernels, counts, ready, total)
        if any(k.sum for k in kernels.values()):
            self._sum_path(m, kernels, counts, ready, total)
        if full:
            self._load_by_full_path(m, full)
        self._connect_memories(m)
        self._registers(m, counts)
        return m

    def _lanes(self, m, tag, kernels):
        program = self.program
        width = program.multiplier

        def sources(side):
            """What a side of the multipliers takes: (words of a row or None, a single word), 0 where not needed."""
            factors = {i: getattr(k, side) for i, k in kernels.items()}
            constants = {i: f for i, f in factors.items() if isinstance(f, int)}
            streams = {
                row: {i: f for i, f in factors.items() if i not in constants and f.row == row} for row in (True, False)
            }
            several = sum(map(bool, (constants, *streams.values()))) > 1
            found = {True: [], False: []}
            for row, operands in streams.items():
                if operands:
                    trigger = tag[timing.operand_trigger(row)]
                    roundings = {i: getattr(kernels[i], f"{side}_round") for i in operands}
                    name = f"{side}_{'row' if row else 'word'}"
                    registers = timing.latency(row) - timing.OUTPUT
                    level = (trigger, "level")
                    found[row].append(
                        self._read(m, name, operands, level, trigger.valid, width, registers, roundings, several)
                    )
            if constants:
                ahead = tag[timing.FETCHED - 1].kernel
                constant = Signal(signed(width), name=f"{side}_constant", reset_less=True)
                value = table(m, ahead, constants, signed(width), f"{side}_constants")
                used = member(m, ahead, constants, f"{side}_is_constant") if several else Const(1)
                m.d.sync += constant.eq(Mux(used, value, 0))
                found[False].append([constant])
            return found

        a, b = sources("a"), sources("b")
        # The words of side b, or in lane 0 of a alone, when the accumulators have their product.
        product = tag[timing.PRODUCT]
        self.lanes, self.totals, self.factors = [], [], []
        picking = [i for i, k in kernels.items() if k.reduction != "sum"]
        placing = [i for i, k in kernels.items() if k.reduction == "argmax"]
        index_bits = 0
        if picking:
            picks = Delayed(m, member(m, tag[timing.PRODUCT - 1].kernel, picking, "picks"), "picks")[1]
        if placing:
            most = max(prod(kernels[i].trips[kernels[i].levels - kernels[i].reduced :]) for i in placing)
            following = Signal(range(most + 1))
            index_bits = len(following)
            index = Mux(product.first, 0, following)
            with m.If(product.valid):
                m.d.sync += following.eq(index + 1)
            places = Delayed(m, member(m, product.kernel, placing, "places"), "places")[1]
        for number in range(program.lanes):
            lane = Lane(width, program.accumulator, bool(picking), index_bits)
            m.submodules[f"lane_{number}"] = lane
            self.lanes.append(lane)
            # A single word is for all lanes on side a, for lane 0 on side b.
            for target, found, single in ((lane.a, a, True), (lane.b, b, number == 0)):
                words = [row[number] for row in found[True]] + [word for (word,) in found[False] if single]
                m.d.comb += target.eq(reduce(or_, words, Const(0, signed(1))))
            m.d.comb += [lane.accumulate.eq(product.valid), lane.first.eq(product.first)]
            if picking:
                m.d.comb += lane.picks.eq(picks)
            total = lane.total
            if placing:
                m.d.comb += lane.index.eq(index)
                total = Mux(places, lane.place, total).as_signed()
            self.totals.append(total)

    def _slow_path(self, m, tag, kernels, counts, ready, total):
        program = self.program
        users = {i: k.slow for i, k in kernels.items() if k.slow}
        m.submodules.slow_path = path = SlowPath(program, self.word_bits)
        m.d.comb += [
            path.tag.eq(tag[timing.ACCUMULATOR - 1]),
            Cat(path.totals).eq(Cat(self.totals)),
            path.sum_tag.eq(ready[-1]),
            path.sum_total.eq(total),
        ]
        combinations = {i: s.combination for i, s in users.items()}
        others = {i: s.writes[0].subtraction.other for i, s in users.items() if s.writes[0].subtraction}
        for name, operands, stage, width in (
            ("bias", other_operands(combinations), 0, self.word_bits),
            ("condition", condition_operands(combinations), 0, self.word_bits),
            ("other", others, program.timing.subtract_stage, program.multiplier),
        ):
            for source in ("rows", "word", "sum"):
                found = {
                    i: o
                    for i, o in operands.items()
                    if source == ("sum" if users[i].reduced is not None else "rows" if o.row else "word")
                }
                if found:
                    capture = program.timing.capture(source == "sum")
                    trigger = tag[timing.held_trigger(capture + stage)]
                    if source == "sum":
                        level, active = "sum_level", trigger.valid & trigger.sum_last
                    else:
                        level, active = "row_level", trigger.valid & trigger.last
                    words = self._read(m, f"{name}_{source}", found, (trigger, level), active, width, 0)
                    if name == "condition":
                        words = [positive(word) for word in words]
                    m.d.comb += Cat(getattr(path, f"{name}_{source}")).eq(Cat(words))
        ahead = path.write_tag
        written = []
        for number in range(path.writes):

            def enables(_, coming, number=number):
                bits = Cat(path.writing[number], path.word_enables[number], *path.row_enables[number])
                now = Signal(len(bits), name=f"slow_enables_{number}")  # told a cycle ahead
                m.d.sync += now.eq(Mux(coming, bits, 0))
                return now[0], list(now[2:]), now[1]

            writer = self._write(
                m,
                f"slow_write_{number}",
                {i: s.writes[number].target for i, s in users.items() if len(s.writes) > number},
                (ahead, "row_level", ahead.valid & ahead.first),
                [path.rows[number][lane] for lane in range(program.lanes)],
                path.writes_soon[number],
                enables,
            )
            written.append(writer)
        # Samples enter by the register of the words that the path writes to their bank: it does not write then.
        for name in program.data_set_banks:
            for number, writer in enumerate(written):
                if name in writer and name not in self.sample_words:
                    self.sample_words[name] = writer[name]
                    m.d.comb += [path.loads[number].eq(self.sample_loader.takes), path.loaded.eq(self.samples.payload)]
        differences = {
            i: s.writes[0].subtraction.narrowing.counter for i, s in users.items() if s.writes[0].subtraction
        }
        for number in range(max(len(s.counters) for s in users.values())):
            z = {i: s.counters[number] for i, s in users.items() if len(s.counters) > number}
            counts.append((path.z_clamped, path.z_kernel, z, program.slow_words))
        counts.append((path.difference_clamped, path.difference_kernel, differences, program.slow_words))

    def _full_path(self, m, tag, kernels, counts):
        program = self.program
        users = {i: k.full for i, k in kernels.items() if k.full}
        targets = [finish.target for full in users.values() for finish in full.writes]
        width = max(program.banks[program.placements[target.array].bank].width for target in targets)
        combinations = {i: full.combination for i, full in users.items()}
        ramps = {i: c.position for i, c in combinations.items() if c.position}
        trigger = tag[timing.ACCUMULATOR - timing.ADDRESS]
        position = Const(0, signed(1))
        if ramps:
            active = trigger.valid & trigger.last
            position = self._ramp(m, "full_position", ramps, (trigger, "row_level"), active)
        m.submodules.full_path = path = FullPath(program, width, self.word_bits, len(position))
        m.d.comb += [
            path.tag.eq(tag[timing.ACCUMULATOR - 1]),
            path.position.eq(position),
            Cat(path.totals).eq(Cat(self.totals)),
        ]
        trigger = tag[timing.COMBINED_TRIGGER]
        for name, operands in (
            ("other", other_operands(combinations)),
            ("condition", condition_operands(combinations)),
        ):
            for source in ("rows", "word"):
                found = {i: o for i, o in operands.items() if o.row == (source == "rows")}
                if found:
                    registers = timing.WORD_LATENCY - timing.OUTPUT
                    active = trigger.valid & trigger.last
                    words = self._read(
                        m, f"full_{name}_{source}", found, (trigger, "row_level"), active, self.word_bits, registers
                    )
                    m.d.comb += Cat(getattr(path, f"{name}_{source}")).eq(Cat(words))
        if any("factor" in (c.other, c.condition) for c in combinations.values()):
            m.d.comb += Cat(path.factors).eq(Cat(self._factors(m)))
        updates = {i: finish.target for i, full in users.items() for finish in full.writes if finish.update}
        if updates:
            trigger = tag[program.timing.old_row_trigger]
            active = trigger.valid & trigger.last
            words = self._read(
                m, "old_row", updates, (trigger, "row_level"), active, self.word_bits, 1, gated=True, shared=True
            )
            m.d.comb += Cat(path.old).eq(Cat(words))
            m.d.comb += [old.eq(word) for old, word in zip(self.reader.old_row, words, strict=True)]
        for number in range(path.writes):
            self._write(
                m,
                f"full_write_{number}",
                {i: full.writes[number].target for i, full in users.items() if len(full.writes) > number},
                (path.write_tag, "row_level", path.write_tag.valid),
                [path.rows[number][lane] for lane in range(program.lanes)],
                path.writes_soon[number],
                lambda active, _: (active, [active] * program.lanes, Const(0)),
            )
            clamps = {i: f.writes[number].narrowing.counter for i, f in users.items() if len(f.writes) > number}
            counts.append((path.clamped[number], path.clamped_kernel, clamps, program.lanes))
        return path

    def _load_by_full_path(self, m, path):
        """Parameters enter by the registers of the rows that update them."""
        self.full_loads = {
            bank: [path.rows[number][lane] for lane in range(self.program.lanes)]
            for bank, number in path.loads.items()
            if bank in self.parameter_loader.banks
        }
        if self.full_loads:
            loading = Signal()
            m.d.sync += loading.eq(self.parameter_loader.takes)
            m.d.comb += path.loading.eq(loading)
            m.d.comb += [loaded.eq(copy) for loaded, copy in zip(path.loaded, self._parameter_copies(m), strict=True)]

    def _factors(self, m):
        """The words on side b of the lanes, when the accumulators have their products."""
        delay = timing.ACCUMULATOR - timing.FETCHED
        return [
            Delayed(m, lane.b, f"factor_{number}", reset_less=True)[delay] for number, lane in enumerate(self.lanes)
        ]

    def _tree(self, m, tag, kernels, full):
        """The tree and its accumulator: (tags of finished sums, by the cycle relative to the sum; the sum)."""
        program = self.program
        sums = {i: k.sum for i, k in kernels.items() if k.sum}
        of_rows = [i for i, s in sums.items() if s.source == "row"]
        of_products = [i for i, s in sums.items() if s.source == "product"]
        of_products += [i for i, k in kernels.items() if k.slow and k.slow.reduced is not None]
        if not of_products and not of_rows:
            return {-1: Signal(self.layout)}, Const(0, signed(1))
        levels = timing.tree_levels(program.lanes)
        # What finishes a sum is fetched for it: from so long before words enter the tree.
        lead = max(0, timing.SUM_LEAD - levels - 1)
        product, row = tag[timing.PRODUCT - lead - 1], tag[program.timing.full_write - lead - 1]
        sums_product = product.valid & member(m, product.kernel, of_products, "sums_products")
        sums_row = row.valid & row.last & member(m, row.kernel, of_rows, "sums_rows")
        entering, of_row = Signal(self.layout), Signal()
        source = Signal(self.layout)
        m.d.comb += [source.eq(Mux(sums_row, row, product)), source.valid.eq(sums_product | sums_row)]
        m.d.sync += [entering.eq(source), of_row.eq(sums_row)]
        summed = Delayed(m, entering, "summed")
        # Words that mean nothing leave the tree as 0.
        leaving = max(levels - 1, 0) + lead
        enabled = summed[leaving].valid
        if of_rows and of_products:
            is_row = Delayed(m, of_row, "of_row", reset_less=True)[leaving]
        words = []
        for name, used, sources in (
            ("product", of_products, [lane.product for lane in self.lanes]),
            ("row", of_rows, [full.rows[0][lane] for lane in range(program.lanes)] if of_rows else []),
        ):
            if used:
                tree = Tree(program.lanes, len(sources[0]))
                m.submodules[f"{name}_tree"] = tree
                m.d.comb += [Cat(tree.words).eq(Cat(sources)), tree.enable.eq(enabled)]
                if of_rows and of_products:
                    m.d.comb += tree.enable.eq(enabled & (is_row if name == "row" else ~is_row))
                words.append(tree.sum)
        width = max(len(word) for word in words)
        word = Signal(signed(width))
        extended = [Cat(word, word[-1].replicate(width - len(word))) for word in words]
        m.d.comb += word.eq(reduce(or_, extended))
        before, first = summed[lead + levels - 1], Signal()
        m.d.sync += first.eq(before.valid & before.sum_first)
        m.submodules.sum_accumulator = accumulator = SumAccumulator(len(word), program.sum_accumulator)
        m.d.comb += [
            accumulator.word.eq(word),
            accumulator.first.eq(first),
        ]
        ready = {}
        for cycle in range(-timing.SUM_LEAD, 1):
            found = summed[lead + levels + 1 + cycle]
            ready[cycle] = Signal(self.layout, name=f"ready_{cycle + timing.SUM_LEAD}")
            m.d.comb += [ready[cycle].eq(found), ready[cycle].valid.eq(found.valid & found.sum_last)]
        return ready, accumulator.total

    def _sum_path(self, m, kernels, counts, ready, total):
        program = self.program
        users = {i: k.sum for i, k in kernels.items() if k.sum}
        updates = {i: finish.target for i, s in users.items() for finish in s.writes if finish.update}
        m.submodules.sum_path = path = SumPath(program, self.word_bits)
        if updates:
            tag = ready[program.timing.sum_update - timing.ROW_LATENCY]
            (old,) = self._read(m, "old_word", updates, (tag, "sum_level"), tag.valid, self.word_bits, 1)
            m.d.comb += path.old.eq(old)
        others = other_operands({i: s.combination for i, s in users.items()})
        if others:
            tag = ready[timing.SUM_COMBINED]
            registers = timing.WORD_LATENCY - timing.OUTPUT
            (other,) = self._read(m, "sum_other", others, (tag, "sum_level"), tag.valid, self.word_bits, registers)
            m.d.comb += path.other.eq(other)

        def word_enables(active, _):
            return active, [Const(0)] * program.lanes, active

        tag = ready[-timing.ADDRESS]
        m.d.comb += [path.tag.eq(tag), path.total.eq(total)]
        m.d.comb += path.tag.valid.eq(tag.valid & member(m, tag.kernel, users, "finishes_sum"))
        drawn = False
        for number in range(path.writes):
            draws = {i: s.writes[number] for i, s in users.items() if len(s.writes) > number}
            draws = {i: finish for i, finish in draws.items() if finish.draw is not None}
            if draws:
                drawn = True
                self._index(m, number, draws, ready, path)
        if program.tiles > 1:
            partials = {
                i: replace(s.writes[0].flat, array=partial_name(s.writes[0].target.array))
                for i, s in users.items()
                if kernels[i].sums_samples
            }
            if partials:
                tag = ready[-timing.OUTPUT]
                (partial,) = self._read(
                    m, "partial", partials, (tag, "sum_level"), tag.valid, program.sum_accumulator, 0
                )
                m.d.comb += path.partial.eq(partial)
                self._write(
                    m,
                    "partial_write",
                    partials,
                    (path.partial_tag, "sum_level", path.partial_tag.valid),
                    [path.partial_sum],
                    Const(0),
                    word_enables,
                )
        for number in range(path.writes):
            found = {i: s.writes[number] for i, s in users.items() if len(s.writes) > number}
            self._write(
                m,
                f"sum_write_{number}",
                {i: finish.target for i, finish in found.items()},
                (path.write_tag, "sum_level", path.write_tag.valid),
                [path.words[number]] * program.lanes,
                path.writes_soon[number],
                word_enables,
            )
            clamps = {i: finish.narrowing.counter for i, finish in found.items()}
            counts.append((path.clamped[number], path.clamped_kernel, clamps, 1))

        # A step's key serves all draws that follow its start down the tree.
        if drawn:
            self.next_key = next_key = Signal(32)
            delay = program.timing.sum_ready("row") - SumPath.draw_lead(program) - 1
            with m.If(Delayed(m, self.sequencer.step_start, "step_start")[delay]):
                m.d.sync += [path.key.eq(next_key), next_key.eq(next_key + KEY_INCREMENT)]

        # Parameters enter by the register of the words that the path writes: it is idle then.
        if len(path.loaded) >= self.parameter_bits:
            loader = self.parameter_loader
            m.d.comb += [path.loads.eq(loader.takes), path.loaded.eq(self.parameters.payload)]
            self.parameter_word = path.words[0]

    def _index(self, m, number, draws, ready, path):
        """The flat parameter index of each finished word that draws, :meth:`SumPath.draw_lead` cycles before the sum.

        A parameter that draws is never packed, so its row, less the first, is its index among the array's.
        """
        trigger = timing.ADDRESS + 1 + SumPath.draw_lead(self.program)
        tag = ready[-trigger]
        operands = {i: finish.flat for i, finish in draws.items()}
        unit = self._address(m, f"draw_index_{number}", operands, (tag, "sum_level"), tag.valid)
        bases = {i: self.program.placements[finish.flat.array].base for i, finish in draws.items()}
        offsets = {i: (finish.draw - bases[i]) % (1 << 32) for i, finish in draws.items()}
        kernel = Delayed(m, tag.kernel, f"draw_kernel_{number}")[timing.ADDRESS]
        m.d.sync += path.indices[number].eq(unit.row + table(m, kernel, offsets, 32, f"draw_offset_{number}"))

    # --- control ----------------------------------------------------------------------------------------------------

    def _predict_all(self, m):
        """Predict whatever is loaded, and send the predictions as soon as they are there, without being asked.

        The next prediction begins when the last has been read: both use the banks' read ports.
        """
        sequencer, reader = self.sequencer, self.reader
        pending = self.pending
        finished = Delayed(m, sequencer.last_issue, "last_issue")[results_delay(self.program)]
        m.d.comb += [
            sequencer.start.eq(self.sample_loader.available & ~sequencer.running & ~pending & ~reader.busy),
            sequencer.once.eq(1),
            reader.start.eq(finished),
            reader.group.eq(1),
        ]
        with m.If(sequencer.start):
            m.d.sync += pending.eq(1)
        with m.If(finished):
            m.d.sync += pending.eq(0)

    def _registers(self, m, counts):
        program = self.program
        sequencer, loader = self.sequencer, self.sample_loader
        bus = self.bus
        self.pending = Signal()
        command, given, was_idle, idle = Signal(4), Signal(), Signal(init=1), Signal()
        count = Signal(32)
        resident = Signal()
        # What a command starts shows a cycle later that the core is busy.
        m.d.sync += was_idle.eq(~sequencer.busy & ~self.reader.busy & ~self.pending & ~given)
        m.d.comb += idle.eq(was_idle & ~given)
        m.d.sync += [command.eq(0), given.eq(0)]
        next_key = getattr(self, "next_key", None)
        with m.If(bus.write_enable):
            with m.Switch(bus.address):
                with m.Case(Register.COMMAND):
                    m.d.sync += [command.eq(Mux(idle, bus.write_data, 0)), given.eq(1)]
                with m.Case(Register.COUNT), m.If(~sequencer.running):
                    m.d.sync += count.eq(bus.write_data)
                with m.Case(Register.DATA_MODE):
                    m.d.sync += resident.eq(bus.write_data)
                if next_key is not None:
                    with m.Case(Register.KEY), m.If(idle):
                        m.d.sync += next_key.eq(bus.write_data)

        if program.predicts_only:
            self._predict_all(m)
        else:
            routines = {r.name: number for number, r in enumerate(program.routines)}
            for name, code in (("step", Command.STEP), ("predict", Command.PREDICT)):
                if name in routines:
                    with m.If(command == code):
                        m.d.comb += [sequencer.start.eq(1), sequencer.routine.eq(routines[name])]
                        m.d.comb += sequencer.once.eq(name != "step")
            m.d.comb += sequencer.count.eq(count)
            m.d.comb += [
                self.reader.start.eq((command == Command.READ_PARAMETERS) | (command == Command.READ_PREDICTIONS)),
                self.reader.group.eq(command == Command.READ_PREDICTIONS),
            ]
        stepping = Signal()
        with m.If(sequencer.start):
            m.d.sync += stepping.eq(command == Command.STEP)

        m.d.comb += [
            sequencer.samples_ready.eq(loader.available),
            sequencer.missing.eq(loader.missing),
            sequencer.slot.eq(loader.slot),
            loader.consume.eq(sequencer.tile_done),
            loader.resident.eq(resident),
            loader.forget.eq(command == Command.FORGET_SAMPLES),
            loader.samples.valid.eq(self.samples.valid),
            loader.samples.payload.eq(self.samples.payload),
            self.samples.ready.eq(loader.samples.ready),
            self.parameter_loader.parameters.valid.eq(self.parameters.valid),
            self.parameter_loader.parameters.payload.eq(self.parameters.payload),
            self.parameters.ready.eq(self.parameter_loader.parameters.ready),
            self.parameter_loader.enable.eq(idle),
            self.parameter_loader.rewind.eq(command == Command.REWIND_PARAMETERS),
            self.results.valid.eq(self.reader.results.valid),
            self.results.payload.eq(self.reader.results.payload),
            self.reader.results.ready.eq(self.results.ready),
        ]

        settled = self._count(m, counts, command, stepping)
        identity = program.identity
        values = {
            Register.IDENTITY_LOW: Const(identity & 0xFFFFFFFF, 32),
            Register.IDENTITY_HIGH: Const(identity >> 32, 32),
            Register.STATUS: Cat(~(idle & settled), sequencer.waiting),
            Register.COUNT: count,
            Register.KEY: next_key if next_key is not None else Const(0, 32),
            Register.DATA_MODE: resident,
        }
        with m.Switch(self.asked[: (Register.SATURATIONS - 1).bit_length()]):
            for address, register in values.items():
                with m.Case(address):
                    m.d.comb += self.counters.other.eq(register)
        m.d.comb += bus.read_data.eq(self.counters.value)

    def _count(self, m, counts, command, stepping):
        """The counters: cycles, steps, clamped words. Returns whether they are exact."""
        program, sequencer, bus = self.program, self.sequencer, self.bus
        most, events = [], []
        for number, name in enumerate(program.counters):
            terms, together = [Const(0)], 0
            for source, (clamped, kernel, names, words) in enumerate(counts):
                users = [i for i, found in names.items() if found == name]
                if users:
                    terms.append(Mux(member(m, kernel, users, f"counts_{number}_{source}"), clamped, 0))
                    together += words
            most.append(max(together, 1))
            event = Signal(range(most[-1] + 1), name=f"clamped_{number}")
            m.d.sync += event.eq(sum(terms))
            events.append((event, command == Command.CLEAR_SATURATIONS))
        # The counters of clamped words come first: then their numbers are addresses less 16, low bits as they are.
        own = [Register.CYCLES, Register.STEPS]
        most += [1] * len(own)
        runs, starts, done = Signal(), Signal(), Signal()
        m.d.sync += [runs.eq(sequencer.running), starts.eq(sequencer.start), done.eq(sequencer.step_done & stepping)]
        events += [(runs, starts), (done, Const(0))]
        m.submodules.counters = self.counters = counters = Counters(most)
        self.asked = asked = Signal.like(bus.address, reset_less=True)
        low = (Register.SATURATIONS - 1).bit_length()
        is_own = [bus.address == register for register in own]
        is_saturation = bus.address[low:].any()
        m.d.sync += [
            asked.eq(bus.address),
            counters.select.eq(is_saturation | Cat(is_own).any()),
            counters.address.eq(
                Mux(is_saturation, Cat(bus.address[:low], bus.address[low:] - 1), len(program.counters) + is_own[1])
            ),
        ]
        for i, (event, clear) in enumerate(events):
            m.d.comb += [
                getattr(counters, f"add_{i}").eq(event),
                getattr(counters, f"clear_{i}").eq(clear),
            ]
        # What is clamped lands before ``busy`` falls, but where the core only predicts.
        settling = counters.settling + 1 + (program.timing.drain if program.predicts_only else 0)
        left = Signal(range(settling + 1))
        with m.If(sequencer.busy):
            m.d.sync += left.eq(settling)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left == 0
