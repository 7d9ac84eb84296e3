"""One memory of the machine, with an output register."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import bits_for
from catgrad_hw.schedule.program import Bank

RAM_STYLE = {"block": "block", "late": "block", "distributed": "distributed", "single_port": "block"}

BYTE, BYTES, DEPTH = 9, 4, 512
"""Of an ECP5's block RAM at its widest: bits for each write enable, such bytes, rows."""


def is_instance(bank: Bank, platform) -> bool:
    """Whether a bank is made of a platform's own cells."""
    return getattr(platform, "family", None) == "ecp5" and bank.kind == "block" and bank.depth <= DEPTH


class BankMemory(Component):
    """``depth`` rows of ``words`` words.

    A row appears at ``read_data`` two cycles after its address is presented: the memory's own register and one more,
    which block RAMs have inside; ``hold`` keeps what is in both. A ``late`` bank has the other register at the address:
    its memory reads a cycle after the address is presented. ``write_enable`` has a bit for each word. No cycle may
    read and write one row; a ``single_port`` bank may not read and write in one cycle at all: a write then takes the
    port. On an ECP5 the two registers of a ``block`` bank are those of its block RAMs (Lattice FPGA-TN-02204), where
    Yosys would leave the second outside.
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
        if is_instance(bank, platform):
            for number, block in enumerate(self._ecp5()):
                m.submodules[f"block_{number}"] = block
            return m
        # A memory of one row would have an address of no bits, which Verilog lacks.
        contents = MemoryData(shape=bank.words * bank.width, depth=max(bank.depth, 2), init=[])
        m.submodules.memory = memory = Memory(contents, attrs={"ram_style": RAM_STYLE[bank.kind]})
        write = memory.write_port(granularity=bank.width if bank.words > 1 else None)
        read = memory.read_port()
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            write.en.eq(self.write_enable),
        ]
        if bank.kind == "single_port":
            writing = self.write_enable.any()
            address = Mux(writing, self.write_address, self.read_address)
            m.d.comb += [write.addr.eq(address), read.addr.eq(address), read.en.eq(~writing & ~self.hold)]
        else:
            address = self.read_address
            if bank.kind == "late":
                address = Signal.like(self.read_address, reset_less=True)
                with m.If(~self.hold):
                    m.d.sync += address.eq(self.read_address)
            m.d.comb += [read.addr.eq(address), read.en.eq(~self.hold)]
        if bank.kind == "late":
            m.d.comb += self.read_data.eq(read.data)
        else:
            with m.If(~self.hold):
                m.d.sync += self.read_data.eq(read.data)
        return m

    def _ecp5(self):
        """Blocks of 512 rows of four bytes of 9 bits, which port A writes and port B reads."""
        bank = self.bank
        columns = [  # of each byte: its word, its bits in the row
            (word, range(word * bank.width + low, word * bank.width + min(low + BYTE, bank.width)))
            for word in range(bank.words)
            for low in range(0, bank.width, BYTE)
        ]
        for first in range(0, len(columns), BYTES):
            enables, data_in, data_out = [], [], []
            for word, bits in columns[first : first + BYTES]:
                enables.append(self.write_enable[word])
                data_in += [self.write_data[bit] for bit in bits]
                data_out += [self.read_data[bit] for bit in bits]
                unused = BYTE - len(bits)
                data_in += [Const(0)] * unused
                data_out += [Signal() for _ in range(unused)]
            enables += [Const(0)] * (BYTES - len(enables))
            data_in += [Const(0)] * (BYTES * BYTE - len(data_in))
            low_address = Const(0, 5)  # of a byte and its bits
            ports = {
                "ADA": Cat(*enables, Const(0), self.write_address, Const(0, 9 - len(self.write_address))),
                "ADB": Cat(low_address, self.read_address, Const(0, 9 - len(self.read_address))),
                "DIA": Cat(data_in[:18]),
                "DIB": Cat(data_in[18:]),
                **{f"CS{port}": Const(0, 3) for port in "AB"},
            }
            inputs = {f"i_{name}{i}": bit for name, value in ports.items() for i, bit in enumerate(value)}
            outputs = {f"o_DO{'AB'[i // 18]}{i % 18}": bit for i, bit in enumerate(data_out)}
            yield Instance(
                "DP16KD",
                p_DATA_WIDTH_A=36,
                p_DATA_WIDTH_B=36,
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
                i_WEA=Const(1),
                i_WEB=Const(0),
                i_RSTA=Const(0),
                i_RSTB=Const(0),
                **inputs,
                **outputs,
            )
