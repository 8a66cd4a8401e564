"""What the benchmarks share: the machine's description, timing in turns, the comparison of results, tables."""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

import parc
from parc.runtime.team import usable_cpus

ABSOLUTE, RELATIVE = 1e-6, 1e-4
"""How far results may be from eager's: float32 sums in another order, carried through thousands of steps."""

_SETTLE_SECONDS = 0.015
"""PyTorch's OpenMP threads spin for up to 10 ms after a call; whoever is timed next would share the cores with them."""


Program = Callable[[Tensor], Any]
"""A model or what was compiled from it, as far as it is timed."""


class Record(Protocol):
    """A dataclass, which JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class Row(Record, Protocol):
    """A line of a benchmark's table: a dataclass of what was measured."""

    def cells(self) -> list[str]:
        """The texts of the table's row."""


class ResultsDiffer(Exception):
    """A program did not compute what eager PyTorch does."""


class TimeLimitError(BaseException):
    """A time limit ran out; no `Exception`, which compilers catch to fall back on something else."""


@dataclass(frozen=True)
class Machine:
    """What a reader needs to know about where the numbers come from."""

    cpu: str
    cores: int
    vector_bits: int
    l2_kib_per_core: int
    system: str
    python: str
    torch: str
    threads: int

    @staticmethod
    def describe(threads: int) -> "Machine":
        """This machine, when programs run on `threads` threads."""
        from parc.codegen.microkernel import VectorTarget  # only now: saved programs run without the compiler

        return Machine(
            cpu=_cpu_name(),
            cores=usable_cpus(),
            vector_bits=VectorTarget.host().bits,
            l2_kib_per_core=_l2_kib(),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            torch=torch.__version__,
            threads=threads,
        )

    def __str__(self) -> str:
        return (
            f"{self.cpu}; {self.cores} cores, {self.vector_bits}-bit vectors, {self.l2_kib_per_core} KiB of L2 each; "
            f"{self.system}; Python {self.python}; torch {self.torch}; {self.threads} threads"
        )


@dataclass(frozen=True)
class Timing:
    """Seconds of one call of each program, a list per program; equal positions are from the same round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, program: str) -> float:
        """The median time of a call, in seconds."""
        return statistics.median(self.seconds[program])

    def best(self, program: str) -> float:
        """The shortest time of a call, in seconds."""
        return min(self.seconds[program])

    def ratios(self, program: str, reference: str) -> list[float]:
        """How many times faster than the reference the program was in each round."""
        return [r / p for r, p in zip(self.seconds[reference], self.seconds[program], strict=True)]

    def speedup(self, program: str, reference: str) -> tuple[float, float, float]:
        """The first quartile, the median and the third quartile of these ratios."""
        ratios = self.ratios(program, reference)
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return low, statistics.median(ratios), high


def time_in_turns(programs: Mapping[str, Callable[[], object]], *, rounds: int, calls_seconds: float = 0.02) -> Timing:
    """Time the programs in turns, so that a change in the machine's speed hits all of them.

    In a round each program runs once untimed (its weights come back into the caches, its threads wake) and then for
    about `calls_seconds`, one call at the least; its time in the round is the mean of these calls.
    """
    names = list(programs)
    calls = {name: max(1, int(calls_seconds / max(_seconds(programs[name], 1), 1e-7))) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(_SETTLE_SECONDS)
            seconds[name].append(_seconds(programs[name], calls[name]))
    return Timing(seconds)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block when it runs longer."""

    def stop(_number: int, _frame: object) -> None:
        raise TimeLimitError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def check_equal(what: str, actual: object, expected: object) -> float:
    """The largest absolute difference between two nested results; `ResultsDiffer` when it is not rounding."""
    worst = 0.0
    pairs = list(zip(_tensors(actual), _tensors(expected), strict=True))
    for result, reference in pairs:
        if result.shape != reference.shape:
            raise ResultsDiffer(f"{what}: a result has shape {list(result.shape)}, not {list(reference.shape)}")
        if not result.numel():
            continue
        difference = float((result - reference).abs().nan_to_num(torch.inf).max())
        worst = max(worst, difference)
        if difference > ABSOLUTE + RELATIVE * float(reference.abs().max()):
            raise ResultsDiffer(f"{what}: a result is {difference:.3g} off")
    return worst


