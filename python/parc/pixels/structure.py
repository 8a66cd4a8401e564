"""Structured operations seen from one pixel: which loops are the pixel's, and which slide a window over it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.codegen.elements import static_extents
from parc.errors import CompileError


@dataclass(frozen=True)
class Linear:
    """`sum of terms[d] * loop d, + constant`."""

    terms: dict[int, int]
    constant: int

    def at(self, taps: Mapping[int, int]) -> "Linear":
        """The same with numbers for some loops."""
        rest = {d: c for d, c in self.terms.items() if d not in taps}
        return Linear(rest, self.constant + sum(c * taps[d] for d, c in self.terms.items() if d in taps))

    def is_loop(self, loop: int) -> bool:
        """Is it the loop itself?"""
        return self.terms == {loop: 1} and self.constant == 0


def linear(expr: ir.AffineExpr) -> Linear | None:
    """A result of an indexing map; None where it is not linear."""
    if isinstance(expr, ir.AffineConstantExpr):
        return Linear({}, expr.value)
    if isinstance(expr, ir.AffineDimExpr):
        return Linear({expr.position: 1}, 0)
    if not isinstance(expr, ir.AffineAddExpr | ir.AffineMulExpr):
        return None
    left, right = linear(expr.lhs), linear(expr.rhs)
    if left is None or right is None:
        return None
    if isinstance(expr, ir.AffineAddExpr):
        loops = {*left.terms, *right.terms}
        terms = {d: left.terms.get(d, 0) + right.terms.get(d, 0) for d in loops}
        return Linear(terms, left.constant + right.constant)
    factor, scaled = (left, right) if not left.terms else (right, left)
    if factor.terms:
        return None
    return Linear({d: c * factor.constant for d, c in scaled.terms.items()}, scaled.constant * factor.constant)


class Structured:
    """A linalg operation's loops."""

    def __init__(self, op: ir.Operation) -> None:
        attributes = linalg.get_indexing_maps(op.opview)
        assert attributes is not None, "asked of an operation that is not structured"
        self.op = op
        self.inputs = len(op.operands) - len(op.results)
        self.maps = [ir.AffineMapAttr(m).value for m in attributes]
        self.loops = self.maps[0].n_dims
        self.indices: list[list[Linear]] = []
        for map_ in self.maps:
            found = [linear(e) for e in map_.results]
            if None in found:
                raise CompileError(f"'{op.name}' is indexed by {map_}, which is not linear", op.location)
            self.indices.append([f for f in found if f is not None])

    @cached_property
    def parallel(self) -> set[int]:
        """The loops that every result has."""
        return {d for index in self.indices[self.inputs] for d in index.terms}

    @property
    def reduces(self) -> bool:
        """Does it combine several iterations?"""
        return len(self.parallel) < self.loops

    @property
    def counted(self) -> set[int]:
        """The loops whose values the body uses."""
        counters = [o.operation for o in self.op.regions[0].blocks[0].operations if o.operation.name == "linalg.index"]
        return {ir.IntegerAttr(op.attributes["dim"]).value for op in counters}

    @property
    def is_sum_of_products(self) -> bool:
        """Is the body `out + a * b`, which a zero of `a` or `b` leaves as it was?"""
        block = self.op.regions[0].blocks[0]
        body = [op.operation for op in block.operations]
        names = [op.name for op in body]
        if names not in (["arith.mulf", "arith.addf", "linalg.yield"], ["arith.muli", "arith.addi", "linalg.yield"]):
            return False
        arguments = list(block.arguments)
        factors, terms = set(body[0].operands), set(body[1].operands)
        return factors == set(arguments[:2]) and terms == {body[0].results[0], arguments[2]}

    def extent(self, loop: int) -> int | None:
        """The static extent of a loop, where an operand's dimension is that loop and says it."""
        for value, index in zip(self.op.operands, self.indices, strict=True):
            for i, extent in enumerate(static_extents(value.type)):
                if extent is not None and index[i].is_loop(loop):
                    return extent
        return None

    def loops_of(self, dims: Sequence[int], result: int = 0) -> list[int]:
        """The loops along these dimensions of a result."""
        return [next(iter(self.indices[self.inputs + result][d].terms)) for d in dims]

    def window(self, operands: Sequence[int], positions: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The loops that move operands (by number) along their dimensions `positions`, but do not move the result."""
        found = {d for n, dims in zip(operands, positions, strict=True) for p in dims for d in self.indices[n][p].terms}
        return tuple(sorted(found - self.parallel))

    def taps(self, window: Sequence[int]) -> Iterator[dict[int, int]]:
        """All values of the loops of a window."""
        extents = [self.extent(d) for d in window]
        if None in extents:
            raise CompileError(f"'{self.op.name}' has a window of unknown size", self.op.location)
        for values in product(*(range(e or 0) for e in extents)):
            yield dict(zip(window, values, strict=True))
