"""`distribute-grid`: the entry functions become launches of a grid of thread blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func, gpu, memref

from parc.codegen.blocks import sync
from parc.codegen.blocks.launches import Launches
from parc.codegen.blocks.shared import place_shared_buffers
from parc.codegen.blocks.target import PERSISTENT, BlockTarget, find_target
from parc.codegen.distribution import Distributor, Runners
from parc.codegen.irtools import arguments_of_kind, constant_int, entry_functions, run_pipeline, terminator, walk
from parc.codegen.loops import index
from parc.dialect import BarrierOp
from parc.errors import CompileError
from parc.passbase import Pass

# What is constant is to be so in kernels, too.
OUTLINE = "canonicalize,cse,gpu-launch-sink-index-computations,gpu-kernel-outlining,symbol-dce"
COOPERATIVE = "parc.cooperative"
"""The attribute of a launch whose blocks must all be there at once."""


@dataclass
class DistributeGrid(Pass):
    """The entry functions become launches of a grid of thread blocks.

    A member of a team is a block, whose threads share the calls of kernels; of an `scf.parallel` outside of teams each
    thread of the grid takes every so-manyth iteration.

    There is one launch of each function (it is `parc.cooperative`): barriers of a team are barriers of the grid, whose
    blocks are all there at once and count in the arena's header (`codegen/blocks/sync.py`). With `form=waves` what is
    between two barriers is a launch of its own, and the loops around them are the host's (`blocks/launches.py`).
    Upstream's `gpu-kernel-outlining` then moves the kernels to modules of their own.

        scf.parallel (%i, %j) = (0, 0) to (%n, 8) {      gpu.launch_func @main_kernel::@main_kernel blocks in (...) ...
          memref.store %x, %a[%i, %j]
        }                                                gpu.func @main_kernel(...) kernel {
        "parc.team"() ({                                   scf.for %k = %b * 256 + %t to %n * 8 step %blocks * 256 {
        ^bb0(%tid, %nthreads):                               memref.store %x, %a[%k / 8, %k mod 8]
          ...                                              }
        })                                                 func.call @grid_barrier(%arena)
                                                           ... %b and %blocks for %tid and %nthreads
    """

    name = "distribute-grid"

    target: str = "sm_90"
    blocks: int = 0
    form: str = PERSISTENT

    def run(self, module: ir.Module) -> None:
        target = find_target(self.target, self.blocks, form=self.form)
        if target is None:
            raise CompileError("distribute-grid is for thread blocks; distribute-team is for threads of the CPU")
        with module.context, ir.Location.unknown():
            i64 = ir.IntegerType.get_signless(64)
            module.operation.attributes["parc.blocks"] = ir.IntegerAttr.get(i64, target.blocks)
            for function in entry_functions(module):
                _distribute(function, target)
                if target.is_persistent:
                    _launch_once(function, target)
                else:
                    Launches(function, target).emit_each()
            sync.emit(module)
            run_pipeline(module, OUTLINE, self.name)
            kernels = {_symbol(op): op for op in walk(module.operation, "gpu.module")}
            _describe(module, target)
            for launch in walk(module.operation, "gpu.launch_func"):
                _finish(launch, kernels[ir.SymbolRefAttr(launch.operation.attributes["kernel"]).value[0]])


def _distribute(function: func.FuncOp, target: BlockTarget) -> None:
    """Share the operations of a function over the threads of a grid; a `parc.barrier` is left wherever blocks wait."""
    with ir.InsertionPoint.at_block_begin(function.entry_block):
        grid = _Grid(target)
        # A member of a team is a block, and so has buffers of its own.
        (member,) = arguments_of_kind(function, "thread")
        member.replace_all_uses_with(grid.block)
        place_shared_buffers(function, target)
    Distributor(grid).run(function.entry_block)


def _launch_once(function: func.FuncOp, target: BlockTarget) -> None:
    """Put a function's body into one launch, in which blocks wait for each other."""
    (arena,) = arguments_of_kind(function, "arena")
    waits = walk(function, "parc.barrier", "parc.arrive", "parc.await")
    block = Launches(function, target).emit_one()
    if not waits:
        return
    i32 = ir.IntegerType.get_signless(32)
    with ir.InsertionPoint.at_block_begin(block):
        count = memref.alloca(ir.MemRefType.get([1], i32), [], [])
        memref.store(arith.constant(i32, 0), count, [index(0)])
    for wait in waits:
        with ir.InsertionPoint(wait):
            if wait.operation.name == "parc.barrier":
                _call(sync.GRID_BARRIER, arena)
            elif wait.operation.name == "parc.arrive":
                _call(sync.ARRIVE, arena, count)
            else:
                _call(sync.AWAIT, arena, count, *wait.operation.operands)
        wait.operation.erase()
    with ir.InsertionPoint(terminator(block)):
        _call(sync.LEAVE, arena)


def _call(function: str, *operands: ir.Value) -> None:
    func.CallOp([], ir.FlatSymbolRefAttr.get(function), operands)


def _describe(module: ir.Module, target: BlockTarget) -> None:
    """Set `parc.block`: the threads of a block, the shared memory that it can have, and what the program uses."""
    launches = walk(module.operation, "gpu.launch_func")
    sizes = [constant_int(launch.dynamicSharedMemorySize) or 0 for launch in launches if launch.dynamicSharedMemorySize]
    numbers = {"threads": target.threads, "limit": target.shared_bytes, "used": max(sizes, default=0)}
    i64 = ir.IntegerType.get_signless(64)
    described = {key: ir.IntegerAttr.get(i64, value) for key, value in numbers.items()}
    module.operation.attributes["parc.block"] = ir.DictAttr.get(described)


def _finish(launch: ir.OpView, module: ir.OpView) -> None:
    """Give the kernel of a launch its module's name, which no other has; say whether its blocks wait for each other."""
    name = _symbol(module)
    (kernel,) = walk(module, "gpu.func")
    kernel.attributes["sym_name"] = ir.StringAttr.get(name)
    launch.operation.attributes["kernel"] = ir.SymbolRefAttr.get([name, name])
    functions = {sync.GRID_BARRIER, sync.AWAIT}
    if any(ir.FlatSymbolRefAttr(c.attributes["callee"]).value in functions for c in walk(module, "func.call")):
        launch.operation.attributes[COOPERATIVE] = ir.UnitAttr.get()


def _symbol(op: ir.OpView) -> str:
    return str(ir.StringAttr(op.attributes["sym_name"]).value)


class _Threads(Runners):
    """GPU threads: each takes every so-manyth iteration, so that neighbours touch neighbours in memory."""

    def __init__(self, number: ir.Value, count: ir.Value) -> None:
        self._number, self._count = number, count

    def is_first(self) -> ir.Value:
        return arith.cmpi(arith.CmpIPredicate.eq, self._number, index(0))

    def share(self, total: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        return self._number, total, self._count

    def shared_dimensions(self, counts: Sequence[ir.Value]) -> int:
        return len(counts)


class _Block(_Threads):
    """The threads of one block."""

    shares_calls = True
    waits = ("parc.barrier", "parc.arrive", "parc.await")

    def barrier(self) -> None:
        gpu.barrier()


class _Grid(_Threads):
    """All threads of a grid; their numbers are computed at the insertion point."""

    def __init__(self, target: BlockTarget) -> None:
        self.block, self._blocks = gpu.block_id(gpu.Dimension.x), gpu.grid_dim(gpu.Dimension.x)
        thread, threads = gpu.thread_id(gpu.Dimension.x), index(target.threads)
        self._inside = _Block(thread, threads)
        super().__init__(arith.addi(arith.muli(self.block, threads), thread), arith.muli(self._blocks, threads))

    def barrier(self) -> None:
        BarrierOp()

    def open_team(self, op: ir.OpView) -> None:
        """Distribute the body of the team over the threads of each block, and put it in its place."""
        body = op.operation.regions[0].blocks[0]
        for argument, value in zip(body.arguments, (self.block, self._blocks), strict=True):
            argument.replace_all_uses_with(value)
        Distributor(self._inside).run(body)
        for inner in list(body.operations):
            inner.operation.move_before(op.operation)
        op.operation.erase()
