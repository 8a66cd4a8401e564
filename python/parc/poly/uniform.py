"""Times of uniform recurrences in several dimensions: `time(x) = a . x + offset`, with one `a` for all equations.

In such a recurrence (a stack of convolutions) every dependence has a distance d that is the same at all points: it is
kept when `a . d + offset of the sink - offset of the source` is large enough.  For a given `a` the smallest offsets are
longest paths; there are none when some circle of dependences takes no time (R. Karp, R. Miller, S. Winograd: The
organization of computations for uniform recurrence equations, JACM 1967; L. Lamport, CACM 1974).  Each such circle is a
constraint on `a`, of which the integer program that gives `a` has as many as are needed: it stays as small as the
number of dimensions, however many equations there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import islpy as isl

from parc.poly.affine import IN, OUT, SET
from parc.poly.dependences import Dependence
from parc.poly.model import Equation, System
from parc.poly.timing import AffineTime

_MOST_CIRCLES = 1000


@dataclass(frozen=True)
class Edge:
    """A dependence: its distance, and the time that it spans at least."""

    source: str
    sink: str
    distance: tuple[int, ...]
    least: int


def solve_uniform(
    system: System, group: Sequence[Equation], least: Mapping[Dependence, int]
) -> dict[str, AffineTime] | None:
    """The smallest times, of `a` without negative numbers, of the equations of a group.

    Each dependence in `least`, all inside the group, spans at least that much time.  None where the recurrence is not
    uniform, or has one dimension, or no such times exist.
    """
    ranks = {e.domain.dim(SET) for e in group}
    if len(ranks) != 1 or max(ranks) < 2 or not all(_starts_at_zero(e.domain) for e in group):
        return None
    edges = []
    for dependence, span in least.items():
        distance = _distance(dependence)
        if distance is None:
            return None
        edges.append(Edge(dependence.source, dependence.sink, distance, span))
    found = direction_and_offsets(edges, [e.name for e in group], _weights(group))
    if found is None:
        return None
    direction, offsets = found
    symbols = (0,) * len(system.symbols)
    return {name: AffineTime(direction, symbols, offset) for name, offset in offsets.items()}


def direction_and_offsets(
    edges: Sequence[Edge], names: Sequence[str], weights: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], dict[str, int]] | None:
    """The `a` of fewest waves, and the smallest offsets of the equations with these names; None when there are none.

    `weights` say of each dimension whether its size is a symbol (1, 0) or how many steps it has (0, n): the numbers in
    `a` count by these, first those of sizes that are symbols.
    """
    circles: list[tuple[tuple[int, ...], int]] = []
    while len(circles) < _MOST_CIRCLES:
        direction = _direction(weights, circles)
        if direction is None:
            return None
        offsets = _longest_paths(names, edges, direction)
        if isinstance(offsets, dict):
            return direction, offsets
        total = tuple(map(sum, zip(*(e.distance for e in offsets), strict=True)))
        circles.append((total, sum(e.least for e in offsets)))
    return None


def _starts_at_zero(domain: isl.Set) -> bool:
    bounded = domain
    for d in range(domain.dim(SET)):
        bounded = bounded.lower_bound_val(SET, d, isl.Val(0))
    return domain.is_subset(bounded)


def _distance(dependence: Dependence) -> tuple[int, ...] | None:
    """How far the sink is from the source, where that is the same at all points and sizes."""
    relation = dependence.relation.reset_tuple_id(IN).reset_tuple_id(OUT)
    found = relation.deltas().project_out_all_params()
    if not found.is_singleton():
        return None
    point = found.sample_point()
    return tuple(point.get_coordinate_val(SET, d).to_python() for d in range(found.dim(SET)))


def _weights(group: Sequence[Equation]) -> list[tuple[int, int]]:
    """How the numbers in `a` count, for each dimension."""
    weights = []
    for d in range(group[0].domain.dim(SET)):
        ends = [e.domain.project_out_all_params().dim_max_val(d) for e in group]
        known = all(end.is_int() for end in ends)
        weights.append((0, max(end.to_python() for end in ends)) if known else (1, 0))
    return weights


def _direction(
    weights: Sequence[tuple[int, int]], circles: Sequence[tuple[tuple[int, ...], int]]
) -> tuple[int, ...] | None:
    """The smallest `a` that gives each circle (its distance, the time it takes at least) enough time."""
    rank = len(weights)
    names = [f"a{d}" for d in range(rank)]
    constraints = [f"{name} >= 0" for name in names]
    for column, total in enumerate(("open", "known")):
        terms = [f"{w[column]} {name}" for w, name in zip(weights, names, strict=True)]
        constraints.append(f"{total} = {' + '.join(terms)}")
    for distance, time in circles:
        terms = [f"{c} {name}" for c, name in zip(distance, names, strict=True)]
        constraints.append(f"{' + '.join(terms)} >= {time}")
    order = ["open", "known", *names]
    best = isl.BasicSet(f"{{ [{', '.join(order)}] : {' and '.join(constraints)} }}").lexmin()
    if best.is_empty():
        return None
    point = best.sample_point()
    return tuple(point.get_coordinate_val(SET, 2 + d).to_python() for d in range(rank))


def _longest_paths(
    names: Sequence[str], edges: Sequence[Edge], direction: Sequence[int]
) -> dict[str, int] | list[Edge]:
    """The smallest offsets for this `a`; or a circle of edges that has too little time."""
    need = {e: e.least - sum(a * d for a, d in zip(direction, e.distance, strict=True)) for e in edges}
    offsets = dict.fromkeys(names, 0)
    last: dict[str, Edge] = {}
    for _ in names:
        grown = [e for e, time in need.items() if _grow(offsets, e, time)]
        last |= {e.sink: e for e in grown}
        if not grown:
            return offsets
    # What still grows after as many rounds as there are equations is on a circle, or behind one.
    name = grown[-1].sink
    for _ in names:
        name = last[name].source
    circle = [last[name]]
    while circle[-1].source != name:
        circle.append(last[circle[-1].source])
    return circle


def _grow(offsets: dict[str, int], edge: Edge, time: int) -> bool:
    """Make the sink of an edge late enough; whether it was not."""
    enough = offsets[edge.source] + time
    if offsets[edge.sink] >= enough:
        return False
    offsets[edge.sink] = enough
    return True
