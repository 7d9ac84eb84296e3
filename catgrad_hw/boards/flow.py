"""The tools of each family, stage by stage: synthesis, place-and-route, packing.

Every stage reads files and writes files; its outcome is kept in the user's cache by the content of what it reads, its
command and the tool's version. Scripts and commands are those of Amaranth's platforms, with what they lack: the guard
against a miscompile of ``synth_ice40 -dsp`` (two registers after a product become a constant, exit status 0), and
nextpnr's Gowin back end of today.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catgrad_hw.boards.description import Board
from catgrad_hw.boards.floorplan import LUTS, floorplan
from catgrad_hw.boards.networks import on_networks
from catgrad_hw.boards.replicate import replicated
from catgrad_hw.errors import CapacityError, ToolError
from catgrad_hw.numbers.pipeline import Progress
from catgrad_hw.schedule.memory import Family
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.tools import Tool

GUARD = ("-e", "Driver-driver.conflict")
"""Options with which Yosys stops at the conflict that the miscompile leaves in its log."""


class TooLarge(CapacityError):
    """Place-and-route ran out of a resource."""


class Endless(ToolError):
    """The router would not have found an end."""


TICK = 0.2  # seconds between looks at a running tool

PATIENCE = 100
"""Rounds of a router in which no fewer wires were in demand twice, after which it is ended."""


@dataclass(frozen=True)
class Cells:
    """What nextpnr calls a family's LUTs, block RAMs and multiplier blocks."""

    luts: str
    block_rams: str
    multipliers: str


CELLS: Mapping[Family, Cells] = {
    "ice40": Cells("ICESTORM_LC", "ICESTORM_RAM", "ICESTORM_DSP"),
    "ecp5": Cells("TRELLIS_COMB", "DP16KD", "MULT18X18D"),
    "gowin": Cells("LUT4", "BSRAM", "MULT18X18"),
}

SUFFIX: Mapping[Family, str] = {"ice40": "bin", "ecp5": "bit", "gowin": "fs"}
"""Of the bitstream's name."""


@dataclass(frozen=True)
class Routed:
    """A routed design: cells (used, available) by nextpnr's names, the core clock's highest frequency in MHz, the
    critical path in lines, the bitstream's input, the JSON of its cells, the log, and the seed of its placement."""

    cells: Mapping[str, tuple[int, int]]
    fmax_mhz: float
    path: Sequence[str]
    netlist: bytes
    cells_netlist: bytes
    log: str
    seed: int

    def used(self, what: str, family: Family) -> int:
        """Cells of ``luts``, ``block_rams`` or ``multipliers`` that the design takes."""
        if what == "luts":
            return luts_taken(self.log, family)
        return self.cells.get(getattr(CELLS[family], what), (0, 0))[0]


def luts_taken(log: str, family: Family) -> int:
    """LUTs that a design takes by the ``log`` of place-and-route. A Gowin's flip-flop has no input but from the LUT at
    its side, which only passes its input on where no LUT of the design was put there.

    Raises:
        ToolError: the log does not tell.
    """
    used = {name: count for name, count, _ in _utilization(log)}
    pairs = re.search(r"^Info: Constrained (\d+) LUTFF pairs", log, re.MULTILINE)
    if CELLS[family].luts not in used or (family == "gowin" and not pairs):
        raise ToolError(
            "place and route: expected a log that counts LUTs and their flip-flops, found none; update nextpnr"
        )
    passing = used["DFF"] - int(pairs[1]) if family == "gowin" and pairs else 0
    return used[CELLS[family].luts] + passing


