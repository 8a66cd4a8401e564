"""Exact conversion between MLIR's affine maps and sets and isl's."""

import re
from collections.abc import Sequence
from typing import Any

import islpy as isl
from torch_mlir import ir

from parc.errors import CompileError

SET, IN, OUT, PARAM = isl.dim_type.set, isl.dim_type.in_, isl.dim_type.out, isl.dim_type.param


def instance_space(symbols: tuple[str, ...], name: str, dims: tuple[str, ...]) -> isl.Space:
    """The space `[symbols] -> { name[dims] }`."""
    space = isl.Space.set_alloc(isl.DEFAULT_CONTEXT, len(symbols), len(dims))
    for i, symbol in enumerate(symbols):
        space = space.set_dim_name(PARAM, i, symbol)
    for i, dim in enumerate(dims):
        space = space.set_dim_name(SET, i, dim)
    return space.set_tuple_name(SET, name) if name else space


def dimension_names(count: int, symbols: tuple[str, ...]) -> tuple[str, ...]:
    """Names for the dimensions of a domain (MLIR keeps none): `t`, or `t0, t1, ...`."""
    names = ("t",) if count == 1 else tuple(f"t{i}" for i in range(count))
    return tuple(name + "_" if name in symbols else name for name in names)


def evaluate(expr: ir.AffineExpr, symbols: Sequence[int]) -> int:
    """The value of an expression in the symbols alone, for these values of theirs."""
    return int(value_at(expr, (), symbols))


def value_at(expr: ir.AffineExpr, dims: Sequence[Any], symbols: Sequence[Any] = ()) -> Any:
    """The value of an expression for these values of its dimensions and symbols: integers, or arrays of such."""
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return int(expr.value)
    if isinstance(expr, ir.AffineSymbolExpr):
        return symbols[expr.position]
    if isinstance(expr, ir.AffineDimExpr):
        return dims[expr.position]
    left, right = value_at(expr.lhs, dims, symbols), value_at(expr.rhs, dims, symbols)
    if isinstance(expr, ir.AffineAddExpr):
        return left + right
    if isinstance(expr, ir.AffineMulExpr):
        return left * right
    if isinstance(expr, ir.AffineModExpr):
        return left % right
    return left // right if isinstance(expr, ir.AffineFloorDivExpr) else -(-left // right)


def to_aff(expr: ir.AffineExpr, space: isl.Space, location: ir.Location | None = None) -> isl.Aff:
    """The isl form of an affine expression over `space` (its dimensions and symbols, in order).

    Raises CompileError for a semi-affine expression: a product of, or a division by, something not constant.
    """
    expr = expr.maybe_downcast()
    local = isl.LocalSpace.from_space(space)
    if isinstance(expr, ir.AffineConstantExpr):
        return isl.Aff.zero_on_domain(local).add_constant_val(_val(expr.value))
    if isinstance(expr, ir.AffineDimExpr):
        return isl.Aff.var_on_domain(local, SET, expr.position)
    if isinstance(expr, ir.AffineSymbolExpr):
        return isl.Aff.var_on_domain(local, PARAM, expr.position)
    left, right = to_aff(expr.lhs, space, location), to_aff(expr.rhs, space, location)
    if isinstance(expr, ir.AffineAddExpr):
        return left.add(right)
    if isinstance(expr, ir.AffineMulExpr) and left.is_cst():
        left, right = right, left
    if not right.is_cst():
        raise CompileError(f"'{expr}' is not affine: the right-hand side is not a constant", location)
    value = right.get_constant_val()
    if isinstance(expr, ir.AffineMulExpr):
        return left.scale_val(value)
    if isinstance(expr, ir.AffineModExpr):
        return left.mod_val(value)
    scaled = left.scale_down_val(value)
    return scaled.floor() if isinstance(expr, ir.AffineFloorDivExpr) else scaled.ceil()


def to_map(
    map_: ir.AffineMap, domain: isl.Set, name: str, rank: int | None = None, location: ir.Location | None = None
) -> isl.Map:
    """The first `rank` results (all of them when None) of an affine map as `{ domain -> name[...] }`."""
    results = list(map_.results)[:rank]
    space = domain.get_space()
    target = space.map_from_domain_and_range(
        instance_space(_param_names(space), name, tuple(f"i{i}" for i in range(len(results))))
    )
    affs = isl.AffList.alloc(isl.DEFAULT_CONTEXT, len(results))
    for result in results:
        affs = affs.add(to_aff(result, space, location))
    return isl.Map.from_multi_aff(isl.MultiAff.from_aff_list(target, affs)).intersect_domain(domain)


def to_set(attr: ir.Attribute, space: isl.Space, location: ir.Location | None = None) -> isl.Set:
    """The isl form of an affine set attribute over `space`."""
    result = isl.Set.universe(space)
    for expr, is_equality in constraints(attr):
        aff = to_aff(expr, space, location)
        zero = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(space))
        result = result.intersect(aff.eq_set(zero) if is_equality else aff.ge_set(zero))
    return result


