"""One memory of the machine, with an output register."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import bits_for
from catgrad_hw.schedule.memory import BLOCK, port
from catgrad_hw.schedule.program import Bank

BYTE = BLOCK["ecp5"].byte
"""Bits of an ECP5's block RAM for each write enable."""
ADDRESS_BITS = 14
"""Of a port of it, those below a row of the port among them; in the lowest are the write enables of a row's bytes."""


def is_instance(bank: Bank, platform) -> bool:
    """Whether a bank's block RAM is made of a platform's own cells."""
    if getattr(platform, "family", None) != "ecp5" or bank.kind != "block" or bank.lut_words == bank.words:
        return False
    width, _ = port(bank.words - bank.lut_words, bank.width, bank.depth, "ecp5")
    return width >= BYTE


def is_inferred(bank: Bank, platform) -> bool:
    """Whether synthesis is to find block RAM for a bank."""
    return bank.lut_words < bank.words and not is_instance(bank, platform)


class BankMemory(Component):
    """``depth`` rows of ``words`` words.

    A row appears at ``read_data`` two cycles after its address is presented: the memory's own register and one more,
    which block RAMs have inside; ``hold`` keeps what is in both. A ``late`` bank has the other register at the address:
    its memory reads a cycle after the address is presented. ``write_enable`` has a bit for each word. No cycle may
    read and write one row; a ``single_port`` bank may not read and write in one cycle at all: a write then takes the
    port. On an ECP5 the two registers of a ``block`` bank are those of its block RAMs (Lattice FPGA-TN-02204), where
    Yosys would leave the second outside; where the loader alone writes several pages of them, its words take a cycle
    more to these, which is less than a read of them takes to follow. ``lut_words`` of the words lie in LUT RAM, in
    flip-flops where there is one row; these are written a cycle later, and read as much later, so that no wire leads
    from logic to all of them.
    """

    def __init__(self, bank: Bank):
        self.bank = bank
        row = bank.words * bank.width
        super().__init__(
            {
                "read_address": In(bits_for(bank.depth)),
                "hold": In(1),
                "read_data": Out(row),
                "write_address": In(bits_for(bank.depth)),
                "write_data": In(row),
                "write_enable": In(bank.words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bank = self.bank
        in_luts = [
            w for w in range(bank.words) if (w + 1) * bank.lut_words // bank.words > w * bank.lut_words // bank.words
        ]
        in_blocks = [word for word in range(bank.words) if word not in in_luts]
        if in_blocks and is_instance(bank, platform):
            for name, block in self._ecp5(m, in_blocks):
                m.submodules[name] = block
        elif in_blocks:
            self._in_blocks(m, in_blocks)
        if in_luts:
            self._in_luts(m, in_luts)
        return m

    def _of(self, value, words):
        """Some words of a row."""
        if len(words) == self.bank.words:
            return value
        return Cat(value.word_select(word, self.bank.width) for word in words)

    def _in_blocks(self, m, words):
        """Words in a memory for which synthesis finds block RAM, with its register after it."""
        bank = self.bank
        memory = self._memory(m, "memory", "block", words)
        write, read = self._write_port(memory, words), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self._of(self.write_data, words)),
            write.en.eq(self._enables(words)),
            read.en.eq(~self.hold),
        ]
        if bank.kind == "single_port":
            writes = self.write_enable.any()
            address = Mux(writes, self.write_address, self.read_address)
            m.d.comb += [write.addr.eq(address), read.addr.eq(address), read.en.eq(~self.hold & ~writes)]
        elif bank.kind == "late":
            m.d.comb += read.addr.eq(self._held(m, self.read_address, "address"))
        else:
            m.d.comb += read.addr.eq(self.read_address)
        row = read.data if bank.kind == "late" else self._held(m, read.data, "stored")
        m.d.comb += self._of(self.read_data, words).eq(row)

    def _in_luts(self, m, words):
        """Words in LUT RAM, or in flip-flops where there is one row: a register before them, and none right after."""
        width = self.bank.width
        enables = self._later(m, self._enables(words), "write_enable")
        data = self._later(m, self._of(self.write_data, words), "write_data")
        if self.bank.depth == 1:
            row = Signal(len(words) * width, reset_less=True)
            for i in range(len(words)):
                with m.If(enables[i]):
                    m.d.sync += row.word_select(i, width).eq(data.word_select(i, width))
        else:
            memory = self._memory(m, "lut_memory", "distributed", words)
            write, read = self._write_port(memory, words), memory.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(self._later(m, self.write_address, "write_address")),
                write.data.eq(data),
                write.en.eq(enables),
                read.addr.eq(self._held(m, self.read_address, "address")),
            ]
            row = self._held(m, read.data, "stored")
        m.d.comb += self._of(self.read_data, words).eq(row)

    def _memory(self, m, name, style, words):
        # A memory of one row would have an address of no bits, which Verilog lacks.
        contents = MemoryData(shape=len(words) * self.bank.width, depth=max(self.bank.depth, 2), init=[])
        m.submodules[name] = memory = Memory(contents, attrs={"ram_style": style})
        return memory

    def _write_port(self, memory, words):
        return memory.write_port(granularity=self.bank.width if len(words) > 1 else None)

    def _enables(self, words):
        """The write enables of some words."""
        return Cat(self.write_enable[word] for word in words)

    def _ecp5(self, m, words):
        """Blocks which port A writes and port B reads, of some words, and their names. Where they have too few rows,
        there are several pages of them, side by side."""
        bank = self.bank
        width, _ = port(len(words), bank.width, bank.depth, "ecp5")
        low_bits = (width // BYTE - 1).bit_length() + 3
        row_bits = ADDRESS_BITS - low_bits
        pages = range(-(-bank.depth >> row_bits))
        address, row_in = self.write_address, self.write_data
        writes = [
            [enable if len(pages) == 1 else enable & (address[row_bits:] == page) for page in pages]
            for enable in self.write_enable
        ]
        if len(pages) > 1 and bank.loader:
            writes = [[self._later(m, bit, "write_enable") for bit in bits] for bits in writes]
            address = self._later(m, address[:row_bits], "write_address")
            row_in = self._later(m, row_in, "write_data")
        columns = [  # of each byte: its word, its page, its bits in the row
            (word, page, range(word * bank.width + low, word * bank.width + min(low + BYTE, bank.width)))
            for word in words
            for page in pages
            for low in range(0, bank.width, BYTE)
        ]
        stored = [Signal(len(self.read_data), name=f"stored_{page}") for page in pages]
        per_block = width // BYTE
        kind = "page" if len(pages) > 1 and bank.words == 1 else "block"
        for number, first in enumerate(range(0, len(columns), per_block)):
            enables, data_in, data_out = [], [], []
            for word, page, bits in columns[first : first + per_block]:
                enables.append(writes[word][page])
                data_in += [row_in[bit] for bit in bits]
                data_out += [stored[page][bit] for bit in bits]
                unused = BYTE - len(bits)
                data_in += [Const(0)] * unused
                data_out += [Signal() for _ in range(unused)]
            block = self._dp16kd(width, low_bits, enables, address[:row_bits], data_in, data_out)
            yield f"{kind}_{number}", block
        if len(pages) > 1:
            page, chosen = Signal(range(len(pages))), Signal(len(pages))
            with m.If(~self.hold):
                m.d.sync += [page.eq(self.read_address[row_bits:]), chosen.eq(1 << page)]
            stored = [Mux(chosen[page], row, 0) for page, row in enumerate(stored)]
        row = reduce(or_, stored)
        m.d.comb += [self.read_data[bit].eq(row[bit]) for _, page, bits in columns if page == 0 for bit in bits]

    def _later(self, m, value, name):
        """A value, a cycle later."""
        later = Signal(len(value), name=f"later_{name}", reset_less=True)
        m.d.sync += later.eq(value)
        return later

    def _held(self, m, value, name):
        """A value, a cycle later, but while ``hold`` is high."""
        held = Signal(len(value), name=name, reset_less=True)
        with m.If(~self.hold):
            m.d.sync += held.eq(value)
        return held

    def _dp16kd(self, width, low_bits, enables, write, data_in, data_out):
        """A block of which port A writes and port B reads rows of ``width`` bits: bytes with an ``enable`` each."""
        half = 18
        row_bits = ADDRESS_BITS - low_bits
        data_in = Cat(data_in)
        read = self.read_address[:row_bits]
        above = Const(0, row_bits - len(write))
        # A single byte has no enable in the address.
        in_address = Cat(*enables, Const(0, low_bits - len(enables))) if width > BYTE else Const(0, low_bits)
        ports = {
            "ADA": Cat(in_address, write, above),
            "ADB": Cat(Const(0, low_bits), read, above),
            "DIA": Cat(data_in[:half], Const(0, half - len(data_in[:half]))),
            "DIB": Cat(data_in[half:], Const(0, half - len(data_in[half:]))),
            **{f"CS{name}": Const(0, 3) for name in "AB"},
        }
        inputs = {f"i_{name}{i}": bit for name, value in ports.items() for i, bit in enumerate(value)}
        names = [f"o_DO{name}{i}" for name in ("AB" if width > half else "B") for i in range(half)]
        return Instance(
            "DP16KD",
            p_DATA_WIDTH_A=width,
            p_DATA_WIDTH_B=width,
            p_REGMODE_A="OUTREG",
            p_REGMODE_B="OUTREG",
            p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC",
            p_CSDECODE_A="0b000",
            p_CSDECODE_B="0b000",
            p_GSR="DISABLED",
            i_CLKA=ClockSignal(),
            i_CLKB=ClockSignal(),
            i_CEA=Const(1),
            i_CEB=~self.hold,
            i_OCEA=~self.hold,
            i_OCEB=~self.hold,
            i_WEA=Const(1) if width > BYTE else enables[0],
            i_WEB=Const(0),
            i_RSTA=Const(0),
            i_RSTB=Const(0),
            **inputs,
            **dict(zip(names, data_out, strict=False)),
        )
