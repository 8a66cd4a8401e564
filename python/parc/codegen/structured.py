"""Linalg operations on buffers as loops over vectors.

One iteration dimension becomes the *lane* dimension, cut into strips of one vector:

* a parallel one that every operand either walks element by element or does not move along: each strip computes one
  vector of each result, and reduction dimensions are loops around vectors of sums;
* else a reduction one with that property: each result sums vectors, and then the lanes of one vector.

The last strip is masked where the extent is not a multiple of the vector.  The order of additions depends on the
extents alone.  Values that are the same for all lanes stay scalars.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, linalg, memref, scf, vector

from parc.codegen import activations
from parc.codegen.arrays import slope
from parc.codegen.irtools import captured_values, clone_with
from parc.codegen.loops import index
from parc.codegen.microkernel import PANEL_VECTORS, VectorTarget

# Narrower strips are not worth a vector.
_LEAST_EXTENT = 4
# Rows of a product that share the vectors of its right factor, with enough sums to hide the latency of additions.
_ROWS = 4
# Lanes behind the end of a masked strip may divide by zero; powers of integers have one exponent for all lanes.
_SCALAR_ONLY = ("divsi", "divui", "remsi", "remui", "ceildivsi", "ceildivui", "floordivsi", "fpowi")
# Operations that combine the lanes of one vector: the kind's name, and the value that changes nothing.
_COMBINE: dict[str, tuple[str, Callable[[ir.Type], float | int]]] = {
    "arith.addf": ("add", lambda _: -0.0),
    "arith.mulf": ("mul", lambda _: 1.0),
    "arith.maximumf": ("maximumf", lambda _: float("-inf")),
    "arith.minimumf": ("minimumf", lambda _: float("inf")),
    "arith.addi": ("add", lambda _: 0),
    "arith.muli": ("mul", lambda _: 1),
    "arith.andi": ("and", lambda _: -1),
    "arith.ori": ("or", lambda _: 0),
    "arith.xori": ("xor", lambda _: 0),
    "arith.maxsi": ("maxsi", lambda t: -(1 << (t.width - 1))),
    "arith.minsi": ("minsi", lambda t: (1 << (t.width - 1)) - 1),
}


def vectorize(op: linalg.GenericOp, target: VectorTarget) -> bool:
    """Replace a `linalg.generic` on buffers by loops over vectors; False, and nothing done, where it has no lanes."""
    found = _find_lanes(op, target)
    if found is None:
        return False
    with ir.InsertionPoint(op), op.location:
        (_Sums if found.reduces else _Strips)(found).emit()
    op.operation.erase()
    return True


@dataclass
class _Lanes:
    """A linalg operation with its lane dimension chosen."""

    op: linalg.GenericOp
    maps: list[ir.AffineMap]
    parallel: list[bool]  # by iteration dimension
    lane: int
    width: int = 1
    extent: int | None = None  # of the lane dimension, where static
    varying: set[ir.Value] = field(default_factory=set)  # values of the body that differ between lanes

    @property
    def reduces(self) -> bool:
        """Whether the lanes are summed up."""
        return not self.parallel[self.lane]

    @property
    def block(self) -> ir.Block:
        return self.op.regions[0].blocks[0]

    @property
    def operands(self) -> list[ir.Value]:
        return list(self.op.operation.operands)

    @property
    def input_count(self) -> int:
        return len(self.op.inputs)

    @property
    def body(self) -> list[ir.Operation]:
        """The operations of the body without the yield."""
        return [o.operation for o in self.block.operations][:-1]

    @property
    def yielded(self) -> list[ir.Value]:
        return list(list(self.block.operations)[-1].operation.operands)

    def walks(self, operand: int) -> bool | None:
        """Whether an operand's element moves with the lane; None if it does so other than element by element."""
        slopes = [slope(e, self.lane) for e in self.maps[operand].results]
        if not any(s != 0 for s in slopes):
            return False
        type_ = self.operands[operand].type
        unit = slopes[-1] == 1 and not any(s != 0 for s in slopes[:-1])
        return True if unit and _contiguous(type_) else None

    def static_extent(self, dim: int) -> int | None:
        """The extent of an iteration dimension, where it is known."""
        for value, map_ in zip(self.operands, self.maps, strict=True):
            for d, expr in enumerate(map_.results):
                if isinstance(expr, ir.AffineDimExpr) and expr.position == dim and not value.type.is_dynamic_dim(d):
                    return value.type.get_dim_size(d)
        return None

    def dimension_of(self, dim: int) -> tuple[ir.Value, int] | None:
        """An operand and its dimension that has the extent of an iteration dimension."""
        for value, map_ in zip(self.operands, self.maps, strict=True):
            for d, expr in enumerate(map_.results):
                if isinstance(expr, ir.AffineDimExpr) and expr.position == dim:
                    return value, d
        return None


