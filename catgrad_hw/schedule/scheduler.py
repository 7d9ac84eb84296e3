"""The scheduler: the tile, the packing, the slow path's width, the layout, and the start cycle of every kernel.

Kernels issue in order, one iteration a cycle. Each starts at the earliest cycle at which every read follows the
writes that it needs, no write overtakes a read or a write, and no port or unit is used twice in a cycle; so a kernel
overlaps the pipelines of its predecessors as far as its data allow. The result is checked by
:mod:`catgrad_hw.schedule.check`, which knows nothing of how it was found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

import numpy as np

from catgrad_hw.errors import CapacityError, UnsupportedError
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.schedule.events import partial_name
from catgrad_hw.schedule.form import Form, forms
from catgrad_hw.schedule.layout import place
from catgrad_hw.schedule.memory import block_rams
from catgrad_hw.schedule.packing import Packing, pack
from catgrad_hw.schedule.program import Bank, BankKind, Combination, MachineKernel, Placement, Program
from catgrad_hw.schedule.select import Selection, fewer_shifts, select
from catgrad_hw.schedule.timeline import routine
from catgrad_hw.schedule.timing import TABLE_STAGES, UNIT_STAGES, Timing

MAX_LANES = 128
RESIDENT_BITS = 1 << 20
"""A data set of at most this many bits stays on chip."""
SLOW_WORD_COST = 0.0005
"""Cycles, as a share of the step's, that are worth paying to treat a word less at a time in the slow path."""
UNIT_COST = 0.001
"""The same for each function unit, which every word has one of."""
TILE_OVERHEAD = 30
"""About the cycles that a tile costs beyond its iterations; to rank tiles before they are scheduled."""
SCHEDULED = 4
"""How many of the most promising drafts are scheduled when memory is bounded."""


@dataclass(frozen=True)
class Draft:
    """A program without its routines, the kernels that they will have, and about how long a step will take."""

    program: Program
    selections: Mapping[str, Selection]
    cycles: int

    def scheduled(self) -> Program:
        """The program, with every kernel's start."""
        # ``step`` first: a step's start is the start of the first kernel.
        names = sorted(self.selections, key=lambda name: name != "step")
        routines = tuple(routine(self.program, name, self.selections[name]) for name in names)
        return replace(self.program, routines=routines)


def schedule(
    program: IntegerProgram,
    lanes: int,
    *,
    tile: int | None = None,
    memory: float | None = None,
    samples: int | None = None,
    slow_words: int | None = None,
    bank_kinds: Mapping[str, BankKind] | None = None,
    lut_words: Mapping[str, int] | None = None,
    block: BankKind = "block",
    narrow: bool = False,
    full_path: bool = True,
    deepest: int | None = None,
) -> Program:
    """Schedule ``program`` for ``lanes`` lanes.

    ``tile``: samples per tile; a multiple of ``lanes`` unless it is the batch (the default, or what ``memory`` asks
    for). ``memory``: kbit of block RAM for everything but the data set; tile and packing are then chosen to fit.
    ``samples``: size of the data set, which stays on chip if it is a multiple of the batch and fits in
    ``RESIDENT_BITS``. ``slow_words``: E, words per cycle of the slow path, at most (default: what best repays its
    words in cycles). ``bank_kinds``: kinds of banks by name, where ``block`` isn't wanted: ``block`` or ``late``, for
    all banks but that of partial sums, whose words are added as they come. ``lut_words``: of banks by name, how many
    words of a row LUT RAM is to hold; cycles do not depend on it. For fewer LUTs and more cycles: ``narrow``,
    parameters and gradients are single words, as they are also where that saves memory that is bounded; and without
    ``full_path``, rows of plain results take the slow path, wherever that can make them.
    ``deepest``: rows up to which arrays share a bank of rows: those of a block RAM, so that no multiplexer follows it.

    Raises:
        CapacityError: a number of lanes, a tile, a width, the memory or words for LUT RAM are out of range, or a bank
            that is named does not exist.
        UnsupportedError: a kernel has no hardware, or there are no parameters to train, or none that changes.
    """
    batch = program.kernels.batch
    if not program.kernels.parameters:
        raise UnsupportedError("hardware: expected parameters to train, found none; add a layer that has some")
    idle = [name for name, kernels in program.kernels.programs.items() if not kernels]
    if idle:
        raise UnsupportedError(
            f"hardware: expected kernels in {' and '.join(idle)}, found none, so that no parameter ever changes; raise "
            "the learning rate, or let parameters reach the output"
        )
    if not 1 <= lanes <= MAX_LANES:
        raise CapacityError(f"lanes: expected 1 to {MAX_LANES}, found {lanes}; choose --lanes in that range")
    if tile is not None and (not 1 <= tile <= batch or (tile != batch and tile % lanes)):
        raise CapacityError(
            f"tile: expected the batch ({batch}) or a smaller multiple of the {lanes} lanes, found {tile}"
        )
    if slow_words is not None and not 1 <= slow_words <= lanes:
        raise CapacityError(f"slow path: expected 1 to {lanes} words per cycle, found {slow_words}")
    whole = _Whole(program)
    parsed = _parsed(whole)

    def draft(tile: int, narrow: bool) -> Draft:
        kinds = bank_kinds or {}
        found = _draft(whole, parsed, lanes, tile, narrow, samples, slow_words, kinds, block, full_path, deepest)
        banks = _with_lut_words(found.program.banks, lut_words or {})
        return replace(found, program=replace(found.program, banks=banks))

    if memory is None:
        return draft(batch if tile is None else tile, narrow).scheduled()
    if not memory > 0:  # not a number is no size, either
        raise CapacityError(f"memory: expected a positive number of kbit, found {memory:g}")
    tiles = [tile] if tile is not None else _tiles(batch, lanes)
    drafts = [draft(size, words) for size in tiles for words in {narrow, True}]
    fitting = [d for d in drafts if block_rams(d.program).kbit <= memory]
    if not fitting:
        least = min(drafts, key=lambda d: block_rams(d.program).kbit)
        needed = block_rams(least.program)
        raise CapacityError(
            f"memory: expected at least {needed.kbit:g} kbit ({needed.blocks} block RAMs, at tiles of "
            f"{least.program.tile} samples), found {memory:g}; allow more memory, or use fewer lanes"
        )
    best = sorted(fitting, key=lambda d: d.cycles)[:SCHEDULED]
    main = "step" if "step" in parsed else next(iter(parsed))
    return min((d.scheduled() for d in best), key=lambda p: p.routine(main).period)


