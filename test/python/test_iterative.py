"""Jacobi's method and its hybrids: bounds and results against enumeration, the interpreter, and PyTorch."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import evaluate
from random_systems import Point, Recurrence, recurrences, stack
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.dialect import load
from parc.errors import CompileError
from parc.iterative.depth import find_depth, prove
from parc.iterative.steps import count_steps
from parc.pipelines import parse_pipeline, run_pipeline
from parc.poly.dependences import Dependence, dependences
from parc.poly.model import System, build, systems

SOLVERS = ("jacobi", "jacobi-gs", "gs-jacobi")
_UNITS = 8


def _module(recurrence: Recurrence, whole: tuple[str, ...]) -> ir.Module:
    context = ir.Context()
    load(context)
    return ir.Module.parse(recurrence.text(whole=whole), context)


def _system(recurrence: Recurrence) -> tuple[ir.Module, System]:
    """The system, which belongs to the module."""
    module = _module(recurrence, tuple(recurrence.equations))
    with module.context, ir.Location.unknown():
        (op,) = systems(module)
        return module, build(op)


def _longest_paths(recurrence: Recurrence, size: int) -> dict[Point, int]:
    """How many instances follow each other up to each one, by enumeration."""
    sources: dict[Point, list[Point]] = {point: [] for point in recurrence.points(size)}
    for source, sink in recurrence.needs(size):
        sources[sink].append(source)
    found: dict[Point, int] = {}

    def longest(point: Point) -> int:
        if point not in found:
            found[point] = 1 + max(map(longest, sources[point]), default=0)
        return found[point]

    for point in sources:
        longest(point)
    return found


# -- depths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_stack_is_as_deep_as_steps_and_layers_together(layers: int) -> None:
    module, system = _system(stack(layers))
    with module.context, ir.Location.unknown():
        depth = find_depth(system, dependences(system))
        assert depth.deepest == ir.AffineExpr.get_symbol(0) + (layers - 1)
        for size in (1, 5):
            paths = _longest_paths(stack(layers), size)
            for (name, step), path in paths.items():
                time = depth.of[name]
                assert time.dims[0] * step + time.symbols[0] * size + time.constant == path


def test_a_wrong_depth_is_refused_with_the_dependence() -> None:
    module, system = _system(stack(2))
    with module.context, ir.Location.unknown():
        flow = dependences(system)
        depth = find_depth(system, flow)

        def all_sinks(dependence: Dependence) -> object:
            return dependence.relation.range()

        prove(system, flow, depth.fronts(system, 1), all_sinks)
        for change, message in (
            ({"cell1": depth.of["cell0"]}, r"cell1\[t=0\] reads cell0_h of cell0\[t=0\] in the sweep before for T=1"),
            ({"cell0": depth.of["cell0"].shifted(-1)}, "depths start at 1, not at 0, those of cell0"),
        ):
            wrong = replace(depth, of={**depth.of, **change})
            with pytest.raises(CompileError, match=message):
                prove(system, flow, wrong.fronts(system, 1), all_sinks)


# -- systems, by the interpreter -------------------------------------------------------------------------------------


@given(recurrence=recurrences(), solver=st.sampled_from(SOLVERS), block=st.integers(1, 4), data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_bound_is_exact_whatever_the_start(
    recurrence: Recurrence, solver: str, block: int, data: st.DataObject
) -> None:
    """From a start of random numbers, with all the equations' states as results."""
    module = _module(recurrence, tuple(recurrence.equations))
    options = f"solver={solver} start=previous block={block if solver != 'jacobi' else 0} sizes=T=4"
    swept = _module(recurrence, tuple(recurrence.equations))
    run_pipeline(swept, parse_pipeline(f"iterate{{{options}}}"))
    (main,) = swept.body.operations
    starts = str(main.attributes["arg_attrs"]).count('"start"')
    size, given = data.draw(st.integers(0, 6)), recurrence.given
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    # Small integers add up exactly in any order.
    x, h0 = (random.integers(-4, 4, shape).astype(np.float32) for shape in ((size, 2, 8), (2, 8)))
    guesses = [random.normal(size=(size + given, 2, 8)).astype(np.float32) for _ in range(starts)]
    expected = evaluate(module, [size], [x, h0])
    found = evaluate(swept, [size], [x, h0, *guesses])
    for one, other in zip(found, expected, strict=False):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("solver", SOLVERS)
def test_limit_falls_back_to_the_system_as_it_is(solver: str) -> None:
    """Sums of ones do not converge in two sweeps, of blocks of two steps."""
    recurrence = stack(2)
    module = _module(recurrence, ("cell1",))
    run_pipeline(module, parse_pipeline(f"iterate{{solver={solver} limit=2 block=2}}"))
    ones = np.ones((6, 2, 8), np.float32)
    (found,) = evaluate(module, [6], [ones, ones[0]])
    (expected,) = evaluate(_module(recurrence, ("cell1",)), [6], [ones, ones[0]])
    np.testing.assert_array_equal(found, expected)


