"""From a fitted design to Verilog of what a tool made of it, one function for each level.

* *netlist*: what synthesis leaves, before placement.
* *routed*: the cells as place-and-route packed, merged and connected them.
* *bitstream*: what the bits of the file say that the chip is configured to, block RAM contents included.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from catgrad_hw.boards.build import synthesise
from catgrad_hw.boards.description import Board, Port
from catgrad_hw.boards.fit import Fit
from catgrad_hw.boards.flow import Stages, quiet
from catgrad_hw.boards.pll import MHZ, find_pll
from catgrad_hw.errors import ModelError, ToolError
from catgrad_hw.gateware.link.settings import LinkSettings
from catgrad_hw.simulate import tools
from catgrad_hw.verify.models import Models, models

Level: TypeAlias = Literal["netlist", "routed", "bitstream"]

LEVELS: Mapping[Level, str] = {
    "netlist": "after synthesis",
    "routed": "after place-and-route",
    "bitstream": "recovered from the bitstream",
}

CLOCK_MHZ = 18
"""What the PLL is set to where no clock is given: slow, so that a bit on the serial line takes few cycles."""

Damage: TypeAlias = Callable[[dict[str, Any]], None]
"""Changes a netlist (the JSON of Yosys or nextpnr), to see that this is found."""


@dataclass(frozen=True)
class Netlist:
    """``verilog``: a module ``device`` with the ports ``clk``, ``rst``, ``rx``, ``tx`` and ``training`` around the
    board's top level. ``cells``: how many there are of each type; ``sources``: whose model of the type is simulated.
    ``settings``: of the link in it."""

    verilog: str
    cells: Mapping[str, int]
    sources: Mapping[str, str]
    settings: LinkSettings


def check_level(board: Board, level: Level) -> None:
    """Refuse what no open tool can do.

    Raises:
        ModelError: names what can be had instead.
    """
    if level == "routed" and board.family == "gowin":
        raise ModelError(
            f"--level routed: expected an iCE40 or ECP5, found {board.name}, a Gowin, whose routed cells are those of "
            "the netlist; use --level netlist"
        )
    if level == "bitstream" and (board.family != "ice40" or board.chip.multipliers):
        lower = "netlist" if board.family == "gowin" else "routed"
        raise ModelError(
            f"--level bitstream: expected an iCE40 LP or HX, as the ice40-hx8k-evn has, found {board.name}, whose "
            f"bitstream no open tool reads back in full; use --level {lower}"
        )


def netlist(
    design: Fit,
    level: Level,
    stages: Stages,
    *,
    clock_mhz: float = CLOCK_MHZ,
    seed: int = 1,
    damage: Damage | None = None,
) -> Netlist:
    """What :func:`catgrad_hw.boards.build.build` puts on the board of ``design`` for that clock and ``seed`` of
    placement, at ``level``; ``damage`` is done there.

    Raises:
        ModelError: no open tool goes down to that level of this chip.
        CapacityError: it does not fit the chip.
        ToolError: a tool is missing or fails.
    """
    check_level(design.board, level)
    if level == "bitstream":
        for name in ("iceunpack", "icebox_vlog"):
            tools.icebox(name).require()
    pll = find_pll(design.board, clock_mhz * MHZ)
    settings = design.settings(pll.output_hz)
    cells, constraints = synthesise(design, pll, stages)
    if level == "netlist":
        return _of_cells(design.board, _damaged(cells, damage), settings)
    routed = stages.route(cells, constraints, float(pll.output) / MHZ, seed)
    found = _damaged(routed.cells_netlist, damage)
    if level == "routed":
        return _of_cells(design.board, found, settings)
    routed = replace(routed, netlist=_reconfigured(routed.netlist, routed.cells_netlist, found))
    return _of_bitstream(design.board, stages.pack(routed), constraints, settings)


def _damaged(cells: bytes, damage: Damage | None) -> bytes:
    if damage is None:
        return cells
    modules = json.loads(cells)
    damage(modules)
    return json.dumps(modules).encode()


# --- cells ------------------------------------------------------------------------------------------------------------


def _of_cells(board: Board, text: bytes, settings: LinkSettings) -> Netlist:
    """Cells in the JSON of Yosys or nextpnr."""
    design = json.loads(text)
    top = design["modules"]["top"]
    for port in top["ports"].values():
        port["direction"] = "inout"  # the pads' own side
    if board.family == "ecp5":
        _connect_ecp5(top)
    elif board.family == "ice40":
        _connect_ice40(board, top)
    cells = Counter(cell["type"] for cell in top["cells"].values() if not cell["type"].startswith("$"))
    library = models(board.family)
    verilog = "\n".join([_bench(board, tuple(top["ports"])), _verilog(design), library.verilog])
    return Netlist(verilog, dict(sorted(cells.items())), _sources(cells, library), settings)


def _verilog(design: Any) -> str:
    """Yosys' Verilog of a netlist."""
    text = json.dumps({"modules": {"top": design["modules"]["top"]}})
    commands = "read_json top.json; delete t:$scopeinfo; write_verilog -noattr top.v"
    return _run(tools.ready(tools.yosys()), ("-q", "-p", commands), {"top.json": text.encode()}, "top.v")


