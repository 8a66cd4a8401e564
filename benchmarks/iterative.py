#!/usr/bin/env python3
"""Sweeps beside one step after the other, on the published cases of iterative solvers.

The tasks are those of "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (arXiv 2002.03629)
and two decoders; the models are those of `examples/`, trained here, for seconds. Three programs compute the same:
PyTorch step by step, parc's program step by step ("exact"), and parc's sweeps. Results are compared first: discrete
ones are equal, others within the tolerance. "fewer" is sequential steps over sweeps, each of which counts as the steps
that follow each other in it; "paper" is what was published, for larger models. Speed-ups are medians of the ratios in
each round, and their quartiles.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from arguments import arguments
from common import ResultsDiffer, check_equal, progress, run, time_in_turns
from iterative_cases import (
    Case,
    Options,
    decoding_cases,
    densenet_cases,
    g2p_case,
    made_case,
    pixelcnn_case,
    rnn_case,
)
from torch import Tensor

CASES: Mapping[str, Callable[[Options], Sequence[Case]]] = {
    "rnn": lambda options: [rnn_case(options)],
    "densenet": densenet_cases,
    "made": lambda options: [made_case(options, 8, images, "") for images in (1, 16)],
    "made-28": lambda options: [made_case(options, 28, 1, "784/31 = 25x")],
    "pixelcnn": lambda options: [pixelcnn_case(options, images) for images in (1, 16)],
    "decoding": decoding_cases,
    "g2p": lambda options: [g2p_case(options)],
}

COLUMNS = (
    "task",
    "setting",
    "steps",
    "sweeps",
    "fewer",
    "paper",
    "eager ms",
    "exact ms",
    "sweeps ms",
    "than eager",
    "quartiles",
    "than exact",
    "quartiles",
    "error",
)
EXAMPLES = """examples:
  iterative.py                           all cases, 2 threads; some minutes, most of it training
  iterative.py --case made --case rnn    some of them
  iterative.py --markdown -              for a page
"""


@dataclass(frozen=True)
class Row:
    """One case: medians of all rounds; speed-ups with their quartiles are over the rounds' own ratios.

    error: the largest difference of a result of the sweeps from eager's, relative to that result's largest element.
    """

    task: str
    setting: str
    steps: int
    sweeps: int
    depth: int
    paper: str
    eager_ms: float
    exact_ms: float
    sweeps_ms: float
    eager_speedup: tuple[float, float, float]
    exact_speedup: tuple[float, float, float]
    error: float

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        return [
            self.task,
            self.setting,
            str(self.steps),
            f"{self.sweeps} x {self.depth}" if self.depth > 1 else str(self.sweeps),
            f"{self.steps / (self.sweeps * self.depth):.1f}x",
            self.paper,
            f"{self.eager_ms:.2f}",
            f"{self.exact_ms:.2f}",
            f"{self.sweeps_ms:.2f}",
            *_speedup(self.eager_speedup),
            *_speedup(self.exact_speedup),
            f"{self.error:.0e}" if self.error else "0",
        ]


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a result is wrong."""
    parser = arguments(__doc__, EXAMPLES, rounds=7)
    parser.add_argument("--case", action="append", choices=CASES, help="only this one; may be repeated")
    options = parser.parse_args(words)
    return run(COLUMNS, _rows(options), options)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    for name in options.case or CASES:
        for case in CASES[name](Options(options.threads, options.quick)):
            yield _row(case, 2 if options.quick else options.rounds)
            progress(f"{case.task}: {case.steps} steps, {case.sweeps()} sweeps")


def _row(case: Case, rounds: int) -> Row:
    """Check and time a case; `ResultsDiffer` when a result is further off than it allows."""
    expected = _flat(case.programs["eager"]())
    check_equal(f"the exact program of {case.task}", _flat(case.programs["exact"]()), expected)
    error = _error(case, _flat(case.programs["sweeps"]()), expected)
    sweeps = case.sweeps()
    timing = time_in_turns(case.programs, rounds=rounds)
    return Row(
        task=case.task,
        setting=case.setting,
        steps=case.steps,
        sweeps=sweeps,
        depth=case.depth,
        paper=case.paper,
        eager_ms=1e3 * timing.median("eager"),
        exact_ms=1e3 * timing.median("exact"),
        sweeps_ms=1e3 * timing.median("sweeps"),
        eager_speedup=timing.speedup("sweeps", "eager"),
        exact_speedup=timing.speedup("sweeps", "exact"),
        error=error,
    )


def _error(case: Case, found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    worst = 0.0
    for result, reference in zip(found, expected, strict=True):
        difference = float((result - reference).abs().max()) / max(float(reference.abs().max()), sys.float_info.min)
        if not difference <= case.allowed:
            raise ResultsDiffer(f"the sweeps of {case.task}: a result is {difference:.3g} off")
        worst = max(worst, difference)
    return worst


def _flat(results: object) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)  # type: ignore[call-overload]


def _speedup(quartiles: tuple[float, float, float]) -> list[str]:
    low, middle, high = quartiles
    return [f"{middle:.2f}x", f"{low:.2f}-{high:.2f}"]


if __name__ == "__main__":
    sys.exit(main())
