"""Recurrent models that the tests share: small, seeded by the caller, each one a program that a user would write."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# The length and the batch of all example inputs: sizes that no model has besides.
STEPS, BATCH = 11, 13


def _weights(*shapes: tuple[int, ...]) -> nn.ParameterList:
    return nn.ParameterList([nn.Parameter(torch.randn(*s) / s[0] ** 0.5) for s in shapes])


class Recurrence(nn.Module):
    """The smallest of all: `h = tanh(x W + h U)`."""

    def __init__(self, features: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.W, self.U = (nn.Parameter(torch.randn(n, hidden) / n**0.5) for n in (features, hidden))

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], self.U.shape[0])
        ys = x.new_zeros(*x.shape[:2], self.U.shape[0])
        for t in range(x.shape[0]):
            h = torch.tanh(x[t] @ self.W + h @ self.U)
            ys[t] = h
        return ys


class TimeOuterLstm(nn.Module):
    """Stacked LSTM written by hand: a loop over time around a loop over layers."""

    def __init__(self, layers: int = 2, features: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        widths = [features] + [hidden] * (layers - 1)
        self.W = _weights(*[(w, 4 * hidden) for w in widths])
        self.U = _weights(*[(hidden, 4 * hidden)] * layers)
        self.b = _weights(*[(4 * hidden,)] * layers)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, _ = x.shape
        h = [x.new_zeros(batch, self.hidden) for _ in self.W]
        c = [x.new_zeros(batch, self.hidden) for _ in self.W]
        ys = []
        for t in range(steps):
            y = x[t]
            for k, (w, u, b) in enumerate(zip(self.W, self.U, self.b, strict=True)):
                i, f, o, g = (y @ w + h[k] @ u + b).chunk(4, 1)
                c[k] = torch.sigmoid(f) * c[k] + torch.sigmoid(i) * torch.tanh(g)
                h[k] = y = torch.sigmoid(o) * torch.tanh(c[k])
            ys.append(y)
        return torch.stack(ys)


class LayerOuterLstm(TimeOuterLstm):
    """The same equations with the loop over layers outside; given initial states; writes into a buffer of results."""

    def forward(self, x: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # type: ignore[override]
        hs, cs = [], []
        for k, (w, u, b) in enumerate(zip(self.W, self.U, self.b, strict=True)):
            h, c = h0[k], c0[k]
            out = x.new_zeros(x.shape[0], x.shape[1], self.hidden)
            for t in range(x.shape[0]):
                i, f, o, g = (x[t] @ w + h @ u + b).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                out[t] = h
            x = out
            hs.append(h)
            cs.append(c)
        return x, (torch.stack(hs), torch.stack(cs))


class AnyCell(nn.Module):
    """A stack of cells of any number of states, written in one of the ways in which people write such loops.

    Each state is `act(x W + h U + b + previous state of the cell)`, gated by the first of the cell when there are more.
    """

    def __init__(
        self, layers: int, states: int, features: int, hidden: int, *, activation: str, time_outer: bool, collect: str
    ) -> None:
        super().__init__()
        self.states, self.hidden, self.time_outer, self.collect = states, hidden, time_outer, collect
        self.activation = getattr(torch, activation)
        widths = [features] + [hidden] * (layers - 1)
        self.W = _weights(*[(w, hidden) for w in widths for _ in range(states)])
        self.U = _weights(*[(hidden, hidden)] * layers * states)
        self.b = _weights(*[(hidden,)] * layers * states)

    def cell(self, layer: int, x: Tensor, old: list[Tensor]) -> list[Tensor]:
        new: list[Tensor] = []
        for s, h in enumerate(old):
            k = layer * self.states + s
            y = self.activation(x @ self.W[k] + h @ self.U[k] + self.b[k])
            new.append(y * torch.sigmoid(new[0]) + 0.5 * h if new else y)
        return new

    def gather(self, x: Tensor, steps: list[Tensor]) -> Tensor:
        """The outputs of all steps as one tensor `[T, B, hidden]`."""
        if self.collect == "stack":
            return torch.stack(steps)
        if self.collect == "cat":
            return torch.cat([y.unsqueeze(0) for y in steps], 0)
        out = x.new_empty(len(steps), x.shape[1], self.hidden)
        for t, y in enumerate(steps):
            out[t] = y
        return out

    def forward(self, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        layers = len(self.W) // self.states
        states = [[x.new_zeros(x.shape[1], self.hidden)] * self.states for _ in range(layers)]
        if self.time_outer:
            steps = []
            for y in x:
                for layer in range(layers):
                    states[layer] = self.cell(layer, y, states[layer])
                    y = states[layer][-1]
                steps.append(y)
            return self.gather(x, steps), states
        for layer in range(layers):
            steps = []
            for t in range(x.shape[0]):
                states[layer] = self.cell(layer, x[t], states[layer])
                steps.append(states[layer][-1])
            x = self.gather(x, steps)
        return x, states


class ConcatCell(nn.Module):
    """`h = tanh([x, h] W + b)`: one product of the concatenated input and state."""

    def __init__(self, layers: int = 2, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.cells = nn.ModuleList([nn.Linear(2 * hidden, hidden) for _ in range(layers)])

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        h = [x.new_zeros(x.shape[1], self.hidden) for _ in self.cells]
        ys = []
        for t in range(x.shape[0]):
            y = x[t]
            for k, cell in enumerate(self.cells):
                h[k] = y = torch.tanh(cell(torch.cat([y, h[k]], 1)))
            ys.append(y)
        return torch.stack(ys), h


class ResetGru(nn.Module):
    """A GRU whose reset gate comes before the recurrent product: `tanh(x W + (r * h) U)`."""

    def __init__(self, features: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.Wg, self.Ug, self.W, self.U = _weights(
            (features, 2 * hidden), (hidden, 2 * hidden), (features, hidden), (hidden, hidden)
        )

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        ys = []
        for xt in x:
            r, z = torch.sigmoid(xt @ self.Wg + h @ self.Ug).chunk(2, 1)
            h = z * h + (1 - z) * torch.tanh(xt @ self.W + (r * h) @ self.U)
            ys.append(h)
        return torch.stack(ys), h


class TwoBack(nn.Module):
    """`h[t] = tanh(x[t] W + h[t-1] U + h[t-2] V)`."""

    def __init__(self, features: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.hidden = hidden
        self.W, self.U, self.V = _weights((features, hidden), (hidden, hidden), (hidden, hidden))

    def forward(self, x: Tensor) -> Tensor:
        hs = [x.new_zeros(x.shape[1], self.hidden), x.new_zeros(x.shape[1], self.hidden)]
        for t in range(x.shape[0]):
            hs.append(torch.tanh(x[t] @ self.W + hs[-1] @ self.U + hs[-2] @ self.V))
        return torch.stack(hs[2:])


class Tagger(nn.Module):
    """A whole model: embedding, convolution over time, LSTM, linear head, softmax; tokens `[B, T]` in."""

    def __init__(self, words: int = 20, features: int = 8, hidden: int = 16, tags: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, features)
        self.conv = nn.Conv1d(features, features, 3, padding=1)
        self.lstm = nn.LSTM(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, tags)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.relu(self.conv(self.embed(tokens).transpose(1, 2))).transpose(1, 2)
        return torch.softmax(self.head(self.lstm(x)[0]), -1)


class GreedyDecoder(nn.Module):
    """Each step feeds back the embedding of its own most likely symbol; a fixed number of steps."""

    def __init__(self, symbols: int = 12, hidden: int = 16, steps: int = 6) -> None:
        super().__init__()
        self.steps = steps
        self.embed = nn.Embedding(symbols, hidden)
        self.cell = nn.GRUCell(hidden, hidden)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, h: Tensor) -> Tensor:
        token = torch.zeros(h.shape[0], dtype=torch.int64)
        out = []
        for _ in range(self.steps):
            h = self.cell(self.embed(token), h)
            token = self.head(h).argmax(-1)
            out.append(token)
        return torch.stack(out, 1)


class Sequential(nn.Module):
    """A torch RNN and a head in one module, to see user locations in front of torch's."""

    def __init__(self, rnn: nn.RNNBase, out: int = 5) -> None:
        super().__init__()
        self.rnn = rnn
        width = rnn.hidden_size * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(width, out)

    def forward(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None = None) -> Tensor:
        return self.head(self.rnn(x, hx)[0])


