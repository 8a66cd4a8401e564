"""Finds the repeated operations of a trace and numbers their steps.

An unrolled loop executes the same operation once per step.  Two operations are instances of
one *repetition* when they are alike (same operation, attributes, types) and either

* share a *anchor*: a parameter in the same place, or slices of the same sequence; instances are
  numbered in program order; or
* have their latest input from the same repetition, in the same place; the step is that input's.

Whatever occurs fewer than `_MIN_STEPS` times is *single*: it runs before, between or after the loops.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from torch_mlir import ir

from parc.errors import CompileError
from parc.recurrence.trace import VIEWS, Node, Source, Trace

_MIN_STEPS = 3


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


def find_steps(trace: Trace, looped: dict[tuple[int, int], set[int]] | None) -> Steps:
    """Group the nodes of a trace into repetitions.

    `looped` is this trace's entry of `looped_dims`: where None, any dimension may be the looped one.
    """
    classifier = _Classifier(trace, _anchors(trace, _parameter_derived(trace), looped))
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

    def __init__(self, trace: Trace, anchors: dict[Node, Hashable]) -> None:
        self.trace = trace
        self.anchors = anchors
        self.singles: set[Node] = set()
        self.first_input: set[Hashable] = set()
        self.strays: dict[Node, int] = {}
        self.run()

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
            if node in self.anchors:
                key: Hashable = (node.key, self.anchors[node])
                step = len(self.classes[key])
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
        use = (node.key, position, source.root)
        return (node.key, position, self._keys[source.node], source.result, self._taken[use])  # type: ignore[index]

    def _pivot(self, node: Node) -> tuple[int, Source] | None:
        """The input that gives the node its step: the latest one."""
        inputs = [(i, s) for i, s in enumerate(node.inputs) if s.node in self.steps]
        if not inputs:
            return None
        if node in self.strays and node.inputs[self.strays[node]].node in self.steps:
            return self.strays[node], node.inputs[self.strays[node]]
        shape = (node.key, tuple((i, self._keys[s.node]) for i, s in inputs))  # type: ignore[index]
        if shape in self.first_input:
            return inputs[0]
        chosen = max(inputs, key=lambda item: (self.steps[item[1].node], -item[0]))  # type: ignore[index]
        self._pivots[shape].add(chosen[0])
        return chosen

    def settle_pivots(self) -> bool:
        """Inputs of which now one, now the other is later run in opposite directions: take the first one's step."""
        crossing = {shape for shape, positions in self._pivots.items() if len(positions) > 1}
        self.first_input |= crossing
        return bool(crossing)

    def settle_strays(self) -> bool:
        """Where a loop begins with what another loop ends with, the first step's latest input is that of the other loop.

        A node whose class is small takes its step from another input if that fills a gap of a large class.
        """
        small = {n for members in self.classes.values() if len(members) < _MIN_STEPS for n in members}
        found = False
        for node in sorted(small - set(self.anchors) - set(self.strays), key=lambda n: n.index):
            for position, source in enumerate(node.inputs):
                if source.node not in self.steps or source.node in small:
                    continue
                members = self.classes.get(self._key(node, position, source), [])
                if len(members) >= _MIN_STEPS and all(self.steps[m] != self.steps[source.node] for m in members):
                    self.strays[node] = position
                    found = True
                    break
        return found

    def settle_singles(self) -> bool:
        """Set the operations aside that do not repeat: they must not lend their step to others."""
        small = [n for members in self.classes.values() if len(members) < _MIN_STEPS for n in members]
        fresh = _outermost(small, self.singles, self.steps)
        self.singles |= fresh
        return bool(fresh)


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


def _parameter_derived(trace: Trace) -> set[tuple[int, int]]:
    """Roots that depend on parameters and constants alone, on at least one parameter or large constant."""
    derived: set[tuple[int, int]] = {(-1, i) for i, kind in enumerate(trace.kinds) if kind == "parameter"}
    constant: set[tuple[int, int]] = set()
    for node in trace.nodes:
        roots = [s.root for s in node.inputs]
        if not all(r in derived or r in constant for r in roots):
            continue
        large = node.name == "arith.constant" and _is_table(node.op)
        target = derived if large or any(r in derived for r in roots) else constant
        target.update((node.index, i) for i in range(len(node.op.results)))
    return derived


def _is_table(constant: ir.Operation) -> bool:
    value = constant.attributes["value"]
    return isinstance(value, ir.DenseElementsAttr) and not value.is_splat


