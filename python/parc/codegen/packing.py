"""The packed layout of a weight: `[unit tile][group][panel][K][panel width]`, flat.

A *group* is one of the column offsets at which the products of a cell read the weight (the gates of an LSTM:
0, H, 2H, 3H).  A unit tile of one group is cut into panels of two vectors, one cache line or more wide: the
micro-kernel streams a panel from front to back.  Units past N are zero.

For thread blocks it is *by depth*, `[unit tile][K][group][unit]`: neighbouring threads read neighbours of all groups.
For tensor cores, K is cut into the depths of an instruction, `[unit tile][K / depth][group][unit][depth]`, with zeros
behind the last one, and elements are rounded to the factors' type.
"""

from dataclasses import dataclass, replace
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.codegen.blocks.tensor_core import TensorCore
from parc.codegen.irtools import defining_op


@dataclass(frozen=True)
class Layout:
    """How a `[K, N]` weight is packed for one kernel (sizes in elements)."""

    units: int
    depth: int
    columns: tuple[int, ...]  # first column of each group
    unit_tile: int
    panel: int
    transposed: bool
    by_depth: bool = False
    core: TensorCore | None = None

    @property
    def row_length(self) -> int:
        """Elements of a row of all groups, where it is packed by depth."""
        return len(self.columns) * self.unit_tile

    @property
    def step(self) -> int:
        """How many rows lie together."""
        return self.core.depth if self.core is not None else 1

    @property
    def rows(self) -> int:
        """K, with the zeros behind it."""
        return -(-self.depth // self.step) * self.step

    @property
    def tile_size(self) -> int:
        """Elements of one unit tile."""
        return len(self.columns) * self.unit_tile * self.rows

    @property
    def tiles(self) -> int:
        """Unit tiles, the last one padded."""
        return -(-self.units // self.unit_tile)

    @property
    def size(self) -> int:
        """Elements of one packed matrix (leading dimensions of the weight array multiply it)."""
        return self.tiles * self.tile_size


def pack(weight: ir.Value, layout: Layout) -> ir.Value:
    """Pack a `[..., K, N]` or `[K]` tensor (static shape) at the current insertion point; returns a flat rank-1 tensor.

    Leading dimensions stay outermost: the matrix at linear leading index i starts at element `i * layout.size`.
    """
    if (source := _transpose_of(weight)) is not None:
        return pack(source, replace(layout, transposed=not layout.transposed))
    weight = _matrices(weight)
    unit_dim = 1 if layout.transposed else 2
    if layout.by_depth:
        return _packed_by_depth(weight, layout, unit_dim)
    grouped = _padded(_groups(weight, layout, unit_dim), layout, unit_dim + 1)

    tiles = [layout.tiles, layout.unit_tile // layout.panel, layout.panel]
    split = list(grouped.type.shape)
    split[unit_dim + 1 : unit_dim + 2] = tiles
    dims = [[d] for d in range(unit_dim + 1)] + [[unit_dim + 1 + i for i in range(3)]]
    dims += [[d] for d in range(unit_dim + 4, 6)]
    split_up = tensor.expand_shape(_tensor(split, weight), grouped, dims, [], split)
    # [matrices, groups, tiles, panels, panel, K] or [matrices, K, groups, tiles, panels, panel]
    order = [0, 2, 1, 3, 5, 4] if layout.transposed else [0, 3, 2, 4, 1, 5]
    packed = tensor.empty([split[d] for d in order], weight.type.element_type)
    packed = linalg.transpose(split_up, outs=[packed], permutation=order)
    return tensor.collapse_shape(_tensor([prod(split)], weight), packed, [list(range(6))])


def _packed_by_depth(weight: ir.Value, layout: Layout, unit_dim: int) -> ir.Value:
    depth_dim = 3 - unit_dim
    whole = [layout.rows if d == depth_dim else extent for d, extent in enumerate(weight.type.shape)]
    grouped = _padded(_groups(_with_zeros(weight, whole), layout, unit_dim), layout, unit_dim + 1)
    steps, tiles = [layout.rows // layout.step, layout.step], [layout.tiles, layout.unit_tile]
    matrices, groups = weight.type.shape[0], len(layout.columns)
    if layout.transposed:
        split, dims = [matrices, groups, *tiles, *steps], [[0], [1], [2, 3], [4, 5]]
        order = [0, 2, 4, 1, 3, 5]
    else:
        split, dims = [matrices, *steps, groups, *tiles], [[0], [1, 2], [3], [4, 5]]
        order = [0, 4, 1, 3, 5, 2]
    split_up = tensor.expand_shape(_tensor(split, weight), grouped, dims, [], split)
    packed = tensor.empty([split[d] for d in order], weight.type.element_type)
    packed = linalg.transpose(split_up, outs=[packed], permutation=order)
    flat = tensor.collapse_shape(_tensor([prod(split)], weight), packed, [list(range(6))])
    return flat if layout.core is None else _rounded(flat, layout.core)


def _rounded(flat: ir.Value, core: TensorCore) -> ir.Value:
    """A vector of factors of a tensor core."""
    same = ir.AffineMapAttr.get(ir.AffineMap.get_identity(1))
    out = tensor.empty(list(flat.type.shape), core.element)
    parallel = ir.ArrayAttr.get([ir.Attribute.parse("#linalg.iterator_type<parallel>")])
    op = linalg.GenericOp([out.type], [flat], [out], ir.ArrayAttr.get([same, same]), parallel)
    block = op.regions[0].blocks.append(flat.type.element_type, core.element, arg_locs=[op.location] * 2)
    with ir.InsertionPoint(block):
        linalg.YieldOp([core.round(block.arguments[0])])
    return op.operation.results[0]


def _transpose_of(weight: ir.Value) -> ir.Value | None:
    """The matrix that `weight` is the transpose of, if it is one: packing that instead moves everything once."""
    op = defining_op(weight)
    if not isinstance(op, linalg.TransposeOp) or list(op.permutation) != [1, 0]:
        return None
    return op.operation.operands[0]


def _matrices(weight: ir.Value) -> ir.Value:
    """As `[matrices, K, N]`."""
    shape, rank = list(weight.type.shape), weight.type.rank
    if rank == 1:
        return tensor.expand_shape(_tensor([1, *shape, 1], weight), weight, [[0, 1, 2]], [], [1, *shape, 1])
    if rank == 2:
        return tensor.expand_shape(_tensor([1, *shape], weight), weight, [[0, 1], [2]], [], [1, *shape])
    groups = [list(range(rank - 2)), [rank - 2], [rank - 1]]
    return tensor.collapse_shape(_tensor([prod(shape[:-2]), *shape[-2:]], weight), weight, groups)


def _groups(weight: ir.Value, layout: Layout, unit_dim: int) -> ir.Value:
    """The columns of the groups as a dimension of their own, in front of the units."""
    count, first = len(layout.columns), layout.columns[0]
    sizes = list(weight.type.shape)
    shape = [*sizes[:unit_dim], count, layout.units, *sizes[unit_dim + 1 :]]
    if all(column == first + g * layout.units for g, column in enumerate(layout.columns)):
        block = _columns(weight, unit_dim, first, count * layout.units)
        dims = [[d] for d in range(unit_dim)] + [[unit_dim, unit_dim + 1]] + [[d] for d in range(unit_dim + 2, 4)]
        return tensor.expand_shape(_tensor(shape, weight), block, dims, [], shape)
    groups = tensor.empty(shape, weight.type.element_type)
    for g, column in enumerate(layout.columns):
        block = _columns(weight, unit_dim, column, layout.units)
        at = [g if d == unit_dim else 0 for d in range(4)]
        groups = _inserted(block, groups, at, [1 if d == unit_dim else extent for d, extent in enumerate(shape)])
    return groups


def _columns(weight: ir.Value, unit_dim: int, start: int, count: int) -> ir.Value:
    """Some columns of the matrices (rows, where these are transposed)."""
    sizes = list(weight.type.shape)
    at = [start if d == unit_dim else 0 for d in range(3)]
    sizes[unit_dim] = count
    return tensor.extract_slice(_tensor(sizes, weight), weight, [], [], [], at, sizes, [1] * 3)


def _padded(groups: ir.Value, layout: Layout, unit_dim: int) -> ir.Value:
    """Units up to whole tiles; those past N are zero."""
    shape = list(groups.type.shape)
    whole = [layout.tiles * layout.unit_tile if d == unit_dim else extent for d, extent in enumerate(shape)]
    return _with_zeros(groups, whole)


def _with_zeros(value: ir.Value, whole: list[int]) -> ir.Value:
    """A tensor with zeros behind it, up to these extents."""
    shape, element = list(value.type.shape), value.type.element_type
    if whole == shape:
        return value
    zeros = linalg.fill(arith.constant(element, ir.FloatAttr.get(element, 0.0)), outs=[tensor.empty(whole, element)])
    return _inserted(value, zeros, [0] * len(shape), shape)


def _inserted(source: ir.Value, destination: ir.Value, at: list[int], sizes: list[int]) -> ir.Value:
    """`destination` with `source` in a slice; computed in place, so that it needs no copy afterwards."""
    ones = [1] * len(at)
    place = tensor.extract_slice(source.type, destination, [], [], [], at, sizes, ones)
    moved = linalg.copy(source, outs=[place])
    return tensor.insert_slice(moved, destination, [], [], [], at, sizes, ones)


def _tensor(shape: list[int], like: ir.Value) -> ir.RankedTensorType:
    return ir.RankedTensorType.get(shape, like.type.element_type)
