"""Copies of what drives many lanes: each for lanes that are neighbours, and none that does anything else."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal, signed

from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.netlist import CONTROLS
from catgrad_hw.boards.replicate import COPIED, FEW, GROUP, replicated
from catgrad_hw.gateware.lanes import Lane
from catgrad_hw.simulate import tools


@pytest.fixture(scope="module")
def lanes_told_what_to_do(tmp_path_factory):
    """``count`` lanes' netlist, whose accumulators all do what one register says, and take one of three words by what
    two LUTs say."""
    if not tools.yosys().found:
        pytest.skip(f"needs Yosys: {tools.yosys().advice}")
    folder = tmp_path_factory.mktemp("netlists")

    def netlist(count: int) -> bytes:
        top = Module()
        core = top.submodules.core = Module()
        first, accumulate, select = Signal(), Signal(), Signal(3)
        first_now, accumulates, selected = Signal(), Signal(), Signal(3)
        top.d.sync += [first_now.eq(first), accumulates.eq(accumulate), selected.eq(select)]
        ports: list[Signal] = [first, accumulate, select]
        for i in range(count):
            lane = core.submodules[f"lane_{i}"] = Lane(18, 39)
            words = [Signal(signed(18), name=f"word_{i}_{n}") for n in range(2)]
            result = Signal(signed(39), name=f"result_{i}")
            top.d.sync += result.eq(lane.total)
            top.d.comb += [lane.accumulate.eq(accumulates), lane.first.eq(first_now), lane.b.eq(words[1])]
            with top.If(selected.all()):
                top.d.comb += lane.a.eq(words[0])
            with top.Elif(selected.any()):
                top.d.comb += lane.a.eq(words[1])
            ports += [*words, result]
        (folder / "top.il").write_text(
            rtlil.convert(top, name="top", platform=BOARDS["ulx3s-25f"].new_platform(), ports=ports, emit_src=False)
        )
        commands = "read_rtlil top.il; synth_ecp5 -top top -nowidelut -json top.json"
        subprocess.run([str(tools.ready(tools.yosys())), "-q", "-p", commands], cwd=folder, check=True)
        return (folder / "top.json").read_bytes()

    return netlist


def cells_of(netlist: bytes) -> dict[str, Any]:
    return json.loads(netlist)["modules"]["top"]["cells"]


def inputs(cell: dict[str, Any]) -> list[Any]:
    """The nets of a cell's inputs that are told apart by groups."""
    ports = {port for port, direction in cell["port_directions"].items() if direction == "input"} - CONTROLS
    return [bit for port, bits in cell["connections"].items() if port in ports for bit in bits]


