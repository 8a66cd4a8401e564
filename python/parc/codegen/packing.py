"""The packed layout of a weight: `[unit tile][group][panel][K][panel width]`, flat.

A *group* is one of the column offsets at which the products of a cell read the weight (the gates of an LSTM:
0, H, 2H, 3H).  A unit tile of one group is cut into panels of two vectors, one cache line or more wide: the
micro-kernel streams a panel from front to back.  Units past N are zero.
"""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor


@dataclass(frozen=True)
class Layout:
    """How a `[K, N]` weight is packed for one kernel (sizes in elements)."""

    units: int
    depth: int
    columns: tuple[int, ...]  # first column of each group
    unit_tile: int
    panel: int
    transposed: bool

    @property
    def tiles(self) -> int:
        """Unit tiles, the last one padded."""
        return -(-self.units // self.unit_tile)

    @property
    def size(self) -> int:
        """Elements of one packed matrix (leading dimensions of the weight array multiply it)."""
        return self.tiles * len(self.columns) * self.unit_tile * self.depth


def pack(weight: ir.Value, layout: Layout) -> ir.Value:
    """Pack a `[..., K, N]` or `[K]` tensor (static shape) at the current insertion point; returns a flat rank-1 tensor.

    Leading dimensions stay outermost: the matrix at linear leading index i starts at element `i * layout.size`.
    """
    type_ = ir.RankedTensorType(weight.type)
    element, shape, rank = type_.element_type, list(type_.shape), type_.rank
    if rank == 1:
        shape, rank = [*shape, 1], 2
        weight = _expand(weight, [[0, 1]], shape)
    matrices = 1
    for extent in shape[:-2]:
        matrices *= extent
    if rank == 2:
        weight = _expand(weight, [[0, 1], [2]], [1, *shape])
    elif rank > 3:
        weight = tensor.collapse_shape(
            ir.RankedTensorType.get([matrices, *shape[-2:]], element),
            weight,
            [list(range(rank - 2)), [rank - 2], [rank - 1]],
        )
    panels = layout.unit_tile // layout.panel
    tile = [panels, layout.depth, layout.panel]
    packed = tensor.empty([matrices, layout.tiles, len(layout.columns), *tile], element)
    for group, column in enumerate(layout.columns):
        block, order = _group(weight, layout, column, [matrices, layout.tiles, *tile])
        packed = _written(block, packed, [0, 0, group, 0, 0, 0], [matrices, layout.tiles, 1, *tile], order)
    flat = ir.RankedTensorType.get([matrices * layout.size], element)
    return tensor.collapse_shape(flat, packed, [list(range(6))])


def _group(weight: ir.Value, layout: Layout, column: int, shape: list[int]) -> tuple[ir.Value, list[int]]:
    """One group's columns with the units split, and the permutation that makes them `shape`."""
    matrices, tiles, panels, depth, width = shape
    element = ir.RankedTensorType(weight.type).element_type
    unit_dim = 1 if layout.transposed else 2
    sizes, offsets, padded = [matrices, depth, depth], [0, 0, 0], [matrices, depth, depth]
    sizes[unit_dim], padded[unit_dim], offsets[unit_dim] = layout.units, tiles * layout.unit_tile, column
    block = _slice(weight, offsets, sizes)
    if sizes != padded:
        zero = arith.constant(element, ir.FloatAttr.get(element, 0.0))
        block = _written(block, linalg.fill(zero, outs=[tensor.empty(padded, element)]), [0, 0, 0], sizes, [0, 1, 2])
    split = [tiles, panels, width]
    if layout.transposed:
        return _expand(block, [[0], [1, 2, 3], [4]], [matrices, *split, depth]), [0, 1, 2, 4, 3]
    return _expand(block, [[0], [1], [2, 3, 4]], [matrices, depth, *split]), [0, 2, 3, 1, 4]


def _expand(value: ir.Value, groups: list[list[int]], shape: list[int]) -> ir.Value:
    type_ = ir.RankedTensorType.get(shape, ir.RankedTensorType(value.type).element_type)
    return tensor.expand_shape(type_, value, groups, [], shape)


def _slice(value: ir.Value, offsets: list[int], sizes: list[int]) -> ir.Value:
    """A slice; a dimension 2 of size 1 in six is dropped (the group)."""
    kept = [s for i, s in enumerate(sizes) if len(sizes) < 6 or i != 2]
    type_ = ir.RankedTensorType.get(kept, ir.RankedTensorType(value.type).element_type)
    return tensor.extract_slice(type_, value, [], [], [], offsets, sizes, [1] * len(sizes))


def _written(
    source: ir.Value, destination: ir.Value, offsets: list[int], sizes: list[int], order: list[int]
) -> ir.Value:
    """`destination` with the permuted source in a slice; computed in place, so that it needs no copy afterwards."""
    place = _slice(destination, offsets, sizes)
    moved = linalg.transpose(source, outs=[place], permutation=order)
    return tensor.insert_slice(moved, destination, [], [], [], offsets, sizes, [1] * len(sizes))