def from_set(points: isl.Set) -> list[ir.IntegerSetAttr]:
    """The MLIR form of a set over its dimensions and symbols: sets without common points whose union it is."""
    found: list[ir.IntegerSetAttr] = []

    def add(part: isl.BasicSet) -> None:
        rows = part.get_constraints() or [isl.Constraint.equality_alloc(part.get_local_space())]
        # isl keeps them in no order that means anything.
        pairs = sorted(((from_aff(c.get_aff()), c.is_equality()) for c in rows), key=lambda pair: str(pair[0]))
        exprs, equal = [e for e, _ in pairs], [is_equal for _, is_equal in pairs]
        found.append(ir.IntegerSetAttr.get(ir.IntegerSet.get(points.dim(SET), points.dim(PARAM), exprs, equal)))

    points.compute_divs().coalesce().make_disjoint().foreach_basic_set(add)
    return found


def domain_rank(attr: ir.Attribute) -> int:
    """How many dimensions an affine set attribute has."""
    head = str(attr).split("(", 1)[1].split(")", 1)[0]
    return len([name for name in head.split(",") if name.strip()])


def affine_expr(dims: tuple[int, ...], symbols: tuple[int, ...], constant: int) -> ir.AffineExpr:
    """`dims . d + symbols . s + constant` in MLIR form; needs a current MLIR context."""
    expr = ir.AffineExpr.get_constant(0)
    for coefficients, get in ((dims, ir.AffineExpr.get_dim), (symbols, ir.AffineExpr.get_symbol)):
        for i, coefficient in enumerate(coefficients):
            if coefficient:
                expr = expr + get(i) * coefficient
    return expr + constant


def from_aff(aff: isl.Aff) -> ir.AffineExpr:
    """The MLIR form of an isl affine expression with integer coefficients; divisions become `floordiv`."""
    denominator = aff.get_denominator_val().to_python()
    scaled = aff.scale_val(_val(denominator))

    def coefficients(kind: isl.dim_type) -> tuple[int, ...]:
        return tuple(scaled.get_coefficient_val(kind, i).to_python() for i in range(scaled.dim(kind)))

    expr = affine_expr(coefficients(IN), coefficients(PARAM), scaled.get_constant_val().to_python())
    for i, coefficient in enumerate(coefficients(isl.dim_type.div)):
        if coefficient:
            expr = expr + from_aff(scaled.get_div(i)) * coefficient
    return ir.AffineExpr.get_floor_div(expr, denominator) if denominator != 1 else expr


def as_function(map_: isl.Map) -> isl.MultiAff | None:
    """The affine function that a relation is on its whole domain; None when it takes more than one, or is none."""
    pieces: list[isl.MultiAff] = []
    if map_.is_single_valued():
        isl.PwMultiAff.from_map(map_).foreach_piece(lambda _, function: pieces.append(function))
    return pieces[0] if len(pieces) == 1 else None


def aff_text(aff: isl.Aff) -> str:
    """`from_aff` with the variables by their names: `T - t - 1`; needs a current MLIR context."""
    dims = tuple(aff.get_dim_name(IN, i) or f"i{i}" for i in range(aff.dim(IN)))
    return with_names(str(from_aff(aff)), dims, tuple(aff.get_dim_name(PARAM, i) for i in range(aff.dim(PARAM))))


def with_names(text: str, dims: tuple[str, ...], symbols: tuple[str, ...]) -> str:
    """MLIR's text of an affine expression with `d0` and `s0` replaced by names."""
    names = {f"d{i}": name for i, name in enumerate(dims)} | {f"s{i}": name for i, name in enumerate(symbols)}
    return re.sub(r"\b[ds]\d+\b", lambda match: names[match[0]], text)


def constraints(attr: ir.Attribute) -> list[tuple[ir.AffineExpr, bool]]:
    """The constraints of an affine set attribute as (expression, is it `== 0` rather than `>= 0`)."""
    # The bindings give no access to the set inside an attribute, but a map with the same expressions has one.
    head, body = str(attr).removeprefix("affine_set<").removesuffix(">").split(" : ", 1)
    parts = re.findall(r"(.+?) (==|>=) 0(?:, |$)", body.strip()[1:-1])
    text = f"affine_map<{head} -> ({', '.join(expr for expr, _ in parts)})>"
    exprs = ir.Attribute.parse(text, attr.context).value.results
    return [(expr, relation == "==") for expr, (_, relation) in zip(exprs, parts, strict=True)]


def _val(value: int) -> isl.Val:
    return isl.Val(value)


def _param_names(space: isl.Space) -> tuple[str, ...]:
    return tuple(space.get_dim_name(PARAM, i) for i in range(space.dim(PARAM)))
