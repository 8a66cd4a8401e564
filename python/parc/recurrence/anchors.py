"""What tells that an operation belongs to a loop: the parameters that it uses, or the sequence that it reads slices of.

Two operations alike that multiply by the same parameter, or that read different slices of the same sequence, are
(almost always) the same line of the model in two steps of a loop.  They share an *anchor*.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch_mlir import ir

from parc.recurrence.trace import VIEWS, Node, Root, Source, Trace

#: Fewer instances than this are no loop.
MIN_STEPS = 3

Anchors = dict[Node, Hashable]


@dataclass(frozen=True)
class Growth:
    """What of one trace is different in the traces of other sizes."""

    #: The dimensions of a value whose extent changes.
    dims: dict[Root, set[int]]
    #: Uses of a value whose number changes: (kind of the user, input, value).
    uses: set[tuple[int, int, Root]]


def find_growth(traces: Sequence[Trace]) -> list[Growth] | list[None]:
    """Compare the values that all traces have; with one trace nothing can be seen to change: None."""
    if len(traces) == 1:
        return [None]
    names = [_names(t) for t in traces]
    shapes: list[dict[Hashable, tuple[int, ...]]] = []
    uses: list[Counter[Hashable]] = []
    for trace, named in zip(traces, names, strict=True):
        found: dict[Hashable, tuple[int, ...]] = {}
        for root, name in named.items():
            type_ = trace.type_of(root)
            if isinstance(type_, ir.RankedTensorType):
                found.setdefault(name, tuple(type_.shape))
        shapes.append(found)
        uses.append(Counter((n.kind, i, named[s.root]) for n in trace.nodes for i, s in enumerate(n.inputs)))
    changing: dict[Hashable, set[int]] = {}
    for name in set(shapes[0]).intersection(*shapes[1:]):
        extents = zip(*(s[name] for s in shapes), strict=False)
        changing[name] = {d for d, values in enumerate(extents) if len(set(values)) > 1}
    growing = {use for use in set(uses[0]).union(*uses[1:]) if len({count[use] for count in uses}) > 1}
    return [
        Growth(
            {root: changing[name] for root, name in named.items() if name in changing},
            {
                (node.kind, i, source.root)
                for node in trace.nodes
                for i, source in enumerate(node.inputs)
                if (node.kind, i, named[source.root]) in growing
            },
        )
        for trace, named in zip(traces, names, strict=True)
    ]


def _names(trace: Trace) -> dict[Root, Hashable]:
    """A name for every value, equal in all traces: what computes it from what, sizes left out."""
    names: dict[Root, Hashable] = {(-1, i): hash(("argument", i)) for i in range(len(trace.arguments))}
    for node in trace.nodes:
        name = hash((node.kind, tuple(names[s.root] for s in node.inputs)))
        names.update({(node.index, i): hash((name, i)) for i in range(len(node.op.results))})
    return names


def parameter_derived(trace: Trace) -> set[Root]:
    """Values that depend on parameters and constants alone, on at least one parameter or constant table."""
    derived: set[Root] = {(-1, i) for i, kind in enumerate(trace.kinds) if kind == "parameter"}
    constant: set[Root] = set()
    for node in trace.nodes:
        roots = [s.root for s in node.inputs]
        if not all(r in derived or r in constant for r in roots):
            continue
        table = node.name == "arith.constant" and _is_table(node.op)
        target = derived if table or any(r in derived for r in roots) else constant
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
    return node.inputs[0], tuple(node.op.attributes["static_offsets"]), tuple(node.op.attributes["static_sizes"])


def is_step(sequence: Source, sizes: tuple[int, ...], growth: Growth | None) -> bool:
    """Whether a slice of these sizes takes one step out of a sequence (rather than, say, one layer's state)."""
    shape = sequence.type.shape  # type: ignore[union-attr]
    cut = {d for d, (s, extent) in enumerate(zip(sizes, shape, strict=True)) if s != extent}
    return bool(cut if growth is None else cut & growth.dims.get(sequence.root, set()))


def find_anchors(trace: Trace, growth: Growth | None, strict: bool = False) -> Anchors:
    """For every anchored node, what anchors it: parameters where it uses any, else slices of sequences.

    With `strict`, a parameter whose number of uses does not change with the sizes is an initial state, and no anchor;
    otherwise it may be the weight of a loop of fixed length.
    """
    derived = parameter_derived(trace)
    candidates: dict[Node, list[tuple[bool, tuple[int, Root]]]] = {}
    uses: Counter[Hashable] = Counter()
    for node in trace.nodes:
        if node.name in VIEWS or node.name in ("linalg.fill", "arith.constant"):
            continue
        found: list[tuple[bool, tuple[int, Root]]] = []
        for position, source in enumerate(node.inputs):
            if source.root in derived and node.name != "tensor.concat":
                found.append((True, (position, source.root)))
            elif access := access_of(source):
                sequence, _, sizes = access
                if sequence.root not in derived and is_step(sequence, sizes, growth):
                    found.append((False, (position, sequence.root)))
        uses.update((node.key, token) for _, token in found)
        candidates[node] = found
    anchors: Anchors = {}
    varying: set[Node] = set()
    for node in trace.nodes:
        valid = [t for t in candidates.get(node, ()) if uses[(node.key, t[1])] >= MIN_STEPS]
        chosen = [t for is_parameter, t in valid if is_parameter]
        if growth is not None:
            growing = [t for t in chosen if (node.kind, *t) in growth.uses]
            chosen = growing if growing or strict else chosen
        if not chosen:
            # A slice of something that is itself computed in a step is a part of it, not a step of a sequence.
            slices = [t for is_parameter, t in valid if not is_parameter]
            chosen = [t for t in slices if _sequence_of(node, t).node not in varying]
        if chosen:
            anchors[node] = tuple(chosen)
        if chosen or any(s.node in varying for s in node.inputs):
            varying.add(node)
    return anchors


def _sequence_of(node: Node, token: Hashable) -> Source:
    """The sequence that a slice token of `find_anchors` speaks of."""
    access = access_of(node.inputs[token[0]])  # type: ignore[index]
    assert access is not None
    return access[0]


def unshare(trace: Trace, anchors: Anchors, growth: Growth | None) -> Trace:
    """Undo the merging of equal first steps.

    Two layers with the same weight that both start from zeros compute the same first product, and common
    subexpression elimination makes it one operation.  Every user gets its own again, so that each layer has
    as many steps as the others.
    """
    classes: dict[Hashable, list[Node]] = defaultdict(list)
    for node, anchor in anchors.items():
        classes[(node.key, anchor)].append(node)
    early = _before_loops(trace, growth)
    shared: set[Node] = set()
    for node in trace.nodes:
        if node not in early:
            continue
        members = classes[(node.key, anchors[node])] if node in anchors else []
        if any(m not in early for m in members) or any(s.node in shared for s in node.inputs):
            shared.add(node)
    return trace.with_copies(shared) if shared else trace


def _before_loops(trace: Trace, growth: Growth | None) -> set[Node]:
    """Nodes that depend on no step of a sequence."""
    early: set[Node] = set()
    for node in trace.nodes:
        access = access_of(Source(node, 0)) if node.name == "tensor.extract_slice" else None
        if access is not None and is_step(access[0], access[2], growth):
            continue
        if all(s.node is None or s.node in early for s in node.inputs):
            early.add(node)
    return early
