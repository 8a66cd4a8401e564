"""What parc found out about a model's systems and what it decided: the report behind `parc.explain`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from torch_mlir import ir

from parc.poly import count
from parc.poly.affine import dimension_names, with_names
from parc.poly.count import Count
from parc.poly.dependences import Dependence, check_system, dependences
from parc.poly.legality import check_schedule
from parc.poly.model import Equation, System, build, systems
from parc.poly.picture import svg
from parc.poly.plan import default_sizes
from parc.poly.wavefront import Layer, waves
from parc.poly.words import needs
from parc.poly.work import multiply_adds


class Number(int):
    """A count at given sizes, with the formula that it comes from."""

    formula: str

    def __new__(cls, value: int, formula: str = "?") -> "Number":
        number = super().__new__(cls, value)
        number.formula = formula
        return number

    def __str__(self) -> str:
        """`T + 3 = 131`."""
        value = int.__repr__(self)
        return value if self.formula in ("?", value) else f"{self.formula} = {value}"


@dataclass(frozen=True)
class _Totals:
    """Counts of one system, before sizes are given."""

    work: Count
    span: Count
    waves: Count
    steps: Count
    multiply_adds: Count

    def __add__(self, other: "_Totals") -> "_Totals":
        return _Totals(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def numbers(self, sizes: Mapping[str, int]) -> dict[str, Number]:
        counts: dict[str, Count] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: Number(c.at(sizes), c.formula(sizes)) for name, c in counts.items()}


_NOTHING = _Totals(*[Count(())] * 5)


@dataclass(frozen=True)
class Summary:
    """The numbers of a system, or of all systems of a module, which run one after another."""

    work: Number
    """Points in all, which the model runs one after another: its sequential steps before.

    A *point* is what one layer does in one step: its input product, its cell and the stages of the cell together.
    """
    span: Number
    """Waves of the wavefront, the sequential steps after: points of one wave do not need each other."""
    waves: Number
    """Waves of the chosen schedule: of a wavefront, values of its first time coordinate; else as many as `steps`."""
    steps: Number
    """Different times of the chosen schedule; with units or rows shared among the threads, each is one step of all."""
    multiply_adds: Number
    """Multiplications with an addition in all matrix products."""


@dataclass(frozen=True)
class SystemReport(Summary):
    """One scheduled system."""

    sizes: Mapping[str, int]
    """The sizes of the symbols that the numbers are for."""
    equations: Mapping[str, str]
    """The points of each equation, as isl text."""
    dependences: tuple[str, ...]
    """Exact flow dependences, as isl relations of points to the points that read from them."""
    needs: tuple[str, ...]
    """The dependences in plain words."""
    layers: tuple[tuple[str, ...], ...]
    """The equations that make up the points of each layer; empty where no layers were found."""
    strategy: str
    distribute: str
    schedule: Mapping[str, str]
    """The time of each equation's points: `cell1[t] -> (t + 1)`."""
    why: str
    picture: str
    """The schedule as SVG, at small sizes."""

    def __str__(self) -> str:
        lines = [
            f"A system of {len(self.equations)} equations{_at(self.sizes)}",
            "",
            "Equations",
            *_indented(self.equations.values()),
            "",
            "Dependences",
            *_indented(self.needs or ("none",)),
            *_indented(self.dependences),
            "",
            *_summary_lines(self, self._waves_in_words()),
            "",
            f"Schedule: {self.strategy or 'given'}, {self.distribute} shared among the threads",
            *_indented(self.schedule.values()),
            f"Why: {self.why}",
        ]
        return "\n".join(lines)

    def _waves_in_words(self) -> str:
        """` (4 layers + 128 steps - 1)` where the waves are that many."""
        layers = len(self.layers)
        if layers < 2 or self.strategy != "wavefront" or self.work != layers * (self.waves - layers + 1):
            return ""
        return f" ({layers} layers + {self.waves - layers + 1:d} steps - 1)"


@dataclass(frozen=True)
class Report(Summary):
    """All systems of a module.

    The numbers are sums over `systems`; `str(report)` is text, `report.to_html()` has pictures of the waves too.
    """

    systems: tuple[SystemReport, ...]

    def __str__(self) -> str:
        if not self.systems:
            return "There is no recurrence: nothing is left to schedule."
        if len(self.systems) == 1:
            return str(self.systems[0])
        parts = [f"{len(self.systems)} systems, one after another", *_summary_lines(self), ""]
        for number, system in enumerate(self.systems):
            parts += [f"--- {number} ---", str(system), ""]
        return "\n".join(parts).rstrip()

    def to_html(self) -> str:
        """The report as a piece of HTML."""
        pictures = "".join(f"<figure>{system.picture}</figure>" for system in self.systems)
        return f'<div class="parc-report">{pictures}<pre>{escape(str(self))}</pre></div>'

    def save(self, path: str | Path) -> None:
        """Write the report as an HTML page."""
        head = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>parc report</title>'
        Path(path).write_text(f"{head}<body>{self.to_html()}</body></html>\n", encoding="utf-8")

    _repr_html_ = to_html


