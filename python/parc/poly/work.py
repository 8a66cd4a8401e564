"""How much one point of an equation computes and touches, from the operations of its body."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.poly.affine import evaluate, instance_space, to_aff
from parc.poly.count import Count, points_at, weighted_instances
from parc.poly.model import Access, Equation, System
from parc.poly.rows import Cells

_TRANSCENDENTAL = 0.13e-9
"""Seconds per element of one tanh or exp, vectorised."""
_SIMPLE = 0.02e-9
"""The same of an addition or a copy."""


@dataclass(frozen=True)
class Work:
    """What one equation does at one point, at given sizes."""

    points: int
    rows: int
    row_bytes: int
    """Bytes of the units of a row."""
    flops: float
    """Floating-point operations of its matrix products."""
    weights: int
    """Bytes of known operands of its matrix products."""
    read: int
    """Bytes of computed operands of its matrix products."""
    written: int
    """Bytes of the tile that it defines."""
    pointwise: float
    """Seconds of its pointwise operations on one core."""
    is_cell: bool
    """Has it a kernel, whose rows and units threads can share?"""


def measure(system: System, cells: Cells, sizes: Mapping[str, int]) -> dict[str, Work]:
    """The work of each equation at the given sizes of all symbols."""
    return {e.name: _measure(system, e, cells[e.name] is not None, sizes) for e in system.equations}


def multiply_adds(system: System) -> Count:
    """Multiplications with an addition, of all matrix products of a system; needs a current MLIR context."""
    space = instance_space(system.symbols, "", ()).params()
    weighted = []
    for equation in system.equations:
        tile = tile_of(system, equation.writes[0])
        products = [_loop_extents(op, tile) for op in _operations(equation) if _is_product(op)]
        numbers = [reduce(isl.PwQPolynomial.mul, [_polynomial(e, space) for e in extents]) for extents in products]
        if numbers:
            weighted.append((equation.domain, reduce(isl.PwQPolynomial.add, numbers)))
    return weighted_instances(weighted)


def _measure(system: System, equation: Equation, is_cell: bool, sizes: Mapping[str, int]) -> Work:
    values = [sizes[s] for s in system.symbols]
    tile = tile_of(system, equation.writes[0])

    def number(extents: Sequence[ir.AffineExpr]) -> int:
        return prod(evaluate(e, values) for e in extents)

    def bytes_of(value: ir.Value) -> int:
        return number(_shape(value, tile)) * _element_bytes(value)

    element = _element_bytes(equation.writes[0].op.operands[0])
    flops, weights, read, pointwise = 0.0, 0, 0, 0.0
    computed: set[ir.Value] = set()
    for op in _operations(equation):
        if op.name == "parc.read" or computed.intersection(op.operands):
            computed.update(op.results)
        if _is_product(op):
            flops += 2.0 * number(_loop_extents(op, tile))
            factors = list(op.operands)[:-1]
            weights += sum(bytes_of(v) for v in factors if v not in computed)
            read += sum(bytes_of(v) for v in factors if v in computed)
        elif op.name != "parc.read" and computed.intersection(op.operands):
            pointwise += sum(number(_shape(v, tile)) for v in op.results) * _seconds_per_element(op)
    return Work(
        points=points_at(equation.domain, sizes),
        rows=number(tile[:-1]),
        row_bytes=number(tile[-1:]) * element,
        flops=flops,
        weights=weights,
        read=read,
        written=number(tile) * element,
        pointwise=pointwise,
        is_cell=is_cell,
    )


def _operations(equation: Equation) -> Iterator[ir.Operation]:
    return (op.operation for op in equation.op.regions[0].blocks[0].operations)


def _is_product(op: ir.Operation) -> bool:
    return op.name.startswith("linalg.") and bool(linalg.isa_contraction_op(op))


def tile_of(system: System, write: Access) -> list[ir.AffineExpr]:
    """The extents of the tile that a write defines, as functions of the symbols."""
    shape = system.unknown(write.array).op.attributes["shape"].value.results
    return list(shape[len(write.op.attributes["at"].value.results) :])


def _loop_extents(op: ir.Operation, tile: Sequence[ir.AffineExpr]) -> list[ir.AffineExpr]:
    """The extents of the loops of a linalg operation."""
    extents: dict[int, ir.AffineExpr] = {}
    for map_, operand in zip(linalg.get_indexing_maps(op), op.operands, strict=True):
        for expr, extent in zip(map_.value.results, _shape(operand, tile), strict=True):
            if isinstance(expr, ir.AffineDimExpr):
                extents.setdefault(expr.position, extent)
    return list(extents.values())


def _polynomial(expr: ir.AffineExpr, space: isl.Space) -> isl.PwQPolynomial:
    """The isl form of an expression of the symbols, which may have products of them."""
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineAddExpr | ir.AffineMulExpr):
        left, right = _polynomial(expr.lhs, space), _polynomial(expr.rhs, space)
        return left.add(right) if isinstance(expr, ir.AffineAddExpr) else left.mul(right)
    return isl.PwQPolynomial.from_pw_aff(isl.PwAff.from_aff(to_aff(expr, space)))


def _seconds_per_element(op: ir.Operation) -> float:
    inner = [o.operation.name for region in op.regions for block in region.blocks for o in block.operations]
    names = [n for n in (op.name, *inner) if n.startswith(("math.", "arith."))]
    return sum(_TRANSCENDENTAL if n.startswith("math.") else _SIMPLE for n in names)


def _shape(value: ir.Value, tile: Sequence[ir.AffineExpr]) -> list[ir.AffineExpr]:
    """The extents of a tensor; a dynamic one is taken for that of the tile at its place. Empty for a scalar."""
    if not isinstance(value.type, ir.RankedTensorType):
        return []
    type_ = ir.RankedTensorType(value.type)
    constant = ir.AffineExpr.get_constant
    # A tensor with fewer dimensions lacks leading ones; what has more of them has one row there.
    padded = [constant(1)] * (type_.rank - len(tile)) + list(tile[max(0, len(tile) - type_.rank) :])
    return [padded[i] if type_.is_dynamic_dim(i) else constant(type_.get_dim_size(i)) for i in range(type_.rank)]


def _element_bytes(value: ir.Value) -> int:
    element = value.type.element_type if isinstance(value.type, ir.RankedTensorType) else value.type
    return max(1, element.width // 8) if isinstance(element, ir.FloatType | ir.IntegerType) else 8
