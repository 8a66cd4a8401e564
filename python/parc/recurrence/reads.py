"""How every repeated operation reads its inputs, as functions of the step and of the symbols.

All traces must agree: what is fitted on some instances is checked on every other one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from parc.errors import CompileError
from parc.recurrence.anchors import access_of, find_anchors, looped_dims, unshare
from parc.recurrence.counters import FromCounter, fit_counter, release_counters
from parc.recurrence.fit import Extent, StepMap, fit, fit_steps
from parc.recurrence.steps import Steps, find_steps, splits
from parc.recurrence.trace import Node, Source, Trace


@dataclass(frozen=True)
class FromStep:
    """Result `result` of repetition `repetition` at another step; the first steps may read given values."""

    repetition: int
    result: int
    at: StepMap
    #: For the first steps, in order: the step that is asked for and the value given in its place, per trace.
    given: tuple[tuple[int, tuple[Source, ...]], ...]


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


def recover(traces: Sequence[Trace]) -> Recurrences:
    """Find the loops of the traces and how their steps read; raises `CompileError` where they are not regular."""
    release_counters(traces)
    traces = [unshare(t, dims) for t, dims in zip(traces, looped_dims(traces), strict=True)]
    anchors = [find_anchors(t, dims) for t, dims in zip(traces, looped_dims(traces), strict=True)]
    first: CompileError | None = None
    for split in splits(traces, anchors):
        try:
            return find_recurrences([find_steps(*args) for args in zip(traces, anchors, split, strict=True)])
        except CompileError as error:
            first = first or error
    assert first is not None
    raise first


def find_recurrences(steps: list[Steps]) -> Recurrences:
    """Match the repetitions of all traces and fit their reads."""
    _check_same_repetitions(steps)
    sizes = [s.trace.sizes for s in steps]
    result = Recurrences(steps, [], [])
    for r, sample in enumerate(steps[0].repetitions):
        location = sample.sample.op.location
        instances = [s.repetitions[r] for s in steps]
        first = fit([i.first for i in instances], sizes)
        count = fit([i.count for i in instances], sizes)
        if first is None or count is None or not first.is_constant:
            numbers = ", ".join(str(i.count) for i in instances)
            raise CompileError(
                f"'{sample.sample.name}' runs {numbers} times at sizes {', '.join(map(str, sizes))}: "
                "no affine function of the dynamic sizes gives that, so the loop is not regular",
                location,
            )
        for i in instances:
            missing = set(range(i.first, i.first + i.count)) - set(i.nodes)
            if missing:
                raise CompileError(
                    f"'{sample.sample.name}' is skipped in step {min(missing)}: the loop is not regular", location
                )
        result.first.append(first.constant)
        result.count.append(count)
    for r, sample in enumerate(steps[0].repetitions):
        result.reads.append([_fit_read(result, r, i) for i in range(len(sample.sample.inputs))])
    return result


def _check_same_repetitions(steps: list[Steps]) -> None:
    first = steps[0]
    for other in steps[1:]:
        for a, b in zip(first.repetitions, other.repetitions):  # noqa: B905 - unequal lengths are reported below
            if a.sample.name != b.sample.name:
                _fail_irregular(a.sample, first, other)
        if len(first.repetitions) != len(other.repetitions):
            longer = max((first, other), key=lambda s: len(s.repetitions))
            odd = longer.repetitions[min(len(first.repetitions), len(other.repetitions))]
            _fail_irregular(odd.sample, first, other)


def _fail_irregular(node: Node, a: Steps, b: Steps) -> None:
    raise CompileError(
        f"the loop is not regular: '{node.name}' is repeated at sizes {a.trace.sizes} in another way than at "
        f"sizes {b.trace.sizes}. Every step must do the same; choose between values with torch.where",
        node.op.location,
    )


def _fit_read(found: Recurrences, r: int, position: int) -> Read:
    """How input `position` of repetition `r` is read; `CompileError` where that is not regular."""
    instances = [s.repetitions[r] for s in found.steps]
    columns = [[(step, i.nodes[step].inputs[position]) for step in sorted(i.nodes)] for i in instances]
    for kind in (_outside, _from_step, _counter, _sequence):
        if read := kind(found, columns):
            return read
    for skipped in range(1, max(len(c) for c in columns) - 1):
        read = _from_step(found, [c[skipped:] for c in columns])
        if read is None or read.at.factor != 1 or not read.at.offset.is_constant:
            continue
        given = []
        for k in range(min(skipped, min(len(c) for c in columns))):
            step = columns[0][k][0]
            given.append((step + read.at.offset.constant, tuple(c[k][1] for c in columns)))
        if len(given) == skipped and all(
            is_early(s, t) or not _depends_on(s, t, r)
            for _, sources in given
            for s, t in zip(sources, found.steps, strict=True)
        ):
            return replace(read, given=tuple(given))
    _explain_break(found, r, position)
    node = instances[0].sample
    raise CompileError(f"input {position} of '{node.name}' does not come from a regular place", node.op.location)


def _counter(found: Recurrences, columns: Columns) -> FromCounter | None:
    return fit_counter(columns, found.sizes)


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


def _explain_break(found: Recurrences, r: int, position: int) -> None:
    """Name the first step whose input breaks the pattern of the step before."""
    steps = found.steps[-1]
    nodes = steps.repetitions[r].nodes
    previous: tuple[int, int] | None = None
    for step in sorted(nodes):
        source = nodes[step].inputs[position]
        if source.node in steps.place:
            repetition, at = steps.place[source.node]
            now = (repetition.index, at - step)
        else:
            now = (-1, 0)
        if previous is not None and now != previous and step > found.first[r] + 1:
            node = nodes[step]
            raise CompileError(
                f"the loop is not regular: in step {step}, input {position} of '{node.name}' comes from "
                "another place than in the steps before. Every step must read the same way; "
                "choose between values with torch.where",
                node.op.location,
            )
        previous = now


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
    extents = [fit(values, found.sizes) for values in zip(*sizes, strict=True)]
    if any(m is None for m in maps) or any(e is None for e in extents):
        return None
    return FromSequence(tuple(sequences), tuple(m for m in maps if m), tuple(e for e in extents if e))
