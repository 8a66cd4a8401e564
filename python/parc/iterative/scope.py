"""Copies what values of a network are computed from, with other values in the place of some layers'."""

from collections.abc import Sequence

from torch_mlir import ir

from parc.codegen.irtools import captured_values, clone_with
from parc.iterative.layers import Network


class Scope:
    """Values of a network, where some of its layers have others than in the program.

    Operations are copied when a value that depends on such a layer is asked for: once in a scope, and in the outermost
    scope that they can be in. Layers are to be given or computed in order.
    """

    def __init__(self, network: Network, outer: "Scope | None" = None, before: ir.Operation | None = None) -> None:
        """Copies go to the insertion point, or in front of the operation `before`."""
        self.before = before
        self._network = network
        self._outer = outer
        self._changed: set[int] = set()
        self._values: dict[ir.Value, ir.Value] = {}
        self._order: dict[ir.Operation, int] = _order(network) if outer is None else outer._order

    def give(self, layer: int, values: Sequence[ir.Value]) -> None:
        """Say what a layer's values are."""
        self._changed.add(layer)
        self._values.update(zip(self._network.layers[layer].values, values, strict=True))

    def compute(self, layer: int) -> Sequence[ir.Value]:
        """Compute a layer anew, from what its operands are here; returns its values."""
        own = self._network.layers[layer].values
        copies: dict[ir.Value, ir.Value] = {}
        for op in sorted({v.owner.operation for v in own}, key=self._order.__getitem__):
            copies |= self._copy(op)
        values = [copies[v] for v in own]
        self.give(layer, values)
        return values

    def is_changed(self, layer: int) -> bool:
        """Is a layer computed from one that has other values here?"""
        return not self._network.layers[layer].needs.isdisjoint(self._changed)

    def value(self, value: ir.Value) -> ir.Value:
        """What a value of the program is here."""
        if self._network.reads(value).isdisjoint(self._changed):
            return value if self._outer is None else self._outer.value(value)
        if value not in self._values:
            for op in self._missing(value):
                self._values |= self._copy(op)
        return self._values[value]

    def _missing(self, value: ir.Value) -> list[ir.Operation]:
        """The operations to copy for a value, in order."""
        found: set[ir.Operation] = set()
        pending = [value]
        while pending:
            current = pending.pop()
            if current in self._values or self._network.reads(current).isdisjoint(self._changed):
                continue
            op = current.owner.operation
            if op not in found:
                found.add(op)
                pending.extend(captured_values(op))
        return sorted(found, key=self._order.__getitem__)

    def _copy(self, op: ir.Operation) -> dict[ir.Value, ir.Value]:
        """Copy one operation; returns what its results are."""
        values = {v: self.value(v) for v in captured_values(op)}
        point = ir.InsertionPoint.current if self.before is None else ir.InsertionPoint(self.before)
        with point:
            copy = clone_with(op, values)
        return dict(zip(op.results, copy.results, strict=True))


def _order(network: Network) -> dict[ir.Operation, int]:
    """The place of each operation of the function's block."""
    return {op.operation: i for i, op in enumerate(network.function.entry_block.operations)}
