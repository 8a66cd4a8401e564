"""Device functions learn which of their buffers are in global memory, so that they load and store there directly.

    func.call @f(%x) : (memref<?xf32>) -> ()
    func.func private @f(%m: memref<?xf32>)

becomes, when every call passes part of a kernel's argument, which is in global memory,

    %0 = memref.memory_space_cast %x : memref<?xf32> to memref<?xf32, #gpu.address_space<global>>
    func.call @f(%0) : (memref<?xf32, #gpu.address_space<global>>) -> ()
    func.func private @f(%m: memref<?xf32, #gpu.address_space<global>>) {
      %0 = memref.memory_space_cast %m : memref<?xf32, #gpu.address_space<global>> to memref<?xf32>

LLVM takes the space from the cast to each access. It finds the space of a kernel's arguments by itself.
"""

from torch_mlir import ir
from torch_mlir.dialects import func, gpu

from parc.codegen.irtools import defining_op, walk

_VIEWS = (
    "memref.assume_alignment",
    "memref.cast",
    "memref.collapse_shape",
    "memref.expand_shape",
    "memref.reinterpret_cast",
    "memref.subview",
    "memref.view",
)

_Argument = tuple[str, int]
"""A function's name and an argument's number."""


def mark_global_buffers(container: gpu.GPUModuleOp) -> None:
    """Rewrite the calls and the functions of a `gpu.module`."""
    functions = {f.name.value: f for f in walk(container, "func.func") if not f.is_external}
    calls = [call for call in walk(container, "func.call") if _callee(call) in functions]
    marked = _arguments_in_global_memory(functions, calls)
    for call in calls:
        for number, operand in enumerate(call.operands):
            if (_callee(call), number) in marked:
                call.operation.operands[number] = _cast(operand, _in_global(operand.type), ir.InsertionPoint(call))
    for name, function in functions.items():
        types = list(function.type.inputs)
        for number in (n for n in range(len(types)) if (name, n) in marked):
            argument = function.arguments[number]
            types[number] = _in_global(argument.type)
            inside = _cast(argument, argument.type, ir.InsertionPoint.at_block_begin(function.entry_block))
            argument.replace_all_uses_with(inside)
            inside.owner.operands[0] = argument
            argument.set_type(types[number])
        function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, function.type.results))


def _arguments_in_global_memory(functions: dict[str, func.FuncOp], calls: list[func.CallOp]) -> set[_Argument]:
    """The arguments that are a part of some kernel's argument in every call."""
    called = {_callee(call) for call in calls}
    found = {
        (name, number)
        for name in called
        for number, type_ in enumerate(functions[name].type.inputs)
        if isinstance(type_, ir.MemRefType) and type_.memory_space is None
    }
    # What a call passes may be the caller's own argument: drop what is not global until nothing changes.
    while True:
        wrong = {
            (_callee(call), number)
            for call in calls
            for number, operand in enumerate(call.operands)
            if (_callee(call), number) in found and not _is_global(operand, found)
        }
        if not wrong:
            return found
        found -= wrong


def _is_global(buffer: ir.Value, arguments: set[_Argument]) -> bool:
    """Whether a buffer is a part of a kernel's argument, or of one of these functions' `arguments`."""
    op = defining_op(buffer)
    while op is not None and op.operation.name in _VIEWS:
        buffer = op.operation.operands[0]
        op = defining_op(buffer)
    if op is not None:
        return False
    argument = ir.BlockArgument(buffer)
    function = argument.owner.owner.opview
    if isinstance(function, func.FuncOp):
        return (function.name.value, argument.arg_number) in arguments
    return isinstance(function, gpu.GPUFuncOp) and argument.type.memory_space is None


def _callee(call: func.CallOp) -> str:
    return ir.FlatSymbolRefAttr(call.attributes["callee"]).value


def _in_global(type_: ir.MemRefType) -> ir.MemRefType:
    space = ir.Attribute.parse("#gpu.address_space<global>")
    return ir.MemRefType.get(type_.shape, type_.element_type, type_.layout, space, loc=ir.Location.unknown())


def _cast(buffer: ir.Value, type_: ir.Type, at: ir.InsertionPoint) -> ir.Value:
    with ir.Location.unknown():
        return ir.Operation.create("memref.memory_space_cast", results=[type_], operands=[buffer], ip=at).result
