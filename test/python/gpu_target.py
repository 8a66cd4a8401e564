"""What the tests of whole programs run on: the emulated GPU, or with `PARC_TEST_TARGET=cuda` the one that torch uses.

Programs are compared with eager PyTorch in float64 on the CPU, whatever their own element type: errors are then those
of the program alone, and no setting of torch's own kernels for GPUs plays a part.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import parc

TARGET = os.environ.get("PARC_TEST_TARGET", "cuda-emulated")
DEVICE = torch.device("cuda" if TARGET == "cuda" else "cpu")
"""Where the inputs and weights of programs are."""

ROUNDINGS = 2**9
"""How many units in the last place a result, or a gradient, may be off, in terms of its tensor's largest value: sums of
up to a thousand terms, through some tens of steps."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors without a type of their own have this one; models make some while they run."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """What factors of products are rounded to: "highest" (not at all), "high" (tf32), "medium" (bf16)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compile_for_gpu(model: nn.Module, example: Sequence[object], **options: object) -> parc.Module:
    """The model, moved to the device, compiled for the target; `options` as for `parc.compile`."""
    return parc.compile(model.to(DEVICE), tuple(moved(example)), target=TARGET, **options)


def moved(inputs: Sequence[object], dtype: torch.dtype | None = None) -> list[object]:
    """The inputs on the device; floating-point ones of another type if that is given."""

    def move(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        given = value.detach().to(DEVICE, dtype if value.is_floating_point() else None)
        return given.requires_grad_(value.requires_grad)

    return pytree.tree_map(move, list(inputs))


class Exact:
    """A model in float64 on the CPU."""

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).to("cpu", torch.float64)

    def results(self, inputs: Sequence[object]) -> list[Tensor]:
        """The results for the inputs, which are of any type and on any device."""
        with torch.no_grad(), default_dtype(torch.float64):
            return pytree.tree_leaves(self._model(*_wide(inputs)))

    def gradients(self, inputs: Sequence[object]) -> dict[str, Tensor]:
        """See `gradients`."""
        with default_dtype(torch.float64):
            return gradients(self._model, _wide(inputs))


def gradients(model: nn.Module, inputs: Sequence[object]) -> dict[str, Tensor]:
    """The gradients of all floating-point inputs and parameters, for cotangents that depend on shapes alone."""
    leaves = pytree.tree_leaves(inputs)
    given = [t.requires_grad_() for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]
    sources = {f"input {i}": t for i, t in enumerate(given)} | dict(model.named_parameters())
    results = [r for r in pytree.tree_leaves(model(*inputs)) if r.requires_grad]
    generator = torch.Generator().manual_seed(1)
    # Drawn in float64, so that they are the same for all types.
    drawn = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r) for r in results]
    found = torch.autograd.grad(results, list(sources.values()), drawn, allow_unused=True)
    pairs = zip(sources.items(), found, strict=True)
    return {name: torch.zeros_like(t) if g is None else g.detach() for (name, t), g in pairs}


def off_by(found: Tensor, exact: Tensor) -> float:
    """The largest error, relative to the largest exact value (or to 1, where all are smaller)."""
    assert found.shape == exact.shape
    if not exact.is_floating_point():
        assert torch.equal(found.cpu(), exact)
    if not exact.numel():
        return 0.0
    return float((found.cpu().double() - exact).abs().max() / max(1.0, float(exact.abs().max())))


def check_results(compiled: parc.Module, exact: Exact, inputs: Sequence[object], dtype: torch.dtype) -> None:
    """Results of a program of this element type are right up to rounding."""
    given = moved(inputs, dtype)
    with torch.no_grad():
        results = pytree.tree_leaves(compiled(*given))
    for i, (found, expected) in enumerate(zip(results, exact.results(given), strict=True)):
        error = off_by(found, expected)
        assert error <= ROUNDINGS * torch.finfo(dtype).eps, f"result {i} is off by {error:.2g}"


def check_gradients(compiled: parc.Module, exact: Exact, inputs: Sequence[object], dtype: torch.dtype) -> None:
    """Gradients of a program of this element type are right up to rounding."""
    given = moved(inputs, dtype)
    expected, found = exact.gradients(given), gradients(compiled, given)
    for name, gradient in found.items():
        error = off_by(gradient, expected[name])
        assert error <= ROUNDINGS * torch.finfo(dtype).eps, f"the gradient of {name} is off by {error:.2g}"


def _wide(inputs: Sequence[object]) -> list[object]:
    def widen(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return value.detach().to("cpu", torch.float64 if value.is_floating_point() else None)

    return pytree.tree_map(widen, list(inputs))
