"""The live parameters of a compiled program: what they are now, and whether they changed since the last call."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from parc.errors import CallError
from parc.runtime.executable import Buffer
from parc.signature import TensorType, check_tensor

_Place = tuple[dict[str, Any], str]
"""Where a parameter is looked up at every call: a registry of its module, and its name there."""


class Parameters:
    """The tensors behind a program's parameters, in the order of its arguments.

    A tensor that belongs to `owner` is looked up there at every call, so that one assigned in its place is found.
    Writes are seen by the tensors' version counters; torch counts no writes through `.data` or numpy.
    """

    def __init__(self, types: Sequence[TensorType], tensors: Mapping[str, Tensor], owner: nn.Module | None) -> None:
        places = _places(owner)
        self._types = types
        # A tensor that is shared has several places, one that belongs to no module its own.
        self._places = [places.get(id(t), [({name: t}, name)]) for name, t in tensors.items()]
        self._first = [p[0] for p in self._places]
        self._shared = any(len(p) > 1 for p in self._places)
        self._seen: list[tuple[Any, int, int]] = [(None, 0, 0)] * len(types)
        self._untracked = False
        self._held: list[Tensor] = []
        self.buffers: list[Buffer] = []
        self.requires_grad = False

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors as of the last `refresh`."""
        return [t for t, _, _ in self._seen if t is not None]

    def refresh(self) -> bool:
        """Bring `buffers` up to date; whether any changed. `CallError` when a tensor no longer fits."""
        if self._shared or self._untracked:
            return self._read()
        requires_grad = False
        for (registry, key), (seen, version, pointer) in zip(self._first, self._seen, strict=True):
            tensor = registry.get(key)
            if tensor is None or tensor is not seen or tensor._version != version or tensor.data_ptr() != pointer:
                return self._read()
            requires_grad = requires_grad or tensor.requires_grad
        self.requires_grad = requires_grad
        return False

    def _read(self) -> bool:
        now = [self._find(type_, places) for type_, places in zip(self._types, self._places, strict=True)]
        # Tensors made in inference mode count no versions: they are taken as changed.
        self._untracked = any(t.is_inference() for t in now)
        self.requires_grad = any(t.requires_grad for t in now)
        seen = [(t, 0 if t.is_inference() else t._version, t.data_ptr()) for t in now]
        same = all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(seen, self._seen, strict=True))
        if same and not self._untracked:
            return False
        self._seen = seen
        self._held = [t.detach().contiguous() for t in now]
        self.buffers = [Buffer(t.data_ptr(), tuple(t.shape)) for t in self._held]
        return True

    def _find(self, type_: TensorType, places: list[_Place]) -> Tensor:
        tensors = [registry.get(key) for registry, key in places]
        tensor = tensors[0]
        if not isinstance(tensor, Tensor):
            raise CallError(f"parameter '{type_.name}' is {type(tensor).__name__}; expected {type_}")
        if any(t is not tensor for t in tensors):
            raise CallError(f"parameter '{type_.name}' was shared by modules when compiled and is not any more")
        check_tensor("parameter", type_, tensor)
        if tuple(tensor.shape) != type_.sizes(()):
            raise CallError(f"parameter '{type_.name}' has shape {list(tensor.shape)}; expected {type_}")
        return tensor


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
