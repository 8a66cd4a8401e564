"""Shares out points that are all computed at once: strips of neighbours, which one worker computes in a row."""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import affine

from parc.poly.affine import SET, from_aff
from parc.poly.boxes import bounding_box
from parc.poly.model import System

STRIP = 64
"""Points of a strip: enough for a kernel's call to be short beside them, and for long arrays to stay in caches."""


def share_out(system: System, workers: int) -> bool:
    """Schedule a system in which each point needs, of others, only the same point of equations in front of it.

    Points t become (c, j) with t = 64 c + j, and strip c goes to worker c mod `workers`.  False, and nothing is done,
    where a domain is no interval.  Needs a current MLIR context.
    """
    boxes = [bounding_box(e.domain) for e in system.equations]
    is_interval = all(
        b is not None
        and e.domain.dim(SET) == 1
        and b.points(e.domain.get_space()).intersect_params(system.context).is_subset(e.domain)
        for b, e in zip(boxes, system.equations, strict=True)
    )
    if not is_interval:
        return False
    for stage, (equation, box) in enumerate(zip(system.equations, boxes, strict=True)):
        assert box is not None
        (lower,), (extent,) = box.lower, box.extents()
        _cut(equation.op, from_aff(lower), extent, stage, workers)
    attributes = system.op.attributes
    attributes["strategy"] = ir.StringAttr.get("newton")
    attributes["distribute"] = ir.StringAttr.get("points")
    attributes["why"] = ir.StringAttr.get(f"all points at once, in strips of {STRIP}")
    return True


def _cut(op: ir.Operation, first: ir.AffineExpr, length: ir.AffineExpr, stage: int, workers: int) -> None:
    """Replace an equation's one coordinate by a strip and a place in it."""
    block = op.regions[0].blocks[0]
    symbols = list(op.parent.operation.operands)
    strip, place = ir.AffineExpr.get_dim(0), ir.AffineExpr.get_dim(1)
    point = ir.AffineMap.get(2, len(symbols), [first + strip * STRIP + place])
    constraints = [strip, place, place * -1 + (STRIP - 1), length - 1 - strip * STRIP - place]
    domain = ir.IntegerSet.get(2, len(symbols), constraints, [False] * len(constraints))
    index = ir.IndexType.get()
    (old,) = block.arguments
    new = [block.add_argument(index, op.location) for _ in range(2)]
    if any(True for _ in old.uses):
        with ir.InsertionPoint.at_block_begin(block), op.location:
            old.replace_all_uses_with(affine.AffineApplyOp(point, [*new, *symbols]).result)
    block.erase_argument(0)
    for inner in block.operations:
        if inner.operation.name in ("parc.read", "parc.write"):
            at = ir.AffineMapAttr(inner.operation.attributes["at"]).value
            inner.operation.attributes["at"] = _map(len(symbols), [e.compose(point) for e in at.results])
    op.attributes["domain"] = ir.IntegerSetAttr.get(domain)
    constant = ir.AffineExpr.get_constant
    op.attributes["schedule"] = _map(len(symbols), [constant(0), constant(stage)])
    op.attributes["owner"] = _map(len(symbols), [ir.AffineExpr.get_mod(strip, workers)])


def _map(symbols: int, results: Sequence[ir.AffineExpr]) -> ir.AffineMapAttr:
    return ir.AffineMapAttr.get(ir.AffineMap.get(2, symbols, list(results)))
