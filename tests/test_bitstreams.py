"""Bitstreams of iris-hidden, by the real tools: one board of each family; all boards with ``--all-boards``.

Also the guard against Yosys' miscompile, and how clock and place-and-route's refusals are dealt with.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw import cli
from catgrad_hw.boards import build as building
from catgrad_hw.boards import flow, program
from catgrad_hw.boards.build import ATTEMPTS, build
from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.fit import fit
from catgrad_hw.boards.flow import (
    FORMER_XAIGER,
    GUARD,
    SUFFIX,
    Endless,
    Routed,
    Stages,
    TooLarge,
    luts_taken,
    synthesis_commands,
)
from catgrad_hw.boards.pll import MHZ, find_pll
from catgrad_hw.errors import CapacityError, ModelError, ToolError
from catgrad_hw.gateware.bank import is_instance
from catgrad_hw.schedule.memory import COUNTER_BITS
from catgrad_hw.simulate import tools
from catgrad_hw.verify.netlist import CLOCK_MHZ
from catgrad_hw.workload import load_workload
from tests.small_workloads import dense_workload

KEYS = {
    "board", "lanes", "multipliers", "multiplier_blocks", "luts", "block_rams", "fmax_mhz", "clock_mhz",
    "cycles_per_step", "steps_per_second", "seconds",
}  # fmt: skip
ONE_OF_EACH = ("icebreaker", "ulx3s-25f", "tang-nano-9k")
CLOCK = CLOCK_MHZ
"""Easy to reach, so that one placement will do; and of the design that tests/test_verify.py simulates."""


def need_tools(family: str) -> None:
    for tool in (tools.yosys(), tools.place_and_route(family), tools.packer(family)):
        if not tool.found:
            pytest.skip(f"needs {tool.name}: {tool.advice}")


def small():
    """iris-hidden in small batches, of which little is to be simulated."""
    return load_workload("iris-hidden", 4)


GROUPS = {"icebreaker": "ice40 routed", "ice40-hx8k-evn": "ice40 bitstream", "tang-nano-9k": "gowin netlist"}
"""One worker builds each, for tests/test_verify.py, too."""


def grouped(name: str):
    return pytest.param(name, marks=pytest.mark.xdist_group(GROUPS.get(name, name)))


@pytest.mark.fpga
@pytest.mark.parametrize("name", [grouped(name) for name in BOARDS])
def test_a_bitstream(name, tmp_path, request, monkeypatch, capsys):
    """It is there, meets its clock, takes what was predicted or less, and is not built again when nothing changed."""
    if name not in ONE_OF_EACH and not request.config.getoption("--all-boards"):
        pytest.skip("one board of each family; --all-boards builds the others, too")
    board = BOARDS[name]
    need_tools(board.family)
    found = build(small(), board, tmp_path / "first", lanes=1, clock_mhz=CLOCK)
    report = json.loads((tmp_path / "first" / "build.json").read_text())
    assert report == found.report
    assert set(report) >= KEYS
    assert found.path == tmp_path / "first" / f"top.{SUFFIX[board.family]}"
    bitstream = found.path.read_bytes()
    assert len(bitstream) > 1000
    assert (report["board"], report["lanes"], report["multipliers"]) == (name, 1, 1)
    assert report["multiplier_blocks"] == (1 if board.chip.multipliers else 0)
    design = fit(small(), board, lanes=1)
    assert report["block_rams"] == design.needs.block_rams
    assert report["luts"] <= board.chip.luts
    assert report["clock_mhz"] <= CLOCK
    if board.family == "gowin":
        assert report["fmax_mhz"] is None
    else:
        assert report["fmax_mhz"] >= report["clock_mhz"]
    assert report["steps_per_second"]["core"] == pytest.approx(
        1e6 * report["clock_mhz"] / report["cycles_per_step"], 1e-3
    )
    assert {"fit", "elaborate", "synthesis", "place and route", "packing"} == set(report["seconds"])
    logs = {path.name for path in (tmp_path / "first").iterdir()}
    assert logs >= {"synthesis.log", "place-and-route.log"}

    def refuse(*arguments):
        raise AssertionError(f"a tool runs again: {arguments[0]}")

    monkeypatch.setattr(flow, "watched", refuse)
    (tmp_path / "net.py").write_text("from tests.test_bitstreams import small\n")
    options = ["--board", name, "--lanes", 1, "--clock", CLOCK, "-o", tmp_path / "again", "--json", tmp_path / "r.json"]
    monkeypatch.setattr(sys, "argv", ["catgrad-hw", "build", f"{tmp_path / 'net.py'}:small", *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert (tmp_path / "again" / found.path.name).read_bytes() == bitstream
    told = json.loads((tmp_path / "r.json").read_text())
    assert {key: told[key] for key in KEYS - {"seconds"}} == {key: report[key] for key in KEYS - {"seconds"}}
    out = capsys.readouterr().out
    assert f"{report['clock_mhz']:.2f}" in out
    assert program.bitstream_of(tmp_path / "again") == (board, tmp_path / "again" / found.path.name)
    with pytest.raises(AssertionError, match="a tool runs again"):
        build(small(), board, tmp_path / "other", lanes=1, clock_mhz=CLOCK + 2)


@pytest.mark.fpga
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in Linux's way")
def test_no_tool_outlives_a_build_that_is_ended(tmp_path):
    need_tools("ice40")
    (tmp_path / "net.py").write_text("from tests.test_bitstreams import small\n")
    code = "from catgrad_hw.cli import main; main()"
    arguments = ["build", f"{tmp_path / 'net.py'}:small", "--board", "icebreaker", "--clock", "17", "-o", "out"]
    python = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": python}
    )
    children = Path(f"/proc/{ours.pid}/task/{ours.pid}/children")

    def runs(child: str) -> bool:
        """Whether it runs the tool: before that it is a copy of its parent."""
        with contextlib.suppress(OSError):
            return b"yosys" in Path(f"/proc/{child}/cmdline").read_bytes()
        return False

    while not any(map(runs, found := children.read_text().split())):
        assert ours.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)  # until the parent knows of it
    ours.terminate()
    assert ours.wait() == 128 + signal.SIGTERM
    assert not any(Path(f"/proc/{child}").exists() for child in found)


def test_nothing_is_written_over_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="expected a folder, found a file"):
        build(small(), BOARDS["icebreaker"], tmp_path / "file")


# --- the guard --------------------------------------------------------------------------------------------------------


class Product(Component):
    """A product with ``registers`` registers after it."""

    def __init__(self, registers):
        self.registers = registers
        super().__init__({"a": In(signed(16)), "b": In(signed(16)), "product": Out(signed(32))})

    def elaborate(self, platform):
        m = Module()
        a, b = Signal(signed(16), reset_less=True), Signal(signed(16), reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b)]
        value = a * b
        for number in range(self.registers):
            stage = Signal(signed(32), name=f"stage_{number}", reset_less=True)
            m.d.sync += stage.eq(value)
            value = stage
        m.d.comb += self.product.eq(value)
        return m


def constant_bits(netlist: bytes) -> int:
    return sum(isinstance(bit, str) for bit in json.loads(netlist)["modules"]["top"]["ports"]["product"]["bits"])


@pytest.mark.fpga
def test_the_miscompile_of_ice40_multipliers_stops_the_build(tmp_path, monkeypatch):
    """Yosys 0.70 absorbs a second register after a product wrongly: its bits become constants. The build stops then;
    without the guard it would go on."""
    need_tools("ice40")
    stages = Stages(BOARDS["icebreaker"], tmp_path)
    one, two = (rtlil.convert(Product(registers), name="top", emit_src=False) for registers in (1, 2))
    assert constant_bits(stages.synthesise(one, "")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(flow, "GUARD", ())
        lost = constant_bits(stages.synthesise(two, ""))
    if lost:
        with pytest.raises(ToolError, match=r"Driver-driver conflict.*log:"):
            stages.synthesise(two, "")
    else:
        assert constant_bits(stages.synthesise(two, "")) == 0
    assert GUARD == ("-e", "Driver-driver.conflict")
    # Without multipliers none are asked for; a series that is not listed is dealt with as the slowest.
    lite, plus = (synthesis_commands("ice40", f"iCE40{size}", "top", multipliers=False) for size in ("UL1K", "UP5K"))
    assert lite == plus
    assert "-dsp" not in " ".join(lite)


@pytest.mark.fpga
def test_what_fails_in_yosys_is_tried_in_its_former_way(tmp_path, monkeypatch):
    need_tools("ecp5")
    stages = Stages(BOARDS["ulx3s-25f"], tmp_path)
    rtlil = "module \\top\n  wire input 1 \\a\n  wire output 2 \\b\n  connect \\b \\a\nend\n"
    asks = f"{FORMER_XAIGER.replace('-set', '-assert')}\nsynth_ecp5 -top top"
    monkeypatch.setattr(flow, "synthesis_commands", lambda *_, **__: [asks])
    assert "top" in json.loads(stages.synthesise(rtlil, ""))["modules"]
    with pytest.raises(ToolError, match="synthesis: yosys failed: No such command: nonsense"):
        stages.synthesise(rtlil, "nonsense")


@pytest.mark.parametrize(
    ("family", "adders", "name"),
    [("ecp5", 4_999, "router1"), ("ecp5", 5_001, "router2"), ("ice40", 0, "router1"), ("gowin", 0, "router2")],
)
def test_a_crowded_chip_has_the_router_that_ends(family, adders, name):
    kinds = ["LUT4"] * 20_000 + ["CCU2C"] * adders
    netlist = json.dumps({"cells": {str(i): {"type": kind} for i, kind in enumerate(kinds)}})
    assert flow.router(family, flow.is_crowded(netlist.encode(), family)) == name


@pytest.mark.fpga
@pytest.mark.parametrize("name", [grouped("icebreaker"), grouped("ulx3s-25f")])
def test_banks_have_no_logic_for_reads_that_meet_writes(name, tmp_path, monkeypatch):
    """With Yosys' own way, each bit of a row takes a register and a multiplexer more. On an ECP5 only the counters are
    a memory that Yosys maps."""
    need_tools(BOARDS[name].family)
    design = fit(small(), BOARDS[name], lanes=1)
    pll = find_pll(design.board, CLOCK * MHZ)

    def registers() -> int:
        netlist, _ = building.synthesise(design, pll, Stages(design.board, tmp_path))
        cells = json.loads(netlist)["modules"]["top"]["cells"].values()
        return sum("DFF" in cell["type"] or "TRELLIS_FF" in cell["type"] for cell in cells)

    without = registers()
    monkeypatch.setattr(building, "_after_read", lambda design: "")
    platform, banks = BOARDS[name].new_platform(), design.hardware.program.banks.values()
    rows = sum(bank.words * bank.width for bank in banks if not is_instance(bank, platform))
    assert registers() - without > rows + COUNTER_BITS


@pytest.mark.fpga
def test_words_for_which_block_ram_is_short_are_lut_ram(tmp_path):
    need_tools("ecp5")
    board = BOARDS["ulx3s-25f"]
    short = replace(board, chip=replace(board.chip, block_rams=10))  # one fewer than it takes
    assert fit(small(), board, lanes=2).needs.block_rams == 11
    design = fit(small(), short, lanes=2)
    assert design.needs.lut_rams > 0
    netlist, _ = building.synthesise(design, find_pll(board, CLOCK * MHZ), Stages(board, tmp_path))
    kinds = [cell["type"] for cell in json.loads(netlist)["modules"]["top"]["cells"].values()]
    assert kinds.count("TRELLIS_DPR16X4") == design.needs.lut_rams
    assert kinds.count("DP16KD") == 10


# --- clock ------------------------------------------------------------------------------------------------------------


def routed(fmax: float) -> Routed:
    return Routed({}, fmax, ["  1.00 ns logic    a", "  9.00 ns routing  slow.net"], b"", b"", "", 1)


@pytest.mark.parametrize(
    ("reached", "kept"),
    [
        ([117.0], 0),  # near the aim of 115: good
        ([150.0, 148.5], 1),  # clearly more: once again, just below
        ([150.0, 125.0], 0),  # which is missed: the first holds
        ([92.0, 94.0], 1),  # less: once again, just below
        ([92.0, 80.0, 81.0], 2),
    ],
)
def test_the_clock_is_near_what_routing_gives_and_never_above(reached, kept, tmp_path, monkeypatch):
    design = fit(small(), BOARDS["ulx3s-25f"], lanes=1)
    asked = []

    def route(design, pll, stages, seed):
        asked.append(float(pll.output) / 1e6)
        return routed(reached[len(asked) - 1])

    monkeypatch.setattr(building, "_routed", route)
    pll, found = building._closed(design, Stages(design.board, tmp_path), None, 1)
    assert len(asked) == len(reached)
    assert found.fmax_mhz == reached[kept]
    assert float(pll.output) / 1e6 == asked[kept] <= reached[kept]


@pytest.mark.parametrize(("reached", "tried"), [(95.0, ATTEMPTS), (70.0, 1)])
def test_a_clock_that_is_not_reached_names_the_path(reached, tried, tmp_path, monkeypatch):
    """Other seeds are tried where it is near."""
    design = fit(small(), BOARDS["ulx3s-25f"], lanes=1)
    seeds = []

    def route(design, pll, stages, seed):
        seeds.append(seed)
        return routed(reached)

    monkeypatch.setattr(building, "_routed", route)
    with pytest.raises(
        CapacityError, match=r"expected 100 MHz, found [79][05]\.0.*9\.00 ns routing slow\.net.*lower --clock"
    ):
        building._closed(design, Stages(design.board, tmp_path), 100, 5)
    assert seeds == list(range(5, 5 + tried))
    assert "slow.net" in (tmp_path / "critical-path.txt").read_text()


@pytest.mark.parametrize("clock", [100, None])
def test_a_router_without_end_gets_other_seeds(clock, tmp_path, monkeypatch):
    design = fit(small(), BOARDS["ulx3s-25f"], lanes=1)
    endless, seeds = {5, 6}, []

    def route(design, pll, stages, seed):
        seeds.append(seed)
        if seed in endless:
            raise Endless("no end")
        return routed(120.0)

    monkeypatch.setattr(building, "_routed", route)
    assert building._closed(design, Stages(design.board, tmp_path), clock, 5)[1].fmax_mhz == 120.0
    assert seeds == [5, 6, 7]
    seeds.clear()
    endless |= set(range(ATTEMPTS + 5))
    with pytest.raises(Endless, match="no end"):
        building._closed(design, Stages(design.board, tmp_path), clock, 5)
    assert seeds == list(range(5, 5 + ATTEMPTS))


def test_a_router_without_end_costs_no_design_that_is_there(tmp_path, monkeypatch):
    """A second build, for a faster clock, is not tried with other seeds."""
    design = fit(small(), BOARDS["ulx3s-25f"], lanes=1)
    tried = []

    def route(design, pll, stages, seed):
        tried.append(seed)
        if len(tried) > 1:
            raise Endless("no end")
        return routed(150.0)

    monkeypatch.setattr(building, "_routed", route)
    assert building._closed(design, Stages(design.board, tmp_path), None, 5)[1].fmax_mhz == 150.0
    assert tried == [5, 5]


def test_a_router_is_ended_that_comes_no_nearer(tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "PATIENCE", 3)
    stages = Stages(BOARDS["ulx3s-25f"], tmp_path)
    log = "".join(
        f"Info:     iter={i} wires=100 overused={n} overuse={n} archfail=NA\n"
        for i, n in enumerate([9, 4, 6, 5, 3, 4, 3, 8], 1)
    )
    stages._converges("")
    stages._converges(log)
    with pytest.raises(Endless, match=r"found 3 with more at best, in 9 rounds; choose another --seed"):
        stages._converges(log + "Info:     iter=9 wires=100 overused=4 overuse=4 archfail=NA\n")


def test_fewer_lanes_where_luts_do_not_suffice(tmp_path, monkeypatch):
    """Of its own accord, but not where the number of lanes was given."""
    tried = []

    def closed(design, stages, clock_mhz, seed):
        tried.append(design.hardware.lanes)
        if len(tried) < 3:
            raise TooLarge("full")
        raise ToolError("enough")

    monkeypatch.setattr(building, "_closed", closed)
    board = BOARDS["ulx3s-25f"]
    with pytest.raises(ToolError, match="enough"):
        build(dense_workload(16, (3, 2)), board, tmp_path)
    assert tried[0] > tried[1] > tried[2] >= 1
    tried.clear()
    with pytest.raises(CapacityError, match="full"):
        build(dense_workload(16, (3, 2)), board, tmp_path, lanes=4)
    assert tried == [4]


def test_what_the_log_of_place_and_route_tells(tmp_path):
    """Of a design that is too large, the resource; of others, the LUTs."""
    log = (
        "Info: Device utilisation:\nInfo: \t         ICESTORM_LC:  5576/   5280   105%\n"
        "Info: \t        ICESTORM_RAM:    13/     30    43%\n"
        "ERROR: Failed to expand region (0, 0) |_> (25, 31) of 5575 ICESTORM_LCs\n"
    )
    error = Stages(BOARDS["icebreaker"], tmp_path)._unroutable(log)
    assert isinstance(error, CapacityError)
    assert "ICESTORM_LC: 5576 needed, 5280 there" in str(error)
    assert "ICESTORM_RAM" not in str(error)
    other = Stages(BOARDS["icebreaker"], tmp_path)._unroutable("ERROR: cannot read top.json\n")
    assert isinstance(other, ToolError)
    assert "cannot read top.json" in str(other)
    counts = "Info: \t LUT4: 70/ 8640 0%\nInfo: \t DFF: 50/ 6480 0%\n"
    assert luts_taken(log, "ice40") == 5576
    assert luts_taken(f"Info: Constrained 20 LUTFF pairs.\n{counts}", "gowin") == 100
    for silent, family in (("", "ice40"), (counts, "gowin")):
        with pytest.raises(ToolError, match=r"expected a log that counts LUTs.*update nextpnr"):
            luts_taken(silent, family)
