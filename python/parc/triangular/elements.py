"""Arrays of elements of which it is known on which elements of an iterate they depend, and where what they are.

Dependence is kept as bits: word `e // 64` of an element has bit `e % 64` set where the element may depend on element
`e` of the iterate.  An element that is *known* has the same value whatever the iterate is, and that value is given; one
without bits that is not known is constant too, only not said to be which.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
"""One or more words for each element, in the last dimension."""
Array = NDArray[Any]
Flags = NDArray[np.bool_]
Index = tuple[Any, ...]
"""Slices, numbers and arrays of numbers: one for each dimension."""


@dataclass(frozen=True, eq=False)
class Elements:
    """What is known of the elements of a tensor; dimensions of size 1 stand for larger ones, as numpy broadcasts."""

    values: Array
    """The elements that are known; what stands at other places means nothing."""
    known: Flags
    """Of the same shape."""
    bits: Bits | None = None
    """Of that shape and one dimension more, without bits at known elements; None where no element has any."""

    @staticmethod
    def of(values: Array) -> "Elements":
        """Elements that are all known."""
        return Elements(values, np.ones(values.shape, bool))

    @staticmethod
    def unknown(shape: Sequence[int], dtype: np.dtype, bits: Bits | None = None) -> "Elements":
        """Elements of which none is known, with these dependences."""
        values = np.broadcast_to(np.zeros((), dtype), tuple(shape))
        return Elements(values, np.broadcast_to(np.False_, values.shape), bits)

    @staticmethod
    def make(values: Array, known: Flags, bits: Bits | None) -> "Elements":
        """Elements whose dependences are `bits` where they are not known."""
        shape = np.broadcast_shapes(values.shape, known.shape, () if bits is None else bits.shape[:-1])
        values, known = np.broadcast_to(values, shape), np.broadcast_to(known, shape)
        if bits is None:
            return Elements(values, known)
        if known.any():
            bits = np.where(known[..., None], np.uint64(0), bits)
        bits = np.broadcast_to(bits, (*shape, bits.shape[-1])) if bits.any() else None
        return Elements(values, known, bits)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def nonzero(self) -> Flags:
        """Where an element may be other than zero."""
        return ~self.known | (self.values != 0)

    def moved(self, move: Callable[[Array], Array]) -> "Elements":
        """The elements in other places: `move` rearranges the leading dimensions, and leaves any behind them alone."""
        bits = None if self.bits is None else move(self.bits)
        return Elements(move(self.values), move(self.known), bits)

    def broadcast(self, shape: Sequence[int]) -> "Elements":
        """The elements of a larger shape, without copies."""
        shape = tuple(shape)
        bits = None if self.bits is None else np.broadcast_to(self.bits, (*shape, self.bits.shape[-1]))
        return Elements(np.broadcast_to(self.values, shape), np.broadcast_to(self.known, shape), bits)

    def reshaped(self, shape: Sequence[int]) -> "Elements":
        """The same elements, in order, in another shape."""
        bits = None if self.bits is None else self.bits.reshape(*shape, self.bits.shape[-1])
        return Elements(self.values.reshape(shape), self.known.reshape(shape), bits)

    def taken(self, index: Index) -> "Elements":
        """The elements at an index of all dimensions, as numpy takes them."""
        bits = None if self.bits is None else self.bits[index]
        return Elements(self.values[index], self.known[index], bits)


def union(parts: Sequence[Elements]) -> Bits | None:
    """What the elements at the same place of all of these depend on, together."""
    found = [p.bits for p in parts if p.bits is not None]
    return reduce(np.bitwise_or, found) if found else None


def assemble(shape: Sequence[int], dtype: np.dtype, parts: Sequence[tuple[Index, Elements]]) -> Elements:
    """A tensor written part by part, each to an index of it; what nothing is written to is unknown and constant."""
    shape = tuple(shape)
    values, known = np.zeros(shape, dtype), np.zeros(shape, bool)
    words = next((p.bits.shape[-1] for _, p in parts if p.bits is not None), 0)
    bits = np.zeros((*shape, words), np.uint64) if words else None
    for index, part in parts:
        values[index], known[index] = part.values, part.known
        if bits is not None:
            bits[index] = 0 if part.bits is None else part.bits
    return Elements(values, known, bits)


def collapsed(elements: Elements) -> Bits | None:
    """What any of the elements depends on: one set of bits, as of an element without indices."""
    if elements.bits is None:
        return None
    words = elements.bits.reshape(-1, elements.bits.shape[-1])
    return np.bitwise_or.reduce(words, axis=0)


def whole(elements: Elements) -> Elements:
    """One element, without indices, that depends on what any of them depends on."""
    return Elements.unknown((), elements.values.dtype, collapsed(elements))