def access_of(source: Source) -> tuple[Source, tuple[int, ...], tuple[int, ...]] | None:
    """(sequence, offsets, sizes) when the value is a slice, else None."""
    node = source.node
    if node is None or node.name != "tensor.extract_slice":
        return None
    op = node.op
    return node.inputs[0], tuple(op.attributes["static_offsets"]), tuple(op.attributes["static_sizes"])


def _anchors(
    trace: Trace, derived: set[tuple[int, int]], looped: dict[tuple[int, int], set[int]] | None
) -> dict[Node, Hashable]:
    """For every anchored node, what anchors it: parameters where it has any, else slices of sequences."""
    candidates: dict[Node, list[tuple[bool, Hashable]]] = {}
    uses: Counter[Hashable] = Counter()
    for node in trace.nodes:
        if node.name in VIEWS or node.name in ("linalg.fill", "arith.constant"):
            continue
        found: list[tuple[bool, Hashable]] = []
        for position, source in enumerate(node.inputs):
            if source.root in derived and node.name != "tensor.concat":
                found.append((True, (position, source.root)))
            elif access := access_of(source):
                sequence, offsets, sizes = access
                if sequence.root not in derived and _is_step(sequence, sizes, looped):
                    found.append((False, (position, sequence.root, sizes)))
        for _, token in found:
            uses[(node.key, token)] += 1
        candidates[node] = found
    anchors: dict[Node, Hashable] = {}
    varying: set[Node] = set()
    for node in trace.nodes:
        valid = [t for t in candidates.get(node, ()) if uses[(node.key, t[1])] >= _MIN_STEPS]
        chosen = [t for parameter, t in valid if parameter]
        if not chosen:
            # A slice of something that is itself computed in a step is a part of it, not a step of a sequence.
            chosen = [t for parameter, t in valid if _sequence_of(node, t).node not in varying]
        if chosen:
            anchors[node] = tuple(chosen)
        if chosen or any(s.node in varying for s in node.inputs if s.node is not None):
            varying.add(node)
    return anchors


def _sequence_of(node: Node, token: Hashable) -> Source:
    """The sequence that a slice token of `_anchors` speaks of."""
    position = token[0]  # type: ignore[index]
    access = access_of(node.inputs[position])
    assert access is not None
    return access[0]


def looped_dims(traces: list[Trace]) -> list[dict[tuple[int, int], set[int]]] | list[None]:
    """For every trace, the dimensions that change from trace to trace, of each value that precedes the loops.

    With one trace nothing can be seen to change: None.
    """
    if len(traces) == 1:
        return [None]
    whole = [_whole_roots(t) for t in traces]
    if len({len(w) for w in whole}) > 1:  # A loop that takes no slices: only the arguments correspond.
        whole = [[r for r in w if r[0] == -1] for w in whole]
    result: list[dict[tuple[int, int], set[int]]] = [{} for _ in traces]
    for roots in zip(*whole, strict=True):
        shapes = [tuple(_root_type(t, r).shape) for t, r in zip(traces, roots, strict=True)]
        changing = {d for d in range(len(shapes[0])) if len({s[d] for s in shapes}) > 1}
        for dims, root in zip(result, roots, strict=True):
            dims[root] = changing
    return result


def _whole_roots(trace: Trace) -> list[tuple[int, int]]:
    """Tensor arguments, and results that depend on arguments without any slice between."""
    whole = [(-1, i) for i in range(len(trace.arguments))]
    known, constant = set(whole), set()
    for node in trace.nodes:
        roots = [s.root for s in node.inputs]
        results = [(node.index, i) for i in range(len(node.op.results))]
        if all(r in constant for r in roots):
            constant.update(results)  # Equal constants are one operation, so their number may depend on the sizes.
        elif node.name != "tensor.extract_slice" and all(r in known or r in constant for r in roots):
            whole += results
            known.update(results)
    return [r for r in whole if isinstance(_root_type(trace, r), ir.RankedTensorType)]


def _root_type(trace: Trace, root: tuple[int, int]) -> ir.Type:
    index, result = root
    return trace.arguments[result].type if index == -1 else trace.nodes[index].op.results[result].type


def _is_step(
    sequence: Source,
    sizes: tuple[int, ...],
    looped: dict[tuple[int, int], set[int]] | None,
) -> bool:
    """Whether a slice of these sizes takes one step out of a sequence (rather than, say, one layer's state)."""
    shape = sequence.type.shape
    cut = {d for d, (s, extent) in enumerate(zip(sizes, shape, strict=True)) if s != extent}
    if looped is None:
        return bool(cut)
    return bool(cut & looped.get(sequence.root, set()))
