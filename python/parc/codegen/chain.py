"""Kernels of chains: many points of a cell one after another, where each element needs itself at the point before.

What a point hands to the next stays in registers where a tile is small, and else in a scratch tile in the first-level
cache; memory sees it only where it is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, memref, scf

from parc.codegen.cell import Cell, Load, Reduction
from parc.codegen.microkernel import constant, loop
from parc.codegen.pointwise import Place, Pointwise, for_units, no_sums

_FEW = 32
"""Elements of a tile that fill no more than a few vectors: one after another, each goes through all points."""
_SCRATCH = 2048
"""Elements of a scratch tile: several of them fit a first-level cache."""

States = Mapping[tuple[int, int], ir.Value]
"""Vectors of what is handed on, by operand and column."""


@dataclass(frozen=True)
class Carry:
    """What the points of a chain hand on; operands are numbers of those of the cell."""

    states: tuple[tuple[int, int], ...]
    """What is read, and as what the point before wrote it."""
    kept: frozenset[int]
    """Those of the written that are read by others at the last point of a chain at most: only that one is stored."""


def can_carry(cell: Cell, read: int, write: int) -> bool:
    """Whether each element of a tile is computed from that of the point before alone, at the same place."""
    source, target = cell.operands[read], cell.operands[write]
    if source.kind != "read" or source.repeat != 1 or source.extents[-1:] != target.extents[-1:]:
        return False
    columns = {o.column for o in cell.outputs if o.operand == write}
    loads = [n for n in cell.nodes if isinstance(n, Load) and n.operand == read]
    plain = all(n.stride == 1 and not n.depth_stride and n.column in columns for n in loads)
    return plain and not cell.products and not any(isinstance(n, Reduction) for n in cell.nodes)


class Chain:
    """Emits the body of a chain's kernel.

    Of each operand the tile of the first point is at its offset, and that of each next one a stride further; of what is
    `kept`, the tile of the last point is at the offset.
    """

    def __init__(
        self,
        cell: Cell,
        width: int,
        carry: Carry,
        buffers: Sequence[ir.Value],
        offsets: Sequence[ir.Value],
        strides: Sequence[ir.Value],
    ) -> None:
        self.cell = cell
        self.width = width
        self.carry = carry
        self.buffers = buffers
        self.offsets = offsets
        self.strides = strides
        self.parts = [(r, w, o.column) for r, w in carry.states for o in cell.outputs if o.operand == w]
        """What is handed on in vectors: (read operand, written operand, column)."""

    def emit(self, rows: tuple[ir.Value, ir.Value], count: ir.Value) -> None:
        """All units of the rows from the first to the second, at `count` points."""
        some = scf.IfOp(arith.cmpi(arith.CmpIPredicate.sgt, count, constant(0)))
        with ir.InsertionPoint(some.then_block):
            elements = arith.muli(arith.subi(rows[1], rows[0]), constant(self.cell.units))
            few = scf.IfOp(arith.cmpi(arith.CmpIPredicate.ule, elements, constant(_FEW)), has_else=True)
            for block, emit in ((few.then_block, self._in_registers), (few.else_block, self._in_scratch)):
                with ir.InsertionPoint(block):
                    emit(rows, count)
                    scf.YieldOp([])
            scf.YieldOp([])

    def _in_registers(self, rows: tuple[ir.Value, ir.Value], count: ir.Value) -> None:
        """One vector of units after another, each at all points."""
        with loop(*rows, constant(1)) as row:
            self._for_units(lambda unit, valid: self.element(row, unit, valid, count))

    def element(self, row: ir.Value, unit: ir.Value, valid: ir.Value | None, count: ir.Value) -> None:
        """One vector of units of a row at all points."""
        first = self._point(constant(0))
        starts = [first.load(read, column, row, unit, valid) for read, _, column in self.parts]
        steps = scf.ForOp(constant(0), count, constant(1), starts)
        with ir.InsertionPoint(steps.body):
            states = {(r, c): v for (r, _, c), v in zip(self.parts, steps.inner_iter_args, strict=True)}
            after = self._point(steps.induction_variable).compute(row, unit, valid, states)
            scf.YieldOp([after[write, column] for _, write, column in self.parts])
        for (_, write, column), value in zip(self.parts, steps.results_, strict=True):
            if write in self.carry.kept:
                first.store(value, write, column, row, unit, valid)

    def _in_scratch(self, rows: tuple[ir.Value, ir.Value], count: ir.Value) -> None:
        """Blocks of rows, each at one point after another."""
        block = max(1, _SCRATCH // self.cell.units)
        scratch = {(write, column): self._tile(write, block) for _, write, column in self.parts}
        with loop(*rows, constant(block)) as start:
            stop = arith.minui(arith.addi(start, constant(block)), rows[1])
            first = self._point(constant(0))

            def inside(unit: ir.Value) -> ir.Value:
                return arith.addi(arith.muli(arith.subi(row, start), constant(self.cell.units)), unit)

            def begin(unit: ir.Value, valid: ir.Value | None) -> None:
                for read, write, column in self.parts:
                    value = first.load(read, column, row, unit, valid)
                    first.put(value, scratch[write, column], inside(unit), valid)

            def step(unit: ir.Value, valid: ir.Value | None) -> None:
                places = {part: (scratch[part[1:]], inside(unit)) for part in self.parts}
                states = {(r, c): point.get(*places[r, w, c], valid) for r, w, c in self.parts}
                after = point.compute(row, unit, valid, states)
                for part in self.parts:
                    point.put(after[part[1:]], *places[part], valid)

            def end(unit: ir.Value, valid: ir.Value | None) -> None:
                for _, write, column in self.parts:
                    if write in self.carry.kept:
                        value = first.get(scratch[write, column], inside(unit), valid)
                        first.store(value, write, column, row, unit, valid)

            with loop(start, stop, constant(1)) as row:
                self._for_units(begin)
            with loop(constant(0), count, constant(1)) as number:
                point = self._point(number)
                with loop(start, stop, constant(1)) as row:
                    self._for_units(step)
            with loop(start, stop, constant(1)) as row:
                self._for_units(end)

    def _for_units(self, emit: Callable[[ir.Value, ir.Value | None], None]) -> None:
        for_units(self.cell.units, self.width, constant(0), constant(self.cell.units), emit)

    def _tile(self, write: int, rows: int) -> ir.Value:
        """A scratch tile for one column of units."""
        element = ir.MemRefType(self.buffers[write].type).element_type
        return memref.alloca(ir.MemRefType.get([rows * self.cell.units], element), [], [], alignment=64)

    def _point(self, number: ir.Value) -> "_Point":
        """The code of the point with this number."""
        moved = [arith.muli(number, stride) for stride in self.strides]
        offsets = [arith.addi(start, by) for start, by in zip(self.offsets, moved, strict=True)]
        return _Point(self.cell, self.width, self.carry, self.buffers, offsets)


class _Point(Pointwise):
    """One point: loads, the expressions of one vector of units, and stores; `valid` units count, all if it is None."""

    def __init__(
        self, cell: Cell, width: int, carry: Carry, buffers: Sequence[ir.Value], offsets: Sequence[ir.Value]
    ) -> None:
        super().__init__(cell, width, buffers, offsets, no_sums)
        self.kept = carry.kept

    def compute(self, row: ir.Value, unit: ir.Value, valid: ir.Value | None, states: States) -> States:
        """What the point writes, from what the one before handed on; stores what is not kept."""
        place = self._place(row, unit, valid)
        for number, node in enumerate(self.cell.nodes):
            if isinstance(node, Load) and (node.operand, node.column) in states:
                place.values[number] = states[node.operand, node.column]
        results = {(o.operand, o.column): self._value(o.node, place) for o in self.cell.outputs}
        for (write, column), result in results.items():
            if write not in self.kept:
                self._store(write, column, result, place)
        return results

    def load(self, operand: int, column: int, row: ir.Value, unit: ir.Value, valid: ir.Value | None) -> ir.Value:
        """A vector of an operand."""
        return self._load(Load(operand, column, 1), self._place(row, unit, valid))

    def store(
        self, value: ir.Value, operand: int, column: int, row: ir.Value, unit: ir.Value, valid: ir.Value | None
    ) -> None:
        """Store a vector of an operand."""
        self._store(operand, column, value, self._place(row, unit, valid))

    def get(self, buffer: ir.Value, position: ir.Value, valid: ir.Value | None) -> ir.Value:
        """A vector of any buffer."""
        type_ = self._vector(ir.MemRefType(buffer.type).element_type)
        return self._get(type_, buffer, position, self._mask(valid))

    def put(self, value: ir.Value, buffer: ir.Value, position: ir.Value, valid: ir.Value | None) -> None:
        """Store a vector in any buffer."""
        self._put(value, buffer, position, self._mask(valid))

    def _place(self, row: ir.Value, unit: ir.Value, valid: ir.Value | None) -> Place:
        return Place(row, "unit", unit=unit, count=valid, mask=self._mask(valid))
