"""What follows for the result of a scalar operation (`arith`, `math`) from what is known of its operands.

A result depends on what its operands depend on, unless it is the same whatever they are: `0 * v`, `-inf + v`,
`exp(-inf)`, `select` with a known condition, and so on.  This takes for granted that a value which is not known is
neither NaN nor larger than 1e30 (see `parc.triangular`).  Floating-point results are known only where rounding has no
part in them: infinite ones and small integers.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch_mlir import ir

from parc.triangular.elements import Array, Elements, Flags, union

_EXACT = 256
"""Integers up to this one are numbers of every floating-point type."""
_VANISHES = -1e4
"""The exponential of this is 0 in every floating-point type."""

Rule = Callable[[Sequence[Elements], np.dtype, ir.Operation], Elements]


def numpy_type(element: ir.Type) -> np.dtype:
    """The type in which elements of an MLIR type are kept; those of small floating-point types are exact in it."""
    if isinstance(element, ir.ShapedType):
        element = element.element_type
    if isinstance(element, ir.F64Type):
        return np.dtype(np.float64)
    if isinstance(element, ir.FloatType):
        return np.dtype(np.float32)
    if isinstance(element, ir.IntegerType) and element.width <= 64:
        return np.dtype(bool) if element.width == 1 else np.dtype(f"int{max(8, element.width)}")
    return np.dtype(np.int64)


def scalar_rule(op: ir.Operation, operands: Sequence[Elements]) -> Elements:
    """The result of an operation on scalars, at all places at once; operands broadcast against each other."""
    dtype = numpy_type(op.results[0].type)
    rule = _RULES.get(op.name)
    return rule(operands, dtype, op) if rule is not None else _opaque(operands, dtype)


def combine(name: str, a: Elements, b: Elements, dtype: np.dtype) -> Elements:
    """The result of a binary operation by its name, one of `COMBINING`."""
    return _ARITHMETIC[name]([a, b], dtype)


def reduced(name: str, elements: Elements, axes: tuple[int, ...], extents: Sequence[int], dtype: np.dtype) -> Elements:
    """Elements combined along `axes`, of sizes `extents`, by an operation out of `COMBINING`; the axes get size 1."""
    shape = list(elements.shape)
    for axis, extent in zip(axes, extents, strict=True):
        shape[axis] = extent
    values, known = np.broadcast_to(elements.values, shape), np.broadcast_to(elements.known, shape)
    bits = None if elements.bits is None else np.bitwise_or.reduce(elements.bits, axis=axes, keepdims=True)
    kind = COMBINING[name]
    with np.errstate(all="ignore"):
        total = _REDUCTIONS[kind](np.where(known, values, _neutral(kind, dtype)), axis=axes, keepdims=True)
    total = total.astype(dtype, copy=False)
    settled: Flags = np.asarray(known.all(axis=axes, keepdims=True))
    if _has_sign(kind, dtype):
        settled = np.zeros_like(settled)
    elif kind in ("add", "multiply"):
        settled = settled & _exact(values).all(axis=axes, keepdims=True) & _exact(total)
    else:
        decided = (_absorbing(kind, values) & known).any(axis=axes, keepdims=True)
        total, settled = np.where(decided, _absorber(kind, dtype), total), settled | decided
    return Elements.make(total, settled, bits)


COMBINING: Mapping[str, str] = {
    "arith.addf": "add",
    "arith.addi": "add",
    "arith.mulf": "multiply",
    "arith.muli": "multiply",
    "arith.maximumf": "maximum",
    "arith.maxnumf": "maximum",
    "arith.maxsi": "maximum",
    "arith.minimumf": "minimum",
    "arith.minnumf": "minimum",
    "arith.minsi": "minimum",
    "arith.ori": "or",
    "arith.andi": "and",
}
"""Operations that are commutative and associative -> what they do."""

_REDUCTIONS: Mapping[str, Callable[..., Array]] = {
    "add": np.sum,
    "multiply": np.prod,
    "maximum": np.max,
    "minimum": np.min,
    "or": np.bitwise_or.reduce,
    "and": np.bitwise_and.reduce,
}


def _neutral(kind: str, dtype: np.dtype) -> Array:
    if kind in ("maximum", "minimum"):
        return _limits(dtype)[kind == "minimum"]
    ones = {"add": 0, "or": 0, "multiply": 1, "and": -1 if dtype.kind == "i" else 1}
    return np.asarray(ones[kind], dtype)


def _limits(dtype: np.dtype) -> tuple[Array, Array]:
    if dtype.kind == "f":
        return np.asarray(-np.inf, dtype), np.asarray(np.inf, dtype)
    if dtype.kind == "b":
        return np.asarray(False), np.asarray(True)
    return np.asarray(np.iinfo(dtype).min, dtype), np.asarray(np.iinfo(dtype).max, dtype)


def _absorber(kind: str, dtype: np.dtype) -> Array:
    """The operand that decides the result alone, of the operations that have one."""
    if kind in ("maximum", "minimum"):
        return _limits(dtype)[kind == "maximum"]
    return np.asarray(0 if kind in ("multiply", "and") else -1 if dtype.kind == "i" else 1, dtype)


def _absorbing(kind: str, values: Array) -> Flags:
    return np.asarray(values == _absorber(kind, values.dtype))


def _exact(values: Array) -> Flags:
    """Where a result does not depend on how it is rounded."""
    if values.dtype.kind != "f":
        return np.ones(values.shape, bool)
    with np.errstate(invalid="ignore"):
        return np.isinf(values) | ((np.abs(values) <= _EXACT) & (values == np.round(values)))


def opaque(operands: Sequence[Elements], type_: ir.Type) -> Elements:
    """The result of an operation of which nothing is known, of this (element) type."""
    return _opaque(operands, numpy_type(type_))


def _opaque(operands: Sequence[Elements], dtype: np.dtype) -> Elements:
    shape = np.broadcast_shapes(*(o.shape for o in operands))
    return Elements.make(np.zeros((), dtype), np.zeros(shape, bool), union(operands))


def _binary(kind: str) -> Callable[[Sequence[Elements], np.dtype], Elements]:
    """An operation out of `COMBINING`: exact where both are known, and where one decides alone."""
    compute = {"or": np.bitwise_or, "and": np.bitwise_and}.get(kind) or getattr(np, kind)

    def rule(operands: Sequence[Elements], dtype: np.dtype) -> Elements:
        if _has_sign(kind, dtype):
            return _opaque(operands, dtype)
        a, b = operands
        with np.errstate(all="ignore"):
            values = compute(a.values, b.values).astype(dtype, copy=False)
            known = a.known & b.known
            if kind in ("add", "multiply"):
                known = known & _exact(a.values) & _exact(b.values) & _exact(values)
        for operand, other in ((a, b), (b, a)):
            strong = operand.known & _decides(kind, operand, other)
            values = np.where(strong, operand.values, values)
            known = known | strong
        return Elements.make(values, known & ~_is_nan(values), union((a, b)))

    return rule


def _has_sign(kind: str, dtype: np.dtype) -> bool:
    """Is this arithmetic of numbers with one bit, which is their sign?"""
    return dtype.kind == "b" and kind in ("add", "maximum", "minimum")


def _is_nan(values: Array) -> Flags:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _decides(kind: str, operand: Elements, other: Elements) -> Flags:
    """Where an operand is the result, if it is known, whatever the other one is."""
    if kind == "add":
        return _overwhelming(operand.values) & ~(other.known & _overwhelming(other.values))
    absorbs = _absorbing(kind, operand.values)
    if kind == "multiply" and other.values.dtype.kind == "f":
        return absorbs & ~(other.known & ~np.isfinite(other.values))
    return absorbs


_ARITHMETIC = {name: _binary(kind) for name, kind in COMBINING.items()}


def _overwhelming(values: Array) -> Flags:
    """Where a sum with any value that is computed is this one, after rounding if it is finite (`torch.finfo.min`)."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, bool)
    return np.asarray(np.abs(values) >= (2.0**127 if values.dtype == np.float32 else 2.0**200))


