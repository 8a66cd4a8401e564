"""Index sets of stored values: isl sets and functions as MLIR attributes."""

from collections.abc import Sequence

import islpy as isl
from torch_mlir import ir

from parc.poly.affine import IN, PARAM, SET, from_aff
from parc.poly.boxes import on_space


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


def _body(set_: ir.IntegerSet) -> str:
    """The text of a set without its head: `(d0)[s0] : (d0 >= 0)`."""
    text = str(set_)
    return text[text.index("(") :]
