"""Contractions outside of systems for thread blocks: each computes squares of the result, from squares of factors.

A square of both factors is copied to shared memory at a time; each thread adds up some elements of one column of the
result.  Terms are added in the order of the reduction's dimensions: the sums depend on nothing else.
"""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, func, gpu, math, memref, scf

from parc.codegen.blocks.target import WARP, BlockTarget, workgroup
from parc.codegen.contraction import LEFT, RESULT, RIGHT, Contraction
from parc.codegen.loops import delinearize, index
from parc.codegen.microkernel import constant, loop
from parc.dialect import TeamOp

_SIDE = WARP
"""Of a square."""
_LENGTH = _SIDE + 1
"""Of its rows in shared memory: elements of a column are in banks of their own."""


def emit_block_contraction(module: ir.Module, contraction: Contraction, target: BlockTarget) -> None:
    """Emit a contraction at the insertion point, as a team whose members take its squares in turns."""
    name = f"contract_{sum(1 for op in module.body.operations if 'sym_name' in op.attributes)}"
    element = contraction.operands[RESULT].type.element_type
    square = workgroup(ir.MemRefType.get([_SIDE * _LENGTH], element))
    types = [ir.IndexType.get(), *(v.type for v in contraction.operands), square, square]
    with ir.InsertionPoint(module.body):
        function = func.FuncOp(name, ir.FunctionType.get(types, []), visibility="private")
    function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
    with ir.InsertionPoint(function.add_entry_block()):
        number, *operands, left, right = function.arguments
        _Square(contraction, operands, (left, right), target).emit(number)
        func.ReturnOp([])
    counts = _Extents(contraction, contraction.operands).squares()
    total = counts[0]
    for count in counts[1:]:
        total = arith.muli(total, count)
    team = TeamOp()
    block = team.operation.regions[0].blocks.append(ir.IndexType.get(), ir.IndexType.get())
    with ir.InsertionPoint(block):
        tid, members = block.arguments
        squares = [memref.AllocOp(square, [], []).result for _ in range(2)]
        with loop(tid, total, members) as number:
            operands = [number, *contraction.operands, *squares]
            func.CallOp([], ir.FlatSymbolRefAttr.get(name), operands)


class _Extents:
    """The extents of a contraction's dimensions; the operands may be the arguments of a function."""

    def __init__(self, contraction: Contraction, operands: Sequence[ir.Value]) -> None:
        self.contraction = contraction
        self.operands = operands

    def extent(self, dim: int) -> ir.Value:
        """Of one dimension."""
        static = self.contraction.static_extent(dim)
        if static is not None:
            return index(static)
        places = ((i, self.contraction.place(i, dim)) for i in range(len(self.operands)))
        operand, place = next((i, p) for i, p in places if p is not None)
        return memref.dim(self.operands[operand], index(place))

    def extents(self, dims: Sequence[int]) -> list[ir.Value]:
        """Of some dimensions."""
        return [self.extent(d) for d in dims]

    def count(self, dims: Sequence[int]) -> ir.Value:
        """The product of the extents of some dimensions."""
        total = index(1)
        for extent in self.extents(dims):
            total = arith.muli(total, extent)
        return total

    def squares(self) -> list[ir.Value]:
        """How many matrices, rows of squares and columns of squares there are."""
        c = self.contraction
        sides = [arith.ceildivui(self.count(dims), index(_SIDE)) for dims in (c.rows, c.columns)]
        return [self.count(c.batch), *sides]


