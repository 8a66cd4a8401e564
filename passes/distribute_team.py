"""`distribute-team`: the entry functions become programs that every thread of the team runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch_mlir import ir
from torch_mlir.dialects import arith, func

from parc.codegen.distribution import Distributor, Runners
from parc.codegen.irtools import arguments_of_kind, constant_int, entry_functions, walk
from parc.codegen.loops import index, share
from parc.passbase import Pass

BARRIER = "parc_team_barrier"


@dataclass
class DistributeTeam(Pass):
    """The entry functions become programs that every thread of the team runs.

    `parc.team` bodies stay as they are; of an `scf.parallel` each thread runs its part of the outer dimensions; thread
    0 alone does what else writes memory. A barrier separates what touches the same buffer.

        scf.parallel (%i, %j) = (0, 0) to (%n, 8) {        %lo, %hi = the thread's share of 0..%n
          memref.store %x, %a[%i, %j]                      scf.for %i = %lo to %hi { scf.for %j = 0 to 8 {
        }                                                    memref.store %x, %a[%i, %j] } }
        "parc.team"() ({ ^bb0(%tid, %nthreads): ... })     func.call @parc_team_barrier()
                                                           ...
    """

    name = "distribute-team"

    def run(self, module: ir.Module) -> None:
        with module.context, ir.Location.unknown():
            with ir.InsertionPoint.at_block_begin(module.body):
                func.FuncOp(BARRIER, ir.FunctionType.get([], []), visibility="private")
            for function in entry_functions(module):
                (tid,), (nthreads,) = (arguments_of_kind(function, kind) for kind in ("thread", "threads"))
                Distributor(_Team(tid, nthreads)).run(function.entry_block)
                for wait in walk(function, "parc.barrier", "parc.arrive", "parc.await"):
                    # To wait for some members, threads wait for all.
                    if wait.operation.name != "parc.arrive":
                        with ir.InsertionPoint(wait):
                            _call_barrier()
                    wait.operation.erase()


class _Team(Runners):
    """The threads of a team, at the arguments with their number and how many they are."""

    def __init__(self, tid: ir.Value, nthreads: ir.Value) -> None:
        self._tid = tid
        self._nthreads = nthreads

    def barrier(self) -> None:
        _call_barrier()

    def is_first(self) -> ir.Value:
        return arith.cmpi(arith.CmpIPredicate.eq, self._tid, index(0))

    def share(self, total: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        return (*share(total, self._tid, self._nthreads), index(1))

    def shared_dimensions(self, counts: Sequence[ir.Value]) -> int:
        """All but the innermost, unless only that one is left."""
        outer = counts[:-1]
        return len(counts) if all(constant_int(c) == 1 for c in outer) else len(outer)

    def open_team(self, op: ir.OpView) -> None:
        """Put the body of the team in its place."""
        block = op.operation.regions[0].blocks[0]
        for argument, value in zip(block.arguments, (self._tid, self._nthreads), strict=True):
            argument.replace_all_uses_with(value)
        for inner in list(block.operations):
            inner.operation.move_before(op.operation)
        op.operation.erase()


def _call_barrier() -> None:
    func.CallOp([], ir.FlatSymbolRefAttr.get(BARRIER), [])
