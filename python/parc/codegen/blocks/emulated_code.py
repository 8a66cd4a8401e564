"""Code for the emulator of GPUs (`runtime/native/emulator.h`): calls of it, and where a memref's elements are."""

from dataclasses import dataclass, field

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref

from parc.codegen.irtools import constant_int, defining_op
from parc.errors import source_line

# As in the native runtime.
PLACE_CONSTANT = -3


@dataclass
class Program:
    """What the functions of one module have in common."""

    module: ir.Module
    sites: list[str] = field(default_factory=list)
    """The module's attribute `parc.sites`: by number, what is where in the user's files."""
    declared: set[str] = field(default_factory=set)
    """Functions of the emulator that the module declares."""


@dataclass(frozen=True)
class Layout:
    """Where the elements of a memref are, as values of type index."""

    address: ir.Value
    """Of the first element."""
    sizes: list[ir.Value]
    strides: list[ir.Value]
    """In elements."""


class EmulatedCode:
    """One function of a kernel, that is to call the emulator; its types have no memory spaces.

    Code goes to the current insertion point and has the current location; all integers are of type index.
    """

    def __init__(self, function: func.FuncOp, program: Program) -> None:
        self.function = function
        self._program = program
        self._constants: dict[int, ir.Value] = {}
        self._layouts: dict[ir.Value, Layout] = {}
        with ir.InsertionPoint.at_block_begin(function.entry_block), ir.Location.unknown():
            # Constants go before this one, and what the function starts with after it.
            self._start = arith.constant(ir.IndexType.get(), 0).owner

    def site(self, op: ir.OpView) -> int:
        """A number for an operation of the function."""
        sites, line = self._program.sites, source_line(op.location)
        sites.append(f"{op.operation.name} at {line}" if line else f"{op.operation.name} in {self.function.name.value}")
        return len(sites) - 1

    def at_start(self) -> ir.InsertionPoint:
        """Before all that the function did, after the constants."""
        return ir.InsertionPoint.after(self._start)

    def constant(self, value: int) -> ir.Value:
        """A constant, at the start of the function."""
        if value not in self._constants:
            with ir.InsertionPoint(self._start), ir.Location.unknown():
                self._constants[value] = arith.constant(ir.IndexType.get(), value)
        return self._constants[value]

    def call(self, name: str, *arguments: ir.Value | int) -> None:
        """Call a function of the emulator."""
        self._call(name, arguments, [])

    def ask(self, name: str, *arguments: ir.Value | int, result: ir.Type | None = None) -> ir.Value:
        """Call a function of the emulator that returns an index, or a memref of type `result`."""
        return self._call(name, arguments, [result or ir.IndexType.get()]).results[0]

    def _call(self, name: str, arguments: tuple[ir.Value | int, ...], results: list[ir.Type]) -> func.CallOp:
        values = [self.constant(a) if isinstance(a, int) else a for a in arguments]
        callee = f"parc_emulated_{name}"
        if callee not in self._program.declared:
            self._program.declared.add(callee)
            with ir.InsertionPoint.at_block_begin(self._program.module.body), ir.Location.unknown():
                type_ = ir.FunctionType.get([v.type for v in values], results)
                declared = func.FuncOp(callee, type_, visibility="private")
                if any(isinstance(t, ir.MemRefType) for t in results):
                    declared.attributes["llvm.emit_c_interface"] = ir.UnitAttr.get()
        return func.CallOp(results, ir.FlatSymbolRefAttr.get(callee), values)

    def layout(self, buffer: ir.Value) -> Layout:
        """Where the elements of a memref are, computed right after its definition."""
        if buffer not in self._layouts:
            with self._after_definition(buffer), ir.Location.unknown():
                self._layouts[buffer] = self._new_layout(buffer)
        return self._layouts[buffer]

    def _after_definition(self, value: ir.Value) -> ir.InsertionPoint:
        op = defining_op(value)
        if op is not None:
            return ir.InsertionPoint.after(op)
        is_entry = value.owner == self.function.entry_block
        return self.at_start() if is_entry else ir.InsertionPoint.at_block_begin(value.owner)

    def _new_layout(self, buffer: ir.Value) -> Layout:
        type_ = ir.MemRefType(buffer.type)
        metadata = list(memref.ExtractStridedMetadataOp(buffer).results)
        base, offset, *extents = metadata
        sizes, strides = extents[: type_.rank], extents[type_.rank :]
        static_strides, _ = type_.get_strides_and_offset()
        for d in range(type_.rank):
            if not type_.is_dynamic_dim(d):
                sizes[d] = self.constant(type_.shape[d])
            if not type_.is_dynamic_stride_or_offset(static_strides[d]):
                strides[d] = self.constant(static_strides[d])
        start = memref.extract_aligned_pointer_as_index(base)
        address = self.plus(start, self.times(offset, self.constant(byte_size(type_.element_type))))
        return Layout(address, sizes, strides)

    def declare_buffer(self, buffer: ir.Value, number: int) -> None:
        """The kernel may touch this buffer, from its definition on; `number` is its argument's."""
        layout = self.layout(buffer)
        with ir.InsertionPoint.after(layout.address.owner), ir.Location.unknown():
            size = self.constant(byte_size(buffer.type.element_type))
            for extent in layout.sizes:
                size = self.times(size, extent)
            self.call("buffer", layout.address, size, number)

    def element_address(self, buffer: ir.Value, indices: list[ir.Value]) -> ir.Value:
        """The address of the element at these indices."""
        layout = self.layout(buffer)
        position = self.constant(0)
        for index, stride in zip(indices, layout.strides, strict=True):
            position = self.plus(position, self.times(index, stride))
        size = self.constant(byte_size(buffer.type.element_type))
        return self.plus(layout.address, self.times(position, size))

    @staticmethod
    def plus(a: ir.Value, b: ir.Value) -> ir.Value:
        """a + b, without an operation where one is 0."""
        if constant_int(a) == 0:
            return b
        return a if constant_int(b) == 0 else arith.addi(a, b)

    @staticmethod
    def times(a: ir.Value, b: ir.Value) -> ir.Value:
        """a * b, without an operation where one is 0 or 1."""
        if constant_int(a) == 1 or constant_int(b) == 0:
            return b
        return a if constant_int(b) == 1 or constant_int(a) == 0 else arith.muli(a, b)


def byte_size(type_: ir.Type) -> int:
    """The bytes that a value takes in memory."""
    if isinstance(type_, ir.VectorType):
        size = byte_size(type_.element_type)
        for extent in type_.shape:
            size *= extent
        return size
    if isinstance(type_, ir.ComplexType):
        return 2 * byte_size(type_.element_type)
    if isinstance(type_, (ir.IntegerType, ir.FloatType)):
        return -(-type_.width // 8)
    return 8  # an index or a pointer
