"""Fixed points x = step(x): the order that is found, against perturbations; results, against one element at a time."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import prod

import islpy as isl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch_mlir import ir

import parc
from parc import dialect
from parc.codegen.irtools import find_function
from parc.importers import import_model
from parc.poly.affine import SET
from parc.triangular import Dependences, dependences, taken_from
from parc.triangular.bits import unpacked
from parc.triangular.dependences import elements_used
from parc.triangular.order import levels
from parc.triangular.relation import as_map, is_ordered, runs

INF = float("inf")


class MaskedLinear(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.mask * self.weight, self.bias)


class Made(nn.Module):
    """MADE with any order (arXiv 1502.03509): unit k of the hidden layers sees the first `degree[k]` elements."""

    def __init__(self, size: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList([MaskedLinear(size, hidden), MaskedLinear(hidden, hidden)])
        self.out = MaskedLinear(hidden, size)
        self.reorder(seed)

    def reorder(self, seed: int) -> None:
        """Take another random order and other random degrees, in place."""
        random = torch.Generator().manual_seed(seed)
        size = self.out.out_features
        self.order = torch.randperm(size, generator=random)
        below = self.order
        for layer in self.layers:
            degree = torch.randint(0, size - 1, (layer.out_features,), generator=random)
            layer.mask.copy_(degree[:, None] >= below[None])
            below = degree
        self.out.mask.copy_(self.order[:, None] > below[None])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(2 * layer(x))
        return self.out(x)


class Attention(nn.Module):
    """A small causal transformer that gives the logits of the next token."""

    def __init__(self, length: int, vocabulary: int = 7, width: int = 8) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width))
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.out = nn.Linear(width, vocabulary)
        with torch.no_grad():
            self.out.weight *= 10

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens) + self.place
        query, key, value = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.mix(self.norm(h)).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        h = h + attended.transpose(1, 2).flatten(2)
        return self.out(h + self.narrow(functional.gelu(self.wide(h))))


class Traced:
    """A static trace of a step; what is found of it for its parameters as they are."""

    def __init__(self, step: nn.Module | Callable[..., Tensor], *args: Tensor) -> None:
        context = ir.Context()
        dialect.load(context)
        self._imported = import_model(step, args, {}, context, dynamic_shapes=())

    def used(self) -> np.ndarray:
        """`[outputs, elements]`: which outputs may depend on which elements of the first argument."""
        trace = find_function(self._imported.module, "main_0")
        assert trace is not None
        count = prod(trace.entry_block.arguments[0].type.shape)
        return unpacked(elements_used(trace, taken_from(list(self._imported.parameters.values()))), count)

    def dependences(self) -> Dependences:
        trace = find_function(self._imported.module, "main_0")
        assert trace is not None
        return dependences(trace, taken_from(list(self._imported.parameters.values())))


def perturbed(function: Callable[[Tensor], Tensor], x: Tensor, others: Sequence[Tensor]) -> np.ndarray:
    """`[outputs, elements]`: which outputs change when one element of x is another one."""
    one = torch.eye(x.numel(), dtype=torch.bool).reshape(x.numel(), *x.shape)
    moved = torch.cat([torch.where(one, other, x) for other in others])
    far = (torch.vmap(function)(moved) - function(x)).abs()
    changed = far > (1e-11 if x.dtype is torch.float64 else 1e-5)  # sums of batches are rounded otherwise
    return changed.reshape(len(others), x.numel(), -1).any(0).T.numpy()


MASK = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.4
LOWER = torch.ones(6, 6, dtype=torch.bool).tril()
WAYS: dict[str, tuple[Callable[[Tensor], Tensor], np.ndarray]] = {
    "slices": (lambda x: torch.cat([x[3:], x[:3]]), np.roll(np.eye(6), 3, axis=0)),
    "flip": (lambda x: x.flip(0), np.fliplr(np.eye(6))),
    "mask times": (lambda x: (MASK.float() * x).sum(1), MASK.numpy()),
    "product with a mask": (lambda x: MASK.float() @ x, MASK.numpy()),
    "numbers that are known": (lambda x: (0.3 * MASK.float() / 0.7) @ x + (x * 0 - 1 / 3), MASK.numpy()),
    "where": (lambda x: torch.where(MASK, x, 2.0).amax(1), MASK.numpy()),
    "attention mask": (lambda x: (x + torch.where(LOWER, 0.0, -INF)).softmax(1) @ x.cos(), LOWER.numpy()),
    "least number": (
        lambda x: x.expand(6, 6).masked_fill(~LOWER, torch.finfo(torch.float32).min).softmax(1) @ x,
        LOWER.numpy(),
    ),
    "logsumexp": (lambda x: x.expand(6, 6).masked_fill(~LOWER, -INF).logsumexp(1), LOWER.numpy()),
    "boolean": (lambda x: (MASK & (x > 0)).any(1).float(), MASK.numpy()),
    "gather": (lambda x: x[torch.tensor([5, 0, 0, 3, 2, 1])], np.eye(6)[[5, 0, 0, 3, 2, 1]]),
    "an index that depends": (lambda x: x[:3][(x > 0).long()], np.eye(6) + [1, 1, 1, 0, 0, 0]),
    "comparison with a mask": (lambda x: (x * (MASK.float() - 1 == 0)).sum(1), MASK.numpy()),
    "no element": (lambda x: (x * 0).exp() + torch.arange(6), np.zeros((6, 6))),
    "maximum": (lambda x: torch.maximum(x, torch.tensor([INF, 0, INF, 0, 0, INF])), np.diag([0, 1, 0, 1, 1, 0])),
    "quotient": (lambda x: torch.arange(6).float().clamp(max=1) / (1 + x.abs()), np.diag([0, 1, 1, 1, 1, 1])),
    "window": (lambda x: functional.avg_pool1d(x[None, None], 3, 1, 1)[0, 0], np.eye(6) + np.eye(6, k=1) + np.eye(6, k=-1)),  # noqa: E501
    "argmax": (lambda x: torch.where(LOWER, x.expand(6, 6), -INF).argmax(1).float(), LOWER.numpy()),
}  # fmt: skip


def test_ways_of_dependence() -> None:
    """What of an expression depends on what: at least what a perturbation changes, and no more than it says here."""

    def everything(x: Tensor) -> Tensor:
        return torch.cat([way(x) for way, _ in WAYS.values()])

    x, *others = (torch.randn(6, generator=torch.Generator().manual_seed(n)) for n in range(6))
    found = Traced(everything, x).used().reshape(len(WAYS), 6, 6)
    changed = perturbed(everything, x, others).reshape(len(WAYS), 6, 6)
    for (name, (_, expected)), relation, seen in zip(WAYS.items(), found, changed, strict=True):
        assert not (seen & ~relation).any(), name
        assert np.array_equal(relation, expected > 0), name


@pytest.fixture(scope="module")
def traced_made() -> tuple[Made, Traced]:
    model = Made(12, 20)
    return model, Traced(model, torch.zeros(2, 12))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_masks_of_any_order(traced_made: tuple[Made, Traced], seed: int) -> None:
    model, traced = traced_made
    model.reorder(seed)
    found = traced.dependences()
    random = torch.Generator().manual_seed(seed)
    x, *others = (torch.randn(2, 12, generator=random) for _ in range(3))
    exact = deepcopy(model).double()
    with torch.no_grad():
        seen = perturbed(exact, x.double(), [o.double() for o in others])
    assert np.array_equal(found.matrix, seen)
    # An element comes after those that it needs.
    places = {e: n for n, e in enumerate(found.order)}
    assert all(places[e] > places[needed] for e in places for needed in found.needed(*e))
    assert all(model.order[e[1]] > model.order[needed[1]] for e in places for needed in found.needed(*e))
    assert found.rows_independent and found.bound <= 12


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_levels_are_longest_chains(seed: int) -> None:
    """Of a random triangular matrix in a random order, against the powers of the matrix."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 90))
    strict = np.tril(random.random((count, count)) < random.random() * 0.3, k=-1)
    order = random.permutation(count)
    matrix = strict[order][:, order]
    wide = np.pad(matrix, ((0, 0), (0, -count % 64)))
    bits = np.ascontiguousarray(np.packbits(wide, axis=1, bitorder="little")).view(np.uint64)
    found = levels(bits)
    expected, power = np.ones(count, np.int64), matrix.astype(np.int64)
    while power.any():
        expected += power.any(axis=1)
        power = (power @ matrix > 0).astype(np.int64)
    assert np.array_equal(found, expected)
    assert is_ordered(bits, found)
    if found.max() > 1:
        assert not is_ordered(bits, np.ones(count, np.int64))


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_relations_as_isl_maps(density: float) -> None:
    random = np.random.default_rng(0)
    matrix = np.tril(random.random((9, 9)) <= density, k=-1) if density else np.zeros((9, 9), bool)
    found = as_map([runs(row) for row in matrix])
    points = set()
    found.wrap().foreach_point(lambda p: points.add(tuple(p.get_coordinate_val(SET, d).to_python() for d in (0, 1))))
    assert points == {(int(i), int(j)) for i, j in np.argwhere(matrix)}
    if density == 1.0:  # the triangle is one piece
        assert found.is_equal(isl.Map("{ [i] -> [j] : 0 <= j < i < 9 }")) and found.n_basic_map() == 1


