"""Derivatives of look-ups, the `tensor.extract` in the body of a linalg operation: embeddings, gathers, flips."""

from collections.abc import Callable, Sequence

from torch_mlir import ir
from torch_mlir.dialects import affine, arith, linalg, scf, tensor

from parc.autodiff import emit
from parc.autodiff.body import OpenBody
from parc.autodiff.extents import as_value, same_size
from parc.codegen.irtools import captured_values, clone_with, defining_op


def add_back(body: OpenBody, extract: ir.Operation, cotangent: ir.Value) -> ir.Value:
    """The cotangent of the table that `extract`, an operation of the body, reads, for that of its result.

    A reversal of dimensions is reversed again; for other indices, loops add to the table in the order of iterations.
    """
    reversal = _reversal(body, extract, cotangent)
    return reversal if reversal is not None else _scatter(body, extract, cotangent)


def _scatter(body: OpenBody, extract: ir.Operation, cotangent: ir.Value) -> ir.Value:
    """for every iteration: table[indices] += cotangent"""
    table, *indices = extract.operands
    ops = list(dict.fromkeys(op for v in (*indices, cotangent) for op in body.behind(v)))
    ops.sort(key={op: i for i, op in enumerate(body.ops)}.__getitem__)
    used = {cotangent, *indices, *(v for op in ops for v in captured_values(op))}

    def point(position: Sequence[ir.Value], total: ir.Value) -> ir.Value:
        values: dict[ir.Value, ir.Value] = {}
        for argument, operand in zip(body.block.arguments, body.operands, strict=True):
            if argument in used:
                at = [_index(e, position) for e in operand.map.results]
                is_tensor = isinstance(operand.value.type, ir.RankedTensorType)
                values[argument] = tensor.extract(operand.value, at) if is_tensor else operand.value
        for op in ops:
            if op.name == "linalg.index":
                values[op.results[0]] = position[ir.IntegerAttr(op.attributes["dim"]).value]
            else:
                clone_with(op, values)
        place = [values.get(v, v) for v in indices]
        sum_ = arith.addf(tensor.extract(total, place), values.get(cotangent, cotangent))
        return tensor.insert(sum_, total, place)

    return _loops([as_value(e) for e in body.extents()], emit.zeros(table, body.sizes), point)


def _loops(
    extents: Sequence[ir.Value],
    start: ir.Value,
    point: Callable[[Sequence[ir.Value], ir.Value], ir.Value],
    outer: Sequence[ir.Value] = (),
) -> ir.Value:
    """Nested loops, in order, that carry one tensor."""
    if not extents:
        return point(outer, start)
    index = ir.IndexType.get()
    loop = scf.ForOp(arith.constant(index, 0), extents[0], arith.constant(index, 1), [start])
    with ir.InsertionPoint(loop.body):
        inner = _loops(extents[1:], loop.inner_iter_args[0], point, [*outer, loop.induction_variable])
        scf.YieldOp([inner])
    return loop.results[0]


def _index(expr: ir.AffineExpr, position: Sequence[ir.Value]) -> ir.Value:
    """The value of an affine expression of the loop counters."""
    if isinstance(expr, ir.AffineDimExpr):
        return position[expr.position]
    if isinstance(expr, ir.AffineConstantExpr):
        return arith.constant(ir.IndexType.get(), expr.value)
    return affine.AffineApplyOp(ir.AffineMap.get(len(position), 0, [expr]), list(position)).result


def _reversal(body: OpenBody, extract: ir.Operation, cotangent: ir.Value) -> ir.Value | None:
    """The cotangent of a table that is read whole, forwards or backwards in each dimension; None for other indices."""
    table, *indices = extract.operands
    steps = [s for s in map(_step, indices) if s is not None]
    dims = [dim for dim, _ in steps]
    extents = body.extents()
    if len(steps) != len(indices) or sorted(dims) != list(range(len(extents))):
        return None
    if not all(map(same_size, [extents[d] for d in dims], body.sizes.of(table))):
        return None
    if not isinstance(cotangent.owner, ir.Block):
        return None
    operand = body.operands[ir.BlockArgument(cotangent).arg_number]
    if not emit.is_permutation(operand.map):
        return None
    rank = len(dims)
    out = emit.empty(table, body.sizes)
    op = emit.generic([], [out], [ir.AffineMap.get_identity(rank)])
    with ir.InsertionPoint(op.regions[0].blocks[0]):
        iteration: dict[int, ir.Value] = {}
        for d, (dim, last) in enumerate(steps):
            at = linalg.IndexOp(d).result
            iteration[dim] = at if last is None else arith.subi(last, at)
        place = [iteration[e.position] for e in operand.map.results]
        linalg.YieldOp([tensor.extract(operand.value, place)])
    return op.results[0]


def _step(index: ir.Value) -> tuple[int, ir.Value | None] | None:
    """(d, None) for an index that is the iteration's position in dimension d, (d, last) for `last - position`."""
    op = defining_op(index)
    if op is None:
        return None
    if op.operation.name == "linalg.index":
        return ir.IntegerAttr(op.operation.attributes["dim"]).value, None
    if isinstance(op, arith.SubIOp):
        step, last = _step(op.rhs), op.lhs
        home = last.owner if isinstance(last.owner, ir.Block) else last.owner.operation.block
        if step is not None and step[1] is None and home != op.operation.block:
            return step[0], last
    return None
