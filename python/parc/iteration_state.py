"""What iterations hand on from call to call: what they ended with, and how they went."""

import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from parc.errors import CallError
from parc.iteration import Iterations
from parc.parameters import plain
from parc.signature import Iterated, Signature, TensorType, check_tensor

_Key = tuple[str, int]
"""The name of an array, and the stream that it was computed on."""


class IterationState:
    """What the next calls of some programs start from, and how the iterations of their last calls went.

    The programs of one module share it: iterations and arrays of one name in several of them are the same ones.
    """

    def __init__(self) -> None:
        self._guesses: dict[str, Tensor] = {}
        self._solutions: dict[_Key, Tensor] = {}
        self._last: dict[str, tuple[Iterated, Tensor, Tensor]] = {}
        self._known: dict[str, TensorType] = {}
        self._lock = threading.Lock()

    def add(self, signature: Signature) -> None:
        """Take a program as one of those that share this."""
        self._known.update((t.name, t) for t in signature.starts)

    def guess(self, guesses: Mapping[str, Tensor] | None) -> None:
        """Let the next call start from these arrays, by name; with None, from zeros, whatever earlier calls ended with.

        Whether they fit is found out by that call.
        """
        with self._lock:
            if guesses is None:
                self._guesses.clear()
                self._solutions.clear()
            else:
                self._guesses.update(guesses)

    @property
    def last(self) -> dict[str, Iterations]:
        """How each iteration went in the last call that ran it; waits for a GPU to finish that call."""
        with self._lock:
            last = dict(self._last)
        # Calls on other streams than the current one may not be done.
        for device in {sweeps.device for _, sweeps, _ in last.values() if sweeps.is_cuda}:
            torch.cuda.synchronize(device)
        return {
            name: Iterations(int(sweeps), float(change), about.solver, about.tolerance)
            for name, (about, sweeps, change) in last.items()
        }

    def starts(self, signature: Signature, symbols: tuple[int, ...], device: torch.device) -> list[Tensor]:
        """What a call of these sizes starts from: guesses, what an earlier one ended with where sizes agree, or zeros.

        CallError for a guess that does not fit, or that no program takes.
        """
        if not signature.starts and not self._guesses:
            return []
        with self._lock:
            for name in self._guesses.keys() - self._known.keys():
                raise CallError(f"no iteration starts from an array '{name}'; {self._names()}")
            stream = _stream(device)
            return [self._start(t, t.sizes(symbols), stream, device) for t in signature.starts]

    def keep(self, signature: Signature, solutions: Sequence[Tensor], statistics: Sequence[Tensor]) -> None:
        """Note what a call ended with, and how its iterations went: of each the sweeps and the last change."""
        found: dict[_Key, Tensor] = {}
        for type_, solution in zip(signature.solutions, solutions, strict=True):
            if (stream := _stream(solution.device)) is not None:
                # Newton's method would not come back from NaN or infinity.
                found[type_.name, stream] = solution.nan_to_num_(0.0, 0.0, 0.0)
        with self._lock:
            self._solutions.update(found)
            for about, sweeps, change in zip(signature.iterations, statistics[::2], statistics[1::2], strict=True):
                self._last[about.name] = about, sweeps, change

    def _start(self, type_: TensorType, sizes: tuple[int, ...], stream: int | None, device: torch.device) -> Tensor:
        guess = self._guesses.get(type_.name)
        if guess is not None:
            _check_guess(type_, guess, sizes, device)
            del self._guesses[type_.name]
            return plain(guess.detach())
        found = None if stream is None else self._solutions.get((type_.name, stream))
        if found is not None and found.shape == sizes and found.dtype is type_.dtype and found.device == device:
            return found
        return torch.zeros(sizes, dtype=type_.dtype, device=device)

    def _names(self) -> str:
        """What can be guessed, in words."""
        if self._known:
            return f"those that do are {', '.join(f'{name}: {t}' for name, t in self._known.items())}"
        return "programs take guesses where they are compiled with parc.Iteration(start='previous')"


def _check_guess(type_: TensorType, guess: object, sizes: tuple[int, ...], device: torch.device) -> None:
    if not isinstance(guess, Tensor):
        raise CallError(f"starting guess '{type_.name}' is {type(guess).__name__}; expected {type_}")
    check_tensor("starting guess", type_, guess, device)
    if tuple(guess.shape) != sizes:
        raise CallError(f"starting guess '{type_.name}' has shape {list(guess.shape)}; this call takes {list(sizes)}")


def _stream(device: torch.device) -> int | None:
    """The stream of a call on a device: others do not wait for what it computes. None while one is captured.

    A graph would go on reading what one call ended with when that is long gone.
    """
    if device.type != "cuda":
        return 0
    with torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():
            return None
        return int(torch.cuda.current_stream().cuda_stream)
