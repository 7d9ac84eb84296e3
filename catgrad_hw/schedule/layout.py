"""Layout: the bank, the rows and the lanes of every array.

Arrays that one kernel uses in the same cycle lie in different banks (a bank has one read and one write port): a
colouring of the conflict graph, by networkx's largest-first greedy strategy with a fixed order of ties. Arrays of
different word width or of different shape of row never share a bank. The data set has banks of its own, which the
loader writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import networkx as nx

from catgrad_hw.errors import CapacityError, UnsupportedError
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.program import Bank, BankKind, MachineKernel, Placement
from catgrad_hw.schedule.select import elements


def conflicts(kernel: MachineKernel) -> list[tuple[str, str]]:
    """Pairs of arrays that ``kernel`` reads, or writes, through different streams in the same cycles."""
    reads = [operand.array for operand in (kernel.a, kernel.b) if not isinstance(operand, int)]
    writes: list[str] = []
    if kernel.slow:
        reads += [kernel.slow.bias.array] if kernel.slow.bias else []
        for write in kernel.slow.writes:
            writes.append(write.target.array)
            reads += [write.subtraction.other.array] if write.subtraction else []
    if kernel.sum and kernel.sum.update:
        reads.append(kernel.sum.target.array)
    if kernel.full:
        writes.append(kernel.full.target.array)
    if kernel.sum:
        writes.append(kernel.sum.target.array)
    return [*combinations(reads, 2), *combinations(writes, 2)]


def place(
    program: IntegerProgram,
    kernels: Iterable[MachineKernel],
    lanes: int,
    rows: int,
    tiles: int,
    slots: int,
    kinds: Mapping[str, BankKind],
) -> tuple[dict[str, Bank], dict[str, Placement]]:
    """Choose banks and rows for every array that ``kernels`` touch.

    ``rows``: rows of samples in a tile; ``tiles`` per step; ``slots``: tiles of samples held on chip; ``kinds``: the
    kind of a bank by its name, where it isn't block RAM.

    Raises:
        CapacityError: a kind for a bank that doesn't exist, or that would have to read and write at once.
        UnsupportedError: a kernel reads, or writes, one array twice in a cycle.
    """
    arrays = program.kernels.arrays
    data = (*program.kernels.inputs, *program.kernels.targets)
    used: list[str] = list(program.kernels.parameters) + list(data)
    graph: nx.Graph[str] = nx.Graph()
    for kernel in kernels:
        used += [operand.array for operand in kernel.operands() if operand.array not in used]
        pairs = conflicts(kernel)
        for a, b in pairs:
            if a == b:
                raise UnsupportedError(
                    f"kernel {kernel.name}: no hardware for two accesses to {a} in one cycle; expected different "
                    "arrays; train this model with a software target, or change the layer that makes it"
                )
        graph.add_edges_from(pairs)
    used = list(dict.fromkeys(used))

    groups: dict[str, list[str]] = {}
    for name in used:
        array = arrays[name]
        width = program.formats[name].width
        if name in data:
            key = name
        elif array.batch_axis is not None:
            key = f"row{width}"
        elif name in program.kernels.parameters:
            key = "parameter"
        else:
            key = f"word{width}"
        groups.setdefault(key, []).append(name)

    banks: dict[str, Bank] = {}
    placements: dict[str, Placement] = {}
    for key, names in groups.items():
        subgraph: nx.Graph[str] = nx.Graph()
        subgraph.add_nodes_from(names)
        subgraph.add_edges_from((a, b) for a, b in graph.edges if a in names and b in names)
        colours = nx.greedy_color(subgraph, strategy="largest_first")
        for name in names:
            batched = arrays[name].batch_axis is not None
            count = elements(arrays[name])
            bank_name = key if key in data else f"{key}_{colours[name]}"
            depth = banks[bank_name].depth if bank_name in banks else 0
            copies = slots if name in data else tiles if name in program.kernels.outputs else 1
            slot_rows = count * rows if batched else count
            placements[name] = Placement(name, bank_name, depth, count, batched, copies, slot_rows)
            banks[bank_name] = Bank(
                bank_name,
                lanes if batched else 1,
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
