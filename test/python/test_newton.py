"""Newton's method for recurrences: derivatives, results, sweeps, safety and training."""

from collections.abc import Sequence
from functools import cache

import interpreter
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.dialect import load
from parc.errors import CompileError
from parc.importers.sources import import_model
from parc.iterative.newton import LIMIT
from parc.pipelines import parse_pipeline, run_pipeline, stage_steps

_IN, _UNITS = 3, 4


class Cell(nn.Module):
    """A recurrence over `states` tensors of some units each, from zeros; gives the first one at every step."""

    states = 1

    def __init__(self, units: int = _UNITS) -> None:
        super().__init__()
        self.units = units
        self.first = nn.Linear(_IN + units, 2 * units)
        self.second = nn.Linear(units, units)

    def step(self, x: Tensor, *states: Tensor) -> Sequence[Tensor]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        states: Sequence[Tensor] = [torch.zeros(x.shape[1], self.units, dtype=x.dtype)] * self.states
        outputs = []
        for t in range(x.shape[0]):
            states = self.step(x[t], *states)
            outputs.append(states[0])
        return torch.stack(outputs)


class Reset(Cell):
    """A product behind a gate, so that a step has stages."""

    def step(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        gate, update = torch.sigmoid(self.first(torch.cat([x, h], 1))).chunk(2, 1)
        return [update * h + (1 - update) * torch.tanh(self.second(gate * h))]


class Normalised(Cell):
    """A layer norm, a maximum and a division: reductions and functions of all kinds."""

    def step(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        a, b = self.first(torch.cat([x, h], 1)).chunk(2, 1)
        normed = nn.functional.layer_norm(a + h, (self.units,))
        return [torch.softmax(normed, 1) / (1 + b * b) + torch.relu(a - 0.1)]


class Coupled(Cell):
    """Two states, each of which needs the other one step before (LEM, arXiv 2110.04744)."""

    states = 2

    def step(self, x: Tensor, y: Tensor, z: Tensor) -> Sequence[Tensor]:
        near, far = (0.5 * torch.sigmoid(a) for a in self.first(torch.cat([x, y], 1)).chunk(2, 1))
        z = (1 - near) * z + near * torch.tanh(y)
        return [(1 - far) * y + far * torch.tanh(self.second(z)), z]


class Diagonal(Cell):
    """Each unit by itself."""

    def __init__(self) -> None:
        super().__init__()
        del self.first, self.second
        self.inputs = nn.Linear(_IN, _UNITS)
        self.weight = nn.Parameter(torch.randn(_UNITS))

    def step(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        return [torch.tanh(self.inputs(x) + self.weight * h)]


class Plain(Cell):
    """Two gates by one product."""

    def step(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        a, b = self.first(torch.cat([x, h], 1)).chunk(2, 1)
        return [torch.sigmoid(a) * h + torch.tanh(b)]


class Steep(Diagonal):
    """A recurrence whose states settle at -1 or 1, where it is flat; from zeros its derivative is 20 at each step.

    Products of the first sweep's derivatives overflow.
    """

    def step(self, x: Tensor, h: Tensor) -> Sequence[Tensor]:
        return [torch.tanh(20 * h + self.inputs(x) + self.weight)]


class Outputs(nn.Module):
    """The outputs of a recurrent module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[0]


# -- derivatives -----------------------------------------------------------------------------------------------


def _last_sweep(
    cell: Cell, x: Tensor, solver: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What the cell gives by Newton's method in the interpreter, and the arrays of J in the last sweep."""
    context = ir.Context()
    load(context)
    imported = import_model(cell, (x,), {}, context)
    run_pipeline(imported.module, stage_steps("system"))
    run_pipeline(imported.module, parse_pipeline(f"iterate{{solver={solver} tolerance=1e-12}},canonicalize,cse"))
    found: dict[str, np.ndarray] = {}
    solve = interpreter._System.solve

    def note(system: interpreter._System) -> None:
        solve(system)
        names = {ir.StringAttr(a.owner.attributes["name"]).value: a for a in system.arrays}
        found.update({name: system.arrays[a] for name, a in names.items() if "jacobian" in name})

    monkeypatch.setattr(interpreter._System, "solve", note)
    tensors = [x.numpy(), *(p.detach().numpy() for p in imported.parameters.values())]
    (result,) = interpreter.evaluate(imported.module, x.shape[:2], tensors)
    return result, found


def _exact(cell: Cell, x: Tensor) -> list[Tensor]:
    """The derivative of each step `[rows, units before, units after]`, of all states together."""
    states = [torch.zeros(x.shape[1], cell.units, dtype=x.dtype)] * cell.states

    def step(joined: Tensor, t: int) -> Tensor:
        return torch.cat(list(cell.step(x[t : t + 1, 0], *joined[None].chunk(cell.states, 1))), 1)[0]

    found = []
    for t in range(x.shape[0]):
        joined = torch.cat(list(states), 1)
        found.append(torch.autograd.functional.jacobian(lambda s, t=t: step(s, t), joined[0]).T)
        states = [s.detach() for s in cell.step(x[t], *states)]
    return found


@pytest.mark.parametrize("kind", [Reset, Normalised, Diagonal])
def test_the_derivative_is_that_of_autograd(kind: type[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cell, x = kind().double(), torch.randn(4, 2, _IN, dtype=torch.float64)
    result, blocks = _last_sweep(cell, x, "newton", monkeypatch)
    assert np.allclose(result, cell(x).detach(), atol=1e-11)
    for t, exact in enumerate(_exact(cell, x)):
        own = np.concatenate([blocks[name][t, 0] for name in sorted(blocks)], 0)
        wanted = exact if own.ndim == 2 else torch.diagonal(exact)
        assert own.ndim == (1 if kind is Diagonal else 2)
        assert np.allclose(own, wanted, atol=1e-9)


def test_a_diagonal_has_the_diagonals_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    cell, x = Plain().double(), torch.randn(4, 2, _IN, dtype=torch.float64)
    result, blocks = _last_sweep(cell, x, "quasi-newton", monkeypatch)
    assert np.allclose(result, cell(x).detach(), atol=1e-11)
    (diagonal,) = blocks.values()
    assert np.allclose(diagonal[:, 0], torch.stack([torch.diagonal(e) for e in _exact(cell, x)]), atol=1e-9)


# -- results ---------------------------------------------------------------------------------------------------


@cache
def _compiled(name: str, strategy: str, **options: float) -> tuple[nn.Module, parc.Module]:
    torch.manual_seed(2)
    makers = {
        "gru": lambda: Outputs(nn.GRU(_IN, _UNITS)),
        "lstm": lambda: Outputs(nn.LSTM(_IN, _UNITS)),
        "layers": lambda: Outputs(nn.GRU(_IN, 1, num_layers=2)),
        "coupled": Coupled,
        "steep": Steep,
    }
    model = makers[name]()
    iteration = parc.Iteration(**options)
    return model, parc.compile(model, torch.randn(9, 2, _IN), strategy=strategy, iteration=iteration, threads=2)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("lstm", "newton"), ("gru", "quasi-newton"), ("layers", "newton"), ("coupled", "newton")],
)
@settings(max_examples=12, deadline=None)
@given(steps=st.integers(1, 200), rows=st.integers(1, 5), seed=st.integers(0, 99))
def test_results_are_those_of_the_model(name: str, strategy: str, steps: int, rows: int, seed: int) -> None:
    model, compiled = _compiled(name, strategy)
    x = torch.randn(steps, rows, _IN, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), atol=3e-6, rtol=1e-5)
    most = 12 if strategy == "newton" else 40
    assert all(i.sweeps <= min(steps, most) for i in compiled.iterations.values())


def test_newton_takes_a_few_sweeps_however_long_the_sequence_is() -> None:
    model, compiled = _compiled("gru", "newton")
    sweeps = []
    for steps in (100, 1000, 10000):
        with torch.no_grad():
            compiled(torch.randn(steps, 1, _IN, generator=torch.Generator().manual_seed(0)))
        sweeps += [i.sweeps for i in compiled.iterations.values()]
    assert max(sweeps) <= 8 and max(sweeps) - min(sweeps) <= 2


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_what_overflows_on_the_way_still_converges(damping: float) -> None:
    """No sweep hands on what is not a number."""
    model, compiled = _compiled("steep", "newton", damping=damping)
    for steps in (1, 12, 1000):
        x = torch.randn(steps, 2, _IN)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-4)
        (iteration,) = compiled.iterations.values()
        assert iteration.sweeps <= min(steps, LIMIT)


def test_what_does_not_converge_is_solved_step_by_step() -> None:
    model, compiled = _compiled("steep", "newton", limit=2)
    x = torch.randn(300, 2, _IN)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-4)
    (iteration,) = compiled.iterations.values()
    assert iteration.sweeps == 2 and not iteration.converged


# -- training --------------------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_model() -> None:
    """Forwards by Newton's method, backwards by one scan."""
    torch.manual_seed(3)
    model = Outputs(nn.GRU(_IN, _UNITS))
    compiled = parc.compile(model, torch.randn(9, 2, _IN), strategy="newton", training=True, threads=2)
    for steps in (5, 60):
        x = torch.randn(steps, 2, _IN)
        wanted = torch.autograd.grad((model(x) ** 2).sum(), list(model.parameters()))
        found = torch.autograd.grad((compiled(x) ** 2).sum(), list(model.parameters()))
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


# -- refusals --------------------------------------------------------------------------------------------------


def test_a_recurrence_over_two_steps_is_refused() -> None:
    class TwoBack(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a = b = x[0]
            for t in range(x.shape[0]):
                a, b = torch.tanh(0.5 * a + 0.2 * b + x[t]), a
            return a

    with pytest.raises(CompileError, match="the same step"):
        parc.compile(TwoBack(), torch.randn(9, 2, _IN), strategy="newton")
