"""gpu dialect -> NVVM -> LLVM IR."""

from collections.abc import Mapping
from math import prod

from torch_mlir import ir
from torch_mlir.dialects import gpu, llvm

from parc.codegen.irtools import constant_int, copy_module, run_pipeline, walk
from parc.errors import CompileError
from parc.gpu.arch import MOST_ARGUMENTS
from parc.gpu.global_buffers import mark_global_buffers

# bfloat16 and half stay what they are: NVPTX knows which of their operations a target has.
_PIPELINE = (
    "gpu.module(convert-vector-to-scf,expand-strided-metadata,lower-affine,convert-scf-to-cf,convert-nvgpu-to-nvvm),"
    "convert-math-to-nvvm,"
    # What is left of arith after the first conversion has no instruction of its own: arith-expand would also take apart
    # what has one (the maximum, the rounding to bfloat16).
    "gpu.module(convert-gpu-to-nvvm,arith-expand,convert-vector-to-llvm,convert-to-llvm,reconcile-unrealized-casts,cse)"
)

# Exact operations that a GPU has instructions for. Upstream makes them calls of libdevice, whose square root is not, by
# default.
_INSTRUCTIONS = {
    f"__nv_{name}{suffix}": f"llvm.intr.{intrinsic}"
    for name, intrinsic in {
        "ceil": "ceil",
        "copysign": "copysign",
        "fabs": "fabs",
        "floor": "floor",
        "rint": "roundeven",
        "sqrt": "sqrt",
        "trunc": "trunc",
    }.items()
    for suffix in ("", "f")
}


# LLVM's numbers for orderings: acquire 4, release 5, both 6, sequentially consistent 7.
_ACQUIRES, _RELEASES = (4, 6, 7), (5, 6, 7)


def device_modules(module: ir.Module) -> list[gpu.GPUModuleOp]:
    """The `gpu.module`s of an outlined program, in order; CompileError when there are none."""
    found = [op for op in module.body.operations if isinstance(op, gpu.GPUModuleOp)]
    if not found:
        raise CompileError("there is no gpu.module to make device code from", module.operation.location)
    return found


def argument_bytes(module: ir.Module) -> int:
    """The bytes of the arguments of the kernel that takes most; CompileError for more than any launch takes."""
    most = 0
    for container in device_modules(module):
        for function in walk(container, "gpu.func"):
            arguments = function.regions[0].blocks[0].arguments
            size = sum(8 * (3 + 2 * a.type.rank if isinstance(a.type, ir.MemRefType) else 1) for a in arguments)
            if size > MOST_ARGUMENTS:
                raise CompileError(
                    f"a kernel takes {size} bytes of arguments ({len(arguments)} buffers and sizes), and a launch has "
                    f"{MOST_ARGUMENTS} at most: stack parameters of equal shape, or compile parts of the model",
                    function.location,
                )
            most = max(most, size)
    return most


def kernel_blocks(module: ir.Module) -> dict[str, int]:
    """The kernels' names, in order, with the threads of a block, 0 where they are not known when compiling.

    They are known from `known_block_size` on the kernel, or where every launch has the same constants.
    CompileError when two kernels have one name: all of a program's are loaded together.
    """
    launched = _launched_blocks(module)
    blocks: dict[str, int] = {}
    for container in device_modules(module):
        for function in walk(container, "gpu.func"):
            if "kernel" not in function.attributes:
                continue
            name = ir.StringAttr(function.attributes["sym_name"]).value
            if name in blocks:
                raise CompileError(f"two kernels are called @{name}", function.location)
            if "known_block_size" in function.attributes:
                blocks[name] = prod(ir.DenseI32ArrayAttr(function.attributes["known_block_size"]))
            else:
                sizes = launched.get(name, set())
                blocks[name] = next(iter(sizes)) if len(sizes) == 1 else 0
    return blocks


def lower_to_llvm_ir(module: ir.Module) -> list[str]:
    """LLVM IR as text, one for each `gpu.module`; `module` stays as it is.

    Only kernels can be seen from outside. CompileError with MLIR's message for what cannot be lowered.
    """
    blocks = kernel_blocks(module)
    device = copy_module(module)
    with device.context:
        for op in list(device.body.operations):
            if not isinstance(op, gpu.GPUModuleOp):
                op.operation.erase()
        for container in device_modules(device):
            mark_global_buffers(container)
        for op in walk(device.operation, "math.fma"):
            # libdevice has none for f16 and bf16.
            vector = isinstance(op.result.type, ir.VectorType)
            _replace(op.operation, "vector.fma" if vector else "llvm.intr.fma")
        for op in walk(device.operation, "llvm.atomicrmw"):
            _fence(op.operation)
        for op in walk(device.operation, "llvm.inttoptr"):
            _point_to_global(op.operation)
        run_pipeline(device, _PIPELINE, "lowering to NVVM")
        return [_translate(container, blocks) for container in device_modules(device)]


