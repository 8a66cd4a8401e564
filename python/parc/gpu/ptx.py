"""LLVM IR -> PTX, by llvmlite's LLVM."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from parc.errors import CompileError
from parc.gpu.arch import Arch
from parc.gpu.literals import with_old_literals
from parc.gpu.toolkit import read_libdevice

_TRIPLE = "nvptx64-nvidia-cuda"

# Products and sums stay apart, with `.rn`, unless the IR fuses them: a GPU computes what the CPU does.
_OPTIONS = ("-nvptx-fma-level=0",)

# Functions that every driver has, for printing and assertions.
_DRIVERS = frozenset({"__assertfail", "vprintf"})

# Device functions are inlined while that adds fewer instructions than these. Copies of a large one, as of a cell's
# kernel that every layer calls, cost registers for what LLVM moves out of the loops around each, and ptxas's time.
_INLINED_INSTRUCTIONS = 2_000


def llvm_to_ptx(texts: Sequence[str], arch: Arch, version: str = "") -> str:
    """PTX of modules of LLVM IR that are loaded together; of their functions, only kernels are not internal.

    `version` is that of the PTX, as LLVM names it, where it is not the architecture's usual one.
    CompileError where llvmlite is not installed, for IR that LLVM refuses, and for a call of what a GPU does not have.
    """
    llvm = _llvm()
    try:
        modules = [llvm.parse_assembly(with_old_literals(text)) for text in texts]
        machine = llvm.Target.from_triple(_TRIPLE).create_target_machine(
            cpu=arch.name, features=f"+{version or arch.ptx}", opt=3
        )
        for part in modules:
            part.triple, part.data_layout = _TRIPLE, str(machine.target_data)
        program = modules[0]
        for part in modules[1:]:
            program.link_in(part)
        _mark_inline(program)
        _link_libdevice(llvm, program, str(machine.target_data))
        tuning = llvm.create_pipeline_tuning_options(speed_level=3)
        passes = llvm.create_pass_builder(machine, tuning)
        passes.getModulePassManager().run(program, passes)
        return machine.emit_assembly(program)
    except RuntimeError as error:
        raise CompileError(f"LLVM cannot compile the kernels for {arch.name}: {error}") from error


@cache
def _llvm() -> ModuleType:
    """llvmlite with its targets and options set, which can be done once in a process."""
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise CompileError("code for GPUs needs llvmlite: pip install llvmlite (or parc[gpu])") from error
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    for option in _OPTIONS:
        llvm.set_option("parc", option)
    return llvm


def _undefined(program: Any) -> list[str]:
    """The functions that are called and not defined, without LLVM's own."""
    return [f.name for f in program.functions if f.is_declaration and not f.name.startswith("llvm.")]


def _link_libdevice(llvm: ModuleType, program: Any, layout: str) -> None:
    """Link what the program needs of libdevice; CompileError for a function that nobody defines."""
    wanted = [name for name in _undefined(program) if name not in _DRIVERS]
    if any(name.startswith("__nv_") for name in wanted):
        library = llvm.parse_bitcode(read_libdevice(next(n for n in wanted if n.startswith("__nv_"))))
        library.triple, library.data_layout = _TRIPLE, layout
        own = [f.name for f in library.functions if not f.is_declaration]
        program.link_in(library)
        for name in own:
            program.get_function(name).linkage = "internal"
    missing = [name.removeprefix("_mlir_ciface_") for name in _undefined(program) if name in wanted]
    if missing:
        raise CompileError(f"kernels call functions that a GPU does not have: {', '.join(missing)}")


def _mark_inline(program: Any) -> None:
    """Decide which device functions are inlined: all but large ones that are called from several places."""
    sizes, calls = Counter[str](), Counter[str]()
    for function in program.functions:
        for block in function.blocks:
            for instruction in block.instructions:
                sizes[function.name] += 1
                if instruction.opcode == "call":
                    calls[list(instruction.operands)[-1].name] += 1
    for function in program.functions:
        if function.linkage.name == "internal":
            added = sizes[function.name] * (calls[function.name] - 1)
            function.add_function_attribute("alwaysinline" if added <= _INLINED_INSTRUCTIONS else "noinline")
