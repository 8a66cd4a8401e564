#!/usr/bin/env python3
"""Measure the memory of a call beside what parc plans for it, and beside eager PyTorch: an LSTM stack as a loop.

Each row is a process of its own. There the program runs once at a short length, which compiles everything; then the
peak of the resident memory in one call at the full length is taken, without what was resident before that call: inputs,
parameters, the cotangent of the result, torch and the compiler. What is planned is what parc says before the call.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from cells import LstmLoop, Shape
from common import Machine, markdown_table, progress, table, write_results, write_text
from torch import Tensor, nn

import parc
from parc.memory import bytes_text, parse_bytes

SHAPE = Shape(4, 2048, 16, 256)
QUICK_SHAPE = Shape(2, 512, 4, 32)
SHORT = 8
"""Steps of the call that compiles."""
COLUMNS = ("program", "pass", "limit", "planned", "peak", "of planned", "of eager")
EXAMPLES = """examples:
  memory.py                              the forward pass and a training step, with and without a limit
  memory.py --shape 2,512,8,128          of another shape
  memory.py --limit 150MB                another limit for the step in chunks
"""


@dataclass(frozen=True)
class Case:
    """What one process runs."""

    program: str
    training: bool
    limit: int | None = None


@dataclass(frozen=True)
class Row:
    """One process: bytes."""

    case: Case
    planned: int | None
    peak: int

    def cells(self, eager: int) -> list[str]:
        """The texts of the table's row; `eager` is what the same pass takes without parc."""
        return [
            self.case.program,
            "training step" if self.case.training else "forward",
            bytes_text(self.case.limit) if self.case.limit else "",
            bytes_text(self.planned) if self.planned else "",
            bytes_text(self.peak),
            f"{self.peak / self.planned:.2f}x" if self.planned else "",
            f"{self.peak / eager:.2f}x",
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    shape = options.shape or (QUICK_SHAPE if options.quick else SHAPE)
    if options.case:
        print(json.dumps(asdict(run_case(Case(**json.loads(options.case)), shape, options.threads))))
        return 0
    limit = options.limit or parse_bytes("2MB" if options.quick else "200MB")
    cases = [Case(program, training) for training in (False, True) for program in ("eager", "parc")]
    rows = []
    for case in [*cases, Case("parc", True, limit)]:
        progress(f"{case.program}, {'training step' if case.training else 'forward'}")
        rows.append(_in_process(case, shape, options.threads))
    eager = {row.case.training: row.peak for row in rows if row.case.program == "eager"}
    cells = [row.cells(eager[row.case.training]) for row in rows]
    machine = Machine.describe(options.threads)
    if "-" not in (options.json, options.markdown):
        print("\n".join([str(machine), f"LstmLoop at L,T,B,H = {shape}", "", table(COLUMNS, cells)]))
    if options.markdown:
        write_text(options.markdown, "\n\n".join([str(machine), markdown_table(COLUMNS, cells)]))
    if options.json:
        write_results(options.json, machine, {"shape": shape, "rows": [asdict(row) for row in rows]})
    return 0


def run_case(case: Case, shape: Shape, threads: int) -> Row:
    """Measure one program in this process."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model = LstmLoop(shape.layers, shape.hidden)
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
    arguments = ["--case", json.dumps(asdict(case)), "--shape", str(shape), "--threads", str(threads)]
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return Row(case, found["planned"], found["peak"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="memory.py", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=Shape.parse, metavar="L,T,B,H", help=f"the stack (default {SHAPE})")
    parser.add_argument("--limit", type=parse_bytes, metavar="AMOUNT", help="of the last row (default 200MB)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and of parc (default 2)")
    parser.add_argument("--quick", action="store_true", help="a tiny shape: whether all of it works")
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown; - for stdout")
    parser.add_argument("--json", metavar="FILE", help="write machine and results as JSON; - for stdout")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
