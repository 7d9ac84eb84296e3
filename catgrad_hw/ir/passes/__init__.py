"""Passes over the tensor graph, one a file, and the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from catgrad_hw.ir.graph import Graph
from catgrad_hw.ir.passes.dead_code import dead_code
from catgrad_hw.ir.passes.drop_copies import drop_copies
from catgrad_hw.ir.passes.fold_constants import fold_constants
from catgrad_hw.ir.passes.merge_views import merge_views
from catgrad_hw.ir.passes.place_learning_rate import place_learning_rate
from catgrad_hw.ir.passes.recognize_sigmoid import recognize_sigmoid

PASSES: Mapping[str, Callable[[Graph], Graph]] = MappingProxyType(
    {
        # First: copies hide from the other passes that two values are one. Every rewriting shares equal nodes
        # (catgrad_hw.ir.graph.Builder), so that common subexpressions vanish here, forward passes of predict and
        # step among them.
        "drop_copies": drop_copies,
        # Before the passes that look at constant factors: it makes constants of expressions of constants.
        "fold_constants": fold_constants,
        # After folding, which removes what stands between two views.
        "merge_views": merge_views,
        # After the passes above, which make two spellings of one expression equal.
        "recognize_sigmoid": recognize_sigmoid,
        # After the passes that make factors and gradients visible; before dead code, which drops what it replaces.
        "place_learning_rate": place_learning_rate,
        # Last: the passes above leave nodes behind that nothing reads.
        "dead_code": dead_code,
    }
)
"""The passes by name, in the order in which :func:`simplify` runs them."""


ROUNDING = ("recognize_sigmoid", "place_learning_rate")
"""The passes that change the last bits of results: the others compute the same floating-point numbers."""


def simplify(graph: Graph, keep_rounding: bool = False) -> Graph:
    """Run all passes in order, again and again until none finds anything to do: a pass may uncover work for another.

    ``keep_rounding``: leave those out that change the last bits of results.
    """
    passes = [transform for name, transform in PASSES.items() if not (keep_rounding and name in ROUNDING)]
    while True:
        before = graph
        for transform in passes:
            graph = transform(graph)
        if graph is before:
            return graph
