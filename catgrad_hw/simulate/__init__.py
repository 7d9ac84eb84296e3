"""Simulation of the core: tools, the host's side of the core's ports, and the simulators."""