class _Square(_Extents):
    """The code of one square of the result."""

    def __init__(
        self,
        contraction: Contraction,
        operands: Sequence[ir.Value],
        shared: tuple[ir.Value, ir.Value],
        target: BlockTarget,
    ) -> None:
        super().__init__(contraction, operands)
        self.shared = shared
        self.threads = target.threads
        self.thread = gpu.thread_id(gpu.Dimension.x)
        self.element = operands[RESULT].type.element_type

    def emit(self, number: ir.Value) -> None:
        """Compute the square with this number."""
        c = self.contraction
        matrix, row_block, column_block = delinearize(number, self.squares())
        batch = dict(zip(c.batch, delinearize(matrix, self.extents(c.batch)), strict=True)) if c.batch else {}
        rows, columns, terms = (self.count(dims) for dims in (c.rows, c.columns, c.reductions))
        first_row, first_column = (arith.muli(b, constant(_SIDE)) for b in (row_block, column_block))
        column = arith.remui(self.thread, constant(_SIDE))
        # Each thread has every so-manyth row.
        step = self.threads // _SIDE
        own = [arith.addi(arith.divui(self.thread, constant(_SIDE)), constant(i)) for i in range(0, _SIDE, step)]
        zero = arith.constant(self.element, 0.0)
        steps = scf.ForOp(constant(0), terms, constant(_SIDE), [zero] * len(own))
        with ir.InsertionPoint(steps.body):
            k = steps.induction_variable
            self._copy(LEFT, c.rows, first_row, rows, k, terms, batch)
            self._copy(RIGHT, c.columns, first_column, columns, k, terms, batch)
            gpu.barrier()
            inner = scf.ForOp(constant(0), constant(_SIDE), constant(1), list(steps.inner_iter_args))
            with ir.InsertionPoint(inner.body):
                i, totals = inner.induction_variable, inner.inner_iter_args
                right = memref.load(self.shared[RIGHT], [_at(column, i)])
                lefts = [memref.load(self.shared[LEFT], [_at(row, i)]) for row in own]
                scf.YieldOp([math.fma(left, right, total) for left, total in zip(lefts, totals, strict=True)])
            gpu.barrier()
            scf.YieldOp(list(inner.results_))
        here = arith.addi(first_column, column)
        for row, total in zip(own, steps.results_, strict=True):
            at = arith.addi(first_row, row)
            branch = scf.IfOp(arith.andi(_below(at, rows), _below(here, columns)))
            with ir.InsertionPoint(branch.then_block):
                place = self._indices(RESULT, batch | self._position(c.rows, at) | self._position(c.columns, here))
                result = self.operands[RESULT]
                memref.store(arith.addf(memref.load(result, place), total), result, place)
                scf.YieldOp([])

    def _copy(
        self,
        side: int,
        dims: Sequence[int],
        first: ir.Value,
        stop: ir.Value,
        first_term: ir.Value,
        terms: ir.Value,
        batch: dict[int, ir.Value],
    ) -> None:
        """A square of a factor, with zeros behind its end; neighbouring threads read neighbours in memory."""
        last = self.contraction.maps[side].results[-1].position
        terms_first = last in self.contraction.reductions
        with loop(self.thread, constant(_SIDE * _SIDE), constant(self.threads)) as i:
            slow, fast = delinearize(i, [constant(_SIDE), constant(_SIDE)])
            line, term = (slow, fast) if terms_first else (fast, slow)
            at, k = arith.addi(first, line), arith.addi(first_term, term)
            inside = arith.andi(_below(at, stop), _below(k, terms))
            found = scf.IfOp(inside, results_=[self.element], has_else=True)
            with ir.InsertionPoint(found.then_block):
                position = batch | self._position(dims, at) | self._position(self.contraction.reductions, k)
                scf.YieldOp([memref.load(self.operands[side], self._indices(side, position))])
            with ir.InsertionPoint(found.else_block):
                scf.YieldOp([arith.constant(self.element, 0.0)])
            memref.store(found.results_[0], self.shared[side], [_at(line, term)])

    def _position(self, dims: Sequence[int], number: ir.Value) -> dict[int, ir.Value]:
        """The coordinates of the point with this number."""
        return dict(zip(dims, delinearize(number, self.extents(dims)), strict=True)) if dims else {}

    def _indices(self, operand: int, position: dict[int, ir.Value]) -> list[ir.Value]:
        return [position[e.position] for e in self.contraction.maps[operand].results]


def _at(line: ir.Value, term: ir.Value) -> ir.Value:
    """Where an element of a square is in shared memory."""
    return arith.addi(arith.muli(line, constant(_LENGTH)), term)


def _below(value: ir.Value, stop: ir.Value) -> ir.Value:
    return arith.cmpi(arith.CmpIPredicate.ult, value, stop)
