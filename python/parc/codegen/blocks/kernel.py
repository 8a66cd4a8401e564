"""One function per cell for the threads of a block: products into shared memory, then the cell's expression.

    func.func private @name(%r0, %r1, %u0, %u1 : index, %m0 : memref<?xT>, %o0 : index, %m1, %o1, ...,
                            %scratch : memref<?xi8, shared>, %tags : memref<?xindex, shared>,
                            %slot0 : memref<?xT, shared>, %tag0 : index, %slot1, %tag1, ...)

All threads of a block call it with the same arguments; they compute rows r0..r1 and units u0..u1.  The operands are
those of the CPU's kernels (`codegen/kernel.py`); how weights are packed, and the plan of it all, is in `plan.py`.

A block of rows of the left factors is copied to the scratch memory.  Each group of `lanes` threads then adds up its
part of k for a tile of units and all rows; the threads that compute the expression, one element each, add up the parts
in the order of k.  The order of additions depends on the depth and the number of threads alone.

A resident weight is read from a slot of shared memory, which keeps what the block used last: where a block has the same
units of the same matrix at every step, they are copied once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, gpu, math, memref, scf, vector

from parc.codegen.blocks import tensor_core
from parc.codegen.blocks.plan import VECTOR, BlockPlan, Left, Round, Stage
from parc.codegen.blocks.target import workgroup
from parc.codegen.blocks.tensor_core import TensorCore
from parc.codegen.chain import Carry, Chain
from parc.codegen.kernel import Kernel
from parc.codegen.loops import delinearize
from parc.codegen.microkernel import constant, loop
from parc.codegen.pointwise import Pointwise, no_sums

_DYNAMIC = ir.ShapedType.get_dynamic_size()
_LOADS = 8
"""Loads from global memory that a thread starts before it waits for the first."""


def emit_block_kernel(
    module: ir.Module, plan: BlockPlan, name: str, is_strided: bool = False, carry: Carry | None = None
) -> Kernel:
    """Add the kernel of `plan.cell` to `module` as `@name`; with a stride or a carry as in `emit_kernel`.

    Needs a current location, that of the equation: what is wrong in a kernel is reported there.
    """
    cell, index_type = plan.cell, ir.IndexType.get()
    with ir.InsertionPoint(module.body):
        types: list[ir.Type] = [index_type] * (5 if is_strided else 4)
        per_operand = 3 if is_strided else 2
        for number, operand in enumerate(cell.operands):
            element = plan.factor if number in plan.layouts else operand.array.type.element_type
            types += [_flat(element), *[index_type] * (per_operand - 1)]
        first_shared = len(types)
        if plan.rounds:
            types += [workgroup(_flat(ir.IntegerType.get_signless(8))), workgroup(_flat(index_type))]
            types += [workgroup(_flat(plan.factor)), index_type] * len(plan.resident)
        function = func.FuncOp(name, ir.FunctionType.get(types, []), visibility="private")
        function.attributes["llvm.linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
        with ir.InsertionPoint(function.add_entry_block()):
            arguments = list(function.arguments)
            bounds, operands = arguments[:4], arguments[per_operand + 2 : first_shared]
            buffers, offsets = operands[0::per_operand], operands[1::per_operand]
            if plan.rounds:
                _Products(plan, bounds, buffers, offsets, arguments[first_shared:]).emit()
            elif is_strided:
                _Points(plan, bounds, buffers, offsets, operands[2::3], arguments[4]).emit(carry)
            else:
                _Points(plan, bounds, buffers, offsets, [constant(0)] * len(buffers), constant(1)).emit(None)
            func.ReturnOp([])
    return Kernel(name, plan.unit_tile, plan.layouts, is_strided)


def _flat(element: ir.Type) -> ir.MemRefType:
    return ir.MemRefType.get([_DYNAMIC], element)


def _thread() -> ir.Value:
    return gpu.thread_id(gpu.Dimension.x)


class _Points:
    """A cell without products, at some points: each thread computes elements of its own."""

    def __init__(
        self,
        plan: BlockPlan,
        bounds: Sequence[ir.Value],
        buffers: Sequence[ir.Value],
        offsets: Sequence[ir.Value],
        strides: Sequence[ir.Value],
        count: ir.Value,
    ) -> None:
        self._plan, self._cell = plan, plan.cell
        self._row_start, row_stop, self._unit_start, unit_stop = bounds
        self._rows = arith.subi(row_stop, self._row_start)
        self._units = arith.subi(unit_stop, self._unit_start)
        self._buffers, self._offsets, self._strides, self._count = buffers, offsets, strides, count

    def emit(self, carry: Carry | None) -> None:
        """Every element at every point; with a `carry` a thread takes an element from point to point."""
        zero = constant(0)
        counts = [self._count, self._rows, self._units] if carry is None else [self._rows, self._units]
        total = counts[0]
        for extent in counts[1:]:
            total = arith.muli(total, extent)
        # A team's bounds can be empty, with the last before the first.
        total = arith.select(_any_negative(counts), zero, total)
        with loop(_thread(), total, constant(self._plan.target.threads)) as number:
            *point, row, unit = delinearize(number, counts)
            row, unit = arith.addi(self._row_start, row), arith.addi(self._unit_start, unit)
            if carry is not None:
                chain = Chain(self._cell, 1, carry, self._buffers, self._offsets, self._strides)
                chain.element(row, unit, None, self._count)
            else:
                self._element(point[0], row, unit)

    def _element(self, point: ir.Value, row: ir.Value, unit: ir.Value) -> None:
        moved = [arith.muli(point, stride) for stride in self._strides]
        offsets = [arith.addi(start, by) for start, by in zip(self._offsets, moved, strict=True)]
        pointwise = Pointwise(self._cell, 1, self._buffers, offsets, no_sums)
        pointwise.units(row, unit, None, pointwise.row(row))


def _any_negative(values: Sequence[ir.Value]) -> ir.Value:
    found = [arith.cmpi(arith.CmpIPredicate.slt, v, constant(0)) for v in values]
    result = found[0]
    for other in found[1:]:
        result = arith.ori(result, other)
    return result


class _Products:
    """A cell with products."""

    def __init__(
        self,
        plan: BlockPlan,
        bounds: Sequence[ir.Value],
        buffers: Sequence[ir.Value],
        offsets: Sequence[ir.Value],
        shared: Sequence[ir.Value],
    ) -> None:
        self.plan, self.cell = plan, plan.cell
        self.row_start, self.row_stop, self.unit_start, self.unit_stop = bounds
        self.buffers, self.offsets = list(buffers), list(offsets)
        scratch, self.tags, *slots = shared
        self.slots = dict(zip(plan.resident, zip(slots[0::2], slots[1::2], strict=True), strict=True))
        self.thread = _thread()
        self.left = _view(scratch, 0, plan.left_elements, plan.factor)
        self.parts = _view(scratch, plan.part_start, plan.part_elements, self.cell.dtype)

    def emit(self) -> None:
        """Make weights resident; then all blocks of rows, each with all tiles of units."""
        some = arith.andi(
            arith.cmpi(arith.CmpIPredicate.slt, self.row_start, self.row_stop),
            arith.cmpi(arith.CmpIPredicate.slt, self.unit_start, self.unit_stop),
        )
        branch = scf.IfOp(some)
        with ir.InsertionPoint(branch.then_block):
            for operand in self.plan.resident:
                self._make_resident(operand)
            if self.plan.rows == 1 or self.plan.core is not None:
                self._rows(self.plan.rows)
            else:
                single = arith.cmpi(arith.CmpIPredicate.eq, arith.subi(self.row_stop, self.row_start), constant(1))
                one = scf.IfOp(single, has_else=True)
                for block, rows in ((one.then_block, 1), (one.else_block, self.plan.rows)):
                    with ir.InsertionPoint(block):
                        self._rows(rows)
                        scf.YieldOp([])
            scf.YieldOp([])

    def _make_resident(self, operand: int) -> None:
        """Have the units of a weight in its slot, and read it from there."""
        plan, layout = self.plan, self.plan.layouts[operand]
        slot, tag = self.slots[operand]
        start = arith.addi(self.offsets[operand], self._tile_offset(operand, self.unit_start))
        address = memref.extract_aligned_pointer_as_index(self.buffers[operand])
        wanted = arith.addi(address, arith.muli(start, constant(plan.factor_bytes)))
        differs = arith.cmpi(arith.CmpIPredicate.ne, memref.load(self.tags, [tag]), wanted)
        branch = scf.IfOp(differs)
        with ir.InsertionPoint(branch.then_block):
            # All have read the tag.
            gpu.barrier()
            tiles = arith.ceildivui(arith.subi(self.unit_stop, self.unit_start), constant(layout.unit_tile))
            count = arith.muli(tiles, constant(layout.tile_size))
            with loop(self.thread, count, constant(plan.target.threads)) as i:
                value = memref.load(self.buffers[operand], [arith.addi(start, i)])
                memref.store(value, slot, [i])
            first = scf.IfOp(arith.cmpi(arith.CmpIPredicate.eq, self.thread, constant(0)))
            with ir.InsertionPoint(first.then_block):
                memref.store(wanted, self.tags, [tag])
                scf.YieldOp([])
            gpu.barrier()
            scf.YieldOp([])
        self.buffers[operand] = slot
        self.offsets[operand] = arith.subi(constant(0), self._tile_offset(operand, self.unit_start))

    def _tile_offset(self, operand: int, unit: ir.Value) -> ir.Value:
        """Where the tile that starts at a unit is in a packed matrix."""
        layout = self.plan.layouts[operand]
        return arith.muli(arith.divui(unit, constant(layout.unit_tile)), constant(layout.tile_size))

    def _rows(self, rows: int) -> None:
        """All rows, so many at a time."""
        with loop(self.row_start, self.row_stop, constant(rows)) as start:
            size = arith.minui(arith.subi(self.row_stop, start), constant(rows)) if rows > 1 else constant(1)
            self._copy_left(rows, start, size)
            gpu.barrier()
            with loop(self.unit_start, self.unit_stop, constant(self.plan.unit_tile)) as unit:
                for number, round_ in enumerate(self.plan.rounds):
                    self._round(round_, number, rows, unit)
                gpu.barrier()
                self._elements(rows, start, size, unit)
                gpu.barrier()

    def _copy_left(self, rows: int, start: ir.Value, size: ir.Value) -> None:
        """A block of rows of all left factors into the scratch memory, zeros behind the last row and column."""
        threads = self.plan.target.threads
        for left, place in self.plan.left_places.items():
            width = self.plan.copy_width(left)
            count = rows * self.plan.left_length(left) // width
            # Several loads are on their way at once: each takes as long as a hundred additions.
            at_once = min(_LOADS, -(-count // threads))
            with loop(self.thread, constant(count), constant(threads * at_once)) as first:
                numbers = [arith.addi(first, constant(i * threads)) for i in range(at_once)]
                is_even = count % (threads * at_once) == 0
                # What is loaded is there, also for those that have nothing to store.
                last = constant(count - 1)
                loaded = numbers if is_even else [first, *(arith.minui(n, last) for n in numbers[1:])]
                values = [self._left_factor(left, width, rows, start, size, number) for number in loaded]
                for i, (number, value) in enumerate(zip(numbers, values, strict=True)):
                    target = arith.addi(constant(place * rows), arith.muli(number, constant(width)))
                    if i == 0 or is_even:
                        self._put(value, target)
                        continue
                    inside = scf.IfOp(arith.cmpi(arith.CmpIPredicate.ult, number, constant(count)))
                    with ir.InsertionPoint(inside.then_block):
                        self._put(value, target)
                        scf.YieldOp([])

    def _left_factor(
        self, left: Left, width: int, rows: int, start: ir.Value, size: ir.Value, number: ir.Value
    ) -> list[ir.Value]:
        """So many elements of a block of rows; behind the last row and column, where nothing is read, they are zero."""
        length, core, buffer = self.plan.left_length(left), self.plan.core, self.buffers[left.read]
        row, k = delinearize(number, [constant(rows), constant(length // width)])
        k = arith.muli(k, constant(width))
        is_there = arith.cmpi(arith.CmpIPredicate.ult, row, size)
        row, column = arith.minui(row, arith.subi(size, constant(1))), k
        if length != left.depth:
            is_there = arith.andi(is_there, arith.cmpi(arith.CmpIPredicate.ult, k, constant(left.depth)))
            column = arith.minui(k, constant(left.depth - width))
        source = arith.addi(self.offsets[left.read], constant(left.column))
        source = _sum(source, arith.muli(arith.addi(start, row), constant(self.plan.row_stride(left.read))), column)
        if width == 1:
            values = [memref.load(buffer, [source])]
        else:
            type_ = ir.VectorType.get([width], self.cell.dtype)
            loaded = vector.load(type_, buffer, [source], alignment=width * self.plan.sum_bytes)
            values = [vector.extract(loaded, [], [i]) for i in range(width)]
        zero = arith.constant(self.plan.factor, 0.0)
        return [arith.select(is_there, v if core is None else core.round(v), zero) for v in values]

    def _put(self, values: Sequence[ir.Value], place: ir.Value) -> None:
        """Store elements of a left factor that follow each other."""
        if len(values) == 1:
            memref.store(values[0], self.left, [place])
            return
        together = vector.from_elements(ir.VectorType.get([len(values)], self.plan.factor), list(values))
        vector.store(together, self.left, [place], alignment=len(values) * self.plan.factor_bytes)

    def _round(self, round_: Round, number: int, rows: int, unit: ir.Value) -> None:
        """The parts of one round's sums, for a tile of units and a block of rows."""
        plan, width = self.plan, self.plan.columns(round_)
        lanes = plan.lanes(round_)
        lane, part = arith.remui(self.thread, constant(lanes)), arith.divui(self.thread, constant(lanes))
        parts = arith.addi(constant(plan.part_place(number) * rows), arith.muli(part, constant(rows * width)))
        place = _Part(round_, rows, unit, lane, part, parts)
        (self._by_threads if plan.core is None else self._by_tensor_cores)(place)

    # Threads: lane c computes the columns c, c + lanes, ...

    def _by_threads(self, at: "_Part") -> None:
        plan, width, rows = self.plan, self.plan.columns(at.round), at.rows
        lanes = plan.lanes(at.round)
        columns = [arith.addi(at.lane, constant(c)) for c in range(0, width, lanes)]
        if width % lanes:
            # The last lanes compute the last column once more; they do not store it.
            columns[-1] = arith.minui(columns[-1], constant(width - 1))
        sums: Sequence[ir.Value] = [arith.constant(self.cell.dtype, 0.0)] * (rows * len(columns))
        for stage in at.round.stages:
            sums = self._stage(stage, at, columns, sums)
        for c, column in enumerate(columns):
            is_last = width % lanes and c == len(columns) - 1
            valid = arith.cmpi(arith.CmpIPredicate.ult, arith.addi(at.lane, constant(c * lanes)), constant(width))
            branch = scf.IfOp(valid) if is_last else None
            with ir.InsertionPoint(branch.then_block) if branch is not None else ir.InsertionPoint.current:
                for r in range(rows):
                    memref.store(sums[r * len(columns) + c], self.parts, [_sum(at.parts, constant(r * width), column)])
                if branch is not None:
                    scf.YieldOp([])

    def _stage(
        self, stage: Stage, at: "_Part", columns: Sequence[ir.Value], sums: Sequence[ir.Value]
    ) -> Sequence[ir.Value]:
        """`sums` plus the products of one left factor with one weight, over a part of k."""
        depth, length = stage.left.depth, self.plan.layouts[stage.weight].row_length
        unroll = VECTOR if depth % VECTOR == 0 else 1
        first, stop = self._share(at, depth, unroll)
        tile = arith.addi(self.offsets[stage.weight], self._tile_offset(stage.weight, at.unit))
        tile = arith.addi(tile, constant(stage.row * length))
        places = [arith.addi(tile, self._weight_column(stage, c)) for c in columns]
        left = constant(self.plan.left_places[stage.left] * at.rows)
        steps = scf.ForOp(first, stop, constant(unroll), list(sums))
        with ir.InsertionPoint(steps.body):
            k, totals = steps.induction_variable, list(steps.inner_iter_args)
            row_of_weights = arith.muli(k, constant(length))
            weights = [
                [
                    memref.load(self.buffers[stage.weight], [_sum(place, row_of_weights, constant(i * length))])
                    for place in places
                ]
                for i in range(unroll)
            ]
            for r in range(at.rows):
                factors = self._factors(_sum(left, constant(r * depth), k), unroll)
                for i, factor in enumerate(factors):
                    for c, weight in enumerate(weights[i]):
                        n = r * len(columns) + c
                        totals[n] = math.fma(factor, weight, totals[n])
            scf.YieldOp(totals)
        return list(steps.results_)

    def _share(self, at: "_Part", depth: int, step: int) -> tuple[ir.Value, ir.Value]:
        """A part of 0..depth, in whole steps."""
        share = -(-depth // (self.plan.parts(at.round) * step)) * step
        first = arith.muli(at.part, constant(share))
        return first, arith.minui(arith.addi(first, constant(share)), constant(-(-depth // step) * step))

    def _factors(self, start: ir.Value, count: int) -> list[ir.Value]:
        """Elements of a left factor that follow each other."""
        if count == 1:
            return [memref.load(self.left, [start])]
        factors = self._load(self.left, count, start)
        return [vector.extract(factors, [], [i]) for i in range(count)]

    def _load(self, buffer: ir.Value, count: int, start: ir.Value) -> ir.Value:
        """An aligned vector of factors."""
        type_ = ir.VectorType.get([count], self.plan.factor)
        return vector.load(type_, buffer, [start], alignment=count * self.plan.factor_bytes)

    def _weight_column(self, stage: Stage, column: ir.Value) -> ir.Value:
        """The column of a packed weight's tile for a column of the round's sums."""
        tile, groups = self.plan.unit_tile, stage.groups
        if groups == tuple(range(groups[0], groups[0] + len(groups))):
            return arith.addi(column, constant(groups[0] * tile))
        total, unit = arith.divui(column, constant(tile)), arith.remui(column, constant(tile))
        group = constant(groups[0])
        for i, other in enumerate(groups[1:], start=1):
            is_here = arith.cmpi(arith.CmpIPredicate.eq, total, constant(i))
            group = arith.select(is_here, constant(other), group)
        return arith.addi(arith.muli(group, constant(tile)), unit)

    # Tensor cores: a warp computes all columns, eight at a time.

    def _by_tensor_cores(self, at: "_Part") -> None:
        core, width = self.plan.core, self.plan.columns(at.round)
        assert core is not None
        type_ = ir.VectorType.get([2, 2], self.cell.dtype)
        zero = arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, ir.FloatAttr.get(self.cell.dtype, 0.0)))
        row, quad = arith.divui(at.lane, constant(4)), arith.remui(at.lane, constant(4))
        sums: Sequence[ir.Value] = [zero] * (width // tensor_core.COLUMNS)
        for stage in at.round.stages:
            sums = self._stage_of_tiles(stage, at, core, row, quad, sums)
        for n, total in enumerate(sums):
            for half in range(2):
                for i in range(2):
                    column = arith.addi(arith.muli(quad, constant(2)), constant(n * tensor_core.COLUMNS + i))
                    here = arith.addi(row, constant(half * tensor_core.ROWS // 2))
                    place = _sum(at.parts, arith.muli(here, constant(width)), column)
                    memref.store(vector.extract(total, [], [half, i]), self.parts, [place])

    def _stage_of_tiles(
        self, stage: Stage, at: "_Part", core: TensorCore, row: ir.Value, quad: ir.Value, sums: Sequence[ir.Value]
    ) -> Sequence[ir.Value]:
        """The same as `_stage`, with the sums of a lane for each eight columns."""
        length, row_length = self.plan.left_length(stage.left), self.plan.layouts[stage.weight].row_length
        first, stop = self._share(at, stage.left.depth, core.depth)
        tile = arith.addi(self.offsets[stage.weight], self._tile_offset(stage.weight, at.unit))
        tile = arith.addi(tile, constant(stage.row * row_length))
        terms = arith.muli(quad, constant(core.lane_terms))
        columns = [arith.addi(row, constant(n * tensor_core.COLUMNS)) for n in range(len(sums))]
        places = [arith.muli(self._weight_column(stage, c), constant(core.depth)) for c in columns]
        places = [_sum(tile, place, terms) for place in places]
        left = _sum(constant(self.plan.left_places[stage.left] * at.rows), arith.muli(row, constant(length)), terms)
        steps = scf.ForOp(first, stop, constant(core.depth), list(sums))
        with ir.InsertionPoint(steps.body):
            k = steps.induction_variable
            starts = [_sum(left, constant(half * tensor_core.ROWS // 2 * length), k) for half in range(2)]
            factors = [self._load(self.left, core.lane_terms, start) for start in starts]
            row_of_weights = arith.muli(k, constant(row_length))
            weights = [
                self._load(self.buffers[stage.weight], core.lane_terms, arith.addi(place, row_of_weights))
                for place in places
            ]
            scf.YieldOp(
                [core.multiply(factors, w, total) for w, total in zip(weights, steps.inner_iter_args, strict=True)]
            )
        return list(steps.results_)

    # The expressions.

    def _elements(self, rows: int, start: ir.Value, size: ir.Value, unit: ir.Value) -> None:
        """The elements of a block of rows and a tile of units, one thread each."""
        tile = self.plan.unit_tile
        with loop(self.thread, arith.muli(size, constant(tile)), constant(self.plan.target.threads)) as i:
            row, j = delinearize(i, [size, constant(tile)])
            at = arith.addi(unit, j)
            branch = scf.IfOp(arith.cmpi(arith.CmpIPredicate.ult, at, self.unit_stop))
            with ir.InsertionPoint(branch.then_block):
                pointwise = Pointwise(
                    self.cell, 1, self.buffers, self.offsets, lambda node, _: self._total(node, rows, row, j)
                )
                row_here = arith.addi(start, row)
                pointwise.units(row_here, at, None, pointwise.row(row_here))
                scf.YieldOp([])

    def _total(self, node: int, rows: int, row: ir.Value, unit: ir.Value) -> ir.Value:
        """A contraction's sum, as a vector of one: the parts of all rounds in their order."""
        plan, total = self.plan, arith.constant(self.cell.dtype, 0.0)
        for number, round_ in enumerate(plan.rounds):
            width = plan.columns(round_)
            start = arith.addi(arith.muli(row, constant(width)), constant(plan.part_place(number) * rows))
            for i in (i for i, n in enumerate(round_.totals) if n == node):
                place = _sum(start, constant(i * plan.unit_tile), unit)
                for p in range(plan.parts(round_)):
                    here = arith.addi(place, constant(p * rows * width))
                    total = arith.addf(total, memref.load(self.parts, [here]))
        return vector.broadcast(ir.VectorType.get([1], self.cell.dtype), total)


@dataclass(frozen=True)
class _Part:
    """Where a thread adds up: a part of k of one round, for a tile of units and a block of rows."""

    round: Round
    rows: int
    unit: ir.Value
    lane: ir.Value
    part: ir.Value
    parts: ir.Value
    """Where the sums go in the scratch memory: `[rows][columns]` from here on."""


def _view(scratch: ir.Value, start: int, elements: int, element: ir.Type) -> ir.Value:
    """A part of the scratch memory."""
    return memref.ViewOp(workgroup(ir.MemRefType.get([elements], element)), scratch, constant(start), []).result


def _sum(*values: ir.Value) -> ir.Value:
    total = values[0]
    for value in values[1:]:
        total = arith.addi(total, value)
    return total
