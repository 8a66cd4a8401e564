"""How every repeated operation reads its inputs, as functions of the step and of the symbols.

All traces must agree: what is fitted on some instances is checked on every other one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from parc.errors import CompileError
from parc.recurrence.fit import Extent, fit
from parc.recurrence.steps import Steps, access_of
from parc.recurrence.trace import Node, Source


@dataclass(frozen=True)
class StepMap:
    """`factor * step + offset`."""

    factor: int
    offset: Extent

    @property
    def is_identity(self) -> bool:
        return self.factor == 1 and self.offset == Extent(0)


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


Read = FromStep | FromOutside | FromSequence


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
    instances = [s.repetitions[r] for s in found.steps]
    for skipped in range(min(i.count for i in instances) - 1):
        columns = [[(step, i.nodes[step].inputs[position]) for step in sorted(i.nodes)[skipped:]] for i in instances]
        kinds: list[Callable[[Recurrences, list[list[tuple[int, Source]]]], Read | None]] = [
            _outside,
            _from_step,
            _sequence,
        ]
        for kind in kinds:
            read = kind(found, columns)
            if read is None or (skipped and not isinstance(read, FromStep)):
                continue
            if not skipped:
                return read
            assert isinstance(read, FromStep)
            start = found.first[r]
            given = []
            for step in range(start, start + skipped):
                asked = read.at.factor * step + read.at.offset.constant
                if not read.at.offset.is_constant or read.at.factor != 1:
                    break
                given.append((asked, tuple(i.nodes[step].inputs[position] for i in instances)))
            if len(given) == skipped and all(
                is_early(s, t) for _, sources in given for s, t in zip(sources, found.steps)
            ):
                return FromStep(read.repetition, read.result, read.at, tuple(given))
    node = instances[0].sample
    _explain_break(found, r, position)
    raise CompileError(f"input {position} of '{node.name}' does not come from a regular place", node.op.location)


def is_early(source: Source, steps: Steps) -> bool:
    """Whether a value can be computed before the loops: on no way to it lie two steps of one repetition."""
    seen: set[int] = set()
    pending, visited = [source.node], set()
    while pending:
        node = pending.pop()
        if node not in steps.place or node in visited:
            continue
        visited.add(node)
        repetition = steps.place[node][0].index
        if repetition in seen:
            return False
        seen.add(repetition)
        pending += [s.node for s in node.inputs]
    return True


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


def _outside(found: Recurrences, columns: list[list[tuple[int, Source]]]) -> FromOutside | None:
    """The same value in all steps."""
    for steps, column in zip(found.steps, columns, strict=True):
        source = column[0][1]
        if source.node in steps.place or any(s.root != source.root for _, s in column):
            return None
    return FromOutside(tuple(column[0][1] for column in columns))


def _from_step(found: Recurrences, columns: list[list[tuple[int, Source]]]) -> FromStep | None:
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
    at_map = _fit_steps(points, found.sizes)
    if at_map is None or origin is None:
        return None
    return FromStep(origin[0], origin[1], at_map, ())


def _sequence(found: Recurrences, columns: list[list[tuple[int, Source]]]) -> FromSequence | None:
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
    maps = [_fit_steps([per_dim[d] for per_dim in offsets], found.sizes) for d in range(len(sizes[0]))]
    extents = [fit(values, found.sizes) for values in zip(*sizes, strict=True)]
    if any(m is None for m in maps) or any(e is None for e in extents):
        return None
    return FromSequence(tuple(sequences), tuple(m for m in maps if m), tuple(e for e in extents if e))


def _fit_steps(points: Sequence[Sequence[tuple[int, int]]], sizes: Sequence[tuple[int, ...]]) -> StepMap | None:
    """value = factor * step + offset(sizes), for every (step, value) of every trace."""
    (s0, v0), (s1, v1) = points[0][0], points[0][1]
    if (v1 - v0) % (s1 - s0):
        return None
    factor = (v1 - v0) // (s1 - s0)
    offsets = []
    for column in points:
        found = {value - factor * step for step, value in column}
        if len(found) != 1:
            return None
        offsets.append(found.pop())
    offset = fit(offsets, sizes)
    return None if offset is None else StepMap(factor, offset)
