"""From traces to recurrences: which operations repeat, over which steps, and how each step reads the ones before."""

from collections.abc import Sequence

from torch_mlir import ir

from parc.errors import CompileError
from parc.recurrence.anchors import MIN_STEPS, find_anchors, find_growth, unshare
from parc.recurrence.counters import release_counters
from parc.recurrence.fit import Extent, StepMap, fit
from parc.recurrence.guesses import guesses
from parc.recurrence.reads import Columns, FromStep, Read, Recurrences, fit_read, given_values
from parc.recurrence.steps import Repetition, Steps, find_steps
from parc.recurrence.trace import Node, Numbering, Source, Trace


def recover(funcs: Sequence[ir.Operation], sizes: Sequence[tuple[int, ...]]) -> Recurrences:
    """Find the loops of traces at these sizes and how their steps read; `CompileError` where they are not regular."""
    numbers = Numbering()
    traces = [Trace.read(func, size, numbers) for func, size in zip(funcs, sizes, strict=True)]
    release_counters(traces, numbers)
    growth = find_growth(traces)
    anchors = [find_anchors(*args) for args in zip(traces, growth, strict=True)]
    variants = [(traces, anchors)]
    separate = [unshare(*args) for args in zip(traces, anchors, growth, strict=True)]
    if any(a is not b for a, b in zip(separate, traces, strict=True)):
        growth = find_growth(separate)
        variants.insert(0, (separate, [find_anchors(*args) for args in zip(separate, growth, strict=True)]))
    strictly = [find_anchors(*args, strict=True) for args in zip(separate, growth, strict=True)]
    if strictly != variants[0][1]:
        variants.append((separate, strictly))
    first: CompileError | None = None
    for variant, own in variants:
        for guess in guesses(variant, own):
            try:
                return _match([find_steps(*args) for args in zip(variant, own, guess, strict=True)])
            except CompileError as error:
                first = first or error
    assert first is not None
    raise first


def _match(steps: list[Steps]) -> Recurrences:
    """Match the repetitions of all traces and fit their extents and reads."""
    _check_same_repetitions(steps)
    found = Recurrences(steps, [], [])
    for r in range(len(steps[0].repetitions)):
        _fit_extent(found, r)
    r = 0
    while r < len(steps[0].repetitions):  # `_adopt` appends repetitions.
        found.reads.append([_read(found, r, i) for i in range(len(steps[0].repetitions[r].sample.inputs))])
        r += 1
    return found


def _check_same_repetitions(steps: list[Steps]) -> None:
    first = steps[0]
    for other in steps[1:]:
        for a, b in zip(first.repetitions, other.repetitions, strict=False):
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


def _fit_extent(found: Recurrences, r: int) -> None:
    """Append first step and number of steps of repetition `r`."""
    instances = [s.repetitions[r] for s in found.steps]
    sample = instances[0].sample
    first = fit([i.first for i in instances], found.sizes)
    count = fit([i.count for i in instances], found.sizes)
    if count is None or any(len(symbols) > 1 for _, symbols in count.terms):
        raise CompileError(
            f"'{sample.name}' runs {', '.join(str(i.count) for i in instances)} times at sizes "
            f"{', '.join(map(str, found.sizes))}: no affine function of the dynamic sizes gives that. A loop of "
            "dynamic length inside a loop of another dynamic length is not supported: make one of the sizes static",
            sample.op.location,
        )
    if first is None or not first.is_constant:
        raise CompileError(
            f"'{sample.name}' starts to repeat at steps {', '.join(str(i.first) for i in instances)} of a loop "
            f"at sizes {', '.join(map(str, found.sizes))}: the loop is not regular",
            sample.op.location,
        )
    for i in instances:
        missing = set(range(i.first, i.first + i.count)) - set(i.nodes)
        if missing:
            raise CompileError(
                f"'{sample.name}' is skipped in step {min(missing)}: the loop is not regular. "
                "Every step must do the same; choose between values with torch.where",
                sample.op.location,
            )
    found.first.append(first.constant)
    found.count.append(count)


def _read(found: Recurrences, r: int, position: int) -> Read:
    """How input `position` of repetition `r` is read; `CompileError` where that is not regular."""
    instances = [s.repetitions[r] for s in found.steps]
    columns = [[(step, i.nodes[step].inputs[position]) for step in sorted(i.nodes)] for i in instances]
    read = fit_read(found, r, columns) or _adopt(found, r, columns)
    if read is not None:
        return read
    _explain_break(found, r, position)
    node = instances[0].sample
    raise CompileError(
        f"the loop is not regular: input {position} of '{node.name}' does not come from the same place in every step",
        node.op.location,
    )


def _adopt(found: Recurrences, r: int, columns: Columns) -> FromStep | None:
    """Operations that belong to a loop only because its steps use them: one for each step, all alike."""
    for skipped in range(min(len(c) for c in columns) - 1):
        rest = [c[skipped:] for c in columns]
        if not all(_is_one_each(steps, column) for steps, column in zip(found.steps, rest, strict=True)):
            continue
        given = given_values(found, r, columns, skipped, 0)
        if given is None:
            continue
        for steps, column in zip(found.steps, rest, strict=True):
            repetition = Repetition(len(steps.repetitions), {})
            for step, source in column:
                assert source.node is not None
                repetition.nodes[step] = source.node
                steps.place[source.node] = (repetition, step)
            steps.repetitions.append(repetition)
        _fit_extent(found, len(found.first))
        return FromStep(len(found.first) - 1, rest[0][0][1].result, StepMap(1, Extent(0)), given)
    return None


def _is_one_each(steps: Steps, column: Sequence[tuple[int, Source]]) -> bool:
    """Whether the sources are results of nodes alike that are in no loop yet, a different one for every step."""
    nodes = [s.node for _, s in column]
    if any(n is None or n in steps.place or n.name == "arith.constant" for n in nodes):
        return False
    alike = len({(n.key, s.result) for n, (_, s) in zip(nodes, column, strict=True) if n is not None}) == 1
    return alike and len(set(nodes)) == len(nodes) and len(nodes) >= MIN_STEPS


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
