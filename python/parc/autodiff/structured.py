"""The one rule for linalg operations: from their indexing maps and their body.

The cotangent of operand i is a `linalg.generic` over the same iteration space whose result has the map of operand i;
the dimensions that this map leaves out are summed over.  Its body is the derivative of the forward body:

    y[m, n] = sum_k f(a[m, k], b[k, n])      ->      da[m, k] = sum_n f'(a[m, k], b[k, n]) * dy[m, n]

Elements that meet in a result where the map is no projection (the windows of a convolution) are added up in loops
that are reductions, so that making loops parallel stays right.  Sums of half-precision numbers are single-precision.

Ties of a maximum share the gradient, as in `torch.amax`; where the index of the maximum is used, or where windows
overlap, the gradient goes to that element, the first of equal ones, as in `torch.max(dim)` and `max_pool`.
"""

from collections.abc import Iterator, Sequence, Set

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from parc.autodiff import emit, lookup, scalar
from parc.autodiff.body import OpenBody
from parc.autodiff.extents import Sizes
from parc.codegen.irtools import captured_values
from parc.errors import CompileError

Contribution = tuple[ir.Value, ir.Value]
"""A value and a cotangent to add to it."""

_EXTREMA = ("arith.maximumf", "arith.maxnumf", "arith.minimumf", "arith.minnumf")
_EQUAL = arith.CmpFPredicate.OEQ


def differentiate(
    op: ir.Operation, cotangents: Sequence[ir.Value | None], active: Set[ir.Value], sizes: Sizes
) -> Iterator[Contribution]:
    """What the active operands of a linalg operation, and the active values that its body captures, get.

    cotangents: of the results, None where there is none.
    """
    with OpenBody(op, sizes) as body:
        seeds = [
            seed
            for result, cotangent in enumerate(cotangents)
            if cotangent is not None
            for seed in _seeds(body, result, cotangent, active)
        ]
        inside = _active_inside(body.block, op, active)
        forward = body.ops
        with body.adding():
            found = scalar.pull_back(forward, seeds, inside)
        body.take_results(body.ops[len(forward) :])
        _check_sums(body, cotangents, found)
        yield from _contributions(body, found, active)


def is_structured(op: ir.Operation) -> bool:
    """Whether an operation has indexing maps and a body."""
    return op.name.startswith("linalg.") and len(op.regions) == 1 and linalg.get_indexing_maps(op.opview) is not None


def active_results(op: ir.Operation, active: Set[ir.Value]) -> list[ir.Value]:
    """The results of a linalg operation that depend differentiably on an active operand or captured value."""
    block = op.regions[0].blocks[0]
    inside = _active_inside(block, op, active)
    yielded = block.operations[len(block.operations) - 1].operation.operands
    return [r for v, r in zip(yielded, op.results, strict=True) if v in inside or v in active]


def _active_inside(block: ir.Block, op: ir.Operation, active: Set[ir.Value]) -> set[ir.Value]:
    """The active values of a body, and those that it captures."""
    found = {a for a, v in zip(block.arguments, op.operands, strict=False) if v in active}
    for inner in block.operations:
        operands = captured_values(inner) if len(inner.operation.regions) else list(inner.operation.operands)
        found.update(v for v in operands if v in active)
        if found.isdisjoint(operands):
            continue
        if inner.operation.name == "tensor.extract" or scalar.propagates(inner.operation):
            found.update(r for r in inner.operation.results if emit.is_continuous(r.type))
    return found


def _contributions(body: OpenBody, found: dict[ir.Value, ir.Value], active: Set[ir.Value]) -> Iterator[Contribution]:
    """The cotangents of the body's scalars as those of the tensors that they are elements of."""
    sums: dict[tuple[ir.Value, ir.AffineMap], ir.Value] = {}
    starts = {body.result_argument(r): r for r in range(len(body.op.results)) if body.reduces(r)}
    for argument, operand in zip(body.block.arguments, body.operands, strict=True):
        if argument in starts and argument in found:
            # What a sum starts from is added once, and not in every iteration.
            whole = body.operand_of(found[argument])
            if whole is None or whole.map != operand.map:
                raise _no_sum(body.op)
            yield operand.value, whole.value
        elif argument in found and operand.value in active:
            key = operand.value, operand.map
            with body.adding():
                sums[key] = found[argument] if key not in sums else arith.addf(sums[key], found[argument])
    nowhere = ir.AffineMap.get(body.maps[0].n_dims, 0, [])
    for value, cotangent in found.items():
        if value in active:
            sums[value, nowhere] = cotangent
    made: dict[tuple[ir.Value, ir.AffineMap, ir.Type], ir.Value] = {}
    for (value, map_), cotangent in sums.items():
        # Operands of one shape, as those of a sum, have the same cotangent.
        same = cotangent, map_, value.type
        if same not in made:
            made[same] = body.tensor(cotangent, map_, value)
        yield value, made[same]
    for extract in body.ops:
        if extract.name == "tensor.extract" and extract.operands[0] in active and extract.results[0] in found:
            yield extract.operands[0], lookup.add_back(body, extract, found[extract.results[0]])


# -- results ---------------------------------------------------------------------------------------------------


