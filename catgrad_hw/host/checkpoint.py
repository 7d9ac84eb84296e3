"""Checkpoints: what training needs to go on, to the bit, wherever it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import DataError
from catgrad_hw.files import read_arrays, write_arrays
from catgrad_hw.numbers.rounding import Words

VERSION = 2
WORD = np.int32
"""Master weights have at most 32 bits."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run after ``step`` steps.

    ``words``: the parameters' words, in their shapes; ``seed``, with ``step``, gives the random key of the next step,
    and ``step`` the next row of the data; ``saturations``: by tensor, the words clamped so far. ``model``,
    ``identity`` (of the design) and ``data`` (:func:`fingerprint` of the samples' words) tell what it belongs to.
    """

    words: tuple[Words, ...]
    seed: int
    step: int
    saturations: dict[str, int]
    model: str
    identity: int
    data: str

    def save(self, path: Path) -> None:
        """Write an .npz, whole or not at all."""
        arrays: dict[str, Any] = {
            "version": VERSION,
            "seed": self.seed,
            "step": self.step,
            "model": self.model,
            "identity": f"{self.identity:016x}",
            "data": self.data,
            "counters": np.array(list(self.saturations), dtype=np.str_),
            "saturations": np.array(list(self.saturations.values()), dtype=np.int64),
            **{f"p{index}": words.astype(WORD) for index, words in enumerate(self.words)},
        }
        write_arrays(path, {**arrays, "digest": _digest({name: np.asarray(array) for name, array in arrays.items()})})

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: there is no such file, or it is no checkpoint.
        """
        try:
            fields = read_arrays(path)
            if int(fields["version"]) != VERSION:
                raise ValueError(f"one of version {fields['version']}; this program reads version {VERSION}")
            if str(fields.pop("digest")) != _digest(fields):
                raise ValueError("a damaged one")
            return Checkpoint(
                seed=int(fields["seed"]),
                step=int(fields["step"]),
                model=str(fields["model"]),
                identity=int(str(fields["identity"]), 16),
                data=str(fields["data"]),
                saturations={
                    str(name): int(count) for name, count in zip(fields["counters"], fields["saturations"], strict=True)
                },
                words=tuple(
                    fields[f"p{index}"].astype(np.int64) for index in range(sum(name[0] == "p" for name in fields))
                ),
            )
        except FileNotFoundError:
            raise DataError(f"checkpoint {path}: expected a file, found none; check the path") from None
        except KeyError:
            raise DataError(f"checkpoint {path}: expected an .npz that --checkpoint wrote, found another") from None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"checkpoint {path}: expected an .npz that --checkpoint wrote, found {error}") from None


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of arrays and their names, types and shapes."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


def fingerprint(words: Words) -> str:
    """SHA-256 of samples as words, in the order in which they are trained on."""
    return hashlib.sha256(np.ascontiguousarray(words, "<i8").tobytes()).hexdigest()
