"""C in integers: the bits of the integer reference, on this machine and on a microcontroller."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.targets import c_fixed
from catgrad_hw.targets.engine import FastReference
from catgrad_hw.workload import Workload, load_workload

CORTEX = Path(__file__).parent / "cortex_m"


@cache
def quantized(name: str, numbers: str) -> tuple[Workload, IntegerProgram]:
    workload = load_workload(name)
    return workload, quantize_workload(workload, numbers, calibration_steps=100).integer


def same(a: Reference, b: Reference) -> None:
    for name, words in a.words().items():
        np.testing.assert_array_equal(words, b.words()[name], err_msg=name)
    assert a.saturations == b.saturations
    assert a.key == b.key


@pytest.mark.parametrize(
    ("name", "numbers", "steps"),
    [
        ("iris-linear", "16", 1000),
        ("iris-simple", "18", 1000),
        ("iris-dense", "small", 1000),
        ("iris-hidden", "16", 1000),
        ("iris-hidden", "small", 1000),
        ("digits-mlp", "16", 45),
        ("digits-mlp", "small", 45),
    ],
)
def test_bits_and_counts_are_those_of_the_reference(name: str, numbers: str, steps: int) -> None:
    workload, program = quantized(name, numbers)
    assert program.stochastic == (numbers == "small")
    reference, fast = Reference(program, seed=7), FastReference(program, seed=7)
    for machine in (reference, fast):
        machine.load(workload.initial_parameters(0))
    for step in range(steps):
        data = workload.batch(step)
        reference.step(*data)
        fast.step(*data)
        if step % 100 == 0:
            same(reference, fast)
    same(reference, fast)
    rows = workload.x[: workload.batch_size + 3]  # the last batch is filled up, which counts no saturations
    np.testing.assert_array_equal(reference.predict(rows), fast.predict(rows))
    same(reference, fast)


def test_extreme_words_are_the_reference_s_too() -> None:
    _, program = quantized("iris-hidden", "small")
    reference, fast = Reference(program, seed=2**32 - 1), FastReference(program, seed=2**32 - 1)
    generator = np.random.default_rng(0)

    def words(name: str) -> np.ndarray:
        high = 1 << (program.formats[name].width - 1)
        return generator.choice([-high, -1, 0, high - 1], program.kernels.arrays[name].shape)

    p = [words(name) for name in program.kernels.parameters]
    for machine in (reference, fast):
        machine.load(p)
    for _ in range(20):
        x, y = words("x"), words("y")
        reference.step(x, y)
        fast.step(x, y)
        same(reference, fast)
    assert sum(reference.saturations.values()) > 1000


def write_program(folder: Path, name: str, numbers: str, steps: int, output: str) -> list[int]:
    """Write a program that trains for some steps and prints the parameters' words; returns the reference's.

    The reference runs as C, too, without what the program is tried with; another test holds that to NumPy.
    """
    workload, program = quantized(name, numbers)
    files = c_fixed.emit(program, "model")
    for file, text in files.items():
        (folder / file).write_text(text)
    reference = FastReference(program, seed=5)
    reference.load([10 * p for p in workload.initial_parameters(0)])
    parameters = list(program.kernels.parameters)
    x, y = (reference.words_of(n, a) for n, a in zip(("x", "y"), workload.batch(0), strict=True))
    arrays = {**dict(zip(parameters, reference.parameter_words(), strict=True)), "x": x, "y": y}
    lines = ['#include "model.h"', output, "static struct model_state s;"]
    for array, words in arrays.items():
        text = ", ".join(map(str, words.ravel().tolist()))
        lines.append(f"static const {c_fixed.word_type(program.formats[array])} {array}_start[] = {{{text}}};")
    lines.append("int main(void) {")
    lines.append("  s.seed = 5;")
    lines += [f"  for (int i = 0; i < MODEL_{p.upper()}; i++) s.{p}[i] = {p}_start[i];" for p in parameters]
    lines.append(f"  for (int i = 0; i < {steps}; i++) model_step(&s, x_start, y_start);")
    lines += [f"  for (int i = 0; i < MODEL_{p.upper()}; i++) print_number(s.{p}[i]);" for p in parameters]
    lines.append("  for (int i = 0; i < (int)(sizeof s.saturations / 4); i++) print_number((int)s.saturations[i]);")
    lines += ["  return 0;", "}"]
    (folder / "main.c").write_text("\n".join(lines) + "\n")
    for _ in range(steps):
        reference.step(x, y)
    words = [int(w) for p in reference.parameter_words() for w in p.ravel()]
    return words + [reference.saturations[counter] for counter in program.counters]


PRINT = '#include <stdio.h>\nstatic void print_number(int v) { printf("%d\\n", v); }'


SANITIZED = [
    ("iris-linear", "small", 1000),
    ("iris-simple", "18", 1000),
    ("iris-dense", "small", 1000),
    ("iris-hidden", "16", 1000),
    ("iris-hidden", "small", 1000),
    ("digits-mlp", "small", 45),
    ("digits-relu", "16", 2),
    ("digits-relu", "small", 2),
    ("digits-conv", "16", 1),
]
BY_CLANG = ("iris-hidden", "digits-conv")
"""Models that clang compiles with its sanitizers, too."""


@pytest.mark.parametrize(
    ("cc", "model", "numbers", "steps"),
    [(cc, *case) for case in SANITIZED for cc in ("gcc", "clang") if cc == "gcc" or case[0] in BY_CLANG],
)
def test_sanitizers_find_nothing(tmp_path: Path, cc: str, model: str, numbers: str, steps: int) -> None:
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    expected = write_program(tmp_path, model, numbers, steps, PRINT)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O0", "-fsanitize=undefined,address"]
    command = [cc, *flags, "-fno-sanitize-recover=all", "model.c", "main.c", "-o", "main"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"{cc} has no sanitizers here")
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert list(map(int, ran.stdout.split())) == expected


@pytest.mark.parametrize("numbers", ["16", "small"])
def test_a_cortex_m_computes_the_same_bits(tmp_path: Path, numbers: str) -> None:
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: gcc-arm-none-eabi, qemu-system-arm)")
    expected = write_program(tmp_path, "iris-hidden", numbers, 3, "void print_number(int32_t value);")
    flags = ["-std=gnu99", "-Os", "-mthumb", "-mcpu=cortex-m3", "-ffreestanding", "-nostdlib", "-Wall", "-Wextra"]
    sources = ["model.c", "main.c", str(CORTEX / "start.c")]
    command = ["arm-none-eabi-gcc", *flags, f"-T{CORTEX / 'mps2.ld'}", *sources, "-lgcc", "-o", "main.elf"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    machine = ["qemu-system-arm", "-M", "mps2-an385", "-nographic", "-semihosting-config", "enable=on,target=native"]
    ran = subprocess.run(
        [*machine, "-kernel", "main.elf"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert list(map(int, (ran.stdout + ran.stderr).split())) == expected


def test_make_size_reports_flash_and_ram(tmp_path: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None or shutil.which("make") is None:
        pytest.skip("arm-none-eabi-gcc or make is not installed")
    _, program = quantized("iris-hidden", "small")
    for name, text in {**c_fixed.emit(program, "model"), **c_fixed.build_files("model")}.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(["make", "size"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    flash, data, ram = map(int, done.stdout.splitlines()[-1].split()[:3])
    state = sum(max(length, 1) * int(kind.strip("uint_")) // 8 for kind, _, length in c_fixed.state_members(program))
    assert 1000 < flash < 16384
    assert data == 0
    assert state <= ram <= state + 64


def test_there_is_nothing_but_integers() -> None:
    _, program = quantized("digits-mlp", "18")
    text = c_fixed.emit(program, "model")["model.c"]
    assert not re.search(r"\b(float|double|malloc|math\.h|stdio\.h)\b", text)
    assert re.findall(r"#include (.*)", text) == ['"model.h"']


def test_text_is_the_same_each_time() -> None:
    _, program = quantized("iris-hidden", "small")
    assert c_fixed.emit(program, "model") == c_fixed.emit(program, "model")
