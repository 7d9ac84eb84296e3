"""Functions read from tables: the logistic function and its derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Table:
    """A function of a signed word ``z`` of ``input_width`` bits, read from ``entries`` by its rounded magnitude.

    The magnitude is ``m = min(|z|, 2**(input_width-1) - 1)``, the index ``i = min((m + half) >> index_shift,
    len(entries) - 1)`` with ``half = 2**(index_shift-1)`` (0 where ``index_shift`` is 0), and the result

    * ``entries[i]`` where ``z >= 0``, or where ``symmetry`` is ``"even"``;
    * ``one - entries[i]`` where ``z < 0`` and ``symmetry`` is ``"complement"``: σ(-z) = 1 - σ(z).

    Results are signed words of ``output_width`` bits.
    """

    name: str
    input_width: int
    index_shift: int
    entries: tuple[int, ...]
    symmetry: Literal["even", "complement"]
    one: int
    output_width: int
