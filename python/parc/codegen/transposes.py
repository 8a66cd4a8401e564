"""Copies into a layout with another innermost dimension, as squares of vectors that are transposed in registers."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, memref, scf, vector

from parc.codegen.irtools import terminator
from parc.codegen.lanes import contiguous
from parc.codegen.microkernel import VectorTarget, constant, loop

_LARGEST = 16  # vectors of a square, which are in registers all at once
_STRIPS = 2  # vectors of each row that are read one after the other: a cache line on machines with AVX2


def transpose(op: linalg.GenericOp, target: VectorTarget) -> bool:
    """Replace a `linalg.generic` that only moves elements by loops over squares; False, and nothing done, for others.

    It has one operand and one result, whose innermost dimensions differ and are both as long as a vector or longer.
    """
    found = _find(op, target)
    if found is None:
        return False
    with ir.InsertionPoint(op), op.location:
        found.emit()
    op.operation.erase()
    return True


def transposed(rows: Sequence[ir.Value]) -> list[ir.Value]:
    """The columns of a square of vectors: perfect shuffles of the rows, as many as their number can be halved."""
    count = len(rows)
    low = [lane for i in range(count // 2) for lane in (i, count + i)]
    high = [lane for i in range(count // 2, count) for lane in (i, count + i)]
    columns = list(rows)
    for _ in range(count.bit_length() - 1):
        pairs = zip(columns[: count // 2], columns[count // 2 :], strict=True)
        columns = [vector.shuffle(a, b, half) for a, b in pairs for half in (low, high)]
    return columns


@dataclass(frozen=True)
class _Side:
    """A buffer, and the iteration dimension that each of its dimensions is; None where it has one element."""

    buffer: ir.Value
    dims: list[int | None]

    def indices(self, position: dict[int, ir.Value]) -> list[ir.Value]:
        """The element at an iteration."""
        return [constant(0) if d is None else position[d] for d in self.dims]


@dataclass(frozen=True)
class _Transpose:
    """A copy: `row` is the innermost dimension of the source, and `column` that of the destination."""

    source: _Side
    destination: _Side
    row: int
    column: int
    lanes: int

    @property
    def blocks(self) -> dict[int, int]:
        """The extents of what one iteration of the loops moves."""
        return {self.row: _STRIPS * self.lanes, self.column: self.lanes}

    def static(self, dim: int) -> int | None:
        """The extent of an iteration dimension, where it is known."""
        type_, at = self.destination.buffer.type, self.destination.dims.index(dim)
        return None if type_.is_dynamic_dim(at) else type_.get_dim_size(at)

    def emit(self) -> None:
        """Parallel loops over the other dimensions, and over blocks."""
        extents = {d: self._extent(d) for d in self.destination.dims if d is not None}
        outer = [d for d in extents if d not in self.blocks]
        counts = [extents[d] for d in outer]
        counts += [arith.ceildivui(extents[d], constant(size)) for d, size in self.blocks.items()]
        steps = len(counts)
        nest = scf.ParallelOp([], [constant(0)] * steps, counts, [constant(1)] * steps, [])
        body = nest.regions[0].blocks.append(*[ir.IndexType.get()] * steps)
        with ir.InsertionPoint(body):
            position = dict(zip([*outer, *self.blocks], body.arguments, strict=True))
            position |= {d: arith.muli(position[d], constant(size)) for d, size in self.blocks.items()}
            self._block(position, extents)
            scf.ReduceOp([], 0)

    def _extent(self, dim: int) -> ir.Value:
        static, at = self.static(dim), self.destination.dims.index(dim)
        return memref.dim(self.destination.buffer, constant(at)) if static is None else constant(static)

    def _block(self, position: dict[int, ir.Value], extents: dict[int, ir.Value]) -> None:
        """The squares from `position` on; where they are not whole, one element after the other."""
        if all((self.static(d) or 1) % size == 0 for d, size in self.blocks.items()):
            self._squares(position)
            return
        stops = {d: arith.addi(position[d], constant(size)) for d, size in self.blocks.items()}
        whole = arith.andi(*[arith.cmpi(arith.CmpIPredicate.ule, stop, extents[d]) for d, stop in stops.items()])
        branch = scf.IfOp(whole, has_else=True)
        with ir.InsertionPoint(branch.then_block):
            self._squares(position)
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            self._elements(position, {d: arith.minui(stop, extents[d]) for d, stop in stops.items()})
            scf.YieldOp([])

    def _squares(self, position: dict[int, ir.Value]) -> None:
        for strip in range(_STRIPS):
            start = arith.addi(position[self.row], constant(strip * self.lanes))
            self._square({**position, self.row: start})

    def _square(self, position: dict[int, ir.Value]) -> None:
        """A square from `position` on."""
        type_ = ir.VectorType.get([self.lanes], self.source.buffer.type.element_type)

        def places(side: _Side, dim: int) -> list[list[ir.Value]]:
            start = position[dim]
            return [side.indices({**position, dim: arith.addi(start, constant(i))}) for i in range(self.lanes)]

        rows = [vector.load(type_, self.source.buffer, at) for at in places(self.source, self.column)]
        for column, at in zip(transposed(rows), places(self.destination, self.row), strict=True):
            vector.store(column, self.destination.buffer, at)

    def _elements(self, position: dict[int, ir.Value], stops: dict[int, ir.Value]) -> None:
        """The elements from `position` on, until `stops`."""
        with loop(position[self.row], stops[self.row], constant(1)) as row:
            with loop(position[self.column], stops[self.column], constant(1)) as column:
                at = {**position, self.row: row, self.column: column}
                value = memref.load(self.source.buffer, self.source.indices(at))
                memref.store(value, self.destination.buffer, self.destination.indices(at))


def _find(op: linalg.GenericOp, target: VectorTarget) -> _Transpose | None:
    """The operation as a transpose, if it is one of whole vectors."""
    block = op.regions[0].blocks[0]
    if len(op.inputs) != 1 or len(op.outputs) != 1 or len(block.operations) != 1:
        return None
    if any("parallel" not in str(a) for a in op.iterator_types) or terminator(block).operands[0] != block.arguments[0]:
        return None
    sides = [_side(v, ir.AffineMapAttr(a).value) for v, a in zip(op.operation.operands, op.indexing_maps, strict=True)]
    source, destination = sides
    if source is None or destination is None or set(source.dims) - {None} != set(destination.dims) - {None}:
        return None
    row, column = source.dims[-1], destination.dims[-1]
    if row is None or column is None or row == column:
        return None
    element = source.buffer.type.element_type
    if not isinstance(element, ir.FloatType | ir.IntegerType):
        return None
    lanes = min(target.lanes(element), _LARGEST)
    found = _Transpose(source, destination, row, column, lanes)
    extents = [(found.static(d), size) for d, size in found.blocks.items()]
    return found if all(extent is None or extent >= size for extent, size in extents) else None


def _side(buffer: ir.Value, map_: ir.AffineMap) -> _Side | None:
    """An operand whose dimensions are different dimensions of the iteration, if it is one."""
    if not isinstance(buffer.type, ir.MemRefType) or not map_.results or not contiguous(buffer.type):
        return None
    dims: list[int | None] = []
    for i, expr in enumerate(map_.results):
        if isinstance(expr, ir.AffineDimExpr) and expr.position not in dims:
            dims.append(expr.position)
        elif isinstance(expr, ir.AffineConstantExpr) and buffer.type.shape[i] == 1:
            dims.append(None)
        else:
            return None
    return _Side(buffer, dims)
