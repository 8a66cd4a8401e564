"""The emulated GPU: launches of a program's kernels on the calling thread, and what is wrong with them in words."""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING

from parc.errors import EmulationError, ParcError
from parc.runtime.team import library_path

if TYPE_CHECKING:  # saved programs run without MLIR
    from torch_mlir import ir


class _Kind(IntEnum):
    """As in native/emulator.h."""

    OK = 0
    RACE = 1
    DIVERGENCE = 2
    DEADLOCK = 3
    INDEX = 4
    ADDRESS = 5
    MISALIGNED = 6
    UNSET = 7
    PARTIAL_WARP = 8
    LAUNCH = 9
    MEMORY = 10


_SHARED, _UNKNOWN, _CONSTANT = -1, -2, -3


class _Error(ctypes.Structure):
    """`parc_emulation_error` of native/emulator.h."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            *("kind", "kernel", "site", "block", "thread", "other_site", "other_block", "other_thread"),
            *("place", "offset", "bytes", "extent", "dimension", "index", "lanes"),
        )
    )
    kind: int
    kernel: int
    site: int
    block: int
    thread: int
    other_site: int
    other_block: int
    other_thread: int
    place: int
    offset: int
    bytes: int
    extent: int
    dimension: int
    index: int
    lanes: int


class _Settings(ctypes.Structure):
    _fields_ = (("seed", ctypes.c_int64), ("check_races", ctypes.c_int64))


class Emulator:
    """Launches the kernels of one emulated program (`emulate-gpu`) and checks every step of theirs.

    `launcher` and `context` are what `parc_set_launcher` takes: the launches of the calling thread then come here.
    After one has failed `check` says why; the next ones are as good as any. One thread at a time may use an emulator.
    """

    def __init__(
        self,
        kernels: Sequence[tuple[str, int]],
        sites: Sequence[str],
        *,
        seed: int = 0,
        check_races: bool = True,
    ) -> None:
        """`kernels` are names and addresses of packed functions, by number, and `sites` is `parc.sites`.

        With a `seed` other than 0 the threads take turns in another order, at other places. Without `check_races`,
        which makes it several times faster, data races and reads of unset shared memory are not looked for.
        """
        self._names = [name for name, _ in kernels]
        self._sites = list(sites)
        self._library = _library()
        addresses = (ctypes.c_void_p * len(kernels))(*(address for _, address in kernels))
        self.context: int = self._library.parc_emulator_create(addresses, len(kernels)) or 0
        if not self.context:
            raise MemoryError("no memory for an emulator")
        weakref.finalize(self, self._library.parc_emulator_destroy, ctypes.c_void_p(self.context))
        settings = _Settings(seed, int(check_races))
        self._library.parc_emulator_configure(self.context, ctypes.byref(settings))

    @classmethod
    def of(
        cls, module: "ir.Module", lookup: Callable[[str], int], *, seed: int = 0, check_races: bool = True
    ) -> "Emulator":
        """The emulator of a module with `parc.kernels` and `parc.sites`; `lookup` finds a packed function by name."""
        kernels, sites = (
            [a.value for a in module.operation.attributes[name]] for name in ("parc.kernels", "parc.sites")
        )
        return cls([(name, lookup(name)) for name in kernels], sites, seed=seed, check_races=check_races)

    @property
    def launcher(self) -> int:
        """The address of the native `parc_launcher`."""
        return ctypes.cast(self._library.parc_emulate, ctypes.c_void_p).value or 0

    def launch(
        self,
        kernel: int,
        grid: int,
        block: int,
        argv: "ctypes.Array[ctypes.c_void_p]",
        *,
        shared_bytes: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Run one kernel; `argv` points to the fields of its arguments. EmulationError when it does something wrong."""
        self._library.parc_emulate(self.context, kernel, grid, block, shared_bytes, int(cooperative), argv, len(argv))
        self.check()

    def check(self) -> None:
        """Raise `EmulationError` if a launch failed since the last call."""
        error = self._library.parc_emulator_take_error(self.context)
        if error.kind:
            raise EmulationError(self._message(error))

    def _message(self, error: _Error) -> str:
        kernel = self._names[error.kernel] if 0 <= error.kernel < len(self._names) else f"kernel {error.kernel}"
        me = self._who(error.site, error.block, error.thread)
        other = self._who(error.other_site, error.other_block, error.other_thread)
        match _Kind(error.kind):
            case _Kind.RACE:
                same_block = error.block == error.other_block
                hint = "a gpu.barrier" if same_block else "a release and an acquire, or a launch of its own,"
                return (
                    f"data race in {kernel}: {other} and {me} are not ordered: {hint} between them is missing "
                    f"({_bytes(error)})"
                )
            case _Kind.DIVERGENCE:
                return f"divergence in {kernel}: {me} waits, and {self._elsewhere(error)}"
            case _Kind.DEADLOCK:
                also = f", and {other} waits" if error.other_block >= 0 else ""
                return f"deadlock in {kernel}: {me} waits for what no thread does{also}"
            case _Kind.INDEX:
                last = error.index + error.lanes - 1
                indices = f"index {error.index}" if error.lanes == 1 else f"indices {error.index} to {last}"
                return (
                    f"out of bounds in {kernel}: {me}: {indices} in dimension {error.dimension}, "
                    f"whose extent is {error.extent}"
                )
            case _Kind.ADDRESS:
                if error.place == _UNKNOWN:
                    return f"out of bounds in {kernel}: {me}: {error.bytes} bytes that are in no buffer"
                return f"out of bounds in {kernel}: {me}: {_bytes(error)}, which has {error.extent}"
            case _Kind.MISALIGNED:
                return f"misaligned access in {kernel}: {me}: {_bytes(error)}, not on a multiple of {error.extent}"
            case _Kind.UNSET:
                return f"read of unset memory in {kernel}: {me}: {_bytes(error)}, which no thread has written"
            case _Kind.PARTIAL_WARP:
                return f"incomplete warp in {kernel}: {me} takes all 32 threads of a warp"
            case _Kind.LAUNCH:
                return (
                    f"{kernel} cannot be launched: it takes 1 to 1024 threads a block, at most 4194304 blocks "
                    "and at most 48 KiB of static shared memory"
                )
            case _:
                return f"no memory to emulate {kernel}"

    def _who(self, site: int, block: int, thread: int) -> str:
        what = self._sites[site] if 0 <= site < len(self._sites) else "code"
        return f"{what} by thread {thread} of block {block}"

    def _elsewhere(self, error: _Error) -> str:
        thread = f"thread {error.other_thread} of block {error.other_block}"
        if error.other_site < 0:
            return f"{thread} has ended"
        return f"{thread} waits in another place: {self._sites[error.other_site]}"


def _bytes(error: _Error) -> str:
    """The bytes that an access is to."""
    places = {_SHARED: "shared memory", _CONSTANT: "a constant", _UNKNOWN: "memory of nobody"}
    place = places.get(error.place, f"argument {error.place}")
    return f"bytes {error.offset} to {error.offset + error.bytes - 1} of {place}"


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    pointer, pointers, number = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int64
    if not hasattr(library, "parc_emulate"):
        raise ParcError(f"{library_path()} has no emulator: build it again")
    library.parc_emulator_create.argtypes = [pointers, number]
    library.parc_emulator_create.restype = pointer
    library.parc_emulator_destroy.argtypes = [pointer]
    library.parc_emulator_destroy.restype = None
    library.parc_emulator_configure.argtypes = [pointer, ctypes.POINTER(_Settings)]
    library.parc_emulator_configure.restype = None
    library.parc_emulator_take_error.argtypes = [pointer]
    library.parc_emulator_take_error.restype = _Error
    library.parc_emulate.argtypes = [pointer, *([number] * 5), pointers, number]
    library.parc_emulate.restype = ctypes.c_int
    return library
