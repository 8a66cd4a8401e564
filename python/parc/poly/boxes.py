"""Boxes around sets of points whose bounds are functions of the sizes."""

from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import PARAM, SET, from_aff

#: How far bounds may move for small sizes: `T - 2` and `0` have the common bound `T`.
_MOST_SLACK = 8


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
    """A small box with one affine bound on each side; None where no single bound is found that holds for all sizes."""
    lower, extent = [], []
    for i in range(points.dim(SET)):
        low = _bound(points, i, points.dim_min(i), below=True)
        high = _bound(points, i, points.dim_max(i), below=False)
        if low is None or high is None:
            return None
        lower.append(low)
        extent.append(high.sub(low).add_constant_val(isl.Val(1)))
    return Box(tuple(lower), tuple(extent))


def on_space(space: isl.Space, aff: isl.Aff) -> isl.Aff:
    """A function of the symbols alone as one on `space`."""
    result = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(space)).set_constant_val(aff.get_constant_val())
    for k in range(aff.dim(PARAM)):
        result = result.set_coefficient_val(PARAM, k, aff.get_coefficient_val(PARAM, k))
    return result


def _bound(points: isl.Set, i: int, extreme: isl.PwAff, *, below: bool) -> isl.Aff | None:
    """One of the functions that the extreme of coordinate `i` is, moved as little as bounds it everywhere."""
    pieces: list[isl.Aff] = []
    extreme.foreach_piece(lambda _, aff: pieces.append(aff))
    space = points.get_space()
    for slack in range(_MOST_SLACK + 1):
        for aff in sorted(pieces, key=lambda a: not a.is_cst()):
            if aff.dim(isl.dim_type.div):
                continue
            moved = aff.add_constant_val(isl.Val(-slack if below else slack))
            if points.is_subset(_at_least(space, i, moved) if below else _at_most(space, i, moved)):
                return moved
    return None


def _at_least(space: isl.Space, i: int, bound: isl.Aff) -> isl.Set:
    return isl.Aff.var_on_domain(isl.LocalSpace.from_space(space), SET, i).ge_set(on_space(space, bound))


def _at_most(space: isl.Space, i: int, bound: isl.Aff) -> isl.Set:
    return isl.Aff.var_on_domain(isl.LocalSpace.from_space(space), SET, i).le_set(on_space(space, bound))
