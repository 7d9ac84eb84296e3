"""Loop nests as source of C-like languages: what C, fixed-point C and CUDA have in common.

A kernel is first brought into a form that is good to run (:func:`prepare`): side sums become kernels of their own,
loops that run over consecutive words of every array become one, and what is stored is stored in order. A renderer then
spells it. The spelling of expressions is the same in all languages; :class:`Renderer` leaves types, literals and
functions to its subclasses.

A sum is written with a tile of local accumulators, a few rows by all columns of the innermost kept loop, and a reduced
loop that is unrolled, so that the innermost loop runs over consecutive words and uses each of them several times
(unroll and jam; Callahan, Carr, Kennedy, PLDI 1990)::

    for (int b = 0; b < 150; b += 4) {
      float r[4][20] = {{0}};
      for (int j = 0; j < 4; j += 4)
        for (int i = 0; i < 20; i++) {
          r[0][i] += x[4 * b + j] * p0[20 * j + i] + x[4 * b + j + 1] * p0[20 * j + i + 20] + …;
          r[1][i] += …;
        }
      for (int u = 0; u < 4; u++)
        for (int i = 0; i < 20; i++)
          a1[20 * b + 20 * u + i] = sigmoid(r[u][i] + p1[i]);
    }
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod

from catgrad_hw.errors import UnsupportedError
from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
    Bound,
    Constant,
    Expression,
    Kernel,
    KernelProgram,
    Lookup,
    Loop,
    Position,
    Read,
    Reduced,
    Round,
    Saturate,
    Shift,
    Write,
    expression_under,
    under,
)
from catgrad_hw.ir.kernel_check import reads, results, subexpressions

VECTOR = 8
"""Words that a processor is assumed to work on at once, for the choice of the innermost loop."""

UNROLLED = 16
"""Products that are added up in the innermost loop: accumulator rows times steps of the reduced loop."""

MOST_STEPS = 8
"""The most steps of the reduced loop that are unrolled."""

COLUMNS = 512
"""The most columns of a tile of accumulators."""

RESERVED = frozenset({"a", "do", "if", "m", "p", "r", "s", "t", "u", "x", "y"})
"""No names for loop variables: keywords of C, and what the written source calls otherwise."""


# --- kernels in a form that is good to run ----------------------------------------------------------------------


def prepare(program: KernelProgram, fuse: bool = True, keep_batch: bool = False) -> KernelProgram:
    """The program with side sums as kernels of their own, and with loops ordered and merged.

    ``fuse``: kernels without a sum join the kernel that writes what they read, and arrays that nothing reads any more
    are not written. ``keep_batch``: the loop over the batch is merged with no other. The result is for
    :class:`Renderer`: epilogues may multiply, which :func:`catgrad_hw.ir.kernel_check.check` does not allow.
    """
    programs = {}
    for group, kernels in program.programs.items():
        parts = [order_loops(part) for kernel in kernels for part in detach_side_sums(kernel)]
        if fuse:
            parts = drop_unread(fuse_maps(parts), arguments(program, group))
        programs[group] = tuple(merge_loops(part, keep_batch) for part in parts)
    return replace(program, programs=programs)


def arguments(program: KernelProgram, group: str) -> list[str]:
    """The arrays that a function takes: parameters, the optimizer's state for ``step``, inputs, targets or outputs."""
    if group == "step":
        return [*program.parameters, *program.inputs, *program.targets]
    return [*(name for name in program.parameters if name not in program.states), *program.inputs, *program.outputs]


