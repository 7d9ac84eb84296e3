"""The text form of a program: banks, placements, and every kernel with its start cycle."""

from __future__ import annotations

from catgrad_hw.schedule.program import Combination, MachineKernel, Operand, Program, SumPath


def _stream(operand: Operand | int) -> str:
    if isinstance(operand, int):
        return str(operand)
    strides = "; ".join(
        f"{operand.base}, {', '.join(map(str, operand.strides))}" if group == 0 else ", ".join(map(str, operand.steps))
        for group in range(1 + any(operand.steps))
    )
    return f"{operand.array}.{'row' if operand.row else 'word'}[{strides}]"


def _value(combination: Combination, source: str) -> str:
    """What is narrowed."""

    def word(operand: Operand | str | None) -> str:
        return _stream(operand) if isinstance(operand, Operand) else source if operand == "reduced" else str(operand)

    other = f"{word(combination.other)} << {combination.shift}"
    value = {
        "alone": source if " " not in source else f"({source})",
        "add": f"({source} + {other})",
        "subtract": f"({source} - {other})",
        "replace": f"({other})",
        "select": f"({other} if {word(combination.condition)} > 0 else {source})",
    }[combination.kind]
    conditions = ["it > 0"] if combination.rectified else []
    if combination.condition is not None and combination.kind != "select":
        conditions.append(f"{word(combination.condition)} > 0")
    if combination.boost:
        holds, boost = conditions.pop(), combination.boost
        value = f"({value} << {boost} if {holds} else it)" if boost > 0 else f"({value} if {holds} else it << {-boost})"
    if combination.position:
        strides = ", ".join(map(str, combination.position.strides))
        conditions.append(f"{source} = [{combination.position.offset}, {strides}]")
    return f"({value} if {' and '.join(conditions)} else 0)" if conditions else value


def _kernel(kernel: MachineKernel) -> list[str]:
    trips = " x ".join(map(str, kernel.trips))
    lines = [f"{kernel.name}: {trips} iterations, the innermost {kernel.reduced} reduced, {kernel.cycles} cycles"]
    rounded = f" rounded by {kernel.a_round}" if kernel.a_round else ""
    also = f" rounded by {kernel.b_round}" if kernel.b_round else ""
    lines.append(f"  {_stream(kernel.a)}{rounded} * {_stream(kernel.b)}{also}")
    if kernel.slow:
        source = "acc" if kernel.slow.reduced is None else f"sum of products over {kernel.slow.reduced} levels"
        value = _value(kernel.slow.combination, source)
        lines.append(f"  z = {value} >> {kernel.slow.narrowing.shift} in {kernel.slow.narrowing.width} bits")
        for write in kernel.slow.writes:
            value = f"{write.function}(z)" if write.function else "z"
            if write.subtraction:
                value += f" - {_stream(write.subtraction.other)}"
            lines.append(f"  {_stream(write.target)} = {value}  [slow path]")
    for path, name in ((kernel.full, "full-width path"), (kernel.sum, "tree")):
        if not path:
            continue
        source = f"sum of {path.source}s over {path.reduced} levels" if isinstance(path, SumPath) else "acc"
        value = _value(path.combination, source)
        for finish in path.writes:
            old = "old - " if finish.update else ""
            drawn = ", stochastic" if finish.draw is not None else ""
            lines.append(f"  {_stream(finish.target)} = {old}{value} >> {finish.narrowing.shift}{drawn}  [{name}]")
    return lines


def program_text(program: Program) -> str:
    """A listing that a person can read, and that says everything about the program."""
    lines = [
        f"machine: {program.lanes} lanes of {program.multiplier} x {program.multiplier} bits, accumulators of "
        f"{program.accumulator} and {program.sum_accumulator} bits, slow path of {program.slow_words} words per cycle",
        f"batch {program.batch} in {program.tiles} tile(s) of {program.tile} samples; "
        f"{program.slots} tile(s) of samples on chip{', resident' if program.resident else ''}",
        "",
        "banks",
    ]
    for bank in program.banks.values():
        lines.append(f"  {bank.name}: {bank.depth} rows of {bank.words} x {bank.width} bits, {bank.kind}")
    lines += ["", "memory map (array: bank, rows, packing)"]
    for place in program.placements.values():
        packed = "" if place.axis is None else f"axis {place.axis} across the lanes, {place.elements} elements each"
        copies = f", {place.slots} slots of {place.slot_rows}" if place.slots > 1 else ""
        last = place.base + place.slots * place.slot_rows - 1
        lines.append(f"  {place.array}: {place.bank}, rows {place.base} to {last}{copies}; {packed or 'single words'}")
    for routine in program.routines:
        lines += ["", f"{routine.name}: {routine.period} cycles from start to start"]
        for phase, start in ((routine.tile, 0), (routine.final, routine.final_start)):
            for kernel, offset in zip(phase.kernels, phase.starts, strict=True):
                head, *rest = _kernel(kernel)
                lines += [f"  cycle {start + offset}: {head}", *(f"  {line}" for line in rest)]
        if routine.tiles > 1:
            lines.append(f"  tiles start {routine.tile_period} cycles apart")
    return "\n".join(lines) + "\n"
