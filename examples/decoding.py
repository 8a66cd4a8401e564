"""Greedy decoding of a small transformer by Jacobi sweeps: all characters of a window at once, until none changes.

The model learns parc's licence, character by character. A sweep runs it once on the whole window, as training does; the
fixed point is what decoding one character after the other gives. From a blank window that takes about as many sweeps as
there are characters, each of which needs the one before it, as has been found of large models too. It takes far fewer
from a guess: here by a table of what follows the last few characters in the text; fewest when what comes after the
first wrong character is guessed anew after each sweep.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from digits import train
from sweeps import Step, one_by_one
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import parc

CONTEXT, WINDOW = 48, 16
"""Characters that are known, and that are decoded at once."""
LONGEST = 6
"""Characters that the table of guesses looks up."""


class Layer(nn.Module):
    """Causal self-attention and a feedforward network, each added to what it sees."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, length, width]` to the same."""
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        scores = (q @ k.transpose(2, 3) * (width // self.heads) ** -0.5).masked_fill(later, float("-inf"))
        x = x + self.out((scores.softmax(3) @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.network(self.norm2(x))


class Transformer(nn.Module):
    """Characters `[batch, length]` to the logits of each next one, `[batch, length, alphabet]`."""

    def __init__(self, alphabet: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.characters = nn.Embedding(alphabet, width)
        self.places = nn.Parameter(0.02 * torch.randn(CONTEXT + WINDOW, width))
        self.layers = nn.Sequential(*[Layer(width, heads) for _ in range(layers)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, alphabet))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.characters(x) + self.places[: x.shape[1]]))


class Decoder(nn.Module):
    """A step of the fixed point: the window of the last sweep and the context `[batch, CONTEXT]` to the window."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, window: Tensor, context: Tensor) -> Tensor:
        logits = self.model(torch.cat([context, window], 1))
        return logits[:, CONTEXT - 1 : -1].argmax(2)


class Table:
    """What followed the last few characters in a text, most often."""

    def __init__(self, text: str) -> None:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for length in range(LONGEST + 1):
            for i in range(len(text) - length):
                counts[text[i : i + length]][text[i + length]] += 1
        self._most = {known: following.most_common(1)[0][0] for known, following in counts.items()}

    def guess(self, known: str, count: int) -> str:
        """A continuation of `count` characters, each looked up by as many characters before it as the text has."""
        said = known
        for _ in range(count):
            tail = said[-LONGEST:]
            while tail not in self._most:
                tail = tail[1:]
            said += self._most[tail]
        return said[len(known) :]


def read(path: Path) -> tuple[str, str]:
    """A file's text, with one blank for each run of white space, and the characters in it, in order."""
    text = " ".join(path.read_text("utf-8").split())
    return text, "".join(sorted(set(text)))


def encode(text: str, alphabet: str) -> Tensor:
    """The characters' numbers in the alphabet: `[1, length]`."""
    return torch.tensor([[alphabet.index(character) for character in text]])


def trained(text: str, alphabet: str, steps: int) -> tuple[Transformer, float]:
    """A model of the text, and its loss in nats a character."""
    model = Transformer(len(alphabet))
    cuts = encode(text, alphabet)[0].unfold(0, CONTEXT + WINDOW + 1, 1)

    def loss(batch: Tensor) -> Tensor:
        cut = cuts[batch]
        return cross_entropy(model(cut[:, :-1]).flatten(0, 1), cut[:, 1:].flatten())

    return model, train(model, loss, len(cuts), steps, batch=16)


def renewed(run: Step, table: Table, said: str, alphabet: str) -> tuple[str, int]:
    """A window decoded by runs of the model on guesses, each made from what is known to be right; and the runs.

    What a run gives is right up to and with the first character that it changes.
    """
    known, runs = "", 0
    while len(known) < WINDOW:
        guess = known + table.guess(said + known, WINDOW - len(known))
        window = "".join(alphabet[i] for i in run(encode(guess, alphabet))[0].tolist())
        runs += 1
        right = next((i + 1 for i in range(WINDOW) if window[i] != guess[i]), WINDOW)
        known = window[:right]
    return known, runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, decode in both ways, compare; 1 when a character differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    licence = Path(__file__).parents[1] / "LICENSE"
    parser.add_argument("--text", type=Path, default=licence, help="what is learned (default: the licence)")
    parser.add_argument("--windows", type=int, default=6, help=f"decoded, {WINDOW} characters each (default 6)")
    parser.add_argument("--steps", type=int, default=1200, help="of training (default 1200)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    text, alphabet = read(options.text)
    model, loss = trained(text, alphabet, options.steps)
    print(f"trained for {options.steps} steps: {loss:.2f} nats a character")

    step, table = Decoder(model), Table(text)
    said = text[1000 : 1000 + CONTEXT]
    blank = torch.zeros(1, WINDOW, dtype=torch.long)
    decode = parc.fixed_point(step, (blank, encode(said, alphabet)))
    run = parc.compile(step, (blank, encode(said, alphabet)))
    sweeps, wrong = {"a blank": 0, "a guess": 0, "guesses anew": 0}, 0
    for _ in range(options.windows):
        context = encode(said[-CONTEXT:], alphabet)
        expected = one_by_one(lambda window: step(window, context), blank)  # noqa: B023
        for name, start in (("a blank", blank), ("a guess", encode(table.guess(said, WINDOW), alphabet))):
            window = decode(start, context)
            (iterations,) = decode.iterations.values()
            sweeps[name] += iterations.sweeps
            wrong += int((window != expected).sum())
        found, runs = renewed(lambda window: run(window, context), table, said, alphabet)  # noqa: B023
        sweeps["guesses anew"] += runs
        wrong += int((encode(found, alphabet) != expected).sum())
        said += "".join(alphabet[i] for i in expected[0].tolist())

    count = WINDOW * options.windows
    print(f"{said[:CONTEXT]!r} goes on\n{said[CONTEXT:]!r}")
    print(f"one by one: {count} runs of the model for {count} characters")
    for name, number in sweeps.items():
        print(f"{WINDOW} at once, from {name}: {number} sweeps, {count / number:.2f} characters each")
    print(f"characters that differ: {wrong or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
