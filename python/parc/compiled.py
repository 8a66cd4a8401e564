"""A compiled program: an executable, what it takes and gives, and its live parameters."""

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parc.parameters import Parameters
from parc.runtime.executable import Buffer, Executable
from parc.signature import Signature


class Compiled:
    """A program that takes and gives flat lists of tensors."""

    def __init__(self, executable: Executable, signature: Signature, parameters: Parameters) -> None:
        self.signature = signature
        self.parameters = parameters
        self._executable = executable
        self._dtypes = [t.dtype for t in signature.inputs]
        self._prepared: list[np.ndarray] = []
        self._prepared_buffers: list[Buffer] = []
        self._shapes: tuple[torch.Size, ...] | None = None
        self._symbols: tuple[int, ...] = ()
        self._result_sizes: list[tuple[torch.dtype, tuple[int, ...]]] = []
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run on these inputs; `CallError` says which of them does not fit. The results carry no gradient."""
        with self._lock:
            self._check(inputs)
            if self.parameters.refresh():
                self._prepare()
            held = [_plain(t) for t in inputs]
            results = [torch.empty(sizes, dtype=dtype) for dtype, sizes in self._result_sizes]
            self._executable.run(
                self._symbols,
                [
                    *[Buffer(t.data_ptr(), t.shape) for t in held],
                    *self.parameters.buffers,
                    *self._prepared_buffers,
                    *[Buffer(t.data_ptr(), t.shape) for t in results],
                ],
            )
        return results

    def _check(self, inputs: Sequence[Tensor]) -> None:
        shapes = tuple([t.shape for t in inputs])
        fits = shapes == self._shapes and all(
            t.dtype is dtype and t.device.type == "cpu" and t.layout is torch.strided
            for t, dtype in zip(inputs, self._dtypes, strict=True)
        )
        if not fits:
            self._symbols = self.signature.solve(inputs)
            self._shapes = shapes
            self._result_sizes = [(t.dtype, t.sizes(self._symbols)) for t in self.signature.results]

    def _prepare(self) -> None:
        self._prepared = self._executable.prepare(self.parameters.buffers, len(self.signature.symbols))
        self._prepared_buffers = [Buffer.of(a) for a in self._prepared]


def _plain(tensor: Tensor) -> Tensor:
    """The tensor's elements in order in memory."""
    return tensor.resolve_conj().resolve_neg().contiguous()
