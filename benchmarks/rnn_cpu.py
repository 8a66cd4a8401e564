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
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from cells import Shape, custom_models, library_models
from common import (
    Machine,
    ResultsDiffer,
    TimeLimitError,
    busy_warning,
    check_equal,
    compile_parc,
    progress,
    report,
    time_in_turns,
    time_limit,
)
from torch import Tensor, nn

SHAPES = (Shape(4, 128, 1, 256), Shape(4, 128, 16, 512), Shape(8, 256, 1, 128), Shape(4, 512, 32, 256))
QUICK_SHAPES = (Shape(2, 6, 3, 16),)
GOALS = {"LSTM": 1.0, "LstmLoop": 5.0, "PeepholeLoop": 5.0}
"""How many times faster than eager parc is meant to be, on 2 threads."""

Program = Callable[[Tensor], object]

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a result differs from eager's."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    machine = Machine.describe(options.threads)
    notes = [warning] if (warning := busy_warning()) else []
    rows = []
    with torch.no_grad():
        for shape in options.shape or (QUICK_SHAPES if options.quick else SHAPES):
            progress(f"shape {shape}")
            try:
                rows += run_shape(shape, options)
            except ResultsDiffer as error:
                print(f"rnn_cpu.py: {error}", file=sys.stderr)
                return 1
    report(machine, COLUMNS, [row.cells() for row in rows], [asdict(row) for row in rows], notes, options)
    return 0


def run_shape(shape: Shape, options: argparse.Namespace) -> list[Row]:
    """Check and time every chosen stack of one shape; `ResultsDiffer` when one is not equal to eager's."""
    x = torch.randn(shape.steps, shape.batch, shape.hidden)
    rows = []
    for model in [*library_models(shape), *custom_models(shape)]:
        name = type(model).__name__
        if options.model and name not in options.model:
            continue
        model.eval()
        rows.append(_row(shape, model, name, x, None, options))
        if options.torch_compile and name not in ("LSTM", "GRU"):
            rows += _torch_compile_row(shape, model, name, x[: options.torch_compile], options)
    return rows


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
    start = time.perf_counter()
    try:
        with time_limit(options.time_limit):
            compiled = torch.compile(model, fullgraph=True)
            compiled(x)
    except TimeLimitError:
        progress(f"torch.compile of {name} at {short}: not done after {options.time_limit:g} s; left out")
        return []
    progress(f"torch.compile of {name} at {short}: {time.perf_counter() - start:.1f} s")
    return [_row(short, model, name, x, compiled, options)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rnn_cpu.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", type=Shape.parse, action="append", metavar="L,T,B,H", help="time this shape instead; may be repeated"
    )
    parser.add_argument(
        "--model",
        action="append",
        choices=("LSTM", "GRU", "LstmLoop", "PeepholeLoop"),
        help="only this stack; may be repeated",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and of parc (default 2)")
    parser.add_argument(
        "--strategy", default="auto", help="parc's schedule: auto, layers, rows, wavefront, sequential (default auto)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="how often each program has its turn (default 9)")
    parser.add_argument(
        "--torch-compile",
        type=int,
        default=0,
        metavar="STEPS",
        help="also time torch.compile of the Python loops, cut to so many steps: it unrolls them, slowly",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=120,
        metavar="SECONDS",
        help="give up on a torch.compile that takes longer (default 120)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tiny shape and two rounds: whether all of it works, not how fast it is"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown; - for stdout")
    parser.add_argument("--json", metavar="FILE", help="write machine and results as JSON; - for stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
