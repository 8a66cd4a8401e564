"""PTX -> cubin by NVIDIA's assembler, and what it tells of each kernel."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from parc.errors import CompileError
from parc.gpu.arch import Arch
from parc.gpu.toolkit import find_ptxas

_FUNCTION = re.compile(r"(?:Compiling entry function '(?P<entry>\w+)'|Function properties for (?P<function>\w+))")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """What a kernel takes: registers per thread, and bytes. `shared` is static; a launch adds the dynamic memory.

    `stack` and the spills are of a thread, together with those of the device functions that were not inlined.
    """

    registers: int
    spill_stores: int
    spill_loads: int
    shared: int
    stack: int


def assemble(ptx: str, arch: Arch) -> tuple[bytes, Mapping[str, Resources]]:
    """The cubin of PTX, and what each kernel in it takes; CompileError where ptxas is absent or refuses the text."""
    ptxas = find_ptxas()
    if ptxas is None:
        raise CompileError("a cubin needs ptxas: pip install nvidia-cuda-nvcc (or parc[gpu]), or put it on $PATH")
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
        source.write_text(ptx)
        command = [str(ptxas), "--verbose", f"--gpu-name={arch.name}", str(source), f"--output-file={result}"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise CompileError(_refusal(run.stdout + run.stderr, ptx, arch))
        return result.read_bytes(), parse_resources(run.stdout + run.stderr)


def parse_resources(log: str) -> dict[str, Resources]:
    """What `ptxas --verbose` prints, by kernel."""
    registers: dict[str, int] = {}
    shared: dict[str, int] = {}
    stacks: dict[str, tuple[int, ...]] = {}
    kernel = function = ""
    for line in log.splitlines():
        if found := _FUNCTION.search(line):
            kernel, function = found["entry"] or kernel, found["function"] or ""
        elif found := _STACK.search(line):
            stacks[function] = tuple(map(int, found.groups()))
        elif found := _REGISTERS.search(line):
            registers[kernel] = int(found[1])
            static = _SHARED.search(line)
            shared[kernel] = int(static[1]) if static else 0
    called = [stack for name, stack in stacks.items() if name not in registers]
    totals = {name: [sum(column) for column in zip(stacks[name], *called, strict=True)] for name in registers}
    return {
        name: Resources(registers[name], stores, loads, shared[name], stack)
        for name, (stack, stores, loads) in totals.items()
    }


def _refusal(log: str, ptx: str, arch: Arch) -> str:
    """ptxas's first complaint, with the line of PTX that it is about and what can be done."""
    lines = [line.strip() for line in log.splitlines() if "error" in line or "fatal" in line]
    message = lines[0] if lines else log.strip() or "no message"
    place = re.search(r"line (\d+)", message)
    text = ptx.splitlines()
    if place and 0 < int(place[1]) <= len(text):
        message += f" in '{text[int(place[1]) - 1].strip()}'"
    if "Unsupported .version" in log or "is not defined for option 'gpu-name'" in log:
        message += " (this ptxas is too old: pip install --upgrade nvidia-cuda-nvcc)"
    return f"ptxas refuses the kernels for {arch.name}: {message}"
