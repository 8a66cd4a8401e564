"""What to keep for the backward pass: the cheapest set of values from which all that it needs can be recomputed."""

from collections.abc import Callable, Iterable, Sequence
from math import inf

import networkx as nx
from torch_mlir import ir
from torch_mlir.dialects import linalg

#: What a dynamic extent counts in the comparison of sizes.
_NOMINAL = 16
_ELEMENT_BYTES = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2, "i8": 1, "index": 8}


def minimum_cut(
    needed: Iterable[ir.Value],
    made_from: Callable[[ir.Value], Sequence[ir.Value] | None],
    cost: Callable[[ir.Value], float],
) -> set[ir.Value]:
    """The values to keep so that all of `needed` can be recomputed, with the least total cost.

    `made_from` gives what a value is recomputed from, None for one that has to be kept where it is needed; `cost` is
    what keeping it takes.  A minimum cut of the graph of values (as in torch's partitioner for activations).
    """
    graph = nx.DiGraph()
    graph.add_node("start")
    graph.add_node("end")
    nodes: dict[ir.Value, int] = {}
    pending = list(needed)
    for value in pending:
        nodes.setdefault(value, len(nodes))
        graph.add_edge((nodes[value], "out"), "end")
    seen: set[ir.Value] = set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        node = nodes.setdefault(value, len(nodes))
        price = cost(value)
        graph.add_edge((node, "in"), (node, "out"), **({} if price == inf else {"capacity": price}))
        sources = made_from(value)
        if sources is None:
            graph.add_edge("start", (node, "in"))
            continue
        for source in sources:
            graph.add_edge((nodes.setdefault(source, len(nodes)), "out"), (node, "in"))
            pending.append(source)
    _, (reached, _) = nx.minimum_cut(graph, "start", "end")
    return {v for v, n in nodes.items() if (n, "in") in reached and (n, "out") not in reached}


def tensor_bytes(value: ir.Value) -> float:
    """The size of a tensor, dynamic extents at a nominal value; infinite for what is never kept."""
    if not isinstance(value.type, ir.RankedTensorType):
        return inf
    type_ = ir.RankedTensorType(value.type)
    if str(type_.element_type) not in _ELEMENT_BYTES:
        return inf
    count = 1
    for d in range(type_.rank):
        count *= _NOMINAL if type_.is_dynamic_dim(d) else type_.get_dim_size(d)
    return max(count * _ELEMENT_BYTES[str(type_.element_type)], 1)


def is_costly(op: ir.Operation | ir.OpView) -> bool:
    """Whether an operation is too much work to be done twice: a contraction, or a system."""
    op = op.operation
    if op.name in ("parc.system", "parc.array"):
        return True
    if not op.name.startswith("linalg."):
        return False
    inputs = [v for v in op.operands if isinstance(v.type, ir.RankedTensorType)][: -len(op.results)]
    return len(inputs) > 1 and _reduces(op)


def _reduces(op: ir.Operation) -> bool:
    maps = linalg.get_indexing_maps(op.opview)
    if maps is None:
        return True
    last = ir.AffineMapAttr(maps[len(maps) - 1]).value
    return last.n_dims > len(last.results)
