"""Numeric profiles: what each array held in a float run and in an integer run, beside the format that was chosen.

Both runs start from the same parameters and see the same batches. Ranges are over all steps; histograms and curves are
taken at some of them, evenly spaced.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import ModelError
from catgrad_hw.ir.kernel import Saturate
from catgrad_hw.ir.kernel_check import results, stores, subexpressions
from catgrad_hw.ir.kernel_run import Executor
from catgrad_hw.numbers.calibrate import CALIBRATION_STEPS, initial_state
from catgrad_hw.numbers.formats import to_values
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.pipeline import Progress, quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.numbers.train import curve_steps
from catgrad_hw.workload import Workload

LEAST, GREATEST = -40, 24
"""Exponents of the histograms' bins: bin ``k`` counts magnitudes from ``2**k`` up to ``2**(k+1)``."""

COLUMNS = (
    *("tensor", "role", "shape", "bits", "fraction", "bound", "largest_float", "largest_integer"),
    *("saturations", "clamped_arguments", "words", "zero_updates"),
)
"""Of the table."""

MANY_ZEROS = 0.5
"""From this share of updates that round to zero on, advice is given."""


@dataclass
class Magnitudes:
    """The magnitudes that one array had in one run.

    ``largest`` over all steps; ``histogram`` counts words by the exponent of their magnitude from :data:`LEAST` on,
    ``zeros`` those that are 0, over the steps of the curve; ``curve``: pairs of step and largest magnitude then.
    """

    largest: float = 0.0
    zeros: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * (GREATEST - LEAST))
    curve: list[tuple[int, float]] = field(default_factory=list)

    def see(self, step: int, values: NDArray[Any], counted: bool) -> None:
        magnitudes = np.abs(values)
        largest = float(magnitudes.max(initial=0.0))
        self.largest = max(self.largest, largest)
        if counted:
            self.curve.append((step, largest))
            present = magnitudes[magnitudes > 0]
            self.zeros += magnitudes.size - present.size
            exponents = np.clip(np.frexp(present)[1] - 1, LEAST, GREATEST - 1) - LEAST
            found = np.bincount(exponents, minlength=GREATEST - LEAST)
            self.histogram = [a + int(b) for a, b in zip(self.histogram, found, strict=True)]


@dataclass(frozen=True)
class TensorProfile:
    """One array: ``role`` as in :class:`~catgrad_hw.ir.kernel.Array`, format, and magnitudes in both runs.

    ``saturations``: words that the integer run clamped, of ``words`` that it wrote; None where none can be.
    ``clamped_arguments``: arguments of functions clamped in the kernel that writes it, which is as intended.
    ``zero_updates``: of a parameter, the share of updates that left their word as it was although the float run
    changed its own in that step.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    width: int
    fraction: int
    in_float: Magnitudes
    in_integers: Magnitudes
    saturations: int | None
    clamped_arguments: int | None
    words: int
    zero_updates: float | None

    @property
    def bound(self) -> float:
        """Magnitudes below this have a word."""
        return 2.0 ** (self.width - 1 - self.fraction)


@dataclass(frozen=True)
class Profile:
    """All arrays of a workload, in order, and advice in words."""

    name: str
    numbers: str
    steps: int
    seed: int
    tensors: tuple[TensorProfile, ...]
    advice: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "model": self.name,
            "numbers": self.numbers,
            "steps": self.steps,
            "seed": self.seed,
            "bins": [LEAST, GREATEST],
            "advice": list(self.advice),
            "tensors": [asdict(tensor) for tensor in self.tensors],
        }

    def table(self) -> str:
        """One line for each array, as comma-separated values."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for t in self.tensors:
            shape = " x ".join(map(str, t.shape))
            largest = t.in_float.largest, t.in_integers.largest
            row: list[Any] = [t.name, t.role, shape, t.width, t.fraction, t.bound, *largest]
            writer.writerow([*row, t.saturations, t.clamped_arguments, t.words, t.zero_updates])
        return stream.getvalue()


