"""One static trace as a light graph: nodes, the values they read, and what each value depends on."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property

from torch_mlir import ir

from parc.recurrence.symbolic import is_constant, region_captures

#: Reshapes are looked through: a value and its reshapes are the same value.
_RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")
#: Take a part of a tensor or change its layout; never evidence of a repeated step on their own.
VIEWS = (*_RESHAPES, "tensor.extract_slice", "tensor.cast", "linalg.transpose", "tensor.empty")
#: Attributes that hold sizes, which differ from trace to trace.
_SIZES = ("static_sizes", "static_output_shape", "static_low", "static_high", "value", "operandSegmentSizes")

Root = tuple[int, int]
"""A value before reshapes: (index of its node, number of the result), or (-1, number of the argument)."""


@dataclass(eq=False)
class Node:
    """One operation of a trace, other than a reshape."""

    index: int
    op: ir.Operation
    #: What it reads, reshapes removed: operands first, then values captured by its region.
    inputs: list["Source"]
    #: Everything about the operation but its inputs, equal for two instances of one step.
    key: Hashable
    #: The same without sizes: equal for instances of one operation in traces of different sizes.
    kind: Hashable
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

    @cached_property
    def root(self) -> Root:
        """A hashable name of the value before reshapes."""
        return (-1, self.argument) if self.node is None else (self.node.index, self.result)


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
    def read(func: ir.Operation, sizes: tuple[int, ...]) -> "Trace":
        """Build the graph of a function."""
        return _Reader(func, sizes).trace

    def with_copies(self, shared: set[Node]) -> "Trace":
        """This trace with the nodes of `shared` computed again for every user of a kind.

        The first users, of each kind and in each place, have the first copies, the second ones the second copies, and
        so on; a copy comes just before its first user.
        """
        result = Trace(self.func, self.sizes, kinds=self.kinds)
        made: dict[Node, Node] = {}
        copies: dict[tuple[Node, int], Node] = {}
        turns: Counter[Hashable] = Counter()

        def add(node: Node, turn: int | None) -> Node:
            inputs = [translate(s, (node.key, i), turn) for i, s in enumerate(node.inputs)]
            result.nodes.append(replace(node, index=len(result.nodes), inputs=inputs))
            return result.nodes[-1]

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
        return result


class _Reader:
    """Builds a `Trace` from a function."""

    def __init__(self, func: ir.Operation, sizes: tuple[int, ...]) -> None:
        self.trace = Trace(func, sizes)
        self.values: dict[ir.Value, Source] = {}
        attrs = func.attributes["arg_attrs"] if "arg_attrs" in func.attributes else None
        for i, argument in enumerate(self.trace.arguments):
            known = attrs is not None and "parc.kind" in attrs[i]
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
        attributes = [(name, op.attributes[name]) for name in op.attributes]
        sizeless = tuple((name, a) for name, a in attributes if name not in _SIZES)
        kind = (op.name, sizeless, body, tuple(_rank(v.type) for v in values))
        types = tuple(v.type for v in (*op.results, *values))
        node = Node(
            len(self.trace.nodes),
            op,
            [self.values[v] for v in values],
            (op.name, tuple(attributes), body, types, tuple(v.owner.attributes["value"] for v in constants)),
            kind,
            tuple(self.values[v] for v in constants),
        )
        self.trace.nodes.append(node)
        for i, result in enumerate(op.results):
            self.values[result] = Source(node, i, -1, (), result.type)


def _rank(type_: ir.Type) -> Hashable:
    return type_.rank if isinstance(type_, ir.RankedTensorType) else type_


def _describe_regions(op: ir.Operation) -> tuple[Hashable, list[ir.Value], list[ir.Value]]:
    """A canonical form of the regions, and what they capture from outside: other values, then constants."""
    if not op.regions:
        return (), [], []
    outside = region_captures(op)
    captured = [v for v in outside if not is_constant(v)]
    constants = [v for v in outside if is_constant(v)]
    names: dict[ir.Value, Hashable] = {v: ("outside", i) for i, v in enumerate(captured)}
    names |= {v: ("constant", i) for i, v in enumerate(constants)}
    found: list[Hashable] = []

    def visit(region: ir.Region) -> None:
        for block in region.blocks:
            for argument in block.arguments:
                names[argument] = len(names)
            for inner in block.operations:
                operation = inner.operation
                operands = tuple(names[v] for v in operation.operands)
                attributes = tuple((a, operation.attributes[a]) for a in operation.attributes)
                found.append((operation.name, operands, attributes))
                for result in operation.results:
                    names[result] = len(names)
                for nested in operation.regions:
                    visit(nested)

    for region in op.regions:
        visit(region)
    return tuple(found), captured, constants
