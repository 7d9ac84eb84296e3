"""Fits a model to a board: lanes, tile, packing, and where the data set is kept.

What a design needs is counted before it is built: multipliers and block RAMs exactly
(:mod:`catgrad_hw.schedule.memory`), LUTs by a linear model, whose coefficients ``python -m benchmarks.luts`` measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

from catgrad_hw.boards.description import Board
from catgrad_hw.errors import CapacityError
from catgrad_hw.gateware.link.settings import DataSetKind, LinkSettings, stream_bits
from catgrad_hw.hardware import Hardware
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.pipeline import Progress, Quantized, quantize_workload
from catgrad_hw.numbers.tables import Table
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.memory import BLOCK, Family, block_rams, blocks
from catgrad_hw.schedule.program import Bank, BankKind, Program
from catgrad_hw.schedule.scheduler import MAX_LANES, schedule
from catgrad_hw.workload import Workload

LINK_BLOCKS = 2
"""Block RAMs of the link: a buffer each way."""

SPRAM_WORDS, SPRAM_BITS = 1 << 14, 16
"""Of one single-port RAM of the iCE40 UltraPlus."""

TRIED = 2
"""How many numbers of lanes that fit, without being lean, are compared, from the most on."""

DATA_SET_SHARE = 0.5
"""Of the block RAMs, for the data set; a larger one is streamed."""


@dataclass(frozen=True)
class LutModel:
    """LUTs of a design: ``base + (lane + full F + update + multiplier) P + kernel K + (slow + unit U) E``, for P lanes,
    a full-width path that writes F arrays at once, a slow path of E words, K kernels and U function units, plus
    ``margin`` of that, which place-and-route leaves empty. ``update`` counts where the full-width path updates rows,
    ``multiplier`` where lanes multiply in LUTs."""

    base: float
    lane: float
    full: float
    update: float
    slow: float
    kernel: float
    unit: float
    margin: float
    multiplier: float = 0.0

    @staticmethod
    def features(program: Program, soft: bool) -> tuple[int, ...]:
        """What the coefficients are of, in their order, where lanes multiply in LUTs (``soft``) or in blocks."""
        writes = max((len(kernel.full.writes) for kernel in program.kernels if kernel.full), default=0)
        updates = writes and program.timing.full_updates
        units = sum(not isinstance(function, Table) for function in program.functions.values())
        lanes, words = program.lanes, program.slow_words
        return 1, lanes, writes * lanes, updates * lanes, words, len(program.kernels), units * words, soft * lanes

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Of the features, without the margin."""
        return self.base, self.lane, self.full, self.update, self.slow, self.kernel, self.unit, self.multiplier

    def luts(self, program: Program, soft: bool) -> int:
        """LUTs of ``program``, link included."""
        total = sum(c * count for c, count in zip(self.coefficients, self.features(program, soft), strict=True))
        return round(total * (1 + self.margin))


LUTS: Mapping[Family, LutModel] = {
    "ice40": LutModel(
        base=2475, lane=175, full=205, update=335, slow=0, kernel=115, unit=575, margin=0.05, multiplier=865
    ),
    "ecp5": LutModel(base=930, lane=165, full=240, update=170, slow=0, kernel=235, unit=865, margin=0.1),
    "gowin": LutModel(base=1620, lane=340, full=270, update=250, slow=140, kernel=235, unit=525, margin=0.06),
}


LUT_RAM_ROWS, LUT_RAM_BITS, LUT_RAM_LUTS = 16, 4, 6
"""Of a cell of LUT RAM: its size, and the LUTs that it takes."""

DEEPEST = 64
"""Rows of the deepest bank that is worth LUT RAM."""

BANKS: Mapping[Family, BankKind] = {"ice40": "late", "ecp5": "block", "gowin": "late"}
"""Kinds of banks. A register after a row takes a flip-flop for each bit, from which a LUT gains nothing; without it,
the block RAM's delay comes before what picks a word: ECP5 is to be faster than that."""

LEANER: tuple[Mapping[str, Any], ...] = (
    {},
    {"narrow": True},
    {"narrow": True, "slow_words": 1},
    {"narrow": True, "slow_words": 1, "full_path": False},
)
"""Options of the scheduler, each for fewer LUTs and more cycles than the one before."""

