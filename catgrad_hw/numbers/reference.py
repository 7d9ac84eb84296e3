"""The integer reference: integer kernels in NumPy. It defines the bits that hardware must reproduce.

Each kernel becomes index arrays and a straight line of array operations once, before the first step. Sums run in
float64 (BLAS) where their widths prove that every partial sum is an integer below 2**53, and in int64 otherwise;
both are exact, so the order of summation has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catgrad_hw.errors import DataError, IllTypedError, UnsupportedError
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Constant,
    Expression,
    Kernel,
    Lookup,
    Loop,
    Position,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
)
from catgrad_hw.numbers.calibrate import batches
from catgrad_hw.numbers.formats import to_values, to_words
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.intervals import Interval, of_expression, word_intervals
from catgrad_hw.numbers.rounding import (
    Words,
    draw,
    limits,
    round_nearest,
    round_stochastic,
    saturate,
    step_key,
)
from catgrad_hw.numbers.units import apply

EXACT_FLOAT = 2**53


class Reference:
    """The state of a machine that runs ``program``: parameters, saturation counts, seed and step number.

    Data are given as floats, which are rounded to the formats of their arrays, or as integers, which are words.
    """

    def __init__(self, program: IntegerProgram, seed: int = 0) -> None:
        self.program = program
        self.seed = seed
        self.step_number = 0
        arrays = program.kernels.arrays
        self._memory = {name: np.zeros(prod(array.shape), np.int64) for name, array in arrays.items()}
        self.saturations: dict[str, int] = dict.fromkeys(program.counters, 0)
        intervals = word_intervals(program.kernels, program.formats, program.functions)
        self._programs = {
            name: [_Executable(kernel, program, intervals) for kernel in kernels]
            for name, kernels in program.kernels.programs.items()
        }

    @property
    def key(self) -> int:
        """The key of the next step's draws: 32 bits."""
        return step_key(self.seed, self.step_number)

    def load(self, parameters: Sequence[ArrayLike]) -> None:
        """Set all parameters, in order; the optimizer's state, the last of them, becomes zeros where it is left out."""
        names, states = self.program.kernels.parameters, self.program.kernels.states
        if len(parameters) not in (len(names), len(names) - len(states)):
            raise IllTypedError(f"load: expected {len(names)} parameters, found {len(parameters)}")
        for name in states:
            self._memory[name][:] = 0
        for name, values in zip(names, parameters, strict=False):
            self._put(name, values)

    def step(self, *data: ArrayLike) -> None:
        """One training step on a batch: inputs, then targets."""
        kernels = self.program.kernels
        self._run("step", dict(zip((*kernels.inputs, *kernels.targets), data, strict=True)), kernels.batch)
        self.step_number += 1

    def predict(self, x: ArrayLike) -> Words:
        """The words that the model predicts for any number of samples.

        The last batch is filled with zeros, which count no saturation.
        """
        kernels = self.program.kernels
        output = kernels.outputs[0]
        words = self.words_of(kernels.inputs[0], x)
        parts = []
        for rows, valid in batches(words, kernels.batch):
            self._run("predict", {kernels.inputs[0]: rows}, valid)
            parts.append(self._get(output)[:valid])
        return np.concatenate(parts)

    def words(self) -> dict[str, Words]:
        """All arrays as they are now, in their shapes."""
        return {name: self._get(name) for name in self._memory}

    def parameter_words(self) -> tuple[Words, ...]:
        """The parameters, in order."""
        return tuple(self._get(name) for name in self.program.kernels.parameters)

    def parameters(self) -> tuple[NDArray[np.float64], ...]:
        """What the parameters' words stand for, in order."""
        return tuple(to_values(self._get(name), self.program.formats[name]) for name in self.program.kernels.parameters)

    def words_of(self, name: str, values: ArrayLike) -> Words:
        """``values`` as words of the array ``name``: floats rounded and saturated, integers taken as they are."""
        array = np.asarray(values)
        form = self.program.formats[name]
        if array.dtype.kind == "f":
            if not np.isfinite(array).all():
                raise DataError(f"array {name}: expected finite values, found NaN or infinity")
            return to_words(array, form)
        low, high = limits(form.width)
        if array.dtype.kind not in "iu" or (array.size and (array.min() < low or array.max() > high)):
            raise DataError(f"array {name}: expected floats or words of {form.width} bits, found {array.dtype} beyond")
        return array.astype(np.int64)

    def _get(self, name: str) -> Words:
        return self._memory[name].reshape(self.program.kernels.arrays[name].shape).copy()

    def _put(self, name: str, values: ArrayLike) -> None:
        words = self.words_of(name, values)
        shape = self.program.kernels.arrays[name].shape
        if words.shape != shape:
            raise IllTypedError(f"array {name}: expected shape {shape}, found {words.shape}")
        self._memory[name][:] = words.ravel()

    def _run(self, name: str, data: Mapping[str, ArrayLike], valid: int) -> None:
        for array, values in data.items():
            self._put(array, values)
        key = self.key
        for executable in self._programs[name]:
            executable.run(self._memory, key, valid, self.saturations)