MUXES = ("CLKMUX", "CEMUX", "LSRMUX", "WREMUX", "CLKAMUX", "CLKBMUX")
"""Parameters of ECP5 cells that the models have; what all others choose is connected here."""

LOW = re.compile(r"LSR|FCI|RST\d")
"""Inputs of ECP5 cells that are 0 where nothing drives them; all others are 1."""


def _connect_ecp5(top: dict[str, Any]) -> None:
    """Connect what place-and-route leaves to the chip: open inputs, constants by muxes, what a flip-flop takes."""
    for name, cell in top["cells"].items():
        pins, parameters = cell["connections"], cell["parameters"]
        wide = pins.get("FXA") or pins.get("FXB")  # the place in its slice that joins LUTs of five inputs or more
        for pin, direction in cell["port_directions"].items():
            mux = parameters.get(f"{pin}MUX", "").strip()
            if direction == "input" and not pins[pin]:
                inverted = mux == "INV" and f"{pin}MUX" not in MUXES
                pins[pin] = [mux if mux in ("0", "1") else "0" if inverted or LOW.fullmatch(pin) else "1"]
            elif mux == "INV" and f"{pin}MUX" not in MUXES:
                raise ToolError(f"cell {name}: expected no inverter before {pin}, found one, which has no model")
        if cell["type"] == "TRELLIS_COMB" and wide:
            parameters["IS_Z1"] = "1"
        if parameters.pop("SD", "1").strip() == "0":
            pins["DI"] = pins["M"]
        cell["parameters"] = {k: v for k, v in parameters.items() if not k.endswith("MUX") or k in MUXES}


PULLED_UP = {"ICESTORM_LC": ("CEN",), "ICESTORM_RAM": ("RCLKE", "WCLKE"), "ICESTORM_DSP": ("CE",)}
"""Inputs of iCE40 that are 1 where nothing drives them; all others are 0."""

UNPACKED = {"ICESTORM_DSP": "SB_MAC16", "ICESTORM_SPRAM": "SB_SPRAM256KA"}
"""What nextpnr packs into cells that Yosys has no models of."""


def _connect_ice40(board: Board, top: dict[str, Any]) -> None:
    """Connect what place-and-route leaves to the chip: open inputs, and the PLL, whose clock is not routed."""
    for cell in top["cells"].values():
        kind, pins = cell["type"], cell["connections"]
        if not kind.startswith("ICESTORM"):
            continue
        for name, direction in cell["port_directions"].items():
            if direction == "input" and not pins[name]:
                pins[name] = ["1" if name in PULLED_UP.get(kind, ()) else "0"]
        if kind in UNPACKED:
            cell["type"] = UNPACKED[kind]
            _join_buses(cell)
    clock = top["ports"][_pad((board.new_platform().default_clk, 0))]["bits"]
    for name, cell in top["cells"].items():
        if cell["type"] == "ICESTORM_PLL":
            unused = 1 + max(bit for net in top["netnames"].values() for bit in net["bits"] if isinstance(bit, int))
            buffer = top["cells"][f"$gbuf_{name.removesuffix('_PLL')}_pllout_a"]
            buffer["connections"]["USER_SIGNAL_TO_GLOBAL_BUFFER"] = [unused]
            kept = {pin: cell["connections"][pin] for pin in ("LOCK", "RESETB", "BYPASS")}
            cell["connections"] = {**kept, "REFERENCECLK": clock, "PLLOUTCORE": [unused]}
            cell["type"], cell["parameters"] = "SB_PLL40_CORE", {}
            cell["port_directions"] = {
                pin: "output" if pin in ("LOCK", "PLLOUTCORE") else "input" for pin in cell["connections"]
            }


def _join_buses(cell: dict[str, Any]) -> None:
    """Pins ``A_0``, ``A_1``, … become a bus ``A``."""
    pins: dict[str, dict[int, Any]] = {}
    directions = {}
    for name, bits in cell["connections"].items():
        bus, _, index = name.rpartition("_")
        key, number = (bus, int(index)) if bus and index.isdigit() else (name, 0)
        pins.setdefault(key, {})[number] = bits[0] if bits else "x"
        directions[key] = cell["port_directions"][name]
    cell["connections"] = {name: [bits[i] for i in sorted(bits)] for name, bits in pins.items()}
    cell["port_directions"] = directions


# --- bitstream --------------------------------------------------------------------------------------------------------

TABLE = slice(36, 44)
"""Where a logic tile's rows, two for each cell, have the cell's table."""

INVERTED = str.maketrans("01", "10")


