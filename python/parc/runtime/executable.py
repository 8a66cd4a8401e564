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

from parc.errors import CallError, ParcError
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


class Executable:
    """A module in the LLVM dialect (`lower-to-llvm`), compiled for this machine.

    Calls are serialised: the arena belongs to one call at a time.
    """

    def __init__(self, module: ir.Module, team: Team) -> None:
        self._team = team
        attributes = module.operation.attributes
        self._messages = [ir.StringAttr(a).value for a in _array(attributes, "parc.assertions")]
        self._prepared_types = [
            (tuple(t.shape), _numpy_type(t.element_type))
            for t in (ir.RankedTensorType(ir.TypeAttr(a).value) for a in _array(attributes, "parc.prepared"))
        ]
        self._engine = ExecutionEngine(module, opt_level=OPT_LEVEL, shared_libs=[str(library_path())])
        self._main = _Entry(self._lookup("main"))
        self._prepare = _Entry(self._lookup("prepare")) if self._prepared_types else None
        self._arena_size = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p))(self._lookup("arena_size"))
        self._symbols: tuple[int, ...] | None = None
        self._arena = np.zeros(0, np.uint8)
        self._arena_start = 0
        self._lock = threading.Lock()

    def prepare(self, parameters: Sequence[Buffer], symbol_count: int) -> list[np.ndarray]:
        """Compute what depends on the parameters alone; give it to `run` until a parameter changes."""
        prepared = [_aligned_empty(shape, type_) for shape, type_ in self._prepared_types]
        if self._prepare is not None:
            with self._lock:
                self._reserve((0,) * symbol_count)
                self._call(self._prepare, (), [*parameters, *map(Buffer.of, prepared)])
        return prepared

    def run(self, symbols: Sequence[int], buffers: Sequence[Buffer]) -> None:
        """Run the program: `buffers` are the inputs, the parameters, what `prepare` gave, and the results.

        Raises `CallError` when a check that the model makes of its inputs fails.
        """
        with self._lock:
            symbols = tuple(symbols)
            if symbols != self._symbols:
                self._reserve(symbols)
            self._call(self._main, symbols, buffers)

    def _call(self, entry: "_Entry", symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        entry.bind(self._team.size, self._arena_start, self._arena.size, symbols, buffers)
        self._team.run(entry.address, entry.argv)
        status = self._status
        if status.value:
            message = self._messages[status.value - 1]
            status.value = 0
            raise CallError(message)

    def _reserve(self, symbols: tuple[int, ...]) -> None:
        """Make the arena large enough for a call with these symbols; it never shrinks."""
        if any(s < 0 for s in symbols):
            raise CallError(f"sizes cannot be negative: {symbols}")
        slots = (ctypes.c_int64 * (len(symbols) + 2))(self._team.size, *symbols, 0)
        self._arena_size(_pointers(slots))
        size = slots[len(symbols) + 1]
        if size > self._arena.size - ALIGNMENT:
            self._arena = np.empty(size + ALIGNMENT, np.uint8)
            self._arena_start = -(-self._arena.ctypes.data // ALIGNMENT) * ALIGNMENT
            self._status = ctypes.c_int64.from_address(self._arena_start)
            self._status.value = 0
        self._symbols = symbols

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
