"""The wave of every instance: how early it can run when each layer's point takes one unit of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import islpy as isl

from parc.poly.affine import IN, OUT, SET
from parc.poly.dependences import Dependence
from parc.poly.groups import Group, levels, partition
from parc.poly.model import System
from parc.poly.timing import AffineTime, solve
from parc.poly.uniform import solve_uniform


@dataclass(frozen=True)
class Times:
    """When the instances of a group's equations run."""

    wave: Mapping[str, AffineTime]
    level: Mapping[str, int]
    """The order of the equations inside one wave: an equation runs after those of smaller level that it reads there."""

    def is_constant(self, name: str) -> bool:
        """Are all instances of an equation in one wave?"""
        return not any(self.wave[name].dims)


@dataclass(frozen=True)
class Layer:
    """A group of equations with its times."""

    group: Group
    whole: Times
    """Waves counted over the whole system; dependences between layers span at least one."""
    local: Times
    """The same, as if the layers that it reads were complete."""
    phase: Mapping[str, int]
    """The order of the equations inside a tile of waves: the recurrence is one phase, and what only feeds it comes in
    earlier ones, all waves of the tile at once."""
    has_independent_points: bool
    """Has a wave several points, of which those that need each other have the same first index?"""

    def tile(self, steps: int) -> int:
        """How many waves of the recurrence a tile of so many steps has: 1 where all its points are in one."""
        return 1 if all(self.whole.is_constant(name) for name in self.group.core) else steps

    def is_dealt(self, steps: int) -> bool:
        """Can different workers have points of one tile of so many steps, dealt out by their first index?"""
        return self.has_independent_points and self.tile(steps) == 1


def waves(system: System, dependences: Sequence[Dependence]) -> tuple[Layer, ...] | None:
    """The wavefront of a system, one layer after another; None when a layer has no affine one-dimensional time.

    Each layer starts as early as the ones that it reads allow: a stack of L layers over T steps has T + L - 1 waves.
    Where a layer needs all of another one (a reversed sequence, a last state) its time starts with a symbol, as in
    `T + t`: the two follow one another.
    """
    fixed: dict[str, AffineTime] = {}
    layers: list[Layer] = []
    for group in partition(system, dependences):
        inside = [d for d in dependences if d.sink in group.equations and d.source in group.equations]
        outside = [d for d in dependences if d.sink in group.equations and d.source not in group.equations]
        whole = _solve(system, group, inside, outside, fixed)
        local = _solve(system, group, inside, [], {}) if outside else whole
        if whole is None or local is None:
            return None
        fixed |= whole.wave
        independent = _has_independent_points(system, inside, whole.wave)
        layers.append(Layer(group, whole, local, _phases(group, inside), independent))
    return tuple(layers)


def _has_independent_points(system: System, inside: Sequence[Dependence], wave: Mapping[str, AffineTime]) -> bool:
    if not all(len(time.dims) > 1 or time.dims == (0,) for time in wave.values()):
        return False
    for dependence in inside:
        relation = dependence.relation
        same = relation.equate(IN, 0, OUT, 0)
        apart = replace(dependence, relation=relation.subtract(same))
        if not apart.relation.is_empty() and _meets(system, apart, wave):
            return False
    return True


def _phases(group: Group, inside: Sequence[Dependence]) -> dict[str, int]:
    """Equations outside the recurrence have no cycles, so each can follow all points of those that it reads."""
    phases: dict[str, int] = {}
    first = 0
    for part in (group.before, group.core, group.after):
        edges = [(d.source, d.sink) for d in inside if part is not group.core]
        depth = levels(part, edges)
        assert depth is not None, "only the core has a cycle"
        phases |= {name: first + depth[name] for name in part}
        first += 1 + max(depth.values(), default=-1)
    return phases


def _solve(
    system: System,
    group: Group,
    inside: Sequence[Dependence],
    outside: Sequence[Dependence],
    fixed: Mapping[str, AffineTime],
) -> Times | None:
    """The smallest times of one group."""
    equations = [system.equation(name) for name in group.equations]
    together = _one_point_a_wave(group, inside)
    if not outside:
        uniform = [solve_uniform(system, equations, spans) for spans in (together, _row_by_row(group, inside))]
        found = [_with_levels(system, group, inside, times) for times in uniform if times is not None]
        if any(found):
            return min((times for times in found if times is not None), key=_slope)
    for spans in (together, dict.fromkeys(inside, 1)):
        times = solve(system, equations, spans | dict.fromkeys(outside, 1), fixed)
        ordered = None if times is None else _with_levels(system, group, inside, times)
        if ordered is not None:
            return ordered
    return None


def _with_levels(
    system: System, group: Group, inside: Sequence[Dependence], times: Mapping[str, AffineTime]
) -> Times | None:
    """Waves with the order inside each; None when equations need each other in one wave."""
    level = levels(group.equations, [(d.source, d.sink) for d in inside if _meets(system, d, times)])
    return None if level is None else Times(times, level)


def _slope(times: Times) -> tuple[int, int]:
    """Less for fewer waves: how much time a step along each dimension takes, and what comes on top."""
    return max((sum(time.dims), time.constant) for time in times.wave.values())


def _row_by_row(group: Group, inside: Sequence[Dependence]) -> dict[Dependence, int]:
    """The least span of the dependences in a group when a wave can have several points of a row.

    Those that go forward in the program and stay in a row can stay in the wave too; workers can have rows of their own.
    """
    place = {name: i for i, name in enumerate(group.equations)}
    rows = {d: d.relation.is_subset(d.relation.equate(IN, 0, OUT, 0)) for d in inside}
    return {d: int(not rows[d] or place[d.source] >= place[d.sink]) for d in inside}


def _one_point_a_wave(group: Group, inside: Sequence[Dependence]) -> dict[Dependence, int]:
    """The least span of the dependences in a group: 0 for those that can stay in one wave, else 1.

    In a cycle of equations (a cell and its gates) those from a point to the same point of another equation stay in the
    wave; where no equation is read so, those that go forward in the program.
    """
    cycle = [d for d in inside if d.source in group.core and d.sink in group.core and d.source != d.sink]
    stay = [d for d in cycle if is_identity(d.relation)]
    if not stay:
        stay = [d for d in cycle if group.core.index(d.source) < group.core.index(d.sink)]
    return {d: int(d.source == d.sink or (d in cycle and d not in stay)) for d in inside}


def is_identity(relation: isl.Map) -> bool:
    """Does a dependence go from each point to the same point of the same, or another, equation?"""
    if relation.domain_tuple_dim() != relation.range_tuple_dim():
        return False
    plain = relation.reset_tuple_id(IN).reset_tuple_id(OUT)
    return plain.is_subset(isl.Map.identity(plain.get_space()))


def _meets(system: System, dependence: Dependence, times: Mapping[str, AffineTime]) -> bool:
    """Are there a source and a sink of the dependence in the same wave?"""
    distances = time_distances(system, dependence, times)
    return not distances.intersect(isl.Set.universe(distances.get_space()).fix_val(SET, 0, isl.Val(0))).is_empty()


def time_distances(system: System, dependence: Dependence, times: Mapping[str, AffineTime]) -> isl.Set:
    """`{ [time(sink) - time(source)] }` over all pairs of a dependence."""
    source, sink = (
        isl.Map.from_aff(times[name].aff(system.equation(name).domain)) for name in (dependence.source, dependence.sink)
    )
    return dependence.relation.apply_domain(source).apply_range(sink).deltas()