def _seeds(
    body: OpenBody, result: int, cotangent: ir.Value, active: Set[ir.Value]
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Scalars of the body and their cotangents, for the cotangent of one result."""
    map_, before = body.result_map(result), body.result_argument(result)
    value = body.yielded[result]
    if not body.reduces(result):
        yield value, body.see(cotangent, map_)
        return
    owner = None if isinstance(value.owner, ir.Block) else value.owner.operation
    terms = [v for v in owner.operands if v != before] if owner is not None and before in owner.operands else []
    if owner is not None and len(terms) == 1 and owner.name in (*_EXTREMA, "arith.mulf"):
        if body.op.operands[body.input_count + result] in active:
            raise CompileError(
                "a maximum or product that starts from a computed value has no derivative here", body.op.location
            )
        rule = _of_product if owner.name == "arith.mulf" else _of_extremum
        yield terms[0], rule(body, result, terms[0], cotangent)
        return
    yield value, body.see(cotangent, map_)


def _check_sums(body: OpenBody, cotangents: Sequence[ir.Value | None], found: dict[ir.Value, ir.Value]) -> None:
    """Refuse reductions that are no sums: their derivative depends on the order."""
    for result, cotangent in enumerate(cotangents):
        before = body.result_argument(result)
        if cotangent is not None and body.reduces(result):
            if any(body.uses_argument(c, before) for c in found.values()):
                raise _no_sum(body.op)


def _no_sum(op: ir.Operation) -> CompileError:
    return CompileError(
        f"'{op.name}' has no derivative: it is a reduction other than a sum, product or maximum", op.location
    )


def _of_extremum(body: OpenBody, result: int, term: ir.Value, cotangent: ir.Value) -> ir.Value:
    """The cotangent of the term of a maximum or minimum, a scalar of the body."""
    map_ = body.result_map(result)
    index = _used_index(body, result)
    if index is not None:
        number, position = index
        chosen = body.see(body.op.results[number], map_)
        with body.adding():
            is_chosen = arith.cmpi(arith.CmpIPredicate.eq, position, chosen)
        return _where(body, is_chosen, body.see(cotangent, map_))
    extremum = body.see(body.op.results[result], map_)
    with body.adding():
        is_extremum = arith.cmpf(_EQUAL, term, extremum)
    if all(isinstance(e, ir.AffineDimExpr) for m in body.maps for e in m.results):
        with body.adding():
            one = arith.uitofp(term.type, is_extremum)
        start = emit.zeros(cotangent, body.sizes)
        (count,) = body.reduced([one], map_, [start], [arith.addf])
        share = emit.elementwise([cotangent, count], arith.divf, body.sizes)
        return _where(body, is_extremum, body.see(share, map_))
    dims = [d for d, kind in enumerate(emit.iterators([map_])) if kind == emit.REDUCTION]
    number = body.linear_index(dims)
    index_type = ir.IntegerType.get_signless(64)
    with body.adding():
        number = arith.index_cast(index_type, number)
        last = arith.constant(index_type, (1 << 63) - 1)
        place = arith.select(is_extremum, number, last)
    start = emit.filled(emit.empty(cotangent, body.sizes, index_type), (1 << 63) - 1)
    (first,) = body.reduced([place], map_, [start], [arith.minsi])
    chosen = body.see(first, map_)
    with body.adding():
        is_chosen = arith.cmpi(arith.CmpIPredicate.eq, number, chosen)
    return _where(body, is_chosen, body.see(cotangent, map_))


def _used_index(body: OpenBody, result: int) -> tuple[int, ir.Value] | None:
    """The result that is the index of this extremum, if it is used, and its value at an iteration."""
    for number, value in enumerate(body.yielded):
        owner = value.owner
        if number == result or isinstance(owner, ir.Block) or owner.operation.name != "arith.select":
            continue
        _, position, before = owner.operation.operands
        is_index = isinstance(value.type, ir.IntegerType) and before == body.result_argument(number)
        if is_index and any(True for _ in body.op.results[number].uses):
            return number, position
    return None


def _of_product(body: OpenBody, result: int, term: ir.Value, cotangent: ir.Value) -> ir.Value:
    """The cotangent of the factor of a product: the product of the other factors, also where some are zero."""
    map_ = body.result_map(result)
    with body.adding():
        zero, one = emit.constant(term.type, 0), emit.constant(term.type, 1)
        is_zero = arith.cmpf(_EQUAL, term, zero)
        factor, count = arith.select(is_zero, one, term), arith.select(is_zero, one, zero)
    start = body.op.operands[body.input_count + result]
    starts = [start, emit.zeros(cotangent, body.sizes)]
    product, zeros = body.reduced([factor, count], map_, starts, [arith.mulf, arith.addf])

    def times_others(zero_count: int) -> ir.Value:
        """The gradient times the product of what is not zero, if that many factors are."""

        def at(g: ir.Value, p: ir.Value, n: ir.Value) -> ir.Value:
            is_count = arith.cmpf(_EQUAL, n, emit.constant(n.type, zero_count))
            return arith.select(is_count, arith.mulf(g, p), emit.constant(g.type, 0))

        return body.see(emit.elementwise([cotangent, product, zeros], at, body.sizes), map_)

    without, with_one = times_others(0), times_others(1)
    with body.adding():
        return arith.select(is_zero, with_one, arith.divf(without, factor))


def _where(body: OpenBody, condition: ir.Value, value: ir.Value) -> ir.Value:
    with body.adding():
        return arith.select(condition, value, emit.constant(value.type, 0))
