"""C99 in integers: the bits of the integer reference, and so of the hardware, on any processor.

No floating point, no library, no allocation, no undefined behaviour. Words lie in the narrowest of ``int8_t``,
``int16_t`` and ``int32_t`` that holds their format; values on the way are 32 bits wide where their interval
(:mod:`catgrad_hw.numbers.intervals`) proves that this is enough, and 64 bits elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from catgrad_hw.errors import ModelError
from catgrad_hw.ir.from_hypergraph import Learner
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Constant,
    Expression,
    Kernel,
    Lookup,
    Round,
    Saturate,
    Shift,
)
from catgrad_hw.numbers.check import check
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.intervals import Interval, of_expression, of_reduced, word_intervals
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.numbers.print import format_format
from catgrad_hw.numbers.rounding import DRAW_BITS, FEISTEL_ROUNDS, KEY_INCREMENT, limits
from catgrad_hw.numbers.tables import Table
from catgrad_hw.numbers.units import LOG2_E, LOG2_E_FRACTION, Exponential, Function, Unit
from catgrad_hw.targets.c import block, refuse_dtypes, render, scratch_arrays, touches
from catgrad_hw.targets.clike import Renderer, Scope, address, bare, prepare, shape_of
from catgrad_hw.targets.project import identifier, kernels_of
from catgrad_hw.workload import Workload

OPERATORS: Mapping[str, str] = {"add": "+", "subtract": "-", "multiply": "*"}

HELPERS: Mapping[str, str] = {
    "clamp32": """\
static inline int32_t clamp32(int32_t v, int32_t low, int32_t high) {
  return v < low ? low : v > high ? high : v;
}
""",
    "clamp64": """\
static inline int32_t clamp64(int64_t v, int32_t low, int32_t high) {
  return v < low ? low : v > high ? high : (int32_t)v;
}
""",
    "shift_down": """\
/* word / 2^s to the nearest integer, halves up, no greater than width bits hold; 2^(width-1) <= word < 2^(width+1). */
static inline int32_t shift_down(int32_t word, int s, int width) {
  const int32_t greatest = (1 << (width - 1)) - 1;
  if (s < 1 || s > width + 1)
    return s < 1 ? greatest : 0;
  const int32_t v = (word + (1 << (s - 1))) >> s;
  return v > greatest ? greatest : v;
}
""",
    "draw": f"""\
