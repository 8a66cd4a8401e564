"""Which repeated operations form one equation, and in which order the systems are solved.

Operations that depend on each other in a cycle (a strongly connected component of the graph of
repetitions) are one recurrence: its cell is one equation.  An operation outside any cycle joins the
only equation that uses its results in the same step; otherwise it is an equation of its own.
"""

from collections import defaultdict
from dataclasses import dataclass

from parc.errors import CompileError
from parc.recurrence.reads import FromOutside, FromSequence, FromStep, Read, Recurrences, is_early
from parc.recurrence.trace import Node


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

    home: dict[int, tuple[int, int, int]] = {}  # repetition -> (component it joins, its extents, its stage)
    stages = {r: s for c in recurrent for r, s in _stages(found, members[c]).items()}
    for r in sorted(range(count), key=lambda r: (component[r], r), reverse=True):
        c = component[r]
        if c in recurrent:
            home[r] = (c, _extent_class(found, members[c], r), stages[r])
            continue
        wanted = {home[u] for u, read in users[r] if u in home}
        same_step = all(read.at.is_identity and not read.given and _same_extent(found, r, u) for u, read in users[r])
        home[r] = wanted.pop() if same_step and len(wanted) == 1 and users[r] else (c, 0, 0)
    parts: dict[tuple[int, int, int], list[int]] = defaultdict(list)
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


def _stages(found: Recurrences, members: list[int]) -> dict[int, int]:
    """How often a value has passed to operations of other extents within its step: an equation for each time."""
    stages: dict[int, int] = {}

    def stage(r: int) -> int:
        if r not in stages:
            stages[r] = 0  # Reads of the same step have no cycles.
            inputs = [read.repetition for read in found.reads[r] if isinstance(read, FromStep) and read.at.is_identity]
            stages[r] = max((stage(i) + (not _same_extent(found, i, r)) for i in inputs if i in members), default=0)
        return stages[r]

    for r in members:
        stage(r)
    return stages


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
    level_of: dict[Node, int] = {}

    def outside_level(node: Node | None) -> int:
        """The level at which a value outside the systems, or the end of a loop, is known."""
        if node in steps.place:
            return group_of[steps.place[node][0].index].level + 1
        return 0 if node is None else level_of.get(node, 0)

    def needed_level(read: Read) -> int:
        if isinstance(read, FromStep):
            given = [s[0].node for _, s in read.given if not is_early(s[0], steps)]
            return max([group_of[read.repetition].level, *map(outside_level, given)])
        if isinstance(read, FromOutside):
            return outside_level(read.sources[0].node)
        return outside_level(read.sequence[0].node) if isinstance(read, FromSequence) else 0

    changed = True
    while changed:
        changed = False
        for node in steps.trace.nodes:
            if node not in steps.place:
                level = max((outside_level(s.node) for s in node.inputs), default=0)
                changed |= level > level_of.get(node, 0)
                level_of[node] = max(level, level_of.get(node, 0))
        for group in groups:
            level = max((needed_level(read) for r in group.repetitions for read in found.reads[r]), default=0)
            if level > len(groups):
                raise CompileError(
                    "a step of this loop reads a value that is computed from the loop's own results in another way "
                    "than in the other steps: the loop is not regular",
                    found.samples(group.repetitions[0])[0].op.location,
                )
            changed |= level > group.level
            group.level = max(level, group.level)
