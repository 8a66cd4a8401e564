"""Parallel scan by a tree: pairs of steps are composed, pairs of pairs, and so on.

The composition of two steps is again an affine step, so that each level is a recurrence of half the steps of the one
before; the last one is solved step by step.  This is the tree of a work-efficient scan (Blelloch 1990, with states in
place of prefixes on the way down), and also block odd-even (cyclic) reduction: the first state of each pair is
eliminated, and found by back substitution.

    pair[c]:   A[c] = A(2c + 1) A(2c);            b[c] = A(2c + 1) b(2c) + b(2c + 1)
    the states after pairs, x[2c + 1], by the next level
    first[c]:  x[2c] = A(2c) x[2c - 1] + b(2c)
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir

from parc.solvers.blocks import Blocks
from parc.solvers.coefficients import Arrays, Coefficients, OwnCoefficients, StoredCoefficients, write_results
from parc.solvers.points import Points
from parc.solvers.recurrence import Recurrence
from parc.solvers.writer import Body, Point, Schedule, Writer


def solve_by_pairs(recurrence: Recurrence, blocks: Blocks, writer: Writer, levels: int) -> None:
    """Write the equations that solve `recurrence`; the caller erases the equation itself."""
    tree = _Tree(recurrence, blocks, writer, levels)
    tree.solve()
    tree.write_results()


@dataclass(frozen=True)
class _At:
    """A point of a new equation: a number of a step or pair, for one point of the recurrence's other dimensions."""

    number: ir.AffineExpr
    others: Point
    """Coordinates in the recurrence's domain."""
    leading: Point
    """The same counted from zero: indices of arrays."""


class _Tree:
    """A level and those after it; step i of level k covers `2^k` steps of the equation, from `2^k i` on."""

    def __init__(
        self,
        recurrence: Recurrence,
        blocks: Blocks,
        writer: Writer,
        levels: int,
        number: int = 0,
        arrays: Arrays | None = None,
    ) -> None:
        self.recurrence = recurrence
        self.blocks = blocks
        self.writer = writer
        self.levels = levels
        self.number = number
        self.arrays = arrays
        """The coefficients of this level's steps; None for those of the equation itself."""
        self.stride = 1 << number

    def solve(self) -> None:
        """Write this level and those after it."""
        if self.number == self.levels:
            self._equation("ends", self.stride, 2 * self.number, self._first)
            return
        arrays = self._arrays()

        def pair(body: Body, at: _At) -> None:
            earlier, later = (self._coefficients(body, at, at.number * 2 + k) for k in (0, 1))
            body.write(self.blocks.settled(later.compose(earlier.block())), arrays.blocks, [*at.leading, at.number])
            body.write(later.whole(earlier.constant()), arrays.constants, [*at.leading, at.number])

        self._equation("pair", 2 * self.stride, 2 * self.number, pair)
        _Tree(self.recurrence, self.blocks, self.writer, self.levels, self.number + 1, arrays).solve()
        self._equation("first", self.stride, 3 * self.levels - self.number, self._first)

    def write_results(self) -> None:
        """What the equation writes besides its state, from all states."""

        def write(body: Body, at: _At) -> None:
            write_results(self.recurrence, body, self.recurrence.point(at.number, at.others))

        if self.recurrence.results:
            self._equation("results", 1, 3 * self.levels + 1, write)

    def _first(self, body: Body, at: _At) -> None:
        """The state after a step of this level, from the one before it."""
        recurrence = self.recurrence
        before = recurrence.point(at.number * self.stride, at.others)
        after = recurrence.point((at.number + 1) * self.stride - 1, at.others)
        state = self._coefficients(body, at, at.number).whole(body.read_at(recurrence.read, before))
        body.write(state, recurrence.array, body.access(recurrence.write, after))

    def _coefficients(self, body: Body, at: _At, step: ir.AffineExpr) -> Coefficients:
        if self.arrays is None:
            return OwnCoefficients(self.recurrence, self.blocks, body, self.recurrence.point(step, at.others))
        return StoredCoefficients(self.arrays, self.blocks, body, [*at.leading, step])

    def _arrays(self) -> Arrays:
        """Arrays of the compositions of this level's pairs, `[others, pair, tile]`."""
        recurrence = self.recurrence
        steps = ir.AffineExpr.get_floor_div(recurrence.length, self.stride) if self.stride > 1 else recurrence.length
        return Arrays.new(recurrence, self.blocks, self.writer, self.number, ir.AffineExpr.get_ceil_div(steps, 2))

    def _equation(self, name: str, stride: int, phase: int, write: Callable[[Body, _At], None]) -> None:
        """An equation with dimensions (number, others); each number covers `stride` steps of the equation.

        Time is (phase, number) for the ends, which need each other, else the phase alone.  "first" has every other
        number: the states after the others are known.
        """
        recurrence = self.recurrence
        points = Points()
        dim = points.dim()
        number = dim * 2 if name == "first" else dim
        # The last step that it covers is one of the recurrence.
        points.require(recurrence.length - (number + 1) * stride)
        leading, others = points.others(recurrence)
        zero = ir.AffineExpr.get_constant(0)
        time, owner = (dim, zero) if name == "ends" else (zero, dim)
        schedule = Schedule([ir.AffineExpr.get_constant(phase), time], owner)
        at = _At(number, others, leading)
        label = f"{recurrence.body.name}_{name}{self.number}"
        self.writer.equation(label, points.count, points.constraints, schedule, lambda body: write(body, at))
