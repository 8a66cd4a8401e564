"""Derivatives of tensor operations: what each operand gets from the cotangent of the result.

Linalg operations have one rule (`structured.py`); here are the matrix products, whose derivatives are matrix products
again, and what moves elements: slices, concatenations, reshapes, casts.  Scalar operations have theirs in `scalar.py`.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg, tensor

from parc.autodiff import emit, scalar, structured
from parc.autodiff.extents import Sizes, split
from parc.codegen.extents import mixed
from parc.codegen.irtools import captured_values
from parc.codegen.sizes import Size
from parc.errors import CompileError


@dataclass(frozen=True)
class Window:
    """A cotangent of a part of a tensor: `value` at `offsets + i * strides`; the rest gets nothing.

    `value` may leave out unit dimensions of `extents`.
    """

    value: ir.Value
    offsets: tuple[Size, ...]
    extents: tuple[Size, ...]
    strides: tuple[Size, ...]


Cotangent: TypeAlias = "ir.Value | Window"
Contribution: TypeAlias = "tuple[ir.Value, Cotangent]"
"""A value and what is added to its cotangent."""

Rule = Callable[[ir.Operation, ir.Value, Set[ir.Value], Sizes], Iterator[Contribution]]
"""(operation with one result, the result's cotangent, active values, sizes) -> contributions to active operands."""


def differentiate(
    op: ir.Operation, cotangents: Sequence[ir.Value | None], active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    """Contributions to the active operands, emitted at the insertion point; CompileError where there is no derivative.

    cotangents: of the results, at least one; None where there is none.
    """
    if op.name in _RULES and cotangents[0] is not None:
        yield from _RULES[op.name](op, cotangents[0], active, sizes)
    elif structured.is_structured(op):
        yield from structured.differentiate(op, cotangents, active, sizes)
    elif op.name.startswith(("arith.", "math.")) and cotangents[0] is not None:
        yield from _of_arithmetic(op, cotangents[0], active, sizes)
    else:
        raise CompileError(f"'{op.name}' has no derivative: training through it is not supported", op.location)


def active_results(op: ir.Operation, active: Set[ir.Value]) -> list[ir.Value]:
    """The results that depend differentiably on active operands."""
    if structured.is_structured(op):
        return structured.active_results(op, active)
    if not any(v in active for v in (captured_values(op) if len(op.regions) else op.operands)):
        return []
    if op.name in scalar.ZERO:
        return []
    return [r for r in op.results if emit.is_continuous(r.type)]


def _of_arithmetic(
    op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    if isinstance(op.results[0].type, ir.RankedTensorType):
        yield from _of_elementwise(op, cotangent, active, sizes)
        return
    own = {v for v in op.operands if v in active}
    found = scalar.pull_back([op], [(op.results[0], cotangent)], own | {op.results[0]})
    yield from ((v, found[v]) for v in own if v in found)


def _of_elementwise(
    op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    """An arithmetic operation on tensors, as the linalg operation that it stands for."""
    tensors = list(op.operands)
    identity = ir.AffineMap.get_identity(op.results[0].type.rank)
    scalar_map = ir.AffineMap.get(identity.n_dims, 0, [])
    maps = [identity if isinstance(v.type, ir.RankedTensorType) else scalar_map for v in tensors]
    generic = emit.generic(tensors, [emit.empty(op.results[0], sizes)], [*maps, identity])
    block = generic.regions[0].blocks[0]
    with ir.InsertionPoint(block):
        element = op.results[0].type.element_type
        inner = ir.Operation.create(op.name, [element], list(block.arguments)[:-1], dict(op.attributes))
        linalg.YieldOp(list(inner.results))
    yield from _of_stand_in(generic.operation, op, cotangent, active, sizes)


def _of_stand_in(
    linalg_op: ir.Operation, op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    """Differentiate a linalg operation in the place of `op`, which computes the same, and delete it."""
    yield from structured.differentiate(linalg_op, [cotangent], active, sizes)
    linalg_op.results[0].replace_all_uses_with(op.results[0])
    linalg_op.erase()


# -- matrix products -------------------------------------------------------------------------------------------


def _of_matmul(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    """`c = a b + init`: da = dc b^T, which is a product with known weights where b is known; db is a contraction."""
    a, b, init = op.operands
    others = set(active)
    if a in active and _is_plain(op) and a != b:
        with_b = emit.transposed(b, [1, 0], sizes)
        yield a, linalg.matmul(cotangent, with_b, outs=[emit.zeros(a, sizes)])
        others.discard(a)
    if b in others or init in others:
        yield from structured.differentiate(op, [cotangent], others, sizes)


def _of_vector_product(
    op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    """`y = x w + init`, `linalg.vecmat`: dx = dy w^T; `y = w x + init`, `linalg.matvec`: dx = w^T dy."""
    product, at = (linalg.vecmat, 0) if op.name == "linalg.vecmat" else (linalg.matvec, 1)
    *factors, init = op.operands
    x, w = factors[at], factors[1 - at]
    others = set(active)
    if x in active and x.type.element_type == cotangent.type.element_type == w.type.element_type:
        factors[at], factors[1 - at] = cotangent, emit.transposed(w, [1, 0], sizes)
        yield x, product(*factors, outs=[emit.zeros(x, sizes)])
        others.discard(x)
    if w in others or init in others:
        yield from structured.differentiate(op, [cotangent], others, sizes)


def _is_plain(op: ir.Operation) -> bool:
    """Whether a `linalg.matmul` transposes nothing and has one element type."""
    maps = [ir.AffineMapAttr(a).value for a in linalg.get_indexing_maps(op.opview)]
    plain = ([0, 2], [2, 1], [0, 1])
    dims = [ir.AffineMap.get(3, 0, [ir.AffineExpr.get_dim(d) for d in results]) for results in plain]
    return maps == dims and len({str(v.type.element_type) for v in op.operands}) == 1


def _of_transpose(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    permutation = list(op.attributes["permutation"])
    if op.operands[0] in active:
        yield op.operands[0], emit.transposed(cotangent, [permutation.index(d) for d in range(len(permutation))], sizes)


# -- what moves elements ---------------------------------------------------------------------------------------


def _of_extract_slice(
    op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    yield op.operands[0], Window(cotangent, *(tuple(mixed(op, n)) for n in ("offsets", "sizes", "strides")))


def _of_insert_slice(
    op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    part, into = list(op.operands)[:2]
    offsets, extents, strides = (mixed(op, n) for n in ("offsets", "sizes", "strides"))
    if part in active:
        yield part, emit.extract_slice(cotangent, offsets, extents, strides, part.type)
    if into in active:
        yield into, emit.insert_slice(emit.zeros(part, sizes), cotangent, offsets, extents, strides)


def _of_concat(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    dim = ir.IntegerAttr(op.attributes["dim"]).value
    rank = cotangent.type.rank
    start: Size = 0
    for piece in op.operands:
        extents = sizes.of(piece)
        if piece in active:
            offsets = [start if d == dim else 0 for d in range(rank)]
            yield piece, emit.extract_slice(cotangent, offsets, extents, [1] * rank, piece.type)
        start = emit.plus(start, extents[dim])


def _of_pad(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    source = op.operands[0]
    block = op.regions[0].blocks[0]
    if any(v in active for inner in block.operations for v in inner.operation.operands):
        raise CompileError("'tensor.pad' has no derivative for the value that it pads with", op.location)
    yield source, emit.extract_slice(cotangent, mixed(op, "low"), sizes.of(source), [1] * source.type.rank, source.type)


def _of_collapse(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    source = op.operands[0]
    dynamic, static = split(sizes.of(source))
    yield source, tensor.ExpandShapeOp(source.type, cotangent, op.attributes["reassociation"], dynamic, static).result


def _of_expand(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    source = op.operands[0]
    yield source, tensor.CollapseShapeOp(source.type, cotangent, op.attributes["reassociation"]).result


def _of_cast(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    yield op.operands[0], tensor.cast(op.operands[0].type, cotangent)


def _of_extract(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    source, *place = op.operands
    type_ = ir.RankedTensorType.get([], cotangent.type)
    ones = tuple([1] * len(place))
    yield source, Window(tensor.from_elements(type_, [cotangent]), tuple(place), ones, ones)


def _of_insert(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    element, into, *place = op.operands
    if element in active:
        yield element, tensor.extract(cotangent, place)
    if into in active:
        yield into, tensor.insert(emit.constant(element.type, 0), cotangent, place)


def _of_from_elements(
    op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    shape = op.results[0].type.shape
    for i, element in enumerate(op.operands):
        if element in active:
            place: list[ir.Value] = []
            for extent in reversed(shape):
                place.insert(0, arith.constant(ir.IndexType.get(), i % extent))
                i //= extent
            yield element, tensor.extract(cotangent, place)


def _of_splat(op: ir.Operation, cotangent: ir.Value, active: Set[ir.Value], sizes: Sizes) -> Iterator[Contribution]:
    """As of a `linalg.fill`."""
    fill = linalg.fill(op.operands[0], outs=[emit.empty(op.results[0], sizes)]).owner.operation
    yield from _of_stand_in(fill, op, cotangent, active, sizes)


_RULES: dict[str, Rule] = {
    "linalg.matmul": _of_matmul,
    "linalg.vecmat": _of_vector_product,
    "linalg.matvec": _of_vector_product,
    "linalg.transpose": _of_transpose,
    "tensor.extract_slice": _of_extract_slice,
    "tensor.insert_slice": _of_insert_slice,
    "tensor.concat": _of_concat,
    "tensor.pad": _of_pad,
    "tensor.collapse_shape": _of_collapse,
    "tensor.expand_shape": _of_expand,
    "tensor.cast": _of_cast,
    "tensor.extract": _of_extract,
    "tensor.insert": _of_insert,
    "tensor.from_elements": _of_from_elements,
    "tensor.splat": _of_splat,
}
