"""How long a schedule takes, by a model small enough to explain: memory, arithmetic, barriers.

One call of an equation reads its weights once, multiplies them by the rows of its points and writes their tiles.  That
takes the time of the bytes plus that of the arithmetic: they overlap little, a cell of 16 rows and 256 units was
measured at 84 to 92 % of the arithmetic that a product of many rows reaches.  Bytes come from the L2 cache as far as
what a thread touches again and again fits there, else from further away.  Barriers, and threads with nothing to do,
come on top.  The constants are rounded measurements of one kind of core (docs/scheduling.md says which); only their
order of magnitude matters to a choice between schedules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

from parc.poly.schedules import Choice
from parc.poly.wavefront import Layer
from parc.poly.work import Work
from parc.runtime.team import usable_cpus


@dataclass(frozen=True)
class Machine:
    """What of a CPU decides between schedules; bandwidths and arithmetic are those of one core, per second."""

    threads: int
    l2_bytes: int = 1 << 20
    flops: float = 250e9
    l2_bandwidth: float = 135e9
    far_bandwidth: float = 85e9
    barrier: float = 100e-9
    call: float = 30e-9
    """Seconds to start a kernel."""
    step: float = 6e-9
    """The same of one without products, which LLVM puts where it is called, with waiting for the step before."""

    @staticmethod
    def detect(threads: int = 0) -> "Machine":
        """This machine; with a thread for each core that we may run on when `threads` is 0."""
        path = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
        text = path.read_text().strip() if path.exists() else ""
        l2 = int(text[:-1]) << 10 if text.endswith("K") and text[:-1].isdigit() else Machine.l2_bytes
        return Machine(threads or usable_cpus(), l2)


@dataclass(frozen=True)
class Estimate:
    """A schedule's predicted time."""

    choice: Choice
    seconds: float
    barriers: int

    def __str__(self) -> str:
        return f"{self.choice}: {self.seconds * 1e3:.3g} ms, {self.barriers} barriers"


def estimate(
    choice: Choice, layers: Sequence[Layer], work: Mapping[str, Work], waves: int, machine: Machine
) -> Estimate:
    """The predicted time of a schedule; `waves` is the number of waves without tiles at the sizes of `work`."""
    wavefront = choice.strategy == "wavefront"
    calls = [sum(_calls(layer, n, work[n], choice) for n in layer.group.equations) for layer in layers]
    waves = ceil((waves - len(layers) + 1) / choice.tile) + len(layers) - 1 if waves else 0
    tiles = [_tiles(layer, work, waves, choice) for layer in layers]
    busy = sum(_busy(choice, layer, layers if wavefront else (layer,), work, machine) for layer in layers)
    if wavefront and choice.distribute == "points":
        at_once = sum(tiles) / waves if waves else 1.0
        busy *= _longest_share(at_once, machine.threads) / at_once
        barriers = waves
    elif wavefront:
        barriers = waves * max((ceil(c / t) for c, t in zip(calls, tiles, strict=True) if t), default=0)
    else:
        barriers = 0 if choice.distribute == "rows" else sum(calls)
    barriers = 0 if machine.threads == 1 else barriers
    return Estimate(choice, busy + barriers * machine.barrier, barriers)


def _busy(choice: Choice, layer: Layer, at_once: Sequence[Layer], work: Mapping[str, Work], machine: Machine) -> float:
    """Seconds that the calls of one layer take, while the layers `at_once` share the caches."""
    threads, tile = machine.threads, choice.tile
    weight_share = {"units": threads, "points": min(threads, len(at_once)), "rows": 1}[choice.distribute]
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
        parts = {"units": one.vectors, "points": 1, "rows": one.rows}[choice.distribute] if one.is_cell else 1
        share = max(1, min(threads, parts))
        bytes_ = one.weights / (share if choice.distribute == "units" else 1) + merged * one.written / share
        arithmetic = merged * (one.flops / machine.flops + one.pointwise) / share
        start = machine.step if one.is_cell and not one.flops else machine.call
        seconds += calls * (bytes_ / _bandwidth(machine, resident) + arithmetic + start)
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
    near = min(1.0, machine.l2_bytes / resident) if resident else 1.0
    return 1 / (near / machine.l2_bandwidth + (1 - near) / machine.far_bandwidth)
