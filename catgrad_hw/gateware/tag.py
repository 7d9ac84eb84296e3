"""The tag that travels down the pipeline beside each iteration, and small helpers shared by the components."""

from functools import reduce
from operator import or_

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from catgrad_hw.schedule.program import Program

GROUP = 8
"""Words side by side, of which one is picked before one of the groups is, so that the wires of the others end there."""
WITHIN = (GROUP - 1).bit_length()
"""Low bits of an index that count within its group."""


def bits_for(count):
    """Bits of an index below ``count``; at least one, so that every index is a signal."""
    return max(count - 1, 1).bit_length()


class TagLayout(data.StructLayout):
    """What a stage must know of the iteration in it.

    ``level``: the loop level that advanced to reach this iteration (0 is the innermost; ``start`` marks the first
    iteration of the kernel); ``row_level`` and ``sum_level``: the same since the previous output of the lanes, and of
    the tree. ``first``/``last`` delimit a reduction in the lanes, ``sum_first``/``sum_last`` one in the tree.
    ``edge``: which lanes of the row mean something, see ``Edge``. ``slot`` of the data set; whether the tile is the
    batch's first or last.
    """

    def __init__(self, program: Program):
        self.start = max(kernel.levels for kernel in program.kernels)
        level = self.start.bit_length()
        super().__init__(
            {
                "valid": 1,
                "first": 1,
                "last": 1,
                "sum_first": 1,
                "sum_last": 1,
                "edge": 2,
                "level": level,
                "row_level": level,
                "sum_level": level,
                "kernel": bits_for(len(program.kernels)),
                "slot": bits_for(program.slots),
                "first_tile": 1,
                "last_tile": 1,
            }
        )


class Edge:
    """Codes of ``edge``: all lanes hold elements, the first few do (:func:`partial_lanes`), or none does."""

    FULL = 0
    PARTIAL = 1
    EMPTY = 2


def partial_lanes(program: Program, kernel) -> int:
    """Lanes that hold elements in the last row of a kernel's lane loop, if not all do; else 0."""
    if kernel.lane_level is None:
        return 1 % program.lanes
    length = program.tail if kernel.lane_level == kernel.batch_level else kernel.lane_length
    return length % program.lanes


class Delayed:
    """A signal and its delayed copies: ``d[n]`` is the signal ``n`` cycles later, built when first asked for."""

    def __init__(self, m: Module, signal, name: str, reset_less=False):
        self.m, self.name, self.reset_less = m, name, reset_less
        self.stages = [signal]

    def __getitem__(self, cycles: int):
        while len(self.stages) <= cycles:
            previous = self.stages[-1]
            stage = Signal.like(previous, name=f"{self.name}_{len(self.stages)}", reset_less=self.reset_less)
            self.m.d.sync += stage.eq(previous)
            self.stages.append(stage)
        return self.stages[cycles]


def counts(m: Module, program: Program, tag, kernels, name: str, delay: int):
    """Whether what is clamped in ``tag``'s kernel, of ``kernels``, counts, for use ``delay`` cycles later.

    What every tile makes alike, for it has nothing to do with samples, does in the last tile alone.
    """
    number, repeated = 0, []
    for routine in program.routines:
        last = number + len(routine.tile.kernels)
        repeated += [i for i in range(number, last) if i in kernels and program.kernels[i].batch_level is None]
        number = last + len(routine.final.kernels)
    if program.tiles == 1 or not repeated:
        return Const(1)
    return Delayed(m, ~member(m, tag.kernel, repeated, f"{name}_repeats") | tag.last_tile, name, reset_less=True)[delay]


def table(m: Module, index: Value, values: dict, shape, name: str):
    """A constant for each index, as logic: ``values`` maps indices to integers; others are don't-cares."""
    distinct = sorted(set(values.values()))
    if len(distinct) == 1:
        return Const(distinct[0], shape)
    result = Signal(shape, name=name)
    common = max(distinct, key=list(values.values()).count)
    m.d.comb += result.eq(common)
    with m.Switch(index):
        for value in distinct:
            if value != common:
                with m.Case(*(key for key, found in values.items() if found == value)):
                    m.d.comb += result.eq(value)
    return result


def member(m: Module, index: Value, members, name: str):
    """Whether ``index`` is one of ``members``."""
    members = sorted(members)
    if not members:
        return Const(0)
    result = Signal(name=name)
    with m.Switch(index):
        with m.Case(*members):
            m.d.comb += result.eq(1)
    return result


class Choice:
    """Which of a few values each kernel uses, decoded ahead of time: from ``kernel``, for use ``delay`` cycles later.

    ``values`` maps kernel indices to what is chosen between; others are don't-cares. Where ``load`` is given, the
    choice of the cycles in which it is high is kept, and in use from the next cycle on.
    """

    def __init__(self, m: Module, kernel: Value, values: dict, name: str, delay=1, load=None):
        self.values = sorted(set(values.values()))
        self.chosen = []
        # One of two is told by a bit, one of more by a bit each.
        for index, value in enumerate(self.values):
            if len(self.values) > 2 or (len(self.values) == 2 and index == 1):
                users = [key for key, found in values.items() if found == value]
                chosen = member(m, kernel, users, f"{name}_{index}")
                if load is not None:
                    kept = Signal(name=f"{name}_{index}_kept", reset_less=True)
                    with m.If(load):
                        m.d.sync += kept.eq(chosen)
                    chosen = kept
                else:
                    chosen = Delayed(m, chosen, f"{name}_{index}", reset_less=True)[delay]
                self.chosen.append(chosen)

    def of(self, results):
        """The one that is chosen of ``results``, a list or a function of each of ``values``."""
        if callable(results):
            results = [results(value) for value in self.values]
        if len(results) == 1:
            return results[0]
        if len(results) == 2:
            return Mux(self.chosen[0], results[1], results[0])
        return reduce(or_, (Mux(chosen, result, 0) for chosen, result in zip(self.chosen, results, strict=True)))


def fixed(value):
    """A :class:`Choice` of ``value``, whatever the kernel."""
    return Choice(None, None, {0: value}, "fixed")


def choose(values, index: Value):
    """``values[index]``; no logic for a single value."""
    values = list(values)
    return values[0] if len(values) == 1 else Array(values)[index]


def of_groups(m: Module, values, index: Value, name: str, enable=1):
    """Of each ``GROUP`` of ``values``, the one that ``index`` picks, in a register that takes it where ``enable`` is
    high: ``choose`` with ``index[WITHIN:]``, a cycle later, picks one of them."""
    groups = [values[i : i + GROUP] for i in range(0, len(values), GROUP)]
    picked = [Signal.like(group[0], name=f"{name}_group_{i}", reset_less=True) for i, group in enumerate(groups)]
    with m.If(enable):
        m.d.sync += [register.eq(choose(group, index[:WITHIN])) for register, group in zip(picked, groups, strict=True)]
    return picked
