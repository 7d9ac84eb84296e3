"""Loads a bitstream into a board, by the tool that the board needs, and turns the tool's errors into advice."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from catgrad_hw.boards.description import Board, find_board
from catgrad_hw.boards.flow import SUFFIX
from catgrad_hw.errors import DataError, ModelError, ToolError
from catgrad_hw.simulate import tools

TIMEOUT = 600  # seconds; writing a large bitstream into flash takes a minute or two

NO_DEVICE = r"unable to open ftdi|device not found|Can't find iCE FTDI|no device|No matching|cable not found|not found!"
NO_PERMISSION = r"[Pp]ermission denied|LIBUSB_ERROR_ACCESS|insufficient permissions|usb_open.*failed|-4 \("

VENDOR = {"openFPGALoader": "0403", "iceprog": "0403", "icesprog": "1d50"}
"""The USB vendor of the adapters that a tool talks to: FTDI, or OpenMoko, which lends its numbers."""

RULE = (
    "for permission put this line into /etc/udev/rules.d/99-catgrad-hw.rules: "
    'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor}", MODE="0660", GROUP="plugdev"; '
    "then sudo usermod -aG plugdev $USER; log out and in, and plug the board in again"
)


def bitstream_of(folder: Path, board: Board | None = None) -> tuple[Board, Path]:
    """The board that ``folder`` was built for, and the bitstream in it.

    Raises:
        DataError: there is none, or it is for another board than ``board``.
    """
    try:
        name = json.loads((folder / "build.json").read_text())["board"]
        found = board if board is not None and board.name == name else find_board(name)
    except (OSError, ValueError, KeyError, ModelError) as error:
        raise DataError(
            f"{folder}: expected a folder that catgrad-hw build wrote, found: {' '.join(str(error).split())}; "
            "build first"
        ) from None
    if board is not None and board.name != name:
        raise DataError(f"{folder}: expected a bitstream for {board.name}, found one for {name}; build it for this one")
    path = folder / f"top.{SUFFIX[found.family]}"
    if not path.is_file():
        raise DataError(f"{path}: expected a bitstream, found none; build again")
    return found, path


def command(board: Board, bitstream: Path, *, flash: bool) -> list[str]:
    """The command that loads ``bitstream``: into SRAM, until power goes, or into ``flash``.

    Raises:
        ToolError: the tool is missing.
        ModelError: the board can only be flashed.
    """
    loader = board.loader
    arguments = loader.flash if flash else loader.sram
    if arguments is None:
        raise ModelError(
            f"{board.name}: expected --flash, found none: the board's adapter writes the flash alone; {loader.note}"
        )
    return [str(tools.loader(loader.tool).require()), *arguments, str(bitstream)]


def program(board: Board, bitstream: Path, *, flash: bool = False) -> str:
    """Load ``bitstream``; what the tool said.

    Raises:
        ToolError: the tool is missing or failed: no board, no permission, or its own words.
        ModelError: the board can only be flashed.
    """
    line = command(board, bitstream, flash=flash)
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ToolError(f"{board.loader.tool}: no end after {TIMEOUT} s; unplug the board and try again") from None
    said = done.stdout + done.stderr
    if done.returncode:
        raise ToolError(explain(board, said))
    return said


def explain(board: Board, said: str) -> str:
    """What went wrong, and what to do, of a tool's output."""
    tool, note = board.loader.tool, f" {board.loader.note}" if board.loader.note else ""
    rule = RULE.format(vendor=VENDOR[tool])
    if re.search(NO_PERMISSION, said):
        return f"{tool}: no permission to use the board's USB device; {rule}"
    if re.search(NO_DEVICE, said):
        return (
            f"{tool}: found no {board.title}; plug it in with a cable that carries data, and see whether lsusb lists "
            f"it. If it does, {rule}.{note}"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"rror|fail|ABORT", line)] or lines[-1:]
    return f"{tool}: {telling[0] if telling else 'failed without a word'}.{note}"
