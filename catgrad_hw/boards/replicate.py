"""Copies of what drives many lanes or much memory, one for each few of these that stand side by side.

A bit that tells all lanes what to do has a connection to each of their bits. As one net it crosses the whole chip, and
the router leads it around what is crowded, however long that takes. With a copy of its driver in each group of lanes
only the drivers' inputs cross the chip, and a register has a cycle for that. The same holds for the blocks of a deep
bank. Synthesis would merge the copies: they are made in its netlist.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import networkx as nx

from catgrad_hw.boards.floorplan import PAGES, lanes_of, numbered

GROUP = 8
"""Lanes, or blocks of a bank of single words, that share a copy."""

FEW = 16
"""Connections up to which a driver has no copies, but for those that are urgent."""

SHARED = {"CE", "LSR"}
"""What the flip-flops of a tile share: with several nets for it, fewer of them fit together, or can be routed."""

LOCAL = 16
"""Connections up to which a net keeps cells together."""

OUTPUTS = {"LUT4": "Z", "TRELLIS_FF": "Q"}
"""Of the cells that are copied."""

COPY = "$copy"
"""In the names of copies alone."""

ELSEWHERE = ("nowhere", 0)
"""The group of cells that are near none."""


def replicated(netlist: bytes) -> bytes:
    """``netlist`` (JSON of Yosys for an ECP5, of the module ``top``) with a LUT or a flip-flop for each ``GROUP``,
    where one had more than ``FEW`` connections to cells near several of these, or urgent ones; as it is, where lanes
    are few."""
    if netlist.count(b'"type": "MULT18X18D"') <= GROUP:
        return netlist
    design = json.loads(netlist)
    module = design["modules"]["top"]
    nets = _Nets(module)
    nearest = _nearest(module["cells"], nets)
    copies: dict[tuple[int, Group | None], int] = {}
    original: dict[int, int] = {}
    waiting = sorted(nets.driver)
    while waiting:
        bit = waiting.pop()
        name = nets.driver[bit]
        cell = module["cells"][name]
        if cell["type"] not in OUTPUTS:
            continue
        pins = [pin for pin in nets.sinks[bit] if pin[1] not in SHARED]
        groups = defaultdict(list)
        for pin in pins:
            groups[nearest.get(pin[0], ELSEWHERE)].append(pin)
        if len(groups) < 2 or (len(pins) <= FEW and not _is_urgent(module["cells"], pins)):
            continue
        first = original.setdefault(bit, bit)
        if (first, nearest.get(name)) not in copies:
            nearest[name] = nearest[name] if nearest.get(name) in groups else next(iter(groups))
            copies[first, nearest[name]] = bit
        for group, pins in groups.items():
            if (first, group) not in copies:
                copies[first, group] = new = nets.add_copy(bit)
                original[new] = first
                nearest[nets.driver[new]] = group
            nets.move(pins, bit, copies[first, group])
        # The copies are more connections of what drives them.
        waiting += [b for b in _inputs(cell) if b in nets.driver]
    return json.dumps(design).encode()


def _is_urgent(cells: Mapping[str, Any], sinks: Sequence[Pin]) -> bool:
    """Whether what a cell drives takes its time of the cycle, too: memory, and copies of LUTs, which drive more."""
    kinds = ((cells[name]["type"], COPY in name) for name, _, _ in sinks)
    return any(kind == "DP16KD" or (kind == "LUT4" and copied) for kind, copied in kinds)


def _inputs(cell: Mapping[str, Any]) -> Iterator[int]:
    """The nets of a cell's inputs, constants left out."""
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] == "input":
            yield from (bit for bit in bits if isinstance(bit, int))


Group = tuple[str, int]
"""A bank, or the lanes, and which few of them."""

Pin = tuple[str, str, int]
"""A cell, its port, and the bit of this."""


class _Nets:
    """The nets of a module: who drives them, and what they drive."""

    def __init__(self, module: dict[str, Any]) -> None:
        self.module = module
        self.driver: dict[int, str] = {}
        self.sinks: dict[int, list[Pin]] = defaultdict(list)
        for name, cell in module["cells"].items():
            for port, bits in cell["connections"].items():
                for index, bit in enumerate(bits):
                    if isinstance(bit, int):
                        if cell["port_directions"][port] == "output":
                            self.driver[bit] = name
                        else:
                            self.sinks[bit].append((name, port, index))
        self.next = 1 + max(self.driver)

    def add_copy(self, bit: int) -> int:
        """What is as ``bit``, from a driver of its own, and drives nothing yet."""
        cells = self.module["cells"]
        original, new = self.driver[bit], self.next
        self.next += 1
        name = f"{original}{COPY}{new}"
        cells[name] = cell = copy.deepcopy(cells[original])
        cell["connections"][OUTPUTS[cell["type"]]] = [new]
        self.module["netnames"][name] = {"hide_name": 1, "bits": [new], "attributes": {}}
        self.driver[new] = name
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for index, source in enumerate(bits):
                    if isinstance(source, int):
                        self.sinks[source].append((name, port, index))
        return new

    def move(self, sinks: Sequence[Pin], bit: int, new: int) -> None:
        """Has ``new`` drive some of what ``bit`` drove."""
        if new == bit:
            return
        moved = set(sinks)
        for sink, port, index in sinks:
            self.module["cells"][sink]["connections"][port][index] = new
        self.sinks[bit] = [pin for pin in self.sinks[bit] if pin not in moved]
        self.sinks[new] += sinks


def _nearest(cells: Mapping[str, Any], nets: _Nets) -> dict[str, Group]:
    """For each cell, the group that it is nearest to, by the nets of few connections in between."""
    graph: nx.Graph[str] = nx.Graph()
    for bit, driver in nets.driver.items():
        if len(nets.sinks[bit]) <= LOCAL:
            graph.add_edges_from((driver, sink) for sink, _, _ in nets.sinks[bit])
    anchors = {name: ("lanes", number // GROUP) for number, name in enumerate(lanes_of(cells))}
    for (bank, number), name in numbered(cells, "DP16KD", PAGES):
        anchors[name] = (bank, number // GROUP)
    paths = nx.multi_source_dijkstra_path(graph, [name for name in anchors if name in graph])
    return {cell: anchors[path[0]] for cell, path in paths.items()}
