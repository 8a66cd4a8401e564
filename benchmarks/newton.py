#!/usr/bin/env python3
"""A GRU layer forwards: by Newton's method over all steps at once, and step by step; both compiled by parc.

Programs run in turns and times are medians of the rounds; the results of all are compared with eager's before.
"step by step" is what `auto` takes, "eager" is nn.GRU. The weights are PyTorch's at their start; trained ones may
take more sweeps.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from arguments import arguments
from common import Machine, busy_warning, check_equal, progress, report, time_in_turns
from torch import Tensor, nn

import parc

EXAMPLES = """examples:
  newton.py                                        the table of docs/iterative.md, on 2 threads
  newton.py --steps 65536 --units 1 2              other sizes
"""


class Sizes(NamedTuple):
    """What the rows of the table are the product of."""

    steps: tuple[int, ...]
    units: tuple[int, ...]


SIZES = Sizes(steps=(1024, 4096, 16384, 65536), units=(1, 2, 4, 8, 16, 32, 64))
QUICK_SIZES = Sizes(steps=(128,), units=(2,))
_STRATEGIES = {"step by step": "auto", "newton": "newton", "quasi-newton": "quasi-newton"}
_INPUTS = 4


class Layer(nn.Module):
    """The outputs of an nn.GRU."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gru = nn.GRU(_INPUTS, units)

    def forward(self, x: Tensor) -> Tensor:
        """x: [T, 1, 4]; returns [T, 1, units]."""
        return self.gru(x)[0]


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__, EXAMPLES, rounds=15)
    parser.add_argument("--steps", type=int, nargs="+", metavar="T", help=f"lengths (default {_words(SIZES.steps)})")
    parser.add_argument("--units", type=int, nargs="+", metavar="H", help=f"widths (default {_words(SIZES.units)})")
    options = parser.parse_args()
    sizes, rounds = (QUICK_SIZES, 2) if options.quick else (SIZES, options.rounds)
    torch.set_num_threads(options.threads)
    machine, warning = Machine.describe(options.threads), busy_warning()
    rows: list[dict[str, object]] = []
    for units in options.units or sizes.units:
        rows += _measure(units, options.steps or sizes.steps, options.threads, rounds)
    names = ["newton", "quasi-newton"]
    columns = ["T, H", "eager ms", "step by step ms", *(f"{n} {c}" for n in names for c in ("sweeps", "ms"))]
    cells = [
        [
            str(row["size"]),
            f"{row['eager_ms']:.2f}",
            f"{row['step by step_ms']:.2f}",
            *(text for n in names for text in (str(row[f"{n}_sweeps"]), f"{row[f'{n}_ms']:.2f}")),
        ]
        for row in rows
    ]
    report(machine, columns, cells, rows, [warning] if warning else [], options)


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _measure(units: int, lengths: Sequence[int], threads: int, rounds: int) -> list[dict[str, object]]:
    """A row for each length."""
    torch.manual_seed(0)
    model = Layer(units)
    example = torch.randn(max(lengths), 1, _INPUTS)
    programs = {
        name: parc.compile(model, [example], threads=threads, strategy=strategy)
        for name, strategy in _STRATEGIES.items()
    }
    rows = []
    for steps in lengths:
        part = example[:steps]
        with torch.no_grad():
            expected = model(part)
            for name, program in programs.items():
                check_equal(name, program(part), expected)
            calls = {"eager": model, **programs}
            timing = time_in_turns({n: partial(p, part) for n, p in calls.items()}, rounds=rounds)
        row: dict[str, object] = {"size": f"{steps}, {units}"}
        row |= {f"{name}_ms": timing.median(name) * 1e3 for name in calls}
        row |= {f"{n}_sweeps": max((i.sweeps for i in p.iterations.values()), default=0) for n, p in programs.items()}
        progress(str(row))
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
