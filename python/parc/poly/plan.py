"""The choice of a schedule: every candidate of the asked kind, ranked by predicted time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from parc.errors import CompileError
from parc.poly.affine import PARAM
from parc.poly.cost import Estimate, estimate
from parc.poly.count import span
from parc.poly.dependences import check_system, dependences
from parc.poly.machine import Machine
from parc.poly.model import System, sweep_counters
from parc.poly.order import any_order
from parc.poly.rows import Cells, find_cells, mixed_rows
from parc.poly.schedules import DISTRIBUTIONS, ITERATIVE, SOLVERS, STRATEGIES, Choice, Schedule, affine_maps, make
from parc.poly.wavefront import Layer, waves
from parc.poly.work import measure

_TILES = (1, 2, 4, 8, 16, 32)
_ROWS_GAIN = 1.25
"""How many times faster sharing the rows must be to be chosen."""
_LENGTH, _ROWS = 128, 16
"""What sizes are taken for when nothing is said: those that bound a recurrence (a length), and others (a batch)."""


@dataclass(frozen=True)
class Request:
    """What is asked of a schedule; empty and 0 leave the choice to the cost model."""

    strategy: str = "auto"
    distribute: str = ""
    tile: int = 0
    threads: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Sizes to choose for."""
    target: str = "cpu"
    """The machine to choose for, as `Machine.of` takes it."""


@dataclass(frozen=True)
class Plan:
    """The chosen schedule, and what it was chosen from."""

    schedule: Schedule
    ranking: tuple[Estimate, ...]
    """Best first; empty when there was nothing to choose from."""
    layers: tuple[Layer, ...] | None
    sizes: Mapping[str, int]
    """Those asked for, or the defaults; lengths are taken to be larger in the choice."""
    why: str


def plan(system: System, request: Request, defaults: Mapping[str, int] | None = None) -> Plan:
    """Check a system and choose its schedule; needs a current MLIR context.

    `defaults` are the sizes of the symbols for which the request gives none.
    Raises CompileError when the system is not well formed or has no order, or the request names no schedule.
    """
    if request.strategy in (*SOLVERS, *ITERATIVE):
        # What they solve has a schedule already, or is sweeps; the rest is free.
        request = replace(request, strategy="auto")
    cells = find_cells(system)
    choices = _choices(system, cells, request)
    check_system(system)
    flow = dependences(system)
    defaults = defaults or default_sizes([system])
    sizes = {symbol: request.sizes.get(symbol, defaults[symbol]) for symbol in system.symbols}
    # Short sequences take little time under any schedule: the choice is for others.
    chosen_for = {symbol: max(n, _LENGTH if defaults[symbol] == _LENGTH else 1) for symbol, n in sizes.items()}
    layers = waves(system, flow)
    if layers is None:
        schedule = Schedule(Choice("sequential", "units"), affine_maps(system, any_order(system, flow)), {})
        asked = "" if request.strategy in ("auto", "sequential") else f"{request.strategy} was asked for, but "
        why = f"{asked}its layers have no time of one dimension; the order is one that isl's scheduler found"
        return Plan(schedule, (), None, sizes, why)
    machine = Machine.of(request.target, request.threads)
    work = measure(system, cells, chosen_for)
    wave_count = span(system, layers).at(chosen_for)
    estimates = [estimate(choice, layers, work, wave_count, machine) for choice in choices]
    # Rows leave threads idle at smaller batches than the one that the choice is made for: only for a clear gain.
    ranking = tuple(sorted(estimates, key=lambda e: e.seconds * (_ROWS_GAIN if e.choice.distribute == "rows" else 1)))
    schedule = make(system, flow, layers, ranking[0].choice)
    return Plan(schedule, ranking, layers, sizes, _why(request, ranking, machine, chosen_for))


def default_sizes(systems: Sequence[System]) -> dict[str, int]:
    """Sizes to choose schedules for where none are given; the schedules are legal for all others too.

    Systems that name sizes of their own are taken at their word.
    """
    lengths = set()
    for system in systems:
        domains = [e.domain.gist_params(system.context) for e in system.equations if e.reads]
        lengths |= {s for i, s in enumerate(system.symbols) if any(d.involves_dims(PARAM, i, 1) for d in domains)}
    sizes = {symbol: _LENGTH if symbol in lengths else _ROWS for system in systems for symbol in system.symbols}
    # The first sweep is the one that computes most.
    sizes |= {symbol: 0 for system in systems for symbol in sweep_counters(system)}
    for system in systems:
        sizes |= system.sizes
    return sizes


def sizes_for_reports(systems: Sequence[System], asked: Mapping[str, int]) -> dict[str, int]:
    """Sizes of the symbols of all systems: those asked for, else those that were named when a schedule was chosen."""
    sizes = default_sizes(systems)
    return {symbol: asked.get(symbol, size) for symbol, size in sizes.items()}


def _choices(system: System, cells: Cells, request: Request) -> list[Choice]:
    """Every schedule that fits the request; where several are equally fast the first is taken."""
    for what, value, known in (
        ("strategy", request.strategy, ("auto", *STRATEGIES)),
        ("distribute", request.distribute, ("", *DISTRIBUTIONS)),
    ):
        if value not in known:
            raise CompileError(f'there is no {what} "{value}" (known: {", ".join(k for k in known if k)})')
    if request.tile < 0 or request.threads < 0:
        raise CompileError("the time tile and the number of threads cannot be negative")
    mixed = mixed_rows(system, cells)
    if mixed is not None and "rows" in (request.strategy, request.distribute):
        raise CompileError(f"the rows of this system cannot be shared without barriers: {mixed[0]}", mixed[1])
    ways = {"sequential": ["units"], "layers": ["units"], "rows": ["rows"], "wavefront": ["units", "points"]}
    if request.strategy != "auto":
        ways = {request.strategy: [request.distribute] if request.distribute else ways[request.strategy]}
    else:
        del ways["sequential"]
        wanted = [request.distribute] if request.distribute else ["units", "points"]
        # At unknown sizes there may be fewer rows than threads.
        wanted += ["rows"] if mixed is None and request.sizes and not request.distribute else []
        ways = {s: kept for s, way in ways.items() if (kept := [d for d in way if d in wanted])}
    tiles = (request.tile,) if request.tile else _TILES
    return [
        Choice(strategy, distribute, tile)
        for strategy, distributes in ways.items()
        for distribute in distributes
        # A wavefront that was asked for by name is the plain one: as many waves as there can be.
        for tile in ((request.tile or 1,) if request.strategy in ("wavefront", "sequential") else tiles)
    ]


def _why(request: Request, ranking: Sequence[Estimate], machine: Machine, sizes: Mapping[str, int]) -> str:
    """One sentence on the choice."""
    if len(ranking) == 1:
        return "it was asked for"
    at = ", ".join(f"{name}={value}" for name, value in sizes.items())
    best, *others = ranking
    rival = next((e for e in others if e.choice.strategy != best.choice.strategy), others[0])
    asked = "" if request.strategy == "auto" else f"{request.strategy} was asked for; "
    members = "threads" if request.target == "cpu" else f"blocks of {request.target}"
    return (
        f"{asked}of {len(ranking)} schedules it is the fastest predicted for {at}, {machine.threads} {members}: "
        f"{best.seconds * 1e3:.3g} ms, against {rival.seconds * 1e3:.3g} ms for {rival.choice}"
    )
