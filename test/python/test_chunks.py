"""Training steps in chunks of the sequence: the gradients of eager PyTorch, for any length of the chunks."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch_mlir import ir

import parc
from parc.chunks.systems import NoChunksError
from parc.chunks.training import ChunkedStep, Pace, chunked_step
from parc.compiler import Compiler, Options
from parc.errors import CompileError
from parc.module import Source
from parc.parameters import Snapshot

UNITS, LAYERS, STEPS, BATCH = 6, 2, 7, 3


class Characters(nn.Module):
    """Indices, an initial state and a projection behind the recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, UNITS)
        self.recurrence = nn.LSTM(UNITS, UNITS, LAYERS)
        self.projection = nn.Linear(UNITS, 11)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.recurrence(self.embedding(x), (h, c))
        return self.projection(y), h


class BatchFirst(nn.Module):
    """Steps in the second dimension, one state, and only the last output."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence = nn.GRU(UNITS, UNITS, LAYERS, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.recurrence(x)
        return torch.tanh(y), y[:, -1]


def build(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[ChunkedStep, Snapshot, tuple[int, ...]]:
    """The step by all floating-point arguments, the parameters and the sizes of the inputs."""
    imported = Source(model).load(tuple(inputs), {}, ir.Context())
    compiler = Compiler(imported, Options(threads=1), "model")
    program, parameters = compiler.inference(imported.parameters)
    count = len(inputs)
    wanted = [i for i, t in enumerate(inputs) if t.is_floating_point()]
    wanted += range(count, count + len(program.run.signature.parameters))
    return chunked_step(compiler, tuple(wanted))[0], parameters.current(), program.run.sizes(inputs)


@pytest.mark.parametrize("kind", [Characters, BatchFirst])
def test_gradients_are_those_of_eager_for_any_length_of_chunks(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind()
    if kind is Characters:
        states = [torch.randn(LAYERS, BATCH, UNITS) for _ in range(2)]
        inputs = [torch.randint(0, 11, (STEPS, BATCH)), *states]
    else:
        inputs = [torch.randn(BATCH, STEPS, UNITS)]
    step, parameters, sizes = build(model, inputs)
    given = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    expected = model(*given)
    cotangents = [torch.randn_like(t) for t in expected]
    arguments = (*given, *parameters.tensors)
    references = torch.autograd.grad(expected, [arguments[i] for i in step.wanted], cotangents)
    for length in (1, 2, 3, STEPS, 4 * STEPS):
        step.pace = Pace(length)
        results, _ = step.run_forward(sizes, inputs, parameters)
        for result, reference in zip(results, expected, strict=True):
            torch.testing.assert_close(result, reference.detach(), rtol=0, atol=1e-6)
        for gradient, reference in zip(step.differentiate(inputs, parameters, cotangents), references, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


def test_a_bidirectional_model_has_no_chunks() -> None:
    with pytest.raises(NoChunksError, match="step"):
        build(nn.LSTM(UNITS, UNITS, bidirectional=True), [torch.randn(STEPS, BATCH, UNITS)])


def test_an_error_that_is_no_reason_against_chunks_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: ir.Module, *, continues: bool) -> None:
        raise CompileError("broken")

    monkeypatch.setattr("parc.chunks.training.make_chunk", broken)
    with pytest.raises(CompileError, match="^broken$"):
        parc.compile(nn.RNN(2, 2), (torch.randn(99, 1, 2),), threads=1, memory="1kB", training=True)


def test_a_limit_is_kept_by_way_of_chunks_or_refused_with_the_least_number() -> None:
    torch.manual_seed(0)
    model, x = nn.LSTM(UNITS, UNITS, LAYERS), torch.randn(400, BATCH, UNITS)
    model(x)[0].sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    whole = parc.compile(model, (x,), threads=1).memory(x)
    limit = (whole.saved + whole.arena) // 2
    limited = parc.compile(model, (x,), threads=1, memory=limit)
    for _ in range(2):
        model.zero_grad()
        limited(x)[0].sum().backward()
        for parameter, reference in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, reference, rtol=1e-3, atol=1e-3)
    planned = limited.memory(x)
    assert planned.saved + planned.arena <= limit
    with pytest.raises(CompileError, match="takes at least"):
        parc.compile(nn.RNN(UNITS, UNITS), (x,), threads=1, memory="1kB", training=True)
