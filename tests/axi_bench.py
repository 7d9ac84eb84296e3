"""A cocotb bench that knows AXI alone, by the models of cocotbext-axi: trains in a core and checks every word.

The environment variable ``AXI_JOB`` names a JSON file: ``parameters``, ``samples`` (by batch), ``steps`` (parameters
after each), ``predictions`` (of the first batch; of a core that only predicts, by batch), all words; ``identity`` and
``key``.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamSink, AxiStreamSource

from catgrad_hw.gateware.registers import Command, DataMode, Register, Status

# cocotbext-axi 0.1.28 uses names that cocotb 2.1 has renamed.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"cocotbext\.axi")

PERIOD = 10
PATIENCE = 100_000  # cycles


class Host:
    """What a processor with three DMA channels does. It is idle during resets, so its models need not know of them."""

    def __init__(self, dut: Any) -> None:
        self.lite = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.aclk)
        self.sources = {
            name: AxiStreamSource(AxiStreamBus.from_prefix(dut, f"s_axis_{name}"), dut.aclk)
            for name in ("samples", "parameters")
        }
        bus = AxiStreamBus.from_prefix(dut, "m_axis_results")
        self.sink = AxiStreamSink(bus, dut.aclk)

    def pause(self, seed: int) -> None:
        """Hold every channel back at random."""
        channels = (
            *self.sources.values(),
            self.sink,
            *(self.lite.write_if.aw_channel, self.lite.write_if.w_channel, self.lite.write_if.b_channel),
            *(self.lite.read_if.ar_channel, self.lite.read_if.r_channel),
        )
        for number, channel in enumerate(channels):
            generator = random.Random(f"{seed} {number}")
            channel.set_pause_generator(iter(lambda g=generator: g.random() < 0.5, None))

    async def write(self, register: int, value: int) -> None:
        answer = await self.lite.write(4 * register, value.to_bytes(4, "little"))
        assert answer.resp == AxiResp.OKAY

    async def read(self, register: int) -> int:
        answer = await self.lite.read(4 * register, 4)
        assert answer.resp == AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    async def send(self, stream: str, words: list[int]) -> None:
        source = self.sources[stream]
        await source.write(b"".join(word.to_bytes(source.byte_lanes, "little", signed=True) for word in words))
        await source.wait()

    async def command(self, command: Command) -> None:
        await self.wait()
        await self.write(Register.COMMAND, command)

    async def wait(self) -> None:
        for _ in range(PATIENCE):
            if not await self.read(Register.STATUS) & Status.BUSY:
                return
        raise TimeoutError("the core is still busy")

    async def results(self, command: Command) -> list[int]:
        """What a read command asks for."""
        await self.command(command)
        return await self.receive()

    async def receive(self) -> list[int]:
        """The words up to ``tlast``."""
        data = bytes((await self.sink.recv()).tdata)
        size = self.sink.byte_lanes
        return [int.from_bytes(data[i : i + size], "little", signed=True) for i in range(0, len(data), size)]


async def begin(dut: Any) -> tuple[Host, dict[str, Any]]:
    """A host at a core that was never reset, and the job."""
    dut.aresetn.value = 0
    Clock(dut.aclk, PERIOD, unit="ns").start()
    return Host(dut), json.loads(Path(os.environ["AXI_JOB"]).read_text())


async def reset(dut: Any) -> None:
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 4)
    dut.aresetn.value = 1
    await ClockCycles(dut.aclk, 2)


@cocotb.test()
async def answer(dut: Any) -> None:
    """A core that only predicts is never asked; each batch of predictions is a frame."""
    host, job = await begin(dut)
    await reset(dut)
    assert await host.read(Register.IDENTITY_LOW) | await host.read(Register.IDENTITY_HIGH) << 32 == job["identity"]
    await host.send("parameters", job["parameters"])
    for batch, expected in zip(job["samples"], job["predictions"], strict=True):
        await host.send("samples", batch)
        assert await host.receive() == expected, "predictions"
    assert host.sink.empty()


@cocotb.test()
async def train(dut: Any) -> None:
    """Every word, whether the channels are held back or not."""
    host, job = await begin(dut)
    for seed in (None, 1):
        await reset(dut)
        if seed is not None:
            host.pause(seed)
        assert await host.read(Register.IDENTITY_LOW) | await host.read(Register.IDENTITY_HIGH) << 32 == job["identity"]
        await host.write(Register.KEY, job["key"])
        await host.write(Register.DATA_MODE, DataMode.RESIDENT)
        # A write of half a register is refused, and changes nothing.
        assert (await host.lite.write(4 * Register.KEY, b"\x00\x00")).resp == AxiResp.SLVERR
        assert await host.read(Register.KEY) == job["key"]
        await host.send("parameters", job["parameters"])
        for batch in job["samples"]:
            await host.send("samples", batch)
        await host.write(Register.COUNT, 1)
        for step, expected in enumerate(job["steps"], 1):
            await host.command(Command.STEP)
            assert await host.results(Command.READ_PARAMETERS) == expected, f"parameters after step {step}"
            assert await host.read(Register.STEPS) == step
        await host.command(Command.FORGET_SAMPLES)
        await host.send("samples", job["samples"][0])
        await host.command(Command.PREDICT)
        assert await host.results(Command.READ_PREDICTIONS) == job["predictions"], "predictions"
        assert host.sink.empty()