ROOMY: Mapping[Family, float] = {"ice40": 1.0, "ecp5": 0.8, "gowin": 1.0}
"""Of the LUTs: where a design is to take more, the next leaner one is tried. An ECP5 has too few wires for all of them:
what routing then takes longer, and makes slower, is more than the cycles that are saved."""

WORTH = 1.04
"""Cycles, in relation, that are worth paying for the first of them: rows that are updated take many LUTs."""


@dataclass(frozen=True)
class Needs:
    """What a design takes, link included, or what a board has."""

    multipliers: int
    block_rams: int
    lut_rams: int
    luts: int

    def beyond(self, available: Needs) -> list[tuple[str, int, int]]:
        """What there is too little of: its name, needed, available."""
        names = {"multipliers": "multipliers", "block_rams": "block RAMs", "lut_rams": "LUT RAMs", "luts": "LUTs"}
        rows = [(title, getattr(self, name), getattr(available, name)) for name, title in names.items()]
        return [row for row in rows if row[1] > row[2]]


@dataclass(frozen=True)
class Fit:
    """A design that fits ``board``: its hardware, the memory for the data set (0 words: samples are streamed) and what
    it needs."""

    board: Board
    hardware: Hardware
    data_set_words: int
    data_set_kind: DataSetKind
    needs: Needs

    def settings(self, clock_hz: int) -> LinkSettings:
        """The link's settings at a core clock."""
        return LinkSettings(clock_hz=clock_hz, data_set_words=self.data_set_words, data_set_kind=self.data_set_kind)


def available(board: Board) -> Needs:
    """What a board's chip has. Without multiplier blocks any number of lanes may multiply in LUTs."""
    chip = board.chip
    return Needs(chip.multipliers or MAX_LANES, chip.block_rams, chip.lut_rams, chip.luts)


def fit(
    workload: Workload,
    board: Board,
    *,
    lanes: int | None = None,
    most: int = MAX_LANES,
    memory: float | None = None,
    tile: int | None = None,
    quantized: Quantized | None = None,
    progress: Progress | None = None,
) -> Fit:
    """The fastest design for ``workload`` that fits ``board``; of equally fast ones that with the fewest lanes.

    ``lanes``, or the ``most`` of them, ``memory`` (kbit of block RAM, at most) and ``tile`` (samples) may be given. The
    same arguments yield the same design, whose identity the board tells. ``quantized``: the workload in the board's
    numbers, where it is there already.

    Raises:
        CapacityError: nothing fits: what is needed, what there is, and settings that would fit.
        CatgradError: the workload has no hardware, or an argument is out of range.
    """
    if quantized is None:
        quantized = quantize_workload(workload, board.numbers, progress=progress)
    search = Search(workload, board, quantized.integer, memory, tile)
    if lanes is not None:
        found = [search.design(lanes)]
    else:
        found = []
        for count in (count for count in search.candidates() if count <= most):
            design = search.design(count)
            if not design.needs.beyond(search.have):
                found.append(design)
            if sum(not fitting.lean for fitting in found) == TRIED:
                break
        found = found or [search.design(1)]
    best = min(found, key=lambda f: (_period(f.program), f.program.lanes))
    if beyond := best.needs.beyond(search.have):
        raise CapacityError(search.too_large(best.program.lanes, beyond))
    check(best.program)
    return best.on(board, Hardware(quantized, best.program))


def _period(program: Program) -> int:
    names = [r.name for r in program.routines]
    return program.routine("step" if "step" in names else names[0]).period


@dataclass(frozen=True)
class Design:
    """A program, what it needs with its link, and the memory for the data set. ``lean``: it is slower than others of as
    many lanes, for want of LUTs."""

    program: Program
    needs: Needs
    data_set_words: int
    data_set_kind: DataSetKind
    lean: bool = False

    def on(self, board: Board, hardware: Hardware) -> Fit:
        """The same, with its hardware and its board."""
        return Fit(board, hardware, self.data_set_words, self.data_set_kind, self.needs)


