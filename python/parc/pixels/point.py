"""What one equation computes at one pixel."""

from collections.abc import Callable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import tensor

from parc.codegen.views import slice_dims
from parc.errors import CompileError
from parc.pixels.dims import Dims
from parc.pixels.generic import tile_of
from parc.pixels.known import Known
from parc.pixels.structure import Structured
from parc.pixels.taps import HERE, Place, Tap, Taps
from parc.pixels.tiles import insertion, view, without
from parc.pixels.windows import Windows

Read = Callable[[ir.Value, tuple[Place, Place]], ir.Value | None]
"""The tile of a value's base as it is read from an array at some place; None where the equation computes it itself."""


class Point:
    """Writes the operations of one equation, on tiles, at the insertion point."""

    def __init__(self, dims: Dims, windows: Windows, taps: Taps, known: Known, read: Read) -> None:
        self._dims = dims
        self._windows = windows
        self._taps = taps
        self._known = known
        self._read = read
        self._computed: dict[ir.Value, ir.Value] = {}

    def tile(self, value: ir.Value, places: tuple[Place, Place] = HERE) -> ir.Value:
        """The tile of a value that depends on the image, as it is seen at `places`."""
        window = self._windows.of(value)
        tile = self._read(value, places)
        if tile is None:
            tile = self._compute(window.base)
        for op in window.views:
            with op.location:
                source, result = op.operands[0], op.results[0]
                tile = view(op, tile, self._dims.pixels(source), self._dims.pixels(result))
        return tile

    def _compute(self, value: ir.Value) -> ir.Value:
        if value not in self._computed:
            op = value.owner.operation
            with op.location:
                self._computed.update(zip(op.results, self._operation(op), strict=True))
        return self._computed[value]

    def _operation(self, op: ir.Operation) -> list[ir.Value]:
        structured = self._dims.structured(op)
        if structured is not None:
            return self._structured(structured)
        dropped = self._dims.pixels(op.results[0])
        if op.name == "tensor.insert_slice":
            cut = slice_dims(op, op.operands[0])
            places = [[cut[d] for d in dropped], dropped]
            if None in places[0] or any(not _is_whole(op, d) for d in dropped):
                raise CompileError("a part of the image is put together from others, pixel by pixel", op.location)
            tiles = [
                self._part(v, [d for d in at if d is not None]) for v, at in zip(op.operands[:2], places, strict=True)
            ]
            return [insertion(op, tiles, dropped)]
        tiles = [self._part(v, dropped) for v in op.operands]
        if op.name == "tensor.concat":
            axis = ir.IntegerAttr(op.attributes["dim"]).value
            if axis in dropped:
                raise CompileError("images are put together along their pixels", op.location)
            type_ = without(op.results[0].type, dropped)
            return [tensor.concat(type_, axis - sum(d < axis for d in dropped), tiles)]
        type_ = without(op.results[0].type, dropped)
        attributes = {name: op.attributes[name] for name in op.attributes}
        return list(ir.Operation.create(op.name, [type_], tiles, attributes).results)

    def _part(self, value: ir.Value, pixels: Sequence[int]) -> ir.Value:
        """The tile of an operand that has rows and columns in these dimensions."""
        if self._dims.depends(value):
            return self.tile(value)
        at = {d: ir.AffineExpr.get_dim(i) for i, d in enumerate(pixels)}
        return self._known.tile(value, at) if isinstance(value.type, ir.RankedTensorType) else value

    def _structured(self, structured: Structured) -> list[ir.Value]:
        """A linalg operation, one tap of its window after the other."""
        op, inputs = structured.op, structured.inputs
        loops = structured.loops_of(self._dims.pixels(op.results[0]))
        # Only operations that count pixels need their numbers.
        pixel = ir.InsertionPoint.current.block.arguments
        counted = {d: pixel[i] for i, d in enumerate(loops) if d in structured.counted}
        outs = [self._operand(structured, n, loops, Tap()) for n in range(inputs, len(op.operands))]
        for tap in self._taps.of(op):
            tiles = [self._operand(structured, n, loops, tap) for n in range(inputs)]
            outs = tile_of(structured, tiles, outs, loops, tap.loops, counted)
        return outs

    def _operand(self, structured: Structured, number: int, loops: Sequence[int], tap: Tap) -> ir.Value:
        value = structured.op.operands[number]
        if self._dims.depends(value):
            return self.tile(value, tap.places.get(number, HERE))
        at: dict[int, ir.AffineExpr | int] = {}
        for d, place in enumerate(structured.indices[number]):
            if not place.terms.keys() & {*loops, *tap.loops}:
                continue
            here = place.at(tap.loops)
            expr = ir.AffineExpr.get_constant(here.constant)
            for loop, factor in here.terms.items():
                expr = expr + ir.AffineExpr.get_dim(list(loops).index(loop)) * factor
            at[d] = expr if here.terms else here.constant
        return self._known.tile(value, at)


def _is_whole(op: ir.Operation, dim: int) -> bool:
    """Does an insertion take all of a dimension?"""
    offsets, strides = (list(ir.DenseI64ArrayAttr(op.attributes[f"static_{key}"])) for key in ("offsets", "strides"))
    return offsets[dim] == 0 and strides[dim] == 1
