"""Where the lanes of a design go on an ECP5: side by side, in their order, and the memory of their rows beside them.

Multipliers and block RAM stand in a few rows of the chip, far apart. A placer that starts from nothing puts them there
in any order, so that the words of a row cross half the chip on their way to the lanes, and routing runs out of wires
long before placement runs out of cells. With lanes and rows in order a word goes up or down to its lane; all else is
left to the placer. Where one row of multipliers is too short, lanes stand in all of them, those whose memory is in one
row of block RAM beside it. A deep bank of single words has blocks side by side, too, at the end of the block RAM.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[int, int]
"""Column and row of a site."""

FILLED = 0.75
"""Of the LUTs and the block RAM of the columns that the lanes take."""

DEEP = 8
"""Blocks of a bank of single words up to which the placer finds their places."""

PAGES = r"bank_(\w+)\.page_(\d+)"
"""How blocks of single words are called where they are several, and which they are."""

ROW_COST = 0.5
"""What a row of distance is worth, in columns."""

LUTS = {"LUT4": 1, "CCU2C": 2}
"""LUTs that a cell of a netlist takes."""


@dataclass(frozen=True)
class Die:
    """LUTs, and sites of multipliers and block RAM: in groups of four along rows; ``groups``: their first columns.

    From what nextpnr does with a netlist that takes all of them; Lattice FPGA-DS-02012 has their numbers.
    """

    luts: int
    groups: tuple[int, ...]
    multiplier_rows: tuple[int, ...]
    memory_rows: tuple[int, ...]

    def multipliers(self, row: int) -> dict[Place, str]:
        """Names of a row's sites, from left to right."""
        offsets = {0: 0, 1: 1, 4: 4, 5: 5}  # two blocks of 18 bits, then two of the slice beside it
        return {(x + o, row): f"X{x + o}/Y{row}/MULT18_{z}" for x in self.groups for o, z in offsets.items()}

    def memories(self) -> dict[Place, str]:
        """Names of all sites, from left to right."""
        columns = [(x + 2 * z, z) for x in self.groups for z in range(4)]
        return {(x, row): f"X{x}/Y{row}/EBR{z}" for x, z in columns for row in self.memory_rows}


_25, _45 = (4, 13, 22, 33, 42, 51, 60), (4, 13, 22, 31, 42, 51, 60, 69, 78)
_85 = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
_DIE_25 = Die(24_288, _25, (13,), (25, 37))
DIES: Mapping[str, Die] = {
    "12": _DIE_25,
    "25": _DIE_25,
    "45": Die(43_848, _45, (22, 46), (10, 34, 58)),
    "85": Die(83_640, _85, (10, 34, 58), (22, 46, 70, 82)),
}
"""By the number in a device's name."""


def floorplan(netlist: bytes, chip: str) -> bytes:
    """``netlist`` (JSON of Yosys, of the module ``top``) with sites for its lanes and rows on ``chip``, such as
    ``LFE5U-25F``; as it is for other chips, or where lanes or rows are none, or more than there are sites."""
    device = re.fullmatch(r"LFE5UM?(?:5G)?-(\d+)F", chip)
    die = DIES.get(device[1]) if device else None
    if die is None:
        return netlist
    design = json.loads(netlist)
    cells = design["modules"]["top"]["cells"]
    sites = _sites(cells, die)
    if not sites:
        return netlist
    for name, site in sites.items():
        cells[name]["attributes"]["BEL"] = site
    return json.dumps(design).encode()


def _sites(cells: Mapping[str, Any], die: Die) -> dict[str, str]:
    lanes = lanes_of(cells)
    banks = _banks(cells, r"bank_(row\w+)\.(?:block_|memory\.0\.)(\d+)")
    memories = die.memories()
    deep = _deep([names for names in _banks(cells, PAGES).values() if len(names) > DEEP], die)
    free = [place for place in memories if place not in deep.values()]
    blocks = sum(map(len, banks.values()))
    if not lanes or len(lanes) > 4 * len(die.groups) * len(die.multiplier_rows) or blocks > len(free):
        return {}  # of which place-and-route will say more

    luts = sum(LUTS.get(cell["type"], 0) for cell in cells.values())
    share = max(luts / die.luts, blocks / len(free)) / FILLED
    beside = _beside(free, die)
    rows = _rows(len(lanes), die, beside)
    at, along = [], []
    for number, (row, count) in enumerate(rows.items()):
        turn = -1 if number % 2 else 1
        at += _along(count, die, row, share)[::turn]
        along += (free if len(rows) == 1 else beside[row])[::turn]
    sites = {name: die.multipliers(place[1])[place] for name, place in zip(lanes, at, strict=True)}
    sites |= {name: memories[place] for name, place in deep.items()}
    wanted = []
    for names in banks.values():
        wanted += [((i + 0.5) * len(lanes) / len(names), name) for i, name in enumerate(names)]
    wanted.sort()
    found = _nearest([at[int(lane)] for lane, _ in wanted], along)
    return sites | {name: memories[place] for (_, name), place in zip(wanted, found, strict=True)}


