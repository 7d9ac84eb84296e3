"""The boards: one description each. Pins and crystals are those of amaranth-boards; a chip's resources follow its name.

``docs/adding-a-board.md`` is the checklist.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from catgrad_hw.errors import ModelError
from catgrad_hw.schedule.memory import BLOCK, Family

Port: TypeAlias = tuple[str, int] | tuple[str, int, str]
"""A resource of the platform: its name, its number and, where it has several, the name of the signal."""
Price: TypeAlias = Literal["under 30 €", "30 to 100 €", "over 100 €"]


@dataclass(frozen=True)
class Chip:
    """An FPGA's resources.

    ``multipliers`` of ``multiplier_bits``; none: lanes multiply in LUTs. ``block_rams`` of the family's size;
    ``lut_rams``: cells of 16 words of 4 bits that LUTs can be; ``single_port_rams`` of 16 bits x 16384 (iCE40
    UltraPlus). ``pll``: the primitive that multiplies the crystal. Sources: Lattice FPGA-DS-02008 (iCE40 UltraPlus),
    FPGA-DS-02029 (iCE40 LP/HX), FPGA-DS-02012 (ECP5); Gowin DS117 (GW1NR), DS102 (GW2A).
    """

    family: Family
    luts: int
    multipliers: int
    multiplier_bits: int
    block_rams: int
    lut_rams: int
    single_port_rams: int
    pll: Literal["SB_PLL40_PAD", "SB_PLL40_CORE", "EHXPLLL", "rPLL"]

    @property
    def block_ram_kbit(self) -> int:
        """Capacity of all block RAMs."""
        return self.block_rams * BLOCK[self.family].kbit

    @property
    def single_port_kbit(self) -> int:
        """Capacity of all single-port RAMs."""
        return self.single_port_rams * 256


def _ecp5(luts: int, multipliers: int, block_rams: int, distributed_kbit: int) -> Chip:
    return Chip("ecp5", luts, multipliers, 18, block_rams, distributed_kbit * 1024 // 64, 0, "EHXPLLL")


CHIPS: Mapping[str, Chip] = {
    "iCE40UP5K": Chip("ice40", 5280, 8, 16, 30, 0, 4, "SB_PLL40_PAD"),
    "iCE40HX8K": Chip("ice40", 7680, 0, 16, 32, 0, 0, "SB_PLL40_CORE"),
    "LFE5U-12F": _ecp5(12_000, 28, 32, 97),
    "LFE5U-25F": _ecp5(24_000, 28, 56, 194),
    "LFE5U-45F": _ecp5(44_000, 72, 108, 351),
    "LFE5U-85F": _ecp5(84_000, 156, 208, 669),
    "LFE5UM5G-45F": _ecp5(44_000, 72, 108, 351),
    "LFE5UM5G-85F": _ecp5(84_000, 156, 208, 669),
    "GW1NR-9C": Chip("gowin", 8640, 20, 18, 26, 270, 0, "rPLL"),
    "GW2A-18C": Chip("gowin", 20_736, 48, 18, 46, 648, 0, "rPLL"),
}
"""By the name that amaranth-boards gives the device (Gowin: its family)."""


@dataclass(frozen=True)
class Loader:
    """How a bitstream gets onto a board: the tool, and its arguments before the file's name.

    ``sram`` lasts until power goes (None: the board has no way), ``flash`` stays. ``note``: what to know before.
    """

    tool: Literal["openFPGALoader", "iceprog", "icesprog"]
    sram: tuple[str, ...] | None
    flash: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Board:
    """A board. ``platform``: ``module:class`` of an Amaranth platform.

    ``leds``: for alive, training and error; with two, the first is alive and training, with one it is all three.
    ``high``: outputs that must be held high. ``buy``, ``wire``: what to get, and what to connect, in sentences.
    """

    name: str
    title: str
    platform: str
    chip_name: str
    chip: Chip
    leds: tuple[Port, ...]
    loader: Loader
    price: Price | None
    buy: str
    wire: str
    uart: Port = ("uart", 0)
    high: tuple[Port, ...] = ()

    @property
    def family(self) -> Family:
        """The family of the chip."""
        return self.chip.family

    @property
    def numbers(self) -> str:
        """The number policy that suits the chip's multipliers."""
        return str(self.chip.multiplier_bits)

    @cached_property
    def clock_hz(self) -> int:
        """The crystal's frequency."""
        return int(self.new_platform().default_clk_constraint.frequency)

    def new_platform(self) -> Any:
        """A fresh Amaranth platform, for one build.

        Raises:
            ModelError: there is none of that name.
        """
        return platform_class(self.platform)()


