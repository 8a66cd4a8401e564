"""Lets sweeps over layers start from what they ended with in the last call."""

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import members, name_of, symbol_arguments
from parc.codegen.sizes import affine_of, sizes_of
from parc.errors import CompileError
from parc.iterative.starts import add_solutions, add_starts


def start_from_previous(function: func.FuncOp, iteration: ir.Operation) -> None:
    """Start from what the function is given, and give what the iteration ends with, in the place of zeros."""
    name = name_of(iteration)
    # Arrays that do not change have what they are for a start, and nothing takes them out.
    ends = {name_of(use.owner): use.owner.operation.results[0] for use in iteration.results[0].uses}
    inside = members(iteration.regions[0].blocks[0], "parc.previous")
    previous = {name_of(op): op for op in inside if name_of(op) in ends}
    extents = {array: _extents(op.operands[0], function) for array, op in previous.items()}
    starts = add_starts(function, name, {array: op.results[0].type for array, op in previous.items()}, extents)
    for array, start in starts.items():
        previous[array].operands[0] = start
    add_solutions(function, name, {array: ends[array] for array in starts}, extents)


def _extents(value: ir.Value, function: func.FuncOp) -> ir.AffineMap:
    """The extents of a tensor that is filled, in the function's symbols."""
    symbols = symbol_arguments(function)
    positions = {argument: i for i, argument in enumerate(symbols)}
    sizes = sizes_of(value)
    assert sizes is not None, "made with these sizes"
    exprs = [ir.AffineExpr.get_constant(s) if isinstance(s, int) else affine_of(s, positions) for s in sizes]
    if any(e is None for e in exprs):
        text = "layers cannot start from the last call where their sizes do not follow from those of inputs"
        raise CompileError(text, function.location)
    return ir.AffineMap.get(0, len(symbols), exprs)