def compile_parc(model: nn.Module, inputs: Sequence[Tensor], threads: int, strategy: str = "auto") -> nn.Module:
    """`parc.compile` with a line about it on stderr."""
    start = time.perf_counter()
    compiled = parc.compile(model, inputs, threads=threads, strategy=strategy)
    progress(f"compiled {type(model).__name__} in {time.perf_counter() - start:.1f} s")
    return compiled


def compile_torch(model: nn.Module, what: str, first_call: Callable[[Program], object], limit: float) -> Program | None:
    """`torch.compile` after a first call, with a line about it on stderr; None when both take over `limit` seconds."""
    start = time.perf_counter()
    try:
        with time_limit(limit):
            compiled = torch.compile(model, fullgraph=True)
            first_call(compiled)
    except TimeLimitError:
        progress(f"torch.compile of {what}: not done after {limit:g} s; left out")
        return None
    progress(f"torch.compile of {what}: {time.perf_counter() - start:.1f} s")
    return compiled


def run(columns: Sequence[str], measured: Iterable[Row], options: argparse.Namespace) -> int:
    """Measure on `options.threads` threads, one row after the other, and report; 1 when a result is a wrong one."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    machine = Machine.describe(options.threads)
    notes = [warning] if (warning := busy_warning()) else []
    try:
        rows = list(measured)
    except ResultsDiffer as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 1
    report(machine, columns, [row.cells() for row in rows], [asdict(row) for row in rows], notes, options)
    return 0


def progress(text: str) -> None:
    """A line for the person who waits."""
    print(f"  {text}", file=sys.stderr, flush=True)


def busy_warning() -> str:
    """A warning when other processes compete for the cores: empty when they do not."""
    waiting = os.getloadavg()[0]
    if waiting < 0.5 * usable_cpus():
        return ""
    return f"the machine is busy (load average {waiting:.1f}): times, and ratios too, depend on what else runs"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned text: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [columns, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table for a Markdown page."""
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, rule, *rows])


def report(
    machine: Record,
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    rows: Sequence[Mapping[str, object]],
    notes: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Print the table of `cells`, without columns that are empty in every row; write what `options` names.

    options: `markdown` and `json`, each a path, `-` for stdout in place of the table, or None.
    """
    kept = [i for i in range(len(columns)) if any(row[i] for row in cells)]
    columns, cells = [columns[i] for i in kept], [[row[i] for i in kept] for row in cells]
    if "-" not in (options.json, options.markdown):
        print("\n".join([str(machine), *notes, "", table(columns, cells)]))
    if options.markdown:
        write_text(options.markdown, "\n\n".join([str(machine), *notes, markdown_table(columns, cells)]))
    if options.json:
        write_results(options.json, machine, {"notes": notes, "rows": rows})


def write_results(path: str, machine: Record, results: Mapping[str, object]) -> None:
    """Write the machine and the results as JSON to a file, or to stdout when the path is `-`."""
    write_text(path, json.dumps({"machine": asdict(machine), **results}, indent=1))


def write_text(path: str, text: str) -> None:
    """Write to a file, or to stdout when the path is `-`."""
    if path == "-":
        print(text)
    else:
        Path(path).write_text(text + "\n")


def _seconds(program: Callable[[], object], calls: int) -> float:
    """The mean time of a call, after one untimed call."""
    program()
    start = time.perf_counter()
    for _ in range(calls):
        program()
    return (time.perf_counter() - start) / calls


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in _tensors(item)]
    raise TypeError(f"results are nested tensors, not {type(value).__name__}")


def _cpu_name() -> str:
    """The processor as Linux names it, with family and model: virtual machines often give a short name."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    lines = [line.partition(":") for line in text.split("\n\n")[0].splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}, model {fields['model']})" if "cpu family" in fields else name


def _l2_kib() -> int:
    """The second-level cache of a core in KiB; 0 when the system does not tell."""
    path = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    text = path.read_text().strip() if path.exists() else ""
    return int(text[:-1]) if text.endswith("K") else 0
