"""Compiled programs against eager PyTorch: every kind of recurrence, whole models, all sizes, threads and schedules."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from models import BATCH, STEPS, AnyCell, LayerOuterLstm, Recurrence, Tagger, TimeOuterLstm, zoo
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close

import parc

R = torch.randn
THREADS = st.sampled_from([1, 2, 3])
# Every example is a compile: to make a failing one smaller would take minutes.
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


def resized(inputs: object, steps: int, batch: int) -> object:
    """Random inputs in the form of the example `inputs` with another length and batch."""
    if not isinstance(inputs, Tensor):
        return type(inputs)(resized(part, steps, batch) for part in inputs)  # type: ignore[attr-defined]
    shape = [{STEPS: steps, BATCH: batch}.get(size, size) for size in inputs.shape]
    if inputs.is_floating_point():
        return R(shape, dtype=inputs.dtype)
    return torch.randint(int(inputs.max()) + 1, shape, dtype=inputs.dtype)


def equal(compiled: parc.Module, model: Callable[..., object], inputs: object, tolerance: float = 2e-5) -> None:
    with torch.no_grad():
        assert_close(compiled(*inputs), model(*inputs), rtol=tolerance, atol=tolerance, equal_nan=True)  # type: ignore[misc]


@pytest.mark.parametrize("name", zoo())
def test_models_of_every_kind(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = zoo()[name]
    compiled = parc.compile(model, inputs, threads=2)
    for steps, batch in ((1, 1), (2, 7), (33, 2), (70, 1), (5, 17)):
        equal(compiled, model, resized(inputs, steps, batch))


@st.composite
def torch_layers(draw: st.DrawFn) -> tuple[nn.Module, tuple[object, ...]]:
    """A recurrent layer of torch and example inputs."""
    kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    layers, hidden = draw(st.integers(1, 3)), draw(st.sampled_from([4, 17, 32]))
    both, first = draw(st.booleans()), draw(st.booleans())
    options: dict[str, object] = {"bias": draw(st.booleans()), "bidirectional": both, "batch_first": first}
    if kind is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    width = hidden
    if kind is nn.LSTM and draw(st.booleans()):
        options["proj_size"] = width = 2
    model = kind(5, hidden, layers, **options)
    batch = draw(st.sampled_from([(BATCH,), ()]))
    x = R(*batch, STEPS, 5) if first or not batch else R(STEPS, *batch, 5)
    h, c = (R(layers * (1 + both), *batch, n) for n in (width, hidden))
    states = draw(st.booleans())
    return model, (x, (h, c) if kind is nn.LSTM else h) if states else (x,)


@settings(max_examples=3, phases=NO_SHRINKING)
@given(torch_layers(), THREADS, st.integers(1, 40), st.integers(1, 20))
def test_recurrent_layers_of_torch(
    layer: tuple[nn.Module, tuple[object, ...]], threads: int, steps: int, batch: int
) -> None:
    model, inputs = layer
    compiled = parc.compile(model, inputs, threads=threads)
    for size in ((steps, batch), (1, 1), (batch, steps)):
        equal(compiled, model, resized(inputs, *size))


@settings(max_examples=3, phases=NO_SHRINKING)
@given(
    st.builds(
        AnyCell,
        layers=st.integers(1, 3),
        states=st.integers(1, 3),
        features=st.sampled_from([1, 5, 16]),
        hidden=st.sampled_from([1, 7, 16, 33]),
        activation=st.sampled_from(["tanh", "sigmoid", "relu", "sin"]),
        time_outer=st.booleans(),
        collect=st.sampled_from(["stack", "cat", "write"]),
    ),
    THREADS,
    st.integers(1, 40),
    st.integers(1, 20),
)
def test_custom_cells(model: AnyCell, threads: int, steps: int, batch: int) -> None:
    inputs = (R(STEPS, BATCH, model.W[0].shape[0]),)
    compiled = parc.compile(model, inputs, threads=threads)
    for size in ((steps, batch), (1, 1), (batch, steps)):
        equal(compiled, model, resized(inputs, *size))


@pytest.mark.parametrize("strategy", ["auto", "layers", "wavefront", "sequential"])
def test_every_schedule_computes_the_same(strategy: str) -> None:
    model = nn.LSTM(5, 9, 3)
    compiled = parc.compile(model, R(STEPS, BATCH, 5), threads=3, strategy=strategy)
    for steps, batch in ((1, 1), (40, 2), (3, 30)):
        equal(compiled, model, (R(steps, batch, 5),))


def test_one_compile_serves_all_sizes() -> None:
    model = nn.LSTM(8, 16, 2)
    compiled = parc.compile(model, R(STEPS, BATCH, 8), threads=2)
    for steps, batch in ((1, 1), (1, 64), (5000, 1), (100, 64)):
        equal(compiled, model, (R(steps, batch, 8),))


def test_double_precision() -> None:
    model = LayerOuterLstm().double()
    inputs = R(STEPS, BATCH, 8).double(), R(2, BATCH, 16).double(), R(2, BATCH, 16).double()
    compiled = parc.compile(model, inputs)
    equal(compiled, model, resized(inputs, 20, 5), tolerance=1e-12)


def test_integers_and_booleans() -> None:
    def program(i: Tensor, small: Tensor, flag: Tensor) -> tuple[Tensor, ...]:
        return i * 3 + 1, i // 2, small + small, small.float(), flag & (i > 0), torch.where(flag, i, -i).sum(0)

    inputs = (
        torch.randint(-5, 5, (STEPS, BATCH)),
        torch.arange(256 - STEPS * BATCH, 256, dtype=torch.uint8).view(STEPS, BATCH),
    )
    flags = R(STEPS, BATCH) > 0
    compiled = parc.compile(program, (*inputs, flags))
    result, expected = compiled(*inputs, flags), program(*inputs, flags)
    for a, b in zip(result, expected, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floating_point(dtype: torch.dtype) -> None:
    def program(x: Tensor, w: Tensor) -> Tensor:
        return torch.tanh(x * 2 + w)

    inputs = R(STEPS, BATCH).to(dtype), R(BATCH).to(dtype)
    compiled = parc.compile(program, inputs)
    equal(compiled, program, inputs, tolerance=1e-2)


@pytest.mark.parametrize(
    "model", [nn.LSTM(5, 9, 3, bidirectional=True, batch_first=True), nn.GRU(5, 9, 3, bidirectional=True, bias=False)]
)
def test_deep_layers_in_both_directions(model: nn.RNNBase) -> None:
    inputs = (R(BATCH, STEPS, 5) if model.batch_first else R(STEPS, BATCH, 5),)
    compiled = parc.compile(model, inputs, threads=2)
    for steps, batch in ((1, 1), (20, 7)):
        equal(compiled, model, resized(inputs, steps, batch))


def test_types_that_are_not_supported() -> None:
    with pytest.raises(parc.CompileError, match="input 'x' has complex elements, which are not supported"):
        parc.compile(lambda x: torch.tanh(x @ x.T), R(6, 6).to(torch.complex64))
    with pytest.raises(parc.CompileError, match="of unsigned integers is not supported"):
        parc.compile(lambda x: x // 2, torch.ones(3, dtype=torch.uint8))


def test_an_index_out_of_range_is_an_error() -> None:
    compiled = parc.compile(Tagger().eval(), torch.randint(0, 20, (BATCH, STEPS)))
    with pytest.raises(parc.CallError, match="index"):
        compiled(torch.full((2, 4), 20))


# What cannot be compiled.


class Broken(nn.Module):
    """A model whose forward is given."""

    def __init__(self, forward: Callable[..., object]) -> None:
        super().__init__()
        self.run = forward
        self.linear = nn.Linear(8, 8)
        self.state = torch.zeros(3, 8)

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def until_small(self: Broken, x: Tensor) -> Tensor:
    while x.norm() > 1:
        x = x / 2
    return x


def draws(self: Broken, x: Tensor) -> Tensor:
    return x + torch.rand_like(x)


def remembers(self: Broken, x: Tensor) -> Tensor:
    self.state = self.state + x.sum(0)
    return self.state


def writes_input(self: Broken, x: Tensor) -> Tensor:
    x[0] = 0
    return x


def unsupported(self: Broken, x: Tensor) -> Tensor:
    return torch.linalg.svdvals(x)


def values_shape(self: Broken, x: Tensor) -> Tensor:
    return x[x > 0]


def growing_list(self: Broken, x: Tensor) -> list[Tensor]:
    return [self.linear(step) for step in x]


def plain_number(self: Broken, x: Tensor) -> tuple[Tensor, int]:
    return torch.stack([self.linear(step) for step in x]), x.shape[0]


def no_tensor(self: Broken, x: Tensor) -> int:
    return 3


def irregular(self: Broken, x: Tensor) -> Tensor:
    h, hs = torch.zeros_like(x[0]), []
    for t in range(x.shape[0]):
        h = torch.tanh(self.linear(h) + x[t]) if t != 2 else h * x[0]
        hs.append(h)
    return torch.stack(hs)


def backwards_in_squares(self: Broken, x: Tensor) -> Tensor:
    hs = [x[0]]
    for t in range(1, x.shape[0]):
        hs.append(torch.tanh(self.linear(hs[int(t**0.5) - 1]) + x[t]))
    return torch.stack(hs)


def fails(self: Broken, x: Tensor) -> Tensor:
    raise RuntimeError("no luck")


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (until_small, "the program needs the value of a tensor while it is compiled"),
        (draws, "aten.rand_like draws random numbers"),
        (remembers, "the model changes its own attribute 'state' while it runs"),
        (writes_input, "'x' is changed in place by aten.copy_"),
        (unsupported, "is not supported"),
        (values_shape, "has a shape that depends on its values"),
        (plain_number, "the model returns a plain number that depends on the sizes"),
        (no_tensor, "the model returns no tensor"),
        (irregular, "loop"),
        (backwards_in_squares, "loop"),
        (fails, "the model fails on its example inputs: no luck"),
    ],
)
def test_models_that_cannot_be_compiled(forward: Callable[..., object], message: str) -> None:
    with pytest.raises(parc.CompileError, match=re.escape(message)) as error:
        parc.compile(Broken(forward), R(7, 3, 8))
    first = forward.__code__.co_firstlineno
    last = max(line for *_, line in forward.__code__.co_lines() if line is not None)
    lines = re.match(rf"{re.escape(__file__)}:(\d+)", str(error.value))
    # What concerns the result as a whole has no line of its own.
    if forward not in (plain_number, no_tensor, remembers):
        assert lines is not None and first < int(lines[1]) <= last, str(error.value)


def test_a_result_that_grows_in_number() -> None:
    model = Broken(growing_list)
    compiled = parc.compile(model, R(7, 3, 8))
    equal(compiled, model, (R(7, 5, 8),))
    with pytest.raises(parc.CallError, match="dimension 0 of input 'x: .*' has size 6; expected 7"):
        compiled(R(6, 3, 8))
    with pytest.raises(parc.CompileError, match="the structure of the model's result depends on the sizes"):
        parc.compile(model, R(7, 3, 8), dynamic_shapes={"x": {0: "T"}})


def test_weights_of_steps() -> None:
    class PerStep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.W = nn.ParameterList([R(8, 8) for _ in range(9)])

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[t] @ self.W[t] for t in range(x.shape[0])])

    with pytest.raises(parc.CompileError, match="uses the tensor 'W.\\d' at the input shapes x: .* not at smaller"):
        parc.compile(PerStep(), R(8, 3, 8))


def test_dropout_in_training() -> None:
    with pytest.raises(parc.CompileError, match="the LSTM draws random numbers for dropout between its layers; call"):
        parc.compile(nn.LSTM(8, 16, 2, dropout=0.5), R(6, 3, 8))


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.LSTM(8, 16), (np.zeros((6, 3, 8), np.float32),), "input 'input' is a numpy array"),
        (nn.LSTM(8, 16), (pack_sequence([R(3, 8), R(2, 8)]),), "input 'input' is a PackedSequence"),
        (nn.LSTM(8, 16), (R(6, 3, 9),), "must be equal to input_size. Expected 8, got 9"),
        (
            nn.LSTM(8, 16),
            (R(6, 3, 8), None, 1),
            "the example inputs do not fit the model: too many",
        ),
        (nn.LSTM(8, 16), (R(6, 3, 8).to_sparse(),), "dense CPU tensors are supported"),
        (7, (), "int is no kind of model"),
    ],
)
def test_inputs_that_cannot_be_compiled(model: nn.Module, inputs: tuple[object, ...], message: str) -> None:
    with pytest.raises(parc.CompileError, match=re.escape(message)):
        parc.compile(model, inputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused() -> None:
    with pytest.raises(parc.CompileError, match="TorchScript programs are not supported"):
        parc.compile(torch.jit.script(nn.Linear(8, 8)), R(3, 8))


def test_a_model_that_does_something_else_at_some_size() -> None:
    class Special(Recurrence):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (2 if x.shape[0] == 1 else 1)

    with pytest.raises(parc.CompileError, match="does not compute what the model does: at T=1, B=1, result 0 is off"):
        parc.compile(Special(), R(6, 3, 8))


def test_long_compiles_say_what_they_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("parc.compiler._QUIET_SECONDS", 0.0)
    parc.compile(TimeOuterLstm(1), R(6, 3, 8))
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("parc: compiling TimeOuterLstm: system (") and len(told) > 4


def test_a_hand_written_module(tmp_path: Path) -> None:
    path = tmp_path / "add.mlir"
    path.write_text("""
        func.func @main(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
          %c0 = arith.constant 0 : index
          %n = tensor.dim %x, %c0 : tensor<?x4xf32>
          %e = tensor.empty(%n) : tensor<?x4xf32>
          %r = linalg.add ins(%x, %y : tensor<?x4xf32>, tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
          return %r : tensor<?x4xf32>
        }
    """)
    compiled = parc.compile(path)
    x, y = R(5, 4), R(5, 4)
    assert_close(compiled(x, y), x + y)
