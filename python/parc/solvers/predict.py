"""What a scan in chunks costs beside the recurrence as it is, by the cost model of the schedules (`poly/cost.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from parc.poly.cost import Estimate, estimate
from parc.poly.dependences import Dependence
from parc.poly.machine import Machine
from parc.poly.model import System
from parc.poly.rows import find_cells
from parc.poly.schedules import Choice
from parc.poly.wavefront import waves
from parc.poly.work import measure
from parc.solvers.choice import Extent
from parc.solvers.recurrence import Recurrence

_STEP_BY_STEP = (Choice("layers", "units"), Choice("wavefront", "points", 32), Choice("rows", "rows"))
_STREAMED = 2.0
"""How many times longer than its model a step of a chunk takes: all threads go through long arrays at once."""
_BARRIERS = 5
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
    chunk: int,
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
    one = work[name].written / machine.far_bandwidth + work[name].pointwise
    composed = one
    if not recurrence.body.is_diagonal:
        width = recurrence.body.result.type.shape[-1]
        composed += 2.0 * extent.elements * width * (width + 1) / _GENERAL_FLOPS
    chunks = ceil(extent.steps / chunk)
    # The first chunk is solved while others are composed; then all others are solved.
    rounds = ceil((chunks - 1) / machine.threads)
    steps = _STREAMED * chunk * (max(one, composed) + one) * rounds if rounds else _STREAMED * extent.steps * one
    ends = max(0, chunks - 2) * (machine.call + 16 * extent.elements / machine.near_bandwidth)
    return Prediction(steps + ends + _BARRIERS * machine.barrier, now)
