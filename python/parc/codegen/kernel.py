"""One vectorised function per cell: products into a scratch tile, then the cell's expression.

    func.func private @name(%r0, %r1, %u0, %u1 : index, %m0 : memref<?xT>, %o0 : index, %m1, %o1, ...)

computes rows r0..r1 and units u0..u1.  The operands are those of the cell, in its order; a weight is its packed
form (`codegen/packing.py`).  u0 is a multiple of `Kernel.unit_tile`; so is u1, or it is N.

For every unit tile and block of rows the micro-kernels (`codegen/microkernel.py`, shared by all kernels of a module)
add up the products in a scratch tile `[rows][contraction][unit tile]`, which stays in the first-level cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref, scf, vector

from parc.codegen.cell import Cell, Contraction, Product
from parc.codegen.chain import Carry, Chain
from parc.codegen.microkernel import PANEL_VECTORS, SUMS_IN_FLIGHT, MicroKernel, VectorTarget, constant, loop
from parc.codegen.packing import Layout
from parc.codegen.pointwise import Pointwise, splat

__all__ = ["Kernel", "VectorTarget", "emit_kernel"]

_TILES_TO_SHARE = 8  # unit tiles that a cell keeps, so that threads can share them


@dataclass(frozen=True)
class Kernel:
    """An emitted kernel: the function's name, its unit granularity and how each weight operand is to be packed."""

    name: str
    unit_tile: int
    layouts: dict[int, Layout]  # operand number of a weight -> its layout
    is_strided: bool = False


def emit_kernel(
    module: ir.Module,
    cell: Cell,
    name: str,
    target: VectorTarget,
    is_strided: bool = False,
    carry: Carry | None = None,
) -> Kernel:
    """Add the kernel of `cell` to `module` as `@name` (and the micro-kernels it calls, unless they are there).

    A strided kernel, of a cell without products, computes these rows and units at %n points whose tiles are at constant
    distances %s in memory: `@name(%r0, %r1, %u0, %u1, %n : index, %m0 : memref<?xT>, %o0, %s0 : index, ...)`.
    With a `carry` they come one after another, and %u0 to %u1 are all units (`codegen/chain.py`).
    Callers share a kernel between cells with equal `Cell.key`.
    """
    with module.context, ir.Location.unknown(), ir.InsertionPoint(module.body):
        plan = _plan(cell, target)
        if is_strided:
            _emit_strided(plan, name, carry)
        else:
            _emit_function(plan, name)
        present = {
            ir.StringAttr(op.attributes["sym_name"]).value
            for op in module.body.operations
            if "sym_name" in op.attributes
        }
        for micro in plan.micro_kernels():
            if micro.name not in present:
                micro.emit()
    return Kernel(name, plan.unit_tile, plan.layouts, is_strided)


@dataclass(frozen=True)
class _Run:
    """Consecutive groups of a weight whose products go to consecutive sums."""

    group: int
    total: int
    count: int


@dataclass(frozen=True)
class _Stage:
    """All products of one left factor with one weight."""

    product: Product  # one of them: they differ in their column
    runs: tuple[_Run, ...]


