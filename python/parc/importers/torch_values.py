"""Which graph node holds the contents of each tensor while a program with in-place writes is recorded.

A write into a view is a new value for the view and, by a scatter, for everything it is a view
of; other views of the same memory are read again when next used.  So the graph stays
functional:

    out[t] = h      ->      out' = select_scatter(out, h, 0, t)
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

_aten = torch.ops.aten
_RESHAPES = ("view", "_unsafe_view", "unsqueeze", "squeeze", "reshape", "alias")


@dataclass(eq=False)
class _Cell:
    """One tensor: its node as of `version` of its root, and how it is a view of `parent`."""

    tensor: Tensor
    node: fx.Node
    parent: "_Cell | None" = None
    view: fx.Node | None = None
    item: int | None = None
    version: int = 0

    @property
    def root(self) -> "_Cell":
        return self if self.parent is None else self.parent.root


class Values:
    """The contents of every tensor of a run, as nodes of `graph`."""

    def __init__(self, graph: fx.Graph) -> None:
        self._graph = graph
        self._cells: dict[int, _Cell] = {}  # holds the tensors too, so that their ids stay unique

    def define(self, tensor: Tensor, node: fx.Node, parent: Tensor | None = None, item: int | None = None) -> None:
        """`node` holds the new `tensor`: a view of `parent`, the list operator's result `item`, when given."""
        source = self._cells[id(parent)] if parent is not None else None
        view = node.args[0] if item is not None else node
        self._cells[id(tensor)] = _Cell(
            tensor,
            node,
            source,
            view if isinstance(view, fx.Node) else None,
            item,
            source.root.version if source else 0,
        )

    def known(self, tensor: Tensor) -> bool:
        return id(tensor) in self._cells

    def root(self, tensor: Tensor) -> Tensor:
        """The tensor that owns the memory which `tensor` views."""
        return self._cells[id(tensor)].root.tensor

    def node(self, tensor: Tensor) -> fx.Node:
        """The node that holds the tensor's present contents."""
        return self._current(self._cells[id(tensor)])

    def write(self, tensor: Tensor, node: fx.Node) -> None:
        """The tensor now has the contents of `node`; raises `NotImplementedError` for a view that cannot be written."""
        cell: _Cell | None = self._cells[id(tensor)]
        assert cell is not None
        before = []
        above = cell.parent
        while above is not None:
            before.append(self._current(above))
            above = above.parent
        root = cell.root
        root.version += 1
        for old in [*before, None]:
            assert cell is not None
            cell.node, cell.version = node, root.version
            if old is None:
                break
            node = self._scatter(cell, old, node)
            cell = cell.parent

    def _current(self, cell: _Cell) -> fx.Node:
        if cell.parent is not None and cell.version != cell.root.version:
            assert cell.view is not None
            again = self._graph.node_copy(cell.view)
            again.args = (self._current(cell.parent), *cell.view.args[1:])
            if cell.item is not None:
                again = _call(self._graph, operator.getitem, (again, cell.item), cell.tensor)
            cell.node, cell.version = again, cell.root.version
        return cell.node

    def _scatter(self, cell: _Cell, old: fx.Node, new: fx.Node) -> fx.Node:
        """The parent's contents `old` with the view `cell` replaced by `new`."""
        assert cell.parent is not None and cell.view is not None
        parent, args = cell.parent.tensor, cell.view.args[1:]
        name = cell.view.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
        if name == "select":
            return _call(self._graph, _aten.select_scatter.default, (old, new, *args), parent)
        if name == "slice":
            return _call(self._graph, _aten.slice_scatter.default, (old, new, *args), parent)
        if name == "unbind":
            axis = args[0] if args else 0
            return _call(self._graph, _aten.select_scatter.default, (old, new, axis, cell.item), parent)
        if name in ("split", "split_with_sizes"):
            axis = _axis(args[1] if len(args) > 1 else 0, parent)
            start, stop = _part(args[0], cell.item or 0, parent.shape[axis])
            return _call(self._graph, _aten.slice_scatter.default, (old, new, axis, start, stop), parent)
        if name == "permute":
            order = _inverse([_axis(a, parent) for a in args[0]])  # type: ignore[union-attr]
            return _call(self._graph, _aten.permute.default, (new, order), parent)
        if name in ("transpose", "t"):
            return _call(self._graph, cell.view.target, (new, *args), parent)
        if name in _RESHAPES:
            return _call(self._graph, _aten.view.default, (new, list(parent.shape)), parent)
        raise NotImplementedError(f"an in-place write into the result of aten.{name}")


def functional_variant(func: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The operator that returns what the in-place `func` writes into its first argument; None when there is none."""
    packet = getattr(_aten, func._schema.name.removeprefix("aten::").removesuffix("_"), None)
    return getattr(packet, func._overloadname, None) if packet is not None else None


def _call(graph: fx.Graph, target: object, args: tuple[object, ...], like: Tensor) -> fx.Node:
    node = graph.call_function(target, args)  # type: ignore[arg-type]
    node.meta["val"] = like
    return node


def _axis(axis: object, tensor: Tensor) -> int:
    assert isinstance(axis, int)
    return axis % tensor.dim()


def _part(sizes: object, item: int, extent: int) -> tuple[int, int]:
    """Bounds of part `item` of a split into chunks of one size, or of given sizes."""
    if isinstance(sizes, int):
        return item * sizes, min(extent, (item + 1) * sizes)
    assert isinstance(sizes, Sequence)
    start = sum(sizes[:item])
    return start, start + sizes[item]


def _inverse(order: Sequence[int]) -> list[int]:
    return [list(order).index(i) for i in range(len(order))]
