"""How far the schedules of dense networks stay below what their rows and words allow.

``python -m benchmarks.ceilings [--count N] [--first SEED]`` schedules random dense networks on random numbers of lanes.
A network's *ceiling* is the busy share that its vector axes would allow if no kernel ever waited: rows that are partly
filled, samples beyond the batch and products that are no multiplications are in it, bubbles and gaps are not. Its
*reach* waits for data, too: a step takes at least the cycles from a read of a parameter to the next step's, where each
kernel starts as soon as what it reads is written, whatever else uses lanes and ports.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from catgrad_hw import layers
from catgrad_hw.ir.cost import multiplications
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.types import Dtype, NdArrayType
from catgrad_hw.numbers.pipeline import quantize_workload
from catgrad_hw.schedule.events import events
from catgrad_hw.schedule.program import MachineKernel, Program
from catgrad_hw.schedule.scheduler import schedule
from catgrad_hw.schedule.view import BUBBLE, GAP, account
from catgrad_hw.workload import Workload

LANES = (3, 4, 8, 12, 16, 32)
SHORT = 1000
"""Steps of fewer cycles are counted apart: the latency of the pipeline, some 20 cycles a layer, shows in them."""


@dataclass(frozen=True)
class Row:
    """A network of ``widths``, and its busy share and ceiling on ``lanes`` lanes."""

    widths: tuple[int, ...]
    batch: int
    lanes: int
    cycles: int
    busy: float
    ceiling: float
    reach: float

    @property
    def points(self) -> float:
        """Per cent below the ceiling."""
        return 100 * (self.ceiling - self.busy)

    @property
    def points_of_reach(self) -> float:
        """Per cent below what data allow."""
        return 100 * (self.reach - self.busy)


def network(seed: int) -> tuple[Workload, int]:
    """Two to four layers of sigmoids of 3 to 96 units, a batch of 8 to 150, and a number of lanes."""
    chosen = random.Random(seed)
    batch = chosen.choice([8, 16, 20, 32, 50, 64, 128, 150])
    widths = [chosen.randint(3, chosen.choice([8, 24, 96])) for _ in range(chosen.randint(2, 4))]
    samples, *units = (NdArrayType((n,), Dtype.float32) for n in (batch, *widths))
    parts = [layers.dense(samples, a, b, activation=layers.sigmoid) for a, b in itertools.pairwise(units)]
    data = np.random.default_rng(seed)
    x, y = data.random((batch, widths[0])), data.random((batch, widths[-1]))
    model = functools.reduce(lambda f, g: f >> g, parts)
    workload = Workload(model, layers.sgd(0.05), layers.mse, x, y, name="-".join(map(str, widths)))
    return workload, chosen.choice(LANES)


def recurrence(program: Program, kernels: Sequence[MachineKernel], runs: int = 4) -> int:
    """Cycles from one run of ``kernels`` to the next, if each waits for what it reads and for nothing else."""
    found = [events(program, kernel) for kernel in kernels]
    written = {name: np.full(bank.depth, -1) for name, bank in program.banks.items()}
    ends = []
    for _ in range(runs):
        for uses in found:
            start = max(int((written[use.unit][use.rows] + 1 - use.cycles).max()) for use in uses.reads)
            for use in uses.writes:
                written[use.unit][use.rows] = use.cycles + start
        ends.append(start)
    return ends[-1] - ends[-2]


def measure(seed: int) -> Row:
    """Schedule the network of a seed."""
    workload, lanes = network(seed)
    program = schedule(quantize_workload(workload, calibration_steps=3).integer, lanes)
    routine = program.routine("step")
    found = account(program, routine, multiplications(simplify(joint_graph(workload.learner))))
    waiting = sum(idle.cycles for idle in found.idle if idle.cause in (GAP, BUBBLE))
    widths = tuple(map(int, workload.name.split("-")))
    ceiling = found.least / (found.total - waiting)
    reach = min(ceiling, found.least / (lanes * recurrence(program, (*routine.tile.kernels, *routine.final.kernels))))
    return Row(widths, len(workload.x), lanes, routine.period, found.busy, ceiling, reach)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.first, arguments.first + arguments.count):
        row = measure(seed)
        rows.append(row)
        net = "-".join(map(str, row.widths))
        print(
            f"{net:>14}, batch {row.batch:3}, {row.lanes:2} lanes: {row.cycles:6} cycles, busy {row.busy:6.1%}, "
            f"ceiling {row.ceiling:6.1%}, {row.points:4.1f} points below, reach {row.reach:6.1%}",
            flush=True,
        )
    for name, some in (
        (f"steps of {SHORT} cycles and more", [row for row in rows if row.cycles >= SHORT]),
        ("shorter steps", [row for row in rows if row.cycles < SHORT]),
    ):
        if some:
            within = sum(row.points <= 4 for row in some)
            print(
                f"{name}: {within} of {len(some)} within 4 points, at most {max(r.points for r in some):.1f} below; "
                f"at most {max(r.points_of_reach for r in some):.1f} below what data allow"
            )


if __name__ == "__main__":
    main()
