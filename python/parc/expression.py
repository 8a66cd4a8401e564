"""Affine functions of a program's symbols, as plain data: sizes of tensors and of buffers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "%": lambda a, b: a % b,
}


@dataclass(frozen=True)
class Expression:
    """A constant, a symbol, or an operator of two expressions."""

    operator: str
    """`constant`, `symbol`, or one of + * // ceildiv %."""
    value: int = 0
    """Of a constant; of a symbol, its number."""
    operands: tuple["Expression", ...] = ()

    @staticmethod
    def constant(value: int) -> "Expression":
        return Expression("constant", value)

    @staticmethod
    def symbol(number: int) -> "Expression":
        return Expression("symbol", number)

    @staticmethod
    def binary(operator: str, left: "Expression", right: "Expression") -> "Expression":
        """ValueError for an operator that there is not."""
        if operator not in _OPERATORS:
            raise ValueError(f"there is no operator '{operator}'")
        return Expression(operator, 0, (left, right))

    def at(self, symbols: Sequence[int]) -> int:
        """The value for these values of the symbols."""
        if self.operator == "constant":
            return self.value
        if self.operator == "symbol":
            return symbols[self.value]
        left, right = self.operands
        return _OPERATORS[self.operator](left.at(symbols), right.at(symbols))

    def to_json(self) -> object:
        """`["+", ["*", "s0", 2], 1]` for twice the first symbol and one."""
        if self.operator == "constant":
            return self.value
        if self.operator == "symbol":
            return f"s{self.value}"
        return [self.operator, *(operand.to_json() for operand in self.operands)]

    @staticmethod
    def from_json(value: object) -> "Expression":
        """What `to_json` gave; ValueError for anything else."""
        if type(value) is int:
            return Expression.constant(value)
        if isinstance(value, str) and value.startswith("s") and value[1:].isdecimal():
            return Expression.symbol(int(value[1:]))
        if isinstance(value, list) and len(value) == 3:
            return Expression.binary(value[0], Expression.from_json(value[1]), Expression.from_json(value[2]))
        raise ValueError(f"{value!r} is no expression in sizes")
