"""A matrix product of two operands with any strides: `c[m, n] += sum over k of a[m, k] * b[n, k]`.

Both factors are packed into panels (`codegen/panels.py`): a block of `depth` x `columns` of the right one, then for
each block of `rows` of the left one all tiles of both.  A panel of the right factor stays in the first-level cache
while the block of the left one, in the second-level cache, passes by.

A tile is summed up in registers over one block of `depth`, and then added to c.  So an element of c is summed up in an
order that depends on the number of k alone, not on which part of c is computed together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, memref, scf

from parc.codegen.loops import delinearize
from parc.codegen.microkernel import constant, loop
from parc.codegen.panels import Blocking, Rows, Tile, call, flat_type, multiply, pack


@dataclass(frozen=True)
class Factor:
    """A side of the product: rows `first` (a multiple of a tile) to `stop` of a flat buffer.

    Row 0 begins at `start`, the next `stride` elements further on. `panels` is a buffer for a packed block.
    """

    buffer: ir.Value
    start: ir.Value
    stride: ir.Value
    first: ir.Value
    stop: ir.Value
    panels: ir.Value


@dataclass(frozen=True)
class Result:
    """c in a flat buffer: where it begins, and the strides from one row, and one column, to the next."""

    buffer: ir.Value
    start: ir.Value
    row_stride: ir.Value
    column_stride: ir.Value


@dataclass(frozen=True)
class Terms:
    """The k to sum over, numbered through all reductions: `first` (a multiple of a block) to `stop`."""

    first: ir.Value
    stop: ir.Value


@dataclass(frozen=True)
class Reduction:
    """A dimension that is summed over: its extent and the strides of both factors along it."""

    extent: ir.Value
    left: ir.Value
    right: ir.Value


@dataclass(frozen=True)
class BlockedProduct:
    """The product for some rows of both factors (rows and columns of c) and some terms; outermost reductions first."""

    left: Factor
    right: Factor
    result: Result
    terms: Terms
    reductions: Sequence[Reduction]

    def emit(self, module: ir.Module, blocking: Blocking) -> None:
        """Call the module's function for this type and number of reductions, which is added if it is not there."""

        def body(*arguments: ir.Value) -> None:
            left, right, result = Factor(*arguments[:6]), Factor(*arguments[6:12]), Result(*arguments[12:16])
            terms, rest = Terms(*arguments[16:18]), arguments[18:]
            reductions = [Reduction(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
            _Body(module, blocking, BlockedProduct(left, right, result, terms, reductions)).emit()

        parts = (self.left, self.right, self.result, self.terms, *self.reductions)
        arguments = [value for part in parts for value in vars(part).values()]
        call(module, f"contract_{blocking.element}_{len(self.reductions)}", arguments, body)


class _Body:
    """The body of a function that computes one product."""

    def __init__(self, module: ir.Module, blocking: Blocking, product: BlockedProduct) -> None:
        self.module = module
        self.blocking = blocking
        self.product = product
        index = ir.IndexType.get()
        offsets = ir.MemRefType.get([blocking.depth], index)
        self.offsets = [memref.cast(flat_type(index), memref.alloca(offsets, [], [])) for _ in range(2)]
        tile = ir.MemRefType.get([blocking.tile_rows * blocking.tile_columns], blocking.element)
        self.tile = memref.cast(blocking.flat, memref.alloca(tile, [], [], alignment=64))

    def emit(self) -> None:
        """The loops over blocks and tiles."""
        p, b = self.product, self.blocking
        with (
            _blocks(p.right.first, p.right.stop, b.columns) as (column, columns),
            _blocks(p.terms.first, p.terms.stop, b.depth) as (k, depth),
        ):
            runs = self._offsets(k, depth)
            self._pack(1, (column, columns), (runs[1], depth))
            with _blocks(p.left.first, p.left.stop, b.rows) as (row, rows):
                self._pack(0, (row, rows), (runs[0], depth))
                with (
                    _blocks(constant(0), columns, b.tile_columns) as (j, width),
                    _blocks(constant(0), rows, b.tile_rows) as (i, height),
                ):
                    self._tile((arith.addi(row, i), height, i), (arith.addi(column, j), width, j), depth)

    def _offsets(self, first: ir.Value, depth: ir.Value) -> list[ir.Value]:
        """Tabulate where `depth` k from `first` on are in a row of each factor; whether these are neighbours."""
        reductions = self.product.reductions
        extents = [r.extent for r in reductions]
        strides = [r.left for r in reductions], [r.right for r in reductions]
        yes = arith.constant(ir.IntegerType.get_signless(1), 1)
        counters = delinearize(first, extents)
        starts = [_dot(counters, s) for s in strides]
        steps = scf.ForOp(constant(0), depth, constant(1), [yes, yes, *counters])
        with ir.InsertionPoint(steps.body):
            runs, counters = list(steps.inner_iter_args)[:2], list(steps.inner_iter_args)[2:]
            for side in range(2):
                offset = _dot(counters, strides[side])
                memref.store(offset, self.offsets[side], [steps.induction_variable])
                expected = arith.addi(starts[side], steps.induction_variable)
                runs[side] = arith.andi(runs[side], arith.cmpi(arith.CmpIPredicate.eq, offset, expected))
            scf.YieldOp([*runs, *_next(counters, extents)])
        return list(steps.results_)[:2]

    def _pack(self, side: int, rows: tuple[ir.Value, ir.Value], k: tuple[ir.Value, ir.Value]) -> None:
        """Pack some rows (the first, their number) of a factor for a block of k (whether it is a run, their number)."""
        factor = (self.product.left, self.product.right)[side]
        width = (self.blocking.tile_rows, self.blocking.tile_columns)[side]
        start = arith.addi(factor.start, arith.muli(rows[0], factor.stride))
        unpacked = Rows(factor.buffer, start, factor.stride, rows[1], self.offsets[side], k[0])
        pack(self.module, self.blocking, width, unpacked, k[1], factor.panels)

    def _tile(
        self,
        rows: tuple[ir.Value, ir.Value, ir.Value],
        columns: tuple[ir.Value, ir.Value, ir.Value],
        depth: ir.Value,
    ) -> None:
        """One tile; rows and columns are the first in c, how many, and the first in the packed block."""
        p, c, b = self.product, self.product.result, self.blocking
        start = arith.addi(c.start, _dot([rows[0], columns[0]], [c.row_stride, c.column_stride]))
        left = (p.left.panels, arith.muli(rows[2], depth))
        right = (p.right.panels, arith.muli(columns[2], depth))
        equal = arith.CmpIPredicate.eq
        whole = arith.cmpi(equal, rows[1], constant(b.tile_rows))
        whole = arith.andi(whole, arith.cmpi(equal, columns[1], constant(b.tile_columns)))
        whole = arith.andi(whole, arith.cmpi(equal, c.column_stride, constant(1)))
        branch = scf.IfOp(whole, has_else=True)
        with ir.InsertionPoint(branch.then_block):
            multiply(self.module, b, left, right, depth, Tile(c.buffer, start, c.row_stride))
            scf.YieldOp([])
        with ir.InsertionPoint(branch.else_block):
            zero = arith.constant(b.element, 0.0)
            with loop(constant(0), constant(b.tile_rows * b.tile_columns), constant(1)) as i:
                memref.store(zero, self.tile, [i])
            multiply(self.module, b, left, right, depth, Tile(self.tile, constant(0), constant(b.tile_columns)))
            with loop(constant(0), rows[1], constant(1)) as i, loop(constant(0), columns[1], constant(1)) as j:
                place = arith.addi(start, _dot([i, j], [c.row_stride, c.column_stride]))
                total = memref.load(self.tile, [_dot([i, j], [constant(b.tile_columns), constant(1)])])
                memref.store(arith.addf(memref.load(c.buffer, [place]), total), c.buffer, [place])
            scf.YieldOp([])


@contextmanager
def _blocks(start: ir.Value, stop: ir.Value, size: int) -> Iterator[tuple[ir.Value, ir.Value]]:
    """A loop over blocks of a range: where a block starts and how long it is."""
    with loop(start, stop, constant(size)) as first:
        yield first, arith.minui(arith.subi(stop, first), constant(size))


def _dot(counters: Sequence[ir.Value], strides: Sequence[ir.Value]) -> ir.Value:
    total = constant(0)
    for counter, stride in zip(counters, strides, strict=True):
        total = arith.addi(total, arith.muli(counter, stride))
    return total


def _next(counters: Sequence[ir.Value], extents: Sequence[ir.Value]) -> list[ir.Value]:
    """The counters of nested loops, outermost first, one iteration later."""
    advanced: list[ir.Value] = []
    carry = constant(1)
    for counter, extent in zip(reversed(counters), reversed(extents), strict=True):
        following = arith.addi(counter, carry)
        over = arith.cmpi(arith.CmpIPredicate.eq, following, extent)
        carry = arith.select(over, constant(1), constant(0))
        advanced.insert(0, arith.select(over, constant(0), following))
    return advanced