class _Executable:
    """A kernel made ready: reads become index arrays, expressions a list of operations on numbered slots."""

    def __init__(self, kernel: Kernel, program: IntegerProgram, intervals: Mapping[str, Interval]) -> None:
        self.kernel, self.program, self.intervals = kernel, program, intervals
        kept = kernel.loops[: len(kernel.loops) - kernel.reduced]
        self.loops = kept
        self.reduce = self._reduction()
        main = _Tape(self, kept)
        self.writes = [
            (write.access.array, main.compile(write.value), _addresses(write.access.offset, write.access.strides, kept))
            for write in kernel.writes
        ]
        self.main = main
        self.sides = []
        for side in kernel.side_sums:
            axes = tuple(i for i, loop in enumerate(kept) if loop.name in side.over)
            # Loops that were summed stay as loops of length 1, so that all arrays keep their axes.
            rest = tuple(Loop(loop.name, 1, loop.batch) if i in axes else loop for i, loop in enumerate(kept))
            tape = _Tape(self, rest)
            slot = tape.compile(side.value)
            place = _addresses(side.access.offset, side.access.strides, rest)
            self.sides.append((side.source, axes, tape, side.access.array, slot, place))

    def run(self, memory: dict[str, Words], key: int, valid: int, counts: dict[str, int]) -> None:
        shape = tuple(loop.size for loop in self.loops)
        slots = self.main.run(memory, np.broadcast_to(self.reduce(memory), shape), key, valid, counts)
        # Every side sum reads what is stored, and every expression what was there before: so compute, then store.
        stored = [np.broadcast_to(slots[slot], shape) for _, slot, _ in self.writes]
        for source, axes, tape, array, slot, index in self.sides:
            total = stored[source].sum(axis=axes, keepdims=True)
            result = tape.run(memory, total, key, valid, counts)[slot]
            memory[array][index] = np.broadcast_to(result, index.shape)
        for (array, _, index), words in zip(self.writes, stored, strict=True):
            memory[array][index] = words

    def _reduction(self) -> Callable[[dict[str, Words]], Words]:
        """The function that gives the reduced value over the loops that are kept."""
        kernel = self.kernel
        if kernel.reduction is None:
            tape = _Tape(self, kernel.loops)
            slot = tape.compile(kernel.body)
            return lambda memory: tape.run(memory, None, 0, 0, {})[slot]
        match kernel.body:
            case Apply("multiply", (left, right)):
                return self._contraction(left, right)
        axes = tuple(range(len(self.loops), len(kernel.loops)))
        tape = _Tape(self, kernel.loops)
        slot = tape.compile(kernel.body)
        shape = tuple(loop.size for loop in kernel.loops)

        def reduce(memory: dict[str, Words]) -> Words:
            values = np.broadcast_to(tape.run(memory, None, 0, 0, {})[slot], shape)
            match kernel.reduction:
                case "max":
                    return np.asarray(values.max(axis=axes))
                case "argmax":  # the first, in the order of the loops
                    return np.asarray(values.reshape(*shape[: len(self.loops)], -1).argmax(axis=-1))
            return np.asarray(values.sum(axis=axes))

        return reduce

    def _contraction(self, left: Expression, right: Expression) -> Callable[[dict[str, Words]], Words]:
        """A sum of products as a batch of matrix products: (both, left, reduced) @ (both, reduced, right)."""
        loops, kept = self.kernel.loops, len(self.loops)

        def used(expression: Expression) -> set[int]:
            return {i for strides in _only_read(expression) for i, stride in enumerate(strides) if stride}

        in_left, in_right = used(left), used(right)
        both = [i for i in range(kept) if i in in_left and i in in_right]
        rows = [i for i in range(kept) if i not in in_right]
        columns = [i for i in range(kept) if i not in in_left and i in in_right]
        reduced = list(range(kept, len(loops)))

        def operand(expression: Expression, order: list[int]) -> tuple[_Tape, int]:
            tape = _Tape(self, tuple(loops[i] for i in order), order)
            return tape, tape.compile(expression)

        left_tape, left_slot = operand(left, [*both, *rows, *reduced])
        right_tape, right_slot = operand(right, [*both, *reduced, *columns])

        def size(group: list[int]) -> int:
            return prod(loops[i].size for i in group)

        def full(group: list[int]) -> list[int]:
            return [loops[i].size for i in group]

        left_full, right_full = full([*both, *rows, *reduced]), full([*both, *reduced, *columns])
        left_shape = (size(both), size(rows), size(reduced))
        right_shape = (size(both), size(reduced), size(columns))
        order = [*both, *rows, *columns]
        back = [order.index(i) for i in range(kept)]
        shape = full(order)
        bound = size(reduced)
        for expression in (left, right):
            bound *= of_expression(expression, self.intervals, self.program.functions).largest
        number = np.float64 if bound < EXACT_FLOAT else np.int64

        def contract(memory: dict[str, Words]) -> Words:
            a = left_tape.run(memory, None, 0, 0, {})[left_slot]
            b = right_tape.run(memory, None, 0, 0, {})[right_slot]
            a = np.broadcast_to(a, left_full).astype(number).reshape(left_shape)
            b = np.broadcast_to(b, right_full).astype(number).reshape(right_shape)
            product: Words = np.matmul(a, b).astype(np.int64)
            return product.reshape(shape).transpose(back)

        return contract


