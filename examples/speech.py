"""Where somebody speaks: the speech detector of the package `silero_vad`, compiled by parc from its ONNX file.

    python examples/speech.py recording.wav

The model looks at frames of 32 ms, with a convolutional front end and an LSTM over the frames, and
gives each the probability that it holds speech.  One compile serves recordings of every length.
"""

import importlib.util
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

import parc

RATE = 16000
"""Samples a second."""
FRAME, CONTEXT = 512, 64
"""Samples in a frame, and of the frame before that the model sees with it."""


def model_file() -> Path:
    """The model for whole recordings that the package carries."""
    return _package_folder("silero_vad") / "data" / "silero_vad_16k_sequence.onnx"


def sample_file() -> Path:
    """Half a minute of a conversation between two people, from the package `pyannote.audio`."""
    return _package_folder("pyannote.audio") / "sample" / "sample.wav"


def load(path: Path) -> Tensor:
    """The samples of a 16-bit mono WAV file at 16 kHz, between -1 and 1."""
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, RATE):
            raise ValueError(f"{path}: expected 16-bit mono sound at {RATE} Hz")
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return torch.from_numpy(data.astype(np.float32) / 2**15)


def frames(sound: Tensor) -> Tensor:
    """The model's input: frames of 512 samples, each after the last 64 of the frame before; `[frames, 576]`."""
    body = pad(sound, (0, -len(sound) % FRAME)).reshape(-1, FRAME)
    before = pad(body[:, -CONTEXT:], (0, 0, 1, 0))[: len(body)]
    return torch.cat([before, body], 1)


def state() -> tuple[Tensor, Tensor]:
    """The LSTM's state before the first frame."""
    return torch.zeros(1, 1, 128), torch.zeros(1, 1, 128)


def segments(probabilities: Tensor, threshold: float = 0.5) -> list[tuple[float, float]]:
    """(start, end) in seconds of every run of frames with speech."""
    edges = torch.diff(pad(probabilities > threshold, (1, 1)).int())
    starts, ends = torch.where(edges > 0)[0], torch.where(edges < 0)[0]
    return [(a * FRAME / RATE, b * FRAME / RATE) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def _package_folder(name: str) -> Path:
    """Where a package is installed; it is not imported, only its files are used."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"this example needs the package {name} (pip install --no-deps {name})")
    return Path(spec.origin).parent


def main(arguments: Sequence[str]) -> None:
    path = Path(arguments[0]) if arguments else sample_file()
    detect = parc.compile(model_file())
    probabilities, _, _ = detect(frames(load(path)), *state())
    for start, end in segments(probabilities):
        print(f"{start:6.2f} s to {end:6.2f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
