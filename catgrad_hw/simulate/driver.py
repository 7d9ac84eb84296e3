"""The host's side of the core's ports, for any simulator.

A :class:`Driver` speaks the core's protocol through :class:`Pins`, which each simulator implements. Time is counted
in clock cycles; what is set takes effect after the last rising edge, what a tick returns was sampled just before the
next one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from catgrad_hw.errors import SimulationError
from catgrad_hw.gateware.registers import READ_CYCLES, Command, Register, Status

Words = npt.NDArray[np.int64]

INPUTS = (
    "rst",
    "samples__payload",
    "samples__valid",
    "parameters__payload",
    "parameters__valid",
    "results__ready",
    "bus__address",
    "bus__write_data",
    "bus__write_enable",
)
OUTPUTS = ("samples__ready", "parameters__ready", "results__payload", "results__valid", "bus__read_data")

UNDEFINED = -1
"""What a four-valued simulator's undefined port is read as."""


class Pins(Protocol):
    """Access to the core's ports by their Verilog names."""

    def width(self, name: str) -> int:
        """Width of a port in bits."""

    def set(self, name: str, value: int) -> None:
        """Drive an input with the unsigned ``value``, from just after the last rising edge on."""

    async def tick(self, *names: str) -> tuple[int, ...]:
        """Pass one rising edge; the unsigned values of ``names`` just before it, UNDEFINED where a bit is X."""

    async def watch(self, names: Sequence[str], react: Callable[..., bool]) -> None:
        """Pass rising edges until ``react``, called at each with the values that :meth:`tick` would return, is true.

        What ``react`` sets takes effect after that edge. A word of a stream costs one call of a plain function.
        """

    async def skip(self, cycles: int) -> None:
        """Pass ``cycles`` rising edges."""