def zoo() -> dict[str, tuple[nn.Module, tuple[object, ...]]]:
    """Name -> (model in eval mode, example inputs), every kind of program that the importer has to take."""
    x = torch.randn(STEPS, BATCH, 8)
    state = torch.randn(2, BATCH, 16)
    make: dict[str, tuple[Callable[[], nn.Module], tuple[object, ...]]] = {
        "lstm": (lambda: nn.LSTM(8, 16, 2), (x,)),
        "lstm_states": (lambda: nn.LSTM(8, 16, 2), (x, (state, torch.randn(2, BATCH, 16)))),
        "gru": (lambda: nn.GRU(8, 16, 2), (x,)),
        "rnn": (lambda: nn.RNN(8, 16, 2), (x,)),
        "lstm_batch_first": (lambda: nn.LSTM(8, 16, 2, batch_first=True), (torch.randn(BATCH, STEPS, 8),)),
        "lstm_bidirectional": (lambda: nn.LSTM(8, 16, 2, bidirectional=True), (x,)),
        "custom_time_outer": (TimeOuterLstm, (x,)),
        "custom_layer_outer": (LayerOuterLstm, (x, state, torch.randn(2, BATCH, 16))),
        "concat_cell": (ConcatCell, (torch.randn(STEPS, BATCH, 16),)),
        "reset_gru": (ResetGru, (x, torch.randn(BATCH, 16))),
        "two_back": (TwoBack, (x,)),
        "tagger": (Tagger, (torch.randint(0, 20, (BATCH, STEPS)),)),
        "decoder": (GreedyDecoder, (torch.randn(BATCH, 16),)),
    }
    return {name: (build().eval(), inputs) for name, (build, inputs) in make.items()}
