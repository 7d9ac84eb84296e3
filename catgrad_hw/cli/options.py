"""What the commands' arguments and options are, where more than one command has them."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catgrad_hw.errors import CatgradError

if TYPE_CHECKING:
    from catgrad_hw.workload import Workload

USAGE, MISMATCH, INTERNAL = 2, 1, 3
"""Exit codes: a user's error; hardware and reference differ; a fault of this program."""

_debug = False


class Numbers(StrEnum):
    """Number policies of catgrad_hw.numbers.formats."""

    sixteen = "16"
    eighteen = "18"
    small = "small"


class Simulator(StrEnum):
    verilator = "verilator"
    icarus = "icarus"
    amaranth = "amaranth"


class Bus(StrEnum):
    """The names of catgrad_hw.hardware.BUSES."""

    plain = "plain"
    axi = "axi"


class Target(StrEnum):
    """The names of catgrad_hw.targets.registry."""

    numpy = "numpy"
    torch = "torch"
    tinygrad = "tinygrad"
    c = "c"
    c_fixed = "c-fixed"
    cuda = "cuda"
    ggml = "ggml"


class Contender(StrEnum):
    """The names of catgrad_hw.bench."""

    numpy = "numpy"
    by_hand = "by-hand"
    catgrad = "catgrad"
    torch = "torch"
    tinygrad = "tinygrad"
    c = "c"
    c_fixed = "c-fixed"
    cuda = "cuda"
    torch_cuda = "torch-cuda"
    torch_cuda_compiled = "torch-cuda-compiled"


def _set_debug(value: bool) -> None:
    global _debug
    _debug = _debug or value


def debug() -> bool:
    """Whether ``--debug`` was given."""
    return _debug


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A built-in name, as iris-hidden or digits-mlp, or FILE.py:NAME")
]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples in a step, in place of the model's own number.")]
Lanes = Annotated[int, typer.Option("--lanes", "-P", help="Multiply-accumulate lanes, 1 to 128.")]
Memory = Annotated[
    float | None, typer.Option(metavar="KBIT", help="At most so much block RAM (1024 bits), data set excluded.")
]
Tile = Annotated[int | None, typer.Option(min=1, help="Samples on chip at a time: the batch, or a multiple of P.")]
Formats = Annotated[Numbers, typer.Option("--numbers", help="Number formats: multipliers of 16 or 18 bits, or small.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps; by default 1000.")]
Epochs = Annotated[
    float | None, typer.Option(metavar="E", help="Instead of --steps: E * samples / batch steps, rounded.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of initial parameters and random rounding.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report.")]
Folder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write to.")]
Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error.")]


def steps_of(workload: Workload, steps: int | None, epochs: float | None) -> int:
    """The number of training steps: batches are consecutive rows and wrap round, so epochs need not be whole steps."""
    if epochs is None:
        return 1000 if steps is None else steps
    if steps is not None:
        raise CatgradError("--epochs: expected no --steps, found both; leave one of them out")
    found = round(epochs * len(workload.x) / workload.batch_size) if 0 < epochs < math.inf else 0
    if found < 1:
        raise CatgradError(f"--epochs {epochs:g}: expected at least one step, found {found}; give more epochs")
    return found
