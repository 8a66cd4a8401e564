"""Values that do not depend on the image, as they are at one pixel: biases, noise, places for results."""

from collections.abc import Callable, Mapping, Sequence

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from parc.codegen.irtools import defining_op
from parc.codegen.sizes import Size
from parc.pixels.dims import Dims
from parc.pixels.generic import tile_of
from parc.pixels.tiles import kept, slice_of, without

At = Mapping[int, ir.AffineExpr | int]
"""Dimension -> where it is looked at: a number, or an expression of the pixel."""


class Known:
    """Takes tiles out of known values; what it prepares is written before the system."""

    def __init__(
        self, dims: Dims, system: ir.Operation, read: Callable[[ir.Value, Sequence[ir.AffineExpr]], ir.Value]
    ) -> None:
        """`read` writes a `parc.read` of a known array with these leading indices."""
        self._dims = dims
        self._system = system
        self._read = read
        self._prepared: dict[tuple[ir.Value, tuple[tuple[int, int | None], ...]], ir.Value] = {}

    def tile(self, value: ir.Value, at: At) -> ir.Value:
        """The rest of a value where some of its dimensions are looked at in one place."""
        if not at:
            return value
        op = defining_op(value)
        moving = {d: e for d, e in at.items() if isinstance(e, ir.AffineExpr)}
        if op is not None and len(moving) == len(at):
            made = self._made(op.operation, value, moving)
            if made is not None:
                return made
        key = value, tuple((d, e if isinstance(e, int) else None) for d, e in sorted(at.items()))
        if key not in self._prepared:
            with ir.InsertionPoint(self._system), self._system.location:
                self._prepared[key] = _in_front(self._dims, value, at)
        array = self._prepared[key]
        return self._read(array, [moving[d] for d in sorted(moving)]) if moving else array

    def _made(self, op: ir.Operation, value: ir.Value, at: Mapping[int, ir.AffineExpr]) -> ir.Value | None:
        """The tile of a value that is the same at every pixel (a broadcast bias, an empty tensor), made in the body."""
        if op.name == "tensor.empty":
            sizes = [self._dims.index(e) for e in kept(self._dims.extents(value), at)]
            return tensor.empty(sizes, value.type.element_type)
        if op.name == "linalg.fill":
            return linalg.fill(op.operands[0], outs=[self.tile(op.operands[1], at)])
        structured = self._dims.structured(op)
        if structured is None or len(op.results) > 1:
            return None
        loops = dict(zip(structured.loops_of(list(at)), at.values(), strict=True))
        inputs = structured.indices[: structured.inputs]
        if (
            structured.reduces
            or structured.counted & set(loops)
            or any(loops.keys() & p.terms.keys() for i in inputs for p in i)
        ):
            return None
        outs = self.tile(op.operands[structured.inputs], at)
        return tile_of(structured, op.operands[: structured.inputs], [outs], set(loops), {}, {})[0]


def _in_front(dims: Dims, value: ir.Value, at: At) -> ir.Value:
    """A value at some numbers in some dimensions, and with those of pixels in front."""
    sizes = [dims.index(e) for e in dims.extents(value)]
    fixed = [d for d, e in at.items() if isinstance(e, int)]
    if fixed:
        offsets: list[Size] = [at[d] if d in fixed else 0 for d in range(len(sizes))]
        one = [1 if d in fixed else s for d, s in enumerate(sizes)]
        value = slice_of(value, offsets, one, [1] * len(sizes), without(value.type, fixed))
        sizes = kept(sizes, fixed)
    # The dimensions as they are numbered now.
    places = kept(range(len(sizes) + len(fixed)), fixed)
    moving = [places.index(d) for d in sorted(at) if d not in fixed]
    order = [*moving, *(d for d in range(len(sizes)) if d not in moving)]
    if order == sorted(order):
        return value
    start = tensor.empty([sizes[d] for d in order], value.type.element_type)
    return linalg.transpose(value, outs=[start], permutation=order).operation.results[0]
