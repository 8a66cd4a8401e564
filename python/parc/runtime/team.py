"""The thread team that compiled programs run on: a thin wrapper of the native runtime."""

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path

import parc.runtime
from parc.errors import ParcError

CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")
"""What Linux limits a container to: microseconds of CPU time, of each so many that pass."""
LIBRARY_NAME = "libparc_runtime.dylib" if sys.platform == "darwin" else "libparc_runtime.so"


@cache
def library_path() -> Path:
    """The native runtime library, which compiled code links against; ParcError when it has not been built."""
    # An editable install has two folders for this package: the sources' and the one with what was built.
    for folder in parc.runtime.__path__:
        path = Path(folder) / LIBRARY_NAME
        if path.is_file():
            return path
    places = ", ".join(parc.runtime.__path__)
    raise ParcError(f"{LIBRARY_NAME} is not in {places}: install parc with pip, or run `make build` in its source tree")


class Team:
    """A number of threads that run one compiled function together; the calling thread is one of them.

    The threads sleep between runs.  A team survives `os.fork`: the child starts threads of its own at its next run.
    """

    def __init__(self, nthreads: int | None = None) -> None:
        """`nthreads` defaults to the number of CPUs that this process may use."""
        size = usable_cpus() if nthreads is None else nthreads
        if size < 1:
            raise ValueError(f"a team has at least one thread, not {size}")
        self._library = native_library()
        handle = self._library.parc_team_create(size)
        if not handle:
            raise OSError(f"cannot start a team of {size} threads")
        self._handle = ctypes.c_void_p(handle)
        self._finalizer = weakref.finalize(self, self._library.parc_team_destroy, self._handle)
        # At exit the threads end with the process; joining them there could wait for a run that never returns.
        self._finalizer.atexit = False

    @property
    def size(self) -> int:
        """The number of threads."""
        return int(self._library.parc_team_size(self._handle))

    @property
    def handle(self) -> int:
        """The native `void* team`, for callers of the C interface (`native/team.h`)."""
        return self._handle.value or 0

    def run(self, entry: int, argv: "ctypes.Array[ctypes.c_void_p]") -> None:
        """Call the native `void entry(void** argv)` once on every thread; return when all are done.

        Each thread gets its own copy of `argv`; slot 0 is replaced by a pointer to the thread's number (int64).
        """
        error = self._library.parc_team_run(self._handle, entry, argv, len(argv))
        if error:
            raise OSError(error, f"cannot run on a team of {self.size} threads: {os.strerror(error)}")


def usable_cpus() -> int:
    """How many CPUs this process may use: those that it may run on, or its container's share where that is less."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = CPU_SHARE.read_text().split()
        return min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # another system, or no limit, which reads "max"
        return cpus


@cache
def native_library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    pointer, pointers = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
    library.parc_team_create.argtypes = [ctypes.c_int]
    library.parc_team_create.restype = pointer
    library.parc_team_destroy.argtypes = [pointer]
    library.parc_team_destroy.restype = None
    library.parc_team_size.argtypes = [pointer]
    library.parc_team_size.restype = ctypes.c_int
    library.parc_team_run.argtypes = [pointer, pointer, pointers, ctypes.c_int]
    library.parc_team_run.restype = ctypes.c_int
    library.parc_set_launcher.argtypes = [pointer, pointer]
    library.parc_set_launcher.restype = None
    library.parc_launch_failure.argtypes = []
    library.parc_launch_failure.restype = ctypes.c_int
    library.parc_team_barrier.argtypes = []
    library.parc_team_barrier.restype = None
    return library
