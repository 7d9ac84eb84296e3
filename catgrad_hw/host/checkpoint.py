"""Checkpoints: what training needs to go on, to the bit, wherever it stopped."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catgrad_hw.errors import DataError
from catgrad_hw.files import write
from catgrad_hw.numbers.rounding import Words

VERSION = 1
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
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        write(path, stream.getvalue())

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: there is no such file, or it is no checkpoint.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                fields = {name: archive[name] for name in archive.files}
            if int(fields.pop("version")) != VERSION:
                raise ValueError("another version of checkpoints")
            counters = [str(name) for name in fields.pop("counters")]
            counts = [int(count) for count in fields.pop("saturations")]
            return Checkpoint(
                seed=int(fields.pop("seed")),
                step=int(fields.pop("step")),
                model=str(fields.pop("model")),
                identity=int(str(fields.pop("identity")), 16),
                data=str(fields.pop("data")),
                saturations=dict(zip(counters, counts, strict=True)),
                words=tuple(fields[f"p{index}"].astype(np.int64) for index in range(len(fields))),
            )
        except FileNotFoundError:
            raise DataError(f"checkpoint {path}: expected a file, found none; check the path") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"checkpoint {path}: expected an .npz that --checkpoint wrote, found: {reason}") from None


def fingerprint(words: Words) -> str:
    """SHA-256 of samples as words, in the order in which they are trained on."""
    return hashlib.sha256(np.ascontiguousarray(words, "<i8").tobytes()).hexdigest()
