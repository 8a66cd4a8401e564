"""The extents of tensors, said in the terms that are there already: a system's symbols, named sizes, other extents."""

from collections.abc import Callable, Iterable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, tensor

from parc.codegen.irtools import argument_kind, constant_int, defining_op
from parc.codegen.sizes import Size


class Sizes:
    """Emits extents at the current insertion point.

    `tensor.dim` is emitted only of values whose extents nothing says: not of what an equation reads.
    """

    def of(self, value: ir.Value) -> list[Size]:
        """The extents of a tensor: numbers, and index values where they are dynamic."""
        type_ = value.type
        if type_.has_static_shape:
            return list(type_.shape)
        op = defining_op(value)
        found = _of_argument(value) if op is None else self._of_result(value, op.operation)
        if found is None:
            found = [_dim(value, d) for d in range(type_.rank)]
        # What the type says is simpler than what can be derived.
        return [s if type_.is_dynamic_dim(d) else type_.shape[d] for d, s in enumerate(found)]

    def _of_result(self, value: ir.Value, op: ir.Operation) -> list[Size] | None:
        if op.name.startswith("linalg."):
            return self.of(op.operands[len(op.operands) - len(op.results) + value.result_number])
        if op.name in ("tensor.empty", "tensor.splat", "tensor.generate", "tensor.expand_shape"):
            named = iter([v for v in op.operands if isinstance(v.type, ir.IndexType)])
            type_ = value.type
            return [next(named) if type_.is_dynamic_dim(d) else s for d, s in enumerate(type_.shape)]
        if op.name.startswith(("arith.", "math.")):
            tensors = [v for v in op.operands if isinstance(v.type, ir.RankedTensorType)]
            return self.of(tensors[0]) if tensors else None
        rules: dict[str, Callable[[ir.Operation], list[Size] | None]] = {
            "tensor.extract_slice": _of_slice,
            "tensor.insert_slice": lambda op: self.of(op.operands[1]),
            "tensor.insert": lambda op: self.of(op.operands[1]),
            "tensor.cast": lambda op: self.of(op.operands[0]),
            "builtin.unrealized_conversion_cast": lambda op: self.of(op.operands[0]),
            "tensor.concat": self._of_concat,
            "tensor.collapse_shape": self._of_collapse,
            "tensor.pad": self._of_pad,
            "parc.read": lambda op: self.of(op.operands[0])[len(op.attributes["at"].value.results) :],
            "parc.unknown": lambda op: _apply(op.attributes["shape"].value, list(op.parent.operands)),
            "parc.array": _of_array,
        }
        return rules[op.name](op) if op.name in rules else None

    def _of_concat(self, op: ir.Operation) -> list[Size]:
        dim = ir.IntegerAttr(op.attributes["dim"]).value
        extents = self.of(op.operands[0])
        extents[dim] = _fold(arith.addi, [self.of(piece)[dim] for piece in op.operands])
        return extents

    def _of_collapse(self, op: ir.Operation) -> list[Size]:
        source = self.of(op.operands[0])
        return [_fold(arith.muli, [source[d.value] for d in group]) for group in op.attributes["reassociation"]]

    def _of_pad(self, op: ir.Operation) -> list[Size]:
        low, high = mixed(op, "low"), mixed(op, "high")
        return [_fold(arith.addi, three) for three in zip(low, self.of(op.operands[0]), high, strict=True)]


def mixed(op: ir.Operation, name: str) -> list[Size]:
    """A list of static and dynamic sizes: `name` is "offsets", "sizes" or "strides" of a slice, "low" or "high"."""
    names = ("low", "high") if op.name == "tensor.pad" else ("offsets", "sizes", "strides")
    segments = list(op.attributes["operandSegmentSizes"])
    # The lists are the last segments; what comes before them are the tensors.
    first = sum(segments[: len(segments) - len(names) + names.index(name)])
    dynamic = iter(list(op.operands)[first:])
    mark = ir.ShapedType.get_dynamic_size()
    return [next(dynamic) if s == mark else s for s in op.attributes[f"static_{name}"]]


