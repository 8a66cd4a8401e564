"""A compiled program: an executable, and what it takes and gives."""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from parc.errors import CallError
from parc.iteration_state import IterationState
from parc.memory import Memory
from parc.parameters import Snapshot, plain
from parc.runtime.executable import Buffer, Executable
from parc.runtime.image import ProgramImage
from parc.signature import Signature


class Compiled:
    """A program that takes and gives flat lists of tensors."""

    def __init__(self, executable: Executable, signature: Signature) -> None:
        self.signature = signature
        self._state = IterationState()
        self._iterates = bool(signature.starts or signature.solutions or signature.iterations)
        self._executable = executable
        self._dtypes = [t.dtype for t in signature.inputs]
        self._known: tuple[tuple[torch.Size, ...] | None, tuple[int, ...]] = (None, ())
        self._prepared_from: Snapshot | None = None
        self._prepared: list[Tensor] = []
        self._prepared_buffers: list[Buffer] = []
        self._sized_for: tuple[int, ...] | None = None
        self._output_sizes: list[tuple[torch.dtype, tuple[int, ...]]] = []
        self._lock = threading.Lock()

    def share(self, state: IterationState) -> None:
        """Hand on and note here what iterations start from and how they go, as other programs do."""
        state.add(self.signature)
        self._state = state

    @property
    def device(self) -> torch.device:
        """Where inputs, parameters and results are."""
        return self._executable.device

    def sizes(self, inputs: Sequence[Tensor]) -> tuple[int, ...]:
        """The values of the symbols for these inputs; `CallError` says which of them does not fit."""
        shapes = tuple([t.shape for t in inputs])
        known, symbols = self._known
        device = self.device
        fits = shapes == known and all(
            t.dtype is dtype and t.device == device and t.layout is torch.strided
            for t, dtype in zip(inputs, self._dtypes, strict=True)
        )
        if not fits:
            symbols = self.signature.solve(inputs, device)
            self._known = shapes, symbols
        return symbols

    def arena_bytes(self, symbols: tuple[int, ...]) -> int:
        """The working memory of a call at these sizes."""
        return self._executable.arena_bytes(symbols)

    def memory(self, symbols: tuple[int, ...]) -> Memory:
        """The memory of a call at these sizes."""
        inputs, results, parameters = self.signature.bytes(symbols)
        places = self._executable.places(symbols)
        arena, prepared = self.arena_bytes(symbols), self._executable.prepared_bytes
        block = self._executable.facts.block
        return Memory(inputs, results, parameters, prepared, arena, places, block=block)

    def image(self) -> ProgramImage:
        """The program as data, to be kept in a file."""
        return self._executable.image(self.signature)

    def __call__(self, symbols: tuple[int, ...], inputs: Sequence[Tensor], parameters: Snapshot) -> list[Tensor]:
        """Run on inputs of these sizes. The results are new tensors, which carry no gradient."""
        with self._lock:
            if symbols != self._sized_for:
                self._output_sizes = self.signature.outputs(symbols)
                self._sized_for = symbols
            if parameters is not self._prepared_from:
                self._prepared = self._executable.prepare(parameters.buffers, len(symbols))
                self._prepared_buffers = [Buffer.of(a) for a in self._prepared]
                self._prepared_from = parameters
            device = self.device
            held = [plain(t) for t in inputs]
            held += self._state.starts(self.signature, symbols, device)
            outputs = [torch.empty(sizes, dtype=dtype, device=device) for dtype, sizes in self._output_sizes]
            self._executable.run(
                symbols,
                [
                    *[Buffer(t.data_ptr(), t.shape) for t in held],
                    *parameters.buffers,
                    *self._prepared_buffers,
                    *[Buffer(t.data_ptr(), t.shape) for t in outputs],
                ],
            )
            return self._results_of(outputs) if self._iterates else outputs

    def _results_of(self, outputs: list[Tensor]) -> list[Tensor]:
        """The results among what a call gives; the rest is kept."""
        results, solutions = len(self.signature.results), len(self.signature.solutions)
        rest = outputs[results:]
        self._state.keep(self.signature, rest[:solutions], rest[solutions:])
        return outputs[:results]


def refuse_transforms(inputs: Sequence[Tensor]) -> None:
    """`CallError` for a call under a transform that compiled programs know nothing of."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise CallError("transforms of torch.func (vmap, grad, ...) of a compiled module are not supported")
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in inputs):
        raise CallError("forward-mode differentiation through a compiled module is not supported")
