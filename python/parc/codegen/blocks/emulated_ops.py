"""What each operation of a kernel becomes for the emulator: calls of it, before the operation or instead of it."""

from collections.abc import Callable

from torch_mlir import ir
from torch_mlir.dialects import arith, math, memref, vector

from parc.codegen.blocks.emulated_code import PLACE_CONSTANT, EmulatedCode, byte_size
from parc.codegen.irtools import constant_int, defining_op, walk
from parc.errors import CompileError

WARP = 32
_MAX_LANES = 64
"""Lanes of a masked access: its mask is one word."""
_VIEWS = (
    "memref.assume_alignment",
    "memref.cast",
    "memref.collapse_shape",
    "memref.expand_shape",
    "memref.reinterpret_cast",
    "memref.subview",
    "memref.transpose",
    "memref.view",
)
# What may take or return memory and does not touch it.
_PASSIVE = (
    *_VIEWS,
    "arith.select",
    "cf.br",
    "cf.cond_br",
    "func.call",
    "func.return",
    "llvm.getelementptr",
    "llvm.inttoptr",
    "llvm.ptrtoint",
    "memref.alloca",
    "memref.dim",
    "memref.extract_aligned_pointer_as_index",
    "memref.extract_strided_metadata",
    "scf.condition",
    "scf.for",
    "scf.if",
    "scf.while",
    "scf.yield",
)
# As in the native runtime: what an atomic access does, for whom, and LLVM's orderings as bits for acquire and release.
_READS, _WRITES = 1, 2
_BLOCK, _DEVICE = 1, 2
_SCOPES = {"": _DEVICE, "device": _DEVICE, "block": _BLOCK}
_ORDERINGS = {2: 0, 4: 1, 5: 2, 6: 3, 7: 3}
_RELAXED = 0
_SHUFFLES = {"xor": 0, "up": 1, "down": 2, "idx": 3}
# The factors of a matrix product: their number for the emulator, and elements in a register.
_FACTORS = {"f16": (0, 2), "bf16": (1, 2), "f32": (2, 1)}


def emulate(code: EmulatedCode, is_kernel: bool) -> None:
    """Make a function tell the emulator of everything that it does with memory and with other threads, in place.

    Raises `CompileError` at an operation that the emulator would not see.
    """
    function = code.function
    operations = walk(function)
    if is_kernel:
        with function.location:
            _replace_attributions(code)
        for number, argument in enumerate(function.arguments):
            if isinstance(argument.type, ir.MemRefType):
                code.declare_buffer(argument, number)
    for op in operations:
        handler = _HANDLERS.get(op.operation.name)
        if handler is None:
            _check_passive(op)
            continue
        with ir.InsertionPoint(op), op.location:
            handler(code, op)


def _check_passive(op: ir.OpView) -> None:
    """An operation without a handler must not touch memory or other threads."""
    name = op.operation.name
    touches = any(_is_memory(v.type) for v in (*op.operation.operands, *op.operation.results))
    if (touches and name not in _PASSIVE) or name.startswith(
        ("gpu.", "nvgpu.", "nvvm.", "llvm.inline_asm", "llvm.fence")
    ):
        raise CompileError(f"{name} cannot be emulated", op.location)


def _is_memory(type_: ir.Type) -> bool:
    return isinstance(type_, ir.MemRefType) or str(type_).startswith("!llvm.ptr")


def _replace_attributions(code: EmulatedCode) -> None:
    """The kernel's own arrays in shared memory are arguments of its first block, after those of the function."""
    block = code.function.entry_block
    inputs = len(ir.FunctionType(code.function.type).inputs)
    for number, array in enumerate(list(block.arguments)[inputs:]):
        size = byte_size(array.type.element_type)
        for extent in array.type.shape:
            size *= extent
        with code.at_start():
            bytes_ = code.ask("static_shared", number, size, result=_bytes_type())
            array.replace_all_uses_with(memref.ViewOp(array.type, bytes_, code.constant(0), []).result)
    for number in reversed(range(inputs, len(block.arguments))):
        block.erase_argument(number)


def _bytes_type() -> ir.MemRefType:
    return ir.MemRefType.get([ir.ShapedType.get_dynamic_size()], ir.IntegerType.get_signless(8))


# Threads, blocks and shared memory


def _replace(op: ir.OpView, *values: ir.Value) -> None:
    for result, value in zip(op.operation.results, values, strict=True):
        result.replace_all_uses_with(value)
    op.operation.erase()


