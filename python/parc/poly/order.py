"""An order for a system of any shape, or the proof that there is none: a cycle of instances that need each other."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import islpy as isl
from torch_mlir import ir

from parc.errors import CompileError
from parc.poly.affine import IN, OUT, PARAM, SET, as_function, dimension_names, from_aff
from parc.poly.dependences import Dependence
from parc.poly.example import Point
from parc.poly.groups import strong_components
from parc.poly.model import System

_LARGEST = 6
"""Cycles are looked for at sizes up to this one: those of affine systems show at small sizes."""


def any_order(system: System, flow: Sequence[Dependence]) -> dict[str, list[ir.AffineExpr]]:
    """A time vector for each equation that keeps all dependences, found by isl's scheduler (S. Verdoolaege).

    Needs a current MLIR context.  Raises CompileError with a cycle of instances when there is no order.
    """
    # isl takes a point that needs itself for no constraint at all.
    if any(_has_loop(dependence) for dependence in flow):
        raise _no_order(system, flow)
    domain = isl.UnionSet.empty(isl.Space.params_alloc(isl.DEFAULT_CONTEXT, 0))
    for equation in system.equations:
        domain = domain.union(isl.UnionSet.from_set(equation.domain))
    validity = isl.UnionMap.empty(domain.get_space())
    for dependence in flow:
        validity = validity.union(isl.UnionMap.from_map(dependence.relation))
    try:
        schedule = isl.ScheduleConstraints.on_domain(domain).set_validity(validity).compute_schedule().get_map()
    except isl.Error:
        raise _no_order(system, flow) from None
    times: dict[str, list[ir.AffineExpr]] = {e.name: [] for e in system.equations}
    parts = schedule.get_map_list()
    for part in (parts.get_at(i) for i in range(parts.n_map())):
        function = as_function(part)
        if function is None:
            raise CompileError(f"the order {part} has no form as one affine map", system.op.location)
        times[part.get_tuple_name(IN)] = [from_aff(function.get_at(i)) for i in range(function.dim(OUT))]
    longest = max(map(len, times.values()))
    return {name: time + [ir.AffineExpr.get_constant(0)] * (longest - len(time)) for name, time in times.items()}


def find_cycle(system: System, flow: Iterable[Dependence]) -> list[tuple[Point, str]] | None:
    """A cycle at small sizes as (instance, the array through which it needs the next one); the last needs the first."""
    flow = list(flow)
    components = strong_components([e.name for e in system.equations], [(d.source, d.sink) for d in flow])
    flow = [d for d in flow if any(d.source in c and d.sink in c for c in components)]
    for size in range(1, _LARGEST + 1):
        sizes = tuple((symbol, size) for symbol in system.symbols)
        needs: dict[Point, list[tuple[Point, str]]] = {}
        for dependence in flow:
            for source, sink in _pairs(dependence, sizes):
                needs.setdefault(sink, []).append((source, dependence.array))
        cycle = _cycle(needs)
        if cycle is not None:
            return cycle
    return None


def _pairs(dependence: Dependence, sizes: tuple[tuple[str, int], ...]) -> list[tuple[Point, Point]]:
    relation = dependence.relation
    for i, (_, size) in enumerate(sizes):
        relation = relation.fix_val(PARAM, i, isl.Val(size))
    split = relation.domain_tuple_dim()
    found: list[tuple[Point, Point]] = []

    def add(point: isl.Point) -> None:
        values = tuple(point.get_coordinate_val(SET, i).to_python() for i in range(split + relation.range_tuple_dim()))
        ends = ((dependence.source, values[:split]), (dependence.sink, values[split:]))
        source, sink = (Point(name, dimension_names(len(at), ()), at, sizes) for name, at in ends)
        found.append((source, sink))

    relation.wrap().foreach_point(add)
    return found


def _cycle(needs: Mapping[Point, list[tuple[Point, str]]]) -> list[tuple[Point, str]] | None:
    """A cycle in a graph, by depth-first search without recursion."""
    done: set[Point] = set()
    for start in needs:
        path: list[tuple[Point, list[tuple[Point, str]]]] = [(start, list(needs[start]))]
        on_path = {start}
        while path and start not in done:
            here, rest = path[-1]
            if not rest:
                done.add(here)
                on_path.discard(here)
                path.pop()
                continue
            there, array = rest.pop()
            if there in on_path:
                points = [point for point, _ in path]
                points = points[points.index(there) :] + [there]
                return [(a, next(x for p, x in needs[a] if p == b)) for a, b in pairwise(points)]
            if there in needs and there not in done:
                path.append((there, list(needs[there])))
                on_path.add(there)
    return None


def _has_loop(dependence: Dependence) -> bool:
    """Is there a point that needs itself?"""
    relation = dependence.relation
    return dependence.source == dependence.sink and not relation.is_disjoint(isl.Map.identity(relation.get_space()))


def _no_order(system: System, flow: Sequence[Dependence]) -> CompileError:
    """What to say of a system for which no order was found."""
    cycle = find_cycle(system, flow)
    if cycle is None:
        everything = ", ".join(e.name for e in system.equations)
        return CompileError(f"no affine order of {everything} was found", system.op.location)
    names = list(dict.fromkeys(point.name for point, _ in cycle))
    arrays = ", ".join(dict.fromkeys(array for _, array in cycle))
    start = cycle[0][0]
    who = (
        f"the equation {names[0]} has no order, it needs itself through {arrays}"
        if len(names) == 1
        else f"the equations {', '.join(names)} have no order, they need each other through {arrays}"
    )
    steps = " needs ".join(point.instance for point, _ in cycle)
    location = system.equation(start.name).op.location
    return CompileError(f"{who}: {steps} needs {start.instance}{start.at_sizes}", location)
