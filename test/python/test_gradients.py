"""Gradients of compiled programs: by finite differences in float64, and beside eager PyTorch's in both precisions."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import loops
import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from models import BATCH, STEPS, AnyCell, zoo
from torch import Tensor, nn
from torch.testing import assert_close

import parc

SIZES = ((1, 3), (9, 2))
"""Steps and batches at which gradients are compared; none of them is traced."""
INTEGER_RESULTS = {"zoo.decoder", "feeds_back_the_argmax"}
"""Programs whose only results are the numbers of symbols: they have no gradient in eager PyTorch either."""
NOT_COMPILED = {"last_two_states"}
"""Programs that are raised but not compiled, for inference neither: they have another form for an empty sequence."""
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors without a type of their own have this one; models make some while they run."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass(frozen=True)
class Case:
    """A model, the example inputs that it is compiled with, and inputs to call it with, of several sizes."""

    model: nn.Module
    example: Sequence[object]
    calls: Sequence[Sequence[object]]
    dynamic_shapes: object = None

    def compile(self) -> parc.Module:
        """The compiled model, which shares the model's parameters."""
        return parc.compile(self.model, tuple(self.example), dynamic_shapes=self.dynamic_shapes, threads=2)


def names() -> list[str]:
    """Every cell and every loop of the import tests."""
    return [f"zoo.{name}" for name in zoo()] + list(loops.REGULAR)


def case(name: str) -> Case:
    """A program of the import tests, in the default element type."""
    torch.manual_seed(0)
    if name.startswith("zoo."):
        model, example = zoo()[name.removeprefix("zoo.")]
        return Case(model, example, [resized(example, *size) for size in SIZES])
    program = loops.REGULAR[name]
    symbols = program.symbols()
    sizes = [{s: steps if s == "T" else batch + k for k, s in enumerate(symbols)} for steps, batch in SIZES]
    example = program.arguments(dict.fromkeys(symbols, 4))
    return Case(program.module(), example, [program.arguments(s) for s in sizes], program.dynamic_shapes())


