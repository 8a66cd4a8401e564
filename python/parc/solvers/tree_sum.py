"""Sums of tiles as equations: all terms in one dependent step, then pairs of them, round by round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.solvers.blocks import Blocks
from parc.solvers.points import Points
from parc.solvers.writer import Body

Tile = Callable[[Body, ir.AffineExpr], ir.Value]
"""Emits the term with a given number."""
Write = Callable[[str, Points, int, Callable[[Body], None]], None]
"""Writes an equation: its name, its points, the round that it belongs to, and what emits its body."""


@dataclass(frozen=True)
class TreeSum:
    """`result[to] = sum over n from 0 to last`, at each of some points; `last` is at most `2 ^ rounds - 1`."""

    name: str
    points: Points
    at: Sequence[ir.AffineExpr]
    """What tells the sums apart: indices of the arrays of their terms."""
    last: ir.AffineExpr
    result: ir.Value
    to: Sequence[ir.AffineExpr]
    rounds: int

    def write(
        self,
        equation: Write,
        partial: Callable[[str, int], ir.Value],
        blocks: Blocks,
        term: Tile,
        highest: Tile | None = None,
    ) -> None:
        """Write its equations, of rounds 0 to `rounds`.

        partial: makes the array `[at, number, tile]` of a number of partial sums.
        highest: the term `last`, where it is not like the others.
        """
        sums = [partial(f"{self.name}_{r}", 1 << (self.rounds - r)) for r in range(self.rounds)]

        def put(body: Body, tile: ir.Value, round_: int, number: ir.AffineExpr) -> None:
            if round_ == self.rounds:
                body.write(tile, self.result, self.to)
            else:
                body.write(tile, sums[round_], [*self.at, number])

        points = self.points.copy()
        number = points.dim()
        points.require(self.last - number - (0 if highest is None else 1))
        if highest is None or self.rounds:
            equation(f"{self.name}_terms", points, 0, lambda b: put(b, term(b, number), 0, number))
        if highest is not None:
            equation(f"{self.name}_last", self.points.copy(), 0, lambda b: put(b, highest(b, self.last), 0, self.last))
        for round_ in range(1, self.rounds + 1):
            self._add(round_, equation, sums[round_ - 1], put, blocks)

    def _add(
        self,
        round_: int,
        equation: Write,
        terms: ir.Value,
        put: Callable[[Body, ir.Value, int, ir.AffineExpr], None],
        blocks: Blocks,
    ) -> None:
        """The partial sums of a round: of pairs, and of one that is left over."""
        covered = 1 << (round_ - 1)
        points = self.points.copy()
        number = ir.AffineExpr.get_constant(0) if round_ == self.rounds else points.dim()
        left, right = [*self.at, number * 2], [*self.at, number * 2 + 1]
        missing = self.last - (number * 2 + 1) * covered
        pairs, single = points.copy(), points
        pairs.require(missing)
        single.require(missing * -1 - 1)
        single.require(self.last - number * (2 * covered))

        def pair(body: Body) -> None:
            put(body, blocks.plus(body.read(terms, left), body.read(terms, right)), round_, number)

        equation(f"{self.name}_sum{round_}", pairs, round_, pair)
        equation(f"{self.name}_rest{round_}", single, round_, lambda b: put(b, b.read(terms, left), round_, number))
