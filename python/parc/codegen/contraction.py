"""What a contraction is: a linalg operation that adds up products of two operands.

Its iteration dimensions are *batch* ones (of both factors and the result), *rows* (of the left factor and the result),
*columns* (of the right factor and the result) and *reductions* (of both factors).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import linalg, memref

from parc.codegen.loops import index

# With fewer rows or columns most of a tile would be empty, and with fewer products packing would not pay.
_LEAST_ROWS, _LEAST_COLUMNS, _LEAST_PRODUCTS = 4, 8, 1 << 14

LEFT, RIGHT, RESULT = range(3)
"""The operands of a contraction, in this order."""


@dataclass(frozen=True)
class Contraction:
    """`result[batch, rows, columns] += left[batch, rows, reductions] * right[batch, columns, reductions]`.

    Operands and maps are in this order: left factor, right factor, result. The last dimension of the result is the last
    of the columns.
    """

    op: ir.Operation
    operands: tuple[ir.Value, ...]
    maps: tuple[ir.AffineMap, ...]
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    reductions: tuple[int, ...]

    def static_extent(self, dim: int) -> int | None:
        """The extent of an iteration dimension, where it is known."""
        known = [v.type.get_dim_size(p) for v, p in self._places(dim) if not v.type.is_dynamic_dim(p)]
        return known[0] if known else None

    def extent(self, dim: int) -> ir.Value:
        """The extent of an iteration dimension, at the insertion point."""
        static = self.static_extent(dim)
        operand, place = self._places(dim)[0]
        return memref.dim(operand, index(place)) if static is None else index(static)

    def assumed_size(self, dims: Sequence[int], unknown: int) -> int:
        """The product of extents, where each that is not known counts as `unknown`."""
        extents = (self.static_extent(d) for d in dims)
        return prod(unknown if e is None else e for e in extents)

    def place(self, operand: int, dim: int) -> int | None:
        """The dimension of an operand that an iteration dimension walks along."""
        positions = [e.position for e in self.maps[operand].results]
        return positions.index(dim) if dim in positions else None

    def _places(self, dim: int) -> list[tuple[ir.Value, int]]:
        places = ((v, self.place(i, dim)) for i, v in enumerate(self.operands))
        return [(v, p) for v, p in places if p is not None]


def find_contraction(op: ir.Operation) -> Contraction | None:
    """What a linalg operation contracts; None if that is no product worth packing its factors for."""
    shaped = all(isinstance(v.type, ir.RankedTensorType | ir.MemRefType) for v in op.operands)
    if not shaped or not linalg.isa_contraction_op(op):
        return None
    elements = {v.type.element_type for v in op.operands}
    if len(elements) > 1 or not isinstance(elements.pop(), ir.F32Type | ir.F64Type):
        return None
    maps = [ir.AffineMapAttr(a).value for a in linalg.get_indexing_maps(op)]
    dims = linalg.infer_contraction_dimensions(op)
    batch, rows, columns, reductions = (list(d) for d in (dims.batch, dims.m, dims.n, dims.k))
    order = [e.position for e in maps[RESULT].results]
    if not (rows and columns) or len(batch + rows + columns + reductions) != maps[RESULT].n_dims:
        return None
    sides = [LEFT, RIGHT]
    if order[-1] in rows:
        rows, columns, sides = columns, rows, sides[::-1]
    elif order[-1] not in columns:
        return None
    operands = [op.operands[i] for i in (*sides, RESULT)]
    maps = [maps[i] for i in (*sides, RESULT)]
    walked = [e.position for e in maps[RIGHT].results]
    found = Contraction(
        op,
        tuple(operands),
        tuple(maps),
        tuple(batch),
        tuple(sorted(rows, key=order.index)),
        tuple(sorted(columns, key=order.index)),
        tuple(sorted(reductions, key=walked.index)),
    )
    return found if _pays(found) else None


def _pays(c: Contraction) -> bool:
    many = _LEAST_PRODUCTS
    enough = c.assumed_size((*c.rows, *c.columns, *c.reductions), many) >= many
    return enough and c.assumed_size(c.rows, many) >= _LEAST_ROWS and c.assumed_size(c.columns, many) >= _LEAST_COLUMNS