def _number_of(name: str, otherwise: int) -> Callable[[EmulatedCode, ir.OpView], None]:
    """The handler of an operation with a dimension: `x` is asked for, the others are constant."""

    def handler(code: EmulatedCode, op: ir.OpView) -> None:
        is_x = "dim x" in str(op.operation.attributes["dimension"])
        _replace(op, code.ask(name) if is_x else code.constant(otherwise))

    return handler


def _global_id(code: EmulatedCode, op: ir.OpView) -> None:
    if "dim x" in str(op.operation.attributes["dimension"]):
        first = arith.muli(code.ask("block"), code.ask("block_size"))
        _replace(op, arith.addi(first, code.ask("thread")))
    else:
        _replace(op, code.constant(0))


def _lane_id(code: EmulatedCode, op: ir.OpView) -> None:
    _replace(op, arith.remui(code.ask("thread"), code.constant(WARP)))


def _subgroup_id(code: EmulatedCode, op: ir.OpView) -> None:
    _replace(op, arith.divui(code.ask("thread"), code.constant(WARP)))


def _subgroup_size(code: EmulatedCode, op: ir.OpView) -> None:
    _replace(op, code.constant(WARP))


def _num_subgroups(code: EmulatedCode, op: ir.OpView) -> None:
    _replace(op, arith.ceildivui(code.ask("block_size"), code.constant(WARP)))


def _dynamic_shared(code: EmulatedCode, op: ir.OpView) -> None:
    _replace(op, code.ask("dynamic_shared", result=op.operation.results[0].type))


def _barrier(code: EmulatedCode, op: ir.OpView) -> None:
    scope = str(op.operation.attributes["scope"]) if "scope" in op.operation.attributes else "workgroup"
    if "cluster" in scope:
        raise CompileError("a barrier of a cluster cannot be emulated", op.location)
    code.call("warp_barrier" if "subgroup" in scope else "barrier", code.site(op))
    op.operation.erase()


def _shuffle(code: EmulatedCode, op: ir.OpView) -> None:
    value, offset, width = op.operation.operands
    mode = str(op.operation.attributes["mode"]).removeprefix("#gpu<shuffle_mode ").removesuffix(">")
    index = ir.IndexType.get()
    lanes = (arith.index_cast(index, offset), arith.index_cast(index, width))
    found = code.ask("shuffle", _to_word(value), *lanes, _SHUFFLES[mode], code.site(op))
    valid = arith.cmpi(arith.CmpIPredicate.ne, code.ask("shuffle_valid"), code.constant(0))
    _replace(op, _from_word(found, value.type), valid)


def _to_word(value: ir.Value) -> ir.Value:
    """The bits of a value of at most 64 of them, as an index."""
    bits = _integer(8 * byte_size(value.type))
    if isinstance(value.type, ir.VectorType):
        value = vector.extract(vector.bitcast(ir.VectorType.get([1], bits), value), [], [0])
    elif isinstance(value.type, ir.FloatType):
        value = arith.bitcast(bits, value)
    return value if isinstance(value.type, ir.IndexType) else arith.index_castui(ir.IndexType.get(), value)


def _from_word(word: ir.Value, type_: ir.Type) -> ir.Value:
    """The value of a type that has these bits."""
    if isinstance(type_, ir.IndexType):
        return word
    bits = type_ if isinstance(type_, ir.IntegerType) else _integer(8 * byte_size(type_))
    value = arith.index_castui(bits, word)
    if isinstance(type_, ir.VectorType):
        return vector.bitcast(type_, vector.broadcast(ir.VectorType.get([1], bits), value))
    return arith.bitcast(type_, value) if isinstance(type_, ir.FloatType) else value


def _integer(width: int) -> ir.IntegerType:
    return ir.IntegerType.get_signless(width)


