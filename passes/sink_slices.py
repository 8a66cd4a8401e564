"""`sink-slices`: a slice of a whole-sequence operation becomes that operation on slices.

A model may compute something for all time steps at once and take it apart again: the
input product of a layer, or a stack of step results that the next layer indexes.  That
hides which step needs which.  After this pass every step reads what it needs and no more:

    %hs = tensor.concat dim(0) %h0, %h1, %h2           (each tensor<2x8xf32>)
    %p = linalg.matmul ins(%hs, %w) outs(%init)        (tensor<6x32xf32>)
    %p1 = tensor.extract_slice %p[2, 0] [2, 32] [1, 1]
  becomes
    %p1 = linalg.matmul ins(%h1, %w) outs(%init1)      (tensor<2x32xf32>)

A slice stops at function arguments, at values that neither hold a product nor come from a loop,
at operations that are not slice-wise (a convolution along the sliced dimension), and is not
moved at all where it would cut a parameter (a gate taken out of a fused product stays a slice
of that product).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from parc.passbase import Pass


@dataclass
class SinkSlices(Pass):
    """Turn slices of whole-sequence operations into operations on slices."""

    name: ClassVar[str] = "sink-slices"

    def run(self, module: ir.Module) -> None:
        for func in module.body.operations:
            if func.operation.name == "func.func":
                _sink_in(func.operation)


class _NotSinkableError(Exception):
    """Moving the slice would cut a parameter or cross an operation that is not slice-wise."""


def _sink_in(func: ir.Operation) -> None:
    if not func.regions[0].blocks:
        return
    block = func.regions[0].blocks[0]
    parameters = _parameter_values(func)
    worthwhile = _worth_sinking(block)
    replaced: list[ir.Operation] = []
    for op in list(block.operations):
        if op.operation.name != "tensor.extract_slice":
            continue
        window = _window(op.operation)
        source = op.operation.operands[0]
        if window is None or isinstance(source.owner, ir.Block):
            continue
        if source in parameters:
            continue
        try:
            sinker = _Sinker(op.operation, parameters, worthwhile)
            value = sinker.slice(source, *window)
        except _NotSinkableError:
            continue
        result = op.operation.results[0]
        if value.type != result.type:
            value = _drop_unit_dims(value, result.type, op.operation)
        result.replace_all_uses_with(value)
        replaced.append(op.operation)
    # Not before: a new operation must not take the place in memory of one that `worthwhile` knows.
    for operation in replaced:
        operation.erase()


def _parameter_values(func: ir.Operation) -> set[ir.Value]:
    """Values that depend on parameters (and constants) alone, on at least one parameter."""
    block = func.regions[0].blocks[0]
    values: set[ir.Value] = set()
    attrs = func.attributes["arg_attrs"] if "arg_attrs" in func.attributes else None
    for i, arg in enumerate(block.arguments):
        if attrs is not None and "parc.kind" in attrs[i] and attrs[i]["parc.kind"].value == "parameter":
            values.add(arg)
    constant: set[ir.Value] = set()
    for op in block.operations:
        operands = list(op.operation.operands)
        if op.operation.results and all(v in values or v in constant for v in operands):
            target = values if any(v in values for v in operands) else constant
            target.update(op.operation.results)
    return values


#: Products, what is put together from pieces, and what costs nothing to slice.
_ALWAYS = (
    "linalg.matmul",
    "tensor.concat",
    "tensor.insert_slice",
    "tensor.collapse_shape",
    "tensor.expand_shape",
    "tensor.empty",
    "linalg.fill",
    "arith.constant",
)


def _worth_sinking(block: ir.Block) -> set[ir.Value]:
    """Values that hold a product or are put together from pieces, and the constants they start from."""
    found: set[ir.Value] = set()
    for op in block.operations:
        name = op.operation.name
        if name in _ALWAYS:
            found.update(op.operation.results)
        elif any(v in found and not _is_free(v) for v in op.operation.operands):
            found.update(op.operation.results)
    return found


def _is_free(value: ir.Value) -> bool:
    """A constant tensor, or a reshape of an argument: no reason to slice what uses it."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return True
    if owner.name in ("tensor.collapse_shape", "tensor.expand_shape"):
        return _is_free(owner.operation.operands[0])
    return owner.name in ("tensor.empty", "linalg.fill", "arith.constant")