class _Tape:
    """Expressions over some loops of a kernel as operations in order; equal subexpressions are computed once."""

    def __init__(self, executable: _Executable, loops: Sequence[Loop], positions: Sequence[int] | None = None) -> None:
        self.kernel, self.functions = executable.kernel, executable.program.functions
        self.loops = tuple(loops)
        self.positions = positions
        self.known: dict[Expression, int] = {}
        self.operations: list[Callable[[_Run], Any]] = []
        batch = [i for i, loop in enumerate(self.loops) if loop.batch and loop.size > 1]
        self.batch_axis = batch[0] if batch else None

    def compile(self, expression: Expression) -> int:
        """The slot that holds the expression's values after :meth:`run`."""
        if expression not in self.known:
            operation = self._operation(expression)
            self.known[expression] = len(self.operations)
            self.operations.append(operation)
        return self.known[expression]

    def run(
        self, memory: dict[str, Words], reduced: Words | None, key: int, valid: int, counts: dict[str, int]
    ) -> list[Any]:
        state = _Run(memory, reduced, key, valid, counts)
        for operation in self.operations:
            state.slots.append(operation(state))
        return state.slots

    def _operation(self, expression: Expression) -> Callable[[_Run], Any]:
        match expression:
            case Read(access):
                name, index = access.array, self._indices(access)
                if access.bounds:
                    inside = self._inside(access)
                    index = np.where(inside, index, 0)
                    return lambda run: np.where(inside, run.memory[name][index], 0)
                return lambda run: run.memory[name][index]
            case Constant(value):
                word = int(value)
                return lambda run: np.int64(word)
            case Reduced():
                return lambda run: run.reduced
            case Shift(argument, amount):
                a = self.compile(argument)
                return lambda run: run.slots[a] << amount
            case Round(argument, shift, None):
                a = self.compile(argument)
                return lambda run: round_nearest(run.slots[a], shift)
            case Round(argument, shift, access) if access is not None:
                a = self.compile(argument)
                index = self._indices(access)
                return lambda run: round_stochastic(run.slots[a], shift, draw(run.key, index))
            case Saturate(argument, width, counter):
                return self._saturate(self.compile(argument), width, counter)
            case Lookup(table, argument):
                a, looked_up = self.compile(argument), self.functions[table]
                return lambda run: apply(looked_up, run.slots[a])
            case Apply("select", (condition, left, right)):
                c, a, b = self.compile(condition), self.compile(left), self.compile(right)
                return lambda run: np.where(run.slots[c] > 0, run.slots[a], run.slots[b])
            case Apply("equal", (left, right)):
                a, b = self.compile(left), self.compile(right)
                return lambda run: (run.slots[a] == run.slots[b]).astype(np.int64)
            case Position(offset, strides):
                place = _addresses(offset, strides, self.loops, self.positions)
                return lambda run: place
            case Apply(operation, (left, right)) if operation in _ARITHMETIC:
                function, a, b = _ARITHMETIC[operation], self.compile(left), self.compile(right)
                return lambda run: function(run.slots[a], run.slots[b])
        raise UnsupportedError(f"kernel {self.kernel.name}: the integer reference has no {expression}")

    def _indices(self, access: Access) -> Words:
        return _addresses(access.offset, access.strides, self.loops, self.positions)

    def _inside(self, access: Access) -> NDArray[np.bool_]:
        """Where an access keeps its bounds."""
        inside = np.ones((1,) * len(self.loops), bool)
        for bound in access.bounds:
            index = _addresses(bound.offset, bound.strides, self.loops, self.positions)
            inside = inside & (index >= 0) & (index < bound.size)
        return inside

    def _saturate(self, a: int, width: int, counter: str | None) -> Callable[[_Run], Any]:
        if counter is None:
            return lambda run: saturate(run.slots[a], width)
        batch_axis = self.batch_axis
        full = tuple(loop.size for loop in self.loops)

        def counted(run: _Run) -> Words:
            value = run.slots[a]
            result = saturate(value, width)
            clamped = result != value
            if clamped.any():
                clamped = np.broadcast_to(clamped, full)
                if batch_axis is not None:
                    clamped = clamped.take(range(run.valid), axis=batch_axis)
                run.counts[counter] += int(np.count_nonzero(clamped))
            return result

        return counted


