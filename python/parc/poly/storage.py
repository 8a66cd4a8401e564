"""Which elements of an unknown array may share memory, and how few places it can do with."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import islpy as isl
from torch_mlir import ir

from parc.codegen.arrays import modulus
from parc.errors import CompileError
from parc.poly.affine import IN, OUT, SET, from_aff
from parc.poly.example import Point, first_pair
from parc.poly.lifetimes import Lifetimes, lifetimes
from parc.poly.model import Access, Equation, System, Unknown, storage_map
from parc.poly.rows import Cells
from parc.poly.runs import candidate, is_broken, neighbours

_MOST = 4096
"""The largest distance of elements in use together: beyond it an index is kept whole."""


def check_storage(system: System) -> None:
    """Raise CompileError, with two instances, if an element of a scheduled system is overwritten while in use."""
    for unknown in system.unknowns:
        if "storage" not in unknown.op.attributes:
            continue
        given = unknown.op.attributes["storage"].value.n_dims
        if given > unknown.indices:
            raise CompileError(
                f"the storage of {unknown.name} has {given} indices, but there is an access to it with "
                f"{unknown.indices or 'none'}",
                unknown.op.location,
            )
        alive = lifetimes(system, unknown)
        wrong = sharing(unknown).intersect(alive.overlapping())
        if not wrong.is_empty():
            raise _overwritten(unknown, alive, *first_pair(wrong))


def contract(system: System, unknown: Unknown, cells: Cells) -> ir.AffineMap | None:
    """The storage of an array of a scheduled system with few places: each index by itself modulo the least number.

    None where it stays as it is. Points of equal time whose tiles are neighbours in memory stay neighbours.
    Needs a current MLIR context.
    """
    rank, symbols = unknown.indices, len(system.symbols)
    exprs = [ir.AffineExpr.get_dim(d) for d in range(rank)]
    if not rank or not any(a.array == unknown.name for e in system.equations for a in e.writes):
        return None
    distances = lifetimes(system, unknown).overlapping().deltas().project_out_all_params()
    extents = ir.AffineMapAttr(unknown.op.attributes["shape"]).value.results
    for d in range(rank):
        for folded in _foldings(system, unknown, cells, distances, d):
            if isinstance(extents[d], ir.AffineConstantExpr) and modulus(folded) >= extents[d].value:
                break
            storage = ir.AffineMap.get(rank, symbols, [*exprs[:d], folded, *exprs[d + 1 :]])
            stored = with_storage(system, unknown, storage)
            if not any(is_broken(stored, *run) for run in _runs(stored, unknown, cells)):
                exprs[d] = folded
                break
        # Elements that differ in this index have different places now, if they are in use together.
        distances = distances.fix_val(SET, d, isl.Val(0))
    return ir.AffineMap.get(rank, symbols, exprs) if any(map(modulus, exprs)) else None


def with_storage(system: System, unknown: Unknown, storage: ir.AffineMap) -> System:
    """The same system as it would be with this `storage` of an unknown."""
    stored = replace(unknown, storage=storage_map(unknown.elements, storage))
    return replace(system, unknowns=tuple(stored if u.name == unknown.name else u for u in system.unknowns))


def sharing(unknown: Unknown) -> isl.Map:
    """`{ element -> another one with the same place }`."""
    same = unknown.storage.apply_range(unknown.storage.reverse())
    return same.subtract(isl.Map.identity(same.get_space()))


def _foldings(system: System, unknown: Unknown, cells: Cells, distances: isl.Set, d: int) -> Iterator[ir.AffineExpr]:
    """One index modulo the least number that is right for these distances, from different starts."""
    others = [k for k in range(distances.dim(SET)) if k != d]
    line = distances.reset_tuple_id()
    for k in reversed(others):
        line = line.project_out(SET, k, 1)
    most = line.dim_max_val(0)
    if not most.is_int() or most.to_python() > _MOST:
        return
    apart = [n for n in range(1, most.to_python() + 1) if _has(line, n)]
    step, starts = _run_starts(system, unknown, cells, d)
    size = next(m for m in count(step, step) if not any(n % m == 0 for n in apart))
    index = ir.AffineExpr.get_dim(d)
    for start in dict.fromkeys([*starts, ir.AffineExpr.get_constant(0)]):
        yield ir.AffineExpr.get_mod(index + start * -1, size)


def _has(line: isl.Set, value: int) -> bool:
    return not line.fix_val(SET, 0, isl.Val(value)).is_empty()


def _run_starts(system: System, unknown: Unknown, cells: Cells, d: int) -> tuple[int, list[ir.AffineExpr]]:
    """The length of the longest run of points that moves an index, and what the first or last run starts with."""
    length, starts = 1, []
    for equation, dim, access in _runs(system, unknown, cells):
        following = neighbours(equation, dim)
        if following.is_empty():
            continue
        together = _same_time(equation, dim).deltas().project_out_all_params().dim_max_val(dim)
        if not together.is_int():
            continue
        length = max(length, together.to_python() + 1)
        first = equation.domain.subtract(following.range()).apply(access.relation)
        last = equation.domain.subtract(following.domain()).apply(access.relation)
        starts += [*_pieces(first.dim_min(d)), *_pieces(last.dim_max(d).add_constant_val(isl.Val(1)))]
    return length, starts


def _same_time(equation: Equation, dim: int) -> isl.Map:
    """`{ instance -> instance of equal time }` on one line along a dimension."""
    assert equation.time is not None, "only of a scheduled system"
    pairs = equation.time.apply_range(equation.time.reverse())
    for k in range(equation.domain.dim(SET)):
        if k != dim:
            pairs = pairs.equate(IN, k, OUT, k)
    return pairs


def _pieces(value: isl.PwAff) -> list[ir.AffineExpr]:
    """The affine functions that a number is, at one size or another."""
    functions: list[ir.AffineExpr] = []
    value.foreach_piece(lambda _, aff: functions.append(from_aff(aff)))
    return functions


def _runs(system: System, unknown: Unknown, cells: Cells) -> Iterator[tuple[Equation, int, Access]]:
    """The accesses to an array by equations whose points make runs while nothing is folded, with their dimension."""
    for equation in system.equations:
        accesses = [a for a in equation.reads + equation.writes if a.array == unknown.name]
        dim = candidate(system, equation, cells[equation.name]) if accesses else None
        if dim is not None:
            yield from ((equation, dim, access) for access in accesses)


def _overwritten(unknown: Unknown, alive: Lifetimes, one: Point, other: Point) -> CompileError:
    """What to say of two elements with one place that are in use together."""
    (first, first_stamp), (second, stamp) = alive.definition(one), alive.definition(other)
    if stamp.values < first_stamp.values:
        one, other, second, stamp = other, one, first, first_stamp
    use, user = next(alive.later_uses(one, stamp))
    still = "is a result," if use.kind == "takes" else f"{user.instance} {use.kind} no earlier"
    return CompileError(
        f"{second.instance} writes {other.element} in the place of {one.element}, which {still}{one.at_sizes}",
        unknown.op.location,
    )
