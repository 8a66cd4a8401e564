"""Direct solvers of affine recurrences: results against float64 step by step, steps against the theory."""

import copy
from collections.abc import Callable
from functools import cache
from math import ceil, log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import evaluate
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.compiler import Compiler, Options
from parc.dialect import load
from parc.errors import CompileError
from parc.importers.sources import import_model
from parc.pipelines import parse_pipeline, run_pipeline
from parc.poly import count
from parc.poly.chains import find_chains
from parc.poly.model import System, build, systems
from parc.poly.rows import find_cells
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


@pytest.mark.parametrize("layers", [2, 4])
def test_steps_of_a_nested_scan_are_those_of_the_theory(layers: int) -> None:
    """The backward pass of a stacked RNN in O(log k log T) steps: one program serves all lengths."""
    context = ir.Context()
    load(context)
    imported = import_model(nn.RNN(_UNITS, _UNITS, layers), (torch.randn(10, 2, _UNITS),), {}, context)
    compiler = Compiler(imported, Options(strategy="nested-scan"), "RNN")
    _, backward = compiler.adjoint()
    run_pipeline(backward, parse_pipeline("split-products,canonicalize,cse,solve-affine{solver=nested-scan levels=12}"))
    with context, ir.Location.unknown():
        solved = [s for s in map(build, systems(backward)) if s.strategy == "nested-scan"]
        (steps,) = map(count.steps, solved)
        for length in (16, 64, 256, 1024, 4096):
            expected = (log2(layers) + 1) * (2 * log2(length) + 2) + 1
            assert steps.at({"T": length, "B": 2}) == expected
    assert f"layers in the stack: {layers}" in solved[0].why


def test_chunks_take_their_size_twice_and_their_number_of_steps() -> None:
    steps = count.steps(_solved(_diagonal(False), "solver=scan chunk=64 levels=1"))
    # The first pair of each chunk, the first chunk step by step, the start of every other, and these step by step.
    assert steps.at({"T": 4096}) == 1 + 64 + 63 + 64


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


class _Stack(nn.Module):
    """Leaky integrators, each fed by the one below."""

    def __init__(self, layers: int, recurrent: Tensor) -> None:
        super().__init__()
        self.w = nn.ParameterList(nn.Parameter(torch.randn_like(recurrent) / 3) for _ in range(layers))
        self.u = nn.ParameterList(nn.Parameter(recurrent * 0.9) for _ in range(layers))

    def _product(self, weight: Tensor, x: Tensor) -> Tensor:
        return x @ weight if weight.dim() == 2 else x * weight

    def forward(self, x: Tensor) -> Tensor:
        states = [torch.zeros_like(x[0]) for _ in self.w]
        results = []
        for t in range(x.shape[0]):
            y = x[t]
            for layer in range(len(self.w)):
                y = self._product(self.w[layer], y) + self._product(self.u[layer], states[layer])
                states[layer] = y
            results.append(y)
        return torch.stack(results)


class _Tanh(nn.Module):
    def __init__(self, units: int = _UNITS) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-0.9, 0.9, units))

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


def _is_nested(why: str, layers: int) -> bool:
    return f"layers in the stack: {layers}" in why


def test_nested_scan_of_a_diagonal_stack() -> None:
    model = _Stack(2, torch.linspace(-1, 1, _UNITS))
    compiled = parc.compile(model, [torch.randn(20, 2, _UNITS)], threads=2, strategy="nested-scan")
    assert any(_is_nested(system.why, 2) for system in compiled.explain().systems)
    for steps, rows in ((1, 1), (2, 3), (7, 1), (33, 2), (300, 1)):
        x = torch.randn(steps, rows, _UNITS)
        expected = copy.deepcopy(model).double()(x.double()).float()
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("layers", [2, 3])
def test_nested_scan_of_a_dense_stack(layers: int) -> None:
    """The equations themselves, by the interpreter."""
    torch.manual_seed(layers)
    units = 2
    model = _Stack(layers, torch.randn(units, units)).double()
    context = ir.Context()
    load(context)
    imported = import_model(model, (torch.randn(6, 2, units, dtype=torch.float64),), {}, context)
    compiler = Compiler(imported, Options(strategy="nested-scan"), "stack")
    module = compiler.schedule()
    with context, ir.Location.unknown():
        assert any(_is_nested(system.why, layers) for system in map(build, systems(module)))
    parameters = [p.detach().numpy() for p in imported.parameters.values()]
    for steps in (1, 2, 6, 9):
        x = torch.randn(steps, 2, units, dtype=torch.float64)
        (found,) = evaluate(module, [steps, 2], [x.numpy(), *parameters])
        torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-9, atol=1e-9)


class _Between(nn.Module):
    """Two leaky integrators with a nonlinear recurrence between them."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-0.9, 0.9, 3 * _UNITS).reshape(3, _UNITS))

    def forward(self, x: Tensor) -> Tensor:
        a = b = c = torch.zeros_like(x[0])
        results = []
        for t in range(x.shape[0]):
            a = self.w[0] * a + x[t]
            b = torch.tanh(self.w[1] * b + a)
            c = self.w[2] * c + b
            results.append(c)
        return torch.stack(results)


def test_nested_scans_leave_a_nonlinear_recurrence_between_them() -> None:
    x = torch.randn(6, 2, _UNITS, requires_grad=True)
    report = parc.explain(_Between(), [x], strategy="nested-scan", training=True)
    solved = [system for system in report.systems if system.strategy == "nested-scan"]
    assert len(solved) == 2 and all(_is_nested(system.why, 1) for system in solved)


def test_report_names_the_solver() -> None:
    report = _compiled(_Diagonal, 1, "scan")[1].explain()
    (system,) = report.systems
    assert system.strategy == "scan"
    assert "ms predicted for a scan, against" in system.why


def test_a_cell_that_is_not_affine_is_refused() -> None:
    with pytest.raises(CompileError, match="is not affine in its state: 'math.tanh' is not linear in it"):
        parc.compile(_Tanh(), [torch.randn(5, 2, _UNITS)], strategy="scan")


@pytest.mark.parametrize(("rows", "units"), [(1, 1), (2, 8), (3, 5), (1, 40), (700, 3)])
def test_gradients_by_scan(rows: int, units: int) -> None:
    """Backwards, every cell is affine: a model that is trained may ask for a solver.

    Small tiles stay in registers from step to step, and of large ones several rows at a time in a scratch tile.
    """
    model = _Tanh(units)
    x = torch.randn(40, rows, units, requires_grad=True)
    compiled = parc.compile(model, [x], threads=2, strategy="scan", training=True)
    for steps in (1, 17, 40):
        part, weights = x[:steps], torch.randn(steps, rows, units)
        expected = torch.autograd.grad(model(part), [x, model.a], weights)
        found = torch.autograd.grad(compiled(part), [x, model.a], weights)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_thread_goes_through_its_chunks_in_one_call() -> None:
    system = _solved(_diagonal(False), "solver=scan chunk=64 levels=1 threads=2")
    chains = find_chains(system, find_cells(system))[1]
    # What a step hands on is in memory at the end of a chunk alone; the states are results.
    assert set(chains) == {"cell_head0", "cell_chunk0", "cell_tail0"}
    assert [len(chains[name].carry.kept) for name in ("cell_head0", "cell_chunk0", "cell_tail0")] == [1, 2, 1]