@dataclass(frozen=True)
class _Plan:
    """Tile sizes, the order of products, and where their sums are in the scratch tile."""

    cell: Cell
    target: VectorTarget
    unit_tile: int
    layouts: dict[int, Layout]
    totals: dict[int, int]  # node number of a contraction -> its place among the sums
    stages: tuple[_Stage, ...]

    @property
    def lanes(self) -> int:
        return self.target.lanes(self.cell.dtype)

    @property
    def width(self) -> int:
        """Elements of the vectors of expressions: two at a time keep more independent operations in flight."""
        return self.lanes * (PANEL_VECTORS if self.cell.units % (PANEL_VECTORS * self.lanes) == 0 else 1)

    @property
    def row_length(self) -> int:
        """Elements of a row of the scratch tile."""
        return len(self.totals) * self.unit_tile

    def passes(self, stage: _Stage, rows: int) -> list[tuple[MicroKernel, int, int, int]]:
        """(micro-kernel, first panel of the weight, first panel of the sums, how many times its panels)."""
        per_group = self.unit_tile // (PANEL_VECTORS * self.lanes)
        most = self.target.panels(rows)
        found = []
        for run in stage.runs:
            panels, done = run.count * per_group, 0
            calls = -(-panels // most)
            # Even shares: 4 panels at most 3 at a time are 2 + 2.
            shares = [panels // calls + (i < panels % calls) for i in range(calls)]
            for size, same in groupby(shares):
                times = len(list(same))
                micro = MicroKernel(self.cell.dtype, self.lanes, rows, size)
                found.append((micro, run.group * per_group + done, run.total * per_group + done, times))
                done += size * times
        return found

    def micro_kernels(self) -> list[MicroKernel]:
        """Those that the kernel calls, each once."""
        rows = range(1, self.target.row_block + 1)
        return list(dict.fromkeys(p[0] for r in rows for stage in self.stages for p in self.passes(stage, r)))


def _plan(cell: Cell, target: VectorTarget) -> _Plan:
    contractions = [(n, node) for n, node in enumerate(cell.nodes) if isinstance(node, Contraction)]
    # By weight and column: neighbouring groups then have neighbouring sums.
    contractions.sort(key=lambda item: (item[1].products[0].weight, item[1].products[0].column))
    totals = {n: place for place, (n, _) in enumerate(contractions)}
    unit_tile = _unit_tile(cell, len(totals), PANEL_VECTORS * target.lanes(cell.dtype))
    layouts = {}
    for number, operand in enumerate(cell.operands):
        if operand.kind == "weight":
            columns = tuple(sorted({p.column for p in cell.products if p.weight == number}))
            depth = operand.extents[1 if operand.transposed else 0] or 0
            panel = PANEL_VECTORS * target.lanes(cell.dtype)
            layouts[number] = Layout(cell.units, depth, columns, unit_tile, panel, operand.transposed)
    stages: dict[tuple[int, ...], list[tuple[int, int, Product]]] = {}
    for n, node in contractions:
        for p in node.products:
            left = (p.read, p.read_column, p.weight, p.row, p.depth)
            stages.setdefault(left, []).append((layouts[p.weight].columns.index(p.column), totals[n], p))
    found = tuple(_Stage(items[0][2], _runs([item[:2] for item in items])) for items in stages.values())
    return _Plan(cell, target, unit_tile, layouts, totals, found)


def _unit_tile(cell: Cell, totals: int, panel: int) -> int:
    """One panel per group; more where there are few groups, so that a single row has enough sums in flight."""
    tile = panel
    while 0 < totals * tile < SUMS_IN_FLIGHT // PANEL_VECTORS * panel and cell.units >= 2 * tile * _TILES_TO_SHARE:
        tile *= 2
    return tile


def _runs(pairs: Sequence[tuple[int, int]]) -> tuple[_Run, ...]:
    """The (group, sum) pairs as runs in which both count up together."""
    runs: list[_Run] = []
    for group, total in sorted(pairs):
        last = runs[-1] if runs else None
        if last and (last.group + last.count, last.total + last.count) == (group, total):
            runs[-1] = _Run(last.group, last.total, last.count + 1)
        else:
            runs.append(_Run(group, total, 1))
    return tuple(runs)


def _emit_function(plan: _Plan, name: str) -> None:
    index = ir.IndexType.get()
    types: list[ir.Type] = [index] * 4
    for operand in plan.cell.operands:
        types += [ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], operand.array.type.element_type), index]
    function = func.FuncOp(name, ir.FunctionType.get(types, []), visibility="private")
    function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
    with ir.InsertionPoint(function.add_entry_block()):
        arguments = list(function.arguments)
        _Body(plan, arguments[:4], arguments[4::2], arguments[5::2]).emit()
        func.ReturnOp([])


def _emit_strided(plan: _Plan, name: str, carry: Carry | None) -> None:
    index = ir.IndexType.get()
    types: list[ir.Type] = [index] * 5
    for operand in plan.cell.operands:
        flat = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], operand.array.type.element_type)
        types += [flat, index, index]
    function = func.FuncOp(name, ir.FunctionType.get(types, []), visibility="private")
    function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
    with ir.InsertionPoint(function.add_entry_block()):
        *bounds, count = list(function.arguments)[:5]
        operands = list(function.arguments)[5:]
        buffers, starts, strides = operands[0::3], operands[1::3], operands[2::3]
        if carry is not None:
            Chain(plan.cell, plan.width, carry, buffers, starts, strides).emit((bounds[0], bounds[1]), count)
        else:
            with loop(constant(0), count, constant(1)) as point:
                moved = [arith.muli(point, stride) for stride in strides]
                offsets = [arith.addi(start, by) for start, by in zip(starts, moved, strict=True)]
                _Body(plan, bounds, buffers, offsets).emit()
        func.ReturnOp([])


