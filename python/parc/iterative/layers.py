"""The layers of a program without a recurrence: what has weights, and the values that layers hand to each other.

A *layer* is an operation with weights (a product, a convolution) and what is computed from its result alone, up to
where the fewest numbers cross. What several layers are needed for, such as the sum of a residual connection, belongs
to none: it is computed wherever it is needed, so that it is never older than what it is computed from.

    c = conv(x, w)          layer "conv": values (r)
    b = c * s + t                                          y = concat(x, r) belongs to no layer
    r = relu(b)
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import func, linalg

from parc.codegen.irtools import argument_kind, captured_values, walk

# Arguments that do not vary from call to call, as a program's input does.
_FIXED = ("symbol", "parameter")
_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a network."""

    name: str
    """That of its weights, such as `features.conv0`; no two layers have the same."""
    op: ir.Operation
    """The operation with weights."""
    values: tuple[ir.Value, ...]
    """The tensors that others are computed from: all that others see of the layer."""
    needs: frozenset[int]
    """The numbers of the layers whose values it is computed from."""
    width: int
    """The numbers in its values, for extents of 1 in place of those that vary from call to call."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """A name for each of its values."""
        return (self.name,) if len(self.values) == 1 else tuple(f"{self.name}.{i}" for i in range(len(self.values)))


@dataclass(frozen=True, eq=False)
class Network:
    """The layers of a function, each after those that it needs."""

    function: func.FuncOp
    layers: tuple[Layer, ...]
    _reads: Mapping[ir.Value, frozenset[int]]

    def reads(self, value: ir.Value) -> frozenset[int]:
        """The layers whose values a value is computed from, without other layers in between."""
        return self._reads.get(value, _NONE)

    def last_use(self, number: int) -> int:
        """The last layer that needs this one; itself where none does."""
        return max(self._users(number), default=number)

    def only_use(self, number: int) -> int | None:
        """The one layer that needs this one; None where there are others, or results need it."""
        users = self._users(number)
        return users[0] if len(users) == 1 and number not in needed_at_the_end(self) else None

    def _users(self, number: int) -> list[int]:
        return [i for i, layer in enumerate(self.layers) if number in layer.needs]


def find_layers(function: func.FuncOp) -> Network:
    """The layers of a function's own block."""
    block = function.entry_block
    sources = _Sources(function)
    heads = [(op.operation, name) for op in block.operations if (name := sources.weights(op.operation)) is not None]
    order = {op.operation: i for i, op in enumerate(block.operations)}
    anchors = {op for op, _ in heads}
    names = _different([name or "layer" for _, name in heads])
    cuts = [_cut(op, anchors, sources, order) for op, _ in heads]
    reads, direct = _reads(block, cuts)
    layers = tuple(
        Layer(
            name=name,
            op=op,
            values=values,
            needs=frozenset().union(*(direct.get(v, _NONE) for v in values)),
            width=sum(_width(v) for v in values),
        )
        for (op, _), name, values in zip(heads, names, cuts, strict=True)
    )
    return Network(function, layers, reads)


class _Sources:
    """What the values of a function's block depend on."""

    def __init__(self, function: func.FuncOp) -> None:
        self._varies: set[ir.Value] = set()
        #: Values of parameters alone -> the name of one that they are made of.
        self._parameters: dict[ir.Value, str] = {}
        for number, argument in enumerate(function.arguments):
            attributes = ir.DictAttr(function.arg_attrs[number])
            if argument_kind(attributes) not in _FIXED:
                self._varies.add(argument)
            elif argument_kind(attributes) == "parameter":
                named = "parc.name" in attributes
                self._parameters[argument] = ir.StringAttr(attributes["parc.name"]).value if named else ""
        for op in function.entry_block.operations:
            self._note(op.operation)

    def varies(self, value: ir.Value) -> bool:
        """Does a value depend on the program's input?"""
        return value in self._varies

    def weights(self, op: ir.Operation) -> str | None:
        """The name of the weights of an operation of the block, without the last part; None where it has none."""
        if not any(self.varies(v) for v in captured_values(op)):
            return None
        products = [op, *(inner.operation for inner in walk(op))] if op.name == "parc.system" else [op]
        for product in products:
            if product.name.startswith("linalg.") and _adds_products(product):
                named = [self._parameters[v] for v in list(product.operands)[:2] if v in self._parameters]
                if named:
                    return named[0].rpartition(".")[0] or named[0]
        return None

    def _note(self, op: ir.Operation) -> None:
        used = captured_values(op)
        if any(v in self._varies for v in used):
            self._varies.update(op.results)
            return
        named = [self._parameters[v] for v in used if v in self._parameters]
        if named:
            self._parameters.update((result, named[0]) for result in op.results)


