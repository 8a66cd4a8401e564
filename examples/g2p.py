"""How a word is pronounced: the trained GRU encoder and decoder of the package `g2p_en`, compiled by parc.

    python examples/g2p.py wavefront compiler

The encoder reads the letters of a word; the decoder then says one phoneme a step, and each step
feeds back the phoneme that it found most likely.  One compile serves words of every length.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import parc

STEPS = 20
"""Phonemes of the longest word that the decoder can say."""
START, END = 2, 3
"""The phonemes' numbers for the start and the end of a word."""

_GRU = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}


class Pronouncer(nn.Module):
    """Letters `[words, length]` to phonemes `[words, 20]`, both as numbers in the package's tables."""

    def __init__(self, letters: int = 29, phonemes: int = 74, features: int = 256, hidden: int = 256) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, features)
        self.encoder = nn.GRU(features, hidden, batch_first=True)
        self.phonemes = nn.Embedding(phonemes, features)
        self.decoder = nn.GRUCell(features, hidden)
        self.head = nn.Linear(hidden, phonemes)

    def forward(self, letters: Tensor) -> Tensor:
        _, state = self.encoder(self.letters(letters))
        h = state[0]
        phoneme = torch.full_like(letters[:, 0], START)
        said = []
        for _ in range(STEPS):
            h = self.decoder(self.phonemes(phoneme), h)
            phoneme = self.head(h).argmax(1)
            said.append(phoneme)
        return torch.stack(said, 1)

    @classmethod
    def trained(cls) -> "Pronouncer":
        """The model with the weights that the package carries."""
        spec = importlib.util.find_spec("g2p_en")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("this example needs the package g2p_en (pip install --no-deps g2p_en)")
        model = cls()
        with np.load(Path(spec.origin).with_name("checkpoint20.npz")) as file:
            weights = {name: torch.from_numpy(file[name]) for name in file.files}
        model.load_state_dict(
            {
                "letters.weight": weights["enc_emb"],
                "phonemes.weight": weights["dec_emb"],
                "head.weight": weights["fc_w"],
                "head.bias": weights["fc_b"],
                **{f"encoder.{kind}_l0": weights["enc_" + short] for kind, short in _GRU.items()},
                **{f"decoder.{kind}": weights["dec_" + short] for kind, short in _GRU.items()},
            }
        )
        return model.eval().requires_grad_(False)


class Package(Protocol):
    """What this example uses of the class `g2p_en.G2p`."""

    g2idx: dict[str, int]
    idx2p: dict[int, str]

    def predict(self, word: str) -> list[str]:
        """The phonemes of a word, by the package's own numpy code."""
        ...


def package() -> Package:
    """The package's own implementation, without its dictionary of known words, which it would have to download."""
    others = ("nltk", "nltk.corpus", "nltk.tokenize", "inflect")
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in others}):
        from g2p_en.g2p import G2p

        return G2p()


def encode(tables: Package, word: str) -> Tensor:
    """The letters of a word and its end mark: `[1, length + 1]`."""
    letters = [tables.g2idx.get(letter, tables.g2idx["<unk>"]) for letter in word]
    return torch.tensor([[*letters, tables.g2idx["</s>"]]])


def decode(tables: Package, phonemes: Tensor) -> list[str]:
    """The names of one word's phonemes, up to the end mark."""
    numbers = phonemes.tolist()
    return [tables.idx2p[n] for n in numbers[: numbers.index(END) if END in numbers else None]]


def main(words: Sequence[str]) -> None:
    tables = package()
    pronounce = parc.compile(Pronouncer.trained(), (encode(tables, "example"),))
    for word in words:
        phonemes = decode(tables, pronounce(encode(tables, word))[0])
        print(f"{word:20} {' '.join(phonemes)}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["recurrent", "wavefront", "compiler"])