def resized(example: Sequence[object], steps: int, batch: int) -> list[object]:
    """Random inputs in the form of the example, of another length and batch."""

    def other(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        shape = [{STEPS: steps, BATCH: batch}.get(size, size) for size in value.shape]
        return torch.randn(shape) if value.is_floating_point() else torch.randint(int(value.max()) + 1, shape)

    return pytree.tree_map(other, list(example))


def differentiable(inputs: Sequence[object]) -> list[Tensor]:
    """The floating-point tensors of a call's inputs, which require a gradient from now on."""
    return [t.requires_grad_() for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.is_floating_point()]


def results_of(model: nn.Module, inputs: Sequence[object]) -> list[Tensor]:
    """The results that depend differentiably on something."""
    return [t for t in pytree.tree_leaves(model(*inputs)) if t.requires_grad]


def gradients(model: nn.Module, inputs: Sequence[object]) -> dict[str, Tensor]:
    """The gradients of all inputs and parameters for random cotangents, which depend on the results' shapes alone."""
    tensors = {f"input {i}": t for i, t in enumerate(differentiable(inputs))} | dict(model.named_parameters())
    generator = torch.Generator().manual_seed(1)
    # Eager PyTorch refuses to differentiate loops that write states into a tensor; with copies of it, it can.
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        results = results_of(model, inputs)
        # Drawn in float64, so that they are the same in both precisions.
        cotangents = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
        found = torch.autograd.grad(results, list(tensors.values()), cotangents, allow_unused=True)
    pairs = zip(tensors.items(), found, strict=True)
    return {name: torch.zeros_like(tensor) if g is None else g for (name, tensor), g in pairs}


def check_by_differences(compiled: parc.Module, inputs: Sequence[object]) -> None:
    """torch's gradcheck with respect to all inputs and parameters: one random direction for each of them."""
    leaves, spec = pytree.tree_flatten(list(inputs))
    parameters = dict(compiled.named_parameters())
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        call = list(leaves)
        for place, tensor in zip(places, tensors, strict=False):
            call[place] = tensor
        # gradcheck changes tensors in ways that torch does not count; a copy is a new parameter for certain.
        weights = {n: t.clone() for n, t in zip(parameters, tensors[len(places) :], strict=True)}
        results = torch.func.functional_call(compiled, weights, tuple(pytree.tree_unflatten(call, spec)))
        return tuple(t for t in pytree.tree_leaves(results) if t.is_floating_point())

    sources = [t.detach().clone().requires_grad_() for t in (*differentiable(inputs), *parameters.values())]
    assert torch.autograd.gradcheck(run, sources, fast_mode=True)


def check_float64(given: Case) -> None:
    """Finite differences at one size, eager's gradients at the others."""
    compiled = given.compile()
    for inputs in given.calls:
        ours, eager = gradients(compiled, inputs), gradients(given.model, inputs)
        for name, gradient in eager.items():
            assert_close(ours[name], gradient, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"{name}: {m}")
        # By now the forward pass is the one that also gives what the backward pass needs.
        assert_close(results_of(compiled, inputs), results_of(given.model, inputs), rtol=1e-9, atol=1e-11)
    check_by_differences(compiled, given.calls[-1])


@pytest.mark.parametrize("name", sorted(set(names()) - INTEGER_RESULTS - NOT_COMPILED))
def test_gradients_of_every_cell(name: str) -> None:
    with default_dtype(torch.float64):
        check_float64(case(name))


@pytest.mark.parametrize("name", ["zoo.gru"])
def test_gradients_in_float32_are_as_exact_as_eager(name: str) -> None:
    """Both are measured against eager's gradients in float64."""
    single = case(name)
    compiled = single.compile()
    double = copy.deepcopy(single.model).double()
    for inputs in single.calls:
        ours, eager = gradients(compiled, inputs), gradients(single.model, inputs)
        with default_dtype(torch.float64):
            wide = [t.detach().double() if t.is_floating_point() else t for t in pytree.tree_leaves(inputs)]
            exact = gradients(double, pytree.tree_unflatten(wide, pytree.tree_structure(inputs)))
        for source, reference in exact.items():
            rounding = torch.finfo(torch.float32).eps * float(reference.abs().max())
            error, eagers = (float((g[source] - reference).abs().max()) for g in (ours, eager))
            assert error <= 4 * eagers + 8 * rounding, f"{source}: off by {error:.2g}, eager by {eagers:.2g}"


@pytest.mark.parametrize("name", sorted(INTEGER_RESULTS))
def test_integer_results_have_no_gradient(name: str) -> None:
    given = case(name)
    assert not results_of(given.compile(), given.calls[0])


@st.composite
def layers_of_torch(draw: st.DrawFn) -> Case:
    """A recurrent layer of torch with some of its options, with or without initial states."""
    kind = draw(st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]))
    layers, both, first = draw(st.integers(1, 2)), draw(st.booleans()), draw(st.booleans())
    options: dict[str, object] = {"bias": draw(st.booleans()), "bidirectional": both, "batch_first": first}
    width = hidden = draw(st.sampled_from([3, 17]))
    if kind is nn.RNN:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    if kind is nn.LSTM and draw(st.booleans()):
        options["proj_size"] = width = 2
    model = kind(5, hidden, layers, **options)
    example: list[object] = [torch.randn(BATCH, STEPS, 5) if first else torch.randn(STEPS, BATCH, 5)]
    if draw(st.booleans()):
        h, c = (torch.randn(layers * (1 + both), BATCH, n) for n in (width, hidden))
        example.append((h, c) if kind is nn.LSTM else h)
    return Case(model, example, [resized(example, *size) for size in SIZES])


@st.composite
def custom_cells(draw: st.DrawFn) -> Case:
    """A stack of cells with several states, written in one of several ways."""
    model = AnyCell(
        layers=draw(st.integers(1, 3)),
        states=draw(st.integers(1, 3)),
        features=draw(st.sampled_from([1, 5])),
        hidden=draw(st.sampled_from([1, 7, 16])),
        activation=draw(st.sampled_from(["tanh", "sigmoid", "relu", "sin"])),
        time_outer=draw(st.booleans()),
        collect=draw(st.sampled_from(["stack", "cat", "write"])),
    )
    example = [torch.randn(STEPS, BATCH, model.W[0].shape[0])]
    return Case(model, example, [resized(example, *size) for size in SIZES])


@settings(max_examples=2, deadline=None, phases=NO_SHRINKING)
@given(st.data())
def test_gradients_of_recurrent_layers_of_torch(data: st.DataObject) -> None:
    with default_dtype(torch.float64):
        check_float64(data.draw(layers_of_torch()))


@settings(max_examples=2, deadline=None, phases=NO_SHRINKING)
@given(st.data())
def test_gradients_of_custom_cells(data: st.DataObject) -> None:
    with default_dtype(torch.float64):
        check_float64(data.draw(custom_cells()))
