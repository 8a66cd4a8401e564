"""Numbers with the formulas that they come from: polynomials of sizes and of terms such as `ceil(log2(T))`."""

import ast
from collections.abc import Iterable, Mapping
from functools import reduce
from math import ceil, log2

from parc.poly.count import Count

_UNKNOWN = "?"

_Polynomial = dict[tuple[str, ...], int]
"""The coefficient of each product of factors; factors are sorted, and repeated for powers."""


class Number(int):
    """A count at given sizes, with the formula that it comes from; `?` where there is none.

    Sums, products and `log2` keep the formula; all else gives plain integers.
    """

    formula: str

    def __new__(cls, value: int, formula: str = _UNKNOWN) -> "Number":
        number = super().__new__(cls, value)
        number.formula = formula
        return number

    @classmethod
    def of(cls, count: Count, sizes: Mapping[str, int]) -> "Number":
        """A count at given sizes of all symbols."""
        return cls(count.at(sizes), count.formula(sizes))

    def __str__(self) -> str:
        """`T + 3 = 131`."""
        value = int.__repr__(self)
        return value if self.formula in (_UNKNOWN, value) else f"{self.formula} = {value}"

    def __add__(self, other: int) -> "Number":
        return total([self, Number.exactly(other)])

    def __mul__(self, other: int) -> "Number":
        return product([self, Number.exactly(other)])

    __radd__ = __add__
    __rmul__ = __mul__

    @classmethod
    def exactly(cls, value: int) -> "Number":
        """A number that does not depend on sizes; one that has a formula stays as it is."""
        return value if isinstance(value, Number) else cls(value, str(value))

    def log2(self) -> "Number":
        """The rounds in which pairs become one: `ceil(log2(T))`; 0 for up to one."""
        value = ceil(log2(self)) if self > 1 else 0
        if self.formula in (_UNKNOWN, int.__repr__(self)):
            return Number(value, str(value) if self.formula != _UNKNOWN else _UNKNOWN)
        return Number(value, f"ceil(log2({self.formula}))")


def total(numbers: Iterable[Number]) -> Number:
    """The sum of numbers."""
    numbers = list(numbers)
    polynomials = [_parse(n.formula) for n in numbers]
    formula = _UNKNOWN if None in polynomials else _text(reduce(_plus, [p for p in polynomials if p is not None], {}))
    return Number(sum(map(int, numbers)), formula)


def product(numbers: Iterable[Number]) -> Number:
    """The product of numbers."""
    result, polynomial = 1, _parse("1")
    for number in numbers:
        result *= int(number)
        factor = _parse(number.formula)
        polynomial = None if polynomial is None or factor is None else _times(polynomial, factor)
    return Number(result, _UNKNOWN if polynomial is None else _text(polynomial))


def _parse(formula: str) -> _Polynomial | None:
    """A formula as a polynomial; what is neither sum, product nor power in it is a factor. None if it is no formula."""
    try:
        return _polynomial(ast.parse(formula.replace("^", "**"), mode="eval").body)
    except SyntaxError:
        return None


def _polynomial(node: ast.expr) -> _Polynomial:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return {(): node.value}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _times({(): -1}, _polynomial(node.operand))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        left, right = _polynomial(node.left), _polynomial(node.right)
        if isinstance(node.op, ast.Mult):
            return _times(left, right)
        return _plus(left, right if isinstance(node.op, ast.Add) else _times({(): -1}, right))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant):
        return reduce(_times, [_polynomial(node.left)] * int(str(node.right.value)), {(): 1})
    return {(ast.unparse(node),): 1}


def _plus(left: _Polynomial, right: _Polynomial) -> _Polynomial:
    return {key: left.get(key, 0) + right.get(key, 0) for key in [*left, *(k for k in right if k not in left)]}


def _times(left: _Polynomial, right: _Polynomial) -> _Polynomial:
    found: _Polynomial = {}
    for one, a in left.items():
        for other, b in right.items():
            # Names come before functions of them.
            key = tuple(sorted((*one, *other), key=lambda factor: ("(" in factor, factor)))
            found[key] = found.get(key, 0) + a * b
    return found


def _text(polynomial: _Polynomial) -> str:
    """`2*T^2 - T + 3`: higher powers first."""
    text = ""
    for factors, coefficient in sorted(polynomial.items(), key=lambda item: (-len(item[0]), item[0])):
        if not coefficient:
            continue
        powers = [f if (n := factors.count(f)) == 1 else f"{f}^{n}" for f in dict.fromkeys(factors)]
        size = [str(abs(coefficient))] if abs(coefficient) != 1 or not powers else []
        sign = "-" if coefficient < 0 else "+"
        text += (f" {sign} " if text else sign.strip("+")) + "*".join(size + powers)
    return text or "0"
