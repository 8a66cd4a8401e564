"""Programs on a GPU, emulated or real: results and gradients beside eager PyTorch's.

A compile takes seconds and a call none: each program is compiled once and called with several sizes, and the table
below has pairs of a strategy, a number of blocks, an element type, a form of launch, and training or not, rather than
all their combinations.  On the emulator every access of every call is checked for races, bounds and divergence.
"""

from collections.abc import Callable
from dataclasses import dataclass

import loops
import pytest
import torch
from gpu_target import Exact, check_gradients, check_results, compile_for_gpu, default_dtype, moved
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from loops import Program
from models import AnyCell, ResetGru, Tagger, TwoBack
from torch import Tensor, nn

SIZES = ((1, 3), (9, 2), (6, 1))
"""Lengths and batches of the calls; none of them is traced."""
EXAMPLE = 4
SINGLE, DOUBLE = torch.float32, torch.float64


def program(*inputs: str, **weights: object) -> Callable[[loops.Function], Program]:
    """A program from its function of weights and inputs, whose shapes are written as in `loops`."""
    return lambda function: Program(function, weights, inputs)


def whole(model: Callable[[], nn.Module], *inputs: str) -> Program:
    """A model that takes the inputs one by one."""
    return Program(lambda p, *x: p.model(*x), {"model": model}, inputs)


# Where there are more than 8 to 32 units, by the number of sums of a cell, several blocks have some.

# -- recurrences -----------------------------------------------------------------------------------------------------


