"""The core's ports and registers in words, for whoever puts the Verilog into a design of their own."""

from amaranth.hdl import Shape
from amaranth.lib.wiring import Flow

from catgrad_hw.gateware.axi import axi_ports
from catgrad_hw.gateware.core import core_signature
from catgrad_hw.gateware.registers import READ_CYCLES, Command, DataMode, Register
from catgrad_hw.schedule.program import Program

MEANING = {
    "samples": "sample after sample, each all words of x and then all words of y",
    "parameters": "all parameters in flat order, over and over",
    "results": "the words that a read command asked for, sign-extended",
    "bus": f"the registers; read data are valid {READ_CYCLES} cycles after the address",
}

REGISTERS = {
    Register.IDENTITY_LOW: "low half of the design's identity",
    Register.IDENTITY_HIGH: "high half of the design's identity",
    Register.STATUS: "bit 0: busy; bit 1: waiting for samples",
    Register.COMMAND: "; ".join(f"{c.value} {c.name.lower().replace('_', ' ')}" for c in Command)
    + " (write only; ignored while busy)",
    Register.COUNT: "steps that the next step command runs (ignored while it runs)",
    Register.CYCLES: "cycles of the last run, from its start to the earliest start of the next",
    Register.KEY: "random key of the next step; 0 where nothing is rounded at random",
    Register.STEPS: "steps done since reset",
    Register.DATA_MODE: "; ".join(f"{mode.value} {mode.name.lower()}" for mode in DataMode),
}


AXI_MEANING = {
    "s_axi": "AXI4-Lite: the registers, written 32 bits at a time (`SLVERR` otherwise)",
    "s_axis_samples": f"AXI4-Stream: {MEANING['samples']}; each word in the low bits",
    "s_axis_parameters": f"AXI4-Stream: {MEANING['parameters']}; each word in the low bits",
    "m_axis_results": f"AXI4-Stream: {MEANING['results']}; `tlast` with the last of them",
}


def _row(name, flow, shape, meaning):
    shape = Shape.cast(shape)
    direction = "in" if flow is Flow.In else "out"
    return f"| `{name}` | {direction} | {shape.width}{', signed' if shape.signed else ''} | {meaning} |"


def _plain_ports(program: Program):
    yield _row("clk", Flow.In, 1, "clock, rising edge")
    yield _row("rst", Flow.In, 1, "synchronous reset, active high")
    for path, port in core_signature(program).members.flatten():
        if port.is_port:
            yield _row("__".join(map(str, path)), port.flow, port.shape, MEANING[path[0]])


def _axi_ports(program: Program):
    ports = axi_ports(program)
    yield _row("aclk", Flow.In, 1, "clock, rising edge")
    yield _row("aresetn", Flow.In, 1, "synchronous reset, active low")
    for name, port in ports.items():
        interface = name.rpartition("_")[0]
        if interface:
            yield _row(name, port.flow, port.shape, AXI_MEANING[interface])


PORTS = {"plain": _plain_ports, "axi": _axi_ports}
"""By bus: the rows of the table of ports."""


def port_list(program: Program, bus: str = "plain") -> str:
    """Two Markdown tables: ports and registers."""
    rows = ["## Ports", "", "| port | direction | bits | meaning |", "|---|---|---|---|", *PORTS[bus](program)]
    scale = 4 if bus == "axi" else 1  # AXI counts bytes
    rows += ["", "## Registers", "", "| address | name | meaning |", "|---|---|---|"]
    rows += [f"| {scale * r} | {r.name.lower()} | {meaning} |" for r, meaning in REGISTERS.items()]
    for index, name in enumerate(program.counters):
        address = scale * (Register.SATURATIONS + index)
        rows.append(f"| {address} | saturations | words of `{name}` that were clamped |")
    return "\n".join([*rows, ""])
