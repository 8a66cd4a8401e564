"""Sampling images from an autoregressive model by Jacobi sweeps: all pixels at once, until none changes.

A MADE (Germain et al. 2015) learns scikit-learn's digits, black and white. Each pixel depends on those before it, and
on noise that is drawn first: the image is the solution of a triangular system. The order of the pixels is not
declared: parc finds it in the zeros of the masked weights.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from digits import SIZE, load_images, picture, train
from sweeps import one_by_one, timed
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

import parc


class Masked(nn.Linear):
    """A linear layer, of whose weights a mask `[outputs, inputs]` keeps some."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float())

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs]` to `[batch, outputs]`."""
        return linear(x, self.weight * self.mask, self.bias)


class Made(nn.Module):
    """Pixels `[batch, pixels]` to the logit of each being white, from the pixels before it alone."""

    def __init__(self, pixels: int, hidden: int = 512) -> None:
        super().__init__()
        first = torch.arange(pixels)
        # A hidden unit of number k sees the pixels up to k, so that its turn comes after theirs.
        unit = torch.arange(hidden) % (pixels - 1)
        self.layers = nn.Sequential(
            Masked(unit[:, None] >= first),
            nn.ReLU(),
            Masked(unit[:, None] >= unit),
            nn.ReLU(),
            Masked(first[:, None] > unit),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Sampler(nn.Module):
    """A step of the fixed point: pixels of the last sweep and uniform noise `[batch, pixels]` to pixels, 0 or 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return (noise < torch.sigmoid(self.model(x))).to(x.dtype)


def trained(size: int, steps: int) -> tuple[Made, float]:
    """A model of the digits in black and white, `size` x `size` pixels, and its loss in nats an image."""
    images = (load_images(size) > 0.5).float().flatten(1)
    model = Made(size * size)

    def loss(batch: Tensor) -> Tensor:
        pixels = images[batch]
        return binary_cross_entropy_with_logits(model(pixels), pixels, reduction="sum") / len(pixels)

    return model, train(model, loss, len(images), steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, sample in both ways, compare; 1 when a pixel differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="rows and columns of an image (default 8)")
    parser.add_argument("--images", type=int, default=8, help="how many are sampled (default 8)")
    parser.add_argument("--steps", type=int, default=1000, help="of training (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the noise (default 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    model, loss = trained(options.size, options.steps)
    print(f"trained for {options.steps} steps: {loss:.1f} nats an image")

    step = Sampler(model).eval()
    noise = torch.rand(options.images, options.size**2)
    black = torch.zeros_like(noise)
    sample = parc.fixed_point(step, (black, noise))
    print(f"found in the weights: {sample.dependences}")
    images, ours = timed(lambda: sample(black, noise))
    expected, theirs = timed(lambda: one_by_one(lambda x: step(x, noise), black))

    print(picture(images.view(-1, options.size, options.size)))
    (iterations,) = sample.iterations.values()
    pixels, wrong = noise.shape[1], int((images != expected).sum())
    print(f"one by one: {pixels} runs of the network, {1e3 * theirs:.1f} ms")
    print(f"all at once: {iterations.sweeps} sweeps, {pixels / iterations.sweeps:.1f} times fewer, {1e3 * ours:.1f} ms")
    print(f"pixels that differ: {wrong or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