class Stages:
    """Runs stages for one board: keeps seconds by stage and logs by name, and reports progress."""

    def __init__(self, board: Board, logs: Path, progress: Progress | None = None) -> None:
        self.board, self.logs, self.progress = board, logs, progress
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str) -> _Timer:
        """A context that adds its seconds to those of ``stage``."""
        return _Timer(self, stage)

    def synthesise(self, rtlil: str, script_after_read: str) -> bytes:
        """The netlist (JSON of Yosys) of the top module ``top``."""
        script = synthesis_script(self.board, script_after_read)
        guard = GUARD if self.board.family == "ice40" else ()
        arguments = ("-q", "-l", "synthesis.log", *guard, "top.ys")

        def run(script: str) -> bytes:
            files = {"top.il": rtlil.encode(), "top.ys": script.encode()}
            return self._run("synthesis", tools.yosys(), arguments, files, ("top.json",))["top.json"]

        try:
            return run(script)
        except ToolError:
            return run(f"{FORMER_XAIGER}\n{script}")

    def route(self, netlist: bytes, constraints: str, clock_mhz: float, seed: int) -> Routed:
        """Place and route for a core clock of ``clock_mhz``, whether that is reached or not.

        Raises:
            TooLarge: the design does not fit: which resource, and how many there are.
            Endless: the router comes no nearer to an end; with another seed it may.
            ToolError: it failed for another reason.
        """
        name = f"top.{CONSTRAINTS[self.board.family]}"
        crowded = is_crowded(netlist, self.board.family)
        prepared = replicated(on_networks(netlist) if crowded else netlist)
        files = {"top.json": floorplan(prepared, self.board.chip_name), name: constraints.encode()}
        log = "place-and-route.log"
        arguments = (*route_arguments(self.board, clock_mhz), "--router", router(self.board.family, crowded),
                     "--seed", str(seed), "--write", CELLS_NETLIST, "--report", "report.json", "-q", "-l", log,
                     "--timing-allow-fail")  # fmt: skip
        outputs = {ROUTED[self.board.family], CELLS_NETLIST, "report.json", log}
        outcome = self._run(
            "place and route",
            tools.place_and_route(self.board.family),
            arguments,
            files,
            outputs,
            fails=self._unroutable,
            watches=self._converges,
        )
        report = json.loads(outcome["report.json"])
        fmax, path = _core_clock(report, clock_mhz)
        cells = {name: (c["used"], c["available"]) for name, c in report["utilization"].items()}
        text = outcome[log].decode(errors="replace")
        return Routed(cells, fmax, path, outcome[ROUTED[self.board.family]], outcome[CELLS_NETLIST], text, seed)

    def pack(self, routed: Routed) -> bytes:
        """The bitstream."""
        source, family = ROUTED[self.board.family], self.board.family
        target = f"top.{SUFFIX[family]}"
        arguments: tuple[str, ...]
        if family == "ice40":
            arguments = (source, target)
        elif family == "ecp5":
            arguments = ("--compress", "--input", source, "--bit", target)
        else:
            arguments = ("-d", gowin_device(self.board), "--sspi_as_gpio", "--mspi_as_gpio", "-o", target, source)
        return self._run("packing", tools.packer(family), arguments, {source: routed.netlist}, (target,))[target]

    def _unroutable(self, log: str) -> Exception:
        over = [
            f"{name}: {used} needed, {available} there"
            for name, used, available in _utilization(log)
            if used > available
        ]
        errors = re.findall(r"^ERROR: (.*)$", log, re.MULTILINE)
        reason = "; ".join(errors[:2]) or "no error told"
        if over or any(
            re.search(r"[Uu]nable to (find|place)|no (more )?BELs|no Bels|[Ff]ailed to (place|route)", e)
            for e in errors
        ):
            full = f" ({'; '.join(over)})" if over else ""
            return TooLarge(
                f"{self.board.name}: the design does not fit{full}: {reason}; use fewer lanes, or a larger board"
            )
        return ToolError(f"place and route: {reason} (log: {self.logs / 'place-and-route.log'})")

    def _converges(self, log: str) -> None:
        """Ends a router that has come no nearer to an end for long, by what its log tells."""
        overused = [int(count) for count in re.findall(r" overused=(\d+) ", log)]
        if overused and len(overused) - 1 - overused.index(min(overused)) > PATIENCE:
            raise Endless(
                f"place and route: expected every wire with one use, found {min(overused)} with more at best, in "
                f"{len(overused)} rounds; choose another --seed, or fewer lanes "
                f"(log: {self.logs / 'place-and-route.log'})"
            )

    def _run(
        self,
        stage: str,
        tool: Tool,
        arguments: Sequence[str],
        files: Mapping[str, bytes],
        outputs: Collection[str],
        fails: Callable[[str], Exception] | None = None,
        watches: Callable[[str], None] | None = None,
    ) -> dict[str, bytes]:
        """Run a tool on ``files``, or take what it wrote the last time; its log goes to the folder of logs.

        ``fails`` makes an error of the log of a tool that failed; ``watches`` looks at that of one that runs.
        """
        log = f"{stage.replace(' ', '-')}.log"
        with self.timed(stage) as timer:
            path = tools.ready(tool)
            key = hashlib.sha256(repr((tool.version, path.name, arguments, sorted(files.items()))).encode())
            kept = tools.cache_directory() / "bitstreams" / key.hexdigest()[:32]
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix="stage-", dir=kept.parent) as name:
                    directory = Path(name)
                    for file, content in files.items():
                        (directory / file).write_bytes(content)

                    def written(file: Path = directory / log) -> str:
                        return file.read_text(errors="replace") if file.exists() else ""

                    def tick() -> None:
                        timer.tick()
                        if watches is not None:
                            watches(written())

                    try:
                        code, said = watched([str(path), *arguments], directory, tick)
                    except Endless:
                        (self.logs / log).write_text(written())
                        raise
                    text = said + written()
                    (self.logs / log).write_text(text)
                    if code:
                        if fails is not None:
                            raise fails(text)
                        errors = re.findall(r"^ERROR: (.*)$", text, re.MULTILINE) or text.strip().splitlines()[-1:]
                        raise ToolError(
                            f"{stage}: {tool.name} failed: {' '.join(errors[:1]) or 'it says nothing'} "
                            f"(log: {self.logs / log})"
                        )
                    result = directory / "result"
                    result.mkdir()
                    for output in {*outputs, log}:
                        if (directory / output).exists():
                            shutil.move(directory / output, result / output)
                    try:
                        result.rename(kept)
                    except OSError:
                        if not kept.exists():
                            raise
            elif (kept / log).exists():
                shutil.copy(kept / log, self.logs / log)
        return {output: (kept / output).read_bytes() for output in outputs}


