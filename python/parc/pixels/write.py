"""Writes the system of a step."""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import arith, func, linalg, tensor

from parc.codegen.irtools import terminator
from parc.pixels.known import Known
from parc.pixels.layers import Layer, Layers
from parc.pixels.point import Point
from parc.pixels.taps import Place
from parc.pixels.tiles import slice_of

_DYNAMIC = ir.ShapedType.get_dynamic_size()


def write_system(function: func.FuncOp, layers: Layers, results: Sequence[ir.Value]) -> list[ir.Value]:
    """Write the layers as a system at the end of a function; the solved arrays of its results, in their form."""
    end = terminator(function.entry_block)
    with ir.InsertionPoint(end), end.location:
        writer = _Writer(layers)
        return [writer.result(value) for value in results]


class _Writer:
    """Writes one system at the insertion point."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._dims = layers.dims
        self._symbols = len(self._dims.symbols)
        self._arrays: dict[ir.Value, ir.Value] = {}
        names = ir.ArrayAttr.get([ir.StringAttr.get(s) for s in self._dims.symbol_names])
        solution = ir.Type.parse("!parc.solution")
        self._system = _create("parc.system", [solution], self._dims.symbols, {"symbols": names})
        self._known = Known(self._dims, self._system, self._read)
        with ir.InsertionPoint(self._system.regions[0].blocks.append()):
            for number, layer in enumerate(layers.layers):
                for i, array in enumerate(layer.arrays):
                    self._declare(array, f"A{number}" + (f"_{i}" if i else ""))
            for array in layers.arrays:
                self._frame(array)
            for number, layer in enumerate(layers.layers):
                self._equation(layer, f"layer{number}")

    def result(self, value: ir.Value) -> ir.Value:
        """A solved array without its frame, its dimensions in the order of the value's."""
        unknown, frame = self._arrays[value], self._layers.frames[value]
        array = _create(
            "parc.array", [unknown.type], [self._system.results[0]], {"name": unknown.owner.attributes["name"]}
        )
        pixels = self._dims.pixels(value)
        order = [*pixels, *self._dims.others(value)]
        sizes = [self._dims.index(self._dims.extents(value)[d]) for d in order]
        solved = array.results[0]
        if any((*frame.low, *frame.high)):
            type_ = ir.RankedTensorType.get([value.type.shape[d] for d in order], value.type.element_type)
            solved = slice_of(solved, [*frame.low, *[0] * (len(order) - 2)], sizes, [1] * len(order), type_)
        start = tensor.empty([sizes[order.index(d)] for d in range(len(order))], value.type.element_type)
        back = [order.index(d) for d in range(len(order))]
        return linalg.transpose(solved, outs=[start], permutation=back).operation.results[0]

    def _declare(self, array: ir.Value, name: str) -> None:
        frame = self._layers.frames[array]
        size = [e + (a + b) for e, a, b in zip(self._dims.size(array), frame.low, frame.high, strict=True)]
        extents = [*size, *self._dims.tile(array)]
        shape = [
            e.value if isinstance(e := extent.maybe_downcast(), ir.AffineConstantExpr) else _DYNAMIC
            for extent in extents
        ]
        attributes = {
            "name": ir.StringAttr.get(name),
            "shape": ir.AffineMapAttr.get(ir.AffineMap.get(0, self._symbols, extents)),
        }
        with array.owner.location:
            type_ = ir.RankedTensorType.get(shape, array.type.element_type)
            self._arrays[array] = _create("parc.unknown", [type_], [], attributes).results[0]

    def _frame(self, array: ir.Value) -> None:
        """Zeros around an array: whole rows above and below it, and what is left of the columns beside it."""
        frame, size = self._layers.frames[array], self._dims.size(array)
        start = [ir.AffineExpr.get_constant(n) for n in frame.low]
        stop = [e + n for e, n in zip(size, frame.low, strict=True)]
        last = [e + n for e, n in zip(stop, frame.high, strict=True)]
        zero = ir.AffineExpr.get_constant(0)
        for count, rows, columns in (
            (frame.low[0], (zero, start[0]), (zero, last[1])),
            (frame.high[0], (stop[0], last[0]), (zero, last[1])),
            (frame.low[1], (start[0], stop[0]), (zero, start[1])),
            (frame.high[1], (start[0], stop[0]), (stop[1], last[1])),
        ):
            if count:
                here = [ir.AffineExpr.get_dim(0), ir.AffineExpr.get_dim(1)]
                attributes = {"domain": self._domain([rows, columns]), "to": self._map(here), "of": self._map([])}
                _create("parc.boundary", [], [self._arrays[array], self._zero(array)], attributes)

    def _zero(self, array: ir.Value) -> ir.Value:
        """A tile of zeros, in front of the system."""
        element = array.type.element_type
        with ir.InsertionPoint(self._system):
            empty = tensor.empty([self._dims.index(e) for e in self._dims.tile(array)], element)
            number = 0.0 if isinstance(element, ir.FloatType) else 0
            return linalg.fill(arith.constant(element, number), outs=[empty])

    def _equation(self, layer: Layer, name: str) -> None:
        layers, first = self._layers, layer.arrays[0]
        zero = ir.AffineExpr.get_constant(0)
        domain = self._domain([(zero, e) for e in self._dims.size(first)])
        attributes = {"name": ir.StringAttr.get(name), "domain": domain}
        index = ir.IndexType.get()
        location = first.owner.location
        with location:
            equation = _create("parc.equation", [], [], attributes)
        block = equation.regions[0].blocks.append(index, index, arg_locs=[location] * 2)

        def read(value: ir.Value, places: tuple[Place, Place]) -> ir.Value | None:
            if layers.computes(layer, value, places):
                return None
            source, shift = layers.source(value), layers.windows.of(value).shift
            low = layers.frames[source].low
            at = [
                ir.AffineExpr.get_dim(d) * factor + (start + shift[d] + low[d])
                for d, (factor, start) in enumerate(places)
            ]
            return self._read(self._arrays[source], at)

        with ir.InsertionPoint(block):
            point = Point(self._dims, layers.windows, layers.taps, self._known, read)
            for array in layer.arrays:
                tile, low = point.tile(array), layers.frames[array].low
                at = self._map([ir.AffineExpr.get_dim(d) + n for d, n in enumerate(low)])
                _create("parc.write", [], [tile, self._arrays[array]], {"at": at})

    def _read(self, array: ir.Value, at: Sequence[ir.AffineExpr]) -> ir.Value:
        tile = ir.RankedTensorType.get(list(array.type.shape)[len(at) :], array.type.element_type)
        return _create("parc.read", [tile], [array], {"at": self._map(at)}).results[0]

    def _map(self, exprs: Sequence[ir.AffineExpr]) -> ir.AffineMapAttr:
        return ir.AffineMapAttr.get(ir.AffineMap.get(2, self._symbols, list(exprs)))

    def _domain(self, bounds: Sequence[tuple[ir.AffineExpr, ir.AffineExpr]]) -> ir.Attribute:
        """The pixels from the first to below the second of each pair of bounds."""
        constraints = []
        for d, (start, stop) in enumerate(bounds):
            constraints += [ir.AffineExpr.get_dim(d) - start, stop - ir.AffineExpr.get_dim(d) - 1]
        return ir.IntegerSetAttr.get(ir.IntegerSet.get(2, self._symbols, constraints, [False] * len(constraints)))


def _create(
    name: str, results: Sequence[ir.Type], operands: Sequence[ir.Value], attributes: dict[str, ir.Attribute]
) -> ir.Operation:
    regions = int(name in ("parc.system", "parc.equation"))
    return ir.Operation.create(name, list(results), list(operands), attributes, regions=regions)
