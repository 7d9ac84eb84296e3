"""What the core takes of an FPGA, and how fast it runs there.

``python -m benchmarks.resources MODEL --family up5k --lanes 4 --memory 100 --route`` synthesises the core as the
boards' bitstreams do, and prints look-up tables, flip-flops, block RAMs and multipliers. ``--route`` places and routes
it, behind shift registers that stand for the wide ports (their cells are counted apart), and prints Fmax and the
critical path; ``--breakdown`` tells which component of the hierarchy the look-up tables serve; ``--verilog FILE`` takes
a file that is there instead of compiling the model.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catgrad_hw.boards.flow import GUARD, synthesis_commands
from catgrad_hw.hardware import compile_hardware, compile_predictor
from catgrad_hw.schedule.memory import Family
from catgrad_hw.simulate import tools
from catgrad_hw.workload import load_workload


@dataclass(frozen=True)
class Device:
    """A device: its family's synthesis, and nextpnr's program and options."""

    family: Family
    chip: str
    nextpnr: str
    options: tuple[str, ...]
    multipliers: bool = True


ICE40 = ("--pcf-allow-unconstrained",)
ECP5 = ("--package", "CABGA381", "--speed", "6", "--lpf-allow-unconstrained")

DEVICES = {
    "up5k": Device("ice40", "iCE40UP5K", "ice40", ("--up5k", "--package", "sg48", *ICE40)),
    "hx8k": Device("ice40", "iCE40HX8K", "ice40", ("--hx8k", "--package", "ct256", *ICE40), False),
    "ecp5-25": Device("ecp5", "LFE5U-25F", "ecp5", ("--25k", *ECP5)),
    "ecp5-85": Device("ecp5", "LFE5U-85F", "ecp5", ("--85k", *ECP5)),
    "gw1n9": Device(
        "gowin", "GW1NR-9C", "himbaechel-gowin", ("--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C")
    ),
}

KINDS = {
    "LUT": ("SB_LUT4", "LUT4", "LUT1", "LUT2", "LUT3", "TRELLIS_COMB"),
    "carry": ("SB_CARRY", "CCU2C", "ALU"),
    "FF": ("SB_DFF", "TRELLIS_FF", "DFF"),
    "block RAM": ("SB_RAM40", "DP16KD", "PDPW16KD", "DPX9B", "SDPX9B", "SDPB", "DPB", "SPX9", "pROM"),
    "multiplier": ("SB_MAC16", "MULT18X18", "MULT9X9"),
}
"""Cells by the beginnings of their types."""


ROWS = 70
"""Lines of a breakdown."""


def kind_of(cell: str) -> str | None:
    """What ``cell`` is, of ``KINDS``."""
    return next((kind for kind, names in KINDS.items() if cell.startswith(names)), None)


def wrapper(ports: dict[str, Any]) -> str:
    """A module with few pins around ``core``: its inputs come from a shift register, its outputs go to one."""
    inputs = {n: len(p["bits"]) for n, p in ports.items() if p["direction"] == "input" and n not in ("clk", "rst")}
    outputs = {n: len(p["bits"]) for n, p in ports.items() if p["direction"] == "output"}
    bits_in, bits_out = sum(inputs.values()), sum(outputs.values())
    connections, at = [".clk(clk)", ".rst(reset)"], 0
    for name, bits in inputs.items():
        connections.append(f".{name}(inputs[{at} +: {bits}])")
        at += bits
    at = 0
    for name, bits in outputs.items():
        connections.append(f".{name}(outputs[{at} +: {bits}])")
        at += bits
    return f"""
module pins(input clk, input rst, input in, input load, output out);
  reg reset, serial, take;
  reg [{bits_in - 1}:0] inputs;
  reg [{bits_out - 1}:0] kept;
  wire [{bits_out - 1}:0] outputs;
  always @(posedge clk) begin
    reset <= rst; serial <= in; take <= load;
    inputs <= {{inputs, serial}};
    kept <= take ? outputs : kept >> 1;
  end
  assign out = kept[0];
  core core({", ".join(connections)});
