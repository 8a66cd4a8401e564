"""Padding, slices and shifts of the image as windows on other values."""

from collections.abc import Sequence
from dataclasses import dataclass

import islpy as isl
from torch_mlir import ir

from parc.codegen.elements import is_zero, splat
from parc.codegen.irtools import terminator
from parc.errors import CompileError
from parc.pixels.dims import Dims
from parc.poly.affine import SET, instance_space, to_set

#: They show the elements of their first operand, and zeros around them.
_VIEWS = ("tensor.pad", "tensor.extract_slice", "tensor.collapse_shape", "tensor.expand_shape", "tensor.cast")


@dataclass(frozen=True, eq=False)
class Window:
    """A value that shows another one, its base: `base[p + shift]` at the pixels p in `inside`, 0 at others."""

    base: ir.Value
    shift: tuple[int, int]
    inside: isl.Set
    views: tuple[ir.Operation, ...] = ()
    """What makes the value's tile of the base's: reshapes, slices and paddings of other dimensions, in order."""


class Windows:
    """The window that every value is; what computes something is its own base."""

    def __init__(self, dims: Dims) -> None:
        self.dims = dims
        self._windows: dict[ir.Value, Window] = {dims.image: self._whole(dims.image)}
        for op in dims.operations:
            for value in op.results:
                self._windows[value] = self._view(op, value) if op.name in _VIEWS else self._whole(value)

    def of(self, value: ir.Value) -> Window:
        """The window that a value is."""
        return self._windows[value]

    def box(self, value: ir.Value) -> isl.Set:
        """The pixels of a value, `{ [h, w] }`, with the symbols as parameters."""
        symbols = len(self.dims.symbols)
        bounds = [ir.AffineExpr.get_symbol(i) for i in range(symbols)]
        for d, extent in enumerate(self.dims.size(value)):
            bounds += [ir.AffineExpr.get_dim(d), extent - ir.AffineExpr.get_dim(d) - 1]
        attr = ir.IntegerSetAttr.get(ir.IntegerSet.get(2, symbols, bounds, [False] * len(bounds)))
        return to_set(attr, instance_space(self.dims.symbol_names, "", ("h", "w")))

    def is_here(self, value: ir.Value) -> bool:
        """Is a value at each pixel made of its base at that pixel, and of as many pixels?"""
        window, box = self.of(value), self.box(value)
        return window.shift == (0, 0) and box.is_equal(window.inside) and box.is_equal(self.box(window.base))

    def _whole(self, value: ir.Value) -> Window:
        return Window(value, (0, 0), self.box(value))

    def _view(self, op: ir.Operation, value: ir.Value) -> Window:
        source, rows_columns = self.of(op.operands[0]), self.dims.pixels(op.operands[0])
        start = [0] * op.operands[0].type.rank
        if op.name == "tensor.pad":
            if not is_zero(splat(terminator(op.regions[0].blocks[0]).operands[0])):
                raise CompileError("the image is padded with something other than 0", op.location)
            start = [-n for n in ir.DenseI64ArrayAttr(op.attributes["static_low"])]
        elif op.name == "tensor.extract_slice":
            start = list(ir.DenseI64ArrayAttr(op.attributes["static_offsets"]))
            strides = list(ir.DenseI64ArrayAttr(op.attributes["static_strides"]))
            if any(strides[d] != 1 or start[d] < 0 for d in rows_columns):
                raise CompileError("a slice of the image steps over pixels, or starts at a computed one", op.location)
        shift = [start[d] for d in rows_columns]
        shown = source.inside.apply(looks(source.inside.get_space(), [(1, -s) for s in shift]))
        inside = shown.intersect(self.box(value))
        total = (source.shift[0] + shift[0], source.shift[1] + shift[1])
        return Window(source.base, total, inside, (*source.views, op))


def looks(space: isl.Space, places: Sequence[tuple[int, int]]) -> isl.Map:
    """`{ [h, w] -> [factor * h + start, ...] }` for one (factor, start) each."""
    local = isl.LocalSpace.from_space(space)
    affs = isl.AffList.alloc(isl.DEFAULT_CONTEXT, len(places))
    for d, (factor, start) in enumerate(places):
        affs = affs.add(
            isl.Aff.var_on_domain(local, SET, d).scale_val(isl.Val(factor)).add_constant_val(isl.Val(start))
        )
    return isl.Map.from_multi_aff(isl.MultiAff.from_aff_list(space.map_from_set(), affs))
