"""Layers of networks, solved for by sweeps: bounds and values by the interpreter, whole programs against torch."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import evaluate
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.dialect import load
from parc.errors import CompileError
from parc.iterative.layer_blocks import check_depths, grouped, with_bottlenecks
from parc.pipelines import parse_pipeline, run_pipeline

# -- random networks, interpreted ---------------------------------------------------------------------


@st.composite
def _wirings(draw: st.DrawFn) -> list[list[int]]:
    """For each layer the numbers of those that it adds up, of which 0 is the input."""
    count = draw(st.integers(4, 9))
    return [draw(st.lists(st.integers(max(0, n - 3), n), min_size=1, max_size=3, unique=True)) for n in range(count)]


def _network(wiring: Sequence[Sequence[int]], results: Sequence[int]) -> str:
    """A network of layers `tanh(sum of others W)`, each of other weights, as MLIR."""
    tile, weights = "tensor<?x8xf32>", "tensor<8x8xf32>"
    arguments = "".join(
        f', %w{i}: {weights} {{parc.kind = "parameter", parc.name = "layer{i}.weight"}}' for i in range(len(wiring))
    )
    lines = []
    for i, sources in enumerate(wiring):
        total = f"%v{sources[0]}"
        for j, source in enumerate(sources[1:]):
            lines.append(_elementwise(f"%s{i}_{j}", "arith.addf %a, %b", [total, f"%v{source}"]))
            total = f"%s{i}_{j}"
        lines.append(
            f"%p{i} = linalg.matmul ins({total}, %w{i} : {tile}, {weights}) outs(%zero : {tile}) -> {tile}\n"
            + _elementwise(f"%v{i + 1}", "math.tanh %a", [f"%p{i}"])
        )
    values = ", ".join(f"%v{n}" for n in results)
    return f"""
#id = affine_map<(i, j) -> (i, j)>
func.func @main(%B: index {{parc.kind = "symbol", parc.name = "B"}},
    %v0: {tile} {{parc.kind = "input", parc.shape = affine_map<()[B] -> (B, 8)>}}{arguments})
    -> ({", ".join([tile] * len(results))}) {{
  %c0 = arith.constant 0.0 : f32
  %e = tensor.empty(%B) : {tile}
  %zero = linalg.fill ins(%c0 : f32) outs(%e : {tile}) -> {tile}
  {"".join(lines)}
  return {values} : {", ".join([tile] * len(results))}
}}"""


def _elementwise(result: str, body: str, inputs: Sequence[str]) -> str:
    tile, count = "tensor<?x8xf32>", len(inputs)
    maps, types = ", ".join(["#id"] * (count + 1)), ", ".join([tile] * count)
    return f"""{result} = linalg.generic {{indexing_maps = [{maps}], iterator_types = ["parallel", "parallel"]}}
    ins({", ".join(inputs)} : {types}) outs(%e : {tile}) {{
  ^bb0({", ".join(f"%{n}: f32" for n in ("a", "b")[:count])}, %o: f32):
    %r = {body} : f32
    linalg.yield %r : f32
  }} -> {tile}
