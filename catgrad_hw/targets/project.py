"""What all targets that read kernels start from."""

from __future__ import annotations

import keyword
import re
from typing import TypeAlias

from catgrad_hw.errors import ModelError
from catgrad_hw.ir.from_hypergraph import Learner, joint_graph
from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.kernel import KernelProgram
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.passes import simplify
from catgrad_hw.workload import Workload

Source: TypeAlias = Workload | Learner
"""What targets take: a workload, or a learner of :func:`catgrad_hw.compile.learner`."""

_C_KEYWORDS = """
auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
"""


def learner_of(model: Source) -> Learner:
    return model.learner if isinstance(model, Workload) else model


def graph_of(model: Source) -> Graph:
    """The simplified tensor graph."""
    return simplify(joint_graph(learner_of(model)))


def kernels_of(model: Source) -> KernelProgram:
    """The float kernels."""
    return lower(graph_of(model))


def identifier(name: str) -> str:
    """``name`` as an identifier of C and Python; ModelError where it cannot be one."""
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not word.isidentifier() or keyword.iskeyword(word) or word in _C_KEYWORDS.split():
        raise ModelError(f"emit: expected a name for a module, found {name!r}; start it with a letter")
    return word
