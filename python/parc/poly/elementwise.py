"""Derivatives of elementwise operations, as far as linearity asks: which factor, and on what it depends."""

from collections.abc import Sequence

from torch_mlir import ir

from parc.codegen.elements import element_type, splat
from parc.codegen.irtools import defining_op
from parc.poly.blocks import Scale

_LINEAR = {
    **dict.fromkeys(("arith.addf", "arith.addi"), (1.0, 1.0)),
    **dict.fromkeys(("arith.subf", "arith.subi"), (1.0, -1.0)),
    "arith.negf": (-1.0,),
    **dict.fromkeys((f"arith.{n}" for n in ("extf", "truncf", "extsi", "sitofp", "index_cast")), (1.0,)),
}
"""Operations that are linear in all operands together, with their factors."""

_EQUAL = (1, 8)
"""The predicates `oeq` and `ueq`."""


def rule(op: ir.Operation, factors: Sequence[Scale]) -> list[tuple[int, Scale, Sequence[int]]]:
    """For each operand of an elementwise operation: the derivative, and the operands that this depends on."""
    every = range(len(op.operands))
    if op.name in _LINEAR:
        return [(number, scale, ()) for number, scale in enumerate(_LINEAR[op.name])]
    if op.name in ("arith.mulf", "arith.muli"):
        return [(0, factors[1], (1,)), (1, factors[0], (0,))]
    if op.name == "math.fma":
        return [(0, factors[1], (1,)), (1, factors[0], (0,)), (2, 1.0, ())]
    if op.name == "arith.divf":
        divisor = factors[1]
        if isinstance(divisor, float):
            divisor = 1 / divisor if divisor else "varies"
        return [(0, divisor, (1,)), (1, "varies", every)]
    if op.name == "arith.select":
        return [(0, 0.0, every), (1, "varies", (0,)), (2, "varies", (0,))]
    steps = isinstance(element_type(op.results[0]), ir.IntegerType)
    return [(number, 0.0 if steps else "varies", every) for number in every]


def guarded(op: ir.Operation) -> ir.Value | None:
    """The product x * y that `x == 0 ? 0 : x * y` is, guarded against an infinite y; None for anything else."""
    if op.name != "arith.select":
        return None
    condition, zero, value = op.operands
    test, result = defining_op(condition), defining_op(value)
    if test is None or result is None or test.operation.name != "arith.cmpf" or constant(zero) != 0.0:
        return None
    tested, against = test.operation.operands
    is_equal = ir.IntegerAttr(test.operation.attributes["predicate"]).value in _EQUAL and constant(against) == 0.0
    factors = {"arith.mulf": [*result.operation.operands], "arith.divf": [*result.operation.operands][:1]}
    return value if is_equal and tested in factors.get(result.operation.name, ()) else None


def constant(value: ir.Value) -> float | None:
    """The number that all elements of a value are."""
    attribute = splat(value)
    return float(attribute.value) if isinstance(attribute, ir.FloatAttr | ir.IntegerAttr) else None
