"""The Jacobian blocks of an affine recurrence as tiles: diagonal ones, and dense ones of each row of the state."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, math

from parc.errors import CompileError
from parc.solvers.affine import AffineBody

_LEAST_NORMAL = {"f16": 2.0**-14, "bf16": 2.0**-126, "f32": 2.0**-126, "f64": 2.0**-1022}
"""The smallest normal number of each element type."""


class Blocks(ABC):
    """What multiplies the state of a recurrence; the methods emit code."""

    def __init__(self, body: AffineBody) -> None:
        self.body = body
        self.rank: int = body.result.type.rank

    columns: tuple[int, ...]
    """The extents that a block has in front of those of a state."""

    @abstractmethod
    def identity(self) -> ir.Value:
        """The block that changes nothing."""

    @abstractmethod
    def times(self, block: ir.Value, state: ir.Value) -> ir.Value:
        """`block state`."""

    @abstractmethod
    def compose(self, later: ir.Value, earlier: ir.Value) -> ir.Value:
        """`later earlier`, both blocks."""

    def plus(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """The sum of two states, or of two blocks."""
        rank: int = left.type.rank
        maps = [ir.AffineMap.get_identity(rank)] * 3
        out = self.body.empty(self.body.result, self.columns if rank > self.rank else ())
        op = _generic([left, right], out, maps, ["parallel"] * rank)
        a, b, _ = op.regions[0].blocks[0].arguments
        with ir.InsertionPoint(op.regions[0].blocks[0]):
            linalg.YieldOp([arith.addf(a, b)])
        return op.results[0]

    def settled(self, block: ir.Value) -> ir.Value:
        """The block with zeros for its numbers that are too small to be normal.

        Products of many factors below 1 end at the smallest number there is, where each multiplication rounds back to
        it, and processors take a hundred times longer for such numbers.
        """
        type_ = ir.RankedTensorType(block.type)
        least = ir.FloatAttr.get(type_.element_type, _LEAST_NORMAL[str(type_.element_type)])
        maps = [ir.AffineMap.get_identity(type_.rank)] * 2
        op = _generic([block], self.body.empty(self.body.result, self.columns), maps, ["parallel"] * type_.rank)
        number = op.regions[0].blocks[0].arguments[0]
        with ir.InsertionPoint(op.regions[0].blocks[0]):
            is_small = arith.cmpf(arith.CmpFPredicate.OLT, math.absf(number), arith.constant(least.type, least))
            linalg.YieldOp([arith.select(is_small, arith.constant(least.type, 0.0), number)])
        return op.results[0]


class DiagonalBlocks(Blocks):
    """Tiles like the state, of the factors of its elements."""

    columns = ()

    def identity(self) -> ir.Value:
        return self.body.filled(self.body.result, 1.0)

    def times(self, block: ir.Value, state: ir.Value) -> ir.Value:
        dims = list(range(self.rank))
        return _multiply(block, dims, state, dims, self.body.empty(self.body.result), dims)

    def compose(self, later: ir.Value, earlier: ir.Value) -> ir.Value:
        return self.times(later, earlier)


class DenseBlocks(Blocks):
    """Tiles `[k, rows, n]`: element k of a row of the state adds `block[k, row]` times itself to that row."""

    def __init__(self, body: AffineBody) -> None:
        super().__init__(body)
        type_ = ir.RankedTensorType(body.result.type)
        if not type_.rank or type_.is_dynamic_dim(type_.rank - 1):
            raise CompileError(f"the Jacobian of {body.name} has no known size", body.result.owner.location)
        self.columns = (type_.get_dim_size(type_.rank - 1),)

    def identity(self) -> ir.Value:
        element = self.body.result.type.element_type
        out = self.body.empty(self.body.result, self.columns)
        maps = [ir.AffineMap.get_identity(self.rank + 1)]
        op = _generic([], out, maps, ["parallel"] * (self.rank + 1))
        with ir.InsertionPoint(op.regions[0].blocks[0]):
            row, column = linalg.IndexOp(0).result, linalg.IndexOp(self.rank).result
            same = arith.cmpi(arith.CmpIPredicate.eq, row, column)
            number = arith.select(same, arith.constant(element, 1.0), arith.constant(element, 0.0))
            linalg.YieldOp([number])
        return op.results[0]

    def times(self, block: ir.Value, state: ir.Value) -> ir.Value:
        *rows, last = range(self.rank)
        k = self.rank
        start = self.body.filled(self.body.result, 0.0)
        return _multiply(state, [*rows, k], block, [k, *rows, last], start, [*rows, last])

    def compose(self, later: ir.Value, earlier: ir.Value) -> ir.Value:
        *rows, last = range(self.rank)
        column, k = self.rank, self.rank + 1
        start = self.body.filled(self.body.result, 0.0, self.columns)
        return _multiply(earlier, [column, *rows, k], later, [k, *rows, last], start, [column, *rows, last])


def blocks_of(body: AffineBody) -> Blocks:
    """The smallest form that the Jacobian of a body has."""
    return DiagonalBlocks(body) if body.is_diagonal else DenseBlocks(body)


def _multiply(
    left: ir.Value,
    left_dims: Sequence[int],
    right: ir.Value,
    right_dims: Sequence[int],
    out: ir.Value,
    out_dims: Sequence[int],
) -> ir.Value:
    """The product of two tensors, summed over the dimensions that `out` does not have."""
    count = 1 + max(*left_dims, *right_dims)
    maps = [
        ir.AffineMap.get(count, 0, [ir.AffineExpr.get_dim(d) for d in dims])
        for dims in (left_dims, right_dims, out_dims)
    ]
    op = _generic([left, right], out, maps, ["parallel" if d in out_dims else "reduction" for d in range(count)])
    a, b, total = op.regions[0].blocks[0].arguments
    with ir.InsertionPoint(op.regions[0].blocks[0]):
        product = arith.mulf(a, b)
        linalg.YieldOp([arith.addf(total, product) if count > len(out_dims) else product])
    return op.results[0]


def _generic(
    inputs: Sequence[ir.Value], out: ir.Value, maps: Sequence[ir.AffineMap], kinds: Sequence[str]
) -> linalg.GenericOp:
    """A `linalg.generic` with an empty body."""
    op = linalg.GenericOp(
        [out.type],
        list(inputs),
        [out],
        ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
        ir.ArrayAttr.get([ir.Attribute.parse(f"#linalg.iterator_type<{kind}>") for kind in kinds]),
    )
    elements = [v.type.element_type for v in (*inputs, out)]
    op.regions[0].blocks.append(*elements, arg_locs=[ir.Location.current] * len(elements))
    return op
