"""The live parameters of a compiled program: what they are now, and whether they changed since the last call."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from parc.errors import CallError
from parc.runtime.executable import Buffer
from parc.signature import CPU, TensorType, check_tensor

_Place = tuple[dict[str, Any], str]
"""Where a parameter is looked up at every call: a registry of its module, and its name there."""


class Snapshot:
    """Tensors as they are at one moment, which programs read; while nothing changes, the same object is given again."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)
        # Tensors made in inference mode count no versions: they are taken as changed.
        self._lasting = not any(t.is_inference() for t in tensors)
        self._seen = [(t, 0 if t.is_inference() else t._version, t.data_ptr()) for t in tensors]
        self._held = [plain(t.detach()) for t in tensors]
        self.buffers = [Buffer(t.data_ptr(), tuple(t.shape)) for t in self._held]

    def shows(self, tensors: Sequence[Tensor | None]) -> bool:
        """Whether `tensors`, as many as these, are the same and unchanged."""
        if not self._lasting:
            return False
        for tensor, (seen, version, pointer) in zip(tensors, self._seen, strict=True):
            if tensor is None or tensor is not seen or tensor._version != version or tensor.data_ptr() != pointer:
                return False
        return True


class Parameters:
    """The tensors behind a program's parameters, in the order of its arguments.

    A tensor that belongs to `owner` is looked up there at every call, so that one assigned in its place is found.
    Writes are seen by the tensors' version counters; torch counts no writes through `.data` or numpy.
    """

    def __init__(
        self,
        types: Sequence[TensorType],
        tensors: Mapping[str, Tensor],
        owner: nn.Module | None,
        device: torch.device = CPU,
    ) -> None:
        """`tensors` are the parameters by name, in order; programs run on `device`."""
        places = _places(owner)
        self._types = types
        self._device = device
        # A tensor that is shared has several places, one that belongs to no module its own.
        self._places = [places.get(id(t), [({name: t}, name)]) for name, t in tensors.items()]
        self._first = [p[0] for p in self._places]
        self._shared = any(len(p) > 1 for p in self._places)
        self._last: Snapshot | None = None
        self._lock = threading.Lock()

    def current(self, *, anew: bool = False) -> Snapshot:
        """The tensors as they are now; `CallError` when one no longer fits.

        `anew` takes them as changed: optimizers may write through `.data`.
        """
        with self._lock:
            if anew:
                self._last = None
            if self._last is not None and not self._shared:
                if self._last.shows([registry.get(key) for registry, key in self._first]):
                    return self._last
            tensors = [self._find(type_, places) for type_, places in zip(self._types, self._places, strict=True)]
            if self._last is None or not self._last.shows(tensors):
                self._last = Snapshot(tensors)
            return self._last

    def _find(self, type_: TensorType, places: list[_Place]) -> Tensor:
        tensors = [registry.get(key) for registry, key in places]
        tensor = tensors[0]
        if not isinstance(tensor, Tensor):
            raise CallError(f"parameter '{type_.name}' is {type(tensor).__name__}; expected {type_}")
        if any(t is not tensor for t in tensors):
            raise CallError(f"parameter '{type_.name}' was shared by modules when compiled and is not any more")
        check_tensor("parameter", type_, tensor, self._device)
        if tuple(tensor.shape) != type_.sizes(()):
            raise CallError(f"parameter '{type_.name}' has shape {list(tensor.shape)}; expected {type_}")
        return tensor


def plain(tensor: Tensor) -> Tensor:
    """The tensor's elements in order in memory."""
    return tensor.resolve_conj().resolve_neg().contiguous()


def container(tensors: Iterable[tuple[str, Tensor, bool]]) -> nn.Module:
    """A module that holds tensors under their dotted names; a name that is taken gets a `_` behind it.

    What is no `nn.Parameter` becomes a buffer; the last of each three says whether it belongs to the `state_dict`.
    """
    root = nn.Module()
    for name, tensor, lasting in tensors:
        *path, last = name.split(".")
        place = root
        for part in path:
            while part not in place._modules and (not part or hasattr(place, part)):
                part += "_"
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        while not last or hasattr(place, last):
            last += "_"
        if isinstance(tensor, nn.Parameter):
            place.register_parameter(last, tensor)
        else:
            place.register_buffer(last, tensor, persistent=lasting)
    return root


def _places(owner: nn.Module | None) -> dict[int, list[_Place]]:
    """Where each tensor of a module is registered, by its id."""
    found: dict[int, list[_Place]] = {}
    for registry, key, tensor in _registered(owner):
        found.setdefault(id(tensor), []).append((registry, key))
    return found


def _registered(owner: nn.Module | None) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    for module in owner.modules() if owner is not None else ():
        for registry in (module._parameters, module._buffers, vars(module)):
            for key, value in registry.items():
                if isinstance(value, Tensor):
                    yield registry, key, value
