"""C99 in float32: ``predict`` and ``step`` as functions on the caller's buffers, with no allocation and no library but
libm.

Arrays are row-major. What the functions keep between their kernels lies in a struct that the caller provides. All sums
are in float32; the order of summation is fixed by the source, and the compiler may change it under ``-ffast-math``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.kernel import Apply, Constant, Expression, Kernel, KernelProgram
from catgrad_hw.ir.kernel_check import check, reads, results, stores
from catgrad_hw.ir.types import Dtype
from catgrad_hw.targets.clike import Renderer, Scope, apart_from_sums, arguments, bare, prepare, shape_of
from catgrad_hw.targets.project import Source, identifier, kernels_of

FUNCTIONS: Mapping[str, str] = {
    "sigmoid": """\
static inline float sigmoid(float z) {
  const float e = exp_negative(-fabsf(z)), d = 1.0f / (1.0f + e); /* never overflows */
  return z >= 0 ? d : e * d;
}
""",
    "sigmoid_derivative": """\
static inline float sigmoid_derivative(float z) {
  const float e = exp_negative(-fabsf(z)), d = 1.0f / (1.0f + e);
  return e * d * d;
}
""",
    "tanh_derivative": """\
static inline float tanh_derivative(float z) {
  const float e = exp_negative(-2.0f * fabsf(z)), d = 1.0f / (1.0f + e);
  return 4.0f * e * d * d;
}
""",
}
"""The source of each elementwise function that is neither an operator nor in libm."""

EXP_NEGATIVE = """\
/* e^x for x <= 0, to 2e-7 where x > -87, and e^-87 below; compilers turn it into vector instructions. The polynomial is
 * that of S. Moshier's Cephes library. */
static inline float exp_negative(float x) {
  const float low = x < -87.0f ? -87.0f : x;
  const int32_t n = (int32_t)(low * 1.44269504f - 0.5f);
  const float f = low - n * 0.693359375f + n * 2.12194440e-4f;
  const float p = ((((1.9875691500e-4f * f + 1.3981999507e-3f) * f + 8.3334519073e-3f) * f + 4.1665795894e-2f) * f +
                   1.6666665459e-1f) * f + 5.0000001201e-1f;
  const int32_t bits = (n + 127) * 8388608; /* 2^n */
  float power;
  memcpy(&power, &bits, sizeof power);
  return (1.0f + f + f * f * p) * power;
}
"""

WORDS: Mapping[Dtype, str] = {Dtype.float32: "float", Dtype.int32: "int32_t", Dtype.bool: "uint8_t"}
"""The type of an array's words."""

OPERATORS: Mapping[str, str] = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "greater": ">",
    "equal": "==",
}

LIBRARY: Mapping[str, str] = {"exp": "expf", "log": "logf", "sqrt": "sqrtf", "tanh": "tanhf", "power": "powf"}
"""Elementwise functions that libm has."""


class FloatRenderer(Renderer):
    """Kernels in float32; ``places`` gives the expression of each array."""

    def __init__(self, target: str, places: Mapping[str, str]) -> None:
        super().__init__()
        self.target, self.places = target, places

    def place(self, array: str) -> str:
        return self.places[array]

    def declaration(self, expression: Expression, kernel: Kernel) -> str:
        return "float"

    def accumulator(self, kernel: Kernel) -> str:
        return "float"

    def least(self, kernel: Kernel) -> str:
        return "-INFINITY"

    def spell(self, expression: Expression, kernel: Kernel, scope: Scope) -> str:
        match expression:
            case Constant(value):
                return literal(float(value))
            case Apply(operation, (left, right)) if operation in OPERATORS:
                a, b = (self.expression(e, kernel, scope) for e in (left, right))
                infix = f"({a} {OPERATORS[operation]} {b})"
                return f"({infix} ? 1.0f : 0.0f)" if operation in ("greater", "equal") else infix
            case Apply("select", (condition, left, right)):
                c, a, b = (self.expression(e, kernel, scope) for e in (condition, left, right))
                return f"({c} > 0 ? {a} : {b})"
            case Apply(operation, arguments) if operation in FUNCTIONS or operation in LIBRARY:
                self.used[operation] = None
                texts = (bare(self.expression(e, kernel, scope)) for e in arguments)
                return f"{LIBRARY.get(operation, operation)}({', '.join(texts)})"
            case Apply(operation, _):
                raise self.refuse(operation, kernel)
        raise self.refuse(type(expression).__name__, kernel)


