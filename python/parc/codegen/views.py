"""Views: the elements of slices, reshapes, broadcasts and concatenations are elements of their operands."""

from collections.abc import Iterator
from itertools import pairwise

from torch_mlir import ir

from parc.codegen.elements import Index, Indices, NotACellError, Piece, StructuredElement, static_extents


def view_pieces(op: ir.Operation, piece: Piece, along: str) -> list[Piece] | None:
    """The pieces of its operands that make up a piece of an operation's result; None if it computes something.

    `along` is the kind of index ("unit" or "depth") that moves from the piece's start to its stop.
    """
    start, stop, indices = piece.start, piece.stop, piece.indices
    if op.name == "tensor.cast":
        return [Piece(start, stop, op.operands[0], indices)]
    if op.name == "tensor.expand_shape":
        return [Piece(start, stop, op.operands[0], _expanded(op, indices))]
    if op.name == "tensor.collapse_shape":
        return _collapsed(op, piece, along)
    if op.name == "tensor.extract_slice":
        return [Piece(start, stop, op.operands[0], _sliced(op, indices))]
    if op.name == "tensor.insert_slice":
        return _inserted(op, piece, along)
    if op.name == "tensor.concat":
        return _concatenated(op, piece, along)
    if op.name.startswith("linalg."):
        view = StructuredElement(op, piece.value, indices)
        source = view.forwarded()
        return None if source is None else [Piece(start, stop, *view.input(source))]
    return None


def overlaps(left: list[Piece], right: list[Piece]) -> Iterator[tuple[Piece, Piece]]:
    """Pairs of pieces of two factors over the same range of k, in the order of k."""
    cuts = sorted({p.start for p in (*left, *right)} | {p.stop for p in left})
    for start, stop in pairwise(cuts):
        a, w = (next(p for p in ps if p.start <= start < p.stop) for ps in (left, right))
        yield Piece(start, stop, a.value, a.indices), Piece(start, stop, w.value, w.indices)


def _expanded(op: ir.Operation, indices: Indices) -> Indices:
    """The operand's indices of an `expand_shape`: each is put together from those of a group of result dimensions."""
    extents = static_extents(op.results[0].type)
    combined = []
    for group in reshape_groups(op):
        longer = [d for d in group if extents[d] != 1] or group[-1:]
        *outer, last = longer
        index, stride = indices[last], extents[last]
        for d in reversed(outer):
            if indices[d].kind != "fixed" or stride is None:
                raise NotACellError
            index = index.moved(indices[d].value * stride)
            stride = stride * (extents[d] or 0)
        combined.append(index)
    return tuple(combined)


def _collapsed(op: ir.Operation, piece: Piece, along: str) -> list[Piece]:
    """The pieces of a `collapse_shape`'s operand: one per run of its last dimension in each collapsed group."""
    extents = static_extents(op.operands[0].type)
    if not piece.indices:
        return [Piece(piece.start, piece.stop, op.operands[0], (Index("fixed", 0),) * len(extents))]
    pieces = [Piece(piece.start, piece.stop, op.operands[0], ())]
    for index, group in zip(piece.indices, reshape_groups(op), strict=True):
        longer = [d for d in group if extents[d] != 1] or group[-1:]
        runs = []
        for p in pieces:
            for start, stop, inner in _runs(index, [extents[d] for d in longer], p, along):
                positions = dict(zip(longer, inner, strict=True))
                here = tuple(positions.get(d, Index("fixed", 0)) for d in group)
                runs.append(Piece(start, stop, p.value, (*p.indices, *here)))
        pieces = runs
    return pieces


def _runs(index: Index, extents: list[int | None], piece: Piece, along: str) -> Iterator[tuple[int, int, Indices]]:
    """An index into collapsed dimensions as (start, stop, an index into each), one for each run of the last."""
    if len(extents) == 1:
        yield piece.start, piece.stop, (index,)
        return
    first, stop = _span(index, piece, along)
    *outer, last = extents
    if last is None or None in outer[1:]:
        raise NotACellError
    moves = index.kind == along
    while first < stop:
        number, inner = first // last, index.moved(-(first // last) * last)
        end = min(stop, (number + 1) * last)
        positions = [inner]
        for extent in reversed(outer[1:]):
            positions.insert(0, Index("fixed", number % (extent or 1)))
            number //= extent or 1
        bounds = (first - index.value, end - index.value) if moves else (piece.start, piece.stop)
        yield *bounds, (Index("fixed", number), *positions)
        first = end


