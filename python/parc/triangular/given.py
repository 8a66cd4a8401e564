"""What a proof may take from the tensors behind a program's parameters, and whether it still holds for others.

A mask, and any other buffer or integer tensor, is known element by element.  Of a floating-point `nn.Parameter`, which
training changes, only its zeros are: those of a mask that was multiplied into it, or of pruning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parc.triangular.elements import Elements


@dataclass(frozen=True, eq=False)
class Given:
    """What is taken from one parameter."""

    elements: Elements
    zeros: NDArray[np.bool_] | None
    """Where it is zero, if that is all that is taken; None where all elements are known."""

    @staticmethod
    def of(tensor: Tensor) -> "Given":
        values = _numpy(tensor)
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            zeros = values == 0
            return Given(Elements(np.zeros_like(values), zeros), zeros)
        return Given(Elements.of(values.copy()), None)

    def holds_for(self, tensor: Tensor) -> bool:
        """Whether what was taken is true of another tensor, or of this one after it has changed."""
        if self.zeros is None:
            return np.array_equal(self.elements.values, _numpy(tensor), equal_nan=tensor.is_floating_point())
        return not self.zeros.any() or not _numpy(tensor)[self.zeros].any()


def taken_from(tensors: Sequence[Tensor]) -> list[Given]:
    """What is taken from a program's parameters, in their order."""
    return [Given.of(t) for t in tensors]


def _numpy(tensor: Tensor) -> NDArray[np.generic]:
    """The elements, in the type that `scalars.numpy_type` has for them."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    values = tensor.numpy()
    return values.view(np.int8) if values.dtype == np.uint8 else values
