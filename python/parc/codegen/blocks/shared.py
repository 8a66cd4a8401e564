"""Buffers that teams of thread blocks have in shared memory, and their places in it."""

from math import prod

from torch_mlir import ir
from torch_mlir.dialects import gpu, memref
from torch_mlir.dialects.func import FuncOp

from parc.codegen.blocks.target import BlockTarget, any_bytes, is_workgroup
from parc.codegen.irtools import walk
from parc.codegen.loops import index
from parc.errors import CompileError

ALIGNMENT = 128
"""Of buffers in shared memory, in bytes: one row of its banks."""


def aligned(size: int) -> int:
    """The size in whole rows."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place_shared_buffers(function: FuncOp, target: BlockTarget) -> None:
    """Make the buffers of each team views of the block's dynamic shared memory; teams have the same places.

    CompileError when a block of the target does not have that much.
    """
    teams = walk(function, "parc.team")
    if not any(_buffers(team) for team in teams):
        return
    memory = gpu.dynamic_shared_memory(any_bytes(workgroup=True))
    for team in teams:
        start = 0
        for buffer in _buffers(team):
            result = buffer.operation.results[0]
            with ir.InsertionPoint(buffer), buffer.location:
                result.replace_all_uses_with(memref.ViewOp(result.type, memory, index(start), []).result)
            start += _size(ir.MemRefType(result.type))
            buffer.operation.erase()
        if start > target.shared_bytes:
            raise CompileError(
                f"a kernel needs {start} bytes of shared memory; a block of {target.name} has {target.shared_bytes}",
                team.location,
            )


def shared_end(view: memref.ViewOp) -> int:
    """The byte behind a view of the dynamic shared memory."""
    start = ir.IntegerAttr(view.operation.operands[1].owner.opview.value).value
    return int(start) + _size(ir.MemRefType(view.operation.results[0].type))


def _buffers(team: ir.OpView) -> list[ir.OpView]:
    return [op for op in walk(team, "memref.alloc") if is_workgroup(op.operation.results[0].type)]


def _size(type_: ir.MemRefType) -> int:
    width = 64 if isinstance(type_.element_type, ir.IndexType) else type_.element_type.width
    return aligned(prod(type_.shape) * width // 8)