def split(sizes: Sequence[Size]) -> tuple[list[ir.Value], list[int]]:
    """The dynamic sizes, and all of them with a mark where they are dynamic: the form that operations take."""
    mark = ir.ShapedType.get_dynamic_size()
    dynamic = [s for s in sizes if isinstance(s, ir.Value)]
    return dynamic, [mark if isinstance(s, ir.Value) else s for s in sizes]


def as_value(size: Size) -> ir.Value:
    """An extent as an index value."""
    return size if isinstance(size, ir.Value) else arith.constant(ir.IndexType.get(), size)


def _of_slice(op: ir.Operation) -> list[Size]:
    """The sizes, without the unit dimensions that the result's type leaves out: it keeps the first that fit."""
    shape = list(op.results[0].type.shape)
    kept: list[Size] = []
    for size in mixed(op, "sizes"):
        if size != 1 or shape[len(kept) : len(kept) + 1] == [1]:
            kept.append(size)
    return kept


def _of_array(op: ir.Operation) -> list[Size] | None:
    system = op.operands[0].owner.operation
    for member in system.regions[0].blocks[0].operations:
        if member.operation.name == "parc.unknown" and member.attributes["name"] == op.attributes["name"]:
            return _apply(member.attributes["shape"].value, list(system.operands))
    return None


def _of_argument(value: ir.Value) -> list[Size] | None:
    """By the argument's `parc.shape`, in terms of the function's symbols."""
    block = value.owner
    function = block.owner
    if function.operation.name != "func.func" or "arg_attrs" not in function.operation.attributes:
        return None
    attributes = list(function.operation.attributes["arg_attrs"])
    # A function that is being built may have new arguments behind those with attributes.
    number = ir.BlockArgument(value).arg_number
    own = attributes[number] if number < len(attributes) else {}
    if "parc.shape" not in own:
        return None
    symbols = [a for a, named in zip(block.arguments, attributes, strict=False) if argument_kind(named) == "symbol"]
    return _apply(own["parc.shape"].value, symbols)


def _apply(shape: ir.AffineMap, symbols: Sequence[ir.Value]) -> list[Size]:
    """The values of a map of the symbols."""
    extents: list[Size] = []
    for expr in shape.results:
        if isinstance(expr, ir.AffineConstantExpr):
            extents.append(expr.value)
        elif isinstance(expr, ir.AffineSymbolExpr):
            extents.append(symbols[expr.position])
        else:
            map_ = ir.AffineMap.get(0, shape.n_symbols, [expr])
            extents.append(affine.AffineApplyOp(map_, list(symbols)).result)
    return extents


def _fold(combine: Callable[..., ir.Value], sizes: Iterable[Size]) -> Size:
    """Sizes combined by an integer operation; numbers are combined now."""
    total: Size | None = None
    for size in sizes:
        if total is None:
            total = size
        elif isinstance(total, int) and isinstance(size, int):
            total = total + size if combine is arith.addi else total * size
        else:
            total = combine(as_value(total), as_value(size))
    return 1 if total is None else total


def _dim(value: ir.Value, d: int) -> Size:
    if not value.type.is_dynamic_dim(d):
        return value.type.shape[d]
    return tensor.DimOp(value, arith.constant(ir.IndexType.get(), d)).result


def same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are known to be equal."""
    if isinstance(a, int) or isinstance(b, int):
        return constant_size(a) is not None and constant_size(a) == constant_size(b)
    of_a, of_b = defining_op(a), defining_op(b)
    if isinstance(of_a, affine.AffineApplyOp) and isinstance(of_b, affine.AffineApplyOp):
        return of_a.attributes["map"] == of_b.attributes["map"] and list(of_a.operands) == list(of_b.operands)
    return a == b


def constant_size(size: Size) -> int | None:
    """The number that a size is known to be."""
    return size if isinstance(size, int) else constant_int(size)
