"""One memory of the machine, with an output register."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.memory import Memory, MemoryData
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.tag import bits_for
from catgrad_hw.schedule.program import Bank

RAM_STYLE = {"block": "block", "late": "block", "distributed": "distributed", "single_port": "block"}


class BankMemory(Component):
    """``depth`` rows of ``words`` words.

    A row appears at ``read_data`` two cycles after its address is presented: the memory's own register and one more,
    which block RAMs have inside; ``hold`` keeps what is in both. A ``late`` bank has the other register at the address:
    its memory reads a cycle after the address is presented. ``write_enable`` has a bit for each word. No cycle may
    read and write one row; a ``single_port`` bank may not read and write in one cycle at all: a write then takes the
    port.
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
