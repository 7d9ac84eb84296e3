"""Requests and replies over a serial port: opened with good advice, repeated where the line loses them.

A request is executed once or not at all, however often it is sent (``docs/link.md``), so a reply that does not come is
answered by sending the same frame again.
"""

from __future__ import annotations

import errno
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import serial
from serial.tools import list_ports

from catgrad_hw.errors import BoardLostError, LinkError
from catgrad_hw.host.protocol import (
    DEFAULT_BAUD,
    FLAG,
    MEANING,
    Description,
    Frame,
    FrameDecoder,
    Hello,
    ReplyCode,
    Request,
    change_baud,
)

TIMEOUT = 1.0
"""Seconds without a byte, beside the time that the frames themselves take, after which a request is sent again."""
RETRIES = 4
PATIENCE = 10
"""A device that chatters without a frame is given up after so many times the timeout."""

ANSWERED = (ReplyCode.OK, ReplyCode.BUSY)
"""Replies to requests that were executed, if only in part."""


@dataclass(frozen=True)
class Port:
    """A serial port of this machine: its name, and what is plugged into it."""

    name: str
    description: str


def ports() -> list[Port]:
    """The serial ports that something is plugged into, in order of name."""
    found = [p for p in list_ports.comports() if p.vid is not None]
    return sorted((Port(p.device, p.description) for p in found), key=lambda port: port.name)


def choose_port(found: Sequence[Port], ask: Callable[[Sequence[Port]], int] | None) -> str:
    """The port to use: the only one, or that which ``ask`` returns the index of; None where nobody can be asked.

    Raises:
        LinkError: there is none, or there are several and nobody to ask.
    """
    if not found:
        raise LinkError(
            "--port auto: expected a serial port with a board, found none; plug the board in, look at its cable (some "
            "only charge), or give the port's name"
        )
    if len(found) == 1:
        return found[0].name
    if ask is None:
        names = ", ".join(f"{port.name} ({port.description})" for port in found)
        raise LinkError(f"--port auto: expected one serial port, found {names}; give one by --port")
    return found[ask(found)].name


