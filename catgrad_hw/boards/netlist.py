"""What changes of a netlist (JSON of Yosys, for an ECP5) have in common: what drives a net, and what it drives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CONTROLS = {"CE", "LSR"}
"""Ports of flip-flops that those of a tile share: with several nets for them, fewer fit together, or can be routed."""

Pin = tuple[str, str, int]
"""A cell, its port, and the bit of this."""


def inputs(cell: Mapping[str, Any]) -> Iterator[int]:
    """The nets of a cell's inputs, constants left out."""
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] == "input":
            yield from (bit for bit in bits if isinstance(bit, int))


class Nets:
    """The nets of a module, by their numbers."""

    def __init__(self, module: dict[str, Any]) -> None:
        self.module = module
        self.cells: dict[str, Any] = module["cells"]
        self.driver: dict[int, str] = {}
        self.sinks: dict[int, list[Pin]] = defaultdict(list)
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                for index, bit in enumerate(bits):
                    if isinstance(bit, int):
                        if cell["port_directions"][port] == "output":
                            self.driver[bit] = name
                        else:
                            self.sinks[bit].append((name, port, index))
        self.next = 1 + max(self.driver)

    def add(self, name: str, cell: dict[str, Any], output: str) -> int:
        """A new net, which drives nothing yet, from the ``output`` of a new ``cell``, whose name begins with ``name``.
        Nets and cells share no names: Yosys, which reads what nextpnr writes, has one space of names for both."""
        new = self.next
        self.next += 1
        name = f"{name}{new}"
        cell["connections"][output] = [new]
        self.cells[name] = cell
        self.module["netnames"][f"{name}_{output}"] = {"hide_name": 1, "bits": [new], "attributes": {}}
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
            self.cells[sink]["connections"][port][index] = new
        self.sinks[bit] = [pin for pin in self.sinks[bit] if pin not in moved]
        self.sinks[new] += sinks
