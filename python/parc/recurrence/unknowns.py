"""Which unknown arrays the systems have, and where in them each step is."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch_mlir import ir

from parc.recurrence.fit import Extent, StepMap
from parc.recurrence.groups import Group
from parc.recurrence.reads import FromStep, Recurrences
from parc.recurrence.stacks import find_runs
from parc.recurrence.trace import Source

Sources = tuple[Source, ...]
"""Where one value comes from, in every trace."""


@dataclass(eq=False)
class Unknown:
    """An unknown array: one repeated result over the steps, with the values given before the first one."""

    repetition: int
    result: int
    name: str
    #: step -> the value given for it
    given: dict[int, Sources] = field(default_factory=dict)
    #: Written last step first, because that is the order in which the model stacks it.
    backwards: bool = False


class Unknowns:
    """An array for every repeated result that is read in another step, by another equation or from outside.

    A result that two readers continue with different initial values has an array for each.
    """

    def __init__(self, found: Recurrences, groups: list[Group]) -> None:
        self.found = found
        self.group_of = {r: g for g in groups for r in g.repetitions}
        self.names = dict(_names(groups))
        self._known: dict[tuple[int, int], list[Unknown]] = defaultdict(list)
        for r, reads in enumerate(found.reads):
            for read in reads:
                if isinstance(read, FromStep) and not self.is_local(r, read):
                    self.find(read.repetition, read.result, dict(read.given))
        self._add_results()

    def _add_results(self) -> None:
        """Arrays for what is used after the loops, and the direction in which it is used."""
        steps = self.found.steps[0]
        outer = [node for node in steps.trace.nodes if node not in steps.place]
        for source in [*(s for node in outer for s in node.inputs), *steps.trace.results]:
            if source.node in steps.place:
                self.find(steps.place[source.node][0].index, source.result)
        directions: dict[tuple[int, int], set[int]] = defaultdict(set)
        for node in outer:
            if node.name == "tensor.concat":
                for run in find_runs(node, steps):
                    for repetition in run.repetitions if len(run.sources) > 1 else ():
                        directions[(repetition, run.sources[0].result)].add(run.direction)
        for key, found in directions.items():
            for unknown in self._known[key]:
                unknown.backwards = found == {-1}

    def is_local(self, reader: int, read: FromStep) -> bool:
        """Whether the value that repetition `reader` reads is in the same equation's body."""
        same = self.group_of[reader] is self.group_of[read.repetition]
        return same and read.at.is_identity and not read.given

    def find(self, repetition: int, result: int, given: dict[int, Sources] | None = None) -> Unknown:
        """The array of a repeated result, with these initial values among its own."""
        given = given or {}
        known = self._known[(repetition, result)]
        for unknown in known:
            if all(_same(unknown.given.get(step, s), s) for step, s in given.items()):
                unknown.given.update(given)
                return unknown
        group = self.group_of[repetition]
        number = len(list(self.of_group(group)))
        unknown = Unknown(repetition, result, f"{self.names[id(group)]}_h{number}", given)
        unknown.backwards = bool(known) and known[0].backwards
        known.append(unknown)
        return unknown

    def of_group(self, group: Group) -> Iterator[Unknown]:
        """The arrays that an equation writes."""
        for (repetition, _), found in self._known.items():
            if self.group_of[repetition] is group:
                yield from found

    def name_of(self, group: Group) -> str:
        """The name of a group's equation."""
        return self.names[id(group)]

    def bounds(self, unknown: Unknown) -> tuple[int, Extent]:
        """The first step that the array holds, and how many."""
        first = self.found.first[unknown.repetition]
        low = min([first, *unknown.given])
        return low, self.found.count[unknown.repetition] + (first - low)

    def position(self, unknown: Unknown, step: StepMap) -> StepMap:
        """Where the array holds a step."""
        low, extent = self.bounds(unknown)
        if not unknown.backwards:
            return StepMap(step.factor, step.offset + (-low))
        return StepMap(-step.factor, extent + step.offset.scaled(-1) + (low - 1))

    def value_types(self, unknown: Unknown) -> list[ir.Type]:
        """The type of one step's value, in every trace."""
        return [n.op.results[unknown.result].type for n in self.found.samples(unknown.repetition)]


def _names(groups: list[Group]) -> Iterator[tuple[int, str]]:
    """Names of the equations: cells for what is recurrent, steps for the rest."""
    cells = steps = 0
    for group in sorted(groups, key=lambda g: (g.level, g.repetitions[0])):
        if group.is_recurrent:
            yield id(group), f"cell{cells}"
            cells += 1
        else:
            yield id(group), f"step{steps}"
            steps += 1


def _same(a: Sources | None, b: Sources) -> bool:
    return a is None or [(s.root, s.type) for s in a] == [(s.root, s.type) for s in b]
