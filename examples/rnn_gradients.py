"""The gradients of a recurrent network by Jacobi sweeps: all steps of the backward pass at once, until nothing changes.

The network of "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving" (arXiv 2002.03629) reads
an image pixel by pixel and guesses each next one; 128 hidden units, softplus, weights from N(0, 0.1). Its backward pass
is a linear system over the steps. What a step adds dies away within a few others, and about as many sweeps are enough.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from statistics import median

import torch
from digits import load_images
from sweeps import timed
from torch import Tensor, nn
from torch.nn.functional import softplus

import parc

HIDDEN = 128


class PixelReader(nn.Module):
    """Pixels `[steps, batch]`, one after the other, to the mean squared error of guessing each from those before it."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.state = nn.Parameter(0.1 * torch.randn(hidden, hidden))
        self.pixel = nn.Parameter(0.1 * torch.randn(hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.guess = nn.Parameter(0.1 * torch.randn(hidden))
        self.guess_bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], len(self.bias))
        guesses = []
        for t in range(x.shape[0]):
            guesses.append(h @ self.guess + self.guess_bias)
            a = h @ self.state + x[t][:, None] * self.pixel + self.bias
            h = softplus(a)
        return (torch.stack(guesses) - x).square().mean()


def gradients(program: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Those of all parameters, for images `[steps, batch]`."""
    return torch.autograd.grad(program(x), tuple(program.parameters()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Descend along gradients of both kinds and compare them; 1 when one is further off than the tolerance allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10, help="rows and columns of an image (default 10: 100 steps)")
    parser.add_argument("--images", type=int, default=1, help="read side by side (default 1)")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of the sweeps (default 1e-6)")
    parser.add_argument("--updates", type=int, default=20, help="of the weights (default 20)")
    parser.add_argument("--rate", type=float, default=1e-3, help="of these updates (default 0.001)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    images = load_images(options.size).flatten(1).T.contiguous()
    batches = images.split(options.images, 1)[: options.updates]
    model = PixelReader()
    how = parc.Iteration(tolerance=options.tolerance)
    sweep = parc.compile(model, (batches[0],), strategy="jacobi", iteration=how, training=True)

    errors, sweeps, ours, theirs = [], [], [], []
    for x in batches:
        found, seconds = timed(partial(gradients, sweep, x))
        ours.append(seconds)
        expected, seconds = timed(partial(gradients, model, x))
        theirs.append(seconds)
        errors.append(max(float((f - e).abs().max() / e.abs().max()) for f, e in zip(found, expected, strict=True)))
        sweeps.append({name: iterations.sweeps for name, iterations in sweep.iterations.items()})
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), found, strict=True):
                weight.sub_(options.rate * gradient)

    steps = images.shape[0]
    for name in sweeps[0]:
        most = max(each[name] for each in sweeps)
        print(f"{name}: {steps} steps in {most} sweeps or fewer, {steps / most:.1f} times fewer")
    print(f"a gradient: {1e3 * median(ours):.1f} ms, eager PyTorch's {1e3 * median(theirs):.1f} ms")
    print(f"largest error in {len(batches)} updates: {max(errors):.1e} of a gradient's largest element")
    return int(not max(errors) <= 1e3 * options.tolerance)


if __name__ == "__main__":
    sys.exit(main())
