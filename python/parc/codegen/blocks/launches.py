"""Launches of kernels: a function's code for the threads of a grid in one launch, or cut at its barriers.

What a launch has to do ends where blocks wait for each other. The loops and conditions around barriers stay with the
host, and so does the arithmetic that they need; what depends on the block or thread is computed again in each launch.
"""

from torch_mlir import ir
from torch_mlir.dialects import arith, func, gpu

from parc.codegen.blocks.shared import shared_end
from parc.codegen.blocks.target import BlockTarget
from parc.codegen.distribution import VIEWS
from parc.codegen.irtools import arguments_of_kind, captured_values, clone_with, defining_op, walk
from parc.codegen.loops import index
from parc.errors import CompileError

_CANNOT = "this program cannot be launched wave by wave"
_WAITS = ("parc.barrier", "parc.await")
# Kernels take whole buffers: parts of them are taken inside.
_LOCAL = ("gpu.thread_id", "gpu.block_id", "gpu.dynamic_shared_memory", *VIEWS)
_PURE_DIALECTS = ("arith", "affine", "math")
_PURE = (*_LOCAL, "memref.view", "memref.dim")


class Launches:
    """The launches of one function, whose operations are those of the threads of a grid."""

    def __init__(self, function: func.FuncOp, target: BlockTarget) -> None:
        self._function, self._target = function, target
        (self._blocks,) = arguments_of_kind(function, "threads")
        self._local: dict[ir.Value, ir.Operation] = {}
        """What differs between the threads or blocks of a launch, and is computed without effects."""
        self._loaded: set[ir.Value] = set()
        """What launches compute from memory."""
        views = [v for v in walk(function, "memref.view") if _is_shared(v)]
        self._shared = max((shared_end(v) for v in views), default=0)

    def emit_one(self) -> ir.Block:
        """Make one launch of all; returns its block.

        What the host can compute, it does: a kernel's arguments are constants to it, which take no registers.
        """
        body = list(self._function.entry_block.operations)
        inside: list[ir.OpView] = []
        values: set[ir.Value] = set()
        for op in body[:-1]:
            if op.operation.name in _LOCAL or not _is_pure(op) or any(v in values for v in op.operation.operands):
                inside.append(op)
                values.update(op.operation.results)
        with ir.InsertionPoint(body[-1]):
            block = self._open()
        end = block.operations[len(block.operations) - 1]
        for op in inside:
            op.operation.move_before(end.operation)
        return block

    def _open(self) -> ir.Block:
        """An empty launch at the insertion point; its block."""
        one, size = index(1), arith.constant(ir.IntegerType.get_signless(32), self._shared)
        threads = index(self._target.threads)
        launch = gpu.LaunchOp([self._blocks, one, one], [threads, one, one], None, size if self._shared else None)
        block = launch.operation.regions[0].blocks[0]
        with ir.InsertionPoint(block):
            gpu.TerminatorOp()
        return block

    def emit_each(self) -> None:
        """Cut the function at its barriers, and launch each part."""
        for grid in walk(self._function, "gpu.grid_dim"):
            grid.operation.results[0].replace_all_uses_with(self._blocks)
            grid.operation.erase()
        self._cut(self._function.entry_block)
        for op in reversed([op for op in walk(self._function) if any(r in self._local for r in op.operation.results)]):
            if not any(True for r in op.operation.results for _ in r.uses):
                op.operation.erase()

    def _cut(self, block: ir.Block) -> None:
        """Make launches of the operations of a block; its loops around barriers are entered."""
        segment: list[ir.OpView] = []
        for op in list(block.operations):
            name = op.operation.name
            if name in _WAITS or name == "parc.arrive":
                if name in _WAITS:
                    self._close(segment)
                op.operation.erase()
            elif _is_pure(op) and not any(v in self._loaded for v in op.operation.operands):
                if name in _LOCAL or any(v in self._local for v in op.operation.operands):
                    self._local.update(dict.fromkeys(op.operation.results, op.operation))
            elif walk(op, *_WAITS):
                self._close(segment)
                self._check_uniform(op)
                for region in op.operation.regions:
                    for inside in region.blocks:
                        self._cut(inside)
            elif name in ("func.return", "scf.yield"):
                self._close(segment)
            else:
                segment.append(op)
                self._loaded.update(op.operation.results)

    def _close(self, segment: list[ir.OpView]) -> None:
        """Launch some operations."""
        if not segment:
            return
        with ir.InsertionPoint(segment[-1]):
            block = self._open()
        end = block.operations[len(block.operations) - 1]
        copies: dict[ir.Value, ir.Value] = {}
        own = {result for op in segment for result in op.operation.results}
        for op in segment:
            with ir.InsertionPoint(end):
                for value in captured_values(op):
                    if value in self._loaded and value not in own:
                        message = f"{_CANNOT}: a value is loaded before threads wait, and used after"
                        raise CompileError(message, op.location)
                    self._copy(value, copies)
            op.operation.move_before(end.operation)
            for inner in (op, *walk(op)):
                for i, operand in enumerate(inner.operation.operands):
                    if operand in copies:
                        inner.operation.operands[i] = copies[operand]
        segment.clear()

    def _copy(self, value: ir.Value, copies: dict[ir.Value, ir.Value]) -> None:
        """Compute a value of the threads at the insertion point."""
        if value in self._local and value not in copies:
            for operand in self._local[value].operands:
                self._copy(operand, copies)
            clone_with(self._local[value], copies)

    def _check_uniform(self, op: ir.OpView) -> None:
        """The host goes through this loop or condition: it must know its bounds."""
        if any(v in self._local for v in op.operation.operands):
            raise CompileError("blocks wait for each other where not all of them come to", op.location)
        if any(v in self._loaded for v in op.operation.operands):
            raise CompileError(f"{_CANNOT}: whether threads wait for each other depends on data", op.location)


def _is_pure(op: ir.OpView) -> bool:
    name = op.operation.name
    return name in _PURE or name.split(".")[0] in _PURE_DIALECTS


def _is_shared(view: ir.OpView) -> bool:
    owner = defining_op(view.operation.operands[0])
    return owner is not None and owner.operation.name == "gpu.dynamic_shared_memory"
