"""From a model to a bitstream: fit, elaborate, synthesise, place and route, set the clock, pack.

The clock: a first build aims at what the family usually reaches. Where place-and-route reaches clearly more, or less, a
second build aims just below what the first reached. The design that is packed has met the timing of the very clock that
its PLL makes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from catgrad_hw.boards.description import Board
from catgrad_hw.boards.fit import Fit, fit
from catgrad_hw.boards.flow import CONSTRAINTS, SUFFIX, Endless, Routed, Stages, TooLarge
from catgrad_hw.boards.pll import MHZ, Pll, find_pll
from catgrad_hw.errors import CapacityError, ModelError
from catgrad_hw.files import write
from catgrad_hw.gateware.link.settings import stream_bits
from catgrad_hw.host.protocol import DEFAULT_BAUD, word_bytes
from catgrad_hw.numbers.pipeline import Progress, quantize_workload
from catgrad_hw.schedule.scheduler import MAX_LANES
from catgrad_hw.workload import Workload

AIM_MHZ = {"iCE40UP5K": 45.0, "iCE40HX8K": 52.0, "ecp5": 115.0, "gowin": 50.0}
"""Where the first build aims, by chip or family."""

BELOW, CLEARLY = 0.985, 1.08
"""A next build aims at ``BELOW`` times what was reached; it is worth it where that was ``CLEARLY`` times the aim."""

NEAR = 0.9
"""Other seeds may help a design that reaches at least so much of a clock that was asked for."""

ATTEMPTS = 4
BITS_OF_A_BYTE = 10  # on the line: a start bit and a stop bit


@dataclass(frozen=True)
class Bitstream:
    """What :func:`build` wrote, and what it says of it: the keys of ``build.json``."""

    path: Path
    report: dict[str, Any]


def build(
    workload: Workload,
    board: Board,
    output: Path,
    *,
    lanes: int | None = None,
    memory: float | None = None,
    tile: int | None = None,
    clock_mhz: float | None = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Bitstream:
    """Write ``top.bin``, ``top.bit`` or ``top.fs``, ``build.json`` and the logs into the folder ``output``.

    Arguments as for :func:`catgrad_hw.boards.fit.fit`; ``clock_mhz``: the core's clock, by default as fast as it gets;
    ``seed``: of placement.

    Raises:
        CapacityError: the design does not fit, or does not reach ``clock_mhz``.
        CatgradError: the workload has no hardware, an argument is out of range, or a tool is missing or fails.
    """
    if output.exists() and not output.is_dir():
        raise ModelError(f"-o {output}: expected a folder, found a file; give another name")
    if clock_mhz is not None:
        find_pll(board, clock_mhz * MHZ)
    output.mkdir(parents=True, exist_ok=True)
    stages = Stages(board, output, progress)
    with stages.timed("fit"):
        quantized = quantize_workload(workload, board.numbers, progress=progress)
    most = MAX_LANES
    while True:
        with stages.timed("fit"):
            design = fit(workload, board, lanes=lanes, most=most, memory=memory, tile=tile, quantized=quantized)
        try:
            pll, routed = _closed(design, stages, clock_mhz, seed)
            break
        except TooLarge:
            most = design.hardware.lanes - 1  # LUTs are only predicted: where they do not suffice, fewer lanes may
            if lanes is not None or most < 1:
                raise
    bitstream = stages.pack(routed)
    report = _report(workload, design, pll, routed, stages)
    path = output / f"top.{SUFFIX[board.family]}"
    write(path, bitstream)
    write(output / "build.json", json.dumps(report, indent=2) + "\n")
    return Bitstream(path, report)


def _closed(design: Fit, stages: Stages, clock_mhz: float | None, seed: int) -> tuple[Pll, Routed]:
    """A routed design that meets the timing of its PLL's clock."""
    board = design.board
    wanted = clock_mhz or AIM_MHZ.get(board.chip_name) or AIM_MHZ[board.family]
    best: tuple[Pll, Routed] | None = None
    routed: Routed | None = None
    endless: Endless | None = None
    for attempt in range(ATTEMPTS):
        pll = find_pll(board, wanted * MHZ)
        aim = float(pll.output) / MHZ
        try:
            routed = _routed(design, pll, stages, seed)
        except Endless as error:
            if best is not None:
                return best
            seed, endless = seed + 1, error
            continue
        if clock_mhz:
            seed += 1
        if routed.fmax_mhz >= aim:
            best = pll, routed
            if clock_mhz or attempt or board.family == "gowin" or routed.fmax_mhz < CLEARLY * aim:
                return best
        elif best is not None:
            return best
        if not clock_mhz:
            wanted = BELOW * routed.fmax_mhz
        elif routed.fmax_mhz < NEAR * aim:
            break
    if best is not None:
        return best
    if routed is None:
        assert endless is not None
        raise endless
    path = "\n".join(routed.path)
    write(stages.logs / "critical-path.txt", path + "\n")
    slowest = max(routed.path, key=lambda line: float(line.split()[0]), default="")
    raise CapacityError(
        f"{board.name}: expected {wanted:g} MHz, found {routed.fmax_mhz:.1f} after routing; "
        f"longest step of the critical path: {' '.join(slowest.split())} (all of it: "
        f"{stages.logs / 'critical-path.txt'}); choose a lower --clock, or leave it out"
    )


