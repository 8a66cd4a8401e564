#!/usr/bin/env python3
"""A GRU over a long sequence: Newton's method on all steps at once, beside one step after the other.

Each sweep of "newton" linearises the whole sequence and solves an affine recurrence by a scan (DEER, arXiv 2309.12252);
"quasi-newton" keeps the diagonals of the Jacobians only. How many sweeps that takes hardly depends on the length; what
a sweep costs grows with the cube of the units, or with the units. All are compiled by parc, once for all lengths, and
compared with PyTorch's GRU first. A time is the median of the rounds, in which the programs take turns; "gain" is the
median, with its quartiles, of the exact program's time over the sweeps' in each round.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from arguments import arguments
from common import ResultsDiffer, compile_parc, progress, run, time_in_turns
from torch import nn

import parc

STEPS = (1024, 4096, 16384, 65536)
UNITS = (1, 4, 16, 64)
SOLVERS = ("newton", "quasi-newton")
TOLERANCE = 1e-5
EXAMPLE_STEPS = 64

COLUMNS = ("T, H", "solver", "sweeps", "eager ms", "exact ms", "sweeps ms", "gain", "quartiles", "error")
EXAMPLES = """examples:
  iterative_newton.py                             all sizes, 2 threads
  iterative_newton.py --steps 65536 --units 1 4   some
"""


@dataclass(frozen=True)
class Row:
    """One solver at one size; error: the largest difference of a state from eager's."""

    steps: int
    units: int
    solver: str
    sweeps: int
    eager_ms: float
    exact_ms: float
    sweeps_ms: float
    gain: float
    quartiles: tuple[float, float]
    error: float

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        return [
            f"{self.steps}, {self.units}",
            self.solver,
            str(self.sweeps),
            f"{self.eager_ms:.2f}",
            f"{self.exact_ms:.2f}",
            f"{self.sweeps_ms:.2f}",
            f"{self.gain:.3g}x",
            "{:.3g}-{:.3g}".format(*self.quartiles),
            f"{self.error:.0e}",
        ]


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a state differs from eager's."""
    parser = arguments(__doc__, EXAMPLES, rounds=7)
    parser.add_argument("--steps", type=int, nargs="+", metavar="T", help=f"lengths (default {_words(STEPS)})")
    parser.add_argument("--units", type=int, nargs="+", metavar="H", help=f"widths (default {_words(UNITS)})")
    options = parser.parse_args(words)
    return run(COLUMNS, _rows(options), options)


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    lengths, widths = options.steps or STEPS, options.units or UNITS
    if options.quick:
        lengths, widths = (100,), (2,)
    how = parc.Iteration(tolerance=TOLERANCE)
    for units in widths:
        model = nn.GRU(units, units).eval().requires_grad_(False)
        example = torch.randn(EXAMPLE_STEPS, 1, units)
        exact = compile_parc(model, (example,), options.threads)
        sweeps = [
            (name, parc.compile(model, (example,), threads=options.threads, strategy=name, iteration=how))
            for name in SOLVERS
        ]
        for steps, (solver, sweep) in product(lengths, sweeps):
            yield _row(model, exact, sweep, solver, steps, 2 if options.quick else options.rounds)


def _row(model: nn.GRU, exact: nn.Module, sweep: parc.Module, solver: str, steps: int, rounds: int) -> Row:
    """Check and time one solver at one length; `ResultsDiffer` when a state is wrong."""
    x = torch.randn(steps, 1, model.input_size)
    expected = model(x)[0]
    for program in (exact, sweep):
        error = float((program(x)[0] - expected).abs().max())
        if not error <= 10 * TOLERANCE:
            raise ResultsDiffer(f"{solver} at {steps} steps of {model.input_size} units: a state is {error:.3g} off")
    (iterations,) = sweep.iterations.values()
    programs = {"eager": model, "exact": exact, "sweeps": sweep}
    timing = time_in_turns({name: lambda p=p: p(x) for name, p in programs.items()}, rounds=rounds)  # type: ignore[misc]
    low, gain, high = timing.speedup("sweeps", "exact")
    progress(f"{solver}, {steps} steps of {model.input_size} units: {iterations}, {gain:.2g} times as fast")
    return Row(
        steps=steps,
        units=model.input_size,
        solver=solver,
        sweeps=iterations.sweeps,
        eager_ms=1e3 * timing.median("eager"),
        exact_ms=1e3 * timing.median("exact"),
        sweeps_ms=1e3 * timing.median("sweeps"),
        gain=gain,
        quartiles=(low, high),
        error=error,
    )


if __name__ == "__main__":
    sys.exit(main())
