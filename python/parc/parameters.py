"""The live parameters of a compiled program: what they are now, and whether they changed since the last call."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from parc.errors import CallError
from parc.runtime.executable import Buffer
from parc.signature import TensorType, check_tensor


@dataclass(frozen=True)
class _Place:
    """Where a parameter is looked up at every call: a registry of its module, and its name there."""

    registry: MutableMapping[str, Tensor]
    key: str


class Parameters:
    """The tensors behind a program's parameters, in the order of its arguments.

    A tensor that belongs to `owner` is looked up there at every call, so that one assigned in its place is found.
    Writes are seen by the tensors' version counters; torch counts no writes through `.data` or numpy.
    """

    def __init__(self, types: Sequence[TensorType], tensors: Mapping[str, Tensor], owner: nn.Module | None) -> None:
        places = _places(owner)
        self._types = types
        self._places = [places.get(id(t), [_Place({name: t}, name)]) for name, t in tensors.items()]
        self._main = [(p[0].registry, p[0].key) for p in self._places]
        self._tied = any(len(p) > 1 for p in self._places)
        self._seen: list[tuple[Tensor | None, int, int]] = [(None, 0, 0)] * len(types)
        self._untracked = False
        self._contiguous: list[Tensor] = []
        self.buffers: list[Buffer] = []
        self.requires_grad = False

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors as of the last `refresh`."""
        return [t for t, _, _ in self._seen if t is not None]

    def refresh(self) -> bool:
        """Bring `buffers` up to date; whether anything changed. `CallError` when a tensor no longer fits."""
        changed = self._untracked
        requires_grad = False
        for (registry, key), (seen, version, pointer) in zip(self._main, self._seen, strict=True):
            tensor = registry.get(key)
            if tensor is not seen or tensor._version != version or tensor.data_ptr() != pointer:
                changed = True
                break
            requires_grad = requires_grad or tensor.requires_grad
        if changed or self._tied:
            changed = self._read() or changed
        else:
            self.requires_grad = requires_grad
        return changed

    def _read(self) -> bool:
        now: list[Tensor] = []
        for type_, places in zip(self._types, self._places, strict=True):
            tensors = [place.registry.get(place.key) for place in places]
            if any(t is not tensors[0] for t in tensors):
                raise CallError(f"parameter '{type_.name}' was shared when the program was compiled and is not any more")
            if not isinstance(tensors[0], Tensor):
                raise CallError(f"parameter '{type_.name}' is gone")
            check_tensor("parameter", type_, tensors[0])
            if tuple(tensors[0].shape) != type_.sizes(()):
                raise CallError(f"parameter '{type_.name}' has shape {list(tensors[0].shape)}; expected {type_}")
            now.append(tensors[0])
        self._untracked = any(t.is_inference() for t in now)
        seen = [(t, 0 if t.is_inference() else t._version, t.data_ptr()) for t in now]
        self.requires_grad = any(t.requires_grad for t in now)
        if all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(seen, self._seen, strict=True)):
            return False
        self._seen = list(seen)
        self._contiguous = [t.detach().contiguous() for t in now]
        self.buffers = [Buffer(t.data_ptr(), tuple(t.shape)) for t in self._contiguous]
        return True


def _places(owner: nn.Module | None) -> dict[int, list[_Place]]:
    """Where each tensor of a module is registered, by its id."""
    found: dict[int, list[_Place]] = {}
    for registry, key, tensor in _registered(owner):
        found.setdefault(id(tensor), []).append(_Place(registry, key))
    return found


def _registered(owner: nn.Module | None) -> Iterator[tuple[MutableMapping[str, Tensor], str, Tensor]]:
    for module in owner.modules() if owner is not None else ():
        for registry in (module._parameters, module._buffers, vars(module)):
            for key, value in registry.items():
                if isinstance(value, Tensor):
                    yield registry, key, value