def explain_module(module: ir.Module, sizes: Mapping[str, int] | None = None) -> Report:
    """Report on all systems of a module, which have schedules.

    sizes: values of symbols that the numbers are for; others have those that were named when the schedule was chosen.
    Raises CompileError for a system without a schedule, or one that breaks it.
    """
    reports, totals = [], _NOTHING
    with module.context, ir.Location.unknown():
        built = [build(op) for op in systems(module)]
        at = _sizes(built, sizes or {})
        for system in built:
            report, total = _explain(system, at)
            reports.append(report)
            totals += total
        return Report(**totals.numbers(at), systems=tuple(reports))


def schedule_comment(module: ir.Module) -> str:
    """`// ` comment lines on every scheduled system of a module: its strategy, and its numbers."""
    lines: list[str] = []
    with module.context, ir.Location.unknown():
        built = [build(op) for op in systems(module)]
        at = _sizes(built, {})
        for number, system in enumerate(built):
            if any(e.time is None for e in system.equations):
                continue
            numbers = _totals(system, waves(system, dependences(system))).numbers(at)
            lines += [
                f"// system {number}: {len(system.equations)} equations{_at(_of(system, at))}",
                f"//   strategy: {system.strategy or 'given'}, distribute: {system.distribute}",
                *(f"//   {name}: {numbers[name]}" for name in ("work", "span", "waves", "steps")),
            ]
    return "".join(line + "\n" for line in lines)


def _explain(system: System, at: Mapping[str, int]) -> tuple[SystemReport, _Totals]:
    flow = dependences(system)
    check_system(system)
    check_schedule(system, flow)
    layers = waves(system, flow)
    totals = _totals(system, layers)
    report = SystemReport(
        **totals.numbers(at),
        sizes=_of(system, at),
        equations={e.name: str(e.domain.gist_params(system.context)) for e in system.equations},
        dependences=_relations(system, flow),
        needs=needs(system, flow),
        layers=tuple(layer.group.equations for layer in layers or ()),
        strategy=system.strategy,
        distribute=system.distribute,
        schedule={e.name: _time_text(system, e) for e in system.equations},
        why=system.why or "it was given",
        picture=svg(system, at),
    )
    return report, totals


def _sizes(built: Sequence[System], asked: Mapping[str, int]) -> dict[str, int]:
    """Sizes for the symbols of all systems: those asked for, else those that were named for the schedule."""
    sizes = default_sizes(built)
    for system in built:
        sizes |= system.sizes
    return {symbol: asked.get(symbol, size) for symbol, size in sizes.items()}


def _of(system: System, sizes: Mapping[str, int]) -> dict[str, int]:
    return {symbol: sizes[symbol] for symbol in system.symbols}


def _totals(system: System, layers: Sequence[Layer] | None) -> _Totals:
    """Where no layers were found, instances stand for points and the schedule's own steps for the waves."""
    steps = count.steps(system)
    return _Totals(
        work=count.instances(system) if layers is None else count.points(system, layers),
        span=steps if layers is None else count.span(system, layers),
        waves=count.waves(system),
        steps=steps,
        multiply_adds=multiply_adds(system),
    )


def _relations(system: System, flow: Sequence[Dependence]) -> tuple[str, ...]:
    """The dependences as text; those through several arrays once."""
    return tuple(dict.fromkeys(str(d.relation.gist_params(system.context)) for d in flow))


def _time_text(system: System, equation: Equation) -> str:
    time = equation.op.attributes["schedule"].value
    dims = dimension_names(time.n_dims, system.symbols)
    vector = ", ".join(with_names(str(e), dims, system.symbols) for e in time.results)
    return f"{equation.name}[{', '.join(dims)}] -> ({vector})"


def _summary_lines(numbers: Summary, waves_in_words: str = "") -> list[str]:
    return [
        f"Work      {numbers.work} points, {numbers.multiply_adds} multiply-adds",
        f"Span      {numbers.work} sequential steps before, {numbers.span} waves after",
        f"Waves     {numbers.waves}{waves_in_words}",
        f"Steps     {numbers.steps}",
    ]


def _at(sizes: Mapping[str, int]) -> str:
    """`, numbers at T=128, B=16`."""
    return f", numbers at {', '.join(f'{name}={value}' for name, value in sizes.items())}" if sizes else ""


def _indented(lines: Iterable[str]) -> list[str]:
    return ["  " + line for line in lines]
