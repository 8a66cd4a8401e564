"""Linalg operations on buffers as loops over vectors.

One iteration dimension becomes the *lane* dimension (`codegen/lanes.py`), cut into strips of one vector:

* a parallel one: each strip computes one vector of each result, and reductions are loops around vectors of sums;
* else a reduction: each result sums vectors, and then the lanes of one vector.

The last strip is masked where the extent is not a multiple of the vector.  The order of additions depends on the
extents alone.  Values that are the same for all lanes stay scalars.
"""

from collections.abc import Callable, Mapping, Sequence

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, linalg, memref, scf, vector

from parc.codegen import activations
from parc.codegen.arrays import slope
from parc.codegen.irtools import captured_values, clone_with
from parc.codegen.lanes import Combiner, Lanes, find_combiner, find_lanes, splat
from parc.codegen.loops import index
from parc.codegen.microkernel import VectorTarget

# Rows of a product that share the vectors of its right factor, with enough sums to hide the latency of additions.
_ROWS = 4


def vectorize(op: linalg.GenericOp, target: VectorTarget) -> bool:
    """Replace a `linalg.generic` on buffers by loops over vectors; False, and nothing done, where it has no lanes."""
    found = find_lanes(op, target)
    if found is None:
        return False
    with ir.InsertionPoint(op), op.location:
        (_Sums if found.reduces else _Strips)(found).emit()
    op.operation.erase()
    return True


