"""`fold-slices`: systems read and give arrays in place where slices only copy them."""

from dataclasses import dataclass
from typing import ClassVar

import islpy as isl
from torch_mlir import ir

from parc.codegen.irtools import defining_op
from parc.codegen.slices import Slice
from parc.errors import CompileError
from parc.passbase import Pass
from parc.poly.affine import to_aff
from parc.poly.model import Equation, System, build, systems
from parc.recurrence.extents import extents_of


@dataclass
class FoldSlices(Pass):
    """Systems read and give arrays in place where slices only copy them.

    What reads an array that another one was put into, at points that are all inside of that one, reads it alone (the
    cotangent of all states but the first, with zeros in front of it); and a slice that is a whole array is that array.

        %padded = tensor.insert_slice %g into %zeros[1, 0, 0] [%T, %B, 8] [1, 1, 1]
        %s = "parc.system"(%T, %B) ({ ... 0 <= t < T ... "parc.read"(%padded) {at = affine_map<(t)[T, B] -> (t + 1)>}
        %d = "parc.array"(%s) {name = "d"}
        %all = tensor.extract_slice %d[0, 0, 0] [%T, %B, 8] [1, 1, 1]

        %s = "parc.system"(%T, %B) ({ ... "parc.read"(%g) {at = affine_map<(t)[T, B] -> (t)>}
        %d = "parc.array"(%s) {name = "d"}
    """

    name: ClassVar[str] = "fold-slices"

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            for op in systems(module):
                system = build(op)
                for equation in system.equations:
                    for access in equation.inputs:
                        _read_source(system, equation, access.op)
                _take_whole(op)


def _read_source(system: System, equation: Equation, read: ir.Operation) -> None:
    """Let a `parc.read` of an array with another one in it read that one, if it reads nothing else."""
    insertion = defining_op(read.operands[0])
    if insertion is None or insertion.operation.name != "tensor.insert_slice":
        return
    op = insertion.operation
    source, whole = op.operands[0], op.operands[1]
    place = Slice.of(op, _symbols(system.op))
    access = ir.AffineMapAttr(read.attributes["at"]).value
    leading, rank = len(access.results), whole.type.rank
    if place is None or source.type.rank != rank or source.type.shape[leading:] != whole.type.shape[leading:]:
        return
    shifted = [e - offset for e, offset in zip(access.results, place.offsets, strict=False)]
    try:
        extents = extents_of(whole, system.op)
        is_whole = all(place.is_whole(d, extents[d]) for d in range(leading, rank))
        is_inside = all(_is_inside(equation.domain, e, size) for e, size in zip(shifted, place.sizes, strict=False))
    except CompileError:  # what cannot be said is not proved
        return
    if is_whole and is_inside:
        read.operands[0] = source
        read.attributes["at"] = ir.AffineMapAttr.get(ir.AffineMap.get(access.n_dims, access.n_symbols, shifted))


def _is_inside(domain: isl.Set, index: ir.AffineExpr, size: ir.AffineExpr) -> bool:
    """Is `0 <= index < size` at all points of a domain?"""
    position, extent = (to_aff(e, domain.get_space()) for e in (index, size))
    zero = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(domain.get_space()))
    return domain.is_subset(position.ge_set(zero)) and domain.is_subset(position.lt_set(extent))


def _take_whole(system: ir.Operation) -> None:
    """`parc.array`s in place of slices of them that are all of them."""
    shapes = {
        member.attributes["name"]: list(ir.AffineMapAttr(member.attributes["shape"]).value.results)
        for member in (op.operation for op in system.regions[0].blocks[0].operations)
        if member.name == "parc.unknown"
    }
    for taker in (use.owner.operation for use in system.results[0].uses):
        if "at" in taker.attributes:
            continue
        extents, array = shapes[taker.attributes["name"]], taker.results[0]
        for op in [use.owner.operation for use in array.uses]:
            if op.name == "tensor.extract_slice" and op.results[0].type == array.type:
                place = Slice.of(op, _symbols(system))
                if place is not None and all(place.is_whole(d, e) for d, e in enumerate(extents)):
                    op.results[0].replace_all_uses_with(array)
                    op.erase()


def _symbols(system: ir.Operation) -> dict[ir.Value, int]:
    return {value: i for i, value in enumerate(system.operands)}
