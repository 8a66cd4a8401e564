"""What the iterations that parc compiles are compared with: one unknown after the other, and sweeps in plain PyTorch.

A step computes all unknowns `[batch, unknowns]` at once from those that it is given; each needs only some before it.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from torch import Tensor

Step = Callable[[Tensor], Tensor]
Result = TypeVar("Result")


class Solved(NamedTuple):
    """The unknowns, and how many sweeps that took, the last of which changed nothing."""

    values: Tensor
    sweeps: int


def one_by_one(step: Step, start: Tensor) -> Tensor:
    """The unknowns in their order, a run of the step for each: what samplers of autoregressive models do."""
    values = start.clone()
    for i in range(start.shape[1]):
        values[:, i] = step(values)[:, i]
    return values


def jacobi(step: Step, start: Tensor, tolerance: float = 0.0) -> Solved:
    """All unknowns at once, until none changes by more than the tolerance; exact after as many sweeps as unknowns."""
    values = start
    for sweep in range(start.shape[1]):
        before, values = values, step(values)
        if float((values - before).abs().max()) <= tolerance:
            return Solved(values, sweep + 1)
    return Solved(values, start.shape[1])


def timed(call: Callable[[], Result], runs: int = 3) -> tuple[Result, float]:
    """What a call returns, and the least time of some runs in seconds."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)
