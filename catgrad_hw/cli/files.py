"""Files that the command line reads and writes. A file is written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catgrad_hw.errors import DataError, ModelError
from catgrad_hw.files import read_arrays, write_arrays
from catgrad_hw.files import write as write
from catgrad_hw.workload import Workload


def check_writable(option: str, path: Path | None) -> None:
    """Refuse a file that could not be written, before the work whose result it takes."""
    if path is not None and not path.parent.is_dir():
        raise ModelError(f"{option} {path}: expected an existing folder, found none at {path.parent}; make it first")
    if path is not None and path.is_dir():
        raise ModelError(f"{option} {path}: expected a file, found a folder; give a file's name")


def write_all(directory: Path, files: Mapping[str, str]) -> list[Path]:
    """Write ``files``, by name, into ``directory``, which is made where it is missing."""
    if directory.exists() and not directory.is_dir():
        raise ModelError(f"-o {directory}: expected a folder, found a file; give another name")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write(directory / name, content)
    return [directory / name for name in files]


def save_parameters(path: Path, parameters: Sequence[NDArray[np.float64]]) -> None:
    """Write parameters as ``p0, p1, …`` of an .npz file."""
    write_arrays(path, {f"p{index}": array for index, array in enumerate(parameters)})


def with_parameters(workload: Workload, path: Path) -> Workload:
    """``workload``, started from the parameters that :func:`save_parameters` wrote."""
    try:
        arrays = read_arrays(path)
        parameters = tuple(arrays[f"p{index}"] for index in range(len(arrays)))
    except FileNotFoundError:
        raise DataError(f"--load {path}: expected a file of parameters, found none; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"--load {path}: expected an .npz of p0, p1, … as --save writes, found {error}") from None
    except KeyError:
        names = ", ".join(arrays)
        raise DataError(f"--load {path}: expected an .npz of p0, p1, … as --save writes, found {names}") from None
    return replace(workload, parameters=parameters)
