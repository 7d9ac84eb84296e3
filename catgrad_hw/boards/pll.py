"""Clock multipliers: dividers for the highest frequency that does not exceed the wanted one.

Frequencies are exact (`fractions.Fraction`), in Hz. Limits and formulas:

- iCE40, SB_PLL40 with simple feedback (Lattice FPGA-TN-02052, FPGA-DS-02029): ``pfd = in / (DIVR + 1)``,
  ``vco = pfd (DIVF + 1)``, ``out = vco / 2**DIVQ``.
- ECP5, EHXPLLL (FPGA-TN-02200, FPGA-DS-02012): output CLKOP closes the loop with CLKFB_DIV 1, so that
  ``vco = in CLKOP_DIV / CLKI_DIV`` is any multiple of the comparison frequency; ``out = vco / CLKOS_DIV``.
- Gowin, rPLL (UG286, DS117, DS102): ``out = in (FBDIV_SEL + 1) / (IDIV_SEL + 1)``, ``vco = out ODIV_SEL``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from catgrad_hw.boards.description import Board
from catgrad_hw.errors import CapacityError
from catgrad_hw.schedule.memory import Family

MHZ = 10**6


@dataclass(frozen=True)
class Limits:
    """Ranges in MHz, ends included, of the input, the comparison frequency, the oscillator and the output."""

    input: tuple[float, float]
    pfd: tuple[float, float]
    vco: tuple[float, float]
    output: tuple[float, float]


LIMITS: Mapping[str, Limits] = {
    "ice40": Limits((10, 133), (10, 133), (533, 1066), (16, 275)),
    "ecp5": Limits((8, 400), (10, 400), (400, 800), (3.125, 400)),
    "GW1NR-9C": Limits((3, 400), (3, 400), (400, 1200), (3.125, 600)),
    "GW2A-18C": Limits((3, 500), (3, 500), (500, 1250), (3.90625, 625)),
}
"""By family; Gowin's by chip, of the speed grades that the boards have."""

GOWIN_OUTPUT_DIVIDERS = (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)


@dataclass(frozen=True)
class Pll:
    """A setting: exact frequencies in Hz, and the primitive's dividers by the names of its parameters."""

    input: Fraction
    pfd: Fraction
    vco: Fraction
    output: Fraction
    dividers: Mapping[str, int]

    @property
    def output_hz(self) -> int:
        """The output's frequency, to the nearest Hz."""
        return round(self.output)


def limits_of(board: Board) -> Limits:
    """The limits of a board's PLL."""
    return LIMITS[
        board.chip_name if board.chip_name in LIMITS else "GW1NR-9C" if board.family == "gowin" else board.family
    ]


def _ice40(source: Fraction) -> Iterator[Pll]:
    for r in range(16):
        pfd = source / (r + 1)
        for f in range(128):
            for q in range(1, 7):
                vco = pfd * (f + 1)
                dividers = {"DIVR": r, "DIVF": f, "DIVQ": q, "FILTER_RANGE": filter_range(pfd)}
                yield Pll(source, pfd, vco, vco / 2**q, dividers)


def filter_range(pfd: Fraction) -> int:
    """iCE40's FILTER_RANGE for a comparison frequency: the loop filter's setting."""
    return 1 + sum(pfd >= bound * MHZ for bound in (17, 26, 44, 66, 101))


def _ecp5(source: Fraction) -> Iterator[Pll]:
    for i in range(1, 129):
        pfd = source / i
        if pfd < 10 * MHZ:
            return
        for op in range(1, 129):
            vco = pfd * op
            if 400 * MHZ <= vco <= 800 * MHZ:
                for os in range(1, 129):
                    dividers = {"CLKI_DIV": i, "CLKFB_DIV": 1, "CLKOP_DIV": op, "CLKOS_DIV": os}
                    yield Pll(source, pfd, vco, vco / os, dividers)


def _gowin(source: Fraction) -> Iterator[Pll]:
    for i in range(64):
        pfd = source / (i + 1)
        for f in range(64):
            output = pfd * (f + 1)
            for o in GOWIN_OUTPUT_DIVIDERS:
                yield Pll(source, pfd, output * o, output, {"IDIV_SEL": i, "FBDIV_SEL": f, "ODIV_SEL": o})


SETTINGS = {"ice40": _ice40, "ecp5": _ecp5, "gowin": _gowin}


def _within(value: Fraction, bounds: tuple[float, float]) -> bool:
    low, high = bounds
    return Fraction(low) * MHZ <= value <= Fraction(high) * MHZ


def allowed(setting: Pll, limits: Limits) -> bool:
    """Whether all frequencies of a setting are within the limits."""
    return (
        _within(setting.input, limits.input)
        and _within(setting.pfd, limits.pfd)
        and _within(setting.vco, limits.vco)
        and _within(setting.output, limits.output)
    )


@cache
def _settings(family: Family, limits: Limits, source: Fraction) -> tuple[Pll, ...]:
    return tuple(setting for setting in SETTINGS[family](source) if allowed(setting, limits))


def find_pll(board: Board, wanted_hz: float | Fraction) -> Pll:
    """The setting with the highest output up to ``wanted_hz``; of equals, the highest comparison frequency, which
    jitters least, and the slowest oscillator, which takes the least power.

    Raises:
        CapacityError: the PLL reaches no such frequency from the board's crystal.
    """
    limits, source = limits_of(board), Fraction(board.clock_hz)
    best = max(
        (setting for setting in _settings(board.family, limits, source) if setting.output <= wanted_hz),
        key=lambda setting: (setting.output, setting.pfd, -setting.vco),
        default=None,
    )
    if best is None:
        low, high = limits.output
        raise CapacityError(
            f"clock: expected {low:g} to {high:g} MHz, which the PLL makes of {board.clock_hz / MHZ:g} MHz, "
            f"found {float(wanted_hz) / MHZ:g}; choose --clock in that range"
        )
    return best
