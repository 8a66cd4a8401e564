"""Views, concatenations and insertions of tensors, as they are at one pixel: without the dimensions of pixels."""

from collections.abc import Collection, Sequence
from typing import TypeVar

from torch_mlir import ir
from torch_mlir.dialects import arith, tensor

from parc.codegen.sizes import Size
from parc.codegen.views import reshape_groups

_T = TypeVar("_T")
_DYNAMIC = ir.ShapedType.get_dynamic_size()


def without(type_: ir.Type, dropped: Collection[int]) -> ir.Type:
    """The type of a tensor without some dimensions; a scalar has none."""
    if not isinstance(type_, ir.RankedTensorType):
        return type_
    return ir.RankedTensorType.get(kept(type_.shape, dropped), type_.element_type)


def kept(items: Sequence[_T], dropped: Collection[int]) -> list[_T]:
    """The items at other than the dropped positions."""
    return [item for i, item in enumerate(items) if i not in dropped]


def view(op: ir.Operation, tile: ir.Value, source: Sequence[int], result: Sequence[int]) -> ir.Value:
    """A view of a tile; `source` and `result` are the dropped dimensions of the operation's operand and result."""
    type_ = without(op.results[0].type, result)
    if op.name == "tensor.cast":
        return tile if tile.type == type_ else tensor.cast(type_, tile)
    if op.name in ("tensor.collapse_shape", "tensor.expand_shape"):
        return _reshape(op, tile, type_, source, result)
    if op.name == "tensor.extract_slice":
        offsets, sizes, strides = (kept(mixed(op, key), source) for key in ("offsets", "sizes", "strides"))
        if tile.type == type_ and not any(offsets):
            return tile
        return slice_of(tile, offsets, sizes, strides, type_)
    low, high = (kept(list(ir.DenseI64ArrayAttr(op.attributes[f"static_{key}"])), source) for key in ("low", "high"))
    if not any((*low, *high)):
        return tile
    padded = tensor.PadOp(type_, tile, [], [], low, high)
    index = ir.IndexType.get()
    block = padded.regions[0].blocks.append(*[index] * len(low), arg_locs=[op.location] * len(low))
    with ir.InsertionPoint(block):
        tensor.yield_(arith.constant(type_.element_type, 0.0))
    return padded.result


def insertion(op: ir.Operation, tiles: Sequence[ir.Value], dropped: Sequence[int]) -> ir.Value:
    """An `insert_slice` of one tile into another; `dropped` are dimensions of the second."""
    offsets, sizes, strides = (kept(mixed(op, key), dropped) for key in ("offsets", "sizes", "strides"))
    dynamic = [[v for v in values if isinstance(v, ir.Value)] for values in (offsets, sizes, strides)]
    static = [[_DYNAMIC if isinstance(v, ir.Value) else v for v in values] for values in (offsets, sizes, strides)]
    return tensor.InsertSliceOp(tiles[0], tiles[1], *dynamic, *static).result


def slice_of(
    value: ir.Value, offsets: Sequence[Size], sizes: Sequence[Size], strides: Sequence[Size], type_: ir.Type
) -> ir.Value:
    """An `extract_slice` of this type."""
    dynamic = [[v for v in values if isinstance(v, ir.Value)] for values in (offsets, sizes, strides)]
    static = [[_DYNAMIC if isinstance(v, ir.Value) else v for v in values] for values in (offsets, sizes, strides)]
    return tensor.ExtractSliceOp(type_, value, *dynamic, *static).result


def mixed(op: ir.Operation, key: str) -> list[Size]:
    """The offsets, sizes or strides of a slice: numbers, and values where they are computed."""
    computed = iter(getattr(op.opview, key))
    static = ir.DenseI64ArrayAttr(op.attributes[f"static_{key}"])
    return [next(computed) if n == _DYNAMIC else n for n in static]


def _reshape(
    op: ir.Operation, tile: ir.Value, type_: ir.Type, source: Sequence[int], result: Sequence[int]
) -> ir.Value:
    """A reshape with the dimensions that stand for pixels taken out of its groups."""
    if tile.type == type_:
        return tile
    expands = op.name == "tensor.expand_shape"
    short, long = (source, result) if expands else (result, source)
    groups: list[list[int]] = []
    loose: list[int] = []
    count = 0
    for number, group in enumerate(reshape_groups(op)):
        rest = list(range(count, count := count + len([d for d in group if d not in long])))
        if number not in short:
            groups.append([*loose, *rest])
            loose = []
        elif groups:
            # Dimensions of extent 1 beside that of the pixels.
            groups[-1] += rest
        else:
            loose += rest
    if expands:
        sizes = kept(_output_shape(op), result)
        dynamic = [s for s in sizes if isinstance(s, ir.Value)]
        return tensor.ExpandShapeOp(type_, tile, groups, dynamic, list(type_.shape)).result
    return tensor.CollapseShapeOp(type_, tile, groups).result


def _output_shape(op: ir.Operation) -> list[Size]:
    computed = iter(op.opview.output_shape)
    return [next(computed) if n == _DYNAMIC else n for n in ir.DenseI64ArrayAttr(op.attributes["static_output_shape"])]
