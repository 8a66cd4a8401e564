#!/usr/bin/env python3
"""Measure the memory of a call beside what parc plans for it, and beside eager PyTorch: stacks of cells as loops.

An LSTM, and a reversible cell, whose states a step with a small limit computes backwards.

Each row is a process of its own. There the program runs once at a short length, which compiles everything; then the
peak of the resident memory in one call at the full length is taken, without what was resident before that call: inputs,
parameters, the cotangent of the result, torch and the compiler. What is planned is what parc says before the call.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from arguments import arguments
from cells import CoupledLoop, LstmLoop, Shape
from common import Machine, markdown_table, progress, table, write_results, write_text
from torch import Tensor, nn

import parc
from parc.memory import bytes_text, parse_bytes

SHAPE = Shape(4, 2048, 16, 256)
QUICK_SHAPE = Shape(2, 512, 4, 32)
SHORT = 8
"""Steps of the call that compiles."""
CELLS = {"LstmLoop": LstmLoop, "CoupledLoop": CoupledLoop}
LIMITS = {"LstmLoop": "200MB", "CoupledLoop": "24MB"}
QUICK_LIMITS = {"LstmLoop": "2MB"}
COLUMNS = ("cell", "program", "pass", "limit", "planned", "peak", "of planned", "of eager")
EXAMPLES = """examples:
  memory.py                              the forward pass and a training step, with and without a limit
  memory.py --shape 2,512,8,128          of another shape
  memory.py --limit 150MB                another limit for the step in chunks, of the LSTM
"""


@dataclass(frozen=True)
class Case:
    """What one process runs."""

    program: str
    training: bool
    limit: int | None = None
    cell: str = "LstmLoop"


@dataclass(frozen=True)
class Row:
    """One process: bytes."""

    case: Case
    planned: int | None
    peak: int

    def cells(self, eager: int) -> list[str]:
        """The texts of the table's row; `eager` is what the same pass takes without parc."""
        return [
            self.case.cell,
            self.case.program,
            "training step" if self.case.training else "forward",
            bytes_text(self.case.limit) if self.case.limit else "",
            bytes_text(self.planned) if self.planned else "",
            bytes_text(self.peak),
            f"{self.peak / self.planned:.2f}x" if self.planned else "",
            f"{self.peak / eager:.2f}x",
        ]


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = _parser().parse_args(words)
    shape = options.shape or (QUICK_SHAPE if options.quick else SHAPE)
    if options.case:
        print(json.dumps(asdict(run_case(Case(**json.loads(options.case)), shape, options.threads))))
        return 0
    limits = {cell: parse_bytes(text) for cell, text in (QUICK_LIMITS if options.quick else LIMITS).items()}
    limits["LstmLoop"] = options.limit or limits["LstmLoop"]
    cases = []
    for cell, limit in limits.items():
        passes = (False, True) if cell == "LstmLoop" else (True,)
        cases += [Case(program, training, cell=cell) for training in passes for program in ("eager", "parc")]
        cases.append(Case("parc", True, limit, cell))
    rows = []
    for case in cases:
        progress(f"{case.cell}, {case.program}, {'training step' if case.training else 'forward'}")
        rows.append(_in_process(case, shape, options.threads))
    eager = {(row.case.cell, row.case.training): row.peak for row in rows if row.case.program == "eager"}
    cells = [row.cells(eager[row.case.cell, row.case.training]) for row in rows]
    machine = Machine.describe(options.threads)
    if "-" not in (options.json, options.markdown):
        print("\n".join([str(machine), f"L,T,B,H = {shape}", "", table(COLUMNS, cells)]))
    if options.markdown:
        write_text(options.markdown, "\n\n".join([str(machine), markdown_table(COLUMNS, cells)]))
    if options.json:
        write_results(options.json, machine, {"shape": shape, "rows": [asdict(row) for row in rows]})
    return 0


def run_case(case: Case, shape: Shape, threads: int) -> Row:
    """Measure one program in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model = CELLS[case.cell](shape.layers, shape.hidden)
    x = torch.randn(shape.steps, shape.batch, shape.hidden)
    cotangent = torch.randn_like(x)
    program: nn.Module = model
    if case.program == "parc":
        program = parc.compile(model, memory=case.limit, threads=threads)
    call = _step if case.training else _forward
    # The second call of a training step is the first one that saves what its backward pass needs.
    for _ in range(2):
        call(program, x[:SHORT], cotangent[:SHORT])
    for parameter in model.parameters():
        parameter.grad = None
    planned = None
    if isinstance(program, parc.Module):
        with torch.set_grad_enabled(case.training):
            planned = program.memory(x).planned
    return Row(case, planned, _peak(lambda: call(program, x, cotangent)))


def _forward(program: nn.Module, x: Tensor, _cotangent: Tensor) -> Tensor:
    with torch.no_grad():
        return program(x)


def _step(program: nn.Module, x: Tensor, cotangent: Tensor) -> Tensor:
    result = program(x)
    result.backward(cotangent)
    return result


def _peak(call: Callable[[], Tensor]) -> int:
    """How far the resident memory of this process rises in a call."""
    ctypes.CDLL(None).malloc_trim(0)  # what the compiler freed is not for the call to use again
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak before
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM") - before
    assert result.isfinite().all()
    return peak


def _status(field: str) -> int:
    """A number of bytes from Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kibibytes)


def _in_process(case: Case, shape: Shape, threads: int) -> Row:
    words = ["--case", json.dumps(asdict(case)), "--shape", str(shape), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return Row(case, found["planned"], found["peak"])


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__, EXAMPLES, quick="a tiny shape: whether all of it works")
    parser.add_argument("--shape", type=Shape.parse, metavar="L,T,B,H", help=f"the stack (default {SHAPE})")
    parser.add_argument(
        "--limit", type=parse_bytes, metavar="AMOUNT", help="of the LSTM's step in chunks (default 200MB)"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