"""


def _after(text: str, pipeline: str) -> ir.Module:
    context = ir.Context()
    load(context)
    with context, ir.Location.unknown():
        module = ir.Module.parse(text)
        run_pipeline(module, parse_pipeline(pipeline))
        assert module.operation.verify()
        return module


def _solved(text: str, options: str) -> ir.Module:
    return _after(text, f"iterate-layers{{{options}}},canonicalize,cse")


def _iterations(module: ir.Module) -> list[ir.Operation]:
    main = module.body.operations[0]
    return [op.operation for op in main.regions[0].blocks[0].operations if op.operation.name == "parc.iterate"]


@settings(max_examples=40, deadline=None)
@given(
    wiring=_wirings(),
    solver=st.sampled_from(["jacobi", "jacobi-gs block=1", "jacobi-gs block=2", "jacobi-gs", "gs-jacobi block=4"]),
    limit=st.sampled_from([0, 0, 1]),
    start=st.sampled_from(["zeros", "previous"]),
    raised=st.booleans(),
)
def test_sweeps_are_exact_at_their_bound(
    wiring: list[list[int]], solver: str, limit: int, start: str, raised: bool
) -> None:
    """From whatever start, to the last bit: in a sweep every layer is computed as in the program."""
    results = [len(wiring), *range(1, len(wiring), 3)]
    original = _after(_network(wiring, results), "raise-products" if raised else "canonicalize")
    try:
        module = _solved(str(original), f"solver={solver} tolerance=0 limit={limit} start={start}")
    except CompileError as error:
        assert "nothing to sweep over" in str(error)
        return
    rng = np.random.default_rng(len(wiring))
    x = rng.standard_normal((2, 8)).astype(np.float32)
    weights = [rng.standard_normal((8, 8)).astype(np.float32) for _ in wiring]
    (main,) = module.body.operations
    starts = [rng.standard_normal((2, 8)).astype(np.float32) for a in main.arg_attrs if "start" in str(a["parc.kind"])]
    assert bool(starts) == (start == "previous")
    expected = evaluate(original, [2], [x, *weights])
    found = evaluate(module, [2], [x, *starts, *weights])
    for a, b in zip(expected, found, strict=False):
        np.testing.assert_array_equal(a, b)


def test_blocks_of_a_chain() -> None:
    """Depths, what is swept over and what stays outside."""
    text = _network([[n] for n in range(10)], [10])
    (op,) = _iterations(_solved(text, "solver=jacobi-gs block=2"))
    assert str(op.attributes["bound"].value) == "()[s0] -> (2)"
    assert [a.value for a in op.attributes["arrays"]] == ["layer3", "layer5", "layer7"]
    assert [line.value for line in op.attributes["blocks"]] == [
        "layer0 to layer1: 2 layers, computed before the sweeps",
        "layer2 to layer3: 2 layers, computed before the sweeps; needs layer0 to layer1",
        "layer4 to layer5: 2 layers, final after 1 sweep; needs layer2 to layer3",
        "layer6 to layer7: 2 layers, final after 2 sweeps; needs layer4 to layer5",
        "layer8 to layer9: 2 layers, computed after the sweeps; needs layer6 to layer7",
    ]


def test_too_small_a_depth_is_refused() -> None:
    needs = [frozenset(), frozenset([0]), frozenset([0, 1]), frozenset([1, 2])]
    for depths in ([0, 0, 1, 2], [0, 0, 0, 1], [0, 1, 2, 5]):
        check_depths(needs, depths)
    for depths in ([0, 0, 1, 1], [0, 1, 0, 2], [1, 1, 2, 3]):
        with pytest.raises(AssertionError, match="before what it needs"):
            check_depths(needs, depths)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 6))
def test_groups_are_cut_where_the_fewest_numbers_cross(widths: list[int], most: int) -> None:
    network = _Chain(widths)
    found = grouped(network, most)
    assert [n for group in found for n in group] == list(range(len(widths)))
    assert all(len(group) <= most for group in found)
    ways = [cuts for cuts in _cuts(len(widths)) if all(b - a <= most for a, b in pairwise(cuts))]
    assert sum(widths[group[-1]] for group in found[:-1]) == min(
        sum(widths[cut - 1] for cut in cuts[1:-1]) for cuts in ways
    )


def test_bottlenecks_are_one_with_the_layer_that_needs_them() -> None:
    assert with_bottlenecks(_Chain([4, 16, 4, 16, 4, 4])) == [(0,), (1, 2), (3, 4), (5,)]
    # No more than two: a pyramid is none.
    assert with_bottlenecks(_Chain([16, 8, 4, 2])) == [(0, 1), (2, 3)]


class _Chain:
    """What groups are made of: layers of these widths, each of which the next one needs."""

    def __init__(self, widths: Sequence[int]) -> None:
        self.layers = [SimpleNamespace(width=w) for w in widths]

    def last_use(self, number: int) -> int:
        return min(number + 1, len(self.layers) - 1)

    def only_use(self, number: int) -> int | None:
        return number + 1 if number + 1 < len(self.layers) else None


def _cuts(count: int) -> Iterator[tuple[int, ...]]:
    """All ways to cut so many layers."""
    for inner in product([False, True], repeat=count - 1):
        yield (0, *(n for n, is_cut in enumerate(inner, 1) if is_cut), count)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (3, "solver=jacobi", "nothing to sweep over in 3 layers, at least 4 that need each other"),
        (6, "solver=jacobi-gs block=7", "a block cannot have 7 of 6 layers"),
        (8, "solver=jacobi-gs block=3", "with blocks of 3: choose at most 2, or 0"),
        (8, "solver=gs-jacobi block=2", "with blocks of 2: choose at least 4, or 0"),
        (6, "solver=jacobi block=2", "jacobi takes each layer by itself, not 2"),
        (6, "solver=jacobi tolerance=1e-9", "below the precision of layer1, which is f32"),
    ],
)
def test_what_makes_no_sense_is_refused(layers: int, options: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        _solved(_network([[n] for n in range(layers)], [layers]), options)


# -- whole programs ---------------------------------------------------------------------


class Chain(nn.Module):
    """Layers one after the other."""

    def __init__(self, layers: int, units: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(units, units) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class Residual(nn.Module):
    """Two layers past which each state goes on, several times."""

    def __init__(self, blocks: int, units: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(units, units) for _ in range(blocks)])
        self.outer = nn.ModuleList([nn.Linear(units, units) for _ in range(blocks)])

    def forward(self, x: Tensor) -> Tensor:
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(torch.relu(inner(x)))
        return x


class Bottleneck(nn.Module):
    """Appends channels to its input: those of a DenseNet-BC."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(narrow)))], 1)


