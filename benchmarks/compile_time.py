#!/usr/bin/env python3
"""Time the compile of a Python loop over time and layers, and show that one compile serves every size.

Part 1 compiles a stack of hand-written LSTM cells from examples of different lengths, each in a new process.  The time
is that of `import parc`, `parc.compile` (which compares the compiled program with the original) and the first call at
the example's length; only the import of torch is left out.  Part 2 compiles once more and calls the result at many
lengths and batch sizes: every result is compared with eager PyTorch, and the compiles are counted.
"""

import argparse
import importlib
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from arguments import add_time_limit, arguments
from cells import LstmLoop, Shape
from torch import Tensor

LENGTHS, BATCHES = (1, 2, 31, 500, 5000), (1, 3, 64)
QUICK_LENGTHS, QUICK_BATCHES = (1, 2, 31), (1, 3)
GOAL_SECONDS, GOAL_RATIO = 5.0, 1.5

EXAMPLES = """examples:
  compile_time.py                            4 layers, examples of 64 and of 4096 steps; T = 1..5000, B = 1..64
  compile_time.py --steps 16 --steps 20000   other lengths
  compile_time.py --torch-compile 16 --torch-compile 32
                                             torch.compile of the same loop beside it
  compile_time.py --markdown - --json r.json for a page, and for a program
"""


@dataclass(frozen=True)
class CompileTime:
    """Seconds from the model to its first result; medians over several processes."""

    compiler: str
    steps: int
    import_s: float
    compile_s: float
    first_call_s: float
    total_s: float
    cpu_s: float
    """Of the whole process but the import of torch, on all its threads."""

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        seconds = (self.import_s, self.compile_s, self.first_call_s, self.total_s, self.cpu_s)
        return [self.compiler, str(self.steps), *(f"{s:.2f}" for s in seconds)]


COLUMNS = ("compiler", "T", "import s", "compile s", "first call s", "total s", "CPU s")


@dataclass(frozen=True)
class Served:
    """What one compiled object was called with."""

    calls: int
    least: tuple[int, int]
    greatest: tuple[int, int]
    compiles: int
    error: float

    def __str__(self) -> str:
        return (
            f"One compiled object: {self.calls} calls, T = {self.least[0]}..{self.greatest[0]}, "
            f"B = {self.least[1]}..{self.greatest[1]}, all equal to eager (largest difference {self.error:.1e}); "
            f"compiles: {self.compiles}"
        )


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a result differs from eager's or a call compiled again."""
    options = _parser().parse_args(words)
    if options.worker:
        print(json.dumps(measure(options.worker, options.shape)))
        return 0

    # The workers time these imports; torch alone is imported above.
    from common import Machine, ResultsDiffer, busy_warning, markdown_table, progress, table, write_results, write_text

    torch.manual_seed(0)
    machine, warning = Machine.describe(torch.get_num_threads()), busy_warning()
    steps = options.steps or ([8, 32] if options.quick else [64, 4096])
    rows = [row for t in steps if (row := _row("parc", t, options))]
    rows += [row for t in options.torch_compile or () if (row := _row("torch.compile", t, options))]
    progress("one compiled object at many sizes")
    try:
        lengths, batches = (QUICK_LENGTHS, QUICK_BATCHES) if options.quick else (LENGTHS, BATCHES)
        served = serve(options.shape, lengths, batches)
    except ResultsDiffer as error:
        print(f"compile_time.py: {error}", file=sys.stderr)
        return 1
    notes = [warning] if warning else []
    lines = [*summary(rows), str(served)]
    cells = [row.cells() for row in rows]
    if "-" not in (options.json, options.markdown):
        print("\n".join([str(machine), *notes, "", table(COLUMNS, cells), "", *lines]))
    if options.markdown:
        write_text(options.markdown, "\n\n".join([str(machine), *notes, markdown_table(COLUMNS, cells), *lines]))
    if options.json:
        results = {"notes": notes, "rows": [asdict(row) for row in rows], "served": asdict(served)}
        write_results(options.json, machine, results)
    return 0 if served.compiles == 1 else 1


