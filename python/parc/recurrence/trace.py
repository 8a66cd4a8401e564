"""One static trace as a light graph: nodes, the values they read, and what each value depends on."""

from dataclasses import dataclass, field
from functools import cached_property

from torch_mlir import ir

from parc.recurrence.symbolic import captured_values, is_constant

#: Reshapes are looked through: a value and its reshapes are the same value.
_RESHAPES = ("tensor.expand_shape", "tensor.collapse_shape")
#: Take a part of a tensor or change its layout; never evidence of a repeated step on their own.
VIEWS = (*_RESHAPES, "tensor.extract_slice", "tensor.cast", "linalg.transpose", "tensor.empty")


@dataclass(eq=False)
class Node:
    """One operation of a trace, other than a reshape."""

    index: int
    op: ir.Operation
    #: What it reads, reshapes removed: operands first, then values captured by its region.
    inputs: list["Source"]
    #: Everything about the operation but its inputs, equal for two instances of one step.
    key: str

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
    def root(self) -> tuple[int, int]:
        """A hashable name of the value before reshapes."""
        return (-1, self.argument) if self.node is None else (self.node.index, self.result)


@dataclass
class Trace:
    """A straight-line function with static shapes."""

    func: ir.Operation
    sizes: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    results: list[Source] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> list[ir.Value]:
        return list(self.func.regions[0].blocks[0].arguments)

    def _source(self, value: ir.Value) -> Source:
        reshapes: list[ir.Operation] = []
        type_ = value.type
        while isinstance(value, ir.OpResult) and value.owner.name in _RESHAPES:
            reshapes.insert(0, value.owner.operation)
            value = value.owner.operands[0]
        if isinstance(value, ir.BlockArgument):
            return Source(None, 0, value.arg_number, tuple(reshapes), type_)
        return Source(self._by_value[value], value.result_number, -1, tuple(reshapes), type_)

    @cached_property
    def _by_value(self) -> dict[ir.Value, Node]:
        return {}

    @staticmethod
    def read(func: ir.Operation, sizes: tuple[int, ...]) -> "Trace":
        """Build the graph of a function."""
        trace = Trace(func, sizes)
        attrs = func.attributes["arg_attrs"] if "arg_attrs" in func.attributes else None
        for i in range(len(trace.arguments)):
            known = attrs is not None and "parc.kind" in attrs[i]
            trace.kinds.append(attrs[i]["parc.kind"].value if known else "input")
        for op in func.regions[0].blocks[0].operations:
            operation = op.operation
            if operation.name in _RESHAPES:
                continue
            body, captured = _describe_regions(operation)
            values = [*operation.operands, *captured]
            inputs = [trace._source(v) for v in values]
            if operation.name == "func.return":
                trace.results = inputs
                continue
            node = Node(len(trace.nodes), operation, inputs, _key(operation, body, values))
            trace.nodes.append(node)
            for result in operation.results:
                trace._by_value[result] = node
        return trace


def _key(op: ir.Operation, body: str, values: list[ir.Value]) -> str:
    """The operation without its inputs."""
    attributes = ";".join(f"{a}={op.attributes[a]}" for a in op.attributes)
    types = ",".join(str(r.type) for r in op.results)
    reads = ",".join(str(v.type) for v in values)
    return f"{op.name}|{attributes}|{types}|{reads}|{body}"


def _describe_regions(op: ir.Operation) -> tuple[str, list[ir.Value]]:
    """A canonical text of the regions, and the non-constant values they capture from outside."""
    if not op.regions:
        return "", []
    outside = captured_values(op)
    captured = [v for v in outside if not is_constant(v)]
    names = {v: str(v.owner.attributes["value"]) for v in outside if is_constant(v)}
    names.update({v: f"outside{i}" for i, v in enumerate(captured)})
    text: list[str] = []

    def visit(region: ir.Region) -> None:
        for block in region.blocks:
            for argument in block.arguments:
                names[argument] = f"a{len(names)}"
            for inner in block.operations:
                operation = inner.operation
                operands = ",".join(names[v] for v in operation.operands)
                attributes = ";".join(f"{a}={operation.attributes[a]}" for a in operation.attributes)
                text.append(f"{operation.name}({operands}){{{attributes}}}")
                for result in operation.results:
                    names[result] = f"r{len(names)}"
                for nested in operation.regions:
                    visit(nested)

    for region in op.regions:
        visit(region)
    return "\n".join(text), captured
