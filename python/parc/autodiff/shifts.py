"""Maxima that are subtracted for the numbers' sake only: a softmax does not depend on the maximum that it subtracts.

    m = max x;  e = exp(x - m);  z = sum e;  e / z            and of log_softmax:  (x - m) - log z

Let `m` grow by d: what is computed from it grows by `k d` (x - m: k = -1) or is multiplied by `exp(k d)` (e and z:
k = -1), until only values are left that stay the same.  Then nothing depends on `m`, and it needs no gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch_mlir import ir
from torch_mlir.dialects import arith, linalg

from parc.autodiff import emit
from parc.codegen.irtools import defining_op


@dataclass(frozen=True)
class _Growth:
    """A value grows by `rate * d`, or by a factor of `exp(rate * d)`; `row`: its dimensions along which d varies."""

    rate: int
    is_factor: bool
    row: tuple[int, ...] = ()


def irrelevant_maxima(ops: Sequence[ir.Operation]) -> set[ir.Value]:
    """Results of maximum reductions among `ops` on which nothing depends."""
    return {m for m in map(_maximum, ops) if m is not None and _vanishes(m, ops)}


def _maximum(op: ir.Operation) -> ir.Value | None:
    """The result of a reduction that is a maximum."""
    if op.name != "linalg.generic":
        return None
    block = op.regions[0].blocks[0]
    owner = block.operations[len(block.operations) - 1].operation.operands[0].owner
    is_maximum = not isinstance(owner, ir.Block) and owner.operation.name == "arith.maximumf"
    result_map = _maps(op)[len(op.operands) - len(op.results)]
    return op.results[0] if is_maximum and emit.REDUCTION in emit.iterators([result_map]) else None


def _vanishes(maximum: ir.Value, ops: Sequence[ir.Operation]) -> bool:
    """Whether what grows with a maximum is used up by what stays the same."""
    growths = {maximum: _Growth(1, False, tuple(range(maximum.type.rank)))}
    followed = set()
    for op in ops:
        if any(v in growths for v in op.operands):
            growth = _follow(op, growths)
            if growth is None:
                return False
            followed.add(op)
            if growth.rate:
                growths[op.results[0]] = growth
    return all(use.owner.operation in followed for value in growths for use in value.uses)


def _follow(op: ir.Operation, growths: Mapping[ir.Value, _Growth]) -> _Growth | None:
    """How the result of a linalg operation with one scalar operation grows; None where that is not known."""
    if op.name != "linalg.generic" or len(op.results) != 1 or len(op.regions[0].blocks[0].operations) != 2:
        return None
    block = op.regions[0].blocks[0]
    inner, end = (o.operation for o in block.operations)
    if list(end.operands) != list(inner.results):
        return None
    maps = _maps(op)
    rows: set[tuple[str, ...]] = set()
    terms: list[_Growth | None] = []
    for operand in inner.operands:
        growth = None
        if isinstance(operand.owner, ir.Block) and operand.owner == block:
            number = ir.BlockArgument(operand).arg_number
            growth = growths.get(op.operands[number])
            if growth is not None:
                rows.add(tuple(str(maps[number].results[d]) for d in growth.row))
            elif number == len(op.operands) - 1 and _is_zero(op.operands[number]):
                # What a sum of factors starts from is multiplied by any factor.
                continue
        terms.append(growth)
    grown = _combined(inner.name, terms)
    results = [str(e) for e in maps[len(maps) - 1].results]
    is_sum = emit.REDUCTION in emit.iterators(maps[-1:])
    if grown is None or len(rows) != 1 or (is_sum and not grown.is_factor):
        return None
    (row,) = rows
    return replace(grown, row=tuple(map(results.index, row))) if set(row) <= set(results) else None


def _combined(name: str, terms: Sequence[_Growth | None]) -> _Growth | None:
    """How the result of a scalar operation grows with its operands; the growth of an operand that does not is None."""
    rates = [0 if t is None else t.rate for t in terms]
    kinds = {t.is_factor for t in terms if t is not None}
    if len(kinds) != 1:
        return None
    (is_factor,) = kinds
    if name == "math.exp" and not is_factor:
        return _Growth(rates[0], True)
    if name == "math.log" and is_factor:
        return _Growth(rates[0], False)
    if name == "arith.addf" and is_factor:
        return _Growth(rates[0], True) if len(set(rates)) == 1 else None
    if name in (("arith.divf", "arith.mulf") if is_factor else ("arith.subf", "arith.addf")):
        sign = -1 if name in ("arith.divf", "arith.subf") else 1
        return _Growth(rates[0] + sign * sum(rates[1:]), is_factor)
    return None


def _is_zero(value: ir.Value) -> bool:
    """Whether a tensor is filled with 0."""
    fill = defining_op(value)
    if fill is None or fill.operation.name != "linalg.fill":
        return False
    constant = defining_op(fill.operation.operands[0])
    return isinstance(constant, arith.ConstantOp) and ir.FloatAttr(constant.value).value == 0.0


def _maps(op: ir.Operation) -> list[ir.AffineMap]:
    return [ir.AffineMapAttr(a).value for a in linalg.get_indexing_maps(op.opview)]