def platform_class(name: str) -> Any:
    """The Amaranth platform ``module:class``."""
    module_name, _, class_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"--board {name}: expected module:Platform, found: {error}; give an Amaranth platform's module and class"
        ) from None


USB = "One USB cable: it powers the board, loads it and is its serial port."


def _ulx3s(size: str) -> Board:
    return Board(
        name=f"ulx3s-{size.lower()}",
        title=f"ULX3S {size}",
        platform=f"amaranth_boards.ulx3s:ULX3S_{size}_Platform",
        chip_name=f"LFE5U-{size}",
        chip=CHIPS[f"LFE5U-{size}"],
        leds=(("led", 0), ("led", 1), ("led", 2)),
        loader=Loader("openFPGALoader", ("-b", "ulx3s"), ("-b", "ulx3s", "-f")),
        price="over 100 €",
        buy=f"A ULX3S with the {size} chip (open hardware by Radiona; the size is printed on the chip).",
        wire=USB + " Use the socket US1.",
        high=(("esp32", 0, "gpio0"),),
    )


def _ecpix5(size: str) -> Board:
    return Board(
        name=f"ecpix5-{size}",
        title=f"ECPIX-5 {size}",
        platform=f"amaranth_boards.ecpix5:ECPIX5{size}Platform",
        chip_name=f"LFE5UM5G-{size}F",
        chip=CHIPS[f"LFE5UM5G-{size}F"],
        leds=(("rgb_led", 0, "g"), ("rgb_led", 1, "b"), ("rgb_led", 2, "r")),
        loader=Loader("openFPGALoader", ("-b", "ecpix5"), ("-b", "ecpix5", "-f")),
        price="over 100 €",
        buy=f"An ECPIX-5 of LambdaConcept with the {size}F chip.",
        wire=USB + " Use the debug socket; on revision 3 its adapter is an FT4232 (openFPGALoader -b ecpix5_r03).",
    )


BOARDS: Mapping[str, Board] = {
    board.name: board
    for board in (
        Board(
            name="icebreaker",
            title="iCEBreaker",
            platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
            chip_name="iCE40UP5K",
            chip=CHIPS["iCE40UP5K"],
            leds=(("led_g", 0), ("led_r", 0)),
            loader=Loader(
                "iceprog",
                ("-S",),
                (),
                "Loading to SRAM needs the board's jumpers set for it (the flash would answer instead); "
                "--flash works as the board is delivered.",
            ),
            price="30 to 100 €",
            buy="An iCEBreaker of 1BitSquared, revision 1.0 or later.",
            wire=USB,
        ),
        Board(
            name="icesugar",
            title="iCESugar",
            platform="amaranth_boards.icesugar:ICESugarPlatform",
            chip_name="iCE40UP5K",
            chip=CHIPS["iCE40UP5K"],
            leds=(("led_g", 0), ("led_b", 0), ("led_r", 0)),
            loader=Loader(
                "icesprog",
                None,
                (),
                "Without icesprog: copy the .bin file onto the drive that the board shows over USB.",
            ),
            price="30 to 100 €",
            buy="An iCESugar of Muse Lab, version 1.5 (with the UP5K; not the nano).",
            wire=USB,
        ),
        Board(
            name="ice40-hx8k-evn",
            title="iCE40-HX8K breakout board",
            platform="amaranth_boards.ice40_hx8k_b_evn:ICE40HX8KBEVNPlatform",
            chip_name="iCE40HX8K",
            chip=CHIPS["iCE40HX8K"],
            leds=(("led", 0), ("led", 1), ("led", 2)),
            loader=Loader(
                "iceprog",
                ("-S",),
                (),
                "SRAM: remove jumper J7 and set the two jumpers of J6 across (parallel to the board's short edge); "
                "--flash: J7 set, both jumpers of J6 along, as the board is delivered.",
            ),
            price="30 to 100 €",
            buy="Lattice ICE40HX8K-B-EVN.",
            wire=USB + " The serial port is the second of the two that appear.",
        ),
        *(_ulx3s(size) for size in ("12F", "25F", "45F", "85F")),
        Board(
            name="colorlight-5a-75b-r7.0",
            title="Colorlight 5A-75B, revision 7.0",
            platform="amaranth_boards.colorlight_5a75b_r7_0:Colorlight_5A75B_R70Platform",
            chip_name="LFE5U-25F",
            chip=CHIPS["LFE5U-25F"],
            leds=(),  # the only LED shares its pin with the serial port's output
            loader=Loader("openFPGALoader", ("-c", "ft232"), ("-c", "ft232", "-f", "--unprotect-flash")),
            price="under 30 €",
            buy="A Colorlight 5A-75B receiver card, revision 7.0 as printed on the board; a 5 V supply; a JTAG adapter "
            "with an FT232H; a USB serial adapter with 3.3 V levels.",
            wire="Solder a header to the JTAG pads J27 to J34 (TCK J27, TMS J31, TDI J32, TDO J30, 3.3 V J33, GND "
            "J34) and connect the FT232H (AD0 TCK, AD1 TDI, AD2 TDO, AD3 TMS). The board has no serial port: connect "
            "the adapter's RX to DATA_LED- of J19, its TX to KEY+ of J19, and its ground to GND. The LED then shows "
            "what is sent.",
        ),
        *(_ecpix5(size) for size in ("45", "85")),
        Board(
            name="tang-nano-9k",
            title="Sipeed Tang Nano 9K",
            platform="amaranth_boards.tang_nano_9k:TangNano9kPlatform",
            chip_name="GW1NR-9C",
            chip=CHIPS["GW1NR-9C"],
            leds=(("led", 0), ("led", 1), ("led", 2)),
            loader=Loader("openFPGALoader", ("-b", "tangnano9k"), ("-b", "tangnano9k", "-f")),
            price="under 30 €",
            buy="A Sipeed Tang Nano 9K.",
            wire=USB + " The serial port is the second of the two that appear.",
        ),
        Board(
            name="tang-primer-20k",
            title="Sipeed Tang Primer 20K with Dock",
            platform="amaranth_boards.tang_primer_20k:TangPrimer20kDockPlatform",
            chip_name="GW2A-18C",
            chip=CHIPS["GW2A-18C"],
            leds=(("led", 0), ("led", 1), ("led", 2)),
            loader=Loader("openFPGALoader", ("-b", "tangprimer20k"), ("-b", "tangprimer20k", "-f")),
            price="30 to 100 €",
            buy="A Sipeed Tang Primer 20K with its Dock board.",
            wire=USB + " Set the Dock's first switch (core board enable) to on; the serial port is the second of the "
            "two that appear.",
        ),
    )
}
"""All boards by name."""