def _launched_blocks(module: ir.Module) -> dict[str, set[int]]:
    """Each launched kernel's block sizes; 0 among them stands for one that is not constant."""
    sizes: dict[str, set[int]] = {}
    for launch in walk(module.operation, "gpu.launch_func"):
        kernel = ir.SymbolRefAttr(launch.attributes["kernel"]).value[-1]
        extents = (launch.blockSizeX, launch.blockSizeY, launch.blockSizeZ)
        sizes.setdefault(kernel, set()).add(prod(constant_int(extent) or 0 for extent in extents))
    return sizes


def _replace(op: ir.Operation, name: str) -> None:
    """Replace an operation by the one called `name` of the same operands and result."""
    with ir.InsertionPoint(op), op.location:
        new = ir.Operation.create(name, results=[op.result.type], operands=list(op.operands))
    op.result.replace_all_uses_with(new.result)
    op.erase()


def _fence(op: ir.Operation) -> None:
    """Order memory around an atomic update by fences: of its ordering LLVM keeps nothing in PTX, unlike a cmpxchg's."""
    ordering = op.attributes["ordering"]
    scope = {"syncscope": op.attributes["syncscope"]} if "syncscope" in op.attributes else {}
    with op.location:
        if ir.IntegerAttr(ordering).value in _RELEASES:
            ir.Operation.create("llvm.fence", attributes={"ordering": ordering} | scope, ip=ir.InsertionPoint(op))
        if ir.IntegerAttr(ordering).value in _ACQUIRES:
            ir.Operation.create("llvm.fence", attributes={"ordering": ordering} | scope, ip=ir.InsertionPoint.after(op))


def _point_to_global(op: ir.Operation) -> None:
    """Let LLVM know that the address comes from a buffer in global memory, the only kind that a kernel is given."""
    with ir.InsertionPoint(op), op.location:
        space = [ir.Type.parse("!llvm.ptr<1>")]
        address = ir.Operation.create("llvm.inttoptr", results=space, operands=list(op.operands))
        pointer = ir.Operation.create("llvm.addrspacecast", results=[op.result.type], operands=[address.result])
    op.result.replace_all_uses_with(pointer.result)
    op.erase()


def _translate(container: gpu.GPUModuleOp, blocks: Mapping[str, int]) -> str:
    """The LLVM IR of one lowered `gpu.module`; CompileError for an operation that was not lowered."""
    with container.location:
        alone = ir.Module.create()
    for op in list(container.bodyRegion.blocks[0].operations):
        alone.body.append(op.detach_from_parent())
    for op in [op.operation for op in alone.body.operations]:
        if op.name == "llvm.mlir.global":
            _link_global(op)
        elif op.name == "llvm.func" and op.regions[0].blocks:
            _link_function(op, blocks)
    for op in walk(alone.operation):
        name = op.operation.name
        if name == "llvm.intr.fmuladd":
            # vector.fma rounds once, fmuladd as it pleases LLVM.
            _replace(op.operation, "llvm.intr.fma")
        elif name == "llvm.call" and "callee" in op.attributes:
            callee = ir.FlatSymbolRefAttr(op.attributes["callee"]).value
            if callee in _INSTRUCTIONS:
                _replace(op.operation, _INSTRUCTIONS[callee])
        elif not name.startswith(("llvm.", "nvvm.")) and name != "builtin.unrealized_conversion_cast":
            raise CompileError(f"there is no device code for '{name}'", op.location)
    return llvm.translate_module_to_llvmir(alone.operation)


def _link_global(op: ir.Operation) -> None:
    """Dynamic shared memory is defined by the launch, so it is an array of unknown size from elsewhere."""
    if ir.Type.parse("!llvm.array<0 x i8>") == ir.TypeAttr(op.attributes["global_type"]).value:
        op.attributes["linkage"] = ir.Attribute.parse("#llvm.linkage<external>")


def _link_function(op: ir.Operation, blocks: Mapping[str, int]) -> None:
    """Kernels are launched from outside, with as many threads as they were compiled for; nobody else calls the rest."""
    name = ir.StringAttr(op.attributes["sym_name"]).value
    if name.startswith("_mlir_ciface_"):
        op.erase()
        return
    # A function that reaches a barrier may not be moved into a branch; LLVM takes this off where it is not needed.
    op.attributes["convergent"] = ir.UnitAttr.get()
    if name not in blocks:
        op.attributes["linkage"] = ir.Attribute.parse("#llvm.linkage<internal>")
        return
    if "nvvm.maxntid" in op.attributes:
        del op.attributes["nvvm.maxntid"]
    if blocks[name]:
        op.attributes["nvvm.reqntid"] = ir.DenseI32ArrayAttr.get([blocks[name], 1, 1])
        # A block has an SM for itself: without this, ptxas spills registers to make room for a second one.
        op.attributes["nvvm.minctasm"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), 1)
