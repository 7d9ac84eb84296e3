"""Where lanes and rows go on an ECP5: in order, at sites that are there, as near to each other as can be."""

from __future__ import annotations

import itertools
import json
import subprocess

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module

from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.floorplan import DIES, ROW_COST, _nearest, floorplan
from catgrad_hw.gateware.bank import BankMemory
from catgrad_hw.gateware.lanes import Lane
from catgrad_hw.schedule.program import Bank
from catgrad_hw.simulate import tools


def netlist_of(lanes: int, blocks: dict[str, int], luts: int = 0) -> bytes:
    """A netlist of multipliers, of blocks of banks by name, and of LUTs."""
    cells = {f"core.lane_{i}.multiplier.block": "MULT18X18D" for i in range(lanes)}
    for bank, count in blocks.items():
        kind = "block" if bank.startswith("row") else "page"
        cells |= {f"core.bank_{bank}.{kind}_{i}": "DP16KD" for i in range(count)}
    cells |= {f"core.bank_word18_0.block_{i}": "DP16KD" for i in range(3)}
    cells |= {f"core.cell_{i}": "LUT4" for i in range(luts)}
    return json.dumps(
        {"modules": {"top": {"cells": {name: {"type": kind, "attributes": {}} for name, kind in cells.items()}}}}
    ).encode()


def sites_of(netlist: bytes) -> dict[str, str]:
    cells = json.loads(netlist)["modules"]["top"]["cells"]
    return {name: cell["attributes"]["BEL"] for name, cell in cells.items() if "BEL" in cell["attributes"]}


def column(site: str) -> int:
    return int(site.split("/")[0][1:])


