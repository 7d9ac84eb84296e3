"""catgrad_hw: models compiled, with their reverse derivatives, to circuits that train themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catgrad_hw import layers
from catgrad_hw.compile import compile_model
from catgrad_hw.importers import from_catgrad, from_torch, import_catgrad
from catgrad_hw.ir.definition import Definition
from catgrad_hw.ir.hypergraph import identity, op
from catgrad_hw.ir.optics import rdiff
from catgrad_hw.ir.types import Dtype, NdArrayType, obj
from catgrad_hw.targets.backend import Numpy
from catgrad_hw.workload import Workload

if TYPE_CHECKING:
    from catgrad_hw.host.device import connect as connect

__all__ = [
    "Definition",
    "Dtype",
    "NdArrayType",
    "Numpy",
    "Workload",
    "compile_model",
    "from_catgrad",
    "from_torch",
    "identity",
    "import_catgrad",
    "layers",
    "obj",
    "op",
    "rdiff",
]


def __getattr__(name: str) -> Any:
    """``connect`` is imported when it is used: it brings the hardware compiler and the serial port with it."""
    if name == "connect":
        from catgrad_hw.host.device import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
