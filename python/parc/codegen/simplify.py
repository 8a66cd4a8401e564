"""Rewrites of a cell's nodes: one accumulator for a sum of products, and functions that importers spell out."""

from collections.abc import Sequence
from dataclasses import replace

from torch_mlir import ir

from parc.codegen.activations import SIGMOID
from parc.codegen.cell import Apply, Constant, Contraction, Node, Reduction, arguments_of


def simplify(nodes: Sequence[Node], roots: Sequence[int]) -> tuple[tuple[Node, ...], list[int]]:
    """Nodes with the same values at the roots, and where the roots are among them; no other nodes than these need."""
    found = _Rewrite(nodes, roots)
    new_roots = [found.rewritten(root) for root in roots]
    return tuple(found.nodes), new_roots


def sigmoid_argument(nodes: Sequence[Node], number: int) -> int | None:
    """x, where the node is `1 / (1 + exp(-x))`."""
    divide = nodes[number]
    if not (isinstance(divide, Apply) and divide.name == "arith.divf" and _is_one(nodes[divide.arguments[0]])):
        return None
    add = nodes[divide.arguments[1]]
    if not (isinstance(add, Apply) and add.name == "arith.addf"):
        return None
    others = [a for a in add.arguments if not _is_one(nodes[a])]
    exp = nodes[others[0]] if len(others) == 1 else None
    if not (isinstance(exp, Apply) and exp.name == "math.exp"):
        return None
    negate = nodes[exp.arguments[0]]
    return negate.arguments[0] if isinstance(negate, Apply) and negate.name == "arith.negf" else None


def _is_one(node: Node) -> bool:
    return isinstance(node, Constant) and isinstance(node.value, ir.FloatAttr) and node.value.value == 1.0


class _Rewrite:
    """Copies nodes, arguments first, and rewrites them on the way."""

    def __init__(self, old: Sequence[Node], roots: Sequence[int]) -> None:
        self.old = old
        self.nodes: dict[Node, int] = {}
        self.numbers: dict[int, int] = {}
        self.uses = [0] * len(old)
        for root in roots:
            self.uses[root] += 1
        for node in old:
            for argument in arguments_of(node):
                self.uses[argument] += 1

    def rewritten(self, number: int) -> int:
        """The new number of an old node."""
        if number not in self.numbers:
            self.numbers[number] = self._rewrite(number)
        return self.numbers[number]

    def _put(self, node: Node) -> int:
        return self.nodes.setdefault(node, len(self.nodes))

    def _rewrite(self, number: int) -> int:
        node = self.old[number]
        if isinstance(node, Reduction):
            return self._put(replace(node, argument=self.rewritten(node.argument), start=self.rewritten(node.start)))
        if not isinstance(node, Apply):
            return self._put(node)
        argument = sigmoid_argument(self.old, number)
        if argument is not None:
            return self._put(Apply(SIGMOID, (), (self.rewritten(argument),), node.type))
        terms = self._terms(number, True) if node.name == "arith.addf" else []
        products = [n for t in terms if isinstance(n := self.old[t], Contraction) and self.uses[t] == 1]
        if len(products) < 2:
            arguments = tuple(self.rewritten(a) for a in node.arguments)
            return self._put(Apply(node.name, node.attributes, arguments, node.type))
        total = self._put(Contraction(tuple(p for c in products for p in c.products)))
        for term in terms:
            if not (isinstance(self.old[term], Contraction) and self.uses[term] == 1):
                total = self._put(Apply(node.name, (), (total, self.rewritten(term)), node.type))
        return total

    def _terms(self, number: int, top: bool) -> list[int]:
        """What a sum adds up; sums that have other uses stay whole."""
        node = self.old[number]
        if isinstance(node, Apply) and node.name == "arith.addf" and (top or self.uses[number] == 1):
            return [t for argument in node.arguments for t in self._terms(argument, False)]
        return [number]
