"""PyTorch modules: values and gradients against torch, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catgrad_hw import Numpy, compile_model, from_torch, layers
from catgrad_hw.compile import learner
from catgrad_hw.errors import ModelError, UnsupportedError
from catgrad_hw.ir.operations import evaluate

torch = pytest.importorskip("torch", reason="torch is not installed: there are no modules to import")
nn = torch.nn


class Residual(nn.Module):  # type: ignore[misc, name-defined]
    """A plain module, with functions and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Any) -> Any:
        h = nn.functional.relu(self.first(x))
        return torch.tanh(self.norm(x + self.second(h)))


class Classifier(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2 * 3 * 3, 4)

    def forward(self, x: Any) -> Any:
        x = nn.functional.leaky_relu(self.conv(x), 0.2)
        x = nn.functional.dropout(x, 0.5, self.training)
        return torch.softmax(self.head(nn.functional.max_pool2d(x, 2).view(x.size(0), -1)), dim=1)


MODULES: dict[str, tuple[Any, tuple[int, ...] | None, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 3), None, (6,)),
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.Sigmoid()), None, (6,)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), stride=2, padding=1, dilation=(1, 2)),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Identity(),
            nn.Linear(12, 3),
            nn.Softmax(-1),
        ),
        (2, 7, 9),
        (2, 7, 9),
    ),
    "pools": (lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(2)), (2, 7, 6), (2, 7, 6)),
    "residual": (Residual, None, (6,)),
    "classifier": (Classifier, (1, 6, 6), (1, 6, 6)),
}


@pytest.mark.parametrize("name", MODULES)
def test_values_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    make, given, shape = MODULES[name]
    module = make().eval()
    model, parameters = from_torch(module, batch_size=5, input_shape=given)
    compiled = learner(model, layers.sgd(0.1), layers.mse)
    assert [a.shape for a in parameters] == [T.shape for T in compiled.parameter_types]
    assert sum(a.size for a in parameters) == sum(p.numel() for p in module.parameters())
    x = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    y = module.double()(x)
    d = torch.randn_like(y)
    y.backward(d)
    p = [a.astype(np.float64) for a in parameters]
    (found,) = evaluate(compiled.predict, *p, x.detach().numpy())
    np.testing.assert_allclose(found, y.detach().numpy(), rtol=1e-6, atol=1e-7)
    *gradients, by_x = evaluate(compiled.rev, *p, x.detach().numpy(), d.numpy())
    np.testing.assert_allclose(by_x, x.grad.numpy(), rtol=1e-5, atol=1e-7)
    for gradient, parameter in zip(gradients, module.parameters(), strict=True):
        expected = parameter.grad.numpy()
        expected = expected.T if expected.ndim == 2 else expected
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_an_imported_model_trains() -> None:
    module = MODULES["mlp"][0]()
    model, p = from_torch(module, batch_size=4)
    CompiledModel, _, _ = compile_model(model, layers.sgd(0.1), layers.mse)
    x, y = np.ones((4, 6), np.float32), np.zeros((4, 4), np.float32)
    before = CompiledModel(Numpy).predict(*p, x)[0]
    for _ in range(20):
        p = CompiledModel(Numpy).step(*p, x, y)
    assert np.abs(CompiledModel(Numpy).predict(*p, x)[0]).sum() < np.abs(before).sum()


class Branching(nn.Module):  # type: ignore[misc, name-defined]
    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "shape", "error", "text"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.GELU()), None, UnsupportedError, "found GELU at 1"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), (2, 5, 5), UnsupportedError, "Conv2d in 2 groups at 0"),
        (nn.Sequential(nn.Conv2d(2, 2, 3)), None, ModelError, "expected input_shape.*found Conv2d"),
        (nn.Sequential(nn.Softmax(0)), (3,), UnsupportedError, "Softmax over axis 0"),
        (Branching(), (3,), UnsupportedError, "without branches on data, found Branching"),
        (3, None, ModelError, "expected a torch.nn.Module, found int"),
    ],
)
def test_unsupported_pieces_are_named(module: Any, shape: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        from_torch(module, batch_size=2, input_shape=shape)
    assert "\n" not in str(caught.value)
