"""String diagrams as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catgrad_hw import Dtype, NdArrayType, layers, obj, op
from catgrad_hw.cli.app import app
from catgrad_hw.draw import draw_model, svg
from catgrad_hw.ir.hypergraph import OpenHypergraph, identity, spider, twist, unit

T, U = NdArrayType((3,), Dtype.float32), NdArrayType((2,), Dtype.int32)
SVG = "{http://www.w3.org/2000/svg}"


def boxes(image: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each box."""
    found = []
    for group in ElementTree.fromstring(image).iter(f"{SVG}g"):
        for box in group.findall(f"{SVG}rect"):
            x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
            found.append((x, y, x + width, y + height))
    return found


def texts(image: str) -> Counter[str]:
    return Counter(e.text or "" for e in ElementTree.fromstring(image).iter(f"{SVG}text"))


MODEL = layers.dense(NdArrayType((5,), Dtype.float32), T, NdArrayType((4,), Dtype.float32))


def test_each_operation_has_a_box_and_each_end_a_label() -> None:
    image = svg(MODEL)
    assert texts(image) == {"5×3": 1, "5×4": 1, "parameter": 2, "Compose": 1, "NCopy": 1, "Permute": 1, "Add": 1,
                            "Sigmoid": 1}  # fmt: skip
    assert len(boxes(image)) == 7


@pytest.mark.parametrize("model", [MODEL, layers.residual(layers.tanh(obj(T))), layers.layer_norm(T, T)])
def test_boxes_do_not_overlap(model: OpenHypergraph) -> None:
    found = boxes(svg(model))
    for i, a in enumerate(found):
        for b in found[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("f", [unit(), identity(obj(T)), twist(obj(T), obj(U)), spider([0], [0, 0], obj(T)),
                               spider([], [0], obj(T)), op(layers.Constant(T, 0.5))])  # fmt: skip
def test_wires_alone_are_drawn(f: OpenHypergraph) -> None:
    ElementTree.fromstring(svg(f, "a <title> & more"))
    assert "a &lt;title&gt; &amp; more" in svg(f, "a <title> & more")


def test_notebooks_show_diagrams() -> None:
    assert MODEL._repr_svg_() == svg(MODEL)
    assert "int32 2" in identity(obj(U))._repr_svg_()


def test_the_command_draws_model_and_reverse_derivative(tmp_path: Path) -> None:
    path = tmp_path / "model.svg"
    done = CliRunner().invoke(app, ["draw", "iris-hidden", "-o", str(path)])
    assert done.exit_code == 0, done.output
    found = texts(path.read_text(encoding="utf-8"))
    assert found["Sigmoid"] == 4
    assert found["SigmoidDerivative"] == 2
    assert found["model : float32[150, 4] → float32[150, 3]"] == 1
    assert draw_model(MODEL) == draw_model(MODEL)
