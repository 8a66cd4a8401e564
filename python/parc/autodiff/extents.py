"""The extents of tensors as index values: a system's symbols, named sizes, and what is computed from these."""

from collections.abc import Callable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, tensor

from parc.codegen.extents import Extents
from parc.codegen.irtools import constant_int, defining_op
from parc.codegen.sizes import Size


class Sizes(Extents[Size]):
    """Emits extents at the current insertion point: numbers, and index values where they are dynamic.

    `tensor.dim` is emitted only of values whose extents nothing says: not of what an equation reads.
    """

    def number(self, size: int) -> Size:
        return size

    def named(self, size: ir.Value) -> Size:
        return size

    def sum(self, terms: Sequence[Size]) -> Size:
        return _fold(arith.addi, terms)

    def product(self, factors: Sequence[Size]) -> Size:
        return _fold(arith.muli, factors)

    def apply(self, shape: ir.AffineMap, symbols: Sequence[ir.Value]) -> list[Size]:
        extents: list[Size] = []
        for expr in shape.results:
            if isinstance(expr, ir.AffineConstantExpr):
                extents.append(expr.value)
            elif isinstance(expr, ir.AffineSymbolExpr):
                extents.append(symbols[expr.position])
            else:
                map_ = ir.AffineMap.get(0, shape.n_symbols, [expr])
                extents.append(affine.AffineApplyOp(map_, list(symbols)).result)
        return extents

    def unknown(self, value: ir.Value) -> list[Size]:
        return [
            tensor.DimOp(value, arith.constant(ir.IndexType.get(), d)).result if value.type.is_dynamic_dim(d) else size
            for d, size in enumerate(value.type.shape)
        ]


def split(sizes: Sequence[Size]) -> tuple[list[ir.Value], list[int]]:
    """The dynamic sizes, and all of them with a mark where they are dynamic: the form that operations take."""
    mark = ir.ShapedType.get_dynamic_size()
    dynamic = [s for s in sizes if isinstance(s, ir.Value)]
    return dynamic, [mark if isinstance(s, ir.Value) else s for s in sizes]


def as_value(size: Size) -> ir.Value:
    """An extent as an index value."""
    return size if isinstance(size, ir.Value) else arith.constant(ir.IndexType.get(), size)


def _fold(combine: Callable[..., ir.Value], sizes: Sequence[Size]) -> Size:
    """Sizes combined by an integer operation; numbers are combined now."""
    total: Size | None = None
    for size in sizes:
        if total is None:
            total = size
        elif isinstance(total, int) and isinstance(size, int):
            total = total + size if combine is arith.addi else total * size
        else:
            total = combine(as_value(total), as_value(size))
    return 1 if total is None else total


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are known to be equal."""
    if isinstance(a, int) or isinstance(b, int):
        return constant_size(a) is not None and constant_size(a) == constant_size(b)
    of_a, of_b = defining_op(a), defining_op(b)
    if isinstance(of_a, affine.AffineApplyOp) and isinstance(of_b, affine.AffineApplyOp):
        return of_a.attributes["map"] == of_b.attributes["map"] and list(of_a.operands) == list(of_b.operands)
    return a == b


def constant_size(size: Size) -> int | None:
    """The number that a size is known to be."""
    return size if isinstance(size, int) else constant_int(size)
