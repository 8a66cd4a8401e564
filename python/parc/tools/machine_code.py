"""What the JIT makes of a module in the LLVM dialect, as a file."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from torch_mlir import ir
from torch_mlir.execution_engine import ExecutionEngine

from parc.errors import ParcError
from parc.jit import OPT_LEVEL
from parc.runtime import library_path


def machine_code(module: ir.Module, *, as_text: bool) -> bytes:
    """The object file that the JIT makes for this machine, or its disassembly; ParcError when there is none."""
    objdump = shutil.which("objdump")
    if as_text and not objdump:
        raise ParcError("--emit=asm needs objdump (GNU binutils or LLVM); --emit=object does without")
    engine = ExecutionEngine(module, OPT_LEVEL, [str(library_path())], enable_pic=True)
    # The engine compiles at the first look-up; without one it would look for functions that were inlined away.
    if not any(engine.raw_lookup(name) for name in _public_functions(module)):
        raise ParcError("the module has no public function to compile")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.o"
        engine.dump_to_object_file(str(path))
        if not as_text:
            return path.read_bytes()
        command = [str(objdump), "--disassemble", "--no-show-raw-insn", str(path)]
        return subprocess.run(command, check=True, capture_output=True).stdout


def _public_functions(module: ir.Module) -> list[str]:
    """The functions of a module in the LLVM dialect that have a body and can be called from outside."""
    functions = (op for op in module.body.operations if op.operation.name == "llvm.func")
    return [
        ir.StringAttr(op.attributes["sym_name"]).value
        for op in functions
        if op.operation.regions[0].blocks and "sym_visibility" not in op.attributes
    ]
