"""The wire format between a host and a board, for both ends: frames, requests, replies, errors, test vectors.

``docs/link.md`` describes it for those who write another client. Nothing here does input or output.

A frame's content is sequence number, code, payload, and the CRC-32 of these (IEEE 802.3, least significant byte
first); it stands between two flags, byte-stuffed as in HDLC-like framing (RFC 1662). Integers are little-endian. The
host asks, the board answers: one reply for each request whose CRC is right, silence for anything else.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from catgrad_hw.errors import LinkError
from catgrad_hw.gateware.registers import Command, DataMode, Register

Words = npt.NDArray[np.int64]

VERSION = 1
MAGIC = b"CGHW"
DEFAULT_BAUD = 1_000_000

FLAG, ESCAPE, ESCAPE_XOR = 0x7E, 0x7D, 0x20
HEADER_BYTES, CRC_BYTES = 2, 4
CRC_RESIDUE = 0x2144DF1C
"""The CRC-32 of any content with its own CRC appended."""


# --- frames -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """What a frame carries: ``sequence`` and ``code``, one byte each, and a payload."""

    sequence: int
    code: int
    payload: bytes = b""

    def content(self) -> bytes:
        """Sequence number, code, payload, CRC: what is then stuffed."""
        body = bytes([self.sequence, self.code]) + self.payload
        return body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")

    def encode(self) -> bytes:
        """The bytes on the line, both flags included."""
        return bytes([FLAG]) + stuff(self.content()) + bytes([FLAG])


def stuff(content: bytes) -> bytes:
    """``content`` with each flag and escape replaced by an escape and the byte exclusive-or 0x20."""
    result = bytearray()
    for byte in content:
        result += bytes([ESCAPE, byte ^ ESCAPE_XOR]) if byte in (FLAG, ESCAPE) else bytes([byte])
    return bytes(result)


class FrameDecoder:
    """Finds frames in a stream of bytes that comes in pieces of any size.

    Whatever stands between two flags and is no frame with the right CRC is dropped; ``dropped`` counts such pieces,
    empty ones excepted. A piece longer than ``limit`` bytes is dropped without being kept in memory.
    """

    def __init__(self, limit: int = 1 << 16) -> None:
        self.dropped = 0
        self._limit = limit
        self._content = bytearray()
        self._escaped = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes."""
        frames = []
        for byte in data:
            if byte == FLAG:
                frame = self._end()
                if frame is not None:
                    frames.append(frame)
            elif byte == ESCAPE:
                self._escaped = True
            elif len(self._content) <= self._limit:
                self._content.append(byte ^ ESCAPE_XOR if self._escaped else byte)
                self._escaped = False
        return frames

    def _end(self) -> Frame | None:
        content, escaped = bytes(self._content), self._escaped
        self._content.clear()
        self._escaped = False
        if not content and not escaped:
            return None
        short = len(content) < HEADER_BYTES + CRC_BYTES
        if short or escaped or len(content) > self._limit or zlib.crc32(content) != CRC_RESIDUE:
            self.dropped += 1
            return None
        return Frame(content[0], content[1], content[HEADER_BYTES:-CRC_BYTES])


# --- words ------------------------------------------------------------------------------------------------------------


