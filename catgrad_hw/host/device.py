"""A board that holds a core of ours, from Python: arrays of floats in, arrays of floats out.

>>> import catgrad_hw
>>> board = catgrad_hw.connect("/dev/ttyUSB1", "iris-hidden")  # doctest: +SKIP
>>> board.load(board.workload.initial_parameters())  # doctest: +SKIP
>>> board.train(board.workload.x, board.workload.y, epochs=1000)  # doctest: +SKIP
>>> board.predict(board.workload.x[:3])  # doctest: +SKIP
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from itertools import chain
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.fit import fit
from catgrad_hw.errors import CapacityError, DataError, LinkError
from catgrad_hw.gateware.link.settings import LinkSettings, describe
from catgrad_hw.gateware.registers import Command, Register, Status
from catgrad_hw.hardware import Hardware, only_predict
from catgrad_hw.host import protocol
from catgrad_hw.host.checkpoint import fingerprint
from catgrad_hw.host.protocol import (
    Description,
    ReadRegisters,
    ReadResults,
    ReplyCode,
    Request,
    WriteData,
    WriteParameters,
    WriteRegisters,
    WriteSamples,
    pack_words,
    unpack_words,
    word_bytes,
)
from catgrad_hw.host.transport import TIMEOUT, Transport
from catgrad_hw.numbers.calibrate import batches
from catgrad_hw.numbers.formats import POLICIES, to_values
from catgrad_hw.numbers.pipeline import Progress, Quantized, quantize_workload
from catgrad_hw.numbers.rounding import Words, step_key
from catgrad_hw.schedule.program import Program
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.simulate.training import flat, sample_words, split
from catgrad_hw.workload import Workload, load_workload

POLL = (0.001, 0.1)
"""Seconds between looks at a running core: at first, and at most."""
STUCK = 10.0
"""Seconds after which a core that waits for samples without using any is given up."""

Steps = Callable[[int], None]
"""Told how many steps of a run are done."""


@dataclass(frozen=True)
class State:
    """The core's registers: whether it runs, whether it waits for samples, cycles of the last run, the random key of
    the next step, and steps since reset."""

    busy: bool
    waiting: bool
    cycles: int
    key: int
    steps: int


def connect(
    port: str,
    model: str | Workload | Hardware,
    *,
    batch: int | None = None,
    lanes: int | None = None,
    numbers: str | None = None,
    memory: float | None = None,
    tile: int | None = None,
    baud: int = protocol.DEFAULT_BAUD,
    rate: int | None = None,
    timeout: float = TIMEOUT,
    progress: Progress | None = None,
) -> Board:
    """Open ``port`` and check that the board there holds the design of ``model``.

    ``model`` is a workload or its name (:func:`catgrad_hw.workload.load_workload`), compiled as the bitstream was
    (:func:`find_design`), or hardware that was compiled so. ``baud`` is the board's default rate, ``rate`` another to
    go over to.

    Raises:
        LinkError: the port cannot be used, nothing answers, or the board holds another design.
        CatgradError: the model cannot be compiled.
    """
    transport = Transport(port, baud=baud, timeout=timeout)
    try:
        if isinstance(model, Hardware):
            hardware = model
        else:
            workload = load_workload(model, batch) if isinstance(model, str) else model
            hardware = find_design(
                transport.description,
                workload,
                lanes=lanes,
                numbers=numbers,
                memory=memory,
                tile=tile,
                progress=progress,
            )
        board = Board(transport, hardware)
        if rate is not None:
            transport.change_baud(rate)
        return board
    except BaseException:
        transport.close()
        raise


def find_design(
    description: Description,
    workload: Workload,
    *,
    lanes: int | None = None,
    numbers: str | None = None,
    memory: float | None = None,
    tile: int | None = None,
    progress: Progress | None = None,
) -> Hardware:
    """The design of ``workload`` that a board of this description holds.

    ``lanes`` and ``numbers`` are by default what the board says of itself; ``memory`` and ``tile`` are those that the
    bitstream was built with. Which board it was built for is found by trying.

    Raises:
        LinkError: the board holds another design.
        CatgradError: the workload cannot be compiled.
    """
    lanes = description.lanes if lanes is None else lanes
    quantized = quantize_workload(workload, _numbers(description) if numbers is None else numbers, progress=progress)
    if not description.trains:
        found = Hardware(quantized, schedule(only_predict(quantized.integer), lanes))
        check_identity(description, found)
        return found
    programs = _trainers(workload, quantized, lanes, memory, tile)
    first = next(programs)
    for number, program in enumerate(chain((first,), programs), 1):
        if progress is not None:
            progress("looking for the board's design", number, 0)
        if program.identity == description.identity:
            return Hardware(quantized, program)
    raise LinkError(_differing(description, first))


def _trainers(
    workload: Workload, quantized: Quantized, lanes: int, memory: float | None, tile: int | None
) -> Iterator[Program]:
    """The programs that a board may hold, most likely first: as asked for; as fitted to each board; with the data set
    in the core."""
    integer = quantized.integer
    yield schedule(integer, lanes, tile=tile, memory=memory)
    for board in BOARDS.values():
        if POLICIES[board.numbers].multiplier == integer.multiplier:
            with suppress(CapacityError):
                yield fit(workload, board, lanes=lanes, memory=memory, tile=tile, quantized=quantized).hardware.program
    with suppress(CapacityError):
        yield schedule(integer, lanes, tile=tile, memory=memory, samples=len(workload.x))


def _numbers(description: Description) -> str:
    """The policy whose words the board has."""
    return {18: "18", 16: "16"}.get(description.sample_bits, "small")


class Board:
    """A board with the design ``hardware``, through an open ``transport``; also a context manager, which closes it.

    Arrays of samples have the model's shapes, with any number of samples; parameters those of the model. Floats are
    rounded to the formats that the bitstream was calibrated for, and clamped to their ranges (:meth:`limits`).

    Raises:
        LinkError: the board holds another design.
    """

    def __init__(self, transport: Transport, hardware: Hardware) -> None:
        self.hardware = hardware
        self.seed, self.step_number = 0, 0
        self._transport = transport
        self._reference = hardware.reference()
        kernels = hardware.integer.kernels
        self._input, self._target, self._output = kernels.inputs[0], kernels.targets, kernels.outputs[0]
        self._per_sample = tuple(kernels.arrays[self._output].shape[1:])
        self._resident = ""  # fingerprint of what the data set memory holds
        self._counters = hardware.program.counters
        check_identity(transport.description, hardware)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the port back. What the board has learned stays in it while it has power."""
        self._transport.close()

    def reopen(self) -> None:
        """Open the port again, after :class:`~catgrad_hw.errors.BoardLostError`; then :meth:`load` what was lost."""
        self._transport.reopen()
        self._resident = ""
        check_identity(self.description, self.hardware)

    @property
    def description(self) -> Description:
        """What the board says of itself."""
        return self._transport.description

    @property
    def batch(self) -> int:
        """Samples of a step."""
        return self.hardware.program.batch

    def state(self) -> State:
        """The core's registers."""
        first, last = Register.STATUS, Register.STEPS
        payload = self._request(ReadRegisters(first, last - first + 1)).payload
        found = dict(zip(range(first, last + 1), ReadRegisters.values(payload), strict=True))
        return State(
            busy=bool(found[Register.STATUS] & Status.BUSY),
            waiting=bool(found[Register.STATUS] & Status.WAITING),
            cycles=found[Register.CYCLES],
            key=found[Register.KEY],
            steps=found[Register.STEPS],
        )

    def saturations(self) -> dict[str, int]:
        """Words that were clamped since parameters were loaded, by tensor."""
        count = len(self._counters)
        if not count:
            return {}
        values = ReadRegisters.values(self._request(ReadRegisters(Register.SATURATIONS, count)).payload)
        return dict(zip(self._counters, values, strict=True))

    # --- parameters ---------------------------------------------------------------------------------------------------

    def load(self, parameters: Sequence[ArrayLike], *, seed: int = 0, step: int = 0) -> None:
        """Set all parameters: floats, or integers, which are words.

        The next training step is number ``step`` (from 0): with ``seed`` it gives the random key, and by itself the
        row of the data at which :meth:`train` goes on. Whatever the board was doing ends.
        """
        self._reference.load(parameters)
        if self.state().busy:
            self._request(protocol.reset_core())
        self._request(protocol.rewind_parameters(step_key(seed, step)))
        self._send(WriteParameters, flat(self._reference.parameter_words()), self.description.parameter_bits)
        self._command(Command.CLEAR_SATURATIONS)
        self.seed, self.step_number = seed, step

    def parameters(self) -> tuple[NDArray[np.float64], ...]:
        """The parameters' values, as they are in the board."""
        formats, names = self.hardware.integer.formats, self.hardware.program.parameters
        return tuple(to_values(words, formats[name]) for name, words in zip(names, self.parameter_words(), strict=True))

    def parameter_words(self) -> tuple[Words, ...]:
        """The parameters' words, as they are in the board."""
        self._require_training("parameters")
        self._command(Command.READ_PARAMETERS)
        return split(self._receive(self.description.parameters), self._reference.parameter_words())

    # --- training -----------------------------------------------------------------------------------------------------

    def step(self, x: ArrayLike, y: ArrayLike) -> None:
        """One training step on a batch."""
        words = self.sample_words(x, y)
        if len(words) != self.batch:
            raise DataError(f"step: expected a batch of {self.batch} samples, found {len(words)}; train() takes any")
        self._stream([words], lambda done: None)

    def train(
        self,
        x: ArrayLike,
        y: ArrayLike,
        epochs: float = 1,
        *,
        steps: int | None = None,
        progress: Steps | None = None,
    ) -> None:
        """Train for ``steps`` steps or, by default, ``epochs`` times over the samples (rounded to steps).

        Batches are consecutive rows, wrapping round, from row ``step_number * batch`` on. Samples that the data set
        memory holds are sent once, whatever the number of calls. ``progress`` is called with the steps done.
        """
        words = self.sample_words(x, y)
        if len(words) < self.batch:
            raise DataError(f"train: expected at least one batch of {self.batch} samples, found {len(words)}")
        steps = round(epochs * len(words) / self.batch) if steps is None else steps
        report = progress or (lambda done: None)
        if words.size <= self.description.data_set_words:
            self._replay(words, steps, report)
        else:
            rows = (self.step_number * self.batch + np.arange(steps * self.batch).reshape(steps, -1)) % len(words)
            self._stream([words[batch] for batch in rows], report)

    def _replay(self, words: Words, steps: int, report: Steps) -> None:
        """Run on samples in the data set memory; it is filled first where it holds others."""
        found = fingerprint(words)
        if found != self._resident:
            self._resident = ""
            self._require_idle("train")
            self._request(protocol.position_data(0))
            self._send(WriteData, words, self.description.sample_bits)
            self._resident = found
        before = self._require_idle("train").steps
        first = self.step_number * self.batch % len(words) * words.shape[1]
        self._request(protocol.run_replayed(steps, first, words.size))
        self._finish(before, steps, report)

    def _stream(self, data: Sequence[Words], report: Steps) -> None:
        """Run on batches that are sent meanwhile."""
        before = self._require_idle("train").steps
        self._request(protocol.run_streamed(len(data)))
        for done, words in enumerate(data):
            self._send(WriteSamples, words, self.description.sample_bits)
            report(done)
        self._finish(before, len(data), report)

    def _finish(self, before: int, steps: int, report: Steps) -> None:
        """Wait until ``steps`` steps are done."""
        state = self._wait(lambda state: report((state.steps - before) % 2**32))
        done = (state.steps - before) % 2**32
        if done != steps:
            raise LinkError(f"train: expected {steps} steps, found that the core did {done}; load parameters again")
        self.step_number += steps

    # --- predicting ---------------------------------------------------------------------------------------------------

    def predict(self, x: ArrayLike) -> NDArray[np.float64]:
        """What the model in the board says of any number of samples."""
        return to_values(self.prediction_words(x), self.hardware.integer.formats[self._output])

    def prediction_words(self, x: ArrayLike) -> Words:
        """:meth:`predict`, as words."""
        words = self._flat(self._input, x, self.description.inputs)
        count = self.batch * prod(self._per_sample)
        parts = []
        self._require_idle("predict")
        for rows, valid in batches(words, self.batch):
            if self.description.trains:
                self._request(protocol.predict_streamed())
                rows = sample_words(rows, np.zeros((len(rows), self.description.targets), np.int64))
            self._send(WriteSamples, rows, self.description.sample_bits)
            if self.description.trains:
                self._wait()
                self._command(Command.READ_PREDICTIONS)
            parts.append(self._receive(count).reshape(self.batch, *self._per_sample)[:valid])
        return np.concatenate(parts) if parts else np.zeros((0, *self._per_sample), np.int64)

    # --- words --------------------------------------------------------------------------------------------------------

    def limits(self) -> dict[str, float]:
        """The largest magnitudes of x and y that the design's formats hold: what is beyond is clamped."""
        formats = self.hardware.integer.formats
        names = zip(("x", "y"), (self._input, *self._target), strict=False)
        return {short: 2.0 ** (formats[name].width - 1 - formats[name].fraction) for short, name in names}

    def _flat(self, name: str, values: ArrayLike, count: int) -> Words:
        """Words of an array, one row for each sample."""
        array = np.asarray(values)
        shape = tuple(self.hardware.integer.kernels.arrays[name].shape[1:])
        if array.ndim == 0 or array.shape[1:] != shape:
            raise DataError(f"array {name}: expected shape (samples, {str(shape)[1:]}, found {array.shape}")
        return self._reference.words_of(name, array).reshape(len(array), count)

    def sample_words(self, x: ArrayLike, y: ArrayLike) -> Words:
        """The words of samples, one row each: x, then y."""
        self._require_training("train")
        inputs = self._flat(self._input, x, self.description.inputs)
        targets = self._flat(self._target[0], y, self.description.targets)
        if len(inputs) != len(targets):
            raise DataError(f"samples: expected as many in y as in x, found {len(targets)} and {len(inputs)}")
        return sample_words(inputs, targets).reshape(len(inputs), -1)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _request(self, request: Request) -> protocol.Frame:
        """A request that the core has to be idle for, if any; the reply."""
        reply = self._transport.request(request)
        if reply.code == ReplyCode.BUSY and isinstance(request, WriteRegisters):
            raise LinkError(
                "board: expected an idle core, found it busy with what another program began; wait, or load parameters"
            )
        return reply

    def _command(self, command: Command) -> None:
        self._require_idle(command.name.lower().replace("_", " "))
        self._request(WriteRegisters(((Register.COMMAND, command),)))

    def _send(self, request: type[WriteParameters | WriteSamples | WriteData], words: Words, bits: int) -> None:
        """All words of a stream, in frames as long as the board takes them; the board's replies are the credit."""
        size = word_bytes(bits)
        most = self.description.request_bytes // size * size
        data = pack_words(words, bits)
        position, moved = 0, time.monotonic()
        while position < len(data):
            reply = self._transport.request(request(data[position : position + most]))
            count = protocol.done(reply.payload)
            position += count
            if count:
                moved = time.monotonic()
            elif time.monotonic() - moved > STUCK:
                raise LinkError(f"board: expected that the core takes words, found none taken for {STUCK:.0f} s")

    def _receive(self, count: int) -> Words:
        """``count`` words that a command asked for."""
        bits = self.description.result_bits
        most = min(255, self.description.reply_bytes // word_bytes(bits))
        parts: list[Words] = []
        received, moved = 0, time.monotonic()
        while received < count:
            part = unpack_words(self._request(ReadResults(min(most, count - received))).payload, bits)
            parts.append(part)
            received += part.size
            if part.size:
                moved = time.monotonic()
            elif time.monotonic() - moved > STUCK:
                raise LinkError(f"board: expected {count} words, found {received} and none for {STUCK:.0f} s")
        return np.concatenate(parts)

    def _wait(self, watch: Callable[[State], None] | None = None) -> State:
        """Poll until the core is idle."""
        pause, longest = POLL
        steps, moved = -1, time.monotonic()
        while (state := self.state()).busy:
            if watch is not None:
                watch(state)
            if state.steps != steps or not state.waiting:
                steps, moved = state.steps, time.monotonic()
            elif time.monotonic() - moved > STUCK:
                raise LinkError(f"board: expected that the core runs, found it waiting for samples for {STUCK:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, longest)
        if watch is not None:
            watch(state)
        return state

    def _require_idle(self, what: str) -> State:
        """The idle core's state. Words that a broken-off client asked for are taken and dropped."""
        state = self.state()
        while state.busy and self._request(ReadResults(255)).payload:
            state = self.state()
        if state.busy:
            raise LinkError(
                f"{what}: expected an idle core, found it busy with what another program began; wait, or load "
                "parameters"
            )
        return state

    def _require_training(self, what: str) -> None:
        if not self.description.trains:
            raise LinkError(f"{what}: expected a core that trains, found one that only predicts")


def check_identity(description: Description, hardware: Hardware) -> None:
    """Refuse a board whose design is not ``hardware``.

    Raises:
        LinkError: names what differs.
    """
    if description.identity != hardware.identity:
        raise LinkError(_differing(description, hardware.program))


def _differing(description: Description, program: Program) -> str:
    """What a board of this description has that ``program`` has not, in words."""
    settings = LinkSettings(description.clock_hz, description.baud, description.data_set_words)
    expected = replace(describe(program, settings), session=description.session)
    differing = [
        f"{field.name} {getattr(description, field.name)} in place of {getattr(expected, field.name)}"
        for field in fields(Description)
        if field.name != "identity" and getattr(description, field.name) != getattr(expected, field.name)
    ]
    what = ", ".join(differing) or "the same sizes, but other formats, tile, memory or learning rate"
    return (
        f"board: expected the design {program.identity:016x} of this model, found {description.identity:016x}, {what}; "
        "give the model, data and options that the bitstream was built with, or load another bitstream"
    )
