"""The kernels of iris-linear and iris-hidden written by hand, and their integer programs.

They serve as an independent specimen of what lowering produces, and let the levels below be tested without the
levels above.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from catgrad_hw.ir.kernel import (
    Access,
    Apply,
    Array,
    Constant,
    Expression,
    Kernel,
    KernelProgram,
    Loop,
    Read,
    Reduced,
    SideSum,
    Write,
)
from catgrad_hw.numbers.calibrate import Ranges, calibrate
from catgrad_hw.numbers.formats import policy
from catgrad_hw.numbers.integer import IntegerProgram
from catgrad_hw.numbers.quantize import quantize
from catgrad_hw.workload import Workload
from catgrad_hw.workloads import load_iris


def apply(operation: str, *arguments: Expression) -> Apply:
    return Apply(operation, arguments)


@dataclass(frozen=True)
class Axis:
    name: str
    size: int


class Nest:
    """Builds kernels whose arrays are indexed by named axes: ``nest.read(kernel_axes, "x", "bi")``."""

    def __init__(self, sizes: dict[str, int], arrays: dict[str, str]) -> None:
        self.sizes, self.axes = sizes, arrays

    def access(self, order: str, array: str) -> Access:
        strides = dict.fromkeys(order, 0)
        pitch = 1
        for axis in reversed(self.axes[array]):
            strides[axis] = pitch
            pitch *= self.sizes[axis]
        return Access(array, 0, tuple(strides[axis] for axis in order))

    def read(self, order: str, array: str) -> Read:
        return Read(self.access(order, array))

    def loops(self, order: str) -> tuple[Loop, ...]:
        return tuple(Loop(axis, self.sizes[axis], batch=axis == "b") for axis in order)

    def shape(self, array: str) -> tuple[int, ...]:
        return tuple(self.sizes[axis] for axis in self.axes[array])


def _arrays(nest: Nest, roles: dict[str, Any]) -> dict[str, Array]:
    return {
        name: Array(
            name,
            nest.shape(name),
            roles.get(name, "intermediate"),
            nest.axes[name].index("b") if "b" in nest.axes[name] else None,
        )
        for name in nest.axes
    }


R = Reduced()


def linear(
    batch: int = 150, inputs: int = 4, outputs: int = 3, rate: float = 1e-4, power: bool = False
) -> KernelProgram:
    """x W, no bias and no activation. ``power``: the update is fused into the gradient's kernel."""
    n = Nest({"b": batch, "i": inputs, "k": outputs}, {"p0": "ik", "x": "bi", "y": "bk", "e": "bk", "yhat": "bk"})
    if not power:
        n.axes["g_p0"] = "ik"

    def forward(array: str, value: Expression) -> Kernel:
        body = apply("multiply", n.read("kbi", "x"), n.read("kbi", "p0"))
        return Kernel("z", n.loops("kbi"), 1, body, "sum", (Write(n.access("kbi", array), value),))

    product = apply("multiply", n.read("ikb", "x"), n.read("ikb", "e"))
    fused = apply("subtract", n.read("ikb", "p0"), apply("multiply", Constant(rate), R))
    gradient = Kernel(
        "g_p0",
        n.loops("ikb"),
        1,
        product,
        "sum",
        (Write(n.access("ikb", "p0"), fused) if power else Write(n.access("ikb", "g_p0"), R),),
    )
    step = [forward("e", apply("subtract", R, n.read("kbi", "y"))), gradient]
    if not power:
        step.append(update(n, "p0", "ik", rate))
    roles = {"p0": "parameter", "x": "input", "y": "target", "yhat": "output"}
    return KernelProgram(
        arrays=_arrays(n, roles),
        programs={"step": tuple(step), "predict": (forward("yhat", R),)},
        parameters=("p0",),
        inputs=("x",),
        targets=("y",),
        outputs=("yhat",),
        batch=batch,
    )


def update(n: Nest, parameter: str, axes: str, rate: float) -> Kernel:
    body = apply("multiply", Constant(rate), n.read(axes, f"g_{parameter}"))
    value = apply("subtract", n.read(axes, parameter), R)
    return Kernel(f"u_{parameter}", n.loops(axes), 0, body, None, (Write(n.access(axes, parameter), value),))


