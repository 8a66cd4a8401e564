"""Recursive doubling: at level k each step is composed with the one 2^k before it, so that it reaches twice as far.

    A[0, p] = A(p);  A[k + 1, p] = A[k, p] A[k, p - 2^k];  b[k + 1, p] = A[k, p] b[k, p - 2^k] + b[k, p]

After K levels every state follows from the one 2^K steps before (Stone 1973; on all elements of a scan at once Hillis
and Steele 1986, Kogge and Stone 1973).  The least number of dependent steps, for more work than a scan by chunks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir import ir

from parc.solvers.blocks import Blocks
from parc.solvers.coefficients import Arrays, Coefficients, OwnCoefficients, StoredCoefficients, write_results
from parc.solvers.points import Points
from parc.solvers.recurrence import Recurrence
from parc.solvers.writer import Body, Point, Schedule, Writer


def solve_by_doubling(recurrence: Recurrence, blocks: Blocks, writer: Writer, levels: int, group: int) -> None:
    """Write the equations that solve `recurrence`; the caller erases the equation itself.

    levels: how often the distance is doubled, at least once.
    group: steps that one thread computes together.
    """
    _Doubling(recurrence, blocks, writer, group).solve(levels)


@dataclass(frozen=True)
class _At:
    """A point of a new equation: a step, for one point of the recurrence's other dimensions."""

    step: ir.AffineExpr
    others: Point
    """Coordinates in the recurrence's domain."""
    leading: Point
    """The same counted from zero: indices of arrays."""


class _Doubling:
    def __init__(self, recurrence: Recurrence, blocks: Blocks, writer: Writer, group: int) -> None:
        self.recurrence = recurrence
        self.blocks = blocks
        self.writer = writer
        self.group = group

    def solve(self, levels: int) -> None:
        """Write all equations."""
        arrays: Arrays | None = None
        for level in range(levels):
            arrays = self._double(level, arrays)
        assert arrays is not None

        def solve(body: Body, at: _At, start: ir.AffineExpr) -> None:
            recurrence = self.recurrence
            state = body.read_at(recurrence.read, recurrence.point(start, at.others))
            result = self._coefficients(body, at, arrays, at.step).whole(state)
            body.write(result, recurrence.array, body.access(recurrence.write, recurrence.point(at.step, at.others)))

        reach, zero = 1 << levels, ir.AffineExpr.get_constant(0)
        self._equation("first", levels, 0, reach, lambda body, at: solve(body, at, zero))
        self._equation("rest", levels + 1, reach, None, lambda body, at: solve(body, at, at.step - (reach - 1)))

        def results(body: Body, at: _At) -> None:
            write_results(self.recurrence, body, self.recurrence.point(at.step, at.others))

        if self.recurrence.results:
            self._equation("results", levels + 2, 0, None, results)

    def _double(self, level: int, arrays: Arrays | None) -> Arrays:
        """The compositions of up to `2 ^ (level + 1)` steps."""
        doubled, distance = (
            Arrays.new(self.recurrence, self.blocks, self.writer, level + 1, self.recurrence.length),
            1 << level,
        )

        def write(body: Body, at: _At, block: ir.Value, constant: ir.Value) -> None:
            body.write(block, doubled.blocks, [*at.leading, at.step])
            body.write(constant, doubled.constants, [*at.leading, at.step])

        def keep(body: Body, at: _At) -> None:
            own = self._coefficients(body, at, arrays, at.step)
            write(body, at, own.block(), own.constant())

        def compose(body: Body, at: _At) -> None:
            own = self._coefficients(body, at, arrays, at.step)
            earlier = self._coefficients(body, at, arrays, at.step - distance)
            block = self.blocks.settled(own.compose(earlier.block()))
            write(body, at, block, own.whole(earlier.constant()))

        self._equation(f"keep{level}", level, 0, distance, keep)
        self._equation(f"double{level}", level, distance, None, compose)
        return doubled

    def _coefficients(self, body: Body, at: _At, arrays: Arrays | None, step: ir.AffineExpr) -> Coefficients:
        if arrays is None:
            return OwnCoefficients(self.recurrence, self.blocks, body, self.recurrence.point(step, at.others))
        return StoredCoefficients(arrays, self.blocks, body, [*at.leading, step])

    def _equation(
        self, name: str, phase: int, first: int, stop: int | None, write: Callable[[Body, _At], None]
    ) -> None:
        """An equation for the steps first..stop (None: to the end), with dimensions (group of steps, step, others).

        What reaches back to a state that it computed itself has the groups one after another: they are that long.
        """
        recurs = name == "rest"
        group = first if recurs else self.group
        points = Points()
        outer, inner = points.dim(), points.dim(group)
        step = outer * group + inner
        points.require(step - first)
        points.require(self.recurrence.length - 1 - step)
        if stop is not None:
            points.require(step * -1 + (stop - 1))
        leading, others = points.others(self.recurrence)
        zero = ir.AffineExpr.get_constant(0)
        time = [ir.AffineExpr.get_constant(phase), outer if recurs else zero]
        schedule = Schedule(time, inner if recurs else outer)
        label = f"{self.recurrence.body.name}_{name}"
        self.writer.equation(
            label, points.count, points.constraints, schedule, lambda b: write(b, _At(step, others, leading))
        )