class MaskedConvolution(nn.Conv2d):
    """3 x 3, of the pixels in front of its own in the order of rows; with `own`, of its own too."""

    def __init__(self, inputs: int, outputs: int, own: bool) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        mask = torch.zeros(3, 3)
        mask[0], mask[1, : 1 + own] = 1, 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.mask, self.bias, padding=1)


def test_masked_convolutions() -> None:
    layers = MaskedConvolution(1, 4, False), nn.Tanh(), MaskedConvolution(4, 4, True), nn.Tanh(), nn.Conv2d(4, 1, 1)
    model = nn.Sequential(*layers).double()
    x, *others = (torch.randn(1, 1, 5, 4, dtype=torch.float64) for _ in range(3))
    found = Traced(model, x).dependences()
    with torch.no_grad():
        assert np.array_equal(found.matrix, perturbed(model, x, others))
    # In the row above up to one to the right: the two convolutions together see no further.
    assert found.levels[0, 0].tolist() == [[1 + j + 2 * i for j in range(4)] for i in range(5)]


def test_wavefront_over_pixels() -> None:
    """The exact alternative: each pixel once, in waves. The weights' zeros are watched there too."""
    torch.manual_seed(0)
    seen, out = MaskedConvolution(1, 4, False), nn.Conv2d(4, 1, 1)

    def step(x: Tensor, noise: Tensor) -> Tensor:
        return (noise < torch.sigmoid(4 * out(torch.relu(seen(x))))).float()

    sampler = parc.fixed_point(step, (torch.zeros(2, 1, 6, 7), torch.rand(2, 1, 6, 7)), strategy="wavefront")
    assert sampler.bound == "2 D0 + D1 - 2"
    for rows, columns in ((6, 7), (4, 9)):
        noise = torch.rand(3, 1, rows, columns)
        order = [(0, i, j) for i in range(rows) for j in range(columns)]
        expected = one_by_one(step, torch.zeros_like(noise), noise, order=order)
        assert torch.equal(sampler(torch.zeros_like(noise), noise), expected)
    assert sampler.iterations == {}
    seen.mask.fill_(1)
    with pytest.raises(parc.CallError, match="weights that were zero have changed"):
        sampler(torch.zeros_like(noise), noise)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ([[0, 0, 0], [1, 1, 0], [0, 0, 0]], r"x\[0, 1\] depends on itself"),
        ([[0, 0, 1], [0, 0, 0], [1, 0, 0]], r"x\[0, 0\] and x\[0, 2\] depend on each other"),
        (
            [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
            r"x\[0, 0\] depends on x\[0, 1\], which depends on x\[0, 2\], which depends on x\[0, 0\]",
        ),
    ],
)
def test_not_triangular(mask: list[list[int]], text: str) -> None:
    """The elements that are in the way are named, and the line."""
    weight = torch.tensor(mask).float()

    def step(x: Tensor) -> Tensor:
        return functional.linear(x, weight).tanh()

    with pytest.raises(parc.CompileError, match=rf"test_fixed_point.py:\d+.*{text}: the step is not triangular"):
        parc.fixed_point(step, (torch.zeros(1, 3),))


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (lambda x: x[:, 1:], r"the step returns float32\[2, 3\]; expected a tensor like 'x', float32\[2, 4\]"),
        (lambda x: x.long(), r"the step returns int64\[2, 4\]; expected a tensor like 'x', float32\[2, 4\]"),
        (lambda x: (x, x), "the step returns 2 values; expected one tensor like 'x'"),
        (lambda x: 3, "the step returns 1 values; expected one tensor like 'x'"),
    ],
)
def test_steps_of_another_form(step: Callable[[Tensor], Tensor], text: str) -> None:
    with pytest.raises(parc.CompileError, match=text):
        parc.fixed_point(step, (torch.zeros(2, 4),))


