"""A DenseNet whose layers are computed all at once, in Jacobi sweeps, until nothing changes.

Each layer of a dense block sees all layers before it (Huang et al. 2017), so that what it gives depends less and less
on the last of them: sweeps converge long before the last layer has been reached. The network learns to read
scikit-learn's digits first. Its sweeps stop when no activation changes by more than the tolerance.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from digits import load_images, load_labels, train
from sweeps import timed
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

import parc

HELD_OUT = 297
"""Images that are not learned from."""


class Dense(nn.Module):
    """A bottleneck layer: `growth` new channels from all channels so far."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(torch.relu(self.norm1(x)))
        return self.conv2(torch.relu(self.norm2(narrow)))


class Block(nn.Module):
    """Layers that see each other: `[batch, channels, rows, columns]` to as many channels more as the layers have."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Dense(channels + k * growth, growth) for k in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class Transition(nn.Module):
    """Half the channels, and half the rows and columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """A DenseNet-BC: images `[batch, 1, rows, columns]` to the scores of ten digits."""

    def __init__(self, growth: int = 12, blocks: Sequence[int] = (4, 6, 4)) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        parts: list[nn.Module] = []
        for k, layers in enumerate(blocks):
            parts.append(Block(channels, growth, layers))
            channels += layers * growth
            if k + 1 < len(blocks):
                parts.append(Transition(channels))
                channels //= 2
        self.parts = nn.Sequential(*parts)
        self.norm, self.head = nn.BatchNorm2d(channels), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.parts(self.stem(x))))
        return self.head(y.mean((2, 3)))


def depth(blocks: Sequence[int]) -> int:
    """Convolutions and products on the longest path: two a dense layer, the stem, the transitions and the head."""
    return 2 * sum(blocks) + len(blocks) + 1


def trained(growth: int, blocks: Sequence[int], steps: int) -> tuple[DenseNet, float]:
    """A network that has learned the digits, and the share of the others that it reads correctly."""
    images, labels = load_images()[:, None], load_labels()
    model = DenseNet(growth, blocks)
    known = len(images) - HELD_OUT
    train(model, lambda batch: cross_entropy(model(images[batch]), labels[batch]), known, steps)
    return model, float((model(images[known:]).argmax(1) == labels[known:]).float().mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compute the scores in both ways, compare; 1 when one is further off than the tolerance allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 6, 4], help="layers of each (default 4 6 4)")
    parser.add_argument("--growth", type=int, default=12, help="channels that a layer adds (default 12)")
    parser.add_argument("--steps", type=int, default=100, help="of training (default 100)")
    parser.add_argument("--images", type=int, default=1, help="read side by side (default 1)")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="of the activations (default 0.01)")
    parser.add_argument("--solver", default="jacobi", choices=("jacobi", "jacobi-gs"), help="default jacobi")
    parser.add_argument("--block", type=int, default=0, help="layers of a block of jacobi-gs (default: parc's choice)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    model, right = trained(options.growth, options.blocks, options.steps)
    print(f"trained for {options.steps} steps: reads {100 * right:.0f} % of {HELD_OUT} images that it has not seen")

    x = load_images()[-options.images :, None].contiguous()
    how = parc.Iteration(tolerance=options.tolerance, block=options.block)
    sweep = parc.compile(model, (x,), strategy=options.solver, iteration=how)
    direct = parc.compile(model, (x,))
    scores, ours = timed(lambda: sweep(x))
    expected, theirs = timed(lambda: direct(x))

    (iterations,) = sweep.iterations.values()
    largest = float(expected.abs().max())
    error = float((scores - expected).abs().max())
    print(f"layer after layer: {depth(options.blocks)} layers, {1e3 * theirs:.1f} ms")
    print(f"all at once: {iterations}, {1e3 * ours:.1f} ms")
    print(f"largest error of a score: {error:.1e}; the largest score is {largest:.1f}")
    return int(not error <= 10 * options.tolerance * max(1.0, largest))


if __name__ == "__main__":
    sys.exit(main())