def word_bytes(bits: int) -> int:
    """Bytes that carry a word of ``bits`` bits."""
    return -(-bits // 8)


def pack_words(words: Words, bits: int) -> bytes:
    """Signed words in two's complement, each in :func:`word_bytes` bytes, least significant first.

    Raises:
        LinkError: a word that ``bits`` bits cannot hold.
    """
    flat = np.asarray(words, np.int64).ravel()
    limit = 1 << (bits - 1)
    if flat.size and (flat.min() < -limit or flat.max() >= limit):
        raise LinkError(f"words: expected {-limit} to {limit - 1} ({bits} bits), found {flat.min()} to {flat.max()}")
    return flat.astype("<i8").view(np.uint8).reshape(-1, 8)[:, : word_bytes(bits)].tobytes()


def unpack_words(data: bytes, bits: int) -> Words:
    """The inverse of :func:`pack_words`; the bits above ``bits`` do not matter.

    Raises:
        LinkError: ``data`` are no whole number of words.
    """
    size = word_bytes(bits)
    if len(data) % size:
        raise LinkError(f"words: expected a multiple of {size} bytes, found {len(data)}")
    wide = np.zeros((len(data) // size, 8), np.uint8)
    wide[:, :size] = np.frombuffer(data, np.uint8).reshape(-1, size)
    words = wide.view("<i8").ravel() & ((1 << bits) - 1)
    return np.where(words >> (bits - 1) == 1, words - (1 << bits), words).astype(np.int64)


# --- codes ------------------------------------------------------------------------------------------------------------


class RequestCode(IntEnum):
    """What a request asks for."""

    HELLO = 1
    READ_REGISTERS = 2
    READ_RESULTS = 3
    WRITE_REGISTERS = 4
    WRITE_PARAMETERS = 5
    WRITE_SAMPLES = 6
    WRITE_DATA = 7


class ReplyCode(IntEnum):
    """How a request fared. Bit 7 tells a reply from a request that comes back on a line that echoes."""

    OK = 0x80
    SEQUENCE = 0x81
    SESSION = 0x82
    COMMAND = 0x84
    LENGTH = 0x88
    BUSY = 0x90


MEANING: dict[ReplyCode, str] = {
    ReplyCode.OK: "done",
    ReplyCode.SEQUENCE: "nothing done: the sequence number is neither that of the last request nor the one after it; "
    "another client has begun a session, or a frame came late: say hello with a new session",
    ReplyCode.SESSION: "nothing done: the board was reset and knows no session: say hello, and load what it needs",
    ReplyCode.COMMAND: "nothing done: no such request code",
    ReplyCode.LENGTH: "the payload has not the length that the code asks for; of a write, the whole words were done, "
    "and `done` counts their bytes",
    ReplyCode.BUSY: "a write was done in part: `done` tells how many bytes of its payload. The core did not take the "
    "next word in time (it runs, or all its slots are full), or runs while a register of it was to be written",
}


class LinkRegister(IntEnum):
    """Registers of the link, beside the core's (:class:`catgrad_hw.gateware.registers.Register`); write only."""

    RESET = 0xF0  # any value resets the core, even a running one; memories and the session stay
    DATA_POSITION = 0xF1  # bits 0-30: word of the data set memory; bit 31: replay from there, or stop
    DATA_LAST = 0xF2  # the last word of the ring: after it, word 0 follows
    RATE = 0xF3  # 2**16 * baud / clock_hz, rounded: in force from after the reply on


REPLAY = 1 << 31
"""The bit of ``LinkRegister.DATA_POSITION`` that starts the replay."""

FALLBACK_SECONDS = (1.0, 2.0)
"""Without a good frame, the default baud rate comes back after a time in this range."""

PATIENCE_SECONDS = (1 / 64, 1 / 32)
"""A write is given up (BUSY) when the core takes no word for a time in this range."""


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """Begin session ``session`` (32 bits, random), or go on with it. The reply is a :class:`Description`.

    A session that is not the board's current one becomes it, and this frame's sequence number is the last one done.
    The current session's own number changes nothing, so that a repeated hello does no harm.
    """

    code: ClassVar[RequestCode] = RequestCode.HELLO
    session: int

    def pack(self) -> bytes:
        return struct.pack("<I", self.session)

    @classmethod
    def unpack(cls, payload: bytes) -> Hello:
        return cls(*struct.unpack("<I", payload))


@dataclass(frozen=True)
class ReadRegisters:
    """The values of ``count`` registers of the core from ``first`` on, as 4 bytes each. On the line stand the first and
    the one behind the last."""

    code: ClassVar[RequestCode] = RequestCode.READ_REGISTERS
    first: int
    count: int

    def pack(self) -> bytes:
        return struct.pack("<BB", self.first, self.first + self.count)

    @classmethod
    def unpack(cls, payload: bytes) -> ReadRegisters:
        first, end = struct.unpack("<BB", payload)
        return cls(first, end - first)

    @staticmethod
    def values(payload: bytes) -> tuple[int, ...]:
        """The registers in a reply's payload, unsigned."""
        return struct.unpack(f"<{len(payload) // 4}I", payload)


@dataclass(frozen=True)
class ReadResults:
    """The next ``count`` words (at most 255) that a read command of the core has asked for, or fewer, where it offers
    fewer at present; packed as words of ``Description.result_bits``."""

    code: ClassVar[RequestCode] = RequestCode.READ_RESULTS
    count: int

    def pack(self) -> bytes:
        return struct.pack("<B", self.count)

    @classmethod
    def unpack(cls, payload: bytes) -> ReadResults:
        return cls(*struct.unpack("<B", payload))


@dataclass(frozen=True)
class WriteRegisters:
    """Write (register, 32-bit value) pairs, in this order. The reply's payload is :func:`done`, in bytes of 5 a pair.

    A register of the core is written only while the core is idle; otherwise the reply is BUSY.
    """

    code: ClassVar[RequestCode] = RequestCode.WRITE_REGISTERS
    writes: tuple[tuple[int, int], ...]

    def pack(self) -> bytes:
        return b"".join(struct.pack("<BI", register, value & 0xFFFFFFFF) for register, value in self.writes)

    @classmethod
    def unpack(cls, payload: bytes) -> WriteRegisters:
        return cls(tuple(struct.iter_unpack("<BI", payload)))


@dataclass(frozen=True)
class _WriteWords:
    """Words for a stream, packed with :func:`pack_words`. The reply's payload is :func:`done`, in bytes."""

    data: bytes

    def pack(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class WriteParameters(_WriteWords):
    """Words of ``Description.parameter_bits`` for the core's ``parameters`` stream: all parameters in flat order, from
    where the last write ended; :func:`rewind_parameters` goes back to the first."""

    code: ClassVar[RequestCode] = RequestCode.WRITE_PARAMETERS


@dataclass(frozen=True)
class WriteSamples(_WriteWords):
    """Words of ``Description.sample_bits`` for the core's ``samples`` stream: of each sample all of x, then all of y.

    The reply comes when the core has taken all of them, so it is the credit for the next frame.
    """

    code: ClassVar[RequestCode] = RequestCode.WRITE_SAMPLES


@dataclass(frozen=True)
class WriteData(_WriteWords):
    """Words of ``Description.sample_bits`` for the data set memory, from the word that the last write to
    ``LinkRegister.DATA_POSITION`` named, or after those of the last ``WriteData``."""

    code: ClassVar[RequestCode] = RequestCode.WRITE_DATA


Request: TypeAlias = Hello | ReadRegisters | ReadResults | WriteRegisters | WriteParameters | WriteSamples | WriteData

REQUESTS: dict[RequestCode, type[Request]] = {
    request.code: request
    for request in (Hello, ReadRegisters, ReadResults, WriteRegisters, WriteParameters, WriteSamples, WriteData)
}


def done(payload: bytes) -> int:
    """The reply to a write: bytes of the request's payload that were done, a whole number of words.

    Raises:
        LinkError: the payload is no such reply.
    """
    if len(payload) != 2:
        raise LinkError(f"reply to a write: expected 2 bytes, found {len(payload)}")
    (count,) = struct.unpack("<H", payload)
    return int(count)


# --- the board's description ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Description:
    """What a board says of itself, as the payload of the reply to :class:`Hello`.

    * ``version`` of the protocol; ``trains``: 0 for a core that only predicts; ``lanes`` P.
    * ``session``: the current one; ``identity``: the 64-bit hash of the core's program.
    * ``clock_hz``: of the core and the link; ``baud``: the rate after reset.
    * ``request_bytes``, ``reply_bytes``: the longest payloads.
    * ``parameters``: words of all parameters; ``batch``: samples of a step; ``inputs``, ``targets``, ``outputs``: words
      of a sample's x and y (0 where the core only predicts) and of its prediction.
    * ``data_set_words``: of the data set memory, 0 for none.
    * ``parameter_bits``, ``sample_bits``, ``result_bits``: widths of the words of each stream; ``counters``: number of
      saturation counters.
    """

    version: int
    trains: int
    lanes: int
    session: int
    identity: int
    clock_hz: int
    baud: int
    request_bytes: int
    reply_bytes: int
    parameters: int
    batch: int
    inputs: int
    targets: int
    outputs: int
    data_set_words: int
    parameter_bits: int
    sample_bits: int
    result_bits: int
    counters: int

    FORMAT: ClassVar[str] = "<4sBBHIQIIHHIIIIIIBBBB"
    SIZE: ClassVar[int] = 60
    SESSION_OFFSET: ClassVar[int] = 8

    def pack(self) -> bytes:
        """60 bytes: "CGHW", then all fields in order."""
        return struct.pack(self.FORMAT, MAGIC, *astuple(self))

    @classmethod
    def unpack(cls, payload: bytes) -> Description:
        """The description in a reply's payload.

        Raises:
            LinkError: it is no description, or of another version of the protocol.
        """
        if len(payload) != cls.SIZE or payload[:4] != MAGIC:
            raise LinkError(
                f"hello: expected {cls.SIZE} bytes that begin with {MAGIC!r}, found {payload[:16]!r} "
                f"({len(payload)} bytes); another device answers on this port"
            )
        if payload[4] != VERSION:
            raise LinkError(
                f"hello: expected version {VERSION} of the protocol, found {payload[4]}; "
                "build the bitstream and install the package from one version"
            )
        return cls(*struct.unpack(cls.FORMAT, payload)[1:])


# --- what registers are written for -----------------------------------------------------------------------------------


def rewind_parameters(key: int) -> WriteRegisters:
    """The next ``WriteParameters`` begins with the first parameter, and ``key`` is the random key of the next step."""
    return WriteRegisters(((Register.KEY, key), (Register.COMMAND, Command.REWIND_PARAMETERS)))


def position_data(first: int) -> WriteRegisters:
    """The next ``WriteData`` begins with word ``first`` of the data set memory; a replay ends."""
    return WriteRegisters(((LinkRegister.DATA_POSITION, first),))


def run_replayed(steps: int, first: int, words: int) -> WriteRegisters:
    """Forget samples and run ``steps`` steps on the ring of the first ``words`` words of the data set memory, from word
    ``first``, the first of a sample, on."""
    return WriteRegisters(
        (
            *_forget(),
            (LinkRegister.DATA_LAST, words - 1),
            (LinkRegister.DATA_POSITION, REPLAY | first),
            (Register.COUNT, steps),
            (Register.COMMAND, Command.STEP),
        )
    )


def run_streamed(steps: int) -> WriteRegisters:
    """Forget samples and run ``steps`` steps on the samples that ``WriteSamples`` then brings."""
    return WriteRegisters((*_forget(), (Register.COUNT, steps), (Register.COMMAND, Command.STEP)))


def predict_streamed() -> WriteRegisters:
    """Forget samples and predict the batch that ``WriteSamples`` then brings (x and y; y does not matter)."""
    return WriteRegisters((*_forget(), (Register.COMMAND, Command.PREDICT)))


def read_parameters() -> WriteRegisters:
    """``ReadResults`` then brings all parameters, in flat order."""
    return WriteRegisters(((Register.COMMAND, Command.READ_PARAMETERS),))


def read_predictions() -> WriteRegisters:
    """``ReadResults`` then brings the predictions of the last batch."""
    return WriteRegisters(((Register.COMMAND, Command.READ_PREDICTIONS),))


def reset_core() -> WriteRegisters:
    """Stop whatever the core does. Registers are 0; parameters and samples are lost; the data set memory is not."""
    return WriteRegisters(((LinkRegister.DATA_POSITION, 0), (LinkRegister.RESET, 0)))


def change_baud(clock_hz: int, baud: int) -> WriteRegisters:
    """Go over to ``baud`` after the reply."""
    return WriteRegisters(((LinkRegister.RATE, rate(clock_hz, baud)),))


def _forget() -> tuple[tuple[int, int], ...]:
    """An empty ring of samples that are freed once used, and no replay that fills it."""
    return (
        (LinkRegister.DATA_POSITION, 0),
        (Register.COMMAND, Command.FORGET_SAMPLES),
        (Register.DATA_MODE, DataMode.STREAM),
    )


LEAST_RATE, MOST_RATE = 1 << 6, 1 << 13


def rate(clock_hz: int, baud: int) -> int:
    """What ``LinkRegister.RATE`` is to hold: ``2**16 * baud / clock_hz``, rounded.

    At most one bit in 8 clock cycles, and so many that rounding changes the rate by less than 1 %.

    Raises:
        LinkError: the rate is too high or too low for the clock.
    """
    found = round((baud << 16) / clock_hz)
    if not LEAST_RATE <= found <= MOST_RATE:
        low, high = (-(-clock_hz * limit >> 16) for limit in (LEAST_RATE, MOST_RATE))
        raise LinkError(f"baud rate: expected {low} to {high} at a clock of {clock_hz} Hz, found {baud}")
    return found


# --- test vectors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vector:
    """A frame and the bytes that carry it, written out."""

    name: str
    frame: Frame
    encoded: bytes


def _request(name: str, sequence: int, request: Request, encoded: str) -> Vector:
    return Vector(name, Frame(sequence, request.code, request.pack()), bytes.fromhex(encoded))


def _reply(name: str, sequence: int, code: ReplyCode, payload: bytes, encoded: str) -> Vector:
    return Vector(name, Frame(sequence, code, payload), bytes.fromhex(encoded))


EXAMPLE = Description(
    version=VERSION,
    trains=1,
    lanes=4,
    session=0x01234567,
    identity=0xDEADBEEF7E7D0102,
    clock_hz=45_000_000,
    baud=1_000_000,
    request_bytes=500,
    reply_bytes=440,
    parameters=163,
    batch=150,
    inputs=4,
    targets=3,
    outputs=3,
    data_set_words=65_536,
    parameter_bits=24,
    sample_bits=16,
    result_bits=24,
    counters=9,
)

VECTORS: tuple[Vector, ...] = (
    _request("hello", 7, Hello(0x7E7D5E5D), "7e07015d5e7d5d7d5eee37cee37e"),
    _reply(
        "a description", 7, ReplyCode.OK, EXAMPLE.pack(),
        "7e078043474857010104006745230102017d5d7d5eefbeadde40a5ae0240420f00f401b801a3000000960000000400000003000000"
        "030000000000010018101809884a66f47e",
    ),
    _request("read registers 2 to 7", 8, ReadRegisters(Register.STATUS, 6), "7e080202082dc999db7e"),
    _request(
        "run 50 steps on a ring of 1050 words", 9, run_replayed(50, 0, 1050),
        "7e0904f10000000003050000000800000000f219040000f1000000800432000000030100000099f9f82d7e",
    ),
    _reply("all 35 bytes of a write are done", 9, ReplyCode.OK, struct.pack("<H", 35), "7e0980230077fcd0037e"),
    _request(
        "parameters 1, -1, -8388608 of 24 bits", 10, WriteParameters(pack_words(np.array([1, -1, -(1 << 23)]), 24)),
        "7e0a05010000ffffff000080fedf67657e",
    ),
    _request("read at most 168 results", 11, ReadResults(168), "7e0b03a8ea4e34007e"),
    _request(
        "samples 126, -32643 of 16 bits", 12, WriteSamples(pack_words(np.array([126, -32643]), 16)),
        "7e0c067d5e007d5d804cc789b57e",
    ),
    _request(
        "data 0, 32125 of 16 bits", 13, WriteData(pack_words(np.array([0, 32125]), 16)),
        "7e0d0700007d5d7d5d5764590b7e",
    ),
    _reply("a wrong sequence number", 255, ReplyCode.SEQUENCE, b"", "7eff813b5c42487e"),
    Vector("flag and escape as sequence number and code", Frame(0x7E, 0x7D), bytes.fromhex("7e7d5e7d5d064bd1de7e")),
)  # fmt: skip
"""Held to the code by the tests; another client can be held to them."""