class StreamMonitor:
    """Asserts the rules of valid/ready streams, from the producer's signals as sampled before rising edges.

    1. A word is transferred at the edges at which valid and ready are both 1, and at no other.
    2. Valid, once 1, stays 1 until the transfer.
    3. The payload does not change while it waits for the transfer.
    4. Valid does not wait for ready (:meth:`Driver.receive` holds ready at 0 until valid is 1).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: int | None = None

    def observe(self, valid: int, ready: int, payload: int) -> bool:
        """One rising edge: whether a word was transferred. Raises :class:`SimulationError` where a rule is broken."""
        if self._waiting is not None:
            if not valid:
                raise SimulationError(f"stream {self.name}: valid fell before the word was transferred (rule 2)")
            if payload != self._waiting:
                change = f"{self._waiting:#x} to {payload:#x}"
                raise SimulationError(f"stream {self.name}: payload changed from {change} while it waited (rule 3)")
        self._waiting = payload if valid and not ready else None
        return bool(valid and ready)


class Driver:
    """Drives a core through its ports.

    ``limit`` is the number of cycles after which a core that does not answer is given up
    (:class:`SimulationError`). With ``backpressure`` (a seed) the driver pauses its streams at random.
    """

    def __init__(self, pins: Pins, *, limit: int, backpressure: int | None = None) -> None:
        self._pins = pins
        self._limit = limit
        self._random = random.Random(backpressure) if backpressure is not None else None
        self._monitor = StreamMonitor("results")
        self._expected: dict[Command, int] = {}
        self.cycle = 0

    async def _tick(self, *names: str) -> tuple[int, ...]:
        """One cycle; the values of ``names``: one port, or a stream's valid and its payload."""
        values = await self._pins.tick(*names)
        self._count(names, values)
        return values

    def _count(self, names: Sequence[str], values: tuple[int, ...]) -> None:
        """A cycle has passed, in which the ports ``names`` had these values."""
        self.cycle += 1
        # The payload of a word that is not offered may be anything.
        if UNDEFINED in values and (len(values) == 1 or values[0] != 0):
            raise SimulationError(f"port {names[values.index(UNDEFINED)]}: undefined in cycle {self.cycle}")

    async def _skip(self, cycles: int) -> None:
        if cycles > 0:
            self.cycle += cycles
            await self._pins.skip(cycles)

    def _pause(self) -> int:
        """Cycles to hold a stream back: mostly none, sometimes a few."""
        if self._random is None or self._random.random() < 0.5:
            return 0
        return self._random.randrange(1, 6)

    async def reset(self) -> None:
        """Drive all inputs to 0 and reset the core."""
        for name in INPUTS:
            self._pins.set(name, 0)
        self._pins.set("rst", 1)
        await self._skip(4)
        self._pins.set("rst", 0)
        await self._skip(2)

    # --- register bus -----------------------------------------------------------------------------------------

    async def write(self, register: int, value: int) -> None:
        """Write a 32-bit register."""
        self._pins.set("bus__address", int(register))
        self._pins.set("bus__write_data", value & 0xFFFFFFFF)
        self._pins.set("bus__write_enable", 1)
        await self._tick()
        self._pins.set("bus__write_enable", 0)

    async def read(self, register: int) -> int:
        """Read a 32-bit register, unsigned."""
        self._pins.set("bus__address", int(register))
        await self._skip(READ_CYCLES)
        (value,) = await self._tick("bus__read_data")
        return value

    async def identity(self) -> int:
        """The design's 64-bit identity."""
        return await self.read(Register.IDENTITY_LOW) | await self.read(Register.IDENTITY_HIGH) << 32

    async def saturations(self, count: int) -> list[int]:
        """The first ``count`` saturation counters."""
        return [await self.read(Register.SATURATIONS + index) for index in range(count)]

    async def command(self, command: Command) -> None:
        """Give a command to the idle core."""
        await self._idle(command)
        await self.write(Register.COMMAND, command)

    async def wait(self, what: Command) -> int:
        """Wait until the core is idle; its cycle register."""
        await self._idle(what)
        return await self.read(Register.CYCLES)

    async def _idle(self, what: Command) -> None:
        waited, pause = 0, 1
        while await self.read(Register.STATUS) & Status.BUSY:
            if waited > self._limit:
                raise SimulationError(f"command {what.name}: core still busy after {waited} cycles")
            await self._skip(pause)
            waited += pause
            pause = min(2 * pause, 256)

    # --- streams ----------------------------------------------------------------------------------------------

    async def send(self, stream: str, words: Words) -> None:
        """Send ``words`` (signed) into the stream ``samples`` or ``parameters``."""
        pins, limit = self._pins, self._limit
        payload, valid, ready = f"{stream}__payload", f"{stream}__valid", f"{stream}__ready"
        mask = (1 << pins.width(payload)) - 1
        values = (words.ravel() & mask).tolist()
        if not values:
            return
        index = waited = pause = 0

        def offer() -> None:
            """Put the next word out, or start a pause before it."""
            nonlocal pause
            pause = self._pause()
            pins.set(valid, int(not pause))
            if not pause:
                pins.set(payload, values[index])

        def react(accepted: int) -> bool:
            nonlocal index, waited, pause
            self._count((ready,), (accepted,))
            if pause:
                pause -= 1
                if not pause:
                    pins.set(payload, values[index])
                    pins.set(valid, 1)
                return False
            if not accepted:
                waited += 1
                if waited > limit:
                    raise SimulationError(
                        f"stream {stream}: word {index} of {words.size} not accepted in {limit} cycles"
                    )
                return False
            index, waited = index + 1, 0
            if index == len(values):
                pins.set(valid, 0)
                return True
            if self._random is None:
                pins.set(payload, values[index])
            else:
                offer()
            return False

        offer()
        await pins.watch((ready,), react)

    async def receive(self, count: int) -> Words:
        """Take ``count`` words from the stream ``results``, sign-extended."""
        pins, limit, observe = self._pins, self._limit, self._monitor.observe
        names = ("results__valid", "results__payload")
        received: list[int] = []
        ready, waited = int(self._random is None), 0

        def react(valid: int, payload: int) -> bool:
            nonlocal ready, waited
            self._count(names, (valid, payload))
            if len(received) == count:
                if valid:
                    raise SimulationError(f"stream results: offers more than the {count} words that were asked for")
                return True
            if observe(valid, ready, payload):
                received.append(payload)
                waited = 0
            elif (waited := waited + 1) > limit:
                rule = "" if ready else " while ready is 0 (rule 4)"
                raise SimulationError(f"stream results: no word {len(received)} of {count} in {limit} cycles{rule}")
            if len(received) == count:
                pins.set("results__ready", 0)
            elif self._random is not None:
                # The first word has to be offered before ready is given: valid must not wait for it.
                ready = int(bool(received or valid) and self._random.random() < 0.5)
                pins.set("results__ready", ready)
            return False

        pins.set("results__ready", ready)
        await pins.watch(names, react)
        width = pins.width("results__payload")
        words = np.array(received, dtype=np.int64)
        return np.where(words >> (width - 1) == 1, words - (1 << width), words)

    # --- programs ---------------------------------------------------------------------------------------------

    async def run(self, command: Command, count: int, feed: Sequence[Words] = ()) -> int:
        """Run ``step`` ``count`` times, or ``predict`` once, streaming in the batches of ``feed`` meanwhile.

        Returns the cycles that the core counted.
        """
        await self.write(Register.COUNT, count)
        await self.command(command)
        started = self.cycle
        for batch in feed:
            await self.send("samples", batch)
        # A static schedule takes as long as the last time: sleep until shortly before.
        await self._skip(self._expected.get(command, 0) * count - 4 - (self.cycle - started))
        cycles = await self.wait(command)
        self._expected[command] = cycles // count
        return cycles

    async def results(self, command: Command, count: int) -> Words:
        """The ``count`` words of a read command."""
        await self.command(command)
        return await self.receive(count)
