"""The pointwise part of a kernel: one vector of units of everything that a cell writes, and the reductions in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import arith, memref, scf, vector

from parc.codegen import activations
from parc.codegen.cell import Apply, Axis, Cell, Constant, Contraction, Load, Reduction, arguments_of
from parc.codegen.elements import COMBINING
from parc.codegen.microkernel import constant, loop

_LINE_BITS = 512  # of a cache line
_SECOND_LEVEL = 2  # a prefetch's cache: the first one is full of weights

Values = dict[int, ir.Value]
"""Emitted nodes by number."""


@dataclass
class Place:
    """Where nodes are emitted: a row, and units or summation indices; one of the two is spread over the lanes."""

    row: ir.Value
    lanes: Axis
    unit: ir.Value | None = None
    depth: ir.Value | None = None
    count: ir.Value | None = None  # the lanes that are valid, unless all are
    mask: ir.Value | None = None
    values: Values = field(default_factory=dict)


def no_sums(number: int, unit: ir.Value) -> ir.Value:
    """What emits the sums of a cell without contractions: nothing asks for them."""
    raise AssertionError("a cell without products")


class Pointwise:
    """Emits the expressions of a cell on vectors of `width` elements.

    `buffers` and `offsets` are those of the cell's operands; `total`, given the number of a contraction's node and a
    unit, emits a vector of its sums.
    """

    def __init__(
        self,
        cell: Cell,
        width: int,
        buffers: Sequence[ir.Value],
        offsets: Sequence[ir.Value],
        total: Callable[[int, ir.Value], ir.Value],
    ) -> None:
        self.cell = cell
        self.width = width
        self.buffers = buffers
        self.offsets = offsets
        self.total = total

    def row(self, row: ir.Value) -> Values:
        """Emit the reductions that are the same for all units of a row."""
        place = Place(row, "unit")
        for number, node in enumerate(self.cell.nodes):
            if isinstance(node, Reduction) and not self.cell.varies[number]:
                self._value(number, place)
        return place.values

    def prefetch(self, row: ir.Value, start: ir.Value, stop: ir.Value) -> None:
        """Fetch what `units` will read and write from start to stop: rows are far apart, too far for the hardware."""
        loads = [n for n in self.cell.nodes if isinstance(n, Load) and n.stride]
        places = {(n.operand, n.column): False for n in loads if self.cell.operands[n.operand].kind == "read"}
        places |= {(o.operand, o.column): True for o in self.cell.outputs}
        types = [ir.MemRefType(self.buffers[operand].type).element_type for operand, _ in places]
        line = min(_LINE_BITS // (64 if isinstance(type_, ir.IndexType) else max(8, type_.width)) for type_ in types)
        starts = [self._row_start(operand, column, row) for operand, column in places]
        with loop(start, stop, constant(line)) as unit:
            for ((operand, _), is_write), first in zip(places.items(), starts, strict=True):
                memref.prefetch(self.buffers[operand], [arith.addi(first, unit)], is_write, _SECOND_LEVEL, True)

    def units(self, row: ir.Value, unit: ir.Value, count: ir.Value | None, known: Values) -> None:
        """Compute and store units `unit..unit + width` of a row, or the first `count` of them."""
        place = Place(row, "unit", unit=unit, count=count, mask=self._mask(count), values=dict(known))
        results = [self._value(output.node, place) for output in self.cell.outputs]
        for output, result in zip(self.cell.outputs, results, strict=True):
            self._store(output.operand, output.column, result, place)

    def row_of_units(self, row: ir.Value, start: ir.Value, stop: ir.Value) -> None:
        """Compute and store the units start..stop of a row; start is a multiple of the width."""
        known = self.row(row)
        for_units(self.cell.units, self.width, start, stop, lambda unit, count: self.units(row, unit, count, known))

    def _store(self, operand: int, column: int, result: ir.Value, place: Place) -> None:
        position = arith.addi(self._row_start(operand, column, place.row), place.unit)
        self._put(result, self.buffers[operand], position, place.mask)

    def _put(self, vector_: ir.Value, buffer: ir.Value, position: ir.Value, mask: ir.Value | None) -> None:
        """Store a vector, or the lanes of a mask."""
        if mask is None:
            vector.store(vector_, buffer, [position])
        else:
            vector.maskedstore(buffer, [position], mask, vector_)

    def _value(self, number: int, place: Place) -> ir.Value:
        if number not in place.values:
            place.values[number] = self._emit(number, place)
        return place.values[number]

    def _emit(self, number: int, place: Place) -> ir.Value:
        node = self.cell.nodes[number]
        if isinstance(node, Load):
            return self._load(node, place)
        if isinstance(node, Constant):
            return splat(self._vector(node.value.type), node.value)
        if isinstance(node, Contraction):
            return self.total(number, place.unit)
        if isinstance(node, Reduction):
            return self._reduction_of_units(node, place) if self.cell.varies[number] else self._reduction(node, place)
        return self._apply(node, [self._value(a, place) for a in node.arguments])

    def _apply(self, node: Apply, arguments: list[ir.Value]) -> ir.Value:
        emit = activations.emitter(node.name, node.type)
        if emit is not None:
            return emit(*arguments)
        return ir.Operation.create(node.name, [self._vector(node.type)], arguments, dict(node.attributes)).result

    # Reductions.

    def _reduction_of_units(self, node: Reduction, place: Place) -> ir.Value:
        """One reduction per unit: a loop over k with a vector of units."""
        self._emit_invariants(node, place)
        steps = scf.ForOp(constant(0), constant(node.depth), constant(1), [self._value(node.start, place)])
        with ir.InsertionPoint(steps.body):
            step = Place(place.row, "unit", place.unit, steps.induction_variable, place.count, place.mask)
            step.values.update(place.values)
            scf.YieldOp([self._combine(node, steps.inner_iter_args[0], self._value(node.argument, step))])
        return steps.results_[0]

    def _reduction(self, node: Reduction, place: Place) -> ir.Value:
        """One reduction per row: a loop over vectors of k, then over the lanes."""
        self._emit_invariants(node, place)
        kind, neutral = COMBINING[node.name]
        type_ = self._vector(node.type)
        unchanged = splat(type_, ir.FloatAttr.get(node.type, neutral))
        whole = node.depth // self.width * self.width
        steps = scf.ForOp(constant(0), constant(whole), constant(self.width), [unchanged])
        with ir.InsertionPoint(steps.body):
            step = Place(place.row, "depth", depth=steps.induction_variable, values=dict(place.values))
            scf.YieldOp([self._combine(node, steps.inner_iter_args[0], self._value(node.argument, step))])
        total = steps.results_[0]
        if node.depth > whole:
            count = constant(node.depth - whole)
            rest = Place(place.row, "depth", None, constant(whole), count, self._mask(count), dict(place.values))
            value = arith.select(rest.mask, self._value(node.argument, rest), unchanged)
            total = self._combine(node, total, value)
        kind_ = ir.Attribute.parse(f"#vector.kind<{kind}>")
        scalar = vector.ReductionOp(node.type, kind_, total).result
        return self._combine(node, vector.broadcast(type_, scalar), self._value(node.start, place))

    def _emit_invariants(self, node: Reduction, place: Place) -> None:
        """Emit, in front of the reduction's loop, what does not differ by k."""
        pending = [node.argument]
        while pending:
            number = pending.pop()
            if "depth" in self.cell.varies[number]:
                pending += arguments_of(self.cell.nodes[number])
            else:
                self._value(number, place)

    def _combine(self, node: Reduction, left: ir.Value, right: ir.Value) -> ir.Value:
        return ir.Operation.create(node.name, [left.type], [left, right], dict(node.attributes)).result

    # Memory.

    def _row_start(self, number: int, column: int, row: ir.Value) -> ir.Value:
        """Where element (row, column) of an operand is."""
        operand = self.cell.operands[number]
        start = arith.addi(self.offsets[number], constant(column))
        if operand.kind == "vector":
            if operand.repeat == 1:
                return start
            row = arith.remui(row, constant(operand.repeat))
        elif operand.repeat > 1:
            row = arith.divui(row, constant(operand.repeat))
        return arith.addi(start, arith.muli(row, constant(operand.columns)))

    def _load(self, load: Load, place: Place) -> ir.Value:
        buffer = self.buffers[load.operand]
        type_ = self._vector(ir.MemRefType(buffer.type).element_type)
        position = self._row_start(load.operand, load.column, place.row)
        if load.stride:
            position = arith.addi(position, place.unit)
        if load.depth_stride:
            position = arith.addi(position, arith.muli(place.depth, constant(load.depth_stride)))
        if not (load.stride if place.lanes == "unit" else load.depth_stride):
            return vector.broadcast(type_, memref.load(buffer, [position]))
        if str(type_.element_type) == "i1":
            return self._load_bytes(buffer, type_, position, place.count)
        return self._get(type_, buffer, position, place.mask)

    def _get(self, type_: ir.VectorType, buffer: ir.Value, position: ir.Value, mask: ir.Value | None) -> ir.Value:
        """Load a vector, or the lanes of a mask."""
        if mask is None:
            return vector.load(type_, buffer, [position])
        return vector.maskedload(type_, buffer, [position], mask, self._zeros(type_))

    def _load_bytes(self, buffer: ir.Value, type_: ir.VectorType, start: ir.Value, count: ir.Value | None) -> ir.Value:
        """A vector of truth values: packed bits in a vector, each a byte in memory."""
        elements = []
        for lane in range(self.width):
            offset = constant(lane)
            if count is not None:
                # Lanes behind the end repeat the last element, so as not to read past the array.
                offset = arith.minui(offset, arith.subi(count, constant(1)))
            elements.append(memref.load(buffer, [arith.addi(start, offset)]))
        return vector.from_elements(type_, elements)

    def _mask(self, count: ir.Value | None) -> ir.Value | None:
        bits = self._vector(ir.IntegerType.get_signless(1))
        return None if count is None else vector.create_mask(bits, [count])

    def _zeros(self, type_: ir.VectorType) -> ir.Value:
        element = type_.element_type
        is_float = isinstance(element, ir.FloatType)
        return splat(type_, ir.FloatAttr.get(element, 0.0) if is_float else ir.IntegerAttr.get(element, 0))

    def _vector(self, element: ir.Type) -> ir.VectorType:
        return ir.VectorType.get([self.width], element)


def for_units(
    units: int, width: int, start: ir.Value, stop: ir.Value, emit: Callable[[ir.Value, ir.Value | None], None]
) -> None:
    """Loops over start..stop of a row in vectors; `emit` gets the first unit, and how many are left where that counts.

    Only the last vector of a row can be cut short: `start` is a multiple of the width, `stop` too, or it is `units`.
    """
    whole = stop if units % width == 0 else arith.minui(stop, constant(units // width * width))
    with loop(start, whole, constant(width)) as unit:
        emit(unit, None)
    if units % width:
        with loop(whole, stop, constant(width)) as unit:
            emit(unit, arith.subi(stop, unit))


def splat(type_: ir.VectorType, value: ir.Attribute) -> ir.Value:
    """A vector constant of equal elements."""
    return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, value))
