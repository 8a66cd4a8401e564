"""Sampling from a small PixelCNN++ in three ways: pixel by pixel, in Jacobi sweeps, and in waves over the image.

The model (Salimans et al. 2017) learns scikit-learn's digits, 17 shades of grey. Its convolutions are shifted so that a
pixel sees only those above it and those before it in its row; a pixel is drawn from a mixture of logistics with noise
that is given. So the image is a fixed point of one step. Sweeps run the whole network again and again, on all pixels.
Waves compute each layer once at each pixel, as soon as those that its convolution sees are there.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from digits import BRIGHTEST, SIZE, load_images, picture, train
from sweeps import one_by_one, timed
from torch import Tensor, nn
from torch.nn.functional import elu, pad

import parc

MIXED = 5
"""Logistics of a pixel's mixture."""
_NARROWEST = -7.0
"""The least logarithm of a logistic's scale."""


class Above(nn.Conv2d):
    """A convolution that sees its own row and those above it."""

    def __init__(self, inputs: int, outputs: int, rows: int = 2, columns: int = 3) -> None:
        super().__init__(inputs, outputs, (rows, columns))
        self.margins = (columns // 2, columns // 2, rows - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, self.margins))


class Before(nn.Conv2d):
    """A convolution that sees its own pixel, those left of it, and those above these."""

    def __init__(self, inputs: int, outputs: int, rows: int = 2, columns: int = 2) -> None:
        super().__init__(inputs, outputs, (rows, columns))
        self.margins = (columns - 1, 0, rows - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, self.margins))


class Gated(nn.Module):
    """A residual layer of two convolutions and a gate; the first is added to what another stream sees."""

    def __init__(self, width: int, convolution: Callable[[int, int], nn.Module], others: int = 0) -> None:
        super().__init__()
        self.first = convolution(2 * width, width)
        self.second = convolution(2 * width, 2 * width)
        self.other = nn.Conv2d(2 * others, width, 1) if others else None

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        y = self.first(_both_signs(x))
        if self.other is not None and other is not None:
            y = y + self.other(_both_signs(other))
        value, gate = self.second(_both_signs(y)).chunk(2, 1)
        return x + value * torch.sigmoid(gate)


class PixelCNN(nn.Module):
    """Pixels `[batch, 1, rows, columns]` from -1 to 1 to the mixtures they are drawn from, `[batch, 3 * MIXED, ...]`.

    Two streams: one sees the rows above, the other also what is left in the row, and the first stream.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.rows = Above(2, width)
        self.row_above, self.pixel_left = Above(2, width, 1, 3), Before(2, width, 2, 1)
        self.above = nn.ModuleList([Gated(width, Above) for _ in range(layers)])
        self.before = nn.ModuleList([Gated(width, Before, others=width) for _ in range(layers)])
        self.out = nn.Conv2d(width, 3 * MIXED, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The ones tell the border from black pixels.
        x = torch.cat([x, torch.ones_like(x)], 1)
        above = _down(self.rows(x))
        before = _down(self.row_above(x)) + _right(self.pixel_left(x))
        for up, left in zip(self.above, self.before, strict=True):
            above = up(above)
            before = left(before, above)
        return self.out(elu(before))

    def loss(self, x: Tensor) -> Tensor:
        """The mean over the images of minus the logarithm of their probability, in nats."""
        weight, mean, scale = _mixture(self(x))
        half = 1 / BRIGHTEST
        brighter = torch.sigmoid((x - mean + half) / scale).where(x < 1, 1.0)
        darker = torch.sigmoid((x - mean - half) / scale).where(x > -1, 0.0)
        each = torch.log((brighter - darker).clamp(min=1e-9)) + weight.log_softmax(1)
        return -each.logsumexp(1).sum((1, 2)).mean()


class Sampler(nn.Module):
    """A step of the fixed point: pixels `[batch, 1, rows, columns]` of the last sweep and noise to pixels.

    choice: Gumbel noise `[batch, MIXED, rows, columns]`, which picks a logistic; noise: logistic noise of x's shape.
    """

    def __init__(self, model: PixelCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, choice: Tensor, noise: Tensor) -> Tensor:
        weight, mean, scale = _mixture(self.model(x))
        score = weight + choice
        chosen = (score == score.amax(1, keepdim=True)).to(x.dtype)
        value = (chosen * (mean + scale * noise)).sum(1, keepdim=True).clamp(-1, 1)
        return torch.round((value + 1) * (BRIGHTEST / 2)) * (2 / BRIGHTEST) - 1


def draw_noise(images: int, size: int) -> tuple[Tensor, Tensor]:
    """The noise that `images` images of `size` x `size` pixels are drawn with: the sampler's `choice` and `noise`."""
    uniform = torch.rand(images, MIXED + 1, size, size).clamp(1e-5, 1 - 1e-5)
    return -torch.log(-torch.log(uniform[:, :MIXED])), torch.logit(uniform[:, MIXED:])


