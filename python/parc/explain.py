"""What parc found out about a system and what it decided: the report behind `parc.explain`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from torch_mlir import ir

from parc.poly import count
from parc.poly import dependences as poly
from parc.poly.affine import dimension_names, with_names
from parc.poly.count import Count
from parc.poly.legality import check_schedule
from parc.poly.model import Equation, System, build, systems
from parc.poly.picture import svg
from parc.poly.plan import Request, default_sizes, plan
from parc.poly.schedules import with_schedule
from parc.poly.wavefront import waves
from parc.poly.words import needs


@dataclass(frozen=True)
class Number:
    """A count, as a formula in the sizes and at given ones."""

    formula: str
    value: int

    def __str__(self) -> str:
        return str(self.value) if self.formula in ("?", str(self.value)) else f"{self.formula} = {self.value}"

    def __int__(self) -> int:
        return self.value


@dataclass(frozen=True)
class Dependence:
    """A dependence as isl text, `{ source -> sink }`, through an array."""

    source: str
    sink: str
    array: str
    relation: str


@dataclass(frozen=True)
class Report:
    """One system, its dependences and its schedule.

    A *point* is what one layer does in one step: its input product, its cell and the stages of it together.
    """

    sizes: Mapping[str, int]
    """The sizes that the numbers are for."""
    equations: tuple[str, ...]
    """Each equation's domain, as isl text."""
    dependences: tuple[Dependence, ...]
    needs: tuple[str, ...]
    """The dependences in plain words."""
    work: Number
    """Points in all: as many steps as there are one after another."""
    span: Number
    """The longest chain of points that need each other: no order has fewer steps."""
    waves: Number
    """The waves of the schedule: of a wavefront, values of its first time coordinate; else as many as steps."""
    steps: Number
    """The different times of the schedule."""
    strategy: str
    distribute: str
    schedule: Mapping[str, str]
    """For each equation, its time: `cell1[t] -> (t + 1)`."""
    why: str
    picture: str
    """The schedule as SVG, at small sizes."""

    def __str__(self) -> str:
        at = ", ".join(f"{name}={value}" for name, value in self.sizes.items())
        lines = [
            f"A system of {len(self.equations)} equations{f', at {at}' if at else ''}",
            "",
            "Equations",
            *_indented(self.equations),
            "",
            "Dependences",
            *_indented(self.needs or ("none",)),
            *_indented(d.relation for d in self.dependences),
            "",
            f"Work      {self.work} points",
            f"Span      {self.span} points in the longest chain",
            f"Waves     {self.waves}",
            f"Steps     {self.steps}",
            "",
            f"Schedule: {self.strategy}, {self.distribute} shared among threads",
            *_indented(self.schedule.values()),
            f"Why: {self.why}",
        ]
        return "\n".join(lines)

    def to_html(self) -> str:
        """The report as a piece of HTML, with a picture of the schedule."""
        text = escape(str(self))
        return f'<div class="parc-report">{self.picture}<pre>{text}</pre></div>'

    _repr_html_ = to_html


def explain_system(
    system_op: ir.Operation | ir.OpView, sizes: Mapping[str, int], request: Request | None = None
) -> Report:
    """Report on a system; one that has no schedule yet is planned (as `request` asks), but not changed.

    `sizes` gives the symbols that the numbers are for; those left out are taken as the plan's defaults.
    Raises CompileError for a system that is not well formed, has no order or breaks its schedule.
    """
    with system_op.operation.context, ir.Location.unknown():
        return _explain(build(system_op), sizes, request or Request())


def schedule_comment(module: ir.Module) -> str:
    """`// ` comment lines on every scheduled system of a module: its strategy, waves and steps."""
    lines: list[str] = []
    with module.context, ir.Location.unknown():
        for number, op in enumerate(systems(module)):
            system = build(op)
            if any(e.time is None for e in system.equations):
                continue
            work, span = _work_and_span(system, poly.dependences(system))
            lines += [
                f"// system {number}: {len(system.equations)} equations",
                f"//   strategy: {system.strategy or 'none'}, distribute: {system.distribute}",
                f"//   work: {work}",
                f"//   span: {span}",
                f"//   waves: {count.waves(system)}",
                f"//   steps: {count.steps(system)}",
            ]
    return "".join(line + "\n" for line in lines)


def _explain(system: System, sizes: Mapping[str, int], request: Request) -> Report:
    if all(e.time is not None for e in system.equations):
        poly.check_system(system)
        check_schedule(system)
        why = system.why or "it was given"
        times = {e.name: e.op.attributes["schedule"].value for e in system.equations}
        sizes = default_sizes(system) | {s: n for s, n in sizes.items() if s in system.symbols}
    else:
        chosen = plan(system, replace(request, sizes={**request.sizes, **sizes}))
        schedule, why, sizes = chosen.schedule, chosen.why, chosen.sizes
        system, times = with_schedule(system, schedule), schedule.time
        check_schedule(system)
    flow = poly.dependences(system)
    work, span = _work_and_span(system, flow)

    def number(counted: Count) -> Number:
        return Number(str(counted), counted.at(sizes))

    return Report(
        sizes=sizes,
        equations=tuple(str(e.domain.gist_params(system.context)) for e in system.equations),
        dependences=tuple(
            Dependence(d.source, d.sink, d.array, str(d.relation.gist_params(system.context))) for d in flow
        ),
        needs=needs(system, flow),
        work=number(work),
        span=number(span),
        waves=number(count.waves(system)),
        steps=number(count.steps(system)),
        strategy=system.strategy,
        distribute=system.distribute,
        schedule={e.name: _time_text(system, e, times[e.name]) for e in system.equations},
        why=why,
        picture=svg(system, sizes),
    )


def _work_and_span(system: System, flow: Sequence[poly.Dependence]) -> tuple[Count, Count]:
    """Points in all, and in the longest chain; instances and steps where no layers were found."""
    layers = waves(system, flow)
    if layers is None:
        return count.instances(system), count.steps(system)
    return count.points(system, layers), count.span(system, layers)


def _time_text(system: System, equation: Equation, time: ir.AffineMap) -> str:
    """`cell1[t] -> (t + 1)`."""
    dims = dimension_names(time.n_dims, system.symbols)
    vector = ", ".join(with_names(str(e), dims, system.symbols) for e in time.results)
    return f"{equation.name}[{', '.join(dims)}] -> ({vector})"


def _indented(lines: Iterable[str]) -> list[str]:
    return ["  " + line for line in lines]