def literal(value: float) -> str:
    """A float constant; negative ones in parentheses."""
    text = f"{value!r}f"
    return f"({text})" if value < 0 else text


def emit(model: Source, name: str) -> dict[str, str]:
    """The files NAME.h and NAME.c. Raises :class:`UnsupportedError` for what C or its kernels do not speak."""
    return render(kernels_of(model), identifier(name))


def render(program: KernelProgram, name: str) -> dict[str, str]:
    """As :func:`emit`, from kernels."""
    from catgrad_hw.targets.c_dtypes import TypedRenderer  # which builds on this module

    check(program)
    program = prepare(program)
    scratch = scratch_arrays(program)
    functions, used, integer = [], dict[str, None](), dict[str, str]()
    for group in ("predict", "step"):
        places = {array: array for array in arguments(program, group)}
        places |= {array: f"s->{array}" for array in scratch if array not in places}
        renderer = TypedRenderer("c", places, program.arrays)
        lines = []
        kernels = [part for kernel in program.programs[group] for part in apart_from_sums(kernel, FUNCTIONS)]
        for kernel in kernels:
            lines += [f"/* {kernel.name} */", *block(renderer.kernel(kernel))]
        if not any(line.find("s->") >= 0 for line in lines):
            lines.append("(void)s;")
        unused = [a for a in arguments(program, group) if not touches(program, group, a)]
        lines += [f"(void){a};" for a in unused]
        functions.append("\n".join([f"{prototype(program, group, name)} {{", *(f"  {line}" for line in lines), "}"]))
        used |= renderer.used
        integer |= renderer.functions
    helpers = [*integer.values()]
    helpers += [FUNCTIONS[function] for function in used if function in FUNCTIONS]
    exponential = any("exp_negative" in helper for helper in helpers)
    helpers = [EXP_NEGATIVE, *helpers] if exponential else helpers
    wanted = [("math.h", bool(used) or "INFINITY" in "".join(functions))]
    wanted += [("stdint.h", exponential), ("string.h", exponential)]
    includes = [f"#include <{header}>" for header, needed in wanted if needed]
    includes = ["\n".join(includes) + "\n"] if includes else []
    text = "\n".join([f'#include "{name}.h"\n', *includes, *helpers, "\n\n".join(functions)])
    return {f"{name}.h": _header(program, name, scratch), f"{name}.c": text + "\n"}


def block(lines: Sequence[str]) -> list[str]:
    """The lines as a block, where they declare something."""
    if any(not line.startswith((" ", "for", "}")) for line in lines):
        return ["{", *(f"  {line}" for line in lines), "}"]
    return list(lines)


def touches(program: KernelProgram, group: str, array: str) -> bool:
    return any(
        access.array == array
        for kernel in program.programs[group]
        for access in (*reads(kernel.body), *stores(kernel), *(a for _, value in results(kernel) for a in reads(value)))
    )


def scratch_arrays(program: KernelProgram) -> list[str]:
    """The arrays that kernels keep for each other: all that some function uses and does not take."""
    return [
        array
        for array in program.arrays
        if any(array not in arguments(program, group) and touches(program, group, array) for group in program.programs)
    ]


