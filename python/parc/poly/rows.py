"""Do the rows of a system's tiles stay apart?  Then threads can share the rows of everything without a barrier.

A tile's rows are all of its dimensions but the last; a tile of one dimension is one row.
"""

from collections.abc import Collection
from itertools import chain

from torch_mlir import ir
from torch_mlir.dialects import linalg

from parc.poly.model import System


def mixed_rows(system: System) -> tuple[str, ir.Location] | None:
    """Why rows of the unknowns' tiles meet each other, and where; None when they do not.

    The answer is conservative: an operation that is not understood is said to mix rows.
    """
    shapes = {}
    for equation in system.equations:
        for access in chain(equation.reads, equation.writes):
            unknown = system.unknown(access.array)
            indices = len(access.op.attributes["at"].value.results)
            extents = unknown.op.attributes["shape"].value.results[indices:-1]
            shapes[tuple(map(str, extents))] = access
    if len(shapes) > 1:
        (first, _), (second, access) = list(shapes.items())[:2]
        return f"some tiles have rows ({', '.join(first)}) and others ({', '.join(second)})", access.op.location
    for equation in system.equations:
        reads = {access.op.results[0] for access in equation.reads}
        for op in equation.op.regions[0].blocks[0].operations:
            op = op.operation
            if op.name in ("parc.read", "parc.write", "tensor.dim"):
                continue
            if _uses_inside(op, reads) or (reads.intersection(op.operands) and not _keeps_rows(op, reads)):
                return f"{equation.name} mixes rows in '{op.name}'", op.location
            if reads.intersection(op.operands):
                reads.update(op.results)
    return None


def _uses_inside(op: ir.Operation, values: Collection[ir.Value]) -> bool:
    """Does an operation in one of the regions of `op` use one of `values`?"""
    inner = [o.operation for region in op.regions for block in region.blocks for o in block.operations]
    return any(any(v in values for v in o.operands) or _uses_inside(o, values) for o in inner)


def _keeps_rows(op: ir.Operation, carriers: Collection[ir.Value]) -> bool:
    """Does row i of every result depend on row i alone of the operands that carry rows?"""
    if op.name.startswith(("arith.", "math.")):
        return True
    if op.name == "tensor.extract_slice":
        rows = range(len(op.attributes["static_offsets"]) - 1)
        return all(op.attributes["static_offsets"][i] == 0 and op.attributes["static_strides"][i] == 1 for i in rows)
    maps = linalg.get_indexing_maps(op) if op.name.startswith("linalg.") else None
    if maps is None:
        return False
    operands = list(op.operands)
    results = [m.value.results for m in list(maps)]
    count = len(op.results)
    rows = results[-1][:-1]
    return all(
        len(exprs) == len(rows) + 1 and list(exprs[:-1]) == list(rows) and all(r not in [exprs[-1]] for r in rows)
        for i, exprs in enumerate(results)
        if i >= len(results) - count or operands[i] in carriers
    )