def _routed(design: Fit, pll: Pll, stages: Stages, seed: int) -> Routed:
    netlist, constraints = synthesise(design, pll, stages)
    return stages.route(netlist, constraints, float(pll.output) / MHZ, seed)


def synthesise(design: Fit, pll: Pll, stages: Stages) -> tuple[bytes, str]:
    """The netlist (JSON of Yosys) of the board's top level, and the constraints for place-and-route."""
    from catgrad_hw.boards.top import Top
    from catgrad_hw.gateware.link import Device

    with stages.timed("elaborate"):
        device = Device(design.hardware.program, design.settings(pll.output_hz))
        platform = design.board.new_platform()
        plan = platform.prepare(Top(design.board, device, pll), "top", emit_src=False)
        files = {name: text if isinstance(text, str) else text.decode() for name, text in plan.files.items()}
    netlist = stages.synthesise(files["top.il"], _after_read(design))
    return netlist, files[f"top.{CONSTRAINTS[design.board.family]}"]


def _after_read(design: Fit) -> str:
    """Yosys commands between reading and synthesis.

    The core's banks need no logic for a read and a write of one row in one cycle: ``fit`` had the schedule checked, and
    a schedule in which that happens is refused. The memory of counters is read and written by turns. Those of the link
    keep theirs.
    """
    from catgrad_hw.gateware.bank import is_inferred

    platform = design.board.new_platform()
    inferred = sum(is_inferred(bank, platform) for bank in design.hardware.program.banks.values())
    banks = "top.device.core.bank_*/t:$memrd_v2 top.device.core.bank_*/r:CLK_ENABLE=1 %i"  # LUT RAM has no clock here
    reads = f"{banks} top.device.core.counters/t:$memrd_v2"
    commands = [
        f"select -assert-count {inferred + 1} {reads}",
        f"setparam -set COLLISION_X_MASK 1'1 {reads}",  # memories that are read through a port ignore no_rw_check
    ]
    if design.data_set_words and design.data_set_kind == "spram":
        # Amaranth gives every memory contents, zeros here; single-port RAM cannot have any, and needs none.
        commands.append("delete top.device.link.data_set/t:$meminit_v2")
    return "\n".join(commands)


def _report(workload: Workload, design: Fit, pll: Pll, routed: Routed, stages: Stages) -> dict[str, Any]:
    board, hardware = design.board, design.hardware
    cycles = hardware.cycles_per_step
    core = float(pll.output) / cycles
    width = stream_bits(hardware.program)["samples"]
    arrays = hardware.integer.kernels.arrays
    words = sum(prod(arrays[name].shape) for name in (*hardware.program.inputs, *hardware.program.targets))
    line = DEFAULT_BAUD / BITS_OF_A_BYTE / (words * word_bytes(width))
    return {
        "model": workload.name,
        "board": board.name,
        "device": board.chip_name,
        "numbers": board.numbers,
        "lanes": hardware.lanes,
        "tile": hardware.program.tile,
        "multipliers": hardware.multipliers,
        "multiplier_blocks": routed.used("multipliers", board.family),
        "luts": routed.used("luts", board.family),
        "block_rams": routed.used("block_rams", board.family),
        "fmax_mhz": None if board.family == "gowin" else round(routed.fmax_mhz, 2),
        "clock_mhz": round(float(pll.output) / MHZ, 4),
        "cycles_per_step": cycles,
        "steps_per_second": {"core": round(core, 1), "streamed": round(min(core, line), 2)},
        "data_set_words": design.data_set_words,
        "data_set_kind": design.data_set_kind,
        "baud": DEFAULT_BAUD,
        "identity": f"{hardware.identity:016x}",
        "seed": routed.seed,
        "predicted": {"luts": design.needs.luts, "block_rams": design.needs.block_rams},
        "seconds": {stage: round(seconds, 2) for stage, seconds in stages.seconds.items()},
    }
