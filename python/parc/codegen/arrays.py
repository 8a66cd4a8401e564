"""Arrays of a system as buffers: offsets of tiles, and tiles as views."""

from collections.abc import Sequence
from functools import cached_property

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, memref

from parc.codegen.irtools import defining_op, is_inside, walk
from parc.codegen.loops import index

_DYNAMIC = ir.ShapedType.get_dynamic_size()
_DYNAMIC_STRIDE = ir.ShapedType.get_dynamic_stride_or_offset()


class Array:
    """A contiguous buffer; extents and strides are computed where it is made.

    `storage` sends the leading indices of an element to its place in the buffer; without it they are the place.
    """

    def __init__(self, buffer: ir.Value, storage: ir.AffineMap | None = None) -> None:
        self.buffer = buffer
        self._storage = storage
        self.type = ir.MemRefType(buffer.type)
        self.extents = [
            memref.dim(buffer, index(d)) if self.type.is_dynamic_dim(d) else index(n)
            for d, n in enumerate(self.type.shape)
        ]
        self.strides = [index(1)]
        for extent in reversed(self.extents[1:]):
            self.strides.insert(0, arith.muli(extent, self.strides[0]))
        self.flat = self._flat()

    def _flat(self) -> ir.Value:
        """The buffer as `memref<?xT>`."""
        rank, element = self.type.rank, self.type.element_type
        flat = self.buffer
        if rank != 1:
            count = 1
            for d in range(rank):
                count = _DYNAMIC if _DYNAMIC in (count, self.type.shape[d]) else count * self.type.shape[d]
            groups = [list(range(rank))] if rank else []
            if rank:
                flat = memref.collapse_shape(ir.MemRefType.get([count], element), flat, groups)
            else:
                flat = memref.expand_shape(ir.MemRefType.get([1], element), flat, [], [], [1])
        return memref.cast(ir.MemRefType.get([_DYNAMIC], element), flat)

    def offset(self, access: ir.AffineMap | None, point: Sequence[ir.Value], symbols: Sequence[ir.Value]) -> ir.Value:
        """The position of the first element of the tile `array[access(point)]`."""
        offset = index(0)
        for value, stride in zip(self._places(access, point, symbols), self.strides, strict=False):
            offset = arith.addi(offset, arith.muli(value, stride))
        return offset

    def _places(
        self, access: ir.AffineMap | None, point: Sequence[ir.Value], symbols: Sequence[ir.Value]
    ) -> list[ir.Value]:
        """The leading indices of the tile `array[access(point)]` in the buffer."""
        if access is not None and self._storage is not None:
            exprs = list(access.results)
            exprs[: self._storage.n_dims] = [e.compose(access) for e in self._storage.results]
            access = ir.AffineMap.get(access.n_dims, access.n_symbols, exprs)
        return indices(access, point, symbols)

    def stride(self, access: ir.AffineMap | None, dim: int) -> ir.Value:
        """How far the tiles of neighbours in a dimension are apart; the access moves by a constant with it."""
        distance = index(0)
        for expr, stride in zip(access.results if access is not None else [], self.strides, strict=False):
            moved = slope(expr, dim)
            assert moved is not None
            distance = arith.addi(distance, arith.muli(index(moved), stride))
        return distance

    def tile_size(self, leading: int) -> ir.Value:
        """The number of elements of a tile that `leading` indices select."""
        if leading == 0:
            return arith.muli(self.extents[0], self.strides[0]) if self.extents else index(1)
        return self.strides[leading - 1]

    def tile(self, access: ir.AffineMap, point: Sequence[ir.Value], symbols: Sequence[ir.Value]) -> ir.Value:
        """The tile `array[access(point)]` as a view."""
        leading, shape = len(access.results), list(self.type.shape)
        rest = shape[leading:]
        strides = list(self._static_strides)[leading:]
        layout = ir.StridedLayoutAttr.get(_DYNAMIC_STRIDE if leading else 0, strides)
        type_ = ir.MemRefType.get(rest, self.type.element_type, layout)
        sizes = [e for e, n in zip(self.extents[leading:], rest, strict=True) if n == _DYNAMIC]
        return memref.SubViewOp(
            type_,
            self.buffer,
            self._places(access, point, symbols),
            sizes,
            [],
            [_DYNAMIC] * leading + [0] * len(rest),
            [1] * leading + rest,
            [1] * len(shape),
        ).result

    @cached_property
    def _static_strides(self) -> list[int]:
        strides = [1]
        for extent in reversed(self.type.shape[1:]):
            strides.insert(0, _DYNAMIC_STRIDE if _DYNAMIC in (extent, strides[0]) else extent * strides[0])
        return strides[: self.type.rank]


def move_known_arrays_out(system: ir.OpView) -> None:
    """Compute what equations read of known arrays (a view of a parameter, say) in front of the system, not inside."""
    for read in walk(system, "parc.read"):
        _move_before(read.operation.operands[0], system)


def _move_before(value: ir.Value, system: ir.OpView) -> None:
    owner = defining_op(value)
    if owner is not None and owner.operation.name != "parc.unknown" and is_inside(owner, "parc.system"):
        for operand in owner.operation.operands:
            _move_before(operand, system)
        owner.operation.move_before(system.operation)


def modulus(place: ir.AffineExpr) -> int:
    """How many places one index of a storage map has; 0 for an index that stays as it is."""
    place = place.maybe_downcast()
    if isinstance(place, ir.AffineConstantExpr):
        return 1
    return ir.AffineConstantExpr(place.rhs).value if isinstance(place, ir.AffineModExpr) else 0


def indices(access: ir.AffineMap | None, point: Sequence[ir.Value], symbols: Sequence[ir.Value]) -> list[ir.Value]:
    """The values of an access map's results at a point."""
    if access is None:
        return []
    operands = [*point, *symbols]
    maps = (ir.AffineMap.get(access.n_dims, access.n_symbols, [e]) for e in access.results)
    return [affine.AffineApplyOp(m, operands).result for m in maps]


def slope(expr: ir.AffineExpr, dim: int) -> int | None:
    """How much an affine expression grows when a dimension grows by one; None if that is not constant."""
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineDimExpr):
        return int(expr.position == dim)
    if not isinstance(expr, ir.AffineBinaryExpr):
        return 0
    left, right = slope(expr.lhs, dim), slope(expr.rhs, dim)
    if isinstance(expr, ir.AffineAddExpr):
        return None if left is None or right is None else left + right
    if left == 0 and right == 0:
        return 0
    factor = expr.rhs.maybe_downcast()
    if isinstance(expr, ir.AffineMulExpr) and left is not None and isinstance(factor, ir.AffineConstantExpr):
        return left * factor.value
    return None
