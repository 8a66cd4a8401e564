"""Derivatives of scalar operations (arith and math), with PyTorch's conventions where there is no derivative.

At a kink: relu' and |x|' are 0 at 0, `clamp` lets the gradient through at its bounds, `maximum` and `minimum` of two
values that are equal give half to each.  An infinite derivative (of a square root at 0) stays infinite.

What importers spell out is recognised where its parts would overflow: `1 / (1 + exp(-x))` and `log(1 + exp(x))`.
A cotangent of 0 stays 0 where a derivative is infinite: so a `select` keeps out the NaN of the branch not taken.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce

from torch_mlir import ir
from torch_mlir.dialects import arith
from torch_mlir.dialects import math as mlir_math

from parc.autodiff.emit import constant, is_continuous
from parc.codegen.irtools import defining_op
from parc.errors import CompileError

#: A partial derivative: (operation, cotangent of its result) -> cotangent of one operand; None where that is zero.
Partial = Callable[[ir.Operation, ir.Value], ir.Value | None]

#: Constant between its jumps, or no function of real numbers: nothing flows back.
ZERO = frozenset(
    {
        *(f"math.{n}" for n in ("floor", "ceil", "round", "roundeven", "trunc", "isnan", "isinf", "isfinite")),
        *(f"arith.{n}" for n in ("cmpf", "cmpi", "fptosi", "fptoui", "sitofp", "uitofp", "index_cast", "constant")),
        *("math.isnormal", "linalg.index"),
    }
)

_P = arith.CmpFPredicate


def pull_back(
    ops: Sequence[ir.Operation], seeds: Iterable[tuple[ir.Value, ir.Value]], active: set[ir.Value]
) -> dict[ir.Value, ir.Value]:
    """Cotangents of the active values of straight-line scalar code, emitted at the insertion point.

    seeds: values and their cotangents.  Values that are not `active` get none.  What `tensor.extract` reads is left to
    the caller, who finds the cotangent of its result.
    """
    cotangents: dict[ir.Value, ir.Value] = {}

    def give(value: ir.Value, cotangent: ir.Value | None) -> None:
        if cotangent is not None and value in active:
            before = cotangents.get(value)
            cotangents[value] = cotangent if before is None else arith.addf(before, cotangent)

    for value, cotangent in seeds:
        give(value, cotangent)
    for op in reversed(ops):
        if not any(r in cotangents for r in op.results) or op.name == "tensor.extract":
            continue
        # An operation with several results has no rule.
        partial_derivatives = partials(op)
        cotangent = cotangents[op.results[0]]
        with op.location:
            inner = _logistic_argument(op) or _softplus_argument(op)
            if inner is not None:
                give(inner, _of_composite(op, inner, cotangent))
                continue
            for partial, operand in zip(partial_derivatives, op.operands, strict=True):
                if partial is not None and operand in active:
                    give(operand, partial(op, cotangent))
    return cotangents


def push_forward(ops: Sequence[ir.Operation], tangents: dict[ir.Value, ir.Value]) -> None:
    """Enter the tangents of straight-line scalar code, emitted at the insertion point, in `tangents`.

    tangents: those of the values that it starts from; a value that is not there has the tangent 0.
    """
    for op in ops:
        if not propagates(op) or not any(v in tangents for v in op.operands):
            continue
        result = op.results[0]
        with op.location:
            inner = _logistic_argument(op) or _softplus_argument(op)
            if inner is not None:
                if inner in tangents:
                    tangents[result] = _of_composite(op, inner, tangents[inner])
                continue
            if op.name in _CASTS:
                tangents[result] = _CASTS[op.name](result.type, tangents[op.operands[0]])
                continue
            # A product with the derivative is the same in both directions.
            terms = [
                term
                for partial, v in zip(partials(op), op.operands, strict=True)
                if partial is not None and v in tangents and (term := partial(op, tangents[v])) is not None
            ]
            if terms:
                tangents[result] = reduce(arith.addf, terms)


def partials(op: ir.Operation) -> Sequence[Partial | None]:
    """The partial derivatives of an operation, by operand; CompileError where it has none."""
    if op.name in ZERO:
        return [None] * len(op.operands)
    if op.name not in _PARTIALS:
        raise CompileError(f"'{op.name}' has no derivative: training through it is not supported", op.location)
    return _PARTIALS[op.name]


def propagates(op: ir.Operation) -> bool:
    """Whether a result of a scalar operation can depend differentiably on an operand."""
    return op.name not in ZERO and any(is_continuous(r.type) for r in op.results)


# -- words of the rules ----------------------------------------------------------------------------------------


def _like(value: ir.Value, number: float) -> ir.Value:
    return constant(value.type, number)


def _compare(predicate: arith.CmpFPredicate, a: ir.Value, b: ir.Value) -> ir.Value:
    return arith.cmpf(predicate, a, b)


def _scaled(cotangent: ir.Value, number: float) -> ir.Value:
    return arith.mulf(cotangent, _like(cotangent, number))


def _same(op: ir.Operation, g: ir.Value) -> ir.Value:
    return g


def _negated(op: ir.Operation, g: ir.Value) -> ir.Value:
    return arith.negf(g)


def _times(factor: int) -> Partial:
    return lambda op, g: arith.mulf(g, op.operands[factor])


def _unary(derivative: Callable[[ir.Value, ir.Value], ir.Value]) -> tuple[Partial]:
    """By the derivative as a function of x and y = f(x)."""
    return (lambda op, g: arith.mulf(g, derivative(op.operands[0], op.results[0])),)


def _unbounded(derivative: Callable[[ir.Value, ir.Value], ir.Value]) -> tuple[Partial]:
    """As `_unary`, where the derivative may be infinite."""
    return (lambda op, g: _or_zero(g, arith.mulf(g, derivative(op.operands[0], op.results[0]))),)


def _quotient(divisor: Callable[[ir.Value, ir.Value], ir.Value]) -> tuple[Partial]:
    """By one over the derivative, which may be infinite, as a function of x and y = f(x)."""
    return (lambda op, g: _or_zero(g, arith.divf(g, divisor(op.operands[0], op.results[0]))),)


def _or_zero(g: ir.Value, product: ir.Value) -> ir.Value:
    """The product of a cotangent and a derivative that may be infinite: 0 where the cotangent is."""
    zero = _like(g, 0)
    return arith.select(_compare(_P.OEQ, g, zero), zero, product)


def _dividend(op: ir.Operation, g: ir.Value) -> ir.Value:
    quotient = arith.divf(g, op.operands[1])
    return quotient if _is_constant(op.operands[1]) else _or_zero(g, quotient)


def _divisor(op: ir.Operation, g: ir.Value) -> ir.Value:
    return _or_zero(g, arith.negf(arith.mulf(g, arith.divf(op.results[0], op.operands[1]))))


def _one_minus_square(value: ir.Value) -> ir.Value:
    return arith.subf(_like(value, 1), arith.mulf(value, value))


def _one_plus_square(value: ir.Value) -> ir.Value:
    return arith.addf(_like(value, 1), arith.mulf(value, value))


def _narrowed(op: ir.Operation, g: ir.Value) -> ir.Value:
    """Of `extf`: a cotangent that was extended for this sum is taken as it was."""
    before = defining_op(g)
    type_ = op.operands[0].type
    if isinstance(before, arith.ExtFOp) and before.operation.operands[0].type == type_:
        return before.operation.operands[0]
    return arith.truncf(type_, g)


def _absolute(op: ir.Operation, g: ir.Value) -> ir.Value:
    x, zero = op.operands[0], _like(g, 0)
    below = arith.select(_compare(_P.OLT, x, zero), arith.negf(g), zero)
    return arith.select(_compare(_P.OGT, x, zero), g, below)


def _chosen(which: bool) -> Partial:
    """Of `select`: what the branch that is not taken gets is 0, and no product with 0."""

    def partial(op: ir.Operation, g: ir.Value) -> ir.Value:
        zero = _like(g, 0)
        return arith.select(op.operands[0], g if which else zero, zero if which else g)

    return partial


def _power_of_float(op: ir.Operation, g: ir.Value) -> ir.Value:
    x, exponent = op.operands
    power = mlir_math.powf(x, arith.subf(exponent, _like(exponent, 1)))
    product = _or_zero(g, arith.mulf(g, arith.mulf(exponent, power)))
    if constant_of(exponent) not in (None, 0.0):
        return product
    zero = _like(exponent, 0)
    return arith.select(_compare(_P.OEQ, exponent, zero), zero, product)


def _power_to_float(op: ir.Operation, g: ir.Value) -> ir.Value:
    """`g y log x`, and 0 where 0 is raised to what is not negative."""
    x, exponent = op.operands
    zero = _like(x, 0)
    flat = arith.andi(_compare(_P.OEQ, x, zero), _compare(_P.OGE, exponent, zero))
    return arith.select(flat, zero, _or_zero(g, arith.mulf(g, arith.mulf(op.results[0], mlir_math.log(x)))))


def _power_of_integer(op: ir.Operation, g: ir.Value) -> ir.Value | None:
    x, exponent = op.operands
    known = defining_op(exponent)
    if isinstance(known, arith.ConstantOp):
        count = ir.IntegerAttr(known.value).value
        if count in (0, 1):
            return g if count else None
        lower = x if count == 2 else mlir_math.fpowi(x, arith.constant(exponent.type, count - 1))
        return arith.mulf(g, _scaled(lower, count))
    lower = mlir_math.fpowi(x, arith.subi(exponent, arith.constant(exponent.type, 1)))
    product = arith.mulf(g, arith.mulf(arith.sitofp(x.type, exponent), lower))
    is_zero = arith.cmpi(arith.CmpIPredicate.eq, exponent, arith.constant(exponent.type, 0))
    return arith.select(is_zero, _like(x, 0), product)


def _extremum(which: int, largest: bool) -> Partial:
    """Of `maximumf` and `minimumf`; a NaN gets the gradient, as what it is compared with does."""

    def partial(op: ir.Operation, g: ir.Value) -> ir.Value:
        own, other = op.operands[which], op.operands[1 - which]
        zero = _like(g, 0)
        passes = _passes_at_bound(op, own, other) if _is_constant(other) else None
        if passes is not None:
            if passes:
                inside = _P.OGE if largest else _P.OLE
                return arith.select(_compare(inside, own, other), g, zero)
            outside = _P.OLE if largest else _P.OGE
            return arith.select(_compare(outside, own, other), zero, g)
        loses = _P.OLT if largest else _P.OGT
        shared = arith.select(_compare(_P.OEQ, own, other), _scaled(g, 0.5), g)
        return arith.select(_compare(loses, own, other), zero, shared)

    return partial


def _number_extremum(which: int, largest: bool) -> Partial:
    """Of `maxnumf` and `minnumf`, that is `torch.fmax`: the first of equal ones gets all; a NaN gets nothing."""

    def partial(op: ir.Operation, g: ir.Value) -> ir.Value:
        a, b = op.operands
        zero = _like(g, 0)
        first = arith.ori(_compare(_P.OGE if largest else _P.OLE, a, b), _compare(_P.UNO, b, b))
        return arith.select(first, zero if which else g, g if which else zero)

    return partial


def _passes_at_bound(op: ir.Operation, value: ir.Value, bound: ir.Value) -> bool | None:
    """Whether a constant bound lets the gradient of what is equal to it through; None: half of it.

    PyTorch's `clamp` does, `relu` and `hardtanh` do not, and `elu` and `leaky_relu` have the negative side's gradient
    at 0.  torch-mlir gives these as `min(max(x, low), high)`, `max(x, 0)`, the same with the bounds in tensors, and
    `max(x, 0) + f(min(x, 0))` with the bounds in tensors.
    """
    smallest = op.name == "arith.minimumf"
    if not isinstance(defining_op(bound), arith.ConstantOp):
        if smallest and constant_of(bound) == 0.0:
            return True if _has_positive_part(value, bound) else None
        return False
    if smallest or constant_of(bound) != 0.0:
        return True
    users = [use.owner.operation for use in op.results[0].uses]
    return any(u.name == "arith.minimumf" and any(_is_constant(v) for v in u.operands) for u in users)


def _has_positive_part(value: ir.Value, bound: ir.Value) -> bool:
    """Whether another operation takes the maximum of the same two tensors."""
    x, low = _tensor_of(value), _tensor_of(bound)
    for use in x.uses if x is not None else ():
        user = use.owner.operation
        if user.name.startswith("linalg.") and low in list(user.operands):
            if any(o.operation.name == "arith.maximumf" for o in user.regions[0].blocks[0].operations):
                return True
    return False


def _tensor_of(scalar: ir.Value) -> ir.Value | None:
    """The operand of a linalg operation of which a value of its body is the element."""
    if not isinstance(scalar.owner, ir.Block) or not scalar.owner.owner.operation.name.startswith("linalg."):
        return None
    operands = list(scalar.owner.owner.operation.operands)
    number = ir.BlockArgument(scalar).arg_number
    return operands[number] if number < len(operands) else None


def _is_constant(value: ir.Value) -> bool:
    return constant_of(value) is not None


def constant_of(value: ir.Value) -> float | None:
    """The number that a float is: a constant, or the body's name for a constant tensor that has one value."""
    op = defining_op(_tensor_of(value) or value)
    if not isinstance(op, arith.ConstantOp):
        return None
    attribute = op.value
    if isinstance(attribute, ir.DenseElementsAttr) and attribute.is_splat:
        attribute = attribute.get_splat_value()
    return attribute.value if isinstance(attribute, ir.FloatAttr) else None


