"""The sizes that a program is traced at."""

from collections.abc import Sequence

#: The least length to trace of what a loop runs over: enough that a loop which reads three steps back repeats in it.
TIME_BASE = 5
#: The least value of other sizes.
OTHER_BASE = 2
#: The last trace differs from the first by this much in every symbol.
_HELD_OUT = 3


def trace_sizes(base: Sequence[int]) -> list[tuple[int, ...]]:
    """Values of the symbols to trace at: a base, one more of each symbol, and one held out to check against."""
    first = tuple(base)
    steps = [tuple(b + (i == k) for i, b in enumerate(first)) for k in range(len(first))]
    return [first, *steps, tuple(b + _HELD_OUT for b in first)] if first else [first]
