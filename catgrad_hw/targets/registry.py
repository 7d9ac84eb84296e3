"""All targets: what ``catgrad-hw emit --target`` chooses among, and which operation each of them speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.targets import c, c_fixed, cuda, numpy, tinygrad, torch
from catgrad_hw.targets.project import Source, identifier
from catgrad_hw.workload import Workload


@dataclass(frozen=True)
class Target:
    """``sources(model, name, numbers)`` gives the source files; ``build_files(name)`` a build file and a README."""

    name: str
    summary: str
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
    if not isinstance(model, Workload):
        raise UnsupportedError("c-fixed: expected a workload, whose data give the formats, found a model without data")
    return c_fixed.emit(model, name, numbers)


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("numpy", "a Python module that imports NumPy alone", lambda m, n, _: numpy.emit(m, n), _python("numpy")),
        Target("torch", "a Python module that imports torch alone", lambda m, n, _: torch.emit(m, n), _python("torch")),
        Target(
            "tinygrad",
            "a Python module that imports tinygrad alone",
            lambda m, n, _: tinygrad.emit(m, n),
            _python("tinygrad"),
        ),
        Target("c", "C99 in float32, with no library but libm", lambda m, n, _: c.emit(m, n), c.build_files),
        Target("c-fixed", "C99 in integers: the bits of the hardware", _integers, c_fixed.build_files),
        Target("cuda", "CUDA in float32, a step in one launch", lambda m, n, _: cuda.emit(m, n), cuda.build_files),
    )
}
"""The targets by name."""