def trained(width: int, layers: int, steps: int, size: int = SIZE) -> tuple[PixelCNN, float]:
    """A model of the digits, and its loss in nats a pixel."""
    images = torch.round(load_images(size) * BRIGHTEST)[:, None] * (2 / BRIGHTEST) - 1
    model = PixelCNN(width, layers)
    return model, train(model, lambda batch: model.loss(images[batch]), len(images), steps) / size**2


def _mixture(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logits of the weights, the means and the scales, `[batch, MIXED, rows, columns]` each."""
    weight, mean, scale = parameters.chunk(3, 1)
    return weight, mean, torch.exp(scale.clamp(min=_NARROWEST))


def _both_signs(x: Tensor) -> Tensor:
    return elu(torch.cat([x, -x], 1))


def _down(x: Tensor) -> Tensor:
    """One row further down."""
    return pad(x, (0, 0, 1, 0))[:, :, :-1]


def _right(x: Tensor) -> Tensor:
    """One column further right."""
    return pad(x, (1, 0))[..., :-1]


def span(program: parc.Module) -> int:
    """How many waves of pixels, each of which needs the one before it, a sample takes."""
    return sum(int(system.span) for system in program.explain().systems)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, sample in all ways, compare; 1 when a pixel differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="how many are sampled (default 8)")
    parser.add_argument("--layers", type=int, default=2, help="gated layers of each stream (default 2)")
    parser.add_argument("--width", type=int, default=16, help="channels of each stream (default 16)")
    parser.add_argument("--steps", type=int, default=200, help="of training (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the noise (default 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    model, loss = trained(options.width, options.layers, options.steps)
    print(f"trained for {options.steps} steps: {loss:.2f} nats a pixel")

    step = Sampler(model).eval()
    choice, noise = draw_noise(options.images, SIZE)
    grey = torch.zeros_like(noise)
    sample = parc.fixed_point(step, (grey, choice, noise))
    print(f"found in the convolutions: {sample.dependences}")
    images, ours = timed(lambda: sample(grey, choice, noise))
    wave = parc.fixed_point(step, (grey, choice, noise), strategy="wavefront")
    exact, waves = timed(lambda: wave(grey, choice, noise))

    def flat_step(x: Tensor) -> Tensor:
        return step(x.view_as(grey), choice, noise).flatten(1)

    expected, theirs = timed(lambda: one_by_one(flat_step, grey.flatten(1)).view_as(grey))
    print(picture((images[:, 0] + 1) / 2))
    (iterations,) = sample.iterations.values()
    pixels, wrong = SIZE**2, int((images != expected).sum() + (exact != expected).sum())
    print(f"one by one: {pixels} runs of the network, {1e3 * theirs:.1f} ms")
    print(f"all at once: {iterations.sweeps} sweeps, {pixels / iterations.sweeps:.1f} times fewer, {1e3 * ours:.1f} ms")
    print(f"in waves: {span(wave)} of them, {1e3 * waves:.1f} ms")
    print(f"pixels that differ: {wrong or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
