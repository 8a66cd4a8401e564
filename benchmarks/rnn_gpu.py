#!/usr/bin/env python3
"""Time parc on a GPU beside its peers: recurrent stacks, inference and training, in float32, tf32 and bf16.

For each shape (layers L, steps T, batch B, hidden units H) run nn.LSTM and nn.GRU, whose kernels are cuDNN's, and two
stacks that are loops in Python. The peers of the first two are cuDNN, a CUDA graph of it, and for the LSTM a persistent
kernel in Triton and FlashRNN where these are installed; the peers of the loops are eager PyTorch, a CUDA graph of it
and torch.compile, which unrolls the loop and therefore has rows of its own, of few steps. Results, or in training the
gradients of the input and of all weights, are checked against eager PyTorch in float64 first. Then all programs of a
row are timed in turns in this process, by the GPU's clock. A cell shows a peer's median time and, as ..x, how many
times longer than parc it took: the median over the rounds of the ratio inside a round. "least" is the least time that
the GPU's rates allow, which are measured in the same run, with what it goes to, and the share of it in parc's time.

Products of "tf32" and "bf16" round their factors; parc's tensors stay float32, peers get bf16 tensors in "bf16".
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import torch
from arguments import add_time_limit, arguments
from cells import Shape, custom_models, library_models
from common import Program, ResultsDiffer, progress, report
from gpu_case import PRECISIONS, Call, Case, precision
from gpu_peers import COMPILED, EAGER, LIBRARY, PEERS, REPLAYED, UnavailableError, peers_of
from gpu_timing import Rates, Times, describe_machine, time_in_turns
from torch import Tensor, nn

import parc
from parc.runtime.cuda.device import find_device

SHAPES = (
    Shape(4, 128, 1, 512),
    Shape(4, 128, 16, 512),
    Shape(8, 512, 1, 256),
    Shape(4, 512, 64, 512),
    Shape(2, 1024, 8, 1024),
)
QUICK_SHAPES = (Shape(2, 6, 3, 16),)
LIBRARY_MODELS = ("LSTM", "GRU")
MODELS = (*LIBRARY_MODELS, "LstmLoop", "PeepholeLoop")
EMULATED = "cuda-emulated"
SMALL_BATCH = 16
"""Up to this many samples, stacked LSTMs are meant to be twice as fast as cuDNN's; beyond, no slower."""
CUSTOM_GOAL = 10.0
"""How many times faster than eager and than torch.compile loops are meant to be."""

COLUMNS = (
    "L,T,B,H",
    "model",
    "products",
    "of",
    "parc ms",
    "whole call ms",
    *PEERS,
    "least ms",
    "share",
    "goal",
    "error",
)
EXAMPLES = """examples:
  rnn_gpu.py                                              all shapes and precisions, on this machine's GPU
  rnn_gpu.py --shape 4,128,16,512 --model LSTM            one stack of one shape
  rnn_gpu.py --precision bf16 --pass inference            one precision, one of the two passes
  rnn_gpu.py --self-check                                 results only, no times
  rnn_gpu.py --compile-only programs --target cuda:sm_90  inference programs as files, on a machine without a GPU
  rnn_gpu.py --load programs                              and time them where only parc's runtime and PyTorch are
  rnn_gpu.py --target cuda-emulated --quick               whether all of it works, without a GPU
"""


@dataclass(frozen=True)
class PeerTime:
    """A peer's median times, and how many times longer than parc it took, with the quartiles of the rounds' ratios."""

    ms: float
    whole_call_ms: float
    ratio: float
    quartiles: tuple[float, float]
    error: float


@dataclass(frozen=True)
class Row:
    """One stack, in one precision and pass; times are None where results were checked only."""

    shape: Shape
    model: str
    precision: str
    what: str
    error: float
    left_out: Mapping[str, str]
    """Peers that did not run this, and why."""
    parc_ms: float | None = None
    parc_whole_call_ms: float | None = None
    peers: Mapping[str, PeerTime] | None = None
    least_ms: float | None = None
    least_by: str = ""
    goal: float | None = None
    against: Sequence[str] = ()
    """The peers that the goal is about, of which the fastest counts."""

    @property
    def reached(self) -> float | None:
        """How many times faster than the fastest of those peers parc is; None when none of them ran."""
        ratios = [self.peers[name].ratio for name in self.against if name in self.peers] if self.peers else []
        return min(ratios, default=None)

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        peers = self.peers or {}
        verdict, share = "", ""
        if self.goal is not None and self.reached is not None:
            verdict = f"{self.goal:g}x {'met' if self.reached >= self.goal else 'MISSED'}"
        if self.least_ms is not None and self.parc_ms:
            share = f"{self.least_ms / self.parc_ms:.0%}"
        return [
            str(self.shape),
            self.model,
            self.precision,
            self.what,
            _ms(self.parc_ms),
            _ms(self.parc_whole_call_ms),
            *(f"{_ms(peers[name].ms)} {peers[name].ratio:.2f}x" if name in peers else "" for name in PEERS),
            "" if self.least_ms is None else f"{_ms(self.least_ms)} {self.least_by}",
            share,
            verdict,
            f"{self.error:.0e}",
        ]