class _Timer:
    def __init__(self, stages: Stages, stage: str) -> None:
        self.stages, self.stage = stages, stage

    def __enter__(self) -> _Timer:
        self.started = time.monotonic()
        self.tick()
        return self

    def tick(self) -> None:
        if self.stages.progress is not None:
            self.stages.progress(f"{self.stages.board.name}: {self.stage}", 0, 0)

    def __exit__(self, *_: object) -> None:
        seconds = self.stages.seconds
        seconds[self.stage] = seconds.get(self.stage, 0.0) + time.monotonic() - self.started


def quiet() -> dict[str, str]:
    """The environment for tools: some are Python, and their warnings are their own."""
    return {**os.environ, "PYTHONWARNINGS": "ignore"}


def watched(command: Sequence[str], directory: Path, tick: Callable[[], None]) -> tuple[int, str]:
    """Exit code and output of a program; it does not outlive this call."""
    with (directory / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=quiet(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                tick()
                time.sleep(TICK)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    return process.returncode, (directory / "output.txt").read_text(errors="replace")


# --- what each family wants -------------------------------------------------------------------------------------------

CONSTRAINTS: Mapping[Family, str] = {"ice40": "pcf", "ecp5": "lpf", "gowin": "cst"}
"""Suffix of the file with pins and clocks that Amaranth's platform writes."""

CELLS_NETLIST = "routed.json"
"""What nextpnr writes of cells and nets after routing; its Gowin back end leaves the bitstream to others, too."""

ROUTED: Mapping[Family, str] = {"ice40": "top.asc", "ecp5": "top.config", "gowin": CELLS_NETLIST}


ICE40_CONNECTION: Mapping[str, tuple[str, int]] = {"UP": ("u", 1800), "LP": ("lp", 1200), "HX": ("hx", 800)}
"""By series: its speed, as Yosys calls it, and the delay of a connection in a full chip, in ps. Others are as slow as
the UltraPlus."""

FORMER_XAIGER = "scratchpad -set abc9.xaiger 1"
"""Hands logic to abc9 as Yosys did before 0.70, whose new way ends in a failed assertion for some designs (digits-mlp
with 16 lanes on an ECP5). So what fails is tried again in the former one."""

CROWDED = 30_000
"""LUTs from which on the connections of an ECP5 get in each other's way."""

FEW_ENABLED = 4
"""What enables fewer flip-flops is logic: the eight cells of an iCE40's tile share one enable, and one reset."""


def synthesis_commands(
    family: Family, chip: str, top: str, options: str = "", *, multipliers: bool = True
) -> list[str]:
    """Yosys' commands for ``top``; those of an iCE40 want :data:`GUARD`, too. ``options``: more for its ``synth``;
    ``multipliers``: whether an iCE40 has any.

    Multiplexers between the LUTs of an ECP5 or a Gowin tie these to their places, and save none of them here.
    """
    if family == "ice40":
        return _ice40_by_delay(f"synth_ice40 -top {top}{options}{' -dsp' if multipliers else ''}", chip)
    if family == "gowin":
        return [f"synth_gowin -top {top} -family {'gw2a' if chip.startswith('GW2A') else 'gw1n'} -nowidelut{options}"]
    return [f"synth_ecp5 -top {top} -nowidelut{options}"]


def _ice40_by_delay(command: str, chip: str) -> list[str]:
    """``synth_ice40`` in stages, with the delay of connections as routing will find it.

    Yosys counts on a fraction of it. Then the longest carry chain looks as slow as eight LUTs in a row, and eight in a
    row is what all other logic may take for the sake of area.
    """
    series = chip.removeprefix("iCE40")[:2].upper()
    speed, connection = ICE40_CONNECTION.get(series, ICE40_CONNECTION["UP"])
    command = f"{command} -device {speed} -dffe_min_ce_use {FEW_ENABLED}"
    return [
        f"{command} -run :map_luts",
        f"read_verilog -D ICE40_{speed.upper()} -icells -lib -specify +/ice40/abc9_model.v",
        f"abc9 -W {connection}",
        "ice40_wrapcarry -unwrap",
        "techmap -map +/ice40/ff_map.v",
        "clean",
        "opt_lut -tech ice40",
        f"{command} -run map_cells:",
    ]


def synthesis_script(board: Board, script_after_read: str) -> str:
    """The Yosys script; ``script_after_read`` stands between reading and synthesis."""
    own = board.family == "gowin"  # whose synthesis drops, before it writes, what place-and-route does not know
    commands = synthesis_commands(
        board.family,
        board.chip_name,
        "top",
        " -json top.json" if own else "",
        multipliers=bool(board.chip.multipliers),
    )
    writes = [] if own else ["write_json -noscopeinfo top.json"]
    return "\n".join(["read_rtlil top.il", script_after_read, *commands, *writes, ""])


def route_arguments(board: Board, clock_mhz: float) -> tuple[str, ...]:
    """Arguments of nextpnr that tell device, package, files and frequency."""
    platform = board.new_platform()
    if board.family == "ice40":
        size = board.chip_name.removeprefix("iCE40").lower()
        device: tuple[str, ...] = (f"--{size}", "--package", platform.package.lower())
        return (*device, "--json", "top.json", "--pcf", "top.pcf", "--asc", "top.asc")
    if board.family == "ecp5":
        kind, size = re.fullmatch(r"LFE5U(M|M5G)?-(\d+)F", board.chip_name).groups()  # type: ignore[union-attr]
        packages = {"BG": "CABGA", "MG": "CSFBGA"}
        package = packages[platform.package[:2]] + platform.package[2:]
        prefix = {None: "", "M": "um-", "M5G": "um5g-"}[kind]
        device = (f"--{prefix}{size}k", "--package", package, "--speed", platform.speed)
        return (*device, "--json", "top.json", "--lpf", "top.lpf", "--textcfg", "top.config")
    device = ("--device", platform.part, "--vopt", f"family={gowin_device(board)}", "--vopt", "cst=top.cst")
    return (*device, "--json", "top.json", "--freq", f"{clock_mhz:.3f}")


def is_crowded(netlist: bytes, family: Family) -> bool:
    """Whether the connections of a netlist (JSON of Yosys) get in each other's way."""
    luts = sum(LUTS[kind] * netlist.count(f'"type": "{kind}"'.encode()) for kind in LUTS)
    return family == "ecp5" and luts > CROWDED


def router(family: Family, crowded: bool) -> str:
    """Which of nextpnr's routers is to take a netlist: its first looks at one connection after the other, and gives an
    ECP5 the faster clock; its second, at all that are in each other's way, and ends where the first does not.
    """
    return "router2" if family == "gowin" or crowded else "router1"


def gowin_device(board: Board) -> str:
    """The die as nextpnr and gowin_pack call it: GW1NR is a GW1N with memory beside it."""
    return board.chip_name.replace("GW1NR", "GW1N")


def _core_clock(report: Mapping[str, Any], clock_mhz: float) -> tuple[float, list[str]]:
    """The core clock's highest frequency, and its critical path: one line for each step."""
    clocks = report["fmax"]
    name = min(clocks, key=lambda name: abs(clocks[name]["constraint"] - clock_mhz))
    edge, steps = f"posedge {name}", []
    for path in report["critical_paths"]:
        if path["from"] == edge and path["to"] == edge:
            for step in path["path"]:
                steps.append(f"{step['delay']:6.2f} ns {step['type']:8} {step.get('net') or step['to']['cell']}")
    return float(clocks[name]["achieved"]), steps


def _utilization(log: str) -> list[tuple[str, int, int]]:
    """What nextpnr's log says of each kind of cell: used, available."""
    rows = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", log, re.MULTILINE)
    return [(name, int(used), int(available)) for name, used, available in rows]