def test_options() -> None:
    step, x = torch.tanh, torch.zeros(2, 4)
    with pytest.raises(ValueError, match="there is no strategy 'newton' for fixed points"):
        parc.fixed_point(step, (x,), strategy="newton")
    with pytest.raises(ValueError, match="take the tolerance only"):
        parc.fixed_point(step, (x,), iteration=parc.Iteration(limit=3))
    with pytest.raises(ValueError, match="the strategy 'wavefront' makes no sweeps"):
        parc.fixed_point(step, (x,), strategy="wavefront", iteration=parc.Iteration())
    with pytest.raises(ValueError, match="as a tuple whose first is the tensor x"):
        parc.fixed_point(step, x)


class Sampler(nn.Module):
    """One of two values for each element, by noise that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Made(30, 64)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return (noise < torch.sigmoid(self.model(x))).float()


def one_by_one(step: Callable[..., Tensor], x: Tensor, *inputs: Tensor, order: Sequence[tuple[int, ...]]) -> Tensor:
    """Ancestral sampling: the elements after each other, each from a whole step."""
    x = x.clone()
    with torch.no_grad():
        for element in order:
            place = (slice(None), *element)
            x[place] = step(x, *inputs)[place]
    return x


def test_samples_are_those_of_ancestral_sampling() -> None:
    """Identical ones: noise that hits a probability to the last bits has measure zero, and is not among this."""
    torch.manual_seed(0)
    step = Sampler()
    sampler = parc.fixed_point(step, (torch.zeros(2, 30), torch.rand(2, 30)))
    order = [(int(n),) for n in step.model.order.argsort()]
    for batch in (1, 3, 50):
        noise = torch.rand(batch, 30)
        expected = one_by_one(step, torch.zeros(batch, 30), noise, order=order)
        for start in (torch.zeros(batch, 30), torch.full((batch, 30), 7.0)):
            assert torch.equal(sampler(start, noise), expected)
            assert 1 < sampler.iterations["x"].sweeps <= int(sampler.bound) <= 30
    # It starts from what it is given: nothing changes any more.
    assert torch.equal(sampler(expected, noise), expected)
    assert sampler.iterations["x"].sweeps == 1

    # Weights are live. Where a zero was, the order holds no longer.
    with torch.no_grad():
        step.model.out.bias += torch.randn(30)
    noise = torch.rand(4, 30)
    expected = one_by_one(step, torch.zeros(4, 30), noise, order=order)
    assert torch.equal(sampler(torch.zeros(4, 30), noise), expected)
    mask = step.model.out.mask.clone()
    step.model.out.mask[:, 0] = 0
    assert torch.equal(sampler(torch.zeros(4, 30), noise), one_by_one(step, noise, noise, order=order))
    step.model.out.mask.fill_(1)
    with pytest.raises(parc.CallError, match=r"the weights have changed since the step was compiled: .*x\[0, \d+\]"):
        sampler(torch.zeros(4, 30), noise)
    step.model.out.mask.copy_(mask)
    assert torch.equal(sampler(torch.zeros(4, 30), noise), expected)


def test_zeros_of_weights_count() -> None:
    """Without a mask, in the weight itself: training that changes one of them is noticed."""
    torch.manual_seed(0)
    linear = nn.Linear(5, 5)
    with torch.no_grad():
        linear.weight.copy_(linear.weight.tril(-1))
    solve = parc.fixed_point(lambda x, u: linear(x) + u, (torch.zeros(2, 5), torch.zeros(2, 5)))
    u = torch.randn(3, 5)
    with torch.no_grad():
        linear.weight *= 2
        expected = torch.linalg.solve(torch.eye(5) - linear.weight, (u + linear.bias).T).T
        assert torch.allclose(solve(u, u), expected, atol=1e-5)
        # One more than the longest chain, to see that nothing changes, but not more than the bound.
        assert solve.bound == "5" and solve.iterations["x"].sweeps == 5
        linear.weight[1, 4] = 1e-20
    with pytest.raises(parc.CallError, match="depend on each other"):
        solve(u, u)


def test_chain_takes_as_many_sweeps_as_the_bound() -> None:
    """Each element is the one before it: nothing is faster, and with a declared length the bound grows with it."""
    shift = parc.fixed_point(
        lambda x, first: torch.cat([first, x[:, :-1] + 1], 1),
        (torch.zeros(2, 8, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long)),
        dynamic_shapes=({0: "B", 1: "T"}, {0: "B"}),
    )
    assert shift.bound == "T"
    for length in (2, 11):
        x = shift(torch.full((3, length), 99), torch.zeros(3, 1, dtype=torch.long))
        assert torch.equal(x, torch.arange(length).expand(3, -1))
        assert shift.iterations["x"].sweeps == length


def test_greedy_decoding() -> None:
    """Of all positions at once, against one token after the other."""
    torch.manual_seed(0)
    model = Attention(12).eval()

    def decode(tokens: Tensor, prompt: Tensor) -> Tensor:
        return torch.cat([prompt, model(tokens)[:, prompt.shape[1] - 1 : -1].argmax(-1)], 1)

    prompt = torch.randint(7, (2, 3))
    decoder = parc.fixed_point(decode, (torch.zeros(2, 12, dtype=torch.long), prompt))
    assert decoder.bound == "10"
    for batch in (1, 4):
        prompt = torch.randint(7, (batch, 3))
        expected = one_by_one(decode, torch.zeros(batch, 12, dtype=torch.long), prompt, order=[(n,) for n in range(12)])
        assert torch.equal(decoder(torch.zeros(batch, 12, dtype=torch.long), prompt), expected)
        assert decoder.iterations["tokens"].sweeps <= 10


def test_categories_by_gumbel_noise() -> None:
    """Rows that depend on each other: the size of the first dimension is fixed then."""
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 4)

    def step(x: Tensor, noise: Tensor) -> Tensor:
        before = functional.one_hot(functional.pad(x[:-1], (1, 0)), 4).float()
        logits = torch.einsum("tc,tcd->td", before, weight)
        return (logits + noise).argmax(-1)

    sampler = parc.fixed_point(step, (torch.zeros(6, dtype=torch.long), torch.zeros(6, 4)))
    assert sampler.bound == "6" and not sampler.dependences.rows_independent
    for _ in range(5):
        noise = -torch.rand(6, 4).log().neg().log()
        x = torch.zeros(6, dtype=torch.long)
        for t in range(6):
            x[t] = step(x, noise)[t]
        assert torch.equal(sampler(torch.full((6,), 3), noise), x)


def test_report() -> None:
    found = Traced(Made(8, 12), torch.zeros(1, 8)).dependences()
    assert str(found) == f"x[1, 8]: {found.bound} levels, {found.matrix.sum()} dependences, rows independent"
    order = found.levels.reshape(-1).argsort(kind="stable")
    ordered = found.matrix[order][:, order]
    assert found.picture().startswith("<svg") and found.picture().count("<path") == 1 + sum(
        len(runs(row)) for row in ordered
    )
