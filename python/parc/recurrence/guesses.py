"""What one trace does not tell about its loops, and is guessed: a wrong guess fails the checks of later stages.

A weight that several layers share makes one class of instances out of several loops; and when a loop starts from
the end of another, the latest input of an operation is not the one with the highest step.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from parc.recurrence.anchors import Anchors
from parc.recurrence.fit import fit
from parc.recurrence.trace import Node, Trace

Ways = dict[int, int | tuple[int, ...]]


@dataclass(frozen=True)
class Guess:
    """How to number the steps of one trace.

    `ways[k]` speaks of the k-th anchored class in program order: an integer m takes turns (instance i is step i // m
    of loop i % m: the layers of a loop over time), a tuple of lengths cuts blocks (one loop after the other).
    The latest input of an operation is the one with the highest step, or the one computed last (`by_order`).
    With `by_slice`, several readers of one slice belong to several loops: of those, one may be an initial state.
    """

    ways: Ways
    by_order: bool = False
    by_slice: bool = False

    def place(self, k: int, i: int) -> tuple[int, int]:
        """(loop, step) of instance i of class k."""
        way = self.ways.get(k, 1)
        if isinstance(way, int):
            return i % way, i // way
        for loop, length in enumerate(way):
            if i < length:
                return loop, i
            i -= length
        return len(way), i


def guesses(traces: Sequence[Trace], anchors: Sequence[Anchors]) -> Iterator[list[Guess]]:
    """All guesses, the likeliest first; one per trace."""
    for by_order in (False, True):
        for ways in _ways(traces, anchors):
            yield [Guess(w, by_order) for w in ways]
    for by_order in (False, True):
        for ways in _ways(traces, anchors):
            yield [Guess(w, by_order, by_slice=True) for w in ways]


def _ways(traces: Sequence[Trace], anchors: Sequence[Anchors]) -> Iterator[list[Ways]]:
    """Ways to cut the anchored classes, for every trace."""
    yield [{} for _ in traces]
    counts = [
        [len(members) for members in anchored_classes(t, a).values()] for t, a in zip(traces, anchors, strict=True)
    ]
    if len({len(c) for c in counts}) > 1:
        return
    sizes = [t.sizes for t in traces]
    turns: list[Ways] = [{} for _ in traces]
    blocks: list[Ways] = [{} for _ in traces]
    for k, numbers in enumerate(zip(*counts, strict=True)):
        extent = fit(numbers, sizes)
        if extent is None or extent.divisor != 1 or any(c < 1 for c, _ in extent.terms):
            continue
        loops = sum(c for c, _ in extent.terms)
        if loops < 2:
            continue
        for i, (size, number) in enumerate(zip(sizes, numbers, strict=True)):
            turns[i][k] = loops
            lengths = [length for c, s in extent.terms for length in [_value(size, s)] * c]
            lengths[0] += number - sum(lengths)
            blocks[i][k] = tuple(lengths)
    if turns[0]:
        yield turns
        yield blocks


def _value(sizes: tuple[int, ...], symbols: tuple[int, ...]) -> int:
    value = 1
    for s in symbols:
        value *= sizes[s]
    return value


def anchored_classes(trace: Trace, anchors: Anchors) -> dict[Hashable, list[Node]]:
    """Nodes with equal key and anchor, in program order."""
    classes: dict[Hashable, list[Node]] = defaultdict(list)
    for node in trace.nodes:
        if node in anchors:
            classes[(node.key, anchors[node])].append(node)
    return classes