class Search:
    """Designs of one workload for one board, by the number of lanes; :func:`fit` takes the best that fits."""

    def __init__(
        self, workload: Workload, board: Board, integer: IntegerProgram, memory: float | None, tile: int | None
    ) -> None:
        self.board, self.integer, self.tile = board, integer, tile
        self._scheduled: dict[str, Program] = {}
        self.samples, self.batch = len(workload.x), workload.batch_size
        self.have = available(board)
        if memory is not None:
            within = int(memory // BLOCK[board.family].kbit)
            self.have = replace(self.have, block_rams=min(self.have.block_rams, within))

    def schedule(self, lanes: int, **options: Any) -> Program:
        """The workload's schedule, with options of the scheduler; what was asked before is there already."""
        key = f"{lanes} {sorted(options.items())}"
        if key not in self._scheduled:
            self._scheduled[key] = schedule(self.integer, lanes, **options)
        return self._scheduled[key]

    def candidates(self) -> Iterator[int]:
        """Numbers of lanes worth trying, most first: those that split some extent of the model into fewer rows."""
        model = LUTS[self.board.family]
        lane = model.lane + (0 if self.board.chip.multipliers else model.multiplier)
        kernels = max(len(kernels) for kernels in self.integer.kernels.programs.values())
        luts = self.have.luts / (1 + model.margin) - model.base - model.kernel * kernels
        most = max(1, min(self.have.multipliers, MAX_LANES, int(luts / lane)))
        extents = {size for array in self.integer.kernels.arrays.values() for size in array.shape if size > 1}
        useful = {most, *(ceil(extent / rows) for extent in extents for rows in range(1, extent + 1))}
        return iter(sorted((lanes for lanes in useful if lanes <= most), reverse=True))

    def design(self, lanes: int) -> Design:
        """The fastest design of ``lanes`` lanes that fits; where none does, one that takes little."""
        roomy = ROOMY[self.board.family] * self.have.luts
        number = next((n for n in range(len(LEANER)) if self._luts(lanes, n) <= roomy), len(LEANER) - 1)
        found = self.with_options(lanes, LEANER[number])
        if number == 0 and self._luts(lanes, 1) < found.needs.luts:
            words = self.with_options(lanes, LEANER[1])
            if _period(words.program) <= WORTH * _period(found.program):
                return words
        return replace(found, lean=number > 0)

    def _luts(self, lanes: int, leaner: int) -> int:
        """LUTs with one of ``LEANER``, whatever the tile; LUT RAM is not counted."""
        options = {"block": BANKS[self.board.family], **LEANER[leaner]}
        program = self.schedule(lanes, tile=self.tile, **options)
        return LUTS[self.board.family].luts(program, soft=not self.board.chip.multipliers)

    def with_options(self, lanes: int, options: Mapping[str, Any]) -> Design:
        """The same, with options of the scheduler."""
        options = {"block": BANKS[self.board.family], **options}
        if self.board.chip.lut_rams:
            return self._with_lut_ram(lanes, options)
        return self._in_block_ram(lanes, options)

    def _in_block_ram(self, lanes: int, options: Mapping[str, Any]) -> Design:
        """The scheduler searches tile and packing for the block RAM that data set and link leave."""
        whole = self._counted(self.schedule(lanes, tile=self.tile, **options))
        smallest = self.tile or tiles(self.batch, lanes)[-1]
        least = self._counted(self.schedule(lanes, tile=smallest, **options))
        if not whole.needs.beyond(self.have):
            return whole
        kbit = BLOCK[self.board.family].kbit
        core = block_rams(least.program, self.board.family).blocks
        budget = self.have.block_rams - (least.needs.block_rams - core)
        while budget > 0:
            try:
                program = self.schedule(lanes, tile=self.tile, memory=float(budget * kbit), **options)
            except CapacityError:
                break
            least = self._counted(program)
            over = least.needs.block_rams - self.have.block_rams  # where a larger tile takes more for its samples
            if over <= 0:
                break
            budget -= over
        return least

    def _with_lut_ram(self, lanes: int, options: Mapping[str, Any]) -> Design:
        """The largest tile that fits, with shallow banks in LUT RAM where block RAM is short."""
        sizes = [self.tile] if self.tile is not None else tiles(self.batch, lanes)

        def of_tile(tile: int) -> Design:
            found = self._counted(self.schedule(lanes, tile=tile, deepest=BLOCK[self.board.family].depth, **options))
            if found.needs.block_rams <= self.have.block_rams:
                return found
            program = self.schedule(lanes, tile=tile, **options)
            over = self._counted(program).needs.block_rams - self.have.block_rams
            if over > 0:
                lut_words = self._in_lut_ram(program, over)
                program = self.schedule(lanes, tile=tile, lut_words=lut_words, **options)
            return self._counted(program)

        found = of_tile(sizes[0])
        if not found.needs.beyond(self.have):
            return found
        low, high = 0, len(sizes) - 1  # sizes[low] does not fit
        found = of_tile(sizes[high])
        if found.needs.beyond(self.have):
            return found
        while high - low > 1:
            middle = (low + high) // 2
            tried = of_tile(sizes[middle])
            if tried.needs.beyond(self.have):
                low = middle
            else:
                high, found = middle, tried
        return found

    def _counted(self, program: Program) -> Design:
        """``program`` with its needs, link and data set included."""
        words, kind, taken = self._data_set(program)
        cells = sum(lut_rams(bank, bank.lut_words) for bank in program.banks.values())
        luts = LUTS[self.board.family].luts(program, soft=not self.board.chip.multipliers)
        blocks_of_core = block_rams(program, self.board.family, data_set=True).blocks
        needs = Needs(program.lanes, blocks_of_core + taken + LINK_BLOCKS, cells, luts + LUT_RAM_LUTS * cells)
        return Design(program, needs, words, kind)

    def _in_lut_ram(self, program: Program, over: int) -> dict[str, int]:
        """Words of banks for LUT RAM, so that ``over`` block RAMs less are needed: those that take the least of it for
        each."""

        def saved(bank: Bank, words: int) -> int:
            left = blocks(bank.words - words, bank.width, bank.depth, self.board.family)
            return blocks(bank.words, bank.width, bank.depth, self.board.family) - left

        def price(bank: Bank) -> float:
            return lut_rams(bank, bank.words) / saved(bank, bank.words)

        found: dict[str, int] = {}
        for bank in sorted(program.banks.values(), key=lambda bank: (price(bank), bank.name)):
            if over > 0 and bank.depth <= DEEPEST:
                enough = (words for words in range(1, bank.words) if saved(bank, words) >= over)
                found[bank.name] = next(enough, bank.words)
                over -= saved(bank, found[bank.name])
        return found

    def _data_set(self, program: Program) -> tuple[int, DataSetKind, int]:
        """Words of the data set's memory (0 where it has no room), its kind, and the block RAMs that it takes."""
        kernels = self.integer.kernels
        sample = sum(prod(kernels.arrays[name].shape) // self.batch for name in (*kernels.inputs, *kernels.targets))
        words, width = sample * self.samples, stream_bits(program)["samples"]
        if self.board.chip.single_port_rams and width <= SPRAM_BITS:
            return (words if words <= SPRAM_WORDS * self.board.chip.single_port_rams else 0), "spram", 0
        taken = blocks(1, width, words, self.board.family)
        return (words, "block", taken) if taken <= self.have.block_rams * DATA_SET_SHARE else (0, "block", 0)

    def too_large(self, lanes: int, beyond: list[tuple[str, int, int]]) -> str:
        """What is lacking, and what would fit."""
        table = "; ".join(f"{name}: {needed:,} needed, {have:,} available" for name, needed, have in beyond)
        smaller = (count for count in self.candidates() if count < lanes)
        fits = next((count for count in smaller if not self.design(count).needs.beyond(self.have)), None)
        advice = f"--lanes {fits} would fit" if fits else "take a larger board, or a smaller model or batch"
        return f"{self.board.name}: {lanes} lanes do not fit: {table}; {advice}"


def tiles(batch: int, lanes: int) -> list[int]:
    """Tiles worth trying, largest first: the batch, and the smallest multiple of the lanes for each number of tiles."""
    sizes = {ceil(ceil(batch / count) / lanes) * lanes for count in range(2, batch + 1)}
    return [batch, *sorted((size for size in sizes if size < batch), reverse=True)]


def lut_rams(bank: Bank, words: int) -> int:
    """Cells of LUT RAM that so many words of a bank's rows take: none for one row, which is in flip-flops."""
    if bank.depth == 1:
        return 0
    return words * ceil(bank.width / LUT_RAM_BITS) * ceil(bank.depth / LUT_RAM_ROWS)
