"""Integer programs as text."""

from __future__ import annotations

from catgrad_hw.ir.kernel_print import format_program
from catgrad_hw.numbers.integer import Format, IntegerProgram


def format_format(form: Format) -> str:
    """``16 bits, step 2**-12, up to 8``: width, the value of the last bit, and the bound of magnitudes."""
    bound = 2.0 ** (form.width - 1 - form.fraction)
    return f"{form.width} bits, step 2**{-form.fraction}, up to {bound:g}"


def format_integer(program: IntegerProgram) -> str:
    """Formats, tables, accumulators and kernels, as text that ends without a newline."""
    rounding = "updates rounded by keyed draws" if program.stochastic else "rounded to nearest"
    lines = [f"multiplier: {program.multiplier} bits; {rounding}", "", "formats:"]
    lines += [f"  {name}: {format_format(form)}" for name, form in program.formats.items()]
    lines += ["", "tables:"]
    lines += [
        f"  {name}: {len(table.entries)} entries, from {table.input_width} to {table.output_width} bits"
        for name, table in program.tables.items()
    ]
    lines += ["", "accumulators:"]
    lines += [f"  {name}: {width} bits" for name, width in program.accumulators.items()]
    return "\n".join([*lines, "", format_program(program.kernels)])
