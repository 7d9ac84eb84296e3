"""The command line: what it prints, the files that it writes, its errors and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from catgrad_hw import cli
from catgrad_hw.cli import app, files, options, show


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: exit code, standard output, standard error."""

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["catgrad-hw", *map(str, arguments)])
        monkeypatch.setattr(options, "_debug", False)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run_command


@pytest.mark.parametrize("command", [[], ["train"], ["emit"], ["inspect"], ["verilog"], ["doctor"]])
def test_help_teaches_by_example(run, command):
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert " ".join(["catgrad-hw", *command]) in " ".join(out.replace("│", " ").split())


def test_help_is_quick_and_imports_no_simulator():
    code = (
        "import sys; sys.argv = ['catgrad-hw', '--help']\n"
        "from catgrad_hw.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('amaranth', 'cocotb', 'networkx') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "iris-hiden"], "did you mean iris-hidden?"),
        (["train", "missing.py:net"], "error: model missing.py:net: expected a Python file"),
        (["train", "iris-linear", "--reference-only", "--json", "no/where.json"], "expected an existing folder"),
        (["train", "iris-linear", "--reference-only", "--save", "."], "expected a file, found a folder"),
        (["train", "iris-linear", "--reference-only", "--load", "no.npz"], "--load no.npz: expected a file of param"),
        (["train", "iris-linear", "--reference-only", "--vcd", "a.vcd"], "--vcd: expected a simulation"),
        (["train", "iris-linear", "--reference-only", "--tile", "8"], "--tile: expected a simulation"),
        (["train", "iris-linear", "--epochs", "2", "--steps", "3"], "--epochs: expected no --steps"),
        (["train", "iris-linear", "--epochs", "0.1"], "--epochs 0.1: expected at least one step, found 0"),
        (["train", "iris-linear", "--epochs", "nan"], "--epochs nan: expected at least one step, found 0"),
        (["train", "iris-linear", "--batch", "151"], "expected at least one batch of 151 samples, found 150"),
        (["train", "iris-linear", "--rtl", "no.v"], "--rtl no.v: expected a Verilog file"),
        (["predict", "iris-linear", "--lanes", "0"], "error: lanes: expected 1 to 128, found 0"),
        (["board-sim", "iris-linear", "--lanes", "0"], "error: lanes: expected 1 to 128, found 0"),
        (["inspect", "iris-nothing"], "expected one of iris-linear"),
    ],
)
def test_errors_are_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (app.USAGE, "")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["train"], ["train", "iris-linear", "--steps", "0"], ["nothing"], ["--what"]])
def test_usage_errors(run, arguments):
    code, _, err = run(*arguments)
    assert code == app.USAGE
    assert re.fullmatch(r"error: catgrad-hw( train)?: .+; see catgrad-hw( train)? --help\n", err)


def test_without_a_command_help_is_shown(run):
    assert run() == run("--help")


def test_debug_shows_the_traceback(run):
    _, _, err = run("train", "iris-hiden", "--debug")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: model iris-hiden")


def test_faults_of_the_program_are_told_apart(run, monkeypatch):
    monkeypatch.setattr("catgrad_hw.workload.load_workload", lambda *_: 1 / 0)
    code, _, err = run("train", "iris-linear")
    assert code == app.INTERNAL
    assert err == "internal error: ZeroDivisionError: division by zero; --debug shows where\n"


def test_a_file_that_cannot_be_written(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    code, _, err = run("emit", "iris-linear", "-o", tmp_path / "file")
    assert code == app.USAGE
    assert "expected a folder, found a file" in err


def test_reference_only(run, tmp_path):
    report, saved = tmp_path / "report.json", tmp_path / "p.npz"
    arguments = ("train", "iris-linear", "--reference-only", "--steps", "20", "--json", report, "--save", saved)
    code, out, _ = run(*arguments)
    assert code == 0
    assert "iris-linear: 20 steps, numbers 16" in out
    assert "least multiplications per step" in out
    assert "loss" in out
    values = json.loads(report.read_text())
    assert values["steps"] == 20
    assert values["simulator"] is None
    assert values["least_multiplications"] == 2 * 4 * 3 * 150 + 4 * 3
    assert set(values["loss"]) == set(values["accuracy"]) == {"float", "reference", "rtl"}
    assert values["loss"]["rtl"] is None
    assert abs(values["loss"]["float"] - values["loss"]["reference"]) < 0.01 * values["loss"]["float"]
    assert 0 <= values["accuracy"]["reference"] <= 1
    assert values["saturations"] == dict.fromkeys(values["saturations"], 0)

    # Going on from saved parameters continues the run.
    code, _, _ = run(*arguments[:3], "--steps", "1", "--load", saved, "--json", report)
    assert code == 0
    assert json.loads(report.read_text())["loss"]["reference"] < values["loss"]["reference"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.npz", "report.json"]


def test_batch_and_epochs(run, tmp_path):
    """Epochs count samples: 1.5 of them are round(1.5 * 150 / 16) = 14 steps of 16."""
    report = tmp_path / "report.json"
    code, out, _ = run("train", "iris-linear", "--reference-only", "--batch", "16", "--epochs", "1.5", "--json", report)
    assert code == 0
    values = json.loads(report.read_text())
    assert (values["batch"], values["steps"]) == (16, 14)
    assert values["least_multiplications"] == 2 * 4 * 3 * 16 + 4 * 3
    code, out, _ = run("inspect", "iris-linear", "--batch", "7")
    assert "input x: float32[7, 4]" in out
    assert run("emit", "iris-linear", "--batch", "7", "-o", tmp_path)[0] == 0
    assert "(7, 4)" in (tmp_path / "iris_linear.py").read_text()


def test_saved_parameters_of_another_model_are_refused(run, tmp_path):
    files.save_parameters(tmp_path / "p.npz", [np.zeros((4, 2))])
    code, _, err = run("train", "iris-linear", "--reference-only", "--load", tmp_path / "p.npz")
    assert code == app.USAGE
    assert "expected shapes [(4, 3)], found [(4, 2)]" in err
    (tmp_path / "p.npz").write_text("no archive")
    code, _, err = run("train", "iris-linear", "--reference-only", "--load", tmp_path / "p.npz")
    assert code == app.USAGE
    assert "expected an .npz of p0, p1, … as --save writes, found a file that is none" in err


def test_doctor(run):
    code, out, _ = run("doctor")
    assert "amaranth: ready" in out
    for name in ("verilator", "yosys", "C++ compiler", "iverilog"):
        assert name in out
    assert code in (0, app.USAGE)


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    files.write(target, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write(target, "new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_files_of_a_folder(tmp_path):
    paths = files.write_all(tmp_path / "made" / "here", {"a.v": "1", "b.md": "2"})
    assert [path.read_text() for path in paths] == ["1", "2"]


def test_loss_curve_spans_the_losses():
    lines = show.curve([[1, 4.0], [50, 1.0], [100, 0.5]]).splitlines()
    assert lines[1].startswith("  4 │")
    assert lines[show.HEIGHT].startswith("0.5 │")
    assert lines[-1].split() == ["1", "step", "100"]
    # It falls: the first column is at the top, the last at the bottom.
    assert lines[1][5] != chr(0x2800)
    assert lines[show.HEIGHT][-1] != chr(0x2800)
    assert show.curve([[1, 2.0]])  # a single step, no span
