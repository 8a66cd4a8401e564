"""`flatten-products`: a batched product with one weight for the whole batch becomes one matrix product.

PyTorch's `linear` on a [T, B, K] tensor arrives as a batch of T products with T copies of the weight:

    %ws = linalg.generic (broadcast) ins(%w : tensor<8x32xf32>) outs(... tensor<4x8x32xf32>)
    %p = linalg.batch_matmul ins(%x, %ws : tensor<4x2x8xf32>, tensor<4x8x32xf32>) outs(%init)
  becomes
    %rows = tensor.collapse_shape %x [[0, 1], [2]] : tensor<4x2x8xf32> into tensor<8x8xf32>
    %q = linalg.matmul ins(%rows, %w) outs(...) -> tensor<8x32xf32>
    %p = tensor.expand_shape %q [[0, 1], [2]] : tensor<8x32xf32> into tensor<4x2x32xf32>
"""

from dataclasses import dataclass
from typing import ClassVar

from torch_mlir import ir
from torch_mlir.dialects import linalg, tensor

from parc.passbase import Pass

_GROUPS = [[0, 1], [2]]


@dataclass
class FlattenProducts(Pass):
    """Turn batched products that share one weight into plain matrix products."""

    name: ClassVar[str] = "flatten-products"

    def run(self, module: ir.Module) -> None:
        for func in module.body.operations:
            if func.operation.name != "func.func":
                continue
            for block in func.operation.regions[0].blocks:
                for op in list(block.operations):
                    if op.operation.name == "linalg.batch_matmul":
                        _flatten(op.operation)


def _flatten(op: ir.Operation) -> None:
    left, right, init = op.operands
    weight = _shared(right)
    if weight is None or not left.type.has_static_shape or not _is_plain(op):
        return
    batch, rows, depth = left.type.shape
    units = right.type.shape[2]
    element = init.type.element_type
    with ir.InsertionPoint(op), op.location:

        def collapse(value: ir.Value, columns: int) -> ir.Value:
            type_ = ir.RankedTensorType.get([batch * rows, columns], value.type.element_type)
            return tensor.CollapseShapeOp(type_, value, _GROUPS).result

        product = linalg.matmul(collapse(left, depth), weight, outs=[collapse(init, units)])
        type_ = ir.RankedTensorType.get([batch, rows, units], element)
        result = tensor.ExpandShapeOp(type_, product, _GROUPS, [], [batch, rows, units]).result
    op.results[0].replace_all_uses_with(result)
    op.erase()


def _is_plain(op: ir.Operation) -> bool:
    """No transposed or broadcast operands by indexing maps."""
    if "indexing_maps" not in op.attributes:
        return True
    want = ["(d0, d1, d2, d3) -> (d0, d1, d3)", "(d0, d1, d2, d3) -> (d0, d3, d2)", "(d0, d1, d2, d3) -> (d0, d1, d2)"]
    return [str(a.value) for a in op.attributes["indexing_maps"]] == want


def _shared(value: ir.Value) -> ir.Value | None:
    """The [K, N] tensor that `value` [batch, K, N] repeats along its batch, or None."""
    if isinstance(value.owner, ir.Block):
        return None
    op = value.owner.operation
    if op.name == "linalg.broadcast" and list(op.attributes["dimensions"]) == [0]:
        return op.operands[0]
    if op.name != "linalg.generic" or len(op.operands) != 2 or op.operands[0].type.rank != 2:
        return None
    maps = [str(a.value) for a in op.attributes["indexing_maps"]]
    if maps != ["(d0, d1, d2) -> (d1, d2)", "(d0, d1, d2) -> (d0, d1, d2)"]:
        return None
    block = op.regions[0].blocks[0]
    body = list(block.operations)
    copies = len(body) == 1 and body[0].operation.operands[0] == block.arguments[0]
    return op.operands[0] if copies else None
