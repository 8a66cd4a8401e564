"""The numbers of a scheduled system: work, span, waves, steps and multiply-adds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from parc.poly import count
from parc.poly.count import Count
from parc.poly.formula import Number
from parc.poly.model import System
from parc.poly.wavefront import Layer
from parc.poly.work import multiply_adds

_NONE = Count(())


@dataclass(frozen=True)
class Totals:
    """Counts of one system, or of several, before sizes are given; `report.Summary` says what each one is."""

    work: Count = _NONE
    span: Count = _NONE
    waves: Count = _NONE
    steps: Count = _NONE
    multiply_adds: Count = _NONE

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def numbers(self, sizes: Mapping[str, int]) -> dict[str, Number]:
        """The numbers at given sizes of all symbols, by name."""
        return {f.name: Number.of(getattr(self, f.name), sizes) for f in fields(self)}


def totals(system: System, layers: Sequence[Layer] | None) -> Totals:
    """Where no layers were found, instances stand for points and the schedule's own steps for the waves."""
    steps = count.steps(system)
    return Totals(
        work=count.instances(system) if layers is None else count.points(system, layers),
        span=steps if layers is None else count.span(system, layers),
        waves=count.waves(system),
        steps=steps,
        multiply_adds=multiply_adds(system),
    )
