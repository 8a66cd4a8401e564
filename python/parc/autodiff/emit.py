"""Tensors that derivatives are made of, emitted at the current insertion point."""

from collections.abc import Callable, Sequence
from functools import reduce

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.autodiff.extents import Sizes, as_value, split
from parc.codegen.sizes import Size

PARALLEL, REDUCTION = "parallel", "reduction"


def empty(like: ir.Value, sizes: Sizes, element: ir.Type | None = None) -> ir.Value:
    """A tensor of the shape and, without another `element`, of the element type of `like`."""
    type_ = like.type
    return empty_of(sizes.of(like), element or type_.element_type)


def empty_of(extents: Sequence[Size], element: ir.Type) -> ir.Value:
    """A tensor of these extents."""
    return tensor.EmptyOp(list(extents), element).result


def filled(destination: ir.Value, value: float = 0.0) -> ir.Value:
    """A tensor with one value everywhere."""
    scalar = constant(destination.type.element_type, value)
    return linalg.fill(scalar, outs=[destination])


def zeros(like: ir.Value, sizes: Sizes, element: ir.Type | None = None) -> ir.Value:
    """Zeros of the shape of `like`."""
    return filled(empty(like, sizes, element))


def constant(type_: ir.Type, value: float) -> ir.Value:
    """A floating-point or integer constant."""
    if isinstance(type_, ir.FloatType):
        return arith.constant(type_, ir.FloatAttr.get(type_, float(value)))
    return arith.constant(type_, int(value))


def is_float(type_: ir.Type) -> bool:
    """Whether values of the type, or its elements, are floating-point numbers."""
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return isinstance(element, ir.FloatType)


def is_continuous(type_: ir.Type) -> bool:
    """Whether derivatives pass through values of the type: floating-point, or complex, for which there are no rules."""
    element = type_.element_type if isinstance(type_, ir.ShapedType) else type_
    return isinstance(element, ir.FloatType | ir.ComplexType)


def add(a: ir.Value, b: ir.Value, sizes: Sizes) -> ir.Value:
    """The sum of two scalars or of two tensors of the same shape."""
    return elementwise([a, b], arith.addf, sizes) if isinstance(a.type, ir.RankedTensorType) else arith.addf(a, b)


def total(parts: Sequence[ir.Value], sizes: Sizes) -> ir.Value:
    """The sum of at least one value, added up in order."""
    return reduce(lambda a, b: add(a, b, sizes), parts)


def elementwise(inputs: Sequence[ir.Value], function: Callable[..., ir.Value], sizes: Sizes) -> ir.Value:
    """A function of scalars on tensors of the same shape; the result is of the first one's type."""
    identity = ir.AffineMap.get_identity(inputs[0].type.rank)
    op = generic(inputs, [empty(inputs[0], sizes)], [identity] * (len(inputs) + 1))
    block = op.regions[0].blocks[0]
    with ir.InsertionPoint(block):
        linalg.YieldOp([function(*list(block.arguments)[:-1])])
    return op.results[0]


def generic(inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], maps: Sequence[ir.AffineMap]) -> linalg.GenericOp:
    """A `linalg.generic` with an empty body; what its outputs do not walk is a reduction."""
    kinds = [ir.Attribute.parse(f"#linalg.iterator_type<{k}>") for k in iterators(maps[len(inputs) :])]
    op = linalg.GenericOp(
        [v.type for v in outputs],
        list(inputs),
        list(outputs),
        ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
        ir.ArrayAttr.get(kinds),
    )
    scalars = [v.type.element_type if isinstance(v.type, ir.ShapedType) else v.type for v in (*inputs, *outputs)]
    op.regions[0].blocks.append(*scalars, arg_locs=[op.location] * len(scalars))
    return op


def iterators(outputs: Sequence[ir.AffineMap]) -> list[str]:
    """The kind of each dimension: parallel where two iterations never meet in one element of a result."""
    walked = [{e.position for e in m.results if isinstance(e, ir.AffineDimExpr)} for m in outputs]
    return [PARALLEL if all(d in w for w in walked) else REDUCTION for d in range(outputs[0].n_dims)]


def is_permutation(map_: ir.AffineMap) -> bool:
    """Whether the results are all dimensions, each once."""
    positions = [e.position for e in map_.results if isinstance(e, ir.AffineDimExpr)]
    return len(map_.results) == map_.n_dims and sorted(positions) == list(range(map_.n_dims))


def extract_slice(
    source: ir.Value,
    offsets: Sequence[Size],
    extents: Sequence[Size],
    strides: Sequence[Size],
    type_: ir.RankedTensorType,
) -> ir.Value:
    """A part of a tensor; `type_` may leave out unit dimensions, or extents that are known."""
    parts = [split(sizes) for sizes in (offsets, extents, strides)]
    known = type_ if type_.rank < len(extents) else ir.RankedTensorType.get(parts[1][1], type_.element_type)
    part = tensor.ExtractSliceOp(known, source, *[d for d, _ in parts], *[s for _, s in parts]).result
    return part if known == type_ else tensor.cast(type_, part)


def insert_slice(
    part: ir.Value, into: ir.Value, offsets: Sequence[Size], extents: Sequence[Size], strides: Sequence[Size]
) -> ir.Value:
    """A tensor with a part replaced."""
    parts = [split(sizes) for sizes in (offsets, extents, strides)]
    return tensor.InsertSliceOp(part, into, *[d for d, _ in parts], *[s for _, s in parts]).result


def transposed(value: ir.Value, permutation: Sequence[int], sizes: Sizes) -> ir.Value:
    """`linalg.transpose`: dimension i of the result is dimension `permutation[i]`."""
    extents = sizes.of(value)
    out = empty_of([extents[d] for d in permutation], value.type.element_type)
    return linalg.transpose(value, outs=[out], permutation=list(permutation)).results[0]


def plus(a: Size, b: Size) -> Size:
    """The sum of two sizes."""
    return a + b if isinstance(a, int) and isinstance(b, int) else arith.addi(as_value(a), as_value(b))