def detach_side_sums(kernel: Kernel) -> list[Kernel]:
    """The kernel without its side sums, then a kernel for each of these, which reads what the first one stored."""
    kept = kernel.loops[: len(kernel.loops) - kernel.reduced]
    parts = [replace(kernel, side_sums=())]
    for side in kernel.side_sums:
        source = kernel.writes[side.source].access
        over = [i for i, loop in enumerate(kept) if loop.name in side.over]
        order = [*(i for i in range(len(kept)) if i not in over), *over]
        parts.append(
            Kernel(
                name=f"{kernel.name}_{side.access.array}",
                loops=tuple(kept[i] for i in order),
                reduced=len(over),
                body=Read(under(source, order)),
                reduction="sum",
                writes=(Write(under(side.access, order), expression_under(side.value, order)),),
            )
        )
    return parts


def order_loops(kernel: Kernel) -> Kernel:
    """Kept loops by descending strides of the first write, reduced ones by those of the reads; size 1 vanishes."""
    kept = len(kernel.loops) - kernel.reduced
    stored = kernel.writes[0].access.strides
    read = [access.strides for access in reads(kernel.body)]

    def by_reads(loop: int) -> tuple[int, ...]:
        return tuple(-abs(strides[loop]) for strides in read)

    looped = [i for i, loop in enumerate(kernel.loops) if loop.size > 1]
    outer = sorted((i for i in looped if i < kept), key=lambda i: -abs(stored[i]))
    inner = [i for i in looped if i >= kept]
    if kernel.reduction != "argmax":  # which counts its loops in their order
        inner.sort(key=by_reads)
    reduction = kernel.reduction if inner else None
    return replace(_reorder(kernel, [*outer, *inner]), reduced=len(inner), reduction=reduction)


