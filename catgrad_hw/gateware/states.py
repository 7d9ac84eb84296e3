"""A state machine with a register for each state, which nothing has to be decoded from."""

from functools import reduce
from operator import or_

from amaranth.hdl import Const, Module, Signal


class States:
    """``at[name]`` is high in the state ``name``; the first of ``names`` is that after reset.

    :meth:`go` tells what leads from a state to another; of the conditions of one state, at most one holds in a cycle.
    After the last of them comes :meth:`build`.
    """

    def __init__(self, *names):
        self.names = names
        self.at = {name: Signal(name=f"at_{name.lower()}", init=name == names[0]) for name in names}
        self.leaves, self.enters = ({name: [] for name in names} for _ in range(2))

    def go(self, source, target, when=None):
        """From ``source`` to ``target`` where ``when`` holds, or at once."""
        self.leaves[source].append(Const(1) if when is None else when)
        self.enters[target].append(self.at[source] if when is None else self.at[source] & when)

    def among(self, *names):
        """Whether the state is one of ``names``."""
        return reduce(or_, (self.at[name] for name in names))

    def build(self, m: Module):
        for name, state in self.at.items():
            stays = state & ~reduce(or_, self.leaves[name], Const(0))
            m.d.sync += state.eq(reduce(or_, self.enters[name], stays))
