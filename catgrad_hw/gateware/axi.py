"""The core behind AMBA AXI: streams for words, AXI4-Lite for the registers.

Protocols: Arm IHI 0022 (AXI4-Lite) and IHI 0051 (AXI4-Stream). No output depends on an input within a cycle.
"""

from math import prod

from amaranth.hdl import ClockDomain, Module, Mux, Shape, Signal
from amaranth.lib import enum
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw.gateware.core import BUS_ADDRESS_BITS, Core, core_signature
from catgrad_hw.gateware.registers import READ_CYCLES, Command, Register
from catgrad_hw.schedule.program import Program

OKAY, SLVERR = 0b00, 0b10
"""Responses: done; refused, nothing was written (a write of less than a whole register)."""

PREFIX = {"samples": "s_axis_samples", "parameters": "s_axis_parameters", "results": "m_axis_results"}
"""The AXI4-Stream interface of each of the core's streams."""

LITE = {
    "awaddr": In(BUS_ADDRESS_BITS + 2),
    "awprot": In(3),
    "awvalid": In(1),
    "awready": Out(1),
    "wdata": In(32),
    "wstrb": In(4),
    "wvalid": In(1),
    "wready": Out(1),
    "bresp": Out(2),
    "bvalid": Out(1),
    "bready": In(1),
    "araddr": In(BUS_ADDRESS_BITS + 2),
    "arprot": In(3),
    "arvalid": In(1),
    "arready": Out(1),
    "rdata": Out(32),
    "rresp": Out(2),
    "rvalid": Out(1),
    "rready": In(1),
}
"""AXI4-Lite, in the order of its channels. An address counts bytes: that of a register is four times its number."""


def data_width(bits):
    """Bits of ``tdata`` for words of ``bits``: the next power of two, from 8 on, as memory holds such words."""
    return max(8, 1 << (bits - 1).bit_length())


def axi_ports(program: Program):
    """The ports of :class:`AxiCore`, in order: name to direction and shape."""
    ports = {"aclk": In(1), "aresetn": In(1), **{f"s_axi_{name}": port for name, port in LITE.items()}}
    for name, prefix in PREFIX.items():
        member = core_signature(program).members[name]
        out, back = (Out, In) if member.flow is Out else (In, Out)
        width = data_width(Shape.cast(member.signature.members["payload"].shape).width)
        ports |= {f"{prefix}_tdata": out(width), f"{prefix}_tvalid": out(1), f"{prefix}_tready": back(1)}
        if out is Out:
            ports[f"{prefix}_tlast"] = Out(1)
    return ports


class State(enum.Enum):
    """Of the AXI4-Lite slave."""

    IDLE = 0
    WRITE = 1  # address and data are taken, the register is written
    RESPOND = 2
    FETCH = 3  # the core is asked
    READ = 4  # it answers, and the address is taken
    ANSWER = 5


class AxiCore(Component):
    """A :class:`Core` with AXI4-Stream and AXI4-Lite ports, and clock and reset of their own.

    ``s_axi``: the registers, one access at a time, a write in 3 cycles and a read in 10; where both wait, they
    alternate. ``s_axis_samples`` and ``s_axis_parameters``: words in the low bits of ``tdata``. ``m_axis_results``:
    words sign-extended to ``tdata``, ``tlast`` with the last of what a command asked for. ``aresetn`` is synchronous
    to ``aclk``.
    """

    def __init__(self, program: Program):
        super().__init__(axi_ports(program))
        self.program = program

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = domain = ClockDomain()
        m.d.comb += [domain.clk.eq(self.aclk), domain.rst.eq(~self.aresetn)]
        m.submodules.core = core = Core(self.program)
        self._registers(m, core)
        for name, prefix in PREFIX.items():
            inner = getattr(core, name)
            data, valid, ready = (getattr(self, f"{prefix}_{part}") for part in ("tdata", "tvalid", "tready"))
            if name == "results":
                m.d.comb += [data.eq(inner.payload), valid.eq(inner.valid), inner.ready.eq(ready)]
            else:
                m.d.comb += [inner.payload.eq(data), inner.valid.eq(valid), ready.eq(inner.ready)]
        self._mark_last(m, core)
        return m

    def _registers(self, m, core):
        """The AXI4-Lite slave."""
        state = Signal(State)
        wrote = Signal()  # the last access was a write: a read that waits comes first
        waited = Signal(range(READ_CYCLES))
        writable = self.s_axi_wstrb.all()
        m.d.comb += [
            core.bus.address.eq(Mux(state == State.WRITE, self.s_axi_awaddr[2:], self.s_axi_araddr[2:])),
            core.bus.write_data.eq(self.s_axi_wdata),
            core.bus.write_enable.eq((state == State.WRITE) & writable),
            self.s_axi_awready.eq(state == State.WRITE),
            self.s_axi_wready.eq(state == State.WRITE),
            self.s_axi_bvalid.eq(state == State.RESPOND),
            self.s_axi_arready.eq(state == State.READ),
            self.s_axi_rvalid.eq(state == State.ANSWER),
            self.s_axi_rresp.eq(OKAY),
        ]
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.s_axi_arvalid & (wrote | ~(self.s_axi_awvalid & self.s_axi_wvalid))):
                    m.d.sync += [state.eq(State.FETCH), wrote.eq(0)]
                with m.Elif(self.s_axi_awvalid & self.s_axi_wvalid):
                    m.d.sync += [state.eq(State.WRITE), wrote.eq(1)]
            with m.Case(State.WRITE):
                m.d.sync += [self.s_axi_bresp.eq(Mux(writable, OKAY, SLVERR)), state.eq(State.RESPOND)]
            with m.Case(State.RESPOND):
                with m.If(self.s_axi_bready):
                    m.d.sync += state.eq(State.IDLE)
            with m.Case(State.FETCH):
                m.d.sync += waited.eq(waited + 1)
                with m.If(waited == READ_CYCLES - 1):
                    m.d.sync += state.eq(State.READ)
            with m.Case(State.READ):
                m.d.sync += [self.s_axi_rdata.eq(core.bus.read_data), waited.eq(0), state.eq(State.ANSWER)]
            with m.Case(State.ANSWER):
                with m.If(self.s_axi_rready):
                    m.d.sync += state.eq(State.IDLE)

    def _mark_last(self, m, core):
        """``tlast``: the words left of a read command, which the core takes only while it takes parameters, too."""
        program = self.program
        (output,) = program.outputs
        parameters = sum(prod(program.placements[name].shape) for name in program.parameters)
        predictions = program.batch * prod(program.placements[output].shape[1:])
        left = Signal(range(max(parameters, predictions)), init=predictions - 1)
        m.d.comb += self.m_axis_results_tlast.eq(left == 0)
        with m.If(self.m_axis_results_tvalid & self.m_axis_results_tready):
            m.d.sync += left.eq(Mux(left == 0, predictions - 1, left - 1))
        if program.predicts_only:  # it sends predictions alone, and is never asked
            return
        with m.If(core.bus.write_enable & (core.bus.address == Register.COMMAND) & core.parameters.ready):
            with m.Switch(core.bus.write_data):
                with m.Case(Command.READ_PARAMETERS):
                    m.d.sync += left.eq(parameters - 1)
                with m.Case(Command.READ_PREDICTIONS):
                    m.d.sync += left.eq(predictions - 1)