/* {DRAW_BITS} random bits for a key: {FEISTEL_ROUNDS} Feistel rounds on 16-bit halves. */
static inline int32_t draw(uint32_t key) {{
  uint32_t left = key >> 16, right = key & 0xFFFFu;
  for (int round = 0; round < {FEISTEL_ROUNDS}; round++) {{
    const uint32_t by1 = left << 1 | left >> 15, by2 = left << 2 | left >> 14, by8 = left << 8 | left >> 8;
    const uint32_t next = (right ^ (by1 & by8) ^ by2) & 0xFFFFu;
    right = left;
    left = next;
  }}
  return (int32_t)left;
}}
""",
}


class IntegerRenderer(Renderer):
    """Integer kernels. ``samples``: the variable that holds how many rows of the batch count saturations, or None."""

    target = "c-fixed"

    def __init__(self, program: IntegerProgram, places: Mapping[str, str], samples: str | None) -> None:
        super().__init__()
        self.program, self.places, self.samples = program, places, samples
        self.words = word_intervals(program.kernels, program.formats, program.functions)

    def interval(self, expression: Expression, kernel: Kernel) -> Interval:
        reduced = of_reduced(kernel, self.words, self.program.functions)
        return of_expression(expression, self.words, self.program.functions, reduced)

    def place(self, array: str) -> str:
        return self.places[array]

    def declaration(self, expression: Expression, kernel: Kernel) -> str:
        return _type(self.interval(expression, kernel))

    def accumulator(self, kernel: Kernel) -> str:
        return _type(of_reduced(kernel, self.words, self.program.functions))

    def term(self, text: str, kernel: Kernel) -> str:
        wide = self.accumulator(kernel) == "int64_t" and not text.startswith("(int64_t)")
        return f"(int64_t){text}" if wide else text

    def least(self, kernel: Kernel) -> str:
        return _literal(self.interval(kernel.body, kernel).low - 1)  # less than any word

    def spell(self, expression: Expression, kernel: Kernel, scope: Scope) -> str:
        def text(e: Expression, wide: bool = False) -> str:
            cast = wide and self.declaration(e, kernel) == "int32_t"
            return f"(int64_t){self.expression(e, kernel, scope)}" if cast else self.expression(e, kernel, scope)

        wide = self.declaration(expression, kernel) == "int64_t"
        match expression:
            case Constant(value):
                return _literal(int(value))
            case Apply("select", (condition, left, right)):
                return f"({text(condition)} > 0 ? {text(left)} : {text(right)})"
            case Apply("equal", (left, right)):
                return f"({text(left)} == {text(right)})"
            case Apply(operation, (left, right)) if operation in OPERATORS:
                return f"({text(left, wide)} {OPERATORS[operation]} {text(right)})"
            case Shift(argument, 0) | Round(argument, 0, _):
                return text(argument)
            case Shift(argument, amount):
                return f"({text(argument, wide)} * {_literal(1 << amount)})"
            case Round(argument, shift, draw):
                least = self.interval(argument, kernel)
                sum_wide = Interval(least.low, least.high + (1 << shift)).width > 32 or shift > 30
                if draw is None:
                    added = _literal(1 << (shift - 1))
                else:
                    added = self._draw(draw, shift, scope)
                return f"(({text(argument, sum_wide)} + {added}) >> {shift})"
            case Saturate(argument, width, _):
                if self._fits(expression, kernel):
                    return text(argument)
                low, high = limits(width)
                helper = "clamp64" if self.declaration(argument, kernel) == "int64_t" else "clamp32"
                self.used[helper] = None
                return f"{helper}({bare(text(argument))}, {low}, {high})"
            case Lookup(table, argument):
                self.used[table] = None
                if table in self.program.units:
                    self.used["shift_down"] = None
                return f"{_name(table)}({bare(text(argument))})"
            case Apply(operation, _):
                raise self.refuse(operation, kernel)
        raise self.refuse(type(expression).__name__, kernel)

    def _draw(self, draw: Access, shift: int, scope: Scope) -> str:
        self.used["draw"] = None
        drawn = f"draw(key ^ (uint32_t)({address(draw, scope.index)}))"
        if shift <= DRAW_BITS:
            return drawn if shift == DRAW_BITS else f"({drawn} >> {DRAW_BITS - shift})"
        return f"((int64_t){drawn} * {_literal(1 << (shift - DRAW_BITS))})"

    def _fits(self, expression: Saturate, kernel: Kernel) -> bool:
        """Whether nothing is ever clamped."""
        (low, high), found = limits(expression.width), self.interval(expression.argument, kernel)
        return low <= found.low and found.high <= high

    def parts_to_name(self, expression: Expression, kernel: Kernel) -> tuple[Expression, ...]:
        if isinstance(expression, Saturate) and expression.counter and not self._fits(expression, kernel):
            return expression.argument, expression
        return ()

    def after(self, expression: Expression, kernel: Kernel, scope: Scope) -> list[str]:
        """Count a clamped word."""
        if not isinstance(expression, Saturate) or not self.parts_to_name(expression, kernel):
            return []
        assert expression.counter is not None
        kept = kernel.loops[: len(kernel.loops) - kernel.reduced]
        clamped = f"{scope.names[expression.argument]} != {scope.names[expression]}"
        batch = next((i for i, loop in enumerate(kept) if loop.batch), None)
        if batch is not None and self.samples is not None:
            variable, shift = scope.index[batch]
            clamped = f"({clamped}) & ({address(Access('', shift, (1,)), [(variable, 0)])} < {self.samples})"
        return [f"s->saturations[{self.program.counters.index(expression.counter)}] += {clamped};"]


def _type(interval: Interval) -> str:
    return "int32_t" if interval.width <= 32 else "int64_t"


def _literal(value: int) -> str:
    if -(2**31) < value < 2**31:
        return str(value) if value >= 0 else f"({value})"
    return f"INT64_C({value})"


def word_type(form: Format) -> str:
    """The type of a stored word."""
    return next(f"int{width}_t" for width in (8, 16, 32) if form.width <= width)


def emit(model: Workload | Learner | IntegerProgram, name: str, numbers: str = "16") -> dict[str, str]:
    """The files NAME.h and NAME.c. A workload is calibrated and quantised to the formats ``numbers`` first.

    A model of int32 or bool has no formats to choose: its C has integers alone as it is, and needs no data.
    """
    name = identifier(name)
    if not isinstance(model, IntegerProgram):
        kernels = kernels_of(model)
        if not any(array.dtype.is_floating() for array in kernels.arrays.values()):
            return render(kernels, name)
        if not isinstance(model, Workload):
            raise ModelError(
                "c-fixed: expected a Workload, whose data choose the number formats, found a learner of float32; "
                "give data, or choose the target c"
            )
    program = quantize_workload(model, numbers).integer if isinstance(model, Workload) else model
    check(program)
    refuse_dtypes(program.kernels, "c-fixed")
    program = prepared(program)
    functions, used = [], dict[str, None]()
    for group in ("predict", "step"):
        function, called = _function(program, group, name)
        functions.append(function)
        used |= called
    # Tables first, then functions, in an order that does not depend on which kernel calls them.
    helpers = [text for helper, text in HELPERS.items() if helper in used]
    helpers += [_function_of(function) for name, function in program.functions.items() if name in used]
    text = "\n".join(
        [
            f'#include "{name}.h"\n',
            "/* Shifts of negative numbers must be arithmetic, and int at least 32 bits wide. */",
            "typedef char catgrad_needs[(-1 >> 1) == -1 && sizeof(int) >= 4 ? 1 : -1];\n",
            *helpers,
            "\n\n".join(functions),
        ]
    )
    return {f"{name}.h": _header(program, name), f"{name}.c": text + "\n"}


def prepared(program: IntegerProgram) -> IntegerProgram:
    """The program as it is spelled. Nothing is fused, so that all arrays of the reference can be compared."""
    return replace(program, kernels=prepare(program.kernels, fuse=False, keep_batch=True))


def _function(program: IntegerProgram, group: str, name: str) -> tuple[str, dict[str, None]]:
    kernels = program.kernels
    outside = [*kernels.inputs, *(kernels.targets if group == "step" else kernels.outputs)]
    places = {array: array if array in outside else f"s->{array}" for array in kernels.arrays}
    renderer = IntegerRenderer(program, places, "samples" if group == "predict" else None)
    lines = []
    for kernel in kernels.programs[group]:
        lines += [f"/* {kernel.name} */", *block(renderer.kernel(kernel))]
    if "draw" in renderer.used:
        lines.insert(0, f"const uint32_t key = s->seed + s->step * 0x{KEY_INCREMENT:X}u;")
    if group == "step":
        lines.append("s->step++;")
    text = "\n".join(lines)
    unused = [array for array in outside if not touches(kernels, group, array)]
    unused += [word for word in ("samples",) if group == "predict" and word not in text]
    unused += ["s"] if "s->" not in text else []
    lines += [f"(void){word};" for word in unused]
    source = "\n".join([f"{_prototype(program, group, name)} {{", *(f"  {line}" for line in lines), "}"])
    return source, renderer.used


def _prototype(program: IntegerProgram, group: str, name: str, restrict: str = "restrict") -> str:
    kernels = program.kernels

    def pointer(array: str, const: str) -> str:
        return f"{const}{word_type(program.formats[array])} *{restrict} {array}"

    parts = [f"struct {name}_state *{restrict} s", *(pointer(array, "const ") for array in kernels.inputs)]
    if group == "step":
        parts += [pointer(array, "const ") for array in kernels.targets]
    else:
        parts += [*(pointer(array, "") for array in kernels.outputs), "int samples"]
    indent = " " * len(f"void {name}_{group}(")
    return f"void {name}_{group}(" + f",\n{indent}".join(parts) + ")"


def _table(table: Table) -> str:
    """A table's entries, and the function that looks them up, as :class:`Table` defines it."""
    greatest, half = (1 << (table.input_width - 1)) - 1, (1 << table.index_shift) >> 1
    rows = [", ".join(map(str, table.entries[i : i + 16])) for i in range(0, len(table.entries), 16)]
    entries = ",\n  ".join(rows)
    word, name, last = word_type(Format(table.output_width, 0)), _name(table.name), len(table.entries) - 1
    index = f"(m + {half}) >> {table.index_shift}" if table.index_shift else "m"
    lines = [
        f"static const {word} {name}_entries[{len(table.entries)}] = {{\n  {entries}\n}};\n",
        f"static inline int32_t {name}(int32_t z) {{",
        f"  const int32_t a = z < 0 ? -z : z, m = a > {greatest} ? {greatest} : a;",
        f"  const int32_t i = {index};",
        f"  const int32_t e = {name}_entries[i < {last} ? i : {last}];",
        f"  return z < 0 ? {table.one} - e : e;" if table.symmetry == "complement" else "  return e;",
        "}\n",
    ]
    return "\n".join(lines)


