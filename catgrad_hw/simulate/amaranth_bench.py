"""The same bench in Amaranth's own simulator: needs nothing but Python, and is slow (about 8,000 cycles a second)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from amaranth.hdl import Value
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator

from catgrad_hw.errors import SimulationError
from catgrad_hw.simulate.driver import INPUTS, OUTPUTS, Driver
from catgrad_hw.simulate.job import Job, Outcome, Record, execute


class AmaranthPins:
    """The ports of a component; :class:`~catgrad_hw.simulate.driver.Pins` by a testbench context."""

    def __init__(self, component: Component, context: Any) -> None:
        self._context = context
        self._signals: dict[str, Any] = {}
        for name in (*INPUTS, *OUTPUTS):
            if name != "rst":  # reset of the clock domain: the simulator starts from it
                port: Any = component
                for part in name.split("__"):
                    port = getattr(port, part)
                self._signals[name] = Value.cast(port)

    def width(self, name: str) -> int:
        return len(self._signals[name])

    def set(self, name: str, value: int) -> None:
        if name != "rst":
            self._context.set(self._signals[name].as_unsigned(), value)

    async def tick(self, *names: str) -> tuple[int, ...]:
        _, _, *values = await self._context.tick().sample(*(self._signals[name].as_unsigned() for name in names))
        return tuple(values)

    async def watch(self, names: Sequence[str], react: Callable[..., bool]) -> None:
        while not react(*await self.tick(*names)):
            pass

    async def skip(self, cycles: int) -> None:
        await self._context.tick().repeat(cycles)


def run(component: Component, job: Job, record: Record, waves: Path | None = None) -> Outcome:
    """Run ``job`` on ``component`` in this process."""
    outcomes: list[Outcome] = []

    async def bench(context: Any) -> None:
        driver = Driver(AmaranthPins(component, context), limit=job.limit, backpressure=job.backpressure)
        outcomes.append(await execute(job, driver, record))

    simulator = Simulator(component)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulate: Callable[[], None] = simulator.run
    if waves is None:
        simulate()
    else:
        with simulator.write_vcd(str(waves)):
            simulate()
    if not outcomes:
        raise SimulationError("Amaranth's simulator: the bench ended early")
    return outcomes[0]
