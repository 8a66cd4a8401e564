"""Trains a character model on the sources of Python's standard library, twice: in eager PyTorch and compiled by parc.

Both runs start from the same weights and see the same characters: streams of text that are cut into chunks, of which
each starts from the state that the chunk before it ended in (truncated backpropagation through time). They take turns
step by step, so that whatever else the machine does slows down both. The curves of their losses are drawn in an SVG.
"""

import argparse
import copy
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from curves import loss_curves
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import parc

SOURCES = ("argparse", "ast", "calendar", "dataclasses", "difflib", "doctest", "inspect", "pathlib", "typing")
"""The modules of the standard library that are read, in this order."""
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""The alphabet; any other character is read as a blank."""

State = tuple[Tensor, Tensor]
Model = Callable[[Tensor, Tensor, State], tuple[Tensor, State]]

EXAMPLES = """examples:
  train_characters.py                            300 steps of a 4-layer nn.LSTM
  train_characters.py --cell peephole            a cell in plain Python loops, for which PyTorch has no kernel
  train_characters.py --loss inside              the cross entropy is compiled with the model, not eager behind it
  train_characters.py --batch 32 --chunk 128     more text a step
  train_characters.py --control                  a third run: how much rounding alone changes eager's losses
  train_characters.py --output /tmp/curves.svg   where the picture goes
"""


class Peephole(nn.Module):
    """Layers of LSTM cells whose gates see the memory (Gers and Schmidhuber 2000), called as an nn.LSTM is."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList([nn.Linear(hidden, 4 * hidden) for _ in range(layers)])
        self.states = nn.ModuleList([nn.Linear(hidden, 4 * hidden, bias=False) for _ in range(layers)])
        self.peepholes = nn.ParameterList([nn.Parameter(0.1 * torch.randn(3, hidden)) for _ in range(layers)])

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Run `[T, B, hidden]` from a state of two `[layers, B, hidden]`; the outputs and the last state."""
        h, c = list(state[0]), list(state[1])
        outputs = []
        for y in x:
            layers = zip(self.inputs, self.states, self.peepholes, h, c, strict=True)
            for k, (w, u, p, h_k, c_k) in enumerate(layers):
                i, f, g, o = (w(y) + u(h_k)).chunk(4, 1)
                i, f = torch.sigmoid(i + p[0] * c_k), torch.sigmoid(f + p[1] * c_k)
                c[k] = f * c_k + i * torch.tanh(g)
                h[k] = y = torch.sigmoid(o + p[2] * c[k]) * torch.tanh(c[k])
            outputs.append(y)
        return torch.stack(outputs), (torch.stack(h), torch.stack(c))


class CharacterModel(nn.Module):
    """An embedding, a recurrent stack and a linear head: characters `[T, B]` to logits `[T, B, alphabet]`."""

    def __init__(self, cell: str, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), hidden)
        self.stack = nn.LSTM(hidden, hidden, layers) if cell == "lstm" else Peephole(hidden, layers)
        self.head = nn.Linear(hidden, len(CHARACTERS))

    def forward(self, characters: Tensor, state: State) -> tuple[Tensor, State]:
        """The logits of each next character, and the state after the last."""
        y, state = self.stack(self.embedding(characters), state)
        return self.head(y), state


class WithLoss(nn.Module):
    """A character model and its loss: characters and the ones that follow, to the mean cross entropy."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, characters: Tensor, following: Tensor, state: State) -> tuple[Tensor, State]:
        """The loss of the chunk, and the state after it."""
        logits, state = self.model(characters, state)
        return cross_entropy(logits.flatten(0, 1), following.flatten()), state


@dataclass
class Run:
    """One training run: its model with the loss, the state that it carries, and what happened in each step."""

    name: str
    model: nn.Module
    state: State
    rate: float
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.rate)

    def step(self, characters: Tensor, following: Tensor) -> None:
        """Train on one chunk, `[T, B]` each."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss, state = self.model(characters, following, self.state)
        loss.backward()
        self.optimizer.step()
        # The next chunk starts from here, but its gradient ends at its start.
        self.state = state[0].detach(), state[1].detach()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss.item())


WARM_UP = 3
"""Steps that are not timed: caches and allocators fill, and parc makes the program for the gradients in the first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train both; 1 when the losses differ by more than `--tolerance`."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    text = encode(sources())
    model = CharacterModel(options.cell, options.hidden, options.layers)
    batches = chunks(text, options.batch, options.chunk)
    state = initial_state(options)
    eager = Run("eager", WithLoss(copy.deepcopy(model)), state, options.rate)
    control = [Run("control", WithLoss(neighbour(model)), state, options.rate)] if options.control else []
    start = time.perf_counter()
    ours = Run("parc", compiled(model, options), state, options.rate)
    runs = [eager, ours, *control]
    print(f"{len(text)} characters of {len(SOURCES)} modules; compiled in {time.perf_counter() - start:.1f} s")
    for number, (characters, following) in zip(range(1, options.steps + 1), batches):  # noqa: B905 (endless batches)
        for run in runs if number % 2 else runs[::-1]:
            run.step(characters, following)
        if number in (1, options.steps) or number % options.every == 0:
            print(f"step {number:4}  {_progress(eager, ours, options.every)}", flush=True)
    size = f"{options.layers} layers of {options.hidden} units, {options.batch} x {options.chunk} characters"
    options.output.write_text(loss_curves(f"{options.cell}: {size}", {run.name: run.losses for run in (eager, ours)}))
    difference = largest_difference(eager.losses, ours.losses)
    print(f"loss curves: {options.output}; largest relative difference {difference:.1e}")
    for run in control:
        print(f"of eager from weights with another last bit: {largest_difference(eager.losses, run.losses):.1e}")
    if options.steps > WARM_UP:
        print(f"a step: eager {_median_ms(eager):.1f} ms, parc {_median_ms(ours):.1f} ms; {_ratio(eager, ours)}")
    if not difference <= options.tolerance:
        print(f"the losses differ by more than {options.tolerance:g}", file=sys.stderr)
        return 1
    return 0


