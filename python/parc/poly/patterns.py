"""Which elements of its operands an element of an operation's result is made of, as isl relations of indices.

Elements live in unnamed spaces `{ [i0, i1] }` without parameters: a static extent bounds its index, a dynamic one
leaves it open upwards.  Relations hold at least the elements that are used; where a form is not known, all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.elements import NotACellError, static_extents
from parc.codegen.views import reshape_groups, slice_dims
from parc.poly.affine import SET, instance_space, to_map


@dataclass(frozen=True, eq=False)
class Use:
    """An operand, and the elements of it that each element of a result is made of."""

    operand: ir.Value
    relation: isl.Map
    """`{ result element -> operand element }`"""


def elements(extents: Sequence[int | None]) -> isl.Set:
    """All elements of a tensor; a scalar has one, without indices."""
    result = isl.Set.universe(instance_space((), "", tuple(f"i{d}" for d in range(len(extents)))))
    for d, extent in enumerate(extents):
        result = result.lower_bound_val(SET, d, isl.Val(0))
        if extent is not None:
            result = result.upper_bound_val(SET, d, isl.Val(extent - 1))
    return result


def identity(value: ir.Value) -> isl.Map:
    """Each element of a value with itself."""
    return elements(static_extents(value.type)).identity()


def everything(result: ir.Value, operand: ir.Value) -> isl.Map:
    """Each element of a result with all elements of an operand."""
    return isl.Map.from_domain_and_range(elements(static_extents(result.type)), elements(static_extents(operand.type)))


def view_uses(op: ir.Operation) -> list[Use] | None:
    """For an operation that only moves elements: where they come from; None for one that computes."""
    result = op.results[0] if len(op.results) == 1 else None
    if result is None or op.name not in _VIEWS:
        return None
    try:
        return _VIEWS[op.name](op, result)
    except NotACellError:
        return [Use(v, everything(result, v)) for v in op.operands if isinstance(v.type, ir.RankedTensorType)]


class Loops:
    """The iteration space of a linalg operation, seen from the elements of one of its results."""

    def __init__(self, op: ir.Operation, result: ir.Value) -> None:
        maps = linalg.get_indexing_maps(op.opview)
        assert maps is not None, "asked of an operation that is not structured"
        self.op = op
        self.maps = [ir.AffineMapAttr(m).value for m in maps]
        self.inputs = len(op.operands) - len(op.results)
        self.out = self.inputs + ir.OpResult(result).result_number
        self.points = elements(self._extents())
        self.from_result = to_map(self.maps[self.out], self.points, "").reverse()

    def relation(self, number: int) -> isl.Map:
        """`{ result element -> element of operand `number` }`"""
        return self.from_result.apply_range(to_map(self.maps[number], self.points, ""))

    def has_reductions(self) -> bool:
        """Is an element of the result made in more than one iteration?"""
        return len(self.maps[self.out].results) < self.maps[self.out].n_dims

    def visits_once(self, number: int) -> bool:
        """Is every iteration of one result element at another element of operand `number`?"""
        used = {e.position for m in (self.maps[self.out], self.maps[number]) for e in _dims(m)}
        return len(used) == self.points.dim(SET)

    def _extents(self) -> list[int | None]:
        found: dict[int, int | None] = {}
        for value, map_ in zip(self.op.operands, self.maps, strict=True):
            for extent, expr in zip(static_extents(value.type), map_.results, strict=True):
                if isinstance(expr, ir.AffineDimExpr) and found.get(expr.position) is None:
                    found[expr.position] = extent
        return [found.get(d) for d in range(self.maps[0].n_dims)]


def _dims(map_: ir.AffineMap) -> list[ir.AffineDimExpr]:
    return [e for e in map_.results if isinstance(e, ir.AffineDimExpr)]


def _related(result: ir.Value, operand: ir.Value, constraints: Sequence[str]) -> Use:
    """The use of the elements `j` of an operand by elements `i` of a result under constraints on both."""
    ranks = (len(static_extents(v.type)) for v in (result, operand))
    left, right = (", ".join(f"{name}{d}" for d in range(rank)) for name, rank in zip("ij", ranks, strict=True))
    relation = isl.Map(f"{{ [{left}] -> [{right}] : {' and '.join(constraints) or 'true'} }}")
    return Use(operand, relation.intersect(everything(result, operand)))


def _cast(op: ir.Operation, result: ir.Value) -> list[Use]:
    return [_related(result, op.operands[0], [f"j{d} = i{d}" for d in range(len(static_extents(result.type)))])]


def _reshape(op: ir.Operation, result: ir.Value) -> list[Use]:
    """Each index of the tensor with fewer of them counts through a group of indices of the other."""
    expands = op.name == "tensor.expand_shape"
    short, long = ("j", "i") if expands else ("i", "j")
    extents = static_extents((result if expands else op.operands[0]).type)
    constraints = []
    for d, group in enumerate(reshape_groups(op)):
        longer = [g for g in group if extents[g] != 1]
        inner = [extents[g] or 0 for g in longer[1:]]
        # Behind a dynamic extent the place in the group is not affine in the indices.
        if 0 not in inner:
            terms = [f"{prod(inner[n:])} {long}{g}" for n, g in enumerate(longer)]
            constraints.append(f"{short}{d} = {' + '.join(terms) or '0'}")
    return [_related(result, op.operands[0], constraints)]


def _window(op: ir.Operation, slice_: ir.Value, inner: str, outer: str) -> list[str]:
    """Constraints between the indices of a slice (`inner`) and those of the tensor that it is a slice of."""
    offsets, strides = (list(ir.DenseI64ArrayAttr(op.attributes[f"static_{key}"])) for key in ("offsets", "strides"))
    constraints = []
    for d, (offset, stride, at) in enumerate(zip(offsets, strides, slice_dims(op, slice_), strict=True)):
        # A dynamic offset or stride is negative here: any element may be meant.
        if offset >= 0 and (stride > 0 or at is None):
            constraints.append(f"{outer}{d} = {offset}" + ("" if at is None else f" + {stride} {inner}{at}"))
    return constraints


def _extract_slice(op: ir.Operation, result: ir.Value) -> list[Use]:
    return [_related(result, op.operands[0], _window(op, result, "i", "j"))]


def _insert_slice(op: ir.Operation, result: ir.Value) -> list[Use]:
    source, target = op.operands[0], op.operands[1]
    inside = _related(result, source, _window(op, source, "j", "i"))
    kept = identity(result)
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
    offsets = list(ir.DenseI64ArrayAttr(op.attributes["static_offsets"]))
    strides = list(ir.DenseI64ArrayAttr(op.attributes["static_strides"]))
    # Elements of the target inside of the slice do not stay. A dynamic size from 0 on is that of the whole dimension.
    if (
        all(o >= 0 for o in offsets)
        and all(s == 1 for s in strides)
        and not any(size < 0 and offset for size, offset in zip(sizes, offsets, strict=True))
    ):
        box = isl.Set.universe(kept.domain().get_space())
        for d, (offset, size, extent) in enumerate(zip(offsets, sizes, static_extents(result.type), strict=True)):
            box = box.lower_bound_val(SET, d, isl.Val(offset))
            if size >= 0 and size != extent:
                box = box.upper_bound_val(SET, d, isl.Val(offset + size - 1))
        kept = kept.subtract_domain(box)
    return [inside, Use(target, kept)]


def _concat(op: ir.Operation, result: ir.Value) -> list[Use]:
    dim, found = ir.IntegerAttr(op.attributes["dim"]).value, []
    base: int | None = 0
    for operand in op.operands:
        extent = static_extents(operand.type)[dim]
        constraints = [f"j{d} = i{d}" for d in range(len(static_extents(result.type))) if d != dim]
        found.append(_related(result, operand, constraints + [f"i{dim} = j{dim} + {base}"] * (base is not None)))
        base = None if base is None or extent is None else base + extent
    return found


def _pad(op: ir.Operation, result: ir.Value) -> list[Use]:
    low = list(ir.DenseI64ArrayAttr(op.attributes["static_low"]))
    return [_related(result, op.operands[0], [f"i{d} = j{d} + {n}" for d, n in enumerate(low) if n >= 0])]


def _extract(op: ir.Operation, result: ir.Value) -> list[Use]:
    # The indices are known numbers: one element, but not which.
    return [Use(op.operands[0], everything(result, op.operands[0]))]


def _from_elements(op: ir.Operation, result: ir.Value) -> list[Use]:
    extents, found = static_extents(result.type), []
    for number, operand in enumerate(op.operands):
        constraints = []
        for d in reversed(range(len(extents))):
            number, place = divmod(number, extents[d] or 1)
            constraints.append(f"i{d} = {place}")
        found.append(_related(result, operand, constraints))
    return found


_VIEWS = {
    "tensor.cast": _cast,
    "tensor.concat": _concat,
    "tensor.collapse_shape": _reshape,
    "tensor.expand_shape": _reshape,
    "tensor.extract": _extract,
    "tensor.extract_slice": _extract_slice,
    "tensor.from_elements": _from_elements,
    "tensor.insert_slice": _insert_slice,
    "tensor.pad": _pad,
    "tensor.splat": lambda op, result: [Use(op.operands[0], everything(result, op.operands[0]))],
}