class Emitter:
    """What both ways have in common: the loops, and the body on vectors."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.dims = range(lanes.maps[0].n_dims)
        self.extents = [self._extent(d) for d in self.dims]
        self.position: list[ir.Value] = [index(0)] * len(self.dims)

    def emit(self) -> None:
        """Emit the whole operation at the insertion point."""
        raise NotImplementedError

    def find_combiners(self) -> list[Combiner]:
        """How each result is added up, where lanes have found that out."""
        found = (find_combiner(self.lanes, i) for i in range(len(self.lanes.operands) - self.lanes.input_count))
        return [c for c in found if c is not None]

    def _extent(self, dim: int) -> ir.Value:
        value, d = self.lanes.dimension_of(dim) or (None, 0)
        static = self.lanes.static_extent(dim)
        return memref.dim(value, index(d)) if static is None else index(static)

    def _parallel(self, dims: Mapping[int, ir.Value], strips: ir.Value, body: Callable[[ir.Value], None]) -> None:
        """Parallel loops over `dims` (so many iterations) and, innermost, `strips`, whose counter `body` takes."""
        moving = [d for d in dims if self.lanes.static_extent(d) != 1]
        extents = [dims[d] for d in moving] + [strips]
        count = len(extents)
        loop = scf.ParallelOp([], [index(0)] * count, extents, [index(1)] * count, [])
        block = loop.regions[0].blocks.append(*[ir.IndexType.get()] * count)
        with ir.InsertionPoint(block):
            for d, counter in zip(moving, block.arguments, strict=False):
                self.position[d] = counter
            body(block.arguments[count - 1])
            scf.ReduceOp([], 0)

    def _parallel_strips(self, dims: Mapping[int, ir.Value], body: Callable[[ir.Value | None], None]) -> None:
        """Parallel loops over `dims` and the strips of the lane dimension; `body` takes the mask of its strip."""
        lanes = self.lanes

        def strip(counter: ir.Value) -> None:
            start = arith.muli(counter, index(lanes.width))
            self.position[lanes.lane] = start
            if lanes.extent is not None and lanes.extent % lanes.width == 0:
                body(None)
                return
            left = arith.subi(self.extents[lanes.lane], start)
            if lanes.extent is not None and lanes.extent < lanes.width:
                body(self._mask(left))
                return
            whole = arith.cmpi(arith.CmpIPredicate.sge, left, index(lanes.width))
            branch = scf.IfOp(whole, has_else=True)
            with ir.InsertionPoint(branch.then_block):
                body(None)
                scf.YieldOp([])
            with ir.InsertionPoint(branch.else_block):
                body(self._mask(left))
                scf.YieldOp([])

        count = arith.ceildivui(self.extents[lanes.lane], index(lanes.width))
        if lanes.extent is not None:
            count = index(-(-lanes.extent // lanes.width))
        self._parallel(dims, count, strip)

    def _reduce(
        self, dims: Sequence[int], totals: list[ir.Value], body: Callable[[list[ir.Value]], list[ir.Value]]
    ) -> list[ir.Value]:
        """Nested loops over `dims` that carry `totals`."""
        if not dims:
            return body(totals)
        if self.lanes.static_extent(dims[0]) == 1:
            return self._reduce(dims[1:], totals, body)
        loop = scf.ForOp(index(0), self.extents[dims[0]], index(1), totals)
        with ir.InsertionPoint(loop.body):
            self.position[dims[0]] = loop.induction_variable
            scf.YieldOp(self._reduce(dims[1:], list(loop.inner_iter_args), body))
        return list(loop.results_)

    def _mask(self, left: ir.Value) -> ir.Value:
        """The lanes of a strip before which `left` elements are left."""
        return vector.create_mask(self._vector(ir.IntegerType.get_signless(1)), [left])

    def _vector(self, element: ir.Type) -> ir.VectorType:
        return ir.VectorType.get([self.lanes.width], element)

    def _indices(self, operand: int) -> list[ir.Value]:
        map_ = self.lanes.maps[operand]
        return [
            self.position[e.position]
            if isinstance(e, ir.AffineDimExpr)
            else affine.AffineApplyOp(ir.AffineMap.get(map_.n_dims, 0, [e]), self.position).result
            for e in map_.results
        ]

    def _load(self, operand: int, mask: ir.Value | None) -> ir.Value:
        """An operand's vector, or its scalar, at the current position."""
        value = self.lanes.operands[operand]
        if not isinstance(value.type, ir.MemRefType):
            return value
        if self.lanes.walks(operand):
            return self._load_vector(value, self._indices(operand), mask)
        return memref.load(value, self._indices(operand))

    def _load_vector(self, buffer: ir.Value, indices: list[ir.Value], mask: ir.Value | None) -> ir.Value:
        type_ = self._vector(buffer.type.element_type)
        if mask is None:
            return vector.load(type_, buffer, indices)
        return vector.maskedload(type_, buffer, indices, mask, splat(type_, 0))

    def _store(self, operand: int, value: ir.Value, mask: ir.Value | None) -> ir.Value:
        """Put a vector in an operand at the current position; gives it back."""
        return self._store_vector(value, self.lanes.operands[operand], self._indices(operand), mask)

    def _store_vector(
        self, value: ir.Value, buffer: ir.Value, indices: list[ir.Value], mask: ir.Value | None
    ) -> ir.Value:
        if mask is None:
            vector.store(value, buffer, indices)
        else:
            vector.maskedstore(buffer, indices, mask, value)
        return value

    def _body(self, totals: Sequence[ir.Value | None], mask: ir.Value | None) -> list[ir.Value]:
        """One iteration for all lanes; `totals` are the results so far (None: not looked at)."""
        lanes = self.lanes
        values: dict[ir.Value, ir.Value] = {}
        for i, argument in enumerate(lanes.block.arguments):
            total = totals[i - lanes.input_count] if i >= lanes.input_count else None
            if total is not None:
                values[argument] = total
            elif any(True for _ in argument.uses):
                values[argument] = self._load(i, mask)
        for op in lanes.body:
            if op.name == "linalg.index":
                values[op.results[0]] = self._index(ir.IntegerAttr(op.attributes["dim"]).value)
            elif not any(v in lanes.varying for v in captured_values(op)):
                clone_with(op, values)
            elif op.name == "memref.load":
                leading = [values.get(v, v) for v in list(op.operands)[1:-1]]
                place = [*leading, self.position[lanes.lane]]
                values[op.results[0]] = self._load_vector(op.operands[0], place, mask)
            else:
                values.update(zip(op.results, self._apply(op, values), strict=True))
        return [values.get(v, v) for v in lanes.yielded]

    def _index(self, dim: int) -> ir.Value:
        if dim != self.lanes.lane:
            return self.position[dim]
        type_ = self._vector(ir.IndexType.get())
        return arith.addi(vector.broadcast(type_, self.position[dim]), vector.StepOp(type_).result)

    def _apply(self, op: ir.Operation, values: dict[ir.Value, ir.Value]) -> Sequence[ir.Value]:
        """An elementwise operation on vectors."""
        arguments = [self._spread(values.get(v, v)) for v in op.operands]
        emit = activations.emitter(op.name, op.results[0].type)
        if emit is not None:
            return [emit(*arguments)]
        attributes = dict(op.attributes)
        if not all(self.lanes.parallel) and op.name in ("arith.mulf", "arith.addf"):
            # Products may be summed by fused multiply-adds.
            attributes["fastmath"] = ir.Attribute.parse("#arith.fastmath<contract>")
        results = [self._vector(r.type) for r in op.results]
        return list(ir.Operation.create(op.name, results, arguments, attributes).results)

    def _spread(self, value: ir.Value) -> ir.Value:
        """The value as a vector."""
        return value if isinstance(value.type, ir.VectorType) else vector.broadcast(self._vector(value.type), value)


