"""The layers of a system: which equations belong to one unit of a wave.

The strongly connected components of the equations are its recurrences.  An equation that is no recurrence and whose
values only one recurrence uses (the input product of a layer) belongs to that one; one that nothing uses belongs to
the recurrence that it reads, if that is a single one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parc.poly.dependences import Dependence
from parc.poly.model import System


@dataclass(frozen=True)
class Group:
    """Equations that share their time: a recurrence (`core`) and what feeds only it and what only it feeds."""

    before: tuple[str, ...]
    core: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def equations(self) -> tuple[str, ...]:
        """All equations; each after those that it reads at equal times, as far as the system's order tells."""
        return self.before + self.core + self.after


def partition(system: System, dependences: Iterable[Dependence]) -> tuple[Group, ...]:
    """The groups of a system, each after those that it reads."""
    names = [e.name for e in system.equations]
    edges = {(d.source, d.sink) for d in dependences}
    recurrent = {source for source, sink in edges if source == sink}
    components = strong_components(names, edges)
    core_of = {name: component for component in components for name in component}
    recurrent |= {name for component in components if len(component) > 1 for name in component}

    def others(name: str, position: int) -> set[tuple[str, ...]]:
        """The groups of the sources (position 0) or sinks (1) of a single equation's edges."""
        return {core_of[edge[position]] for edge in edges if edge[1 - position] == name}

    members: dict[tuple[str, ...], tuple[list[str], list[str]]] = {c: ([], []) for c in components}
    for name, *more in reversed(components):
        if more or name in recurrent:
            continue
        users, sources = others(name, 1), others(name, 0)
        if len(users) == 1:
            core_of[name] = target = users.pop()
            members[target][0].insert(0, name)
    for name, *more in components:
        if more or name in recurrent or core_of[name] != (name,) or members[(name,)][0]:
            continue
        sources = others(name, 0)
        if not others(name, 1) and len(sources) == 1:
            core_of[name] = target = sources.pop()
            members[target][1].append(name)
    groups = [Group(tuple(b), core, tuple(a)) for core, (b, a) in members.items() if core_of[core[0]] == core]
    return _in_order(groups, edges, names)


def strong_components(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Strongly connected components, sources before sinks (R. Tarjan, 1972); members in the order of `names`."""
    sources: dict[str, list[str]] = {name: [] for name in names}
    for source, sink in sorted(edges, key=lambda e: (names.index(e[0]), names.index(e[1]))):
        sources[sink].append(source)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for source in sources[name]:
            if source not in index:
                visit(source)
            if source in stack:
                low[name] = min(low[name], low[source])
        if low[name] == index[name]:
            position = stack.index(name)
            found.append(tuple(sorted(stack[position:], key=list(names).index)))
            del stack[position:]

    for name in names:
        if name not in index:
            visit(name)
    return found


def levels(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, int] | None:
    """For each name the length of the longest path of edges that ends there; None when there is a cycle."""
    edges = [e for e in edges if e[0] in names and e[1] in names]
    if any(source == sink for source, sink in edges):
        return None
    result: dict[str, int] = {}
    for component in strong_components(names, edges):
        if len(component) > 1:
            return None
        (name,) = component
        result[name] = max((result[source] + 1 for source, sink in edges if sink == name), default=0)
    return result


def _in_order(groups: list[Group], edges: set[tuple[str, str]], names: list[str]) -> tuple[Group, ...]:
    """Groups sorted so that each follows those it reads; of those that could be next, the first in the program."""
    group_of: Mapping[str, Group] = {name: g for g in groups for name in g.equations}
    waits = {g: {group_of[s] for s, d in edges if group_of[d] is g and group_of[s] is not g} for g in groups}
    first = {g: min(map(names.index, g.core)) for g in groups}
    done: list[Group] = []
    while len(done) < len(groups):
        ready = [g for g in groups if g not in done and waits[g] <= set(done)]
        done.append(min(ready, key=first.__getitem__))
    return tuple(done)
