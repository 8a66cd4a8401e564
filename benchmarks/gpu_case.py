"""What the GPU's benchmark computes: a stack, its input, the precision of its products, and the results to expect."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from cells import Shape
from common import Program, ResultsDiffer
from torch import Tensor, nn

Call = Callable[[], Sequence[Tensor]]
"""A whole call: of inference it gives the output; of training the gradients of the input and of all weights."""


@dataclass(frozen=True)
class Precision:
    """How exact products are; parc's tensors are float32 in all.

    matmul: what `torch.set_float32_matmul_precision` takes; dtype: of the peers' tensors.
    tolerance: the largest error that is rounding, of the largest value; gradients may have five times as much.
    """

    matmul: str
    dtype: torch.dtype
    tolerance: float


PRECISIONS = {
    "f32": Precision("highest", torch.float32, 1e-4),
    "tf32": Precision("high", torch.float32, 1e-2),
    "bf16": Precision("medium", torch.bfloat16, 5e-2),
}


@contextmanager
def precision(name: str) -> Iterator[None]:
    """In the block, products of float32 on a GPU are as exact as this says, those of cuDNN too."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(PRECISIONS[name].matmul)
    torch.backends.cudnn.allow_tf32 = name != "f32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@dataclass(frozen=True)
class Case:
    """A stack and a batch for it, `[T, B, H]` float32 on the device; the cotangent is the output's, for training."""

    shape: Shape
    name: str
    model: nn.Module
    x: Tensor
    cotangent: Tensor
    precision: str
    training: bool

    def __str__(self) -> str:
        return f"{self.name} at {self.shape} in {self.precision}, {self.what}"

    @property
    def what(self) -> str:
        """Inference or training."""
        return "training" if self.training else "inference"

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.x.device

    def peer_model(self) -> nn.Module:
        """The stack with weights of the type that peers compute in."""
        dtype = PRECISIONS[self.precision].dtype
        return self.model if dtype is torch.float32 else copy.deepcopy(self.model).to(dtype)

    def call(self, program: Program, model: nn.Module | None = None) -> Call:
        """A call of a program that computes with this model's weights, and in their type; `self.model` for None."""
        parameters = list((model or self.model).parameters())
        dtype = parameters[0].dtype
        if not self.training:
            x = self.x.to(dtype)
            return lambda: (_first(program(x)),)
        x = self.x.detach().to(dtype).requires_grad_()
        cotangent = self.cotangent.to(dtype)
        return lambda: torch.autograd.grad(_first(program(x)), [x, *parameters], cotangent)

    def expected(self) -> Sequence[Tensor]:
        """The results of eager PyTorch in float64."""
        model = copy.deepcopy(self.model).double()
        with torch.set_grad_enabled(self.training):
            return self.call(model, model)()

    def check(self, what: str, actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
        """The largest error of a result, relative to its largest value; `ResultsDiffer` when it is not rounding."""
        worst = 0.0
        for i, (result, reference) in enumerate(zip(actual, expected, strict=True)):
            if result.shape != reference.shape:
                raise ResultsDiffer(f"{what}: result {i} has shape {list(result.shape)}, not {list(reference.shape)}")
            difference = (result.double() - reference).abs().nan_to_num(torch.inf).max()
            worst = max(worst, float(difference / reference.abs().max().clamp_min(1e-30)))
        limit = PRECISIONS[self.precision].tolerance * (5 if self.training else 1)
        if worst > limit:
            raise ResultsDiffer(f"{what}: a result is off by {worst:.2g} of its largest value; {limit:g} is rounding")
        return worst


def _first(result: object) -> Tensor:
    """The output: nn.LSTM and nn.GRU give their last states as well."""
    output = result[0] if isinstance(result, tuple) else result
    assert isinstance(output, Tensor)
    return output
