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
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from catgrad_hw.boards.floorplan import PAGES, lanes_of, numbered
from catgrad_hw.boards.netlist import CONTROLS, Nets, Pin, inputs

GROUP = 8
"""Lanes, or blocks of a bank of single words, that share a copy."""

FEW = 16
"""Connections up to which a driver has no copies, but for those that are urgent."""

LOCAL = 32
"""Connections up to which a net keeps cells together, the less the more they are: those of a word, and some."""

COPIED = {"LUT4": "Z", "TRELLIS_FF": "Q"}
"""Cells that are copied, and their outputs."""

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
    nets = Nets(module)
    nearest = _nearest(module["cells"], nets)
    copies: dict[tuple[int, Group | None], int] = {}
    original: dict[int, int] = {}
    waiting = sorted(nets.driver)
    while waiting:
        bit = waiting.pop()
        name = nets.driver[bit]
        cell = module["cells"][name]
        if cell["type"] not in COPIED:
            continue
        pins = [pin for pin in nets.sinks[bit] if pin[1] not in CONTROLS]
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
                copies[first, group] = new = _copy(nets, bit)
                original[new] = first
                nearest[nets.driver[new]] = group
            nets.move(pins, bit, copies[first, group])
        # The copies are more connections of what drives them.
        waiting += [b for b in inputs(cell) if b in nets.driver]
    return json.dumps(design).encode()


def _copy(nets: Nets, bit: int) -> int:
    """What is as ``bit``, from a driver of its own, and drives nothing yet."""
    original = nets.driver[bit]
    cell = copy.deepcopy(nets.cells[original])
    return nets.add(f"{original}{COPY}", cell, COPIED[cell["type"]])


def _is_urgent(cells: Mapping[str, Any], sinks: Sequence[Pin]) -> bool:
    """Whether what a cell drives takes its time of the cycle, too: memory, and copies of LUTs, which drive more."""
    kinds = ((cells[name]["type"], COPY in name) for name, _, _ in sinks)
    return any(kind == "DP16KD" or (kind == "LUT4" and copied) for kind, copied in kinds)


Group = tuple[str, int]
"""A bank, or the lanes, and which few of them."""


def _nearest(cells: Mapping[str, Any], nets: Nets) -> dict[str, Group]:
    """For each cell, the group that it is nearest to, by the nets of few connections in between."""
    graph: nx.Graph[str] = nx.Graph()
    for bit, driver in nets.driver.items():
        if (count := len(nets.sinks[bit])) <= LOCAL:
            graph.add_weighted_edges_from((driver, sink, count) for sink, _, _ in nets.sinks[bit])
    anchors = {name: ("lanes", number // GROUP) for number, name in enumerate(lanes_of(cells))}
    for (bank, number), name in numbered(cells, "DP16KD", PAGES):
        anchors[name] = (bank, number // GROUP)
    paths = nx.multi_source_dijkstra_path(graph, [name for name in anchors if name in graph])
    return {cell: anchors[path[0]] for cell, path in paths.items()}
