"""Direct solvers of affine recurrences: results against float64 step by step, steps against the theory."""

from collections.abc import Callable
from functools import cache
from math import ceil, log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.dialect import load
from parc.errors import CompileError
from parc.pipelines import parse_pipeline, run_pipeline
from parc.poly import count
from parc.poly.model import System, build, systems
from parc.poly.schedules import SOLVERS

_UNITS = 8

_DIAGONAL = """
#ij = affine_map<(i, j) -> (i, j)>
#j = affine_map<(i, j) -> (j)>
func.func @main(%T: index, %x: tensor<?x1x{H}xf32>, %a: tensor<{H}xf32>, %h0: tensor<1x{H}xf32>)
    -> tensor<?x1x{H}xf32> {
  %e = tensor.empty() : tensor<1x{H}xf32>
  %s = "parc.system"(%T) ({
    %h = "parc.unknown"() {name = "H", shape = affine_map<()[T] -> (T + 1, 1, {H})>} : () -> tensor<?x1x{H}xf32>
    "parc.boundary"(%h, %h0) {domain = affine_set<()[T] : (0 == 0)>, to = affine_map<()[T] -> ({start})>,
      of = affine_map<()[T] -> ()>} : (tensor<?x1x{H}xf32>, tensor<1x{H}xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%t: index):
      %ht = "parc.read"(%h) {at = affine_map<(t)[T] -> ({read})>} : (tensor<?x1x{H}xf32>) -> tensor<1x{H}xf32>
      %xt = "parc.read"(%x) {at = affine_map<(t)[T] -> (t)>} : (tensor<?x1x{H}xf32>) -> tensor<1x{H}xf32>
      %new = linalg.generic {indexing_maps = [#j, #ij, #ij, #ij], iterator_types = ["parallel", "parallel"]}
          ins(%a, %ht, %xt : tensor<{H}xf32>, tensor<1x{H}xf32>, tensor<1x{H}xf32>) outs(%e : tensor<1x{H}xf32>) {
      ^bb0(%ai: f32, %hi: f32, %xi: f32, %out: f32):
        %p = arith.mulf %ai, %hi : f32
        %q = arith.addf %p, %xi : f32
        linalg.yield %q : f32
      } -> tensor<1x{H}xf32>
      "parc.write"(%new, %h) {at = affine_map<(t)[T] -> ({write})>} : (tensor<1x{H}xf32>, tensor<?x1x{H}xf32>) -> ()
    }) {name = "cell", domain = affine_set<(t)[T] : (t >= 0, T - 1 - t >= 0)>} : () -> ()
  }) {symbols = ["T"]} : (index) -> !parc.solution
  %H = "parc.array"(%s) {name = "H"} : (!parc.solution) -> tensor<?x1x{H}xf32>
  return %H : tensor<?x1x{H}xf32>
}
"""

