"""The report of a training run: what ``catgrad-hw train --json`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catgrad_hw.numbers.train import Result, Run, Score, scorer
from catgrad_hw.schedule.memory import block_rams
from catgrad_hw.simulate.training import Simulation
from catgrad_hw.workload import Workload

if TYPE_CHECKING:
    from catgrad_hw.hardware import Hardware


def _scores(kind: str, runs: dict[str, Score | None]) -> dict[str, float | None]:
    return {name: getattr(value, kind) if value is not None else None for name, value in runs.items()}


def reference_report(workload: Workload, result: Result, least_multiplications: int) -> dict[str, Any]:
    """The part that needs no hardware. ``loss``, that of :func:`catgrad_hw.numbers.train.scorer`, is taken after the
    last step; ``accuracy`` is a fraction or null."""
    return _training(workload, result, None) | {
        "lanes": None,
        "simulator": None,
        "least_multiplications": least_multiplications,
        "saturations": result.saturations,
    }


def hardware_report(
    workload: Workload, result: Result, least_multiplications: int, hardware: Hardware, simulation: Simulation
) -> dict[str, Any]:
    """The whole report. Cycles are clock cycles; ``multiplier_busy`` is a fraction of all multipliers' cycles."""
    outcome, cycles = simulation.outcome, simulation.cycles_per_step
    return _training(workload, result, simulation) | {
        **hardware_facts(hardware),
        "simulator": simulation.simulator,
        "identity": f"{outcome.identity:016x}",
        "least_multiplications": least_multiplications,
        "cycles_per_step": cycles,
        "cycles_scheduled": hardware.cycles_per_step,
        "cycles_readback": outcome.readback_cycles,
        "cycles_load": outcome.load_cycles,
        "cycles_predict": outcome.predict_cycles,
        "cycles_simulated": outcome.total_cycles,
        "multiplier_busy": least_multiplications / (hardware.multipliers * cycles),
        "words_compared": simulation.words_compared,
        "mismatches": simulation.mismatches,
        "differences": list(simulation.differences),
        "saturations": simulation.saturations,
    }


def hardware_facts(hardware: Hardware) -> dict[str, Any]:
    """The hardware's sizes. ``block_rams`` are iCE40's, of ``block_ram_kbit`` together, data set excluded."""
    program = hardware.program
    memory = block_rams(program)
    return {
        "batch": program.batch,
        "lanes": hardware.lanes,
        "multipliers": hardware.multipliers,
        "tile": program.tile,
        "tiles": program.tiles,
        "slow_words": program.slow_words,
        "block_rams": memory.blocks,
        "block_ram_kbit": memory.kbit,
    }


def _training(workload: Workload, result: Result, simulation: Simulation | None) -> dict[str, Any]:
    runs: dict[str, Run] = {"float": result.float, "reference": result.reference}
    training: dict[str, Score | None] = {name: run.training for name, run in runs.items()}
    training["rtl"] = scorer(workload, workload.y)(simulation.predictions) if simulation else None
    report: dict[str, Any] = {
        "model": workload.name,
        "numbers": result.numbers,
        "batch": workload.batch_size,
        "steps": result.steps,
        "seed": result.seed,
        "loss": _scores("loss", training),
        "accuracy": _scores("accuracy", training),
        "recent_loss": {name: run.recent_loss for name, run in runs.items()},
        "curve": {name: [list(point) for point in run.curve] for name, run in runs.items()},
        "advice": list(result.quantized.advice),
    }
    if workload.heldout is not None:
        heldout: dict[str, Score | None] = {name: run.heldout for name, run in runs.items()}
        found = simulation.heldout if simulation else None
        heldout["rtl"] = scorer(workload, workload.heldout[1])(found) if found is not None else None
        report["heldout"] = {"loss": _scores("loss", heldout), "accuracy": _scores("accuracy", heldout)}
    return report
