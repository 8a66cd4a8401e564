"""Crews: the members of a team that share an owner's points, and what they wait for.

Where points are distributed and a team has more members than there are owners, its members are divided into *crews*,
one for each owner. A crew shares the units of each point, so it waits for itself between two steps of a wave where the
second needs, or overwrites, what the first touched. After a wave, a crew waits for those crews alone that touched, in
this wave or an earlier one, places of memory that it touches later. Both follow from accesses composed with the storage
of arrays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import islpy as isl

from parc.errors import CompileError
from parc.poly.affine import IN, OUT, SET
from parc.poly.dependences import dependences
from parc.poly.example import first_pair, first_point
from parc.poly.model import Access, Equation, System
from parc.poly.storage import sharing

MOST = 64
"""The largest number of crews: a set of them is one 64-bit number."""


@dataclass(frozen=True)
class Crews:
    """How a team whose system distributes points is divided, and when its members wait."""

    owners: int
    """How many owners there are, from 0 on, at all sizes: owner `o` is crew `o` of so many, modulo the team's size."""
    waits: tuple[int, ...]
    """For each owner, as a set of bits, the owners that it waits for after each wave; itself is one of them."""
    inside: frozenset[str]
    """The equations after whose steps a crew of several members waits for itself."""
    is_shared: bool
    """May a crew have several members?"""

    def members(self, team: int) -> int:
        """How many members a crew has in a team of so many."""
        return max(1, team // self.owners) if self.is_shared else 1


def find_crews(system: System, is_shared: bool) -> Crews | None:
    """The crews of a scheduled system that distributes points; None if sizes say how many owners there are.

    is_shared: may several members share the units of a point?
    """
    owners = _count(system)
    if owners is None:
        return None
    waits, inside = [1 << owner for owner in range(owners)], set()
    for equation in system.equations:
        later = _conflicts(system, equation)
        same = _same_wave(later)
        for earlier, owner in _owner_pairs(later.subtract(same)):
            waits[owner] |= 1 << earlier
        if is_shared and not later.intersect(same).is_empty():
            inside.add(equation.name)
    return Crews(owners, tuple(waits), frozenset(inside), is_shared)


def check_crews(system: System, crews: Crews) -> None:
    """Raise CompileError, with two instances, unless waiting keeps all dependences and all storage of a legal schedule.

    That is, of each two instances that touch the same place, one of them writing, the owner of the later one waits for
    that of the first after the wave of the first, or both are one owner's, which waits for itself inside their wave or
    has one member.
    """
    names = {e.name: e for e in system.equations}
    for d in dependences(system):
        _check(system, crews, names[d.source], names[d.sink], d.relation, d.read)
    for unknown in system.unknowns:
        same = sharing(unknown)
        if same.is_empty():
            continue
        for equation, access in _accesses(system, unknown.name):
            for writer, write in _accesses(system, unknown.name, "parc.write"):
                pairs = access.relation.apply_range(same).apply_range(write.relation.reverse())
                for first, second, one in ((equation, writer, pairs), (writer, equation, pairs.reverse())):
                    _check(system, crews, first, second, _in_order(first, second, one), access)


def _count(system: System) -> int | None:
    """How many owners there are; None if there is no such number, or it is too large."""
    found = []
    for equation in system.equations:
        assert equation.owner is not None, "only of a system that distributes points"
        found.append(equation.owner.range().project_out_all_params())
    owners = reduce(isl.Set.union, found)
    if owners.is_empty():
        return 1
    least, most = owners.dim_min_val(0), owners.dim_max_val(0)
    if not least.is_int() or not most.is_int() or least.to_python() < 0 or most.to_python() >= MOST:
        return None
    return int(most.to_python()) + 1


def _conflicts(system: System, equation: Equation) -> isl.Map:
    """`{ [time..., owner] -> [time..., owner] }` from those of an equation to later ones that touch the same place.

    At least one of the two writes it.
    """
    stamp = _stamp(equation)
    found = isl.Map.empty(stamp.range().get_space().map_from_set())
    for unknown in system.unknowns:
        for own in equation.reads + equation.writes:
            if own.array != unknown.name:
                continue
            kinds = ("parc.read", "parc.write") if own in equation.writes else ("parc.write",)
            here = own.relation.apply_range(unknown.storage).reverse().apply_range(stamp)
            for other, access in _accesses(system, unknown.name, *kinds):
                there = access.relation.apply_range(unknown.storage).reverse().apply_range(_stamp(other))
                found = found.union(here.reverse().apply_range(there).intersect(_before(equation)))
    return found.coalesce()


def _accesses(system: System, array: str, *kinds: str) -> Iterator[tuple[Equation, Access]]:
    """All accesses of equations to an unknown array, of these kinds where some are given."""
    for equation in system.equations:
        for access in equation.reads + equation.writes:
            if access.array == array and (not kinds or access.op.name in kinds):
                yield equation, access


def _stamp(equation: Equation) -> isl.Map:
    """`{ instance -> [time..., owner] }`"""
    assert equation.time is not None and equation.owner is not None
    return equation.time.flat_range_product(equation.owner)


def _before(equation: Equation) -> isl.Map:
    """`{ stamp -> stamp of a later time }`"""
    assert equation.time is not None
    return isl.Map.lex_lt(equation.time.range().get_space()).add_dims(IN, 1).add_dims(OUT, 1)


def _same_wave(stamps: isl.Map) -> isl.Map:
    """`{ stamp -> stamp of the same wave }` in the space of a relation of stamps."""
    return isl.Map.universe(stamps.get_space()).equate(IN, 0, OUT, 0)


def _owner_pairs(stamps: isl.Map) -> set[tuple[int, int]]:
    """The owners of all pairs of a relation of stamps."""
    rank = stamps.dim(OUT)
    owners = stamps.project_out(IN, 0, rank - 1).project_out(OUT, 0, rank - 1).project_out_all_params().wrap()
    found: set[tuple[int, int]] = set()
    owners.foreach_point(
        lambda p: found.add((p.get_coordinate_val(SET, 0).to_python(), p.get_coordinate_val(SET, 1).to_python()))
    )
    return found


def _in_order(first: Equation, second: Equation, pairs: isl.Map) -> isl.Map:
    """Those pairs of instances of which the first has the earlier time."""
    assert first.time is not None and second.time is not None
    before = isl.Map.lex_lt(first.time.range().get_space())
    return pairs.intersect(first.time.apply_range(before).apply_range(second.time.reverse()))


def _check(system: System, crews: Crews, first: Equation, second: Equation, pairs: isl.Map, access: Access) -> None:
    """Raise CompileError unless waits keep apart all pairs of instances that touch the same place."""
    stamps = pairs.apply_domain(_stamp(first)).apply_range(_stamp(second)) if not pairs.is_empty() else pairs
    if stamps.is_empty():
        return
    bad = stamps.subtract(_kept(crews, first, stamps))
    if bad.is_empty():
        return
    wrong = pairs.intersect(_stamp(first).apply_range(bad).apply_range(_stamp(second).reverse()))
    one, other = first_pair(wrong)
    workers = [
        first_point(e.owner.intersect_domain(p.as_set(e.domain.get_space())).range()).vector
        for e, p in ((first, one), (second, other))
        if e.owner is not None
    ]
    raise CompileError(
        f"{other.instance} (worker {workers[1]}) touches the same place of {access.array} as {one.instance} (worker "
        f"{workers[0]}){one.at_sizes}, but does not wait for it",
        second.op.location,
    )


def _kept(crews: Crews, first: Equation, stamps: isl.Map) -> isl.Map:
    """`{ stamp -> later stamp }`: pairs that waits keep apart, of instances of an equation and any others."""
    assert first.time is not None, "only of a scheduled system"
    rank, same = stamps.dim(OUT), _same_wave(stamps)
    own = isl.Map.universe(stamps.get_space()).equate(IN, rank - 1, OUT, rank - 1)
    kept = same.intersect(own)
    if crews.is_shared:
        step = _before(first)
        kept = kept.intersect(step) if first.name in crews.inside else isl.Map.empty(kept.get_space())
    waves = isl.Map.universe(stamps.get_space()).order_lt(IN, 0, OUT, 0)
    for owner, mask in enumerate(crews.waits):
        for earlier in range(crews.owners):
            if mask >> earlier & 1:
                pair = waves.fix_val(IN, rank - 1, isl.Val(earlier)).fix_val(OUT, rank - 1, isl.Val(owner))
                kept = kept.union(pair)
    return kept
