"""How every repeated operation reads its inputs, as functions of the step and of the symbols.

All traces must agree: what is fitted on some instances is checked on every other one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from parc.recurrence.anchors import access_of
from parc.recurrence.counters import FromCounter, fit_counter
from parc.recurrence.fit import Extent, StepMap, fit, fit_steps
from parc.recurrence.steps import Steps
from parc.recurrence.trace import Node, Source

Given = tuple[tuple[int, tuple[Source, ...]], ...]
"""For the first steps of a loop, in order: the step that is asked for and the value given in its place, per trace."""


@dataclass(frozen=True)
class FromStep:
    """Result `result` of repetition `repetition` at another step; the first steps may read given values."""

    repetition: int
    result: int
    at: StepMap
    given: Given


@dataclass(frozen=True)
class FromOutside:
    """The same value in every step; one source per trace."""

    sources: tuple[Source, ...]


@dataclass(frozen=True)
class FromSequence:
    """A slice of a value from outside, at offsets that move with the step."""

    sequence: tuple[Source, ...]
    offsets: tuple[StepMap, ...]
    sizes: tuple[Extent, ...]


Read = FromStep | FromOutside | FromSequence | FromCounter


Columns = Sequence[Sequence[tuple[int, Source]]]
"""For every trace, (step, what is read there) in the order of steps."""


@dataclass
class Recurrences:
    """What the traces have in common: repetitions, their extents and their reads."""

    steps: list[Steps]
    first: list[int]
    count: list[Extent]
    #: reads[r][i]: input i of repetition r.
    reads: list[list[Read]] = field(default_factory=list)

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        return [s.trace.sizes for s in self.steps]

    def samples(self, repetition: int) -> list[Node]:
        """One instance per trace."""
        return [s.repetitions[repetition].sample for s in self.steps]


def fit_read(found: Recurrences, r: int, columns: Columns) -> Read | None:
    """How repetition `r` reads the sources in `columns`, when that is regular.

    Raises `CompileError` for constants that change in an unknown way from step to step.
    """
    for kind in (_outside, _from_step, _sequence):
        if read := kind(found, columns):
            return read
    if counter := fit_counter(columns, found.sizes, found.samples(r)[0].op.location):
        return counter
    for skipped in range(1, max(len(c) for c in columns) - 1):
        read = _from_step(found, [c[skipped:] for c in columns])
        if read is None or read.at.factor != 1 or not read.at.offset.is_constant:
            continue
        given = given_values(found, r, columns, skipped, read.at.offset.constant)
        if given is not None and all(step < found.first[read.repetition] for step, _ in given):
            return replace(read, given=given)
    return None


def given_values(found: Recurrences, r: int, columns: Columns, count: int, offset: int) -> Given | None:
    """What the first `count` steps read in the place of steps at `offset`; None if it is not known before the loop."""
    if min(len(c) for c in columns) < count:
        return None
    given = tuple((columns[0][k][0] + offset, tuple(c[k][1] for c in columns)) for k in range(count))
    known = all(
        is_early(s, t) or not _depends_on(s, t, r)
        for _, sources in given
        for s, t in zip(sources, found.steps, strict=True)
    )
    return given if known else None


def is_early(source: Source, steps: Steps) -> bool:
    """Whether a value can be computed before the loops: on no way to it lie two steps of one repetition."""
    seen: set[int] = set()
    for node in _ancestors(source):
        if node in steps.place:
            repetition = steps.place[node][0].index
            if repetition in seen:
                return False
            seen.add(repetition)
    return True


def has_steps(source: Source, steps: Steps) -> bool:
    """Whether a value is computed from any step of a loop."""
    return any(node in steps.place for node in _ancestors(source))


def _depends_on(source: Source, steps: Steps, repetition: int) -> bool:
    """Whether a value needs any step of a repetition; one that does not can be the end of another loop."""
    return any(n in steps.place and steps.place[n][0].index == repetition for n in _ancestors(source))


def _ancestors(source: Source) -> Iterator[Node]:
    """The node of a value and all that it is computed from."""
    pending, visited = [source.node], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending += [s.node for s in node.inputs]
            yield node


def _outside(found: Recurrences, columns: Columns) -> FromOutside | None:
    """The same value in all steps."""
    for steps, column in zip(found.steps, columns, strict=True):
        source = column[0][1]
        if source.node in steps.place or any(s.root != source.root for _, s in column):
            return None
    return FromOutside(tuple(column[0][1] for column in columns))


def _from_step(found: Recurrences, columns: Columns) -> FromStep | None:
    """The same repetition, at a step that is an affine function of this one."""
    origin: tuple[int, int] | None = None
    points: list[list[tuple[int, int]]] = []
    for steps, column in zip(found.steps, columns, strict=True):
        points.append([])
        for step, source in column:
            if source.node not in steps.place:
                return None
            repetition, at = steps.place[source.node]
            if origin not in (None, (repetition.index, source.result)):
                return None
            origin = (repetition.index, source.result)
            points[-1].append((step, at))
    at_map = fit_steps(points, found.sizes)
    if at_map is None or origin is None:
        return None
    return FromStep(origin[0], origin[1], at_map, ())


def _sequence(found: Recurrences, columns: Columns) -> FromSequence | None:
    """A slice of one sequence, with offsets that are affine functions of the step."""
    sequences: list[Source] = []
    offsets: list[list[list[tuple[int, int]]]] = []
    sizes: list[tuple[int, ...]] = []
    for steps, column in zip(found.steps, columns, strict=True):
        per_dim: list[list[tuple[int, int]]] = []
        for step, source in column:
            access = access_of(source)
            if access is None or access[0].node in steps.place:
                return None
            sequence, starts, extents = access
            if not per_dim:
                sequences.append(sequence)
                sizes.append(extents)
                per_dim = [[] for _ in starts]
            if sequence.root != sequences[-1].root or extents != sizes[-1]:
                return None
            for d, start in enumerate(starts):
                per_dim[d].append((step, start))
        offsets.append(per_dim)
    maps = [fit_steps([per_dim[d] for per_dim in offsets], found.sizes) for d in range(len(sizes[0]))]
    lengths = [fit(values, found.sizes) for values in zip(*sizes, strict=True)]
    if any(m is None for m in maps) or any(e is None for e in lengths):
        return None
    return FromSequence(tuple(sequences), tuple(m for m in maps if m), tuple(e for e in lengths if e))
