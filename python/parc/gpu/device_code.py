"""The kernels of an outlined program as code for one GPU architecture."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch_mlir import ir

from parc.gpu.arch import Arch, find_arch
from parc.gpu.nvvm import argument_bytes, kernel_blocks, lower_to_llvm_ir
from parc.gpu.ptx import llvm_to_ptx
from parc.gpu.ptxas import Resources, assemble
from parc.gpu.toolkit import find_ptxas


@dataclass(frozen=True)
class Kernel:
    """A kernel: its name in the PTX, threads of a block (0: the launch decides), and what it takes, once assembled."""

    name: str
    block: int
    resources: Resources | None


@dataclass(frozen=True)
class DeviceCode:
    """All kernels of a program for `arch`, in the program's order, to be loaded together.

    Where `cubin` is None, the driver assembles `ptx` when it loads it.
    """

    arch: Arch
    ptx: str
    cubin: bytes | None
    kernels: tuple[Kernel, ...]


def compile_device(module: ir.Module, arch: Arch | str, *, cubin: bool | None = None) -> DeviceCode:
    """Compile the `gpu.module`s of an outlined program, which stays as it is, for one architecture.

    `cubin` None makes one where ptxas is found. UsageError for an unknown architecture; CompileError for what cannot be
    lowered or assembled, and where a package is missing: llvmlite, libdevice for a kernel that needs it, ptxas if
    `cubin` is True.
    """
    target = find_arch(arch) if isinstance(arch, str) else arch
    blocks = kernel_blocks(module)
    ptx = llvm_to_ptx(lower_to_llvm_ir(module), target, target.ptx_for(argument_bytes(module)))
    if cubin is None:
        cubin = find_ptxas() is not None
    code, resources = assemble(ptx, target) if cubin else (None, {})
    kernels = tuple(Kernel(name, block, resources.get(name)) for name, block in blocks.items())
    return DeviceCode(target, ptx, code, kernels)


def check_assembles(module: ir.Module, archs: Iterable[Arch | str] = ("sm_80", "sm_90", "sm_100")) -> list[DeviceCode]:
    """The program for each of `archs`, for tests; CompileError where one does not assemble or ptxas is absent."""
    return [compile_device(module, arch, cubin=True) for arch in archs]


def resource_table(code: DeviceCode) -> str:
    """What `--ptxas-info` prints: a line for each kernel that has been assembled."""
    columns = ("kernel", "threads", "registers", "spilled bytes", "stack bytes", "static shared bytes")
    rows = [
        (k.name, k.block or "any", r.registers, r.spill_stores + r.spill_loads, r.stack, r.shared)
        for k in code.kernels
        if (r := k.resources) is not None
    ]
    texts = [columns, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [f"{code.arch.name}, {code.arch.device}: registers, spills and stack of a thread, shared memory of a block"]
    for name, *cells in texts:
        lines.append(name.ljust(widths[0]) + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths[1:], strict=True)))
    return "\n".join(lines)
