"""Which dimensions of each value follow which of the image, and how long they are."""

from collections.abc import Sequence

from torch_mlir import ir
from torch_mlir.dialects import affine, func

from parc.codegen.elements import static_extents
from parc.codegen.irtools import argument_kind, captured_values, defining_op, symbol_arguments, terminator
from parc.codegen.sizes import Size, affine_of, sizes_of
from parc.codegen.views import reshape_groups, slice_dims
from parc.errors import CompileError
from parc.pixels.structure import Structured
from parc.pixels.tiles import mixed

Extents = tuple[ir.AffineExpr, ...]
Labels = tuple[int | None, ...]

#: They do not name the extents of their results, or with others.
_UNNAMED = (
    "tensor.cast",
    "tensor.collapse_shape",
    "tensor.concat",
    "tensor.extract_slice",
    "tensor.insert_slice",
    "tensor.pad",
)
#: They ask for the shape of a value alone.
_SHAPES = ("tensor.dim", "tensor.empty")


class Dims:
    """The values of `@main` that depend on one argument, the image, and their dimensions; others are *known*."""

    def __init__(self, function: func.FuncOp, image: ir.BlockArgument) -> None:
        self.image = image
        self.symbols = symbol_arguments(function)
        attributes = [ir.DictAttr(a) for a in function.arg_attrs]
        self.symbol_names = tuple(
            ir.StringAttr(a["parc.name"]).value for a in attributes if argument_kind(a) == "symbol"
        )
        self.operations: list[ir.Operation] = []
        """The operations on values that depend on the image, in order."""
        self._extents: dict[ir.Value, Extents] = {
            argument: tuple(ir.AffineMapAttr(a["parc.shape"]).value.results)
            for argument, a in zip(function.arguments, attributes, strict=True)
            if "parc.shape" in a
        }
        self._positions = {v: i for i, v in enumerate(self.symbols)}
        self._labels: dict[ir.Value, Labels] = {image: tuple(range(image.type.rank))}
        self._pixels: tuple[int, int] | None = None
        self._structured: dict[ir.Operation, Structured] = {}
        block = function.entry_block
        for op in block.operations:
            if op.operation != terminator(block):
                self._visit(op.operation)
        if self._pixels is None:
            raise CompileError("no convolution reads the image: it has no pixels", function.location)

    def depends(self, value: ir.Value) -> bool:
        """Does a value depend on the image?"""
        return value in self._labels

    def structured(self, op: ir.Operation) -> Structured | None:
        """The loops of a linalg operation; None for another one."""
        if op.name.startswith("linalg.") and op not in self._structured:
            self._structured[op] = Structured(op)
        return self._structured.get(op)

    def pixels(self, value: ir.Value) -> tuple[int, int]:
        """The dimensions of a value that are the rows and the columns of the image."""
        labels = self._labels[value]
        assert self._pixels is not None, "found by the constructor"
        if any(labels.count(p) != 1 for p in self._pixels):
            where = None if isinstance(value.owner, ir.Block) else value.owner.location
            raise CompileError(
                f"a value of type {value.type} mixes pixels of the image: it has no rows and columns", where
            )
        return labels.index(self._pixels[0]), labels.index(self._pixels[1])

    def others(self, value: ir.Value) -> list[int]:
        """The other dimensions of a value: those of its tile at one pixel."""
        return [d for d in range(value.type.rank) if d not in self.pixels(value)]

    def size(self, value: ir.Value) -> Extents:
        """How many rows and columns a value has."""
        return tuple(self.extents(value)[d] for d in self.pixels(value))

    def tile(self, value: ir.Value) -> Extents:
        """The extents of a value at one pixel."""
        return tuple(self.extents(value)[d] for d in self.others(value))

    def extents(self, value: ir.Value) -> Extents:
        """All extents of a tensor, also of a known one, as expressions of the symbols."""
        if value not in self._extents:
            op = defining_op(value)
            computed = None if op is None else self._computed(op.operation)
            self._extents[value] = computed or self._affine(sizes_of(value), value)
        return self._extents[value]

    def index(self, extent: ir.AffineExpr) -> Size:
        """An extent as a number, or as a value that is made at the insertion point."""
        extent = extent.maybe_downcast()
        if isinstance(extent, ir.AffineConstantExpr):
            return int(extent.value)
        if isinstance(extent, ir.AffineSymbolExpr):
            return self.symbols[extent.position]
        return affine.AffineApplyOp(ir.AffineMap.get(0, len(self.symbols), [extent]), self.symbols).result

    def _visit(self, op: ir.Operation) -> None:
        sources = [v for v in op.operands if v in self._labels]
        if any(v in self._labels and v not in sources for v in captured_values(op)):
            raise CompileError(f"'{op.name}' takes elements of the image that are not those of one pixel", op.location)
        if not sources or op.name in _SHAPES:
            return
        self.operations.append(op)
        structured = self.structured(op)
        if structured is not None:
            self._follow_loops(structured)
            return
        for value in op.results:
            self._labels[value] = self._follow(op, sources)
            if op.name.startswith(("arith.", "math.")):
                self._extents[value] = self.extents(sources[0])

    def _follow(self, op: ir.Operation, sources: Sequence[ir.Value]) -> Labels:
        """The labels of the result of an operation that is not structured."""
        labels, result = self._labels[sources[0]], op.results[0]
        if op.name in ("tensor.pad", "tensor.cast") or op.name.startswith(("arith.", "math.")):
            return labels
        if op.name == "tensor.concat":
            axis = ir.IntegerAttr(op.attributes["dim"]).value
            return tuple(None if d == axis else label for d, label in enumerate(labels))
        if op.name == "tensor.insert_slice":
            if op.operands[1] in self._labels:
                return self._labels[op.operands[1]]
            kept = slice_dims(op, op.operands[0])
            return tuple(None if d is None else self._labels[op.operands[0]][d] for d in kept)
        if op.name == "tensor.extract_slice":
            kept = slice_dims(op, result)
            return tuple(labels[d] for d in range(len(kept)) if kept[d] is not None)
        if op.name == "tensor.collapse_shape":
            extents = static_extents(op.operands[0].type)
            return tuple(_only([(labels[d], extents[d]) for d in group]) for group in reshape_groups(op))
        if op.name == "tensor.expand_shape":
            extents = static_extents(result.type)
            found: list[int | None] = []
            for label, group in zip(labels, reshape_groups(op), strict=True):
                single = [d for d in group if extents[d] != 1]
                found += [label if d in (single or group[-1:]) and len(single) < 2 else None for d in group]
            return tuple(found)
        raise CompileError(f"'{op.name}' has no form at one pixel", op.location)

    def _follow_loops(self, structured: Structured) -> None:
        """Results have the labels of the dimensions that their loops go along; a window's go along pixels."""
        labels: dict[int, int] = {}
        slid: list[int] = []
        op = structured.op
        for operand, index in zip(op.operands, structured.indices, strict=True):
            for place, label in zip(index, self._labels.get(operand, (None,) * len(index)), strict=True):
                loops = [d for d in place.terms if d in structured.parallel]
                if label is not None and len(loops) == 1:
                    labels[loops[0]] = label
                    slid += [label] * (len(place.terms) > 1)
        if slid:
            if len(slid) != 2 or self._pixels not in (None, tuple(slid)):
                raise CompileError(
                    "the image is convolved along other than two dimensions, always the same", op.location
                )
            self._pixels = (slid[0], slid[1])
        for number, value in enumerate(op.results):
            loops = structured.loops_of(range(value.type.rank), number)
            self._labels[value] = tuple(labels.get(d) for d in loops)
            self._extents[value] = self.extents(op.operands[structured.inputs + number])

    def _computed(self, op: ir.Operation) -> Extents | None:
        """The extents of the result of an operation that does not name them itself."""
        if op.name not in _UNNAMED:
            return None
        sources = [self.extents(v) for v in op.operands if isinstance(v.type, ir.RankedTensorType)]
        if op.name == "tensor.pad":
            low, high = (list(ir.DenseI64ArrayAttr(op.attributes[f"static_{key}"])) for key in ("low", "high"))
            if min(*low, *high) < 0:
                raise CompileError("an image is padded by a computed number of pixels", op.location)
            return tuple(e + (a + b) for e, a, b in zip(sources[0], low, high, strict=True))
        if op.name == "tensor.concat":
            axis = ir.IntegerAttr(op.attributes["dim"]).value
            total = sources[0][axis]
            for other in sources[1:]:
                total = total + other[axis]
            return (*sources[0][:axis], total, *sources[0][axis + 1 :])
        if op.name == "tensor.collapse_shape":
            groups = [[sources[0][d] for d in group] for group in reshape_groups(op)]
            return tuple(_multiplied(group) for group in groups)
        if op.name == "tensor.extract_slice":
            sizes = self._affine(mixed(op, "sizes"), op.results[0])
            return tuple(e for e, d in zip(sizes, slice_dims(op, op.results[0]), strict=True) if d is not None)
        return sources[-1]

    def _affine(self, sizes: Sequence[Size] | None, value: ir.Value) -> Extents:
        constant = ir.AffineExpr.get_constant
        found = [constant(s) if isinstance(s, int) else affine_of(s, self._positions) for s in sizes or []]
        if sizes is None or any(e is None for e in found):
            where = None if isinstance(value.owner, ir.Block) else value.owner.location
            raise CompileError(
                f"the sizes of a value of type {value.type} are no affine functions of the symbols", where
            )
        return tuple(e for e in found if e is not None)


def _multiplied(extents: Sequence[ir.AffineExpr]) -> ir.AffineExpr:
    total = extents[0]
    for extent in extents[1:]:
        total = total * extent
    return total


def _only(group: Sequence[tuple[int | None, int | None]]) -> int | None:
    """The label of (label, extent)s that become one dimension: that of the only one with another extent than 1."""
    longer = [label for label, extent in group if extent != 1] or [label for label, _ in group[-1:]]
    return longer[0] if len(longer) == 1 else None
