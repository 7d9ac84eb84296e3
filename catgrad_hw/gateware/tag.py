"""The tag that travels down the pipeline beside each iteration, and small helpers shared by the components."""

from amaranth.hdl import Array, Const, Module, Signal, Value
from amaranth.lib import data

from catgrad_hw.schedule.program import Program


def bits_for(count):
    """Bits of an index below ``count``; at least one, so that every index is a signal."""
    return max(count - 1, 1).bit_length()


class TagLayout(data.StructLayout):
    """What a stage must know of the iteration in it.

    ``level``: the loop level that advanced to reach this iteration (0 is the innermost; ``start`` marks the first
    iteration of the kernel); ``row_level`` and ``sum_level``: the same since the previous output of the lanes, and of
    the tree. ``first``/``last`` delimit a reduction in the lanes, ``sum_first``/``sum_last`` one in the tree.
    ``edge``: which lanes of the row mean something, see ``Edge``. ``slot`` of the data set and ``tile`` of the batch.
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
                "tile": bits_for(program.tiles),
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

    def __init__(self, m: Module, signal, name: str):
        self.m, self.name = m, name
        self.stages = [signal]

    def __getitem__(self, cycles: int):
        while len(self.stages) <= cycles:
            previous = self.stages[-1]
            stage = Signal.like(previous, name=f"{self.name}_{len(self.stages)}")
            self.m.d.sync += stage.eq(previous)
            self.stages.append(stage)
        return self.stages[cycles]


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


def choose(values, index: Value):
    """``values[index]``; no logic for a single value."""
    values = list(values)
    return values[0] if len(values) == 1 else Array(values)[index]
