"""The order of a relation between elements: levels, or a cycle."""

import numpy as np
from numpy.typing import NDArray

from parc.triangular.bits import WORD, singletons, unpacked
from parc.triangular.elements import Bits


def levels(relation: Bits) -> NDArray[np.int64]:
    """`[n, words]`: for each element, how many elements follow each other in the longest chain that ends with it.

    Row e of the relation has the bits of the elements that e needs.  An element that needs none is at level 1; one
    that is on a cycle, or needs one that is, has level 0.
    """
    count = len(relation)
    found = np.zeros(count, np.int64)
    rows, left, level = np.arange(count), relation, 0
    pending = np.bitwise_or.reduce(singletons(range(count), count), axis=0) if count else np.zeros(1, np.uint64)
    while rows.size:
        ready = ~(left & pending).any(axis=1)
        if not ready.any():
            break
        level += 1
        found[rows[ready]] = level
        done = rows[ready].astype(np.uint64)
        np.bitwise_and.at(pending, (done // WORD).astype(np.int64), ~(np.uint64(1) << (done % WORD)))
        rows, left = rows[~ready], left[~ready]
    return found


def cycle(relation: Bits, without_level: NDArray[np.int64]) -> list[int]:
    """A cycle among elements without a level, each needing the next: of one or two elements where there is such."""
    count = len(relation)
    among = unpacked(relation[without_level], count)[:, without_level]
    alone = np.flatnonzero(np.diagonal(among))
    if alone.size:
        return [int(without_level[alone[0]])]
    pairs = np.argwhere(among & among.T)
    if pairs.size:
        return [int(without_level[n]) for n in pairs[0]]
    path, at = [], 0
    while at not in path:
        path.append(at)
        at = int(np.flatnonzero(among[at])[0])
    return [int(without_level[n]) for n in path[path.index(at) :]]
