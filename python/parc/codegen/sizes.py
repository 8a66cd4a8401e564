"""Sizes of a function's arguments in terms of its symbols."""

from torch_mlir import ir
from torch_mlir.dialects import affine, func

from parc.codegen.irtools import constant_int, symbol_arguments, walk


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
