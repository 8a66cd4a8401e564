"""Sums over the windows of a convolution, turned around: every element collects what it gets, in parallel.

    dx[o + 2 k] += dy[o] * w[k]                    for all o, k, one after the other
    dx[i] = sum_k  dy'[i - 2 k + 4] * w[k]         where dy' is dy with 4 zeros in front of it, and some behind

That is possible where the windows move by one element: the coefficient of `o` is 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith

from parc.autodiff import emit
from parc.autodiff.extents import Sizes, as_value, constant_size
from parc.codegen.arrays import slope
from parc.codegen.sizes import Size

# What is zero where the cotangents are; and what is no number that is added up.
_LINEAR = ("arith.mulf", "arith.negf", "arith.select", "arith.extf", "arith.truncf")
_NEUTRAL = ("arith.constant", "arith.cmpi", "arith.cmpf", "arith.addi", "arith.muli", "arith.index_cast")

Seen = tuple[ir.Value, ir.AffineMap]
"""A tensor, and the map by which a body sees it."""


@dataclass(frozen=True)
class Sum:
    """A sum of values of iterations.

    map: of its result; whole: the result's extents; extents: those of the iterations; moving: the dimensions of the
    forward results, along which windows can move; operands, ops: what the value is computed from, and by.
    """

    map: ir.AffineMap
    whole: Sequence[Size]
    extents: Sequence[Size]
    moving: ir.AffineMap
    operands: Sequence[Seen]
    ops: Iterable[ir.Operation]


def turned_around(sum_: Sum, sizes: Sizes) -> tuple[ir.AffineMap, list[Seen]] | None:
    """The map and the operands of the same sum, in iterations over the result; None where that cannot be done."""
    moves: dict[int, _Move] = {}
    results = list(sum_.map.results)
    for position, expr in enumerate(results):
        if not isinstance(expr, ir.AffineDimExpr):
            move = _move(sum_, position)
            if move is None or move.dim in moves:
                return None
            moves[move.dim] = move
            results[position] = ir.AffineExpr.get_dim(move.dim)
    if len({str(e) for e in results}) < len(results) or not all(_stays_zero(op, moves) for op in sum_.ops):
        return None
    operands = [(value, map_, _changed(map_, moves)) for value, map_ in sum_.operands]
    if any(changed is None for _, _, changed in operands):
        return None
    seen = [(_padded(v, map_, moves, sizes), changed) for v, map_, changed in operands if changed is not None]
    return ir.AffineMap.get(sum_.map.n_dims, 0, results), seen


@dataclass(frozen=True)
class _Move:
    """Windows that move along a dimension: their elements are at `expr`, that is `dim` plus what is not negative.

    back: `dim` in terms of the element, which takes its place, and of the other dimensions, plus `reach`.
    reach: the distance from the first element of a window to the last; behind: how many elements the last position of
    a window leaves behind it.
    """

    dim: int
    expr: ir.AffineExpr
    back: ir.AffineExpr
    reach: int
    extent: Size
    whole: Size

    def behind(self) -> Size:
        known = constant_size(self.whole), constant_size(self.extent)
        if known[0] is not None and known[1] is not None:
            return known[0] - known[1]
        return arith.subi(as_value(self.whole), as_value(self.extent))


def _move(sum_: Sum, position: int) -> _Move | None:
    """The windows that a result of the map walks; None where they move by more than one, or reach unknown distances."""
    expr = sum_.map.results[position]
    factors = {d: s for d in range(sum_.map.n_dims) if (s := slope(expr, d)) != 0}
    along = [e.position for e in sum_.moving.results if isinstance(e, ir.AffineDimExpr) and e.position in factors]
    if len(along) != 1 or factors[along[0]] != 1:
        return None
    dim = ir.AffineExpr.get_dim(along[0])
    form, back, reach = ir.AffineExpr.get_constant(0), dim, 0
    for d, factor in factors.items():
        form = form + ir.AffineExpr.get_dim(d) * (factor or 0)
        if d != along[0]:
            count = constant_size(sum_.extents[d])
            if factor is None or factor < 0 or count is None:
                return None
            back = back + ir.AffineExpr.get_dim(d) * -factor
            reach += factor * (count - 1)
    if form != expr:
        return None
    return _Move(along[0], expr, back + reach, reach, sum_.extents[along[0]], sum_.whole[position])


def _stays_zero(op: ir.Operation, moves: Mapping[int, _Move]) -> bool:
    """Whether what is added up is zero where the cotangents are padded, and the same at the new iterations."""
    if op.name == "linalg.index":
        return ir.IntegerAttr(op.attributes["dim"]).value not in moves
    return op.name in _LINEAR or op.name in _NEUTRAL


def _changed(map_: ir.AffineMap, moves: Mapping[int, _Move]) -> ir.AffineMap | None:
    """The map of an operand in the new iterations; None where it walks windows of another kind."""
    results = []
    for expr in map_.results:
        used = [move for dim, move in moves.items() if slope(expr, dim) != 0]
        if not used:
            results.append(expr)
        elif len(used) == 1 and expr == used[0].expr:
            results.append(ir.AffineExpr.get_dim(used[0].dim))
        elif len(used) == 1 and isinstance(expr, ir.AffineDimExpr):
            results.append(used[0].back)
        else:
            return None
    return ir.AffineMap.get(map_.n_dims, 0, results)


def _padded(value: ir.Value, map_: ir.AffineMap, moves: Mapping[int, _Move], sizes: Sizes) -> ir.Value:
    """An operand with zeros around the positions of windows."""
    padding = {
        d: moves[e.position]
        for d, e in enumerate(map_.results)
        if isinstance(e, ir.AffineDimExpr) and e.position in moves
    }
    if not padding:
        return value
    extents = sizes.of(value)
    whole, low = list(extents), [0] * len(extents)
    for d, move in padding.items():
        low[d] = move.reach
        whole[d] = emit.plus(emit.plus(extents[d], move.reach), move.behind())
    zeros = emit.filled(emit.empty_of(whole, value.type.element_type))
    return emit.insert_slice(value, zeros, low, extents, [1] * len(extents))
