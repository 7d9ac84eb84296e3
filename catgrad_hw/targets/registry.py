"""All targets: what ``catgrad-hw emit --target`` chooses among, and which operation each of them speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.graph import Builder, Graph, Input
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.operations import Operation
from catgrad_hw.ir.passes import simplify
from catgrad_hw.numbers.calibrate import Ranges
from catgrad_hw.numbers.formats import policy
from catgrad_hw.numbers.quantize import quantize
from catgrad_hw.numbers.reciprocals import divide_by_multiplying
from catgrad_hw.targets import c, c_fixed, cuda, ggml, numpy, tinygrad, torch
from catgrad_hw.targets.project import Source, identifier


@dataclass(frozen=True)
class Target:
    """``sources(model, name, numbers)`` gives the source files; ``build_files(name)`` a build file and a README.

    ``write(graph)`` spells a tensor graph, and raises :class:`UnsupportedError` where it cannot.
    """

    name: str
    summary: str
    write: Callable[[Graph], object]
    sources: Callable[[Source, str, str], dict[str, str]]
    build_files: Callable[[str], Mapping[str, str]]

    def emit(self, model: Source, name: str, numbers: str = "16") -> dict[str, str]:
        """All files by name: sources, a build file, a README. ``numbers`` matters to targets of integers alone.

        Raises :class:`UnsupportedError` for an operation that the target does not speak.
        """
        name = identifier(name)
        return {**self.sources(model, name, numbers), **self.build_files(name)}


def _python(library: str) -> Callable[[str], Mapping[str, str]]:
    def build_files(name: str) -> Mapping[str, str]:
        return {
            "pyproject.toml": f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name.replace("_", "-")}"
version = "0.1.0"
dependencies = ["{library}"]

[tool.setuptools]
py-modules = ["{name}"]
""",
            "README.md": f"""\
# {name} in {library}

`{name}.py` imports {library} alone; `import {name}`, or install it with `pip install .`. Its docstring tells the
arguments of `predict` and `step`, which return lists. Fill the parameters with small random numbers, then call `step`
once for each batch.
""",
        }

    return build_files


def _integers(model: Source, name: str, numbers: str) -> dict[str, str]:
    return c_fixed.emit(model, name, numbers)


def _write_integers(graph: Graph) -> object:
    kernels = lower(graph)
    if not any(array.dtype.is_floating() for array in kernels.arrays.values()):
        return c.render(kernels, "m")  # integers as it is
    kernels = lower(simplify(divide_by_multiplying(graph)))
    return c_fixed.emit(quantize(kernels, Ranges(), policy("16")), "m")


def _module(kind: type[numpy.Function]) -> Callable[[Graph], object]:
    return lambda graph: kind(graph, "predict", [i.name for i in graph.inputs]).source()


def speaks(target: Target, operation: Operation) -> bool:
    """Whether a target speaks one operation, on arguments that are inputs of the model."""
    inputs = [Input(f"x{i}", "input", T) for i, T in enumerate(operation.source())]
    builder = Builder(inputs)
    results = builder.add(operation, range(len(inputs)))
    try:
        target.write(simplify(builder.build({"predict": results, "step": []})))
    except UnsupportedError:
        return False
    return True


def support_table(operations: Sequence[Operation]) -> str:
    """A Markdown table: which target speaks which of the operations."""
    lines = [f"| operation | dtype | {' | '.join(TARGETS)} |", "|---" * (len(TARGETS) + 2) + "|"]
    for operation in operations:
        dtype = (*operation.source(), *operation.target())[0].dtype.name
        marks = ("yes" if speaks(target, operation) else "–" for target in TARGETS.values())
        lines.append(f"| {type(operation).__name__} | {dtype} | {' | '.join(marks)} |")
    return "\n".join(lines)


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "numpy",
            "a Python module that imports NumPy alone",
            _module(numpy.Function),
            lambda m, n, _: numpy.emit(m, n),
            _python("numpy"),
        ),
        Target(
            "torch",
            "a Python module that imports torch alone",
            _module(torch.Function),
            lambda m, n, _: torch.emit(m, n),
            _python("torch"),
        ),
        Target(
            "tinygrad",
            "a Python module that imports tinygrad alone",
            _module(tinygrad.Function),
            lambda m, n, _: tinygrad.emit(m, n),
            _python("tinygrad"),
        ),
        Target(
            "c",
            "C99, with no library but libm",
            lambda g: c.render(lower(g), "m"),
            lambda m, n, _: c.emit(m, n),
            c.build_files,
        ),
        Target("c-fixed", "C99 in integers: the bits of the hardware", _write_integers, _integers, c_fixed.build_files),
        Target(
            "cuda",
            "CUDA in float32, a step in one launch",
            lambda g: cuda.render(lower(g), "m"),
            lambda m, n, _: cuda.emit(m, n),
            cuda.build_files,
        ),
        Target(
            "ggml",
            "C++ against ggml's public headers, on its CPU backend",
            lambda g: ggml.render(g, "m"),
            lambda m, n, _: ggml.emit(m, n),
            ggml.build_files,
        ),
    )
}
"""The targets by name."""