class _Strips(Emitter):
    """Parallel lanes: one vector of each result at a time, or of each of a few rows of a product."""

    def emit(self) -> None:
        lanes = self.lanes
        self.row_dim = self._find_row_dim()
        outer = {d: self.extents[d] for d in self._loop_order() if lanes.parallel[d] and d != lanes.lane}
        if self.row_dim is not None:
            outer[self.row_dim] = arith.ceildivui(outer[self.row_dim], index(_ROWS))
        self._parallel_strips(outer, self._strip)

    def _loop_order(self) -> Sequence[int]:
        """The dimensions, outermost first: for a copy so that it reads in a row, which the hardware fetches ahead."""
        lanes = self.lanes
        if lanes.input_count == 1 and not lanes.body and lanes.yielded == [lanes.block.arguments[0]]:
            order = [e.position for e in lanes.maps[0].results if isinstance(e, ir.AffineDimExpr)]
            if sorted(order) == list(self.dims):
                return order
        return self.dims

    def _find_row_dim(self) -> int | None:
        """The innermost parallel dimension along which a reduction reads the same vectors again."""
        lanes = self.lanes
        vectors = [i for i in range(lanes.input_count) if lanes.walks(i)]
        for d in reversed(self.dims):
            if all(lanes.parallel) or not lanes.parallel[d] or d == lanes.lane or lanes.static_extent(d) == 1:
                continue
            if any(all(slope(e, d) == 0 for e in lanes.maps[i].results) for i in vectors):
                return d
        return None

    def _rows(self) -> list[ir.Value]:
        """The rows that a strip computes, if it is of more than one; rows behind the last are the last again."""
        if self.row_dim is None:
            return []
        last = arith.subi(self.extents[self.row_dim], index(1))
        first = arith.muli(self.position[self.row_dim], index(_ROWS))
        return [arith.minui(arith.addi(first, index(r)), last) for r in range(_ROWS)]

    def _strip(self, mask: ir.Value | None) -> None:
        """The code of one strip."""
        lanes = self.lanes
        results = range(lanes.input_count, len(lanes.operands))
        reduced = [d for d in self.dims if not lanes.parallel[d]]
        rows = self._rows()

        def for_rows(body: Callable[[int], Sequence[ir.Value]]) -> list[ir.Value]:
            if self.row_dim is None:
                return list(body(0))
            values: list[ir.Value] = []
            block = self.position[self.row_dim]
            for r, self.position[self.row_dim] in enumerate(rows):
                values += body(r)
            self.position[self.row_dim] = block
            return values

        def step(totals: Sequence[ir.Value | None]) -> list[ir.Value]:
            count = len(results)
            return for_rows(lambda r: [self._spread(v) for v in self._body(totals[r * count :][:count], mask)])

        if reduced:
            values = self._reduce(reduced, for_rows(lambda _: [self._load(i, mask) for i in results]), step)
        else:
            values = step([None] * len(results))
        stored = iter(values)
        for_rows(lambda _: [self._store(i, next(stored), mask) for i in results])


class _Sums(Emitter):
    """Reduced lanes: vectors are summed up, and then their lanes."""

    def emit(self) -> None:
        lanes = self.lanes
        results = range(lanes.input_count, len(lanes.operands))
        combiners = self.find_combiners()

        def point(_: ir.Value) -> None:
            types = [self._vector(lanes.operands[i].type.element_type) for i in results]
            starts = [c.neutral(t) for c, t in zip(combiners, types, strict=True)]
            reduced = [d for d in self.dims if not lanes.parallel[d] and d != lanes.lane]
            totals = self._reduce(reduced, starts, self._sum)
            for i, combiner, total in zip(results, combiners, totals, strict=True):
                self._finish(i, combiner, total)

        self._parallel({d: self.extents[d] for d in self.dims if lanes.parallel[d]}, index(1), point)

    def _sum(self, totals: list[ir.Value]) -> list[ir.Value]:
        """The totals with one row of strips."""
        lanes = self.lanes
        extent = self.extents[lanes.lane]
        strips = arith.divui(extent, index(lanes.width))
        loop = scf.ForOp(index(0), arith.muli(strips, index(lanes.width)), index(lanes.width), totals)
        with ir.InsertionPoint(loop.body):
            self.position[lanes.lane] = loop.induction_variable
            scf.YieldOp(self._body(list(loop.inner_iter_args), None))
        totals = list(loop.results_)
        if lanes.extent is not None and lanes.extent % lanes.width == 0:
            return totals
        start = arith.muli(strips, index(lanes.width))
        self.position[lanes.lane] = start
        mask = self._mask(arith.subi(extent, start))
        after = self._body(totals, mask)
        return [arith.select(mask, new, old) for new, old in zip(after, totals, strict=True)]

    def _finish(self, operand: int, combiner: Combiner, total: ir.Value) -> None:
        """Combine the lanes with what the result was."""
        buffer, place = self.lanes.operands[operand], self._indices(operand)
        element = buffer.type.element_type
        reassociate = ir.Attribute.parse("#arith.fastmath<reassoc>") if isinstance(element, ir.FloatType) else None
        lanes = vector.ReductionOp(element, combiner.kind, total, fastmath=reassociate).result
        memref.store(combiner.apply(memref.load(buffer, place), lanes), buffer, place)
