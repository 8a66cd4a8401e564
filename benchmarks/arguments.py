"""The options that the benchmarks share. It imports nothing that a benchmark times: neither parc nor `common`."""

import argparse
from collections.abc import Sequence

from cells import Shape

QUICK = "a tiny shape and two rounds: whether all of it works, not how fast it is"


def arguments(
    doc: str | None, examples: str, *, threads: bool = True, rounds: int | None = None, quick: str = QUICK
) -> argparse.ArgumentParser:
    """A parser of --threads, --rounds (with its default, if it has one), --quick, --markdown and --json.

    doc: the benchmark's own, which is what its help begins with; `examples` is what it ends with.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, epilog=examples, formatter_class=formatter)
    if threads:
        parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch and of parc (default 2)")
    if rounds is not None:
        text = f"how often each program has its turn (default {rounds})"
        parser.add_argument("--rounds", type=int, default=rounds, help=text)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown; - for stdout")
    parser.add_argument("--json", metavar="FILE", help="write machine and results as JSON; - for stdout")
    return parser


def stack_arguments(
    doc: str | None, examples: str, *, models: Sequence[str], rounds: int, time_limit: float
) -> argparse.ArgumentParser:
    """The same with --shape, --model, --strategy, --torch-compile and --time-limit: for stacks timed beside PyTorch."""
    parser = arguments(doc, examples, rounds=rounds)
    parser.add_argument(
        "--shape", type=Shape.parse, action="append", metavar="L,T,B,H", help="time this shape instead; may be repeated"
    )
    parser.add_argument("--model", action="append", choices=models, help="only this stack; may be repeated")
    parser.add_argument(
        "--strategy", default="auto", help="parc's schedule: auto, layers, rows, wavefront, sequential (default auto)"
    )
    parser.add_argument(
        "--torch-compile",
        type=int,
        default=0,
        metavar="STEPS",
        help="also time torch.compile of the Python loops, cut to so many steps: it unrolls them, slowly",
    )
    add_time_limit(parser, time_limit, "torch.compile")
    return parser


def add_time_limit(parser: argparse.ArgumentParser, seconds: float, what: str) -> None:
    """Add --time-limit, with its default."""
    text = f"give up on a {what} that takes longer (default {seconds:g})"
    parser.add_argument("--time-limit", type=float, default=seconds, metavar="SECONDS", help=text)
