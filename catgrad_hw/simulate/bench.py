"""The cocotb bench: runs a :class:`~catgrad_hw.simulate.job.Job` on a Verilog core, inside the simulator's process.

The environment variable ``CATGRAD_HW_JOB`` names a directory: ``job.npz`` is read; ``words.bin`` gets the parameters
after each step (int64, little-endian) while the simulation runs, ``outcome.json`` the rest, and ``error.txt`` why it
failed.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cocotb
from cocotb import simulator
from cocotb.clock import Clock
from cocotb.triggers import GPITrigger, RisingEdge, Timer

from catgrad_hw.errors import CatgradError, SimulationError
from catgrad_hw.simulate.driver import INPUTS, OUTPUTS, UNDEFINED, Driver, Words
from catgrad_hw.simulate.job import Job, execute

PERIOD = 10  # ns


class Edges(GPITrigger):
    """Fires once ``react``, called at every rising edge of a clock, is true or raises.

    Within cocotb alone each edge would take a trigger and a turn of the event loop, ten times as long. What ``react``
    writes must be delayed by the simulator (``COCOTB_TRUST_INERTIAL_WRITES``), not by cocotb's own triggers.
    """

    def __init__(self, clock: Any, react: Callable[[], bool]) -> None:
        super().__init__()
        self._clock, self._call = clock, react
        self.error: Exception | None = None

    def _prime(self) -> None:
        self._cbhdl = simulator.register_value_change_callback(self._clock._handle, self._edge, simulator.RISING)

    def _edge(self) -> None:
        try:
            done = self._call()
        except Exception as error:
            self.error, done = error, True
        if done:
            self._react()
        else:
            self._prime()  # a callback fires once


class CocotbPins:
    """The ports of ``dut``; :class:`~catgrad_hw.simulate.driver.Pins` by cocotb handles."""

    def __init__(self, dut: Any) -> None:
        self._clock, self._edge = dut.clk, RisingEdge(dut.clk)
        self._delays = os.environ.get("COCOTB_TRUST_INERTIAL_WRITES") == "1"
        try:
            self._handles = {name: getattr(dut, name) for name in (*INPUTS, *OUTPUTS)}
        except AttributeError as error:
            raise SimulationError(f"core {dut._name}: a port is missing: {error}") from None
        # As text of 0, 1 and X; cocotb's own `value` makes an object for each read, several times as slow.
        self._bits = {name: handle._handle.get_signal_val_binstr for name, handle in self._handles.items()}

    def width(self, name: str) -> int:
        return len(self._handles[name])

    def set(self, name: str, value: int) -> None:
        self._handles[name].value = value

    async def tick(self, *names: str) -> tuple[int, ...]:
        await self._edge
        return tuple([self._value(name) for name in names])

    def _value(self, name: str) -> int:
        try:
            return int(self._bits[name](), 2)
        except ValueError:
            return UNDEFINED

    async def watch(self, names: Sequence[str], react: Callable[..., bool]) -> None:
        if not self._delays:
            while not react(*await self.tick(*names)):
                pass
            return
        reads = [self._bits[name] for name in names]

        def edge() -> bool:
            try:
                values = [int(read(), 2) for read in reads]
            except ValueError:
                values = [self._value(name) for name in names]
            return react(*values)

        edges = Edges(self._clock, edge)
        await edges
        if edges.error is not None:
            raise edges.error

    async def skip(self, cycles: int) -> None:
        # One wake-up for all but the last cycle, away from the edges.
        if cycles > 1:
            await Timer((cycles - 1) * PERIOD + PERIOD // 2, unit="ns")
        await self._edge


@cocotb.test()
async def run_job(dut: Any) -> None:
    """Run the job; see the module's description."""
    directory = Path(os.environ["CATGRAD_HW_JOB"])
    gc.freeze()  # what is there now stays: do not look for garbage among it
    try:
        job = Job.load(directory / "job.npz")
        pins = CocotbPins(dut)
        for name in INPUTS:
            pins.set(name, 0)
        pins.set("rst", 1)
        # Without a defined reset before the first edge, four-valued simulators stay undefined.
        await Timer(PERIOD, unit="ns")
        Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start(start_high=False)
        driver = Driver(pins, limit=job.limit, backpressure=job.backpressure)
        with (directory / "words.bin").open("wb", buffering=0) as stream:

            def record(words: Words) -> None:
                stream.write(words.astype("<i8").tobytes())

            outcome = await execute(job, driver, record)
        outcome.save(directory / "outcome.json")
    except CatgradError as error:
        (directory / "error.txt").write_text(str(error))
        raise
