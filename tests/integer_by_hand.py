"""A second executor of integer kernels: plain Python integers, one word at a time. Slow and independent."""

from __future__ import annotations

from itertools import product
from typing import Any

from test_rounding import python_draw
from test_tables import by_definition
from test_units import unit_by_definition

from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Bound,
    Constant,
    Expression,
    Kernel,
    Lookup,
    Position,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
)
from catgrad_hw.numbers.integer import IntegerProgram


class SlowReference:
    """Runs one program on flat lists of words. ``saturations`` counts what training clamps."""

    def __init__(self, program: IntegerProgram, seed: int) -> None:
        self.program, self.seed, self.step_number = program, seed, 0
        self.memory: dict[str, dict[int, int]] = {name: {} for name in program.kernels.arrays}
        self.saturations = dict.fromkeys(program.counters, 0)
        self.valid = program.kernels.batch

    def put(self, name: str, words: Any) -> None:
        self.memory[name] = dict(enumerate(int(w) for w in words.ravel()))

    def run(self, name: str) -> None:
        for kernel in self.program.kernels.programs[name]:
            self._kernel(kernel)
        self.step_number += name == "step"

    def _kernel(self, kernel: Kernel) -> None:
        kept = len(kernel.loops) - kernel.reduced
        outer = [range(loop.size) for loop in kernel.loops[:kept]]
        inner = [range(loop.size) for loop in kernel.loops[kept:]]
        pending: list[tuple[str, int, int]] = []
        sums: dict[tuple[int, ...], int] = {}
        for index in product(*outer):
            self.seen: set[Expression] = set()
            values = [self._value(kernel, kernel.body, (*index, *rest), None) for rest in product(*inner)]
            match kernel.reduction:
                case "max":
                    total = max(values)
                case "argmax":
                    total = values.index(max(values))
                case _:
                    total = sum(values)
            stored = [
                self._value(kernel, write.value, (*index, *[0] * kernel.reduced), total) for write in kernel.writes
            ]
            for write, word in zip(kernel.writes, stored, strict=True):
                pending.append((write.access.array, self._at(write.access, index), word))
            for i, side in enumerate(kernel.side_sums):
                rest = tuple(
                    0 if loop.name in side.over else v for loop, v in zip(kernel.loops[:kept], index, strict=True)
                )
                sums[i, *rest] = sums.get((i, *rest), 0) + stored[side.source]
        for (i, *index), total in sums.items():
            self.seen = set()
            side = kernel.side_sums[i]
            word = self._value(kernel, side.value, (*index, *[0] * kernel.reduced), total)
            pending.append((side.access.array, self._at(side.access, tuple(index)), word))
        for array, address, word in pending:
            self.memory[array][address] = word

    def _at(self, access: Access | Bound | Position, index: tuple[int, ...]) -> int:
        return access.offset + sum(s * i for s, i in zip(access.strides, index, strict=False))

    def _value(self, kernel: Kernel, expression: Expression, index: tuple[int, ...], reduced: int | None) -> int:
        def of(e: Expression) -> int:
            match e:
                case Read(access):
                    for bound in access.bounds:
                        if not 0 <= self._at(bound, index) < bound.size:
                            return 0
                    return self.memory[access.array][self._at(access, index)]
                case Position():
                    return self._at(e, index)
                case Constant(value):
                    return int(value)
                case Reduced():
                    assert reduced is not None
                    return reduced
                case Shift(argument, amount):
                    return of(argument) * 2**amount
                case Round(argument, 0, _):
                    return of(argument)
                case Round(argument, shift, None):
                    return (2 * of(argument) + 2**shift) // 2 ** (shift + 1)
                case Round(argument, shift, draw):
                    assert draw is not None
                    key = (self.seed + self.step_number * 0x9E3779B1) % 2**32
                    r = python_draw(key, self._at(draw, index))
                    noise = r * 2 ** (shift - 16) if shift > 16 else r // 2 ** (16 - shift)
                    return (of(argument) + noise) // 2**shift
                case Saturate(argument, width, counter):
                    value = of(argument)
                    clamped = max(-(2 ** (width - 1)), min(value, 2 ** (width - 1) - 1))
                    sample = [i for i, loop in zip(index, kernel.loops, strict=False) if loop.batch]
                    data = not sample or sample[0] < self.valid
                    if clamped != value and counter is not None and e not in self.seen and data:
                        self.saturations[counter] += 1
                        self.seen.add(e)  # a shared subexpression counts once
                    return clamped
                case Lookup(table, argument):
                    if table in self.program.units:
                        return unit_by_definition(self.program.units[table], of(argument))
                    return by_definition(self.program.tables[table], of(argument))
                case Apply("select", (condition, a, b)):
                    left, right = of(a), of(b)  # both, since a narrowing counts whether or not it is taken
                    return left if of(condition) > 0 else right
                case Apply("equal", (a, b)):
                    return int(of(a) == of(b))
                case Apply("add", (a, b)):
                    return of(a) + of(b)
                case Apply("subtract", (a, b)):
                    return of(a) - of(b)
                case Apply("multiply", (a, b)):
                    return of(a) * of(b)
            raise AssertionError(e)

        return of(expression)
