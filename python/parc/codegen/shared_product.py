"""A contraction of buffers as blocked products, shared among the threads of the team.

Rows that follow each other at one stride are one dimension of the product, and so are columns; this is found at run
time, and where it does not hold the outer ones are loops around it, as batch dimensions are.

Threads share the loops and, where there are few, parts of the rows and columns.  A small result of many terms, the
gradient of a small weight, is the sum of the results of parts of the terms, as many as the extents alone tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, memref, scf

from parc.codegen.blocked_product import BlockedProduct, Factor, Reduction, Result, Terms
from parc.codegen.contraction import LEFT, RESULT, RIGHT, Contraction
from parc.codegen.irtools import is_inside
from parc.codegen.loops import delinearize, index, share
from parc.codegen.microkernel import VectorTarget, loop
from parc.codegen.panels import Blocking

# Outer iterations for each thread that make it unnecessary to cut the products.
_ENOUGH = 4
# Parts of the terms at most, blocks of each at least, and elements of all their results.
_PARTS, _LEAST_BLOCKS, _SUMS = 32, 4, 1 << 18


def emit_contraction(module: ir.Module, contraction: Contraction, target: VectorTarget) -> None:
    """Emit a contraction of buffers at the insertion point: for the whole team, or the one thread that is there."""
    blocking = Blocking.of(contraction.operands[RESULT].type.element_type, target)
    if is_inside(contraction.op, "parc.team"):
        _Emitter(module, contraction, blocking, None).emit(index(0), index(1))
        return
    sums = _part_sums(contraction, blocking)
    team = ir.Operation.create("parc.team", regions=1)
    block = team.regions[0].blocks.append(ir.IndexType.get(), ir.IndexType.get())
    with ir.InsertionPoint(block):
        _Emitter(module, contraction, blocking, sums).emit(*block.arguments)
    if sums is not None:
        _add_up(sums, contraction.operands[RESULT])


def _part_sums(c: Contraction, blocking: Blocking) -> ir.Value | None:
    """A buffer `[parts, ...]` of zeros for the results of parts of the terms; None where there is but one part."""
    type_ = ir.MemRefType(c.operands[RESULT].type)
    shape, block = list(type_.shape), _LEAST_BLOCKS * blocking.depth
    if not type_.has_static_shape or prod(shape) == 0:
        return None
    most = min(_PARTS, _SUMS // prod(shape), c.assumed_size(c.reductions, _PARTS * block) // block)
    if most < 2:
        return None
    buffer = memref.alloc(ir.MemRefType.get([most, *shape], type_.element_type), [], [], alignment=64)
    terms = index(1)
    for d in c.reductions:
        terms = arith.muli(terms, c.extent(d))
    parts = arith.maxui(arith.minui(arith.divui(terms, index(block)), index(most)), index(1))
    dynamic, rank = ir.ShapedType.get_dynamic_size(), type_.rank
    part = ir.MemRefType.get([dynamic, *shape], type_.element_type)
    sizes, starts, steps = [dynamic, *shape], [0] * (rank + 1), [1] * (rank + 1)
    sums = memref.SubViewOp(part, buffer, [], [parts], [], starts, sizes, steps).result
    linalg.fill(arith.constant(type_.element_type, 0.0), outs=[sums])
    return sums


def _add_up(sums: ir.Value, result: ir.Value) -> None:
    """Add the parts to the result, one after the other."""
    rank = ir.MemRefType(sums.type).rank
    dims = [ir.AffineExpr.get_dim(d) for d in range(rank)]
    maps = [ir.AffineMap.get(rank, 0, results) for results in (dims, dims[1:])]
    kinds = ["reduction", *["parallel"] * (rank - 1)]
    generic = linalg.GenericOp([], [sums], [result], maps, kinds)
    element = result.type.element_type
    block = generic.regions[0].blocks.append(element, element)
    with ir.InsertionPoint(block):
        linalg.yield_([arith.addf(block.arguments[1], block.arguments[0])])


@dataclass(frozen=True)
class _Axis:
    """A dimension of the product: its extent and each operand's stride along it."""

    extent: ir.Value
    strides: tuple[ir.Value, ...]


