"""Draws a numeric profile as SVG: for each array a histogram and its largest magnitude from step to step.

The shapes are in the template ``profile.svg.jinja``; here is where they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from catgrad_hw.numbers.profile import GREATEST, LEAST, Profile, TensorProfile

WIDTH, LEFT, ACROSS, CURVE_LEFT, CURVE_ACROSS = 1200, 250, 560, 850, 270
"""Of the picture; of the histograms; of the curves; in pixels."""
PLOT, PITCH, TOP = 72, 104, 70
"""Height of a plot; from one array to the next; of the heading."""
TICK = 8
KEY = (
    "Left: how often a magnitude occurs, by powers of two, in the float run (orange line) and in integers (blue bars); "
    "what the format holds is shaded. Right: the largest magnitude, step by step."
)


def profile_svg(profile: Profile) -> str:
    """The profile as one picture."""
    loader = PackageLoader("catgrad_hw.numbers", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    rows = [_row(tensor, TOP + PITCH * number, profile.steps) for number, tensor in enumerate(profile.tensors)]
    return environment.get_template("profile.svg.jinja").render(
        title=f"{profile.name}: numbers {profile.numbers}, {profile.steps} steps",
        key=KEY,
        width=WIDTH,
        height=TOP + PITCH * len(rows) + 10,
        left=LEFT,
        across=ACROSS,
        curve_left=CURVE_LEFT,
        curve_across=CURVE_ACROSS,
        plot=PLOT,
        steps=f"{profile.steps:,}",
        ticks=[{"x": _place(k), "label": f"2^{k}" if k else "1"} for k in range(LEAST, GREATEST + 1, TICK)],
        rows=rows,
    )


def _place(exponent: int) -> float:
    """Where a magnitude of ``2**exponent`` is."""
    inside = min(max(exponent, LEAST), GREATEST)
    return round(LEFT + (inside - LEAST) * ACROSS / (GREATEST - LEAST), 1)


def _row(tensor: TensorProfile, top: int, steps: int) -> dict[str, Any]:
    shape = " x ".join(map(str, tensor.shape)) or "scalar"
    lines = [
        {"text": f"{tensor.role}, {shape}", "warn": False},
        {"text": f"{tensor.width} bits, step 2^{-tensor.fraction}, up to {tensor.bound:g}", "warn": False},
    ]
    if tensor.saturations is not None:
        lines.append({"text": f"clamped: {tensor.saturations:,} of {tensor.words:,}", "warn": tensor.saturations > 0})
    if tensor.zero_updates is not None:
        share = f"updates that round to zero: {100 * tensor.zero_updates:.1f} %"
        lines.append({"text": share, "warn": tensor.zero_updates > 0.5})
    most = max(tensor.in_float.largest, tensor.in_integers.largest)
    bars = _heights(tensor.in_integers.histogram, tensor.in_integers.zeros)
    step = ACROSS / (GREATEST - LEAST)
    line = _heights(tensor.in_float.histogram, tensor.in_float.zeros)
    first, last = _place(-tensor.fraction), _place(tensor.width - 1 - tensor.fraction)
    outline = "".join(f"V{round(PLOT - h, 1)}h{step:g}" for h in line)
    return {
        "top": top,
        "name": tensor.name,
        "lines": lines,
        "window": {"x": first, "width": round(last - first, 1)},
        "bars": [
            {"x": _place(LEAST + i), "y": round(PLOT - h, 1), "width": round(step - 1, 1), "height": round(h, 1)}
            for i, h in enumerate(bars)
            if h
        ],
        "outline": f"M{LEFT} {PLOT}{outline}V{PLOT}",
        "in_float": _curve(tensor.in_float.curve, most, steps),
        "in_integers": _curve(tensor.in_integers.curve, most, steps),
        "most": f"{most:.3g}",
    }


def _heights(histogram: Sequence[int], zeros: int) -> list[float]:
    """Heights of bars: shares of all words, of which zeros have no bar, the highest as high as a plot."""
    total = max(sum(histogram) + zeros, 1)
    highest = max([count / total for count in histogram] or [0]) or 1
    return [PLOT * count / total / highest for count in histogram]


def _curve(points: Sequence[tuple[int, float]], most: float, steps: int) -> str:
    scale = PLOT / most if most else 0.0
    places = [(CURVE_LEFT + CURVE_ACROSS * step / steps, PLOT - value * scale) for step, value in points]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
