"""From a workload to hardware, in one call.

>>> from catgrad_hw.hardware import compile_hardware
>>> from catgrad_hw.workload import load_workload
>>> hardware = compile_hardware(load_workload("iris-linear"), lanes=4)
>>> hardware.multipliers
4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from catgrad_hw.errors import ModelError
from catgrad_hw.gateware.axi import AxiCore
from catgrad_hw.gateware.core import Core
from catgrad_hw.gateware.ports import port_list
from catgrad_hw.numbers.calibrate import CALIBRATION_STEPS
from catgrad_hw.numbers.integer import Format, IntegerProgram
from catgrad_hw.numbers.pipeline import Progress, Quantized, quantize_workload
from catgrad_hw.numbers.reference import Reference
from catgrad_hw.schedule.check import check
from catgrad_hw.schedule.print import program_text
from catgrad_hw.schedule.program import BankKind, Program
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.workload import Workload

BUSES = {"plain": Core, "axi": AxiCore}
"""By a core's ports: plain streams and registers, or AXI4-Stream and AXI4-Lite."""

TOP = "core"
"""The name of the Verilog module."""

HEADER = """\
// A core of {lanes} lanes that trains a model; identity {identity:016x}.
// Generated: change what it was generated from. Widths and incomplete cases follow Verilog's own rules on purpose.
/* verilator lint_off WIDTHEXPAND */
/* verilator lint_off WIDTHTRUNC */
/* verilator lint_off CASEINCOMPLETE */
/* verilator lint_off UNSIGNED */
/* verilator lint_off CMPCONST */
"""


@dataclass(frozen=True)
class Hardware:
    """A workload's quantised kernels and the program of a machine that trains it."""

    quantized: Quantized
    program: Program

    @property
    def integer(self) -> IntegerProgram:
        """The integer program, which defines the bits."""
        return self.quantized.integer

    @property
    def lanes(self) -> int:
        """P, the number of lanes."""
        return self.program.lanes

    @property
    def multipliers(self) -> int:
        """Products of two variable operands in the hardware: one a lane, and no other."""
        return self.program.lanes

    @property
    def resident(self) -> bool:
        """Whether the whole data set stays on chip."""
        return self.program.resident

    @property
    def cycles_per_step(self) -> int:
        """Cycles from the start of a step to the earliest start of the next, samples present."""
        return self.program.routine("step").period

    @property
    def identity(self) -> int:
        """The 64-bit identity that the core's registers tell."""
        return self.program.identity

    def reference(self, seed: int = 0) -> Reference:
        """The integer reference of the same program: of what only predicts, without what only training needs."""
        return Reference(only_predict(self.integer) if self.program.predicts_only else self.integer, seed)

    def component(self, bus: str = "plain") -> Any:
        """The Amaranth component, to put into a design of your own; ``bus``, ``plain`` or ``axi``, gives its ports."""
        if bus not in BUSES:
            raise ModelError(f"bus: expected one of {', '.join(BUSES)}, found {bus!r}")
        return BUSES[bus](self.program)

    @cached_property
    def _verilog(self) -> dict[str, str]:
        """What has been written, by bus."""
        return {}

    def verilog(self, bus: str = "plain") -> str:
        """The core as one Verilog file; its top module is ``core``, with the ports of ``bus``.

        Raises:
            ToolError: no usable Yosys.
        """
        from amaranth.back import verilog

        from catgrad_hw.simulate.tools import use_yosys

        if bus not in self._verilog:
            use_yosys()
            text: str = verilog.convert(self.component(bus), name=TOP, emit_src=False, strip_internal_attrs=True)
            self._verilog[bus] = HEADER.format(lanes=self.lanes, identity=self.identity) + text
        return self._verilog[bus]

    def _words(self) -> str:
        """A Markdown table: the formats of the words that enter and leave."""
        rows = ["## Words", "", "A word w stands for w / 2^f.", "", "| array | shape | bits | f |", "|---|---|---|---|"]
        program, kernels = self.program, self.integer.kernels
        for name in (*program.parameters, *program.inputs, *program.targets, *program.outputs):
            shape, form = " × ".join(map(str, kernels.arrays[name].shape)), self.integer.formats[name]
            rows.append(f"| `{name}` | {shape} | {form.width} | {form.fraction} |")
        return "\n".join([*rows, ""])

    def report(self, bus: str = "plain") -> str:
        """Ports, words, registers, and the program with its memory map, as Markdown."""
        return "\n".join(
            [
                f"# {TOP}: {self.lanes} lanes, identity {self.identity:016x}",
                "",
                port_list(self.program, bus),
                self._words(),
                "## Program and memory map",
                "",
                "```text",
                program_text(self.program).rstrip(),
                "```",
                "",
            ]
        )


