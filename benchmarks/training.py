#!/usr/bin/env python3
"""Time the training of parc beside PyTorch's on recurrent stacks, float32.

For each shape (layers L, steps T, batch B, hidden units H) four stacks train: nn.LSTM, for which PyTorch has kernels,
and three that are Python loops over time and layers: an LSTM written by hand, a peephole LSTM and a GRU. Two things are
timed: the gradients of all weights and of the input (forward and backward pass), and a whole step of training, with
Adam's update, after which parc also lays out the new weights for its kernels. The gradients of all programs are checked
against eager PyTorch's first; then they are timed in turns in this process. A speed-up is the median, over the rounds,
of eager's time divided by parc's in the same round; the columns next to it give the quartiles of these ratios.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from arguments import stack_arguments
from cells import Shape, trained_models
from common import Program, check_equal, compile_parc, compile_torch, progress, run, time_in_turns
from torch import Tensor, nn

SHAPES = (Shape(4, 128, 16, 256), Shape(4, 128, 1, 256), Shape(2, 512, 32, 128))
QUICK_SHAPES = (Shape(2, 6, 3, 16),)
MODELS = ("LSTM", "LstmLoop", "PeepholeLoop", "GruLoop")
GOALS = dict.fromkeys(MODELS[1:], 3.0)
"""How many times faster than eager parc is meant to train, on 2 threads, at the first of the shapes."""
LEARNING_RATE = 1e-6
"""So small that the weights stay what they are for as long as anything is timed."""

COLUMNS = (
    "L,T,B,H",
    "model",
    "eager ms",
    "torch.compile ms",
    "parc ms",
    "speed-up",
    "quartiles",
    "eager step",
    "parc step",
    "step speed-up",
    "quartiles",
    "goal",
    "error",
)
EXAMPLES = """examples:
  training.py                                     the shapes of the project's goals, on 2 threads
  training.py --shape 2,64,8,128 --model GruLoop  one stack of another shape
  training.py --strategy wavefront --threads 1    a schedule by name, instead of the one that the cost model picks
  training.py --torch-compile 16                  torch.compile beside it, at 16 steps (it unrolls the loop)
  training.py --markdown - --json results.json    for a page, and for a program
"""


@dataclass(frozen=True)
class Row:
    """One stack: medians of all rounds; speed-ups with their quartiles are over the rounds' own ratios.

    error: the largest difference of a gradient from eager's, relative to the largest value of that gradient.
    """

    shape: Shape
    model: str
    eager_ms: float
    torch_compile_ms: float | None
    parc_ms: float
    speedup: float
    quartiles: tuple[float, float]
    eager_step_ms: float
    parc_step_ms: float
    step_speedup: float
    step_quartiles: tuple[float, float]
    goal: float | None
    error: float

    def cells(self) -> list[str]:
        """The texts of the table's row."""
        goal = "" if self.goal is None else f"{self.goal:g}x {'met' if self.step_speedup >= self.goal else 'MISSED'}"
        return [
            str(self.shape),
            self.model,
            f"{self.eager_ms:.2f}",
            "" if self.torch_compile_ms is None else f"{self.torch_compile_ms:.2f}",
            f"{self.parc_ms:.2f}",
            f"{self.speedup:.2f}x",
            "{:.2f}-{:.2f}".format(*self.quartiles),
            f"{self.eager_step_ms:.2f}",
            f"{self.parc_step_ms:.2f}",
            f"{self.step_speedup:.2f}x",
            "{:.2f}-{:.2f}".format(*self.step_quartiles),
            goal,
            f"{self.error:.0e}",
        ]


