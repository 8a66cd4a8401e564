"""Elements of the tensors in an equation's body: where they are, and what a linalg operation makes of them.

An element is a value and one `Index` per dimension.  An index is fixed, or moves with the row b, the unit j or the
summation index k of the cell that is being found (`codegen/analysis.py`).
"""

from dataclasses import dataclass
from typing import Literal

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.irtools import defining_op

# Operations that reductions combine values with: the name of the kind, and what changes nothing.
COMBINING = {
    "arith.addf": ("add", -0.0),
    "arith.mulf": ("mul", 1.0),
    "arith.maximumf": ("maximumf", float("-inf")),
    "arith.minimumf": ("minimumf", float("inf")),
}


class NotACellError(Exception):
    """The body does something that no cell does."""


@dataclass(frozen=True)
class Index:
    """Where one dimension of a value is looked at, as the cell's row b, unit j and summation index k vary."""

    kind: Literal["row", "unit", "depth", "fixed"]
    value: int  # row: which of the row dimensions; unit, depth: the offset to j or k; fixed: the index itself

    def moved(self, offset: int) -> "Index":
        if self.kind == "row" and offset:
            raise NotACellError
        return Index(self.kind, self.value + offset)


Indices = tuple[Index, ...]


@dataclass(frozen=True)
class Piece:
    """`value[indices]`, for the summation indices `start <= k < stop` (for every unit, outside a product)."""

    start: int
    stop: int
    value: ir.Value
    indices: Indices


class StructuredElement:
    """One element of a linalg operation's result, with what every iteration dimension is at that element."""

    def __init__(self, op: ir.Operation, value: ir.Value, indices: Indices) -> None:
        maps = linalg.get_indexing_maps(op.opview)
        if maps is None or len(op.regions) != 1:
            raise NotACellError
        self.op = op
        self.maps = [ir.AffineMapAttr(m).value for m in maps]
        self.block = op.regions[0].blocks[0]
        self.result = ir.OpResult(value).result_number
        self.input_count = len(op.operands) - len(op.results)
        self.out = self.input_count + self.result
        self.dims: dict[int, Index] = {}
        for expr, index in zip(self.maps[self.out].results, indices, strict=True):
            if not isinstance(expr, ir.AffineDimExpr):
                raise NotACellError
            self.dims[expr.position] = index

    def reduced_dims(self) -> list[int]:
        """Iteration dimensions that the result does not have."""
        return [d for d in range(self.maps[0].n_dims) if d not in self.dims]

    def extent(self, dim: int) -> int:
        """The static extent of an iteration dimension."""
        for value, map_ in zip(self.op.operands, self.maps, strict=True):
            for i, expr in enumerate(map_.results):
                if isinstance(expr, ir.AffineDimExpr) and expr.position == dim and static_extents(value.type)[i]:
                    return static_extents(value.type)[i] or 0
        raise NotACellError

    def input(self, number: int, reduced: Literal["depth"] | None = None) -> tuple[ir.Value, Indices]:
        """Operand `number` and where the element looks at it; reduced dimensions are those of the summation."""
        indices = []
        for expr in self.maps[number].results:
            if isinstance(expr, ir.AffineConstantExpr):
                indices.append(Index("fixed", expr.value))
            elif isinstance(expr, ir.AffineDimExpr) and (expr.position in self.dims or reduced):
                indices.append(self.dims.get(expr.position, Index("depth", 0)))
            else:
                raise NotACellError
        return self.op.operands[number], tuple(indices)

    def outs(self) -> ir.Value:
        """The value that the result starts from."""
        return self.op.operands[self.out]

    def yielded(self) -> ir.Value:
        """The scalar that the body gives for this result."""
        return list(self.block.operations)[-1].operation.operands[self.result]

    def forwarded(self) -> int | None:
        """The operand that the body hands on unchanged (a transpose, broadcast or copy), if it does."""
        value = self.yielded()
        if not isinstance(value.owner, ir.Block) or value.owner != self.block or self.reduced_dims():
            return None
        number = ir.BlockArgument(value).arg_number
        return None if number == self.out else number

    def combined(self) -> tuple[ir.Operation, ir.Value] | None:
        """The operation that adds to (or compares with) what the result was so far, and the value that it adds."""
        value, so_far = self.yielded(), self.block.arguments[self.out]
        op = defining_op(value)
        if op is None or op.operation.name not in COMBINING:
            return None
        left, right = op.operation.operands
        return None if so_far not in (left, right) else (op.operation, right if left == so_far else left)

    def product_factors(self) -> tuple[int, int] | None:
        """The two operands that a body `out + a * b` multiplies."""
        ops = [op.operation for op in self.block.operations]
        if [op.name for op in ops] != ["arith.mulf", "arith.addf", "linalg.yield"]:
            return None
        arguments = {v: i for i, v in enumerate(self.block.arguments)}
        factors = [arguments.get(v) for v in ops[0].operands]
        if set(ops[1].operands) != {ops[0].results[0], self.block.arguments[self.out]} or None in factors:
            return None
        return (factors[0], factors[1]) if self.out not in factors else None  # type: ignore[return-value]


def static_extents(type_: ir.Type) -> tuple[int | None, ...]:
    """Extents of a tensor, None where dynamic; a scalar has none."""
    if not isinstance(type_, ir.RankedTensorType):
        return ()
    return tuple(None if type_.is_dynamic_dim(i) else type_.get_dim_size(i) for i in range(type_.rank))


def element_type(value: ir.Value) -> ir.Type:
    return value.type.element_type if isinstance(value.type, ir.ShapedType) else value.type


def uses_dims(expr: ir.AffineExpr) -> bool:
    if isinstance(expr, ir.AffineBinaryExpr):
        return uses_dims(expr.lhs) or uses_dims(expr.rhs)
    return isinstance(expr, ir.AffineDimExpr)


def splat(value: ir.Value) -> ir.Attribute | None:
    """The scalar that fills `value`, wherever it is defined."""
    op = defining_op(value)
    if op is None:
        return None
    if op.operation.name in ("linalg.fill", "tensor.splat"):
        return splat(op.operation.operands[0])
    if op.operation.name != "arith.constant":
        return None
    constant = op.operation.attributes["value"]
    if isinstance(constant, ir.DenseElementsAttr):
        return constant.get_splat_value() if constant.is_splat else None
    return constant if isinstance(constant, ir.FloatAttr | ir.IntegerAttr) else None


def is_zero(constant: ir.Attribute | None) -> bool:
    return isinstance(constant, ir.FloatAttr) and constant.value == 0.0
