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
from catgrad_hw.hardware import Hardware, compile_hardware
from catgrad_hw.simulate import tools
from catgrad_hw.simulate.training import flat, sample_words
from tests.small_workloads import dense_workload

BATCHES, STEPS = 2, 3


@cache
def hardware() -> tuple[Hardware, dict[str, object]]:
    """A small trainer, and a job for it with what the reference makes of it."""
    workload = dense_workload(4, [3, 4, 2], samples=4 * BATCHES)
    compiled = compile_hardware(workload, 2, numbers="small")
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


@pytest.fixture(scope="module")
def simulate(tmp_path_factory):
    """Runs a job in the simulated core; the first line of what is wrong, empty where all is well."""
    pytest.importorskip("cocotbext.axi")
    if tools.missing("icarus"):
        pytest.skip("needs Icarus")
    directory = tmp_path_factory.mktemp("axi")
    source = directory / "core.v"
    source.write_text(hardware()[0].verilog("axi"))
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

    def run(job, tmp_path):
        (tmp_path / "job.json").write_text(json.dumps(job))
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTEST_CURRENT_TEST", raising=False)
            results = runner.test(
                test_module="tests.axi_bench",
                hdl_toplevel="core",
                test_dir=tmp_path,
                extra_env={"AXI_JOB": str(tmp_path / "job.json")},
                log_file=tmp_path / "run.log",
            )
        assert get_results(results)[0] == 1
        failure = ElementTree.parse(results).find(".//failure")
        return "" if failure is None else failure.attrib["message"].splitlines()[0]

    return run


@pytest.mark.simulator
def test_trains_and_predicts_as_the_reference_does(simulate, tmp_path):
    assert simulate(hardware()[1], tmp_path) == ""


@pytest.mark.simulator
@pytest.mark.parametrize(
    ("name", "message"), [("steps", f"parameters after step {STEPS}"), ("predictions", "predictions")]
)
def test_a_wrong_word_is_seen(simulate, tmp_path, name, message):
    job = copy.deepcopy(hardware()[1])
    words = job[name][-1] if name == "steps" else job[name]
    words[-1] ^= 1
    assert simulate(job, tmp_path).startswith(message)


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
        table = re.findall(r"^\| `(\w+)` \|", compiled.report(bus), re.MULTILINE)
        assert sorted(table) == sorted(name.strip() for name in header.split(","))
        assert clock in table
    assert "| 12 | command |" in compiled.report("axi")
    assert "| 3 | command |" in compiled.report("plain")


def test_an_unknown_bus_is_refused():
    with pytest.raises(ModelError, match="bus: expected one of plain, axi, found 'wishbone'"):
        hardware()[0].verilog("wishbone")