# -- what importers spell out ----------------------------------------------------------------------------------


def _argument(value: ir.Value, name: str) -> ir.Value | None:
    """The operand of the operation `name` that computes a value in the same body."""
    op = defining_op(value)
    return op.operation.operands[0] if op is not None and op.operation.name == name else None


def _other_term(value: ir.Value, number: float) -> ir.Value | None:
    """t, where the value is `t + number`."""
    op = defining_op(value)
    if op is None or op.operation.name != "arith.addf":
        return None
    terms = list(op.operation.operands)
    others = [t for t in terms if constant_of(t) != number]
    return others[0] if len(others) == 1 else None


def _logistic_argument(op: ir.Operation) -> ir.Value | None:
    """x, where the operation is `1 / (1 + exp(-x))`."""
    if op.name != "arith.divf" or constant_of(op.operands[0]) != 1.0:
        return None
    power = _other_term(op.operands[1], 1.0)
    exponent = None if power is None else _argument(power, "math.exp")
    return None if exponent is None else _argument(exponent, "arith.negf")


def _softplus_argument(op: ir.Operation) -> ir.Value | None:
    """x, where the operation is `log1p(exp(x))` or `log(1 + exp(x))`."""
    power = None
    if op.name == "math.log1p":
        power = op.operands[0]
    elif op.name == "math.log":
        power = _other_term(op.operands[0], 1.0)
    return None if power is None else _argument(power, "math.exp")


