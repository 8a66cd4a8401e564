"""This member's place among the crews of its team (`poly/crews.py`), as IR at the start of a `parc.team`."""

from torch_mlir import ir
from torch_mlir.dialects import arith, scf

from parc.codegen.loops import index
from parc.dialect import ArriveOp, AwaitOp, BarrierOp
from parc.poly.crews import Crews


class Member:
    """Values that say what this member does and waits for; without `crews` each member is one, and waits for all."""

    def __init__(self, crews: Crews | None, tid: ir.Value, nthreads: ir.Value) -> None:
        self._crews = crews
        self._count = nthreads if crews is None else arith.minui(index(crews.owners), nthreads)
        self.is_shared = crews is not None and crews.is_shared
        self.size = arith.divui(nthreads, self._count) if self.is_shared else index(1)
        """Members of a crew; those that are left over are in none."""
        self.place = arith.remui(tid, self.size) if self.is_shared else index(0)
        """The number of this member in its crew."""
        self._crew = arith.divui(tid, self.size) if self.is_shared else tid
        if crews is not None:
            self._itself, self._waits = self._sets(crews, nthreads)

    def has(self, owner: ir.Value) -> ir.Value:
        """Is this member in the crew of an owner? (i1)"""
        return _equal(arith.remui(owner, self._count), self._crew)

    def is_first(self) -> ir.Value:
        """Is this member the first one of its crew? (i1)"""
        return _equal(self.place, index(0))

    def after_step(self, names: frozenset[str]) -> None:
        """Wait for this member's crew, where what comes later in the wave needs it; `names` had points in the step."""
        if self._crews is None or not self._crews.is_shared or names.isdisjoint(self._crews.inside):
            return
        several = scf.IfOp(arith.cmpi(arith.CmpIPredicate.ne, self.size, index(1)))
        with ir.InsertionPoint(several.then_block):
            self._wait(self._itself)
            scf.YieldOp([])

    def after_wave(self) -> None:
        """Wait for the crews that this member's has to wait for."""
        if self._crews is None:
            BarrierOp()
        else:
            self._wait(self._waits)

    def _wait(self, crews: ir.Value) -> None:
        ArriveOp()
        AwaitOp(size=self.size, crews=crews)

    def _sets(self, crews: Crews, nthreads: ir.Value) -> tuple[ir.Value, ir.Value]:
        """This member's crew, and those that it waits for; none of a member without a crew."""
        one, none, i64 = _bits(1), _bits(0), ir.IntegerType.get_signless(64)
        is_in_one = arith.cmpi(arith.CmpIPredicate.ult, self._crew, self._count)
        itself = arith.select(is_in_one, arith.shli(one, arith.index_cast(i64, self._crew)), none)
        waits = none
        for owner, mask in enumerate(crews.waits):
            waits = arith.select(_equal(self._crew, index(owner)), _bits(mask), waits)
        # A crew that several owners share waits for all.
        is_split = arith.cmpi(arith.CmpIPredicate.ult, nthreads, index(crews.owners))
        everyone = arith.subi(arith.shli(one, arith.index_cast(i64, nthreads)), one)
        return itself, arith.select(is_split, everyone, waits)


def _bits(value: int) -> ir.Value:
    type_ = ir.IntegerType.get_signless(64)
    return arith.constant(type_, value - (1 << 64) if value >> 63 else value)


def _equal(left: ir.Value, right: ir.Value) -> ir.Value:
    return arith.cmpi(arith.CmpIPredicate.eq, left, right)
