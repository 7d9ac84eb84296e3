"""Training on a board so that nothing is lost: checkpoints, recovery, comparison with the integer reference."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import BoardLostError, DataError
from catgrad_hw.host.checkpoint import Checkpoint, fingerprint
from catgrad_hw.host.device import Board
from catgrad_hw.numbers.formats import to_values
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.rounding import Words
from catgrad_hw.numbers.train import Score, reference_predictions, scorer
from catgrad_hw.simulate.training import Differences, flat
from catgrad_hw.workload import Floats, Workload

EVERY = 100
"""Steps between checkpoints."""
PATIENCE = 15.0
"""Seconds to wait for a board that was unplugged or reset."""
RECOVERIES = 5
"""So often in a row is a run taken up again without a checkpoint's progress."""
PAUSE = 0.5
"""Seconds between looks for a board that is gone."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done of ``steps``, samples a second since its start (transfers included), and the scores
    on the training data at the last checkpoint."""

    done: int
    steps: int
    samples_per_second: float
    score: Score | None


@dataclass
class Training:
    """What a run on a board did.

    ``first`` and ``checkpoint.step``: steps before it and after it. ``seconds`` and ``samples_per_second``: of
    training, transfers and checkpoints included. ``cycles_per_step``: as the core counted over the last run. ``curve``:
    pairs of step and loss. ``predictions`` (and ``heldout``, where there are such data): the board's own, as values.
    ``recoveries``: times that the board was lost. ``differences`` from the integer reference.
    """

    first: int
    checkpoint: Checkpoint
    seconds: float = 0.0
    samples_per_second: float = 0.0
    cycles_per_step: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    predictions: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    heldout: NDArray[np.float64] | None = None
    recoveries: int = 0
    differences: Differences = field(default_factory=Differences)


def start(board: Board, workload: Workload, seed: int = 0) -> Checkpoint:
    """The state before the first step: the workload's initial parameters for ``seed``."""
    reference = board.hardware.reference(seed)
    reference.load(workload.initial_parameters(seed))
    return Checkpoint(
        words=reference.parameter_words(),
        seed=seed,
        step=0,
        saturations=dict.fromkeys(board.hardware.program.counters, 0),
        model=workload.name,
        identity=board.hardware.identity,
        data=fingerprint(board.sample_words(workload.x, workload.y)),
    )


def require_continuation(checkpoint: Checkpoint, origin: Checkpoint) -> None:
    """Refuse a checkpoint that another run wrote than the one that begins with ``origin``.

    Raises:
        DataError: names what differs.
    """
    for name, what in (
        ("model", "the model"),
        ("identity", "the design (model, numbers, lanes and memory)"),
        ("data", "the data and their order"),
        ("seed", "the seed"),
    ):
        expected, found = getattr(origin, name), getattr(checkpoint, name)
        if expected != found:
            shown = [f"{v:016x}" if name == "identity" else str(v) for v in (expected, found)]
            raise DataError(
                f"checkpoint: expected {what} to be the same, found {shown[1]} in place of {shown[0]}; go on with what "
                "wrote it"
            )


