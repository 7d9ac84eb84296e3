"""What enables or resets much of a large ECP5 goes over a network of its clocks.

A net of thousands of enables crosses the whole chip, and the router joins each of them to what it has joined so far:
the last is a long way behind the first. The networks that spread clocks reach all flip-flops alike, and take nothing of
what other nets are routed with (Lattice FPGA-TN-02200: primary clocks, also for controls of high fan-out). nextpnr has
only clocks use them, but follows a buffer that is in the netlist. The way into a network, and through it, takes some
nanoseconds: this is for designs whose cycles are long.
"""

from __future__ import annotations

import json
from typing import Any

from catgrad_hw.boards.netlist import CONTROLS, Nets

MANY = 500
"""Connections from which on a net takes a network."""

NETWORKS = 7
"""Eight reach controls, one of them for the core's clock."""


def on_networks(netlist: bytes) -> bytes:
    """``netlist`` (JSON of Yosys for an ECP5, of the module ``top``) with a buffer for what enables or resets at least
    ``MANY`` flip-flops; for the ``NETWORKS`` largest of these."""
    design = json.loads(netlist)
    nets = Nets(design["modules"]["top"])
    driven = ((bit, pins) for bit, pins in nets.sinks.items() if bit in nets.driver)  # by cells
    controls = {bit: [pin for pin in pins if pin[1] in CONTROLS] for bit, pins in driven}
    large = sorted((bit for bit, pins in controls.items() if len(pins) >= MANY), key=lambda bit: -len(controls[bit]))
    for bit in large[:NETWORKS]:
        buffer: dict[str, Any] = {
            "hide_name": 1,
            "type": "DCCA",
            "parameters": {},
            "attributes": {},
            "port_directions": {"CLKI": "input", "CE": "input", "CLKO": "output"},
            "connections": {"CLKI": [bit], "CE": ["1"]},
        }
        nets.move(controls[bit], bit, nets.add(f"{nets.driver[bit]}$network", buffer, "CLKO"))
    return json.dumps(design).encode()
