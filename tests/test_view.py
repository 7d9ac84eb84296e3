"""The view of a schedule: its account of multiplier cycles adds up, and its picture shows every kernel and port."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from catgrad_hw import cli
from catgrad_hw.cli import options
from catgrad_hw.hardware import compile_hardware
from catgrad_hw.ir.cost import multiplications
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.passes import simplify
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule import view
from catgrad_hw.schedule.check import instances
from catgrad_hw.schedule.draw import timeline_svg
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.workload import load_workload

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def hidden():
    workload = load_workload("iris-hidden")
    least = multiplications(simplify(joint_graph(workload.learner)), "step")
    return quantize_workload(workload, calibration_steps=20).integer, least


@pytest.mark.parametrize(
    ("lanes", "options"),
    [(8, {}), (3, {}), (1, {}), (16, {"tile": 64}), (4, {"memory": 100}), (8, {"slow_words": 1})],
)
def test_account_adds_up(hidden, lanes, options):
    integer, least = hidden
    program = schedule(integer, lanes, samples=150, **options)
    step = program.routine("step")
    found = view.account(program, step, least)
    assert found.total == lanes * step.period
    assert found.total - least == sum(idle.cycles for idle in found.idle) == sum(found.by_cause().values())
    assert all(idle.cycles > 0 for idle in found.idle)
    assert view.REPEATED not in found.by_cause()  # the kernels make the products that the graph needs, and no other
    # Against the definition, cycle by cycle: lanes that issue, and lanes that wait.
    issued = sum(kernel.cycles for kernel, _ in instances(step, 0))
    assert found.by_cause().get(view.GAP, 0) == lanes * (step.period - issued)
    padded = sum(kernel.cycles - len(view.issue_cycles(kernel)) for kernel, _ in instances(step, 0))
    assert found.by_cause().get(view.BUBBLE, 0) == lanes * padded
    assert bool(padded) == ("slow_words" in options)
    assert (view.BEYOND_BATCH in found.by_cause()) == (program.tiles > 1)


def test_account_of_hidden_on_eight_lanes(hidden):
    """150 samples are 19 rows of 8: in all but the updates, 2 of 152 lanes hold no sample."""
    integer, least = hidden
    program = schedule(integer, 8, samples=150)
    found = view.account(program, program.routine("step"), least)
    for kernel in program.routine("step").tile.kernels:
        rows = kernel.cycles // 19
        assert view.Idle(view.PARTIAL_ROW, kernel.name, 2 * rows) in found.idle
    assert found.busy == pytest.approx(0.984, abs=0.001)


def test_products_with_a_power_of_two_are_no_multiplications(hidden):
    integer, least = hidden
    program = schedule(integer, 8, samples=150)
    step = program.routine("step")
    update = step.final.kernels[0]
    assert isinstance(update.a, int)
    assert view.multiplies(update)
    halved = replace(update, a=1 << 14)
    assert not view.multiplies(halved)
    step = replace(step, final=replace(step.final, kernels=(halved, *step.final.kernels[1:])))
    found = view.account(program, step, least - 80)
    assert found.by_cause()[view.NO_MULTIPLICATION] == 80  # the words of p0
    assert found.total - found.least == sum(found.by_cause().values())


@pytest.mark.parametrize("options", [{}, {"tile": 64}, {"bank_kinds": {"x": "single_port"}}])
def test_tracks_show_every_use(hidden, options):
    integer, _ = hidden
    program = schedule(integer, 8, samples=150, **options)
    step = program.routine("step")
    tracks = {track.name: track for track in view.tracks(program, step, 0, step.period, 1)}
    assert list(tracks) == view.track_names(program)
    for bank in program.banks.values():
        ports = ["port"] if bank.kind == "single_port" else ["read", "write"]
        for port in ports:
            assert tracks[f"{bank.name} {port}"].spans or (bank.loader and port == "write")
    for track in tracks.values():
        cycles = [c for span in track.spans for c in range(span.first, span.last + 1)]
        assert len(cycles) == len(set(cycles)), f"{track.name} is used twice in a cycle"
        assert all(0 <= c < step.period for c in cycles)
        assert all(span.share == 1 or track.name == view.LANES for span in track.spans)
    # In steady state every run of a kernel issues all its iterations once in a period.
    used = sum(span.last - span.first + 1 for span in tracks[view.LANES].spans)
    assert used == sum(len(view.issue_cycles(kernel)) for kernel, _ in instances(step, 0))


@pytest.mark.parametrize("options", [{}, {"tile": 48}])
def test_picture_is_well_formed_and_names_everything(hidden, options):
    integer, _ = hidden
    program = schedule(integer, 8, samples=150, **options)
    root = ElementTree.fromstring(timeline_svg(program, "a < b & c"))
    assert root.tag == f"{SVG}svg"
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts[0].startswith("a < b & c: 8 lanes, batch 150")
    step = program.routine("step")
    for kernel, start in zip(step.tile.kernels, step.tile.starts, strict=True):
        assert f"{kernel.name}: from cycle {start:,}, {kernel.cycles:,} cycles" in texts
    for kernel in step.final.kernels:
        assert any(text.startswith(f"{kernel.name}: from cycle") for text in texts)
    for track in view.track_names(program):
        assert texts.count(track) == 2  # in the whole, and in the close-up
    width, height = float(root.get("width")), float(root.get("height"))
    for rectangle in root.iter(f"{SVG}rect"):
        if rectangle.get("x"):
            assert 0 <= float(rectangle.get("x")) <= float(rectangle.get("x")) + float(rectangle.get("width")) <= width
    assert height > 300
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert any(title.startswith("a1: lanes, cycles 8 to ") for title in titles)


@pytest.mark.parametrize(
    ("name", "batch", "lanes"), [("iris-linear", None, 5), ("iris-dense", 7, 4), ("digits-mlp", 8, 8)]
)
def test_other_models_add_up(name, batch, lanes):
    workload = load_workload(name, batch)
    program = schedule(quantize_workload(workload, calibration_steps=5).integer, lanes, samples=len(workload.x))
    least = multiplications(simplify(joint_graph(workload.learner)), "step")
    found = view.account(program, program.routine("step"), least)
    assert found.total == least + sum(idle.cycles for idle in found.idle)
    assert view.REPEATED not in found.by_cause()
    ElementTree.fromstring(timeline_svg(program, name))


def test_the_readmes_picture_is_current():
    """``catgrad-hw schedule iris-hidden --svg docs/schedule.svg`` writes it."""
    program = compile_hardware(load_workload("iris-hidden"), 8).program
    picture = Path(__file__).parent.parent / "docs" / "schedule.svg"
    assert picture.read_text() == timeline_svg(program, "iris-hidden")


def test_command(monkeypatch, capsys, tmp_path):
    picture = tmp_path / "timeline.svg"
    monkeypatch.setattr(options, "_debug", False)
    monkeypatch.setattr(
        sys, "argv", ["catgrad-hw", "schedule", "iris-linear", "--lanes", "4", "--tile", "32", "--svg", str(picture)]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert not ended.value.code
    assert "machine: 4 lanes" in out
    assert "5 tile(s) of 32 samples" in out
    for text in ("needed multiplications", "waiting to start", "without the data set", "in total"):
        assert text in " ".join(out.split())
    assert ElementTree.parse(picture).getroot().tag == f"{SVG}svg"
