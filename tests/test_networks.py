"""Enables and resets of much of an ECP5 on networks of its clocks, and all else as it was."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from typing import Any

import pytest

from catgrad_hw.boards import flow
from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.networks import MANY, NETWORKS, on_networks
from catgrad_hw.simulate import tools

COUNTS = [MANY - 1, *range(MANY, MANY + NETWORKS + 1)]
"""Flip-flops that each register enables."""


def netlist() -> dict[str, Any]:
    """Registers that each enable or reset as many flip-flops as ``COUNTS`` says, and are what a LUT reads."""
    cells: dict[str, Any] = {}
    nets = iter(range(2, 10**6))

    def add(name: str, kind: str, output: str, **inputs: Any) -> int:
        parameters = {
            "TRELLIS_FF": {"GSR": "DISABLED", "SRMODE": "LSR_OVER_CE", "CEMUX": "CE", "CLKMUX": "CLK"},
            "LUT4": {"INIT": f"{0x8000:016b}"},
        }
        cells[name] = {
            "hide_name": 0,
            "type": kind,
            "parameters": parameters[kind],
            "attributes": {},
            "port_directions": {**dict.fromkeys(inputs, "input"), output: "output"},
            "connections": {**{port: [bit] for port, bit in inputs.items()}, output: [(net := next(nets))]},
        }
        return net

    clock, data = next(nets), next(nets)
    for number, count in enumerate(COUNTS):
        port = ("CE", "LSR")[number % 2]
        control = add(f"control_{number}", "TRELLIS_FF", "Q", CLK=clock, DI=data)
        add(f"reads_{number}", "LUT4", "Z", A=control)
        for i in range(count):
            add(f"flip_flop_{number}_{i}", "TRELLIS_FF", "Q", CLK=clock, DI=data, **{port: control})
    ports = {name: {"direction": "input", "bits": [bit]} for name, bit in (("clock", clock), ("data", data))}
    return {"modules": {"top": {"attributes": {"top": 1}, "ports": ports, "cells": cells, "netnames": {}}}}


def test_the_largest_have_a_buffer_each_and_all_else_is_as_it_was():
    before = netlist()
    after = json.loads(on_networks(json.dumps(before).encode()))
    cells = after["modules"]["top"]["cells"]
    buffers = {name: cell for name, cell in cells.items() if cell["type"] == "DCCA"}
    assert not cells.keys() & after["modules"]["top"]["netnames"].keys()  # for Yosys
    whole = {cell["connections"]["CLKO"][0]: cell["connections"]["CLKI"][0] for cell in buffers.values()}
    buffered = {name.split("$")[0] for name in buffers}
    assert buffered == {f"control_{number}" for number in range(2, len(COUNTS))}  # not the two of the fewest
    assert all(cell["connections"]["CE"] == ["1"] for cell in buffers.values())
    for number, count in enumerate(COUNTS):
        port = ("CE", "LSR")[number % 2]
        enabled = {cells[f"flip_flop_{number}_{i}"]["connections"][port][0] for i in range(count)}
        assert (enabled <= whole.keys()) == (f"control_{number}" in buffered)
    found = copy.deepcopy({name: cell for name, cell in cells.items() if name not in buffers})
    for cell in found.values():
        cell["connections"] = {port: [whole.get(b, b) for b in bits] for port, bits in cell["connections"].items()}
    assert found == before["modules"]["top"]["cells"]


@pytest.mark.fpga
def test_nextpnr_routes_them_so(tmp_path):
    tool = tools.place_and_route("ecp5")
    if not tool.found:
        pytest.skip(f"needs nextpnr: {tool.advice}")
    (tmp_path / "top.lpf").write_text('LOCATE COMP "clock" SITE "G2";\n')  # of the crystal of an ULX3S
    arguments = ["--25k", "--package", "CABGA381", "--json", "top.json", "--lpf", "top.lpf", "--textcfg", "top.config"]
    command = [str(tools.ready(tool)), *arguments, "--lpf-allow-unconstrained", "-q"]
    (tmp_path / "top.json").write_bytes(on_networks(json.dumps(netlist()).encode()))
    subprocess.run(command, cwd=tmp_path, check=True)
    networks = set(re.findall(r"G_HPBX(\d+)00", (tmp_path / "top.config").read_text()))
    assert len(networks) == NETWORKS + 1  # and the clock's


@pytest.mark.fpga
def test_a_router_that_finds_no_end_is_ended(tmp_path, monkeypatch):
    """A real one, of which nothing is expected; its log is kept."""
    if not tools.place_and_route("ecp5").found:
        pytest.skip("needs nextpnr")
    monkeypatch.setattr(flow, "CROWDED", 0)
    monkeypatch.setattr(flow, "PATIENCE", -1)
    constraints = 'LOCATE COMP "clock" SITE "G2";\nLOCATE COMP "data" SITE "B2";\n'
    with pytest.raises(flow.Endless, match="expected every wire with one use"):
        flow.Stages(BOARDS["ulx3s-25f"], tmp_path).route(json.dumps(netlist()).encode(), constraints, 50, 1)
    assert "overused=" in (tmp_path / "place-and-route.log").read_text()
