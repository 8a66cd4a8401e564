"""A compiled program in memory: its code, the arena, and the packed arguments of a call."""

import ctypes
import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from parc.errors import CallError
from parc.memory import Place
from parc.runtime.facts import Facts
from parc.runtime.header import LARGEST_HEADER
from parc.runtime.host import Host
from parc.runtime.image import DeviceImage, ProgramImage, Target
from parc.runtime.team import Team
from parc.signature import CPU, Signature

ALIGNMENT = 64


class Code(Protocol):
    """The machine code of a program's host functions, in memory."""

    @property
    def host(self) -> Host:
        """What it was compiled for."""
        ...

    def address(self, name: str) -> int:
        """Where the entry point with this name is, which takes packed arguments; ParcError when there is none."""
        ...

    def object_code(self) -> bytes:
        """The same code as a relocatable object file."""
        ...


class Buffer(NamedTuple):
    """A contiguous tensor in memory: its address and its extents."""

    pointer: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray | Tensor) -> "Buffer":
        """The buffer of a C-contiguous array, which must outlive it."""
        if isinstance(array, Tensor):
            if not array.is_contiguous():
                raise CallError("tensors must be contiguous")
            return cls(array.data_ptr(), tuple(array.shape))
        if not array.flags.c_contiguous:
            raise CallError("arrays must be C-contiguous")
        return cls(array.ctypes.data, array.shape)


class Arena:
    """Memory that programs work in, one call at a time; it never shrinks.

    A call leaves nothing behind in it, so that several programs can share one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.start = 0
        self.size = 0
        self._memory = np.zeros(0, np.uint8)

    def reserve(self, size: int) -> None:
        """Make it at least `size` bytes large."""
        if size > self.size - ALIGNMENT:
            self.size = size + ALIGNMENT
            self._memory = np.empty(self.size, np.uint8)
            self.start = -(-self._memory.ctypes.data // ALIGNMENT) * ALIGNMENT
            self.reset()

    def reset(self) -> None:
        """Forget what a program that did not come to its end left in the header."""
        ctypes.memset(self.start, 0, min(self.size - ALIGNMENT, LARGEST_HEADER))

    def take_status(self) -> int:
        """The number of the check that failed in the last call, 0 for none; and forget it."""
        word = ctypes.c_int64.from_address(self.start)
        status, word.value = word.value, 0
        return status


class Executable:
    """A compiled program: code, and what is known of it.  Subclasses run it on a team of some kind of members.

    Calls are serialised: the arena belongs to one call at a time.
    """

    target: ClassVar[Target]
    device_code: DeviceImage | None = None

    def __init__(self, code: Code, facts: Facts, members: int, device: torch.device) -> None:
        """`members` is the size of the team; tensors are on `device`."""
        self.facts = facts
        self.device = device
        self.code = code
        self.members = members
        self._main = Entry(code.address("main"))
        self._prepare = Entry(code.address("prepare")) if facts.prepared else None
        self._arena_size = Entry(code.address("arena_size"))
        self._known: tuple[tuple[int, ...] | None, int] = (None, 0)

    def prepare(self, parameters: Sequence[Buffer], symbol_count: int) -> list[Tensor]:
        """Compute what depends on the parameters alone; give it to `run` until a parameter changes."""
        prepared = [torch.empty(t.shape, dtype=t.dtype, device=self.device) for t in self.facts.prepared]
        if self._prepare is not None:
            size = self.arena_bytes((0,) * symbol_count)
            self._call(self._prepare, size, (), [*parameters, *map(Buffer.of, prepared)])
        return prepared

    def run(self, symbols: Sequence[int], buffers: Sequence[Buffer]) -> None:
        """Run the program: `buffers` are the inputs, the parameters, what `prepare` gave, and the results.

        Raises `CallError` when a check that the model makes of its inputs fails.
        """
        symbols = tuple(symbols)
        self._call(self._main, self.arena_bytes(symbols), symbols, buffers)

    def arena_bytes(self, symbols: tuple[int, ...]) -> int:
        """The size of the arena for a call with these symbols."""
        known, size = self._known
        if symbols == known:
            return size
        if any(s < 0 for s in symbols):
            raise CallError(f"sizes cannot be negative: {symbols}")
        slots = (ctypes.c_int64 * (len(symbols) + 2))(self.members, *symbols, 0)
        self._arena_size.call(_pointers(slots))
        size = slots[len(symbols) + 1]
        self._known = symbols, size
        return size

    @property
    def prepared_bytes(self) -> int:
        """The size of what `prepare` gives."""
        return self.facts.prepared_bytes

    def places(self, symbols: Sequence[int]) -> list[Place]:
        """What is in the arena in a call with these symbols, largest first."""
        return self.facts.arena.places(symbols, self.members)

    def image(self, signature: Signature) -> ProgramImage:
        """The program as data."""
        code = self.code.object_code()
        return ProgramImage(self.target, self.code.host, signature, self.facts, code, self.device_code)

    def _call(self, entry: "Entry", size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        """Call an entry point, in an arena of at least `size` bytes."""
        raise NotImplementedError

    def _check(self, status: int) -> None:
        """`CallError` where a call left the number of a check that failed."""
        if status:
            raise CallError(self.facts.assertions[status - 1])


class CpuExecutable(Executable):
    """A program whose host code is the whole program: the threads of a team run it."""

    target = "cpu"

    def __init__(self, code: Code, facts: Facts, team: Team, arena: Arena | None = None) -> None:
        super().__init__(code, facts, team.size, CPU)
        self._team = team
        self._arena = arena or Arena()

    def _call(self, entry: "Entry", size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        arena = self._arena
        with arena.lock:
            arena.reserve(size)
            entry.bind(self.members, arena.start, arena.size, symbols, buffers)
            self._team.run(entry.address, entry.argv)
            self._check(arena.take_status())


class Entry:
    """An entry function and its packed arguments: one pointer for each field of each argument."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.call = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p))(address)
        self.argv: ctypes.Array[ctypes.c_void_p] = (ctypes.c_void_p * 0)()
        self._slots: ctypes.Array[ctypes.c_int64] = (ctypes.c_int64 * 0)()

    def bind(
        self, members: int, arena: int, arena_size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]
    ) -> None:
        """Fill in the arguments: number in the team, team size, arena, symbols, buffers."""
        fields: list[ctypes.c_int64 | int] = [0, members, arena, arena, 0, arena_size, 1, *symbols]
        for pointer, sizes in buffers:
            fields += (pointer, pointer)
            fields += _layout(sizes)
        if len(fields) != len(self._slots):
            self._slots = (ctypes.c_int64 * len(fields))()
            self.argv = _pointers(self._slots)
        self._slots[:] = fields


@lru_cache(maxsize=1024)
def _layout(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Offset, sizes and strides of a contiguous tensor."""
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    return (0, *sizes, *strides)


def _pointers(slots: "ctypes.Array[ctypes.c_int64]") -> "ctypes.Array[ctypes.c_void_p]":
    """A pointer to each slot."""
    start, step = ctypes.addressof(slots), ctypes.sizeof(ctypes.c_int64)
    return (ctypes.c_void_p * len(slots))(*(start + step * i for i in range(len(slots))))