def _subtract(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    a, b = operands
    return _ARITHMETIC["arith.addf"]([a, Elements(-b.values, b.known, b.bits)], dtype)


def _subtract_integers(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    a, b = operands
    values = a.values ^ b.values if dtype.kind == "b" else a.values - b.values
    return Elements.make(values, a.known & b.known, union(operands))


def _divide(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    a, b = operands
    with np.errstate(all="ignore"):
        values = a.values / b.values
    known = a.known & b.known & _exact(a.values) & _exact(b.values) & _exact(values)
    of_zero = a.known & (a.values == 0) & ~(b.known & ((b.values == 0) | np.isnan(b.values)))
    by_infinity = b.known & np.isinf(b.values) & ~(a.known & ~np.isfinite(a.values))
    vanishes = of_zero | by_infinity
    return Elements.make(np.where(vanishes, np.zeros((), dtype), values), known | vanishes, union(operands))


def _integers(compute: Callable[[Array, Array], Array], divides: bool = False) -> Rule:
    def rule(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
        a, b = operands
        known = a.known & b.known
        divisor = np.where(b.values == 0, np.ones((), b.values.dtype), b.values) if divides else b.values
        values = compute(a.values, divisor).astype(dtype)
        if divides:
            known = known & (b.values != 0)
        return Elements.make(values, known, union(operands))

    return rule


def _toward_zero(a: Array, b: Array) -> Array:
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def _select(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    condition, a, b = operands
    settled = condition.known
    with np.errstate(invalid="ignore"):
        same = a.known & b.known & (a.values == b.values)
    first, second = settled & condition.values, settled & ~condition.values
    values = np.where(second, b.values, a.values)
    known = (first & a.known) | (second & b.known) | same
    open_ = Elements.make(values, settled, union(operands))
    chosen = [Elements.make(a.values, ~first, a.bits), Elements.make(b.values, ~second, b.bits)]
    return Elements.make(values, known, union([open_, *chosen]))


_FLOAT_TESTS: Mapping[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "ne": np.not_equal,
}
_FLOAT_PREDICATES = ("false", "oeq", "ogt", "oge", "olt", "ole", "one", "ord",
                     "ueq", "ugt", "uge", "ult", "ule", "une", "uno", "true")  # fmt: skip
_INTEGER_PREDICATES = ("eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge")


def _compare_floats(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    predicate = _FLOAT_PREDICATES[ir.IntegerAttr(op.attributes["predicate"]).value]
    a, b = operands
    is_nan = (a.known & _is_nan(a.values)) | (b.known & _is_nan(b.values))
    if predicate in ("false", "true", "ord", "uno"):
        always = np.bool_(predicate in ("true", "ord"))
        return Elements.make(np.broadcast_to(always, is_nan.shape), ~is_nan, union(operands))
    # Beside an infinite number any other is as good as zero.
    left, right = (np.where(e.known, e.values, np.zeros((), e.values.dtype)) for e in (a, b))
    decided = (a.known & _overwhelming(a.values)) | (b.known & _overwhelming(b.values))
    values = _FLOAT_TESTS[predicate[1:]](left, right)
    return Elements.make(values, ((a.known & b.known) | decided) & ~is_nan, union(operands))


def _compare_integers(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    predicate = _INTEGER_PREDICATES[ir.IntegerAttr(op.attributes["predicate"]).value]
    a, b = operands
    test = _FLOAT_TESTS[predicate.removeprefix("s").removeprefix("u")]
    if a.values.dtype.kind == "b" and predicate.startswith("s"):  # the one bit is the sign
        return _opaque(operands, dtype)
    known = a.known & b.known
    if predicate.startswith("u"):
        known = known & (a.values >= 0) & (b.values >= 0)
    return Elements.make(test(a.values, b.values), known, union(operands))


def _exclusive_or(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    a, b = operands
    return Elements.make(np.bitwise_xor(a.values, b.values), a.known & b.known, union(operands))


def _cast(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    """Casts between numbers; `sitofp` of a boolean is the one that is not what numpy does."""
    (a,) = operands
    values = a.values
    if values.dtype.kind == "b":
        values = values.astype(np.int8)
        if op.name in ("arith.sitofp", "arith.extsi"):
            values = -values
    if dtype.kind == "b":
        values = values.astype(np.int64) & 1
    known = a.known & np.isfinite(values) if dtype.kind != "f" and values.dtype.kind == "f" else a.known
    if op.name in ("arith.extui", "arith.uitofp", "arith.fptoui", "arith.index_castui") and values.dtype.kind == "i":
        known = known & (values >= 0)
    with np.errstate(all="ignore"):
        values = values.astype(dtype)
    return Elements.make(values, known, a.bits)


def _rounded(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    """To a floating-point type that has fewer digits."""
    (a,) = operands
    with np.errstate(all="ignore"):
        return Elements.make(a.values.astype(dtype), a.known & _exact(a.values), a.bits)


def _negate(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    (a,) = operands
    return Elements(-a.values, a.known, a.bits)


def _exponential(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
    (a,) = operands
    with np.errstate(all="ignore"):
        values = np.exp(a.values)
    return Elements.make(values, a.known & ((a.values == 0) | (a.values <= _VANISHES) | np.isposinf(a.values)), a.bits)


def _at_zero(compute: Callable[[Array], Array]) -> Rule:
    """A function that keeps zero, where it can be known."""

    def rule(operands: Sequence[Elements], dtype: np.dtype, op: ir.Operation) -> Elements:
        (a,) = operands
        with np.errstate(all="ignore"):
            return Elements.make(compute(a.values).astype(dtype), a.known & (a.values == 0), a.bits)

    return rule


_RULES: dict[str, Rule] = {
    **{name: lambda operands, dtype, op: _ARITHMETIC[op.name](operands, dtype) for name in COMBINING},
    "arith.subf": _subtract,
    "arith.subi": _subtract_integers,
    "arith.divf": _divide,
    "arith.divsi": _integers(_toward_zero, divides=True),
    "arith.floordivsi": _integers(np.floor_divide, divides=True),
    "arith.remsi": _integers(np.fmod, divides=True),
    "arith.select": _select,
    "arith.cmpf": _compare_floats,
    "arith.cmpi": _compare_integers,
    "arith.xori": _exclusive_or,
    "arith.negf": _negate,
    **{
        f"arith.{name}": _cast
        for name in ("extf", "extsi", "extui", "trunci", "sitofp", "uitofp", "fptosi", "fptoui", "index_cast")
    },
    "arith.truncf": _rounded,
    "math.exp": _exponential,
    "math.exp2": _exponential,
    **{
        f"math.{name}": _at_zero(np.asarray)
        for name in ("absf", "tanh", "sqrt", "erf", "sin", "floor", "ceil", "round")
    },
}
