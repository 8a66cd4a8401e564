"""What a scan in chunks costs beside the recurrence as it is, by the cost model of the schedules (`poly/cost.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from parc.poly.cost import Estimate, Machine, estimate
from parc.poly.dependences import Dependence
from parc.poly.model import System
from parc.poly.rows import find_cells
from parc.poly.schedules import Choice
from parc.poly.wavefront import waves
from parc.poly.work import measure
from parc.solvers.choice import Extent
from parc.solvers.chunks import Level
from parc.solvers.recurrence import Recurrence

_STEP_BY_STEP = (Choice("layers", "units"), Choice("wavefront", "points", 32), Choice("rows", "rows"))
_POINT = 20e-9
"""Seconds for a point in a run of points that are apart in memory; each step is three such points."""
_GENERAL_FLOPS = 10e9
"""Arithmetic per second of what is no cell: products of two matrices that are both computed."""


@dataclass(frozen=True)
class Prediction:
    """Seconds of a recurrence, solved by a scan and step by step."""

    scan: float
    now: Estimate

    @property
    def gain(self) -> float:
        """How many times faster the scan is."""
        return self.now.seconds / self.scan

    def __str__(self) -> str:
        now = f"{self.now.seconds * 1e3:.3g} ms step by step ({self.now.choice})"
        return f"{self.scan * 1e3:.3g} ms predicted for a scan, against {now}"


def predict(
    system: System,
    flow: Sequence[Dependence],
    recurrence: Recurrence,
    extent: Extent,
    level: Level,
    sizes: Mapping[str, int],
    machine: Machine,
) -> Prediction | None:
    """Both times, at these sizes; None where the system has no waves to compare with."""
    layers = [layer for layer in waves(system, flow) or () if recurrence.equation.name in layer.group.core]
    if not layers or not extent.steps or not extent.elements:
        return None
    work = measure(system, find_cells(system), sizes)
    now = min((estimate(c, layers, work, extent.steps, machine) for c in _STEP_BY_STEP), key=lambda e: e.seconds)
    name = recurrence.equation.name
    own = work[name].written + work[name].pointwise * machine.far_bandwidth
    state = 4 * extent.elements
    if recurrence.body.is_diagonal:
        # A step is computed for its chunk, A and b, and read again once the state before the chunk is known.
        one = (own + 8 * state) / machine.far_bandwidth + 3 * _POINT + 2 * machine.call / level.strands
    else:
        width = recurrence.body.result.type.shape[-1]
        flops = 2.0 * extent.elements * width * (width + 1)
        one = own / machine.far_bandwidth + flops / _GENERAL_FLOPS
    chunks = ceil(extent.steps / level.size)
    shared = extent.steps * one / min(machine.threads, ceil(chunks / level.strands))
    ends = chunks * (machine.call + 4 * state / machine.l2_bandwidth)
    return Prediction(shared + ends + 4 * machine.barrier, now)