BEGIN_WITH = "icebreaker"
WHY_BEGIN_WITH = (
    "one USB cable does everything, it is open hardware, its chip keeps the data set in a memory of its own, and its "
    "timing and netlists can all be checked with open tools"
)


def find_board(
    name: str, *, multipliers: int | None = None, memory: float | None = None, luts: int | None = None
) -> Board:
    """A board by name, or ``module:Platform``, an Amaranth platform of your own.

    ``multipliers``, ``memory`` (kbit of block RAM) and ``luts`` replace the chip's own numbers, and are needed where
    the platform's chip is not in :data:`CHIPS`.

    Raises:
        ModelError: there is no such board or platform, or its chip is unknown and the numbers are not given.
    """
    board = BOARDS.get(name) or (_own_board(name, (multipliers, memory, luts)) if ":" in name else None)
    if board is None:
        near = difflib.get_close_matches(name, BOARDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(BOARDS)}, or give module:Platform"
        raise ModelError(f"--board: expected the name of a board, found {name!r}; {hint}")
    chip = board.chip
    return replace(
        board,
        chip=replace(
            chip,
            multipliers=chip.multipliers if multipliers is None else multipliers,
            block_rams=chip.block_rams if memory is None else int(memory // BLOCK[chip.family].kbit),
            luts=chip.luts if luts is None else luts,
        ),
    )


def _own_board(name: str, budget: tuple[int | None, float | None, int | None]) -> Board:
    platform = platform_class(name)
    device = str(getattr(platform, "family", "") if hasattr(platform, "part") else getattr(platform, "device", ""))
    chip = CHIPS.get(device)
    if chip is None:
        like = {"iCE40": "iCE40HX8K", "LFE5U": "LFE5U-25F", "GW": "GW1NR-9C"}
        base = next((CHIPS[known] for prefix, known in like.items() if device.startswith(prefix)), None)
        if base is None:
            raise ModelError(f"--board {name}: expected an iCE40, ECP5 or Gowin chip, found {device or 'none'}")
        if None in budget:
            raise ModelError(
                f"--board {name}: expected a chip that is known ({', '.join(CHIPS)}), found {device}; "
                "tell what it holds: --multipliers, --memory and --luts"
            )
        chip = replace(base, single_port_rams=0)
    leds = sorted({r.number for r in platform.resources if r.name == "led"})[:3]
    if not any(r.name == "uart" for r in platform.resources):
        raise ModelError(f"--board {name}: expected a resource called uart, found none; add one to the platform")
    return Board(
        name=name,
        title=name.partition(":")[2],
        platform=name,
        chip_name=device,
        chip=chip,
        leds=tuple(("led", number) for number in leds),
        loader=Loader("openFPGALoader", (), ("-f",), "A board of your own: load the bitstream with its own tool."),
        price=None,
        buy="",
        wire="",
    )
