"""Products of rounded factors on a GPU: how far results and gradients are off, beside what the rounding allows.

A factor a becomes a (1 + d) with |d| <= u, where u is 2^-11 for tf32 and f16 and 2^-8 for bf16. A sum of K products of
two factors is then off by at most ((1 + u)^2 - 1 + (K + 1) 2^-24) times the sum of the products' magnitudes: sums are
f32.
"""

import pytest
import torch
from gpu_target import Exact, compile_for_gpu, gradients, matmul_precision, moved
from torch import Tensor, nn

from parc import backends

ROUNDING = {"tf32": 2**-11, "bf16": 2**-8, "f16": 2**-11}
SETTINGS = {"tf32": "high", "bf16": "medium"}
FEATURES, HIDDEN = 10, 24
"""No multiples of the depth of an instruction."""


class Recurrence(nn.Module):
    """`h[t] = tanh(x[t] W + h[t-1] U)`, with weights that keep errors from growing much."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(FEATURES, HIDDEN) / FEATURES**0.5)
        self.u = nn.Parameter(0.3 * torch.randn(HIDDEN, HIDDEN) / HIDDEN**0.5)

    def forward(self, x: Tensor) -> Tensor:
        h, states = x.new_zeros(x.shape[1], HIDDEN), []
        for xt in x:
            h = torch.tanh(xt @ self.w + h @ self.u)
            states.append(h)
        return torch.stack(states)

    def bound(self, x: Tensor, rounding: float) -> Tensor:
        """By how much each result may be off. tanh takes nothing further apart, so that an error e[t-1] of the state
        adds e[t-1] |U|; the rest is that of the products, for states of at most |h| + e."""
        with torch.no_grad():
            x, w, u = x.cpu().double(), self.w.cpu().double(), self.u.cpu().double()
            rate = (1 + rounding) ** 2 - 1 + (FEATURES + HIDDEN + 1) * 2**-24
            h = error = torch.zeros(x.shape[1], HIDDEN, dtype=torch.float64)
            errors = []
            for xt in x:
                error = error @ u.abs() + rate * (xt.abs() @ w.abs() + (h.abs() + error) @ u.abs())
                h = torch.tanh(xt @ w + h @ u)
                errors.append(error)
            return torch.stack(errors)


@pytest.fixture(scope="module", params=list(ROUNDING))
def rounded(request: pytest.FixtureRequest) -> tuple[str, Recurrence, nn.Module]:
    """A precision of products, a model, and the program that has it."""
    torch.manual_seed(0)
    name, model = request.param, Recurrence()
    x = torch.randn(5, 3, FEATURES)
    # torch has no setting that asks for f16.
    with pytest.MonkeyPatch.context() as patch, matmul_precision(SETTINGS.get(name, "medium")):
        if name not in SETTINGS:
            patch.setattr(backends, "matmul_precision", lambda: name)
        return name, model, compile_for_gpu(model, [x.requires_grad_()], threads=3, training=name in SETTINGS)


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (6, 19)])
def test_results_are_as_exact_as_their_factors(
    rounded: tuple[str, Recurrence, nn.Module], steps: int, batch: int
) -> None:
    name, model, compiled = rounded
    (x,) = moved([torch.randn(steps, batch, FEATURES)])
    with torch.no_grad():
        error = (compiled(x).cpu().double() - Exact(model).results([x])[0]).abs()
    assert (error <= model.bound(x, ROUNDING[name])).all()
    # Factors were rounded: sums of exact ones are off by some 2^-24.
    assert error.max() > ROUNDING[name] / 2**5


@pytest.mark.parametrize("rounded", list(SETTINGS), indirect=True)
def test_gradients_are_as_exact_as_their_factors(rounded: tuple[str, Recurrence, nn.Module]) -> None:
    """In the root mean square: errors of products are independent of each other and add up like noise.

    A product's is at most sqrt(2/3) u of it, and so is that of a sum of products; a gradient has gone through a product
    of the forward pass and one of the backward pass for each of six steps, which make the errors before them smaller.
    """
    name, model, compiled = rounded
    x = torch.randn(6, 5, FEATURES)
    expected = Exact(model).gradients([x])
    found = gradients(compiled, moved([x]))
    for source, gradient in found.items():
        difference = (gradient.cpu().double() - expected[source]).square().mean().sqrt()
        relative = float(difference / expected[source].square().mean().sqrt())
        assert 0.01 * ROUNDING[name] < relative < 4 * ROUNDING[name], f"{source}: {relative / ROUNDING[name]:.2g} u"


def test_exact_products_are_the_default() -> None:
    torch.manual_seed(0)
    model = Recurrence()
    compiled = compile_for_gpu(model, [torch.randn(5, 3, FEATURES)], threads=3)
    (x,) = moved([torch.randn(6, 19, FEATURES)])
    with torch.no_grad():
        error = (compiled(x).cpu().double() - Exact(model).results([x])[0]).abs()
    assert (error <= 2 * model.bound(x, 0.0)).all()
