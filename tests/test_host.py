"""The host's side of a board: ports, data of one's own, checkpoints, and the driver against a simulated board."""

from __future__ import annotations

import io
import os
import pty
import random
import stat
import threading
import tty
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from catgrad_hw.boards.description import BOARDS
from catgrad_hw.boards.fit import fit
from catgrad_hw.cli.host import _ask
from catgrad_hw.errors import BoardLostError, DataError, LinkError
from catgrad_hw.gateware.link.settings import LinkSettings, describe
from catgrad_hw.hardware import compile_hardware, only_predict
from catgrad_hw.host.checkpoint import Checkpoint, fingerprint
from catgrad_hw.host.device import check_identity, find_design
from catgrad_hw.host.protocol import Frame
from catgrad_hw.host.table import read_table
from catgrad_hw.host.transport import Port, Transport, choose_port
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.workload import load_workload
from tests.small_workloads import dense_workload

# --- ports ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def line():
    """A pseudo-terminal that nothing of ours serves: its other end, and its name."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_a_port_that_is_not_there(tmp_path):
    with pytest.raises(BoardLostError, match=r"expected a serial port, found no such file; plug the board in, .*: "):
        Transport(str(tmp_path / "ttyUSB9"))


def test_a_file_that_is_no_port(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError, match="expected a serial port, found: "):
        Transport(str(tmp_path / "file"))


def test_a_port_that_may_not_be_opened(line):
    os.chmod(line[1], 0)
    user = os.geteuid()
    try:
        if user == 0:  # root may open anything
            os.seteuid(65534)
        with pytest.raises(LinkError, match=r"you may not open it; join its group: sudo usermod -aG \w+ \$USER"):
            Transport(line[1])
    finally:
        os.seteuid(user)
        os.chmod(line[1], stat.S_IRUSR | stat.S_IWUSR)


def test_a_silent_port(line):
    with pytest.raises(BoardLostError, match=r"found silence for .* is the bitstream loaded"):
        Transport(line[1], timeout=0.05)


def test_a_port_that_something_else_chatters_on(line):
    master, name = line
    ended = threading.Event()

    def chatter():
        while not ended.wait(0.01):
            os.write(master, b"~login: ~$GPGGA")

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        with pytest.raises(LinkError, match=r"found \d+ bytes that are none, in .*; choose the board's UART"):
            Transport(name, timeout=0.02)
    finally:
        ended.set()
        thread.join()


def test_an_unplugged_port():
    master, slave = pty.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    os.close(slave)
    threading.Timer(0.1, os.close, (master,)).start()
    with pytest.raises(BoardLostError, match="found that it is gone"):
        Transport(name, timeout=5)


ICE = [Port("/dev/ttyUSB0", "iCEBreaker A"), Port("/dev/ttyUSB1", "iCEBreaker B")]


@pytest.mark.parametrize(("proven", "kept"), [(True, 500_000), (False, 1_000_000)])
def test_retries_go_to_and_fro_between_two_rates(proven, kept):
    """A slow board is still at the rate agreed on; one that heard nothing has gone back. A rate that never worked is
    given up."""

    class Line(Transport):
        def __init__(self, answers):
            self._serial, self.default_baud, self.port = SimpleNamespace(baudrate=500_000), 1_000_000, "line"
            self._rate, self._proven, self._timeout, self.rates, self.answers = 500_000, proven, 0.0, [], answers

        def _write(self, data):
            self.rates.append(self._serial.baudrate)

        def _await(self, sequence, sent):
            return (Frame(sequence, 0x80) if len(self.rates) == self.answers else None), 0

    expected = [500_000, 500_000, 1_000_000, 500_000, 1_000_000]
    for answers, rate in ((2, 500_000), (3, kept), (4, 500_000), (5, kept)):
        line = Line(answers)
        line._exchange(Frame(1, 2), 4)
        assert line.rates == expected[:answers]
        assert line._rate == rate
    with pytest.raises(BoardLostError, match="found silence"):
        Line(6)._exchange(Frame(1, 2), 4)


def test_port_auto():
    assert choose_port(ICE[:1], None) == "/dev/ttyUSB0"
    assert choose_port(ICE, lambda found: found.index(ICE[1])) == "/dev/ttyUSB1"
    with pytest.raises(LinkError, match="expected a serial port with a board, found none; plug the board in"):
        choose_port([], None)
    with pytest.raises(
        LinkError, match=r"found /dev/ttyUSB0 \(iCEBreaker A\), /dev/ttyUSB1 \(iCEBreaker B\); give one"
    ):
        choose_port(ICE, None)


def test_the_user_is_asked_which_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("3\nx\n2\n"))
    assert choose_port(ICE[:2], _ask) == "/dev/ttyUSB1"  # at the third answer: there is no third port
    assert capsys.readouterr().err.count("port number") == 3


# --- data of one's own ------------------------------------------------------------------------------------------------


def table(tmp_path: Path, text: str, label: str | None = "kind", widths=(2, 3)):
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    return read_table(path, dense_workload(2, list(widths)), label)


def test_a_table_in_any_order_of_columns(tmp_path):
    found = table(tmp_path, "a,kind,b\n1,pear,2.5\n-3, apple ,4e-1\n\n5,fig,6\n")
    assert found.x.tolist() == [[1, 2.5], [-3, np.float32(0.4)], [5, 6]]
    assert found.classes == ("apple", "fig", "pear")
    assert found.y.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_numbers_as_classes_are_in_the_order_of_their_values(tmp_path):
    assert table(tmp_path, "a,kind,b\n1,10,0\n1,9,0\n1,-2,0\n").classes == ("-2", "9", "10")


def test_a_number_as_the_only_output_is_the_output(tmp_path):
    found = table(tmp_path, "a,b,kind\n1,2,0.5\n3,4,-1\n", widths=(2, 1))
    assert (found.y.tolist(), found.classes) == ([[0.5], [-1]], ())


def test_a_table_of_questions_has_no_label(tmp_path):
    found = table(tmp_path, "a,b\n1,2\n", None)
    assert (found.x.tolist(), found.y) == ([[1, 2]], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "expected a column 'kind', found a, b; choose --label among them"),
        ("a,kind\n1,x\n", "expected 2 columns beside the label, as the model has inputs, found 1: a"),
        ("a,b,c,kind\n1,2,3,x\n", "expected 2 columns beside the label, as the model has inputs, found 3: a, b, c"),
        ("a,b,kind\n1,2,x\n1,nan,x\n", "line 3, column b: expected a finite number, found nan"),
        ("a,b,kind\n1,-inf,x\n", "line 2, column b: expected a finite number, found -inf"),
        ("a,b,kind\n1,1e39,x\n", "line 2, column b: expected a finite number, found 1e39"),
        ("a,b,kind\n1,,x\n", "line 2, column b: expected a number, found an empty cell"),
        ("a,b,kind\n1,two,x\n", "line 2, column b: expected a number, found 'two'"),
        ("a,b,kind\n1,2,\n", "line 2, column kind: expected a label, found an empty cell"),
        ("a,b,kind\n1,2\n", "line 2: expected 3 columns, found 2"),
        ("a,b,kind\n1,2,x\n1,2,y\n", "column kind: expected 3 classes, as the model has outputs, found 2: x, y"),
        ("a,a,kind\n1,2,x\n", "expected columns of different names, found a more than once"),
        ("a;b;kind\n1;2;x\n", "expected commas between columns, found semicolons"),
        ("1,2,3\n1,2,3\n", "expected the names of the columns in the first row, found numbers"),
        ("a,b,kind\n", "expected a row of names and rows of data, found 1 rows"),
        ('a,b,kind\n1,"2,x\n', "expected a CSV file in UTF-8, found: "),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        table(tmp_path, text)
    assert message in str(caught.value)


def test_tables_that_cannot_be_read(tmp_path):
    workload = dense_workload(2, [2, 3])
    with pytest.raises(DataError, match="expected a CSV file, found none"):
        read_table(tmp_path / "none.csv", workload, "kind")
    (tmp_path / "latin.csv").write_bytes("größe,b,kind\n".encode("latin-1"))
    with pytest.raises(DataError, match="expected a CSV file in UTF-8"):
        read_table(tmp_path / "latin.csv", workload, "kind")


# --- checkpoints ------------------------------------------------------------------------------------------------------

STATE = Checkpoint(
    words=(np.array([[1, -(2**23)], [3, 4]]), np.array([2**31 - 1])),
    seed=2**32 - 1,
    step=7,
    saturations={"a1.z": 2**40, "e1": 0},
    model="small",
    identity=2**64 - 1,
    data=fingerprint(np.arange(6)),
)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    STATE.save(tmp_path / "c.npz")
    found = Checkpoint.load(tmp_path / "c.npz")
    assert replace(found, words=()) == replace(STATE, words=())
    assert [words.tolist() for words in found.words] == [words.tolist() for words in STATE.words]
    assert [words.dtype for words in found.words] == [np.int64, np.int64]


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    STATE.save(path)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises(OSError, match="the disk is full"):
            replace(STATE, step=8).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.npz"]


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(DataError, match="expected a file, found none"):
        Checkpoint.load(tmp_path / "none.npz")
    STATE.save(tmp_path / "c.npz")
    whole = (tmp_path / "c.npz").read_bytes()
    np.savez(tmp_path / "parameters.npz", p0=np.zeros(3))
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("parameters", "short", "empty"):
        with pytest.raises(DataError, match=r"expected an .npz that --checkpoint wrote"):
            Checkpoint.load(tmp_path / f"{name}.npz")


def test_a_damaged_checkpoint_is_refused(tmp_path):
    """Never is another state gone on from than the one that was kept, whatever became of the file."""
    path, generator = tmp_path / "c.npz", random.Random(0)
    STATE.save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        data = bytearray(whole)
        place = generator.randrange(len(data))
        damaged = (
            data[:place],
            data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :],
            data[:place] + generator.randbytes(generator.randrange(40)) + data[place + generator.randrange(40) :],
            generator.randbytes(place),
        )
        path.write_bytes(generator.choice(damaged))
        try:
            found = Checkpoint.load(path)
        except DataError:
            refused += 1
        else:  # a byte that says nothing
            assert replace(found, words=()) == replace(STATE, words=())
            assert [words.tolist() for words in found.words] == [words.tolist() for words in STATE.words]
    assert refused > 350


# --- identity ---------------------------------------------------------------------------------------------------------


@contextmanager
def refused(message):
    with pytest.raises(LinkError) as caught:
        yield
    assert message in str(caught.value)


def test_a_board_with_another_design_is_refused():
    workload = dense_workload(4, [3, 2], rate=0.05)
    hardware = compile_hardware(workload, 2, resident=False)
    found = describe(hardware.program, LinkSettings(12_000_000))
    check_identity(replace(found, session=5), hardware)
    assert find_design(found, workload).program == hardware.program
    with refused("lanes 4 in place of 2, parameters 163 in place of 8; give the model"):
        check_identity(replace(found, identity=1, parameters=163, lanes=4), hardware)
    with refused("the same sizes, but other formats, tile, memory or learning rate"):
        find_design(found, dense_workload(4, [3, 2], rate=0.06))


def test_a_design_is_found_by_what_the_board_says_of_itself():
    workload = load_workload("iris-hidden")
    quantized = quantize_workload(workload, "18")
    programs = [
        fit(workload, BOARDS["tang-nano-9k"], lanes=4, quantized=quantized).hardware.program,
        schedule(quantized.integer, 4, samples=len(workload.x)),
        schedule(only_predict(quantized.integer), 4),
    ]
    assert len({program.identity for program in [*programs, schedule(quantized.integer, 4)]}) == 4
    for program in programs:
        found = find_design(describe(program, LinkSettings(12_000_000)), workload)
        assert found.program == program
        assert found.integer.formats == quantized.integer.formats
