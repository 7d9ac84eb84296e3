"""Workloads: a model, how it is trained, and the data that it is trained on."""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catgrad_hw.errors import DataError, ModelError
from catgrad_hw.ir.hypergraph import identity, op, tensor
from catgrad_hw.ir.operations import Parameter
from catgrad_hw.ir.rebatch import rebatch

if TYPE_CHECKING:
    from catgrad_hw.compile import Learner

Floats = NDArray[np.float32]

INITIAL_DEVIATION = 0.01
"""Standard deviation of the normal distribution that initial parameters are drawn from, as in catgrad's examples."""


@dataclass(frozen=True, eq=False)
class Workload:
    """What is trained, how, and on what.

    ``model``, ``optimizer`` and ``loss`` are those of :func:`catgrad_hw.compile_model`; the batch size is the first
    axis of the model's input. ``x`` and ``y`` are arrays whose first axis is the samples and whose other axes are
    the model's; batches are consecutive rows, in order, wrapping round. Optional: ``parameters``, the initial ones
    in the model's order; ``heldout``, a pair ``(x, y)`` of data to be measured on and not trained on.

    Arrays become float32. Raises :class:`DataError` where data do not fit the model, are not finite, or are integers
    that float32 cannot hold.
    """

    model: Any
    optimizer: Any
    loss: Any
    x: Floats
    y: Floats
    parameters: tuple[Floats, ...] | None = None
    heldout: tuple[Floats, Floats] | None = None
    name: str = "workload"

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Any,
        x: ArrayLike,
        y: ArrayLike,
        parameters: Sequence[ArrayLike] | None = None,
        heldout: tuple[ArrayLike, ArrayLike] | None = None,
        name: str = "workload",
    ) -> None:
        def put(field: str, value: Any) -> None:
            object.__setattr__(self, field, value)

        put("model", model)
        put("optimizer", optimizer)
        put("loss", loss)
        put("name", name)
        put("x", self._samples("x", x, self.input_shape))
        put("y", self._samples("y", y, self.output_shape))
        if len(self.x) != len(self.y):
            raise DataError(f"{name}: expected as many samples in y as in x, found {len(self.y)} and {len(self.x)}")
        if len(self.x) < self.batch_size:
            raise DataError(
                f"{name}: expected at least one batch of {self.batch_size} samples, found {len(self.x)}; "
                "give more, or build the model with a smaller batch"
            )
        put("parameters", None if parameters is None else self._checked_parameters(parameters))
        put("heldout", None if heldout is None else self._checked_heldout(heldout))

    @cached_property
    def learner(self) -> Learner:
        """The compiled open hypergraphs of the model: ``predict``, ``step`` and the types of their arguments."""
        from catgrad_hw.compile import learner  # imported here, because the front end re-exports Workload

        return learner(self.model, self.optimizer, self.loss)

    @cached_property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the parameters, in the model's order."""
        return tuple(tuple(t.shape) for t in self.learner.parameter_types)

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one batch of x."""
        return self._one("input", self.learner.input_types)

    @cached_property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one batch of y."""
        shape = self._one("output", self.learner.output_types)
        if shape[0] != self.batch_size:
            raise ModelError(
                f"{self.name}: expected an output of {self.batch_size} samples as the input has, found {shape[0]}; "
                "the first axis of both must be the batch"
            )
        return shape

    @property
    def batch_size(self) -> int:
        """Samples in a batch: the first axis of the model's input."""
        return self.input_shape[0]

    def batch(self, step: int) -> tuple[Floats, Floats]:
        """The data ``(x, y)`` of a training step (from 0): consecutive rows, wrapping round."""
        rows = (step * self.batch_size + np.arange(self.batch_size)) % len(self.x)
        return self.x[rows], self.y[rows]

    def with_batch(self, batch: int) -> Workload:
        """The same workload with batches of ``batch`` samples, whatever batch the model was built with.

        Raises :class:`ModelError` or :class:`UnsupportedError` where the model cannot have another batch
        (:func:`catgrad_hw.ir.rebatch.rebatch`), and :class:`DataError` where there are fewer samples.
        """
        from catgrad_hw.compile import factor_parameters

        if batch < 1:
            raise ModelError(f"{self.name}: expected a batch of 1 sample or more, found {batch}")
        if batch == self.batch_size:
            return self
        P, f = factor_parameters(self.model)
        rebatched = rebatch(f, len(P), batch)
        X = rebatched.source[len(P) :]
        return replace(self, model=(tensor(*(op(Parameter(T)) for T in P)) @ identity(X)) >> rebatched)

    def initial_parameters(self, seed: int = 0) -> tuple[Floats, ...]:
        """The workload's own initial parameters or, where it has none, draws from N(0, 0.01) by ``seed``."""
        if self.parameters is not None:
            return self.parameters
        generator = np.random.default_rng(seed)
        return tuple(
            generator.normal(0.0, INITIAL_DEVIATION, shape).astype(np.float32) for shape in self.parameter_shapes
        )

    def _one(self, what: str, types: Sequence[Any]) -> tuple[int, ...]:
        if len(types) != 1 or not types[0].shape:
            shapes = [tuple(t.shape) for t in types]
            raise ModelError(
                f"{self.name}: expected a model with one {what} whose first axis is the batch, found {shapes}"
            )
        return tuple(types[0].shape)

    def _samples(self, what: str, data: ArrayLike, shape: tuple[int, ...]) -> Floats:
        array = _float32(f"{self.name}: {what}", data)
        if array.ndim == 0 or array.shape[1:] != shape[1:]:
            raise DataError(
                f"{self.name}: {what}: expected shape {_shape('samples', *shape[1:])} as the model's type says, "
                f"found {array.shape}; reshape the data or change the model"
            )
        return array

    def _checked_parameters(self, parameters: Sequence[ArrayLike]) -> tuple[Floats, ...]:
        arrays = tuple(_float32(f"{self.name}: parameter p{i}", p) for i, p in enumerate(parameters))
        found = tuple(a.shape for a in arrays)
        if found != self.parameter_shapes:
            raise DataError(
                f"{self.name}: parameters: expected shapes {list(self.parameter_shapes)}, found {list(found)}"
            )
        return arrays

    def _checked_heldout(self, heldout: tuple[ArrayLike, ArrayLike]) -> tuple[Floats, Floats]:
        if not isinstance(heldout, tuple) or len(heldout) != 2:
            raise DataError(f"{self.name}: heldout: expected a pair (x, y), found {type(heldout).__name__}")
        x = self._samples("heldout x", heldout[0], self.input_shape)
        y = self._samples("heldout y", heldout[1], self.output_shape)
        if len(x) != len(y) or len(x) == 0:
            raise DataError(
                f"{self.name}: heldout: expected as many samples in y as in x, and at least one, "
                f"found {len(y)} and {len(x)}"
            )
        return x, y


