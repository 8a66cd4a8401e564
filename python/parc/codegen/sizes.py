"""Sizes of tensors in terms of a function's symbols."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, func, tensor

from parc.codegen.irtools import constant_int, defining_op, symbol_arguments, walk

Size: TypeAlias = int | ir.Value
"""An extent: a number, or an index value."""


def name_argument_sizes(function: func.FuncOp) -> None:
    """`tensor.dim` and `memref.dim` of an argument with a `parc.shape` -> an affine function of the symbols."""
    symbols = symbol_arguments(function)
    shapes = {}
    for argument, attribute in zip(function.arguments, function.arg_attrs, strict=True):
        dictionary = ir.DictAttr(attribute)
        if "parc.shape" in dictionary:
            shapes[argument] = ir.AffineMapAttr(dictionary["parc.shape"]).value
    for op in walk(function, "tensor.dim", "memref.dim"):
        source, position = op.operation.operands
        dimension = constant_int(position)
        if source not in shapes or dimension is None:
            continue
        shape = shapes[source]
        extent = shape.results[dimension]
        with ir.InsertionPoint(op), op.location:
            if isinstance(extent, ir.AffineSymbolExpr):
                size = symbols[extent.position]
            else:
                size = affine.AffineApplyOp(ir.AffineMap.get(0, shape.n_symbols, [extent]), symbols).result
        op.operation.results[0].replace_all_uses_with(size)
        op.operation.erase()


def name_array_sizes(function: func.FuncOp) -> None:
    """`tensor.dim` of a `parc.array` -> an affine function of its system's symbols."""
    for op in walk(function, "tensor.dim"):
        source, position = op.operation.operands
        owner, dimension = defining_op(source), constant_int(position)
        if owner is None or owner.operation.name != "parc.array" or dimension is None:
            continue
        system = owner.operation.operands[0].owner.operation
        unknowns = walk(system, "parc.unknown")
        unknown = next(u for u in unknowns if u.attributes["name"] == owner.attributes["name"])
        shape = ir.AffineMapAttr(unknown.attributes["shape"]).value
        with ir.InsertionPoint(op), op.location:
            map_ = ir.AffineMap.get(0, shape.n_symbols, [shape.results[dimension]])
            size = affine.AffineApplyOp(map_, list(system.operands)).result
        op.operation.results[0].replace_all_uses_with(size)
        op.operation.erase()


def sizes_of(value: ir.Value) -> list[Size] | None:
    """The extents of a tensor, where its operation names them or writes into a tensor whose extents are known."""
    type_ = value.type
    op = defining_op(value)
    if type_.has_static_shape:
        return list(type_.shape)
    if op is None:
        return None
    if op.operation.name.startswith("linalg."):
        results = len(op.operation.results)
        return sizes_of(op.operation.operands[len(op.operation.operands) - results + value.result_number])
    if isinstance(op, tensor.EmptyOp):
        named = list(op.operation.operands)
    elif isinstance(op, tensor.ExtractSliceOp):
        if len(op.static_sizes) != type_.rank:  # without some dimensions
            return None
        named = list(op.sizes)
    elif isinstance(op, tensor.ExpandShapeOp):
        named = list(op.output_shape)
    else:
        return None
    dynamic = iter(named)
    return [next(dynamic) if type_.is_dynamic_dim(d) else type_.get_dim_size(d) for d in range(type_.rank)]


def affine_of(value: ir.Value, positions: Mapping[ir.Value, int]) -> ir.AffineExpr | None:
    """An index value as a (semi-)affine expression of the symbols at these positions; None when it is not one."""
    if value in positions:
        return ir.AffineExpr.get_symbol(positions[value])
    constant = constant_int(value)
    if constant is not None:
        return ir.AffineExpr.get_constant(constant)
    op = defining_op(value)
    if isinstance(op, affine.AffineApplyOp):
        map_ = ir.AffineMapAttr(op.attributes["map"]).value
        operands = [affine_of(v, positions) for v in op.operation.operands]
        return substitute(map_.results[0], operands[: map_.n_dims], operands[map_.n_dims :])
    if isinstance(op, arith.AddIOp | arith.SubIOp | arith.MulIOp | arith.FloorDivSIOp):
        left, right = (affine_of(v, positions) for v in op.operands)
        if left is None or right is None:
            return None
        if isinstance(op, arith.MulIOp):
            return left * right
        if isinstance(op, arith.FloorDivSIOp):
            return ir.AffineExpr.get_floor_div(left, right)
        return left + right if isinstance(op, arith.AddIOp) else left - right
    return None


def substitute(
    expr: ir.AffineExpr, dims: Sequence[ir.AffineExpr | None], symbols: Sequence[ir.AffineExpr | None]
) -> ir.AffineExpr | None:
    """`expr` with its dimensions and symbols replaced; None when one that it uses is None."""
    if isinstance(expr, ir.AffineDimExpr):
        return dims[expr.position]
    if isinstance(expr, ir.AffineSymbolExpr):
        return symbols[expr.position]
    if not isinstance(expr, ir.AffineBinaryExpr):
        return expr
    left, right = (substitute(e, dims, symbols) for e in (expr.lhs, expr.rhs))
    if left is None or right is None:
        return None
    build = {
        ir.AffineAddExpr: ir.AffineExpr.get_add,
        ir.AffineMulExpr: ir.AffineExpr.get_mul,
        ir.AffineModExpr: ir.AffineExpr.get_mod,
        ir.AffineFloorDivExpr: ir.AffineExpr.get_floor_div,
        ir.AffineCeilDivExpr: ir.AffineExpr.get_ceil_div,
    }
    return build[type(expr)](left, right)
