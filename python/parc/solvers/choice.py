"""How many levels and which chunks a solver uses, for given sizes (it is right for all others)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2, prod

from parc.poly.affine import evaluate
from parc.poly.model import System
from parc.recurrence.extents import extents_of
from parc.solvers.chunks import Level
from parc.solvers.recurrence import Recurrence

_LANES = 16
"""Numbers in a vector register."""
_IN_FLIGHT = 64
"""Vectors of independent multiply-adds that a thread works on side by side, so that it need not wait for one."""
_MOST_STRANDS = 32
_LEAST_CHUNK = 16
"""Steps of a chunk, so that there are far fewer ends than steps."""


@dataclass(frozen=True)
class Extent:
    """The size of a recurrence."""

    steps: int
    elements: int
    """Of a state."""


def measure(system: System, recurrence: Recurrence, sizes: Mapping[str, int]) -> Extent:
    """The size of a recurrence where the symbols have these values."""
    values = [sizes[symbol] for symbol in system.symbols]
    tile = extents_of(recurrence.body.result, system.op)
    others = prod(evaluate(stop - start, values) for start, stop in recurrence.others)
    return Extent(evaluate(recurrence.length, values), others * prod(evaluate(e, values) for e in tile))


def scan_levels(extent: Extent, threads: int, chunk: int = 0, levels: int = 0, strands: int = 0) -> list[Level]:
    """The chunks of a scan: enough for every thread, each with strands enough to keep it busy.

    Where only the size of a chunk is given there are levels until one step is left: chunks of two make a binary tree.
    """
    if not strands:
        vectors = ceil(extent.elements / _LANES)
        strands = 1 if chunk else max(1, min(_MOST_STRANDS, ceil(_IN_FLIGHT / max(1, vectors))))
    if chunk and not levels:
        levels = ceil(round(log2(max(2, extent.steps)) / log2(chunk), 9))
    # An odd number: the strands of a power of two would meet in the same sets of a cache.
    chunk = chunk or max(_LEAST_CHUNK, ceil(extent.steps / (threads * strands))) | 1
    return [Level(chunk, strands)] + [Level(chunk)] * (max(1, levels) - 1)


def reduction_levels(extent: Extent, levels: int = 0) -> list[Level]:
    """Chunks of two until one step is left."""
    return [Level(2)] * (levels or doublings(extent))


def doublings(extent: Extent) -> int:
    """How often a distance of one has to be doubled to reach all steps."""
    return max(1, ceil(log2(max(1, extent.steps))))
