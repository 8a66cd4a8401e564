"""Scikit-learn's handwritten digits, 1797 images of 8 x 8 pixels, and what the examples that learn from them share."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

SIZE = 8
"""Pixels in a row, and rows."""
BRIGHTEST = 16
"""The lightest of the 17 shades; 0 is black."""
_SHADES = " .:-=+*#%@"


def load_images(size: int = SIZE) -> Tensor:
    """All images as `[1797, size, size]`, from 0 (black) to 1; other sizes than 8 are interpolated."""
    images = torch.from_numpy(_digits().images).float() / BRIGHTEST
    if size != SIZE:
        images = interpolate(images[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    return images


def load_labels() -> Tensor:
    """Which digit each image shows: `[1797]`, integers."""
    return torch.from_numpy(_digits().target)


def train(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    steps: int,
    *,
    batch: int = 64,
    rate: float = 2e-3,
) -> float:
    """Minimise a loss with Adam and return its last value, with progress where somebody sees it.

    loss: takes the numbers of the examples of a batch, `batch` of `count`.
    The model is left in evaluation mode, and its parameters without gradients.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    last = float("nan")
    for step in range(1, steps + 1):
        value = loss(torch.randint(count, (batch,)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        last = value.item()
        if sys.stderr.isatty():
            print(f"\rtraining: step {step} of {steps}, loss {last:.3f}\x1b[K", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    model.eval().requires_grad_(False)
    return last


def picture(images: Tensor) -> str:
    """Images `[number, rows, columns]` from 0 to 1 side by side, two characters a pixel."""
    shades = (images.clamp(0, 1) * (len(_SHADES) - 1)).round().long()
    rows = shades.transpose(0, 1).tolist()
    return "\n".join(" | ".join("".join(2 * _SHADES[p] for p in part) for part in row).rstrip() for row in rows)


def _digits() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("this example learns from scikit-learn's digits: pip install scikit-learn") from None
    return load_digits()
