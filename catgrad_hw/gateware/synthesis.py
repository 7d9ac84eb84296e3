"""How Yosys is to read and synthesise the core's Verilog: one recipe for every user of it."""

from __future__ import annotations

from typing import Literal, TypeAlias

Family: TypeAlias = Literal["up5k", "ice40", "ecp5", "gowin"]

GUARD = ("-e", "Driver-driver.conflict")
"""Options of Yosys that stop it where it would resolve a net with two drivers to a constant, and go on."""

FAMILIES: dict[Family, str] = {
    "up5k": "synth_ice40 -device u -dsp -no-rw-check",
    "ice40": "synth_ice40 -device hx -no-rw-check",
    "ecp5": "synth_ecp5 -no-rw-check",
    "gowin": "synth_gowin -no-rw-check",
}


def synthesis_script(family: Family, file: str, top: str) -> str:
    """Commands that read ``file`` and synthesise ``top``."""
    return f"read_verilog {file}; {FAMILIES[family]} -top {top}"
