"""How long a schedule takes, by a model small enough to explain: memory, arithmetic, barriers.

One point of an equation reads its weights and multiplies them by its rows.  It takes as long as the slower of the
two: the weights come from the L2 cache when all that a thread touches again and again fits there, else from further
away.  Barriers, and threads that wait for the slowest one, come on top.  The constants are rounded measurements of
server cores; what matters is their order of magnitude.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from torch_mlir import ir
from torch_mlir.dialects import linalg

from .count import points_at
from .model import Equation, System
from .schedules import Schedule
from .wavefront import Layer


@dataclass(frozen=True)
class Machine:
    """The parts of a CPU that decide between schedules."""

    threads: int
    l2_bytes: int = 1 << 20
    """Of one core."""
    flops: float = 200e9
    """Of one core, per second, in matrix products."""
    l2_bandwidth: float = 135e9
    """Of one core, bytes per second, as a matrix-vector product reaches it."""
    far_bandwidth: float = 85e9
    """The same for what does not fit in L2."""
    barrier: float = 100e-9
    """Seconds."""
    call: float = 30e-9
    """Seconds that it takes to start a kernel."""

    @staticmethod
    def detect(threads: int = 0) -> "Machine":
        """This machine, with as many threads as there are cores to run on when `threads` is 0."""
        size = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
        text = size.read_text().strip() if size.exists() else ""
        l2 = int(text[:-1]) << 10 if text.endswith("K") and text[:-1].isdigit() else 1 << 20
        return Machine(threads=threads or len(os.sched_getaffinity(0)), l2_bytes=l2)


@dataclass(frozen=True)
class Work:
    """What one equation does at one point, at given sizes."""

    rows: int
    flops: float
    """Floating-point operations of its products."""
    weights: int
    """Bytes of known operands of its products."""
    tile: int
    """Bytes of what it writes."""
    elementwise: float
    """Seconds of pointwise operations."""
    count: int
    """Points."""


@dataclass(frozen=True)
class Estimate:
    """A schedule and how long it is predicted to take."""

    schedule: Schedule
    seconds: float
    barriers: int

    def __str__(self) -> str:
        return f"{self.schedule.title}: {self.seconds * 1e3:.3g} ms, {self.barriers} barriers"


def measure(system: System, sizes: Mapping[str, int]) -> dict[str, Work]:
    """The work of each equation's body at the given sizes of the symbols."""
    return {e.name: _work(system, e, sizes) for e in system.equations}


def estimate(
    schedule: Schedule, layers: Sequence[Layer], work: Mapping[str, Work], machine: Machine, waves: int
) -> Estimate:
    """The predicted time of a schedule whose untiled wavefront has `waves` waves at the sizes that `work` is for."""
    if schedule.strategy == "wavefront":
        seconds, barriers = _wavefront(schedule, layers, work, machine, waves)
    else:
        seconds, barriers = _in_layer_order(schedule, layers, work, machine)
    return Estimate(schedule, seconds, barriers)


def _in_layer_order(
    schedule: Schedule, layers: Sequence[Layer], work: Mapping[str, Work], machine: Machine
) -> tuple[float, int]:
    """Layers one after another; every thread takes its share of the units or rows of each step."""
    seconds, barriers = 0.0, 0
    for layer in layers:
        rows = max(work[n].rows for n in layer.group.equations)
        share = min(machine.threads, rows) if schedule.distribute == "rows" else machine.threads
        weight_share = 1 if schedule.distribute == "rows" else share
        resident = _resident(layer, work, schedule.tile) / weight_share
        for name in layer.group.equations:
            calls = _calls(layer, name, work[name], schedule.tile)
            seconds += calls * _step(work[name], calls, share, weight_share, resident, machine)
            barriers += calls
    if schedule.distribute == "rows" or machine.threads == 1:
        return seconds, 0
    return seconds + barriers * machine.barrier, barriers


