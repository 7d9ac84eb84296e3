"""Builds a simulation, or runs one, in a process of its own: cocotb's runner wants to own the environment.

``python -m catgrad_hw.simulate.worker build|run BENCH SIMULATOR DIRECTORY [FILE]``: FILE is the Verilog to build, or
the waves to write; BENCH one of ``BENCHES``.
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
    """The top module, its ports that the bench uses, and the module of the bench.

    ``quick_build``: compiling takes longer than simulating, so that the C++ compiler had better not optimise.
    """

    top: str
    ports: tuple[str, ...]
    module: str
    quick_build: bool = False


BENCHES = {
    "core": Bench("core", ("clk", *INPUTS, *OUTPUTS), "catgrad_hw.simulate.bench"),
    "board": Bench("device", ("clk", "rst", "rx", "tx", "training"), "catgrad_hw.simulate.board_bench"),
    "netlist": Bench("device", ("clk", "rst", "rx", "tx", "training"), "catgrad_hw.simulate.board_bench", True),
}


def build(bench: Bench, simulator: str, directory: Path, source: Path, waves: bool) -> None:
    """Compile ``source`` into ``directory``."""
    sources: list[Path | VerilatorControlFile] = [source]
    if simulator == "verilator":
        # cocotb makes every signal writable from outside, which triples the time of a cycle: the ports are enough.
        ports = source.with_suffix(".vlt")
        lines = [f'public_flat_rw -module "{bench.top}" -var "{name}"' for name in bench.ports]
        ports.write_text("\n".join(["`verilator_config", *lines, ""]))
        sources.append(VerilatorControlFile(ports))
        if bench.quick_build:
            os.environ["MAKEFLAGS"] = f"{os.environ.get('MAKEFLAGS', '')} OPT_FAST=-O0"
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
        build(bench, simulator, Path(directory), Path(rest[0]), waves="waves" in rest[1:])
    else:
        run(bench, simulator, Path(directory), Path(rest[0]) if rest else None)


if __name__ == "__main__":
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # the runner would change what it does under pytest
    main(sys.argv[1:])