def _window(op: ir.Operation) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Offsets and sizes of a static slice with unit strides."""
    dynamic = ir.ShapedType.get_dynamic_size()
    offsets, sizes, strides = (tuple(op.attributes[f"static_{k}"]) for k in ("offsets", "sizes", "strides"))
    if any(s != 1 for s in strides) or dynamic in offsets or dynamic in sizes:
        return None
    return offsets, sizes


def _drop_unit_dims(value: ir.Value, target: ir.Type, at: ir.Operation) -> ir.Value:
    """A rank-reducing slice keeps its result type: reshape away the unit dimensions it dropped."""
    with ir.InsertionPoint(at), at.location:
        offsets = [0] * value.type.rank
        return tensor.ExtractSliceOp(
            target, value, [], [], [], offsets, list(value.type.shape), [1] * value.type.rank
        ).result


class _Sinker:
    """Builds `slice(value)` before one operation, by recursion over the producers."""

    def __init__(self, at: ir.Operation, parameters: set[ir.Value], worthwhile: set[ir.Value]) -> None:
        self.at = at
        self.parameters = parameters
        self.worthwhile = worthwhile

    def slice(self, value: ir.Value, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value:
        if tuple(value.type.shape) == sizes:
            return value
        if value in self.parameters:
            raise _NotSinkableError
        owner = value.owner
        if isinstance(owner, ir.Block) or value not in self.worthwhile:
            return self._extract(value, offsets, sizes)
        rule = {
            "tensor.extract_slice": self._of_extract,
            "tensor.concat": self._of_concat,
            "tensor.insert_slice": self._of_insert,
            "tensor.collapse_shape": self._of_collapse,
            "tensor.expand_shape": self._of_expand,
            "tensor.empty": self._of_empty,
            "arith.constant": self._of_constant,
        }.get(owner.operation.name)
        if rule is None and owner.operation.name.startswith("linalg."):
            rule = self._of_linalg
        built = rule(owner.operation, offsets, sizes) if rule else None
        return built if built is not None else self._extract(value, offsets, sizes)

    def _extract(self, value: ir.Value, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value:
        with ir.InsertionPoint(self.at), self.at.location:
            type_ = ir.RankedTensorType.get(sizes, value.type.element_type)
            return tensor.ExtractSliceOp(type_, value, [], [], [], offsets, sizes, [1] * len(sizes)).result

    def _of_extract(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        window = _window(op)
        if window is None or len(window[0]) != len(offsets):
            return None
        return self.slice(op.operands[0], tuple(a + b for a, b in zip(window[0], offsets, strict=True)), sizes)

    def _of_concat(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        dim = op.attributes["dim"].value
        if any(piece.type.is_dynamic_dim(dim) for piece in op.operands):
            return None
        start = 0
        for piece in op.operands:
            extent = piece.type.shape[dim]
            if start <= offsets[dim] and offsets[dim] + sizes[dim] <= start + extent:
                inner = tuple(o - start if i == dim else o for i, o in enumerate(offsets))
                return self.slice(piece, inner, sizes)
            start += extent
        return self._of_several_pieces(op, offsets, sizes)

    def _of_several_pieces(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value:
        dim = op.attributes["dim"].value
        begin, end, start, parts = offsets[dim], offsets[dim] + sizes[dim], 0, []
        for piece in op.operands:
            extent = piece.type.shape[dim]
            low, high = max(begin, start), min(end, start + extent)
            if low < high:
                inner = tuple(low - start if i == dim else o for i, o in enumerate(offsets))
                parts.append(
                    self.slice(piece, inner, tuple(high - low if i == dim else s for i, s in enumerate(sizes)))
                )
            start += extent
        with ir.InsertionPoint(self.at), op.location:
            return tensor.ConcatOp(ir.RankedTensorType.get(sizes, parts[0].type.element_type), dim, parts).result

    def _of_insert(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        window = _window(op)
        source, target = op.operands[0], op.operands[1]
        if window is None or source.type.rank != target.type.rank:
            return None
        starts, extents = window
        dims = range(len(offsets))
        if all(starts[i] <= offsets[i] and offsets[i] + sizes[i] <= starts[i] + extents[i] for i in dims):
            return self.slice(source, tuple(offsets[i] - starts[i] for i in dims), sizes)
        if any(offsets[i] + sizes[i] <= starts[i] or offsets[i] >= starts[i] + extents[i] for i in dims):
            return self.slice(target, offsets, sizes)
        return None

    def _of_collapse(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        source = op.operands[0]
        groups = [[d.value for d in group] for group in op.attributes["reassociation"]]
        inner_offsets, inner_sizes = [0] * source.type.rank, list(source.type.shape)
        for group, offset, size in zip(groups, offsets, sizes, strict=True):
            window = _split_window([source.type.shape[d] for d in group], offset, size)
            if window is None:
                return None
            for d, (o, s) in zip(group, window, strict=True):
                inner_offsets[d], inner_sizes[d] = o, s
        inner = self.slice(source, tuple(inner_offsets), tuple(inner_sizes))
        with ir.InsertionPoint(self.at), op.location:
            type_ = ir.RankedTensorType.get(sizes, source.type.element_type)
            return tensor.CollapseShapeOp(type_, inner, groups).result

    def _of_expand(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        source, shape = op.operands[0], op.results[0].type.shape
        groups = [[d.value for d in group] for group in op.attributes["reassociation"]]
        inner_offsets, inner_sizes = [], []
        for group in groups:
            window = _join_window([shape[d] for d in group], [(offsets[d], sizes[d]) for d in group])
            if window is None:
                return None
            inner_offsets.append(window[0])
            inner_sizes.append(window[1])
        inner = self.slice(source, tuple(inner_offsets), tuple(inner_sizes))
        with ir.InsertionPoint(self.at), op.location:
            type_ = ir.RankedTensorType.get(sizes, source.type.element_type)
            return tensor.ExpandShapeOp(type_, inner, groups, [], list(sizes)).result

    def _of_empty(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value:
        with ir.InsertionPoint(self.at), op.location:
            return tensor.EmptyOp(list(sizes), op.results[0].type.element_type).result

    def _of_constant(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        value = op.attributes["value"]
        if not isinstance(value, ir.DenseElementsAttr) or not value.is_splat:
            return None
        with ir.InsertionPoint(self.at), op.location:
            type_ = ir.RankedTensorType.get(sizes, op.results[0].type.element_type)
            splat = ir.DenseElementsAttr.get_splat(type_, value.get_splat_value())
            return ir.Operation.create("arith.constant", results=[type_], attributes={"value": splat}).results[0]

    def _of_linalg(self, op: ir.Operation, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> ir.Value | None:
        maps = _indexing_maps(op)
        if maps is None or len(op.results) != 1:
            return None
        if op.name == "linalg.transpose" and isinstance(op.operands[0].owner, ir.Block):
            return None  # A transposed argument is a sequence too, with its steps along another dimension.
        window: dict[int, tuple[int, int]] = {}
        for expr, extent, offset, size in zip(maps[-1].results, op.results[0].type.shape, offsets, sizes, strict=True):
            if not isinstance(expr, ir.AffineDimExpr):
                return None
            if size != extent:
                window[expr.position] = (offset, size)
        if _uses_index(op, set(window)):
            return None
        operands = []
        for value, m in zip(op.operands, maps, strict=True):
            if not isinstance(value.type, ir.RankedTensorType):
                operands.append(value)
                continue
            inner_offsets, inner_sizes = [], []
            for expr, extent in zip(m.results, value.type.shape, strict=True):
                if isinstance(expr, ir.AffineDimExpr):
                    offset, size = window.get(expr.position, (0, extent))
                elif _mentions(expr, set(window)):
                    return None
                else:
                    offset, size = 0, extent
                inner_offsets.append(offset)
                inner_sizes.append(size)
            operands.append(self.slice(value, tuple(inner_offsets), tuple(inner_sizes)))
        with ir.InsertionPoint(self.at):
            clone = op.clone()
        for i, value in enumerate(operands):
            clone.operands[i] = value
        clone.results[0].set_type(ir.RankedTensorType.get(sizes, op.results[0].type.element_type, loc=op.location))
        return clone.results[0]


def _indexing_maps(op: ir.Operation) -> list[ir.AffineMap] | None:
    """One map per operand of a structured operation, in operand order."""
    attr = op.attributes["indexing_maps"] if "indexing_maps" in op.attributes else linalg.get_indexing_maps(op)
    if attr is None:
        return None
    maps = [a.value for a in attr]
    return maps if len(maps) == len(op.operands) else None


def _mentions(expr: ir.AffineExpr, dims: set[int]) -> bool:
    if isinstance(expr, ir.AffineDimExpr):
        return expr.position in dims
    if isinstance(expr, ir.AffineBinaryExpr):
        return _mentions(expr.lhs, dims) or _mentions(expr.rhs, dims)
    return False


def _uses_index(op: ir.Operation, dims: set[int]) -> bool:
    """Whether the body asks for the position along one of the loop dimensions."""
    return any(
        inner.operation.name == "linalg.index" and inner.operation.attributes["dim"].value in dims
        for inner in op.regions[0].blocks[0].operations
    )


def _split_window(shape: list[int], offset: int, size: int) -> list[tuple[int, int]] | None:
    """The window [offset, offset + size) of flattened `shape` as one window per dimension, if it is a box."""
    trailing = 1
    for j in range(len(shape) - 1, -1, -1):
        if offset % trailing == 0 and size % trailing == 0:
            start, count = offset // trailing, size // trailing
            if start % shape[j] + count <= shape[j]:
                window = [(0, s) for s in shape]
                window[j] = (start % shape[j], count)
                outer = start // shape[j]
                for i in range(j - 1, -1, -1):
                    window[i] = (outer % shape[i], 1)
                    outer //= shape[i]
                return window
        trailing *= shape[j]
    return None


def _join_window(shape: list[int], window: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The inverse: one window per dimension as a window of the flattened dimension, if it is contiguous."""
    offset, size, partial = 0, 1, False
    for extent, (_, count) in zip(reversed(shape), reversed(window), strict=True):
        # Outside the first dimension that is not whole, only single indices keep the window contiguous.
        if partial and count != 1:
            return None
        partial = partial or count != extent
    stride = 1
    for extent, (start, count) in zip(reversed(shape), reversed(window), strict=True):
        offset += start * stride
        size *= count
        stride *= extent
    return offset, size