def _adds_products(op: ir.Operation) -> bool:
    """Is this a contraction or a convolution, of two tensors?"""
    return len(op.operands) == 3 and (linalg.isa_contraction_op(op) or linalg.isa_convolution_op(op))


def _different(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that several would have."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        found.append(f"{name}#{seen[name]}" if seen[name] else name)
    return found


def _cut(
    head: ir.Operation, heads: set[ir.Operation], sources: _Sources, order: Mapping[ir.Operation, int]
) -> tuple[ir.Value, ...]:
    """The values to cut at behind an operation: of the ones that all others are computed through, the narrowest.

    Of several the last: what is computed from it alone is then computed once.
    """
    own = _own(head, heads, sources, order)
    taken = [op.results[0] for op in own if op.name == "parc.array" and op.operands[0].owner.operation == head]
    candidates = taken if head.name == "parc.system" else list(head.results)
    starts = tuple(candidates)
    candidates = [*candidates, *(v for op in own if op.name.startswith("linalg.") for v in op.results)]
    inside = set(own)
    through = [v for v in candidates if isinstance(v.type, ir.RankedTensorType) and _all_through(v, starts, inside)]
    if not through:
        return starts
    least = min(map(_width, through))
    return ([v for v in through if _width(v) == least][-1],)


def _own(
    head: ir.Operation, heads: set[ir.Operation], sources: _Sources, order: Mapping[ir.Operation, int]
) -> list[ir.Operation]:
    """The operations that of all that varies depend on the results of `head` alone, in order."""
    values, found = set(head.results), []
    pending = _users(head, order)
    while pending:
        op = min(pending, key=order.__getitem__)
        pending.remove(op)
        used = [v for v in captured_values(op) if sources.varies(v)]
        if op in heads or not op.results or any(v not in values for v in used):
            continue
        found.append(op)
        values.update(op.results)
        pending |= _users(op, order)
    return found


def _all_through(value: ir.Value, starts: Iterable[ir.Value], own: Collection[ir.Operation]) -> bool:
    """Is all that is not in `own`, and computed from `starts`, computed from `value`?"""
    pending, seen = [v for v in starts if v != value], {value}
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        for use in current.uses:
            user = _in_block(use.owner.operation, own)
            if user is None:
                return False
            pending.extend(user.results)
    return True


def _in_block(op: ir.Operation, own: Collection[ir.Operation]) -> ir.Operation | None:
    """The one of `own` that an operation is, or is nested in."""
    while op.name != "func.func":
        if op in own:
            return op
        op = op.parent.operation
    return None


def _users(op: ir.Operation, order: Mapping[ir.Operation, int]) -> set[ir.Operation]:
    """The operations of the block that use a result, themselves or in a region."""
    found = set()
    for result in op.results:
        for use in result.uses:
            user = use.owner.operation
            while user not in order:
                user = user.parent.operation
            found.add(user)
    return found


def _reads(
    block: ir.Block, cuts: Sequence[Sequence[ir.Value]]
) -> tuple[dict[ir.Value, frozenset[int]], dict[ir.Value, frozenset[int]]]:
    """For each value the layers that it is computed from, and for each value to cut at those of its layer."""
    layer_of = {v: number for number, values in enumerate(cuts) for v in values}
    reads: dict[ir.Value, frozenset[int]] = {}
    direct: dict[ir.Value, frozenset[int]] = {}
    for op in block.operations:
        found = frozenset().union(*(reads.get(v, _NONE) for v in captured_values(op)))
        for result in op.operation.results:
            if result in layer_of:
                direct[result], reads[result] = found, frozenset([layer_of[result]])
            elif found:
                reads[result] = found
    return reads, direct


def _width(value: ir.Value) -> int:
    type_ = ir.RankedTensorType(value.type)
    return prod(type_.get_dim_size(d) for d in range(type_.rank) if not type_.is_dynamic_dim(d))


def needed_at_the_end(network: Network) -> frozenset[int]:
    """The layers whose values the results of the function, and its operations without results, are computed from."""
    ends = [op for op in network.function.entry_block.operations if not op.operation.results]
    return frozenset().union(*(network.reads(v) for op in ends for v in captured_values(op)))