def train(
    board: Board,
    workload: Workload,
    begin: Checkpoint,
    steps: int,
    *,
    every: int = EVERY,
    verify: bool = False,
    patience: float = PATIENCE,
    keep: Callable[[Checkpoint], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Training:
    """Train on the data of ``workload`` from ``begin`` until ``steps`` steps are done in all.

    ``keep`` gets a checkpoint every ``every`` steps and at the end. A board that falls silent, is unplugged or is reset
    is waited for ``patience`` seconds and loaded again with the last checkpoint. With ``verify``, the integer
    reference runs beside the board, and every word and counter at each checkpoint is compared, and every prediction.

    Raises:
        BoardLostError: the board does not come back.
        LinkError: the board does not answer as the protocol demands.
    """
    return _Run(board, workload, begin, steps, verify, patience, keep, progress).run(every)


class _Run:
    def __init__(
        self,
        board: Board,
        workload: Workload,
        begin: Checkpoint,
        steps: int,
        verify: bool,
        patience: float,
        keep: Callable[[Checkpoint], None] | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.board, self.workload, self.steps, self.patience = board, workload, steps, patience
        self.keep, self.progress = keep, progress
        self.result = Training(begin.step, begin)
        self.loaded = begin  # what the board was last loaded with: its counters began there
        self.scorer = scorer(workload, workload.y)
        self.score: Score | None = None
        self.reference: Reference | None = None
        if verify:
            self.reference = board.hardware.reference(begin.seed)
            self.reference.load(begin.words)
            self.reference.step_number = begin.step
            self.reference.saturations |= begin.saturations

    def run(self, every: int) -> Training:
        result = self.result
        began = time.monotonic()
        self._persist(self._load)
        self._evaluate()
        while result.checkpoint.step < self.steps:
            count = min(every - result.checkpoint.step % every, self.steps - result.checkpoint.step)
            reached = self._persist(lambda count=count: self._advance(count, began))  # type: ignore[misc]
            result.checkpoint = reached
            self._compare(count)
            self._evaluate()
            if self.keep is not None:
                self.keep(reached)
            self._report(0, began)
        result.seconds = time.monotonic() - began
        result.samples_per_second = (result.checkpoint.step - result.first) * self.board.batch / result.seconds
        self._predict()
        return result

    def _load(self) -> None:
        at = self.result.checkpoint
        self.board.load(at.words, seed=at.seed, step=at.step)
        self.loaded = at

    def _advance(self, count: int, began: float) -> Checkpoint:
        """Train for ``count`` steps; the state after them."""
        board, at = self.board, self.result.checkpoint
        board.train(self.workload.x, self.workload.y, steps=count, progress=lambda done: self._report(done, began))
        self.result.cycles_per_step = board.state().cycles / count
        words, clamped = board.parameter_words(), board.saturations()
        return replace(
            at,
            words=words,
            step=at.step + count,
            saturations={name: self.loaded.saturations[name] + clamped[name] for name in clamped},
        )

    def _persist(self, action: Callable[[], Result]) -> Result:
        """The result of ``action``; whenever the board is lost, it is loaded again, and the action repeated."""
        for _ in range(RECOVERIES):
            try:
                return action()
            except BoardLostError as lost:
                self._recover(lost)
        return action()

    def _recover(self, lost: BoardLostError) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            try:
                self.board.reopen()
                self._load()
            except BoardLostError as again:
                lost = again
                time.sleep(PAUSE)
            else:
                self.result.recoveries += 1
                return
        raise BoardLostError(f"{lost} (the run has got as far as step {self.result.checkpoint.step})")

    def _compare(self, count: int) -> None:
        """Hold the last checkpoint to the reference."""
        reference, at, found = self.reference, self.result.checkpoint, self.result.differences
        if reference is None:
            return
        for _ in range(count):
            reference.step(*self.workload.batch(reference.step_number))
        words = flat(at.words)
        found.compare(f"step {at.step}: parameter word", words, flat(reference.parameter_words()))
        counters = list(at.saturations)
        found.compare(
            f"step {at.step}: saturation counter",
            np.array([at.saturations[name] for name in counters], np.int64),
            np.array([reference.saturations[name] for name in counters], np.int64),
        )
        found.compared += words.size + len(counters)

    def _evaluate(self) -> None:
        """Score the parameters that the board has; the reference predicts what the board would, faster."""
        at = self.result.checkpoint
        predicted = reference_predictions(self.board.hardware.integer, at.words, self.workload.x)
        self.score = self.scorer(predicted)
        self.result.curve.append((at.step, self.score.loss))

    def _predict(self) -> None:
        """Ask the board itself for its predictions of all data."""
        data = [self.workload.x, *([self.workload.heldout[0]] if self.workload.heldout else [])]
        output = self.board.hardware.integer.kernels.outputs[0]
        values = []
        for x in data:
            words = self._persist(lambda x=x: self.board.prediction_words(x))  # type: ignore[misc]
            self._compare_predictions(x, words)
            values.append(to_values(words, self.board.hardware.integer.formats[output]))
        self.result.predictions = values[0]
        self.result.heldout = values[1] if len(values) > 1 else None

    def _compare_predictions(self, x: Floats, words: Words) -> None:
        if self.reference is not None:
            observer = self.board.hardware.reference()
            observer.load(self.reference.parameter_words())
            self.result.differences.compare("prediction word", words, observer.predict(x))
            self.result.differences.compared += words.size

    def _report(self, done: int, began: float) -> None:
        if self.progress is not None:
            total = self.result.checkpoint.step + done
            seconds = max(time.monotonic() - began, 1e-9)
            rate = (total - self.result.first) * self.board.batch / seconds
            self.progress(Progress(total, self.steps, rate, self.score))
