"""What the compiler makes of a workload, as text for a person."""

from __future__ import annotations

from catgrad_hw.ir.cost import breakdown
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.graph import describe, format_graph
from catgrad_hw.ir.kernel_print import format_program
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.names import value_names
from catgrad_hw.ir.passes import simplify
from catgrad_hw.workload import Workload


def report(workload: Workload) -> str:
    """The simplified tensor graph, the kernels, and the multiplications of a step, node by node."""
    graph = simplify(joint_graph(workload.learner))
    names = value_names(graph)
    counts = breakdown(graph)
    total = f"{sum(count for _, count in counts):,}"
    table = []
    for node, count in counts:
        arguments = " ".join([describe(node.operation), *(names[value] for value in node.inputs)])
        table.append(f"  {count:>{len(total)},}  {names[node.outputs[0]]} = {arguments}")
    return "\n".join(
        [
            f"Tensor graph of {workload.name}",
            format_graph(graph, names),
            "",
            "Kernels",
            format_program(lower(graph)),
            "",
            "Multiplications of one step (tables and powers of two count 0)",
            *table,
            f"  {total}  in total",
        ]
    )
