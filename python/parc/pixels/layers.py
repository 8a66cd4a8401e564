"""Which values of a step become arrays of the system, and which equation computes each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import islpy as isl
from torch_mlir import ir

from parc.codegen.irtools import defining_op
from parc.errors import CompileError
from parc.pixels.dims import Dims
from parc.pixels.taps import HERE, Place, Taps
from parc.pixels.windows import Windows, looks
from parc.poly.affine import to_map


@dataclass
class Layer:
    """One equation: the arrays that it defines, and what is computed for them at a pixel besides."""

    arrays: list[ir.Value]
    operations: dict[ir.Operation, None]


@dataclass
class Frame:
    """How many rows and columns of zeros are kept around an array, because they are read."""

    low: list[int] = field(default_factory=lambda: [0, 0])
    high: list[int] = field(default_factory=lambda: [0, 0])


class Layers:
    """The equations of a step with these results, the first of which is the image.

    A value is an array when it is seen from another pixel or by a sum (a matrix product takes its factor from memory),
    or when several arrays are made of it.  Each has an equation of its own; but one that is elementwise in arrays of
    the same pixel is computed together with the last of these.
    """

    def __init__(self, dims: Dims, windows: Windows, taps: Taps, results: Sequence[ir.Value]) -> None:
        self.dims = dims
        self.windows = windows
        self.taps = taps
        self._image = results[0]
        self._position = {op: i for i, op in enumerate(dims.operations)}
        self.arrays = self._find_arrays(results)
        self.layers = self._grouped()
        self.frames: dict[ir.Value, Frame] = {array: Frame() for array in self.arrays}
        for layer in self.layers:
            for array in layer.arrays:
                self._widen(layer, array, HERE)
            for op in layer.operations:
                for tap in taps.of(op):
                    for operand, places in tap.places.items():
                        self._widen(layer, op.operands[operand], places)

    def source(self, value: ir.Value) -> ir.Value:
        """What a value shows: a computed value, or where that is the image, the result that becomes it."""
        base = self.windows.of(value).base
        return self._image if base == self.dims.image else base

    def computes(self, layer: Layer, value: ir.Value, places: tuple[Place, Place]) -> bool:
        """Is a value, as it is seen at `places`, made of what its equation itself computes at the pixel?"""
        op = defining_op(self.windows.of(value).base)
        return places == HERE and op is not None and op.operation in layer.operations and self.windows.is_here(value)

    def _find_arrays(self, results: Sequence[ir.Value]) -> dict[ir.Value, None]:
        """All arrays, in the order of the program."""
        arrays = set(results)
        users: dict[ir.Value, set[ir.Value]] = {}
        for op in reversed(self.dims.operations):
            made: set[ir.Value] = set()
            for value in op.results:
                wanted = users.get(value, set())
                if len(wanted) > 1:
                    arrays.add(value)
                made |= {value} if value in arrays else wanted
            if made:
                for part, is_seen_here in self._parts(op, arrays):
                    source = self.source(part)
                    users.setdefault(source, set()).update(made)
                    if not is_seen_here:
                        arrays.add(source)
        return dict.fromkeys(sorted(arrays, key=self._place))

    def _parts(self, op: ir.Operation, arrays: set[ir.Value]) -> Iterator[tuple[ir.Value, bool]]:
        """The values that an operation is made of, and whether it can take them as they are computed."""
        result = op.results[0]
        if self.windows.of(result).base != result:
            if result in arrays:
                yield result, self.windows.is_here(result)
            return
        structured = self.dims.structured(op)
        # What a sum starts with is added to it as it is.
        summed = structured.inputs if structured is not None and structured.reduces else 0
        for tap in self.taps.of(op):
            for operand, places in tap.places.items():
                value = op.operands[operand]
                yield value, places == HERE and self.windows.is_here(value) and operand >= summed

    def _place(self, array: ir.Value) -> int:
        op = defining_op(array)
        assert op is not None, "the image is replaced by the result that becomes it"
        return self._position[op.operation]

    def _grouped(self) -> list[Layer]:
        """The equations; an array that one is elementwise in is computed by it or an earlier one."""
        layers: list[Layer] = []
        number: dict[ir.Value, int] = {}
        for array in self.arrays:
            operations, reads = self._made_of(array)
            same = next((number[a] for a in number if a.owner == array.owner), None)
            if same is None and reads and self._is_elementwise(operations, reads):
                same = max(number[self.source(value)] for value in reads)
            if same is None:
                same = len(layers)
                layers.append(Layer([], {}))
            layers[same].arrays.append(array)
            layers[same].operations.update(operations)
            number[array] = same
        return layers

    def _is_elementwise(self, operations: dict[ir.Operation, None], reads: Sequence[ir.Value]) -> bool:
        """Are these operations elementwise in the arrays of the same pixel that they read?"""
        structured = (self.dims.structured(op) for op in operations)
        sums = any(s is not None and s.reduces for s in structured)
        # A value of the image itself is known only after all others of its pixel.
        here = all(self.windows.is_here(v) and self.windows.of(v).base != self.dims.image for v in reads)
        return here and not sums

    def _made_of(self, array: ir.Value) -> tuple[dict[ir.Operation, None], list[ir.Value]]:
        """The operations that compute an array at a pixel, in order, and the values that they read from arrays."""
        found: set[ir.Operation] = set()
        reads: list[ir.Value] = []

        def compute(op: ir.Operation) -> None:
            if op in found:
                return
            found.add(op)
            for tap in self.taps.of(op):
                for operand in tap.places:
                    take(op.operands[operand])

        def take(value: ir.Value) -> None:
            source = self.source(value)
            if source in self.arrays and source != array:
                reads.append(value)
            else:
                compute(source.owner.operation)

        source = self.windows.of(array).base
        if source == array:
            compute(array.owner.operation)
        else:
            take(array)
        return dict.fromkeys(sorted(found, key=self._position.__getitem__)), reads

    def _widen(self, layer: Layer, value: ir.Value, places: tuple[Place, Place]) -> None:
        """Make room for what is read of an array from the pixels of a layer."""
        source, window = self.source(value), self.windows.of(value)
        if self.computes(layer, value, places):
            return
        pixels = self.windows.box(layer.arrays[0])
        seen = pixels.apply(looks(pixels.get_space(), places))
        shifted = looks(pixels.get_space(), [(1, s) for s in window.shift])
        hidden = seen.subtract(window.inside).apply(shifted).intersect(self.windows.box(source))
        if not hidden.is_empty():
            raise CompileError(
                f"pixels that a slice cut off are read as zeros: {hidden} of a value of type {source.type}",
                source.owner.location,
            )
        read, frame = seen.apply(shifted), self.frames[source]
        for d, extent in enumerate(self.dims.size(source)):
            place = ir.AffineExpr.get_dim(d)
            before, behind = (self._largest(e, read, source) for e in (-1 * place, place - extent + 1))
            frame.low[d], frame.high[d] = max(frame.low[d], before), max(frame.high[d], behind)

    def _largest(self, expr: ir.AffineExpr, pixels: isl.Set, array: ir.Value) -> int:
        """The largest value of an expression of some pixels, at all sizes; at least 0."""
        if pixels.is_empty():
            return 0
        map_ = ir.AffineMap.get(2, len(self.dims.symbols), [expr])
        largest = to_map(map_, pixels, "").range().project_out_all_params().dim_max_val(0)
        if not largest.is_int():
            raise CompileError("of a larger image more pixels around it are read", array.owner.location)
        return max(0, largest.to_python())
