"""How much one point of an equation computes and touches, from the operations of its body."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.poly.count import points_at
from parc.poly.model import Equation, System

_TRANSCENDENTAL = 0.13e-9
"""Seconds per element of one tanh or exp, vectorised."""
_SIMPLE = 0.02e-9
"""The same of an addition or a copy."""


@dataclass(frozen=True)
class Work:
    """What one equation does at one point, at given sizes."""

    points: int
    rows: int
    flops: float
    """Floating-point operations of its matrix products."""
    weights: int
    """Bytes of known operands of its matrix products."""
    written: int
    """Bytes of the tile that it defines."""
    pointwise: float
    """Seconds of its pointwise operations on one core."""


def measure(system: System, sizes: Mapping[str, int]) -> dict[str, Work]:
    """The work of each equation at the given sizes of all symbols."""
    return {e.name: _measure(system, e, sizes) for e in system.equations}


def _measure(system: System, equation: Equation, sizes: Mapping[str, int]) -> Work:
    write = equation.writes[0]
    shape = system.unknown(write.array).op.attributes["shape"].value.results
    values = [sizes[s] for s in system.symbols]
    tile = [_evaluate(e, values) for e in shape[len(write.op.attributes["at"].value.results) :]]
    rows = prod(tile[:-1])
    flops, weights, pointwise = 0.0, 0, 0.0
    computed: set[ir.Value] = set()
    for op in (o.operation for o in equation.op.regions[0].blocks[0].operations):
        if op.name == "parc.read" or computed.intersection(op.operands):
            computed.update(op.results)
        if op.name.startswith("linalg.") and linalg.isa_contraction_op(op):
            extents = _loop_extents(op, rows)
            flops += 2.0 * prod(extents)
            weights += sum(_bytes(v, rows) for v in list(op.operands)[:-1] if v not in computed)
        elif op.name != "parc.read" and computed.intersection(op.operands):
            pointwise += sum(_elements(v, rows) for v in op.results) * _seconds_per_element(op)
    bytes_ = prod(tile) * _element_bytes(write.op.operands[0])
    return Work(points_at(equation.domain, sizes), rows, flops, weights, bytes_, pointwise)


def _loop_extents(op: ir.Operation, rows: int) -> list[int]:
    """The extents of the loops of a linalg operation."""
    extents: dict[int, int] = {}
    for map_, operand in zip(linalg.get_indexing_maps(op), op.operands, strict=True):
        for expr, extent in zip(map_.value.results, _shape(operand, rows), strict=True):
            if isinstance(expr, ir.AffineDimExpr):
                extents[expr.position] = extent
    return list(extents.values())


def _seconds_per_element(op: ir.Operation) -> float:
    inner = [o.operation.name for region in op.regions for block in region.blocks for o in block.operations]
    names = [n for n in (op.name, *inner) if n.startswith(("math.", "arith."))]
    return sum(_TRANSCENDENTAL if n.startswith("math.") else _SIMPLE for n in names)


def _shape(value: ir.Value, rows: int) -> list[int]:
    """The extents of a tensor; a dynamic one is taken for the rows. Empty for a scalar."""
    if not isinstance(value.type, ir.RankedTensorType):
        return []
    type_ = ir.RankedTensorType(value.type)
    return [rows if type_.is_dynamic_dim(i) else type_.get_dim_size(i) for i in range(type_.rank)]


def _elements(value: ir.Value, rows: int) -> int:
    return prod(_shape(value, rows))


def _bytes(value: ir.Value, rows: int) -> int:
    return _elements(value, rows) * _element_bytes(value)


def _element_bytes(value: ir.Value) -> int:
    element = value.type.element_type if isinstance(value.type, ir.RankedTensorType) else value.type
    return max(1, element.width // 8) if isinstance(element, ir.FloatType | ir.IntegerType) else 8


def _evaluate(expr: ir.AffineExpr, symbols: Sequence[int]) -> int:
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return int(expr.value)
    if isinstance(expr, ir.AffineSymbolExpr):
        return symbols[expr.position]
    left, right = _evaluate(expr.lhs, symbols), _evaluate(expr.rhs, symbols)
    if isinstance(expr, ir.AffineAddExpr):
        return left + right
    if isinstance(expr, ir.AffineMulExpr):
        return left * right
    if isinstance(expr, ir.AffineModExpr):
        return left % right
    return left // right if isinstance(expr, ir.AffineFloorDivExpr) else -(-left // right)
