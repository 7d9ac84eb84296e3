"""Numeric profiles, and formats that a user chooses."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from catgrad_hw import cli
from catgrad_hw.errors import ModelError
from catgrad_hw.numbers.formats import parse_format, to_values
from catgrad_hw.numbers.integer import Format
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.profile import GREATEST, LEAST, Profile, profile
from catgrad_hw.numbers.profile_draw import profile_svg
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.train import curve_steps
from catgrad_hw.workload import load_workload

STEPS = 20


def short(model: str, formats: dict[str, Format] | None = None, numbers: str = "16", steps: int = STEPS) -> Profile:
    return profile(load_workload(model), numbers, steps, calibration_steps=STEPS, formats=formats)


def test_ranges_and_histograms_are_those_of_the_words() -> None:
    found = short("iris-simple")
    workload = load_workload("iris-simple")
    program = quantize_workload(workload, "16", STEPS).integer
    machine = Reference(program)
    machine.load(workload.initial_parameters(0))
    seen: list[Any] = []
    for step in range(STEPS):
        machine.step(*workload.batch(step))
        seen.append(to_values(machine.words()["p0"], program.formats["p0"]))
    [p0] = [tensor for tensor in found.tensors if tensor.name == "p0"]
    assert p0.in_integers.largest == max(np.abs(values).max() for values in seen)
    assert [step for step, _ in p0.in_integers.curve] == sorted(curve_steps(STEPS))
    magnitudes = np.abs(np.concatenate([values.ravel() for values in seen]))
    counts = [int(((magnitudes >= 2.0**k) & (magnitudes < 2.0 ** (k + 1))).sum()) for k in range(LEAST, GREATEST)]
    assert p0.in_integers.histogram == counts
    assert p0.in_integers.zeros == int((magnitudes == 0).sum())
    assert p0.in_float.largest == pytest.approx(p0.in_integers.largest, rel=5e-2)
    assert p0.words == STEPS * 12
    assert p0.zero_updates is not None
    assert p0.zero_updates < 0.05
    [predicted] = [tensor for tensor in found.tensors if tensor.role == "output"]
    assert predicted.in_integers.largest == pytest.approx(predicted.in_float.largest, rel=5e-2)
    assert found.advice == ()


def test_an_optimizer_s_state_and_masks_have_profiles_too() -> None:
    found = short("digits-relu", steps=3)
    roles = {tensor.name: tensor.role for tensor in found.tensors}
    assert roles["m0"] == "state"
    assert all(tensor.in_float.largest > 0 for tensor in found.tensors)
    assert [tensor.name for tensor in found.tensors if tensor.zero_updates is not None] == [
        *(f"p{i}" for i in range(4)),
        *(f"m{i}" for i in range(4)),
    ]


def test_vanishing_updates_are_counted_and_advised_on() -> None:
    found = short("iris-simple", {"p0": Format(12, 1)})
    [p0] = [tensor for tensor in found.tensors if tensor.name == "p0"]
    assert p0.zero_updates is not None
    assert p0.zero_updates > 0.5
    assert any("p0: its largest update" in text for text in found.advice)
    assert any(text.startswith("parameter p0:") and "round to zero" in text for text in found.advice)


def test_updates_that_vanish_by_chance_need_no_advice() -> None:
    found = short("iris-simple", {"p0": Format(12, 1)}, numbers="small")
    [p0] = [tensor for tensor in found.tensors if tensor.name == "p0"]
    assert p0.zero_updates is not None
    assert p0.zero_updates > 0.5
    assert not any("round to zero" in text for text in found.advice)


def test_clamped_words_are_counted_and_advised_on() -> None:
    found = short("iris-simple", {"p0": Format(24, 28)})
    [p0] = [tensor for tensor in found.tensors if tensor.name == "p0"]
    assert p0.saturations
    assert p0.in_integers.largest <= p0.bound == 2.0**-5
    advice = found.advice[0]
    assert advice.startswith(f"parameter p0: {p0.saturations} of {p0.words} words were clamped")
    assert "--format p0=24.27" in advice


def test_table_report_and_picture(tmp_path: Path) -> None:
    found = short("iris-hidden", numbers="small", steps=5)
    rows = list(csv.DictReader(found.table().splitlines()))
    names = [row["tensor"] for row in rows]
    assert names == [tensor.name for tensor in found.tensors]
    report = json.loads(json.dumps(found.report()))
    assert [tensor["name"] for tensor in report["tensors"]] == names
    assert float(rows[0]["largest_float"]) == report["tensors"][0]["in_float"]["largest"]
    picture = ElementTree.fromstring(profile_svg(found))
    titles = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["iris-hidden: numbers small, 5 steps", *names]
    assert profile_svg(found) == profile_svg(replace(found))


# --- formats that a user chooses --------------------------------------------------------------------------------


def test_a_chosen_format_holds() -> None:
    formats = {"p0": Format(20, 17), "x": Format(10, 6), "d2": Format(14, 16)}
    program = quantize_workload(load_workload("iris-hidden"), "16", STEPS, formats=formats).integer
    assert {name: program.formats[name] for name in formats} == formats
    plain = quantize_workload(load_workload("iris-hidden"), "16", STEPS).integer
    changed = {name for name, form in program.formats.items() if form != plain.formats[name]}
    assert changed == {*formats, "p1"}, "a bias is no finer than the sum that it joins, and x has made that coarser"


@pytest.mark.parametrize(
    ("name", "form", "text"),
    [
        ("p9", Format(16, 12), r"expected one of p0, p1, .*found no such array"),
        ("p0", Format(40, 12), "expected 2 to 32 bits and a fraction within 60, found 40.12"),
        ("p0", Format(16, 61), "a fraction within 60, found 16.61"),
        ("a1", Format(16, 12), "words are those of a function, a maximum or another array, 16.15; leave a1 out"),
        ("d2", Format(16, 50), "expected at most .* as the sum that is rounded to it has, found 50; take 16"),
        ("p1", Format(24, 50), "expected at most .* as the sum that it joins has, found 50; take 24"),
    ],
)
def test_formats_that_cannot_be(name: str, form: Format, text: str) -> None:
    with pytest.raises(ModelError, match=f"^format of {name}: .*{text}") as caught:
        quantize_workload(load_workload("iris-hidden"), "16", 3, formats={name: form})
    assert "\n" not in str(caught.value)


def test_formats_as_text() -> None:
    assert parse_format("p0=18.14") == ("p0", Format(18, 14))
    assert parse_format("g_1=12.-3") == ("g_1", Format(12, -3))
    for text in ("p0", "p0=18", "p0=.3", "=8.3", "p0=8.3.1", "p0=a.b"):
        with pytest.raises(ModelError, match=r"expected NAME=BITS\.FRACTION"):
            parse_format(text)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ModelError, match="expected at least 1 step, found 0"):
        profile(load_workload("iris-linear"), steps=0)


# --- the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["catgrad-hw", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_the_command_writes_three_files(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = command("profile", "iris-simple", "--steps", 3, "--format", "p0=12.1", "-o", tmp_path / "new")
    assert code == 0
    assert "12.1" in out
    assert "advice: parameter p0:" in out
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["profile.csv", "profile.json", "profile.svg"]
    assert json.loads((tmp_path / "new" / "profile.json").read_text())["steps"] == 3


def test_formats_of_other_commands(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, *_ = command("emit", "iris-linear", "--target", "c-fixed", "--format", "p0=20.17", "-o", tmp_path)
    assert code == 0
    assert "#define IRIS_LINEAR_P0_FRACTION 17" in (tmp_path / "iris_linear.h").read_text()
    code, *_ = command("train", "iris-linear", "--reference-only", "--steps", 3, "--format", "p0=12.4")
    assert code == 0
    for arguments, text in (
        (("emit", "iris-linear", "--format", "p0=20.17", "-o", tmp_path), "--format: expected --target c-fixed"),
        (("train", "iris-linear", "--reference-only", "--format", "q=8.4"), "expected one of p0, x, y"),
        (("verilog", "iris-linear", "--format", "p0=8", "-o", tmp_path), "expected NAME=BITS.FRACTION"),
        (("profile", "iris-linear", "--format", "p0=8.1", "--format", "p0=8.2", "-o", tmp_path), "found two"),
    ):
        code, _, err = command(*arguments)
        assert code == 2
        assert text in err
