#!/usr/bin/env python3
"""Backward passes of a diagonal RNN: solved by a scan, and step by step; both compiled by parc.

The model is h[t] = tanh(a * h[t - 1] + x[t]). Only `backward` is timed, in turns: in each round every program runs
forward, untimed, and then backward. Times are the best of all rounds: other processes only add to them. "of these in
the program" leaves out torch.autograd and making tensors for the results, which is the same for all. Gradients are
compared with eager's before, at 300 steps, and at the sizes that are timed with each other. "step by step" is the best
of what else parc has: rows, layers, and what auto takes if that is not the scan.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
from arguments import arguments
from common import Machine, busy_warning, check_equal, progress, report
from torch import Tensor, nn

import parc
from parc.report import SystemReport
from parc.runtime.executable import Executable

EXAMPLES = """examples:
  scan.py                                          the table of docs/solvers.md, on 2 threads
  scan.py --steps 4096 --units 16 64 --rows 1      other sizes
"""


class Sizes(NamedTuple):
    """What the rows of the table are the product of."""

    steps: tuple[int, ...]
    units: tuple[int, ...]
    rows: tuple[int, ...]


SIZES = Sizes(steps=(1024, 4096, 16384), units=(16, 64, 256), rows=(1, 4, 16))
QUICK_SIZES = Sizes(steps=(512,), units=(16,), rows=(1,))

_OTHERS = ("rows", "layers")
_INSIDE = ("of these in the program: step by step", "scan")


class DiagonalRNN(nn.Module):
    """Each unit has one recurrent weight: the Jacobian of a step is diagonal."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-0.9, 0.9, units))

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, B, units]; returns all states."""
        h = torch.zeros_like(x[0])
        states = []
        for t in range(x.shape[0]):
            h = torch.tanh(self.a * h + x[t])
            states.append(h)
        return torch.stack(states)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__, EXAMPLES, rounds=30)
    parser.add_argument("--steps", type=int, nargs="+", metavar="T", help=f"lengths (default {_words(SIZES.steps)})")
    parser.add_argument("--units", type=int, nargs="+", metavar="H", help=f"widths (default {_words(SIZES.units)})")
    parser.add_argument("--rows", type=int, nargs="+", metavar="B", help=f"batches (default {_words(SIZES.rows)})")
    options = parser.parse_args()
    Executable.run = _timed(Executable.run)  # type: ignore[method-assign]
    sizes, rounds = (QUICK_SIZES, 2) if options.quick else (SIZES, options.rounds)
    machine, warning = Machine.describe(options.threads), busy_warning()
    rows: list[dict[str, object]] = []
    for units, batch, steps in product(
        options.units or sizes.units, options.rows or sizes.rows, options.steps or sizes.steps
    ):
        rows.append(_measure(steps, batch, units, options.threads, rounds))
        progress(str(rows[-1]))
    columns = ["T, B, H", "step by step ms", "that is", "scan ms", "faster by", *_INSIDE, "faster by", "auto takes"]
    cells = [
        [
            str(row["size"]),
            f"{row['now_ms']:.3f}",
            str(row["now"]),
            f"{row['scan_ms']:.3f}",
            f"{row['gain']:.2f}",
            f"{row['now_inside_ms']:.3f}",
            f"{row['scan_inside_ms']:.3f}",
            f"{row['gain_inside']:.2f}",
            str(row["auto"]),
        ]
        for row in rows
    ]
    report(machine, columns, cells, rows, [warning] if warning else [], options)


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _measure(steps: int, batch: int, units: int, threads: int, rounds: int) -> dict[str, object]:
    """One row."""
    torch.manual_seed(0)
    model = DiagonalRNN(units)
    x = torch.randn(steps, batch, units, requires_grad=True)
    strategies = ("scan", "auto", *_OTHERS)
    programs = {s: parc.compile(model, [x], threads=threads, strategy=s, training=True) for s in strategies}
    short = torch.randn(min(300, steps), batch, units, requires_grad=True)
    _compare({s: _gradients(p, short) for s, p in {"eager": model, **programs}.items()}, "eager")
    backward = {s: _backward(p, x) for s, p in programs.items()}
    _compare({s: run()[1] for s, run in backward.items()}, "scan")
    takes_scan = any(system.strategy == "scan" for system in _backward_systems(programs["auto"]))
    others = [*_OTHERS, *(() if takes_scan else ("auto",))]
    best = dict.fromkeys(("scan", *others), Seconds(float("inf"), float("inf")))
    for _ in range(rounds):
        for strategy in best:
            best[strategy] = Seconds(*map(min, best[strategy], backward[strategy]()[0]))
    now, inside = (min(others, key=lambda s: best[s][part]) for part in (0, 1))
    return {
        "size": f"{steps}, {batch}, {units}",
        "now_ms": best[now].whole * 1e3,
        "now": now,
        "scan_ms": best["scan"].whole * 1e3,
        "gain": best[now].whole / best["scan"].whole,
        "now_inside_ms": best[inside].inside * 1e3,
        "scan_inside_ms": best["scan"].inside * 1e3,
        "gain_inside": best[inside].inside / best["scan"].inside,
        "best_ms": {s: [part * 1e3 for part in both] for s, both in best.items()},
        "auto": "scan" if takes_scan else "step by step",
    }


def _backward_systems(program: parc.Module) -> Sequence[SystemReport]:
    backward = program.explain().backward
    return () if backward is None else backward.systems


class Seconds(NamedTuple):
    """Of a backward pass, and of that in the compiled program."""

    whole: float
    inside: float


def _backward(program: nn.Module, x: Tensor) -> Callable[[], tuple[Seconds, tuple[Tensor, ...]]]:
    """What runs a program forward, then backward: the time of the latter, and the gradients."""
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def run() -> tuple[Seconds, tuple[Tensor, ...]]:
        y = program(x)
        _inside.clear()
        start = time.perf_counter()
        gradients = torch.autograd.grad(y, [x, *program.parameters()], weights)
        return Seconds(time.perf_counter() - start, sum(_inside)), gradients

    return run


_inside: list[float] = []
"""Seconds of the calls of compiled programs."""


def _timed(call: Callable[..., None]) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        start = time.perf_counter()
        call(*arguments)
        _inside.append(time.perf_counter() - start)

    return run


def _gradients(program: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return _backward(program, x)()[1]


def _compare(gradients: Mapping[str, tuple[Tensor, ...]], reference: str) -> None:
    for strategy, found in gradients.items():
        check_equal(f"the backward pass of {strategy}", found, gradients[reference])


if __name__ == "__main__":
    main()