class Transport:
    """A session with the board at ``port``, open from the constructor to :meth:`close`.

    ``baud`` is the board's default rate; ``timeout`` in seconds, and ``retries``, as of a single request.

    Raises:
        LinkError: the port cannot be opened, or what answers there is no board of ours.
        BoardLostError: nothing answers.
    """

    def __init__(
        self, port: str, *, baud: int = DEFAULT_BAUD, timeout: float = TIMEOUT, retries: int = RETRIES
    ) -> None:
        self.port, self.default_baud = port, baud
        self._rate, self._proven = baud, True
        self._timeout, self._retries = timeout, retries
        self._sequence = 0
        self._decoder = FrameDecoder()
        self._reply_bytes = Description.SIZE
        self.description: Description
        self._serial = _open(port, baud)
        try:
            self._hello()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the port back, at the default rate. The board goes on with what it does."""
        if self._serial.is_open and self._serial.baudrate != self.default_baud:
            with suppress(LinkError):
                self._exchange(self._frame(change_baud(self.description.clock_hz, self.default_baud)), retries=0)
        self._serial.close()

    def reopen(self) -> None:
        """Close and open the port, and begin a new session; raises as the constructor does."""
        self.close()
        self._serial = _open(self.port, self.default_baud)
        self._hello()

    def request(self, request: Request) -> Frame:
        """Send ``request``, again and again if need be, and return the reply: OK or BUSY.

        Raises:
            BoardLostError: no reply came, the port is gone, or the board was reset.
            LinkError: the board refuses the request, or another client has taken it over.
        """
        if self._serial.baudrate != self._rate:  # a pause, or a new session, has let both ends go back
            self.change_baud(self._rate)
        return self._request(request)

    def change_baud(self, baud: int) -> None:
        """Go over to another rate, together with the board.

        Where the line does not carry it, both ends go back to the default rate after a time, and stay there.

        Raises:
            LinkError: as :func:`catgrad_hw.host.protocol.rate`.
        """
        self._request(change_baud(self.description.clock_hz, baud))
        self._serial.baudrate = baud
        self._rate, self._proven = baud, False

    # --- frames -----------------------------------------------------------------------------------------------------

    def _frame(self, request: Request) -> Frame:
        """The next request's frame."""
        return Frame((self._sequence + 1) & 0xFF, request.code, request.pack())

    def _request(self, request: Request) -> Frame:
        frame = self._frame(request)
        reply = self._exchange(frame, self._retries)
        if reply.code in ANSWERED:
            self._sequence, self._proven = frame.sequence, True
            return reply
        lost = BoardLostError if reply.code == ReplyCode.SESSION else LinkError
        name = f"port {self.port}: request {request.code.name}"
        if reply.code not in MEANING:
            raise LinkError(f"{name}: expected a reply that the protocol has, found code {reply.code:#04x}")
        code = ReplyCode(reply.code)
        raise lost(f"{name}: expected it done, found reply {code.name}: {MEANING[code]}")

    def _hello(self) -> None:
        """Begin a session of our own, whatever the line carried before."""
        self._sequence = secrets.randbelow(256)
        self._decoder = FrameDecoder()
        hello = Hello(1 + secrets.randbelow(2**32 - 1))
        self._write(bytes([FLAG]))  # what came before is no part of our frame
        reply = self._exchange(Frame(self._sequence, hello.code, hello.pack()), self._retries)
        self.description = Description.unpack(reply.payload)
        self._reply_bytes = self.description.reply_bytes
        if self.description.session != hello.session:
            raise LinkError(f"port {self.port}: expected the session of this hello, found another; is the port shared?")

    def _exchange(self, frame: Frame, retries: int) -> Frame:
        """The reply to ``frame``. At a rate other than the default, retries go to and fro between the two: a board that
        hears nothing goes back to the default after a time, and one that is only slow has not yet."""
        encoded = frame.encode()
        rate, heard = self._serial.baudrate, 0
        for attempt in range(retries + 1):
            if attempt > 1:
                self._serial.baudrate = rate if attempt % 2 else self.default_baud
            self._write(encoded)
            reply, received = self._await(frame.sequence, len(encoded))
            if reply is not None:
                if not self._proven:
                    self._rate = self._serial.baudrate
                return reply
            heard += received
        seconds = f"{(retries + 1) * self._timeout:.0f} s"
        if heard:
            raise LinkError(
                f"port {self.port}: expected a board's reply, found {heard} bytes that are none, in {seconds}; choose "
                f"the board's UART (some boards have two ports), at {self.default_baud} baud"
            )
        raise BoardLostError(
            f"port {self.port}: expected a reply from a board, found silence for {seconds}; is the bitstream loaded "
            "(catgrad-hw program), is this the board's UART (some boards have two ports), are RX and TX crossed?"
        )

    def _await(self, sequence: int, sent: int) -> tuple[Frame | None, int]:
        """The reply to ``sequence``, or None where it does not come; the bytes that came and were no frame."""
        line = 10 * (sent + 2 * self._reply_bytes) / self._serial.baudrate
        start = time.monotonic()
        deadline, last = start + line + self._timeout, start + PATIENCE * self._timeout
        received = 0
        while (now := time.monotonic()) < min(deadline, last):
            data = self._read(deadline - now)
            if not data:
                continue
            deadline = time.monotonic() + self._timeout
            received += len(data)
            for frame in self._decoder.feed(data):
                received = 0
                if frame.sequence == sequence and frame.code & 0x80:
                    return frame, 0
        return None, received

    def _write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except (serial.SerialException, OSError) as error:
            raise self._gone(error) from None

    def _read(self, seconds: float) -> bytes:
        """What has come, or the first byte that comes within ``seconds``."""
        try:
            self._serial.timeout = max(0.0, seconds)
            return bytes(self._serial.read(max(1, self._serial.in_waiting)))
        except (serial.SerialException, OSError, TypeError) as error:  # TypeError: pyserial, of a closed port
            raise self._gone(error) from None

    def _gone(self, error: Exception) -> BoardLostError:
        return BoardLostError(
            f"port {self.port}: expected an open port, found that it is gone ({' '.join(str(error).split())}); is the "
            "cable plugged in?"
        )


def _open(name: str, baud: int) -> serial.Serial:
    """The open port; every way of failing names its remedy."""
    try:
        return serial.Serial(name, baud, exclusive=True)
    except (serial.SerialException, OSError, ValueError) as error:
        code, text = getattr(error, "errno", None), " ".join(str(error).split())
    found = ", ".join(port.name for port in ports()) or "none"
    if code == errno.ENOENT:
        raise BoardLostError(
            f"port {name}: expected a serial port, found no such file; plug the board in, or give its port; there are: "
            f"{found}"
        )
    if code in (errno.EACCES, errno.EPERM):
        raise LinkError(
            f"port {name}: expected to be let in, found that you may not open it; join its group: sudo usermod -aG "
            f"{_group(name)} $USER, then log in again"
        )
    if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK) or "exclusively lock" in text:
        raise LinkError(f"port {name}: expected a free port, found that another program has it; end that program")
    raise LinkError(f"port {name}: expected a serial port, found: {text}; give the board's port; there are: {found}")


def _group(name: str) -> str:
    """The group that may open the port: of serial ports on Debian, dialout."""
    try:
        return Path(name).group()
    except (OSError, KeyError, NotImplementedError):
        return "dialout"
