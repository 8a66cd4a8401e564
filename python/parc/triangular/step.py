"""Imports steps: from a torch program that computes step(x, ...) to its traces, with a proof that x can be computed."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch_mlir import ir

from parc import dialect
from parc.codegen.irtools import copy_module
from parc.errors import CompileError
from parc.importers import Imported, import_model
from parc.importers.shapes import Extent, inferred
from parc.importers.torch_model import Program
from parc.passes.close_iteration import ATTRIBUTE
from parc.signature import short_name
from parc.triangular.proof import Proof


def import_step(
    step: nn.Module | Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    context: ir.Context,
    dynamic_shapes: object,
    *,
    batch_only: bool,
) -> tuple[Imported, Proof]:
    """The traces of a step, and the proof that some order computes the elements of x one after another.

    `dynamic_shapes` None lets the dimensions of x vary that may; with `batch_only` just the first one, and only where
    its rows do not depend on each other.  CompileError for a step whose result is not like x, and where elements of x
    depend on each other.
    """
    dialect.load(context)
    program = Program.of(step, args, kwargs)
    _check_result(program)
    shapes = _varying(program, batch_only) if dynamic_shapes is None else dynamic_shapes
    imported, proof = _proved(step, args, kwargs, context, shapes)
    if dynamic_shapes is None and batch_only and not proof.rows_independent:
        return _proved(step, args, kwargs, context, ())
    return imported, proof


def close(imported: Imported, proof: Proof, tolerance: float) -> Imported:
    """The program that sweeps x = step(x) until no element changes by more than the tolerance.

    CompileError where the bound on the sweeps is no affine function of the sizes.
    """
    with imported.module.context, ir.Location.unknown():
        about = {
            "bound": ir.AffineMapAttr.get(proof.bound()),
            "tolerance": ir.FloatAttr.get(ir.F64Type.get(), tolerance),
            "why": ir.StringAttr.get(
                f"the elements of {proof.smallest.name} follow each other in {proof.bound_text()} levels"
            ),
        }
        imported.module.operation.attributes[ATTRIBUTE] = ir.DictAttr.get(about)
    return imported


def _proved(
    step: nn.Module | Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    context: ir.Context,
    dynamic_shapes: object,
) -> tuple[Imported, Proof]:
    imported = import_model(step, args, kwargs, context, dynamic_shapes=dynamic_shapes)
    return imported, Proof.of(copy_module(imported.module), list(imported.parameters.values()))


def _check_result(program: Program) -> None:
    """CompileError for a step whose result is not one tensor like x."""
    x, name = program.examples[0], program.names[0]
    try:
        run = program.rehearse([t.shape for t in program.examples])
    except Exception:  # noqa: BLE001 (the import explains whatever it is)
        return
    if len(run.outputs) != 1 or len(run.results) != 1:
        raise CompileError(f"the step returns {len(run.outputs)} values; expected one tensor like '{name}', {_form(x)}")
    if (result := run.results[0]).shape != x.shape or result.dtype is not x.dtype:
        raise CompileError(f"the step returns {_form(result)}; expected a tensor like '{name}', {_form(x)}")


def _form(tensor: Tensor) -> str:
    return f"{short_name(tensor.dtype)}{list(tensor.shape)}"


def _varying(program: Program, batch_only: bool) -> object:
    """Dynamic shapes that let dimensions of x vary, and those of the other inputs that vary with them."""
    extents = inferred(program).extents
    symbols = {e.symbol for e in (extents[0][:1] if batch_only else extents[0])} - {None}
    for extent in (e for of_input in extents for e in of_input):
        if extent != Extent(extent.symbol, 1):
            symbols.discard(extent.symbol)
    trees = [{d: e.symbol for d, e in enumerate(of_input) if e.symbol in symbols} for of_input in extents]
    args, kwargs = program.places(trees)
    return [*args, *kwargs.values()]