# -- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "is_swept"), [(1, False), (16, True)])
def test_auto_sweeps_where_it_is_predicted_to_win(threads: int, is_swept: bool) -> None:
    module = _module(stack(1), ("cell0",))
    run_pipeline(module, parse_pipeline(f"iterate{{solver=auto tolerance=1e-5 threads={threads} sizes=T=16384}}"))
    assert ("parc.iterate" in str(module)) == is_swept
    assert "sweeps of jacobi" in str(module) and "if states are forgotten after" in str(module)


def test_auto_sweeps_only_where_a_tolerance_is_given() -> None:
    module = _module(stack(1), ("cell0",))
    before = str(module)
    run_pipeline(module, parse_pipeline("iterate{solver=auto threads=16 sizes=T=16384}"))
    assert str(module) == before


# -- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "per_sweep"), [("jacobi", 1), ("jacobi-gs", 9), ("gs-jacobi", 1)])
def test_steps_of_a_sweep(solver: str, per_sweep: int) -> None:
    """All steps at once, or those of a block and one more, in which what is final is handed on."""
    module = _module(stack(1), ("cell0",))
    options = f"solver={solver} block={0 if solver == 'jacobi' else 8}"
    run_pipeline(module, parse_pipeline(f"iterate{{{options}}},schedule,verify-schedule"))
    steps = count_steps(module, {"T": 64})
    assert steps.sweep == {"cell0": per_sweep}
    assert steps.total({"cell0": 5}) == steps.once + 5 * per_sweep


# -- compiled --------------------------------------------------------------------------------------------------------


class _Gated(nn.Module):
    """A cell of the user's own, with a product of a product, over two sequences, one of which runs backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(_UNITS, _UNITS) / 4)
        self.u = nn.Parameter(torch.randn(2, _UNITS, _UNITS) / 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps = x.shape[0]
        h = g = torch.zeros(x.shape[1], _UNITS, dtype=x.dtype)
        forwards: list[Tensor] = []
        backwards: list[Tensor] = []
        for t in range(steps):
            gate = torch.sigmoid(x[t] @ self.w + h @ self.u[0])
            h = torch.tanh((gate * h) @ self.u[1] + x[t])
            g = torch.cos(g @ self.u[0] + x[steps - 1 - t]) / 2
            forwards.append(h)
            backwards.append(g)
        return torch.stack(forwards), torch.stack(backwards)


class _Tokens(nn.Module):
    """The state is a token for each row, chosen greedily by those before."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        token = torch.zeros(x.shape[1], dtype=torch.int64)
        tokens = []
        for t in range(x.shape[0]):
            token = torch.argmax(nn.functional.embedding(token, self.table) + x[t], dim=-1)
            tokens.append(token)
        return torch.stack(tokens)


@cache
def _compiled(name: str) -> tuple[nn.Module, parc.Module]:
    torch.manual_seed(0)
    model, inputs, strategy, iteration = _MODELS[name]
    original = model()
    x = [torch.randn(10, 2, inputs)]
    return original, parc.compile(original, x, threads=2, strategy=strategy, iteration=iteration)


_MODELS = {
    "stack": (lambda: nn.GRU(_UNITS, _UNITS, 2), _UNITS, "jacobi", parc.Iteration(start="previous")),
    "own cell": (_Gated, _UNITS, "gs-jacobi", parc.Iteration(block=6)),
    "tokens": (_Tokens, 16, "jacobi", parc.Iteration(tolerance=0)),
}


@pytest.mark.parametrize("name", _MODELS)
@given(steps=st.integers(1, 60), rows=st.integers(1, 4), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_results_are_those_of_the_model(name: str, steps: int, rows: int, seed: int) -> None:
    original, compiled = _compiled(name)
    torch.manual_seed(seed)
    x = torch.randn(steps, rows, _MODELS[name][1])
    torch.testing.assert_close(compiled(x), original(x), rtol=1e-4, atol=2e-5)
    (iteration,) = compiled.iterations.values()
    assert 1 <= iteration.sweeps <= steps + 1


def test_the_last_solution_is_a_start() -> None:
    original, compiled = _compiled("stack")
    x = torch.randn(40, 2, _UNITS)
    compiled(x)
    torch.testing.assert_close(compiled(x)[0], original(x)[0], rtol=1e-4, atol=2e-5)
    assert compiled.iterations["cell0"].sweeps == 1


def test_gradients_are_swept_for_backwards() -> None:
    """A stack, forwards and backwards in blocks of eight steps: the adjoint system goes against time."""
    torch.manual_seed(0)
    model = nn.RNN(_UNITS, _UNITS, 2)
    x = torch.randn(10, 2, _UNITS, requires_grad=True)
    iteration = parc.Iteration(tolerance=1e-6, block=8)
    compiled = parc.compile(model, [x], threads=2, strategy="jacobi-gs", iteration=iteration, training=True)
    for steps, rows in ((1, 1), (8, 2), (50, 3)):
        x = torch.randn(steps, rows, _UNITS, requires_grad=True)
        weights, wrt = torch.randn(steps, rows, _UNITS), [x, *model.parameters()]
        expected = torch.autograd.grad(model(x)[0], wrt, weights)
        found = torch.autograd.grad(compiled(x)[0], wrt, weights)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)
        bounds = {"cell0": steps + 1, "cell1_adjoint": steps + 1}
        assert set(compiled.iterations) == set(bounds)
        assert all(it.sweeps <= -(-bounds[name] // 8) for name, it in compiled.iterations.items())
