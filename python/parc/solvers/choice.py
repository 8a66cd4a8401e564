"""How many levels and which chunks a solver uses, for given sizes (it is right for all others)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2, prod

from parc.poly.affine import evaluate
from parc.poly.model import System
from parc.recurrence.extents import extents_of
from parc.solvers.recurrence import Recurrence

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


def scan_levels(extent: Extent, threads: int, chunk: int = 0, levels: int = 0) -> list[int]:
    """The sizes of the chunks of a scan, level by level: at first, of each thread's.

    The first chunk is solved while others are composed, so that there is one more than there are threads.  Where only
    the size of a chunk is given there are levels until one step is left: chunks of two make a binary tree.
    """
    if chunk and not levels:
        levels = ceil(round(log2(max(2, extent.steps)) / log2(chunk), 9))
    return [chunk or max(_LEAST_CHUNK, ceil(extent.steps / (threads + 1)))] * max(1, levels)


def reduction_levels(extent: Extent, levels: int = 0) -> list[int]:
    """Chunks of two until one step is left."""
    return [2] * (levels or doublings(extent))


def doublings(extent: Extent) -> int:
    """How often a distance of one has to be doubled to reach all steps."""
    return max(1, ceil(log2(max(1, extent.steps))))
