"""catgrad_hw: models compiled, with their reverse derivatives, to circuits that train themselves."""

from __future__ import annotations

from catgrad_hw import layers
from catgrad_hw.compile import compile_model
from catgrad_hw.importers import from_catgrad, from_torch, import_catgrad
from catgrad_hw.ir.definition import Definition
from catgrad_hw.ir.hypergraph import identity, op
from catgrad_hw.ir.optics import rdiff
from catgrad_hw.ir.types import Dtype, NdArrayType, obj
from catgrad_hw.targets.backend import Numpy
from catgrad_hw.workload import Workload

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
