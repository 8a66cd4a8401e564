"""Tiles of all points of an equation as one tensor, and operations on them as one operation on the stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir
from torch_mlir.dialects import affine, arith, linalg, tensor

from parc.autodiff.emit import empty_of, extract_slice, filled, generic, insert_slice
from parc.autodiff.extents import Sizes
from parc.codegen.irtools import clone_with, walk
from parc.codegen.sizes import Size, affine_of
from parc.errors import CompileError
from parc.poly.affine import IN, OUT, from_aff
from parc.poly.boxes import Box

_DYNAMIC = ir.ShapedType.get_dynamic_size()


@dataclass(frozen=True)
class Frame:
    """The order in which the points of a box are stacked: along each dimension forwards (1) or backwards (-1)."""

    box: Box
    signs: tuple[int, ...]

    def position(self, points: isl.Set) -> isl.MultiAff:
        """`{ point -> [position in the stack] }` on the space of the set."""
        space = points.get_space()
        affs = isl.AffList.alloc(isl.DEFAULT_CONTEXT, len(self.signs))
        for i, sign in enumerate(self.signs):
            affs = affs.add(
                isl.Aff.var_on_domain(isl.LocalSpace.from_space(space), isl.dim_type.set, i).scale_val(sign)
            )
        target = space.reset_tuple_id(isl.dim_type.set)
        return isl.MultiAff.from_aff_list(space.map_from_domain_and_range(target), affs)


@dataclass(frozen=True)
class Stack:
    """Tiles of many points: the leading dimensions of `value` are those of the points' box in `dims`."""

    value: ir.Value
    dims: tuple[int, ...]


def slopes(index: isl.MultiAff) -> list[tuple[int, int]] | None:
    """For each result of an index function the one dimension that it moves with and how far (0 for a constant).

    None where a result moves with several dimensions, or several with one, or where it is not affine.
    """
    found: list[tuple[int, int]] = []
    used: set[int] = set()
    for r in range(index.dim(OUT)):
        aff = index.get_aff(r)
        if aff.dim(isl.dim_type.div) or not aff.get_denominator_val().is_one():
            return None
        moves = [
            (d, aff.get_coefficient_val(IN, d).to_python())
            for d in range(aff.dim(IN))
            if not aff.get_coefficient_val(IN, d).is_zero()
        ]
        if len(moves) > 1 or (moves and moves[0][0] in used):
            return None
        used.update(d for d, _ in moves)
        found.append(moves[0] if moves else (0, 0))
    return found


def in_order(index: isl.MultiAff, frame: Frame) -> bool:
    """Whether an index function walks slices of an array in the direction of the frame."""
    moves = slopes(index)
    return moves is not None and all(not step or step * frame.signs[d] > 0 for d, step in moves)


def stack(array: ir.Value, index: isl.MultiAff, frame: Frame, symbols: Sequence[ir.Value]) -> Stack:
    """`array[index(p)]` for all points p of the frame's box; the index is `in_order`."""
    moves = slopes(index)
    assert moves is not None
    if not moves:
        return Stack(array, ())
    where, tile = _slice(array, index, frame, symbols), len(moves)
    type_ = ir.RankedTensorType(array.type)
    leading = [_static(size) for size, (_, step) in zip(where[1], moves, strict=False) if step]
    result = ir.RankedTensorType.get([*leading, *list(type_.shape)[tile:]], type_.element_type)
    return Stack(extract_slice(array, *where, result), tuple(d for d, step in moves if step))


def place(value: ir.Value, index: isl.MultiAff, frame: Frame, like: ir.Value, symbols: Sequence[ir.Value]) -> ir.Value:
    """A tensor of the type of `like` that holds the stacked tiles `value` where `index` says, zero elsewhere.

    `value` has the dimensions that `index` moves with, in the order of its results; the index is `in_order`.
    """
    type_, sizes = ir.RankedTensorType(like.type), Sizes()
    offsets, extents, strides = _slice(like, index, frame, symbols)
    moves = slopes(index)
    assert moves is not None
    whole = all(step for _, step in moves) and all(o == 0 for o in offsets) and all(s == 1 for s in strides)
    if whole and all(_same(a, b, symbols) for a, b in zip(extents, sizes.of(like), strict=True)):
        return value if value.type == type_ else tensor.CastOp(type_, value).result
    target = filled(empty_of(sizes.of(like), type_.element_type))
    return insert_slice(value, target, offsets, extents, strides)


def can_lift(op: ir.Operation) -> bool:
    """Whether `lift` takes an operation: scalar code over an iteration space, in one result that starts from zero."""
    return (
        op.name.startswith("linalg.")
        and len(op.results) == 1
        and len(op.regions) == 1
        and not walk(op, "linalg.index", "tensor.extract")
        and linalg.get_indexing_maps(op.opview) is not None
    )


def lift(
    op: ir.Operation, stacks: Mapping[ir.Value, Stack], box: Box, kept: Sequence[int], symbols: Sequence[ir.Value]
) -> ir.Value:
    """A linalg operation on tiles (`can_lift`) as one on stacks of them, summed over the dimensions that are not kept.

    Its other operands are the same at all points.  The result's leading dimensions are the kept ones.
    """
    maps = linalg.get_indexing_maps(op.opview)
    old = [ir.AffineMapAttr(m).value for m in maps]
    extra = len(box.extent)
    new_maps, inputs = [], []
    for operand, map_ in zip(list(op.operands)[:-1], old[:-1], strict=True):
        leading: tuple[int, ...] = ()
        if operand in stacks:
            leading = stacks[operand].dims
            operand = stacks[operand].value
        inputs.append(operand)
        new_maps.append(_shifted(map_, leading, extra))
    new_maps.append(_shifted(old[-1], tuple(kept), extra))
    tile = Sizes().of(op.operands[len(op.operands) - 1])
    leading_sizes = [size_value(from_aff(box.extent[d]), symbols) for d in kept]
    init = filled(empty_of([*leading_sizes, *tile], op.results[0].type.element_type))
    result = generic(inputs, [init], new_maps)
    _copy_body(op, result, sums=len(kept) < extra)
    return result.results[0]


