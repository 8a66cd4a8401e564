"""Modules in the LLVM dialect (`lower-to-llvm`) become machine code in memory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch_mlir import ir
from torch_mlir.dialects import llvm as llvm_dialect
from torch_mlir.execution_engine import ExecutionEngine

from parc.errors import CompileError, ParcError
from parc.gpu.literals import with_old_literals
from parc.read_module import read_facts
from parc.runtime.executable import Arena, CpuExecutable
from parc.runtime.host import Host, any_host, this_host
from parc.runtime.llvm import load_llvm
from parc.runtime.object_code import ObjectCode, packed_name
from parc.runtime.team import Team, library_path

# -O3 takes longer than -O2 and changes nothing that matters: the kernels are vectorised when LLVM gets them.
OPT_LEVEL = 2


class JitError(ParcError):
    """LLVM made no code that can be called."""


class JitCode:
    """What MLIR's execution engine makes of a module, for the CPU of this machine."""

    def __init__(self, module: ir.Module) -> None:
        """JitError when LLVM cannot make code of it."""
        self._engine = ExecutionEngine(module, opt_level=OPT_LEVEL, shared_libs=[str(library_path())])

    @property
    def host(self) -> Host:
        """This machine."""
        return this_host()

    def address(self, name: str) -> int:
        """Where the function of this name with packed arguments is."""
        address = self._engine.raw_lookup(name)
        if not address:
            raise JitError(f"the compiled module has no function @{name}")
        return int(address)

    def object_code(self) -> bytes:
        """The object file that the engine has loaded; its code can lie anywhere in memory."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "module.o"
            self._engine.dump_to_object_file(str(path))
            return path.read_bytes()


def portable_code(module: ir.Module, entry_points: Sequence[str]) -> ObjectCode:
    """Code of a module for every CPU like this machine's: for host code, which computes little.

    CompileError when LLVM cannot make it, ParcError when llvmlite is not installed.
    """
    text = with_old_literals(str(llvm_dialect.translate_module_to_llvmir(module.operation)))
    llvm = load_llvm()
    try:
        program = llvm.parse_assembly(text)
        program.link_in(llvm.parse_assembly("".join(_packed(program.get_function(name)) for name in entry_points)))
        # As in the execution engine's code, everything can lie anywhere in memory.
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(opt=OPT_LEVEL, reloc="static", codemodel="large")
        code = machine.emit_object(program)
    except (RuntimeError, NameError) as e:
        raise CompileError(f"LLVM cannot compile the host code: {e}") from None
    return ObjectCode(code, entry_points, any_host())


def _packed(function: Any) -> str:
    """LLVM IR of a function that takes a pointer to each argument, and to the result, as the execution engine makes."""
    result = str(function.global_value_type).partition(" (")[0]
    types = [str(argument.type) for argument in function.arguments]
    lines = []
    for i, type_ in enumerate([*types, *([] if result == "void" else ["ptr"])]):
        lines += [f"%place{i} = getelementptr ptr, ptr %argv, i64 {i}", f"%p{i} = load ptr, ptr %place{i}"]
        if i < len(types):
            lines.append(f"%a{i} = load {type_}, ptr %p{i}")
    call = f"call {result} @{function.name}({', '.join(f'{t} %a{i}' for i, t in enumerate(types))})"
    lines += [call] if result == "void" else [f"%r = {call}", f"store {result} %r, ptr %p{len(types)}"]
    declaration = f"declare {result} @{function.name}({', '.join(types)})"
    body = "\n  ".join([*lines, "ret void"])
    return f"{declaration}\ndefine void @{packed_name(function.name)}(ptr %argv) {{\n  {body}\n}}\n"


def cpu_executable(
    module: ir.Module, team: Team, arena: Arena | None = None, symbols: Sequence[str] = ()
) -> CpuExecutable:
    """The program of a module that is lowered for the CPU; `symbols` are its symbols' names for reports."""
    return CpuExecutable(JitCode(module), read_facts(module, symbols), team, arena)
