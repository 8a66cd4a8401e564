"""`tensor.extract_slice` and `tensor.insert_slice` with offsets and sizes as expressions of symbols."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch_mlir import ir

from parc.codegen.extents import mixed
from parc.codegen.sizes import affine_of


@dataclass(frozen=True)
class Slice:
    """Where a slice with strides of 1 is in the larger tensor."""

    offsets: list[ir.AffineExpr]
    sizes: list[ir.AffineExpr]

    @staticmethod
    def of(op: ir.Operation, symbols: Mapping[ir.Value, int]) -> "Slice | None":
        """That of an operation; None where it is no such expression.  `symbols` are the positions of values."""
        lists = [[_expr(size, symbols) for size in mixed(op, name)] for name in ("offsets", "sizes", "strides")]
        if any(e is None for exprs in lists for e in exprs):
            return None
        offsets, sizes, strides = lists
        return Slice(offsets, sizes) if all(s == ir.AffineExpr.get_constant(1) for s in strides) else None

    def is_whole(self, dim: int, extent: ir.AffineExpr) -> bool:
        """Does it take all of a dimension of this extent?"""
        return self.offsets[dim] == ir.AffineExpr.get_constant(0) and self.sizes[dim] == extent


def _expr(size: ir.Value | int, symbols: Mapping[ir.Value, int]) -> ir.AffineExpr | None:
    return ir.AffineExpr.get_constant(size) if isinstance(size, int) else affine_of(size, symbols)