def _wavefront(
    schedule: Schedule, layers: Sequence[Layer], work: Mapping[str, Work], machine: Machine, waves: int
) -> tuple[float, int]:
    """All layers at once: a thread touches the weights of all of its layers in each wave."""
    threads = machine.threads
    tiles = ceil((waves - len(layers) + 1) / schedule.tile) + len(layers) - 1 if waves else 0
    whole = sum(_resident(layer, work, schedule.tile) for layer in layers)
    points = schedule.distribute == "points"
    workers = min(threads, len(layers)) if points else threads
    resident = whole / workers
    seconds, calls_in_all, parallel_calls = 0.0, 0, 0
    for layer in layers:
        longest = 0
        for name in layer.group.equations:
            calls = _calls(layer, name, work[name], schedule.tile)
            share = 1 if points else threads
            seconds += calls * _step(work[name], calls, share, share, resident, machine)
            calls_in_all += calls
            longest += calls
        parallel_calls = max(parallel_calls, longest)
    if not points:
        barriers = ceil(parallel_calls * tiles / max(tiles - len(layers) + 1, 1))
    else:
        # Each wave lasts as long as the worker with the most layers in it; the first and last waves are not full.
        seconds *= ceil(len(layers) / workers) / len(layers) * tiles / max(tiles - len(layers) + 1, 1)
        barriers = tiles
    return seconds + (barriers * machine.barrier if threads > 1 else 0.0), barriers if threads > 1 else 0


def _calls(layer: Layer, name: str, work: Work, tile: int) -> int:
    """How many steps run an equation: one for a whole tile outside the recurrence."""
    return work.count if name in layer.group.core else ceil(work.count / tile)


def _resident(layer: Layer, work: Mapping[str, Work], tile: int) -> float:
    """Bytes that the steps of one layer touch again and again: its weights and one tile of what it writes."""
    group = layer.group
    return sum(
        work[n].weights + work[n].tile * (1 if n in group.core else tile) for n in group.equations
    )


def _step(work: Work, calls: int, share: int, weight_share: int, resident: float, machine: Machine) -> float:
    """Seconds of one step of one equation on each of `share` threads."""
    together = work.count / calls if calls else 0.0
    near = min(1.0, machine.l2_bytes / resident) if resident else 1.0
    bandwidth = 1 / (near / machine.l2_bandwidth + (1 - near) / machine.far_bandwidth)
    memory = work.weights / weight_share / bandwidth
    arithmetic = together * work.flops / share / machine.flops
    return max(memory, arithmetic) + together * work.elementwise / share + machine.call


def _work(system: System, equation: Equation, sizes: Mapping[str, int]) -> Work:
    write = equation.writes[0]
    shape = system.unknown(write.array).op.attributes["shape"].value.results
    indices = len(write.op.attributes["at"].value.results)
    tile = [_evaluate(e, [sizes[s] for s in system.symbols]) for e in shape[indices:]]
    rows = prod(tile[:-1])
    body = equation.op.regions[0].blocks[0]
    flops, weights, elementwise = 0.0, 0, 0.0
    for op in (o.operation for o in body.operations):
        if not op.name.startswith("linalg."):
            continue
        if linalg.isa_contraction_op(op):
            shapes = [_shape(v, rows) for v in op.operands]
            output, inner = shapes[-1], linalg.infer_contraction_dimensions(op)
            flops += 2.0 * prod(output) * _extent(op, shapes, list(inner.k))
            weights += sum(_bytes(v, rows) for v in op.operands if v.owner != body and _is_known(v, body))
        else:
            elementwise += _pointwise(op, rows)
    size = prod(tile) * _element_bytes(write.op.operands[0])
    return Work(rows, flops, weights, size, elementwise, points_at(equation.domain, sizes))


def _evaluate(expr: ir.AffineExpr, symbols: Sequence[int]) -> int:
    expr = expr.maybe_downcast()
    if isinstance(expr, ir.AffineConstantExpr):
        return expr.value
    if isinstance(expr, ir.AffineSymbolExpr):
        return symbols[expr.position]
    left, right = _evaluate(expr.lhs, symbols), _evaluate(expr.rhs, symbols)
    if isinstance(expr, ir.AffineAddExpr):
        return left + right
    if isinstance(expr, ir.AffineMulExpr):
        return left * right
    if isinstance(expr, ir.AffineModExpr):
        return left % right
    return left // right if isinstance(expr, ir.AffineFloorDivExpr) else -(-left // right)
