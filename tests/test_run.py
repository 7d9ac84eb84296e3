"""A simulated board, trained and asked through its serial port: whatever happens to it, to the bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import catgrad_hw
from catgrad_hw import cli, layers
from catgrad_hw.cli import app, options
from catgrad_hw.cli.host import STOPPED
from catgrad_hw.errors import BoardLostError, DataError, LinkError
from catgrad_hw.gateware.link import LinkSettings
from catgrad_hw.hardware import compile_hardware
from catgrad_hw.host import protocol, training
from catgrad_hw.host.checkpoint import Checkpoint
from catgrad_hw.host.device import Board
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.board import SimulatedBoard
from catgrad_hw.simulate.training import flat
from tests.small_workloads import dense_workload

ROOT = Path(__file__).parent.parent
SAMPLES, STEPS = 10, 24
DATA_SET_WORDS = 5 * SAMPLES
"""So many fit: the workload's own samples are replayed, more than these are streamed."""

MODEL = f"""
from catgrad_hw import layers
from tests.small_workloads import dense_workload

def small():
    return dense_workload(4, [3, 4, 2], samples={SAMPLES}, rate=2.0, loss=layers.mean_squared_error)

def other():
    return dense_workload(4, [3, 5, 2], samples={SAMPLES})
"""

pytestmark = [
    pytest.mark.xdist_group("run"),  # one worker serves the board
    pytest.mark.simulator,
    pytest.mark.skipif(bool(tools.missing("verilator")), reason="a simulated board needs Verilator"),
]


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    """The file of the model, the workload, the hardware."""
    path = tmp_path_factory.mktemp("model") / "model.py"
    path.write_text(MODEL)
    workload = dense_workload(4, [3, 4, 2], samples=SAMPLES, rate=2.0, loss=layers.mean_squared_error)
    return path, workload, compile_hardware(workload, 2, resident=False)


@pytest.fixture(scope="module")
def simulated(design, tmp_path_factory):
    """The board; ``link`` is the name that its port keeps when the cable is pulled."""
    link = tmp_path_factory.mktemp("dev") / "board"
    settings = LinkSettings(clock_hz=8_000_000, data_set_words=DATA_SET_WORDS)
    with SimulatedBoard(design[2].program, settings, link=link, quick=True) as board:
        yield board, str(link)


@pytest.fixture
def board(simulated, design):
    with catgrad_hw.connect(simulated[1], design[2]) as found:
        yield found


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line in this process: exit code, standard output, standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["catgrad-hw", *map(str, arguments)])
        monkeypatch.setattr(options, "_debug", False)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return command


def after(design, steps: int, seed: int = 0):
    """The integer reference after a run."""
    _, workload, hardware = design
    reference = hardware.reference(seed)
    reference.load(workload.initial_parameters(seed))
    for step in range(steps):
        reference.step(*workload.batch(step))
    return reference


def same(words, reference) -> bool:
    return bool((flat(tuple(words)) == flat(reference.parameter_words())).all())


# --- from Python ------------------------------------------------------------------------------------------------------


def test_a_board_does_what_the_reference_does(board: Board, design):
    _, workload, _ = design
    reference = after(design, 0)
    board.load(workload.initial_parameters())
    assert same(board.parameter_words(), reference)
    done = []
    board.train(workload.x, workload.y, steps=7, progress=done.append)  # replayed, and wrapping round
    board.step(*workload.batch(7))  # streamed
    for step in range(8):
        reference.step(*workload.batch(step))
    assert same(board.parameter_words(), reference)
    assert done[-1] == 7
    assert board.step_number == 8
    assert board.saturations() == reference.saturations
    assert all((a == b).all() for a, b in zip(board.parameters(), reference.parameters(), strict=True))
    x = np.concatenate([workload.x, -workload.x[:3]])
    assert (board.prediction_words(x) == reference.predict(x)).all()
    assert board.predict(x[:0]).shape == (0, 2)
    board.load(workload.initial_parameters(), seed=3)
    assert same(board.parameter_words(), after(design, 0))


