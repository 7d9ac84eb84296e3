"""The core with AXI ports, driven by AXI models that others wrote, bit-exact to the integer reference."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from xml.etree import ElementTree

import pytest
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from catgrad_hw.errors import ModelError
from catgrad_hw.gateware.axi import axi_ports, data_width
from catgrad_hw.hardware import Hardware, compile_hardware, compile_predictor
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.training import flat, sample_words
from tests.small_workloads import dense_workload

BATCHES, STEPS = 2, 3


@cache
def hardware() -> tuple[Hardware, dict[str, object]]:
    """A small trainer, and a job for it with what the reference makes of it."""
    workload = dense_workload(4, [3, 4, 2], samples=4 * BATCHES)
    compiled = compile_hardware(workload, 2, numbers="small", calibration_steps=20)
    reference = compiled.reference(seed=5)
    reference.load(workload.initial_parameters())
    data = [[reference.words_of(n, a) for n, a in zip("xy", workload.batch(i), strict=True)] for i in range(BATCHES)]
    job: dict[str, object] = {
        "identity": compiled.identity,
        "key": reference.key,
        "parameters": flat(reference.parameter_words()).tolist(),
        "samples": [sample_words(*batch).tolist() for batch in data],
    }
    steps = []
    for step in range(STEPS):
        reference.step(*data[step % BATCHES])
        steps.append(flat(reference.parameter_words()).tolist())
    return compiled, job | {"steps": steps, "predictions": reference.predict(data[0][0]).ravel().tolist()}


def predictor() -> tuple[Hardware, dict[str, object]]:
    """The same network in a core that only predicts, and a job."""
    workload = dense_workload(4, [3, 4, 2], samples=4 * BATCHES)
    compiled = compile_predictor(workload, 2, numbers="small", calibration_steps=20)
    reference = compiled.reference()
    reference.load(workload.initial_parameters())
    data = [reference.words_of("x", workload.batch(i)[0]) for i in range(BATCHES)]
    return compiled, {
        "identity": compiled.identity,
        "parameters": flat(reference.parameter_words()).tolist(),
        "samples": [batch.ravel().tolist() for batch in data],
        "predictions": [reference.predict(batch).ravel().tolist() for batch in data],
    }


def built(compiled, directory):
    """Icarus' runner for a core with AXI ports."""
    pytest.importorskip("cocotbext.axi")
    if tools.missing("icarus"):
        pytest.skip("needs Icarus")
    source = directory / "core.v"
    source.write_text(compiled.verilog("axi"))
    runner = get_runner("icarus")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)  # the runner would change what it does
        runner.build(
            sources=[source],
            hdl_toplevel="core",
            build_dir=directory,
            build_args=["-g2005"],
            timescale=("1ns", "1ps"),
            log_file=directory / "build.log",
        )
    return runner


def told(runner, bench, job, directory):
    """Runs a job; the first line of what is wrong, empty where all is well."""
    (directory / "job.json").write_text(json.dumps(job))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        results = runner.test(
            test_module="tests.axi_bench",
            testcase=bench,
            hdl_toplevel="core",
            test_dir=directory,
            extra_env={"AXI_JOB": str(directory / "job.json")},
            log_file=directory / "run.log",
        )
    assert get_results(results)[0] == 1
    failure = ElementTree.parse(results).find(".//failure")
    return "" if failure is None else failure.attrib["message"].splitlines()[0]


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    return built(hardware()[0], tmp_path_factory.mktemp("axi"))


@pytest.mark.simulator
def test_trains_and_predicts_as_the_reference_does(runner, tmp_path):
    assert told(runner, "train", hardware()[1], tmp_path) == ""


@pytest.mark.simulator
@pytest.mark.parametrize(
    ("name", "message"), [("steps", f"parameters after step {STEPS}"), ("predictions", "predictions")]
)
def test_a_wrong_word_is_seen(runner, tmp_path, name, message):
    job = copy.deepcopy(hardware()[1])
    words = job[name][-1] if name == "steps" else job[name]
    words[-1] ^= 1
    assert told(runner, "train", job, tmp_path).startswith(message)


@pytest.mark.simulator
def test_a_core_that_only_predicts_answers_in_frames(tmp_path):
    compiled, job = predictor()
    assert told(built(compiled, tmp_path), "answer", job, tmp_path) == ""


def test_ports_are_named_as_tools_expect_them():
    ports = axi_ports(hardware()[0].program)
    assert [name for name in ports if name.startswith("s_axi_aw")] == [
        f"s_axi_aw{p}" for p in ("addr", "prot", "valid", "ready")
    ]
    assert {name.rpartition("_")[0] for name in ports} == {
        "",
        "s_axi",
        "s_axis_samples",
        "s_axis_parameters",
        "m_axis_results",
    }
    widths = {n: p.shape for n, p in ports.items() if n.endswith("tdata")}
    assert widths == {"s_axis_samples_tdata": 8, "s_axis_parameters_tdata": 16, "m_axis_results_tdata": 16}


@pytest.mark.parametrize(("bits", "width"), [(1, 8), (8, 8), (9, 16), (16, 16), (18, 32), (24, 32), (32, 32)])
def test_words_travel_as_memory_holds_them(bits, width):
    assert data_width(bits) == width


def test_the_verilog_has_the_ports_of_the_report():
    compiled, _ = hardware()
    for bus, clock in (("plain", "clk"), ("axi", "aclk")):
        header = re.search(r"^module core\((.*?)\);", compiled.verilog(bus), re.MULTILINE | re.DOTALL)[1]
        ports, _, _ = compiled.report(bus).partition("## Registers")
        table = re.findall(r"^\| `(\w+)` \|", ports, re.MULTILINE)
        assert sorted(table) == sorted(name.strip() for name in header.split(","))
        assert clock in table
    assert "| 12 | command |" in compiled.report("axi")
    assert "| 3 | command |" in compiled.report("plain")


def test_an_unknown_bus_is_refused():
    with pytest.raises(ModelError, match="bus: expected one of plain, axi, found 'wishbone'"):
        hardware()[0].verilog("wishbone")
