"""Who runs what: the operations of a program that several run at once, and barriers between those that meet in memory.

The *runners* of a program are the threads of a team, all threads of a grid, or those of one block. All go through the
same control flow; each takes a share of parallel loops, and one alone does what else writes memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch_mlir import ir
from torch_mlir.dialects import arith, func, memref, scf

from parc.codegen.irtools import constant_int, defining_op, terminator, walk
from parc.codegen.loops import delinearize, index

READS = ("memref.load", "vector.load", "vector.transfer_read", "vector.gather", "vector.maskedload")
VIEWS = (
    "memref.subview",
    "memref.cast",
    "memref.collapse_shape",
    "memref.expand_shape",
    "memref.reinterpret_cast",
    "memref.transpose",
)


class Runners:
    """Who runs a program; subclasses emit at the insertion point."""

    shares_calls = False
    """Do all run what is called, and share its work inside?"""
    waits: tuple[str, ...] = ()
    """Operations after which nothing is pending."""

    def barrier(self) -> None:
        """All wait for all."""
        raise NotImplementedError

    def is_first(self) -> ir.Value:
        """Whether this is the one that does what is not shared."""
        raise NotImplementedError

    def share(self, total: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """This one's part of 0..total as the bounds and the step of a loop."""
        raise NotImplementedError

    def shared_dimensions(self, counts: Sequence[ir.Value]) -> int:
        """How many leading dimensions of a parallel loop are shared."""
        raise NotImplementedError

    def open_team(self, op: ir.OpView) -> None:
        """Replace a `parc.team`, after a barrier."""
        raise NotImplementedError


# A buffer as far as barriers are concerned: the function argument, or the place in the arena; None is any buffer.
Root: TypeAlias = ir.Value | None


@dataclass
class _Accesses:
    """The buffers that some code reads and writes."""

    reads: set[Root] = field(default_factory=set)
    writes: set[Root] = field(default_factory=set)

    def conflicts(self, later: "_Accesses") -> bool:
        """Whether `later` must wait for every thread to finish this."""
        return _meet(self.writes, later.reads | later.writes) or _meet(self.reads, later.writes)

    def add(self, later: "_Accesses") -> None:
        self.reads |= later.reads
        self.writes |= later.writes


def _meet(a: set[Root], b: set[Root]) -> bool:
    return bool(a and b) and (None in a or None in b or not a.isdisjoint(b))


EVERYTHING = _Accesses({None}, {None})