def _contiguous(type_: ir.Type) -> bool:
    """Whether neighbours in the last dimension are neighbours in memory, of a type that vectors are loaded of."""
    strides, _ = ir.MemRefType(type_).get_strides_and_offset()
    # A vector of i1 is packed in memory; LLVM calls its runtime library to load some lanes of bf16.
    return strides[-1] == 1 and str(type_.element_type) not in ("i1", "bf16")


def _find_lanes(op: linalg.GenericOp, target: VectorTarget) -> _Lanes | None:
    """The operation with lanes; None where no dimension can be one."""
    maps = [ir.AffineMapAttr(a).value for a in op.indexing_maps]
    parallel = ["parallel" in str(a) for a in op.iterator_types]
    inputs = len(op.inputs)
    # Only the last dimension of a result can be walked by all results, and that of an input by sums.
    for map_ in (maps[inputs], *maps[:inputs]):
        last = map_.results[-1] if len(map_.results) else None
        for dim in range(map_.n_dims):
            if last is not None and slope(last, dim) == 1:
                lanes = _Lanes(op, maps, parallel, dim)
                if _fits(lanes, target):
                    return lanes
    return None


def _fits(lanes: _Lanes, target: VectorTarget) -> bool:
    """Whether the dimension can be the lanes; completes what is known of them."""
    if any(lanes.dimension_of(d) is None for d in range(lanes.maps[0].n_dims)):
        return False
    walks = [lanes.walks(i) for i in range(len(lanes.operands))]
    results = walks[lanes.input_count :]
    if None in walks or any(w == lanes.reduces for w in results) or not _analyse_body(lanes, walks):
        return False
    if lanes.reduces and not all(_combiner(lanes, i) for i in range(len(results))):
        return False
    elements = [v.type.element_type for v, w in zip(lanes.operands, walks, strict=True) if w]
    widest = max(e.width if hasattr(e, "width") else 64 for e in elements)
    lanes.width = PANEL_VECTORS * target.bits // widest
    lanes.extent = lanes.static_extent(lanes.lane)
    if lanes.extent is not None:
        while lanes.width // 2 >= lanes.extent:
            lanes.width //= 2
    return lanes.extent is None or lanes.extent >= _LEAST_EXTENT


def _analyse_body(lanes: _Lanes, walks: Sequence[bool | None]) -> bool:
    """Find the values that vary; False if one is computed by what has no vector form."""
    arguments = list(lanes.block.arguments)
    varying = {a for a, w in zip(arguments, walks, strict=True) if w}
    if lanes.reduces:
        varying.update(arguments[lanes.input_count :])
    lane_index: set[ir.Value] = set()
    for op in lanes.body:
        if op.name == "linalg.index":
            if ir.IntegerAttr(op.attributes["dim"]).value == lanes.lane:
                varying.add(op.results[0])
                lane_index.add(op.results[0])
            continue
        inputs = captured_values(op)
        if not any(v in varying for v in inputs):
            continue
        if op.name == "memref.load":
            *leading, last = op.operands
            if last not in lane_index or any(v in varying for v in leading) or not _contiguous(op.operands[0].type):
                return False
        elif not _has_vector_form(op):
            return False
        varying.update(op.results)
    lanes.varying = varying
    return True


def _has_vector_form(op: ir.Operation) -> bool:
    dialect, _, name = op.name.partition(".")
    if dialect not in ("arith", "math") or len(op.regions) or name in _SCALAR_ONLY:
        return False
    return all(isinstance(r.type, ir.FloatType | ir.IntegerType | ir.IndexType) for r in op.results)


def _combiner(lanes: _Lanes, result: int) -> ir.Operation | None:
    """The operation that adds one iteration to a result, if it is one that lanes can be combined by."""
    total = lanes.block.arguments[lanes.input_count + result]
    owner = lanes.yielded[result].owner
    uses = [use.owner.operation for use in total.uses]
    if isinstance(owner, ir.Block) or uses != [owner.operation] or owner.operation.name not in _COMBINE:
        return None
    return owner.operation


