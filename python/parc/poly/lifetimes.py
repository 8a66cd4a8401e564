"""When the elements of an unknown array are in use: from the step that defines them to the last step that reads them.

Steps are compared as the threads of a system take them: one comes before another only if a barrier, or one thread's
own program, keeps them apart (docs/architecture.md, "Schedules").
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import islpy as isl

from parc.poly.affine import IN, OUT, SET
from parc.poly.example import Point, first_point
from parc.poly.model import Equation, System, Unknown

_GIVEN, _SOLVED, _TAKEN = range(3)
"""The phases of a system: boundaries are copied, equations run, results are taken out."""


@dataclass(frozen=True, eq=False)
class Use:
    """An access to elements of an array; a result *takes* them when all else is done."""

    kind: Literal["writes", "reads", "takes"]
    elements: isl.Map
    """`{ instance -> element }`"""
    stamp: isl.Map
    """`{ instance -> [phase, time..., owner] }`; the owner is 0 unless points are distributed."""

    def when(self) -> isl.Map:
        """`{ element -> stamp }`"""
        return self.elements.reverse().apply_range(self.stamp)


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """The uses of one array of a scheduled system."""

    uses: tuple[Use, ...]
    late: isl.Map
    """`{ stamp -> stamp }`: what has the first stamp may come after, or together with, what has the second."""

    def overlapping(self) -> isl.Map:
        """`{ element -> element }`, symmetric: neither is out of use when the other is defined."""
        used = _union(use.when() for use in self.uses)
        defined = _union(use.when() for use in self.uses if use.kind == "writes")
        still_used = used.apply_range(self.late).apply_range(defined.reverse())
        return still_used.intersect(still_used.reverse()).coalesce()

    def definition(self, element: Point) -> tuple[Point, Point]:
        """The instance that defines an element, and its stamp."""
        for use in self.uses:
            instances = self._instances(use, element)
            if use.kind == "writes" and not instances.is_empty():
                return first_point(instances), first_point(use.stamp.intersect_domain(instances).range())
        raise AssertionError("only what is defined is in use")

    def later_uses(self, element: Point, stamp: Point) -> Iterator[tuple[Use, Point]]:
        """Uses of an element, one of each access, that are not sure to come before a stamp."""
        for use in self.uses:
            moment = stamp.as_set(use.stamp.range().get_space())
            late = use.stamp.apply_range(self.late).intersect_range(moment).domain()
            instances = self._instances(use, element).intersect(late)
            if not instances.is_empty():
                yield use, first_point(instances)

    def _instances(self, use: Use, element: Point) -> isl.Set:
        return use.elements.intersect_range(element.as_set(use.elements.range().get_space())).domain()


def lifetimes(system: System, unknown: Unknown) -> Lifetimes:
    """When the elements of one array of a scheduled system are in use."""
    return Lifetimes(tuple(_uses(system, unknown)), _late(system))


def _uses(system: System, unknown: Unknown) -> Iterator[Use]:
    for boundary in system.boundaries:
        if boundary.target.array == unknown.name:
            relation = boundary.target.relation
            yield Use("writes", relation, _fixed(system, relation.domain(), _GIVEN))
    for equation in system.equations:
        stamp = _stamp(system, equation)
        yield from (Use("writes", a.relation, stamp) for a in equation.writes if a.array == unknown.name)
        yield from (Use("reads", a.relation, stamp) for a in equation.reads if a.array == unknown.name)
    if not unknown.taken.is_empty():
        itself = isl.Map.identity(unknown.taken.get_space().map_from_set()).intersect_domain(unknown.taken)
        yield Use("takes", itself, _fixed(system, unknown.taken, _TAKEN))


def _stamp(system: System, equation: Equation) -> isl.Map:
    assert equation.time is not None, "only of a scheduled system"
    owner = equation.owner if system.distribute == "points" else None
    if owner is None:
        owner = _constant(equation.domain, 0)
    return _constant(equation.domain, _SOLVED).flat_range_product(equation.time).flat_range_product(owner)


def _fixed(system: System, instances: isl.Set, phase: int) -> isl.Map:
    """The stamp of what has no time of its own."""
    stamp = _constant(instances, phase)
    for _ in range(_time_length(system) + 1):
        stamp = stamp.flat_range_product(_constant(instances, 0))
    return stamp


def _constant(instances: isl.Set, value: int) -> isl.Map:
    zero = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(instances.get_space()))
    return isl.Map.from_aff(zero.add_constant_val(isl.Val(value))).intersect_domain(instances)


def _time_length(system: System) -> int:
    (time, *_) = (e.time for e in system.equations)
    assert time is not None, "only of a scheduled system"
    return int(time.range_tuple_dim())


def _late(system: System) -> isl.Map:
    rank = _time_length(system) + 2
    space = isl.Space.set_alloc(isl.DEFAULT_CONTEXT, 0, rank)
    late = isl.Map.lex_ge(space.drop_dims(SET, rank - 1, 1)).add_dims(IN, 1).add_dims(OUT, 1)
    if system.distribute != "points":
        # With rows shared, a row is one thread's in every step; what shares memory has equal rows.
        return late
    # Inside one value of the first time coordinate there is no barrier, only each thread's own order.
    wave = isl.Map.universe(space.map_from_set()).equate(IN, 0, OUT, 0).equate(IN, 1, OUT, 1)
    apart = (order(wave, IN, rank - 1, OUT, rank - 1) for order in (isl.Map.order_lt, isl.Map.order_gt))
    return reduce(isl.Map.union, apart, late)


def _union(maps: Iterable[isl.Map]) -> isl.Map:
    return reduce(isl.Map.union, maps)
