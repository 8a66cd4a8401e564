"""Sums over many rows: the elements of a row are the lanes.

    y[j] += sum over i of f(x[i, j], ...)

The rows are cut into parts, each of which has sums of its own: each thread reads whole rows of its parts one after the
other.  Then the sums of the parts are added up in their order.  How many parts there are depends on the extents alone,
and so does the order of additions.
"""

from collections.abc import Callable

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, memref, scf

from parc.codegen.irtools import is_inside
from parc.codegen.lanes import Lanes, find_combiner, find_lanes
from parc.codegen.loops import index, share
from parc.codegen.microkernel import VectorTarget, loop
from parc.codegen.structured import Emitter

# Parts at most, enough for the threads of a large machine, and elements of all their sums.
_PARTS, _SUMS = 64, 1 << 18
# With fewer parts, threads share the columns. With fewer rows, adding up the parts would be most of the work.
_LEAST_PARTS, _LEAST_ROWS = 8, 4 * _PARTS


def find_column_sums(op: linalg.GenericOp, target: VectorTarget) -> Lanes | None:
    """The operation on buffers with its lanes, if `ColumnSums` is for it: it sums up rows, and many of them."""
    lanes = find_lanes(op, target)
    if lanes is None or lanes.reduces or all(lanes.parallel) or lanes.extent is None or is_inside(op, "parc.team"):
        return None
    dims = range(len(lanes.parallel))
    columns = [d for d in dims if lanes.parallel[d] and d != lanes.lane and lanes.static_extent(d) != 1]
    rows = 1
    for d in dims:
        extent = lanes.static_extent(d)
        rows *= 1 if lanes.parallel[d] else _LEAST_ROWS if extent is None else extent
    results = range(len(lanes.operands) - lanes.input_count)
    if columns or rows < _LEAST_ROWS or _SUMS // lanes.extent < _LEAST_PARTS:
        return None
    return lanes if all(find_combiner(lanes, i) for i in results) else None


class ColumnSums(Emitter):
    """The code of one operation."""

    def emit(self) -> None:
        lanes = self.lanes
        self.combiners = self.find_combiners()
        extent = lanes.extent or 0
        most = min(_PARTS, _SUMS // extent)
        elements = [r.type.element_type for r in lanes.operands[lanes.input_count :]]
        self.sums = [memref.alloc(ir.MemRefType.get([most, extent], e), [], [], alignment=64) for e in elements]
        rows = self._rows()
        parts = arith.minui(self.extents[rows[0]], index(most))

        def sum_part(part: ir.Value) -> None:
            self._strips(lambda mask: self._clear(part, mask))
            with loop(*share(self.extents[rows[0]], part, parts), index(1)) as self.position[rows[0]]:
                self._reduce(rows[1:], [], lambda _: self._strips(lambda mask: self._add_row(part, mask)))

        self._parallel({}, parts, sum_part)
        self._parallel_strips({}, lambda mask: self._add_parts(parts, mask))

    def _clear(self, part: ir.Value, mask: ir.Value | None) -> None:
        """Start the sums of a part, in one strip."""
        for combiner, buffer in zip(self.combiners, self.sums, strict=True):
            neutral = combiner.neutral(self._vector(buffer.type.element_type))
            self._store_vector(neutral, buffer, self._place(part), mask)

    def _add_row(self, part: ir.Value, mask: ir.Value | None) -> None:
        """Add the current row to the sums of a part, in one strip."""
        totals = [self._load_vector(buffer, self._place(part), mask) for buffer in self.sums]
        for total, buffer in zip(self._body(totals, mask), self.sums, strict=True):
            self._store_vector(self._spread(total), buffer, self._place(part), mask)

    def _add_parts(self, parts: ir.Value, mask: ir.Value | None) -> None:
        """Add the sums of all parts to the results, in one strip."""
        results = range(self.lanes.input_count, len(self.lanes.operands))
        steps = scf.ForOp(index(0), parts, index(1), [self._load(i, mask) for i in results])
        with ir.InsertionPoint(steps.body):
            place = self._place(steps.induction_variable)
            loaded = [self._load_vector(buffer, place, mask) for buffer in self.sums]
            triples = zip(self.combiners, steps.inner_iter_args, loaded, strict=True)
            scf.YieldOp([combiner.apply(total, more) for combiner, total, more in triples])
        for i, total in zip(results, steps.results_, strict=True):
            self._store(i, total, mask)

    def _place(self, part: ir.Value) -> list[ir.Value]:
        return [part, self.position[self.lanes.lane]]

    def _rows(self) -> list[int]:
        """The dimensions that are summed over, as they follow each other in the first operand that has them all."""
        reduced = [d for d in self.dims if not self.lanes.parallel[d]]
        for map_ in self.lanes.maps:
            walked = [e.position for e in map_.results if isinstance(e, ir.AffineDimExpr)]
            if set(reduced) <= set(walked):
                return sorted(reduced, key=walked.index)
        return reduced

    def _strips(self, body: Callable[[ir.Value | None], None]) -> list[ir.Value]:
        """The vectors of one row, the last one masked if it is not whole; no values, as `_reduce` asks for."""
        lanes, extent = self.lanes, self.lanes.extent or 0
        whole = extent // lanes.width * lanes.width
        with loop(index(0), index(whole), index(lanes.width)) as self.position[lanes.lane]:
            body(None)
        if whole < extent:
            self.position[lanes.lane] = index(whole)
            body(self._mask(index(extent - whole)))
        return []