# The backward pass of 64 layers `z = tanh(z W)`: the Jacobian of each row is dense.
_LAYERS = """
#here = affine_map<(l)[B] -> (l)>
#next = affine_map<(l)[B] -> (l + 1)>
#ij = affine_map<(i, j) -> (i, j)>
func.func @main(%B: index, %g: tensor<?x8xf32>, %z: tensor<64x?x8xf32>, %w: tensor<65x8x8xf32>) -> tensor<65x?x8xf32> {
  %e = tensor.empty(%B) : tensor<?x8xf32>
  %c0 = arith.constant 0.0 : f32
  %zero = linalg.fill ins(%c0 : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %s = "parc.system"(%B) ({
    %v = "parc.unknown"() {name = "V", shape = affine_map<()[B] -> (65, B, 8)>} : () -> tensor<65x?x8xf32>
    "parc.boundary"(%v, %g) {domain = affine_set<()[B] : (0 == 0)>, to = affine_map<()[B] -> (64)>,
      of = affine_map<()[B] -> ()>} : (tensor<65x?x8xf32>, tensor<?x8xf32>) -> ()
    "parc.equation"() ({
    ^bb0(%l: index):
      %vn = "parc.read"(%v) {at = #next} : (tensor<65x?x8xf32>) -> tensor<?x8xf32>
      %wn = "parc.read"(%w) {at = #next} : (tensor<65x8x8xf32>) -> tensor<8x8xf32>
      %zl = "parc.read"(%z) {at = #here} : (tensor<64x?x8xf32>) -> tensor<?x8xf32>
      %p = linalg.matmul ins(%vn, %wn : tensor<?x8xf32>, tensor<8x8xf32>)
          outs(%zero : tensor<?x8xf32>) -> tensor<?x8xf32>
      %new = linalg.generic {indexing_maps = [#ij, #ij, #ij], iterator_types = ["parallel", "parallel"]}
          ins(%p, %zl : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
      ^bb0(%pi: f32, %zi: f32, %out: f32):
        %one = arith.constant 1.0 : f32
        %sq = arith.mulf %zi, %zi : f32
        %d = arith.subf %one, %sq : f32
        %r = arith.mulf %pi, %d : f32
        linalg.yield %r : f32
      } -> tensor<?x8xf32>
      "parc.write"(%new, %v) {at = #here} : (tensor<?x8xf32>, tensor<65x?x8xf32>) -> ()
    }) {name = "layer", domain = affine_set<(l)[B] : (l >= 0, 63 - l >= 0)>} : () -> ()
  }) {symbols = ["B"]} : (index) -> !parc.solution
  %V = "parc.array"(%s) {name = "V"} : (!parc.solution) -> tensor<65x?x8xf32>
  return %V : tensor<65x?x8xf32>
}
"""


def _diagonal(backwards: bool, units: int = _UNITS) -> str:
    ends = ("T", "t + 1", "t") if backwards else ("0", "t", "t + 1")
    text = _DIAGONAL.replace("{H}", str(units))
    for key, value in zip(("{start}", "{read}", "{write}"), ends, strict=True):
        text = text.replace(key, value)
    return text


def _solved(text: str, options: str) -> System:
    """The one system of a module, after the pass with these options."""
    context = ir.Context()
    load(context)
    module = ir.Module.parse(text, context)
    run_pipeline(module, parse_pipeline(f"solve-affine{{{options}}}"))
    with context, ir.Location.unknown():
        (op,) = systems(module)
        system = build(op)
    # The operations belong to the module.
    _MODULES.append(module)
    return system


_MODULES: list[ir.Module] = []


@pytest.mark.parametrize("backwards", [False, True])
def test_steps_of_a_tree_are_those_of_the_theory(backwards: bool) -> None:
    """One program serves all lengths: levels without steps take none."""
    for options in ("solver=cyclic-reduction levels=12", "solver=scan chunk=2 levels=12"):
        steps = count.steps(_solved(_diagonal(backwards), options))
        for length in (16, 64, 256, 1024, 4096):
            assert steps.at({"T": length}) == 2 * log2(length) + 1


def test_steps_of_recursive_doubling_are_those_of_the_theory() -> None:
    for length in (16, 64, 256):
        system = _solved(_diagonal(False), f"solver=recursive-doubling sizes=T={length}")
        assert count.steps(system).at({"T": length}) == log2(length) + 1


def test_backward_pass_of_64_layers_takes_14_steps() -> None:
    for options in ("solver=scan chunk=2", "solver=cyclic-reduction"):
        assert count.steps(_solved(_LAYERS, options)).at({"B": 4}) <= 2 * ceil(log2(64)) + 2


def test_chunks_take_their_size_and_their_number_of_steps() -> None:
    steps = count.steps(_solved(_diagonal(False), "solver=scan chunk=64 levels=1"))
    # A pair, 62 more in the chunk, 64 ends, and all others at once.
    assert steps.at({"T": 4096}) == 1 + 62 + 64 + 1


@pytest.mark.parametrize(("units", "threads", "expected"), [(4, 16, "scan"), (512, 2, "")])
def test_auto_picks_a_scan_where_it_is_predicted_to_win(units: int, threads: int, expected: str) -> None:
    system = _solved(_diagonal(False, units), f"solver=auto threads={threads} sizes=T=16384")
    assert system.strategy == expected
    assert ("predicted for a scan" in system.why) == bool(expected)


