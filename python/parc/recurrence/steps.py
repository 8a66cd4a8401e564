"""Finds the repeated operations of a trace and numbers their steps.

An unrolled loop executes the same operation once per step.  Two operations are instances of
one *repetition* when they are alike (same operation, attributes, types) and either

* share an *anchor*: a parameter in the same place, or slices of the same sequence; instances are
  numbered in program order; or
* have their latest input from the same repetition, in the same place; the step is that input's.

Whatever occurs fewer than `MIN_STEPS` times is *single*: it runs before, between or after the loops.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from parc.errors import CompileError
from parc.recurrence.anchors import MIN_STEPS, Anchors, access_of
from parc.recurrence.guesses import Guess, anchored_classes
from parc.recurrence.trace import Node, Numbering, Source, Trace


@dataclass(eq=False)
class Repetition:
    """All instances of one repeated operation, in step order."""

    index: int
    nodes: dict[int, Node] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.nodes)

    @property
    def count(self) -> int:
        return len(self.nodes)

    @property
    def sample(self) -> Node:
        """An instance away from both ends, where nothing is special."""
        return self.nodes[sorted(self.nodes)[self.count // 2]]


@dataclass
class Steps:
    """The repetitions of a trace, and for every repeated node its repetition and step."""

    trace: Trace
    repetitions: list[Repetition]
    place: dict[Node, tuple[Repetition, int]]


def find_steps(trace: Trace, anchors: Anchors, guess: Guess) -> Steps:
    """Group the nodes of a trace into repetitions; raises `CompileError` where that is not possible."""
    classifier = _Classifier(trace, anchors, guess)
    while True:
        classifier.run()
        if not (classifier.settle_pivots() or classifier.settle_strays() or classifier.settle_singles()):
            break
    repetitions: list[Repetition] = []
    place: dict[Node, tuple[Repetition, int]] = {}
    for members in classifier.classes.values():
        repetition = Repetition(len(repetitions), {})
        for node in members:
            step = classifier.steps[node]
            if step in repetition.nodes:
                raise CompileError(
                    f"'{node.name}' runs more than once in step {step} of a loop in the same way: "
                    "the loop is not regular",
                    node.op.location,
                )
            repetition.nodes[step] = node
            place[node] = (repetition, step)
        repetitions.append(repetition)
    return Steps(trace, repetitions, place)


class _Classifier:
    """Assigns classes and steps; what it learns of singles and pivots makes it start again."""

    def __init__(self, trace: Trace, anchors: Anchors, guess: Guess) -> None:
        self.trace = trace
        self.anchored: dict[Node, tuple[Hashable, int]] = {}
        for k, (key, members) in enumerate(anchored_classes(trace, anchors).items()):
            loops = _by_slice(members) if guess.by_slice else [members]
            for repeat, own in enumerate(loops):
                for i, node in enumerate(own):
                    loop, step = guess.place(k, i) if len(loops) == 1 else (repeat, i)
                    self.anchored[node] = ((key, loop), step)
        self.by_order = guess.by_order
        self.singles: set[Node] = set()
        self.strays: dict[Node, int] = {}
        self.first_input: set[Hashable] = set()
        self._numbers = Numbering()

    def run(self) -> None:
        """Classify every node that is not single, in program order."""
        self.steps: dict[Node, int] = {}
        self.classes: dict[Hashable, list[Node]] = defaultdict(list)
        self._keys: dict[Node, Hashable] = {}
        self._pivots: dict[Hashable, set[int]] = defaultdict(set)
        self._taken: Counter[Hashable] = Counter()
        for node in self.trace.nodes:
            if node in self.singles:
                continue
            if node in self.anchored:
                key, step = self.anchored[node]
            else:
                pivot = self._pivot(node)
                if pivot is None:
                    continue
                position, source = pivot
                step = self.steps[source.node]  # type: ignore[index]
                key = self._key(node, position, source)
                self._taken[(node.key, position, source.root)] += 1
            self.steps[node], self._keys[node] = step, key
            self.classes[key].append(node)

    def _key(self, node: Node, position: int, source: Source) -> Hashable:
        """The class of a node that has its step from this input."""
        # Users of one value in the same way are told apart by their order; a number keeps the keys of chains small.
        order = self._taken[(node.key, position, source.root)]
        return (node.key, position, self._numbers[self._keys[source.node]], source.result, order)  # type: ignore[index]

    def _pivot(self, node: Node) -> tuple[int, Source] | None:
        """The input that gives the node its step: the latest one."""
        if node in self.strays and node.inputs[self.strays[node]].node in self.steps:
            return self.strays[node], node.inputs[self.strays[node]]
        inputs = [(i, s) for i, s in enumerate(node.inputs) if s.node in self.steps]
        if not inputs:
            return None
        shape = (node.key, tuple((i, self._numbers[self._keys[s.node]]) for i, s in inputs))  # type: ignore[index]
        if shape in self.first_input:
            return inputs[0]
        if self.by_order:
            return max(inputs, key=lambda item: (item[1].node.index, -item[0]))  # type: ignore[union-attr]
        chosen = max(inputs, key=lambda item: (self.steps[item[1].node], -item[0]))  # type: ignore[index]
        self._pivots[shape].add(chosen[0])
        return chosen

    def settle_pivots(self) -> bool:
        """Inputs of which now one, now the other is later run in opposite directions: take the first one's step."""
        crossing = {shape for shape, positions in self._pivots.items() if len(positions) > 1}
        self.first_input |= crossing
        return bool(crossing)

    def settle_strays(self) -> bool:
        """Give nodes their steps from another input where that fills a gap of a large class.

        Where a loop begins with what another loop ends with, the first step's latest input is that of the other loop.
        """
        small = {n for members in self.classes.values() if len(members) < MIN_STEPS for n in members}
        found = False
        for node in sorted(small - set(self.anchored) - set(self.strays), key=lambda n: n.index):
            for position, source in enumerate(node.inputs):
                if source.node not in self.steps or source.node in small:
                    continue
                members = self.classes.get(self._key(node, position, source), [])
                if len(members) >= MIN_STEPS and all(self.steps[m] != self.steps[source.node] for m in members):
                    self.strays[node] = position
                    found = True
                    break
        return found

    def settle_singles(self) -> bool:
        """Set the operations aside that do not repeat: they must not lend their step to others."""
        small = [n for members in self.classes.values() if len(members) < MIN_STEPS for n in members]
        fresh = _outermost(small, self.singles, self.steps)
        self.singles |= fresh
        return bool(fresh)


def _by_slice(members: list[Node]) -> list[list[Node]]:
    """The first readers of each slice, the second ones, and so on; all in one list where they read none."""
    loops: list[list[Node]] = []
    readers: Counter[Hashable] = Counter()
    for node in members:
        slices = tuple(s.root for s in node.inputs if access_of(s) is not None)
        repeat = readers[slices] if slices else 0
        readers[slices] += 1
        if repeat == len(loops):
            loops.append([])
        loops[repeat].append(node)
    return loops


def _outermost(small: list[Node], singles: set[Node], steps: dict[Node, int]) -> set[Node]:
    """The single nodes that depend on no other single one in the same breath.

    A single node must not lend its step to others: those that mix one with a repetition are
    classified again once it is known to be single.
    """
    pending = set(small) - singles
    fresh: set[Node] = set()
    for node in sorted(pending, key=lambda n: n.index):
        sources = [s.node for s in node.inputs if s.node is not None]
        unsettled = [s for s in sources if s in pending]
        if all(s in fresh for s in unsettled):
            repeated = any(s in steps and s not in pending and s not in singles for s in sources)
            if not unsettled or not repeated:
                fresh.add(node)
    return fresh
