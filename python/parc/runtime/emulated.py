"""Programs for GPUs on the emulator: host code, and kernels that are functions of the host."""

from collections.abc import Sequence

from parc.runtime.emulator import Emulator
from parc.runtime.executable import Arena, Buffer, Code, Entry, Executable
from parc.runtime.facts import Facts
from parc.runtime.launch import Launcher, run_host_code
from parc.signature import CPU


class EmulatedExecutable(Executable):
    """A program whose members are the blocks of an emulated GPU; EmulationError for what is wrong on a real one."""

    target = "cuda-emulated"

    def __init__(self, code: Code, facts: Facts, arena: Arena | None = None, launcher: Launcher | None = None) -> None:
        """`launcher` takes the place of an emulator with the usual settings."""
        super().__init__(code, facts, facts.blocks, CPU)
        self._arena = arena or Arena()
        self.launcher = launcher or Emulator([(name, code.address(name)) for name in facts.kernels], facts.sites)

    def _call(self, entry: Entry, size: int, symbols: tuple[int, ...], buffers: Sequence[Buffer]) -> None:
        arena = self._arena
        with arena.lock:
            arena.reserve(size)
            entry.bind(self.members, arena.start, arena.size, symbols, buffers)
            try:
                run_host_code(entry, self.launcher)
            except BaseException:
                arena.reset()
                raise
            self._check(arena.take_status())
