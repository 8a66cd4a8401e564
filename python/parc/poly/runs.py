"""Points of equal time that follow each other in memory: one call of a kernel computes a *run* of them."""

import islpy as isl
from torch_mlir import ir

from parc.codegen.arrays import slope
from parc.codegen.cell import Cell, KernelOperand
from parc.poly.affine import IN, OUT, SET
from parc.poly.model import Access, Equation, System


def run_dimension(system: System, equation: Equation, cell: Cell | None) -> int | None:
    """The dimension of an equation's domain along which its points of equal time make runs; None without runs.

    Runs are right for the arrays as they are stored.
    """
    dim = candidate(system, equation, cell)
    return None if dim is None or any(is_broken(system, equation, dim, a) for a in _unknown_accesses(equation)) else dim


def candidate(system: System, equation: Equation, cell: Cell | None) -> int | None:
    """The same if every array were stored whole."""
    if cell is None or system.distribute == "rows":
        return None
    dim = memory_dimension(equation, cell)
    if system.distribute == "points" and dim is not None and "owner" in equation.op.attributes:
        owner = ir.AffineMapAttr(equation.op.attributes["owner"]).value
        return dim if slopes(owner, dim) == [0] else None
    return dim


def strided_dimension(system: System, equation: Equation, cell: Cell) -> int | None:
    """A dimension along which points of equal time and owner have tiles at constant distances in memory; or None.

    For cells without products. Of several, the one along which the most tiles are neighbours.
    """
    if cell.products or system.distribute == "rows":
        return None
    fixed = [ir.AffineMapAttr(equation.op.attributes["schedule"]).value]
    if system.distribute == "points":
        fixed.append(ir.AffineMapAttr(equation.op.attributes["owner"]).value)

    def fits(dim: int) -> bool:
        if any(s != 0 for map_ in fixed for s in slopes(map_, dim)):
            return False
        moves = [s for o in cell.operands for s in slopes(o.access, dim)]
        return None not in moves and not any(is_broken(system, equation, dim, a) for a in _unknown_accesses(equation))

    def neighbours_in_memory(dim: int) -> int:
        return sum(_is_run(o, dim) for o in cell.operands)

    dims = [d for d in range(equation.domain.dim(SET)) if fits(d)]
    return max(dims, key=neighbours_in_memory, default=None)


def memory_dimension(equation: Equation, cell: Cell) -> int | None:
    """The dimension along which the tiles of a cell's points are neighbours in memory, in arrays that are whole."""
    dims = range(equation.domain.dim(SET))
    return next((d for d in dims if all(_is_run(o, d) for o in cell.operands)), None)


def neighbours(equation: Equation, dim: int) -> isl.Map:
    """`{ instance -> the next one of equal time along a dimension }`; of a scheduled equation."""
    assert equation.time is not None
    space = equation.domain.get_space().map_from_set()
    step = isl.Map.universe(space)
    for d in range(equation.domain.dim(SET)):
        if d != dim:
            step = step.equate(IN, d, OUT, d)
    after = isl.Aff.var_on_domain(isl.LocalSpace.from_space(equation.domain.get_space()), SET, dim).add_constant_val(1)
    reached = isl.Map.from_aff(after).apply_range(only(equation, dim).reverse())
    return step.intersect(reached).intersect(equation.time.apply_range(equation.time.reverse()))


def is_broken(system: System, equation: Equation, dim: int, access: Access) -> bool:
    """Are there neighbours in a run whose elements are not neighbours in memory, as the access's array is stored?"""
    place = access.relation.apply_range(system.unknown(access.array).storage)
    moves = slopes(ir.AffineMapAttr(access.op.attributes["at"]).value, dim)
    pairs = neighbours(equation, dim).apply_domain(place).apply_range(place)
    rank = pairs.range_tuple_dim()
    # Where the access has fewer indices than the array, the rest are the same on both sides.
    for d in range(len(moves), rank):
        pairs = pairs.equate(IN, d, OUT, d)
    distances = pairs.deltas()
    right = isl.Set.universe(distances.get_space())
    for d, move in enumerate(moves):
        right = right.fix_val(SET, d, isl.Val(move or 0))
    return not distances.is_subset(right)


def only(equation: Equation, dim: int) -> isl.Map:
    """`{ instance -> [its coordinate in one dimension] }`."""
    local = isl.LocalSpace.from_space(equation.domain.get_space())
    return isl.Map.from_aff(isl.Aff.var_on_domain(local, SET, dim)).intersect_domain(equation.domain)


def _unknown_accesses(equation: Equation) -> tuple[Access, ...]:
    return equation.reads + equation.writes


def _is_run(operand: KernelOperand, dim: int) -> bool:
    """Whether the operand's tiles at neighbours in `dim` are neighbours in memory, or the same if all rows share it."""
    *outer, last = slopes(operand.access, dim) or [0]
    return not any(outer) and last == (1 if operand.kind in ("read", "write") else 0)


def slopes(access: ir.AffineMap | None, dim: int) -> list[int | None]:
    """How each index of an access moves with one dimension."""
    return [] if access is None else [slope(e, dim) for e in access.results]
