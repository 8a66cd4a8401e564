"""A stacked LSTM, for `parc-opt lstm.py:stacked`."""

import torch
from torch import Tensor, nn


def stacked() -> tuple[nn.Module, tuple[Tensor]]:
    """Two layers, and inputs of 16 steps of a batch of 4."""
    torch.manual_seed(0)
    return nn.LSTM(32, 64, 2), (torch.randn(16, 4, 32),)
