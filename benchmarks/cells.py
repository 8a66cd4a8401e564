"""Recurrent cells as people write them: plain Python loops over time and layers."""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class LstmLoop(nn.Module):
    """A stacked LSTM written by hand; input `[T, B, H]`, output of the last layer `[T, B, H]`."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_weights = _weights(layers, hidden, 4 * hidden)
        self.state_weights = _weights(layers, hidden, 4 * hidden)
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(4 * hidden)) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """Run all layers at a step before the next step."""
        steps, batch, _ = x.shape
        h = [x.new_zeros(batch, self.hidden) for _ in self.biases]
        c = [x.new_zeros(batch, self.hidden) for _ in self.biases]
        outputs = []
        for t in range(steps):
            y = x[t]
            for k, bias in enumerate(self.biases):
                gates = y @ self.input_weights[k] + h[k] @ self.state_weights[k] + bias
                y, c[k] = self.cell(gates, c[k], k)
                h[k] = y
            outputs.append(y)
        return torch.stack(outputs)

    def cell(self, gates: Tensor, c: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """The new output and memory."""
        i, f, o, g = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class PeepholeLoop(LstmLoop):
    """The LSTM of Gers and Schmidhuber (2000), whose gates see the memory: no library has a fast kernel for it."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__(layers, hidden)
        self.peepholes = nn.ParameterList([nn.Parameter(0.1 * torch.randn(3, hidden)) for _ in range(layers)])

    def cell(self, gates: Tensor, c: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """The new output and memory."""
        i, f, o, g = gates.chunk(4, dim=1)
        peep_i, peep_f, peep_o = self.peepholes[layer]
        c = torch.sigmoid(f + peep_f * c) * c + torch.sigmoid(i + peep_i * c) * torch.tanh(g)
        return torch.sigmoid(o + peep_o * c) * torch.tanh(c), c


class GruLoop(nn.Module):
    """A stacked GRU written by hand, with the equations of nn.GRU; input and output `[T, B, H]`."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_weights = _weights(layers, hidden, 3 * hidden)
        self.state_weights = _weights(layers, hidden, 3 * hidden)
        self.input_biases, self.state_biases = (
            nn.ParameterList([nn.Parameter(torch.zeros(3 * hidden)) for _ in range(layers)]) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run all layers at a step before the next step."""
        steps, batch, _ = x.shape
        h = [x.new_zeros(batch, self.hidden) for _ in self.input_biases]
        outputs = []
        for t in range(steps):
            y = x[t]
            for k in range(len(h)):
                r_in, z_in, n_in = (y @ self.input_weights[k] + self.input_biases[k]).chunk(3, dim=1)
                r, z, n = (h[k] @ self.state_weights[k] + self.state_biases[k]).chunk(3, dim=1)
                z = torch.sigmoid(z_in + z)
                h[k] = y = (1 - z) * torch.tanh(n_in + torch.sigmoid(r_in + r) * n) + z * h[k]
            outputs.append(y)
        return torch.stack(outputs)


class CoupledLoop(nn.Module):
    """A stacked reversible cell: each of two states gets a step of what the other says (as in RevNets)."""

    def __init__(self, layers: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input_weights = _weights(layers, hidden, 2 * hidden)
        self.state_weights, self.other_weights = (_weights(layers, hidden, hidden) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Run all layers at a step before the next step."""
        steps, batch, _ = x.shape
        a, b = ([x.new_zeros(batch, self.hidden) for _ in self.input_weights] for _ in range(2))
        outputs = []
        for t in range(steps):
            y = x[t]
            for k, weights in enumerate(self.input_weights):
                p, q = (y @ weights).chunk(2, dim=1)
                a[k] = a[k] + 0.1 * torch.tanh(p + b[k] @ self.state_weights[k])
                b[k] = b[k] + 0.1 * torch.tanh(q + a[k] @ self.other_weights[k])
                y = b[k]
            outputs.append(y)
        return torch.stack(outputs)


class Shape(NamedTuple):
    """Layers, steps, batch and hidden units of a stack; as many input features as hidden units."""

    layers: int
    steps: int
    batch: int
    hidden: int

    def __str__(self) -> str:
        return ",".join(map(str, self))

    @staticmethod
    def parse(text: str) -> "Shape":
        """`L,T,B,H` as a shape; an argument's error when it is not four positive numbers."""
        parts = text.split(",")
        if len(parts) != 4 or not all(part.isdigit() and int(part) for part in parts):
            raise ArgumentTypeError(f"a shape is four positive numbers L,T,B,H, not '{text}'")
        return Shape(*map(int, parts))


def library_models(shape: Shape) -> Sequence[nn.Module]:
    """The stacks that PyTorch has kernels for."""
    return [nn.LSTM(shape.hidden, shape.hidden, shape.layers), nn.GRU(shape.hidden, shape.hidden, shape.layers)]


def custom_models(shape: Shape) -> Sequence[nn.Module]:
    """The stacks that are loops in Python."""
    return [LstmLoop(shape.layers, shape.hidden), PeepholeLoop(shape.layers, shape.hidden)]


def trained_models(shape: Shape) -> Sequence[nn.Module]:
    """The stacks whose training is timed: one with kernels in PyTorch, and loops in Python."""
    shapes = shape.layers, shape.hidden
    return [
        nn.LSTM(shape.hidden, shape.hidden, shape.layers),
        LstmLoop(*shapes),
        PeepholeLoop(*shapes),
        GruLoop(*shapes),
    ]


def _weights(layers: int, rows: int, columns: int) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.randn(rows, columns) / rows**0.5) for _ in range(layers)])
