"""A minimal client of the link, written from docs/link.md on a bare file descriptor: sends exactly what it is told."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time

from catgrad_hw.host.protocol import Frame, FrameDecoder, Request

TCGETS2, TCSETS2, TERMIOS2 = 0x802C542A, 0x402C542B, 44
CBAUD, BOTHER = 0o10017, 0o10000


class Client:
    """``port`` at ``baud``; bytes go out as they are given."""

    def __init__(self, port: str, baud: int, limit: float = 30.0) -> None:
        self.file = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.limit = limit
        self.sequence = 0
        self.decoder = FrameDecoder()
        self.set_baud(baud)

    def close(self) -> None:
        os.close(self.file)

    def set_baud(self, baud: int) -> None:
        """Any rate, other than what termios knows (Linux's BOTHER)."""
        state = bytearray(fcntl.ioctl(self.file, TCGETS2, bytes(TERMIOS2)))
        (flags,) = struct.unpack_from("=I", state, 8)
        struct.pack_into("=I", state, 8, flags & ~CBAUD | BOTHER)
        struct.pack_into("=II", state, 36, baud, baud)
        fcntl.ioctl(self.file, TCSETS2, bytes(state))

    def send(self, data: bytes) -> None:
        """Bytes, whatever they are."""
        while data:
            select.select([], [self.file], [])
            data = data[os.write(self.file, data) :]

    def receive(self, seconds: float | None = None) -> Frame | None:
        """The next frame, or None after ``seconds``."""
        deadline = time.monotonic() + (self.limit if seconds is None else seconds)
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.file], [], [], left)[0]:
                frames = self.decoder.feed(os.read(self.file, 1))
                if frames:
                    return frames[0]
        return None

    def exchange(self, frame: Frame) -> Frame:
        """The reply to a frame; fails where none comes."""
        self.send(frame.encode())
        reply = self.receive()
        assert reply is not None, f"no reply to {frame}"
        assert reply.sequence == frame.sequence
        return reply

    def ask(self, request: Request) -> Frame:
        """The reply to the next request of the session."""
        self.sequence = (self.sequence + 1) % 256
        return self.exchange(Frame(self.sequence, request.code, request.pack()))
