#!/usr/bin/env python3
"""Time parc beside PyTorch on recurrent stacks, forward pass, float32.

For each shape (layers L, steps T, batch B, hidden units H) four stacks run: nn.LSTM and nn.GRU, for which PyTorch has
kernels, and two that are Python loops over time and layers: an LSTM written by hand and a peephole LSTM. All programs
of a shape are checked against eager PyTorch first and are then timed in turns in this process. A speed-up is the
median, over the rounds, of eager's time divided by parc's in the same round; the columns next to it give the quartiles
of these ratios, and the ratio of the shortest times, which says more on a machine that does other work too.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from arguments import stack_arguments
from cells import Shape, custom_models, library_models
from common import Program, check_equal, compile_parc, compile_torch, progress, run, time_in_turns
from torch import Tensor, nn

SHAPES = (Shape(4, 128, 1, 256), Shape(4, 128, 16, 512), Shape(8, 256, 1, 128), Shape(4, 512, 32, 256))
QUICK_SHAPES = (Shape(2, 6, 3, 16),)
MODELS = ("LSTM", "GRU", "LstmLoop", "PeepholeLoop")
GOALS = {"LSTM": 1.0, "LstmLoop": 5.0, "PeepholeLoop": 5.0}
"""How many times faster than eager parc is meant to be, on 2 threads."""

COLUMNS = (
    "L,T,B,H",
    "model",
    "eager ms",
    "torch.compile ms",
    "parc ms",
    "speed-up",
    "quartiles",
    "of best",
    "goal",
    "error",
)
EXAMPLES = """examples:
  rnn_cpu.py                                     the four shapes of the project's goals, on 2 threads
  rnn_cpu.py --shape 2,64,8,128 --model LSTM     one stack of another shape
  rnn_cpu.py --strategy wavefront --threads 1    a schedule by name, instead of the one that the cost model picks
  rnn_cpu.py --torch-compile 16                  torch.compile beside it, at 16 steps (it unrolls the loop)
  rnn_cpu.py --markdown - --json results.json    for a page, and for a program
"""


@dataclass(frozen=True)
class Row:
    """One stack: medians of all rounds; `speedup` and `quartiles` are over the rounds' own ratios."""

    shape: Shape
    model: str
    eager_ms: float
    torch_compile_ms: float | None
    parc_ms: float
    speedup: float
    quartiles: tuple[float, float]
    speedup_of_best: float
    goal: float | None
    error: float

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        goal = "" if self.goal is None else f"{self.goal:g}x {'met' if self.speedup >= self.goal else 'MISSED'}"
        return [
            str(self.shape),
            self.model,
            f"{self.eager_ms:.2f}",
            "" if self.torch_compile_ms is None else f"{self.torch_compile_ms:.2f}",
            f"{self.parc_ms:.2f}",
            f"{self.speedup:.2f}x",
            "{:.2f}-{:.2f}".format(*self.quartiles),
            f"{self.speedup_of_best:.2f}x",
            goal,
            f"{self.error:.0e}",
        ]


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a result differs from eager's."""
    parser = stack_arguments(__doc__, EXAMPLES, models=MODELS, rounds=9, time_limit=120)
    options = parser.parse_args(words)
    with torch.no_grad():
        return run(COLUMNS, _rows(options), options)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check and time every chosen stack of every shape; `ResultsDiffer` when one is not equal to eager's."""
    for shape in options.shape or (QUICK_SHAPES if options.quick else SHAPES):
        progress(f"shape {shape}")
        x = torch.randn(shape.steps, shape.batch, shape.hidden)
        for model in [*library_models(shape), *custom_models(shape)]:
            name = type(model).__name__
            if options.model and name not in options.model:
                continue
            model.eval()
            yield _row(shape, model, name, x, None, options)
            if options.torch_compile and name not in ("LSTM", "GRU"):
                yield from _torch_compile_row(shape, model, name, x[: options.torch_compile], options)


def _row(
    shape: Shape, model: nn.Module, name: str, x: Tensor, torch_compiled: Program | None, options: argparse.Namespace
) -> Row:
    compiled = compile_parc(model, (x,), options.threads, options.strategy)
    expected = model(x)
    programs: dict[str, Program] = {"eager": model, "parc": compiled}
    if torch_compiled is not None:
        programs["torch.compile"] = torch_compiled
    errors = {p: check_equal(f"{p} of {name} at {shape}", f(x), expected) for p, f in programs.items()}
    timing = time_in_turns(
        {p: partial(f, x) for p, f in programs.items()}, rounds=2 if options.quick else options.rounds
    )
    low, speedup, high = timing.speedup("parc", "eager")
    return Row(
        shape=shape,
        model=name,
        eager_ms=1e3 * timing.median("eager"),
        torch_compile_ms=None if torch_compiled is None else 1e3 * timing.median("torch.compile"),
        parc_ms=1e3 * timing.median("parc"),
        speedup=speedup,
        quartiles=(low, high),
        speedup_of_best=timing.best("eager") / timing.best("parc"),
        goal=GOALS.get(name) if shape in SHAPES else None,
        error=errors["parc"],
    )


def _torch_compile_row(shape: Shape, model: nn.Module, name: str, x: Tensor, options: argparse.Namespace) -> list[Row]:
    """The same stack with torch.compile beside, at fewer steps; no row when it takes too long to compile."""
    short = shape._replace(steps=x.shape[0])
    compiled = compile_torch(model, f"{name} at {short}", lambda program: program(x), options.time_limit)
    return [_row(short, model, name, x, compiled, options)] if compiled else []


if __name__ == "__main__":
    sys.exit(main())