def measure(compiler: str, shape: Shape) -> dict[str, float]:
    """Compile and call once in this process; seconds of each part."""
    torch.manual_seed(0)
    model, x = LstmLoop(shape.layers, shape.hidden), torch.randn(shape.steps, shape.batch, shape.hidden)
    cpu, start = time.process_time(), time.perf_counter()
    if compiler == "parc":
        import parc

        imported = time.perf_counter()
        compiled: Callable[[Tensor], object] = parc.compile(model, (x,))
    else:
        importlib.import_module("torch._inductor.compile_fx")  # what torch.compile imports when first used
        imported = time.perf_counter()
        compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        ready = time.perf_counter()
        compiled(x)
    end = time.perf_counter()
    return {
        "import_s": imported - start,
        "compile_s": ready - imported,
        "first_call_s": end - ready,
        "total_s": end - start,
        "cpu_s": time.process_time() - cpu,
    }


def serve(shape: Shape, lengths: Sequence[int], batches: Sequence[int]) -> Served:
    """Compile once and call at all lengths and batches, in no particular order; `ResultsDiffer` for a wrong result."""
    from common import check_equal

    import parc

    model = LstmLoop(shape.layers, shape.hidden)
    sizes = list(itertools.product(lengths, batches))
    random.Random(0).shuffle(sizes)
    errors = []
    with compiles() as engines, torch.no_grad():
        compiled = parc.compile(model, (torch.randn(8, 2, shape.hidden),))
        for length, batch in sizes:
            x: Tensor = torch.randn(length, batch, shape.hidden)
            errors.append(check_equal(f"T = {length}, B = {batch}", compiled(x), model(x)))
    return Served(len(sizes), (min(lengths), min(batches)), (max(lengths), max(batches)), len(engines), max(errors))


@contextmanager
def compiles() -> Iterator[list[object]]:
    """A list that gets an entry whenever parc makes machine code."""
    from parc.runtime import executable

    engines: list[object] = []
    create = executable.Executable.__init__

    def record(self: executable.Executable, *args: Any, **kwargs: Any) -> None:
        engines.append(self)
        create(self, *args, **kwargs)

    with patch.object(executable.Executable, "__init__", record):
        yield engines


def summary(rows: Sequence[CompileTime]) -> list[str]:
    """How parc's compile times compare with each other and with the goals."""
    ours = [row for row in rows if row.compiler == "parc"]
    if len(ours) < 2:
        return []
    shortest, longest = min(ours, key=lambda r: r.steps), max(ours, key=lambda r: r.steps)
    ratio, slowest = longest.total_s / shortest.total_s, max(row.total_s for row in ours)
    return [
        f"From T = {shortest.steps} to T = {longest.steps} the time grows {ratio:.2f}x (goal: under {GOAL_RATIO}x); "
        f"the longest is {slowest:.2f} s (goal: under {GOAL_SECONDS:g} s)."
    ]


def _row(compiler: str, steps: int, options: argparse.Namespace) -> CompileTime | None:
    """The median over several processes; None when one runs past the time limit."""
    from common import progress

    shape = options.shape._replace(steps=steps)
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", compiler, "--shape", str(shape)]
    runs = []
    for number in range(1 if options.quick or compiler != "parc" else options.repeat):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=options.time_limit, check=True)
        except subprocess.TimeoutExpired:
            progress(f"{compiler} at T = {steps}: not done after {options.time_limit:g} s; left out")
            return None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"compile_time.py: {compiler} at T = {steps} failed:\n{error.stderr}") from None
        runs.append(json.loads(done.stdout))
        progress(f"{compiler} at T = {steps}, process {number + 1}: {runs[-1]['total_s']:.2f} s")
    return CompileTime(compiler, steps, **{key: statistics.median(run[key] for run in runs) for key in runs[0]})


def _parser() -> argparse.ArgumentParser:
    quick = "short lengths, few sizes, one process each: whether all of it works, not how fast it is"
    parser = arguments(__doc__, EXAMPLES, threads=False, quick=quick)
    parser.add_argument(
        "--steps",
        type=int,
        action="append",
        metavar="T",
        help="a length of the example; may be repeated (default 64 and 4096)",
    )
    parser.add_argument(
        "--shape",
        type=Shape.parse,
        default=Shape(4, 1, 4, 64),
        metavar="L,T,B,H",
        help="layers, batch and hidden units; T is taken from --steps (default 4,1,4,64)",
    )
    parser.add_argument(
        "--repeat", type=int, default=3, help="processes for each length; their median counts (default 3)"
    )
    parser.add_argument(
        "--torch-compile",
        type=int,
        action="append",
        metavar="T",
        help="also time torch.compile at this length; may be repeated",
    )
    add_time_limit(parser, 180, "process")
    parser.add_argument("--worker", choices=("parc", "torch.compile"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
