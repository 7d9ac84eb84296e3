"""Data of one's own: a table in a CSV file, one row a sample."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from catgrad_hw.errors import DataError
from catgrad_hw.workload import Floats, Workload


@dataclass(frozen=True)
class Table:
    """``x`` in the shape of the model's inputs and, where there is a label, ``y`` in that of its outputs, both with the
    samples first; ``classes``: what each output stands for, where labels are classes."""

    x: Floats
    y: Floats | None
    classes: tuple[str, ...]


def read_table(path: Path, workload: Workload, label: str | None) -> Table:
    """Read a CSV file whose first row names the columns.

    The column ``label`` holds the class, any text; classes take the outputs in order, numbers by value and other text
    by alphabet. Of a model with a single output, a label that is a number is the output itself. All other columns are
    the inputs, in order. Without ``label``, all columns are.

    Raises:
        DataError: the file cannot be read or does not fit the model; the message says where.
    """
    header, rows = _read(path)
    if label is not None and label not in header:
        raise DataError(f"{path}: expected a column {label!r}, found {', '.join(header)}; choose --label among them")
    names = [name for name in header if name != label]
    inputs = prod(workload.input_shape[1:])
    if len(names) != inputs:
        raise DataError(
            f"{path}: expected {inputs} columns {'beside the label, ' if label else ''}as the model has inputs, found "
            f"{len(names)}: {', '.join(names)}"
        )
    found = [[_number(path, line, name, row[name]) for name in names] for line, row in rows]
    x = np.array(found, np.float32).reshape(-1, *workload.input_shape[1:])
    if label is None:
        return Table(x, None, ())
    y, classes = _labels(path, [(line, row[label]) for line, row in rows], label, prod(workload.output_shape[1:]))
    return Table(x, y.reshape(-1, *workload.output_shape[1:]), classes)


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The names of the columns, and the rows with their line numbers; blank lines are left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except FileNotFoundError:
        raise DataError(f"{path}: expected a CSV file, found none; check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a CSV file in UTF-8, found: {' '.join(str(error).split())}") from None
    if len(lines) < 2:
        raise DataError(f"{path}: expected a row of names and rows of data, found {len(lines)} rows")
    header = lines[0][1]
    if len(header) == 1 and ";" in header[0]:
        raise DataError(f"{path}: expected commas between columns, found semicolons; save the table with commas")
    if all(_is_number(name) for name in header):
        raise DataError(
            f"{path}: expected the names of the columns in the first row, found numbers; add a row of names"
        )
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: expected columns of different names, found {', '.join(doubled)} more than once")
    for line, row in lines[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: expected {len(header)} columns, found {len(row)}")
    return header, [(line, dict(zip(header, row, strict=True))) for line, row in lines[1:]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, column: str, text: str) -> float:
    if not _is_number(text):
        found = repr(text) if text else "an empty cell"
        raise DataError(f"{path}, line {line}, column {column}: expected a number, found {found}")
    value = float(text)
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise DataError(
            f"{path}, line {line}, column {column}: expected a finite number, found {text}; fill in the value or leave "
            "the row out"
        )
    return value


def _labels(path: Path, cells: list[tuple[int, str]], label: str, outputs: int) -> tuple[Floats, tuple[str, ...]]:
    """The targets, one row a sample, and the classes."""
    empty = [line for line, text in cells if not text]
    if empty:
        raise DataError(f"{path}, line {empty[0]}, column {label}: expected a label, found an empty cell")
    texts = {text for _, text in cells}
    numeric = all(_is_number(text) for text in texts)
    if outputs == 1 and numeric:
        return np.array([[_number(path, line, label, text)] for line, text in cells], np.float32), ()
    classes = sorted(texts, key=lambda text: (float(text), text) if numeric else (0.0, text))
    if len(classes) != outputs:
        some = ", ".join(classes[:8]) + (", …" if len(classes) > 8 else "")
        raise DataError(
            f"{path}, column {label}: expected {outputs} classes, as the model has outputs, found {len(classes)}: "
            f"{some}"
        )
    return np.eye(outputs, dtype=np.float32)[[classes.index(text) for _, text in cells]], tuple(classes)
