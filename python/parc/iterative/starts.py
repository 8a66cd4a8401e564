"""Starts from the last call's solution: arguments of `@main` that sweeps start from, and results to keep for them."""

from collections.abc import Mapping

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import append_results, arguments_of_kind, insert_arguments, symbol_arguments
from parc.codegen.sizes import affine_of, substitute
from parc.errors import CompileError
from parc.poly.model import System


def shapes(system: System, arrays: list[str], function: func.FuncOp) -> dict[str, ir.AffineMap]:
    """The extents of unknowns in the function's symbols; CompileError where they are no functions of these."""
    symbols = symbol_arguments(function)
    positions = {argument: i for i, argument in enumerate(symbols)}
    places = [affine_of(value, positions) for value in system.op.operands]
    found = {}
    for name in arrays:
        op = system.unknown(name).op
        exprs = [substitute(e, (), places) for e in ir.AffineMapAttr(op.attributes["shape"]).value.results]
        if any(e is None for e in exprs):
            message = f"{name} cannot start from the last call: its sizes are no functions of those of the inputs"
            raise CompileError(message, op.location)
        found[name] = ir.AffineMap.get(0, len(symbols), exprs)
    return found


def add_starts(
    function: func.FuncOp, iteration: str, types: Mapping[str, ir.Type], extents: Mapping[str, ir.AffineMap]
) -> dict[str, ir.Value]:
    """Arguments of `parc.kind = "start"`, one an array, behind the inputs."""
    before = ("symbol", "input", "start")
    at = sum(len(arguments_of_kind(function, kind)) for kind in before)
    text = [{"parc.kind": "start", "parc.name": f"{iteration}.{name}"} for name in types]
    insert_arguments(function, at, list(zip(types.values(), text, strict=True)))
    attributes = list(function.arg_attrs)
    for number, name in enumerate(types, at):
        named = {a.name: a.attr for a in ir.DictAttr(attributes[number])}
        attributes[number] = ir.DictAttr.get(named | {"parc.shape": ir.AffineMapAttr.get(extents[name])})
    function.arg_attrs = ir.ArrayAttr.get(attributes)
    return {name: function.arguments[number] for number, name in enumerate(types, at)}


def add_solutions(
    function: func.FuncOp, iteration: str, values: Mapping[str, ir.Value], extents: Mapping[str, ir.AffineMap]
) -> None:
    """Results of `parc.kind = "solution"`, one an array, behind all others."""
    new = []
    for name, value in values.items():
        text = {"parc.kind": "solution", "parc.name": f"{iteration}.{name}"}
        named: dict[str, ir.Attribute] = {key: ir.StringAttr.get(word) for key, word in text.items()}
        new.append((value, named | {"parc.shape": ir.AffineMapAttr.get(extents[name])}))
    append_results(function, new)