def test_data_that_do_not_fit_the_board_are_streamed(board: Board, design):
    _, workload, hardware = design
    x, y = (np.concatenate([a, a[::-1][:7]]) for a in (workload.x, workload.y))
    assert x.size + y.size > DATA_SET_WORDS
    board.load(workload.initial_parameters())
    board.train(x, y, epochs=2)  # 8 steps of 4 on 17 samples
    reference = hardware.reference()
    reference.load(workload.initial_parameters())
    for step in range(8):
        rows = np.arange(4 * step, 4 * step + 4) % len(x)
        reference.step(x[rows], y[rows])
    assert same(board.parameter_words(), reference)


def test_what_does_not_fit_the_model_is_refused(board: Board, design):
    _, workload, _ = design
    with pytest.raises(DataError, match=r"array x: expected shape \(samples, 3,\), found \(10, 2\)"):
        board.predict(workload.x[:, :2])
    with pytest.raises(DataError, match="step: expected a batch of 4 samples, found 3"):
        board.step(workload.x[:3], workload.y[:3])
    with pytest.raises(DataError, match="expected as many in y as in x, found 9 and 10"):
        board.train(workload.x, workload.y[:9])
    with pytest.raises(DataError, match="expected finite values, found NaN"):
        board.predict(np.full((1, 3), np.nan))


def test_a_run_that_another_client_left_behind(board: Board, design):
    # The core waits for samples that will never come; loading parameters sets it free.
    _, workload, _ = design
    board.load(workload.initial_parameters())
    board._request(protocol.run_streamed(1))
    with pytest.raises(
        LinkError, match=r"predict: expected an idle core, found it busy with what another program began"
    ):
        board.predict(workload.x)
    board.load(workload.initial_parameters())
    assert same(board.parameter_words(), after(design, 0))
    # So with words that nobody has fetched: they are dropped.
    board._request(protocol.read_parameters())
    assert (board.prediction_words(workload.x) == after(design, 0).predict(workload.x)).all()


def test_another_rate(simulated, design):
    with catgrad_hw.connect(simulated[1], design[2], rate=500_000) as board:
        assert board._transport._serial.baudrate == 500_000
        board.load(design[1].initial_parameters())
        board.reopen()  # a new session begins at the default rate, and goes over again
        assert same(board.parameter_words(), after(design, 0))
        assert board._transport._serial.baudrate == 500_000
    with catgrad_hw.connect(simulated[1], design[2]) as board:  # what was closed has gone back
        assert same(board.parameter_words(), after(design, 0))
    with pytest.raises(LinkError, match="baud rate: expected 7813 to 1000000 at a clock of 8000000 Hz, found 2000000"):
        catgrad_hw.connect(simulated[1], design[2], rate=2_000_000)


def test_a_rate_that_the_board_has_left(simulated, design):
    # As after a pause: the board is at its default rate, the host is not.
    with catgrad_hw.connect(simulated[1], design[2], timeout=0.3) as board:
        board.load(design[1].initial_parameters())
        transport = board._transport
        transport._serial.baudrate = transport._rate = 250_000
        assert same(board.parameter_words(), after(design, 0))
        assert transport._serial.baudrate == 250_000


# --- nothing is lost --------------------------------------------------------------------------------------------------


def test_runs_on_whatever_happens(simulated, board: Board, design):
    # Reset, and a cable that is pulled and plugged in again, in the midst of a run.
    _, workload, _ = design
    kept: list[Checkpoint] = []
    events = [(5, simulated[0].reset), (13, simulated[0].unplug)]

    def disturb(progress: training.Progress) -> None:
        if events and progress.done >= events[0][0]:
            events.pop(0)[1]()

    begin = training.start(board, workload)
    found = training.train(
        board, workload, begin, STEPS, every=6, verify=True, keep=kept.append, progress=disturb, patience=60
    )
    reference = after(design, STEPS)
    assert not events
    assert found.recoveries == 2
    assert [state.step for state in kept] == [6, 12, 18, 24]
    assert same(found.checkpoint.words, reference)
    assert found.checkpoint.saturations == reference.saturations
    assert (found.differences.mismatches, found.differences.differences) == (0, [])
    assert found.differences.compared == 4 * (26 + len(reference.saturations)) + workload.y.size


