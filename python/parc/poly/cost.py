"""How long a schedule takes, by a model small enough to explain: memory, arithmetic, barriers.

One call of an equation reads its weights once, multiplies them by the rows of its points and writes their tiles.  That
takes the time of the bytes plus that of the arithmetic: they overlap little, on a CPU a cell of 16 rows and 256 units
was measured at 84 to 92 % of the arithmetic that a product of many rows reaches.  Bytes come from near memory as far as
what a member touches again and again fits there, else from further away.  Barriers, and threads with nothing to do,
come on top.  The constants (`machine.py`, docs/scheduling.md) are rounded; only their order of magnitude matters to a
choice between schedules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

from parc.poly.crews import MOST
from parc.poly.machine import Machine
from parc.poly.schedules import Choice
from parc.poly.wavefront import Layer
from parc.poly.work import Work


@dataclass(frozen=True)
class Estimate:
    """A schedule's predicted time."""

    choice: Choice
    seconds: float
    barriers: int
    """How often members wait: all for all, or with points distributed for some."""

    def __str__(self) -> str:
        return f"{self.choice}: {self.seconds * 1e3:.3g} ms, {self.barriers} barriers"


def estimate(
    choice: Choice, layers: Sequence[Layer], work: Mapping[str, Work], waves: int, machine: Machine
) -> Estimate:
    """The predicted time of a schedule; `waves` is the number of waves without tiles at the sizes of `work`."""
    wavefront = choice.strategy == "wavefront"
    points = wavefront and choice.distribute == "points"
    crew = _crew(choice, layers, work, machine)
    calls = [sum(_calls(layer, n, work[n], choice) for n in layer.group.equations) for layer in layers]
    waves = ceil((waves - len(layers) + 1) / choice.tile) + len(layers) - 1 if waves else 0
    tiles = [_tiles(layer, work, waves, choice) for layer in layers]
    busy = sum(_busy(choice, layer, layers if wavefront else (layer,), work, machine, crew) for layer in layers)
    steps = max((ceil(c / t) for c, t in zip(calls, tiles, strict=True) if t), default=0)
    if points:
        at_once = sum(tiles) / waves if waves else 1.0
        busy *= _longest_share(at_once, machine.threads // crew) / at_once
        barriers = waves * max(1, steps) if crew > 1 else waves
    elif wavefront:
        barriers = waves * steps
    else:
        barriers = 0 if choice.distribute == "rows" else sum(calls)
    barriers = 0 if machine.threads == 1 else barriers
    some = points and crew < machine.threads
    return Estimate(choice, busy + barriers * (machine.wait if some else machine.barrier), barriers)


def _crew(choice: Choice, layers: Sequence[Layer], work: Mapping[str, Work], machine: Machine) -> int:
    """How many members share the units of a layer where each layer has an owner (`poly/crews.py`)."""
    if choice.distribute != "points" or len(layers) > MOST or any(layer.is_dealt(choice.tile) for layer in layers):
        return 1
    # A layer without products, in tiles: one member goes through a chain of its points.
    chains = choice.tile > 1 and any(
        len(layer.group.core) == 1 and not work[layer.group.core[0]].flops for layer in layers
    )
    return 1 if chains else max(1, machine.threads // len(layers))


def _busy(
    choice: Choice,
    layer: Layer,
    at_once: Sequence[Layer],
    work: Mapping[str, Work],
    machine: Machine,
    crew: int,
) -> float:
    """Seconds that the calls of one layer take, while the layers `at_once` share the caches."""
    threads, tile = machine.threads, choice.tile
    sharers = {"units": threads, "points": crew, "rows": 1}[choice.distribute]
    weight_share = min(threads, len(at_once)) * crew if choice.distribute == "points" else sharers
    again, once = 0.0, 0.0
    for other in at_once:
        for name in other.group.equations:
            recurs = name in other.group.core
            again += work[name].weights if recurs or tile == 1 else work[name].written * tile
            once += work[name].weights if not recurs and tile > 1 else 0
    seconds = 0.0
    for name in layer.group.equations:
        one, calls = work[name], _calls(layer, name, work[name], choice)
        merged = one.points / calls if calls else 0.0
        resident = (again if name in layer.group.core else again + once) / weight_share
        # What is no cell is run by one thread.
        by_rows = choice.distribute == "rows"
        parts = 1 if not one.is_cell else one.rows if by_rows else ceil(one.row_bytes / machine.part_bytes)
        share = max(1, min(threads if by_rows else sharers, parts))
        bytes_ = one.weights / (1 if by_rows else share) + merged * one.written / share
        read = merged * one.read / (share if by_rows else 1) / machine.read_bandwidth
        arithmetic = merged * (one.flops / machine.flops + one.pointwise * machine.pointwise) / share
        start = machine.step if one.is_cell and not one.flops else machine.call
        seconds += calls * (bytes_ / _bandwidth(machine, resident) + read + arithmetic + start)
    return seconds


def _tiles(layer: Layer, work: Mapping[str, Work], waves: int, choice: Choice) -> int:
    """How many tiles of a layer there are for threads to take; of one that is not dealt out, one in a wave."""
    tiles = ceil(max(work[name].points for name in layer.group.core) / layer.tile(choice.tile))
    return tiles if layer.is_dealt(choice.tile) else min(tiles, waves)


def _longest_share(at_once: float, threads: int) -> float:
    """How many layers the thread with the most of them has in a wave, on average; `at_once` is how many all have."""
    few = floor(at_once)
    more = at_once - few
    return (1 - more) * ceil(few / threads) + more * ceil((few + 1) / threads)


def _calls(layer: Layer, name: str, work: Work, choice: Choice) -> int:
    """How many times an equation is called: once for all points of one time, as far as threads do not share these."""
    if choice.distribute == "rows":
        return work.points  # a thread's rows are not neighbours in memory
    if layer.local.is_constant(name):
        return min(1, work.points) if choice.distribute == "units" else work.points
    return work.points if name in layer.group.core else ceil(work.points / choice.tile)


def _bandwidth(machine: Machine, resident: float) -> float:
    """Bytes per second when `resident` bytes are touched again and again."""
    near = min(1.0, machine.near_bytes / resident) if resident else 1.0
    return 1 / (near / machine.near_bandwidth + (1 - near) / machine.far_bandwidth)