def lanes_of(cells: Mapping[str, Any]) -> list[str]:
    """Names of the multipliers of a netlist's lanes, in their order."""
    return [name for _, name in sorted(numbered(cells, "MULT18X18D", r"lane_(\d+)\.multiplier\.block"))]


def numbered(cells: Mapping[str, Any], kind: str, pattern: str) -> list[tuple[tuple[Any, ...], str]]:
    """Cells of a kind whose names end in the pattern, with what its groups match: numbers as such."""
    result = []
    for name, cell in cells.items():
        match = re.search(rf"{pattern}$", name) if cell["type"] == kind else None
        if match:
            result.append((tuple(int(g) if g.isdigit() else g for g in match.groups()), name))
    return result


def _banks(cells: Mapping[str, Any], pattern: str) -> dict[str, list[str]]:
    """The blocks of each bank in their order, by a pattern of names."""
    banks: dict[str, list[str]] = {}
    for (bank, _), name in sorted(numbered(cells, "DP16KD", pattern)):
        banks.setdefault(bank, []).append(name)
    return banks


def _deep(banks: Sequence[Sequence[str]], die: Die) -> dict[str, Place]:
    """Places for blocks of banks: side by side in the last row that has so many; none, where no row has."""
    rows = {row: [place for place in die.memories() if place[1] == row] for row in reversed(die.memory_rows)}
    result: dict[str, Place] = {}
    for names in banks:
        row = next((row for row, places in rows.items() if len(places) >= len(names)), None)
        if row is not None:
            result |= dict(zip(names, rows[row], strict=False))
            del rows[row][: len(names)]
    return result


def _rows(lanes: int, die: Die, beside: Mapping[int, Sequence[Place]]) -> dict[int, int]:
    """How many of the lanes stand in which rows of multipliers: all in a middle one, or, where those are too many, in
    every row as many as its share of the block RAM ``beside`` them."""
    most = 4 * len(die.groups)
    if lanes <= most:
        return {die.multiplier_rows[len(die.multiplier_rows) // 2]: lanes}
    result = {}
    left, shares = lanes, sum(map(len, beside.values()))
    for row, near in sorted(beside.items(), key=lambda item: -len(item[1])):
        result[row] = min(most, -(-left * len(near) // shares)) if near else 0
        left, shares = left - result[row], shares - len(near)
    return dict(sorted(result.items()))


def _beside(places: Sequence[Place], die: Die) -> dict[int, list[Place]]:
    """Places of block RAM by the row of multipliers before them, or by the first."""
    result: dict[int, list[Place]] = {row: [] for row in die.multiplier_rows}
    for place in places:
        result[max((row for row in result if row < place[1]), default=die.multiplier_rows[0])].append(place)
    return result


def _along(lanes: int, die: Die, row: int, share: float) -> list[Place]:
    """Places of ``lanes`` multipliers in a row, in order, over about a ``share`` of the columns."""
    most = 4 * len(die.groups)
    pairs = -(-lanes // 2)  # of neighbours
    taken = min(most // 2, max(pairs, round(share * most / 2)))
    left = (most // 2 - taken) // 2
    sites = list(die.multipliers(row))
    chosen = [left + pair * taken // pairs for pair in range(pairs)]
    return [sites[2 * pair + one] for pair in chosen for one in range(2)][:lanes]


def _nearest(wanted: Sequence[Place], sites: Sequence[Place]) -> list[Place]:
    """A site for each place, all different; both are in order, and no two cross: the least sum of distances."""

    def distance(a: Place, b: Place) -> float:
        return abs(a[0] - b[0]) + ROW_COST * abs(a[1] - b[1])

    spare = len(sites) - len(wanted)
    # best[i][s]: the first i wanted, at sites of which s were passed over
    best = [[0.0] * (spare + 1)]
    for i, place in enumerate(wanted):
        row: list[float] = []
        for passed in range(spare + 1):
            here = best[i][passed] + distance(place, sites[i + passed])
            row.append(min(here, row[-1]) if row else here)
        best.append(row)
    result = []
    passed = spare
    for i in range(len(wanted), 0, -1):
        while passed and best[i][passed] == best[i][passed - 1]:
            passed -= 1
        result.append(sites[i - 1 + passed])
    return result[::-1]
