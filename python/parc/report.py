"""What parc found out about a model's systems and what it decided: the report behind `parc.explain`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from torch_mlir import ir

from parc.iteration import Iterations
from parc.iteration_report import IterationReport, explain_iterations, sweep_of
from parc.memory_report import MemoryReport
from parc.poly.affine import dimension_names, with_names
from parc.poly.dependences import Dependence, check_system, dependences
from parc.poly.formula import Number
from parc.poly.legality import check_schedule
from parc.poly.model import Equation, System, build, systems
from parc.poly.picture import svg
from parc.poly.plan import sizes_for_reports
from parc.poly.schedules import SOLVERS
from parc.poly.totals import Totals, totals
from parc.poly.wavefront import Layer, waves
from parc.poly.words import needs
from parc.structure_report import StructureReport, explain_structure


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
    structure: StructureReport | None
    """The system as a block matrix, and what each way to solve it takes; None for a solver's tree."""
    part: str = ""
    """The part of an iteration that it is: one sweep, or what comes after sweeps that do not converge."""

    def __str__(self) -> str:
        lines = [
            f"A system of {len(self.equations)} equations{_at(self.sizes)}",
            *([f"It is {self.part}"] if self.part else []),
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
            *(["", str(self.structure)] if self.structure is not None else []),
        ]
        return "\n".join(lines)

    @property
    def pictures(self) -> tuple[str, ...]:
        """All pictures, as SVG."""
        return (self.picture,) if self.structure is None else (self.picture, self.structure.picture)

    def _waves_in_words(self) -> str:
        """` (4 layers + 128 steps - 1)` where the waves are that many."""
        layers = len(self.layers)
        if layers < 2 or self.strategy != "wavefront" or self.work != layers * (self.waves - layers + 1):
            return ""
        return f" ({layers} layers + {self.waves - layers + 1:d} steps - 1)"


@dataclass(frozen=True)
class Report(Summary):
    """All systems of a module.

    The numbers are sums over `systems`, with one sweep of each iteration; `str(report)` is text, `report.to_html()` has
    pictures of the waves and of the block matrix too.
    """

    systems: tuple[SystemReport, ...]
    backward: "Report | None" = None
    """The backward program, which the numbers do not count, where there is one."""
    memory: MemoryReport | None = None
    """What a call takes, or a training step."""
    iterations: tuple[IterationReport, ...] = ()
    """What is solved by sweeps, within a tolerance."""

    def __str__(self) -> str:
        if self.backward is None:
            return self._text() if self.memory is None else f"{self._text()}\n\n{self.memory}"
        text = f"=== Forward ===\n{self._text()}\n\n=== Backward ===\n{self.backward}"
        if self.memory is None:
            return text
        return f"{text}\n\n=== Memory of a training step{_at(self.memory.sizes)} ===\n{self.memory}"

    def _text(self) -> str:
        swept = "".join(f"{iteration}\n\n" for iteration in self.iterations)
        return swept + self._systems_text()

    def _systems_text(self) -> str:
        if not self.systems:
            return "There is no recurrence: nothing is left to schedule."
        if len(self.systems) == 1:
            return str(self.systems[0])
        sweeps = "; of each iteration, the numbers count one sweep" if self.iterations else ""
        parts = [f"{len(self.systems)} systems, one after another{sweeps}", *_summary_lines(self), ""]
        for number, system in enumerate(self.systems):
            parts += [f"--- {number} ---", str(system), ""]
        return "\n".join(parts).rstrip()

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of all symbols of the systems."""
        own = {name: size for system in self.systems for name, size in system.sizes.items()}
        return own if self.backward is None else self.backward.sizes | own

    def with_last(self, last: Mapping[str, Iterations]) -> "Report":
        """The same report that says, too, how its iterations went in a call, by their names."""
        return replace(
            self,
            iterations=tuple(replace(i, last=last.get(i.name)) for i in self.iterations),
            backward=None if self.backward is None else self.backward.with_last(last),
        )

    def to_html(self) -> str:
        """The report as a piece of HTML."""
        systems = (*self.systems, *(self.backward.systems if self.backward is not None else ()))
        pictures = "".join(f"<figure>{p}</figure>" for s in systems for p in s.pictures)
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
    reports, whole = [], Totals()
    sweeps: dict[str, Totals] = {}
    with module.context, ir.Location.unknown():
        built = [build(op) for op in systems(module)]
        at = sizes_for_reports(built, sizes or {})
        for system in built:
            report, own = _explain(system, at)
            reports.append(report)
            part = sweep_of(system.op)
            if part is None or part[1]:
                whole += own
            if part is not None and part[1]:
                sweeps[part[0]] = sweeps.get(part[0], Totals()) + own
        waves = {name: own.numbers(at)["waves"] for name, own in sweeps.items()}
        iterations = tuple(replace(i, waves=waves.get(i.name)) for i in explain_iterations(module, at))
        return Report(systems=tuple(reports), iterations=iterations, **whole.numbers(at))  # type: ignore[arg-type]


def explain_training(forward: ir.Module, backward: ir.Module, sizes: Mapping[str, int] | None = None) -> Report:
    """Report on both programs of a training step, as `explain_module` does on one."""
    return replace(explain_module(forward, sizes), backward=explain_module(backward, sizes))


def schedule_comment(module: ir.Module) -> str:
    """`// ` comment lines on every scheduled system of a module: its strategy, and its numbers."""
    lines: list[str] = []
    with module.context, ir.Location.unknown():
        built = [build(op) for op in systems(module)]
        at = sizes_for_reports(built, {})
        for iteration in explain_iterations(module, at):
            lines += [f"// {line}" for line in str(iteration).splitlines()]
        for number, system in enumerate(built):
            if any(e.time is None for e in system.equations):
                continue
            numbers = totals(system, _layers(system, dependences(system))).numbers(at)
            lines += [
                f"// system {number}: {len(system.equations)} equations{_at(_of(system, at))}",
                f"//   strategy: {system.strategy or 'given'}, distribute: {system.distribute}",
                *(f"//   {name}: {numbers[name]}" for name in ("work", "span", "waves", "steps")),
            ]
    return "".join(line + "\n" for line in lines)


def _explain(system: System, at: Mapping[str, int]) -> tuple[SystemReport, Totals]:
    flow = dependences(system)
    check_system(system)
    check_schedule(system, flow)
    layers = _layers(system, flow)
    own = totals(system, layers)
    report = SystemReport(
        **own.numbers(at),
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
        structure=None if _is_solved(system) else explain_structure(system, flow, layers, _of(system, at)),
        part=_part(system),
    )
    return report, own


def _part(system: System) -> str:
    part = sweep_of(system.op)
    if part is None:
        return ""
    name, is_sweep = part
    return f"a sweep of {name}" if is_sweep else f"what {name} is where its sweeps do not converge"


def _is_solved(system: System) -> bool:
    """Is this a tree of compositions, in place of the system that somebody wrote?"""
    return system.strategy in SOLVERS


def _layers(system: System, flow: Sequence[Dependence]) -> tuple[Layer, ...] | None:
    """The waves; a solver's tree has no others than its own steps."""
    return None if _is_solved(system) else waves(system, flow)


def _of(system: System, sizes: Mapping[str, int]) -> dict[str, int]:
    return {symbol: sizes[symbol] for symbol in system.symbols}


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
