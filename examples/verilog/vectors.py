"""Writes the words that the bench reads: ``python examples/verilog/vectors.py DIR``.

``parameters.hex``: initial parameters; ``samples.hex``: the data set; ``expected.hex``: the parameters after the steps
that ``trainer.v`` does, by the integer reference.
"""

from __future__ import annotations

import sys
from pathlib import Path

from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.simulate.training import Words, flat, sample_words
from catgrad_hw.workload import load_workload

STEPS = 2


def write(path: Path, words: Words, bits: int) -> None:
    """One word a line, in hexadecimal, two's complement."""
    path.write_text("".join(f"{word & (1 << bits) - 1:0{-(-bits // 4)}x}\n" for word in words.ravel().tolist()))


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    workload = load_workload("iris-hidden")
    reference = Reference(quantize_workload(workload, "16").integer)
    reference.load(workload.initial_parameters())
    write(directory / "parameters.hex", flat(reference.parameter_words()), 24)
    x, y = (reference.words_of(name, data) for name, data in (("x", workload.x), ("y", workload.y)))
    write(directory / "samples.hex", sample_words(x, y), 16)
    for _ in range(STEPS):
        reference.step(x, y)
    write(directory / "expected.hex", flat(reference.parameter_words()), 24)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