@pytest.mark.parametrize(("size", "lanes"), [("25", 1), ("25", 8), ("25", 28), ("45", 36), ("85", 52)])
def test_lanes_and_their_rows_are_in_order(size, lanes):
    banks = {"row18_0": -(-lanes // 2), "row18_1": -(-lanes // 2)}
    sites = sites_of(floorplan(netlist_of(lanes, banks), f"LFE5U-{size}F"))
    assert len(sites) == len(set(sites.values())) == lanes + sum(banks.values())  # words are left to the placer
    along = [column(sites[f"core.lane_{i}.multiplier.block"]) for i in range(lanes)]
    assert along == sorted(along)
    for bank, count in banks.items():
        places = [column(sites[f"core.bank_{bank}.block_{i}"]) for i in range(count)]
        assert places == sorted(places)
        for i, place in enumerate(places):
            assert abs(place - along[min(2 * i, lanes - 1)]) <= 9  # a group of sites is so wide


@pytest.mark.parametrize(
    ("size", "lanes", "rows"),
    [
        ("45", 40, {22: (27, {10, 34}), 46: (13, {58})}),
        ("85", 64, {10: (16, {22}), 34: (16, {46}), 58: (32, {70, 82})}),
        ("85", 128, {10: (38, {22}), 34: (38, {46}), 58: (52, {70, 82})}),
    ],
)
def test_more_lanes_than_a_row_stand_in_all_rows_beside_their_memory(size, lanes, rows):
    """Along the first, back along the next, and so on; nearly all rows of block RAM serve lanes of one row alone."""
    sites = sites_of(floorplan(netlist_of(lanes, {"row18_0": lanes // 2, "row18_1": lanes // 2}), f"LFE5U-{size}F"))
    first, turn, strangers = 0, 1, 0
    for row, (count, memories) in rows.items():
        lane_sites = [sites[f"core.lane_{i}.multiplier.block"] for i in range(first, first + count)]
        assert {site.split("/")[1] for site in lane_sites} == {f"Y{row}"}
        along = [column(site) for site in lane_sites]
        assert along == sorted(along)[::turn]
        for bank in range(2):
            for i in range(-(-first // 2), (first + count) // 2):  # whose two lanes stand in this row
                site = sites[f"core.bank_row18_{bank}.block_{i}"]
                strangers += int(site.split("/")[1][1:]) not in memories
                assert abs(column(site) - along[2 * i - first]) <= 18
        first, turn = first + count, -turn
    assert first == lanes
    assert strangers <= lanes // 10


@pytest.mark.parametrize(("size", "lanes", "row"), [("85", 64, 82), ("85", 8, 82), ("25", 8, 37)])
def test_a_deep_bank_of_words_stands_side_by_side(size, lanes, row):
    """At the end of the block RAM; lanes are as many in each row as there is memory left beside it."""
    count = 50 if size == "85" else 20
    sites = sites_of(floorplan(netlist_of(lanes, {"row18_0": lanes // 2, "x": count}), f"LFE5U-{size}F"))
    deep = [sites[f"core.bank_x.page_{i}"] for i in range(count)]
    assert {site.split("/")[1] for site in deep} == {f"Y{row}"}
    assert [column(site) for site in deep] == sorted(column(site) for site in deep)
    assert len(set(sites.values())) == len(sites) == lanes + lanes // 2 + count
    rows = [site.split("/")[1] for name, site in sites.items() if "lane" in name]
    expected = {"Y10": 21, "Y34": 21, "Y58": 22} if lanes == 64 else {rows[0]: lanes}
    assert {row: rows.count(row) for row in rows} == expected


def test_banks_of_words_deeper_than_any_row_are_left_to_the_placer():
    sites = sites_of(floorplan(netlist_of(8, {"row18_0": 4, "x": 29}), "LFE5U-25F"))
    assert len(sites) == 12


def test_a_design_with_more_luts_is_wider():
    def width(luts):
        sites = sites_of(floorplan(netlist_of(8, {"row18_0": 4}, luts), "LFE5U-85F"))
        along = [column(site) for name, site in sites.items() if "lane" in name]
        return max(along) - min(along)

    assert width(0) < width(20_000) < width(60_000)


@pytest.mark.parametrize(
    ("netlist", "chip"),
    [
        (netlist_of(4, {"row18_0": 2}), "iCE40UP5K"),
        (netlist_of(0, {"row18_0": 2}), "LFE5U-25F"),
        (netlist_of(29, {"row18_0": 2}), "LFE5U-25F"),
        (netlist_of(4, {"row18_0": 57}), "LFE5U-12F"),
    ],
    ids=["another family", "no multipliers", "too many lanes", "too many blocks"],
)
def test_other_netlists_stay_as_they_are(netlist, chip):
    assert floorplan(netlist, chip) == netlist


def test_the_nearest_sites_are_the_best_of_all():
    sites = list(DIES["25"].memories())[:7]
    for wanted in itertools.combinations_with_replacement([(4, 13), (9, 40), (14, 13), (18, 13)], 4):

        def cost(places, wanted=wanted):
            return sum(abs(a - c) + ROW_COST * abs(b - d) for (a, b), (c, d) in zip(wanted, places, strict=True))

        found = _nearest(wanted, sites)
        assert len(set(found)) == 4
        assert cost(found) == min(map(cost, itertools.combinations(sites, 4)))


@pytest.mark.fpga
@pytest.mark.parametrize(
    ("name", "words", "width", "depth", "blocks"),
    [("row18_0", 4, 18, 512, 2), ("row18_0", 4, 18, 513, 4), ("row18_0", 4, 4, 4096, 4), ("x", 1, 18, 18_000, 18)],
)
def test_cells_are_found_by_the_names_that_yosys_gives_them(tmp_path, name, words, width, depth, blocks):
    """Rows of four words: in blocks of 512 x 36 or 1024 x 18, which are instances, or 4096 x 4, which Yosys makes; and
    single words in many blocks."""
    if not tools.yosys().found:
        pytest.skip(f"needs Yosys: {tools.yosys().advice}")
    board = BOARDS["ulx3s-25f"]
    top = Module()
    core = top.submodules.core = Module()
    bank = core.submodules[f"bank_{name}"] = BankMemory(Bank(name, words, width, depth, loader=words == 1))
    outputs = [bank.read_data]
    for i in range(4):
        lane = core.submodules[f"lane_{i}"] = Lane(18, 39)
        top.d.comb += [lane.a.eq(bank.read_data[width * (i % words) :]), lane.b.eq(lane.a), lane.accumulate.eq(1)]
        outputs.append(lane.total)
    inputs = [bank.read_address, bank.write_address, bank.write_data, bank.write_enable]
    (tmp_path / "top.il").write_text(
        rtlil.convert(top, name="top", platform=board.new_platform(), ports=inputs + outputs, emit_src=False)
    )
    commands = "read_rtlil top.il; synth_ecp5 -top top -json top.json"
    subprocess.run([str(tools.ready(tools.yosys())), "-q", "-p", commands], cwd=tmp_path, check=True)
    sites = sites_of(floorplan((tmp_path / "top.json").read_bytes(), board.chip_name))
    assert sorted("MULT18" in site for site in sites.values()) == [False] * blocks + [True] * 4


@pytest.mark.fpga
@pytest.mark.parametrize("size", DIES)
def test_nextpnr_knows_the_sites_and_no_others(size, tmp_path, request):
    """It finds a place for as many cells as there are sites: at these."""
    if size != "25" and not request.config.getoption("--all-boards"):
        pytest.skip("one die; --all-boards tries the others, too")
    for tool in (tools.yosys(), tools.place_and_route("ecp5")):
        if not tool.found:
            pytest.skip(f"needs {tool.name}: {tool.advice}")
    die = DIES[size]
    multipliers = [site for row in die.multiplier_rows for site in die.multipliers(row).values()]
    memories = list(die.memories().values())
    (tmp_path / "top.v").write_text(
        "module top(input clk); genvar i; generate\n"
        f"for (i = 0; i < {len(multipliers)}; i = i + 1) begin: m (* keep *) MULT18X18D m(.CLK0(clk)); end\n"
        f"for (i = 0; i < {len(memories)}; i = i + 1) begin: e (* keep *) DP16KD e(.CLKA(clk)); end\n"
        "endgenerate endmodule\n"
    )
    commands = "read_verilog top.v; synth_ecp5 -top top -json top.json"
    subprocess.run([str(tools.ready(tools.yosys())), "-q", "-p", commands], cwd=tmp_path, check=True)
    place = [str(tools.ready(tools.place_and_route("ecp5"))), f"--{size}k", "--package", "CABGA381", "-q"]
    place += ["--json", "top.json", "--lpf-allow-unconstrained", "--no-route", "--write", "placed.json"]
    subprocess.run(place, cwd=tmp_path, check=True, capture_output=True)
    cells = json.loads((tmp_path / "placed.json").read_text())["modules"]["top"]["cells"].values()
    for kind, expected in (("MULT18X18D", multipliers), ("DP16KD", memories)):
        assert sorted(c["attributes"]["NEXTPNR_BEL"] for c in cells if c["type"] == kind) == sorted(expected)
