"""One static trace as a light graph: nodes, the values they read, and what each value depends on."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from torch_mlir import ir

from parc.recurrence.symbolic import is_constant

#: Reshapes are looked through: a value and its reshapes are the same value.
_RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")
#: Take a part of a tensor or change its layout; never evidence of a repeated step on their own.
VIEWS = (*_RESHAPES, "tensor.extract_slice", "tensor.cast", "linalg.transpose", "tensor.empty")
#: Attributes that hold sizes, which differ from trace to trace.
_SIZES = ("static_sizes", "static_output_shape", "static_low", "static_high", "value", "operandSegmentSizes")


class Numbering(dict[Hashable, int]):
    """Numbers for things that are costly to compare; equal things have equal numbers."""

    def __missing__(self, key: Hashable) -> int:
        self[key] = len(self)
        return self[key]


Root = tuple[int, int]
"""A value before reshapes: (index of its node, number of the result), or (-1, number of the argument)."""


@dataclass(eq=False, repr=False)  # a node names its inputs, and they theirs: the text of one would be the whole graph
class Node:
    """One operation of a trace, other than a reshape."""

    index: int
    op: ir.Operation
    #: What it reads, reshapes removed: operands first, then values captured by its region.
    inputs: list["Source"]
    #: A number for everything about the operation but its inputs, equal for two instances of one step.
    key: int
    #: The same without sizes: equal for instances of one operation in traces of different sizes.
    kind: int
    #: Scalar constants that its region uses, in order; a part of the key unless they change from step to step.
    constants: tuple["Source", ...] = ()

    @property
    def name(self) -> str:
        return self.op.name


@dataclass(frozen=True)
class Source:
    """Where a value comes from: result `result` of `node`, or argument `argument`; then `reshapes` in order."""

    node: Node | None
    result: int
    argument: int = -1
    reshapes: tuple[ir.Operation, ...] = ()
    #: The type after the reshapes.
    type: ir.Type | None = field(default=None, compare=False)
    #: A hashable name of the value before reshapes.
    root: Root = field(init=False, compare=False)

    def __post_init__(self) -> None:
        root = (-1, self.argument) if self.node is None else (self.node.index, self.result)
        object.__setattr__(self, "root", root)


@dataclass
class Trace:
    """A straight-line function with static shapes, called with one value for every symbol (`sizes`)."""

    func: ir.Operation
    sizes: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    results: list[Source] = field(default_factory=list)
    #: `parc.kind` of every argument.
    kinds: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> list[ir.Value]:
        return list(self.func.regions[0].blocks[0].arguments)

    def type_of(self, root: Root) -> ir.Type:
        """The type of a value before reshapes."""
        index, result = root
        return self.arguments[result].type if index == -1 else self.nodes[index].op.results[result].type

    @staticmethod
    def read(func: ir.Operation, sizes: tuple[int, ...], numbers: Numbering) -> "Trace":
        """Build the graph of a function; all traces of a program share the `numbers` for their keys and kinds."""
        return _Reader(func, sizes, numbers).trace

    def with_copies(self, shared: set[Node]) -> "Trace":
        """This trace with the nodes of `shared` computed again for every user of a kind.

        The first users, of each kind and in each place, have the first copies, the second ones the second copies, and
        so on; a copy comes just before its first user.  Where there are no second users it is this trace itself.
        """
        result = Trace(self.func, self.sizes, kinds=self.kinds)
        made: dict[Node, Node] = {}
        copies: dict[tuple[Node, int], Node] = {}
        turns: Counter[Hashable] = Counter()

        def add(node: Node, turn: int | None) -> Node:
            inputs = [translate(s, (node.key, i), turn) for i, s in enumerate(node.inputs)]
            copy = Node(len(result.nodes), node.op, inputs, node.key, node.kind, node.constants)
            result.nodes.append(copy)
            return copy

        def translate(source: Source, use: Hashable, turn: int | None) -> Source:
            node = source.node
            if node is None or node not in shared:
                return source if node is None else replace(source, node=made[node])
            if turn is None:
                turn = turns[(use, source)]
                turns[(use, source)] += 1
            if (node, turn) not in copies:
                copies[(node, turn)] = add(node, turn)
            return replace(source, node=copies[(node, turn)])

        for node in self.nodes:
            if node not in shared:
                made[node] = add(node, None)
        result.results = [translate(s, "result", 0) for s in self.results]
        return result if max(turns.values(), default=0) > 1 else self


class _Reader:
    """Builds a `Trace` from a function."""

    def __init__(self, func: ir.Operation, sizes: tuple[int, ...], numbers: Numbering) -> None:
        self.trace = Trace(func, sizes)
        self.numbers = numbers
        self.values: dict[ir.Value, Source] = {}
        attrs = list(func.attributes["arg_attrs"]) if "arg_attrs" in func.attributes else []
        for i, argument in enumerate(self.trace.arguments):
            known = bool(attrs) and "parc.kind" in attrs[i]
            self.trace.kinds.append(attrs[i]["parc.kind"].value if known else "input")
            self.values[argument] = Source(None, 0, i, (), argument.type)
        for op in func.regions[0].blocks[0].operations:
            self._add(op.operation)

    def _add(self, op: ir.Operation) -> None:
        if op.name in _RESHAPES:
            source, value = self.values[op.operands[0]], op.results[0]
            self.values[value] = replace(source, reshapes=(*source.reshapes, op), type=value.type)
            return
        if op.name == "func.return":
            self.trace.results = [self.values[v] for v in op.operands]
            return
        body, captured, constants = _describe_regions(op)
        values = [*op.operands, *captured]
        attributes = tuple((name, op.attributes[name]) for name in op.attributes)
        sizeless = tuple((name, a) for name, a in attributes if name not in _SIZES)
        number = self.numbers[(op.name, body)]
        types = tuple(v.type for v in (*op.results, *values))
        node = Node(
            len(self.trace.nodes),
            op,
            [self.values[v] for v in values],
            self.numbers[(number, attributes, types, tuple(v.owner.attributes["value"] for v in constants))],
            self.numbers[(number, sizeless, tuple(_rank(v.type) for v in values))],
            tuple(self.values[v] for v in constants),
        )
        self.trace.nodes.append(node)
        for i, result in enumerate(op.results):
            self.values[result] = Source(node, i, -1, (), result.type)


def _rank(type_: ir.Type) -> Hashable:
    return type_.rank if isinstance(type_, ir.RankedTensorType) else type_


def _describe_regions(op: ir.Operation) -> tuple[Hashable, list[ir.Value], list[ir.Value]]:
    """A canonical form of the regions, and what they capture from outside: other values, then constants."""
    captured: list[ir.Value] = []
    constants: list[ir.Value] = []
    names: dict[ir.Value, Hashable] = {}
    found: list[Hashable] = []

    def name(value: ir.Value) -> Hashable:
        if value not in names:
            kind, others = ("constant", constants) if is_constant(value) else ("outside", captured)
            names[value] = (kind, len(others))
            others.append(value)
        return names[value]

    def visit(region: ir.Region) -> None:
        for block in region.blocks:
            for argument in block.arguments:
                names[argument] = len(names)
            for inner in block.operations:
                operation = inner.operation
                operands = tuple([name(v) for v in operation.operands])
                attributes = operation.attributes
                found.append((operation.name, operands, tuple([(a, attributes[a]) for a in attributes])))
                for result in operation.results:
                    names[result] = len(names)
                for nested in operation.regions:
                    visit(nested)

    for region in op.regions:
        visit(region)
    return tuple(found), captured, constants
