"""The core: banks, lanes, tree and paths, run by the sequencer, behind streams and a register file."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature

from catgrad_hw.gateware.arithmetic import rounded, saturated
from catgrad_hw.gateware.bank import BankMemory
from catgrad_hw.gateware.full_path import FullPath
from catgrad_hw.gateware.lanes import Lane, SumAccumulator, Tree
from catgrad_hw.gateware.loader import ParameterLoader, SampleLoader
from catgrad_hw.gateware.reader import Reader
from catgrad_hw.gateware.registers import KEY_INCREMENT, Command, Register
from catgrad_hw.gateware.sequencer import Sequencer
from catgrad_hw.gateware.slow_path import SlowPath
from catgrad_hw.gateware.stream import AddressStream
from catgrad_hw.gateware.sum_path import SumPath
from catgrad_hw.gateware.tag import Delayed, TagLayout, choose, member, table
from catgrad_hw.schedule import timing
from catgrad_hw.schedule.events import partial_name
from catgrad_hw.schedule.program import Operand, Program

BUS_ADDRESS_BITS = 8
COUNTER_BITS = 32


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


class Core(Component):
    """A machine specialised to ``program``.

    Streams (valid and ready): ``samples`` in (each sample's input words, then its target words), ``parameters`` in
    (flat order, round and round), ``results`` out (what a read command asked for, sign-extended). ``bus``: the
    registers of :class:`catgrad_hw.gateware.registers.Register`; read data come one cycle after the address. Commands
    are ignored while busy. ``docs/machine.md`` describes the pipeline.
    """

    def __init__(self, program: Program):
        super().__init__(core_signature(program))
        self.program = program
        self.parameter_bits = len(self.parameters.payload)
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
            unit.trigger.eq(active & member(m, layout.kernel, operands, f"{name}_used")),
            unit.kernel.eq(layout.kernel),
            unit.level.eq(layout[level]),
            unit.slot.eq(layout.slot),
            unit.tile.eq(layout.tile),
        ]
        return unit

    def _read(self, m, name, operands, tag, active, width, roundings=None):
        """A stream of words or rows: (address stream, words valid :data:`timing.READ_LATENCY` after the trigger).

        Args:
            width: bits to which each word is sign-extended.
            roundings: by kernel, low bits to round off each word (saturating to ``width``).
        """
        unit = self._address(m, name, operands, tag, active)
        select = Delayed(m, unit.bank, f"{name}_bank")[2]
        rows = []
        for bank_name in unit.banks:
            self.readers.setdefault(bank_name, []).append((unit, unit.banks.index(bank_name)))
            bank = self.program.banks[bank_name]
            data = self.memories[bank_name].read_data
            rows.append([data[i * bank.width : (i + 1) * bank.width].as_signed() for i in range(bank.words)])
        words = []
        widest = max(len(row[0]) for row in rows)
        for lane in range(len(rows[0])):
            raw = Signal(signed(widest), name=f"{name}_raw_{lane}")
            m.d.comb += raw.eq(choose([row[lane] for row in rows], select))
            value = raw
            if roundings and any(roundings.values()):
                kernel = Delayed(m, tag[0].kernel, f"{name}_kernel")[3]
                value, _ = saturated(m, rounded(m, raw, roundings, kernel, f"{name}_copy"), width, f"{name}_copy")
            word = Signal(signed(width), name=f"{name}_{lane}", reset_less=True)
            m.d.sync += word.eq(value)
            words.append(word)
        return unit, words

    def _write(self, m, name, operands, tag, words, enables):
        """A write stream: the address is triggered by ``tag`` one cycle before ``words`` and ``enables`` (by lane)."""
        layout, level, active = tag
        unit = self._address(m, name, operands, (layout, level), active)
        for bank_name in unit.banks:
            self.writers.setdefault(bank_name, []).append((unit, unit.banks.index(bank_name), words, enables))
        return unit

    def _connect_memories(self, m):
        program = self.program
        single = [name for name, bank in program.banks.items() if bank.kind == "single_port"]
        reading = [unit.trigger for name in single for unit, _ in self.readers.get(name, [])]
        m.d.comb += self.sample_loader.blocked.eq(Cat(reading).any())
        for name, memory in self.memories.items():
            bank = program.banks[name]
            readers = self.readers.get(name, [])
            for position, (unit, number) in enumerate(readers):
                drive = memory.read_address.eq(unit.address)
                if position == 0:
                    m.d.comb += drive
                else:
                    with m.If(unit.active & (unit.bank == number)):
                        m.d.comb += drive
            if name in self.reader.banks:
                with m.If(self.reader.busy):
                    m.d.comb += memory.read_address.eq(self.reader.address)
                m.d.comb += getattr(self.reader, f"row_{name}").eq(memory.read_data)
            for unit, number, words, enables in self.writers.get(name, []):
                here = Const(1) if len(unit.banks) == 1 else unit.bank == number
                with m.If(Cat(enables).any() & here):
                    m.d.comb += [
                        memory.write_address.eq(unit.address),
                        memory.write_data.eq(Cat(word[: bank.width] for word in words)),
                        memory.write_enable.eq(Cat(enables)),
                    ]
            if name in self.parameter_loader.banks:
                loader = self.parameter_loader
                with m.If(loader.enables[loader.banks.index(name)]):
                    m.d.comb += [
                        memory.write_address.eq(loader.address),
                        memory.write_data.eq(loader.word),
                        memory.write_enable.eq(1),
                    ]
            if bank.loader:
                loader = self.sample_loader
                m.d.comb += [
                    memory.write_address.eq(getattr(loader, f"address_{name}")),
                    memory.write_data.eq(Cat(loader.word[: bank.width] for _ in range(bank.words))),
                ]
                for lane in range(bank.words):
                    m.d.comb += memory.write_enable[lane].eq(getattr(loader, f"enable_{name}") & (loader.lane == lane))

    # --- the pipeline -----------------------------------------------------------------------------------------------

    def elaborate(self, platform):
        m = Module()
        program = self.program
        kernels = dict(enumerate(program.kernels))
        self.layout = TagLayout(program)
        self.memories = {name: BankMemory(bank) for name, bank in program.banks.items()}
        self.readers, self.writers = {}, {}
        for name, memory in self.memories.items():
            m.submodules[f"bank_{name}"] = memory
        m.submodules.sequencer = self.sequencer = sequencer = Sequencer(program)
        m.submodules.sample_loader = self.sample_loader = SampleLoader(program)
        m.submodules.parameter_loader = self.parameter_loader = ParameterLoader(program, self.parameter_bits)
        m.submodules.reader = self.reader = Reader(program, self.result_bits)

        tag = Delayed(m, sequencer.tag, "tag")
        self._lanes(m, tag, kernels)
        counts = []
        if any(k.slow for k in kernels.values()):
            self._slow_path(m, tag, kernels, counts)
        full = self._full_path(m, tag, kernels, counts) if any(k.full for k in kernels.values()) else None
        if any(k.sum for k in kernels.values()):
            self._sum_path(m, tag, kernels, full, counts)
        self._connect_memories(m)
        self._registers(m, counts)
        return m

    def _lanes(self, m, tag, kernels):
        program = self.program
        width = program.multiplier
        issue = (tag[0], "level")
        places = program.placements

        def streams(side, batched):
            found = {i: getattr(k, side) for i, k in kernels.items() if isinstance(getattr(k, side), Operand)}
            return {i: o for i, o in found.items() if places[o.array].batched == batched}

        sources = {}
        if a_words := streams("a", False):
            roundings = {i: kernels[i].a_round for i in a_words}
            _, (word,) = self._read(m, "a_word", a_words, issue, tag[0].valid, width, roundings)
            sources["word"] = (a_words, [word] * program.lanes)
        if a_rows := streams("a", True):
            sources["row"] = (a_rows, self._read(m, "a_row", a_rows, issue, tag[0].valid, width)[1])
        b_rows = streams("b", True)
        b_words = self._read(m, "b_row", b_rows, issue, tag[0].valid, width)[1] if b_rows else None

        fetched = tag[timing.READ_LATENCY]
        a_constants = {i: k.a for i, k in kernels.items() if isinstance(k.a, int)}
        b_constants = {i: k.b for i, k in kernels.items() if isinstance(k.b, int)}
        self.lanes = []
        for number in range(program.lanes):
            lane = Lane(width, program.accumulator)
            m.submodules[f"lane_{number}"] = lane
            self.lanes.append(lane)
            choices = [(kinds, words[number]) for kinds, words in sources.values()]
            if a_constants:
                choices.append(
                    (a_constants, table(m, fetched.kernel, a_constants, signed(width), f"a_constant_{number}"))
                )
            self._select(m, lane.a, choices, fetched.kernel, f"a_{number}")
            choices = [(b_rows, b_words[number])] if b_rows else []
            if b_constants:
                constant = table(m, fetched.kernel, b_constants, signed(width), f"b_constant_{number}")
                choices.append((b_constants, constant if number == 0 else Const(0, signed(width))))
            self._select(m, lane.b, choices, fetched.kernel, f"b_{number}")
            product = tag[timing.PRODUCT]
            m.d.comb += [lane.accumulate.eq(product.valid), lane.first.eq(product.first)]

    @staticmethod
    def _select(m, target, choices, kernel, name):
        """Drive ``target`` with the choice whose kernels include the current one."""
        m.d.comb += target.eq(choices[0][1])
        for number, (kinds, value) in enumerate(choices[1:]):
            with m.If(member(m, kernel, kinds, f"{name}_{number}")):
                m.d.comb += target.eq(value)

    def _slow_path(self, m, tag, kernels, counts):
        program = self.program
        users = {i: k.slow for i, k in kernels.items() if k.slow}
        biased = {i: s.bias for i, s in users.items() if s.bias}
        m.submodules.slow_path = path = SlowPath(program, self.parameter_bits)
        m.d.comb += [path.tag.eq(tag[timing.ACCUMULATOR]), Cat(path.totals).eq(Cat(lane.total for lane in self.lanes))]
        if biased:
            trigger = tag[timing.BIAS_TRIGGER]
            unit, (word,) = self._read(
                m, "bias", biased, (trigger, "row_level"), trigger.valid & trigger.last, self.parameter_bits
            )
            held = Signal.like(word, name="bias_held", reset_less=True)
            with m.If(Delayed(m, unit.active, "bias_active")[timing.READ_LATENCY - 1]):
                m.d.sync += held.eq(word)
            m.d.comb += path.bias.eq(held)
        others = {i: write.subtraction.other for i, s in users.items() for write in s.writes[:1] if write.subtraction}
        if others:
            trigger = tag[timing.SUBTRACT_TRIGGER]
            _, words = self._read(
                m, "other", others, (trigger, "row_level"), trigger.valid & trigger.last, program.multiplier
            )
            m.d.comb += Cat(path.subtrahend).eq(Cat(words))
        for number in range(path.writes):
            targets = {i: s.writes[number].target for i, s in users.items() if len(s.writes) > number}
            ahead = path.write_tag
            self._write(
                m,
                f"slow_write_{number}",
                targets,
                (ahead, "row_level", ahead.valid & ahead.first),
                [path.rows[number][lane] for lane in range(program.lanes)],
                [path.enables[number][lane] for lane in range(program.lanes)],
            )
        z = {i: s.narrowing.counter for i, s in users.items()}
        differences = {
            i: s.writes[0].subtraction.narrowing.counter for i, s in users.items() if s.writes[0].subtraction
        }
        counts.append((path.z_clamped, path.z_kernel, z))
        counts.append((path.difference_clamped, path.difference_kernel, differences))

    def _full_path(self, m, tag, kernels, counts):
        program = self.program
        users = {i: k.full for i, k in kernels.items() if k.full}
        m.submodules.full_path = path = FullPath(program)
        m.d.comb += [path.tag.eq(tag[timing.ACCUMULATOR]), Cat(path.totals).eq(Cat(lane.total for lane in self.lanes))]
        self._write(
            m,
            "full_write",
            {i: full.target for i, full in users.items()},
            (path.write_tag, "row_level", path.write_tag.valid),
            [path.row[lane] for lane in range(program.lanes)],
            [path.write] * program.lanes,
        )
        counts.append((path.clamped, path.clamped_kernel, {i: f.narrowing.counter for i, f in users.items()}))
        return path

    def _sum_path(self, m, tag, kernels, full, counts):
        program = self.program
        users = {i: k.sum for i, k in kernels.items() if k.sum}
        of_products = [i for i, s in users.items() if s.source == "product"]
        of_rows = [i for i, s in users.items() if s.source == "row"]
        width = 2 * program.multiplier if of_products else program.multiplier
        m.submodules.tree = tree = Tree(program.lanes, width)
        product, row = tag[timing.PRODUCT], tag[timing.FULL_WRITE]
        entering = Signal(self.layout)
        m.d.comb += [
            entering.eq(product),
            entering.valid.eq(product.valid & member(m, product.kernel, of_products, "sums_products")),
        ]
        sums_row = Signal()
        m.d.comb += sums_row.eq(row.valid & row.last & member(m, row.kernel, of_rows, "sums_rows"))
        for lane in range(program.lanes):
            m.d.comb += tree.words[lane].eq(self.lanes[lane].product)
            if of_rows:
                with m.If(sums_row):
                    m.d.comb += tree.words[lane].eq(full.row[lane])
        with m.If(sums_row):
            m.d.comb += [entering.eq(row), entering.valid.eq(1)]
        summed = Delayed(m, entering, "summed")
        m.submodules.sum_accumulator = accumulator = SumAccumulator(len(tree.sum), program.sum_accumulator)
        through = summed[tree.latency]
        m.d.comb += [
            accumulator.word.eq(tree.sum),
            accumulator.accumulate.eq(through.valid),
            accumulator.first.eq(through.sum_first),
        ]
        ready = Signal(self.layout)
        done = summed[tree.latency + 1]
        m.d.comb += [ready.eq(done), ready.valid.eq(done.valid & done.sum_last)]

        updates = {i: s.target for i, s in users.items() if s.update}
        old_unit, old = None, Const(0, signed(1))
        if updates:
            old_unit, (old,) = self._read(m, "old", updates, (ready, "sum_level"), ready.valid, self.parameter_bits)
        m.submodules.sum_path = path = SumPath(program, len(old), len(old_unit.address) if old_unit is not None else 1)
        m.d.comb += [path.tag.eq(ready), path.total.eq(accumulator.total), path.old.eq(old)]
        if old_unit is not None:
            m.d.comb += path.address.eq(old_unit.address)
        if program.tiles > 1:
            partials = {
                i: Operand(partial_name(s.target.array), s.target.base, s.target.strides)
                for i, s in users.items()
                if kernels[i].batch_level is not None
            }
            _, (partial,) = self._read(
                m, "partial", partials, (ready, "sum_level"), ready.valid, program.sum_accumulator
            )
            m.d.comb += path.partial.eq(partial)
            self._write(
                m,
                "partial_write",
                partials,
                (path.partial_tag, "sum_level", path.partial_tag.valid),
                [path.partial_sum],
                [path.partial_write],
            )
        self._write(
            m,
            "sum_write",
            {i: s.target for i, s in users.items()},
            (path.write_tag, "sum_level", path.write_tag.valid),
            [path.word],
            [path.write],
        )
        counts.append((path.clamped, path.clamped_kernel, {i: s.narrowing.counter for i, s in users.items()}))

        # A step's key serves all draws that follow its start down the tree.
        self.next_key = next_key = Signal(32)
        key = Signal(32)
        delay = timing.sum_ready(program.lanes, "row") + timing.SUM_READ
        with m.If(Delayed(m, self.sequencer.step_start, "step_start")[delay]):
            m.d.sync += [key.eq(next_key), next_key.eq(next_key + KEY_INCREMENT)]
        m.d.comb += path.key.eq(key)

    # --- registers --------------------------------------------------------------------------------------------------

    def _registers(self, m, counts):
        program = self.program
        sequencer, loader = self.sequencer, self.sample_loader
        bus = self.bus
        idle = ~sequencer.busy & ~self.reader.busy

        command = Signal(4)
        count, cycles, steps = Signal(32), Signal(32), Signal(32)
        resident = Signal()
        next_key = getattr(self, "next_key", None)
        with m.If(bus.write_enable):
            with m.Switch(bus.address):
                with m.Case(Register.COMMAND):
                    m.d.comb += command.eq(Mux(idle, bus.write_data, 0))
                with m.Case(Register.COUNT):
                    m.d.sync += count.eq(bus.write_data)
                with m.Case(Register.DATA_MODE):
                    m.d.sync += resident.eq(bus.write_data)
                if next_key is not None:
                    with m.Case(Register.KEY), m.If(idle):
                        m.d.sync += next_key.eq(bus.write_data)

        routines = {r.name: number for number, r in enumerate(program.routines)}
        for name, code in (("step", Command.STEP), ("predict", Command.PREDICT)):
            if name in routines:
                with m.If(command == code):
                    m.d.comb += [sequencer.start.eq(1), sequencer.routine.eq(routines[name])]
                    m.d.comb += sequencer.count.eq(count if name == "step" else 1)
        with m.If(sequencer.start):
            m.d.sync += cycles.eq(0)
        with m.Elif(sequencer.running):
            m.d.sync += cycles.eq(cycles + 1)
        stepping = Signal()
        with m.If(sequencer.start):
            m.d.sync += stepping.eq(command == Command.STEP)
        m.d.sync += steps.eq(steps + (sequencer.step_done & stepping))

        m.d.comb += [
            sequencer.samples_ready.eq(loader.available),
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
            self.reader.start.eq((command == Command.READ_PARAMETERS) | (command == Command.READ_PREDICTIONS)),
            self.reader.group.eq(command == Command.READ_PREDICTIONS),
            self.results.valid.eq(self.reader.results.valid),
            self.results.payload.eq(self.reader.results.payload),
            self.reader.results.ready.eq(self.results.ready),
        ]

        counters = []
        for name in program.counters:
            counter = Signal(COUNTER_BITS, name=f"saturations_{len(counters)}")
            for clamped, kernel, names in counts:
                users = [i for i, found in names.items() if found == name]
                if users:
                    with m.If((clamped != 0) & member(m, kernel, users, f"counts_{len(counters)}")):
                        m.d.sync += counter.eq(counter + clamped)
            with m.If(command == Command.CLEAR_SATURATIONS):
                m.d.sync += counter.eq(0)
            counters.append(counter)

        identity = program.identity
        values = {
            Register.IDENTITY_LOW: Const(identity & 0xFFFFFFFF, 32),
            Register.IDENTITY_HIGH: Const(identity >> 32, 32),
            Register.STATUS: Cat(~idle, sequencer.waiting),
            Register.COUNT: count,
            Register.CYCLES: cycles,
            Register.KEY: next_key if next_key is not None else Const(0, 32),
            Register.STEPS: steps,
            Register.DATA_MODE: resident,
            **{Register.SATURATIONS + i: counter for i, counter in enumerate(counters)},
        }
        with m.Switch(bus.address):
            for address, value in values.items():
                with m.Case(address):
                    m.d.sync += bus.read_data.eq(value)
            with m.Default():
                m.d.sync += bus.read_data.eq(0)