class Distributor:
    """Rewrites the blocks of one function; `_pending` is what has been accessed since the last barrier."""

    def __init__(self, runners: Runners) -> None:
        self._runners = runners
        self._pending = _Accesses()

    def run(self, block: ir.Block) -> None:
        """Distribute the operations of a block that all execute."""
        alone: scf.IfOp | None = None
        for op in list(block.operations):
            accesses = _accesses(op)
            name = op.operation.name
            if name == "parc.team":
                self._wait_for(op, EVERYTHING)
                self._runners.open_team(op)
            elif name in self._runners.waits:
                self._pending = _Accesses()
            elif name == "func.call" and self._runners.shares_calls:
                self._wait_for(op, accesses)
            elif name == "scf.parallel" and not op.operation.results:
                self._wait_for(op, accesses)
                self._share(op)
            elif op.operation.regions and (op.operation.results or walk(op, *self._entered)):
                self._enter(op)
            elif accesses.writes:
                if alone is None or self._pending.conflicts(accesses):
                    self._wait_for(op, accesses)
                    alone = self._alone(op)
                    self._pending.add(accesses)
                    continue
                op.operation.move_before(terminator(alone.then_block))
                self._pending.add(accesses)
                continue
            elif accesses.reads:
                self._wait_for(op, accesses)
            alone = None

    @property
    def _entered(self) -> tuple[str, ...]:
        """What makes all of them enter an operation that contains it."""
        calls = ("func.call",) if self._runners.shares_calls else ()
        return ("scf.parallel", "parc.team", *calls, *self._runners.waits)

    def _wait_for(self, op: ir.OpView, accesses: _Accesses) -> None:
        """Put a barrier before `op` if what it accesses may still be in use."""
        if self._pending.conflicts(accesses):
            with ir.InsertionPoint(op):
                self._runners.barrier()
            self._pending = _Accesses()
        self._pending.add(accesses)

    def _enter(self, op: ir.OpView) -> None:
        """Every thread runs the control flow of `op`; its blocks are distributed."""
        self._wait_for(op, EVERYTHING)
        for region in op.operation.regions:
            for block in region.blocks:
                self._pending = _Accesses()
                self.run(block)
                # The next iteration, or what follows, starts from a clean state.
                self._wait_for(terminator(block).opview, EVERYTHING)
        self._pending = _Accesses()

    def _alone(self, op: ir.OpView) -> scf.IfOp:
        """Let the first of them alone run `op`."""
        with ir.InsertionPoint(op), op.location:
            branch = scf.IfOp(self._runners.is_first())
            with ir.InsertionPoint(branch.then_block):
                end = scf.YieldOp([])
        op.operation.move_before(end.operation)
        return branch

    def _share(self, op: ir.OpView) -> None:
        """Replace an `scf.parallel` by loops over a share of it."""
        operands = list(op.operation.operands)
        rank = len(operands) // 3
        bounds = [(operands[d], operands[rank + d], operands[2 * rank + d]) for d in range(rank)]
        body = op.operation.regions[0].blocks[0]
        ivs: list[ir.Value] = []

        def nest(rest: list[tuple[ir.Value, ir.Value, ir.Value]]) -> None:
            if not rest:
                _fill(body, ivs)
                return
            loop = scf.ForOp(*rest[0])
            ivs.append(loop.induction_variable)
            with ir.InsertionPoint(loop.body):
                nest(rest[1:])
                scf.YieldOp([])

        with ir.InsertionPoint(op), op.location:
            counts = [_count(*b) for b in bounds]
            end = self._runners.shared_dimensions(counts)
            total = counts[0]
            for count in counts[1:end]:
                total = arith.muli(total, count)
            loop = scf.ForOp(*self._runners.share(total))
            with ir.InsertionPoint(loop.body):
                positions = delinearize(loop.induction_variable, counts[:end])
                ivs = [_at(lower, step, i) for (lower, _, step), i in zip(bounds, positions, strict=False)]
                nest(bounds[end:])
                scf.YieldOp([])
        op.operation.erase()


def _count(lower: ir.Value, upper: ir.Value, step: ir.Value) -> ir.Value:
    """The number of iterations of a loop."""
    if constant_int(lower) != 0:
        upper = arith.maxsi(arith.subi(upper, lower), index(0))
    return upper if constant_int(step) == 1 else arith.ceildivsi(upper, step)


def _at(lower: ir.Value, step: ir.Value, counter: ir.Value) -> ir.Value:
    """The induction variable of a loop at its `counter`-th iteration."""
    if constant_int(step) != 1:
        counter = arith.muli(counter, step)
    return counter if constant_int(lower) == 0 else arith.addi(lower, counter)


def _fill(body: ir.Block, ivs: list[ir.Value]) -> None:
    """Move the body of a parallel loop to the current insertion point."""
    for argument, iv in zip(body.arguments, ivs, strict=True):
        argument.replace_all_uses_with(iv)
    target = ir.InsertionPoint.current
    for op in list(body.operations):
        if op.operation.name != "scf.reduce":
            target.insert(op.operation.detach_from_parent())


# These take buffers and touch none.
PLAIN = ("memref.dim", "func.return", "memref.extract_aligned_pointer_as_index")


def _accesses(op: ir.OpView) -> _Accesses:
    """What an operation and those inside it read and write."""
    found = _Accesses()
    for inner in [op, *walk(op)]:
        name = inner.operation.name
        if name in VIEWS or name == "memref.view" or name.startswith("scf.") or name in PLAIN:
            continue
        if name == "memref.copy":
            found.reads.add(_root(inner.operation.operands[0]))
            found.writes.add(_root(inner.operation.operands[1]))
            continue
        roots = {_root(v) for v in inner.operation.operands if isinstance(v.type, ir.MemRefType)}
        if name in READS:
            found.reads |= roots
        else:
            found.writes |= roots
    return found


def _root(buffer: ir.Value) -> Root:
    """The buffer that a view is part of."""
    while True:
        op = defining_op(buffer)
        if op is None:
            # A function argument; the block arguments of loops may be any buffer.
            return buffer if isinstance(buffer.owner.owner, func.FuncOp) else None
        if isinstance(op, memref.ViewOp):
            return op.operation.operands[1]
        if isinstance(op, memref.GetGlobalOp | memref.AllocOp):
            return op.operation.results[0]
        if op.operation.name not in VIEWS:
            return None
        buffer = op.operation.operands[0]
