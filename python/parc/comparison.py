"""Compares compiled programs with the original: results and gradients, at sizes that were not traced."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from parc.compiled import Compiled
from parc.errors import CallError, CompileError
from parc.importers.imported import Original
from parc.parameters import Parameters, Snapshot
from parc.signature import short_name

# How far results may be from the original's, relative to the largest value: sums are taken in another order.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.complex64: 1e-3, torch.complex128: 1e-8}
_LOW_PRECISION = 5e-2
# How far gradients may be, in the root mean square, relative to theirs: where rounding takes a value past the bend of
# a relu, single elements differ by all they have.
_GRADIENT_TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3}
# How much further f32 may be where a program's products round their factors to these (`codegen/blocks/target.py`).
_ROUNDED_PRODUCTS = {"f32": 1.0, "tf32": 5.0, "f16": 5.0, "bf16": 20.0}
# How much further what sweeps within a tolerance may be, in tolerances: errors of all steps, and what they become.
_SWEPT = 100.0
# Gradients that are small beside the largest are the rest of sums that cancel: rounding errors.
_SMALL = 1e-3

Differentiate = Callable[[Sequence[Tensor], Snapshot, Sequence[Tensor]], Sequence[Tensor]]
"""Inputs, parameters and the cotangents of the floating-point results -> gradients."""


def compare_results(compiled: Compiled, parameters: Parameters, original: Original, precision: str = "f32") -> None:
    """Run both programs at sizes that were not traced; CompileError when their results differ.

    Sizes that the original does not take are left out, as are values that the program gives behind the results.
    `precision` is what the compiled program rounds factors of f32 to; the original does not round them.
    """
    for sizes in original.sizes:
        try:
            inputs = original.inputs(sizes)
            with torch.no_grad(), _exact_products():
                expected = original.run(inputs)
        except Exception:  # noqa: BLE001 (whatever a program raises at a size that it does not take)
            continue
        where = _where(sizes)
        tolerance = compiled.signature.tolerance
        try:
            results = compiled(compiled.sizes(inputs), inputs, parameters.current())
        except CallError as e:
            raise CompileError(f"the model runs at {where} but the compiled program does not: {e}") from e
        for i, (result, reference) in enumerate(zip(results[: len(expected)], expected, strict=True)):
            if difference := _difference(result, reference, precision, _SWEPT * tolerance):
                raise CompileError(
                    f"the compiled program does not compute what the model does: at {where}, result {i} {difference}; "
                    f"the model does something else at some sizes, {_or_tolerance(tolerance)}or this is a bug in parc"
                )


def compare_gradients(
    differentiate: Differentiate,
    wanted: Mapping[int, str],
    parameters: Snapshot,
    original: Original,
    precision: str = "f32",
    tolerance: float = 0.0,
) -> None:
    """Differentiate both programs by the `wanted` arguments (number -> name), with random cotangents.

    CompileError when a gradient differs.  Sizes at which the original cannot be differentiated are left out.
    `precision` as for `compare_results`; `tolerance` is the largest one of iterations in the compiled programs.
    """
    for sizes in original.sizes:
        inputs = [t.requires_grad_(i in wanted) for i, t in enumerate(original.inputs(sizes))]
        arguments = (*inputs, *parameters.tensors)
        sources = [arguments[i] for i in wanted]
        try:
            with torch.inference_mode(False), torch.enable_grad(), _without_hooks(sources), _exact_products():
                # Copies, because a model may write into its inputs.
                results = original.run([t.clone() for t in inputs])
                floating = [t for t in results if t.is_floating_point()]
                cotangents = _random_like(floating)
                reached = [i for i, t in enumerate(floating) if t.requires_grad]
                outputs, given = [floating[i] for i in reached], [cotangents[i] for i in reached]
                expected = torch.autograd.grad(outputs, sources, given, allow_unused=True)
        except Exception:  # noqa: BLE001 (whatever a program raises at a size that it does not take)
            continue
        gradients = differentiate([t.detach() for t in inputs], parameters, cotangents)
        references = [torch.zeros_like(s) if e is None else e for s, e in zip(sources, expected, strict=True)]
        largest = max(map(_size, references))
        for name, gradient, reference in zip(wanted.values(), gradients, references, strict=True):
            if difference := _gradient_difference(gradient, reference, largest, precision, _SWEPT * tolerance):
                raise CompileError(
                    f"the compiled program does not differentiate as the model does: at {_where(sizes)}, the gradient "
                    f"of '{name}' {difference}; the model does something else at some sizes, {_or_tolerance(tolerance)}"
                    "or this is a bug in parc"
                )


def _or_tolerance(tolerance: float) -> str:
    """The same cause for all that sweeps: a change may be small where much is missing."""
    return f"its iterations need a smaller tolerance than {tolerance:g}, " if tolerance else ""


def _where(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sizes.items()) or "the sizes of the example"


def _difference(result: Tensor, reference: Tensor, precision: str, more: float) -> str:
    """What differs, in words; an empty string when the tensors agree, or are no more than `more` further apart."""
    if form := _other_form(result, reference):
        return form
    if not (reference.is_floating_point() or reference.is_complex()):
        wrong = int((result != reference).sum())
        return f"differs in {wrong} of {reference.numel()} values" if wrong else ""
    finite = reference[reference.isfinite()].abs()
    scale = max(1.0, float(finite.max())) if finite.numel() else 1.0
    allowed = _TOLERANCE.get(reference.dtype, _LOW_PRECISION) * _rounding(reference.dtype, precision) * scale + more
    if torch.allclose(result, reference, rtol=0, atol=allowed, equal_nan=True):
        return ""
    error = (result - reference).abs().nan_to_num(torch.inf).max()
    return f"is off by {float(error):.2g} (values up to {scale:.2g})"


def _gradient_difference(gradient: Tensor, reference: Tensor, largest: float, precision: str, more: float) -> str:
    """What differs, in words; an empty string when the tensors agree, or where the reference is infinite or NaN."""
    if form := _other_form(gradient, reference):
        return form
    known = reference.isfinite()
    error, size = _root_mean_square((gradient - reference)[known]), _size(reference)
    allowed = _GRADIENT_TOLERANCE.get(reference.dtype, 2 * _LOW_PRECISION) * _rounding(reference.dtype, precision)
    allowed *= max(size, _SMALL * largest)
    return "" if error <= allowed + more else f"is off by {error:.2g} (root mean square; its own is {size:.2g})"


def _rounding(dtype: torch.dtype, precision: str) -> float:
    return _ROUNDED_PRODUCTS[precision] if dtype is torch.float32 else 1.0


@contextmanager
def _exact_products() -> Iterator[None]:
    """torch's products do not round factors of f32, not even cuDNN's, which do unless they are told."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def _other_form(tensor: Tensor, reference: Tensor) -> str:
    if tensor.shape != reference.shape:
        return f"has shape {list(tensor.shape)} instead of {list(reference.shape)}"
    if tensor.dtype is not reference.dtype:
        return f"is {short_name(tensor.dtype)} instead of {short_name(reference.dtype)}"
    return ""


def _size(tensor: Tensor) -> float:
    return _root_mean_square(tensor[tensor.isfinite()])


def _root_mean_square(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0


def _random_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(t.shape, generator=generator, dtype=t.dtype).to(t.device) for t in tensors]


@contextmanager
def _without_hooks(tensors: Sequence[Tensor]) -> Iterator[None]:
    """The user's hooks on gradients may change them, and are not to see those of a compile."""
    hooks = [t._backward_hooks for t in tensors]
    for tensor in tensors:
        tensor._backward_hooks = None
    try:
        yield
    finally:
        for tensor, hook in zip(tensors, hooks, strict=True):
            tensor._backward_hooks = hook
