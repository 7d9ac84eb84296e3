"""The core: banks, lanes, tree and paths, run by the sequencer, behind streams and a register file."""

from dataclasses import replace

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
from catgrad_hw.schedule.events import partial_name, results_delay
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
        """A stream of rows, or of words: (address stream, its words), valid :func:`timing.latency` after the trigger.

        Args:
            width: bits to which each word is sign-extended.
            roundings: by kernel, low bits to round off each word (saturating to ``width``).
        """
        (of_rows,) = {operand.row for operand in operands.values()}
        unit = self._address(m, name, operands, tag, active)
        select, lane = Delayed(m, unit.bank, f"{name}_bank")[2], Delayed(m, unit.lane, f"{name}_lane")[2]
        rows = []
        for bank_name in unit.banks:
            self.readers.setdefault(bank_name, []).append((unit, unit.banks.index(bank_name)))
            bank = self.program.banks[bank_name]
            data = self.memories[bank_name].read_data
            row = [data[i * bank.width : (i + 1) * bank.width].as_signed() for i in range(bank.words)]
            rows.append(row if of_rows else [choose(row, lane)])
        words = []
        widest = max(len(row[0]) for row in rows)
        for number in range(len(rows[0])):
            value = Signal(signed(widest), name=f"{name}_raw_{number}")
            m.d.comb += value.eq(choose([row[number] for row in rows], select))
            if not of_rows:
                picked = Signal.like(value, name=f"{name}_picked", reset_less=True)
                m.d.sync += picked.eq(value)
                value = picked
            if roundings and any(roundings.values()):
                kernel = Delayed(m, tag[0].kernel, f"{name}_kernel")[timing.latency(of_rows) - 1]
                near = rounded(m, value, roundings, kernel, f"{name}_copy_{number}")
                value, _ = saturated(m, near, width, f"{name}_copy_{number}")
            word = Signal(signed(width), name=f"{name}_{number}", reset_less=True)
            m.d.sync += word.eq(value)
            words.append(word)
        return unit, words

    def _write(self, m, name, operands, tag, words, row_enables, word_enable):
        """A write stream: ``tag`` triggers the address one cycle before ``words`` are written.

        Args:
            words: one for each lane.
            row_enables: the lanes to write.
            word_enable: write the lane of the address alone, in which all ``words`` are alike.
        """
        layout, level, active = tag
        unit = self._address(m, name, operands, (layout, level), active)
        for bank_name in unit.banks:
            number = unit.banks.index(bank_name)
            self.writers.setdefault(bank_name, []).append((unit, number, words, row_enables, word_enable))

    def _connect_memories(self, m):
        program = self.program
        single = [name for name, bank in program.banks.items() if bank.kind == "single_port"]
        reading = [unit.trigger for name in single for unit, _ in self.readers.get(name, [])]
        m.d.comb += self.sample_loader.blocked.eq(Cat(reading).any())
        for name, memory in self.memories.items():
            bank = program.banks[name]

            def write(memory, row, words, enables):
                m.d.comb += [
                    memory.write_address.eq(row),
                    memory.write_data.eq(Cat(words)),
                    memory.write_enable.eq(Cat(enables)),
                ]

            def decoded(lane, enable, words=bank.words):
                return [enable & (lane == i) for i in range(words)] if words > 1 else [enable]

            for position, (unit, number) in enumerate(self.readers.get(name, [])):
                drive = memory.read_address.eq(unit.row)
                if position == 0:
                    m.d.comb += drive
                else:
                    with m.If(unit.active & (unit.bank == number)):
                        m.d.comb += drive
            if name in self.reader.banks:
                with m.If(self.reader.busy):
                    m.d.comb += memory.read_address.eq(self.reader.row)
                m.d.comb += getattr(self.reader, f"row_{name}").eq(memory.read_data)
            for unit, number, words, row_enables, word_enable in self.writers.get(name, []):
                here = Const(1) if len(unit.banks) == 1 else unit.bank == number
                with m.If((Cat(row_enables) | word_enable).any() & here):
                    picked = decoded(unit.lane, word_enable)
                    picked = [one | row for one, row in zip(picked, row_enables[: bank.words], strict=True)]
                    write(memory, unit.row, [word[: bank.width] for word in words[: bank.words]], picked)
            if name in self.parameter_loader.banks:
                loader = self.parameter_loader
                with m.If(loader.enables[loader.banks.index(name)]):
                    write(memory, loader.row, [loader.word[: bank.width]] * bank.words, decoded(loader.lane, Const(1)))
            if bank.loader:
                loader = self.sample_loader
                row, lane, enable = (getattr(loader, f"{port}_{name}") for port in ("row", "lane", "enable"))
                write(memory, row, [loader.word[: bank.width]] * bank.words, decoded(lane, enable))

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
        full = self._full_path(m, tag, kernels, counts) if any(k.full for k in kernels.values()) else None
        ready, total = self._tree(m, tag, kernels, full)
        if any(k.slow for k in kernels.values()):
            self._slow_path(m, tag, kernels, counts, ready, total)
        if any(k.sum for k in kernels.values()):
            self._sum_path(m, kernels, counts, ready, total)
        self._connect_memories(m)
        self._registers(m, counts)
        return m

    def _lanes(self, m, tag, kernels):
        program = self.program
        width = program.multiplier
        fetched = tag[timing.FETCHED].kernel

        def streams(side, row):
            """Operands on one side of the multipliers, by kernel, and the words that they deliver."""
            found = {i: getattr(k, side) for i, k in kernels.items()}
            found = {i: o for i, o in found.items() if isinstance(o, Operand) and o.row == row}
            if not found:
                return []
            trigger = tag[timing.operand_trigger(row)]
            roundings = {i: getattr(kernels[i], f"{side}_round") for i in found}
            name = f"{side}_{'row' if row else 'word'}"
            _, words = self._read(m, name, found, (trigger, "level"), trigger.valid, width, roundings)
            return [(found, words)]

        def constants(side):
            found = {i: getattr(k, side) for i, k in kernels.items() if isinstance(getattr(k, side), int)}
            return [(found, table(m, fetched, found, signed(width), f"{side}_constant"))] if found else []

        a_rows, a_words, a_constants = streams("a", True), streams("a", False), constants("a")
        b_rows, b_words, b_constants = streams("b", True), streams("b", False), constants("b")
        zero = Const(0, signed(width))
        product = tag[timing.PRODUCT]
        self.lanes = []
        for number in range(program.lanes):
            lane = Lane(width, program.accumulator)
            m.submodules[f"lane_{number}"] = lane
            self.lanes.append(lane)
            for target, rows, singles in (
                (lane.a, a_rows, [(found, words[0]) for found, words in a_words] + a_constants),
                (
                    lane.b,
                    b_rows,
                    [(found, words[0] if number == 0 else zero) for found, words in b_words]
                    + [(found, value if number == 0 else zero) for found, value in b_constants],
                ),
            ):
                choices = [(found, words[number]) for found, words in rows] + singles
                m.d.comb += target.eq(choices[0][1])
                for found, value in choices[1:]:
                    with m.If(member(m, fetched, found, f"selects_{number}")):
                        m.d.comb += target.eq(value)
            m.d.comb += [lane.accumulate.eq(product.valid), lane.first.eq(product.first)]

    def _slow_path(self, m, tag, kernels, counts, ready, total):
        program = self.program
        users = {i: k.slow for i, k in kernels.items() if k.slow}
        m.submodules.slow_path = path = SlowPath(program, self.parameter_bits)
        m.d.comb += [path.tag.eq(tag[timing.ACCUMULATOR]), Cat(path.totals).eq(Cat(lane.total for lane in self.lanes))]
        m.d.comb += [path.sum_tag.eq(ready), path.sum_total.eq(total)]
        biases = {i: s.bias for i, s in users.items() if s.bias}
        others = {i: s.writes[0].subtraction.other for i, s in users.items() if s.writes[0].subtraction}
        for name, operands, stage, width in (
            ("bias", biases, 0, self.parameter_bits),
            ("other", others, timing.SUBTRACT_STAGE, program.multiplier),
        ):
            for source in ("rows", "word", "sum"):
                found = {
                    i: o
                    for i, o in operands.items()
                    if source == ("sum" if users[i].reduced is not None else "rows" if o.row else "word")
                }
                if found:
                    capture = timing.capture(program.lanes, source == "sum")
                    trigger = tag[timing.held_trigger(capture + stage, source == "rows")]
                    if source == "sum":
                        level, active = "sum_level", trigger.valid & trigger.sum_last
                    else:
                        level, active = "row_level", trigger.valid & trigger.last
                    _, words = self._read(m, f"{name}_{source}", found, (trigger, level), active, width)
                    m.d.comb += Cat(getattr(path, f"{name}_{source}")).eq(Cat(words))
        ahead = path.write_tag
        for number in range(path.writes):
            self._write(
                m,
                f"slow_write_{number}",
                {i: s.writes[number].target for i, s in users.items() if len(s.writes) > number},
                (ahead, "row_level", ahead.valid & ahead.first),
                [path.rows[number][lane] for lane in range(program.lanes)],
                [path.row_enables[number][lane] for lane in range(program.lanes)],
                path.word_enables[number],
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
        widths = [program.banks[program.placements[full.target.array].bank].width for full in users.values()]
        m.submodules.full_path = path = FullPath(program, max(widths), self.parameter_bits)
        m.d.comb += [path.tag.eq(tag[timing.ACCUMULATOR]), Cat(path.totals).eq(Cat(lane.total for lane in self.lanes))]
        updates = {i: full.target for i, full in users.items() if full.update}
        if updates:
            trigger = tag[timing.old_row_trigger()]
            active = trigger.valid & trigger.last
            _, words = self._read(m, "old_row", updates, (trigger, "row_level"), active, self.parameter_bits)
            m.d.comb += Cat(path.old).eq(Cat(words))
        self._write(
            m,
            "full_write",
            {i: full.target for i, full in users.items()},
            (path.write_tag, "row_level", path.write_tag.valid),
            [path.row[lane] for lane in range(program.lanes)],
            [path.write] * program.lanes,
            Const(0),
        )
        counts.append((path.clamped, path.clamped_kernel, {i: f.narrowing.counter for i, f in users.items()}))
        return path

    def _tree(self, m, tag, kernels, full):
        """The tree and its accumulator: (tag of a finished sum, the sum)."""
        program = self.program
        sums = {i: k.sum for i, k in kernels.items() if k.sum}
        of_rows = [i for i, s in sums.items() if s.source == "row"]
        of_products = [i for i, s in sums.items() if s.source == "product"]
        of_products += [i for i, k in kernels.items() if k.slow and k.slow.reduced is not None]
        ready = Signal(self.layout)
        if not of_products and not of_rows:
            return ready, Const(0, signed(1))
        width = max(([2 * program.multiplier] if of_products else []) + ([full.width] if of_rows else []))
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
        through, done = summed[tree.latency], summed[tree.latency + 1]
        m.d.comb += [
            accumulator.word.eq(tree.sum),
            accumulator.accumulate.eq(through.valid),
            accumulator.first.eq(through.sum_first),
            ready.eq(done),
            ready.valid.eq(done.valid & done.sum_last),
        ]
        return ready, accumulator.total

    def _sum_path(self, m, kernels, counts, ready, total):
        program = self.program
        users = {i: k.sum for i, k in kernels.items() if k.sum}
        tag = Signal(self.layout)
        m.d.comb += [tag.eq(ready), tag.valid.eq(ready.valid & member(m, ready.kernel, users, "finishes_sum"))]
        updates = {i: s.target for i, s in users.items() if s.update}
        old = Const(0, signed(1))
        if updates:
            _, (old,) = self._read(m, "old_word", updates, (tag, "sum_level"), tag.valid, self.parameter_bits)
        drawn = {i: s.flat for i, s in users.items() if s.draw is not None}
        index = None
        if drawn:
            index = self._index(m, drawn, tag)
        m.submodules.sum_path = path = SumPath(program, len(old), len(index) if index is not None else 1)
        m.d.comb += [path.tag.eq(tag), path.total.eq(total), path.old.eq(old)]
        if index is not None:
            m.d.comb += path.index.eq(index)
        if program.tiles > 1:
            partials = {
                i: replace(s.flat, array=partial_name(s.target.array))
                for i, s in users.items()
                if kernels[i].sums_samples
            }
            if partials:
                _, (partial,) = self._read(
                    m, "partial", partials, (tag, "sum_level"), tag.valid, program.sum_accumulator
                )
                m.d.comb += path.partial.eq(partial)
                self._write(
                    m,
                    "partial_write",
                    partials,
                    (path.partial_tag, "sum_level", path.partial_tag.valid),
                    [path.partial_sum],
                    [Const(0)],
                    path.partial_write,
                )
        self._write(
            m,
            "sum_write",
            {i: s.target for i, s in users.items()},
            (path.write_tag, "sum_level", path.write_tag.valid),
            [path.word] * program.lanes,
            [Const(0)] * program.lanes,
            path.write,
        )
        counts.append((path.clamped, path.clamped_kernel, {i: s.narrowing.counter for i, s in users.items()}))

        # A step's key serves all draws that follow its start down the tree.
        self.next_key = next_key = Signal(32)
        key = Signal(32)
        delay = timing.sum_ready(program.lanes, "row") + 1
        with m.If(Delayed(m, self.sequencer.step_start, "step_start")[delay]):
            m.d.sync += [key.eq(next_key), next_key.eq(next_key + KEY_INCREMENT)]
        m.d.comb += path.key.eq(key)

    def _index(self, m, operands, tag):
        """The index of each finished word among its array's, in the cycle after ``tag``.

        A parameter that draws is never packed, so its rows, less the first, are that index.
        """
        unit = self._address(m, "draw_index", operands, (tag, "sum_level"), tag.valid)
        bases = {i: self.program.placements[operand.array].base for i, operand in operands.items()}
        base = table(m, Delayed(m, tag.kernel, "draw_kernel")[1], bases, len(unit.row), "draw_base")
        index = Signal.like(unit.row, name="draw_index")
        m.d.comb += index.eq(unit.row - base)
        return index

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
            sequencer.count.eq(1),
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
        idle = ~sequencer.busy & ~self.reader.busy & ~self.pending

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

        if program.predicts_only:
            self._predict_all(m)
        else:
            routines = {r.name: number for number, r in enumerate(program.routines)}
            for name, code in (("step", Command.STEP), ("predict", Command.PREDICT)):
                if name in routines:
                    with m.If(command == code):
                        m.d.comb += [sequencer.start.eq(1), sequencer.routine.eq(routines[name])]
                        m.d.comb += sequencer.count.eq(count if name == "step" else 1)
            m.d.comb += [
                self.reader.start.eq((command == Command.READ_PARAMETERS) | (command == Command.READ_PREDICTIONS)),
                self.reader.group.eq(command == Command.READ_PREDICTIONS),
            ]
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
