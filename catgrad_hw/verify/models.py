"""Models of a family's cells: Yosys' where it has them, else our own, which reports name as such."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from catgrad_hw.schedule.memory import Family
from catgrad_hw.simulate import tools

OWN = Path(__file__).parent / "cells"
FILES: dict[Family, tuple[str, ...]] = {
    "ice40": ("ice40.v",),
    "ecp5": ("ecp5.v", "block_ram.v"),
    "gowin": ("gowin.v", "block_ram.v"),
}
"""Our own, by family."""


@dataclass(frozen=True)
class Models:
    """Verilog of a family's cells. ``own`` names the modules that we wrote ourselves."""

    verilog: str
    own: frozenset[str]


def models(family: Family) -> Models:
    """All cells of ``family``: Yosys' ``cells_sim.v``, in which our own replace those of the same name.

    Raises:
        ToolError: no usable Yosys.
    """
    own = "\n".join((OWN / name).read_text() for name in FILES[family])
    names = frozenset(re.findall(r"^module (\w+)", own, re.MULTILINE))
    text = _included(tools.cell_models() / family / "cells_sim.v")
    for name in names:
        text = re.sub(rf"^module {name}\b.*?^endmodule", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^`timescale.*$", "", text, flags=re.MULTILINE)  # the bench gives it
    # Two-valued simulators know no open input: the netlist ties them.
    text = re.sub(r"\((\w+) === 1'bz\) \? 1'b[01] : \1\b", r"\1", text)
    text = re.sub(r"\b(\w+) \|\| \1 === 1'bz", r"\1", text)
    # What NO_INCLUDES leaves out are the cells of another tool.
    return Models(f"`define NO_INCLUDES\n{own}\n{text}", names)


def _included(path: Path) -> str:
    """A file with what it includes by name, one level deep."""
    return re.sub(r'^`include "(.*?)"$', lambda m: path.with_name(m[1]).read_text(), path.read_text(), flags=re.M)
