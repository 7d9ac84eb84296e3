"""Kernels as text: one readable loop nest for each kernel."""

from __future__ import annotations

from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
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
)

_INFIX = {"add": "+", "subtract": "-", "multiply": "*"}


def format_program(program: KernelProgram) -> str:
    """All arrays and kernels of a program, float or integer, as text that ends without a newline."""
    lines = []
    for array in program.arrays.values():
        shape = " x ".join(map(str, array.shape)) or "scalar"
        batch = "" if array.batch_axis is None else f", batch axis {array.batch_axis}"
        lines.append(f"{array.role} {array.name}: {shape}{batch}")
    for name, kernels in program.programs.items():
        lines += ["", f"program {name}:"]
        for kernel in kernels:
            lines += ["  " + line for line in format_kernel(kernel, program).splitlines()]
    return "\n".join(lines)


def brief(expression: Expression, depth: int = 2) -> str:
    """An expression in a few words, for an error: arrays by their names, ``...`` for what lies below ``depth``
    operations."""

    def inner(argument: Expression) -> str:
        return brief(argument, depth - 1)

    match expression:
        case Constant(value):
            return f"{value:g}" if isinstance(value, float) else str(value)
        case Read(access):
            return access.array
        case Position():
            return "position"
        case Reduced():
            return "r"
        case Shift(argument, 0) | Round(argument):
            return brief(argument, depth)
        case _ if depth == 0:
            return "..."
        case Shift(argument, amount):
            return f"{inner(argument)} << {amount}"
        case Saturate(argument):
            return f"narrow({inner(argument)})"
        case Lookup(table, argument):
            return f"{table}[{inner(argument)}]"
        case Apply(operation, (left, right)) if operation in _INFIX:
            return f"{inner(left)} {_INFIX[operation]} {inner(right)}"
        case Apply(operation, arguments):
            found = [inner(argument) for argument in arguments]
            return f"{operation}({'...' if set(found) == {'...'} else ', '.join(found)})"


def format_kernel(kernel: Kernel, program: KernelProgram) -> str:
    """One kernel as a loop nest; ``r`` is the reduced value."""
    kept = kernel.loops[: len(kernel.loops) - kernel.reduced]
    over = kernel.loops[len(kept) :]

    def show(expression: Expression) -> str:
        match expression:
            case Constant(value):
                return f"{value:g}" if isinstance(value, float) else str(value)
            case Read(access):
                place = _place(access, kernel.loops, program.arrays[access.array])
                inside = (f"0 <= {_sum(b.offset, b.strides, kernel.loops)} < {b.size}" for b in access.bounds)
                return f"({place} where {' and '.join(inside)} else 0)" if access.bounds else place
            case Position(offset, strides):
                return f"({_sum(offset, strides, kernel.loops)})"
            case Reduced():
                return "r"
            case Apply(operation, (left, right)) if operation in _INFIX:
                return f"{group(left)} {_INFIX[operation]} {group(right)}"
            case Apply(operation, arguments):
                return f"{operation}({', '.join(map(show, arguments))})"
            case Shift(argument, amount):
                return f"{group(argument)} << {amount}"
            case Round(argument, shift, draw):
                drawn = "" if draw is None else ", " + _flat(draw, kernel.loops)
                return f"round({show(argument)}, {shift}{drawn})"
            case Saturate(argument, width, counter):
                counted = "" if counter is None else f", {counter}"
                return f"saturate({show(argument)}, {width}{counted})"
            case Lookup(table, argument):
                return f"{table}[{show(argument)}]"

    def group(expression: Expression) -> str:
        text = show(expression)
        match expression:
            case Apply(operation, _) if operation in _INFIX:
                return f"({text})"
            case Shift():
                return f"({text})"
        return text

    lines = [f"{kernel.name}: for {_loops(kept)}:" if kept else f"{kernel.name}: once:"]
    if kernel.reduction is None:
        lines.append(f"  r = {show(kernel.body)}")
    else:
        lines.append(f"  r = {kernel.reduction} over {_loops(over)} of {show(kernel.body)}")
    for write in kernel.writes:
        place = _place(write.access, kernel.loops, program.arrays[write.access.array])
        lines.append(f"  {place} = {show(write.value)}")
    for side in kernel.side_sums:
        source = kernel.writes[side.source].access
        lines.append(f"  side sum r of {source.array} over {', '.join(side.over)}:")
        place = _place(side.access, kernel.loops, program.arrays[side.access.array])
        lines.append(f"    {place} = {show(side.value)}")
    return "\n".join(lines)


def _loops(loops: tuple[Loop, ...]) -> str:
    return ", ".join(f"{loop.name} in {loop.size}{' (batch)' if loop.batch else ''}" for loop in loops)


def _place(access: Access, loops: tuple[Loop, ...], array: Array) -> str:
    """``x[b, i]`` where each loop runs along one axis of the array, else ``x[offset + strides]`` of the flat array."""
    pitch = [1] * len(array.shape)
    for axis in range(len(array.shape) - 1, 0, -1):
        pitch[axis - 1] = pitch[axis] * array.shape[axis]
    rest = access.offset
    base = []
    for step in pitch:
        base.append(rest // step)
        rest %= step
    terms: list[list[str]] = [[str(first)] if first else [] for first in base]
    reach = list(base)
    for loop, stride in zip(loops, access.strides, strict=True):
        if stride == 0:
            continue
        axes = [axis for axis, step in enumerate(pitch) if stride > 0 and stride % step == 0]
        if not axes:
            return _flat(access, loops)
        axis = axes[0]
        factor = stride // pitch[axis]
        reach[axis] += factor * (loop.size - 1)
        if reach[axis] >= array.shape[axis]:
            return _flat(access, loops)
        terms[axis].append(loop.name if factor == 1 else f"{factor} {loop.name}")
    return f"{access.array}[{', '.join(' + '.join(term) or '0' for term in terms)}]"


def _flat(access: Access, loops: tuple[Loop, ...]) -> str:
    return f"{access.array}[flat {_sum(access.offset, access.strides, loops)}]"


def _sum(offset: int, strides: tuple[int, ...], loops: tuple[Loop, ...]) -> str:
    terms = [str(offset)] if offset else []
    for loop, stride in zip(loops, strides, strict=True):
        if stride:
            terms.append(loop.name if stride == 1 else f"{stride} {loop.name}")
    return " + ".join(terms) or "0"
