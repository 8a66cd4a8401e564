"""`lower-launches`: host code hands kernels over to the runtime."""

from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, llvm, memref

from parc.codegen.irtools import constant_int, walk
from parc.errors import CompileError
from parc.passbase import Pass

LAUNCH = "parc_launch"
"""The function of the runtime: `runtime/native/launch.h`."""
KERNELS = "parc.kernels"


@dataclass
class LowerLaunches(Pass):
    """Host code hands kernels over to the runtime.

    A launch becomes a call with the number of its kernel in `parc.kernels`, the sizes of the grid, of a block and of
    its shared memory, and pointers to the fields of its arguments, 8 bytes each: a buffer has those of its descriptor.
    The modules of kernels, which are compiled by themselves, go; with `keep_kernels` they stay (`emulate-gpu`).

        gpu.launch_func @k::@k blocks in (%g, %1, %1) threads in (%b, %1, %1) dynamic_shared_memory_size %s
          args(%n : index, %x : memref<?xf32>) {parc.cooperative}

        llvm.store %n, %fields[0]; ... %x's pointer, pointer, offset, size and stride ...
        func.call @parc_launch(%kernel0, %g, %b, %s, %cooperative, %argv, %fields_count)
    """

    name = "lower-launches"

    keep_kernels: bool = False

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            kernels: dict[str, ir.Attribute] = {}
            for function in [op for op in module.body.operations if isinstance(op, func.FuncOp)]:
                launches = walk(function, "gpu.launch_func")
                if launches:
                    _lower(function, launches, kernels)
            for op in list(module.body.operations):
                if op.operation.name == "gpu.module" and not self.keep_kernels:
                    op.operation.erase()
            attributes = module.operation.attributes
            attributes[KERNELS] = ir.ArrayAttr.get([ir.StringAttr.get(name) for name in kernels])
            if "gpu.container_module" in attributes:
                del attributes["gpu.container_module"]
            if kernels:
                _declare_launch(module)


def _lower(function: func.FuncOp, launches: list[ir.OpView], kernels: dict[str, ir.Attribute]) -> None:
    """Replace the launches of one function; adds their kernels to `kernels`, name -> symbol."""
    stores: list[list[ir.Value]] = []
    for launch in launches:
        with ir.InsertionPoint(launch), launch.location:
            stores.append([field for operand in launch.kernelOperands for field in _fields(operand)])
    with ir.InsertionPoint.at_block_begin(function.entry_block):
        fields, argv = _allocate(max(map(len, stores)))
    for launch, values in zip(launches, stores, strict=True):
        with ir.InsertionPoint(launch), launch.location:
            for i, value in enumerate(values):
                llvm.store(value, _element(fields, i))
            cooperative = "parc.cooperative" in launch.operation.attributes
            shared = launch.dynamicSharedMemorySize
            func.CallOp(
                [],
                ir.FlatSymbolRefAttr.get(LAUNCH),
                [
                    _i64(_number(launch, kernels)),
                    _size(launch, launch.gridSizeX, launch.gridSizeY, launch.gridSizeZ),
                    _size(launch, launch.blockSizeX, launch.blockSizeY, launch.blockSizeZ),
                    _i64(0) if shared is None else _widen(shared),
                    _i64(int(cooperative)),
                    argv,
                    _i64(len(values)),
                ],
            )
        launch.operation.erase()


def _number(launch: ir.OpView, kernels: dict[str, ir.Attribute]) -> int:
    """The number of a launch's kernel, whose name no other module's has."""
    symbol = launch.operation.attributes["kernel"]
    name = ir.SymbolRefAttr(symbol).value[-1]
    if kernels.setdefault(name, symbol) != symbol:
        raise CompileError(f"{symbol} and {kernels[name]} are kernels of one name", launch.location)
    return list(kernels).index(name)


def _fields(operand: ir.Value) -> list[ir.Value]:
    """The fields of an argument."""
    type_ = operand.type
    if isinstance(type_, ir.IndexType):
        return [_widen(operand)]
    if not isinstance(type_, ir.MemRefType):
        return [operand]
    pointer = _widen(memref.extract_aligned_pointer_as_index(operand))
    described = memref.ExtractStridedMetadataOp(operand)
    return [pointer, pointer, *map(_widen, list(described.operation.results)[1:])]


def _allocate(count: int) -> tuple[ir.Value, ir.Value]:
    """Room for the fields of a launch, and the pointers to them."""
    pointer, i64 = llvm.PointerType.get(), ir.IntegerType.get_signless(64)
    number = _i64(max(count, 1))
    fields = llvm.alloca(pointer, number, i64)
    argv = llvm.alloca(pointer, number, pointer)
    for i in range(count):
        llvm.store(_element(fields, i), _element(argv, i))
    return fields, argv


def _element(array: ir.Value, number: int) -> ir.Value:
    """The address of an element of 8 bytes."""
    i64 = ir.IntegerType.get_signless(64)
    return llvm.getelementptr(llvm.PointerType.get(), array, [], [number], i64, None)


def _size(launch: ir.OpView, x: ir.Value, *others: ir.Value) -> ir.Value:
    """The size of a grid or block of one dimension."""
    if any(constant_int(other) != 1 for other in others):
        raise CompileError("grids and blocks of kernels have one dimension", launch.location)
    return _widen(x)


def _widen(value: ir.Value) -> ir.Value:
    i64 = ir.IntegerType.get_signless(64)
    if isinstance(value.type, ir.IndexType):
        return arith.index_cast(i64, value)
    return value if value.type == i64 else arith.extsi(i64, value)


def _i64(value: int) -> ir.Value:
    return arith.constant(ir.IntegerType.get_signless(64), value)


def _declare_launch(module: ir.Module) -> None:
    i64 = ir.IntegerType.get_signless(64)
    type_ = ir.FunctionType.get([i64] * 5 + [llvm.PointerType.get(), i64], [])
    with ir.InsertionPoint.at_block_begin(module.body):
        func.FuncOp(LAUNCH, type_, visibility="private")
