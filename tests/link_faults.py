"""A campaign of faults on the link: between and inside the exchanges of a training run with a simulated board.

``python -m tests.link_faults --count 10000 --seed 0`` runs the long form; the test suite runs a short one. A client
loads parameters, trains, reads parameters back and compares them with the integer reference, again and again, while
the line garbles, repeats, reorders and loses what it sends, other clients come, the cable is pulled and the board is
reset. After each fault the next request must be answered as it should, and the next parameters read back be right.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from catgrad_hw.cli import show
from catgrad_hw.gateware.link import LinkSettings
from catgrad_hw.gateware.registers import Register
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.host import protocol
from catgrad_hw.host.protocol import (
    REQUESTS,
    Frame,
    Hello,
    ReadRegisters,
    ReadResults,
    ReplyCode,
    Request,
    RequestCode,
    WriteData,
    WriteParameters,
    WriteRegisters,
    WriteSamples,
    done,
    pack_words,
    unpack_words,
)
from catgrad_hw.simulate.board import SimulatedBoard
from catgrad_hw.simulate.training import flat, sample_words
from catgrad_hw.workload import Workload
from tests.link_client import Client
from tests.small_workloads import dense_workload

CLOCK = 12_000_000
SETTINGS = LinkSettings(clock_hz=CLOCK, baud=CLOCK // 8, data_set_words=64)
TIMEOUT, RETRIES = 0.3, 100
WRITES = (WriteRegisters, WriteParameters, WriteSamples, WriteData)


def workload() -> Workload:
    """Two batches of six samples."""
    return dense_workload(6, (3, 2), samples=12, rate=0.25)


@cache
def hardware() -> Hardware:
    """Two lanes, and two tiles a batch, so that a step needs samples while it runs."""
    return compile_hardware(workload(), 2, tile=4, resident=False, calibration_steps=50)


class Restart(Exception):
    """The session or the board's state is lost: begin again with what was last known to be right."""


class Wrong(Exception):
    """The board did what it must not."""


