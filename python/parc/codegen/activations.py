"""Elementary functions on vectors as polynomials, without calls.

exp, expm1, sigmoid and tanh come from one range reduction, x = n ln 2 + r with |r| <= ln(2) / 2, so that
exp(x) = 2^n (1 + q) with q = expm1(r).  tanh(x) = expm1(2x) / (expm1(2x) + 2) keeps its relative precision at 0.

Largest errors against exact values, relative for exp and tanh, absolute for sigmoid: 1.5e-7, 2.5e-7 and 1.2e-7 in f32;
4e-16, 6e-16 and 3e-16 in f64.  expm1, log, log1p and erf, in f32 only: 2.1, 0.9, 1.5 and 1 units in the last place.
The limits at infinity are exact and NaN stays NaN.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial, log

from torch_mlir import ir
from torch_mlir.dialects import arith, math, vector

SIGMOID = "parc.sigmoid"  # the name of `1 / (1 + exp(-x))` in the nodes of a cell


@dataclass(frozen=True)
class _Format:
    """What the polynomials need to know of a floating-point type."""

    mantissa: int  # stored bits
    bias: int
    coefficients: tuple[float, ...]  # Q in expm1(r) = r + r^2 Q(r)
    ln2: tuple[float, float]  # ln 2 in two parts, the first with trailing zeros: n times it is exact
    exp_range: tuple[float, float]  # beyond it exp is 0 or infinite
    sigmoid_range: tuple[float, float]  # beyond it sigmoid is 0 or 1; 2^n stays a normal number or infinity inside
    tanh_limit: float  # beyond it tanh is 1

    @property
    def bits(self) -> int:
        return 32 if self.mantissa == 23 else 64

    @property
    def magic(self) -> float:
        """Added to y it leaves y rounded to an integer in the low bits of the sum."""
        return 1.5 * 2.0**self.mantissa

    @property
    def magic_bits(self) -> int:
        """`magic` as an integer: its exponent, and 1.5 as its leading digits."""
        return (self.bias + self.mantissa) << self.mantissa | 1 << (self.mantissa - 1)


# f32: minimax fit of degree 6 (error 1.3e-8); f64: the Taylor series to degree 13 (error 4e-18).
_FORMATS = {
    "f32": _Format(
        23,
        127,
        (0.4999999701976776, 0.1666654348373413, 0.04166720062494278, 0.008366547524929047, 0.0013882514322176576),
        (0.693359375, log(2) - 0.693359375),
        (-105.0, 89.5),
        (-89.0, 87.0),
        10.0,
    ),
    "f64": _Format(
        52,
        1023,
        tuple(1 / factorial(k) for k in range(2, 14)),
        (0.6931471803691238, 1.9082149292705877e-10),
        (-746.0, 710.5),
        (-710.0, 708.0),
        22.0,
    ),
}


def emitter(name: str, element: ir.Type) -> Callable[[ir.Value], ir.Value] | None:
    """The function that emits `name` on a vector of `element`; None where the operation itself is to be emitted."""
    format_ = _FORMATS.get(str(element))
    emit = (_ANY | _SINGLE if str(element) == "f32" else _ANY).get(name)
    if format_ is None or emit is None:
        return None
    return lambda x: emit(_Emitter(x, format_))


# Minimax fits of log1p(f) / f^2 - 1/f and of erf, highest power first (after N. Juffa).
_LOG_HIGH = (-0.130310059, 0.140869141)
_LOG_MIDDLE = (-0.121483684, 0.139814854)
_LOG_LOW = (-0.166846126, 0.200120345, -0.249996200, 0.333331972, -0.5)
_ERF_NEAR = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
_ERF_FAR = (
    *(-1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2),
    *(-1.06777877e-1, -6.34846687e-1, -1.28717512e-1),
)


@dataclass(frozen=True)
class _Reduced:
    """2^n (1 + linear * s); the low bits of the integer `n` are n."""

    linear: ir.Value
    s: ir.Value
    n: ir.Value


class _Emitter:
    """Emits on one vector `x` at the current insertion point."""

    def __init__(self, x: ir.Value, format_: _Format) -> None:
        self.x = x
        self.format = format_
        self.type = ir.VectorType(x.type)
        self.int_type = ir.VectorType.get(self.type.shape, ir.IntegerType.get_signless(format_.bits))

    def exp(self) -> ir.Value:
        """2^n in two factors: n spans more than the exponents of one number."""
        x = self._reduced(self._clamped(*self.format.exp_range), 1.0)
        n = arith.subi(x.n, self._int(self.format.magic_bits))
        half = arith.shrsi(n, self._int(1))
        first, second = self._power_of_two(half), self._power_of_two(arith.subi(n, half))
        return arith.mulf(arith.mulf(vector.fma(x.linear, x.s, self._float(1.0)), first), second)

    def sigmoid(self) -> ir.Value:
        """1 / (1 + exp(-x))."""
        x, one = self._reduced(self._clamped(*self.format.sigmoid_range), -1.0), self._float(1.0)
        return arith.divf(one, vector.fma(vector.fma(x.linear, x.s, one), self._power_of_two(x.n), one))

    def tanh(self) -> ir.Value:
        """expm1(2x) / (expm1(2x) + 2)."""
        x = self._clamped(-self.format.tanh_limit, self.format.tanh_limit)
        twice = self._reduced(arith.addf(x, x), 1.0)
        power = self._power_of_two(twice.n)
        expm1 = vector.fma(arith.mulf(twice.linear, twice.s), power, arith.subf(power, self._float(1.0)))
        return arith.divf(expm1, arith.addf(expm1, self._float(2.0)))

    # The rest is for f32: for f64 the math library is used.

    def expm1(self) -> ir.Value:
        """2^n q + (2^n - 1), whose parts are exact numbers where they cancel."""
        x = self._reduced(self._clamped(-20.0, 60.0), 1.0)
        power = self._power_of_two(x.n)
        small = vector.fma(arith.mulf(x.linear, x.s), power, arith.subf(power, self._float(1.0)))
        large = arith.cmpf(arith.CmpFPredicate.OGT, self.x, self._float(60.0))
        return arith.select(large, self.exp(), small)

    def log(self) -> ir.Value:
        """e ln 2 + log1p(f), where x = 2^e (1 + f) and -1/3 <= f < 1/3."""
        zero, tiny = self._float(0.0), self._float(1.17549435e-38)
        denormal = arith.cmpf(arith.CmpFPredicate.OLT, self.x, tiny)
        x = arith.select(denormal, arith.mulf(self.x, self._float(2.0**23)), self.x)
        bits = arith.bitcast(self.int_type, x)
        two_thirds = 0x3F2AAAAB
        exponent = arith.shrsi(arith.subi(bits, self._int(two_thirds)), self._int(23))
        mantissa = arith.bitcast(self.type, arith.subi(bits, arith.shli(exponent, self._int(23))))
        shift = arith.select(denormal, self._float(-23.0), zero)
        e = arith.addf(arith.sitofp(self.type, exponent), shift)
        f = arith.subf(mantissa, self._float(1.0))
        s = arith.mulf(f, f)
        poly = vector.fma(self._polynomial(_LOG_HIGH, f), s, self._polynomial(_LOG_MIDDLE, f))
        for coefficient in _LOG_LOW:
            poly = vector.fma(poly, f, self._float(coefficient))
        result = vector.fma(e, self._float(log(2)), vector.fma(poly, s, f))
        infinity = self._float(float("inf"))
        result = arith.select(arith.cmpf(arith.CmpFPredicate.UEQ, self.x, infinity), self.x, result)
        result = arith.select(arith.cmpf(arith.CmpFPredicate.OEQ, self.x, zero), self._float(float("-inf")), result)
        negative = arith.cmpf(arith.CmpFPredicate.OLT, self.x, zero)
        return arith.select(negative, self._float(float("nan")), result)

    def log1p(self) -> ir.Value:
        """log(u) for the rounded u = 1 + x, and what the rounding took from it."""
        u = arith.addf(self.x, self._float(1.0))
        whole = _Emitter(u, self.format).log()
        lost = arith.subf(self.x, arith.subf(u, self._float(1.0)))
        result = arith.addf(whole, arith.divf(lost, u))
        infinite = arith.cmpf(arith.CmpFPredicate.OEQ, math.absf(whole), self._float(float("inf")))
        return arith.select(infinite, whole, result)

    def erf(self) -> ir.Value:
        """A polynomial near 0, else 1 - exp(-p(|x|))."""
        size, square = math.absf(self.x), arith.mulf(self.x, self.x)
        near = vector.fma(self._polynomial(_ERF_NEAR, square), self.x, self.x)
        # Beyond 4 the result is 1; the polynomial would overflow at infinity.
        bound = self._float(4.0)
        t = arith.select(arith.cmpf(arith.CmpFPredicate.OGT, size, bound), bound, size)
        exponent = vector.fma(self._polynomial(_ERF_FAR, t), t, arith.negf(t))
        far = arith.subf(self._float(1.0), _Emitter(exponent, self.format).exp())
        is_far = arith.cmpf(arith.CmpFPredicate.OGT, size, self._float(0.921875))
        return arith.select(is_far, math.copysign(far, self.x), near)

    def _polynomial(self, coefficients: Sequence[float], x: ir.Value) -> ir.Value:
        """By Horner's rule, highest power first."""
        total = self._float(coefficients[0])
        for coefficient in coefficients[1:]:
            total = vector.fma(total, x, self._float(coefficient))
        return total

    def _clamped(self, low: float, high: float) -> ir.Value:
        """x held within bounds; the comparisons are such that NaN passes through one machine instruction each."""
        bounded = self.x
        for predicate, bound in ((arith.CmpFPredicate.OLT, low), (arith.CmpFPredicate.OGT, high)):
            limit = self._float(bound)
            bounded = arith.select(arith.cmpf(predicate, bounded, limit), limit, bounded)
        return bounded

    def _reduced(self, x: ir.Value, sign: float) -> "_Reduced":
        """exp(sign * x) = 2^n (1 + q)."""
        magic = self._float(self.format.magic)
        shifted = vector.fma(x, self._float(sign / log(2)), magic)
        whole = arith.subf(shifted, magic)
        high, low = self.format.ln2
        # s is sign * r: odd powers of it change sign with it.
        s = vector.fma(whole, self._float(-sign * high), x)
        s = vector.fma(whole, self._float(-sign * low), s)
        *rest, q = (c * sign**k for k, c in enumerate(self.format.coefficients))
        poly = self._float(q)
        for coefficient in reversed(rest):
            poly = vector.fma(poly, s, self._float(coefficient))
        linear = vector.fma(poly, s, self._float(sign))
        return _Reduced(linear, s, arith.bitcast(self.int_type, shifted))

    def _power_of_two(self, n: ir.Value) -> ir.Value:
        """2^n; only the low bits of n count, so that the bits of `magic` above them fall away."""
        shifted = arith.shli(n, self._int(self.format.mantissa))
        return arith.bitcast(self.type, arith.addi(shifted, self._int(self.format.bias << self.format.mantissa)))

    def _float(self, value: float) -> ir.Value:
        return arith.constant(
            self.type, ir.DenseElementsAttr.get_splat(self.type, ir.FloatAttr.get(self.type.element_type, value))
        )

    def _int(self, value: int) -> ir.Value:
        element = self.int_type.element_type
        return arith.constant(
            self.int_type, ir.DenseElementsAttr.get_splat(self.int_type, ir.IntegerAttr.get(element, value))
        )


_ANY = {"math.exp": _Emitter.exp, "math.tanh": _Emitter.tanh, SIGMOID: _Emitter.sigmoid}
_SINGLE = {
    "math.expm1": _Emitter.expm1,
    "math.log": _Emitter.log,
    "math.log1p": _Emitter.log1p,
    "math.erf": _Emitter.erf,
}
