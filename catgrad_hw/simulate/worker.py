"""Builds a simulation, or runs one, in a process of its own: cocotb's runner wants to own the environment.

``python -m catgrad_hw.simulate.worker build BENCH SIMULATOR DIRECTORY VERILOG [waves] [quick]`` and
``... run BENCH SIMULATOR DIRECTORY [WAVES]``: VERILOG is what to build, WAVES the file to write; BENCH one of
``BENCHES``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cocotb_tools.runner import VerilatorControlFile, get_runner

from catgrad_hw.simulate.driver import INPUTS, OUTPUTS

TIMESCALE = ("1ns", "1ps")


@dataclass(frozen=True)
class Bench:
    """The top module, its ports that the bench uses, and the module of the bench."""

    top: str
    ports: tuple[str, ...]
    module: str


BENCHES = {
    "core": Bench("core", ("clk", *INPUTS, *OUTPUTS), "catgrad_hw.simulate.bench"),
    "board": Bench("device", ("clk", "rst", "rx", "tx", "training"), "catgrad_hw.simulate.board_bench"),
}

QUICK = ("OPT_FAST=-O0", "VM_PARALLEL_BUILDS=0")
"""Variables of Verilator's makefile: the C++ compiler does not optimise, and reads its headers once."""


def build(bench: Bench, simulator: str, directory: Path, source: Path, *, waves: bool, quick: bool) -> None:
    """Compile ``source`` into ``directory``."""
    sources: list[Path | VerilatorControlFile] = [source]
    if simulator == "verilator":
        # cocotb makes every signal writable from outside, which triples the time of a cycle: the ports are enough.
        ports = source.with_suffix(".vlt")
        lines = [f'public_flat_rw -module "{bench.top}" -var "{name}"' for name in bench.ports]
        ports.write_text("\n".join(["`verilator_config", *lines, ""]))
        sources.append(VerilatorControlFile(ports))
        if quick:
            os.environ["MAKEFLAGS"] = " ".join([os.environ.get("MAKEFLAGS", ""), *QUICK])
        arguments = ["-Wno-fatal", "-Wno-lint", "-O3", "--no-public-flat-rw"]
    else:
        # Under -g2012 Icarus can leave Yosys-written `always @*` blocks undefined from time 0; the last -g wins.
        arguments = ["-g2005"]
    get_runner(simulator).build(
        sources=sources,
        hdl_toplevel=bench.top,
        build_dir=directory,
        build_args=arguments,
        timescale=TIMESCALE,
        waves=waves,
        always=True,
    )


def run(bench: Bench, simulator: str, directory: Path, waves: Path | None) -> None:
    """Run the bench on the simulation in ``directory``; the current directory takes what the simulator writes."""
    if simulator == "verilator":
        # It delays what is written until the edge is over, as cocotb would do at the price of a callback each cycle.
        os.environ["COCOTB_TRUST_INERTIAL_WRITES"] = "1"
    get_runner(simulator).test(
        test_module=bench.module,
        hdl_toplevel=bench.top,
        hdl_toplevel_lang="verilog",
        build_dir=directory,
        test_dir=Path.cwd(),
        timescale=TIMESCALE,
        test_args=["--trace", "--trace-file", str(waves)] if waves else [],
    )


def main(arguments: list[str]) -> None:
    action, name, simulator, directory, *rest = arguments
    bench = BENCHES[name]
    if action == "build":
        options = rest[1:]
        build(bench, simulator, Path(directory), Path(rest[0]), waves="waves" in options, quick="quick" in options)
    else:
        run(bench, simulator, Path(directory), Path(rest[0]) if rest else None)


if __name__ == "__main__":
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # the runner would change what it does under pytest
    main(sys.argv[1:])
