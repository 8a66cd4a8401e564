"""Sets of elements as bits in 64-bit words."""

from collections.abc import Sequence

import numpy as np

from parc.triangular.elements import Bits, Flags

WORD = 64


def singletons(elements: Sequence[int], total: int) -> Bits:
    """`[total, words]`: element `elements[n]` of `total` has bit n set, and no element has another."""
    found = np.zeros((total, max(1, -(-len(elements) // WORD))), np.uint64)
    numbers = np.arange(len(elements), dtype=np.uint64)
    found[np.asarray(elements, np.int64), (numbers // WORD).astype(np.int64)] = np.uint64(1) << (numbers % WORD)
    return found


def unpacked(bits: Bits, count: int) -> Flags:
    """`[..., words]` -> `[..., count]`, the first bits as flags."""
    octets = np.ascontiguousarray(bits).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=count).view(bool)


def masked_unions(bits: Bits, mask: Flags) -> Bits:
    """`[left, inner, words]`, `[inner, right]` -> `[left, right, words]`: the union over where the mask is set.

    Masks repeat themselves from column to column (weights without zeros, units of one degree): each is done once.
    """
    columns, which = np.unique(np.packbits(mask, axis=0), axis=1, return_inverse=True)
    picks = np.unpackbits(columns, axis=0, count=mask.shape[0]).view(bool)
    found = np.zeros((bits.shape[0], picks.shape[1], bits.shape[2]), np.uint64)
    for column in range(picks.shape[1]):
        pick = picks[:, column]
        found[:, column] = np.bitwise_or.reduce(bits if pick.all() else bits[:, pick], axis=1)
    return found[:, which.reshape(-1)]
