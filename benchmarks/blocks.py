"""Multipliers and block RAM, predicted and as Yosys maps them: five designs on ECP5, and the small one on iCE40.

``python -m benchmarks.blocks [NAME...]`` synthesises one design after the other, as far as memories are mapped, and
prints the count of multipliers and that of every memory. It ends with 1 where a prediction is wrong.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.schedule.memory import BLOCK, Family, memories
from catgrad_hw.simulate import tools
from catgrad_hw.workload import load_workload


@dataclass(frozen=True)
class Design:
    """What to synthesise: a built-in model, and arguments of :func:`compile_hardware`."""

    model: str
    lanes: int
    family: Family = "ecp5"
    options: Mapping[str, Any] = field(default_factory=dict)

    def compile(self) -> Hardware:
        """The hardware."""
        return compile_hardware(load_workload(self.model), self.lanes, **self.options)


DESIGNS = {
    "hidden-4": Design("iris-hidden", 4, options={"numbers": "18"}),
    "hidden-8": Design("iris-hidden", 8),
    "linear-16": Design("iris-linear", 16),
    "hidden-4-tiled": Design("iris-hidden", 4, options={"memory": 100}),
    "digits-8": Design("digits-mlp", 8, options={"numbers": "18"}),
    "hidden-4-tiled-ice40": Design("iris-hidden", 4, "ice40", {"memory": 100}),
}


def run_yosys(script: str, directory: Path) -> None:
    """Run a Yosys script in ``directory``."""
    path = tools.yosys().require()
    subprocess.run([path, "-q", "-p", script], cwd=directory, check=True, capture_output=True)


MULTIPLIER: dict[Family, str] = {"ecp5": "MULT18X18D", "ice40": "SB_MAC16"}
"""The cell that multiplies."""

FLAGS: dict[Family, str] = {"ecp5": "", "ice40": "-dsp"}
"""What Yosys needs to be told before it uses such cells."""


def mapped(hardware: Hardware, family: Family) -> tuple[int, dict[str, int]]:
    """As Yosys maps them: multipliers, and the block RAMs of each memory by the name of a bank, table, or else cell."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "core.v").write_text(hardware.verilog())
        kinds = {"memories": BLOCK[family].name, "multipliers": MULTIPLIER[family]}
        lists = "; ".join(f"tee -q -o {name} select -list t:{kind}" for name, kind in kinds.items())
        synthesis = f"synth_{family} {FLAGS[family]} -top core -run :map_ffram"
        run_yosys(f"read_verilog -sv core.v; {synthesis}; {lists}", directory)
        found = (directory / "memories").read_text().split()
        multipliers = len((directory / "multipliers").read_text().split())
    memory = re.compile(r"^core/(?:bank_(\w+)\.memory|slow_path\.table_\d+_\d+\.(\w+)|(counters)\.memory)[.\d]*$")
    return multipliers, dict(Counter(memory.sub(r"\1\2\3", cell) for cell in found))


def predicted(hardware: Hardware, family: Family) -> dict[str, int]:
    """The block RAMs of each memory as the scheduler counts them."""
    return {memory.name: count for memory in memories(hardware.program) if (count := memory.blocks(family))}


def main() -> int:
    """Print predictions and counts."""
    wrong = 0
    for name in sys.argv[1:] or DESIGNS:
        design = DESIGNS[name]
        hardware = design.compile()
        expected = predicted(hardware, design.family)
        multipliers, found = mapped(hardware, design.family)
        data = {memory.name for memory in memories(hardware.program) if memory.data_set}
        outside = sum(count for memory, count in found.items() if memory not in data)
        print(
            f"{name}: {design.model}, {design.lanes} lanes, {design.family}: "
            f"multipliers: predicted {hardware.multipliers}, Yosys {multipliers}; "
            f"block RAMs: predicted {sum(expected.values())}, Yosys {sum(found.values())}, "
            f"{outside} without the data set"
        )
        for memory in sorted(expected | found):
            print(f"  {memory:20} {expected.get(memory, 0):4} {found.get(memory, 0):4}", flush=True)
        wrong += (hardware.multipliers, expected) != (multipliers, found)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
