"""The core's ports and registers in words, for whoever puts the Verilog into a design of their own."""

from amaranth.hdl import Shape
from amaranth.lib.wiring import Flow

from catgrad_hw.gateware.core import core_signature
from catgrad_hw.gateware.registers import Command, DataMode, Register
from catgrad_hw.schedule.program import Program

MEANING = {
    "samples": "sample after sample, each all words of x and then all words of y",
    "parameters": "all parameters in flat order, over and over",
    "results": "the words that a read command asked for, sign-extended",
    "bus": "the registers; read data are valid in the cycle after the address",
}

REGISTERS = {
    Register.IDENTITY_LOW: "low half of the design's identity",
    Register.IDENTITY_HIGH: "high half of the design's identity",
    Register.STATUS: "bit 0: busy; bit 1: waiting for samples",
    Register.COMMAND: "; ".join(f"{c.value} {c.name.lower().replace('_', ' ')}" for c in Command)
    + " (write only; ignored while busy)",
    Register.COUNT: "steps that the next step command runs",
    Register.CYCLES: "cycles of the last run, from its start to the earliest start of the next",
    Register.KEY: "random key of the next step",
    Register.STEPS: "steps done since reset",
    Register.DATA_MODE: "; ".join(f"{mode.value} {mode.name.lower()}" for mode in DataMode),
}


def port_list(program: Program) -> str:
    """Two Markdown tables: ports and registers."""
    rows = ["## Ports", "", "| port | direction | bits | meaning |", "|---|---|---|---|"]
    rows += ["| `clk` | in | 1 | clock, rising edge |", "| `rst` | in | 1 | synchronous reset, active high |"]
    for path, port in core_signature(program).members.flatten():
        if port.is_signature:
            continue
        shape = Shape.cast(port.shape)
        direction = "in" if port.flow is Flow.In else "out"
        name = "__".join(map(str, path))
        kind = f"{shape.width}, signed" if shape.signed else f"{shape.width}"
        rows.append(f"| `{name}` | {direction} | {kind} | {MEANING[path[0]]} |")
    rows += ["", "## Registers", "", "| address | name | meaning |", "|---|---|---|"]
    rows += [f"| {r.value} | {r.name.lower()} | {meaning} |" for r, meaning in REGISTERS.items()]
    for index, name in enumerate(program.counters):
        rows.append(f"| {Register.SATURATIONS + index} | saturations | words of `{name}` that were clamped |")
    return "\n".join([*rows, ""])
