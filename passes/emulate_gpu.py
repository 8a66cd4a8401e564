"""`emulate-gpu`: kernels become functions of the host that tell the emulator each step they take."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import func, memref
from torch_mlir.dialects import llvm as llvm_dialect

from parc.codegen.blocks.emulated_code import EmulatedCode, Program
from parc.codegen.blocks.emulated_ops import emulate
from parc.codegen.irtools import walk
from parc.errors import CompileError
from parc.passbase import Pass


@dataclass
class EmulateGPU(Pass):
    """Kernels become functions of the host that tell the emulator each step they take.

    Before an access the emulator hears of its index in each dimension and of its bytes; what a GPU thread does with
    others is a call of the emulator. `parc.sites` says by number what and where in the user's files each such step is.

        gpu.module @k {                                       func.func @k(%m: memref<?xf32>) {
          gpu.func @k(%m: memref<?xf32>) kernel {               %i = func.call @parc_emulated_thread()
            %i = gpu.thread_id x                                func.call @parc_emulated_index(%i, ...)
            %x = memref.load %m[%i]                             func.call @parc_emulated_access(%address, ...)
            gpu.barrier                                         %x = memref.load %m[%i]
            ...                                                 func.call @parc_emulated_barrier(%c1)
    """

    name = "emulate-gpu"

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            program = Program(module)
            for gpu_module in [op for op in module.body.operations if op.operation.name == "gpu.module"]:
                for function, is_kernel in _moved(gpu_module, module):
                    _drop_memory_spaces(function)
                    emulate(EmulatedCode(function, program), is_kernel)
                gpu_module.operation.erase()
            attributes = module.operation.attributes
            attributes["parc.sites"] = ir.ArrayAttr.get([ir.StringAttr.get(text) for text in program.sites])
            if "gpu.container_module" in attributes:
                del attributes["gpu.container_module"]


def _moved(gpu_module: ir.OpView, module: ir.Module) -> list[tuple[func.FuncOp, bool]]:
    """Move what a gpu.module has into the host's module; returns its functions, and which of them are kernels."""
    functions: list[tuple[func.FuncOp, bool]] = []
    # The modules of kernels go, and so do their names.
    taken = {_symbol(op) for op in module.body.operations if op.operation.name != "gpu.module"}
    prefix = _symbol(gpu_module)
    names: dict[str, str] = {}
    for op in list(gpu_module.regions[0].blocks[0].operations):
        name = _symbol(op)
        is_kernel = op.operation.name == "gpu.func" and "kernel" in op.operation.attributes
        names[name] = _unused(name, prefix, taken)
        if is_kernel and names[name] != name:
            raise CompileError(f"the name of the kernel @{name} is taken", op.location)
        taken.add(names[name])
        if op.operation.name == "gpu.func":
            functions.append((_host_function(op, module, names[name]), is_kernel))
        elif isinstance(op, (func.FuncOp, memref.GlobalOp)):
            if isinstance(op, memref.GlobalOp):
                _make_constant(op)
            elif not op.is_external:
                functions.append((op, False))
            module.body.append(op.operation.detach_from_parent())
            op.operation.attributes["sym_name"] = ir.StringAttr.get(names[name])
        else:
            raise CompileError(f"{op.operation.name} in a gpu.module cannot be emulated", op.location)
    for function, _ in functions:
        for user, attribute in (("func.call", "callee"), ("memref.get_global", "name")):
            for op in walk(function, user):
                old = ir.FlatSymbolRefAttr(op.operation.attributes[attribute]).value
                op.operation.attributes[attribute] = ir.FlatSymbolRefAttr.get(names[old])
    return functions


def _make_constant(array: memref.GlobalOp) -> None:
    """Drop the memory space of a constant; what each block has for itself cannot be one array of the program."""
    if "constant" not in array.attributes:
        raise CompileError("memref.global that is not constant cannot be emulated", array.location)
    array.attributes["type"] = ir.TypeAttr.get(_plain(ir.TypeAttr(array.attributes["type"]).value))


def _host_function(kernel: ir.OpView, module: ir.Module, name: str) -> func.FuncOp:
    """A func.func with the body of a gpu.func; its own arrays in shared memory are still arguments of its block."""
    attributes = kernel.operation.attributes
    type_ = ir.TypeAttr(attributes["function_type"]).value
    shared = ir.IntegerAttr(attributes["workgroup_attributions"]).value if "workgroup_attributions" in attributes else 0
    with ir.InsertionPoint(module.body), kernel.location:
        function = func.FuncOp(name, type_)
    if "kernel" not in attributes:
        function.attributes["sym_visibility"] = ir.StringAttr.get("private")
    blocks = list(kernel.regions[0].blocks)
    for block in blocks:
        block.append_to(function.regions[0])
    entry = function.entry_block
    for number in reversed(range(len(type_.inputs) + shared, len(entry.arguments))):
        array = entry.arguments[number]
        with ir.InsertionPoint.at_block_begin(entry), kernel.location:
            array.replace_all_uses_with(memref.alloca(array.type, [], []))
        entry.erase_argument(number)
    for leave in walk(function, "gpu.return"):
        with ir.InsertionPoint(leave), leave.location:
            func.ReturnOp(list(leave.operation.operands))
        leave.operation.erase()
    return function


def _drop_memory_spaces(function: func.FuncOp) -> None:
    """All memory is the host's: no type of the function names a memory space."""
    types = ir.FunctionType(function.type)
    changed = ir.FunctionType.get([_plain(t) for t in types.inputs], [_plain(t) for t in types.results])
    function.attributes["function_type"] = ir.TypeAttr.get(changed)
    for op in walk(function):
        for result in op.operation.results:
            result.set_type(_plain(result.type))
        if op.operation.name in ("memref.memory_space_cast", "llvm.addrspacecast"):
            op.operation.results[0].replace_all_uses_with(op.operation.operands[0])
            op.operation.erase()
    for op in (function, *walk(function)):
        for region in op.operation.regions:
            for block in region.blocks:
                for argument in block.arguments:
                    argument.set_type(_plain(argument.type))


def _plain(type_: ir.Type) -> ir.Type:
    """The type without its memory space."""
    if isinstance(type_, ir.MemRefType) and type_.memory_space is not None:
        return ir.MemRefType.get(type_.shape, type_.element_type, type_.layout)
    if isinstance(type_, llvm_dialect.PointerType):
        return llvm_dialect.PointerType.get()
    return type_


def _symbol(op: ir.OpView) -> str:
    attributes = op.operation.attributes
    return ir.StringAttr(attributes["sym_name"]).value if "sym_name" in attributes else ""


def _unused(name: str, prefix: str, taken: set[str]) -> str:
    """The name, or one made of it that is not taken."""
    candidate, number = name, 0
    while candidate in taken:
        candidate = f"{prefix}_{name}" + (f"_{number}" if number else "")
        number += 1
    return candidate
