"""A recurrent cell of one's own, in plain Python loops, compiled by parc.

    python examples/custom_cell.py

The cell is an LSTM with peepholes (Gers and Schmidhuber 2000): its gates also see the cell state.
`torch.nn.LSTM` has no such cell, so that eager PyTorch runs the loops below one small operator at a time.
"""

import torch
from torch import Tensor, nn

import parc


class PeepholeStack(nn.Module):
    """Layers of LSTM cells with peepholes: `[steps, batch, features]` to `[steps, batch, hidden]`."""

    def __init__(self, layers: int = 4, features: int = 64, hidden: int = 256) -> None:
        super().__init__()
        widths = [features] + [hidden] * (layers - 1)
        self.inputs = nn.ModuleList([nn.Linear(width, 4 * hidden) for width in widths])
        self.states = nn.ModuleList([nn.Linear(hidden, 4 * hidden, bias=False) for _ in widths])
        self.peepholes = nn.ParameterList([nn.Parameter(torch.randn(3, hidden) / 4) for _ in widths])
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        steps, batch, _ = x.shape
        h = [x.new_zeros(batch, self.hidden) for _ in self.inputs]
        c = [x.new_zeros(batch, self.hidden) for _ in self.inputs]
        ys = []
        for t in range(steps):
            y = x[t]
            for k, (w, u, p) in enumerate(zip(self.inputs, self.states, self.peepholes, strict=True)):
                i, f, g, o = (w(y) + u(h[k])).chunk(4, 1)
                i, f = torch.sigmoid(i + p[0] * c[k]), torch.sigmoid(f + p[1] * c[k])
                c[k] = f * c[k] + i * torch.tanh(g)
                h[k] = y = torch.sigmoid(o + p[2] * c[k]) * torch.tanh(c[k])
            ys.append(y)
        return torch.stack(ys)


def main() -> None:
    model = PeepholeStack().eval().requires_grad_(False)
    fast = parc.compile(model, (torch.randn(8, 2, 64),))
    for steps, batch in ((16, 1), (100, 4), (1000, 1)):
        x = torch.randn(steps, batch, 64)
        print(f"{steps} steps, batch {batch}: largest error {(fast(x) - model(x)).abs().max():.1e}")
    print()
    print(parc.explain(model, (torch.randn(8, 2, 64),), strategy="wavefront", sizes={"T": 100, "B": 1}))


if __name__ == "__main__":
    main()