def hidden(
    batch: int = 150, inputs: int = 4, middle: int = 20, outputs: int = 3, rate: float = 1e-2, power: bool = False
) -> KernelProgram:
    """Two dense layers with sigmoids. p0 (i, j), p1 (j), p2 (j, k), p3 (k).

    ``power``: ``rate`` is a power of two, and the updates are fused into the gradients' kernels.
    """
    n = Nest(
        {"b": batch, "i": inputs, "j": middle, "k": outputs},
        {
            "p0": "ij",
            "p1": "j",
            "p2": "jk",
            "p3": "k",
            "x": "bi",
            "y": "bk",
            "a1": "bj",
            "s1": "bj",
            "e": "bk",
            "s2": "bk",
            "d2": "bk",
            "c1": "bj",
            "d1": "bj",
            "yhat": "bk",
        },
    )
    parameters = ("p0", "p1", "p2", "p3")
    if not power:
        n.axes.update({f"g_{p}": n.axes[p] for p in parameters})

    def target(order: str, parameter: str) -> tuple[Access, Expression]:
        if power:
            change = apply("multiply", Constant(rate), R)
            return n.access(order, parameter), apply("subtract", n.read(order, parameter), change)
        return n.access(order, f"g_{parameter}"), R

    def layer(name: str, order: str, source: str, weight: str, bias: str, writes: dict[str, Expression]) -> Kernel:
        body = apply("multiply", n.read(order, source), n.read(order, weight))
        stores = tuple(Write(n.access(order, array), value) for array, value in writes.items())
        return Kernel(name, n.loops(order), 1, body, "sum", stores)

    def product(name: str, order: str, a: str, b: str, array: str) -> Kernel:
        body = apply("multiply", n.read(order, a), n.read(order, b))
        return Kernel(name, n.loops(order), 1, body, "sum", (Write(n.access(order, array), R),))

    def weight(order: str, a: str, b: str, parameter: str) -> Kernel:
        body = apply("multiply", n.read(order, a), n.read(order, b))
        return Kernel(f"g_{parameter}", n.loops(order), 1, body, "sum", (Write(*target(order, parameter)),))

    def delta(name: str, order: str, a: str, b: str, bias: str) -> Kernel:
        body = apply("multiply", n.read(order, a), n.read(order, b))
        side = SideSum(0, ("b",), *target(order, bias))
        return Kernel(name, n.loops(order), 0, body, None, (Write(n.access(order, name), R),), (side,))

    z1 = apply("add", R, n.read("jbi", "p1"))
    z2 = apply("add", R, n.read("kbj", "p3"))
    a1, s1 = apply("sigmoid", z1), apply("sigmoid_derivative", z1)
    a2, s2 = apply("sigmoid", z2), apply("sigmoid_derivative", z2)
    error = apply("subtract", a2, n.read("kbj", "y"))
    step = [
        layer("a1", "jbi", "x", "p0", "p1", {"a1": a1, "s1": s1}),
        layer("a2", "kbj", "a1", "p2", "p3", {"e": error, "s2": s2}),
        # The kernel that reads p2 goes before all that may update it in place.
        delta("d2", "kb", "e", "s2", "p3"),
        product("c1", "jbk", "d2", "p2", "c1"),
        delta("d1", "jb", "c1", "s1", "p1"),
        weight("jkb", "a1", "d2", "p2"),
        weight("ijb", "x", "d1", "p0"),
    ]
    if not power:
        step += [update(n, p, n.axes[p], rate) for p in parameters]
    predict = [
        layer("a1", "jbi", "x", "p0", "p1", {"a1": a1}),
        layer("a2", "kbj", "a1", "p2", "p3", {"yhat": a2}),
    ]
    roles = {**dict.fromkeys(parameters, "parameter"), "x": "input", "y": "target", "yhat": "output"}
    return KernelProgram(
        arrays=_arrays(n, roles),
        programs={"step": tuple(step), "predict": tuple(predict)},
        parameters=parameters,
        inputs=("x",),
        targets=("y",),
        outputs=("yhat",),
        batch=batch,
    )


class HandWorkload(Workload):
    """Data and parameter shapes for a kernel program, without a model."""

    def __init__(self, program: KernelProgram, x: Any, y: Any, name: str) -> None:
        arrays = program.arrays
        vars(self).update(
            parameter_shapes=tuple(arrays[p].shape for p in program.parameters),
            input_shape=arrays[program.inputs[0]].shape,
            output_shape=arrays[program.targets[0]].shape,
        )
        super().__init__(model=None, optimizer=None, loss=None, x=x, y=y, name=name)


PROGRAMS = {"iris-linear": linear, "iris-hidden": hidden}


@cache
def by_hand(name: str, steps: int = 1000) -> tuple[KernelProgram, HandWorkload, Ranges]:
    """The kernels of ``iris-linear`` or ``iris-hidden``, their workload and its ranges."""
    program = PROGRAMS[name]()
    workload = HandWorkload(program, *load_iris(), name=name)
    return program, workload, calibrate(program, workload, steps)


def integer_by_hand(name: str, numbers: str = "16", steps: int = 1000) -> IntegerProgram:
    """The integer program of ``iris-linear`` or ``iris-hidden`` in the numbers of a preset."""
    program, _, ranges = by_hand(name, steps)
    return quantize(program, ranges, policy(numbers))


def accuracy(predictions: Any, y: Any) -> float:
    return float(np.mean(np.argmax(predictions, axis=1) == np.argmax(y, axis=1)))
