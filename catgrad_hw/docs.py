"""The pages of docs/layers, made from docstrings: ``python -m catgrad_hw.docs docs/layers`` writes them."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catgrad_hw import layers

KINDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "Layers": {
        "linear": (layers.linear,),
        "dense": (layers.dense,),
        "bias": (layers.bias,),
        "shared_bias": (layers.shared_bias,),
        "conv2d": (layers.conv2d,),
        "max_pool2d": (layers.max_pool2d,),
        "average_pool2d": (layers.average_pool2d,),
        "flatten": (layers.flatten,),
        "layer_norm": (layers.layer_norm,),
        "residual": (layers.residual,),
    },
    "Activations": {
        "sigmoid": (layers.sigmoid, layers.Sigmoid),
        "tanh": (layers.tanh, layers.Tanh),
        "relu": (layers.relu,),
        "leaky_relu": (layers.leaky_relu,),
        "softmax": (layers.softmax, layers.Softmax),
    },
    "Losses": {
        "mse": (layers.mse, layers.MSE),
        "mean_squared_error": (layers.mean_squared_error, layers.MeanSquaredError),
        "cross_entropy": (layers.cross_entropy, layers.CrossEntropy),
        "huber": (layers.huber, layers.Huber),
    },
    "Optimizers": {
        "sgd": (layers.sgd, layers.SGD),
        "momentum": (layers.momentum, layers.Momentum),
        "adam": (layers.adam, layers.Adam),
    },
}
"""What has a page: the function that users call, then the operation behind it whose docstring has the formula."""


def pages() -> dict[str, str]:
    """The pages by file name."""
    result = {}
    contents = [
        "# Layers, activations, losses and optimizers",
        "",
        "All are in `catgrad_hw.layers`. Types of arrays are written `A + B`: the axes of `A`, then those of `B`.",
    ]
    for kind, members in KINDS.items():
        contents += ["", f"## {kind}", "", "| name | what it computes |", "|---|---|"]
        for name, (function, *operations) in members.items():
            result[f"{name}.md"] = _page(name, function, operations)
            summary = _text((*operations, function)[0]).split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            contents.append(f"| [{name}]({name}.md) | {summary} |")
    result["README.md"] = "\n".join(contents) + "\n"
    return result


def _page(name: str, function: Callable[..., Any], operations: list[Any]) -> str:
    lines = [f"# {name}", "", "```python", f"layers.{name}{_signature(name, function)}", "```"]
    documented = [function] if name in vars(layers) and _is_own(function) else []
    for member in (*documented, *operations):
        lines += ["", _text(member)]
    return "\n".join(lines) + "\n"


def _is_own(function: Any) -> bool:
    """Whether a function has a docstring of its own: the maps at each object have not."""
    return inspect.isfunction(function) and function.__name__ != "lifted"


def _signature(name: str, function: Callable[..., Any]) -> str:
    if not _is_own(function):
        return "(X: Object) -> OpenHypergraph"
    text = str(inspect.signature(function)).replace("'", "")
    return re.sub(r"<function .*? at 0x[0-9a-f]+>", "sigmoid", text)  # the one default that is a function


def _text(member: Any) -> str:
    """A docstring in Markdown."""
    text = inspect.getdoc(member) or ""
    text = re.sub(r"\*(?=\w)", r"\\*", text)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def main() -> None:
    """Write the pages into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
