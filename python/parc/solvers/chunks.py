"""Parallel scan in chunks: reduce, then scan.

A level cuts the steps of a recurrence into chunks of S.  Threads take the first chunk, step by step, and compose the
steps of the others at the same time, of which only the last compositions A, b are kept.  These are again affine steps,
from the start of one chunk to the start of the next, which the next level takes; the last level solves them one after
another.  Then every chunk but the first is solved step by step.  With X[c, j] the state before step j of chunk c:

    start:               X[0, 0] = the initial state
    head[j]:             X[0, j + 1] = A(j) X[0, j] + b(j)
    pair[0 < c]:         A[c, 1] = A(Sc + 1) A(Sc);             b[c, 1] = A(Sc + 1) b(Sc) + b(Sc + 1)
    chunk[0 < c, 1 < j]: A[c, j] = A(Sc + j) A[c, j - 1];       b[c, j] = A(Sc + j) b[c, j - 1] + b(Sc + j)
    second:              X[1, 0] = X[0, S]
    ends[0 < c]:         X[c + 1, 0] = A[c, S - 1] X[c, 0] + b[c, S - 1], or by the next level
    tail[0 < c, j]:      X[c, j + 1] = A(Sc + j) X[c, j] + b(Sc + j)

Chunks of two are another form of it (`pairs.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.solvers.affine import Copies
from parc.solvers.blocks import Blocks
from parc.solvers.coefficients import Arrays, Coefficients, OwnCoefficients, StoredCoefficients
from parc.solvers.pairs import solve_by_pairs
from parc.solvers.points import Points
from parc.solvers.recurrence import Recurrence
from parc.solvers.writer import Body, Point, Schedule, Writer


def solve_by_chunks(recurrence: Recurrence, blocks: Blocks, writer: Writer, levels: Sequence[int]) -> None:
    """Write the equations that solve `recurrence`; the caller erases the equation itself.

    levels: the steps of a chunk on each level, at least 2; chunks of 2 on one level are such on all.
    """
    if levels[0] == 2:
        solve_by_pairs(recurrence, blocks, writer, len(levels))
    else:
        _Level(_Steps(recurrence, blocks, writer), blocks, writer, levels[0], 0, len(levels)).solve(levels[1:])


@dataclass(frozen=True)
class _At:
    """A point of a new equation: step `inside` of chunk `chunk`, for one point of the recurrence's other dimensions."""

    chunk: ir.AffineExpr
    inside: ir.AffineExpr
    size: int
    others: Point
    """Coordinates in the recurrence's domain."""
    leading: Point
    """The same counted from zero: indices of arrays."""

    @property
    def step(self) -> ir.AffineExpr:
        """The number of the step."""
        return self.chunk * self.size + self.inside


class _Chain(ABC):
    """Affine steps that follow each other; the methods emit code."""

    recurrence: Recurrence
    length: ir.AffineExpr
    """How many."""

    @abstractmethod
    def initial(self, body: Body, at: _At) -> ir.Value:
        """The state before all steps."""

    @abstractmethod
    def coefficients(self, body: Body, at: _At, step: ir.AffineExpr) -> Coefficients:
        """A and b of a step."""

    @abstractmethod
    def apply(self, body: Body, at: _At, state: ir.Value) -> ir.Value:
        """The state after a step from the one before it; also writes what else is to be known then."""


class _Steps(_Chain):
    """The steps of the equation itself."""

    def __init__(self, recurrence: Recurrence, blocks: Blocks, writer: Writer) -> None:
        self.recurrence = recurrence
        self.length = recurrence.length
        self._blocks = blocks
        name = ir.OpResult(recurrence.array).owner.attributes["name"]
        takers = [use.owner for use in writer.system.results[0].uses]
        self._is_result = any(len(list(t.results[0].uses)) for t in takers if t.attributes["name"] == name)

    def initial(self, body: Body, at: _At) -> ir.Value:
        zero = _constant(0)
        return body.read_at(self.recurrence.read, self.recurrence.point(zero, at.others))

    def coefficients(self, body: Body, at: _At, step: ir.AffineExpr) -> Coefficients:
        return OwnCoefficients(self.recurrence, self._blocks, body, self.recurrence.point(step, at.others))

    def apply(self, body: Body, at: _At, state: ir.Value) -> ir.Value:
        recurrence = self.recurrence
        point = recurrence.point(at.step, at.others)
        copies = Copies(recurrence.equation.op, body, point)
        after = recurrence.body.whole(copies, state)
        for write in (*((recurrence.write,) if self._is_result else ()), *recurrence.results):
            tile, array = write.operands
            body.write(copies.of(tile), array, body.access(write, point))
        return after


class _Ends(_Chain):
    """The chunks of a level as steps, from the start of the second chunk to that of the last."""

    def __init__(
        self,
        recurrence: Recurrence,
        blocks: Blocks,
        chunks: ir.AffineExpr,
        size: int,
        arrays: Arrays,
        states: ir.Value,
    ) -> None:
        self.recurrence = recurrence
        self.length = chunks - 2
        self._blocks = blocks
        self._size = size
        self._arrays = arrays
        self._states = states

    def initial(self, body: Body, at: _At) -> ir.Value:
        return body.read(self._states, [*at.leading, *map(_constant, (1, 0))])

    def coefficients(self, body: Body, at: _At, step: ir.AffineExpr) -> Coefficients:
        last = _constant(self._size - 2)
        return StoredCoefficients(self._arrays, self._blocks, body, [*at.leading, step + 1, last])

    def apply(self, body: Body, at: _At, state: ir.Value) -> ir.Value:
        after = self.coefficients(body, at, at.step).whole(state)
        body.write(after, self._states, [*at.leading, at.step + 2, _constant(0)])
        return after


