"""What is swept together: recurrences, with what is computed between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from parc.iterative.depth import Depth, find_depth
from parc.poly.affine import evaluate
from parc.poly.dependences import Dependence
from parc.poly.model import System
from parc.solvers.cut import needed
from parc.solvers.recurrence import cycles


@dataclass(frozen=True)
class Core:
    """Equations that are swept together."""

    equations: tuple[str, ...]
    name: str
    """That of its first recurrence: of the equation that was cut in stages, whose parts have longer names."""

    @classmethod
    def of(cls, equations: Sequence[str], recurrence: Sequence[str]) -> "Core":
        return cls(tuple(equations), min(recurrence, key=len))


def recurrences(system: System, flow: Sequence[Dependence]) -> list[Core]:
    """The equations that need each other or themselves, each recurrence by itself."""
    return [Core.of(names, names) for names in cycles(system, flow)]


def cores(system: System, flow: Sequence[Dependence], sizes: Mapping[str, int]) -> list[Core]:
    """The equations of each iteration, in the order in which the iterations need each other.

    Recurrences that can move on together (the layers of a stack, both directions of a layer) share one, if that takes
    fewer sweeps at these sizes than one after another: T + L - 1 in place of T L.  One that has to wait for all of
    another one follows it.  Needs a current MLIR context.
    """
    found: list[tuple[Core, int]] = []
    for recurrence in cycles(system, flow):
        if any(name in core.equations for core, _ in found for name in recurrence):
            continue
        alone = closed(system, flow, recurrence)
        own = _bound(system, flow, alone, sizes)
        if found:
            core, bound = found[-1]
            both = closed(system, flow, [*core.equations, *alone])
            together = _bound(system, flow, both, sizes)
            if together < bound + own:
                found[-1] = (replace(core, equations=both), together)
                continue
        found.append((Core.of(alone, recurrence), own))
    return [core for core, _ in found]


def closed(system: System, flow: Sequence[Dependence], names: Sequence[str]) -> tuple[str, ...]:
    """Equations with those between them, which need some and are needed by others, and all that define their arrays."""
    backwards = [replace(d, source=d.sink, sink=d.source) for d in flow]
    found = set(names)
    while True:
        arrays = {w.array for name in found for w in system.equation(name).writes}
        more = {e.name for e in system.equations if any(w.array in arrays for w in e.writes)}
        more |= needed(flow, found) & needed(backwards, found)
        if more <= found:
            return tuple(e.name for e in system.equations if e.name in found)
        found |= more


def _bound(system: System, flow: Sequence[Dependence], names: Sequence[str], sizes: Mapping[str, int]) -> int:
    """So many sweeps over these equations are exact."""
    values = [sizes[symbol] for symbol in system.symbols]
    return evaluate(_part_depth(system, flow, names).bound(), values)


def _part_depth(system: System, flow: Sequence[Dependence], names: Sequence[str]) -> Depth:
    part = replace(system, equations=tuple(e for e in system.equations if e.name in names))
    return find_depth(part, [d for d in flow if d.source in names and d.sink in names])
