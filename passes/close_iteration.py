"""`close-iteration`: a program that computes step(x) becomes one that sweeps x = step(x) until nothing changes.

The module's attribute `parc.fixed_point` asks for it, and says what has been found out about the step:

    module attributes {parc.fixed_point = {bound = affine_map<()[B] -> (64)>, tolerance = 0.0 : f64, why = "..."}}
    func.func @main(%B: index, %x, %u) {        func.func @main(%B: index, %x, %u) {
      %a = f(%u)                                  %a = f(%u)
      %y = g(%x, %a)                  becomes     %s = "parc.iterate"(%limit) ({
      return %y                                     %x0 = "parc.previous"(%x)
    }                                               %y = g(%x0, %a)
                                                    "parc.next"(%y), "parc.change"(largest |%y - %x0|)
                                                  })
                                                  %z = "parc.iterated"(%s)
                                                  return %z

x is the first input, and the start of the sweeps.  What does not depend on it is computed once, before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import func

from parc.codegen.irtools import argument_kind, captured_values, find_function, terminator
from parc.errors import CompileError
from parc.iterative.emit import Iteration, build_iterate, capped, largest_change
from parc.passbase import Pass

ATTRIBUTE = "parc.fixed_point"


@dataclass
class CloseIteration(Pass):
    """Sweep over the first input of @main until it is what @main computes from it.

    A module without the attribute `parc.fixed_point` stays as it is.
    """

    name: ClassVar[str] = "close-iteration"

    def run(self, module: ir.Module) -> None:
        attributes = module.operation.attributes
        main = find_function(module, "main")
        if ATTRIBUTE not in attributes or main is None:
            return
        about = ir.DictAttr(attributes[ATTRIBUTE])
        with module.context, main.location:
            _close(main, about)
        del attributes[ATTRIBUTE]


def _close(main: func.FuncOp, about: ir.DictAttr) -> None:
    kinds = [argument_kind(ir.DictAttr(a)) for a in main.arg_attrs]
    symbols = [a for a, kind in zip(main.arguments, kinds, strict=True) if kind == "symbol"]
    names = [_name(a) for a, kind in zip(main.arg_attrs, kinds, strict=True) if kind == "symbol"]
    last = terminator(main.entry_block)
    if len(symbols) == len(kinds) or len(last.operands) != 1:
        raise CompileError("a fixed point is of a program with an input and one result", main.location)
    x, result = main.arguments[len(symbols)], last.operands[0]
    if x.type != result.type:
        raise CompileError(f"a step from {x.type} to {result.type} has no fixed point", main.location)
    inside = _dependent(main, x)
    outside_uses = [(use.owner, use.operand_number) for use in x.uses]
    name, bound = _name(main.arg_attrs[len(symbols)]), ir.AffineMapAttr(about["bound"]).value
    iteration = Iteration(
        name=name,
        solver="jacobi",
        tolerance=ir.FloatAttr(about["tolerance"]).value,
        arrays=[name],
        bound=bound,
        symbols=names,
        why=ir.StringAttr(about["why"]).value,
        start="given",
    )

    def sweep(_: ir.Value, olds: Sequence[ir.Value]) -> tuple[Sequence[ir.Value], ir.Value]:
        place = olds[0].owner
        for op in inside:
            op.move_after(place)
            place = op
        for owner, number in outside_uses:
            owner.operands[number] = olds[0]
        return [last.operands[0]], largest_change([last.operands[0]], olds)

    with ir.InsertionPoint(last):
        limit = capped(bound, symbols, 0)
        (found,) = build_iterate(iteration, [x], limit, sweep)
    last.operands[0] = found


def _dependent(main: func.FuncOp, x: ir.Value) -> list[ir.Operation]:
    """The operations that depend on a value, in order; the terminator is none of them."""
    found, values = [], {x}
    for op in list(main.entry_block.operations)[:-1]:
        if not values.isdisjoint(captured_values(op)):
            found.append(op.operation)
            values.update(op.operation.results)
    return found


def _name(attributes: ir.Attribute) -> str:
    """An argument's name."""
    return ir.StringAttr(ir.DictAttr(attributes)["parc.name"]).value
