"""Which repeated operations form one equation, and in which order the systems are solved.

Operations that depend on each other in a cycle (a strongly connected component of the graph of
repetitions) are one recurrence: its cell is one equation.  An operation outside any cycle joins the
only equation that uses its results in the same step; otherwise it is an equation of its own.
"""

from collections import defaultdict
from dataclasses import dataclass

from parc.recurrence.reads import FromOutside, FromSequence, FromStep, Recurrences, is_early
from parc.recurrence.trace import Node, Source


@dataclass
class Group:
    """The repetitions that make one equation."""

    repetitions: list[int]
    is_recurrent: bool
    #: Systems are solved in order of level; a group reads groups of its own level and results of lower ones.
    level: int = 0


def find_groups(found: Recurrences) -> list[Group]:
    """Partition the repetitions, in program order."""
    count = len(found.reads)
    users: dict[int, list[tuple[int, FromStep]]] = defaultdict(list)
    for r, reads in enumerate(found.reads):
        for read in reads:
            if isinstance(read, FromStep):
                users[read.repetition].append((r, read))
    component = _components(count, users)
    members: dict[int, list[int]] = defaultdict(list)
    for r in range(count):
        members[component[r]].append(r)
    recurrent = {c for c, rs in members.items() if len(rs) > 1 or any(u == rs[0] for u, _ in users[rs[0]])}

    home: dict[int, tuple[int, int]] = {}  # repetition -> (component it joins, subgroup of equal extents)
    for r in sorted(range(count), key=lambda r: (component[r], r), reverse=True):
        c = component[r]
        if c in recurrent:
            home[r] = (c, _extent_class(found, members[c], r))
            continue
        wanted = {home[u] for u, read in users[r] if u in home}
        same_step = all(read.at.is_identity and not read.given and _same_extent(found, r, u) for u, read in users[r])
        home[r] = wanted.pop() if same_step and len(wanted) == 1 and users[r] else (c, 0)
    parts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for r in range(count):
        parts[home[r]].append(r)
    groups = [Group(rs, key[0] in recurrent) for key, rs in parts.items()]
    _assign_levels(found, groups)
    return groups


def _same_extent(found: Recurrences, a: int, b: int) -> bool:
    return found.first[a] == found.first[b] and found.count[a] == found.count[b]


def _extent_class(found: Recurrences, members: list[int], r: int) -> int:
    """Members of one cycle that run in other steps are an equation of their own."""
    return next(m for m in members if _same_extent(found, m, r))


def _components(count: int, users: dict[int, list[tuple[int, FromStep]]]) -> list[int]:
    """Strongly connected components (Tarjan, iterative), numbered so that users come after producers."""
    number, low, component = [-1] * count, [0] * count, [-1] * count
    stack: list[int] = []
    finished: list[list[int]] = []
    counter = 0
    for root in range(count):
        if number[root] >= 0:
            continue
        work = [(root, iter([u for u, _ in users[root]]))]
        number[root] = low[root] = counter
        counter += 1
        stack.append(root)
        while work:
            node, successors = work[-1]
            for following in successors:
                if number[following] < 0:
                    number[following] = low[following] = counter
                    counter += 1
                    stack.append(following)
                    work.append((following, iter([u for u, _ in users[following]])))
                    break
                if component[following] < 0:
                    low[node] = min(low[node], number[following])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    members = []
                    while True:
                        members.append(stack.pop())
                        component[members[-1]] = len(finished)
                        if members[-1] == node:
                            break
                    finished.append(members)
    return [len(finished) - 1 - c for c in component]


def _assign_levels(found: Recurrences, groups: list[Group]) -> None:
    """A group that needs a value computed from another group's results comes one level later."""
    steps = found.steps[0]
    group_of = {r: g for g in groups for r in g.repetitions}
    level_of_node: dict[Node, int] = {}

    def node_level(node: Node | None) -> int:
        return 0 if node is None else level_of_node.get(node, 0)

    def given_level(source: Source) -> int:
        """The first step of a loop may read what another loop ends with."""
        if source.node not in steps.place or is_early(source, steps):
            return node_level(source.node)
        return group_of[steps.place[source.node][0].index].level + 1

    changed = True
    while changed:
        changed = False
        for node in steps.trace.nodes:
            if node in steps.place:
                continue
            needs = [
                group_of[steps.place[s.node][0].index].level + 1 if s.node in steps.place else node_level(s.node)
                for s in node.inputs
            ]
            level = max(needs, default=0)
            if level > level_of_node.get(node, 0):
                level_of_node[node] = level
                changed = True
        for group in groups:
            level = group.level
            for r in group.repetitions:
                for read in found.reads[r]:
                    if isinstance(read, FromStep):
                        level = max(level, group_of[read.repetition].level)
                        for _, sources in read.given:
                            level = max(level, given_level(sources[0]))
                    elif isinstance(read, FromOutside):
                        level = max(level, node_level(read.sources[0].node))
                    elif isinstance(read, FromSequence):
                        level = max(level, node_level(read.sequence[0].node))
            if level > group.level:
                group.level = level
                changed = True
