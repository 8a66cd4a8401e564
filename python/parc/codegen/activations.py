"""exp, sigmoid and tanh on vectors as polynomials, without calls.

All three come from one range reduction, x = n ln 2 + r with |r| <= ln(2) / 2, so that exp(x) = 2^n (1 + q) with
q = expm1(r).  tanh(x) = expm1(2x) / (expm1(2x) + 2) keeps its relative precision at 0.

Largest errors against exact values, relative for exp and tanh, absolute for sigmoid: 1.5e-7, 2.5e-7 and 1.2e-7 in f32;
4e-16, 6e-16 and 3e-16 in f64.  The limits at infinity are exact and NaN stays NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial, log

from torch_mlir import ir
from torch_mlir.dialects import arith, vector

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
    emit = {"math.exp": _Emitter.exp, "math.tanh": _Emitter.tanh, SIGMOID: _Emitter.sigmoid}.get(name)
    if format_ is None or emit is None:
        return None
    return lambda x: emit(_Emitter(x, format_))


class _Emitter:
    """Emits on one vector `x` at the current insertion point."""

    def __init__(self, x: ir.Value, format_: _Format) -> None:
        self.x = x
        self.format = format_
        self.type = ir.VectorType(x.type)
        self.int_type = ir.VectorType.get(self.type.shape, ir.IntegerType.get_signless(format_.bits))

    def exp(self) -> ir.Value:
        """2^n in two factors: n spans more than the exponents of one number."""
        linear, s, bits = self._reduced(self._clamped(*self.format.exp_range), 1.0)
        n = arith.subi(bits, self._int(self.format.magic_bits))
        half = arith.shrsi(n, self._int(1))
        first, second = self._power_of_two(half), self._power_of_two(arith.subi(n, half))
        return arith.mulf(arith.mulf(vector.fma(linear, s, self._float(1.0)), first), second)

    def sigmoid(self) -> ir.Value:
        """1 / (1 + exp(-x))."""
        linear, s, n = self._reduced(self._clamped(*self.format.sigmoid_range), -1.0)
        one = self._float(1.0)
        return arith.divf(one, vector.fma(vector.fma(linear, s, one), self._power_of_two(n), one))

    def tanh(self) -> ir.Value:
        """expm1(2x) / (expm1(2x) + 2)."""
        x = self._clamped(-self.format.tanh_limit, self.format.tanh_limit)
        linear, s, n = self._reduced(arith.addf(x, x), 1.0)
        power = self._power_of_two(n)
        expm1 = vector.fma(arith.mulf(linear, s), power, arith.subf(power, self._float(1.0)))
        return arith.divf(expm1, arith.addf(expm1, self._float(2.0)))

    def _clamped(self, low: float, high: float) -> ir.Value:
        """x held within bounds; the comparisons are such that NaN passes through one machine instruction each."""
        bounded = self.x
        for predicate, bound in ((arith.CmpFPredicate.OLT, low), (arith.CmpFPredicate.OGT, high)):
            limit = self._float(bound)
            bounded = arith.select(arith.cmpf(predicate, bounded, limit), limit, bounded)
        return bounded

    def _reduced(self, x: ir.Value, sign: float) -> tuple[ir.Value, ir.Value, ir.Value]:
        """For exp(sign * x) = 2^n (1 + q): two factors of q, and an integer with n in its low bits."""
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
        return linear, s, arith.bitcast(self.int_type, shifted)

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