@program("T B 16", "2 B 40", "2 B 40", rnn=lambda: nn.LSTM(16, 40, 2))
def lstm_with_states(p: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> object:
    return p.rnn(x, (h, c))


@program("T B 6", w=(6, 80), u=(20, 80), peep=(3, 20), b=(80,))
def peephole_lstm(p: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    h = c = x.new_zeros(x.shape[1], 20)
    ys = []
    for xt in x:
        i, f, o, g = (xt @ p.w + h @ p.u + p.b).chunk(4, 1)
        new = torch.sigmoid(f + p.peep[0] * c) * c + torch.sigmoid(i + p.peep[1] * c) * torch.tanh(g)
        h, c = torch.sigmoid(o + p.peep[2] * new) * torch.tanh(new), new
        ys.append(h)
    return torch.stack(ys), c


@program("T B 40", w=(40, 40), u=[(40, 40)] * 2)
def minimal_gated_stack(p: nn.Module, x: Tensor) -> Tensor:
    """A GRU of one gate in two layers, which share their input weight."""
    states = [x.new_zeros(x.shape[1], 40)] * 2
    ys = []
    for y in x:
        for k in range(2):
            h = states[k]
            gate = torch.sigmoid(y @ p.w + h @ p.u[k])
            states[k] = y = h + gate * (torch.tanh(y + gate * h) - h)
        ys.append(y)
    return torch.stack(ys)


# -- affine recurrences ----------------------------------------------------------------------------------------------


@program("T B 8", a=(8,))
def leaky_integrator(p: nn.Module, x: Tensor) -> Tensor:
    h, ys = torch.zeros_like(x[0]), []
    for xt in x:
        h = torch.tanh(p.a) * h + xt
        ys.append(h)
    return torch.stack(ys)


@program("T B 4", u=(4, 4))
def dense_affine(p: nn.Module, x: Tensor) -> Tensor:
    h, ys = torch.zeros_like(x[0]), []
    for xt in x:
        h = 0.5 * (h @ p.u) + xt
        ys.append(h)
    return torch.stack(ys)


@program("T B 5", a=[(5,)] * 2)
def stacked_integrators(p: nn.Module, x: Tensor) -> Tensor:
    states, ys = [torch.zeros_like(x[0])] * 2, []
    for y in x:
        for k in range(2):
            states[k] = y = torch.tanh(p.a[k]) * states[k] + y
        ys.append(y)
    return torch.stack(ys)


# -- whole models ----------------------------------------------------------------------------------------------------


@program("B 6", first=(6, 10), w=[(10, 10)] * 4, last=(10, 3))
def dense_chain(p: nn.Module, x: Tensor) -> Tensor:
    y = x @ p.first
    for w in p.w:
        y = y + torch.tanh(y @ w)
    return y @ p.last


@dataclass(frozen=True)
class Case:
    """A program, and how it is compiled."""

    program: Program
    strategy: str
    blocks: int
    dtype: torch.dtype
    trains: bool
    launches: str = "once"


CASES = {
    "lstm with states": Case(lstm_with_states, "wavefront", 4, SINGLE, True),
    "gru, both directions": Case(whole(lambda: nn.GRU(5, 20, bidirectional=True), "T B 5"), "auto", 3, DOUBLE, False),
    "rnn, batch first": Case(whole(lambda: nn.RNN(4, 9, 3, batch_first=True), "B T 4"), "layers", 7, SINGLE, False),
    "rnn, wave by wave": Case(whole(lambda: nn.RNN(4, 40, 2), "T B 4"), "wavefront", 3, SINGLE, True, "waves"),
    "peephole lstm": Case(peephole_lstm, "sequential", 2, DOUBLE, True),
    "layer norm in the cell": Case(loops.REGULAR["layer_norm_lstm"], "rows", 3, SINGLE, True),
    "reset before the product": Case(whole(ResetGru, "T B 8", "B 16"), "wavefront", 1, DOUBLE, False),
    "two steps back": Case(whole(TwoBack, "T B 8"), "layers", 2, SINGLE, True),
    "one gate": Case(minimal_gated_stack, "wavefront", 7, DOUBLE, False),
    "residual stack": Case(loops.REGULAR["residual_stack"], "rows", 4, DOUBLE, False),
    "masked by lengths": Case(loops.REGULAR["masked_by_length"], "sequential", 7, SINGLE, False),
    "masked, wave by wave": Case(loops.REGULAR["masked_by_length"], "layers", 2, DOUBLE, False, "waves"),
    "half the steps above": Case(loops.REGULAR["pyramid"], "wavefront", 3, SINGLE, False),
    "simple recurrent unit": Case(loops.REGULAR["simple_recurrent_unit"], "scan", 4, SINGLE, True),
    "selective scan": Case(loops.REGULAR["selective_scan"], "scan", 3, DOUBLE, False),
    "leaky integrator": Case(leaky_integrator, "recursive-doubling", 2, SINGLE, True),
    "leaky integrator, pairs": Case(leaky_integrator, "cyclic-reduction", 7, DOUBLE, True),
    "leaky integrator, wave by wave": Case(leaky_integrator, "scan", 4, DOUBLE, False, "waves"),
    "dense affine": Case(dense_affine, "cyclic-reduction", 4, SINGLE, False),
    "stacked integrators": Case(stacked_integrators, "nested-scan", 3, DOUBLE, False),
    "sweeps over a stack": Case(whole(lambda: nn.RNN(4, 9, 2), "T B 4"), "jacobi", 3, SINGLE, True),
    "sweeps by Newton's method": Case(whole(lambda: nn.GRU(5, 6), "T B 5"), "newton", 4, DOUBLE, False),
    "sweeps over layers": Case(dense_chain, "jacobi", 2, SINGLE, False),
    "dense chain": Case(dense_chain, "auto", 1, SINGLE, True),
    "embedding, convolution, softmax": Case(whole(Tagger, "B T int"), "auto", 2, SINGLE, False),
    "attention in front": Case(loops.REGULAR["attention_in_front"], "auto", 7, DOUBLE, False),
    "convolution in the cell": Case(loops.REGULAR["conv_lstm"], "layers", 4, SINGLE, False),
    "decoder with attention": Case(loops.REGULAR["attention_decoder"], "auto", 1, DOUBLE, False),
}


@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    with default_dtype(case.dtype):
        model = case.program.module()
        symbols = case.program.symbols()
        compiled = compile_for_gpu(
            model,
            case.program.arguments(dict.fromkeys(symbols, EXAMPLE)),
            dynamic_shapes=case.program.dynamic_shapes(),
            strategy=case.strategy,
            threads=case.blocks,
            launches=case.launches,
        )
        exact = Exact(model)
        for steps, batch in SIZES:
            inputs = case.program.arguments({s: batch if s == "B" else steps for s in symbols})
            check_results(compiled, exact, inputs, case.dtype)
            if case.trains:
                check_gradients(compiled, exact, inputs, case.dtype)


def test_a_batch_of_one_that_is_known() -> None:
    """Kernels are made for one row, and no size but the length is left."""
    torch.manual_seed(1)
    model = nn.LSTM(6, 10, 2)
    compiled = compile_for_gpu(model, [torch.randn(5, 1, 6)], dynamic_shapes=({0: "T"},), threads=3)
    for steps in (1, 12):
        check_results(compiled, Exact(model), [torch.randn(steps, 1, 6)], SINGLE)


def test_an_empty_batch() -> None:
    model = nn.GRU(5, 6)
    compiled = compile_for_gpu(model, [torch.randn(5, 2, 5)], threads=2)
    with torch.no_grad():
        states, last = compiled(*moved([torch.randn(3, 0, 5)]))
    assert states.shape == (3, 0, 6)
    assert last.shape == (1, 0, 6)


@settings(max_examples=2, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    layers=st.integers(1, 2),
    states=st.integers(1, 2),
    features=st.integers(1, 9),
    hidden=st.sampled_from([5, 33, 40]),
    time_outer=st.booleans(),
    strategy=st.sampled_from(["auto", "layers", "wavefront", "rows", "sequential"]),
    blocks=st.integers(1, 7),
    dtype=st.sampled_from([SINGLE, DOUBLE]),
    seed=st.integers(0, 1000),
)
def test_any_cell(
    layers: int,
    states: int,
    features: int,
    hidden: int,
    time_outer: bool,
    strategy: str,
    blocks: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    with default_dtype(dtype):
        model = AnyCell(layers, states, features, hidden, activation="tanh", time_outer=time_outer, collect="stack")
        compiled = compile_for_gpu(model, [torch.randn(7, 3, features)], strategy=strategy, threads=blocks)
        exact = Exact(model)
        for steps, batch in SIZES:
            inputs = [torch.randn(steps, batch, features)]
            check_results(compiled, exact, inputs, dtype)
            check_gradients(compiled, exact, inputs, dtype)
