"""`stack-slices`: a buffer filled slice by slice becomes a concatenation of the slices.

`out[t] = h` in a loop arrives as a chain of insertions into an initial buffer, in which every
step seems to need the whole buffer of the step before.  When the buffer is complete, only what
was written last at each place counts:

    %o0 = tensor.insert_slice %h0 into %init[0, 0] [1, 8] [1, 1]
    %o1 = tensor.insert_slice %h1 into %o0[1, 0] [1, 8] [1, 1]
  becomes
    %o1 = tensor.concat dim(0) %h0, %h1
"""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import tensor

from parc.passbase import Pass


@dataclass
class StackSlices(Pass):
    """Turn chains of slice insertions into concatenations."""

    name: ClassVar[str] = "stack-slices"

    def run(self, module: ir.Module) -> None:
        for func in module.body.operations:
            if func.operation.name != "func.func":
                continue
            for block in func.operation.regions[0].blocks:
                inserts = [op.operation for op in block.operations if op.operation.name == "tensor.insert_slice"]
                for last in [op for op in inserts if _ends_chain(op)]:
                    _stack(last)


def _ends_chain(op: ir.Operation) -> bool:
    users = [use.owner.operation for use in op.results[0].uses]
    return not (len(users) == 1 and users[0].name == "tensor.insert_slice" and users[0].operands[1] == op.results[0])


@dataclass
class _Piece:
    start: int
    stop: int
    value: ir.Value


def _stack(last: ir.Operation) -> None:
    """Rewrite the chain that ends in `last`, if all its slices are cut along one dimension."""
    chain = [last]
    while not isinstance(chain[-1].operands[1].owner, ir.Block):
        target = chain[-1].operands[1].owner.operation
        if target.name != "tensor.insert_slice" or len(list(target.results[0].uses)) != 1:
            break
        chain.append(target)
    if len(chain) < 2:
        return
    shape = list(last.results[0].type.shape)
    dim = _common_dim(chain, shape)
    if dim is None:
        return
    pieces: list[_Piece] = []
    for op in chain:  # From the last insertion to the first: what a later one covers is dropped.
        start = list(op.attributes["static_offsets"])[dim]
        stop = start + list(op.attributes["static_sizes"])[dim]
        covered = [p for p in pieces if p.start < stop and start < p.stop]
        if any(p.start > start or p.stop < stop for p in covered):
            return
        if not covered:
            pieces.append(_Piece(start, stop, _whole_rank(op)))
    pieces.sort(key=lambda p: p.start)
    base = chain[-1].operands[1]
    with ir.InsertionPoint(last), last.location:
        parts: list[ir.Value] = []
        position = 0
        for piece in [*pieces, _Piece(shape[dim], shape[dim], base)]:
            if position < piece.start:
                parts.append(_gap(base, shape, dim, position, piece.start))
            if piece.start < piece.stop:
                parts.append(piece.value)
            position = piece.stop
        result = tensor.ConcatOp(last.results[0].type, dim, parts).result
    last.results[0].replace_all_uses_with(result)
    for op in chain:
        op.erase()


def _common_dim(chain: list[ir.Operation], shape: list[int]) -> int | None:
    """The one dimension along which every insertion of a unit-stride slice is partial."""
    found: set[int] = set()
    dynamic = ir.ShapedType.get_dynamic_size()
    for op in chain:
        offsets, sizes, strides = (list(op.attributes[f"static_{k}"]) for k in ("offsets", "sizes", "strides"))
        if any(s != 1 for s in strides) or dynamic in offsets + sizes:
            return None
        found.update(d for d in range(len(shape)) if sizes[d] != shape[d])
    return found.pop() if len(found) == 1 else None


def _whole_rank(insert: ir.Operation) -> ir.Value:
    """What an insertion inserts, with the unit dimensions that it leaves out."""
    value, sizes = insert.operands[0], list(insert.attributes["static_sizes"])
    rank = value.type.rank
    if rank == len(sizes):
        return value
    groups: list[list[int]] = [[] for _ in range(rank)]
    position = 0
    for d, size in enumerate(sizes):
        missing = len(sizes) - d > rank - position  # more dimensions are left than the value has
        if position < rank and not (missing and size == 1):
            position += 1
        if groups:
            groups[max(position - 1, 0)].append(d)
    with ir.InsertionPoint(insert), insert.location:
        type_ = ir.RankedTensorType.get(sizes, value.type.element_type)
        return tensor.ExpandShapeOp(type_, value, groups, [], sizes).result


def _gap(base: ir.Value, shape: list[int], dim: int, start: int, stop: int) -> ir.Value:
    """What the buffer held before, where nothing was written."""
    offsets = [start if d == dim else 0 for d in range(len(shape))]
    sizes = [stop - start if d == dim else s for d, s in enumerate(shape)]
    type_ = ir.RankedTensorType.get(sizes, base.type.element_type)
    return tensor.ExtractSliceOp(type_, base, [], [], [], offsets, sizes, [1] * len(shape)).result