class Dense(nn.Module):
    """Dense blocks of two layers and one, with a transition between them."""

    def __init__(self, growth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(*(Bottleneck(growth * n, growth) for n in (2, 3)))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, 2 * growth, 1, bias=False), nn.AvgPool2d(2)
        )
        self.block2 = Bottleneck(2 * growth, growth)
        self.norm, self.out = nn.BatchNorm2d(3 * growth), nn.Linear(3 * growth, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block2(self.transition(self.block1(self.first(x))))
        return self.out(torch.relu(self.norm(x)).mean((2, 3)))


def _draw(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    """Give all parameters and statistics other values; `scale` is that of weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            if tensor.dim() > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale / fan_in**0.5)
            else:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)


def test_chain() -> None:
    model = Chain(10, 16).eval()
    compiled = parc.compile(
        model,
        torch.zeros(3, 16),
        strategy="jacobi-gs",
        iteration=parc.Iteration(tolerance=0.0, block=2, start="previous"),
    )

    @settings(max_examples=15, deadline=None)
    @given(batch=st.integers(1, 20), seed=st.integers(0, 99), scale=st.sampled_from([0.1, 1.0, 2.0]))
    def check(batch: int, seed: int, scale: float) -> None:
        _draw(model, seed, scale)
        x = torch.randn(batch, 16, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
            assert compiled.iterations["layers"].sweeps <= 2
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
        # What the last call ended with is exact.
        assert compiled.iterations["layers"].sweeps == 1

    check()


def test_residual_and_its_gradients() -> None:
    """Where layers add little, few sweeps are enough; so are they for the gradients."""
    model = Residual(5, 16)
    _draw(model, 0, 0.05)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    compiled = parc.compile(model, x, strategy="jacobi", training=True, iteration=parc.Iteration(tolerance=1e-4))
    expected = model(x)
    gradients = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    y = compiled(x)
    found = torch.autograd.grad(y.square().sum(), list(model.parameters()))
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)
    for a, b in zip(found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
    for name in ("layers", "gradients"):
        assert compiled.iterations[name].converged and compiled.iterations[name].sweeps < 6


def test_dense_net() -> None:
    model = Dense(8).eval()
    compiled = parc.compile(
        model, torch.zeros(2, 3, 8, 8), strategy="jacobi-gs", iteration=parc.Iteration(tolerance=1e-6)
    )
    for seed, shape in enumerate([(2, 3, 8, 8), (1, 3, 4, 6), (3, 3, 6, 10)]):
        _draw(model, seed)
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        assert compiled.iterations["layers"].sweeps <= 3