class _Emitter:
    """What both ways have in common: the loops, and the body on vectors."""

    def __init__(self, lanes: _Lanes) -> None:
        self.lanes = lanes
        self.dims = range(lanes.maps[0].n_dims)
        self.extents = [self._extent(d) for d in self.dims]
        self.position: list[ir.Value] = [index(0)] * len(self.dims)

    def emit(self) -> None:
        """Emit the whole operation at the insertion point."""
        raise NotImplementedError

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
        return vector.maskedload(type_, buffer, indices, mask, _splat(type_, 0))

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


class _Strips(_Emitter):
    """Parallel lanes: one vector of each result at a time, or of each of a few rows of a product."""

    def emit(self) -> None:
        lanes = self.lanes
        self.row_dim = self._find_row_dim()

        def strip(counter: ir.Value) -> None:
            start = arith.muli(counter, index(lanes.width))
            self.position[lanes.lane] = start
            if lanes.extent is not None and lanes.extent % lanes.width == 0:
                self._strip(None)
                return
            left = arith.subi(self.extents[lanes.lane], start)
            if lanes.extent is not None and lanes.extent < lanes.width:
                self._strip(self._mask(left))
                return
            whole = arith.cmpi(arith.CmpIPredicate.sge, left, index(lanes.width))
            branch = scf.IfOp(whole, has_else=True)
            with ir.InsertionPoint(branch.then_block):
                self._strip(None)
                scf.YieldOp([])
            with ir.InsertionPoint(branch.else_block):
                self._strip(self._mask(left))
                scf.YieldOp([])

        count = arith.ceildivui(self.extents[lanes.lane], index(lanes.width))
        if lanes.extent is not None:
            count = index(-(-lanes.extent // lanes.width))
        outer = {d: self.extents[d] for d in self.dims if lanes.parallel[d] and d != lanes.lane}
        if self.row_dim is not None:
            outer[self.row_dim] = arith.ceildivui(outer[self.row_dim], index(_ROWS))
        self._parallel(outer, count, strip)

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

    def _store(self, operand: int, value: ir.Value, mask: ir.Value | None) -> ir.Value:
        buffer, place = self.lanes.operands[operand], self._indices(operand)
        if mask is None:
            vector.store(value, buffer, place)
        else:
            vector.maskedstore(buffer, place, mask, value)
        return value


class _Sums(_Emitter):
    """Reduced lanes: vectors are summed up, and then their lanes."""

    def emit(self) -> None:
        lanes = self.lanes
        results = range(lanes.input_count, len(lanes.operands))
        combiners = [_combiner(lanes, i) for i in range(len(results))]

        def point(_: ir.Value) -> None:
            starts = []
            for i in results:
                element = lanes.operands[i].type.element_type
                combiner = combiners[i - lanes.input_count]
                assert combiner is not None
                neutral = _COMBINE[combiner.name][1](element)
                starts.append(_splat(self._vector(element), neutral))
            reduced = [d for d in self.dims if not lanes.parallel[d] and d != lanes.lane]
            totals = self._reduce(reduced, starts, lambda t: self._sum(t, starts))
            for i, combiner, total in zip(results, combiners, totals, strict=True):
                self._finish(i, combiner, total)

        self._parallel({d: self.extents[d] for d in self.dims if lanes.parallel[d]}, index(1), point)

    def _sum(self, totals: list[ir.Value], neutral: list[ir.Value]) -> list[ir.Value]:
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

    def _finish(self, operand: int, combiner: ir.Operation, total: ir.Value) -> None:
        """Combine the lanes with what the result was."""
        kind, _ = _COMBINE[combiner.name]
        buffer, place = self.lanes.operands[operand], self._indices(operand)
        element = buffer.type.element_type
        reassociate = ir.Attribute.parse("#arith.fastmath<reassoc>") if isinstance(element, ir.FloatType) else None
        kind_attribute = ir.Attribute.parse(f"#vector.kind<{kind}>")
        lanes = vector.ReductionOp(element, kind_attribute, total, fastmath=reassociate).result
        before = memref.load(buffer, place)
        result = ir.Operation.create(combiner.name, [element], [before, lanes], dict(combiner.attributes)).result
        memref.store(result, buffer, place)


def _splat(type_: ir.VectorType, value: float | int) -> ir.Value:
    element = type_.element_type
    number = (
        ir.FloatAttr.get(element, float(value))
        if isinstance(element, ir.FloatType)
        else ir.IntegerAttr.get(element, int(value))
    )
    return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, number))