def test_a_wrong_word_is_seen(board: Board, design):
    # In the midst of the run, someone changes a weight.
    _, workload, _ = design

    def meddle(state: Checkpoint) -> None:
        first, *rest = (words.copy() for words in state.words)
        first.flat[0] ^= 1 << 12
        board.load([first, *rest], seed=state.seed, step=state.step)

    begin = training.start(board, workload)
    found = training.train(board, workload, begin, 12, every=6, verify=True, keep=meddle)
    assert found.differences.mismatches > 0
    assert found.differences.differences[0].startswith("step 12: parameter word 0: expected ")


@pytest.mark.parametrize("event", ["reset", "unplug"])
def test_a_run_that_gives_up_is_resumed(simulated, design, run, tmp_path, event):
    # Nobody waits for the board: the run ends with a word of advice, and another goes on.
    file, _, _ = design
    state = tmp_path / "state.npz"
    command = ["run", f"{file}:small", "--port", simulated[1], "--checkpoint", state, "--every", 4]
    code, _, _ = run(*command, "--steps", 8)
    assert code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Board, "train", _disturbed(Board.train, getattr(simulated[0], event)))
        code, _, err = run(*command, "--resume", "--steps", STEPS, "--patience", 0)
    assert code == app.USAGE
    assert "the run has got as far as step 8" in err
    assert "--resume" in err
    code, out, _ = run(*command, "--resume", "--steps", STEPS, "--verify", "--json", tmp_path / "r.json")
    assert code == 0, out
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["first_step"], report["steps"], report["mismatches"]) == (8, STEPS, 0)
    assert same(Checkpoint.load(state).words, after(design, STEPS))


def _disturbed(method, happen):
    """``method``, before whose first call something happens to the board."""
    left = [happen]

    def changed(*arguments, **options):
        if left:
            left.pop()()
        return method(*arguments, **options)

    return changed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_host_that_is_ended_goes_on(simulated, design, run, tmp_path, number):
    file, _, _ = design
    state, steps = tmp_path / "state.npz", 4000
    command = ["run", f"{file}:small", "--port", simulated[1], "--checkpoint", str(state), "--every", "3"]
    # Where SIGINT was ignored when the tests were started, as of a shell's background job, Python leaves it so.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code += "; from catgrad_hw.cli import main; main()"
    host = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--steps", str(steps)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not state.exists():
            assert host.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        host.send_signal(number)
        _, told = host.communicate()
    if number == signal.SIGINT:  # Ctrl-C
        assert host.returncode == STOPPED
        assert "state.npz has its last state, from which --resume goes on" in told
    before = Checkpoint.load(state).step
    end = before + 6
    assert run(*command, "--resume", "--steps", end, "--verify")[0] == 0
    assert same(Checkpoint.load(state).words, after(design, end))


def test_a_checkpoint_of_another_run_is_refused(board: Board, design):
    _, workload, _ = design
    state = training.start(board, workload)
    training.require_continuation(state, state)
    for change, message in (
        ({"seed": 1}, "expected the seed to be the same, found 1 in place of 0"),
        ({"data": "00"}, "expected the data and their order to be the same"),
        (
            {"identity": 1},
            "expected the design (model, numbers, lanes and memory) to be the same, found 0000000000000001",
        ),
    ):
        with pytest.raises(DataError) as caught:
            training.require_continuation(_changed(state, **change), state)
        assert message in str(caught.value)


def _changed(state: Checkpoint, **fields) -> Checkpoint:
    return Checkpoint(**{**vars(state), **fields})