def _name(function: str) -> str:
    """The name of a function in C, whose library has some of them."""
    return f"{function}_word" if function in ("exp", "tanh") else function


def _function_of(function: Function) -> str:
    return _table(function) if isinstance(function, Table) else _unit(function)


def _unit(unit: Unit) -> str:
    """A unit's entries, and the function that it is, as its class defines it."""
    width, down, name = unit.output_width, unit.output_width - unit.output_fraction, _name(unit.name)
    rows = [", ".join(map(str, unit.entries[i : i + 16])) for i in range(0, len(unit.entries), 16)]
    entries = ",\n  ".join(rows)
    lines = [
        f"static const int32_t {name}_entries[{len(unit.entries)}] = {{\n  {entries}\n}};\n",
        f"static inline int32_t {name}(int32_t z) {{",
    ]
    if isinstance(unit, Exponential):
        bits = len(unit.entries).bit_length() - 1
        below = unit.input_fraction + LOG2_E_FRACTION - bits
        lines += [
            f"  const int32_t n = (int32_t)(((int64_t)z * {LOG2_E} + {1 << (below - 1)}) >> {below});",
            f"  return shift_down({name}_entries[n & {len(unit.entries) - 1}], {down} - (n >> {bits}), {width});",
        ]
    else:
        bits = (len(unit.entries) // unit.root).bit_length() - 1
        exponent = f"e - {unit.input_fraction}".replace("- -", "+ ")
        half = "" if unit.root == 1 else f"(x & 1) * {1 << bits} + "
        lines += [
            "  if (z <= 0)",
            f"    return {limits(width)[1]};",
            "  int e = 0;",
            "  while (z >> (e + 1))",
            "    e++;",
            f"  int32_t n = ((z * {1 << bits}) + ((1 << e) >> 1)) >> e;",
            f"  if (n == {2 << bits}) {{",
            f"    n = {1 << bits};",
            "    e++;",
            "  }",
            f"  const int x = {exponent};",
            f"  const int32_t word = {name}_entries[{half}n - {1 << bits}];",
            f"  return shift_down(word, {down} + {'x' if unit.root == 1 else '(x >> 1)'}, {width});",
        ]
    return "\n".join([*lines, "}\n"])


def state_members(program: IntegerProgram) -> list[tuple[str, str, int]]:
    """The members of the state: type, name and length; scalars have length 0."""
    kernels = program.kernels
    members = [("uint32_t", "seed", 0), ("uint32_t", "step", 0)]
    members.append(("uint32_t", "saturations", max(len(program.counters), 1)))
    for array in (*kernels.parameters, *_between(program)):
        members.append((word_type(program.formats[array]), array, prod(kernels.arrays[array].shape)))
    return members


def _between(program: IntegerProgram) -> Sequence[str]:
    return scratch_arrays(program.kernels)


def _header(program: IntegerProgram, name: str) -> str:
    kernels, upper = program.kernels, name.upper()
    guard, restrict = f"{upper}_H", f"{upper}_RESTRICT"
    public = (*kernels.parameters, *kernels.inputs, *kernels.targets, *kernels.outputs)
    described = "\n".join(
        f" *   {array}: {shape_of(kernels.arrays[array])} ({kernels.arrays[array].role}), "
        f"{format_format(program.formats[array])}"
        for array in public
    )
    constants = "\n".join(
        f"#define {upper}_{array.upper()} {prod(kernels.arrays[array].shape)}\n"
        f"#define {upper}_{array.upper()}_WIDTH {program.formats[array].width}\n"
        f"#define {upper}_{array.upper()}_FRACTION {program.formats[array].fraction}"
        for array in public
    )
    comments = {array: f" /* {shape_of(kernels.arrays[array])} */" for array in kernels.arrays}
    comments["seed"] = " /* of the random bits of roundings; any number */"
    comments["step"] = " /* steps done */"
    comments["saturations"] = f" /* clamped words: {', '.join(program.counters) or 'none'} */"
    members = "\n".join(
        f"  {kind} {member}{f'[{length}]' if length else ''};{comments[member]}"
        for kind, member, length in state_members(program)
    )
    return f"""\
/* {name}: written by catgrad-hw. Integers alone; the same bits as the hardware's. A word w of an array with FRACTION f
 * stands for w * 2^-f; to the nearest word, halves up: floor(value * 2^f + 0.5), clamped to WIDTH bits. Row-major:
 *
{described}
 *
 * {name}_predict computes {", ".join(kernels.outputs)} of a batch, of which the first `samples` rows are data: further
 * ones count no saturations. {name}_step changes the parameters by one step of training. Set all of the state to 0,
 * then fill the parameters, and set seed where it matters. Buffers must not overlap. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
#define {restrict} __restrict
extern "C" {{
#else
#define {restrict} restrict
#endif

#define {upper}_BATCH {kernels.batch}
{constants}

struct {name}_state {{
{members}
}};

{_prototype(program, "predict", name, restrict)};

{_prototype(program, "step", name, restrict)};

#ifdef __cplusplus
}}
#endif

#endif
"""


def build_files(name: str) -> Mapping[str, str]:
    """A Makefile, which also tells the flash and RAM that a microcontroller needs, and a README."""
    makefile = f"""\
# make: lib{name}.a, which needs no other library.
# make size: flash (text and data) and RAM (bss) of the code and one state, on a microcontroller.
CFLAGS ?= -O2
CROSS ?= arm-none-eabi-
CPU ?= cortex-m3

lib{name}.a: {name}.o
\t$(AR) rcs $@ $^

{name}.o: {name}.c {name}.h
\t$(CC) -std=c99 -Wall -Wextra -pedantic $(CFLAGS) -c $< -o $@

size: {name}.c {name}.h
\tprintf '#include "{name}.h"\\nstruct {name}_state state;\\n' > state.c
\t$(CROSS)gcc -std=c99 -Os -mthumb -mcpu=$(CPU) -ffreestanding -c {name}.c -o {name}.$(CPU).o
\t$(CROSS)gcc -std=c99 -Os -mthumb -mcpu=$(CPU) -c state.c -o state.$(CPU).o
\t$(CROSS)size -t {name}.$(CPU).o state.$(CPU).o

clean:
\trm -f {name}.o lib{name}.a {name}.$(CPU).o state.$(CPU).o state.c

.PHONY: size clean
"""
    readme = f"""\
# {name} in C, integers alone

`make` builds `lib{name}.a`; `{name}.h` says what words stand for and what `{name}_predict` and `{name}_step` take. No
floating point, no library, no allocation. The bits are those of the hardware and of the integer reference.

`make size` compiles for an Arm Cortex-M (Debian: gcc-arm-none-eabi) and prints the flash and the RAM.
"""
    return {"Makefile": makefile, "README.md": readme}
