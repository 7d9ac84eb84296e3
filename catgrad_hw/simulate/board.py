"""A simulated board: its top level, serial line included, behind a pseudo-terminal that any client may open.

>>> with SimulatedBoard(hardware.program, LinkSettings(clock_hz=12_000_000)) as board:  # doctest: +SKIP
...     print(board.port)
/dev/pts/3
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from catgrad_hw.errors import ModelError, SimulationError
from catgrad_hw.gateware.link import Device, LinkSettings
from catgrad_hw.schedule.program import Program
from catgrad_hw.simulate import runner, tools

POLL = 0.02  # seconds
START_LIMIT = 120.0  # seconds from the start of the simulator to the first look at the terminal

ANSWER_CYCLES = 64_000
"""More than a board needs from the end of a request to the first byte of its reply, waiting for the core excepted."""

TOP, BENCH = "device", "board"


def device_verilog(program: Program, settings: LinkSettings) -> str:
    """The device as Verilog, top module ``device``; single-port RAM is block RAM of the same behaviour here."""
    from amaranth.back import verilog

    tools.use_yosys()
    device = Device(program, replace(settings, data_set_kind="block"))
    text: str = verilog.convert(device, name=TOP, emit_src=False, strip_internal_attrs=True)
    return text


class SimulatedBoard:
    """A board that is simulated from :meth:`start` to :meth:`stop`, or in a ``with`` block.

    ``port`` is the name of its pseudo-terminal; ``link`` a symbolic link to make to it, and to remove in the end;
    ``netlist`` is Verilog to simulate in place of the device's own, with a top module ``device`` of the same ports;
    ``quick``: little will be simulated, so that a simulation that is slower, but sooner built, will do.
    Simulated time runs while the board has something to do, and nearly stands still while it has not.

    Raises :class:`~catgrad_hw.errors.ToolError` where a tool is missing, and
    :class:`~catgrad_hw.errors.SimulationError` where the simulation fails.
    """

    def __init__(
        self,
        program: Program,
        settings: LinkSettings,
        *,
        simulator: str | None = None,
        link: Path | None = None,
        waves: Path | None = None,
        netlist: str | None = None,
        quick: bool = False,
    ) -> None:
        self.program, self.settings = program, settings
        self.simulator = runner.choose_simulator(simulator)
        if self.simulator == "amaranth":
            lacking = "; ".join(f"{tool.name}: {tool.advice}" for tool in tools.missing("verilator"))
            raise ModelError(
                f"simulated board: expected the simulator verilator or icarus, found amaranth ({lacking or 'chosen'})"
            )
        if link is not None and link.exists() and not link.is_symlink():
            raise ModelError(f"--link {link}: expected a free name or a symbolic link, found a file; give another name")
        self._link, self._waves, self._netlist, self._quick = link, waves, netlist, quick
        self._built: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="catgrad-hw-")

    @property
    def port(self) -> str:
        """The name of the pseudo-terminal, another one after each :meth:`unplug`."""
        return (self._path / "port.txt").read_text()

    @property
    def _path(self) -> Path:
        return Path(self._directory.name)

    def build(self) -> None:
        """Compile the simulation, where the cache lacks it."""
        verilog = self._netlist or device_verilog(self.program, self.settings)
        waves = self._waves is not None
        self._built = runner.build(verilog, self.simulator, bench=BENCH, waves=waves, quick=self._quick)

    def start(self) -> SimulatedBoard:
        """Build, where that was not done, and serve."""
        if self._built is None:
            self.build()
        link = str(self._link.absolute()) if self._link else None
        settings = {
            "clock_hz": self.settings.clock_hz,
            "linger": (1 << self.settings.patience_bits) + ANSWER_CYCLES,
            "link": link,
        }
        (self._path / "settings.json").write_text(json.dumps(settings))
        arguments = [
            "run",
            BENCH,
            self.simulator,
            str(self._built),
            *([str(self._waves.resolve())] if self._waves else []),
        ]
        variables = {"CATGRAD_HW_BOARD": str(self._path)}
        # A session of its own: Ctrl-C is for this process, which then ends that one, simulator and all.
        self._process = runner.start_worker(
            self.simulator, arguments, self._path, variables, stdin=subprocess.PIPE, start_new_session=True
        )
        deadline = time.monotonic() + START_LIMIT
        while not (self._path / "port.txt").exists():
            if time.monotonic() > deadline:
                self.stop()
                raise SimulationError(f"simulated board: no terminal after {START_LIMIT:.0f} s")
            self.check()
            time.sleep(POLL)
        return self

    def check(self) -> None:
        """Raise :class:`~catgrad_hw.errors.SimulationError` if the simulation has ended by itself."""
        if self._process is None or self._process.poll() is None:
            return
        error = self._path / "error.txt"
        reason = error.read_text() if error.exists() else runner.log_tail(self._path)
        raise SimulationError(f"simulated board: {self.simulator} ended: {reason}")

    def reset(self) -> None:
        """Press the board's reset button."""
        self._tell("reset")

    def unplug(self) -> None:
        """Pull the cable, and plug it in again: the terminal goes away, and another one comes (see :attr:`port`)."""
        (self._path / "port.txt").unlink()
        self._tell("unplug")
        while not (self._path / "port.txt").exists():
            self.check()
            time.sleep(POLL)

    def _tell(self, command: str) -> None:
        self.check()
        if self._process is None or self._process.stdin is None:
            raise SimulationError("simulated board: expected a running one, found none; start it first")
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()

    def stop(self) -> None:
        """End the simulation."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if self._link is not None and self._link.is_symlink():
            self._link.unlink()
        self._directory.cleanup()

    def __enter__(self) -> SimulatedBoard:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
