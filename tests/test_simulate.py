"""Driver, benches and runner, on a stand-in core."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import standin_core
from amaranth.back import verilog

from catgrad_hw.errors import ModelError, SimulationError, ToolError
from catgrad_hw.gateware.registers import READ_CYCLES
from catgrad_hw.simulate import runner, tools
from catgrad_hw.simulate.driver import StreamMonitor
from catgrad_hw.simulate.job import Job, Outcome

BATCH, SAMPLE, PARAMETERS, SLOTS = 3, 3, 5, 2


@pytest.fixture(scope="module")
def standin_verilog():
    tools.use_yosys()
    return verilog.convert(standin_core.StandinCore(), name="core", emit_src=False)


def make_job(**changes):
    rng = np.random.default_rng(3)
    words = rng.integers(-500, 500, (SLOTS, BATCH * SAMPLE))
    job = Job(
        parameters=np.array([-(2**22), 2**22, -1, 0, 7]),
        batches=words,
        steps=4,
        predictions=rng.integers(-500, 500, (3, BATCH * SAMPLE)),
        prediction_words=BATCH,
        counters=2,
        key=0xDEADBEEF,
        limit=200,
    )
    return dataclasses.replace(job, **changes)


def run(simulator, job, text=None, fault=None, waves=None):
    records = []
    outcome = runner.run(
        simulator,
        job,
        records.append,
        verilog=lambda: text,
        component=lambda: standin_core.StandinCore(fault=fault),
        waves=waves,
    )
    return records, outcome


def available(simulator):
    lacking = tools.missing(simulator)
    return pytest.param(
        simulator,
        marks=[
            pytest.mark.simulator,
            pytest.mark.skipif(bool(lacking), reason=f"{simulator} needs {', '.join(t.name for t in lacking)}"),
        ],
    )


SIMULATORS = [available(name) for name in tools.SIMULATORS]


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("resident", [True, False], ids=["resident", "stream"])
@pytest.mark.parametrize("backpressure", [None, 11])
def test_every_word_arrives(simulator, resident, backpressure, standin_verilog):
    job = make_job(resident=resident, backpressure=backpressure)
    records, outcome = run(simulator, job, standin_verilog)
    words, predictions = standin_core.expected(job)
    np.testing.assert_array_equal(records, words)
    assert list(outcome.predictions) == predictions
    assert outcome.identity == standin_core.IDENTITY
    assert outcome.saturations == (3, 0)
    assert outcome.steps_done == job.steps
    if resident:
        assert outcome.step_cycles == (standin_core.STEP_CYCLES,) * job.steps
        assert outcome.cycles_per_step(job.burst) == standin_core.STEP_CYCLES
    if backpressure is None:
        # A look at the status, command, one word a cycle, and a look at whether another follows.
        assert outcome.readback_cycles <= READ_CYCLES + PARAMETERS + 6


@pytest.mark.parametrize("simulator", [available("verilator"), available("icarus")])
def test_simulators_agree_on_cycles(simulator, standin_verilog):
    job = make_job()
    assert run(simulator, job, standin_verilog)[1] == run("amaranth", job)[1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("payload", "rule 3"),
        ("valid", "rule 2"),
        ("wait", "rule 4"),
        ("extra", "more than the 5 words"),
        ("hang", "STEP: core still busy"),
    ],
)
def test_protocol_faults_are_told(fault, message):
    with pytest.raises(SimulationError, match=message):
        run("amaranth", make_job(backpressure=5), fault=fault)


def test_stream_that_never_accepts_is_given_up():
    # More resident batches than slots: the ring is full and nothing frees it.
    job = make_job(batches=np.zeros((SLOTS + 1, BATCH * SAMPLE), np.int64))
    with pytest.raises(SimulationError, match="samples: word 0 of 9 not accepted"):
        run("amaranth", job)


def test_monitor_accepts_what_the_rules_allow():
    monitor = StreamMonitor("s")
    seen = [monitor.observe(*signals) for signals in [(0, 1, 9), (1, 0, 5), (1, 0, 5), (1, 1, 5), (1, 1, 6), (0, 0, 0)]]
    assert seen == [False, False, False, True, True, False]


@pytest.mark.parametrize("simulator", [available("icarus")])
def test_a_fault_in_the_verilog_is_seen(simulator, standin_verilog):
    # The negative control of the bench: the first parameter's update subtracts.
    wrong, changes = re.subn(r"= \$signed\(p0\) \+ \$signed", "= $signed(p0) - $signed", standin_verilog)
    assert changes == 1
    records, _ = run(simulator, make_job(), wrong)
    words, _ = standin_core.expected(make_job())
    assert np.any(np.array(records)[:, 0] != np.array(words)[:, 0])
    np.testing.assert_array_equal(np.array(records)[:, 1:], np.array(words)[:, 1:])


@pytest.mark.parametrize("simulator", [available("verilator")])
def test_errors_inside_the_simulator_come_back(simulator, standin_verilog):
    with pytest.raises(SimulationError, match=r"verilator: stream samples: word 0 of 9.*seed 4"):
        run(simulator, make_job(batches=np.zeros((3, 9), np.int64), backpressure=4), standin_verilog)


@pytest.mark.parametrize("simulator", [available("icarus")])
def test_a_missing_port_is_told(simulator, standin_verilog):
    with pytest.raises(SimulationError, match="a port is missing"):
        run(simulator, make_job(), standin_verilog.replace("results__valid", "results__other"))


@pytest.mark.parametrize("simulator", [available("verilator"), available("icarus")])
def test_unreadable_verilog_is_one_line(simulator):
    with pytest.raises(ToolError, match=r"cannot compile the Verilog: .*core\.v:1:.*error") as caught:
        run(simulator, make_job(), "module core(; endmodule\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("simulator", [available("icarus")])
def test_builds_are_cached_by_content(simulator, standin_verilog):
    first = runner.build(standin_verilog, simulator)
    stamp = first.stat().st_mtime_ns
    assert runner.build(standin_verilog, simulator) == first
    assert first.stat().st_mtime_ns == stamp
    assert runner.build(standin_verilog + "\n", simulator) != first


@pytest.mark.parametrize("simulator", [available("verilator"), available("amaranth")])
def test_waves(simulator, standin_verilog, tmp_path):
    waves = tmp_path / "waves.vcd"
    run(simulator, make_job(steps=1), standin_verilog, waves=waves)
    assert "results__payload" in waves.read_text()


def test_job_and_outcome_survive_files(tmp_path):
    job = make_job(backpressure=None)
    job.save(tmp_path / "job.npz")
    again = Job.load(tmp_path / "job.npz")
    for field in dataclasses.fields(Job):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(job, field.name))
    outcome = run("amaranth", job)[1]
    outcome.save(tmp_path / "outcome.json")
    assert Outcome.load(tmp_path / "outcome.json") == outcome


def test_choice_of_simulator(monkeypatch):
    with pytest.raises(ModelError, match="expected one of verilator, icarus, amaranth, found 'vcs'"):
        runner.choose_simulator("vcs")
    none = tools.Tool("C++ compiler", None, "", "Verilator's simulations", "apt install g++")
    monkeypatch.setattr(tools, "compiler", lambda: none)
    monkeypatch.setattr(tools, "verilator", lambda: tools.Tool("verilator", Path("/v"), "5.048", "simulation", ""))
    assert runner.choose_simulator() == "amaranth"
    with pytest.raises(
        ToolError, match=r"C\+\+ compiler: needed for Verilator's simulations, not found; apt install g"
    ):
        runner.choose_simulator("verilator")
