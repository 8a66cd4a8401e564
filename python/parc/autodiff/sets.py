"""Index sets of stored values: bounding boxes, and isl sets and functions as MLIR attributes."""

from collections.abc import Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import IN, PARAM, SET, from_aff


@dataclass(frozen=True)
class Box:
    """`lower[i] <= x[i] < lower[i] + extent[i]`, all affine functions of the system's symbols."""

    lower: tuple[isl.Aff, ...]
    extent: tuple[isl.Aff, ...]

    def extents(self) -> list[ir.AffineExpr]:
        """The extents as expressions of the symbols; needs a current MLIR context."""
        return [from_aff(e) for e in self.extent]

    def points(self, space: isl.Space) -> isl.Set:
        """All points of the box, as a set of `space`."""
        result = isl.Set.universe(space)
        for i, (lower, extent) in enumerate(zip(self.lower, self.extent, strict=True)):
            result = result.intersect(_at_least(space, i, lower)).intersect(
                _at_most(space, i, lower.add(extent).add_constant_val(isl.Val(-1)))
            )
        return result


def bounding_box(points: isl.Set) -> Box | None:
    """The smallest box with one affine bound on each side; None where no single bound holds for all sizes."""
    lower, extent = [], []
    for i in range(points.dim(SET)):
        low = _bound(points, i, points.dim_min(i), below=True)
        high = _bound(points, i, points.dim_max(i), below=False)
        if low is None or high is None:
            return None
        lower.append(low)
        extent.append(high.sub(low).add_constant_val(isl.Val(1)))
    return Box(tuple(lower), tuple(extent))


def affine_map(function: isl.MultiAff, origin: Sequence[isl.Aff] = ()) -> ir.AffineMap:
    """An isl function as an affine map; `origin` (functions of the symbols) is subtracted from its results."""
    results = [function.get_aff(i) for i in range(function.dim(isl.dim_type.out))]
    for i, start in enumerate(origin):
        results[i] = results[i].sub(on_space(results[i].get_domain_space(), start))
    symbols = function.get_space().dim(PARAM)
    return ir.AffineMap.get(function.dim(IN), symbols, [from_aff(a) for a in results])


def integer_sets(points: isl.Set) -> list[ir.Attribute]:
    """Disjoint affine sets with these points; needs a current MLIR context."""
    found = []
    for part in points.coalesce().make_disjoint().compute_divs().get_basic_sets():
        exprs, equalities = [], []
        for constraint in part.get_constraints():
            exprs.append(from_aff(constraint.get_aff()))
            equalities.append(constraint.is_equality())
        if not exprs:
            exprs, equalities = [ir.AffineExpr.get_constant(0)], [True]
        set_ = ir.IntegerSet.get(part.dim(SET), part.dim(PARAM), exprs, equalities)
        found.append(ir.Attribute.parse(f"affine_set<{_body(set_)}>"))
    return found


def identity(points: isl.Set) -> isl.MultiAff:
    """`{ p -> [p] }` on the space of a set."""
    space = points.get_space()
    affs = isl.AffList.alloc(isl.DEFAULT_CONTEXT, space.dim(SET))
    for i in range(space.dim(SET)):
        affs = affs.add(isl.Aff.var_on_domain(isl.LocalSpace.from_space(space), SET, i))
    target = space.reset_tuple_id(SET)
    return isl.MultiAff.from_aff_list(space.map_from_domain_and_range(target), affs)


def unchanged(points: isl.Set) -> isl.MultiAff:
    """`{ p -> p }` on the space of a set."""
    return isl.MultiAff.identity(points.get_space().map_from_set())


def on_space(space: isl.Space, aff: isl.Aff) -> isl.Aff:
    """A function of the symbols alone as one on `space`."""
    result = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(space)).set_constant_val(aff.get_constant_val())
    for k in range(aff.dim(PARAM)):
        result = result.set_coefficient_val(PARAM, k, aff.get_coefficient_val(PARAM, k))
    return result


def _body(set_: ir.IntegerSet) -> str:
    """The text of a set without its head: `(d0)[s0] : (d0 >= 0)`."""
    text = str(set_)
    return text[text.index("(") :]


def _bound(points: isl.Set, i: int, extreme: isl.PwAff, *, below: bool) -> isl.Aff | None:
    """The extreme of coordinate `i`, if one affine function of the symbols bounds it everywhere."""
    pieces: list[isl.Aff] = []
    extreme.foreach_piece(lambda _, aff: pieces.append(aff))
    space = points.get_space()
    for aff in sorted(pieces, key=lambda a: not a.is_cst()):
        if aff.dim(isl.dim_type.div):
            continue
        bounded = _at_least(space, i, aff) if below else _at_most(space, i, aff)
        if points.is_subset(bounded):
            return aff
    return None


def _at_least(space: isl.Space, i: int, bound: isl.Aff) -> isl.Set:
    return isl.Aff.var_on_domain(isl.LocalSpace.from_space(space), SET, i).ge_set(on_space(space, bound))


def _at_most(space: isl.Space, i: int, bound: isl.Aff) -> isl.Set:
    return isl.Aff.var_on_domain(isl.LocalSpace.from_space(space), SET, i).le_set(on_space(space, bound))
