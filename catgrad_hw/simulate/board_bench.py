"""The far end of a simulated board's serial line: a pseudo-terminal. Runs within cocotb, in the simulator's process.

The environment variable ``CATGRAD_HW_BOARD`` names a directory. ``settings.json`` is read; ``port.txt`` gets the name
of the pseudo-terminal; ``error.txt`` why the bench failed. Commands come by lines on standard input, whose end ends
the simulation: ``reset`` is the board's button, ``unplug`` pulls the cable and plugs it in again, as another terminal.

Bits are timed by the rate that the client has set on the terminal, as a serial adapter times them. Nothing of Python
runs between the bits of a byte but a callback for each.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import struct
import sys
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocotb
from cocotb import simulator
from cocotb.clock import Clock
from cocotb.handle import Immediate
from cocotb.triggers import Timer

from catgrad_hw.errors import CatgradError, SimulationError
from catgrad_hw.host.protocol import CRC_BYTES, FLAG, HEADER_BYTES

STEPS_PER_CYCLE = 10_000
"""Of simulated time, in ps: all clocks are simulated at 100 MHz, as nobody sees the difference."""

CHUNK = 2_000
"""Cycles between looks at the terminal while the board has something to do."""

IDLE_SECONDS, IDLE_CYCLES = 0.02, 500
"""While it has nothing to do: how long to wait for the host, and how many cycles to pass after that."""

DATA_BITS = 8

LEAST_FRAME = HEADER_BYTES + CRC_BYTES + 2

TCGETS2, TERMIOS2, OUTPUT_SPEED = 0x802C542A, 44, 40  # of Linux's ioctl, which knows every rate


class Terminal:
    """A pseudo-terminal in raw mode, held open so that clients may come and go."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        self.name = os.ttyname(self._slave)

    def close(self) -> None:
        os.close(self.master)
        os.close(self._slave)

    def baud(self) -> int:
        """The rate that the client has set."""
        state = fcntl.ioctl(self.master, TCGETS2, bytes(TERMIOS2))
        (speed,) = struct.unpack_from("=I", state, OUTPUT_SPEED)
        return max(1, int(speed))

    def read(self) -> bytes:
        try:
            return os.read(self.master, 4096)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        """Bytes that nobody reads are lost, as on a serial line."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.master, data)


class SerialLine:
    """Drives ``rx`` and samples ``tx``, each with callbacks of the simulator, without cocotb's event loop.

    ``bit`` is the length of a bit in steps of simulated time.
    """

    def __init__(self, rx: Any, tx: Any) -> None:
        self.bit = float(STEPS_PER_CYCLE)
        self.received = bytearray()
        self.changes = 0
        self._rx, self._tx = rx, tx._handle
        self._queue: deque[int] = deque()
        self._levels: list[int] = []
        self._byte = self._count = 0
        self._listen()

    @property
    def busy(self) -> bool:
        """Whether bytes are on their way to the board."""
        return bool(self._queue or self._levels)

    def send(self, data: bytes) -> None:
        """Queue bytes for the board."""
        idle = not self.busy
        self._queue.extend(data)
        if idle and data:
            self._drive()

    def _after(self, bits: float, call: Callable[[], None]) -> None:
        simulator.register_timed_callback(max(1, round(bits * self.bit)), call)

    def _drive(self) -> None:
        if not self._levels:
            if not self._queue:
                return
            byte = self._queue.popleft()
            # Start bit, data, stop bit; the last level last.
            self._levels = [0, *((byte >> i) & 1 for i in range(DATA_BITS)), 1][::-1]
        level = self._levels.pop()
        length = 1
        while self._levels and self._levels[-1] == level:
            self._levels.pop()
            length += 1
        self._rx.set(Immediate(level))
        last = not self._levels
        if last:
            self._levels = [1]  # the stop bit is being sent
            self._after(length, self._next)
        else:
            self._after(length, self._drive)

    def _next(self) -> None:
        self._levels = []
        self._drive()

    def _listen(self) -> None:
        simulator.register_value_change_callback(self._tx, self._start, simulator.FALLING)

    def _start(self) -> None:
        self._byte = self._count = 0
        self._after(1.5, self._sample)

    def _sample(self) -> None:
        level = self._tx.get_signal_val_binstr() == "1"
        if self._count == DATA_BITS:
            if level:  # the stop bit
                self.received.append(self._byte)
            self._listen()
            return
        self._byte |= level << self._count
        self._count += 1
        self._after(1, self._sample)


class Board:
    """The bench: board, line and terminal."""

    def __init__(self, dut: Any, directory: Path) -> None:
        self._dut, self._directory = dut, directory
        settings = json.loads((directory / "settings.json").read_text())
        self._clock_hz: int = settings["clock_hz"]
        self._linger: int = settings["linger"]  # cycles for which an unanswered byte keeps the board's time running
        self._link = Path(settings["link"]) if settings["link"] else None
        self._line = SerialLine(dut.rx, dut.tx)
        self._terminal = Terminal()
        self._commands = b""
        self._quiet_at = 0
        self._answered = 0  # bytes since the last that the client sent
        self._cycle = 0

    def publish(self) -> None:
        """Tell the terminal's name, and let the symbolic link point to it."""
        name = self._terminal.name
        if self._link is not None:
            fresh = self._link.with_name(f".{self._link.name}.{os.getpid()}")
            fresh.symlink_to(name)
            fresh.replace(self._link)
        fresh = self._directory / "port.new"
        fresh.write_text(name)
        fresh.replace(self._directory / "port.txt")

    async def reset(self) -> None:
        """The board's button."""
        self._dut.rst.set(Immediate(1))
        await self._pass(16)
        self._dut.rst.set(Immediate(0))

    async def _pass(self, cycles: int) -> None:
        self._cycle += cycles
        await Timer(cycles * STEPS_PER_CYCLE, unit="step")

    async def serve(self) -> None:
        """Until standard input ends."""
        while True:
            busy = self._cycle < self._quiet_at or self._line.busy or self._dut.training._handle.get_signal_val_long()
            ready, _, _ = select.select([self._terminal.master, sys.stdin], [], [], 0 if busy else IDLE_SECONDS)
            if sys.stdin in ready and not await self._command():
                return
            self._line.bit = self._clock_hz / self._terminal.baud() * STEPS_PER_CYCLE
            data = self._terminal.read()
            if data:
                self._line.send(data)
                self._answered = 0
                self._quiet_at = self._cycle + self._linger + round(len(data) * 10 * self._line.bit / STEPS_PER_CYCLE)
                busy = True
            await self._pass(CHUNK if busy else IDLE_CYCLES)
            if self._line.received:
                answer = bytes(self._line.received)
                self._line.received.clear()
                self._terminal.write(answer)
                self._answered += len(answer)
                ends = self._answered >= LEAST_FRAME and answer[-1] == FLAG
                self._quiet_at = self._cycle if ends else self._cycle + self._linger

    async def _command(self) -> bool:
        """A line of standard input, or its end: then False."""
        data = os.read(sys.stdin.fileno(), 4096)
        self._commands += data
        *lines, self._commands = self._commands.split(b"\n")
        for line in lines:
            if line == b"reset":
                await self.reset()
            elif line == b"unplug":
                self._terminal.close()
                self._terminal = Terminal()
                self.publish()
            else:
                raise SimulationError(f"board: expected reset or unplug, found {line!r}")
        return bool(data)


@cocotb.test()
async def run_board(dut: Any) -> None:
    """Serve the board; see the module's description."""
    directory = Path(os.environ["CATGRAD_HW_BOARD"])
    gc.freeze()
    try:
        dut.rx.set(Immediate(1))
        dut.rst.set(Immediate(1))
        await Timer(STEPS_PER_CYCLE, unit="step")
        Clock(dut.clk, STEPS_PER_CYCLE, unit="step", impl="gpi").start(start_high=False)
        board = Board(dut, directory)
        await board.reset()
        board.publish()
        await board.serve()
    except (CatgradError, OSError) as error:
        (directory / "error.txt").write_text(str(error))
        raise