@pytest.mark.fpga
def test_each_group_of_lanes_has_drivers_of_its_own(lanes_told_what_to_do):
    cells = cells_of(replicated(lanes_told_what_to_do(2 * GROUP + 3)))
    driver = {
        cell["connections"][COPIED[cell["type"]]][0]: name for name, cell in cells.items() if cell["type"] in COPIED
    }
    alone: dict[int, set[str]] = {}
    for name, cell in cells.items():
        lane = re.search(r"lane_(\d+)\.adder\.", name)
        if lane and cell["type"] == "CCU2C":
            alone.setdefault(int(lane[1]), set()).add(driver[cell["connections"]["C0"][0]])
    assert sorted(alone) == list(range(2 * GROUP + 3))
    for lane, drivers in alone.items():
        assert len(drivers) == 1
        assert drivers == alone[lane // GROUP * GROUP]
    assert len(set.union(*alone.values())) == 3

    count: dict[str, int] = {}
    for cell in cells.values():
        for bit in set(inputs(cell)) & set(driver):
            count[driver[bit]] = count.get(driver[bit], 0) + inputs(cell).count(bit)
    copied = [name.split("$copy")[0] for name in cells if "$copy" in name]
    assert {cells[name]["type"] for name in copied} == {"LUT4", "TRELLIS_FF"}
    assert max(count.values()) <= 50 * GROUP  # an accumulator's 40, and some
    others = {name: found for name, found in count.items() if name not in copied and "$copy" not in name}
    assert max(others.values()) <= FEW


@pytest.mark.fpga
def test_copies_do_what_the_original_does(lanes_told_what_to_do):
    """With each copy's net named as its original's, all connections are as they were."""
    netlist = lanes_told_what_to_do(2 * GROUP + 3)
    before, after = cells_of(netlist), cells_of(replicated(netlist))
    assert not after.keys() & json.loads(replicated(netlist))["modules"]["top"]["netnames"].keys()  # for Yosys
    originals = {}
    for name in after.keys() - before.keys():
        kind = after[name]["type"]
        original = before[name.split("$copy")[0]]
        assert (kind, after[name]["parameters"]) == (original["type"], original["parameters"])
        originals[after[name]["connections"][COPIED[kind]][0]] = original["connections"][COPIED[kind]][0]
    assert originals
    for name, cell in after.items():
        connections = {port: [originals.get(b, b) for b in bits] for port, bits in cell["connections"].items()}
        assert connections == before[name.split("$copy")[0]]["connections"]


@pytest.mark.fpga
def test_few_lanes_have_no_copies(lanes_told_what_to_do):
    netlist = lanes_told_what_to_do(GROUP)
    assert replicated(netlist) == netlist


def cell(kind: str, **connections: tuple[str, int]) -> dict[str, Any]:
    """A cell with one bit at each port."""
    return {
        "type": kind,
        "parameters": {},
        "port_directions": {port: direction for port, (direction, _) in connections.items()},
        "connections": {port: [bit] for port, (_, bit) in connections.items()},
    }


@pytest.mark.parametrize("groups", [2, 5])
def test_each_group_of_a_deep_banks_blocks_has_an_address_of_its_own(groups):
    """A register drives the address of all blocks; each block's word goes to a lane of its own through a LUT."""
    blocks = range(groups * GROUP)
    cells = {"address": cell("TRELLIS_FF", DI=("input", 2), Q=("output", 3))}
    for i in blocks:
        data, factor, product = 10 + 3 * i, 11 + 3 * i, 12 + 3 * i
        cells[f"core.bank_word18_0.page_{i}"] = cell("DP16KD", ADA=("input", 3), DOB=("output", data))
        cells[f"word_{i}"] = cell("LUT4", A=("input", data), Z=("output", factor))
        cells[f"core.lane_{i}.multiplier.block"] = cell("MULT18X18D", A=("input", factor), P=("output", product))
    found = cells_of(replicated(json.dumps({"modules": {"top": {"cells": cells, "netnames": {}}}}).encode()))
    addresses = [found[f"core.bank_word18_0.page_{i}"]["connections"]["ADA"][0] for i in blocks]
    assert [addresses.index(address) // GROUP for address in addresses] == [i // GROUP for i in blocks]
    registers = [cell for cell in found.values() if cell["type"] == "TRELLIS_FF"]
    assert sorted(register["connections"]["Q"][0] for register in registers) == sorted(set(addresses))
    assert {register["connections"]["DI"][0] for register in registers} == {2}


@pytest.mark.parametrize("groups", [2, 20])
def test_copies_of_a_counter_read_those_of_their_own_group(groups):
    """A register and the LUT that says what follows it: with 20 groups both have more connections than a few."""
    cells = {"count": cell("TRELLIS_FF", DI=("input", 2), Q=("output", 3))}
    cells["next"] = cell("LUT4", A=("input", 3), Z=("output", 2))
    for i in range(groups * GROUP):
        for copy in range(2):
            net = 10 + 10 * i + 2 * copy
            cells[f"word_{i}_{copy}"] = cell("LUT4", A=("input", 3), Z=("output", net))
            cells[f"register_{i}_{copy}"] = cell("TRELLIS_FF", DI=("input", net), Q=("output", net + 1))
        lane = {f"A{copy}": ("input", 11 + 10 * i + 2 * copy) for copy in range(2)}
        cells[f"core.lane_{i}.multiplier.block"] = cell("MULT18X18D", **lane, P=("output", 19 + 10 * i))
    found = cells_of(replicated(json.dumps({"modules": {"top": {"cells": cells, "netnames": {}}}}).encode()))
    read = [found[f"word_{i}_{copy}"]["connections"]["A"][0] for i in range(groups * GROUP) for copy in range(2)]
    assert [read.index(net) // (2 * GROUP) for net in read] == [i // (2 * GROUP) for i in range(2 * GROUP * groups)]
    following = {c["connections"]["Z"][0]: c["connections"]["A"][0] for n, c in found.items() if n.startswith("next")}
    registers = {c["connections"]["Q"][0]: c["connections"]["DI"][0] for n, c in found.items() if n.startswith("count")}
    assert len(following) == (1 if groups == 2 else len(registers))
    for net in set(read):
        assert groups == 2 or following[registers[net]] == net
