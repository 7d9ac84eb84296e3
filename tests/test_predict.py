"""Cores that only predict: bits, latency, back-pressure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_workloads import dense_model, dense_workload, workload_of

from catgrad_hw import layers
from catgrad_hw.hardware import compile_predictor
from catgrad_hw.simulate.predicting import predict, predict_report

pytestmark = pytest.mark.simulator


@pytest.mark.parametrize(
    ("batch", "widths", "lanes"),
    [(1, (4, 20, 3), 8), (1, (5, 12, 3), 4), (1, (3, 2), 1), (5, (3, 7, 2), 3), (7, (2, 1, 5), 1)],
)
@pytest.mark.parametrize("backpressure", [None, 3])
def test_predictions_are_the_references(batch, widths, lanes, backpressure):
    workload = dense_workload(batch, widths)
    hardware = compile_predictor(workload, lanes, calibration_steps=20)
    assert [routine.name for routine in hardware.program.routines] == ["predict"]
    found = predict(hardware, workload, simulator="amaranth", backpressure=backpressure)
    assert found.mismatches == 0
    assert found.words_compared == len(workload.x) * widths[-1]
    np.testing.assert_array_equal(found.predictions, found.reference)
    assert found.outcome.identity == hardware.identity


def test_the_reported_loss_is_the_workloads():
    workload = dense_workload(2, (3, 2), samples=5, loss=layers.mean_squared_error)
    hardware = compile_predictor(workload, 1, calibration_steps=20)
    found = predict(hardware, workload, simulator="amaranth")
    loss = predict_report(workload, hardware, found, 0, "16", 0)["loss"]
    for name in ("float", "reference"):
        assert loss[name] == pytest.approx(np.mean((getattr(found, name) - workload.y) ** 2))
    assert loss["rtl"] == loss["reference"]


@pytest.mark.parametrize("optimizer", [layers.sgd, layers.momentum])
@pytest.mark.parametrize("end", [layers.relu, layers.softmax])
def test_a_core_that_predicts_has_no_state(end, optimizer):
    workload = workload_of(dense_model(1, (4, 3, 2), layers.tanh, end), samples=4, optimizer=optimizer)
    hardware = compile_predictor(workload, 2, calibration_steps=20)
    assert hardware.program.parameters == ("p0", "p1", "p2", "p3")
    found = predict(hardware, workload, simulator="amaranth")
    assert found.mismatches == 0
    assert found.words_compared == 8


def test_one_iris_sized_sample_takes_at_most_80_cycles():
    workload = dense_workload(1, (4, 20, 3))
    found = predict(compile_predictor(workload, 8, calibration_steps=20), workload, simulator="amaranth")
    assert found.outcome.predict_cycles <= 80


def test_a_long_sample_is_read_while_it_arrives():
    """400 words take 400 cycles to send; the work, of 1,608 cycles on 4 lanes, doesn't wait for them."""
    workload = dense_workload(1, (400, 16, 2), samples=2)
    hardware = compile_predictor(workload, 4, calibration_steps=20)
    assert hardware.program.reads_while_loading
    found = predict(hardware, workload, simulator="amaranth")
    assert found.mismatches == 0
    assert (400 * 16 + 16 * 2) / (4 * found.outcome.predict_cycles) >= 0.95


def test_the_report_tells_of_held_out_data_too():
    workload = dense_workload(2, (3, 2), samples=5)
    workload = replace(workload, heldout=(workload.x[:3] + 1, workload.y[:3]))
    hardware = compile_predictor(workload, 2, calibration_steps=20)
    found = predict(hardware, workload, simulator="amaranth")
    report = predict_report(workload, hardware, found, 12, "16", 0)
    assert (report["mismatches"], report["words_compared"]) == (0, (5 + 3) * 2)
    assert report["heldout"]["loss"]["rtl"] == report["heldout"]["loss"]["reference"] != report["loss"]["rtl"]
    assert report["heldout"]["loss"]["rtl"] == pytest.approx(report["heldout"]["loss"]["float"], rel=0.01)
    assert report["multiplier_busy"] == 12 / (2 * report["cycles_per_predict"])
    assert report["block_ram_kbit"] == 4 * report["block_rams"] > 0