def _mma(code: EmulatedCode, op: ir.OpView) -> None:
    fragments = list(op.operation.operands)
    a, b, c = (ir.VectorType(f.type) for f in fragments)
    rows, columns, depth = (ir.IntegerAttr(n).value for n in ir.ArrayAttr(op.operation.attributes["mmaShape"]))
    factor = str(a.element_type)
    number, packed = _FACTORS.get(factor, (0, 0))
    registers = depth // 2 // max(packed, 1)
    shapes = [[registers, packed], [registers // 2, packed], [2, 2]]
    known = (rows, columns) == (16, 8) and factor in _FACTORS and isinstance(c.element_type, ir.F32Type)
    if not known or [list(t.shape) for t in (a, b, c)] != shapes:
        raise CompileError(
            f"the matrix product {a} x {b} + {c} of shape {rows}x{columns}x{depth} cannot be emulated", op.location
        )
    places = [_place(code, f.type) for f in (*fragments, op.operation.results[0])]
    for fragment, place in zip(fragments, places, strict=False):
        flat = ir.VectorType.get(place.type.shape, place.type.element_type)
        vector.store(vector.shape_cast(flat, fragment), place, [code.constant(0)])
    addresses = [memref.extract_aligned_pointer_as_index(place) for place in places]
    code.call("mma", *addresses, number, depth, code.site(op))
    flat = ir.VectorType.get(places[3].type.shape, c.element_type)
    _replace(op, vector.shape_cast(c, vector.load(flat, places[3], [code.constant(0)])))


def _place(code: EmulatedCode, type_: ir.VectorType) -> ir.Value:
    """Memory of the thread's own for a fragment."""
    extent = 1
    for n in type_.shape:
        extent *= n
    with code.at_start():
        return memref.alloca(ir.MemRefType.get([extent], type_.element_type), [], [])


# Memory


def _access(buffer_at: int, *, write: bool) -> Callable[[EmulatedCode, ir.OpView], None]:
    """The handler of a load or store, whose operands from `buffer_at` on are the memref and the indices."""

    def handler(code: EmulatedCode, op: ir.OpView) -> None:
        buffer, *indices = list(op.operation.operands)[buffer_at:]
        type_ = op.operation.operands[0].type if write else op.operation.results[0].type
        size, element = byte_size(type_), byte_size(buffer.type.element_type)
        site = code.site(op)
        _check_indices(code, buffer, indices, size // element, site)
        if not _is_private(buffer):
            code.call("access", code.element_address(buffer, indices), size, _alignment(op, element), int(write), site)

    return handler


def _masked_access(code: EmulatedCode, op: ir.OpView) -> None:
    buffer, *indices = list(op.operation.operands)[:-2]
    mask = op.operation.operands[-2]
    write = op.operation.name == "vector.maskedstore"
    element, site = byte_size(buffer.type.element_type), code.site(op)
    word = _mask_word(code, mask)
    *outer, last = zip(indices, code.layout(buffer).sizes, strict=True)
    for d, (index, extent) in enumerate(outer):
        _check_index(code, index, 1, extent, d, site)
    code.call("masked_index", last[0], word, last[1], len(outer), site)
    if not _is_private(buffer):
        address = code.element_address(buffer, indices)
        code.call("masked_access", address, element, _alignment(op, element), word, int(write), site)


def _mask_word(code: EmulatedCode, mask: ir.Value) -> ir.Value:
    """The lanes of a mask as the bits of a word."""
    (lanes,) = ir.VectorType(mask.type).shape
    if lanes > _MAX_LANES:
        raise CompileError(f"a masked access of {lanes} lanes cannot be emulated", ir.Location.current)
    word = _integer(_MAX_LANES)
    words = ir.VectorType.get([lanes], word)
    bits = [ir.IntegerAttr.get(word, (1 << i) - ((1 << 64) if i == 63 else 0)) for i in range(lanes)]
    weights = arith.constant(words, ir.DenseElementsAttr.get(bits, words))
    zero = arith.constant(words, ir.DenseElementsAttr.get_splat(words, ir.IntegerAttr.get(word, 0)))
    chosen = vector.reduction(word, vector.CombiningKind.OR, arith.select(mask, weights, zero))
    return arith.index_cast(ir.IndexType.get(), chosen)


def _atomic_rmw(code: EmulatedCode, op: ir.OpView) -> None:
    # As on devices (docs/gpu.md), it orders nothing else.
    _, buffer, *indices = op.operation.operands
    site = code.site(op)
    _check_indices(code, buffer, indices, 1, site)
    size = byte_size(buffer.type.element_type)
    address = code.element_address(buffer, indices)
    code.call("atomic", address, size, _READS | _WRITES, _RELAXED, _DEVICE, site)


def _llvm_access(mode: int) -> Callable[[EmulatedCode, ir.OpView], None]:
    """The handler of an access to a pointer, the last operand of a store and the first of any other."""

    def handler(code: EmulatedCode, op: ir.OpView) -> None:
        attributes = op.operation.attributes
        pointer = op.operation.operands[1 if mode == _WRITES else 0]
        type_ = (
            op.operation.results[0].type if mode == _READS else op.operation.operands[-1 if mode != _WRITES else 0].type
        )
        address = arith.index_cast(ir.IndexType.get(), _pointer_to_integer(pointer))
        size, site = byte_size(type_), code.site(op)
        key = "success_ordering" if op.operation.name == "llvm.cmpxchg" else "ordering"
        ordering = ir.IntegerAttr(attributes[key]).value if key in attributes else 0
        if ordering == 0:
            code.call("access", address, size, _alignment(op, 1), int(mode == _WRITES), site)
            return
        scope = ir.StringAttr(attributes["syncscope"]).value if "syncscope" in attributes else ""
        if ordering not in _ORDERINGS or scope not in _SCOPES:
            raise CompileError(f"an atomic access of the scope '{scope}' cannot be emulated", op.location)
        code.call("atomic", address, size, mode, _ORDERINGS[ordering], _SCOPES[scope], site)

    return handler


def _pointer_to_integer(pointer: ir.Value) -> ir.Value:
    return ir.Operation.create("llvm.ptrtoint", results=[_integer(64)], operands=[pointer]).results[0]


def _get_global(code: EmulatedCode, op: ir.OpView) -> None:
    code.declare_buffer(op.operation.results[0], PLACE_CONSTANT)


def _check_indices(code: EmulatedCode, buffer: ir.Value, indices: list[ir.Value], lanes: int, site: int) -> None:
    """Each index is inside its dimension; of the last, so are all lanes."""
    for d, (index, extent) in enumerate(zip(indices, code.layout(buffer).sizes, strict=True)):
        _check_index(code, index, lanes if d == len(indices) - 1 else 1, extent, d, site)


def _check_index(code: EmulatedCode, index: ir.Value, lanes: int, extent: ir.Value, dimension: int, site: int) -> None:
    known, size = constant_int(index), constant_int(extent)
    if known is None or size is None or not 0 <= known <= size - lanes:
        code.call("index", index, lanes, extent, dimension, site)


def _alignment(op: ir.OpView, otherwise: int) -> int:
    """What the operation promises of its address, in bytes."""
    attributes = op.operation.attributes
    return max(ir.IntegerAttr(attributes["alignment"]).value, 1) if "alignment" in attributes else otherwise


def _is_private(buffer: ir.Value) -> bool:
    """Whether this is memory of the thread's own for sure."""
    op = defining_op(buffer)
    while op is not None and op.operation.name in _VIEWS:
        op = defining_op(op.operation.operands[0])
    return op is not None and op.operation.name == "memref.alloca"


# Functions that devices have and hosts have not


def _rsqrt(code: EmulatedCode, op: ir.OpView) -> None:
    type_ = op.operation.results[0].type
    element = type_.element_type if isinstance(type_, ir.VectorType) else type_
    one: ir.Attribute = ir.FloatAttr.get(element, 1.0)
    if isinstance(type_, ir.VectorType):
        one = ir.DenseElementsAttr.get_splat(type_, one)
    _replace(op, arith.divf(arith.constant(type_, one), math.sqrt(op.operation.operands[0])))


_HANDLERS: dict[str, Callable[[EmulatedCode, ir.OpView], None]] = {
    "gpu.barrier": _barrier,
    "gpu.block_dim": _number_of("block_size", 1),
    "gpu.block_id": _number_of("block", 0),
    "gpu.dynamic_shared_memory": _dynamic_shared,
    "gpu.global_id": _global_id,
    "gpu.grid_dim": _number_of("grid_size", 1),
    "gpu.lane_id": _lane_id,
    "gpu.num_subgroups": _num_subgroups,
    "gpu.shuffle": _shuffle,
    "gpu.subgroup_id": _subgroup_id,
    "gpu.subgroup_size": _subgroup_size,
    "gpu.thread_id": _number_of("thread", 0),
    "llvm.atomicrmw": _llvm_access(_READS | _WRITES),
    "llvm.cmpxchg": _llvm_access(_READS | _WRITES),
    "llvm.load": _llvm_access(_READS),
    "llvm.store": _llvm_access(_WRITES),
    "math.rsqrt": _rsqrt,
    "memref.atomic_rmw": _atomic_rmw,
    "memref.get_global": _get_global,
    "memref.load": _access(0, write=False),
    "memref.store": _access(1, write=True),
    "nvgpu.mma.sync": _mma,
    "vector.load": _access(0, write=False),
    "vector.maskedload": _masked_access,
    "vector.maskedstore": _masked_access,
    "vector.store": _access(1, write=True),
}