def _shape(*axes: int | str) -> str:
    return "(" + ", ".join(map(str, axes)) + ("," if len(axes) == 1 else "") + ")"


def _float32(what: str, data: ArrayLike) -> Floats:
    """``data`` as a read-only float32 array; DataError unless numeric, finite and (for integers) exact."""
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DataError(f"{what}: expected a rectangular array of numbers, found a ragged one") from error
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what}: expected numbers, found dtype {array.dtype}; convert with .astype(np.float32)")
    with np.errstate(over="ignore"):
        result = array.astype(np.float32)  # always a copy, so later changes to the user's array have no effect
    finite = np.isfinite(result)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise DataError(
            f"{what}: expected finite float32 values, found {array[place]} at {place}; remove or replace it"
        )
    if array.dtype.kind in "iu":
        # 2**64 rounds up to a float that no 64-bit integer equals, so compare as Python numbers where in doubt.
        large = np.abs(result) >= 2.0**24
        for place in map(tuple, np.argwhere(large)):
            if int(array[place]) != int(result[place]):
                raise DataError(
                    f"{what}: expected integers that float32 holds exactly, found {array[place]} at "
                    f"{tuple(int(i) for i in place)}; scale the data and convert with .astype(np.float32)"
                )
    result.flags.writeable = False
    return result


# --- by name ----------------------------------------------------------------------------------------------------


def load_workload(model: str, batch: int | None = None) -> Workload:
    """The workload that ``model`` names: a built-in name, or ``FILE.py:NAME`` for a function that returns one.

    ``batch`` replaces the model's batch (:meth:`Workload.with_batch`).

    Raises :class:`ModelError` where there is no such name, file or function, where the function fails (with the
    line of the user's file) and where it returns something else.
    """
    workload = _named(model)
    return workload if batch is None else workload.with_batch(batch)


def _named(model: str) -> Workload:
    file, colon, name = model.rpartition(":")
    if colon and file.endswith(".py"):
        return _load_function(Path(file), name)
    from catgrad_hw.workloads import BUILT_IN  # imported here: that module builds on this one

    if model in BUILT_IN:
        return BUILT_IN[model]()
    if model.endswith(".py"):
        raise ModelError(f"model {model}: expected FILE.py:NAME, found no function name; write {model}:NAME")
    close = difflib.get_close_matches(model, BUILT_IN, n=1)
    hint = f"did you mean {close[0]}?" if close else "or give FILE.py:NAME"
    raise ModelError(f"model {model}: expected one of {', '.join(BUILT_IN)}, found no such name; {hint}")


def _load_function(file: Path, name: str) -> Workload:
    if not file.is_file():
        raise ModelError(f"model {file}:{name}: expected a Python file, found none at {file}; check the path")
    module = _import_file(file)
    function = getattr(module, name, None)
    if not callable(function):
        functions = sorted(
            k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        )
        close = difflib.get_close_matches(name, functions, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(functions)}" if functions else ""
        raise ModelError(f"model {file}:{name}: expected a function {name} in the file, found none{hint}")
    workload = _user_code(file, function)
    if not isinstance(workload, Workload):
        raise ModelError(
            f"model {file}:{name}: expected a catgrad_hw.Workload from {name}(), found {type(workload).__name__}; "
            "return Workload(model=…, optimizer=…, loss=…, x=…, y=…)"
        )
    if workload.name == "workload":
        object.__setattr__(workload, "name", name)
    return workload


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"catgrad_hw_model_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ModelError(f"model {file}: expected a Python file, found one that cannot be imported")
    module = importlib.util.module_from_spec(spec)
    loader = spec.loader
    sys.modules[module.__name__] = module  # dataclasses of the user's file look their module up
    # As when Python runs the file, its neighbours can be imported; also later, from within its functions.
    folder = str(file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    _user_code(file, lambda: loader.exec_module(module))
    return module


def _user_code(file: Path, action: Callable[[], Any]) -> Any:
    """Run code of the user's file; its exceptions become a ModelError that says where."""
    try:
        return action()
    except SyntaxError as error:
        raise ModelError(f"{error.filename or file}:{error.lineno}: expected Python, found {error.msg}") from error
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == file.resolve()]
        line = f":{frames[-1].lineno}" if frames else ""
        raise ModelError(f"{file}{line}: {type(error).__name__}: {' '.join(str(error).split())}") from error
