"""Maxima that are subtracted for the numbers' sake only: a softmax does not depend on the maximum that it subtracts.

    m = max x;  e = exp(x - m);  z = sum e;  e / z            log_softmax: (x - m) - log z

What `m` becomes when `m` grows by d is followed through the code: a value that grows by `k d` (x - m: k = -1) or is
multiplied by `exp(k d)` (e, z: k = -1), until only values are left that stay the same.  Then `m` needs no gradient.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.autodiff import emit


@dataclass(frozen=True)
class _Growth:
    """How a value changes: by `rate * d`, or by a factor of `exp(rate * d)`; `row` are its dimensions that `d` has."""

    rate: int
    is_factor: bool
    row: tuple[int, ...]


def irrelevant_maxima(ops: Sequence[ir.Operation], escaping: Set[ir.Value]) -> set[ir.Value]:
    """Results of maximum reductions of which no value outside depends.

    escaping: values that are used by other operations than `ops`.
    """
    inside = set(ops)
    found = set()
    for op in ops:
        maximum = _maximum(op)
        if maximum is not None and _vanishes(maximum, ops, inside, escaping):
            found.add(maximum)
    return found


def _maximum(op: ir.Operation) -> ir.Value | None:
    """The result of a reduction that is a maximum."""
    if op.name != "linalg.generic":
        return None
    block = op.regions[0].blocks[0]
    yielded = block.operations[len(block.operations) - 1].operation.operands[0]
    map_ = _maps(op)[len(op.operands) - len(op.results)]
    is_maximum = not isinstance(yielded.owner, ir.Block) and yielded.owner.operation.name == "arith.maximumf"
    return op.results[0] if is_maximum and emit.REDUCTION in emit.iterators([map_]) else None


def _vanishes(
    maximum: ir.Value, ops: Sequence[ir.Operation], inside: Set[ir.Operation], escaping: Set[ir.Value]
) -> bool:
    growths = {maximum: _Growth(1, False, tuple(range(maximum.type.rank)))}
    for op in ops:
        if not any(v in growths for v in op.operands):
            continue
        growth = _grown(op, growths)
        if growth is None:
            return False
        if growth.rate:
            growths[op.results[0]] = growth
    return all(v not in escaping and all(use.owner.operation in inside for use in v.uses) for v in growths)


def _grown(op: ir.Operation, growths: dict[ir.Value, _Growth]) -> _Growth | None:
    """How the result of an operation grows; None where it is not known."""
    if op.name == "tensor.expand_shape" and len(op.operands) > 0:
        return _reshaped(op, growths[op.operands[0]])
    if op.name != "linalg.generic" or len(op.results) != 1:
        return None
    block = op.regions[0].blocks[0]
    if len(block.operations) != 2:
        return None
    inner, end = (o.operation for o in block.operations)
    if list(end.operands) != list(inner.results):
        return None
    maps = _maps(op)
    rows = set()
    terms: list[_Growth | None] = []
    for operand in inner.operands:
        if not isinstance(operand.owner, ir.Block) or operand.owner != block:
            terms.append(None)
            continue
        number = ir.BlockArgument(operand).arg_number
        growth = growths.get(op.operands[number])
        if growth is not None:
            rows.add(tuple(str(maps[number].results[d]) for d in growth.row))
        is_start = number == len(op.operands) - 1 and _is_zero(op.operands[number])
        terms.append(replace(growth, row=()) if growth is not None else _ZERO if is_start else None)
    combined = _combine(inner.name, terms)
    results = [str(e) for e in maps[len(maps) - 1].results]
    if combined is None or len(rows) != 1:
        return None
    (row,) = rows
    if any(d not in results for d in row):
        return None
    return replace(combined, row=tuple(results.index(d) for d in row))
