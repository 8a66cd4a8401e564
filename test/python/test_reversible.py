"""Training steps that compute states backwards: reversible cells, found in the equations of models."""

import re
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.chunks.training import ChunkedStep, Pace, chunked_step
from parc.compiler import Compiler, Options
from parc.module import Source
from parc.parameters import Snapshot

FEATURES, UNITS = 3, 4
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) / shape[0] ** 0.5)


class Cell(nn.Module):
    """The weights of a pair of states."""

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__()
        self.W, self.U = weight(features, UNITS), weight(UNITS, UNITS)
        self.X, self.V = weight(features, UNITS), weight(UNITS, UNITS)

    def zeros(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(x.shape[1], UNITS), x.new_zeros(x.shape[1], UNITS)


class Coupled(nn.Module):
    """Two layers of a reversible residual cell."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([Cell(), Cell(UNITS)])

    def forward(self, x: Tensor) -> Tensor:
        states = [cell.zeros(x) for cell in self.cells]
        outputs = []
        for y in x:
            for i, cell in enumerate(self.cells):
                a, b = states[i]
                a = a + torch.tanh(b @ cell.U + y @ cell.W)
                b = b - torch.sigmoid(torch.relu(a) @ cell.V + y @ cell.X)
                states[i], y = (a, b), b
            outputs.append(y)
        return torch.stack(outputs)


class Halves(Cell):
    """One state of two halves, which is also an input and a result."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for y in x:
            a, b = h.chunk(2, -1)
            a = a + torch.tanh(b @ self.U + y @ self.W)
            b = b + torch.tanh(a @ self.V + y @ self.X)
            h = torch.cat([a, b], -1)
            outputs.append(h)
        return torch.stack(outputs), h


class Swapped(Cell):
    """The states change their places."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.zeros(x)
        outputs = []
        for y in x:
            a, b = b, a + torch.tanh(b @ self.U + y @ self.W)
            outputs.append(b)
        return torch.stack(outputs)


class Oscillators(Cell):
    """Positions and velocities, as in a coRNN without friction; the force has a part that the raising takes out."""

    def forward(self, x: Tensor) -> Tensor:
        position, velocity = self.zeros(x)
        outputs = []
        for y in x:
            velocity = velocity + 0.3 * (torch.tanh(position @ self.U + y @ self.W) - 0.5 * position)
            position = position + 0.3 * velocity
            outputs.append(position)
        return torch.stack(outputs)


class Leapfrog(Cell):
    """The state of two steps before."""

    def forward(self, x: Tensor) -> Tensor:
        now, before = self.zeros(x)
        outputs = []
        for y in x:
            now, before = 2 * now - before - 0.1 * torch.sin(now @ self.U + y @ self.W), now
            outputs.append(now)
        return torch.stack(outputs)


class Damped(Cell):
    """The old state counts by a factor: not reversible without loss."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.zeros(x)
        outputs = []
        for y in x:
            a = 0.9 * a + torch.tanh(b @ self.U + y @ self.W)
            b = b + torch.tanh(a @ self.V)
            outputs.append(b)
        return torch.stack(outputs)


def inputs_of(kind: type[nn.Module], steps: int, batch: int) -> list[Tensor]:
    x = torch.randn(steps, batch, FEATURES, dtype=torch.float64)
    return [x, torch.randn(batch, 2 * UNITS, dtype=torch.float64)] if kind is Halves else [x]


def build(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[ChunkedStep, str, Snapshot]:
    """The step in chunks by all arguments, why it computes no states backwards, and the parameters."""
    imported = Source(model).load(tuple(inputs), {}, ir.Context())
    compiler = Compiler(imported, Options(threads=1), "model")
    _, parameters = compiler.inference(imported.parameters)
    step, reason = chunked_step(compiler, tuple(range(len(inputs) + len(imported.parameters))))
    return step, reason, parameters.current()


@pytest.fixture(scope="module")
def built() -> Callable[[type[nn.Module]], tuple[nn.Module, ChunkedStep, Snapshot]]:
    known: dict[type[nn.Module], tuple[nn.Module, ChunkedStep, Snapshot]] = {}

    def get(kind: type[nn.Module]) -> tuple[nn.Module, ChunkedStep, Snapshot]:
        if kind not in known:
            torch.manual_seed(0)
            model = kind().double()
            step, reason, parameters = build(model, inputs_of(kind, 7, 3))
            assert not reason
            known[kind] = model, step, parameters
        return known[kind]

    return get


@pytest.mark.parametrize("kind", [Coupled, Halves, Swapped, Oscillators, Leapfrog])
@settings(max_examples=8, phases=NO_SHRINKING, deadline=None)
@given(steps=st.integers(1, 20), batch=st.integers(1, 5), length=st.integers(1, 6), kept=st.sampled_from([1, 2, 3, 99]))
def test_gradients_are_those_of_eager(
    built: Callable[[type[nn.Module]], tuple[nn.Module, ChunkedStep, Snapshot]],
    kind: type[nn.Module],
    steps: int,
    batch: int,
    length: int,
    kept: int,
) -> None:
    model, step, parameters = built(kind)
    inputs = inputs_of(kind, steps, batch)
    leaves = [t.clone().requires_grad_() for t in inputs]
    expected = model(*leaves)
    results = [expected] if isinstance(expected, Tensor) else list(expected)
    cotangents = [torch.randn_like(t) for t in results]
    arguments = (*leaves, *parameters.tensors)
    references = torch.autograd.grad(results, [arguments[i] for i in step.wanted], cotangents, allow_unused=True)
    step.pace = Pace(length, kept)
    for gradient, reference in zip(step.differentiate(inputs, parameters, cotangents), references, strict=True):
        wanted = torch.zeros_like(gradient) if reference is None else reference
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-10)


def test_what_is_planned_does_not_grow_with_the_steps() -> None:
    torch.manual_seed(0)
    model, x = Coupled(), torch.randn(2000, 3, FEATURES)
    limit = 84_000  # a sixteenth of what a step takes that saves all
    limited = parc.compile(model, (x,), threads=1, memory=limit)
    limited.memory(x)
    for steps in (32000, 10**6):
        step = limited.explain({"T": steps, "B": 3}).memory.step
        assert step.need.total <= limit
        assert "computed backwards" in step.plan


def refusal(model: nn.Module, x: Tensor) -> str:
    """The least number that would do."""
    with pytest.raises(parc.CompileError, match="takes at least") as error:
        parc.compile(model, (x,), threads=1, memory="1kB", training=True)
    found = re.search(r"at least (\S+ \S+),", str(error.value))
    assert found is not None
    return found[1]


def test_a_training_loop_that_computes_states_backwards() -> None:
    torch.manual_seed(0)
    model, x = Coupled(), torch.randn(300, 2, FEATURES)
    model(x).square().mean().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    # The least number that would do is the same for any length.
    least = refused_number(model, x[:100])
    compiled = parc.compile(model, (x,), threads=2, memory=int(least * 1.05))
    for _ in range(2):
        model.zero_grad()
        compiled(x).square().mean().backward()
        for parameter, reference in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, reference, rtol=1e-2, atol=1e-2 * float(reference.abs().max()))
    assert "computed backwards" in compiled.explain().memory.step.plan


def refused_number(model: nn.Module, x: Tensor) -> int:
    """The least number of bytes, from the message."""
    return parc.memory.parse_bytes(refusal(model, x))


def test_why_a_cell_is_not_reversible() -> None:
    x = inputs_of(Damped, 7, 3)
    _, reason, _ = build(Damped().double(), x)
    assert re.search(r"test_reversible\.py:\d+.*is no sum of a state before", reason)
    _, reason, _ = build(nn.GRU(FEATURES, UNITS).double(), x)
    assert "is no sum of a state before" in reason
