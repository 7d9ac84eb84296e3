"""What a board's link is made for, and how the board describes itself to a host."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from amaranth.hdl import Shape

from catgrad_hw.errors import CapacityError
from catgrad_hw.gateware.core import core_signature
from catgrad_hw.host.protocol import DEFAULT_BAUD, VERSION, Description, rate
from catgrad_hw.schedule.program import Program

DataSetKind: TypeAlias = Literal["spram", "block"]

BUFFER_BYTES = 512
"""A block RAM for requests, another for replies."""

REQUEST_BYTES = 500
REPLY_BYTES = 440
DESCRIPTION_AT = 448
"""In the buffer of replies; two bytes before it are the header of replies that are not kept."""

MOST_WORD_BITS = 32

SPRAM_BITS, SPRAM_WORDS, SPRAM_MOST = 16, 1 << 14, 4
"""Of a single-port RAM of the iCE40UP5K, and how many it has."""


@dataclass(frozen=True)
class LinkSettings:
    """``clock_hz``: of core and link; ``baud``: the default rate; ``data_set_words``: depth of the data set memory, in
    words of the core's ``samples``, which is block RAM or, on the iCE40UP5K, single-port RAM of 16 bits."""

    clock_hz: int
    baud: int = DEFAULT_BAUD
    data_set_words: int = 0
    data_set_kind: DataSetKind = "block"

    def __post_init__(self) -> None:
        most = SPRAM_MOST * SPRAM_WORDS
        if self.data_set_kind == "spram" and self.data_set_words > most:
            raise CapacityError(
                f"data set memory: expected at most {most} words of single-port RAM, found {self.data_set_words}; "
                "take fewer, or stream the samples"
            )

    @property
    def rate(self) -> int:
        """``LinkRegister.RATE`` of the default baud rate."""
        return rate(self.clock_hz, self.baud)

    @property
    def fallback_bits(self) -> int:
        """The default rate comes back after ``2**fallback_bits`` cycles without a frame: 1 to 2 s."""
        return (self.clock_hz - 1).bit_length()

    @property
    def patience_bits(self) -> int:
        """A write waits for the core for ``2**patience_bits`` cycles: 1/64 to 1/32 s."""
        return self.fallback_bits - 6


def stream_bits(program: Program) -> dict[str, int]:
    """Widths of the core's streams ``parameters``, ``samples`` and ``results``.

    Raises:
        CapacityError: words that the link cannot carry.
    """
    members = core_signature(program).members
    found = {
        name: Shape.cast(members[name].signature.members["payload"].shape).width
        for name in ("parameters", "samples", "results")
    }
    for name, bits in found.items():
        if bits > MOST_WORD_BITS:
            raise CapacityError(f"link: expected {name} of at most {MOST_WORD_BITS} bits, found {bits}")
    return found


def describe(program: Program, settings: LinkSettings) -> Description:
    """The description of a board that holds ``program``, without a session.

    Raises:
        CapacityError: words that the link, or the data set memory, cannot carry.
    """
    bits = stream_bits(program)
    if settings.data_set_kind == "spram" and bits["samples"] > SPRAM_BITS:
        raise CapacityError(
            f"data set memory: expected words of at most {SPRAM_BITS} bits in single-port RAM, found "
            f"{bits['samples']}; choose the numbers 16, or block RAM"
        )

    def words(names: tuple[str, ...]) -> int:
        return sum(prod(program.placements[name].shape[1:]) for name in names)

    return Description(
        version=VERSION,
        trains=int(not program.predicts_only),
        lanes=program.lanes,
        session=0,
        identity=program.identity,
        clock_hz=settings.clock_hz,
        baud=settings.baud,
        request_bytes=REQUEST_BYTES,
        reply_bytes=REPLY_BYTES,
        parameters=sum(prod(program.placements[name].shape) for name in program.parameters),
        batch=program.batch,
        inputs=words(program.inputs),
        targets=words(program.targets),
        outputs=words(program.outputs),
        data_set_words=settings.data_set_words,
        parameter_bits=bits["parameters"],
        sample_bits=bits["samples"],
        result_bits=bits["results"],
        counters=len(program.counters),
    )