def sum_stack(stacked: Stack, box: Box, kept: Sequence[int], symbols: Sequence[ir.Value]) -> ir.Value:
    """The stack summed over the dimensions of the box that are not kept; the kept ones lead, in their order."""
    if list(stacked.dims) == list(kept):
        return stacked.value
    leading, extra = len(stacked.dims), len(box.extent)
    tile = Sizes().of(stacked.value)[leading:]
    sizes = [size_value(from_aff(box.extent[d]), symbols) for d in kept]
    init = filled(empty_of([*sizes, *tile], stacked.value.type.element_type))
    count = extra + len(tile)
    own = [ir.AffineExpr.get_dim(i) for i in range(extra, count)]
    maps = [
        ir.AffineMap.get(count, 0, [*[ir.AffineExpr.get_dim(d) for d in dims], *own]) for dims in (stacked.dims, kept)
    ]
    op = generic([stacked.value], [init], maps)
    arguments = op.regions[0].blocks[0].arguments
    with ir.InsertionPoint(op.regions[0].blocks[0]):
        linalg.YieldOp([arith.addf(arguments[1], arguments[0])])
    return op.results[0]


def size_value(expr: ir.AffineExpr, symbols: Sequence[ir.Value]) -> Size:
    """An affine expression of the symbols as a number or an index value."""
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return int(expr.value)
    if isinstance(expr, ir.AffineSymbolExpr):
        return symbols[expr.position]
    return affine.AffineApplyOp(ir.AffineMap.get(0, len(symbols), [expr]), list(symbols)).result


def affine_extents(value: ir.Value, symbols: Sequence[ir.Value]) -> list[ir.AffineExpr]:
    """The extents of a tensor as expressions of the symbols; CompileError where they are none."""
    found = [_affine(size, symbols) for size in Sizes().of(value)]
    if any(e is None for e in found):
        raise CompileError(
            f"the extents of this value of type {value.type} are no affine functions of the sizes", value.location
        )
    return found


def _affine(size: Size, symbols: Sequence[ir.Value]) -> ir.AffineExpr | None:
    if isinstance(size, int):
        return ir.AffineExpr.get_constant(size)
    return affine_of(size, {symbol: i for i, symbol in enumerate(symbols)})


def _same(a: Size, b: Size, symbols: Sequence[ir.Value]) -> bool:
    """Whether two extents are known to be equal."""
    one, other = _affine(a, symbols), _affine(b, symbols)
    return one is not None and other is not None and str(one) == str(other)


def _slice(
    array: ir.Value, index: isl.MultiAff, frame: Frame, symbols: Sequence[ir.Value]
) -> tuple[list[Size], list[Size], list[Size]]:
    """Offsets, extents and strides of the part of an array that an index function walks."""
    moves = slopes(index)
    assert moves is not None
    offsets = [size_value(from_aff(_at_corner(index.get_aff(r), frame)), symbols) for r in range(len(moves))]
    extents = [size_value(from_aff(frame.box.extent[d]), symbols) if step else 1 for d, step in moves]
    tile = Sizes().of(array)[len(moves) :]
    strides = [abs(step) or 1 for _, step in moves]
    return [*offsets, *[0] * len(tile)], [*extents, *tile], [*strides, *[1] * len(tile)]


def _at_corner(aff: isl.Aff, frame: Frame) -> isl.Aff:
    """The value of an index function at the first point of a frame, as a function of the symbols."""
    space = aff.get_domain_space().params()
    result = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(space)).set_constant_val(aff.get_constant_val())
    for k in range(aff.dim(isl.dim_type.param)):
        result = result.set_coefficient_val(isl.dim_type.param, k, aff.get_coefficient_val(isl.dim_type.param, k))
    for d, sign in enumerate(frame.signs):
        coefficient = aff.get_coefficient_val(IN, d)
        if coefficient.is_zero():
            continue
        corner = frame.box.lower[d]
        if sign < 0:
            corner = corner.add(frame.box.extent[d]).add_constant_val(isl.Val(-1))
        result = result.add(corner.scale_val(coefficient))
    return result


def _shifted(map_: ir.AffineMap, leading: Sequence[int], extra: int) -> ir.AffineMap:
    """An indexing map with leading dimensions of the box in front; its own dimensions move behind the `extra` ones."""
    own = [e.shift_dims(map_.n_dims, extra, 0) for e in map_.results]
    return ir.AffineMap.get(map_.n_dims + extra, 0, [*[ir.AffineExpr.get_dim(d) for d in leading], *own])


def _copy_body(op: ir.Operation, copy: linalg.GenericOp, *, sums: bool) -> None:
    """Copy a linalg operation's scalar code; `sums` adds what it yields up, where it does not do so by itself."""
    source = op.regions[0].blocks[0]
    block = copy.regions[0].blocks[0]
    values = dict(zip(source.arguments, block.arguments, strict=True))
    *body, end = source.operations
    out = list(source.arguments)[-1]
    with ir.InsertionPoint(block):
        for inner in body:
            clone_with(inner, values)
        result = values.get(end.operands[0], end.operands[0])
        if sums and not list(out.uses):
            result = arith.addf(block.arguments[len(block.arguments) - 1], result)
        linalg.YieldOp([result])


def _static(size: Size) -> int:
    return size if isinstance(size, int) else _DYNAMIC
