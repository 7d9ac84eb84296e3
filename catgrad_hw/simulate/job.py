"""What a simulation does and what it observes, independent of the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from catgrad_hw.gateware.registers import Command, DataMode, Register
from catgrad_hw.simulate.driver import Driver, Words

Record = Callable[[Words], None]
"""Takes the parameter words after each step, in flat order."""


@dataclass(frozen=True)
class Job:
    """A training run in the core, with everything that is read back from it.

    * ``parameters``: initial words, flat; read back after each of ``steps`` steps.
    * ``batches``: words of each batch, shape (batches, batch * words per sample), used in rotation. ``resident``:
      they fit on chip together and are loaded once; otherwise each is streamed in when it is needed.
    * ``predictions``: words of the batches to predict after training, of ``prediction_words`` results each.
    * ``unasked``: the core only predicts, whatever it is given; ``steps`` and ``burst`` are 0.
    * ``burst``: further steps run by one command at the end, which measures the cycles from step to step; their
      last parameters are one more record.
    * ``counters``: saturation counters to read; ``key``: the random key of the first step.
    * ``limit``: cycles after which a silent core is given up; ``backpressure``: seed of random pauses, or None.
    """

    parameters: Words
    batches: Words
    steps: int
    resident: bool = True
    predictions: Words = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    prediction_words: int = 0
    unasked: bool = False
    burst: int = 3
    counters: int = 0
    key: int = 0
    limit: int = 1_000_000
    backpressure: int | None = None

    @property
    def records(self) -> int:
        """Number of times that the parameters are read back."""
        return self.steps + (self.burst > 0)

    def save(self, path: Path) -> None:
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})

    @staticmethod
    def load(path: Path) -> Job:
        with np.load(path) as archive:
            values = {name: archive[name] for name in archive.files}
        return Job(**{name: value if value.ndim else value.item() for name, value in values.items()})


@dataclass(frozen=True)
class Outcome:
    """What the core's registers and streams said, beside the parameters.

    Cycles are clock cycles: ``step_cycles`` by the core's counter for each single step, ``burst_cycles`` for the
    whole burst, ``predict_cycles`` for the last predict (of an ``unasked`` core the most that any took, from the first
    word that it accepted to the last that it offered, both included); ``load_cycles`` and ``readback_cycles`` (one read
    of all parameters) by the bench, command included; ``total_cycles`` simulated.
    """

    identity: int
    steps_done: int
    step_cycles: tuple[int, ...]
    burst_cycles: int
    predict_cycles: int
    load_cycles: int
    readback_cycles: int
    total_cycles: int
    saturations: tuple[int, ...]
    predictions: tuple[tuple[int, ...], ...]

    def cycles_per_step(self, burst: int) -> float:
        """Cycles from the start of a step to the earliest start of the next, in steady state."""
        return (self.burst_cycles - self.step_cycles[-1]) / (burst - 1) if burst > 1 else float(self.step_cycles[-1])

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Outcome:
        values: dict[str, Any] = json.loads(path.read_text())
        values["predictions"] = map(tuple, values["predictions"])
        for name in ("step_cycles", "saturations", "predictions"):
            values[name] = tuple(values[name])
        return Outcome(**values)


async def execute(job: Job, driver: Driver, record: Record) -> Outcome:
    """Run ``job`` on a core; ``record`` gets the parameter words after each step, as they are read."""

    async def load(batches: Words) -> None:
        await driver.command(Command.FORGET_SAMPLES)
        await driver.write(Register.DATA_MODE, DataMode.RESIDENT if job.resident else DataMode.STREAM)
        for batch in batches if job.resident else ():
            await driver.send("samples", batch)

    def feed(first: int, count: int) -> list[Words]:
        return [] if job.resident else [job.batches[i % len(job.batches)] for i in range(first, first + count)]

    await driver.reset()
    identity = await driver.identity()
    if job.unasked:
        return await _predict_all(job, driver, identity)
    await driver.write(Register.KEY, job.key)
    start = driver.cycle
    await driver.send("parameters", job.parameters)
    await load(job.batches)
    load_cycles = driver.cycle - start

    step_cycles, readback_cycles = [], 0
    for step in range(job.steps):
        step_cycles.append(await driver.run(Command.STEP, 1, feed(step, 1)))
        start = driver.cycle
        record(await driver.results(Command.READ_PARAMETERS, job.parameters.size))
        readback_cycles = driver.cycle - start
    steps_done = await driver.read(Register.STEPS)
    saturations = await driver.saturations(job.counters)

    predictions, predict_cycles = [], 0
    if len(job.predictions):
        await driver.command(Command.FORGET_SAMPLES)
        await driver.write(Register.DATA_MODE, DataMode.STREAM)
        for batch in job.predictions:
            predict_cycles = await driver.run(Command.PREDICT, 1, [batch])
            predictions.append(tuple((await driver.results(Command.READ_PREDICTIONS, job.prediction_words)).tolist()))

    burst_cycles = 0
    if job.burst:
        await load(np.roll(job.batches, -(job.steps % len(job.batches)), axis=0))
        burst_cycles = await driver.run(Command.STEP, job.burst, feed(job.steps, job.burst))
        record(await driver.results(Command.READ_PARAMETERS, job.parameters.size))

    return Outcome(
        identity=identity,
        steps_done=steps_done,
        step_cycles=tuple(step_cycles),
        burst_cycles=burst_cycles,
        predict_cycles=predict_cycles,
        load_cycles=load_cycles,
        readback_cycles=readback_cycles,
        total_cycles=driver.cycle,
        saturations=tuple(saturations),
        predictions=tuple(predictions),
    )


async def _predict_all(job: Job, driver: Driver, identity: int) -> Outcome:
    """Send batch after batch to a core that only predicts, each once the last is answered."""
    start = driver.cycle
    await driver.send("parameters", job.parameters)
    load_cycles = driver.cycle - start
    predictions, longest = [], 0
    for batch in job.predictions:
        start = driver.cycle
        await driver.send("samples", batch)
        predictions.append(tuple((await driver.receive(job.prediction_words)).tolist()))
        # One more cycle has passed, in which nothing more is offered.
        longest = max(longest, driver.cycle - start - 1)
    return Outcome(
        identity=identity,
        steps_done=0,
        step_cycles=(),
        burst_cycles=0,
        predict_cycles=longest,
        load_cycles=load_cycles,
        readback_cycles=0,
        total_cycles=driver.cycle,
        saturations=tuple(await driver.saturations(job.counters)),
        predictions=tuple(predictions),
    )