class _Emitter:
    """The code of one contraction, inside the team."""

    def __init__(self, module: ir.Module, contraction: Contraction, blocking: Blocking, sums: ir.Value | None) -> None:
        self.module = module
        self.contraction = contraction
        self.blocking = blocking
        operands = list(contraction.operands)
        self.parts = index(1)
        if sums is not None:
            operands[RESULT] = sums
            self.parts = memref.dim(sums, index(0))
        self.buffers, self.starts, self.strides = zip(*(self._flat(v) for v in operands), strict=True)
        self.part_stride = self.strides[RESULT].pop(0) if sums is not None else index(0)

    def _flat(self, operand: ir.Value) -> tuple[ir.Value, ir.Value, list[ir.Value]]:
        """An operand as a flat buffer, the offset of its first element in it, and its strides."""
        type_ = ir.MemRefType(operand.type)
        buffer, offset, *rest = memref.ExtractStridedMetadataOp(operand).results
        sizes, strides = rest[: type_.rank], list(rest[type_.rank :])
        end = offset
        for size, stride in zip(sizes, strides, strict=True):
            end = arith.addi(end, arith.muli(size, stride))
        dynamic = ir.ShapedType.get_dynamic_size()
        flat = memref.ReinterpretCastOp(self.blocking.flat, buffer, [], [end], [], [0], [dynamic], [1]).result
        return flat, offset, strides

    def emit(self, tid: ir.Value, nthreads: ir.Value) -> None:
        """What one thread does: its share of the parts of all products."""
        c, b = self.contraction, self.blocking
        scratch = self._scratch()
        rows, row_loops = _merge([self._axis(d) for d in c.rows], (LEFT, RESULT))
        columns, column_loops = _merge([self._axis(d) for d in c.columns], (RIGHT, RESULT))
        reductions = [Reduction(a.extent, a.strides[LEFT], a.strides[RIGHT]) for a in map(self._axis, c.reductions)]
        part = _Axis(self.parts, (index(0), index(0), self.part_stride))
        outer = [part, *map(self._axis, c.batch), *row_loops, *column_loops]
        terms = index(1)
        for reduction in reductions:
            terms = arith.muli(terms, reduction.extent)
        blocks = arith.ceildivui(terms, index(b.depth))
        count = index(1)
        for axis in outer:
            count = arith.muli(count, axis.extent)
        tiles = [
            arith.ceildivui(rows.extent, index(b.tile_rows)),
            arith.ceildivui(columns.extent, index(b.tile_columns)),
        ]
        many = arith.cmpi(arith.CmpIPredicate.uge, count, arith.muli(nthreads, index(_ENOUGH)))
        pieces = arith.select(many, index(1), nthreads)
        cut = self._cut(tiles, pieces)
        lower, upper = share(arith.muli(count, pieces), tid, nthreads)
        with loop(lower, upper, index(1)) as task:
            *counters, i, j = delinearize(task, [*(axis.extent for axis in outer), *cut])
            starts = list(self.starts)
            for counter, axis in zip(counters, outer, strict=True):
                starts = [arith.addi(s, arith.muli(counter, t)) for s, t in zip(starts, axis.strides, strict=True)]
            left, right, result = (starts[operand] for operand in (LEFT, RIGHT, RESULT))
            left_range = _range(rows.extent, tiles[0], b.tile_rows, i, cut[0])
            right_range = _range(columns.extent, tiles[1], b.tile_columns, j, cut[1])
            BlockedProduct(
                Factor(self.buffers[LEFT], left, rows.strides[LEFT], *left_range, scratch[0]),
                Factor(self.buffers[RIGHT], right, columns.strides[RIGHT], *right_range, scratch[1]),
                Result(self.buffers[RESULT], result, rows.strides[RESULT], columns.strides[RESULT]),
                Terms(*_range(terms, blocks, b.depth, counters[0], self.parts)),
                reductions,
            ).emit(self.module, b)

    def _axis(self, dim: int) -> _Axis:
        places = [self.contraction.place(operand, dim) for operand in range(3)]
        strides = (index(0) if p is None else s[p] for s, p in zip(self.strides, places, strict=True))
        return _Axis(self.contraction.extent(dim), tuple(strides))

    def _scratch(self) -> tuple[ir.Value, ir.Value]:
        """A thread's buffers for the packed blocks, no larger than the factors are known to be."""
        c, b = self.contraction, self.blocking
        depth = min(b.depth, c.assumed_size(c.reductions, b.depth))
        sizes = []
        for dims, block, tile in ((c.rows, b.rows, b.tile_rows), (c.columns, b.columns, b.tile_columns)):
            tiles = min(block // tile, -(-c.assumed_size(dims, block) // tile))
            sizes.append(ir.MemRefType.get([tiles * tile * depth], b.element))
        left, right = (memref.cast(b.flat, memref.alloc(size, [], [], alignment=64)) for size in sizes)
        return left, right

    def _cut(self, tiles: Sequence[ir.Value], pieces: ir.Value) -> tuple[ir.Value, ir.Value]:
        """How many pieces to cut rows and columns into: so that the largest, with its packing, takes least time."""
        b, one = self.blocking, index(1)
        search = scf.ForOp(one, arith.addi(pieces, one), one, [one, index((1 << 63) - 1)])
        with ir.InsertionPoint(search.body):
            best, least = search.inner_iter_args
            candidate = search.induction_variable
            other = arith.divui(pieces, candidate)
            height = arith.muli(arith.ceildivui(tiles[0], candidate), index(b.tile_rows))
            width = arith.muli(arith.ceildivui(tiles[1], other), index(b.tile_columns))
            # To pack an element takes about as long as to multiply it with as many as a tile is wide.
            cost = arith.addi(arith.muli(height, width), arith.muli(arith.addi(height, width), index(b.tile_columns)))
            divides = arith.cmpi(arith.CmpIPredicate.eq, arith.muli(candidate, other), pieces)
            better = arith.andi(divides, arith.cmpi(arith.CmpIPredicate.ult, cost, least))
            scf.YieldOp([arith.select(better, candidate, best), arith.select(better, cost, least)])
        rows = search.results_[0]
        return rows, arith.divui(pieces, rows)


def _range(
    extent: ir.Value, tiles: ir.Value, size: int, number: ir.Value, parts: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """The elements of one of so many parts of a dimension, which is cut between tiles."""
    bounds = (arith.muli(tile, index(size)) for tile in share(tiles, number, parts))
    lower, upper = (arith.minui(bound, extent) for bound in bounds)
    return lower, upper


def _merge(axes: Sequence[_Axis], operands: Sequence[int]) -> tuple[_Axis, list[_Axis]]:
    """The innermost axis with those merged into it that go on where it ends in these operands; the others.

    What was merged stays among the others with an extent of 1.
    """
    *outer, inner = axes
    loops: list[_Axis] = []
    for axis in reversed(outer):
        fits = [
            arith.cmpi(arith.CmpIPredicate.eq, axis.strides[i], arith.muli(inner.extent, inner.strides[i]))
            for i in operands
        ]
        both = arith.andi(*fits)
        loops.insert(0, _Axis(arith.select(both, index(1), axis.extent), axis.strides))
        extent = arith.select(both, arith.muli(axis.extent, inner.extent), inner.extent)
        inner = _Axis(extent, inner.strides)
    return inner, loops