endmodule
"""


def synthesised(directory: Path, text: str, device: Device, top: str) -> dict[str, Any]:
    """The flat netlist of ``top``, as Yosys writes it."""
    (directory / "design.v").write_text(text)
    checked = " -no-rw-check"  # the schedule was
    synthesis = synthesis_commands(device.family, device.chip, top, checked, multipliers=device.multipliers)
    script = "; ".join(["read_verilog design.v", *synthesis, f"write_json {top}.json"])
    command = [str(tools.yosys().require()), "-q", *GUARD, "-l", f"{top}.log", "-p", script]
    subprocess.run(command, cwd=directory, check=True)
    module: dict[str, Any] = json.loads((directory / f"{top}.json").read_text())["modules"][top]
    return module


def counts(module: dict[str, Any]) -> Counter[str]:
    """Cells by what they are."""
    return Counter(kind for cell in module["cells"].values() if (kind := kind_of(cell["type"])))


def breakdown(module: dict[str, Any], depth: int) -> Counter[str]:
    """Look-up tables by the component that they serve.

    A look-up table whose output has a name of the source belongs to that name's component; another to the component of
    most of the cells that it drives.
    """
    names: dict[int, str] = {}
    for name, net in module["netnames"].items():
        if name.startswith("$") or net.get("hide_name"):
            continue
        for bit in net["bits"]:
            if isinstance(bit, int) and (bit not in names or name.count(".") > names[bit].count(".")):
                names[bit] = name
    driver, sinks = {}, defaultdict(list)
    for name, cell in module["cells"].items():
        for port, bits in cell["connections"].items():
            for bit in bits:
                if cell["port_directions"][port] == "output":
                    driver[bit] = name
                else:
                    sinks[bit].append(name)
    place: dict[str, str] = {}

    def outputs(cell: dict[str, Any]) -> list[int]:
        return [b for p, bits in cell["connections"].items() if cell["port_directions"][p] == "output" for b in bits]

    def component(name: str) -> str:
        if name in place:
            return place[name]
        place[name] = ""  # for loops
        cell = module["cells"][name]
        found = [names[bit] for bit in outputs(cell) if bit in names]
        if found:
            path = found[0].split(".")
            path[-1] = re.sub(r"\W*_SB_.*|\$.*|[_\d]+$", "", path[-1])
            place[name] = ".".join(path[:depth])
        else:
            votes = Counter(component(sink) for bit in outputs(cell) for sink in sinks[bit])
            place[name] = votes.most_common(1)[0][0] if votes else "?"
        return place[name]

    sys.setrecursionlimit(100_000)
    luts = [name for name, cell in module["cells"].items() if kind_of(cell["type"]) == "LUT"]
    return Counter(component(name) for name in luts)


def route(directory: Path, device: Device, frequency: float, seed: int) -> dict[str, Any]:
    """nextpnr's report."""
    scripts = Path(sys.executable).parent
    command = [str(scripts / f"yowasp-nextpnr-{device.nextpnr}"), *device.options, "--json", "pins.json"]
    command += ["--freq", str(frequency), "--seed", str(seed), "--report", "report.json", "-q", "-l", "route.log"]
    if device.nextpnr != "ice40":
        command += ["--timing-allow-fail"] if device.nextpnr == "ecp5" else []
    else:
        command += ["--timing-allow-fail"]
    subprocess.run(command, cwd=directory, check=True, stderr=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads((directory / "report.json").read_text())
    return report


def critical_path(report: dict[str, Any]) -> str:
    """The slowest path between registers, a line for each step."""
    paths = [p for p in report["critical_paths"] if p["from"] == p["to"]]
    lines, total = [], 0.0
    for step in paths[0]["path"] if paths else []:
        total += step["delay"]
        source = step["from"]["cell"]
        target = step["to"]["cell"] if step["type"] == "routing" else ""
        lines.append(f"  {total:7.2f} {step['delay']:6.2f} {step['type']:8} {step.get('net', source)} {target}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, synthesise, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--family", choices=DEVICES, default="up5k")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--memory", type=float)
    parser.add_argument("--numbers", default=None)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--resident", action="store_true", help="keep the data set in the core")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--route", action="store_true")
    parser.add_argument("--breakdown", type=int, nargs="?", const=2, metavar="DEPTH")
    parser.add_argument("--frequency", type=float, default=50.0, help="MHz that nextpnr aims at")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verilog", type=Path)
    parser.add_argument("--keep", type=Path, help="the folder to work in, kept")
    arguments = parser.parse_args()
    device = DEVICES[arguments.family]
    if arguments.verilog:
        text = arguments.verilog.read_text()
    else:
        numbers = arguments.numbers or ("16" if device.nextpnr == "ice40" else "18")
        workload = load_workload(arguments.model)
        if arguments.batch:
            workload = workload.with_batch(arguments.batch)
        if arguments.predict:
            hardware = compile_predictor(workload, arguments.lanes, numbers=numbers)
        else:
            hardware = compile_hardware(
                workload, arguments.lanes, numbers=numbers, memory=arguments.memory, resident=arguments.resident
            )
            print(f"{hardware.cycles_per_step} cycles a step")
        text = hardware.verilog()
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        core = synthesised(directory, text, device, "core")
        print("core: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts(core).items())), flush=True)
        if arguments.breakdown:
            for name, count in breakdown(core, arguments.breakdown).most_common(ROWS):
                print(f"{count:6} {name}")
        if arguments.route:
            whole = synthesised(directory, text + wrapper(core["ports"]), device, "pins")
            print("with pins: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts(whole).items())))
            report = route(directory, device, arguments.frequency, arguments.seed)
            used = ", ".join(f"{c['used']}/{c['available']} {k}" for k, c in report["utilization"].items() if c["used"])
            fmax = max((c["achieved"] for c in report["fmax"].values()), default=0)
            print(f"routed: {used}\nFmax {fmax:.1f} MHz\n{critical_path(report)}")


if __name__ == "__main__":
    main()