class _Run:
    """What the operations of a tape work on."""

    __slots__ = ("counts", "key", "memory", "reduced", "slots", "valid")

    def __init__(
        self, memory: dict[str, Words], reduced: Words | None, key: int, valid: int, counts: dict[str, int]
    ) -> None:
        self.memory, self.reduced, self.key, self.valid, self.counts = memory, reduced, key, valid, counts
        self.slots: list[Any] = []


_ARITHMETIC: dict[str, Callable[[Words, Words], Words]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
}


def _addresses(
    offset: int, strides: Sequence[int], over: Sequence[Loop], positions: Sequence[int] | None = None
) -> Words:
    """``offset + sum(stride * index)`` over the loops ``over``, an axis each, of length 1 where it doesn't vary.

    ``positions`` are those of ``over`` among the loops that have strides; by default the first ones.
    """
    positions = range(len(over)) if positions is None else positions
    index = np.full((1,) * len(over), offset, np.int64)
    for axis, (loop, position) in enumerate(zip(over, positions, strict=True)):
        stride = strides[position]
        if stride and loop.size > 1:
            shape = [1] * len(over)
            shape[axis] = loop.size
            index = index + stride * np.arange(loop.size, dtype=np.int64).reshape(shape)
    return index


def _only_read(expression: Expression) -> list[tuple[int, ...]]:
    """The strides of the one read in an operand and of its bounds; none for a constant."""
    match expression:
        case Read(access):
            return [access.strides, *(bound.strides for bound in access.bounds)]
        case Shift(argument) | Round(argument) | Saturate(argument):
            return _only_read(argument)
    return []
