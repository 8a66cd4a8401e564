"""Relations between numbered things as isl maps, and the proof that levels order a relation."""

from collections.abc import Sequence

import islpy as isl
import numpy as np
from numpy.typing import NDArray

from parc.triangular.bits import unpacked
from parc.triangular.elements import Bits

Run = tuple[int, int]
"""The first and the last number of some that follow each other."""


def as_map(rows: Sequence[Sequence[Run]]) -> isl.Map:
    """`{ [i] -> [j] }`, where j is in one of the runs of row i.

    Rows behind each other whose runs begin and end at affine functions of the row become one piece.
    """
    found = isl.Map("{ [i] -> [j] : false }")
    start = 0
    while start < len(rows):
        stop, slopes = _alike(rows, start)
        pieces = []
        for (low, high), (low_slope, high_slope) in zip(rows[start], slopes, strict=True):
            first, last = (f"{at - start * slope} + {slope} i" for at, slope in ((low, low_slope), (high, high_slope)))
            pieces.append(f"[i] -> [j] : {start} <= i < {stop} and {first} <= j <= {last}")
        if pieces:
            found = found.union(isl.Map(f"{{ {'; '.join(pieces)} }}"))
        start = stop
    return found


def runs(flags: NDArray[np.bool_]) -> list[Run]:
    """The runs of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def level_relation(relation: Bits, levels: NDArray[np.int64]) -> isl.Map:
    """`{ [level] -> [level] }`: an element of the first needs one of the second, for some pair of elements."""
    rows: list[list[Run]] = []
    for level in range(int(levels.max(initial=0)) + 1):
        needed = unpacked(np.bitwise_or.reduce(relation[levels == level], axis=0), len(relation))
        flags = np.zeros(int(levels.max(initial=0)) + 1, bool)
        flags[levels[needed]] = True
        rows.append(runs(flags))
    return as_map(rows)


def is_ordered(relation: Bits, levels: NDArray[np.int64]) -> bool:
    """Does every element have a level, and need elements of lower levels only?

    Then a sweep over all elements makes those of the next level final: by induction, as many sweeps as levels do all.
    """
    lower = isl.Map("{ [level] -> [needed] : 1 <= needed < level }")
    return bool((levels > 0).all()) and level_relation(relation, levels).is_subset(lower)


def _alike(rows: Sequence[Sequence[Run]], start: int) -> tuple[int, list[Run]]:
    """The end of the rows from `start` on whose runs move by the same steps from row to row, and these steps."""
    here = rows[start]
    stop = start + 1
    slopes = [(0, 0)] * len(here)
    while stop < len(rows) and len(rows[stop]) == len(here):
        steps = [(c - a, d - b) for (a, b), (c, d) in zip(rows[stop - 1], rows[stop], strict=True)]
        if stop > start + 1 and steps != slopes:
            break
        slopes, stop = steps, stop + 1
    return stop, slopes