def compile_predictor(
    workload: Workload,
    lanes: int,
    *,
    numbers: str = "16",
    slow_words: int | None = None,
    calibration_steps: int = CALIBRATION_STEPS,
    progress: Progress | None = None,
    formats: Mapping[str, Format] | None = None,
) -> Hardware:
    """A core that predicts and does not train: it takes samples and sends predictions, unasked.

    Formats are those of the training hardware, and so are the bits. Arguments as for :func:`compile_hardware`.

    Raises:
        CatgradError: the workload has no hardware, or an argument is out of range.
    """
    quantized = quantize_workload(workload, numbers, calibration_steps, progress, formats)
    program = schedule(only_predict(quantized.integer), lanes, slow_words=slow_words)
    check(program)
    return Hardware(quantized, program)


def only_predict(program: IntegerProgram) -> IntegerProgram:
    """``program`` without ``step``, targets, and the optimizer's state."""
    kernels = program.kernels
    predict = kernels.programs["predict"]
    own = tuple(name for name in kernels.parameters if name not in kernels.states)
    text = repr(predict)
    counters = tuple(name for name in program.counters if f"counter={name!r}" in text)
    return replace(
        program,
        kernels=replace(kernels, programs={"predict": predict}, targets=(), parameters=own, states=()),
        counters=counters,
        stochastic=False,
    )


def compile_hardware(
    workload: Workload,
    lanes: int,
    *,
    numbers: str = "16",
    tile: int | None = None,
    memory: float | None = None,
    slow_words: int | None = None,
    bank_kinds: Mapping[str, BankKind] | None = None,
    lut_words: Mapping[str, int] | None = None,
    block: BankKind = "block",
    full_path: bool = True,
    resident: bool = True,
    calibration_steps: int = CALIBRATION_STEPS,
    progress: Progress | None = None,
    formats: Mapping[str, Format] | None = None,
) -> Hardware:
    """Compile, calibrate, quantise and schedule ``workload`` for ``lanes`` lanes, and check the schedule.

    The bits depend on ``workload``, ``numbers`` (``16``, ``18`` or ``small``), ``calibration_steps`` (of the float run
    whose ranges the formats cover) and ``formats`` (which overrides those of arrays, by name) alone; ``tile`` (samples
    on chip at a time), ``memory`` (kbit of block RAM), ``slow_words``, ``bank_kinds``, ``lut_words``, ``block`` and
    ``full_path`` as in :func:`catgrad_hw.schedule.scheduler.schedule`. ``resident``: the core holds the whole data set
    where it fits; on a board, whose data set is kept outside the core, it does not.

    Raises:
        CatgradError: the workload has no hardware, or an argument is out of range.
    """
    quantized = quantize_workload(workload, numbers, calibration_steps, progress, formats)
    program = schedule(
        quantized.integer,
        lanes,
        tile=tile,
        memory=memory,
        samples=len(workload.x) if resident else None,
        slow_words=slow_words,
        bank_kinds=bank_kinds,
        lut_words=lut_words,
        block=block,
        full_path=full_path,
    )
    check(program)
    return Hardware(quantized, program)