def _reconfigured(configuration: bytes, before: bytes, after: bytes) -> bytes:
    """The configuration (icestorm's text) with the contents that cells have ``after``, where those ``before`` differ:
    an inverted table, or rows of a block RAM."""
    if before == after:
        return configuration
    old, new = (json.loads(text)["modules"]["top"]["cells"] for text in (before, after))
    lines = configuration.decode().split("\n")
    for name, cell in old.items():
        for key, bits in cell["parameters"].items():
            if (wanted := new[name]["parameters"][key]) == bits:
                continue
            x, y, place = re.fullmatch(r"X(\d+)/Y(\d+)/(\w+)", cell["attributes"]["NEXTPNR_BEL"]).groups()  # type: ignore[union-attr]
            if place == "ram":
                row = lines.index(f".ram_data {x} {y}") + 1 + int(key.removeprefix("INIT_"), 16)
                assert int(lines[row], 16) == int(bits, 2)
                lines[row] = f"{int(wanted, 2):064x}"
            else:
                assert wanted == bits.translate(INVERTED)  # in whatever order its bits are
                first = lines.index(f".logic_tile {x} {y}") + 1 + 2 * int(place.removeprefix("lc"))
                for row in (first, first + 1):
                    table = lines[row][TABLE]
                    lines[row] = lines[row][: TABLE.start] + table.translate(INVERTED) + lines[row][TABLE.stop :]
    return "\n".join(lines).encode()


def _of_bitstream(board: Board, content: bytes, constraints: str, settings: LinkSettings) -> Netlist:
    """The Verilog that icebox reads out of a bitstream; pins have the names of the constraints."""
    configuration = _run(tools.icebox("iceunpack").require(), ("top.bin", "top.asc"), {"top.bin": content}, "top.asc")
    files = {"top.asc": configuration.encode(), "top.pcf": constraints.encode()}
    text = _run(tools.icebox("icebox_vlog").require(), ("-s", "-n", "top", "-p", "top.pcf", "top.asc"), files, None)
    ports = re.findall(r"\b(?:input|output|inout)\s+(\w+)", text[: text.index(";")])
    # icebox declares ports a second time, as wires.
    text = re.sub(r"^wire (.*);$", lambda m: _wires(n for n in m[1].split(", ") if n not in ports), text, flags=re.M)
    cells = {
        "LUT": text.count("/* LUT "),
        "carry": text.count("/* CARRY "),
        "flip-flop": len(re.findall(r"/\* FF .*always", text)),
    }
    instances = Counter(re.findall(r"^(SB_\w+) #", text, re.MULTILINE))
    library = models(board.family)
    sources = dict.fromkeys(cells, "icebox") | _sources(instances, library)
    return Netlist("\n".join([_bench(board, ports), text, library.verilog]), cells | instances, sources, settings)


def _wires(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"wire {listed};" if listed else ""


def _sources(cells: Iterable[str], library: Models) -> dict[str, str]:
    return {name: "our own" if name in library.own else "Yosys" for name in cells}


# --- the bench's side of the pads -------------------------------------------------------------------------------------


def _pad(port: Port) -> str:
    """What Amaranth calls the port of a resource."""
    return "__".join([f"{port[0]}_{port[1]}", *port[2:], "io"])


def _bench(board: Board, ports: Sequence[str]) -> str:
    """The module that the bench drives: clock and serial line at the pads, a reset button that nobody presses."""
    platform = board.new_platform()
    pads = {
        _pad((platform.default_clk, 0)): "clk",
        _pad((board.uart[0], board.uart[1], "rx")): "rx",
        _pad((board.uart[0], board.uart[1], "tx")): "tx",
    }
    if platform.default_rst is not None:
        pressed = platform.lookup(platform.default_rst, 0).ios[0]
        pads[_pad((platform.default_rst, 0))] = "1'b1" if pressed.invert else "1'b0"
    lost = [pad for pad in pads if pad not in ports]
    if lost:
        raise ToolError(f"netlist: expected the ports {', '.join(pads)}, found {', '.join(ports)}")
    lines = ["module device(input clk, rst, rx, output tx, training);", "  assign training = 1;"]
    for number, signal in enumerate(pads.values()):
        lines.append(f"  wire pad_{number};")
        lines.append(f"  assign tx = pad_{number};" if signal == "tx" else f"  assign pad_{number} = {signal};")
    connections = ", ".join(f".{pad}(pad_{number})" for number, pad in enumerate(pads))
    return "\n".join([*lines, f"  top top({connections});", "endmodule", ""])


def _run(program: Path, arguments: Sequence[str], files: Mapping[str, bytes], output: str | None) -> str:
    """What ``program`` writes to the file ``output``, or prints (None), in a folder that holds ``files``."""
    # YoWASP's programs see the folders below the current one, and no others.
    with tempfile.TemporaryDirectory(prefix="catgrad-hw-") as name:
        directory = Path(name)
        for file, content in files.items():
            (directory / file).write_bytes(content)
        done = subprocess.run(
            [program, *arguments], cwd=directory, env=quiet(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ToolError(f"{program.name}: failed: {said[-1] if said else 'it says nothing'}")
        return done.stdout if output is None else (directory / output).read_text()
