"""Runs a job in a simulator: builds (cached by content), runs in a process of its own, streams the records back."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from amaranth.lib.wiring import Component

from catgrad_hw.errors import ModelError, SimulationError, ToolError
from catgrad_hw.simulate import tools, worker
from catgrad_hw.simulate.job import Job, Outcome, Record

POLL = 0.05  # seconds between looks at a running simulation
AHEAD = 3600.0  # seconds, more than a build takes


def choose_simulator(name: str | None = None) -> str:
    """``name`` if it can run here; by default Verilator, or Amaranth's simulator where Verilator cannot run."""
    if name is None:
        return "amaranth" if tools.missing("verilator") else "verilator"
    if name not in tools.SIMULATORS:
        raise ModelError(f"simulator: expected one of {', '.join(tools.SIMULATORS)}, found {name!r}")
    tools.require_simulator(name)
    return name


def start_worker(
    simulator: str,
    arguments: list[str],
    directory: Path,
    variables: dict[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    start_new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """A process of :mod:`catgrad_hw.simulate.worker` in ``directory``, whose ``log.txt`` takes what it prints."""
    environment = tools.simulator_environment(simulator) | variables
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with (directory / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", worker.__name__, *arguments],
            cwd=directory,
            env=environment,
            stdin=stdin,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=start_new_session,
        )


def log_tail(directory: Path) -> str:
    """The line of a worker's log that tells most: a tool's first error, or else Python's."""
    lines = (directory / "log.txt").read_text(errors="replace").splitlines()
    trace = next((number for number, line in enumerate(lines) if line.startswith("Traceback")), len(lines))
    tools_own = [line for line in lines[:trace] if "rror" in line]
    telling = tools_own[:1] or [line for line in lines if "rror" in line] or lines
    return telling[-1].strip() if telling else "no output"


def build(verilog: str, simulator: str, *, bench: str = "core", waves: bool = False, quick: bool = False) -> Path:
    """Directory of the compiled simulation of ``verilog``, whose top module is that of ``bench``, one of
    ``catgrad_hw.simulate.worker.BENCHES``; made where the cache lacks it.

    ``quick``: little will be simulated, so that a simulation that is slower, but sooner built, will do.
    """
    cache = tools.cache_directory() / "builds"
    settings = (tools.version(simulator), tools.compiler().version, Path(worker.__file__).read_text())
    runtime = cache / f"{simulator}-runtime-{_hash(*settings)}"
    target = cache / f"{simulator}-{_hash(verilog, bench, str(waves), *settings)}"
    if target.exists():
        return target
    quick = quick and simulator == "verilator"
    if quick:
        target = target.with_name(f"{target.name}-quick")
        if target.exists():
            return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=cache) as name:
        directory = Path(name)
        source = directory / "core.v"
        source.write_text(verilog)
        result = directory / "result"
        result.mkdir()
        ahead = time.time() + AHEAD
        for compiled in runtime.glob("*.o"):
            # Dated ahead: what is older than the makefile, which is yet to be written, would be compiled again.
            copy = shutil.copy(compiled, result)
            os.utime(copy, (ahead, ahead))
        options = [name for name, wanted in (("waves", waves), ("quick", quick)) if wanted]
        arguments = ["build", bench, simulator, str(result), str(source), *options]
        if start_worker(simulator, arguments, directory, {}).wait():
            kept = Path(tempfile.mkdtemp(prefix="catgrad-hw-")) / "build.log"
            shutil.copy(directory / "log.txt", kept)
            raise ToolError(f"{simulator}: cannot compile the Verilog: {log_tail(directory)} (log: {kept})")
        if simulator == "verilator":
            # Verilator's library is the same for every design, and half of the work; with waves, it is one file more.
            runtime.mkdir(exist_ok=True)
            for compiled in result.glob("verilated*.o"):
                if not (kept := runtime / compiled.name).exists():
                    shutil.copy(compiled, directory / "library")
                    (directory / "library").replace(kept)
        _publish(result, target)
    return target


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _publish(directory: Path, target: Path) -> None:
    """Put a finished folder where others look for it, unless another process was first, with the same content."""
    try:
        directory.rename(target)
    except OSError:
        if not target.exists():
            raise


@contextmanager
def _running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Do not leave the simulator running when its observer stops."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def run_verilog(
    verilog: str, simulator: str, job: Job, record: Record, waves: Path | None = None, *, quick: bool = False
) -> Outcome:
    """Run ``job`` on Verilog whose top module is ``core``; ``record`` is called while the simulation goes on."""
    if waves is not None and simulator == "icarus":
        raise ModelError("simulation: --vcd expects the simulator verilator or amaranth, found icarus; change one")
    built = build(verilog, simulator, waves=waves is not None, quick=quick)
    with tempfile.TemporaryDirectory(prefix="catgrad-hw-") as name:
        directory = Path(name)
        job.save(directory / "job.npz")
        words = directory / "words.bin"
        words.touch()
        arguments = ["run", "core", simulator, str(built), *([str(waves.resolve())] if waves else [])]
        process = start_worker(simulator, arguments, directory, {"CATGRAD_HW_JOB": name})
        with _running(process), words.open("rb") as stream:
            size, pending = 8 * job.parameters.size, b""
            while True:
                ended = process.poll() is not None
                pending += stream.read()
                while len(pending) >= size:
                    record(np.frombuffer(pending[:size], dtype="<i8").astype(np.int64))
                    pending = pending[size:]
                if ended:
                    break
                time.sleep(POLL)
        if (directory / "outcome.json").exists():
            return Outcome.load(directory / "outcome.json")
        error = directory / "error.txt"
        reason = error.read_text() if error.exists() else log_tail(directory)
        seed = "" if job.backpressure is None else f" (back-pressure seed {job.backpressure})"
        raise SimulationError(f"{simulator}: {reason}{seed}")


def run(
    simulator: str,
    job: Job,
    record: Record,
    *,
    verilog: Callable[[], str],
    component: Callable[[], Component],
    waves: Path | None = None,
    quick: bool = False,
) -> Outcome:
    """Run ``job`` in ``simulator``, on ``verilog()`` or, in Amaranth's simulator, on ``component()``; ``quick`` as for
    :func:`build`."""
    if simulator == "amaranth":
        from catgrad_hw.simulate import amaranth_bench

        return amaranth_bench.run(component(), job, record, waves)
    return run_verilog(verilog(), simulator, job, record, waves, quick=quick)
