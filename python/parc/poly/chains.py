"""Points of an equation that follow each other on one thread: one call of a kernel computes a *chain* of them.

In a system that distributes points a thread meets no barrier inside one value of the first time coordinate, a wave.
Where all that an equation needs of its wave is its own point one step back, element by element, a thread may go through
the points line by line, and what one point hands to the next need not reach memory (`codegen/chain.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import islpy as isl
from torch_mlir import ir

from parc.codegen.cell import Cell, KernelOperand
from parc.codegen.chain import Carry, can_carry
from parc.errors import CompileError
from parc.poly.affine import OUT, SET
from parc.poly.dependences import Dependence, dependences
from parc.poly.legality import check_schedule
from parc.poly.model import Access, Equation, System
from parc.poly.rows import Cells
from parc.poly.runs import is_broken, neighbours, only, slopes
from parc.poly.storage import check_storage


@dataclass(frozen=True)
class Chain:
    """The lines of an equation's points."""

    dim: int
    """The dimension of the domain that a line goes along."""
    carry: Carry


def find_chains(system: System, cells: Cells) -> tuple[System, Mapping[str, Chain]]:
    """The chains of a scheduled system, by equation; and the system in which all points of a line have one time."""
    if system.distribute != "points":
        return system, {}
    flow = dependences(system)
    found = {e.name: chain for e in system.equations if (chain := _chain(system, flow, e, cells[e.name])) is not None}
    if not found:
        return system, {}
    try:
        point_by_point = _retimed(system, found, with_points=True)
        check_schedule(point_by_point, flow)
        check_storage(point_by_point)
    except CompileError:
        return system, {}
    return _retimed(system, found, with_points=False), found


def _chain(system: System, flow: Sequence[Dependence], equation: Equation, cell: Cell | None) -> Chain | None:
    """The chain of an equation; None where it has none."""
    if cell is None or cell.products or not any(d.source == d.sink == equation.name for d in flow):
        return None
    inside = [d for d in flow if equation.name in (d.source, d.sink) and not _in_wave(system, d).is_empty()]
    if not inside or any(d.source != d.sink for d in inside):
        return None
    for dim in range(equation.domain.dim(SET)):
        line = replace(equation, time=_line(equation, dim))
        following = neighbours(line, dim)
        if all(_in_wave(system, d).is_subset(following) for d in inside):
            return _along(system, flow, line, cell, dim, following)
    return None


def _along(
    system: System, flow: Sequence[Dependence], line: Equation, cell: Cell, dim: int, following: isl.Map
) -> Chain | None:
    """The chain along a dimension of an equation that has one time for each line; None where it cannot be one.

    following: `{ point -> the next one of its line }`
    """
    states: dict[int, int] = {}
    kept: set[int] = set()
    reads: set[ir.Operation] = set()
    last = line.domain.subtract(following.domain())
    for access, write in product(line.reads, line.writes):
        read, written = _operand(cell, access, "read"), _operand(cell, write, "write")
        if read is None or written is None or not _hands_on(write, access, following):
            continue
        if can_carry(cell, read, written):
            states[read] = written
            reads.add(access.op)
            if _needed(system, flow, line, write, following).is_subset(last):
                kept.add(written)
    if any(d.read.op not in reads for d in flow if d.source == d.sink == line.name and not _is_apart(d, following)):
        return None
    moving = [o for n, o in enumerate(cell.operands) if n not in states and n not in kept]
    if any(_is_uneven(system, line, dim, o) for o in moving):
        return None
    return Chain(dim, Carry(tuple(states.items()), frozenset(kept)))


def _is_apart(dependence: Dependence, following: isl.Map) -> bool:
    """Is no pair of a dependence one of neighbours in a line?"""
    return dependence.relation.is_disjoint(following)


def _hands_on(write: Access, read: Access, following: isl.Map) -> bool:
    """Does each point read just what the one before it in its line wrote?"""
    handed_on = following.reverse().apply_range(write.relation) if write.array == read.array else None
    return handed_on is not None and read.relation.is_single_valued() and handed_on.is_subset(read.relation)


def _needed(system: System, flow: Sequence[Dependence], line: Equation, write: Access, following: isl.Map) -> isl.Set:
    """The points whose tile is read from memory: not by the next point of the line."""
    needed = write.relation.intersect_range(system.unknown(write.array).taken).domain()
    for d in flow:
        if d.source == line.name and d.array == write.array:
            by_others = d.relation.subtract(following) if d.sink == line.name else d.relation
            needed = needed.union(by_others.domain())
    return needed


def _is_uneven(system: System, line: Equation, dim: int, operand: KernelOperand) -> bool:
    """Are the tiles of an operand at points of a line not at equal distances in memory?"""
    if None in slopes(operand.access, dim):
        return True
    accesses = (a for a in line.reads + line.writes if _array(a) == operand.array and _map(a) == operand.access)
    return any(is_broken(system, line, dim, a) for a in accesses)


def _operand(cell: Cell, access: Access, kind: str) -> int | None:
    """The operand of a cell that an access is."""
    found = (
        n
        for n, o in enumerate(cell.operands)
        if o.kind == kind and o.array == _array(access) and o.access == _map(access)
    )
    return next(found, None)


def _array(access: Access) -> ir.Value:
    return access.op.operands[1 if access.op.name == "parc.write" else 0]


def _map(access: Access) -> ir.AffineMap:
    return ir.AffineMapAttr(access.op.attributes["at"]).value


def _in_wave(system: System, dependence: Dependence) -> isl.Map:
    """The pairs of a dependence that are in one wave."""
    source, sink = (_wave(system.equation(name)) for name in (dependence.source, dependence.sink))
    return dependence.relation.intersect(source.apply_range(sink.reverse()))


def _wave(equation: Equation) -> isl.Map:
    """`{ instance -> [first time coordinate] }`"""
    assert equation.time is not None, "only of a scheduled system"
    return equation.time.project_out(OUT, 1, equation.time.range_tuple_dim() - 1)


def _line(equation: Equation, dim: int) -> isl.Map:
    """`{ instance -> [wave, owner, every other dimension] }`: the points of a line have one time."""
    assert equation.owner is not None
    time = _wave(equation).flat_range_product(equation.owner)
    for d in range(equation.domain.dim(SET)):
        if d != dim:
            time = time.flat_range_product(only(equation, d))
    return time


def _retimed(system: System, chains: Mapping[str, Chain], *, with_points: bool) -> System:
    """The system in which chains go line by line; with a time for each point of a line, or with one for all."""
    times = {}
    for equation in system.equations:
        time = equation.time
        if equation.name in chains:
            dim = chains[equation.name].dim
            time = _line(equation, dim)
            time = time.flat_range_product(only(equation, dim)) if with_points else time
        assert time is not None
        times[equation.name] = time
    length = max(t.range_tuple_dim() for t in times.values())
    return replace(
        system,
        equations=tuple(replace(e, time=_padded(times[e.name], length)) for e in system.equations),
    )


def _padded(time: isl.Map, length: int) -> isl.Map:
    """A time vector with zeros behind it."""
    for d in range(time.range_tuple_dim(), length):
        time = time.add_dims(OUT, 1).fix_val(OUT, d, isl.Val(0))
    return time