def reshape_groups(op: ir.Operation) -> list[list[int]]:
    """For every collapsed dimension of a reshape, the dimensions that it stands for."""
    return [[ir.IntegerAttr(d).value for d in ir.ArrayAttr(g)] for g in ir.ArrayAttr(op.attributes["reassociation"])]


def _static_offsets(op: ir.Operation) -> list[int]:
    """The offsets of a slice; fails for dynamic ones and for steps over elements."""
    strides = list(ir.DenseI64ArrayAttr(op.attributes["static_strides"]))
    offsets = list(ir.DenseI64ArrayAttr(op.attributes["static_offsets"]))
    if any(s != 1 for s in strides) or any(o < 0 for o in offsets):
        raise NotACellError
    return offsets


def slice_dims(op: ir.Operation, sliced: ir.Value) -> list[int | None]:
    """For every dimension of the larger tensor, the dimension of the slice; None for a dropped one."""
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
    extents = static_extents(sliced.type)
    dims: list[int | None] = []
    taken = 0
    for left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        # Extent-1 dimensions are dropped from the front for as long as the slice has fewer than are left.
        drop = size == 1 and len(extents) - taken < left and (taken == len(extents) or extents[taken] != 1)
        dims.append(None if drop else taken)
        taken += not drop
    if taken != len(extents):
        raise NotACellError
    return dims


def _sliced(op: ir.Operation, indices: Indices) -> Indices:
    """The operand's indices of an `extract_slice`."""
    dims, offsets = slice_dims(op, op.results[0]), _static_offsets(op)
    for i, d in enumerate(dims):
        # Rows stay one flat range only if no inner row dimension is cut.
        if d is not None and indices[d].kind == "row" and indices[d].value > 0:
            extent = static_extents(op.operands[0].type)[i]
            if extent is None or extent != static_extents(op.results[0].type)[d]:
                raise NotACellError
    return tuple(Index("fixed", o) if d is None else indices[d].moved(o) for d, o in zip(dims, offsets, strict=True))


def _span(index: Index, piece: Piece, along: str) -> tuple[int, int]:
    """First and last + 1 position that a piece looks at in one dimension."""
    if index.kind == "fixed":
        return index.value, index.value + 1
    if index.kind != along:
        raise NotACellError
    return piece.start + index.value, piece.stop + index.value


def _concatenated(op: ir.Operation, piece: Piece, along: str) -> list[Piece]:
    """The parts of a concatenation's operands that make up a piece of it."""
    dim = ir.IntegerAttr(op.attributes["dim"]).value
    index = piece.indices[dim]
    first, last = _span(index, piece, along)
    pieces, base = [], 0
    for value in op.operands:
        extent = static_extents(value.type)[dim]
        if extent is None:
            raise NotACellError
        low, high = max(first, base), min(last, base + extent)
        if low < high:
            here = (*piece.indices[:dim], index.moved(-base), *piece.indices[dim + 1 :])
            shift = index.value if index.kind == along else low - piece.start
            pieces.append(Piece(low - shift, high - shift if index.kind == along else piece.stop, value, here))
        base += extent
    return pieces


def _inserted(op: ir.Operation, piece: Piece, along: str) -> list[Piece]:
    """The parts of an `insert_slice`'s two operands that make up a piece of it."""
    source, destination = op.operands[0], op.operands[1]
    dims, offsets = slice_dims(op, source), _static_offsets(op)
    sizes = list(ir.DenseI64ArrayAttr(op.attributes["static_sizes"]))
    whole = static_extents(destination.type)
    indices = tuple(piece.indices[i].moved(-offsets[i]) for i, d in enumerate(dims) if d is not None)
    cut = [i for i, size in enumerate(sizes) if not (offsets[i] == 0 and (size < 0 or size == whole[i]))]
    if not cut:
        return [Piece(piece.start, piece.stop, source, indices)]
    if len(cut) > 1:
        raise NotACellError
    dim = cut[0]
    index = piece.indices[dim]
    first, last = _span(index, piece, along)
    low, high = offsets[dim], offsets[dim] + sizes[dim]
    if index.kind == "fixed":
        inside = low <= index.value < high
        return [Piece(piece.start, piece.stop, source if inside else destination, indices if inside else piece.indices)]
    bounds = [first, *(b for b in (low, high) if first < b < last), last]
    return [
        Piece(a - index.value, b - index.value, source, indices)
        if low <= a < high
        else Piece(a - index.value, b - index.value, destination, piece.indices)
        for a, b in pairwise(bounds)
    ]