def test_auto_does_not_pick_a_scan_for_dense_blocks() -> None:
    wide = _LAYERS.replace("8x8xf32", "512x512xf32").replace("x8xf32", "x512xf32").replace(", 8)", ", 512)")
    assert not _solved(wide, "solver=auto threads=2").strategy


# -- compiled --------------------------------------------------------------------------------------------------------


class _Diagonal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-0.95, 0.95, _UNITS))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], x.shape[2], dtype=x.dtype)
        states = []
        for t in range(x.shape[0]):
            h = self.a.to(x.dtype) * h + x[t]
            states.append(h)
        return torch.stack(states)


class _Gated(nn.Module):
    """As in QRNN and SRU: the factor differs from step to step."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], x.shape[2], dtype=x.dtype)
        states = []
        for t in range(x.shape[0]):
            gate = torch.sigmoid(f[t])
            h = gate * h + (1 - gate) * x[t]
            states.append(h)
        return torch.stack(states)


class _Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.eye(_UNITS).roll(1, 0) * 0.7 + 0.02)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], x.shape[2], dtype=x.dtype)
        states = []
        for t in range(x.shape[0]):
            h = h @ self.u.to(x.dtype) + x[t]
            states.append(h)
        return torch.stack(states)


class _Tanh(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-0.9, 0.9, _UNITS))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[1], x.shape[2])
        states = []
        for t in range(x.shape[0]):
            h = torch.tanh(self.a * h + x[t])
            states.append(h)
        return torch.stack(states)


@cache
def _compiled(model: Callable[[], nn.Module], inputs: int, strategy: str) -> tuple[nn.Module, nn.Module]:
    original = model()
    example = [torch.randn(20, 2, _UNITS) for _ in range(inputs)]
    return original, parc.compile(original, example, threads=2, strategy=strategy)


@pytest.mark.parametrize("strategy", SOLVERS)
@given(steps=st.integers(1, 150), rows=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_diagonal_recurrence(strategy: str, steps: int, rows: int) -> None:
    original, compiled = _compiled(_Diagonal, 1, strategy)
    x = torch.randn(steps, rows, _UNITS)
    torch.testing.assert_close(compiled(x), original(x.double()).float(), rtol=1e-4, atol=1e-4)


@given(steps=st.integers(1, 150), rows=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_gated_recurrence(steps: int, rows: int) -> None:
    original, compiled = _compiled(_Gated, 2, "scan")
    x, f = torch.randn(steps, rows, _UNITS), torch.randn(steps, rows, _UNITS)
    torch.testing.assert_close(compiled(x, f), original(x.double(), f.double()).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", SOLVERS)
def test_dense_recurrence(strategy: str) -> None:
    original, compiled = _compiled(_Dense, 1, strategy)
    for steps, rows in ((1, 1), (2, 3), (33, 2), (100, 1)):
        x = torch.randn(steps, rows, _UNITS)
        torch.testing.assert_close(compiled(x), original(x.double()).float(), rtol=1e-4, atol=1e-4)


def test_report_names_the_solver() -> None:
    report = _compiled(_Diagonal, 1, "scan")[1].explain()
    (system,) = report.systems
    assert system.strategy == "scan"
    assert "ms predicted for a scan, against" in system.why


def test_a_cell_that_is_not_affine_is_refused() -> None:
    with pytest.raises(CompileError, match="is not affine in its state: 'math.tanh' is not linear in it"):
        parc.compile(_Tanh(), [torch.randn(5, 2, _UNITS)], strategy="scan")


def test_gradients_by_scan() -> None:
    """Backwards, every cell is affine: a model that is trained may ask for a solver."""
    model = _Tanh()
    x = torch.randn(40, 2, _UNITS, requires_grad=True)
    compiled = parc.compile(model, [x], threads=2, strategy="scan", training=True)
    weights = torch.randn(40, 2, _UNITS)
    expected = torch.autograd.grad(model(x), [x, model.a], weights)
    found = torch.autograd.grad(compiled(x), [x, model.a], weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
