"""Damage to a netlist, to see that a comparison with it can fail: the negative control of every level.

It is done to the cells of the level: those of synthesis, or as place-and-route left them; for the bitstream to the
configuration of those cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from catgrad_hw.errors import ToolError
from catgrad_hw.verify.netlist import Damage

LUT_TABLES = {"SB_LUT4": "LUT_INIT", "ICESTORM_LC": "LUT_INIT", "LUT4": "INIT", "LUT3": "INIT", "LUT2": "INIT",
              "TRELLIS_COMB": "INITVAL"}  # fmt: skip
"""LUTs, and the parameter that holds their table."""

CONTENTS = {"SB_RAM40_4K": "INIT_", "ICESTORM_RAM": "INIT_", "DP16KD": "INITVAL_", "SPX9": "INIT_RAM_",
            "SDPX9B": "INIT_RAM_", "DPX9B": "INIT_RAM_", "SP": "INIT_RAM_", "SDPB": "INIT_RAM_",
            "DPB": "INIT_RAM_"}  # fmt: skip
"""Block RAMs, and what the parameters of their contents begin with."""


def invert_lut(netlist: dict[str, Any]) -> None:
    """Invert the table of a LUT of the first lane: of its multiplier, or on the way to it, if there is any."""
    cells = netlist["modules"]["top"]["cells"]
    for name in sorted(cells, key=lambda name: (".multiplier" not in name, name)):
        cell = cells[name]
        table = cell["parameters"].get(LUT_TABLES.get(cell["type"], ""))
        if table and name.startswith("device.core.lane_0.") and _inputs(cell) > 1:
            cell["parameters"][LUT_TABLES[cell["type"]]] = _inverted(table)
            return
    raise ToolError("--break lut: expected a LUT in the first lane, found none")


def invert_block_ram(netlist: dict[str, Any]) -> None:
    """Invert some words of a block RAM's contents: those of the first that has any."""
    cells = netlist["modules"]["top"]["cells"]
    for name in sorted(cells):
        cell = cells[name]
        prefix = CONTENTS.get(cell["type"])
        if prefix is None:
            continue
        for key, value in cell["parameters"].items():
            if key.startswith(prefix) and "1" in value:
                cell["parameters"][key] = _inverted(value)
                return
    raise ToolError("--break block-ram: expected block RAM with contents, found none")


def _inputs(cell: dict[str, Any]) -> int:
    """Inputs of a LUT that signals drive; there is one where place-and-route only leads through it."""
    pins = (bits for pin, bits in cell["connections"].items() if re.fullmatch(r"I\d|[A-D]", pin))
    return sum(isinstance(bit, int) for bits in pins for bit in bits)


def _inverted(bits: str) -> str:
    return bits.translate(str.maketrans("01", "10"))


DAMAGES: Mapping[str, Damage] = {"lut": invert_lut, "block-ram": invert_block_ram}
