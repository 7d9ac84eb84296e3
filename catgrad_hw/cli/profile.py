"""The command ``profile``, and the option ``--format``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from catgrad_hw.cli.options import Batch, Debug, Epochs, Folder, Formats, Model, Numbers, Seed, Steps, steps_of
from catgrad_hw.errors import CatgradError

if TYPE_CHECKING:
    from catgrad_hw.numbers.integer import Format

Overrides = Annotated[
    list[str] | None,
    typer.Option("--format", metavar="NAME=BITS.FRACTION", help="The format of one array, as p0=18.14; repeatable."),
]


def formats_of(given: Sequence[str] | None) -> dict[str, Format]:
    """The formats that ``--format`` gives, by array."""
    from catgrad_hw.numbers.formats import parse_format

    found: dict[str, Format] = {}
    for text in given or ():
        name, form = parse_format(text)
        if name in found:
            raise CatgradError(f"--format {text}: expected one format for {name}, found two; leave one of them out")
        found[name] = form
    return found


def profile(
    model: Model,
    output: Folder,
    steps: Steps = None,
    epochs: Epochs = None,
    batch: Batch = None,
    seed: Seed = 0,
    numbers: Formats = Numbers.sixteen,
    formats: Overrides = None,
    debug: Debug = False,
) -> None:
    """Show what each array of a model holds over training, in float and in integers, beside its number format.

    Writes DIR/profile.svg (histograms, and the largest magnitude from step to step), DIR/profile.csv (a line for each
    array) and DIR/profile.json (everything), and prints the table, with advice where words are clamped or updates
    vanish. NAME of `--format` is an array of the table; BITS is its width, sign included, and FRACTION how many of
    them stand behind the binary point.

    **Where do the bits go?** `catgrad-hw profile digits-relu -o build`

    **The smallest numbers, for two epochs:** `catgrad-hw profile digits-conv --numbers small --epochs 2 -o build`

    **With fewer bits for one array:** `catgrad-hw profile iris-hidden --format p0=16.12 -o build`
    """
    from catgrad_hw.cli import files, show
    from catgrad_hw.numbers import profile as numeric
    from catgrad_hw.numbers.profile_draw import profile_svg
    from catgrad_hw.workload import load_workload

    chosen = formats_of(formats)
    workload = load_workload(model, batch)
    steps = steps_of(workload, steps, epochs)
    with show.progress() as progress:
        found = numeric.profile(workload, numbers.value, steps, seed, progress, formats=chosen)
    show.profile(found)
    written = {
        "profile.svg": profile_svg(found),
        "profile.csv": found.table(),
        "profile.json": json.dumps(found.report(), indent=1) + "\n",
    }
    show.written(files.write_all(output, written))