def _of_composite(op: ir.Operation, x: ir.Value, g: ir.Value) -> ir.Value:
    if op.name == "arith.divf":
        y = op.results[0]
        return arith.mulf(g, arith.mulf(y, arith.subf(_like(y, 1), y)))
    return arith.divf(g, arith.addf(mlir_math.exp(arith.negf(x)), _like(x, 1)))


# -- the table -------------------------------------------------------------------------------------------------

_LN2, _LN10 = math.log(2), math.log(10)

_PARTIALS: dict[str, Sequence[Partial | None]] = {
    "arith.addf": (_same, _same),
    "arith.subf": (_same, _negated),
    "arith.mulf": (_times(1), _times(0)),
    "arith.divf": (_dividend, _divisor),
    "arith.negf": (_negated,),
    "arith.remf": (
        _same,
        lambda op, g: arith.negf(arith.mulf(g, mlir_math.trunc(arith.divf(op.operands[0], op.operands[1])))),
    ),
    "arith.select": (None, _chosen(True), _chosen(False)),
    "arith.extf": (_narrowed,),
    "arith.truncf": (lambda op, g: arith.extf(op.operands[0].type, g),),
    "arith.flush_denormals": (_same,),
    "arith.maximumf": (_extremum(0, True), _extremum(1, True)),
    "arith.minimumf": (_extremum(0, False), _extremum(1, False)),
    "arith.maxnumf": (_number_extremum(0, True), _number_extremum(1, True)),
    "arith.minnumf": (_number_extremum(0, False), _number_extremum(1, False)),
    "math.absf": (_absolute,),
    "math.fma": (_times(1), _times(0), _same),
    "math.exp": _unbounded(lambda x, y: y),
    "math.exp2": _unbounded(lambda x, y: _scaled(y, _LN2)),
    "math.expm1": _unbounded(lambda x, y: arith.addf(y, _like(y, 1))),
    "math.log": _quotient(lambda x, y: x),
    "math.log2": _quotient(lambda x, y: _scaled(x, _LN2)),
    "math.log10": _quotient(lambda x, y: _scaled(x, _LN10)),
    "math.log1p": _quotient(lambda x, y: arith.addf(x, _like(x, 1))),
    "math.sqrt": _quotient(lambda x, y: arith.addf(y, y)),
    "math.rsqrt": _unbounded(lambda x, y: _scaled(arith.mulf(y, arith.mulf(y, y)), -0.5)),
    "math.cbrt": _quotient(lambda x, y: _scaled(arith.mulf(y, y), 3)),
    "math.sin": _unary(lambda x, y: mlir_math.cos(x)),
    "math.cos": _unary(lambda x, y: arith.negf(mlir_math.sin(x))),
    "math.tan": _unbounded(lambda x, y: _one_plus_square(y)),
    "math.asin": _quotient(lambda x, y: mlir_math.sqrt(_one_minus_square(x))),
    "math.acos": _quotient(lambda x, y: arith.negf(mlir_math.sqrt(_one_minus_square(x)))),
    "math.atan": _quotient(lambda x, y: _one_plus_square(x)),
    "math.sinh": _unbounded(lambda x, y: mlir_math.cosh(x)),
    "math.cosh": _unbounded(lambda x, y: mlir_math.sinh(x)),
    "math.tanh": _unary(lambda x, y: _one_minus_square(y)),
    "math.asinh": _quotient(lambda x, y: mlir_math.sqrt(_one_plus_square(x))),
    "math.acosh": _quotient(lambda x, y: mlir_math.sqrt(arith.subf(arith.mulf(x, x), _like(x, 1)))),
    "math.atanh": _quotient(lambda x, y: _one_minus_square(x)),
    "math.atan2": (
        lambda op, g: arith.divf(arith.mulf(g, op.operands[1]), _square_sum(*op.operands)),
        lambda op, g: arith.negf(arith.divf(arith.mulf(g, op.operands[0]), _square_sum(*op.operands))),
    ),
    "math.erf": _unary(lambda x, y: _scaled(mlir_math.exp(arith.negf(arith.mulf(x, x))), 2 / math.sqrt(math.pi))),
    "math.erfc": _unary(lambda x, y: _scaled(mlir_math.exp(arith.negf(arith.mulf(x, x))), -2 / math.sqrt(math.pi))),
    "math.powf": (_power_of_float, _power_to_float),
    "math.fpowi": (_power_of_integer, None),
    "math.copysign": (
        lambda op, g: arith.mulf(g, mlir_math.copysign(_like(g, 1), arith.mulf(*op.operands))),
        None,
    ),
}


# Linear operations whose tangent has another type than their operand's.
_CASTS: dict[str, Callable[[ir.Type, ir.Value], ir.Value]] = {"arith.extf": arith.extf, "arith.truncf": arith.truncf}


def _square_sum(a: ir.Value, b: ir.Value) -> ir.Value:
    return arith.addf(arith.mulf(a, a), arith.mulf(b, b))
