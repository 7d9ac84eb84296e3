"""The cocotb bench: runs a :class:`~catgrad_hw.simulate.job.Job` on a Verilog core, inside the simulator's process.

The environment variable ``CATGRAD_HW_JOB`` names a directory: ``job.npz`` is read; ``words.bin`` gets the parameters
after each step (int64, little-endian) while the simulation runs, ``outcome.json`` the rest, and ``error.txt`` why it
failed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from catgrad_hw.errors import CatgradError, SimulationError
from catgrad_hw.simulate.driver import INPUTS, OUTPUTS, UNDEFINED, Driver, Words
from catgrad_hw.simulate.job import Job, execute

PERIOD = 10  # ns


class CocotbPins:
    """The ports of ``dut``; :class:`~catgrad_hw.simulate.driver.Pins` by cocotb handles."""

    def __init__(self, dut: Any) -> None:
        self._edge = RisingEdge(dut.clk)
        try:
            self._handles = {name: getattr(dut, name) for name in (*INPUTS, *OUTPUTS)}
        except AttributeError as error:
            raise SimulationError(f"core {dut._name}: a port is missing: {error}") from None

    def width(self, name: str) -> int:
        return len(self._handles[name])

    def set(self, name: str, value: int) -> None:
        self._handles[name].value = value

    async def tick(self, *names: str) -> tuple[int, ...]:
        await self._edge
        return tuple([self._value(name) for name in names])

    def _value(self, name: str) -> int:
        try:
            return int(self._handles[name].value)
        except ValueError:
            return UNDEFINED

    async def skip(self, cycles: int) -> None:
        # One wake-up for all but the last cycle, away from the edges.
        if cycles > 1:
            await Timer((cycles - 1) * PERIOD + PERIOD // 2, unit="ns")
        await self._edge


@cocotb.test()
async def run_job(dut: Any) -> None:
    """Run the job; see the module's description."""
    directory = Path(os.environ["CATGRAD_HW_JOB"])
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
