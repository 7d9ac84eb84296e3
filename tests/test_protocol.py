"""The wire format against its written-out vectors, against zlib and HDLC's rules, and against its page."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catgrad_hw.errors import LinkError
from catgrad_hw.host import protocol
from catgrad_hw.host.protocol import (
    EXAMPLE,
    MEANING,
    REQUESTS,
    VECTORS,
    Description,
    Frame,
    FrameDecoder,
    Hello,
    LinkRegister,
    ReadRegisters,
    ReadResults,
    ReplyCode,
    RequestCode,
    WriteRegisters,
    done,
    pack_words,
    rate,
    stuff,
    unpack_words,
)

PAGE = Path(__file__).parent.parent / "docs" / "link.md"
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_vectors_encode_and_decode(vector):
    assert vector.frame.encode() == vector.encoded
    assert FrameDecoder().feed(vector.encoded) == [vector.frame]


def test_vectors_use_every_request_and_both_escapes():
    assert {v.frame.code for v in VECTORS} >= set(RequestCode)
    assert any(b"\x7d\x5e" in v.encoded for v in VECTORS)
    assert any(b"\x7d\x5d" in v.encoded for v in VECTORS)


def test_the_crc_is_the_one_of_ieee_802_3():
    """The check value of the catalogue of parametrised CRCs, and the residue that a receiver looks for."""
    assert zlib.crc32(b"123456789") == 0xCBF43926
    content = Frame(ord("1"), ord("2"), b"3456789").content()
    assert content == b"123456789" + bytes.fromhex("2639f4cb")
    assert zlib.crc32(content) == protocol.CRC_RESIDUE


@given(st.lists(frames, max_size=4), st.integers(1, 9), st.integers(0, 3))
def test_frames_come_out_of_pieces_of_any_size(sent, size, flags):
    line = b"".join(frame.encode() + b"\x7e" * flags for frame in sent)
    decoder = FrameDecoder()
    found = [f for i in range(0, len(line), size) for f in decoder.feed(line[i : i + size])]
    assert found == sent
    assert decoder.dropped == 0


@given(frames)
def test_neither_flag_nor_escape_stands_inside_a_frame(frame):
    inside = frame.encode()[1:-1]
    assert 0x7E not in inside
    assert set(re.findall(rb"\x7d(.)", inside, re.DOTALL)) <= {b"\x5e", b"\x5d"}


@given(frames, st.data())
def test_a_changed_frame_is_dropped(frame, data):
    """Any burst of up to 32 changed bits is seen by the CRC, and the frame after it is found."""
    content = bytearray(frame.content())
    first = data.draw(st.integers(0, len(content) - 4))
    change = data.draw(st.binary(min_size=4, max_size=4).filter(any))
    for i, bits in enumerate(change):
        content[first + i] ^= bits
    decoder = FrameDecoder()
    good = Frame(1, 2, b"good")
    assert decoder.feed(b"\x7e" + stuff(bytes(content)) + b"\x7e" + good.encode()) == [good]
    assert decoder.dropped == 1


def test_short_aborted_and_endless_frames_are_dropped():
    decoder = FrameDecoder(limit=100)
    assert decoder.feed(b"\x7e\x01\x02\x03\x7e") == []
    assert decoder.feed(b"\x7d\x7e") == []
    assert decoder.feed(bytes(10_000) + b"\x7e") == []
    assert decoder.dropped == 3
    noise = random.Random(0).randbytes(100_000)
    assert decoder.feed(noise + b"\x7e") == []
    assert decoder.feed(Frame(3, 4).encode()) == [Frame(3, 4)]


@pytest.mark.parametrize("bits", [7, 8, 9, 16, 17, 18, 24, 25, 32])
def test_words_survive_the_way(bits):
    limit = 1 << (bits - 1)
    words = np.array([0, 1, -1, limit - 1, -limit, limit // 3])
    data = pack_words(words, bits)
    assert len(data) == len(words) * -(-bits // 8)
    assert (unpack_words(data, bits) == words).all()
    assert data[: -(-bits // 8)] == bytes(-(-bits // 8))
    with pytest.raises(LinkError, match=f"{bits} bits"):
        pack_words(np.array([limit]), bits)
    if bits > 8:
        with pytest.raises(LinkError, match="multiple of"):
            unpack_words(data[1:], bits)


def test_requests_and_replies_pack_and_unpack():
    assert Hello.unpack(Hello(0x12345678).pack()) == Hello(0x12345678)
    assert ReadRegisters.unpack(ReadRegisters(16, 9).pack()) == ReadRegisters(16, 9)
    assert ReadRegisters.values(b"\x01\0\0\0\xff\xff\xff\xff") == (1, 0xFFFFFFFF)
    assert ReadResults.unpack(ReadResults(7).pack()) == ReadResults(7)
    writes = WriteRegisters(((6, 0x89ABCDEF), (3, 1)))
    assert WriteRegisters.unpack(writes.pack()) == writes
    assert done(b"\x2c\x01") == 300
    with pytest.raises(LinkError, match="2 bytes"):
        done(b"")
    assert set(REQUESTS) == set(RequestCode)
    assert set(MEANING) == set(ReplyCode)


def test_a_description_is_checked():
    payload = EXAMPLE.pack()
    assert len(payload) == Description.SIZE
    assert payload[Description.SESSION_OFFSET :][:4] == EXAMPLE.session.to_bytes(4, "little")
    assert Description.unpack(payload) == EXAMPLE
    for wrong, message in [
        (payload[:-1], "another device"),
        (b"XXXX" + payload[4:], "another device"),
        (payload[:4] + b"\x09" + payload[5:], "version 1"),
    ]:
        with pytest.raises(LinkError, match=message):
            Description.unpack(wrong)


@given(st.sampled_from([12_000_000, 25_000_000, 45_000_000, 120_000_000]), st.integers(9_600, 20_000_000))
def test_baud_rates(clock, baud):
    try:
        found = rate(clock, baud)
    except LinkError as error:
        low, high = map(int, re.findall(r"expected (\d+) to (\d+)", str(error))[0])
        assert not low <= baud <= high
        assert baud < clock / 1000 or baud > clock / 8
    else:
        assert found <= 1 << 13
        assert abs(found * clock / 2**16 - baud) < 0.01 * baud


def test_the_page_tells_what_the_code_does():
    """Every code, register, field and vector stands in docs/link.md, with its number and its bytes."""
    rows = {tuple(cell.strip() for cell in line.strip("| ").split("|")) for line in PAGE.read_text().splitlines()}
    named = {(row[0], row[1]) for row in rows if len(row) > 1}
    assert {(f"{code:#04x}", f"`{code.name}`") for code in (*RequestCode, *ReplyCode, *LinkRegister)} <= named
    assert {(f"{code:#04x}", f"`{code.name}`", meaning) for code, meaning in MEANING.items()} <= rows
    assert {(v.name, f"`{v.encoded.hex()}`") for v in VECTORS} <= named
    offset, sizes = 4, {"B": 1, "H": 2, "I": 4, "Q": 8}
    kinds = Description.FORMAT.removeprefix("<4s")
    for kind, name in zip(kinds, [f.name for f in fields(Description)], strict=True):
        assert (str(offset), str(sizes[kind]), f"`{name}`") in {row[:3] for row in rows}
        offset += sizes[kind]
