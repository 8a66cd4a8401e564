"""Nested scan: a stack of affine recurrences in O(log k log T) dependent steps for k layers and T time steps.

The states of all layers at a step are affine in those at the step before.  Seen from the layers first (`stack.py`):

    x[l, t] = sum over m <= l of M[t, l, m] x[m, t - 1] + c[t, l]

*Inside* a step, log2 k rounds find M and c: round j joins groups of 2^j layers in pairs, and what the upper group says
of its input follows from what the last layer s of the lower one says (N: how a layer depends on its group's input)

    M[l, m] = N[l] M[s, m];      c[l] = N[l] c[s] + c[l];      N[l] = N[l] N[s]

*Over time*, such steps compose in pairs to steps twice as long, 2 log2 T + 1 times like in `chunks.py`, up and down a
binary tree.  A product of two of them is a sum of up to k products of blocks, which are computed in one dependent step
and added up in log2 k more, as is a product with a state.  With one step for the blocks of single layers and one that
hands on the states, these are 1 + log2 k + (log2 k + 1) (2 log2 T + 1) + 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2

from torch_mlir import ir

from parc.solvers.affine import AffineBody, Copies
from parc.solvers.blocks import Blocks, DenseBlocks, DiagonalBlocks
from parc.solvers.points import Points
from parc.solvers.stack import Layer
from parc.solvers.tree_sum import Tile, TreeSum
from parc.solvers.writer import Body, Point, Schedule, Writer


def solve_nested(stack: Sequence[Layer], writer: Writer, levels: int) -> None:
    """Write the equations that solve a stack; the caller erases its own equations.

    levels: how often steps are joined in pairs; what is left is solved one after another.
    """
    _Nested(stack, writer).solve(levels)


@dataclass(frozen=True)
class _Steps:
    """`M[i, l, m]` and `c[i, l]` of steps that are as long as `2 ^ level` steps of the recurrence."""

    level: int
    blocks: ir.Value
    constants: ir.Value

    @property
    def length(self) -> int:
        """Steps of the recurrence in one of these."""
        return 1 << self.level


class _Nested:
    def __init__(self, stack: Sequence[Layer], writer: Writer) -> None:
        self.stack = stack
        self.writer = writer
        self.lowest = stack[0].recurrence
        self.name = self.lowest.body.name
        bodies = [b for layer in stack for b in (layer.recurrence.body, layer.passed) if b is not None]
        kind = DiagonalBlocks if all(b.is_diagonal for b in bodies) else DenseBlocks
        self.blocks: Blocks = kind(stack[0].joint)
        self.rounds = ceil(log2(len(stack)))
        self.top = ir.AffineExpr.get_constant(len(stack) - 1)
        """The highest layer."""
        self.phase = 0
        length = self.lowest.length
        self.states = self._array("x", length + 1, len(stack))
        """`x[p, l]`, the state of layer l after p steps."""

    def solve(self, levels: int) -> None:
        self._starts()
        tree = [self._time_step()]
        for _ in range(levels):
            tree.append(self._joined(tree[-1]))
        self._ends(tree[-1])
        for steps in reversed(tree[:-1]):
            self._first(steps)
        self._results()

    # -- one step of all layers ------------------------------------------------------------------------------------

    def _time_step(self) -> _Steps:
        """M and c of every step of the recurrence."""
        length, count = self.lowest.length, len(self.stack)
        blocks = self._array("M0", length, count, count, columns=True)
        passed, constants = self._array("N", length, count, columns=True), self._array("c", length, count)
        for number, layer in enumerate(self.stack):
            self._own(number, layer, blocks, passed, constants)
        self.phase += 1
        for round_ in range(self.rounds):
            passed, constants = self._round(round_, blocks, passed, constants)
        return _Steps(0, blocks, constants)

    def _own(self, number: int, layer: Layer, blocks: ir.Value, passed: ir.Value, constants: ir.Value) -> None:
        points = Points()
        time, place = points.dim(self.lowest.length), ir.AffineExpr.get_constant(number)

        def write(body: Body) -> None:
            copies = Copies(layer.recurrence.equation.op, body, layer.recurrence.point(time, []))

            def block(part: AffineBody) -> ir.Value:
                return part.linear(copies, self.blocks.identity())

            body.write(block(layer.recurrence.body), blocks, [time, place, place])
            if layer.passed is not None:
                body.write(block(layer.passed), passed, [time, place])
            body.write(layer.joint.constant(copies), constants, [time, place])

        self._equation(f"own{number}", points, 0, write)

    def _round(self, round_: int, blocks: ir.Value, passed: ir.Value, constants: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Join groups of `2 ^ round_` layers in pairs; returns N and c of the pairs."""
        length, half = self.lowest.length, 1 << round_
        new_passed = self._array(f"N{round_}", length, len(self.stack), columns=True)
        new_constants = self._array(f"c{round_}", length, len(self.stack))

        def group(points: Points) -> tuple[ir.AffineExpr, ir.AffineExpr, ir.AffineExpr]:
            time, pair, inside = points.dim(length), points.dim(), points.dim(half)
            return time, pair * (2 * half), inside

        # The lower group of a pair stays what it is; the first pair has no input.
        points = Points()
        time, first, inside = group(points)
        layer = first + inside
        points.require(self.top - layer)
        self._equation(f"lower{round_}", points, 0, self._copy(constants, new_constants, [time, layer]))
        if round_ + 1 < self.rounds:
            points = points.copy()
            points.require(first - 2 * half)
            self._equation(f"lower_input{round_}", points, 0, self._copy(passed, new_passed, [time, layer]))

        points = Points()
        time, first, inside = group(points)
        layer, last = first + half + inside, first + (half - 1)
        points.require(self.top - layer)
        here, there = [time, layer], [time, last]

        def upper(body: Body) -> None:
            product = self.blocks.times(body.read(passed, here), body.read(constants, there))
            body.write(self.blocks.plus(product, body.read(constants, here)), new_constants, here)

        self._equation(f"upper{round_}", points, 0, upper)

        def through(
            body: Body, source: ir.Value, at: Sequence[ir.AffineExpr], target: ir.Value, to: Sequence[ir.AffineExpr]
        ) -> None:
            body.write(self.blocks.compose(body.read(passed, here), body.read(source, at)), target, to)

        if round_ + 1 < self.rounds:
            inputs = points.copy()
            inputs.require(first - 2 * half)
            self._equation(f"upper_input{round_}", inputs, 0, lambda b: through(b, passed, there, new_passed, here))
        of = first + points.dim(half)
        self._equation(
            f"across{round_}", points, 0, lambda b: through(b, blocks, [time, last, of], blocks, [time, layer, of])
        )
        self.phase += 1
        return new_passed, new_constants

    # -- over time -------------------------------------------------------------------------------------------------

    def _joined(self, steps: _Steps) -> _Steps:
        """Pairs of steps as single ones."""
        level, count = steps.level + 1, len(self.stack)
        pairs = self._number_of(level)
        blocks = self._array(f"M{level}", pairs, count, count, columns=True)
        joined = _Steps(level, blocks, self._array(f"c_joined{level}", pairs, count))

        points, pair, layer = self._pairs(level)
        of = points.dim()
        points.require(layer - of)
        here = [pair, layer, of]
        total = TreeSum(f"M_joined{level}", points, here, layer - of, joined.blocks, here, self.rounds)

        def product(body: Body, term: ir.AffineExpr) -> ir.Value:
            later = body.read(steps.blocks, [pair * 2 + 1, layer, of + term])
            return self.blocks.compose(later, body.read(steps.blocks, [pair * 2, of + term, of]))

        def array(name: str, number: int) -> ir.Value:
            return self._array(name, pairs, count, count, number, columns=True)

        total.write(self._equation, array, self.blocks, product)

        points, pair, layer = self._pairs(level)
        here = [pair, layer]
        total = TreeSum(f"c_joined{level}", points, here, layer, joined.constants, here, self.rounds)
        self._apply(total, steps, pair * 2 + 1, layer, lambda b, term: b.read(steps.constants, [pair * 2, term]))
        self.phase += 1
        return joined

    def _ends(self, steps: _Steps) -> None:
        """The states after each of the longest steps, one after another."""
        points = Points()
        step = points.dim()
        points.require(self.lowest.length - (step + 1) * steps.length)
        self._state("ends", steps, points, step, step, step)

    def _first(self, steps: _Steps) -> None:
        """The states after the first step of every pair, whose second one ends where the pair does."""
        points = Points()
        pair = points.dim()
        points.require(self.lowest.length - (pair * 2 + 1) * steps.length)
        self._state(f"first{steps.level}", steps, points, pair, pair * 2, None)

    def _state(
        self,
        name: str,
        steps: _Steps,
        points: Points,
        number: ir.AffineExpr,
        step: ir.AffineExpr,
        time: ir.AffineExpr | None,
    ) -> None:
        """The states after a step from those before it."""
        layer = points.dim(self.top + 1)
        to = [(step + 1) * steps.length, layer]
        total = TreeSum(name, points, [number, layer], layer, self.states, to, self.rounds)
        before = step * steps.length
        self._apply(total, steps, step, layer, lambda b, term: b.read(self.states, [before, term]), time)
        self.phase += 1

    def _apply(
        self,
        total: TreeSum,
        steps: _Steps,
        step: ir.AffineExpr,
        layer: ir.AffineExpr,
        state: Tile,
        time: ir.AffineExpr | None = None,
    ) -> None:
        """`sum over m of M[step, layer, m] state[m] + c[step, layer]`."""

        def product(body: Body, term: ir.AffineExpr) -> ir.Value:
            return self.blocks.times(body.read(steps.blocks, [step, layer, term]), state(body, term))

        def with_constant(body: Body, term: ir.AffineExpr) -> ir.Value:
            return self.blocks.plus(product(body, term), body.read(steps.constants, [step, layer]))

        def array(name: str, number: int) -> ir.Value:
            return self._array(name, self._number_of(steps.level), len(self.stack), number)

        def equation(name: str, points: Points, round_: int, write: Callable[[Body], None]) -> None:
            self._equation(name, points, round_, write, time)

        total.write(equation, array, self.blocks, product, with_constant)

    # -- between the stack and the solver --------------------------------------------------------------------------

    def _starts(self) -> None:
        """The states before the first step."""
        for number, layer in enumerate(self.stack):
            points = Points()
            points.require(self.lowest.length - 1)
            at = layer.recurrence.point(ir.AffineExpr.get_constant(0), [])
            to = [ir.AffineExpr.get_constant(0), ir.AffineExpr.get_constant(number)]

            def write(body: Body, layer: Layer = layer, at: Point = at, to: Point = to) -> None:
                body.write(body.read_at(layer.recurrence.read, at), self.states, to)

            self._equation(f"start{number}", points, 0, write)

    def _results(self) -> None:
        """What the equations of the stack write, from all states."""
        for number, layer in enumerate(self.stack):
            points = Points()
            time = points.dim(self.lowest.length)

            def write(body: Body, number: int = number, layer: Layer = layer, time: ir.AffineExpr = time) -> None:
                recurrence = layer.recurrence
                at, place = recurrence.point(time, []), ir.AffineExpr.get_constant(number)
                copies = Copies(recurrence.equation.op, body, at)
                own = body.read(self.states, [time, place])
                copies.values.update(dict.fromkeys(recurrence.body.states, own))
                if layer.below:
                    copies.values.update(dict.fromkeys(layer.below, body.read(self.states, [time + 1, place - 1])))
                copies.values[recurrence.body.result] = body.read(self.states, [time + 1, place])
                for op in (recurrence.write, *recurrence.results):
                    tile, array = op.operands
                    body.write(copies.of(tile), array, body.access(op, at))

            self._equation(f"results{number}", points, 0, write)

    # -- writing ---------------------------------------------------------------------------------------------------

    def _pairs(self, level: int) -> tuple[Points, ir.AffineExpr, ir.AffineExpr]:
        """The pairs of steps that are steps of a level, and in each of them the layers."""
        points = Points()
        pair = points.dim()
        points.require(self.lowest.length - (pair + 1) * (1 << level))
        return points, pair, points.dim(self.top + 1)

    def _number_of(self, level: int) -> ir.AffineExpr:
        """At least how many steps a level has."""
        return ir.AffineExpr.get_ceil_div(self.lowest.length, 1 << level) if level else self.lowest.length

    def _array(self, name: str, *leading: ir.AffineExpr | int, columns: bool = False) -> ir.Value:
        """An unknown array of tiles like the states, or of blocks."""
        like, more = self.stack[0].joint.result, self.blocks.columns if columns else ()
        return self.writer.tiles(f"{self.name}_{name}", leading, like, more)

    def _equation(
        self,
        name: str,
        points: Points,
        round_: int,
        write: Callable[[Body], None],
        time: ir.AffineExpr | None = None,
    ) -> None:
        """An equation of the current phase; dimension 0 is dealt out to the threads where it is not the time."""
        zero = ir.AffineExpr.get_constant(0)
        owner = zero if time is not None or not points.count else ir.AffineExpr.get_dim(0)
        schedule = Schedule(
            [ir.AffineExpr.get_constant(self.phase), time or zero, ir.AffineExpr.get_constant(round_)], owner
        )
        self.writer.equation(f"{self.name}_{name}", points.count, points.constraints, schedule, write)

    def _copy(self, source: ir.Value, target: ir.Value, at: Point) -> Callable[[Body], None]:
        return lambda body: body.write(body.read(source, at), target, at)
