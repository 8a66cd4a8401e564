"""NaN and infinite inputs: results have them where eager PyTorch has them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import parc


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> object:
        return self.function(*args)


def special(*shape: int) -> Tensor:
    """Random numbers, with NaN, infinities and zeros among them."""
    x = torch.randn(*shape)
    for place, value in enumerate((torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 100.0, -100.0)):
        x.view(-1)[3 * place + 1] = value
    return x


def check(function: Callable[..., object], *inputs: Tensor) -> None:
    model = Apply(function)
    got, want = parc.compile(model, inputs)(*inputs), model(*inputs)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_maxima_and_bounds() -> None:
    def model(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (
            *(torch.maximum(x, y), torch.minimum(y, x), torch.relu(x), x.clamp(-1, 1), torch.clamp(x, max=y)),
            *(functional.hardtanh(x), functional.relu6(x), functional.hardsigmoid(x), functional.leaky_relu(x)),
            *(torch.where(x > y, x, y), torch.where(x <= y, x, y), functional.threshold(x, 0.1, 20.0)),
        )

    check(model, special(4, 9), special(4, 9).flip(1))


def test_reductions() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        return (
            *(x.amax(-1), x.amin(0), *x.max(-1), *x.min(0), x.argmax(0), x.argmin(-1), x.sum(0), x.mean(-1)),
            *(torch.softmax(x, -1), torch.log_softmax(x, 0), functional.max_pool1d(x[None], 3)),
        )

    check(model, special(6, 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations(dtype: torch.dtype) -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        return (
            *(torch.tanh(x), torch.sigmoid(x), torch.exp(x), functional.silu(x), functional.gelu(x)),
            *(functional.elu(x), functional.softplus(x), torch.log(x), torch.sqrt(x), 1 / x, x**2),
        )

    check(model, special(5, 11).to(dtype))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, lambda *a: nn.RNN(*a, nonlinearity="relu")])
def test_recurrences(kind: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = kind(8, 16, 2).eval(), torch.randn(6, 3, 8)
    x[2, 1, 3] = torch.nan
    x[4, 0, 1] = torch.inf
    got, want = parc.compile(model, x)(x), model(x)
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=1e-5, equal_nan=True)