@dataclass
class Campaign:
    """Faults on ``board``, chosen by ``seed``; ``counts`` by kind."""

    board: SimulatedBoard
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    comparisons: int = 0
    restarts: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.client = Client(self.board.port, SETTINGS.baud)
        self.history: list[Frame] = []
        self.hardware = hardware()
        self.reference = self.hardware.reference(0)
        self.reference.load(workload().initial_parameters(0))
        x, y = (self.hardware.integer.kernels.inputs[0], self.hardware.integer.kernels.targets[0])
        self.batches = [
            (self.reference.words_of(x, rows), self.reference.words_of(y, targets))
            for rows, targets in (workload().batch(step) for step in range(2))
        ]
        self.data = np.concatenate([sample_words(*batch) for batch in self.batches])
        self.before: dict[str, Callable[[Frame], Frame | None]] = {
            "random bytes": self._random_bytes,
            "truncated": self._truncated,
            "corrupted": self._corrupted,
            "bytes inserted": self._inserted,
            "too long": self._too_long,
            "wrong length": self._wrong_length,
            "wrong rate": self._wrong_rate,
            "sent twice at once": self._twice,
            "reply lost": self._reply_lost,
            "another client": self._another_client,
            "cable pulled": self._cable_pulled,
            "board reset": self._board_reset,
        }
        self.after: dict[str, Callable[[Frame, Frame], None]] = {
            "repeated": self._repeated,
            "reordered": self._reordered,
        }
        self.weights = {"another client": 0.1, "cable pulled": 0.05, "board reset": 0.1, "wrong rate": 0.3}

    # --- the client ---------------------------------------------------------------------------------------------------

    def exchange(self, frame: Frame) -> Frame:
        """The reply to ``frame``, sent again until it comes."""
        for _ in range(RETRIES):
            self.client.send(frame.encode())
            deadline = time.monotonic() + TIMEOUT
            while (left := deadline - time.monotonic()) > 0:
                reply = self.client.receive(left)
                if reply is not None and reply.sequence == frame.sequence and reply.code & 0x80:
                    if reply.code == ReplyCode.SESSION:
                        raise Restart("session")
                    return reply
        raise Wrong(f"no reply to {frame} in {RETRIES} tries")

    def hello(self) -> None:
        """A session of our own."""
        session = self.random.randrange(1 << 32)
        self.client.sequence = self.random.randrange(256)
        self.history.clear()
        reply = self.exchange(Frame(self.client.sequence, RequestCode.HELLO, Hello(session).pack()))
        if protocol.Description.unpack(reply.payload).session != session:
            raise Wrong("hello: another session than asked for")

    def ask(self, request: Request) -> bytes:
        """The payload of the reply to a request, all of it done, with faults before and after."""
        frame = Frame(self.client.sequence + 1 & 0xFF, request.code, request.pack())
        total = len(frame.payload)
        # A request of wrong length is one of its own: it comes before those that send this one.
        for name in sorted(self._chosen(self.before), key=lambda name: name != "wrong length"):
            self.counts[name] += 1
            changed = self.before[name](frame)
            frame = frame if changed is None else changed
        reply = self.exchange(frame)
        self.client.sequence = frame.sequence
        self.history.append(frame)
        if reply.code != ReplyCode.OK:
            raise Wrong(f"{frame}: expected it done, found {reply}")
        if isinstance(request, WRITES) and done(reply.payload) != len(frame.payload):
            raise Wrong(f"{frame} of {total} bytes: expected all done, found {reply}")
        for name in self._chosen(self.after):
            self.counts[name] += 1
            self.after[name](frame, reply)
        return reply.payload

    def _chosen(self, faults: dict[str, Callable[..., object]]) -> list[str]:
        count = self.random.choice([0, 0, 1, 1, 2, 4])
        names = list(faults)
        return self.random.choices(names, [self.weights.get(name, 1.0) for name in names], k=count)

    # --- faults -------------------------------------------------------------------------------------------------------

    def _random_bytes(self, frame: Frame) -> None:
        self.client.send(self.random.randbytes(self.random.randint(1, 40)))

    def _truncated(self, frame: Frame) -> None:
        encoded = frame.encode()
        self.client.send(encoded[: self.random.randrange(1, len(encoded) - 1)])

    def _corrupted(self, frame: Frame) -> None:
        encoded = bytearray(frame.encode())
        for _ in range(self.random.choice([1, 1, 2, 5])):
            encoded[self.random.randrange(len(encoded))] ^= 1 << self.random.randrange(8)
        if bytes(encoded) != frame.encode():
            self.client.send(bytes(encoded))

    def _inserted(self, frame: Frame) -> None:
        encoded = frame.encode()
        place = self.random.randrange(2, len(encoded) - 1)
        self.client.send(encoded[:place] + self.random.randbytes(self.random.randint(1, 3)) + encoded[place:])

    def _too_long(self, frame: Frame) -> None:
        self.client.send(Frame(frame.sequence, frame.code, self.random.randbytes(510)).encode())

    def _wrong_length(self, frame: Frame) -> Frame | None:
        """A right frame whose payload is a byte short: of a write the whole items are done, and no other request."""
        kind = REQUESTS[RequestCode(frame.code)]
        reply = self.exchange(Frame(frame.sequence, frame.code, frame.payload[:-1]))
        if kind in WRITES:
            size = {WriteRegisters: 5, WriteParameters: 3}.get(kind, 2)
            kept = (len(frame.payload) - 1) // size * size
            if reply.code != ReplyCode.LENGTH or done(reply.payload) != kept:
                raise Wrong(f"{frame}, cut: expected {kept} bytes done, found {reply}")
            rest = frame.payload[kept:]
        else:
            if reply != Frame(frame.sequence, ReplyCode.LENGTH):
                raise Wrong(f"{frame}, cut: expected it refused, found {reply}")
            rest = frame.payload
        return Frame(frame.sequence + 1 & 0xFF, frame.code, rest)

    def _wrong_rate(self, frame: Frame) -> None:
        self.client.set_baud(self.random.choice([9600, 300_000, 1_200_000, 2_400_000]))
        self.client.send(frame.encode()[: self.random.randint(1, 4)])
        time.sleep(0.005)
        self.client.set_baud(SETTINGS.baud)

    def _twice(self, frame: Frame) -> None:
        self.client.send(frame.encode() * 2)

    def _reply_lost(self, frame: Frame) -> None:
        self.client.send(frame.encode())
        self.client.receive(TIMEOUT)

    def _another_client(self, frame: Frame) -> None:
        """It begins a session, and leaves; our next request is refused."""
        self.exchange(
            Frame(frame.sequence + 100 & 0xFF, RequestCode.HELLO, Hello(self.random.randrange(1 << 32)).pack())
        )
        if self.exchange(frame).code != ReplyCode.SEQUENCE:
            raise Wrong(f"{frame}: expected it refused in another session")
        raise Restart("another client")

    def _cable_pulled(self, frame: Frame) -> None:
        """The terminal goes, perhaps in the midst of a frame; the session goes on at the new one."""
        self._truncated(frame)
        self.board.unplug()
        sequence = self.client.sequence
        self.client.close()
        self.client = Client(self.board.port, SETTINGS.baud)
        self.client.sequence = sequence

    def _board_reset(self, frame: Frame) -> None:
        if self.random.random() < 0.5:
            self._truncated(frame)
        self.board.reset()

    def _repeated(self, frame: Frame, reply: Frame) -> None:
        for _ in range(self.random.randint(1, 3)):
            if self.exchange(frame) != reply:
                raise Wrong(f"{frame}: expected the same reply again")

    def _reordered(self, frame: Frame, reply: Frame) -> None:
        """A frame of long ago comes late."""
        late = self.random.choice(self.history)
        if (late.sequence - frame.sequence) % 256 > 1:
            found = self.exchange(late)
            if found != Frame(late.sequence, ReplyCode.SEQUENCE):
                raise Wrong(f"{late}, late: expected it refused, found {found}")

    # --- training -----------------------------------------------------------------------------------------------------

    def run(self, count: int, progress: Callable[[str, int, int], None]) -> None:
        """Train until there were ``count`` faults; raises :class:`Wrong`."""
        fresh = False
        while self.counts.total() < count:
            progress("faults", self.counts.total(), count)
            try:
                if not fresh:
                    self.begin()
                    fresh = True
                self.train()
            except Restart:
                self.restarts += 1
                fresh = False

    def begin(self) -> None:
        """A session; the core and the data set memory in a known state."""
        self.hello()
        self.ask(protocol.reset_core())
        self.ask(protocol.position_data(0))
        data = pack_words(self.data, 16)
        for first in range(0, len(data), 40):
            self.ask(WriteData(data[first : first + 40]))
        self.ask(protocol.rewind_parameters(0))
        words = pack_words(flat(self.reference.parameter_words()), 24)
        for first in range(0, len(words), 9):
            self.ask(WriteParameters(words[first : first + 9]))
        self.step = 0

    def train(self) -> None:
        """A few steps, then compare all parameters; only then is the reference's state the one to go back to."""
        steps = self.random.randint(1, 3)
        parameters = self.reference.parameter_words()
        if self.random.random() < 0.5:
            self.ask(protocol.run_replayed(steps, self.step % 2 * 30, 60))
        else:
            self.ask(protocol.run_streamed(steps))
            for step in range(self.step, self.step + steps):
                words = pack_words(sample_words(*self.batches[step % 2]), 16)
                for first in range(0, len(words), 22):
                    self.ask(WriteSamples(words[first : first + 22]))
        while ReadRegisters.values(self.ask(ReadRegisters(Register.STATUS, 1)))[0] & 1:
            pass
        self.ask(protocol.read_parameters())
        found = [self.ask(ReadResults(3)) for _ in range(3)]
        for step in range(self.step, self.step + steps):
            self.reference.step(*self.batches[step % 2])
        words, expected = unpack_words(b"".join(found), 24), flat(self.reference.parameter_words())
        if not np.array_equal(words, expected):
            raise Wrong(f"parameters after {steps} steps: expected {expected}, found {words}; before {parameters}")
        self.comparisons += 1
        self.step += steps


def campaign(board: SimulatedBoard, count: int, seed: int) -> Campaign:
    """``count`` faults on a running board of :func:`design`."""
    found = Campaign(board, seed)
    try:
        with show.progress() as progress:
            found.run(count, progress)
    finally:
        found.client.close()
    return found


def design(*, quick: bool = False) -> SimulatedBoard:
    """The board of the campaign."""
    return SimulatedBoard(hardware().program, SETTINGS, quick=quick)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.link_faults", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with design() as board:
        try:
            found = campaign(board, arguments.count, arguments.seed)
        except Wrong as error:
            raise SystemExit(f"seed {arguments.seed}: {error}") from None
    for name, count in sorted(found.counts.items()):
        print(f"{count:6} {name}")
    print(
        f"{found.counts.total():6} faults, {found.restarts} restarts, parameters compared {found.comparisons} times, "
        f"0 wrong, {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
