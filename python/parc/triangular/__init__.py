"""Finds the order in which the elements of a fixed point x = step(x) can be computed, from the program and its weights.

An abstract interpretation (`interpret.py`) runs a static trace with, for every element of every value, the set of the
elements of x that it may depend on (`elements.py`).  Indices of structured operations, slices and concatenations move
these sets; what is known to be zero (masks, zeros in weights, `exp(-inf)`) cuts them.  From the sets of the result
follow the levels, the bound on the number of Jacobi sweeps, or a cycle (`order.py`); isl proves the bound
(`relation.py`).

The one thing that is taken for granted: `step` computes no NaN, and nothing of more than 1e30 but from constants that
are (the -inf of a mask).  Then `0 * v` is 0, `-inf + v` is -inf, and `exp(-inf)` is 0 whatever v is.
"""

from parc.triangular.dependences import Dependences, dependences
from parc.triangular.given import Given, taken_from
from parc.triangular.proof import Proof

__all__ = ["Dependences", "Given", "Proof", "dependences", "taken_from"]