class Benchmark:
    """One run of this script."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cpu" if options.target == EMULATED else "cuda")
        self.rounds = 2 if options.quick else options.rounds
        has_rates = self.device.type == "cuda" and not options.self_check
        self.rates = Rates.measure(self.device, options.precision) if has_rates else None
        self.failures: list[str] = []

    def rows(self) -> Iterator[Row]:
        """Check and time every chosen stack; what fails of parc is noted in `failures`, and the others go on."""
        for shape, name, with_compile in _stacks(self.options):
            progress(f"{name} at {shape}")
            yield from self._stack(shape, name, peers_of(name, with_compile=with_compile))

    def _stack(self, shape: Shape, name: str, peers: Sequence[str]) -> Iterator[Row]:
        model, x = _model_and_input(shape, name, self.device)
        for what in self.options.what:
            case = Case(shape, name, model, x, torch.randn_like(x), "f32", what == "training")
            expected = case.expected()
            for name_of_precision in self.options.precision:
                case = replace(case, precision=name_of_precision)
                try:
                    with precision(case.precision), torch.set_grad_enabled(case.training):
                        row = self._row(case, peers, expected)
                except (ResultsDiffer, parc.ParcError, OSError, ValueError) as error:
                    self.failures.append(f"{case}: {error}")
                    progress(self.failures[-1])
                else:
                    yield row

    def _row(self, case: Case, peers: Sequence[str], expected: Sequence[Tensor]) -> Row:
        calls: dict[str, Call] = {"parc": case.call(_parc(case, self.options))}
        errors = {"parc": case.check("parc", calls["parc"](), expected)}
        left_out: dict[str, str] = {}
        for name in peers:
            if self.options.peer and name not in self.options.peer:
                continue
            try:
                calls[name] = PEERS[name](case, self.options.time_limit)
                errors[name] = case.check(name, calls[name](), expected)
            except Exception as error:  # noqa: BLE001  a peer may raise anything; the others go on
                calls.pop(name, None)
                left_out[name] = _summary(error)
                progress(f"{case}: {name} is left out: {left_out[name]}")
        row = Row(case.shape, case.name, case.precision, case.what, errors["parc"], left_out)
        if self.options.self_check:
            return row
        times = time_in_turns(calls, self.rounds, self.device)
        if self.rates is not None:
            least, least_by = self.rates.least_seconds(case)
            wanted, against = goal(case.name, case.shape.batch)
            row = replace(row, least_ms=1e3 * least, least_by=least_by, goal=wanted, against=against)
        return replace(
            row,
            parc_ms=1e3 * times.device.median("parc"),
            parc_whole_call_ms=1e3 * times.whole.median("parc"),
            peers={name: _peer_time(name, times, errors[name]) for name in calls if name != "parc"},
        )


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when parc's results are wrong or it cannot run a stack, 2 when there is no GPU."""
    options = _options(words)
    torch.manual_seed(0)
    try:
        if options.compile_only:
            return _save_programs(options)
        if options.target != EMULATED and not torch.cuda.is_available():
            return _refuse(
                f"torch {torch.__version__} finds no GPU: go to a machine that has one and a PyTorch for CUDA, write "
                "programs for it with --compile-only DIR, or see that this works with --target cuda-emulated --quick"
            )
        if options.target != EMULATED:
            find_device()
    except parc.DeviceError as error:
        return _refuse(str(error))
    benchmark = Benchmark(options)
    rows = []
    try:
        for row in benchmark.rows():
            progress("  ".join(filter(None, row.cells())))
            rows.append(row)
    except RuntimeError as error:  # of CUDA: after some nothing works any more
        benchmark.failures.append(f"stopped: {error}")
    machine = describe_machine(benchmark.device, benchmark.rates)
    report(machine, COLUMNS, [row.cells() for row in rows], [asdict(row) for row in rows], benchmark.failures, options)
    return 1 if benchmark.failures else 0


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, EXAMPLES, threads=False, rounds=9)
    repeat = "may be repeated"
    parser.add_argument(
        "--shape", type=Shape.parse, action="append", metavar="L,T,B,H", help=f"this shape instead; {repeat}"
    )
    parser.add_argument("--model", action="append", choices=MODELS, help=f"only this stack; {repeat}")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help=f"only these products; {repeat}")
    parser.add_argument(
        "--pass", dest="what", action="append", choices=("inference", "training"), help="only this one of the two"
    )
    parser.add_argument("--peer", action="append", choices=PEERS, help=f"only this peer; {repeat}")
    parser.add_argument(
        "--target", type=_target, help="of parc: cuda, cuda:sm_90 or the like, cuda-emulated (default cuda)"
    )
    parser.add_argument("--blocks", type=int, help="of parc's grids (default: one to a multiprocessor)")
    parser.add_argument("--strategy", default="auto", help="parc's schedule (default auto)")
    parser.add_argument(
        "--torch-compile",
        type=int,
        default=16,
        metavar="STEPS",
        help="cut the loops to so many steps in the rows with torch.compile; 0 leaves these out (default 16)",
    )
    add_time_limit(parser, 120, "torch.compile")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--self-check", action="store_true", help="check all results, time nothing")
    only.add_argument("--compile-only", type=Path, metavar="DIR", help="write parc's inference programs there instead")
    parser.add_argument("--load", type=Path, metavar="DIR", help="run the programs that are there, and compile nothing")
    options = parser.parse_args(words)
    if options.load and options.compile_only:
        parser.error("--load runs programs that --compile-only has written before: give one of them")
    options.precision = options.precision or list(PRECISIONS)
    saved = options.load or options.compile_only
    options.what = ("inference",) if saved else options.what or ("inference", "training")
    if options.target is None:
        options.target = "cuda:sm_90" if options.compile_only else "cuda"
    return options


