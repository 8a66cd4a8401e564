"""`plan-buffers`: every buffer of a call becomes a slice of one arena."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, llvm, memref

from parc.codegen.blocks.target import find_target, is_workgroup
from parc.codegen.irtools import (
    arguments_of_kind,
    defining_op,
    entry_functions,
    insert_arguments,
    is_inside,
    symbol_arguments,
    walk,
)
from parc.codegen.loops import index
from parc.codegen.sizes import affine_of
from parc.errors import CompileError
from parc.passbase import Pass
from parc.runtime.header import header_bytes

# Buffers start on a cache line, behind the header.
ALIGNMENT = 64
# In these, buffers are in use one after another, not only as long as all of the operation runs.
SEQUENTIAL = ("scf.while", "scf.if")
# What a size may be computed by.
SIZE_DIALECTS = ("arith", "affine")


@dataclass
class PlanBuffers(Pass):
    """Every buffer of a call becomes a slice of one arena.

    Buffers that are never in use together share their place. A buffer inside `parc.team` has a copy for each thread.
    For a GPU (`target=sm_90`, of so many `blocks`) those in shared memory stay, and the header has room for its blocks.
    What they are is the module's attribute `parc.arena`: for each place, the buffers that have it and their bytes.

        func.func @main(%T: index {parc.kind = "symbol"}, ...) {
          %a = memref.alloc(%T) : memref<?x8xf32>

        func.func @main(%tid: index, %nthreads: index, %arena: memref<?xi8>, %T: index, ...) {
          %a = memref.view %arena[%offset][%T] : memref<?xi8> to memref<?x8xf32>
        func.func @arena_size(%nthreads: index, %T: index) -> index
    """

    name = "plan-buffers"

    target: str = "cpu"
    blocks: int = 0

    def run(self, module: ir.Module) -> None:
        functions = entry_functions(module)
        blocks = find_target(self.target, self.blocks)
        start = header_bytes(0 if blocks is None else blocks.blocks)
        with module.context, ir.Location.unknown():
            plans = [(f, _plan(f)) for f in functions]
            _describe_arena(module, plans)
            _build_arena_size(module, plans, start)
            for function, slots in plans:
                _use_arena(function, slots, start, is_cpu=blocks is None)


@dataclass
class _Buffer:
    """One allocation; `first` and `last` are the positions of its uses among the function's operations."""

    alloc: memref.AllocOp
    first: int
    last: int

    @property
    def per_thread(self) -> bool:
        return is_inside(self.alloc, "parc.team")

    @property
    def size_key(self) -> tuple[object, ...]:
        """Equal for buffers that surely have the same size."""
        type_ = ir.MemRefType(self.alloc.operation.results[0].type)
        return (type_, self.per_thread, *self.alloc.operation.operands)


def _plan(function: func.FuncOp) -> list[list[_Buffer]]:
    """The function's buffers grouped by slot: the members of a slot are never in use together."""
    places: dict[ir.Operation, tuple[int, int]] = {}
    _number(function.entry_block, places)
    buffers = []
    for alloc in walk(function, "memref.alloc"):
        if is_workgroup(alloc.operation.results[0].type):
            continue
        buffers.append(_Buffer(alloc, *_lifetime(alloc, places)))
    slots: list[list[_Buffer]] = []
    for buffer in sorted(buffers, key=lambda b: b.first):
        free = [slot for slot in slots if slot[-1].last < buffer.first]
        best = next((slot for slot in free if slot[-1].size_key == buffer.size_key), free[0] if free else None)
        if best is None:
            slots.append([buffer])
        else:
            best.append(buffer)
    return slots


def _number(block: ir.Block, places: dict[ir.Operation, tuple[int, int]]) -> None:
    """Number the operations of a block, and those in its loops over sweeps and branches.

    An operation has its own number and the last one inside of it.
    """
    for op in block.operations:
        number = len(places)
        places[op.operation] = (number, number)
        if op.operation.name in SEQUENTIAL:
            for region in op.operation.regions:
                for inner in region.blocks:
                    _number(inner, places)
            places[op.operation] = (number, len(places) - 1)


def _lifetime(alloc: memref.AllocOp, places: Mapping[ir.Operation, tuple[int, int]]) -> tuple[int, int]:
    """The first and last number of the operations that use a buffer.

    A buffer from outside of a loop is in use in all of it; one from inside starts anew with every iteration.
    """
    users = _users(alloc.operation.results[0]) or [alloc.operation]
    home = alloc.operation
    while True:
        if home in places:
            found = [_ancestor(user, home.block) for user in users]
            if all(op is not None for op in found):
                uses = [places[op] for op in found if op is not None]
                return min(first for first, _ in uses), max(last for _, last in uses)
        # It is handed on to what is around.
        home = home.parent.operation


def _ancestor(op: ir.Operation, block: ir.Block) -> ir.Operation | None:
    """The operation of a block that is `op` or has it inside; None where there is none."""
    current: ir.Operation | None = op
    while current is not None and current.block != block:
        parent = current.parent
        current = None if parent is None or parent.operation.name == "builtin.module" else parent.operation
    return current


def _users(value: ir.Value) -> list[ir.Operation]:
    """The operations that use a buffer, directly or through a view of it."""
    users = []
    pending, seen = [value], {value}
    while pending:
        for use in pending.pop().uses:
            owner = use.owner.operation
            users.append(owner)
            # A terminator hands the buffer to the results of the operation around it.
            around = owner.parent.operation if owner.name in ("scf.yield", "scf.condition") else owner
            for result in around.results:
                if isinstance(result.type, ir.MemRefType) and result not in seen:
                    seen.add(result)
                    pending.append(result)
    return users


class _Layout:
    """Emits the computation of the slots' offsets, in bytes, at the current insertion point."""

    def __init__(self, replacements: dict[ir.Value, ir.Value], nthreads: ir.Value, start: int) -> None:
        self._copies = dict(replacements)
        self._nthreads = nthreads
        self.offsets: list[ir.Value] = []
        self.strides: dict[memref.AllocOp, ir.Value] = {}
        self.end = index(start)

    def add(self, slot: Sequence[_Buffer]) -> None:
        """Place one slot behind what has been placed."""
        self.offsets.append(self.end)
        largest = None
        for buffer in slot:
            size = self._bytes(buffer)
            largest = size if largest is None else arith.MaxUIOp(largest, size).result
        self.end = arith.AddIOp(self.end, largest).result

    def sizes(self, alloc: memref.AllocOp) -> list[ir.Value]:
        """The dynamic sizes of a buffer."""
        return [self._copy(v, alloc) for v in alloc.operation.operands]

    def _bytes(self, buffer: _Buffer) -> ir.Value:
        type_ = ir.MemRefType(buffer.alloc.operation.results[0].type)
        count = 1
        for d in range(type_.rank):
            count *= 1 if type_.is_dynamic_dim(d) else type_.get_dim_size(d)
        size = index(count * _element_bytes(type_.element_type))
        for value in self.sizes(buffer.alloc):
            # An extent such as T - 1 is negative for T = 0, where nothing is stored.
            size = arith.MulIOp(size, arith.MaxSIOp(value, index(0)).result).result
        size = arith.AddIOp(size, index(ALIGNMENT - 1)).result
        size = arith.AndIOp(size, index(-ALIGNMENT)).result
        if buffer.per_thread:
            self.strides[buffer.alloc] = size
            size = arith.MulIOp(size, self._nthreads).result
        return size

    def _copy(self, value: ir.Value, alloc: memref.AllocOp) -> ir.Value:
        """Compute a size from the symbols."""
        if value not in self._copies:
            op = defining_op(value)
            if op is None or op.operation.name.split(".")[0] not in SIZE_DIALECTS:
                raise CompileError("the size of this value is not a function of the inputs' sizes", alloc.location)
            operands = [self._copy(v, alloc) for v in op.operation.operands]
            copy = op.operation.clone()
            for i, operand in enumerate(operands):
                copy.operands[i] = operand
            self._copies.update(zip(op.operation.results, copy.results, strict=True))
        return self._copies[value]


def _element_bytes(type_: ir.Type) -> int:
    if isinstance(type_, ir.IndexType):
        return 8
    if isinstance(type_, ir.ComplexType):
        return 2 * _element_bytes(type_.element_type)
    return -(-type_.width // 8)


def _describe_arena(module: ir.Module, plans: Sequence[tuple[func.FuncOp, list[list[_Buffer]]]]) -> None:
    """Set `parc.arena`: the buffers of `@main` by their places."""
    (main, slots), *_ = [(f, slots) for f, slots in plans if f.name.value == "main"]
    positions: dict[ir.Value, int] = {value: i for i, value in enumerate(symbol_arguments(main))}
    described = [ir.ArrayAttr.get([_description(b, positions) for b in slot]) for slot in slots]
    module.operation.attributes["parc.arena"] = ir.ArrayAttr.get(described)


def _description(buffer: _Buffer, positions: dict[ir.Value, int]) -> ir.DictAttr:
    """A buffer's name, that of the array of a system, where it has one; its bytes; and whether each thread has one."""
    location = buffer.alloc.location
    type_ = ir.MemRefType(buffer.alloc.operation.results[0].type)
    size = ir.AffineExpr.get_constant(_element_bytes(type_.element_type))
    sizes = iter(buffer.alloc.operation.operands)
    for d in range(type_.rank):
        dynamic = type_.is_dynamic_dim(d)
        extent = affine_of(next(sizes), positions) if dynamic else ir.AffineExpr.get_constant(type_.get_dim_size(d))
        if extent is None:
            raise CompileError("the size of this value is not a function of the inputs' sizes", location)
        size = size * extent
    attributes: dict[str, ir.Attribute] = {
        "name": ir.StringAttr.get(location.name_str if isinstance(location, ir.NameLoc) else ""),
        "bytes": ir.AffineMapAttr.get(ir.AffineMap.get(0, len(positions), [size])),
    }
    if buffer.per_thread:
        attributes["per_thread"] = ir.UnitAttr.get()
    return ir.DictAttr.get(attributes)


def _build_arena_size(module: ir.Module, plans: Sequence[tuple[func.FuncOp, list[list[_Buffer]]]], start: int) -> None:
    """Add `@arena_size(%nthreads, symbols...)`: the bytes of the arena, enough for each of the entry functions."""
    symbols = next(symbol_arguments(f) for f, _ in plans if f.name.value == "main")

    def size(values: Sequence[ir.Value]) -> ir.Value:
        largest = index(start)
        for _, slots in plans:
            layout = _Layout(dict(zip(symbols, values[1:], strict=True)), values[0], start)
            for slot in slots:
                layout.add(slot)
            largest = arith.MaxUIOp(largest, layout.end).result
        return largest

    _build_function(module, "arena_size", [ir.IndexType.get()] * (1 + len(symbols)), size)


def _build_function(
    module: ir.Module, name: str, types: Sequence[ir.Type], body: Callable[[Sequence[ir.Value]], ir.Value]
) -> None:
    with ir.InsertionPoint(module.body):
        function = func.FuncOp(name, ir.FunctionType.get(list(types), [ir.IndexType.get()]))
        block = function.add_entry_block()
        with ir.InsertionPoint(block):
            func.ReturnOp([body(list(block.arguments))])


def _unknown(value: ir.Value) -> ir.Value:
    """The value, by an empty piece of assembly that LLVM cannot see through.

    An offset is a sum of the sizes of all buffers before it: LLVM would carry that through the address of every access
    and take minutes for programs of some hundred buffers.
    """
    i64 = ir.IntegerType.get_signless(64)
    known = arith.index_cast(i64, value)
    unknown = llvm.InlineAsmOp(i64, [known], "", "=r,0").result
    return arith.index_cast(ir.IndexType.get(), unknown)


def _use_arena(function: func.FuncOp, slots: list[list[_Buffer]], header: int, *, is_cpu: bool) -> None:
    """Add the arguments of a team's program and replace every allocation by a view of the arena."""
    index_type, byte = ir.IndexType.get(), ir.IntegerType.get_signless(8)
    arena_type = ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], byte)
    insert_arguments(
        function,
        0,
        [
            (index_type, {"parc.kind": "thread"}),
            (index_type, {"parc.kind": "threads"}),
            (arena_type, {"parc.kind": "arena"}),
        ],
    )
    (tid,), (nthreads,), (arena,) = (arguments_of_kind(function, k) for k in ("thread", "threads", "arena"))
    symbols = symbol_arguments(function)
    with ir.InsertionPoint.at_block_begin(function.entry_block):
        layout = _Layout(dict(zip(symbols, symbols, strict=True)), nthreads, header)
        for slot in slots:
            layout.add(slot)
        for slot, start in zip(slots, layout.offsets, strict=True):
            start = _unknown(start) if is_cpu else start
            for buffer in slot:
                offset = start
                if buffer.per_thread:
                    offset = arith.AddIOp(start, arith.MulIOp(tid, layout.strides[buffer.alloc]).result).result
                result = buffer.alloc.operation.results[0]
                sizes = layout.sizes(buffer.alloc)
                view = memref.ViewOp(result.type, arena, offset, sizes, loc=buffer.alloc.location)
                result.replace_all_uses_with(view.result)
    for slot in slots:
        for buffer in slot:
            buffer.alloc.operation.erase()
