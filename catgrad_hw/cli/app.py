"""The commands. Each imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catgrad_hw.cli import boards, host, link, options, profile, verify
from catgrad_hw.cli.options import (
    INTERNAL,
    MISMATCH,
    USAGE,
    Batch,
    Bus,
    Contender,
    Debug,
    Epochs,
    Folder,
    Formats,
    Json,
    Lanes,
    Memory,
    Model,
    Numbers,
    Seed,
    Simulator,
    Steps,
    Target,
    Tile,
    steps_of,
)
from catgrad_hw.errors import CatgradError

if TYPE_CHECKING:
    from catgrad_hw.hardware import Hardware
    from catgrad_hw.numbers.integer import Format
    from catgrad_hw.simulate.training import Progress
    from catgrad_hw.workload import Workload

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def catgrad_hw(debug: Debug = False) -> None:
    """Compile a model's reverse derivative into a circuit that trains itself.

    MODEL is a built-in name (iris-linear, iris-simple, iris-dense, iris-hidden, digits-mlp, digits-relu,
    digits-conv, mlp-784-64-10) or `FILE.py:NAME`, where NAME is a function without arguments that returns a
    `catgrad_hw.Workload`.

    **Train in simulated hardware:** `catgrad-hw train iris-hidden --lanes 8`

    **Write the hardware's Verilog:** `catgrad-hw verilog iris-hidden --lanes 8 -o build`

    **Build a bitstream:** `catgrad-hw build iris-hidden --board icebreaker -o build`

    **Train on a board:** `catgrad-hw run iris-hidden --port auto`

    **See what is found on this machine:** `catgrad-hw doctor`
    """


@app.command()
def train(
    model: Model,
    steps: Steps = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lanes: Lanes = 8,
    memory: Memory = None,
    tile: Tile = None,
    seed: Seed = 0,
    numbers: Formats = Numbers.sixteen,
    formats: profile.Overrides = None,
    reference_only: Annotated[bool, typer.Option("--reference-only", help="Float and reference: no hardware.")] = False,
    simulator: Annotated[
        Simulator | None, typer.Option(help="Default: verilator, or amaranth where that cannot run.")
    ] = None,
    json_file: Json = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Keep the trained parameters.")] = None,
    load: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Start from saved parameters.")] = None,
    vcd: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the waves.")] = None,
    rtl: Annotated[Path | None, typer.Option(metavar="FILE", help="Simulate this Verilog file instead.")] = None,
    debug: Debug = False,
) -> None:
    """Train in simulated hardware, and compare every parameter word after every step with the integer reference.

    Exits with 1 where any word differs.

    **Train the 4-20-3 network on iris:** `catgrad-hw train iris-hidden`

    **A short run of your own model, with waves:** `catgrad-hw train mine.py:digits --steps 3 --vcd waves.vcd`

    **Numbers alone, in seconds:** `catgrad-hw train iris-hidden --numbers small --reference-only`

    **With another format for one array, of those that profile lists:** `catgrad-hw train iris-hidden --format p0=20.16`

    **Keep the result, and go on from it:** `catgrad-hw train iris-simple --save a.npz`, then `--load a.npz`

    **Digits, in batches of 16, twenty times over:** `catgrad-hw train digits-mlp --batch 16 --epochs 20 --lanes 16`

    **In at most 100 kbit of block RAM:** `catgrad-hw train iris-hidden --lanes 4 --memory 100`

    **Simulate Verilog that you changed:** `catgrad-hw train iris-hidden --steps 5 --rtl build/core.v`
    """
    from catgrad_hw.cli import files, show
    from catgrad_hw.numbers.train import train_reference
    from catgrad_hw.simulate.report import hardware_report, reference_report
    from catgrad_hw.workload import load_workload

    for option, path in (("--json", json_file), ("--save", save), ("--vcd", vcd)):
        files.check_writable(option, path)
    if rtl is not None and not rtl.is_file():
        raise CatgradError(f"--rtl {rtl}: expected a Verilog file, found none; check the path")
    if reference_only:
        simulated = {"--simulator": simulator, "--vcd": vcd, "--rtl": rtl, "--memory": memory, "--tile": tile}
        _refuse("a simulation", "--reference-only", simulated)
    chosen_formats = profile.formats_of(formats)
    workload = load_workload(model, batch)
    if load is not None:
        workload = files.with_parameters(workload, load)
    steps = steps_of(workload, steps, epochs)
    report: dict[str, Any]
    with show.progress() as progress:
        least = _least_multiplications(workload)
        if reference_only:
            result = train_reference(workload, numbers.value, steps, seed, progress, formats=chosen_formats)
            report, parameters = reference_report(workload, result, least), result.reference.parameters
        else:
            from catgrad_hw.simulate.training import simulate

            chosen = _choose(simulator, rtl)
            hardware = _compile(
                workload,
                lanes,
                numbers,
                memory,
                tile,
                chosen_formats,
                writes_verilog=chosen != "amaranth",
                progress=progress,
            )
            result = train_reference(workload, numbers.value, steps, seed, progress, formats=chosen_formats)
            simulation = simulate(
                hardware,
                workload,
                steps,
                seed=seed,
                simulator=chosen,
                rtl=rtl,
                waves=vcd,
                progress=progress,
            )
            report = hardware_report(workload, result, least, hardware, simulation)
            parameters = simulation.parameters
    if save is not None:
        files.save_parameters(save, parameters)
    if json_file is not None:
        files.write(json_file, json.dumps(report, indent=2) + "\n")
    show.training(report)
    if report.get("mismatches"):
        raise typer.Exit(MISMATCH)


app.command()(boards.boards)
app.command()(boards.build)
app.command()(boards.program)
app.command()(host.run)
app.command()(profile.profile)
app.command("board-sim")(link.board_sim)
app.command()(verify.verify)


@app.command()
def predict(
    model: Model,
    port: Annotated[
        str | None, typer.Option(metavar="PORT", help="Ask the board at this serial port (auto: list and ask).")
    ] = None,
    batch: Batch = None,
    lanes: Annotated[int | None, typer.Option("--lanes", "-P", help="Default: 8, or the board's own.")] = None,
    memory: Memory = None,
    tile: Tile = None,
    numbers: Annotated[Numbers | None, typer.Option(help="Default: 16, or the board's own.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the parameters, where none are loaded.")] = 0,
    data: host.Data = None,
    label: host.Label = None,
    classes: Annotated[str | None, typer.Option(metavar="A,B,C", help="What the outputs stand for.")] = None,
    baud: host.Rate = None,
    simulator: Annotated[
        Simulator | None, typer.Option(help="Default: verilator, or amaranth where that cannot run.")
    ] = None,
    json_file: Json = None,
    load: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Predict with saved parameters.")] = None,
    vcd: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the waves.")] = None,
    debug: Debug = False,
) -> None:
    """Predict the workload's data, on a board or in a simulation, and compare every word with the reference.

    With --port, a board answers with what it has learned, or with the parameters of --load; --data holds questions of
    your own. Without, the core of a predictor is simulated, which does nothing else: it takes samples and sends
    predictions, unasked; cycles count from the first word that it accepts to the last that it offers. Exits with 1
    where any word differs.

    **What has the board learned?** `catgrad-hw predict iris-hidden --port /dev/ttyUSB1`

    **What are these?** `catgrad-hw predict iris-hidden --port auto --data flowers.csv --classes a,b,c`

    **Simulated, one flower at a time:** `catgrad-hw predict iris-hidden --batch 1 --lanes 8`

    **With parameters that were trained:** `catgrad-hw train iris-hidden --save a.npz`, then
    `catgrad-hw predict iris-hidden --batch 1 --load a.npz`
    """
    from catgrad_hw.cli import files

    for option, path in (("--json", json_file), ("--vcd", vcd)):
        files.check_writable(option, path)
    if port is not None:
        _refuse("a simulation", "--port", {"--simulator": simulator, "--vcd": vcd})
        host.predict(
            model, port, batch=batch, lanes=lanes, memory=memory, tile=tile, numbers=numbers and numbers.value,
            seed=seed, data=data, label=label, classes=classes, load=load, baud=baud, json_file=json_file,
        )  # fmt: skip
        return
    of_board = {"--data": data, "--label": label, "--classes": classes, "--baud": baud}
    _refuse("a board", "no --port", of_board | {"--memory": memory, "--tile": tile})
    _predict_in_simulation(
        model, batch, 8 if lanes is None else lanes, seed, numbers or Numbers.sixteen, simulator, json_file, load, vcd
    )


def _refuse(needed: str, found: str, options: Mapping[str, object]) -> None:
    """Refuse options that mean nothing here."""
    for option, value in options.items():
        if value is not None:
            raise CatgradError(f"{option}: expected {needed}, found {found}; leave one of them out")


def _predict_in_simulation(
    model: str,
    batch: int | None,
    lanes: int,
    seed: int,
    numbers: Numbers,
    simulator: Simulator | None,
    json_file: Path | None,
    load: Path | None,
    vcd: Path | None,
) -> None:
    from catgrad_hw.cli import files, show
    from catgrad_hw.hardware import compile_predictor
    from catgrad_hw.simulate import predicting, tools
    from catgrad_hw.workload import load_workload

    workload = load_workload(model, batch)
    if load is not None:
        workload = files.with_parameters(workload, load)
    with show.progress() as progress:
        chosen = _choose(simulator, None)
        hardware = compile_predictor(workload, lanes, numbers=numbers.value, progress=progress)
        if chosen != "amaranth":
            tools.use_yosys(show.note)
        found = predicting.predict(hardware, workload, seed=seed, simulator=chosen, waves=vcd, progress=progress)
        least = _least_multiplications(workload, "predict")
    report = predicting.predict_report(workload, hardware, found, least, numbers.value, seed)
    if json_file is not None:
        files.write(json_file, json.dumps(report, indent=2) + "\n")
    show.prediction(report)
    if report["mismatches"]:
        raise typer.Exit(MISMATCH)


def _choose(simulator: Simulator | None, rtl: Path | None) -> str:
    """The simulator to use, found before anything slow begins."""
    from catgrad_hw.cli import show
    from catgrad_hw.simulate import runner, tools

    name = runner.choose_simulator(simulator.value if simulator else None)
    if name == "amaranth" and rtl is not None:
        raise CatgradError("--rtl: expected the simulator verilator or icarus, found amaranth, which reads no Verilog")
    if name == "amaranth" and simulator is None:
        lacking = "; ".join(f"{tool.name}: {tool.advice}" for tool in tools.missing("verilator"))
        show.note(f"Amaranth's simulator is used, about 100 times slower ({lacking})")
    return name


def _compile(
    workload: Workload,
    lanes: int,
    numbers: Numbers,
    memory: float | None,
    tile: int | None,
    formats: Mapping[str, Format],
    *,
    writes_verilog: bool,
    progress: Progress,
) -> Hardware:
    """Compile for hardware; where Verilog will be written, make Yosys ready for it."""
    from catgrad_hw.cli import show
    from catgrad_hw.hardware import compile_hardware
    from catgrad_hw.simulate import tools

    hardware = compile_hardware(
        workload, lanes, numbers=numbers.value, memory=memory, tile=tile, progress=progress, formats=formats
    )
    if writes_verilog:
        tools.use_yosys(show.note)
    return hardware


def _least_multiplications(workload: Workload, group: str = "step") -> int:
    from catgrad_hw.ir.cost import multiplications
    from catgrad_hw.ir.from_hypergraph import joint_graph
    from catgrad_hw.ir.passes import simplify

    return multiplications(simplify(joint_graph(workload.learner)), group)


@app.command()
def emit(
    model: Model,
    output: Folder,
    target: Annotated[Target, typer.Option(help="What to write.")] = Target.numpy,
    numbers: Annotated[Numbers, typer.Option(help="Number formats of c-fixed.")] = Numbers.sixteen,
    formats: profile.Overrides = None,
    batch: Batch = None,
    debug: Debug = False,
) -> None:
    """Write the model as code that needs nothing of this package: sources, a build file and a README.

    **A NumPy module with predict and step:** `catgrad-hw emit iris-hidden --target numpy -o build`

    **C99 without a library:** `catgrad-hw emit iris-hidden --target c -o build`, then `make -C build`

    **The bits of the hardware, in integers:** `catgrad-hw emit iris-hidden --target c-fixed --numbers small -o build`
    """
    from catgrad_hw.cli import files, show
    from catgrad_hw.numbers.pipeline import quantize_workload
    from catgrad_hw.targets import c_fixed
    from catgrad_hw.targets.project import identifier
    from catgrad_hw.targets.registry import TARGETS
    from catgrad_hw.workload import load_workload

    workload = load_workload(model, batch)
    if formats:
        if target is not Target.c_fixed:
            raise CatgradError(f"--format: expected --target c-fixed, found {target.value}; leave one of them out")
        name = identifier(workload.name)
        integer = quantize_workload(workload, numbers.value, formats=profile.formats_of(formats)).integer
        texts = {**c_fixed.emit(integer, name), **c_fixed.build_files(name)}
    else:
        texts = TARGETS[target.value].emit(workload, workload.name, numbers.value)
    show.written(files.write_all(output, texts))


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="As in other commands; several may follow.")],
    target: Annotated[list[Contender] | None, typer.Option(help="What to time; may be repeated.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the seconds.")] = None,
    debug: Debug = False,
) -> None:
    """Time a training step of the targets side by side, in turn, on one thread each, against the NumPy target.

    **All that can run here:** `catgrad-hw bench iris-hidden digits-mlp mlp-784-64-10`

    **C alone:** `catgrad-hw bench iris-hidden --target numpy --target c`

    **On a GPU:** `catgrad-hw bench iris-hidden --target cuda --target torch-cuda --target torch-cuda-compiled`
    """
    from catgrad_hw.bench import bench as run
    from catgrad_hw.cli import files, show
    from catgrad_hw.workload import load_workload

    files.check_writable("--json", json_file)
    for model in models:
        load_workload(model)  # what is wrong with one is said here, not by the process that measures
    timings = run(models, [contender.value for contender in target or list(Contender)])
    if json_file is not None:
        found = {model: {t.target: t.seconds for t in rows} for model, rows in timings.items()}
        files.write(json_file, json.dumps(found, indent=2) + "\n")
    show.timings(timings)


@app.command()
def inspect(model: Model, batch: Batch = None, debug: Debug = False) -> None:
    """Print the tensor graph, the kernels, and the multiplications of a step.

    **What the compiler made of iris-hidden:** `catgrad-hw inspect iris-hidden`
    """
    from catgrad_hw.inspect import report
    from catgrad_hw.workload import load_workload

    print(report(load_workload(model, batch)))


@app.command()
def schedule(
    model: Model,
    batch: Batch = None,
    lanes: Lanes = 8,
    memory: Memory = None,
    tile: Tile = None,
    numbers: Formats = Numbers.sixteen,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the timeline.")] = None,
    debug: Debug = False,
) -> None:
    """Print what the hardware does in every cycle, its memories, and where the multipliers' idle cycles go.

    **What eight lanes do:** `catgrad-hw schedule iris-hidden --lanes 8`

    **As a picture:** `catgrad-hw schedule iris-hidden --lanes 8 --svg timeline.svg`

    **What little memory costs:** `catgrad-hw schedule iris-hidden --lanes 4 --memory 100`
    """
    from catgrad_hw.cli import files, show
    from catgrad_hw.schedule.draw import timeline_svg
    from catgrad_hw.schedule.print import program_text
    from catgrad_hw.schedule.view import account
    from catgrad_hw.workload import load_workload

    files.check_writable("--svg", svg)
    workload = load_workload(model, batch)
    with show.progress() as progress:
        hardware = _compile(workload, lanes, numbers, memory, tile, {}, writes_verilog=False, progress=progress)
    program = hardware.program
    print(program_text(program))
    show.block_rams(program)
    show.account("step", account(program, program.routine("step"), _least_multiplications(workload)))
    if svg is not None:
        files.write(svg, timeline_svg(program, model))
        show.written([svg])


@app.command()
def draw(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.svg", help="The image to write.")],
    debug: Debug = False,
) -> None:
    """Draw the model, and its reverse derivative, as string diagrams.

    **The iris network:** `catgrad-hw draw iris-hidden -o model.svg`
    """
    from catgrad_hw.cli import files
    from catgrad_hw.draw import draw_model
    from catgrad_hw.workload import load_workload

    files.check_writable("--output", output)
    files.write(output, draw_model(load_workload(model).model))


@app.command()
def verilog(
    model: Model,
    output: Folder,
    batch: Batch = None,
    lanes: Lanes = 8,
    memory: Memory = None,
    tile: Tile = None,
    numbers: Formats = Numbers.sixteen,
    formats: profile.Overrides = None,
    bus: Annotated[
        Bus, typer.Option(help="Ports: plain streams, or AXI4-Stream with AXI4-Lite registers.")
    ] = Bus.plain,
    debug: Debug = False,
) -> None:
    """Write the hardware as one Verilog file, with its port list and memory map beside it.

    `core.v` is the hardware, `core.md` tells its ports and memory map, `core.json` what it was made from.

    **Eight lanes of 16-bit multipliers:** `catgrad-hw verilog iris-hidden --lanes 8 -o build`

    **A sample at a time, in at most 120 kbit:** `catgrad-hw verilog iris-hidden --batch 1 --memory 120 -o build`

    **For 18-bit multipliers (ECP5, Gowin):** `catgrad-hw verilog iris-hidden --lanes 8 --numbers 18 -o build`

    **For a system on chip:** `catgrad-hw verilog iris-hidden --lanes 8 --bus axi -o build`
    """
    from catgrad_hw.cli import files, show
    from catgrad_hw.simulate import tools
    from catgrad_hw.simulate.report import hardware_facts
    from catgrad_hw.workload import load_workload

    chosen_formats = profile.formats_of(formats)
    workload = load_workload(model, batch)
    with show.progress() as progress:
        hardware = _compile(
            workload, lanes, numbers, memory, tile, chosen_formats, writes_verilog=True, progress=progress
        )
        progress("writing Verilog", 0, 0)
        design = {
            "model": model,
            "numbers": numbers.value,
            "bus": bus.value,
            "identity": f"{hardware.identity:016x}",
            "cycles_per_step": hardware.cycles_per_step,
            **({"formats": formats} if formats else {}),
            **hardware_facts(hardware),
            "tools": {name: tools.version(name) for name in ("amaranth", "yosys")},
        }
        texts = {
            "core.v": hardware.verilog(bus.value),
            "core.md": hardware.report(bus.value),
            "core.json": json.dumps(design, indent=2) + "\n",
        }
    show.written(files.write_all(output, texts))


@app.command()
def doctor(debug: Debug = False) -> None:
    """Say which tools are found, which versions, and what to install.

    **Is this machine ready?** `catgrad-hw doctor`
    """
    from catgrad_hw.cli import show
    from catgrad_hw.simulate import tools

    show.tools_table(tools.all_tools())
    for simulator in tools.SIMULATORS:
        lacking = ", ".join(tool.name for tool in tools.missing(simulator))
        show.out.print(f"{simulator}: {'needs ' + lacking if lacking else 'ready'}")
    if not tools.yosys().found or tools.missing("verilator"):
        raise typer.Exit(USAGE)


_UsageError: Any = typer.BadParameter.__mro__[1]
"""Of click, which newer versions of typer hold a copy of."""


def main() -> None:
    """Entry point: errors become one line, without a traceback unless ``--debug`` is given."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # not without ending the tools that run
    try:
        raise SystemExit(app(sys.argv[1:] or ["--help"], prog_name="catgrad-hw", standalone_mode=False))
    except _UsageError as error:
        command = error.ctx.command_path
        _fail(USAGE, f"error: {command}: {error.format_message().rstrip('.')}; see {command} --help")
    except CatgradError as error:
        _fail(USAGE, f"error: {error}")
    except OSError as error:
        _fail(USAGE, f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        _fail(INTERNAL, f"internal error: {type(error).__name__}: {error}; --debug shows where")


def _fail(code: int, message: str) -> None:
    if options.debug():
        traceback.print_exc()
    print(" ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)
