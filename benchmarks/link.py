"""LUTs of the link and the data set memory on the iCE40UP5K, by module: ``python -m benchmarks.link``.

For iris-hidden on 4 lanes at 45 MHz, its data set streamed, or in single-port RAM. By module the hierarchy is kept,
which costs some; the total is of the flattened link, as it is built.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from amaranth.back import rtlil

from catgrad_hw.boards.flow import GUARD
from catgrad_hw.gateware.link import LinkSettings
from catgrad_hw.gateware.link.link import Link
from catgrad_hw.hardware import compile_hardware
from catgrad_hw.schedule.program import Program
from catgrad_hw.simulate import tools
from catgrad_hw.workload import load_workload

CLOCK_HZ = 45_000_000


def luts(program: Program, words: int, *, flat: bool) -> dict[str, int]:
    """SB_LUT4 by module, that of the top alone where it is flattened."""
    settings = LinkSettings(CLOCK_HZ, data_set_words=words, data_set_kind="spram")
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "link.il").write_text(rtlil.convert(Link(program, settings), name="link", emit_src=False))
        script = f"read_rtlil link.il; synth_ice40 -dsp {'' if flat else '-noflatten'} -top link; tee -o stat.txt stat"
        command = [str(tools.yosys().require()), "-q", "-l", "log.txt", *GUARD, "-p", script]
        subprocess.run(command, cwd=name, check=True, capture_output=True)
        text = (Path(name) / "stat.txt").read_text()
    modules = re.findall(r"^=== (\S+) ===$(.*?)(?=^===|\Z)", text, re.MULTILINE | re.DOTALL)
    found = {module.removeprefix("link."): re.findall(r"(\d+)\s+SB_LUT4", part) for module, part in modules}
    return {module: int(counts[0]) for module, counts in found.items() if counts and module != "design"}


def main() -> None:
    tools.use_yosys()
    workload = load_workload("iris-hidden")
    program = compile_hardware(workload, 4, resident=False).program
    for title, words in (("streamed", 0), ("data set", workload.x.size + workload.y.size)):
        (total,) = luts(program, words, flat=True).values()
        parts = ", ".join(f"{module} {count}" for module, count in luts(program, words, flat=False).items())
        print(f"{title}: {total} SB_LUT4 ({parts})")


if __name__ == "__main__":
    main()
