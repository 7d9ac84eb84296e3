"""Another batch for a model: the same graphs as a model built with it, and names for what cannot have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from random_models import random_arrays
from small_workloads import array, dense_model, dense_workload

from catgrad_hw import Workload, layers, obj
from catgrad_hw.errors import CatgradError, DataError, ModelError, UnsupportedError
from catgrad_hw.hardware import compile_hardware
from catgrad_hw.ir import graph as tensor_graph
from catgrad_hw.ir import operations as ops
from catgrad_hw.ir.axes import AXES
from catgrad_hw.ir.cost import multiplications
from catgrad_hw.ir.from_hypergraph import joint_graph
from catgrad_hw.ir.hypergraph import OpenHypergraph, op
from catgrad_hw.ir.lower import lower
from catgrad_hw.ir.passes import simplify
from catgrad_hw.ir.rebatch import RETYPE
from catgrad_hw.ir.trace import Wire, apply1, trace
from catgrad_hw.ir.windows import Convolution
from catgrad_hw.numbers.train import train_reference
from catgrad_hw.simulate.training import simulate
from catgrad_hw.workload import load_workload

SIZES = [(32, (5, 7, 3)), (7, (5, 7, 3)), (3, (3, 3)), (1, (4, 2))]


def workload(model: OpenHypergraph, loss: object = layers.mse, samples: int = 64) -> Workload:
    X, Y = model.source[0].shape[1:], model.target[0].shape[1:]
    return Workload(model, layers.sgd(0.1), loss, np.zeros((samples, *X)), np.zeros((samples, *Y)))


def graph_of(w: Workload) -> tensor_graph.Graph:
    return simplify(joint_graph(w.learner))


def same_step(one: tensor_graph.Graph, two: tensor_graph.Graph) -> None:
    assert one.inputs == two.inputs
    arrays = random_arrays(one)
    for group in ("predict", "step"):
        for a, b in zip(tensor_graph.run(one, group, arrays), tensor_graph.run(two, group, arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_every_core_operation_can_be_retyped() -> None:
    assert set(RETYPE) == set(AXES)


@pytest.mark.parametrize(("built", "widths"), SIZES)
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 12])
def test_the_graph_is_that_of_a_model_built_with_the_batch(built: int, widths: tuple[int, ...], batch: int) -> None:
    changed = workload(dense_model(built, widths)).with_batch(batch)
    direct = workload(dense_model(batch, widths))
    assert (changed.batch_size, changed.parameter_shapes) == (batch, direct.parameter_shapes)
    one, two = graph_of(changed), graph_of(direct)
    tensor_graph.check(one)
    assert (one.inputs, multiplications(one), lower(one).batch) == (two.inputs, multiplications(two), batch)
    same_step(one, two)


@pytest.mark.parametrize("loss", [layers.mean_squared_error, layers.cross_entropy])
def test_a_mean_loss_is_the_mean_over_the_new_batch(loss: object) -> None:
    one = graph_of(workload(dense_model(4, (5, 3)), loss).with_batch(6))
    two = graph_of(workload(dense_model(6, (5, 3)), loss))
    same_step(one, two)


def test_convolution_and_flattening() -> None:
    def model(batch: int) -> OpenHypergraph:
        B, image, filters = array(batch), array(2, 5, 5), array(3, 2, 3, 3)
        images = trace(
            obj(B + image), lambda x: apply1(Convolution(B, image, filters), x, x.produce(ops.Parameter(filters)))
        )
        return images >> op(ops.Reshape(B + array(3, 3, 3), B + array(27))) >> layers.linear(B, array(27), array(4))

    same_step(graph_of(workload(model(2)).with_batch(5)), graph_of(workload(model(5))))


def refuse(f: Callable[[Wire], Wire], error: type[CatgradError], match: str) -> None:
    model = trace(obj(array(4, 3)), f)
    with pytest.raises(error, match=match) as caught:
        workload(model).with_batch(6)
    assert "\n" not in str(caught.value)


def test_refusals_name_what_cannot_have_another_batch() -> None:
    def centred(x: Wire) -> Wire:
        mean = x.permute((1, 0)).total(1) * 0.25
        return x - mean.spread_leading(array(4))

    def own_bias(x: Wire) -> Wire:
        return x + x.produce(ops.Parameter(array(4, 3)))

    refuse(centred, UnsupportedError, "batch 6: NAdd.*it works across samples")
    refuse(lambda x: x.reshape((12,)).reshape((4, 3)), UnsupportedError, r"batch 6: Reshape\(")
    refuse(own_bias, ModelError, r"found p0 of type float32\[4, 3\]")
    with pytest.raises(ModelError, match="1 sample or more, found 0"):
        workload(dense_model(4, (3, 2))).with_batch(0)
    with pytest.raises(DataError, match="batch of 65 samples, found 64"):
        workload(dense_model(4, (3, 2))).with_batch(65)


def test_names_and_user_files(tmp_path: Path) -> None:
    assert load_workload("iris-hidden", batch=16).batch_size == 16
    assert load_workload("iris-hidden", batch=150).batch_size == 150
    file = tmp_path / "mine.py"
    file.write_text(
        "from catgrad_hw.workload import load_workload\n"
        "from dataclasses import replace\n"
        "def tiny():\n    return replace(load_workload('iris-dense'), name='tiny')\n"
    )
    mine = load_workload(f"{file}:tiny", batch=5)
    assert (mine.name, mine.batch_size, mine.batch(1)[0].shape) == ("tiny", 5, (5, 4))


def test_the_learning_rate_is_placed_for_the_new_batch() -> None:
    """On the error where that is smaller, on the gradients where these are: 3 factors a sample or 163 a step."""
    counts = {batch: multiplications(graph_of(load_workload("iris-hidden", batch)), "step") for batch in (1, 54, 55)}
    assert counts == {1: 363 + 3, 54: 54 * 363 + 162, 55: 55 * 363 + 163}


@pytest.mark.parametrize(("batch", "lanes", "tile"), [(1, 2, None), (1, 5, None), (3, 2, None), (8, 4, 4)])
def test_hardware_trains_bit_exactly(batch: int, lanes: int, tile: int | None) -> None:
    small = dense_workload(5, (3, 4, 2), samples=9).with_batch(batch)
    hardware = compile_hardware(small, lanes, tile=tile, calibration_steps=20)
    result = simulate(hardware, small, 3, simulator="amaranth")
    assert result.mismatches == 0, result.differences
    assert result.words_compared == 3 * sum(int(np.prod(s)) for s in small.parameter_shapes)
    assert result.cycles_per_step == hardware.cycles_per_step


def test_digits_learn_as_in_float() -> None:
    """20 epochs in batches of 16: within half a point on held-out data (that RTL has the reference's bits is known)."""
    digits = load_workload("digits-mlp", batch=16)
    result = train_reference(digits, steps=round(20 * len(digits.x) / 16))
    assert result.float.heldout is not None
    assert result.reference.heldout is not None
    assert result.float.heldout.accuracy is not None
    assert result.reference.heldout.accuracy is not None
    assert result.float.heldout.accuracy > 0.96
    assert abs(result.reference.heldout.accuracy - result.float.heldout.accuracy) <= 0.005
