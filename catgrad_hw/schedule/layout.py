"""Layout: the bank, the rows and the lanes of every array.

Arrays that one kernel uses in the same cycle lie in different banks (a bank has one read and one write port); networkx
colours the conflict graph to tell how many banks that takes. Arrays that never hold values at the same time may share
rows; the scheduler then keeps the later's writes behind the earlier's reads. Arrays of different word width never share
a bank, nor do packed arrays with others. The data set has banks of its own, which the loader writes; or, where only a
few samples are on chip at a time, it lies among the other arrays, and the loader writes when no kernel does. A deep
array of it stays alone: its blocks stand all over the chip, far from what else would write them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from math import prod

import networkx as nx

from catgrad_hw.errors import CapacityError, UnsupportedError
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.packing import Axis
from catgrad_hw.schedule.program import Bank, BankKind, MachineKernel, Operand, Placement

DEEP = 8192
"""Rows from which on an array of the data set has a bank of its own: it costs one block more, at most."""


def conflicts(kernel: MachineKernel) -> list[tuple[str, str]]:
    """Pairs of arrays that ``kernel`` reads, or writes, through different streams in the same cycles."""
    reads = [operand.array for operand in (kernel.a, kernel.b) if not isinstance(operand, int)]
    writes: list[str] = []
    if kernel.slow:
        for write in kernel.slow.writes:
            writes.append(write.target.array)
            reads += [write.subtraction.other.array] if write.subtraction else []
    for path in (kernel.full, kernel.sum):
        if path:
            writes += [finish.target.array for finish in path.writes]
            reads += [finish.target.array for finish in path.writes if finish.update]
    for part in (kernel.slow, kernel.full, kernel.sum):
        reads += [operand.array for operand in part.combination.operands()] if part else []
    return [*combinations(reads, 2), *combinations(writes, 2)]


def lifetimes(
    routines: Mapping[str, Sequence[MachineKernel]], tiled: Collection[str] = ()
) -> dict[str, dict[str, tuple[int, int]]]:
    """For each array and routine, the positions of the first and the last kernel that touch it.

    What the final phase reads was made over all tiles, so it lives from the first kernel on; and so do the arrays
    ``tiled``, of which each tile leaves a part.
    """
    lives: dict[str, dict[str, tuple[int, int]]] = {}
    for routine, kernels in routines.items():
        for position, kernel in enumerate(kernels):
            for operand in kernel.operands():
                first, _ = lives.setdefault(operand.array, {}).get(routine, (position, position))
                lives[operand.array][routine] = (first if kernel.batch_level is not None else 0, position)
                if operand.array in tiled:
                    lives[operand.array][routine] = (0, len(kernels) - 1)
    return lives


def sums_leftovers(kernels: Iterable[MachineKernel]) -> set[str]:
    """Arrays that are written word by word, and of which the tree sums whole rows, lanes without an element included.

    Such a lane must stay 0, as it was at power-up; rows are written with zeros there.
    """
    by_word: set[str] = set()
    by_row: set[str] = set()
    for kernel in kernels:
        targets = [write.target for write in kernel.slow.writes] if kernel.slow else []
        targets += [finish.target for path in (kernel.full, kernel.sum) if path for finish in path.writes]
        by_word |= {target.array for target in targets if not target.row}
        if not kernel.full and not (kernel.slow and kernel.slow.reduced is None):
            by_row |= {
                operand.array for operand in (kernel.a, kernel.b) if isinstance(operand, Operand) and operand.row
            }
    return by_word & by_row


def place(
    program: IntegerProgram,
    axes: Mapping[str, Axis],
    routines: Mapping[str, Sequence[MachineKernel]],
    lanes: int,
    tile: int,
    tiles: int,
    slots: int,
    kinds: Mapping[str, BankKind],
    block: BankKind = "block",
    shared: bool = False,
    deepest: int | None = None,
) -> tuple[dict[str, Bank], dict[str, Placement]]:
    """Choose banks and rows for every array that the kernels of ``routines`` touch.

    ``axes``: vector axes; ``tile``: samples in one of ``tiles`` per step; ``slots``: tiles of samples held on chip;
    ``kinds``: the kind of a bank by its name, where it isn't ``block``; ``shared``: the data set, too, lies in banks
    that the kernels write, but for arrays that are ``DEEP``; ``deepest``: rows of the deepest bank of rows that more
    than one array should share.

    Raises:
        CapacityError: a kind for a bank that doesn't exist, or that would have to read and write at once.
        UnsupportedError: a kernel reads, or writes, one array twice in a cycle.
    """
    arrays = program.kernels.arrays
    data = (*program.kernels.inputs, *program.kernels.targets)
    used: list[str] = list(program.kernels.parameters) + list(data)
    graph: nx.Graph[str] = nx.Graph()
    for kernel in (k for kernels in routines.values() for k in kernels):
        used += [operand.array for operand in kernel.operands() if operand.array not in used]
        for a, b in conflicts(kernel):
            if a == b:
                raise UnsupportedError(
                    f"kernel {kernel.name}: hardware expects different arrays in one cycle, found two accesses to {a}; "
                    "change the layer that makes it (catgrad-hw inspect prints the kernels), or train with a software "
                    "target"
                )
            graph.add_edge(a, b)
    lives = lifetimes(routines, program.kernels.outputs if tiles > 1 else ())
    persistent = {*program.kernels.parameters, *data}
    for name in sums_leftovers(k for kernels in routines.values() for k in kernels):
        axis = axes[name]
        if axis is not None:
            length = tile if axis == arrays[name].batch_axis else arrays[name].shape[axis]
            persistent |= {name} if length % lanes else set()

    def together(a: str, b: str) -> bool:
        """Whether two arrays ever hold values at the same time."""
        if a in persistent or b in persistent:
            return True
        pairs = ((lives[a].get(routine), lives[b].get(routine)) for routine in routines)
        return any(x and y and x[0] <= y[1] and y[0] <= x[1] for x, y in pairs)

    sized: dict[str, tuple[int, int, int, tuple[int, ...]]] = {}

    def rows(name: str) -> int:
        elements, length, copies, _ = sized[name]
        return copies * elements * -(-length // lanes)

    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(used):
        array, axis = arrays[name], axes[name]
        shape = tuple(tile if i == array.batch_axis else size for i, size in enumerate(array.shape))
        length = 1 if axis is None else shape[axis]
        copies = slots if name in data else tiles if name in program.kernels.outputs else 1
        sized[name] = (prod(shape) // length, length, copies, shape)
        width = program.formats[name].width
        alone = name in data and (not shared or rows(name) >= DEEP)
        key = name if alone else f"{'row' if axis is not None else 'word'}{width}"
        groups.setdefault(key, []).append(name)

    banks: dict[str, Bank] = {}
    placements: dict[str, Placement] = {}
    for key, names in groups.items():
        # Largest first, each into the bank that grows least, at the lowest rows that no contemporary holds.
        order = sorted(names, key=lambda name: (-rows(name), names.index(name)))
        colours = nx.greedy_color(graph.subgraph(names), strategy="largest_first") if len(names) > 1 else {}
        count = 1 + max(colours.values(), default=0)
        held: list[list[str]] = [[] for _ in range(count)]
        bases: dict[str, int] = {}
        depths = [0] * count
        for name in order:
            fits: list[tuple[int, int, int]] = []
            for number, others in enumerate(held):
                if any(graph.has_edge(name, other) for other in others):
                    continue
                busy = sorted((bases[other], bases[other] + rows(other)) for other in others if together(name, other))
                base = 0
                for low, high in busy:
                    if base + rows(name) <= low:
                        break
                    base = max(base, high)
                if axes[name] is not None and deepest is not None and others and base + rows(name) > deepest:
                    continue
                fits.append((max(depths[number], base + rows(name)) - depths[number], number, base))
            if not fits:
                held.append([])
                depths.append(0)
                fits = [(rows(name), len(held) - 1, 0)]
            _, number, bases[name] = min(fits)
            held[number].append(name)
            depths[number] = max(depths[number], bases[name] + rows(name))
        for number, members in enumerate(held):
            if members:
                bank_name = key if key in data else f"{key}_{number}"
                packed = axes[members[0]] is not None
                banks[bank_name] = Bank(
                    bank_name,
                    lanes if packed else 1,
                    program.formats[members[0]].width,
                    depths[number],
                    kinds.get(bank_name, block),
                    key in data,
                )
                for name in members:
                    elements, length, copies, shape = sized[name]
                    placements[name] = Placement(
                        name, bank_name, bases[name], elements, axes[name], length, shape, copies, rows(name) // copies
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