def prototype(program: KernelProgram, group: str, name: str, restrict: str = "restrict") -> str:
    """A function's head; ``restrict`` is how the language spells that pointers do not alias."""
    written = {access.array for kernel in program.programs[group] for access in stores(kernel)}
    parts = [
        f"{'' if array in written else 'const '}{WORDS[program.arrays[array].dtype]} *{restrict} {array}"
        for array in arguments(program, group)
    ]
    parts.append(f"struct {name}_scratch *{restrict} s")
    indent = " " * len(f"void {name}_{group}(")
    return f"void {name}_{group}(" + f",\n{indent}".join(parts) + ")"


def refuse_dtypes(program: KernelProgram, target: str) -> None:
    """Raise :class:`UnsupportedError` where an array is of another dtype than float32."""
    for array in program.arrays.values():
        if array.dtype is not Dtype.float32:
            raise UnsupportedError(
                f"array {array.name}: the target {target} speaks float32, found {array.dtype.name}; change the dtype, "
                "or choose the target numpy or c"
            )


def described(program: KernelProgram, mark: str) -> str:
    """What a caller provides, one line for each array, as a comment."""
    return "\n".join(
        f"{mark}   {array}: {shape_of(program.arrays[array])} ({program.arrays[array].role})"
        for array in (*program.parameters, *program.inputs, *program.targets, *program.outputs)
    )


def sizes(program: KernelProgram, name: str) -> str:
    """Macros with the number of entries of each array that a caller provides."""
    return "\n".join(
        f"#define {name.upper()}_{array.upper()} {prod(program.arrays[array].shape)}"
        for array in (*program.parameters, *program.inputs, *program.targets, *program.outputs)
    )


def _header(program: KernelProgram, name: str, scratch: Sequence[str]) -> str:
    guard, restrict, arrays = f"{name.upper()}_H", f"{name.upper()}_RESTRICT", program.arrays
    members = "\n".join(
        f"  {WORDS[arrays[a].dtype]} {a}[{prod(arrays[a].shape)}]; /* {shape_of(arrays[a])} */" for a in scratch
    )
    dtypes = [dtype for dtype in Dtype if any(array.dtype is dtype for array in arrays.values())]
    includes = "" if dtypes in ([], [Dtype.float32]) else "#include <stdint.h>\n\n"
    return f"""\
/* {name}: written by catgrad-hw. Buffers are the caller's, {" and ".join(d.name for d in dtypes)}, row-major:
 *
{described(program, " *")}
 *
 * {name}_predict computes {", ".join(program.outputs)}; {name}_step changes the parameters by one step of training.
 * Buffers must not overlap. Nothing is allocated; calls with different buffers may run in parallel. */
#ifndef {guard}
#define {guard}

{includes}#ifdef __cplusplus
#define {restrict} __restrict
extern "C" {{
#else
#define {restrict} restrict
#endif

#define {name.upper()}_BATCH {program.batch}
/* Entries of each buffer. */
{sizes(program, name)}

/* What a call keeps between its kernels; its contents before and after a call have no meaning. */
struct {name}_scratch {{
{members or "  char unused;"}
}};

{prototype(program, "predict", name, restrict)};

{prototype(program, "step", name, restrict)};

#ifdef __cplusplus
}}
#endif

#endif
"""


def build_files(name: str, libraries: str = "-lm", flags: str = "-O3 -march=native -ffast-math") -> Mapping[str, str]:
    """A Makefile and a README for NAME.c."""
    makefile = f"""\
# make: lib{name}.a. Link with {libraries or "nothing else"}.
CFLAGS ?= {flags}

lib{name}.a: {name}.o
\t$(AR) rcs $@ $^

{name}.o: {name}.c {name}.h
\t$(CC) -std=c99 -Wall -Wextra -pedantic $(CFLAGS) -c $< -o $@

clean:
\trm -f {name}.o lib{name}.a

.PHONY: clean
"""
    readme = f"""\
# {name} in C

`make` builds `lib{name}.a`; `{name}.h` says what `{name}_predict` and `{name}_step` take. C99, no allocation, and
{"no library but libm" if libraries else "no library"}.

The parameters are the caller's: fill them with small random numbers, then call `{name}_step` once for each batch.
"""
    return {"Makefile": makefile, "README.md": readme}
