"""`name-sizes`: write every tensor size of `@main` in terms of its symbols."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, tensor

from parc.codegen.irtools import (
    find_function,
    insert_arguments,
    result_attributes,
    run_pipeline,
    set_results,
    symbol_arguments,
    terminator,
)
from parc.codegen.sizes import affine_of, name_argument_sizes, name_array_sizes
from parc.errors import CompileError
from parc.passbase import Pass


@dataclass
class NameSizes(Pass):
    """Write every tensor size of `@main` in terms of its symbols.

    `tensor.dim` of an argument becomes the size that its `parc.shape` gives; an argument without `parc.shape` gets a
    new symbol for each dynamic size; results without `parc.shape` get one.

        func.func @main(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
          %n = tensor.dim %x, %c0
          %e = tensor.empty(%n)

        func.func @main(%x_0: index {parc.kind = "symbol", parc.name = "x_0"},
                        %x: tensor<?x8xf32> {parc.shape = affine_map<()[x_0] -> (x_0, 8)>})
            -> (tensor<?x8xf32> {parc.shape = affine_map<()[x_0] -> (x_0, 8)>}) {
          %e = tensor.empty(%x_0)
    """

    name = "name-sizes"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None:
            raise CompileError("the module has no function @main")
        with module.context, main.location:
            _name_unnamed_arguments(main)
            unnamed = _return_sizes(main)
            run_pipeline(module, "resolve-shaped-type-result-dims", self.name)
            name_argument_sizes(main)
            name_array_sizes(main)
            run_pipeline(module, "canonicalize,cse", self.name)
            _name_results(main, unnamed)


def _name_unnamed_arguments(main: func.FuncOp) -> None:
    """Give every argument with dynamic sizes a `parc.shape`, adding symbols where it has none."""
    attributes = [dict(_items(a)) for a in main.arg_attrs]
    symbols = symbol_arguments(main)
    count = len(symbols)
    names: list[str] = []
    shapes: dict[int, list[ir.AffineExpr]] = {}
    for i, argument in enumerate(main.arguments):
        type_ = argument.type
        if not isinstance(type_, ir.RankedTensorType) or type_.has_static_shape or "parc.shape" in attributes[i]:
            continue
        label = ir.StringAttr(attributes[i]["parc.name"]).value if "parc.name" in attributes[i] else f"arg{i}"
        shapes[i] = []
        for d, extent in enumerate(type_.shape):
            if type_.is_dynamic_dim(d):
                shapes[i].append(ir.AffineExpr.get_symbol(count + len(names)))
                names.append(f"{label}_{d}")
            else:
                shapes[i].append(ir.AffineExpr.get_constant(extent))
    if not names:
        return
    total = count + len(names)
    for i, exprs in shapes.items():
        attributes[i]["parc.shape"] = ir.AffineMapAttr.get(ir.AffineMap.get(0, total, exprs))
    for attribute in attributes:
        if "parc.shape" in attribute:
            exprs = list(ir.AffineMapAttr(attribute["parc.shape"]).value.results)
            attribute["parc.shape"] = ir.AffineMapAttr.get(ir.AffineMap.get(0, total, exprs))
    main.arg_attrs = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])
    index = ir.IndexType.get()
    insert_arguments(main, count, [(index, {"parc.kind": "symbol", "parc.name": name}) for name in names])


def _items(attributes: ir.Attribute) -> list[tuple[str, ir.Attribute]]:
    return [(named.name, named.attr) for named in ir.DictAttr(attributes)]


def _return_sizes(main: func.FuncOp) -> list[int]:
    """Return, besides the results, the sizes of those without `parc.shape`, so that they are simplified with the rest.

    Gives the numbers of these results; `_name_results` undoes it.
    """
    attributes = result_attributes(main)
    end = terminator(main.entry_block)
    values = list(end.operands)
    unnamed = [
        i for i, v in enumerate(values) if isinstance(v.type, ir.RankedTensorType) and "parc.shape" not in attributes[i]
    ]
    with ir.InsertionPoint(end):
        for i in unnamed:
            for d in range(ir.RankedTensorType(values[i].type).rank):
                values.append(tensor.DimOp(values[i], arith.constant(ir.IndexType.get(), d)).result)
    set_results(main, values, attributes + [{}] * (len(values) - len(attributes)))
    return unnamed


def _name_results(main: func.FuncOp, unnamed: list[int]) -> None:
    """Read the returned sizes as functions of the symbols and return the results alone again."""
    positions = {argument: i for i, argument in enumerate(symbol_arguments(main))}
    count = len(terminator(main.entry_block).operands) - sum(
        ir.RankedTensorType(main.type.results[i]).rank for i in unnamed
    )
    values = list(terminator(main.entry_block).operands)
    attributes = result_attributes(main)[:count]
    sizes = iter(values[count:])
    for i in unnamed:
        exprs = []
        for d in range(ir.RankedTensorType(main.type.results[i]).rank):
            expr = affine_of(next(sizes), positions)
            if expr is None:
                raise CompileError(f"size {d} of result {i} is not an affine function of the symbols", main.location)
            exprs.append(expr)
        attributes[i]["parc.shape"] = ir.AffineMapAttr.get(ir.AffineMap.get(0, len(positions), exprs))
    set_results(main, values[:count], attributes)
