"""The pointwise part of a kernel: one vector of units of everything that a cell writes."""

from collections.abc import Callable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, memref, vector

from parc.codegen import activations
from parc.codegen.cell import Apply, Cell, Constant, Contraction, Load
from parc.codegen.microkernel import constant


class Pointwise:
    """Emits the expressions of a cell on vectors of `width` units.

    `buffers` and `offsets` are those of the cell's operands.
    """

    def __init__(self, cell: Cell, width: int, buffers: Sequence[ir.Value], offsets: Sequence[ir.Value]) -> None:
        self.cell = cell
        self.width = width
        self.buffers = buffers
        self.offsets = offsets

    def emit(
        self, row: ir.Value, unit: ir.Value, count: ir.Value | None, total: Callable[[int], ir.Value] | None
    ) -> None:
        """Compute and store units `unit..unit + width` of a row, or the first `count` of them.

        `total` emits the vector of a contraction's sums, given the number of its node.
        """
        mask = None
        if count is not None:
            mask = vector.create_mask(self._vector(ir.IntegerType.get_signless(1)), [count])
        values: dict[int, ir.Value] = {}

        def emit(number: int) -> ir.Value:
            node = self.cell.nodes[number]
            if isinstance(node, Load):
                return self._load(node, row, unit, count, mask)
            if isinstance(node, Constant):
                return splat(self._vector(node.value.type), node.value)
            if isinstance(node, Contraction):
                assert total is not None
                return total(number)
            return self._apply(node, [value(a) for a in node.arguments])

        def value(number: int) -> ir.Value:
            if number not in values:
                values[number] = emit(number)
            return values[number]

        results = [value(output.node) for output in self.cell.outputs]
        for output, result in zip(self.cell.outputs, results, strict=True):
            place = [self._place(output.operand, output.column, row, unit)]
            if mask is None:
                vector.store(result, self.buffers[output.operand], place)
            else:
                vector.maskedstore(self.buffers[output.operand], place, mask, result)

    def _place(self, number: int, column: int, row: ir.Value, unit: ir.Value | None) -> ir.Value:
        """Where element (row, column + unit) of an operand is."""
        operand = self.cell.operands[number]
        place = arith.addi(self.offsets[number], constant(column))
        if operand.kind == "vector":
            row = arith.remui(row, constant(operand.repeat)) if operand.repeat > 1 else constant(0)
        elif operand.repeat > 1:
            row = arith.divui(row, constant(operand.repeat))
        place = arith.addi(place, arith.muli(row, constant(operand.extents[-1] or 0)))
        return place if unit is None else arith.addi(place, unit)

    def _load(
        self, load: Load, row: ir.Value, unit: ir.Value, count: ir.Value | None, mask: ir.Value | None
    ) -> ir.Value:
        buffer = self.buffers[load.operand]
        type_ = self._vector(ir.MemRefType(buffer.type).element_type)
        place = self._place(load.operand, load.column, row, unit if load.stride else None)
        if not load.stride:
            return vector.broadcast(type_, memref.load(buffer, [place]))
        if str(type_.element_type) == "i1":
            return self._load_bytes(buffer, type_, place, count)
        if mask is None:
            return vector.load(type_, buffer, [place])
        return vector.maskedload(type_, buffer, [place], mask, splat(type_, _zero(type_.element_type)))

    def _load_bytes(self, buffer: ir.Value, type_: ir.VectorType, place: ir.Value, count: ir.Value | None) -> ir.Value:
        """A vector of truth values: packed bits in a vector, each a byte in memory."""
        elements = []
        for lane in range(self.width):
            offset = constant(lane)
            if count is not None:
                # Lanes behind the end repeat the last element, so as not to read past the array.
                offset = arith.minui(offset, arith.subi(count, constant(1)))
            elements.append(memref.load(buffer, [arith.addi(place, offset)]))
        return vector.from_elements(type_, elements)

    def _apply(self, node: Apply, arguments: list[ir.Value]) -> ir.Value:
        emit = activations.emitter(node.name, node.type)
        if emit is not None:
            return emit(*arguments)
        return ir.Operation.create(node.name, [self._vector(node.type)], arguments, dict(node.attributes)).result

    def _vector(self, element: ir.Type) -> ir.VectorType:
        return ir.VectorType.get([self.width], element)


def splat(type_: ir.VectorType, value: ir.Attribute) -> ir.Value:
    """A vector constant of equal elements."""
    return arith.constant(type_, ir.DenseElementsAttr.get_splat(type_, value))


def _zero(element: ir.Type) -> ir.Attribute:
    return ir.FloatAttr.get(element, 0.0) if isinstance(element, ir.FloatType) else ir.IntegerAttr.get(element, 0)