class _Body:
    """The code of one kernel."""

    def __init__(
        self, plan: _Plan, bounds: Sequence[ir.Value], buffers: Sequence[ir.Value], offsets: Sequence[ir.Value]
    ) -> None:
        self.plan = plan
        self.cell = plan.cell
        self.row_start, self.row_stop, self.unit_start, self.unit_stop = bounds
        self.buffers = buffers
        self.offsets = offsets
        self.scratch: ir.Value | None = None

    def emit(self) -> None:
        """Loops over unit tiles and, within each, over rows."""
        if not self.plan.totals:
            with loop(self.row_start, self.row_stop, constant(1)) as row:
                self._units_of_row(row, self.unit_start, self.unit_stop, None)
            return
        rows = self.plan.target.row_block
        sums = ir.MemRefType.get([rows * self.plan.row_length], self.cell.dtype)
        flat = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], self.cell.dtype)
        self.scratch = memref.cast(flat, memref.alloca(sums, [], [], alignment=64))
        count = arith.subi(self.row_stop, self.row_start)
        blocks = arith.ceildivui(count, constant(rows))
        # Blocks differ by one row at most: a short one would not fill the multiply-add units.
        short = arith.divui(count, arith.maxui(blocks, constant(1)))
        longer = arith.subi(count, arith.muli(short, blocks))
        with loop(self.unit_start, self.unit_stop, constant(self.plan.unit_tile)) as unit:
            with loop(constant(0), blocks, constant(1)) as block:
                start = arith.addi(arith.muli(block, short), arith.minui(block, longer))
                start = arith.addi(self.row_start, start)
                extra = arith.cmpi(arith.CmpIPredicate.ult, block, longer)
                size = arith.addi(short, arith.select(extra, constant(1), constant(0)))
                end = arith.minui(arith.addi(unit, constant(self.plan.unit_tile)), self.unit_stop)
                # It comes while the products are computed.
                with loop(constant(0), size, constant(1)) as row:
                    self._pointwise(None).prefetch(arith.addi(start, row), unit, end)
                self._products(unit, start, size)
                with loop(constant(0), size, constant(1)) as row:
                    sums_at = arith.muli(row, constant(self.plan.row_length))
                    self._units_of_row(arith.addi(start, row), unit, end, arith.subi(sums_at, unit))

    # Products.

    def _products(self, unit: ir.Value, start: ir.Value, size: ir.Value) -> None:
        """All sums of one tile, by the micro-kernels for its number of rows."""
        vector_type = ir.VectorType.get([PANEL_VECTORS * self.plan.lanes], self.cell.dtype)
        zero = splat(vector_type, ir.FloatAttr.get(self.cell.dtype, 0.0))
        length = arith.muli(size, constant(self.plan.row_length))
        with loop(constant(0), length, constant(PANEL_VECTORS * self.plan.lanes)) as i:
            vector.store(zero, self.scratch, [i])
        rows = self.plan.target.row_block
        switch = scf.IndexSwitchOp([], size, range(1, rows))
        for number, block in enumerate((*switch.case_blocks, switch.default_block), start=1):
            with ir.InsertionPoint(block):
                for stage in self.plan.stages:
                    self._stage(stage, number, unit, start)
                scf.YieldOp([])

    def _stage(self, stage: _Stage, rows: int, unit: ir.Value, start: ir.Value) -> None:
        p = stage.product
        layout = self.plan.layouts[p.weight]
        stride = self._row_stride(p.read)
        left = arith.addi(self.offsets[p.read], constant(p.read_column))
        left = arith.addi(left, arith.muli(start, constant(stride)))
        tile = arith.muli(unit, constant(len(layout.columns) * layout.depth))
        tile = arith.addi(self.offsets[p.weight], arith.addi(tile, constant(p.row * layout.panel)))
        panel = layout.depth * layout.panel
        for micro, group, total, times in self.plan.passes(stage, rows):
            weights = arith.addi(tile, constant(group * panel))
            arguments = [
                *(self.buffers[p.read], left, constant(stride)),
                *(self.buffers[p.weight], weights, constant(panel), constant(p.depth), constant(times)),
                *(self.scratch, constant(total * layout.panel), constant(self.plan.row_length)),
            ]
            func.CallOp([], ir.FlatSymbolRefAttr.get(micro.name), arguments)

    def _row_stride(self, operand: int) -> int:
        """Elements from one row of a left factor to the next."""
        description = self.cell.operands[operand]
        return 0 if description.kind == "vector" else description.columns

    # The expressions.

    def _units_of_row(self, row: ir.Value, start: ir.Value, stop: ir.Value, sums: ir.Value | None) -> None:
        """The units start..stop of one row; unit u of the first sum is at `sums + u` in the scratch tile."""
        self._pointwise(sums).row_of_units(row, start, stop)

    def _pointwise(self, sums: ir.Value | None) -> Pointwise:
        return Pointwise(self.cell, self.plan.width, self.buffers, self.offsets, self._totals(sums))

    def _totals(self, sums: ir.Value | None) -> Callable[[int, ir.Value], ir.Value]:
        """What loads one vector of the sums of a contraction from the scratch tile."""

        def load(number: int, unit: ir.Value) -> ir.Value:
            place = arith.addi(sums, arith.addi(unit, constant(self.plan.totals[number] * self.plan.unit_tile)))
            return vector.load(ir.VectorType.get([self.plan.width], self.cell.dtype), self.scratch, [place])

        return load