def compiled(model: CharacterModel, options: argparse.Namespace) -> nn.Module:
    """The model, compiled, with its loss: compiled too, or eager behind it."""
    characters = torch.randint(len(CHARACTERS), (options.chunk, options.batch))
    state = initial_state(options)
    if options.loss == "inside":
        return parc.compile(WithLoss(model), (characters, characters, state), threads=options.threads)
    return WithLoss(parc.compile(model, (characters, state), threads=options.threads))


def neighbour(model: CharacterModel) -> CharacterModel:
    """A copy whose weights are the next larger or smaller float32: what rounding does to a run, without parc."""
    near = copy.deepcopy(model)
    with torch.no_grad():
        for weight in near.parameters():
            weight.copy_(torch.nextafter(weight, weight + torch.randn_like(weight)))
    return near


def initial_state(options: argparse.Namespace) -> State:
    """The state before the first character: zeros."""
    shape = options.layers, options.batch, options.hidden
    return torch.zeros(shape), torch.zeros(shape)


def sources() -> str:
    """The text of the modules, from the standard library of the Python that runs this."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [folder / f"{name}.py" for name in SOURCES]
    # A module may be a package in another version of Python.
    return "".join((f if f.exists() else f.with_suffix("") / "__init__.py").read_text("utf-8") for f in files)


def encode(text: str) -> Tensor:
    """The text as numbers of characters in the alphabet, `[length]`."""
    numbers = {character: number for number, character in enumerate(CHARACTERS)}
    blank = numbers[" "]
    return torch.tensor([numbers.get(character, blank) for character in text])


def chunks(text: Tensor, batch: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless chunks of `batch` streams through the text, and the characters that follow; `[length, batch]` each."""
    streams = text[: len(text) // batch * batch].view(batch, -1).T.contiguous()
    places = range(0, len(streams) - length, length)
    if not places:
        raise SystemExit(f"the text has {len(text)} characters: too few for a batch of {batch} chunks of {length}")
    while True:
        for i in places:
            yield streams[i : i + length], streams[i + 1 : i + length + 1]


def largest_difference(eager: Sequence[float], ours: Sequence[float]) -> float:
    """The largest difference of two losses of a step, relative to eager's."""
    return max(abs(a - b) / abs(a) for a, b in zip(eager, ours, strict=True))


def _progress(eager: Run, ours: Run, last: int) -> str:
    """The losses of the last step, and the times of the `last` ones."""
    texts = [
        f"{r.name} {r.losses[-1]:.6f} ({1e3 * statistics.median(r.seconds[-last:]):.0f} ms)" for r in (eager, ours)
    ]
    return "  ".join([*texts, f"difference {largest_difference(eager.losses[-1:], ours.losses[-1:]):.1e}"])


def _median_ms(run: Run) -> float:
    return 1e3 * statistics.median(run.seconds[WARM_UP:])


def _ratio(eager: Run, ours: Run) -> str:
    """How many times faster parc's steps are: the median over the steps, and the quartiles."""
    ratios = [a / b for a, b in zip(eager.seconds[WARM_UP:], ours.seconds[WARM_UP:], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"parc trains {middle:.2f} times as fast (quartiles {low:.2f}-{high:.2f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_characters.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number = _positive
    parser.add_argument("--cell", choices=("lstm", "peephole"), default="lstm", help="nn.LSTM, or a loop in Python")
    parser.add_argument("--steps", type=number, default=300, help="updates of the weights (default 300)")
    parser.add_argument("--layers", type=number, default=4, help="layers of the stack (default 4)")
    parser.add_argument("--hidden", type=number, default=128, help="units of a layer (default 128)")
    parser.add_argument("--batch", type=number, default=16, help="streams of text side by side (default 16)")
    parser.add_argument("--chunk", type=number, default=64, help="characters that a gradient sees (default 64)")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate of Adam (default 0.002)")
    parser.add_argument(
        "--loss", choices=("outside", "inside"), default="outside", help="whether the loss is compiled too (outside)"
    )
    parser.add_argument(
        "--control", action="store_true", help="also run eager from weights that differ in their last bit"
    )
    parser.add_argument("--threads", type=number, default=2, help="threads of PyTorch and of parc (default 2)")
    parser.add_argument("--every", type=number, default=25, help="steps between lines of progress (default 25)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-2,
        help="relative difference of the losses that is an error (default 0.01)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("train_characters.svg"),
        metavar="FILE",
        help="where the curves go (default train_characters.svg)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"a positive number is needed, not '{text}'")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