# --- the command line -------------------------------------------------------------------------------------------------


def test_run_then_ask(simulated, design, run, tmp_path):
    file, workload, hardware = design
    arguments = [f"{file}:small", "--port", simulated[1]]
    files = {"--save": tmp_path / "p.npz", "--json": tmp_path / "r.json"}
    code, out, err = run(
        "run", *arguments, "--epochs", 8, "--seed", 7, "--verify", *(a for p in files.items() for a in p)
    )
    assert (code, err) == (0, "")
    assert "samples a second" in out
    reference = after(design, 20, seed=7)
    report = json.loads(files["--json"].read_text())
    assert (report["steps"], report["mismatches"], report["recoveries"]) == (20, 0, 0)
    assert round(report["cycles_per_step"]) == report["cycles_scheduled"]
    assert report["saturations"] == reference.saturations
    with np.load(files["--save"]) as saved:
        assert all((saved[f"p{i}"] == p).all() for i, p in enumerate(reference.parameters()))

    code, out, err = run("predict", *arguments, "--json", tmp_path / "a.json")
    assert (code, err) == (0, "")
    answers = json.loads((tmp_path / "a.json").read_text())
    form = hardware.integer.formats["yhat"]
    assert (np.array(answers["predictions"]) * 2.0**form.fraction == reference.predict(workload.x)).all()
    assert answers["accuracy"] == report["accuracy"]
    loss = np.mean((np.array(answers["predictions"]) - workload.y) ** 2)
    assert answers["loss"] == report["loss"] == report["curve"][-1][1] == pytest.approx(loss)

    (tmp_path / "questions.csv").write_text("a,b,c\n0.5,0,-0.5\n")
    code, out, err = run("predict", *arguments, "--data", tmp_path / "questions.csv", "--classes", "fig,pear")
    assert (code, err) == (0, "")
    assert "fig" in out or "pear" in out
    assert "accuracy" not in out


def test_own_data_are_told_to_be_too_large(simulated, design, run, tmp_path):
    rows = [f"{i},{-i / 7},0.25,{'yes' if i % 3 else 'no'}" for i in range(8)]
    (tmp_path / "own.csv").write_text("\n".join(["a,b,c,ripe", *rows]))
    arguments = ["run", f"{design[0]}:small", "--port", simulated[1], "--data", tmp_path / "own.csv"]
    code, out, err = run(*arguments, "--label", "ripe", "--steps", 5, "--verify")
    assert code == 0
    assert "no, yes" in out
    assert " 24 values of x are beyond ±2, what the bitstream was calibrated for, and are clamped" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume: expected --checkpoint FILE"),
        (["--label", "kind"], "--label: expected --data FILE.csv"),
        (["--data", "own.csv"], "--data: expected --label COLUMN"),
        (["--checkpoint", "none.npz", "--resume"], "checkpoint none.npz: expected a file, found none"),
        (
            ["--checkpoint", "model.py"],
            "expected no such file yet, found the state of a run; go on from it with --resume",
        ),
    ],
)
def test_errors_before_a_board_is_needed(design, run, monkeypatch, arguments, message):
    monkeypatch.chdir(design[0].parent)
    code, _, err = run("run", "model.py:small", "--port", "/dev/none", *arguments)
    assert code == app.USAGE
    assert message in err
    assert err.count("\n") == 1


def test_errors_that_the_board_tells(simulated, design, board, run):
    code, _, err = run("run", f"{design[0]}:small", "--port", simulated[1])
    assert (code, "found that another program has it" in err) == (app.USAGE, True)
    board.close()
    code, _, err = run("run", f"{design[0]}:other", "--port", simulated[1])
    assert (code, "board: expected the design" in err) == (app.USAGE, True)
    assert "parameters 26 in place of 32" in err


def test_lost_boards_are_links_errors():
    assert issubclass(BoardLostError, LinkError)
