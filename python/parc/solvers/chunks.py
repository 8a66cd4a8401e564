"""Parallel scan in chunks: compose the steps of each chunk, solve for the last state of every chunk, then the others.

A level cuts the n steps of the recurrence before it into chunks of S.  The composition of a chunk is again an affine
step, so the ends of the chunks are a recurrence of n / S steps, which the next level takes; the last one solves it one
step after another.  With chunks of two on every level these are the trees of a work-efficient scan (Blelloch 1990,
with states in place of prefixes on the way down), and also block odd-even (cyclic) reduction: the first state of each
pair is eliminated, and found by back substitution.

    compose[c, 1]:        A[c, 1] = A(Sc + 1) A(Sc);          b[c, 1] = A(Sc + 1) b(Sc) + b(Sc + 1)
    compose[c, 1 < j]:    A[c, j] = A(Sc + j) A[c, j - 1];    b[c, j] = A(Sc + j) b[c, j - 1] + b(Sc + j)
    x at the chunks' ends: by the next level, from A[c, S - 1] and b[c, S - 1]
    first[c]:             x[Sc] = A(Sc) x[Sc - 1] + b(Sc)
    inner[c, j < S - 1]:  x[Sc + j] = A[c, j] x[Sc - 1] + b[c, j]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.recurrence.extents import extents_of
from parc.solvers.blocks import Blocks
from parc.solvers.coefficients import Arrays, Coefficients, OwnCoefficients, StoredCoefficients, write_results
from parc.solvers.recurrence import Recurrence
from parc.solvers.writer import Body, Point, Schedule, Writer


@dataclass(frozen=True)
class Level:
    """The chunks of one level."""

    size: int
    """Steps of a chunk, at least 2."""
    strands: int = 1
    """Chunks that follow each other and are worked on side by side by one thread."""


def solve_by_chunks(recurrence: Recurrence, blocks: Blocks, writer: Writer, levels: Sequence[Level]) -> None:
    """Write the equations that solve `recurrence`; the caller erases the equation itself."""
    chunks = _Chunks(recurrence, blocks, writer, last_phase=3 * len(levels))
    chunks.solve(levels)
    chunks.write_results(levels[0])


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


@dataclass(frozen=True)
class _Stored:
    """The compositions of chunks, whose last steps are the coefficients of the next level."""

    arrays: Arrays
    size: int


class _Chunks:
    """One level, which cuts `recurrence`; step i of it covers `stride` steps of the equation, from `stride i` on."""

    def __init__(
        self,
        recurrence: Recurrence,
        blocks: Blocks,
        writer: Writer,
        last_phase: int,
        number: int = 0,
        stride: int = 1,
        stored: _Stored | None = None,
    ) -> None:
        self.recurrence = recurrence
        self.blocks = blocks
        self.writer = writer
        self.last_phase = last_phase
        self.number = number
        self.stride = stride
        self.stored = stored
        self.length = ir.AffineExpr.get_floor_div(recurrence.length, stride) if stride > 1 else recurrence.length

    def solve(self, levels: Sequence[Level]) -> None:
        """Write this level and those after it."""
        if not levels:
            self._equation("ends", Level(1), (0, 1), 2 * self.number, self._from_start)
            return
        level, *others = levels
        arrays = self._compose(level)
        _Chunks(
            self.recurrence,
            self.blocks,
            self.writer,
            self.last_phase,
            self.number + 1,
            self.stride * level.size,
            _Stored(arrays, level.size),
        ).solve(others)
        phase = self.last_phase - self.number
        self._equation("first", level, (0, 1), phase, self._from_start)

        def inner(body: Body, at: _At) -> None:
            here = [*at.leading, at.chunk, at.inside - 1]
            self._solve(body, at, StoredCoefficients(arrays, self.blocks, body, here))

        if level.size > 2:
            self._equation("inner", level, (1, level.size - 1), phase, inner)

    def write_results(self, level: Level) -> None:
        """What the equation writes besides its state, from all states."""

        def write(body: Body, at: _At) -> None:
            write_results(self.recurrence, body, self.recurrence.point(at.step, at.others))

        if self.recurrence.results:
            self._equation("results", level, (0, level.size), self.last_phase + 1, write)

    def _compose(self, level: Level) -> Arrays:
        """The compositions of the first 2, 3, ... steps of every chunk."""
        arrays = self._arrays(level)

        def write(body: Body, at: _At, later: Coefficients, block: ir.Value, constant: ir.Value) -> None:
            here = [*at.leading, at.chunk, at.inside - 1]
            body.write(self.blocks.settled(later.compose(block)), arrays.blocks, here)
            body.write(later.whole(constant), arrays.constants, here)

        def pair(body: Body, at: _At) -> None:
            earlier, later = (self._coefficients(body, at, at.step + k) for k in (-1, 0))
            write(body, at, later, earlier.block(), earlier.constant())

        def longer(body: Body, at: _At) -> None:
            before = [*at.leading, at.chunk, at.inside - 2]
            block, constant = (body.read(a, before) for a in (arrays.blocks, arrays.constants))
            write(body, at, self._coefficients(body, at, at.step), block, constant)

        self._equation("pair", level, (1, 2), 2 * self.number, pair)
        if level.size > 2:
            self._equation("chunk", level, (2, level.size), 2 * self.number + 1, longer)
        return arrays

    def _from_start(self, body: Body, at: _At) -> None:
        self._solve(body, at, self._coefficients(body, at, at.step))

    def _solve(self, body: Body, at: _At, coefficients: Coefficients) -> None:
        """The state after a step from the one before its chunk."""
        recurrence = self.recurrence
        before = recurrence.point(at.chunk * (at.size * self.stride), at.others)
        here = recurrence.point((at.step + 1) * self.stride - 1, at.others)
        state = coefficients.whole(body.read_at(recurrence.read, before))
        body.write(state, recurrence.array, body.access(recurrence.write, here))

    def _coefficients(self, body: Body, at: _At, step: ir.AffineExpr) -> Coefficients:
        if self.stored is None:
            return OwnCoefficients(self.recurrence, self.blocks, body, self.recurrence.point(step, at.others))
        last = ir.AffineExpr.get_constant(self.stored.size - 2)
        return StoredCoefficients(self.stored.arrays, self.blocks, body, [*at.leading, step, last])

    def _arrays(self, level: Level) -> Arrays:
        """Arrays of the compositions, `[others, chunk, step - 1, tile]`."""
        writer, state = self.writer, self.recurrence.body.result
        chunks = ir.AffineExpr.get_ceil_div(self.length, level.size)
        steps = ir.AffineExpr.get_constant(level.size - 1)
        leading = [*(stop - start for start, stop in self.recurrence.others), chunks, steps]
        tile = extents_of(state, writer.system)
        columns = [ir.AffineExpr.get_constant(c) for c in self.blocks.columns]
        element, name = state.type.element_type, f"{self.recurrence.body.name}_{{}}{self.number}"
        return Arrays(
            writer.unknown(name.format("A"), [*leading, *columns, *tile], element),
            writer.unknown(name.format("b"), [*leading, *tile], element),
        )

    def _equation(
        self, name: str, level: Level, steps: tuple[int, int], phase: int, write: Callable[[Body, _At], None]
    ) -> None:
        """An equation for the steps first..stop of every chunk, with dimensions (group of chunks, chunk, step, others).

        The groups are dealt out to the threads.  Time is (phase, step): in a phase, only the recurrences along chunks
        and along their ends need what other points compute.
        """
        first, stop = steps
        count = 0
        constraints: list[ir.AffineExpr] = []

        def dimension(extent: ir.AffineExpr | int | None, start: int = 0) -> ir.AffineExpr:
            nonlocal count
            dim = ir.AffineExpr.get_dim(count)
            count += 1
            constraints.append(dim - start)
            if extent is not None:
                constraints.append(dim * -1 + (extent - 1))
            return dim

        chunk = dimension(None)
        if level.strands > 1:
            chunk = chunk * level.strands + dimension(level.strands)
        inside = ir.AffineExpr.get_constant(first) if stop == first + 1 else dimension(stop, first)
        leading = [dimension(end - start) for start, end in self.recurrence.others]
        others = [start + dim for (start, _), dim in zip(self.recurrence.others, leading, strict=True)]
        at = _At(chunk, inside, level.size, others, leading)
        # The last step that it covers is one of the recurrence.
        constraints.append(self.recurrence.length - (at.step + 1) * self.stride)
        label = f"{self.recurrence.body.name}_{name}{self.number}"
        zero = ir.AffineExpr.get_constant(0)
        time, owner = {"chunk": (inside, ir.AffineExpr.get_dim(0)), "ends": (chunk, zero)}.get(
            name, (zero, ir.AffineExpr.get_dim(0))
        )
        schedule = Schedule([ir.AffineExpr.get_constant(phase), time], owner)
        self.writer.equation(label, count, constraints, schedule, lambda body: write(body, at))
