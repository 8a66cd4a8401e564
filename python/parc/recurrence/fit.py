"""Sizes as functions of the symbols, recovered from the values they take in a few traces."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement

from torch_mlir import ir

#: Divisors tried for strided operations, whose output sizes are floor((a * s + b) / d).
_DIVISORS = range(2, 33)


@dataclass(frozen=True)
class Extent:
    """floor((constant + sum of coefficient * product of symbols) / divisor)."""

    constant: int
    terms: tuple[tuple[int, tuple[int, ...]], ...] = ()
    divisor: int = 1

    def at(self, sizes: Sequence[int]) -> int:
        """The value for concrete symbol values."""
        total = self.constant
        for coefficient, symbols in self.terms:
            for s in symbols:
                coefficient *= sizes[s]
            total += coefficient
        return total // self.divisor

    def __add__(self, other: "Extent | int") -> "Extent":
        if isinstance(other, int):
            return Extent(self.constant + other * self.divisor, self.terms, self.divisor)
        if self.divisor != 1 or other.divisor != 1:
            if not other.terms:
                return self + other.constant
            if not self.terms:
                return other + self.constant
            raise ValueError("a sum of two rounded quotients has no single divisor")
        terms: dict[tuple[int, ...], int] = {}
        for coefficient, symbols in self.terms + other.terms:
            terms[symbols] = terms.get(symbols, 0) + coefficient
        kept = tuple((c, s) for s, c in sorted(terms.items()) if c)
        return Extent(self.constant + other.constant, kept)

    def scaled(self, factor: int) -> "Extent":
        """This extent times an integer."""
        if factor == 1:
            return self
        if self.divisor != 1:
            raise ValueError("a rounded quotient cannot be scaled")
        return Extent(self.constant * factor, tuple((c * factor, s) for c, s in self.terms if c * factor))

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def affine(self) -> ir.AffineExpr:
        """As an affine expression of the symbols (semi-affine when it has a product of two)."""
        expr = ir.AffineExpr.get_constant(self.constant)
        for coefficient, symbols in self.terms:
            factor = ir.AffineExpr.get_symbol(symbols[0])
            for s in symbols[1:]:
                factor = factor * ir.AffineExpr.get_symbol(s)
            expr = expr + factor * coefficient
        return expr if self.divisor == 1 else ir.AffineExpr.get_floor_div(expr, self.divisor)


@dataclass(frozen=True)
class StepMap:
    """`factor * step + offset`."""

    factor: int
    offset: Extent

    @property
    def is_identity(self) -> bool:
        return self.factor == 1 and self.offset == Extent(0)


def fit_steps(points: Sequence[Sequence[tuple[int, int]]], sizes: Sequence[tuple[int, ...]]) -> StepMap | None:
    """value = factor * step + offset(sizes), for every (step, value) of every trace, or None.

    A trace may be too short to have any point, as long as one has two.
    """
    pair = next(((c[0], c[1]) for c in points if len(c) > 1), None)
    if pair is None:
        return None
    (s0, v0), (s1, v1) = pair
    if (v1 - v0) % (s1 - s0):
        return None
    factor = (v1 - v0) // (s1 - s0)
    offsets, known = [], []
    for column, size in zip(points, sizes, strict=True):
        found = {value - factor * step for step, value in column}
        if len(found) > 1:
            return None
        if found:
            offsets.append(found.pop())
            known.append(size)
    offset = fit(offsets, known)
    return None if offset is None else StepMap(factor, offset)


def fit(values: Sequence[int], sizes: Sequence[Sequence[int]]) -> Extent | None:
    """The simplest extent that takes `values[k]` at the symbol values `sizes[k]`, or None.

    Tried in order: a constant, one symbol, one symbol with a divisor, all symbols affinely,
    a product of two symbols.  Every trace must agree, so with more traces than unknowns the
    result is checked, not only solved for.
    """
    return _fit(tuple(values), tuple(map(tuple, sizes)))


@cache
def _fit(values: tuple[int, ...], sizes: tuple[tuple[int, ...], ...]) -> Extent | None:
    if len(set(values)) == 1:
        return Extent(values[0])
    symbols = range(len(sizes[0]))
    bases: list[list[tuple[int, ...]]] = [[(s,)] for s in symbols]
    for basis in bases:
        if found := _solve(values, sizes, basis):
            return found
    for s in symbols:
        if found := _fit_quotient(values, sizes, s):
            return found
    products = list(combinations_with_replacement(symbols, 2))
    bases = [[(s,) for s in symbols]]
    bases += [[p] for p in products]
    bases += [[p, (s,)] for p in products for s in symbols]
    for basis in bases:
        if len(basis) + 1 < len(sizes) and (found := _solve(values, sizes, basis)):
            return found
    return None


def _monomial(sizes: Sequence[int], symbols: tuple[int, ...]) -> int:
    value = 1
    for s in symbols:
        value *= sizes[s]
    return value


def _solve(values: Sequence[int], sizes: Sequence[Sequence[int]], basis: Sequence[tuple[int, ...]]) -> Extent | None:
    """Integer coefficients of 1 and the monomials in `basis`, by elimination; None unless all traces agree."""
    rows = [
        [Fraction(1), *(Fraction(_monomial(z, m)) for m in basis), Fraction(v)]
        for z, v in zip(sizes, values, strict=True)
    ]
    unknowns = len(basis) + 1
    rank = 0
    for column in range(unknowns):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            return None
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        scale = rows[rank][column]
        rows[rank] = [x / scale for x in rows[rank]]
        for r in range(len(rows)):
            if r != rank and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    if any(row[-1] for row in rows[rank:]):
        return None
    solution = [rows[i][-1] for i in range(unknowns)]
    if any(x.denominator != 1 for x in solution):
        return None
    terms = tuple((int(c), m) for c, m in zip(solution[1:], basis, strict=True) if c)
    return Extent(int(solution[0]), terms)


def _fit_quotient(values: Sequence[int], sizes: Sequence[Sequence[int]], symbol: int) -> Extent | None:
    """floor((a * s + b) / d) with a < d, for strided operations such as pooling."""
    for divisor in _DIVISORS:
        for a in range(1, divisor):
            low = max(v * divisor - a * z[symbol] for v, z in zip(values, sizes, strict=True))
            high = min((v + 1) * divisor - 1 - a * z[symbol] for v, z in zip(values, sizes, strict=True))
            if low <= high:
                return Extent(low, ((a, (symbol,)),), divisor)
    return None
