"""Backward passes of a diagonal RNN: solved by a scan, and step by step; both compiled by parc.

    python benchmarks/scan.py                     the table of docs/solvers.md
    python benchmarks/scan.py --steps 4096 --units 16 64 --rows 1

The model is h[t] = tanh(a * h[t - 1] + x[t]). Only `backward` is timed, in turns: in each round every program runs
forward, untimed, and then backward. Gradients are compared with eager's before, at 300 steps, and at the sizes that are
timed with each other. "step by step" is the best of what else parc has: rows, layers, and what auto takes if that is
not the scan.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import product

import torch
from common import Machine, busy_warning, check_equal, progress, report
from torch import Tensor, nn

import parc

_OTHERS = ("rows", "layers")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[1024, 4096, 16384], help="T")
    parser.add_argument("--units", type=int, nargs="+", default=[16, 64, 256], help="H")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16], help="B")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--markdown", help="write the table as Markdown to this path, or - for stdout")
    parser.add_argument("--json", help="write the numbers as JSON to this path, or - for stdout")
    options = parser.parse_args()
    machine, warning = Machine.describe(options.threads), busy_warning()
    rows: list[dict[str, object]] = []
    for units, batch, steps in product(options.units, options.rows, options.steps):
        rows.append(_measure(steps, batch, units, options.threads, options.rounds))
        progress(str(rows[-1]))
    columns = ["T, B, H", "step by step ms", "of it", "scan ms", "scan is faster by", "auto takes"]
    cells = [
        [
            str(row["size"]),
            f"{row['now_ms']:.3f}",
            str(row["now"]),
            f"{row['scan_ms']:.3f}",
            f"{row['gain']:.2f}",
            str(row["auto"]),
        ]
        for row in rows
    ]
    report(machine, columns, cells, rows, [warning] if warning else [], options)


def _measure(steps: int, batch: int, units: int, threads: int, rounds: int) -> dict[str, object]:
    """One row: medians over the rounds; the gain is the median of the rounds' ratios."""
    torch.manual_seed(0)
    model = DiagonalRNN(units)
    x = torch.randn(steps, batch, units, requires_grad=True)
    strategies = ("scan", "auto", *_OTHERS)
    programs = {s: parc.compile(model, [x], threads=threads, strategy=s, training=True) for s in strategies}
    short = torch.randn(min(300, steps), batch, units, requires_grad=True)
    _compare({s: _gradients(p, short) for s, p in {"eager": model, **programs}.items()}, "eager")
    backward = {s: _backward(p, x) for s, p in programs.items()}
    _compare({s: run()[1] for s, run in backward.items()}, "scan")
    takes_scan = any(system.strategy == "scan" for system in programs["auto"].explain().systems)
    others = [*_OTHERS, *(() if takes_scan else ("auto",))]
    seconds: dict[str, list[float]] = {s: [] for s in ("scan", *others)}
    for _ in range(rounds):
        for strategy, times in seconds.items():
            times.append(backward[strategy]()[0])
    now = min(others, key=lambda s: statistics.median(seconds[s]))
    ratios = [n / s for n, s in zip(seconds[now], seconds["scan"], strict=True)]
    return {
        "size": f"{steps}, {batch}, {units}",
        "now_ms": statistics.median(seconds[now]) * 1e3,
        "now": now,
        "scan_ms": statistics.median(seconds["scan"]) * 1e3,
        "best_ms": {s: min(times) * 1e3 for s, times in seconds.items()},
        "gain": statistics.median(ratios),
        "auto": "scan" if takes_scan else "step by step",
    }


def _backward(program: nn.Module, x: Tensor) -> Callable[[], tuple[float, tuple[Tensor, ...]]]:
    """What runs a program forward, then backward: seconds of the latter, and the gradients."""
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    def run() -> tuple[float, tuple[Tensor, ...]]:
        y = program(x)
        start = time.perf_counter()
        gradients = torch.autograd.grad(y, [x, *program.parameters()], weights)
        return time.perf_counter() - start, gradients

    return run


def _gradients(program: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return _backward(program, x)()[1]


def _compare(gradients: Mapping[str, tuple[Tensor, ...]], reference: str) -> None:
    for strategy, found in gradients.items():
        check_equal(f"the backward pass of {strategy}", found, gradients[reference])


if __name__ == "__main__":
    main()
