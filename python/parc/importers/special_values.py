"""NaN and infinities as in PyTorch, where torch-mlir's lowering differs.

* Maxima, clamps and argmax become comparisons, which lose a NaN operand.  The comparison and the choice by it are in
  one `linalg.generic` for these operators alone: `torch.where(a > b, a, b)`, which is not to keep NaN, has two.
* The reciprocal of 0 is refused by a check.
"""

from torch_mlir import ir
from torch_mlir.dialects import arith, cf

from parc.codegen.irtools import defining_op, walk

_PREDICATE = arith.CmpFPredicate
_GREATER = {_PREDICATE.OGT, _PREDICATE.OGE, _PREDICATE.UGT, _PREDICATE.UGE}
_LESS = {_PREDICATE.OLT, _PREDICATE.OLE, _PREDICATE.ULT, _PREDICATE.ULE}


# The message of the check that a reciprocal makes.
_NO_ZERO = "unimplemented: tensor with zero element"


def keep_special_values(module: ir.Module) -> None:
    """Rewrite the bodies of the linalg operations that torch-mlir made, in place."""
    with module.context:
        for generic in walk(module.operation, "linalg.generic"):
            block = generic.regions[0].blocks[0]
            for op in list(block.operations):
                if isinstance(op, arith.SelectOp):
                    _rewrite(op)
                elif isinstance(op, cf.AssertOp) and ir.StringAttr(op.msg).value == _NO_ZERO:
                    op.operation.erase()


def _rewrite(select: arith.SelectOp) -> None:
    compare = defining_op(select.condition)
    if not isinstance(compare, arith.CmpFOp) or compare.operation.block != select.operation.block:
        return
    predicate = _PREDICATE(ir.IntegerAttr(compare.predicate).value)
    a, b = compare.lhs, compare.rhs
    if predicate not in _GREATER | _LESS:
        return
    with ir.InsertionPoint(select), select.location:
        if {select.true_value, select.false_value} == {a, b} and a != b:
            # The larger one where the first is taken when it is greater.
            largest = (predicate in _GREATER) == (select.true_value == a)
            value = (arith.maximumf if largest else arith.minimumf)(a, b)
        elif isinstance(select.result.type, ir.IntegerType) and _is_extremum(compare):
            # Where the extremum is: at a NaN, unless the one before it was NaN already.
            unordered = _PREDICATE.UGT if predicate in _GREATER else _PREDICATE.ULT
            first = arith.andi(arith.cmpf(unordered, a, b), arith.cmpf(_PREDICATE.ORD, b, b))
            value = arith.select(first, select.true_value, select.false_value)
        else:
            return
    select.result.replace_all_uses_with(value)
    select.operation.erase()


def _is_extremum(compare: arith.CmpFOp) -> bool:
    """Whether the comparison goes with a maximum or minimum of the same operands."""
    users = [use.owner for use in compare.lhs.uses]
    operands = {compare.lhs, compare.rhs}
    return any(
        isinstance(user, arith.MaximumFOp | arith.MinimumFOp) and {user.lhs, user.rhs} == operands for user in users
    )
