"""Where programs run: what comes after their loops, and the executables that they become."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch_mlir import ir

from parc.codegen.blocks.target import EXACT, find_target
from parc.errors import DeviceError
from parc.gpu.arch import newest_for
from parc.jit import JitCode, cpu_executable, portable_code
from parc.pipelines import run_pipeline, stage_steps
from parc.read_module import read_facts
from parc.runtime.executable import Arena, Executable
from parc.runtime.image import DeviceImage, entry_points
from parc.runtime.team import Team, usable_cpus
from parc.signature import CPU
from parc.target import Target

if TYPE_CHECKING:
    from parc.runtime.cuda.device import CudaDevice


class Backend(Protocol):
    """The programs of one compile: all run on one team, in one arena."""

    codegen: str
    """What passes call the target."""
    precision: str
    """Of products of f32: "f32", or what tensor cores round factors to."""
    stage: str
    """The stage that a program is taken to before `executable`."""
    members: int
    """Of the team."""
    device: torch.device
    """Where tensors are."""
    runs: bool
    """Whether programs run here."""

    def executable(self, module: ir.Module, symbols: Sequence[str]) -> Executable:
        """The program of a module at `stage`; `symbols` are its symbols' names for reports.

        ParcError or CompileError when there can be no machine code of it.
        """
        ...


def find_backend(target: Target, threads: int) -> Backend:
    """The backend of a target, with so many threads or blocks (0: all there are); DeviceError without its GPU."""
    if target.kind == "cpu":
        return CpuBackend(threads)
    if target.kind == "cuda-emulated":
        return EmulatedBackend(threads)
    return CudaBackend(target.arch, threads)


class CpuBackend:
    """Threads of this machine."""

    codegen = "cpu"
    precision = EXACT
    stage = "llvm"
    device = CPU
    runs = True

    def __init__(self, threads: int) -> None:
        self.members = threads or usable_cpus()
        self._threads = threads
        self._team: Team | None = None
        self._arena = Arena()

    def executable(self, module: ir.Module, symbols: Sequence[str]) -> Executable:
        if self._team is None:
            self._team = Team(self._threads or None)
        return cpu_executable(module, self._team, self._arena, symbols)


class EmulatedBackend:
    """Thread blocks of an emulated GPU."""

    codegen = "emulated"
    stage = "emulation"
    device = CPU
    runs = True

    def __init__(self, blocks: int) -> None:
        self.members = _blocks(self.codegen, blocks)
        self.precision = matmul_precision()
        self._arena = Arena()

    def executable(self, module: ir.Module, symbols: Sequence[str]) -> Executable:
        from parc.runtime.emulated import EmulatedExecutable

        return EmulatedExecutable(JitCode(module), read_facts(module, symbols), self._arena)


class CudaBackend:
    """Thread blocks of a GPU: that of this machine, or any of an architecture."""

    stage = "gpu"

    def __init__(self, arch: str, blocks: int) -> None:
        """DeviceError where no `arch` is given and there is no GPU; with one, programs run where there is one of it."""
        from parc.runtime.cuda.device import find_device
        from parc.runtime.cuda.executable import DeviceArena

        self._gpu: CudaDevice | None = None
        self._absent = ""
        try:
            gpu = find_device()
        except DeviceError as error:
            if not arch:
                raise
            self._absent = str(error)
        else:
            own = newest_for(gpu.capability)
            if not arch:
                arch, blocks = own.name, blocks or gpu.multiprocessors
            if own.name.removesuffix("a") == arch.removesuffix("a"):
                self._gpu = gpu
            else:
                self._absent = f"the GPU of this machine is another: {gpu}"
        self.codegen = arch
        self.members = _blocks(arch, blocks)
        self.precision = matmul_precision()
        self.runs = self._gpu is not None
        self.device = CPU if self._gpu is None else self._gpu.tensors
        self._arena = None if self._gpu is None else DeviceArena(self._gpu)

    def executable(self, module: ir.Module, symbols: Sequence[str]) -> Executable:
        from parc.gpu.device_code import compile_device
        from parc.runtime.cuda.executable import DeviceExecutable
        from parc.runtime.undeployed import UndeployedExecutable

        code = compile_device(module, self.codegen)
        run_pipeline(module, stage_steps("host"))
        image = DeviceImage(code.arch.name, code.ptx, code.cubin)
        facts = read_facts(module, symbols)
        host = portable_code(module, entry_points(facts, "cuda"))
        if self._gpu is None:
            return UndeployedExecutable(host, facts, image, self._absent)
        return DeviceExecutable(host, facts, image, self._gpu, self._arena)


def matmul_precision() -> str:
    """What torch lets GPUs round factors of f32 to: see `torch.set_float32_matmul_precision`."""
    return {"highest": EXACT, "high": "tf32", "medium": "bf16"}[torch.get_float32_matmul_precision()]


def _blocks(name: str, blocks: int) -> int:
    target = find_target(name, blocks)
    assert target is not None
    return target.blocks
