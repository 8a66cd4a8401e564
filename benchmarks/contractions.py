#!/usr/bin/env python3
"""Time the gradients of weights and biases, as training needs them, beside PyTorch's products and sums.

For each shape (k and n units, T steps of a batch of 16) and element type: dU[k, n] = sum of h[t, b, k] * d[t, b, n]
over t and b beside torch.mm, and db[n] = sum of d[t, b, n] beside Tensor.sum. Both are checked against PyTorch first
and are then timed in turns in this process. A speed-up is the median, over the rounds, of PyTorch's time divided by
parc's in the same round; GF/s and GB/s are those of the median times.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from arguments import arguments
from common import check_equal, progress, run, time_in_turns
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


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a result differs from PyTorch's."""
    parser = arguments(__doc__, EXAMPLES, rounds=15)
    parser.add_argument(
        "--shape", type=Shape.parse, action="append", metavar="K,N,T*B", help="time this shape instead; may be repeated"
    )
    options = parser.parse_args(words)
    return run(COLUMNS, _rows(options), options)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check and time both gradients of every shape; `ResultsDiffer` when one is not equal to PyTorch's."""
    for shape in options.shape or (QUICK_SHAPES if options.quick else SHAPES):
        for element, torch_type in TYPES.items():
            progress(f"shape {shape}, {element}")
            h, d = (torch.randn(shape.terms // BATCH, BATCH, units, dtype=torch_type) for units in (shape.k, shape.n))
            yield _weight_row(shape, element, h, d, options)
            yield _bias_row(shape, element, d, options)


def _weight_row(shape: Shape, element: str, h: Tensor, d: Tensor, options: argparse.Namespace) -> Row:
    program = _compile(WEIGHT, shape, element, options.threads)
    left, right = h.flatten(0, 1).T, d.flatten(0, 1)
    what = ("weight", 2e-9 * shape.k * shape.n * shape.terms, "GF/s")
    return _row(shape, element, what, lambda: torch.mm(left, right), lambda: program(h, d), options)


def _bias_row(shape: Shape, element: str, d: Tensor, options: argparse.Namespace) -> Row:
    program = _compile(BIAS, shape, element, options.threads)
    what = ("bias", 1e-9 * d.numel() * d.element_size(), "GB/s")
    return _row(shape, element, what, lambda: d.sum((0, 1)), lambda: program(d), options)


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


if __name__ == "__main__":
    sys.exit(main())
