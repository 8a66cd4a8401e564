"""Samplers of autoregressive image models as systems over pixels: equal to sampling pixel by pixel, in fewer waves."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import parc
from parc.poly.uniform import Edge, direction_and_offsets

LEVELS = 3


class Masked(nn.Conv2d):
    """A convolution that sees the pixels in front of its own, in the order of rows; kind "B" its own too."""

    def __init__(self, kind: str, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)
        mask = torch.zeros(size, size)
        mask[: size // 2] = 1
        mask[size // 2, : size // 2 + (kind == "B")] = 1
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Gated residual blocks of masked convolutions; draws the pixel's level by the noise of each (Gumbel)."""

    def __init__(self, first: str = "A") -> None:
        super().__init__()
        self.first = Masked(first, 1, 6, 3)
        self.blocks = nn.ModuleList(Masked("B", 6, 12, 3) for _ in range(2))
        self.out = nn.Conv2d(6, LEVELS, 1)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            values, gates = block(torch.relu(h)).chunk(2, 1)
            h = h + torch.tanh(values) * torch.sigmoid(gates)
        return (self.out(torch.relu(h)) + noise).argmax(1, keepdim=True).float()


class Shifted(nn.Module):
    """As in PixelCNN++: what is above the pixel, and what is on its left, by convolutions that are shifted."""

    def __init__(self) -> None:
        super().__init__()
        self.above, self.left = nn.Conv2d(2, 4, (2, 3)), nn.Conv2d(2, 4, (2, 1))
        self.down, self.right = nn.Conv2d(8, 4, (2, 3)), nn.Conv2d(8, 8, (2, 2))
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        # A channel of ones tells the image from the zeros around it.
        x = torch.cat([x, torch.ones_like(x)], 1)
        above = self.above(F.pad(x, (1, 1, 1, 0)))
        above = F.pad(above[:, :, :-1], (0, 0, 1, 0))
        left = self.left(F.pad(x, (0, 0, 1, 0)))
        left = above + F.pad(left[:, :, :, :-1], (1, 0, 0, 0))
        above = above + self.down(F.pad(torch.cat([above, -above], 1).relu(), (1, 1, 1, 0)))
        both = torch.cat([left + above, -left], 1)
        values, gates = self.right(F.pad(F.elu(both), (1, 0, 1, 0))).chunk(2, 1)
        return (noise[:, :1] < self.out(left + values * torch.sigmoid(gates))).float()


def pixel_by_pixel(step: Callable[[Tensor, Tensor], Tensor], noise: Tensor) -> Tensor:
    """Ancestral sampling: a run of the network for each pixel."""
    x = torch.zeros(noise.shape[0], 1, *noise.shape[2:])
    with torch.no_grad():
        for row, column in product(*map(range, noise.shape[2:])):
            x[:, :, row, column] = step(x, noise)[:, :, row, column]
    return x


def noise(seed: int, batch: int, rows: int, columns: int) -> Tensor:
    return torch.randn(batch, LEVELS, rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=[PixelCNN, Shifted])
def sampler(request: pytest.FixtureRequest) -> tuple[nn.Module, parc.FixedPoint]:
    torch.manual_seed(1)
    step = request.param()
    return step, parc.fixed_point(step, (torch.zeros(3, 1, 6, 5), noise(0, 3, 6, 5)), strategy="wavefront", threads=2)


@settings(max_examples=6)
@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_samples_are_those_of_ancestral_sampling(
    sampler: tuple[nn.Module, parc.FixedPoint], seed: int, batch: int, rows: int, columns: int
) -> None:
    step, compiled = sampler
    given = noise(seed, batch, rows, columns)
    anything = torch.full((batch, 1, rows, columns), torch.nan)
    assert torch.equal(compiled(anything, given), pixel_by_pixel(step, given))


def test_waves_follow_the_cone_of_the_masks(sampler: tuple[nn.Module, parc.FixedPoint]) -> None:
    step, compiled = sampler
    report = compiled.explain({"B": 1, "D0": 28, "D1": 28})
    assert report.work == 28 * 28
    # A row is two pixels behind the one above it; four where convolutions see the row above further to the right.
    assert report.span == report.waves == (2 * 27 + 28 if isinstance(step, PixelCNN) else 4 * 27 + 28 + 3)


def test_image_without_an_order_is_refused() -> None:
    with pytest.raises(parc.CompileError):
        parc.fixed_point(PixelCNN("B"), (torch.zeros(2, 1, 4, 4), noise(0, 2, 4, 4)), strategy="wavefront")


DISTANCES = st.tuples(st.integers(-2, 2), st.integers(-3, 3))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), DISTANCES, st.integers(0, 1)), min_size=1, max_size=7))
def test_direction_is_the_smallest(edges: list[tuple[int, int, tuple[int, int], int]]) -> None:
    """Offsets by all paths of so many edges, for all small directions."""
    names = ["a", "b", "c"]
    found = direction_and_offsets([Edge(names[s], names[t], d, least) for s, t, d, least in edges], names, [(1, 0)] * 2)
    expected = next(
        (a for a in sorted(product(range(12), repeat=2), key=lambda a: (sum(a), a)) if holds(edges, a)), None
    )
    if expected is None:
        assert found is None or sum(found[0]) >= 12
    else:
        assert found is not None
        direction, offsets = found
        assert sum(direction) == sum(expected)
        for source, sink, distance, least in edges:
            time = sum(a * d for a, d in zip(direction, distance, strict=True))
            assert time + offsets[names[sink]] - offsets[names[source]] >= least


def holds(edges: list[tuple[int, int, tuple[int, int], int]], direction: tuple[int, int]) -> bool:
    """Are there offsets for this direction? They grow for ever when there are none."""
    offsets = [0, 0, 0]
    for _ in range(4):
        before = list(offsets)
        for source, sink, distance, least in edges:
            need = least - direction[0] * distance[0] - direction[1] * distance[1]
            offsets[sink] = max(offsets[sink], offsets[source] + need)
    return before == offsets
