"""`raise-products`: matrix products and convolutions around the recurrences become systems of one equation.

So they get packed weights, the fast kernel and a share of every thread, as products inside recurrences do.

    %y = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x32xf32>) outs(%zero : tensor<?x32xf32>)
  becomes
    %s = "parc.system"(%T) ({ ... "parc.equation"() ({^bb0(%t: index):
           "parc.write"(%y_t = matmul of "parc.read"(%x)[t] and %w) ... }) {name = "product0"} })
    %y = "parc.array"(%s) {name = "product0_y"}

A convolution is first unfolded: a row of `u` holds what one output position sees,

    u[n, o, c, k] = x[n, c, o * stride + k * dilation]     y[n, f, o] = sum over (c, k) of u[n, o, c, k] w[f, c, k]

Products with something other than parameters stay, as do small ones and those of sizes that are not affine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import arith, func, linalg, tensor

from parc.codegen.irtools import argument_kind, constant_value, defining_op, find_function, symbol_arguments
from parc.codegen.sizes import Size, affine_of, sizes_of
from parc.passbase import Pass

#: Convolution -> its number of spatial dimensions; the channels are in front of them.
_CONVOLUTIONS = {"linalg.conv_1d_ncw_fcw": 1, "linalg.conv_2d_nchw_fchw": 2}
#: Weights with a smaller side are not worth a kernel.
_LEAST = 8


@dataclass
class RaiseProducts(Pass):
    """Turn matrix products and convolutions outside the recurrences into systems of one equation."""

    name = "raise-products"

    def run(self, module: ir.Module) -> None:
        main = find_function(module, "main")
        if main is None:
            return
        with module.context:
            raiser = _Raiser(main)
            for op in list(main.entry_block.operations):
                if op.operation.name == "linalg.matmul":
                    raiser.matmul(op.operation)
                elif op.operation.name in _CONVOLUTIONS:
                    raiser.convolution(op.operation)


class _Raiser:
    def __init__(self, main: func.FuncOp) -> None:
        self._symbols = symbol_arguments(main)
        attributes = [ir.DictAttr(a) for a in main.arg_attrs] if main.arguments else []
        self._names = [a["parc.name"] for a in attributes if argument_kind(a) == "symbol"]
        self._fixed: dict[ir.Value, bool] = {
            v: argument_kind(a) == "parameter" for v, a in zip(main.arguments, attributes, strict=True)
        }
        self._count = 0

    def matmul(self, op: ir.Operation) -> None:
        rows, weights, init = op.operands
        if not self._suits(weights, weights.type.shape):
            return
        with ir.InsertionPoint(op), op.location:
            source = _before_collapse(rows)
            sizes = sizes_of(source) if source is not None else None
            if source is None or sizes is None:
                sizes = sizes_of(init)
                if sizes is None:
                    return
                sizes = [sizes[0], 1, rows.type.shape[1]]
                source = _expand(rows, sizes, [[0, 1], [2]])
            product = self._solve(source, weights, sizes[:2])
            if product is not None:
                self._replace(op, _collapse(product, [[0, 1], [2]]), init, [0, 1])

    def convolution(self, op: ir.Operation) -> None:
        image, kernel, init = op.operands
        sizes, shape = sizes_of(init), list(kernel.type.shape)
        if sizes is None or not self._suits(kernel, [shape[0], prod(shape[1:])]):
            return
        spatial = _CONVOLUTIONS[op.name]
        with ir.InsertionPoint(op), op.location:
            places = sizes[2:]
            unfolded = _unfold(op, image, [sizes[0], *places, *shape[1:]], spatial)
            flat = _collapse(unfolded, [[0], list(range(1, 1 + spatial)), list(range(1 + spatial, 2 + 2 * spatial))])
            matrix = _collapse(kernel, [[0], list(range(1, 2 + spatial))])
            start = tensor.empty([prod(shape[1:]), shape[0]], kernel.type.element_type)
            weights = linalg.transpose(matrix, outs=[start], permutation=[1, 0]).operation.results[0]
            product = self._solve(flat, weights, [sizes[0], _product(places)])
            if product is not None:
                product = _expand(product, [sizes[0], *places, shape[0]], [[0], list(range(1, 1 + spatial)), [1 + spatial]])
                self._replace(op, product, init, [0, *range(2, 2 + spatial), 1])

    def _suits(self, weights: ir.Value, shape: Sequence[int]) -> bool:
        """Whether these are parameters of a static shape, and enough of them."""
        static = isinstance(weights.type, ir.RankedTensorType) and weights.type.has_static_shape
        return static and isinstance(weights.type.element_type, ir.FloatType) and min(shape) >= _LEAST and self._is_fixed(weights)

    def _is_fixed(self, value: ir.Value) -> bool:
        """Whether a value depends on parameters alone."""
        if value not in self._fixed:
            op = defining_op(value)
            operands = op.operation.operands if op is not None else []
            self._fixed[value] = op is not None and all(self._is_fixed(v) for v in operands)
        return self._fixed[value]