class Training:
    """A program of a stack, eager or compiled, and a batch: its gradients, and its steps."""

    def __init__(self, program: Program, parameters: Iterable[Tensor], x: Tensor, cotangent: Tensor) -> None:
        self.program, self.x, self.cotangent = program, x, cotangent
        self.parameters = list(parameters)
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE)

    def gradients(self) -> tuple[Tensor, ...]:
        """The gradients of the input and of all parameters."""
        sources = [self.x, *self.parameters]
        return torch.autograd.grad(self._output(), sources, self.cotangent)

    def step(self) -> None:
        """A step of training: the gradients of the parameters, and Adam's update."""
        self.optimizer.zero_grad()
        self.x.grad = None
        self._output().backward(self.cotangent)
        self.optimizer.step()

    def _output(self) -> Tensor:
        result = self.program(self.x)
        return result[0] if isinstance(result, tuple) else result


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a gradient differs from eager's."""
    parser = stack_arguments(__doc__, EXAMPLES, models=MODELS, rounds=7, time_limit=240)
    options = parser.parse_args(words)
    return run(COLUMNS, _rows(options), options)


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    """Check and time every chosen stack of every shape; `ResultsDiffer` when a gradient is not equal to eager's."""
    for shape in options.shape or (QUICK_SHAPES if options.quick else SHAPES):
        progress(f"shape {shape}")
        for model in trained_models(shape):
            name = type(model).__name__
            if options.model and name not in options.model:
                continue
            yield _row(shape, model, name, None, options)
            if options.torch_compile and name != "LSTM":
                yield from _torch_compile_row(shape._replace(steps=options.torch_compile), model, name, options)


def _row(shape: Shape, model: nn.Module, name: str, torch_compiled: Program | None, options: argparse.Namespace) -> Row:
    x = torch.randn(shape.steps, shape.batch, shape.hidden, requires_grad=True)
    cotangent = torch.randn(shape.steps, shape.batch, shape.hidden)
    stacks: dict[str, Program] = {
        "eager": model,
        "parc": compile_parc(model, (x.detach(),), options.threads, options.strategy),
    }
    if torch_compiled is not None:
        stacks["torch.compile"] = torch_compiled
    trainings = {p: Training(stack, model.parameters(), x, cotangent) for p, stack in stacks.items()}
    expected = trainings["eager"].gradients()
    errors = {p: check_gradients(f"{p} of {name} at {shape}", t.gradients(), expected) for p, t in trainings.items()}
    programs: dict[str, Callable[[], object]] = {p: t.gradients for p, t in trainings.items()}
    programs |= {f"{p} step": trainings[p].step for p in ("eager", "parc")}
    timing = time_in_turns(programs, rounds=2 if options.quick else options.rounds)
    low, speedup, high = timing.speedup("parc", "eager")
    step_low, step_speedup, step_high = timing.speedup("parc step", "eager step")
    return Row(
        shape=shape,
        model=name,
        eager_ms=1e3 * timing.median("eager"),
        torch_compile_ms=None if torch_compiled is None else 1e3 * timing.median("torch.compile"),
        parc_ms=1e3 * timing.median("parc"),
        speedup=speedup,
        quartiles=(low, high),
        eager_step_ms=1e3 * timing.median("eager step"),
        parc_step_ms=1e3 * timing.median("parc step"),
        step_speedup=step_speedup,
        step_quartiles=(step_low, step_high),
        goal=GOALS.get(name) if shape == SHAPES[0] else None,
        error=errors["parc"],
    )


def check_gradients(what: str, actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest value of its gradient; `ResultsDiffer` if it is not rounding."""
    return max(
        check_equal(f"{what}: gradient {i}", a, e) / max(float(e.abs().max()), sys.float_info.min)
        for i, (a, e) in enumerate(zip(actual, expected, strict=True))
    )


def _torch_compile_row(shape: Shape, model: nn.Module, name: str, options: argparse.Namespace) -> list[Row]:
    """The same stack with torch.compile beside, at fewer steps; no row when it takes too long to compile."""
    x = torch.randn(shape.steps, shape.batch, shape.hidden, requires_grad=True)

    def first_call(program: Program) -> None:
        Training(program, model.parameters(), x, torch.ones_like(x)).gradients()

    compiled = compile_torch(model, f"{name} at {shape}", first_call, options.time_limit)
    return [_row(shape, model, name, compiled, options)] if compiled else []


if __name__ == "__main__":
    sys.exit(main())
