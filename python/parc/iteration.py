"""How a program is solved iteratively: what the user asks for, and what came of it."""

import math
from dataclasses import dataclass

STARTS = ("zeros", "previous")


@dataclass(frozen=True)
class Iteration:
    """How iterative strategies sweep; ValueError for what makes no sense.

    tolerance: the largest change of an element from one sweep to the next, in its own units, that counts as none.  0
        sweeps until nothing changes; integers and booleans that differ have changed by 1.
    block: how many steps of a sequence, or layers, belong to one block of a block solver; 0 takes the block from the
        dependences and the cost model.
    limit: the most sweeps.  What has not converged by then is computed step by step.  0 is the bound after which the
        result is exact in exact arithmetic, for Newton's method 64 if that is smaller.
    start: what the first sweep starts from: "zeros", or "previous", what the last call of the same sizes ended with
        (see also `parc.Module.start_from`).
    damping: of Newton's method, from 0, plain Newton, to below 1: the larger, the less a sweep relies on derivatives.
    """

    tolerance: float = 1e-6
    block: int = 0
    limit: int = 0
    start: str = "zeros"
    damping: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tolerance", "damping"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} is a finite number, not {value!r}")
        for name in ("block", "limit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is a whole number, 0 to have it chosen, and not negative: {value!r}")
        if self.tolerance < 0:
            raise ValueError(f"tolerance, the largest change that counts as none, is not negative: {self.tolerance}")
        if not 0 <= self.damping < 1:
            raise ValueError(f"damping is from 0 to below 1, not {self.damping}")
        if self.start not in STARTS:
            raise ValueError(f"start is {' or '.join(map(repr, STARTS))}, not {self.start!r}")


@dataclass(frozen=True)
class Iterations:
    """How an iteration went in the last call that ran it."""

    sweeps: int
    change: float
    """The largest change of an element in the last sweep."""
    solver: str = ""
    """Empty for a program that does not say, such as one compiled from loops."""
    tolerance: float | None = None

    @property
    def converged(self) -> bool | None:
        """Whether the last change was at most the tolerance; None where that is not known.

        Results are right either way: what does not converge is exact after as many sweeps as its bound, or computed
        step by step.
        """
        return None if self.tolerance is None else self.change <= self.tolerance

    def __str__(self) -> str:
        text = f"{self.sweeps} sweep{'s' * (self.sweeps != 1)}{f' of {self.solver}' if self.solver else ''}"
        text += f", last change {self.change:.2g}"
        if self.tolerance is not None:
            exact = "" if self.converged else "; exact: it ended at its bound, or was computed step by step"
            text += f" ({'within' if self.converged else 'above'} the tolerance of {self.tolerance:.2g}{exact})"
        return text