class _Level:
    """One level, which cuts the steps of `chain` into chunks of `size`: number `number` of `levels`."""

    def __init__(self, chain: _Chain, blocks: Blocks, writer: Writer, size: int, number: int, levels: int) -> None:
        self.chain = chain
        self.blocks = blocks
        self.writer = writer
        self.size = size
        self.number = number
        self.levels = levels
        self.chunks = ir.AffineExpr.get_ceil_div(chain.length, size)
        recurrence = chain.recurrence
        self.arrays = Arrays.new(recurrence, blocks, writer, number, self.chunks, size - 1)
        extents = [*(stop - start for start, stop in recurrence.others), self.chunks, size + 1]
        self.states = writer.tiles(f"{recurrence.body.name}_x{number}", extents, recurrence.body.result)

    def solve(self, sizes: Sequence[int]) -> None:
        """Write this level, and those after it, whose chunks have these sizes."""
        size, phase = self.size, 3 * self.number
        self._equation("start", True, (0, 1), phase, self._start)
        self._equation("pair", False, (1, 2), phase, self._pair, is_composed=True)
        self._equation("head", True, (0, size), phase + 1, self._step)
        self._equation("chunk", False, (2, size), phase + 1, self._longer, is_composed=True)
        self._equation("second", True, (size, size + 1), phase + 2, self._second)
        ends = _Ends(self.chain.recurrence, self.blocks, self.chunks, self.size, self.arrays, self.states)
        if sizes:
            _Level(ends, self.blocks, self.writer, sizes[0], self.number + 1, self.levels).solve(sizes[1:])
        else:
            self._ends(ends, phase + 2)
        self._equation("tail", False, (0, size), 4 * self.levels - 1 - self.number, self._step)

    def _start(self, body: Body, at: _At) -> None:
        body.write(self.chain.initial(body, at), self.states, self._index(at, 0))

    def _step(self, body: Body, at: _At) -> None:
        state = body.read(self.states, self._index(at, 0))
        body.write(self.chain.apply(body, at, state), self.states, self._index(at, 1))

    def _pair(self, body: Body, at: _At) -> None:
        earlier, later = (self.chain.coefficients(body, at, at.step + k) for k in (-1, 0))
        self._composed(body, at, later, earlier.block(), earlier.constant())

    def _longer(self, body: Body, at: _At) -> None:
        block, constant = (body.read(a, self._index(at, -2)) for a in (self.arrays.blocks, self.arrays.constants))
        self._composed(body, at, self.chain.coefficients(body, at, at.step), block, constant)

    def _composed(self, body: Body, at: _At, later: Coefficients, block: ir.Value, constant: ir.Value) -> None:
        """Write the composition of a step and of those before it in its chunk."""
        body.write(self.blocks.settled(later.compose(block)), self.arrays.blocks, self._index(at, -1))
        body.write(later.whole(constant), self.arrays.constants, self._index(at, -1))

    def _second(self, body: Body, at: _At) -> None:
        state = body.read(self.states, self._index(at, 0))
        body.write(state, self.states, [*at.leading, at.chunk + 1, at.inside - self.size])

    def _ends(self, ends: "_Ends", phase: int) -> None:
        """The starts of the third chunk and those after it, one after another."""
        zero = _constant(0)

        def solve(body: Body, at: _At) -> None:
            ends.apply(body, at, body.read(self.states, [*at.leading, at.chunk + 1, zero]))

        points = Points()
        chunk = points.dim(ends.length)
        self._write("ends", points, (chunk, zero, 1), Schedule([_constant(phase), chunk + 1], zero), solve)

    def _equation(
        self,
        name: str,
        is_first: bool,
        inside: tuple[int, int],
        phase: int,
        write: Callable[[Body, _At], None],
        is_composed: bool = False,
    ) -> None:
        """An equation for the steps `inside` of the first chunk, or of all others; of those that
        are composed alone: all but the last.

        The chunks are dealt out to the threads.  Time is (phase, step): in a phase, only the recurrences along chunks
        and along their ends need what other points compute.
        """
        points, zero = Points(), _constant(0)
        chunk = zero if is_first else points.dim(first=1)
        step = points.dim(inside[1], inside[0])
        # A chunk is composed if there is a step behind it.
        last = (chunk + 1) * self.size if is_composed else chunk * self.size + step
        points.require(self.chain.length - 1 - last)
        time = step if inside[1] > inside[0] + 1 else zero
        self._write(name, points, (chunk, step, self.size), Schedule([_constant(phase), time], chunk), write)

    def _write(
        self,
        name: str,
        points: Points,
        place: tuple[ir.AffineExpr, ir.AffineExpr, int],
        schedule: Schedule,
        write: Callable[[Body, _At], None],
    ) -> None:
        """An equation with the dimensions of `points`, and then the others of the recurrence."""
        recurrence = self.chain.recurrence
        leading, others = points.others(recurrence)
        at = _At(*place, others, leading)
        label = f"{recurrence.body.name}_{name}{self.number}"
        self.writer.equation(label, points.count, points.constraints, schedule, lambda body: write(body, at))

    def _index(self, at: _At, offset: int) -> list[ir.AffineExpr]:
        return [*at.leading, at.chunk, at.inside + offset]


def _constant(value: int) -> ir.AffineExpr:
    return ir.AffineExpr.get_constant(value)
