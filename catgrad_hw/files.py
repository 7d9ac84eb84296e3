"""Files are written whole or not at all; archives of arrays are read with care."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically."""
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # as any new file; mkstemp's own are private
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz atomically."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write(path, stream.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz by name.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none, or damaged.
    """
    data = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(data):
        raise ValueError("a file that is none, or not all of one")
    try:
        with np.load(data, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # of damaged bytes zipfile and NumPy raise whatever they stumble over
        raise ValueError(f"a damaged one: {' '.join(str(error).split())}") from None
