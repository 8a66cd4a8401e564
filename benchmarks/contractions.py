#!/usr/bin/env python3
"""Time the gradients of weights and biases, as training needs them, beside PyTorch's products and sums.

For each shape (k and n units, T steps of a batch of 16) and element type: dU[k, n] = sum of h[t, b, k] * d[t, b, n]
over t and b beside torch.mm, and db[n] = sum of d[t, b, n] beside Tensor.sum. Both are checked against PyTorch first
and are then timed in turns in this process. A speed-up is the median, over the rounds, of PyTorch's time divided by
parc's in the same round; GF/s and GB/s are those of the median times.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from common import Machine, ResultsDiffer, busy_warning, check_equal, progress, report, time_in_turns
from torch import Tensor, nn

import parc

BATCH = 16
TYPES = {"f32": torch.float32, "f64": torch.float64}
COLUMNS = ("k,n,T*B", "type", "gradient", "PyTorch ms", "parc ms", "PyTorch rate", "parc rate", "speed-up", "quartiles")
EXAMPLES = """examples:
  contractions.py                                  the shapes of two LSTM layers and a narrow one, on 2 threads
  contractions.py --shape 64,64,6400 --threads 1   another shape: T*B is a multiple of 16
  contractions.py --markdown - --json results.json for a page, and for a program