def _tiles(batch: int, lanes: int) -> list[int]:
    """Tiles worth trying: the smallest multiple of the lanes for each number of tiles, and the whole batch."""
    sizes = {ceil(ceil(batch / count) / lanes) * lanes for count in range(2, batch + 1)}
    return [batch, *sorted((size for size in sizes if size < batch), reverse=True)]


class _Whole:
    """A program that equals itself alone, whatever is in it: what a fit tries of one program, it tries many times."""

    def __init__(self, program: IntegerProgram) -> None:
        self.program = program

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Whole) and other.program is self.program

    def __hash__(self) -> int:
        return id(self.program)


@lru_cache(maxsize=16)
def _parsed(whole: _Whole) -> dict[str, tuple[Form, ...]]:
    return forms(whole.program)


@lru_cache(maxsize=256)
def _packed(
    whole: _Whole, lanes: int, tile: int, tiles: int, narrow: bool, unpacked: tuple[str, ...], full_path: bool
) -> Packing:
    return pack(whole.program, _parsed(whole), lanes, tile, tiles, narrow, unpacked, full_path)


def _draft(
    whole: _Whole,
    parsed: Mapping[str, tuple[Form, ...]],
    lanes: int,
    tile: int,
    narrow: bool,
    samples: int | None,
    slow_words: int | None,
    bank_kinds: Mapping[str, BankKind],
    block: BankKind,
    full_path: bool,
    deepest: int | None,
) -> Draft:
    """Everything but start cycles. ``narrow``: parameters and gradients are single words, which saves memory."""
    program = whole.program
    batch = program.kernels.batch
    tiles = -(-batch // tile)
    # A single sample stays unpacked where it is only predicted, so that the first kernel can begin before it is whole.
    unpacked = program.kernels.inputs if batch == 1 and "step" not in parsed else ()
    packing = _packed(whole, lanes, tile, tiles, narrow, unpacked, full_path)
    main = "step" if "step" in packing.kernels else next(iter(packing.kernels))

    def selected(slow_words: int) -> dict[str, Selection]:
        return select(program, packing, lanes, tile, -(-lanes // slow_words))

    if slow_words is None:
        candidates = {-(-lanes // beats): None for beats in range(lanes, 0, -1)}
        costs = {words: _issue_cycles(selected(words)[main], tiles) for words in candidates}
        price = SLOW_WORD_COST + UNIT_COST * len(program.units)
        slow_words = min(costs, key=lambda words: (costs[words] * (1 + price * words), words))
    beats = -(-lanes // slow_words)
    slow_words = -(-lanes // beats)  # those that every beat but the last keeps busy
    bits = {form.name: form.accumulator for forms_ in packing.kernels.values() for form, _ in forms_}
    selections = fewer_shifts(selected(slow_words), bits, program.multiplier)
    ordered = {name: (*s.tile, *s.final) for name, s in selections.items()}
    kernels = [k for group in ordered.values() for k in group]

    width = sum(
        program.formats[name].width * int(np.prod(program.kernels.arrays[name].shape)) // batch
        for name in (*program.kernels.inputs, *program.kernels.targets)
    )
    resident = samples is not None and samples % batch == 0 and samples * width <= RESIDENT_BITS
    slots = tiles * samples // batch if resident and samples is not None else 2
    data = {*program.kernels.inputs, *program.kernels.targets}
    shared = not resident and "step" in parsed and not data & bank_kinds.keys()
    banks, placements = place(
        program, packing.axes, ordered, lanes, tile, tiles, slots, bank_kinds, block, shared, deepest
    )
    riding = {f.name: f.rider.accumulator for forms_ in packing.kernels.values() for f, _ in forms_ if f.rider}
    lane_bits, sum_bits = [], []
    for kernel in kernels:
        if kernel.full or (kernel.slow and kernel.slow.reduced is None):
            lane_bits.append(bits[kernel.name])
        if kernel.slow and kernel.slow.reduced is not None:
            sum_bits.append(bits[kernel.name])
        if kernel.sum:
            sum_bits.append((bits if kernel.sum.source == "product" else riding)[kernel.name])
    sum_accumulator = max(sum_bits, default=1)
    partial_bank = None
    if tiles > 1:
        partial_bank = "partial"
        _place_partial_sums(kernels, sum_accumulator, banks, placements, bank_kinds.get("partial", "block"))

    drafted = Program(
        lanes=lanes,
        slow_words=slow_words,
        batch=batch,
        tile=tile,
        multiplier=program.multiplier,
        accumulator=max(lane_bits, default=1),
        sum_accumulator=sum_accumulator,
        banks=banks,
        placements=placements,
        routines=(),
        functions=program.functions,
        timing=_timing(program, kernels, lanes),
        counters=program.counters,
        parameters=program.kernels.parameters,
        inputs=program.kernels.inputs,
        targets=program.kernels.targets,
        outputs=program.kernels.outputs,
        stochastic=program.stochastic,
        partial_bank=partial_bank,
        resident=resident,
    )
    cycles = _issue_cycles(selections[main], tiles) + tiles * TILE_OVERHEAD
    return Draft(drafted, selections, cycles)


def _with_lut_words(banks: Mapping[str, Bank], lut_words: Mapping[str, int]) -> dict[str, Bank]:
    for name, count in lut_words.items():
        if name not in banks:
            raise CapacityError(f"LUT RAM: no bank is called {name}; there are {', '.join(sorted(banks))}")
        if not 0 <= count <= banks[name].words:
            raise CapacityError(f"LUT RAM: expected 0 to {banks[name].words} words of bank {name}, found {count}")
    return {name: replace(bank, lut_words=lut_words.get(name, 0)) for name, bank in banks.items()}


def _timing(program: IntegerProgram, kernels: Sequence[MachineKernel], lanes: int) -> Timing:
    """Latencies of the paths that ``kernels`` need."""
    used = {write.function for kernel in kernels if kernel.slow for write in kernel.slow.writes}
    return Timing(
        lanes,
        UNIT_STAGES if used & program.units.keys() else TABLE_STAGES,
        int(any(kernel.full and kernel.full.combination != Combination() for kernel in kernels)),
        int(any(kernel.sum and kernel.sum.combination != Combination() for kernel in kernels)),
        int(any(write.update for kernel in kernels if kernel.full for write in kernel.full.writes)),
    )


def _issue_cycles(selection: Selection, tiles: int) -> int:
    return tiles * sum(k.cycles for k in selection.tile) + sum(k.cycles for k in selection.final)


def _place_partial_sums(
    kernels: Sequence[MachineKernel],
    width: int,
    banks: dict[str, Bank],
    placements: dict[str, Placement],
    kind: BankKind,
) -> None:
    depth = 0
    for kernel in kernels:
        if kernel.sum and kernel.sums_samples:
            target = kernel.sum.writes[0].target.array
            name = partial_name(target)
            if name not in placements:
                place = placements[target]
                count = place.elements * place.length
                placements[name] = Placement(name, "partial", depth, count, None, 1, (count,), 1, count)
                depth += count
    if depth:
        banks["partial"] = Bank("partial", 1, width, depth, kind)
