"""Small models for the tests of `parc-opt`; run as a program, it saves one to each path that it is given."""

import sys

import onnx
import torch
from torch import Tensor, nn


def stack() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Three recurrent layers, and an example input."""
    return nn.RNN(4, 8, num_layers=3), (torch.randn(5, 2, 4),)


def branch() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model whose steps depend on its input's values."""
    return Branch(), (torch.randn(3),)


def broken() -> nn.Module:
    """Fails before there is a model."""
    raise ValueError("no such model")


class Branch(nn.Module):
    """Returns its input or the negative of it."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def _onnx_rnn() -> onnx.ModelProto:
    """One recurrent layer over a sequence of any length."""
    helper = onnx.helper
    weights = {"W": (1, 8, 4), "R": (1, 8, 8)}
    graph = helper.make_graph(
        [helper.make_node("RNN", ["X", *weights], ["Y"], hidden_size=8)],
        "rnn",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["T", 2, 4])],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["T", 1, 2, 8])],
        [onnx.numpy_helper.from_array(torch.randn(shape).numpy(), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


if __name__ == "__main__":
    for path in sys.argv[1:]:
        if path.endswith(".onnx"):
            onnx.save(_onnx_rnn(), path)
        else:
            torch.export.save(torch.export.export(*stack()), path)
