"""What sweeps cost beside a recurrence step by step, by the cost model of the schedules (`poly/cost.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from parc.errors import CompileError
from parc.iterative.core import cores
from parc.iterative.depth import find_depth
from parc.poly.affine import evaluate
from parc.poly.cost import estimate
from parc.poly.count import span
from parc.poly.dependences import Dependence, dependences
from parc.poly.groups import Group
from parc.poly.machine import Machine
from parc.poly.model import System
from parc.poly.rows import find_cells
from parc.poly.schedules import Choice
from parc.poly.timing import AffineTime
from parc.poly.wavefront import Layer, Times, waves
from parc.poly.work import Work, measure
from parc.solvers.choice import measure as measure_recurrence
from parc.solvers.choice import scan_levels
from parc.solvers.predict import predict as predict_scan
from parc.solvers.recurrence import recognise

FORGOTTEN = 32
"""After so many steps, it is assumed, a state no longer shows: cells of 64 units took 18 (RNN) to 44 (GRU)."""
_STEP_BY_STEP = (
    Choice("layers", "units"),
    Choice("wavefront", "units"),
    Choice("wavefront", "points"),
    Choice("wavefront", "points", 32),
)
_TOUCHED = 5
"""How often a sweep reads or writes each iterate besides its products: for the change, and to keep it."""


@dataclass(frozen=True)
class Prediction:
    """Seconds of all recurrences of a system, by the best kind of sweeps and step by step."""

    solver: str
    sweeps: int
    seconds: float
    now: float
    """Step by step, or by a scan where that is faster."""
    choice: str
    """What `now` is."""

    @property
    def gain(self) -> float:
        """How many times faster sweeps are."""
        return self.now / self.seconds

    def __str__(self) -> str:
        return (
            f"{self.seconds * 1e3:.3g} ms predicted for {self.sweeps} sweeps of {self.solver}, if states are forgotten "
            f"after {FORGOTTEN} steps, against {self.now * 1e3:.3g} ms for {self.choice}"
        )


def predict(system: System, sizes: Mapping[str, int], block: int, machine: Machine) -> Prediction | None:
    """The best of Jacobi's method and its hybrid of blocks; None for a system that cannot be swept over, or is empty.

    block: of the hybrid, 0 for as many as there are threads.  Needs a current MLIR context.
    """
    flow = dependences(system)
    work = measure(system, find_cells(system), sizes)
    found: list[Prediction] = []
    try:
        for core in cores(system, flow, sizes):
            part = replace(system, equations=tuple(e for e in system.equations if e.name in core.equations))
            inside = [d for d in flow if d.source in core.equations and d.sink in core.equations]
            found.append(_predict(part, inside, work, sizes, block, machine))
    except CompileError:
        return None
    if not found or not all(p.seconds > 0 for p in found):
        return None
    first = max(found, key=lambda p: p.seconds)
    return replace(first, seconds=sum(p.seconds for p in found), now=sum(p.now for p in found))


def _predict(
    system: System,
    flow: Sequence[Dependence],
    work: Mapping[str, Work],
    sizes: Mapping[str, int],
    block: int,
    machine: Machine,
) -> Prediction:
    depth = find_depth(system, flow)
    steps = evaluate(depth.deepest, [sizes[symbol] for symbol in system.symbols])
    layers = waves(system, flow) or ()
    count = span(system, layers).at(sizes)
    now = min((estimate(c, layers, work, count, machine) for c in _STEP_BY_STEP), key=lambda e: e.seconds)
    # All points of an equation have one time.
    names = tuple(e.name for e in system.equations)
    zeros = {
        e.name: AffineTime((0,) * len(depth.of[e.name].dims), (0,) * len(system.symbols), 0) for e in system.equations
    }
    times = Times(zeros, depth.level)
    sweep = Layer(Group((), names, ()), times, times, dict.fromkeys(names, 0), has_independent_points=False)
    touched = _TOUCHED * sum(work[n].written * work[n].points for n in names) / machine.far_bandwidth / machine.threads
    once = estimate(Choice("layers", "units"), [sweep], work, 1, machine).seconds + touched
    size = block or max(1, ceil(steps / machine.threads))
    alone = estimate(Choice("layers", "units"), layers, work, count, replace(machine, threads=1)).seconds
    blocks = ceil(steps / size)
    rounds = ceil(blocks / machine.threads) / blocks if blocks else 0.0
    ways = [
        ("jacobi", min(steps, FORGOTTEN), once),
        ("jacobi-gs", min(blocks, 2 + ceil(FORGOTTEN / size)), alone * rounds + touched),
    ]
    solver, sweeps, seconds = min(ways, key=lambda way: way[1] * way[2])
    scan = _scan(system, flow, sizes, machine)
    best, choice = min((now.seconds, f"{now.choice}, step by step"), (scan, "a scan"))
    return Prediction(solver, sweeps, sweeps * seconds, best, choice)


def _scan(system: System, flow: Sequence[Dependence], sizes: Mapping[str, int], machine: Machine) -> float:
    """Seconds of a scan; infinite where the recurrence is not affine, or more than one equation."""
    if len(system.equations) > 1:
        return inf
    try:
        recurrence = recognise(system, flow, system.equations[0].name)
    except CompileError:
        return inf
    extent = measure_recurrence(system, recurrence, sizes)
    (chunk, *_) = scan_levels(extent, machine.threads)
    found = predict_scan(system, flow, recurrence, extent, chunk, sizes, machine)
    return inf if found is None else found.scan
