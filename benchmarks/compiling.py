"""How long compiling takes, beside catgrad 0.2.2, and how it grows with the model.

``python -m benchmarks.compiling``, in an environment that has catgrad 0.2.2 (``pip install -e '.[catgrad]'``; without
it, catgrad's column is left out), prints CPU seconds to build a stack of dense 8-8 layers and to compile its step for
NumPy. Each is the least of a few runs, taken in turn.
"""

from __future__ import annotations

import argparse
import json
import time
from types import ModuleType

import catgrad_hw
from catgrad_hw import import_catgrad
from catgrad_hw.errors import ModelError

SHORT, DEEP = 128, 1000
BATCH, UNITS = 32, 8
RUNS = 4


def seconds(package: ModuleType, depth: int) -> float:
    """CPU seconds for ``depth`` layers; ``package`` is catgrad_hw or catgrad, whose names are the same."""
    start = time.process_time()
    layers = package.layers
    batch, width = (package.NdArrayType((n,), package.Dtype.float32) for n in (BATCH, UNITS))
    model = layers.dense(batch, width, width)
    for _ in range(depth - 1):
        model = model >> layers.dense(batch, width, width)
    package.compile_model(model, layers.sgd(0.01), layers.mse)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each, of which the least counts")
    runs = parser.parse_args().runs
    try:
        catgrad: ModuleType | None = import_catgrad()
    except ModelError as error:
        catgrad = None
        print(error)
    for package in (catgrad_hw, catgrad) if catgrad else (catgrad_hw,):
        seconds(package, 2)  # has imported and warmed up what it needs
    times: dict[str, list[float]] = {}
    for _ in range(runs):
        times.setdefault("catgrad_hw_128", []).append(seconds(catgrad_hw, SHORT))
        times.setdefault("catgrad_hw_1000", []).append(seconds(catgrad_hw, DEEP))
    for _ in range(2 if catgrad else 0):
        times.setdefault("catgrad_128", []).append(seconds(catgrad, SHORT))  # type: ignore[arg-type]
    least = {name: min(found) for name, found in times.items()}
    print(json.dumps(least))
    ours, deep = least["catgrad_hw_128"], least["catgrad_hw_1000"]
    if catgrad:
        theirs = least["catgrad_128"]
        print(f"{SHORT} layers: catgrad {theirs:.2f} s, catgrad_hw {ours:.2f} s: {theirs / ours:.1f} times less")
    print(f"{DEEP} layers: catgrad_hw {deep:.2f} s: {deep / ours:.1f} times that of {SHORT}")


if __name__ == "__main__":
    main()
