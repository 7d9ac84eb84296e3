"""All targets: one table, the command line's choice, refusals before anything is written, the page that lists them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every_operation import concrete_operations, is_core
from random_models import array
from typer.testing import CliRunner

from catgrad_hw import Dtype, NdArrayType
from catgrad_hw.bench import CONTENDERS, bench
from catgrad_hw.cli import app as cli
from catgrad_hw.errors import ModelError
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir import windows
from catgrad_hw.targets.registry import TARGETS, speaks, support_table

PAGE = Path(__file__).parents[1] / "docs" / "targets.md"

T, U, INT, BOOL = array(4, 3), array(3), NdArrayType((4, 3), Dtype.int32), NdArrayType((4, 3), Dtype.bool)

SAMPLES: dict[type[ops.Operation], list[ops.Operation]] = {
    **{
        kind: [kind(T)]
        for kind in (ops.Sigmoid, ops.SigmoidDerivative, ops.Tanh, ops.TanhDerivative, ops.Exp, ops.Log, ops.Sqrt)
    },
    **{
        kind: [kind(T), kind(INT), kind(BOOL)]
        for kind in (ops.Add, ops.Subtract, ops.Negate, ops.Multiply, ops.Divide, ops.Power, ops.Gt, ops.Select)
    },
    ops.Invert: [ops.Invert(INT), ops.Invert(BOOL)],
    ops.Constant: [ops.Constant(T, 0.5)],
    ops.NCopy: [ops.NCopy(T, U)],
    ops.NAdd: [ops.NAdd(array(4), U)],
    ops.NMax: [ops.NMax(array(4), U)],
    ops.FirstMaximum: [ops.FirstMaximum(array(4), U)],
    ops.NSplit: [ops.NSplit(array(4), 3)],
    ops.NConcatenate: [ops.NConcatenate(array(4), 3)],
    ops.Reshape: [ops.Reshape(T, array(12))],
    ops.Permute: [ops.Permute(T, [1, 0])],
    ops.Compose: [ops.Compose(array(4), U, array(2))],
    ops.MatrixMultiply: [ops.MatrixMultiply(array(2), array(4), U, array(5))],
    windows.Pad: [windows.Pad(T, (1, 0), (0, 2), (1, 1))],
    windows.Crop: [windows.Crop(T, (1, 0), (0, 2), (1, 1))],
    windows.Windows: [windows.Windows(T, 0, 2)],
    windows.Fold: [windows.Fold(T, 0, 2)],
    windows.Flip: [windows.Flip(T, 0)],
}


FROM_PYTHON = """\
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.targets.build import build_c
from catgrad_hw.targets.engine import FastReference
from catgrad_hw.workload import load_workload

workload = load_workload("iris-hidden")
x, y = workload.batch(0)

compiled = build_c(workload)
p = compiled.step(*workload.initial_parameters(), x, y)
[predictions] = compiled.predict(*p, x)

machine = FastReference(quantize_workload(workload, "16").integer, seed=0)
machine.load(workload.initial_parameters())
machine.step(x, y)
words = machine.parameter_words()
"""


def page() -> str:
    table = support_table([sample for kind in sorted(SAMPLES, key=lambda k: k.__name__) for sample in SAMPLES[kind]])
    summaries = "\n".join(f"| `{target.name}` | {target.summary} |" for target in TARGETS.values())
    return f"""\
# Targets

`catgrad-hw emit MODEL --target TARGET -o DIR` writes sources, a build file and a README of a few lines; each target has
`predict` and `step`. What a target does not speak is refused, by name, before anything is written.

| target | what it is |
|---|---|
{summaries}

## Use it

`examples/iris.c` and `examples/iris.cu` train iris with the files that were written; their first lines say how to build
them. From Python, `build_c` compiles the C of a workload, or of what `catgrad_hw.compile.learner` makes of a model, and
gives its functions on arrays; `FastReference` is the integer reference with `c-fixed` as its engine:

```python
{FROM_PYTHON}```

## Which operation each target speaks

The table is made by `tests/test_targets.py` from the compiler itself: each operation by itself, on arguments that are
inputs of the model. `c-fixed` speaks float32, for which it chooses number formats, as far as integer kernels do, and
writes int32 and bool as `c` does; `cuda` speaks float32 alone.

{table}
"""


def test_the_page_is_what_the_code_says() -> None:
    """To write it anew: ``UPDATE=1 python -m pytest tests/test_targets.py``."""
    if os.environ.get("UPDATE"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page()


def test_the_page_s_snippet_runs() -> None:
    names: dict[str, Any] = {}
    exec(FROM_PYTHON, names)
    formats = names["machine"].program.formats
    found = [words * 2.0 ** -formats[f"p{i}"].fraction for i, words in enumerate(names["words"])]
    for a, b in zip(found, names["p"], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert names["predictions"].shape == (150, 3)


def test_every_core_operation_is_in_the_table() -> None:
    vanish = {ops.Copy, ops.Discard}  # before any target sees them
    assert set(SAMPLES) == {kind for kind in concrete_operations() if is_core(kind)} - vanish


def test_command_line_and_tables_have_the_same_names() -> None:
    assert [target.value for target in cli.Target] == list(TARGETS)
    assert [contender.value for contender in cli.Contender] == list(CONTENDERS)


def test_numpy_speaks_everything() -> None:
    assert all(speaks(TARGETS["numpy"], sample) for samples in SAMPLES.values() for sample in samples)


@pytest.mark.parametrize("target", list(TARGETS))
def test_emit_writes_sources_build_file_and_readme(target: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["emit", "iris-linear", "--target", target, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "README.md" in names
    assert names & {"Makefile", "pyproject.toml", "CMakeLists.txt"}
    assert any(name.startswith("iris_linear.") for name in names)


@pytest.mark.parametrize("target", ["cuda", "ggml", "torch", "tinygrad"])
def test_what_a_target_does_not_speak_is_refused_before_anything_is_written(target: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import numpy as np\n"
        "from catgrad_hw import *\n"
        "from catgrad_hw.ir import operations as ops\n"
        "def integers():\n"
        "    B, A = NdArrayType((2,), Dtype.int32), NdArrayType((3,), Dtype.int32)\n"
        "    model = layers.linear(B, A, A)\n"
        "    return Workload(model, layers.sgd(1), layers.mse, np.zeros((2, 3)), np.zeros((2, 3)))\n"
    )
    command = ["emit", f"{tmp_path / 'model.py'}:integers", "--target", target, "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code != 0
    assert not (tmp_path / "out").exists()


def test_bench_measures_in_a_process_of_its_own() -> None:
    (timings,) = bench(["iris-linear"], ["numpy", "by-hand", "c"]).values()
    assert [t.target for t in timings] == ["numpy", "by-hand", "c"]
    numpy, by_hand, c = timings
    assert numpy.seconds is not None
    assert numpy.seconds > 0
    assert by_hand.seconds is None
    assert "expected dense layers with biases" in by_hand.reason
    assert c.seconds is not None
    assert c.seconds > 0


def test_bench_explains_a_wrong_name_in_one_line() -> None:
    with pytest.raises(ModelError, match="model nosuch: expected one of iris-linear"):
        CliRunner().invoke(cli.app, ["bench", "nosuch"], catch_exceptions=False)