def profile(
    workload: Workload,
    numbers: str = "16",
    steps: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    calibration_steps: int = CALIBRATION_STEPS,
    formats: Mapping[str, Format] | None = None,
) -> Profile:
    """Train in float and in integers, side by side, and look at every array after every step.

    Raises :class:`ModelError` where ``steps`` is below 1, and what :func:`quantize_workload` raises.
    """
    if steps < 1:
        raise ModelError(f"profile {workload.name}: expected at least 1 step, found {steps}")
    quantized = quantize_workload(workload, numbers, calibration_steps, progress, formats)
    kernels, integer = quantized.kernels, quantized.integer
    in_float = {name: Magnitudes() for name in kernels.arrays}
    in_integers = {name: Magnitudes() for name in kernels.arrays}
    updates, zeros = dict.fromkeys(kernels.parameters, 0), dict.fromkeys(kernels.parameters, 0)
    counted = curve_steps(steps)
    written = {group: {a.array for kernel in each for a in stores(kernel)} for group, each in kernels.programs.items()}
    predicted = sorted(written["predict"] - written["step"])
    # Predictions are another machine's, so that the counts are those of training alone.
    machine, observer = Reference(integer, seed), Reference(integer)
    machine.load(workload.initial_parameters(seed))
    parameters = initial_state(kernels, workload, seed)
    known = (*kernels.parameters, kernels.inputs[0])
    predict = Executor(kernels, "predict", known, np.float32)
    train = Executor(kernels, "step", (*known, kernels.targets[0]), np.float32)
    for step in range(1, steps + 1):
        x, y = workload.batch(step - 1)
        given = dict(zip(known, (*parameters, x), strict=True))
        memory = predict.run(given) | train.run(given | {kernels.targets[0]: y})
        before = dict(zip(kernels.parameters, machine.parameter_words(), strict=True))
        observer.load(machine.parameter_words())
        observer.predict(x)
        machine.step(x, y)
        words = machine.words() | {name: observer.words()[name] for name in predicted}
        for name, values in memory.items():
            in_float[name].see(step, values, step in counted)
            in_integers[name].see(step, to_values(words[name], integer.formats[name]), step in counted)
        for name, old in zip(kernels.parameters, parameters, strict=True):
            changed = memory[name] != old
            updates[name] += int(np.count_nonzero(changed))
            zeros[name] += int(np.count_nonzero(changed & (words[name] == before[name])))
        parameters = tuple(memory[name].copy() for name in kernels.parameters)
        if progress is not None:
            progress("profile", step, steps)
    counters = _counters(integer)
    tensors = []
    for name, array in kernels.arrays.items():
        form, own = integer.formats[name], [c for c in counters.get(name, ()) if c == name]
        others = [c for c in counters.get(name, ()) if c != name]
        tensors.append(
            TensorProfile(
                name=name,
                role="state" if name in kernels.states else array.role,
                shape=array.shape,
                width=form.width,
                fraction=form.fraction,
                in_float=in_float[name],
                in_integers=in_integers[name],
                saturations=machine.saturations[name] if own else None,
                clamped_arguments=sum(machine.saturations[c] for c in others) if others else None,
                words=steps * int(np.prod(array.shape)),
                zero_updates=zeros[name] / updates[name] if updates.get(name) else None,
            )
        )
    found = [*quantized.advice, *(text for tensor in tensors for text in _advice(tensor, integer.stochastic))]
    return Profile(workload.name, numbers, steps, seed, tuple(tensors), tuple(found))


def _counters(program: IntegerProgram) -> dict[str, list[str]]:
    """By array, the counters of the narrowings on the way to its words."""
    found: dict[str, list[str]] = {}
    for kernel in program.kernels.programs["step"]:
        for access, value in results(kernel):
            parts = [part for part in subexpressions(value) if isinstance(part, Saturate) and part.counter]
            known = found.setdefault(access.array, [])
            known += [part.counter for part in parts if part.counter is not None and part.counter not in known]
    return found


def _advice(tensor: TensorProfile, stochastic: bool) -> list[str]:
    """In words; updates that round to zero by chance add up to what they should, and need none."""
    result = []
    name, wider = tensor.name, f"--format {tensor.name}={tensor.width}.{tensor.fraction - 1}"
    if tensor.saturations:
        result.append(
            f"{tensor.role} {name}: {tensor.saturations} of {tensor.words} words were clamped to magnitudes below "
            f"{tensor.bound:g}, where the float run reached {tensor.in_float.largest:.3g}: give it more room above, as "
            f"by {wider}, or lower the learning rate"
        )
    if not stochastic and tensor.zero_updates is not None and tensor.zero_updates > MANY_ZEROS:
        finer = f"--format {name}={tensor.width + 4}.{tensor.fraction + 4}"
        result.append(
            f"{tensor.role} {name}: {100 * tensor.zero_updates:.0f} % of its updates round to zero: use stochastic "
            f"rounding (--numbers small) or more bits, as by {finer}"
        )
    return result