def fuse_maps(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels without a reduction as further writes of the kernels that compute what they read.

    A product with σ′ joins the contraction before it, and an update the sum that is its gradient::

        d2: for b, i: r = sum over j of d1[b, j] * p2[i, j]       d3: for b, i: r = sum over j of d1[b, j] * p2[i, j]
            d2[b, i] = r                                    →         d3[b, i] = s1[b, i] * r
        d3: for b, i: d3[b, i] = s1[b, i] * d2[b, i]
    """
    result: list[Kernel] = []
    for kernel in kernels:
        for position in reversed(range(len(result))):
            fused = _fuse(result[position], kernel, result[position + 1 :])
            if fused is not None:
                result[position] = fused
                break
        else:
            result.append(kernel)
    return result


def _fuse(producer: Kernel, kernel: Kernel, between: Sequence[Kernel]) -> Kernel | None:
    """``producer`` with the writes of ``kernel`` beside its own; None where order of reads and writes forbids it."""
    kept = len(producer.loops) - producer.reduced
    given = {write.access.array: write for write in producer.writes}
    taken = [access for _, value in results(kernel) for access in reads(value)] + reads(kernel.body)
    if kernel.reduction is not None or not any(access.array in given for access in taken):
        return None
    if [loop.size for loop in kernel.loops] != [loop.size for loop in producer.loops[:kept]]:
        return None
    for access in taken:
        if access.array in given:
            own = given[access.array].access
            if (own.offset, own.strides[:kept]) != (access.offset, access.strides) or access.bounds:
                return None
    written = {write.access.array for write in kernel.writes}
    for other in between:
        touched = {access.array for access in _accesses(other)}
        if written & touched or {write.access.array for write in other.writes} & {access.array for access in taken}:
            return None
    if written & ({access.array for access in reads(producer.body)} | set(given)):
        return None
    order = [*range(kept), *(None for _ in range(producer.reduced))]
    stored = {w.access.array: under(w.access, order) for w in kernel.writes}
    for _, value in results(producer):
        if any(stored.get(access.array, access) != access for access in reads(value)):
            return None

    def substitute(expression: Expression) -> Expression:
        match expression:
            case Read(access) if access.array in given:
                return given[access.array].value
            case Read() | Position():
                return expression_under(expression, order)
            case Reduced():
                return substitute(kernel.body)
            case Apply(name, arguments):
                return Apply(name, tuple(substitute(argument) for argument in arguments))
        return expression

    writes = tuple(Write(stored[w.access.array], substitute(w.value)) for w in kernel.writes)
    return replace(producer, writes=producer.writes + writes)


def drop_unread(kernels: Sequence[Kernel], results_of: Sequence[str]) -> list[Kernel]:
    """The kernels without writes to arrays that no kernel reads, ``results_of`` excepted; a kernel keeps its name."""
    while True:
        read = {access.array for kernel in kernels for access in reads(kernel.body)}
        read |= {access.array for kernel in kernels for _, value in results(kernel) for access in reads(value)}
        wanted = read | set(results_of)
        left = [
            replace(kernel, writes=writes)
            for kernel in kernels
            if (writes := tuple(write for write in kernel.writes if write.access.array in wanted))
        ]
        if left == list(kernels):
            return left
        kernels = left


def apart_from_sums(kernel: Kernel, functions: Collection[str]) -> list[Kernel]:
    """The kernel, or the kernel without its ``functions``, then one that applies them in place to what was summed.

    Rows of a sum seldom fill a processor's vectors, and what is left over costs as much by words as the vectors do::

        a1: for b, i: r = sum over j of …                   a1:         for b, i: r = sum over j of …
            a1[b, i] = sigmoid(r + p1[i])               →                   a1[b, i] = r + p1[i]
                                                            a1_of_sums: for bi: a1[bi] = sigmoid(a1[bi])

    The kernel stays whole where functions have several arguments, or values use the sum outside of the functions.
    """
    kept = len(kernel.loops) - kernel.reduced
    values = [write.value for write in kernel.writes]
    parts = {part for value in values for part in subexpressions(value)}
    calls = [part for part in parts if isinstance(part, Apply) and part.operation in functions]
    inner = {argument for call in calls for argument in call.arguments}
    access = kernel.writes[0].access
    if kernel.reduction is None or len(inner) != 1 or any(a.array == access.array for v in values for a in reads(v)):
        return [kernel]
    (argument,) = inner

    def substitute(expression: Expression) -> Expression:
        if expression == argument:
            return Read(access)
        if isinstance(expression, Apply):
            return Apply(expression.operation, tuple(substitute(part) for part in expression.arguments))
        return expression

    mapped = [substitute(value) for value in values]
    if any(isinstance(part, Reduced) for value in mapped for part in subexpressions(value)):
        return [kernel]
    order = list(range(kept))
    writes = (
        Write(under(write.access, order), expression_under(value, order))
        for write, value in zip(kernel.writes, mapped, strict=True)
    )
    return [
        replace(kernel, writes=(Write(access, argument),)),
        merge_loops(
            Kernel(
                name=f"{kernel.name}_of_sums",
                loops=kernel.loops[:kept],
                reduced=0,
                body=Read(under(access, order)),
                reduction=None,
                writes=tuple(writes),
            )
        ),
    ]


def merge_loops(kernel: Kernel, keep_batch: bool = False) -> Kernel:
    """Neighbouring loops become one where every access runs over both as over one."""
    kept = len(kernel.loops) - kernel.reduced
    for i in range(len(kernel.loops) - 1):
        outer, inner = kernel.loops[i : i + 2]
        same_kind = (i < kept) == (i + 1 < kept) and not (keep_batch and (outer.batch or inner.batch))
        if same_kind and all(s[i] == s[i + 1] * inner.size for s in _strides(kernel)):
            name = _variable(outer.name + inner.name)
            order = [j for j in range(len(kernel.loops)) if j != i]
            merged = _reorder(kernel, order)
            loops = list(merged.loops)
            loops[i] = Loop(name, outer.size * inner.size, outer.batch or inner.batch)
            return merge_loops(replace(merged, loops=tuple(loops), reduced=kernel.reduced - (i >= kept)), keep_batch)
    return kernel


def _variable(name: str) -> str:
    return f"{name}_" if name in RESERVED else name


def _accesses(kernel: Kernel) -> list[Access]:
    """All accesses of a kernel without side sums, draws included."""
    found = reads(kernel.body)
    for access, value in results(kernel):
        found += [access, *reads(value), *_draws(value)]
    return found


def _strides(kernel: Kernel) -> list[tuple[int, ...]]:
    """The strides of all that varies with the loops of a kernel without side sums."""
    accesses = _accesses(kernel)
    positions = [
        part.strides
        for _, value in [(None, kernel.body), *results(kernel)]
        for part in subexpressions(value)
        if isinstance(part, Position)
    ]
    bounds = [bound.strides for access in accesses for bound in access.bounds]
    return [*(access.strides for access in accesses), *bounds, *positions]


def _draws(expression: Expression) -> list[Access]:
    match expression:
        case Round(argument, _, draw):
            return _draws(argument) + ([] if draw is None else [draw])
        case Shift(argument, _) | Saturate(argument, _, _) | Lookup(_, argument):
            return _draws(argument)
        case Apply(_, arguments):
            return [access for argument in arguments for access in _draws(argument)]
    return []


def _reorder(kernel: Kernel, order: Sequence[int]) -> Kernel:
    """The kernel with the loops ``order`` of its own; those left out no longer run, at index 0."""
    return replace(
        kernel,
        loops=tuple(replace(kernel.loops[i], name=_variable(kernel.loops[i].name)) for i in order),
        body=expression_under(kernel.body, order),
        writes=tuple(Write(under(w.access, order), expression_under(w.value, order)) for w in kernel.writes),
    )


# --- which loop is innermost ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a sum is written: ``column`` is the loop that runs innermost, None where that is the last reduced one.

    ``row``: the kept loop of which ``rows`` steps run side by side; ``steps`` of the last reduced loop are unrolled.
    """

    column: int | None
    row: int | None
    rows: int
    steps: int


def plan(kernel: Kernel) -> Plan:
    """The choice that costs least for each product, by a rough count of loads and of idle parts of vectors."""
    kept = len(kernel.loops) - kernel.reduced
    sizes = [loop.size for loop in kernel.loops]
    read = [access.strides for access in reads(kernel.body)]
    length = prod(sizes[kept:])

    def loads(loop: int) -> float:
        return sum(0.25 if s[loop] == 0 else 1 if s[loop] == 1 else VECTOR for s in read)

    def idle(size: int) -> float:
        return VECTOR if size < VECTOR // 2 else ceil(size / VECTOR) * VECTOR / size

    def cost(column: int) -> float:
        stored = sum(1 if write.access.strides[column] == 1 else VECTOR for write in kernel.writes)
        return (loads(column) + stored / length) * idle(sizes[column])

    last = len(sizes) - 1
    across = {column: cost(column) for column in range(kept)}
    column = min(across, key=lambda loop: (across[loop], -loop)) if across else None
    along = loads(last) * idle(sizes[last]) + 2 * VECTOR / sizes[last]
    if column is None or kernel.reduction != "sum" or along < across[column]:
        return Plan(None, None, 1, 1)
    steps = _divisor(sizes[last], MOST_STEPS)
    if steps < 4 and sizes[last] > MOST_STEPS:
        steps = MOST_STEPS  # and a remainder
    rows = [
        loop for loop in range(kept) if loop != column and any(s[column] and not s[loop] for s in read)
    ]  # loops over which loads can be shared
    best = max(rows, key=lambda loop: (_divisor(sizes[loop], UNROLLED // steps), loop), default=None)
    if best is None:
        return Plan(column, None, 1, steps)
    return Plan(column, best, _divisor(sizes[best], UNROLLED // steps), steps)


def _divisor(size: int, most: int) -> int:
    return max(d for d in range(1, max(most, 1) + 1) if size % d == 0)


# --- source -----------------------------------------------------------------------------------------------------


@dataclass
class Scope:
    """Where expressions are spelled: an index expression for each loop, the reduced value, and values with names."""

    index: list[tuple[str, int]]
    reduced: str = ""
    names: dict[Expression, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


class Renderer(ABC):
    """Spells kernels; ``target`` names the language in errors. One renderer serves one file."""

    target: str

    def __init__(self) -> None:
        self.used: dict[str, None] = {}
        """The functions that the spelled kernels call, in order of their first use."""

    # --- what a language decides ---

    @abstractmethod
    def place(self, array: str) -> str:
        """The expression of an array's first word."""

    @abstractmethod
    def declaration(self, expression: Expression, kernel: Kernel) -> str:
        """The type of a named value."""

    @abstractmethod
    def accumulator(self, kernel: Kernel) -> str:
        """The type of the kernel's sum."""

    @abstractmethod
    def spell(self, expression: Expression, kernel: Kernel, scope: Scope) -> str:
        """An expression that is no read, no reduced value and no named one, in parentheses where it needs them."""

    @abstractmethod
    def least(self, kernel: Kernel) -> str:
        """What a maximum starts from."""

    def parts_to_name(self, expression: Expression, kernel: Kernel) -> tuple[Expression, ...]:
        """The expressions that get names because ``expression`` occurs, even where they are read once."""
        return ()

    def term(self, text: str, kernel: Kernel) -> str:
        """A body as a term of the kernel's sum."""
        return text

    # --- expressions ---

    def expression(self, expression: Expression, kernel: Kernel, scope: Scope) -> str:
        if expression in scope.names:
            return scope.names[expression]
        match expression:
            case Read(access):
                word = f"{self.place(access.array)}[{address(access, scope.index)}]"
                inside = [self._inside(bound, scope) for bound in access.bounds]
                return f"({' && '.join(inside)} ? {word} : 0)" if inside else word
            case Reduced():
                return scope.reduced
            case Position(offset, strides):
                return f"({address(Access('', offset, strides), scope.index)})"
        return self.spell(expression, kernel, scope)

    def _inside(self, bound: Bound, scope: Scope) -> str:
        """Whether an index lies within an array: negative ones are large without their sign."""
        index = address(Access("", bound.offset, bound.strides), scope.index)
        return f"(unsigned)({index}) < {bound.size}u"

    def values(self, expressions: Sequence[Expression], kernel: Kernel, scope: Scope) -> list[str]:
        """The expressions' text; what occurs more than once, or must, is named in ``scope.lines`` first."""
        count: dict[Expression, int] = {}
        ordered: list[Expression] = []
        must: set[Expression] = set()

        def visit(e: Expression) -> None:
            count[e] = count.get(e, 0) + 1
            if count[e] == 1:
                must.update(self.parts_to_name(e, kernel))
                for part in arguments_of(e):
                    visit(part)
                ordered.append(e)

        for expression in expressions:
            visit(expression)
        for e in ordered:
            if not isinstance(e, Constant | Position | Reduced) and (count[e] > 1 or e in must):
                text = self.expression(e, kernel, scope)
                name = f"v{len(scope.names)}"
                scope.lines.append(f"const {self.declaration(e, kernel)} {name} = {bare(text)};")
                scope.names[e] = name
                scope.lines += self.after(e, kernel, scope)
        return [self.expression(expression, kernel, scope) for expression in expressions]

    def after(self, expression: Expression, kernel: Kernel, scope: Scope) -> list[str]:
        """Lines that follow the naming of a value."""
        return []

    def refuse(self, what: str, kernel: Kernel) -> UnsupportedError:
        return UnsupportedError(
            f"{what}: expected an operation that the target {self.target} speaks, found it in kernel {kernel.name}; "
            "choose another target, or build the model from other operations (docs/targets.md lists them)"
        )

    # --- loops ---

    def kernel(self, kernel: Kernel) -> list[str]:
        """The lines of a kernel that :func:`prepare` made, indented as a block's."""
        if kernel.reduction is None:
            return self._map(kernel)
        chosen = plan(kernel)
        return self._along(kernel) if chosen.column is None else self._tiled(kernel, chosen, chosen.column)

    def store(self, kernel: Kernel, scope: Scope) -> list[str]:
        """The statements of a kernel's writes: all values first, since a write may change what another one reads."""
        texts = self.values([write.value for write in kernel.writes], kernel, scope)
        if len(texts) > 1:
            for number, (write, text) in enumerate(zip(kernel.writes, texts, strict=True)):
                if text not in scope.names.values():
                    name = f"w{number}"
                    scope.lines.append(f"const {self.declaration(write.value, kernel)} {name} = {bare(text)};")
                    texts[number] = name
        stores = [
            f"{self.place(write.access.array)}[{address(write.access, scope.index)}] = "
            f"{self.narrow(write.access.array, bare(text))};"
            for write, text in zip(kernel.writes, texts, strict=True)
        ]
        return [*scope.lines, *stores]

    def narrow(self, array: str, text: str) -> str:
        """A value as it is stored."""
        return text

    def _map(self, kernel: Kernel) -> list[str]:
        scope = Scope([(loop.name, 0) for loop in kernel.loops])
        body = self.expression(kernel.body, kernel, scope)
        uses = sum(_uses(write.value) for write in kernel.writes)
        if uses > 1 and not isinstance(kernel.body, Constant):
            scope.lines.append(f"const {self.accumulator(kernel)} r = {bare(body)};")
            body = "r"
        scope.reduced = body
        return nested([(loop.name, "0", str(loop.size), 1) for loop in kernel.loops], self.store(kernel, scope))

    def _along(self, kernel: Kernel) -> list[str]:
        """Each reduced value by itself: the innermost loop is reduced."""
        kept = len(kernel.loops) - kernel.reduced
        scope = Scope([(loop.name, 0) for loop in kernel.loops])
        body = bare(self.expression(kernel.body, kernel, scope))
        value, word = self.accumulator(kernel), self.declaration(kernel.body, kernel)
        if kernel.reduction == "sum":
            start, add = [f"{value} r = 0;"], [f"r += {self.term(body, kernel)};"]
        elif kernel.reduction == "max":
            start, add = [f"{value} r = {self.least(kernel)};"], [f"const {value} t = {body};", "r = t > r ? t : r;"]
        else:  # argmax
            order = [prod(loop.size for loop in kernel.loops[i + 1 :]) for i in range(kept, len(kernel.loops))]
            place = address(Access("", 0, (*(0 for _ in range(kept)), *order)), scope.index)
            start = [f"{value} r = 0;", f"{word} m = {self.least(kernel)};"]
            add = [f"const {word} t = {body};", "if (t > m) {", "  m = t;", f"  r = {place};", "}"]
        inner = nested([(loop.name, "0", str(loop.size), 1) for loop in kernel.loops[kept:]], add)
        scope.reduced = "r"
        lines = [*start, *inner, *self.store(kernel, scope)]
        return nested([(loop.name, "0", str(loop.size), 1) for loop in kernel.loops[:kept]], lines)

    def _tiled(self, kernel: Kernel, chosen: Plan, column: int) -> list[str]:
        loops, kept = kernel.loops, len(kernel.loops) - kernel.reduced
        size, name = loops[column].size, loops[column].name
        whole = size <= COLUMNS
        local = name if whole else f"{name} - {name}_low"
        inner = (name, "0", str(size), 1) if whole else (name, f"{name}_low", f"{name}_high", 1)
        last = len(loops) - 1

        def accumulate(steps: int) -> list[str]:
            """``steps`` steps of the last loop, for all rows."""
            lines = []
            for row in range(chosen.rows):
                terms = []
                for step in range(steps):
                    index = [
                        (loop.name, row if i == chosen.row else step if i == last else 0)
                        for i, loop in enumerate(loops)
                    ]
                    text = self.expression(kernel.body, kernel, Scope(index))
                    # A choice binds less tightly than the sum that it becomes a term of.
                    terms.append(self.term(text if "?" in text else bare(text), kernel))
                head = f"r[{row}][{local}] +="
                if len(terms) == 1:
                    lines.append(f"{head} {terms[0]};")
                else:
                    lines += [head, *(f"  {term} +" for term in terms[:-1]), f"  {terms[-1]};"]
            return nested([inner], lines)

        whole_steps = loops[last].size // chosen.steps * chosen.steps
        reduced = nested([(loops[last].name, "0", str(whole_steps), chosen.steps)], accumulate(chosen.steps))
        if whole_steps < loops[last].size:
            reduced += nested([(loops[last].name, str(whole_steps), str(loops[last].size), 1)], accumulate(1))
        reduced = nested([(loop.name, "0", str(loop.size), 1) for loop in loops[kept:last]], reduced)

        index = [(loop.name, 0) for loop in loops]
        several = chosen.row is not None and chosen.rows > 1
        if several:
            assert chosen.row is not None
            index[chosen.row] = (f"({loops[chosen.row].name} + u)", 0)
        scope = Scope(index, f"r[{'u' if several else '0'}][{local}]")
        epilogue = nested([*([("u", "0", str(chosen.rows), 1)] if several else []), inner], self.store(kernel, scope))

        columns = size if whole else COLUMNS
        lines = [f"{self.accumulator(kernel)} r[{chosen.rows}][{columns}] = {{{{0}}}};", *reduced, *epilogue]
        outer = [
            (loop.name, "0", str(loop.size), chosen.rows if i == chosen.row else 1)
            for i, loop in enumerate(loops[:kept])
            if i != column
        ]
        lines = nested(outer, lines)
        if not whole:
            end = f"const int {name}_high = {name}_low + {COLUMNS} < {size} ? {name}_low + {COLUMNS} : {size};"
            lines = nested([(f"{name}_low", "0", str(size), COLUMNS)], [end, *lines])
        return lines


def arguments_of(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that an expression is made of."""
    match expression:
        case Apply(_, arguments):
            return arguments
        case Shift(argument, _) | Saturate(argument, _, _) | Lookup(_, argument):
            return (argument,)
        case Round(argument, _, _):
            return (argument,)
    return ()


def _uses(expression: Expression) -> int:
    """How often an expression reads the reduced value."""
    if isinstance(expression, Reduced):
        return 1
    return sum(_uses(argument) for argument in arguments_of(expression))


def address(access: Access, index: Sequence[tuple[str, int]]) -> str:
    """The address of an access, where loop ``l`` is at ``variable + shift`` with ``variable, shift = index[l]``."""
    constant = access.offset
    terms = []
    for stride, (variable, shift) in zip(access.strides, index, strict=True):
        constant += stride * shift
        if stride:
            terms.append(variable if stride == 1 else f"{stride} * {variable}")
    if constant or not terms:
        terms.append(str(constant))
    return bare(" + ".join(terms).replace("+ -", "- "))


def nested(loops: Sequence[tuple[str, str, str, int]], lines: Sequence[str]) -> list[str]:
    """Lines within loops ``(variable, first, end, step)``, outermost first."""
    result = list(lines)
    for variable, first, end, step in reversed(loops):
        advance = f"{variable}++" if step == 1 else f"{variable} += {step}"
        head = f"for (int {variable} = {first}; {variable} < {end}; {advance})"
        single = len([line for line in result if not line.startswith(" ")]) == 1 and not result[0].startswith("const")
        if single:
            result = [head, *(f"  {line}" for line in result)]
        else:
            result = [f"{head} {{", *(f"  {line}" for line in result), "}"]
    return result


def bare(text: str) -> str:
    """The text without parentheses that enclose all of it."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and position < len(text) - 1:
            return text
    return text[1:-1]


def shape_of(array: Array) -> str:
    """An array's shape in a comment: ``150 x 4``."""
    return " x ".join(map(str, array.shape)) or "scalar"
