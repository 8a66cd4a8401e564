"""`raise-products`: matrix products and convolutions around the recurrences become systems of one equation.

So they get packed weights, the fast kernel and a share of every thread, as products inside recurrences do.

    %y = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x32xf32>) outs(%zero : tensor<?x32xf32>)
  becomes
    %s = "parc.system"(%T) ({ ... "parc.equation"() ({^bb0(%t: index):
           "parc.write"(%y_t = matmul of "parc.read"(%x)[t] and %w) ... }) {name = "product0"} })
    %y = "parc.array"(%s) {name = "product0_y"}

The product may have any form of a contraction with one k and no batch, such as a generic one with a transposed weight.

A convolution is first unfolded: a row of `u` holds what one output position sees,

    u[n, o, c, k] = x[n, c, o * stride + k * dilation]     y[n, f, o] = sum over (c, k) of u[n, o, c, k] w[f, c, k]

Products with something other than parameters stay, as do small ones and those of sizes that are not affine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import arith, func, linalg, tensor

from parc.codegen.irtools import argument_kind, captured_values, defining_op, find_function, symbol_arguments
from parc.codegen.sizes import Size, affine_of, sizes_of
from parc.passbase import Pass

#: Convolution -> its number of spatial dimensions; the channels are in front of them.
_CONVOLUTIONS = {"linalg.conv_1d_ncw_fcw": 1, "linalg.conv_2d_nchw_fchw": 2}
#: Matrix products, as long as they are `rows[..., k] * weights[k, f]` with one k.
_PRODUCTS = ("linalg.matmul", "linalg.contract", "linalg.generic")
#: Weights with a smaller side are not worth a kernel.
_LEAST = 8


@dataclass
class RaiseProducts(Pass):
    """Turn matrix products and convolutions outside the recurrences into systems of one equation."""

    name = "raise-products"

    def run(self, module: ir.Module) -> None:
        functions = [find_function(module, name) for name in ("main", "backward")]
        with module.context:
            for function in functions:
                if function is not None:
                    _Raiser(function).run()


class _Raiser:
    def __init__(self, function: func.FuncOp) -> None:
        self._symbols = symbol_arguments(function)
        self._positions: dict[ir.Value, int] = {v: i for i, v in enumerate(self._symbols)}
        attributes = [ir.DictAttr(a) for a in function.arg_attrs] if function.arguments else []
        self._names = [a["parc.name"] for a in attributes if argument_kind(a) == "symbol"]
        self._fixed: dict[ir.Value, bool] = {
            v: argument_kind(a) == "parameter" for v, a in zip(function.arguments, attributes, strict=True)
        }
        self._count = 0
        self._block = function.entry_block

    def run(self) -> None:
        """Raise what can be raised in the function."""
        for op in list(self._block.operations):
            if op.operation.name in _CONVOLUTIONS:
                self.convolution(op.operation)
            elif op.operation.name in _PRODUCTS:
                self.product(op.operation)

    def product(self, op: ir.Operation) -> None:
        """Replace a matrix product, if it is one with weights."""
        found = self._with_weights(op)
        shape = None if found is None else sizes_of(op.operands[2])
        if found is None or shape is None:
            return
        rows, weights, transposed = found
        with ir.InsertionPoint(op), op.location:
            if transposed:
                start = tensor.empty(list(weights.type.shape)[::-1], weights.type.element_type)
                weights = linalg.transpose(weights, outs=[start], permutation=[1, 0]).operation.results[0]
            source, sizes = _points(rows, shape)
            product = self._solve(source, weights, sizes)
            if product is not None:
                _replace(op, _regrouped(product, shape), range(len(shape)))

    def convolution(self, op: ir.Operation) -> None:
        """Replace a convolution with known weights."""
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
            product = self._solve(flat, weights, [sizes[0], _multiplied(places)])
            if product is not None:
                groups = [[0], list(range(1, 1 + spatial)), [1 + spatial]]
                _replace(op, _expand(product, [sizes[0], *places, shape[0]], groups), [0, 1 + spatial, *groups[1]])

    def _with_weights(self, op: ir.Operation) -> tuple[ir.Value, ir.Value, bool] | None:
        """`rows` and `weights` of y[..., f] += sum over k of rows[..., k] * weights[k, f]; whether those are [f, k]."""
        shaped = all(isinstance(v.type, ir.RankedTensorType) for v in op.operands)
        if not shaped or not linalg.isa_contraction_op(op) or len({v.type.element_type for v in op.operands}) > 1:
            return None
        sides = [[e.position for e in ir.AffineMapAttr(a).value.results] for a in linalg.get_indexing_maps(op)]
        result, reduced = sides[2], list(linalg.infer_contraction_dimensions(op).k)
        if not result or len(reduced) != 1:
            return None
        orders = [*reduced, result[-1]], [result[-1], *reduced]
        for left, right in ((0, 1), (1, 0)):
            weights = op.operands[right]
            if sides[left] == [*result[:-1], *reduced] and sides[right] in orders:
                if len(result) > 1 and self._suits(weights, weights.type.shape):
                    return op.operands[left], weights, sides[right] == orders[1]
        return None

    def _suits(self, weights: ir.Value, shape: Sequence[int]) -> bool:
        """Whether these are parameters of a static shape, and enough of them."""
        type_ = weights.type
        known = type_.has_static_shape and isinstance(type_.element_type, ir.FloatType)
        return known and min(shape) >= _LEAST and self._is_fixed(weights)

    def _is_fixed(self, value: ir.Value) -> bool:
        """Whether a value depends on parameters alone."""
        if value not in self._fixed:
            op = defining_op(value)
            self._fixed[value] = op is not None and all(self._is_fixed(v) for v in captured_values(op))
        return self._fixed[value]

    def _solve(self, rows: ir.Value, weights: ir.Value, sizes: Sequence[Size]) -> ir.Value | None:
        """`rows[a, b, k] * weights[k, f]` as a system: `[a, b, f]`; None where the sizes are not affine."""
        terms, units = weights.type.shape
        element, count = weights.type.element_type, len(self._symbols)
        extents = [self._extent(s) for s in sizes]
        if any(e is None or not _is_affine(e) for e in extents):
            return None
        name = f"product{self._count}"
        self._count += 1
        shape = ir.AffineMap.get(0, count, [*extents, ir.AffineExpr.get_constant(units)])
        point = ir.AffineExpr.get_dim(0)
        at = ir.AffineMapAttr.get(ir.AffineMap.get(1, count, [point]))
        domain = ir.IntegerSet.get(1, count, [point, extents[0] - point - 1], [False, False])
        system = _create(
            "parc.system", [ir.Type.parse("!parc.solution")], self._symbols, {"symbols": ir.ArrayAttr.get(self._names)}
        )
        with ir.InsertionPoint(system.regions[0].blocks.append()):
            type_ = _tensor([*sizes, units], element)
            attributes = {"name": ir.StringAttr.get(f"{name}_y"), "shape": ir.AffineMapAttr.get(shape)}
            array = _create("parc.unknown", [type_], [], attributes).results[0]
            attributes = {"name": ir.StringAttr.get(name), "domain": ir.IntegerSetAttr.get(domain)}
            equation = _create("parc.equation", [], [], attributes)
        with ir.InsertionPoint(equation.regions[0].blocks.append(ir.IndexType.get())):
            tile = _create("parc.read", [_tensor([sizes[1], terms], element)], [rows], {"at": at}).results[0]
            start = linalg.fill(arith.constant(element, 0.0), outs=[tensor.empty([sizes[1], units], element)])
            product = linalg.matmul(tile, weights, outs=[start])
            _create("parc.write", [], [product, array], {"at": at})
        attributes = {"name": ir.StringAttr.get(f"{name}_y")}
        return _create("parc.array", [type_], [system.results[0]], attributes).results[0]

    def _extent(self, size: Size) -> ir.AffineExpr | None:
        return ir.AffineExpr.get_constant(size) if isinstance(size, int) else affine_of(size, self._positions)


def _is_affine(expr: ir.AffineExpr) -> bool:
    """Whether an expression has no product of symbols, nor a quotient by one."""
    if not isinstance(expr, ir.AffineBinaryExpr):
        return True
    constant = isinstance(expr.rhs, ir.AffineConstantExpr)
    return (constant or isinstance(expr, ir.AffineAddExpr)) and _is_affine(expr.lhs) and _is_affine(expr.rhs)


def _unfold(op: ir.Operation, image: ir.Value, sizes: Sequence[Size], spatial: int) -> ir.Value:
    """u[n, o.., c, k..] = image[n, c, o * stride + k * dilation..]."""
    strides, dilations = (list(ir.DenseIntElementsAttr(op.attributes[key])) for key in ("strides", "dilations"))
    rank = len(sizes)
    dims = [ir.AffineExpr.get_dim(d) for d in range(rank)]
    outputs, channel, taps = dims[1 : 1 + spatial], dims[1 + spatial], dims[2 + spatial :]
    places = [o * s + k * d for o, s, k, d in zip(outputs, strides, taps, dilations, strict=True)]
    maps = [ir.AffineMap.get(rank, 0, [dims[0], channel, *places]), ir.AffineMap.get_identity(rank)]
    return _generic([image], sizes, maps)


def _replace(op: ir.Operation, product: ir.Value, order: Sequence[int]) -> None:
    """Put the product, with its dimensions in this order, plus what `op` adds to in the place of `op`."""
    init, rank = op.operands[2], len(order)
    sizes = sizes_of(init)
    assert sizes is not None
    dims = [ir.AffineExpr.get_dim(list(order).index(d)) for d in range(rank)]
    maps, inputs = [ir.AffineMap.get(rank, 0, dims)], [product]
    if not _is_zero(init):
        inputs.append(init)
        maps.append(ir.AffineMap.get_identity(rank))
    op.results[0].replace_all_uses_with(_generic(inputs, sizes, [*maps, ir.AffineMap.get_identity(rank)]))
    op.erase()


def _generic(inputs: Sequence[ir.Value], sizes: Sequence[Size], maps: Sequence[ir.AffineMap]) -> ir.Value:
    """The elementwise sum of the inputs, read through their maps."""
    element = inputs[0].type.element_type
    start = tensor.empty(list(sizes), element)
    parallel = ir.Attribute.parse("#linalg.iterator_type<parallel>")
    generic = linalg.GenericOp(
        [start.type],
        list(inputs),
        [start],
        ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
        ir.ArrayAttr.get([parallel] * len(sizes)),
    )
    block = generic.regions[0].blocks.append(*[element] * len(maps), arg_locs=[generic.location] * len(maps))
    with ir.InsertionPoint(block):
        total = block.arguments[0]
        for argument in list(block.arguments)[1 : len(inputs)]:
            total = arith.addf(total, argument)
        linalg.yield_([total])
    return generic.results[0]


def _points(rows: ir.Value, shape: Sequence[Size]) -> tuple[ir.Value, Sequence[Size]]:
    """`rows[..., k]` as `[a, b, k]` for a system of `a` points, and the sizes a and b; the product has this shape."""
    rank = rows.type.rank
    if rank > 2:
        return _collapse(rows, _leading(rank)), [_multiplied(shape[: rank - 2]), shape[rank - 2]]
    source = _before_collapse(rows)
    sizes = None if source is None else sizes_of(source)
    if source is not None and sizes is not None:
        return source, sizes[:2]
    return _expand(rows, [shape[0], 1, rows.type.shape[1]], [[0, 1], [2]]), [shape[0], 1]


def _regrouped(product: ir.Value, shape: Sequence[Size]) -> ir.Value:
    """The product `[a, b, f]` in this shape, of which f is the last size."""
    if len(shape) == 2:
        return _collapse(product, [[0, 1], [2]])
    return _expand(product, shape, _leading(len(shape)))


def _leading(rank: int) -> list[list[int]]:
    """The dimensions in three groups, the last two alone."""
    return [list(range(rank - 2)), [rank - 2], [rank - 1]]


def _before_collapse(rows: ir.Value) -> ir.Value | None:
    """The `[a, b, k]` that was made `[a * b, k]`, if it was."""
    op = defining_op(rows)
    if not isinstance(op, tensor.CollapseShapeOp) or op.operands[0].type.rank != 3:
        return None
    groups = [[ir.IntegerAttr(i).value for i in group] for group in op.reassociation]
    return op.operands[0] if groups == [[0, 1], [2]] else None


def _is_zero(value: ir.Value) -> bool:
    op = defining_op(value)
    constant = defining_op(op.operation.operands[0]) if isinstance(op, linalg.FillOp) else None
    return isinstance(constant, arith.ConstantOp) and ir.FloatAttr(constant.value).value == 0.0


def _multiplied(sizes: Sequence[Size]) -> Size:
    total: Size = 1
    for size in sizes:
        if isinstance(total, int) and isinstance(size, int):
            total = total * size
        else:
            total = size if total == 1 else arith.muli(_index(total), _index(size))
    return total


def _index(size: Size) -> ir.Value:
    return arith.constant(ir.IndexType.get(), size) if isinstance(size, int) else size


def _tensor(sizes: Sequence[Size], element: ir.Type) -> ir.RankedTensorType:
    dynamic = ir.ShapedType.get_dynamic_size()
    return ir.RankedTensorType.get([s if isinstance(s, int) else dynamic for s in sizes], element)


def _collapse(value: ir.Value, groups: Sequence[Sequence[int]]) -> ir.Value:
    type_ = value.type
    if len(groups) == type_.rank:
        return value
    dynamic = ir.ShapedType.get_dynamic_size()
    extents = [dynamic if type_.is_dynamic_dim(d) else type_.get_dim_size(d) for d in range(type_.rank)]
    shape = [dynamic if dynamic in (part := [extents[d] for d in group]) else prod(part) for group in groups]
    return tensor.CollapseShapeOp(ir.RankedTensorType.get(shape, type_.element_type), value, groups).result


def _expand(value: ir.Value, sizes: Sequence[Size], groups: Sequence[Sequence[int]]) -> ir.Value:
    if len(groups) == len(sizes):
        return value
    type_ = _tensor(sizes, value.type.element_type)
    dynamic = [s for s in sizes if not isinstance(s, int)]
    return tensor.ExpandShapeOp(type_, value, groups, dynamic, list(type_.shape)).result


def _create(
    name: str, results: Sequence[ir.Type], operands: Sequence[ir.Value], attributes: dict[str, ir.Attribute]
) -> ir.Operation:
    regions = int(name in ("parc.system", "parc.equation"))
    return ir.Operation.create(name, list(results), list(operands), attributes, regions=regions)