def _target(text: str) -> str:
    if text in ("cuda", EMULATED) or text.startswith("cuda:sm_"):
        return text
    raise argparse.ArgumentTypeError(f"a target is cuda, cuda:sm_90 or the like, or {EMULATED}, not '{text}'")


def _stacks(options: argparse.Namespace) -> Iterator[tuple[Shape, str, bool]]:
    """The chosen shapes with the names of the chosen stacks, and whether torch.compile is among the peers of loops.

    Loops of more steps than it is to unroll come without it first, and then cut to so many.
    """
    for shape, name in product(options.shape or (QUICK_SHAPES if options.quick else SHAPES), options.model or MODELS):
        steps = min(options.torch_compile, shape.steps)
        yield shape, name, steps == shape.steps
        if name not in LIBRARY_MODELS and 0 < steps < shape.steps:
            yield shape._replace(steps=steps), name, True


def _model_and_input(shape: Shape, name: str, device: torch.device) -> tuple[nn.Module, Tensor]:
    models = {type(model).__name__: model for model in (*library_models(shape), *custom_models(shape))}
    return models[name].to(device), torch.randn(shape.steps, shape.batch, shape.hidden, device=device)


def _parc(case: Case, options: argparse.Namespace) -> Program:
    """parc's program of a case, compiled or loaded."""
    if options.load is None:
        return parc.compile(
            case.model, (case.x,), target=options.target, threads=options.blocks, strategy=options.strategy
        )
    program = parc.load(_file(options.load, case.shape, case.name, case.precision))
    program.load_state_dict(case.model.state_dict())
    return program


def _save_programs(options: argparse.Namespace) -> int:
    """Write the program of each stack, with zeros for weights, which `--load` sets and which compress well."""
    options.compile_only.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if _runs_here(options.target) else "cpu")
    failed = False
    for (shape, name, _), name_of_precision in product(_stacks(options), options.precision):
        path = _file(options.compile_only, shape, name, name_of_precision)
        model, x = _model_and_input(shape, name, device)
        try:
            with precision(name_of_precision), torch.no_grad():
                compiled = parc.compile(
                    model, (x,), target=options.target, threads=options.blocks, strategy=options.strategy
                )
                for parameter in model.parameters():
                    parameter.zero_()
            compiled.save(path)
        except (parc.ParcError, ValueError) as error:
            failed = True
            progress(f"{path.stem}: {error}")
        else:
            progress(f"wrote {path}")
    return 1 if failed else 0


def _runs_here(target: str) -> bool:
    """Whether programs for a target run on the GPU of this machine, whose tensors they are then compiled with."""
    if target == EMULATED or not torch.cuda.is_available():
        return False
    major, minor = torch.cuda.get_device_capability()
    return target.removesuffix("a") in ("cuda", f"cuda:sm_{major}{minor}")


def _file(folder: Path, shape: Shape, name: str, name_of_precision: str) -> Path:
    return folder / f"{name}-{'x'.join(map(str, shape))}-{name_of_precision}.parc"


def goal(model: str, batch: int) -> tuple[float | None, Sequence[str]]:
    """How many times faster than the fastest of which peers parc is meant to be."""
    if model not in LIBRARY_MODELS:
        return CUSTOM_GOAL, (EAGER, COMPILED, REPLAYED)
    if batch > SMALL_BATCH:
        return 1.0, (LIBRARY,)
    return (2.0, (LIBRARY,)) if model == "LSTM" else (None, ())


def _peer_time(name: str, times: Times, error: float) -> PeerTime:
    low, ratio, high = times.device.speedup("parc", name)
    ms, whole = (1e3 * timing.median(name) for timing in (times.device, times.whole))
    return PeerTime(ms, whole, ratio, (low, high), error)


def _summary(error: Exception) -> str:
    """The first line of an error, with its type where that says more."""
    text = str(error) if isinstance(error, UnavailableError | ResultsDiffer) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:200]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _refuse(why: str) -> int:
    print(f"{Path(sys.argv[0]).name}: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
