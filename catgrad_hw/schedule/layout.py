"""Layout: the bank, the rows and the lanes of every array.

Arrays that one kernel uses in the same cycle lie in different banks (a bank has one read and one write port): a
colouring of the conflict graph, by networkx's largest-first greedy strategy with a fixed order of ties. Arrays of
different word width never share a bank, nor do packed arrays with others. The data set has banks of its own, which the
loader writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import networkx as nx

from catgrad_hw.errors import CapacityError
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.packing import Axis
from catgrad_hw.schedule.program import Bank, BankKind, MachineKernel, Placement


def conflicts(kernel: MachineKernel) -> list[tuple[str, str]]:
    """Pairs of arrays that ``kernel`` reads, or writes, through different streams in the same cycles."""
    reads = [operand.array for operand in (kernel.a, kernel.b) if not isinstance(operand, int)]
    writes: list[str] = []
    if kernel.slow:
        reads += [kernel.slow.bias.array] if kernel.slow.bias else []
        for write in kernel.slow.writes:
            writes.append(write.target.array)
            reads += [write.subtraction.other.array] if write.subtraction else []
    for path in (kernel.full, kernel.sum):
        if path:
            writes.append(path.target.array)
            reads += [path.target.array] if path.update else []
    return [*combinations(reads, 2), *combinations(writes, 2)]


def place(
    program: IntegerProgram,
    axes: Mapping[str, Axis],
    kernels: Iterable[MachineKernel],
    lanes: int,
    tile: int,
    tiles: int,
    slots: int,
    kinds: Mapping[str, BankKind],
) -> tuple[dict[str, Bank], dict[str, Placement]]:
    """Choose banks and rows for every array that ``kernels`` touch.

    ``axes``: vector axes; ``tile``: samples in one of ``tiles`` per step; ``slots``: tiles of samples held on chip;
    ``kinds``: the kind of a bank by its name, where it isn't block RAM.

    Raises:
        CapacityError: a kind for a bank that doesn't exist, or that would have to read and write at once.
    """
    arrays = program.kernels.arrays
    data = (*program.kernels.inputs, *program.kernels.targets)
    used: list[str] = list(program.kernels.parameters) + list(data)
    graph: nx.Graph[str] = nx.Graph()
    for kernel in kernels:
        used += [operand.array for operand in kernel.operands() if operand.array not in used]
        graph.add_edges_from((a, b) for a, b in conflicts(kernel) if a != b)

    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(used):
        width = program.formats[name].width
        key = name if name in data else f"{'row' if axes[name] is not None else 'word'}{width}"
        groups.setdefault(key, []).append(name)

    banks: dict[str, Bank] = {}
    placements: dict[str, Placement] = {}
    for key, names in groups.items():
        subgraph: nx.Graph[str] = nx.Graph()
        subgraph.add_nodes_from(names)
        subgraph.add_edges_from((a, b) for a, b in graph.edges if a in names and b in names)
        colours = nx.greedy_color(subgraph, strategy="largest_first")
        for name in names:
            array, axis = arrays[name], axes[name]
            shape = [tile if i == array.batch_axis else size for i, size in enumerate(array.shape)]
            length = 1 if axis is None else shape[axis]
            elements = 1
            for size in shape:
                elements *= size
            elements //= length
            bank_name = key if key in data else f"{key}_{colours[name]}"
            depth = banks[bank_name].depth if bank_name in banks else 0
            copies = slots if name in data else tiles if name in program.kernels.outputs else 1
            slot_rows = elements * -(-length // lanes)
            placements[name] = Placement(
                name, bank_name, depth, elements, axis, length, tuple(shape), copies, slot_rows
            )
            banks[bank_name] = Bank(
                bank_name,
                1 if axis is None else lanes,
                program.formats[name].width,
                depth + copies * slot_rows,
                kinds.get(bank_name, "block"),
                name in data,
            )
    for name, kind in kinds.items():
        if name not in banks and name != "partial":
            raise CapacityError(f"kinds of banks: no bank is called {name}; there are {', '.join(sorted(banks))}")
        if kind == "single_port" and name not in data:
            raise CapacityError(
                f"kinds of banks: {name} reads and writes in one cycle, so it can't be single_port; only the banks of "
                f"the data set can: {', '.join(data)}"
            )
    return banks, placements
