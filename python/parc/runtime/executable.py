"""A compiled program in memory: the JIT's code, the arena, and the packed arguments of a call."""

import ctypes
import math
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine

from parc.arena_plan import ArenaPlan
from parc.errors import CallError, ParcError
from parc.memory import Place
from parc.runtime.team import Team, library_path

ALIGNMENT = 64
# -O3 takes longer than -O2 and changes nothing that matters: the kernels are vectorised when LLVM gets them.
OPT_LEVEL = 2


class Buffer(NamedTuple):
    """A contiguous tensor in memory: its address and its extents."""

    pointer: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> "Buffer":
        """The buffer of a C-contiguous array, which must outlive it."""
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
            self.take_status()

    def take_status(self) -> int:
        """The number of the check that failed in the last call, 0 for none; and forget it."""
        word = ctypes.c_int64.from_address(self.start)
        status, word.value = word.value, 0
        return status


class Executable:
    """A module in the LLVM dialect (`lower-to-llvm`), compiled for this machine.

    Calls are serialised: the arena belongs to one call at a time.
    """

    def __init__(self, module: ir.Module, team: Team, arena: Arena | None = None) -> None:
        self._team = team
        self._arena = arena or Arena()
        attributes = module.operation.attributes
        self._messages = [ir.StringAttr(a).value for a in _array(attributes, "parc.assertions")]
        self._prepared_types = [
            (tuple(t.shape), _numpy_type(t.element_type))
            for t in (ir.RankedTensorType(ir.TypeAttr(a).value) for a in _array(attributes, "parc.prepared"))
        ]
        self._plan = ArenaPlan(module, team.size)
        self._engine = ExecutionEngine(module, opt_level=OPT_LEVEL, shared_libs=[str(library_path())])
        self._main = _Entry(self._lookup("main"))
        self._prepare = _Entry(self._lookup("prepare")) if self._prepared_types else None
        self._arena_size = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p))(self._lookup("arena_size"))
        self._known: tuple[tuple[int, ...] | None, int] = (None, 0)

    def prepare(self, parameters: Sequence[Buffer], symbol_count: int) -> list[np.ndarray]:
        """Compute what depends on the parameters alone; give it to `run` until a parameter changes."""
        prepared = [_aligned_empty(shape, type_) for shape, type_ in self._prepared_types]
        if self._prepare is not None:
            with self._arena.lock:
                self._arena.reserve(self.arena_bytes((0,) * symbol_count))
                self._call(self._prepare, (), [*parameters, *map(Buffer.of, prepared)])
        return prepared

    def run(self, symbols: Sequence[int], buffers: Sequence[Buffer]) -> None:
        """Run the program: `buffers` are the inputs, the parameters, what `prepare` gave, and the results.

        Raises `CallError` when a check that the model makes of its inputs fails.
        """
        symbols = tuple(symbols)
        with self._arena.lock:
            self._arena.reserve(self.arena_bytes(symbols))
            self._call(self._main, symbols, buffers)

    def arena_bytes(self, symbols: tuple[int, ...]) -> int:
        """The size of the arena for a call with these symbols."""
        known, size = self._known
        if symbols == known:
            return size
        if any(s < 0 for s in symbols):
            raise CallError(f"sizes cannot be negative: {symbols}")
        slots = (ctypes.c_int64 * (len(symbols) + 2))(self._team.size, *symbols, 0)
        self._arena_size(_pointers(slots))
        size = slots[len(symbols) + 1]
        self._known = symbols, size
        return size

    @property
    def prepared_bytes(self) -> int:
        """The size of what `prepare` gives."""
        return sum(math.prod(shape) * type_.itemsize for shape, type_ in self._prepared_types)

    def places(self, symbols: Sequence[int], names: Sequence[str]) -> list[Place]:
        """What is in the arena in a call with these symbols, largest first; `names` are those of the symbols."""
        return self._plan.places(symbols, names)

    def _call(self, entry: "_Entry", symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        entry.bind(self._team.size, self._arena.start, self._arena.size, symbols, buffers)
        self._team.run(entry.address, entry.argv)
        if status := self._arena.take_status():
            raise CallError(self._messages[status - 1])

    def _lookup(self, name: str) -> int:
        address = self._engine.raw_lookup(name)
        if not address:
            raise ParcError(f"the compiled module has no function @{name}")
        return int(address)


class _Entry:
    """An entry function and its packed arguments: one pointer for each field of each argument."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.argv: ctypes.Array[ctypes.c_void_p] = (ctypes.c_void_p * 0)()
        self._slots: ctypes.Array[ctypes.c_int64] = (ctypes.c_int64 * 0)()

    def bind(
        self, nthreads: int, arena: int, arena_size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]
    ) -> None:
        """Fill in the arguments: thread number, team size, arena, symbols, buffers."""
        fields: list[ctypes.c_int64 | int] = [0, nthreads, arena, arena, 0, arena_size, 1, *symbols]
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


def _array(attributes: ir.OpAttributeMap, name: str) -> list[ir.Attribute]:
    return list(ir.ArrayAttr(attributes[name])) if name in attributes else []


def _aligned_empty(shape: tuple[int, ...], type_: np.dtype) -> np.ndarray:
    """An uninitialised array that starts on a cache line."""
    size = int(np.prod(shape)) * type_.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(type_).reshape(shape)


def _numpy_type(type_: ir.Type) -> np.dtype:
    """The numpy type of a tensor's elements."""
    if isinstance(type_, ir.FloatType):
        # numpy has no bfloat16: keep its bits.
        return np.dtype("uint16") if isinstance(type_, ir.BF16Type) else np.dtype(f"float{type_.width}")
    if isinstance(type_, ir.IndexType):
        return np.dtype("int64")
    if isinstance(type_, ir.ComplexType):
        return np.dtype(f"complex{2 * type_.element_type.width}")
    return np.dtype("bool") if type_.width == 1 else np.dtype(f"int{type_.width}")
