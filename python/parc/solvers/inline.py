"""Puts what an equation computes into the equations that read it."""

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import affine

from parc.codegen.irtools import clone_with
from parc.poly.affine import as_function, from_aff
from parc.poly.dependences import Dependence
from parc.poly.model import System


def can_inline(system: System, dependence: Dependence) -> bool:
    """Does the sink read, at every point, what one point of the source computes?"""
    everywhere = system.equation(dependence.sink).domain.is_subset(dependence.relation.range())
    return everywhere and source_point(dependence) is not None


def inline(system: System, dependence: Dependence) -> None:
    """Replace a read by a copy of what computes it; the source stays for its other readers.

    The model of the system is out of date afterwards.
    """
    read, point = dependence.read.op, source_point(dependence)
    assert point is not None, "can_inline"
    source = system.equation(dependence.source).op
    block = source.regions[0].blocks[0]
    coordinates = [from_aff(point.get_at(i)) for i in range(len(block.arguments))]
    operands = [*read.parent.regions[0].blocks[0].arguments, *system.op.operands]
    dims, symbols = len(operands) - len(system.symbols), len(system.symbols)
    with ir.InsertionPoint(read), read.location:
        values: dict[ir.Value, ir.Value] = {}
        for argument, expr in zip(block.arguments, coordinates, strict=True):
            values[argument] = affine.AffineApplyOp(ir.AffineMap.get(dims, symbols, [expr]), operands).result
        for op in block.operations:
            if op.operation.name == "parc.write":
                continue
            copy = clone_with(op, values)
            if op.operation.name == "parc.read":
                own = ir.AffineMapAttr(op.operation.attributes["at"]).value
                at = ir.AffineMap.get(dims, symbols, coordinates)
                copy.attributes["at"] = ir.AffineMapAttr.get(
                    ir.AffineMap.get(dims, symbols, [e.compose(at) for e in own.results])
                )
    (written,) = [w.op.operands[0] for w in system.equation(dependence.source).writes if w.array == dependence.array]
    read.results[0].replace_all_uses_with(values[written])
    read.erase()


def erase_unread(system: System, name: str) -> None:
    """Erase an equation whose arrays nothing reads, with these arrays."""
    equation = system.equation(name)
    arrays = [w.op.operands[1] for w in equation.writes]
    taken = {ir.StringAttr(use.owner.operation.attributes["name"]).value for use in system.op.results[0].uses}
    named = {w.array for w in equation.writes}
    if named & taken or any(_readers(array, equation.op) for array in arrays):
        return
    equation.op.erase()
    for array in arrays:
        array.owner.erase()


def _readers(array: ir.Value, equation: ir.Operation) -> list[ir.Operation]:
    """What uses an array besides the equation that computes it."""
    return [use.owner for use in array.uses if use.owner.operation.parent.operation != equation]


def source_point(dependence: Dependence) -> isl.MultiAff | None:
    """`sink instance -> source instance`; None where it is no one affine function."""
    return as_function(dependence.relation.reverse())