"""

WEIGHT = """
module attributes {{parc.symbols = ["T", "B"]}} {{
  func.func @main(%h: tensor<?x?x{k}x{t}> {{parc.shape = affine_map<()[T, B] -> (T, B, {k})>}},
                  %d: tensor<?x?x{n}x{t}> {{parc.shape = affine_map<()[T, B] -> (T, B, {n})>}})
      -> tensor<{k}x{n}x{t}> {{
    %zero = arith.constant 0.0 : {t}
    %e = tensor.empty() : tensor<{k}x{n}x{t}>
    %f = linalg.fill ins(%zero : {t}) outs(%e : tensor<{k}x{n}x{t}>) -> tensor<{k}x{n}x{t}>
    %g = linalg.contract indexing_maps = [affine_map<(k, n, t, b) -> (t, b, k)>,
        affine_map<(k, n, t, b) -> (t, b, n)>, affine_map<(k, n, t, b) -> (k, n)>]
        ins(%h, %d : tensor<?x?x{k}x{t}>, tensor<?x?x{n}x{t}>) outs(%f : tensor<{k}x{n}x{t}>) -> tensor<{k}x{n}x{t}>
    return %g : tensor<{k}x{n}x{t}>
  }}
}}
"""
BIAS = """
module attributes {{parc.symbols = ["T", "B"]}} {{
  func.func @main(%d: tensor<?x?x{n}x{t}> {{parc.shape = affine_map<()[T, B] -> (T, B, {n})>}}) -> tensor<{n}x{t}> {{
    %zero = arith.constant 0.0 : {t}
    %e = tensor.empty() : tensor<{n}x{t}>
    %f = linalg.fill ins(%zero : {t}) outs(%e : tensor<{n}x{t}>) -> tensor<{n}x{t}>
    %g = linalg.reduce {{ arith.addf }} ins(%d : tensor<?x?x{n}x{t}>) outs(%f : tensor<{n}x{t}>) dimensions = [0, 1]
    return %g : tensor<{n}x{t}>
  }}
}}
"""


class Shape(NamedTuple):
    """Units on both sides of a weight, and steps times batch."""

    k: int
    n: int
    terms: int

    @staticmethod
    def parse(text: str) -> "Shape":
        """A shape as the command line gives it."""
        numbers = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
        if len(numbers) != 3 or min(numbers) < 1 or numbers[2] % BATCH:
            raise argparse.ArgumentTypeError(f"expected k,n,T*B with T*B a multiple of {BATCH}, not '{text}'")
        return Shape(*numbers)

    def __str__(self) -> str:
        return ",".join(map(str, self))


SHAPES = (Shape(256, 1024, 2048), Shape(512, 2048, 8192), Shape(64, 256, 32768))
QUICK_SHAPES = (Shape(20, 24, 320),)


@dataclass(frozen=True)
class Row:
    """One gradient: medians of all rounds; `speedup` and `quartiles` are over the rounds' own ratios."""

    shape: Shape
    element: str
    gradient: str
    pytorch_ms: float
    parc_ms: float
    work: float  # 10^9 operations for weights, bytes for biases
    unit: str
    speedup: float
    quartiles: tuple[float, float]

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        times = (self.pytorch_ms, self.parc_ms)
        rates = [f"{1e3 * self.work / ms:.0f} {self.unit}" for ms in times]
        quartiles = "{:.2f}-{:.2f}".format(*self.quartiles)
        milliseconds = [f"{ms:.2f}" for ms in times]
        return [
            *(str(self.shape), self.element, self.gradient),
            *(*milliseconds, *rates, f"{self.speedup:.2f}x", quartiles),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a result differs from PyTorch's."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    notes = [warning] if (warning := busy_warning()) else []
    rows = []
    for shape in options.shape or (QUICK_SHAPES if options.quick else SHAPES):
        for element in TYPES:
            progress(f"shape {shape}, {element}")
            try:
                rows += run_shape(shape, element, options)
            except ResultsDiffer as error:
                print(f"contractions.py: {error}", file=sys.stderr)
                return 1
    machine = Machine.describe(options.threads)
    report(machine, COLUMNS, [row.cells() for row in rows], [asdict(row) for row in rows], notes, options)
    return 0


def run_shape(shape: Shape, element: str, options: argparse.Namespace) -> list[Row]:
    """Check and time both gradients; `ResultsDiffer` when one is not equal to PyTorch's."""
    h, d = (torch.randn(shape.terms // BATCH, BATCH, units, dtype=TYPES[element]) for units in (shape.k, shape.n))
    weight, bias = (_compile(text, shape, element, options.threads) for text in (WEIGHT, BIAS))
    operations = 2e-9 * shape.k * shape.n * shape.terms
    size = 1e-9 * d.numel() * d.element_size()
    return [
        _row(shape, element, ("weight", operations, "GF/s"), _weight_gradient(h, d), lambda: weight(h, d), options),
        _row(shape, element, ("bias", size, "GB/s"), lambda: d.sum((0, 1)), lambda: bias(d), options),
    ]


def _weight_gradient(h: Tensor, d: Tensor) -> Callable[[], Tensor]:
    left, right = h.flatten(0, 1).T, d.flatten(0, 1)
    return lambda: torch.mm(left, right)


def _compile(text: str, shape: Shape, element: str, threads: int) -> nn.Module:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gradient.mlir"
        path.write_text(text.format(k=shape.k, n=shape.n, t=element))
        return parc.compile(path, threads=threads)


def _row(
    shape: Shape,
    element: str,
    what: tuple[str, float, str],
    reference: Callable[[], Tensor],
    program: Callable[[], Tensor],
    options: argparse.Namespace,
) -> Row:
    gradient, work, unit = what
    check_equal(f"the gradient of a {gradient} at {shape}", program(), reference())
    timing = time_in_turns({"PyTorch": reference, "parc": program}, rounds=2 if options.quick else options.rounds)
    low, speedup, high = timing.speedup("parc", "PyTorch")
    pytorch_ms, parc_ms = (1e3 * timing.median(name) for name in ("PyTorch", "parc"))
    return Row(shape, element, gradient, pytorch_ms, parc_ms, work, unit, speedup, (low, high))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="contractions.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--shape", type=Shape.parse, action="append", metavar="K,N,T*B", help="time this shape instead; may be repeated"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and of parc (default 2)")
    parser.add_argument("--rounds", type=int, default=15, help="how often each program has its turn (default 15)")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny shape and two rounds: whether all of it works, not how fast it is"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown; - for stdout")
    parser.add_argument("--json", metavar="FILE", help="write machine and results as JSON; - for stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
