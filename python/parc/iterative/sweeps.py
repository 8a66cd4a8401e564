"""Sweeps over a recurrent system: systems of the same equations, which read from other instances what was before.

Every instance has a front (`depth.py`).  What it needs of earlier fronts it reads from the last iterate, and what it
needs of its own front from the sweep itself.  With blocks of one depth that is a Jacobi sweep; with blocks of S, whose
points get the coordinates (block, step in it), S steps follow each other and the blocks are independent.  Instances of
fronts up to k are final after k sweeps: sweep k (from 0) computes the others and hands these on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import islpy as isl
from torch_mlir import ir

from parc.errors import CompileError
from parc.iterative.copies import SystemCopy, require, with_symbols
from parc.iterative.depth import Depth, constant_distance, find_depth, prove, same_front
from parc.poly.affine import instance_space, to_map
from parc.poly.dependences import Dependence, check_system, dependences
from parc.poly.example import first_point
from parc.poly.model import Access, Equation, System

Arrays = Mapping[str, ir.Value]
"""Arrays by the names of the unknowns that they are solutions of."""


@dataclass(frozen=True)
class Window:
    """The depths that a sweep computes: those above `first`, up to `last` where there is one."""

    first: ir.AffineExpr
    last: ir.AffineExpr | None = None


@dataclass(frozen=True, eq=False)
class _Piece:
    """Points of an equation, and its reads that take the last iterate there."""

    equation: Equation
    points: isl.Set
    old: frozenset[Access]


class Recurrence:
    """A recurrent system, whose equations are all swept over, in blocks of so many depths; emits code.

    CompileError where no affine depth exists or a read takes elements of its own block and of earlier ones at once.
    Needs a current MLIR context.
    """

    def __init__(self, system: System, block: int = 1) -> None:
        check_system(system)
        self.system = system
        self.block = block
        self._flow = dependences(system)
        self.depth: Depth = find_depth(system, self._flow)
        self._fronts = self.depth.fronts(system, block)
        self._pieces = [piece for e in system.equations for piece in self._cut(e)]
        prove(system, self._flow, self._fronts, self._is_old)

    @property
    def bound(self) -> ir.AffineExpr:
        """After so many sweeps the iterates are exact."""
        return self.depth.bound(self.block)

    @cached_property
    def iterates(self) -> tuple[str, ...]:
        """The arrays that sweeps read as they were before, in the system's order."""
        read = {access.array for piece in self._pieces for access in piece.old}
        return tuple(u.name for u in self.system.unknowns if u.name in read)

    @cached_property
    def others(self) -> tuple[str, ...]:
        """All other arrays that are results of the system."""
        taken = {ir.StringAttr(use.owner.attributes["name"]).value for use in self.system.op.results[0].uses}
        return tuple(u.name for u in self.system.unknowns if u.name in taken and u.name not in self.iterates)

    def array_type(self, name: str) -> ir.RankedTensorType:
        """The type of an unknown."""
        return ir.RankedTensorType(self.system.unknown(name).op.results[0].type)

    # -- the systems -------------------------------------------------------------------------------------------------

    def start(self, given: Arrays, zero_tiles: Arrays) -> dict[str, ir.Value]:
        """The first iterates: boundaries, and elsewhere arrays `given`, or tiles of zeros where none is."""
        copy = SystemCopy(self.system, {})
        for name in self.iterates:
            copy.unknown(name)
            copy.boundaries(name)
            elements = self.system.unknown(name).elements
            bounded = [b.target.relation.range() for b in self.system.boundaries if b.target.array == name]
            rest = reduce(isl.Set.subtract, bounded, elements)
            if name in given:
                copy.keep(name, rest, given[name])
            else:
                copy.fill(name, rest, zero_tiles[name])
        return {name: copy.take(name) for name in self.iterates}

    def sweep(
        self, olds: Arrays, more: Mapping[str, ir.Value], window: Window
    ) -> tuple[SystemCopy, dict[str, ir.Value]]:
        """One sweep: a system with the symbols `more`, of which the window is made too, and the new iterates."""
        copy = SystemCopy(self.system, more)
        kept = self._written_for(self.iterates)
        for name in kept:
            copy.unknown(name)
            if name not in self.iterates:
                copy.boundaries(name)
        swept: dict[str, list[isl.Set]] = {name: [] for name in self.iterates}
        for piece in self._pieces:
            if not any(w.array in kept for w in piece.equation.writes):
                continue
            points = self._inside(piece, copy, window)
            for write in piece.equation.writes:
                if write.array in swept:
                    swept[write.array].append(points.apply(write.relation))
            self._write(copy, piece, points, olds, kept)
        for name in self.iterates:
            elements = with_symbols(self.system.unknown(name).elements, copy.symbols)
            rest = reduce(isl.Set.subtract, swept[name], elements)
            for op in copy.keep(name, rest, olds[name]):
                if self.block > 1:
                    # Before all blocks, by the workers that have blocks.
                    owner = ir.AffineExpr.get_floor_div(ir.AffineExpr.get_dim(0), self.block)
                    _schedule(op, len(copy.symbols), (0, 0, 0), owner)
        return copy, {name: copy.take(name) for name in self.iterates}

    def finish(self, finals: Arrays) -> SystemCopy:
        """A system that computes the other results, once the iterates are known."""
        copy = SystemCopy(self.system, {})
        kept = self._written_for(self.others, self.iterates)

        def known(_: ir.Operation, name: str) -> ir.Value | None:
            return finals.get(name)

        for name in kept:
            copy.unknown(name)
            copy.boundaries(name)
        for equation in self.system.equations:
            if any(w.array in kept for w in equation.writes):
                copy.equation(equation, equation.domain, known, kept)
        return copy

    # -- what is read from where -------------------------------------------------------------------------------------

    def _cut(self, equation: Equation) -> list[_Piece]:
        """The points of an equation by what they read from the sweep before."""
        pieces = [_Piece(equation, equation.domain, frozenset())]
        for read in equation.reads:
            if not any(d.read is read for d in self._flow):
                continue
            crossing = self._crossing(equation, read)
            divided = []
            for piece in pieces:
                before, own = piece.points.intersect(crossing), piece.points.subtract(crossing)
                for points, old in ((before, piece.old | {read}), (own, piece.old)):
                    if not points.is_empty():
                        divided.append(replace(piece, points=points, old=old))
            pieces = divided
        return pieces

    def _crossing(self, equation: Equation, read: Access) -> isl.Set:
        """The points at which a read takes what earlier fronts compute."""
        flow = [d for d in self._flow if d.read is read]
        constant = {constant_distance(self.system, d, self.depth) for d in flow}
        if constant == {0}:
            return isl.Set.empty(equation.domain.get_space())
        if len(constant) == 1 and (distance := constant.pop()) is not None:
            # What boundaries give counts in with the rest, so that pieces are convex.
            step = self.depth.of[equation.name].aff(equation.domain).add_constant_val(isl.Val(-1))
            step = step.mod_val(isl.Val(self.block))
            limit = isl.Aff.zero_on_domain(isl.LocalSpace.from_space(equation.domain.get_space()))
            return equation.domain.intersect(step.lt_set(limit.add_constant_val(isl.Val(distance))))
        inside = isl.Set.empty(equation.domain.get_space())
        crossing = inside
        for dependence in flow:
            same = same_front(dependence, self._fronts)
            inside = inside.union(same.range())
            crossing = crossing.union(dependence.relation.subtract(same).range())
        mixed = inside.intersect(crossing)
        if not mixed.is_empty():
            point = first_point(mixed)
            raise CompileError(
                f"{point.instance} reads {read.array} of its own block and of earlier ones at once{point.at_sizes}",
                read.op.location,
            )
        return equation.domain.subtract(inside)

    def _is_old(self, dependence: Dependence) -> isl.Set:
        """The sinks of a dependence that read the last iterate."""
        sinks = isl.Set.empty(dependence.relation.range().get_space())
        for piece in self._pieces:
            if dependence.read in piece.old:
                sinks = sinks.union(piece.points)
        return sinks

    def _written_for(self, names: Sequence[str], known: Sequence[str] = ()) -> list[str]:
        """These arrays, and those that their equations read of the same sweep, besides known ones."""
        wanted = set(names)
        while True:
            pieces = [p for p in self._pieces if any(w.array in wanted for w in p.equation.writes)]
            more = {r.array for p in pieces for r in p.equation.reads if r not in p.old} - wanted - set(known)
            if not more:
                return [u.name for u in self.system.unknowns if u.name in wanted]
            wanted |= more

    # -- equations ---------------------------------------------------------------------------------------------------

    def _inside(self, piece: _Piece, copy: SystemCopy, window: Window) -> isl.Set:
        """The points of a piece that a sweep computes."""
        depth = self.depth.of[piece.equation.name].expr()
        limits = [depth - 1 - window.first] + ([] if window.last is None else [window.last - depth])
        return require(with_symbols(piece.points, copy.symbols), *limits)

    def _write(self, copy: SystemCopy, piece: _Piece, points: isl.Set, olds: Arrays, kept: Sequence[str]) -> None:
        equation, coordinates = piece.equation, None
        if self.block > 1:
            points, coordinates = self._in_blocks(equation, points, copy.symbols)

        def known(read: ir.Operation, name: str) -> ir.Value | None:
            return olds[name] if self._is_known(piece, read) else None

        for op in copy.equation(equation, points, known, kept, coordinates):
            if coordinates is not None:
                time = (1, ir.AffineExpr.get_dim(1), self.depth.level[equation.name])
                _schedule(op, len(copy.symbols), time, ir.AffineExpr.get_dim(0))

    def _is_known(self, piece: _Piece, read: ir.Operation) -> bool:
        access = next(a for a in piece.equation.reads if a.op == read)
        only_given = not any(d.read is access for d in self._flow)
        return access in piece.old or (only_given and access.array in self.iterates)

    def _in_blocks(self, equation: Equation, points: isl.Set, symbols: Sequence[str]) -> tuple[isl.Set, ir.AffineMap]:
        """The points with the coordinates (block, step, others), and what they were in terms of these."""
        time = self.depth.of[equation.name]
        rank, size = len(time.dims), self.block
        # A dimension that moves with the depth goes; without one, the depth is a condition.
        along = max((i for i, c in enumerate(time.dims) if abs(c) == 1), default=None)
        others = [ir.AffineExpr.get_dim(2 + n) for n in range(rank - (along is not None))]
        block, step = ir.AffineExpr.get_dim(0), ir.AffineExpr.get_dim(1)
        number = block * size + step
        if along is None:
            old = others
        else:
            zero = [*others[:along], ir.AffineExpr.get_constant(0), *others[along:]]
            rest = replace(time, constant=time.constant - 1).expr()
            rest = rest.compose(ir.AffineMap.get(2 + len(others), len(symbols), zero))
            old = [*others[:along], (number - rest) * time.dims[along], *others[along:]]
        coordinates = ir.AffineMap.get(2 + len(others), len(symbols), old)
        names = ("c", "j", *(f"i{n}" for n in range(len(others))))
        everywhere = isl.Set.universe(instance_space(tuple(symbols), equation.name, tuple(_new(names, symbols))))
        everywhere = require(everywhere, step, size - 1 - step)
        if along is None:
            depth = time.expr().compose(coordinates) - 1 - number
            everywhere = require(everywhere, depth, depth * -1)
        moved = points.apply(to_map(coordinates, everywhere, equation.name).reverse())
        return moved.set_tuple_name(equation.name), coordinates


def _schedule(op: ir.Operation, symbols: int, time: Sequence[ir.AffineExpr | int], owner: ir.AffineExpr) -> None:
    """Give an equation its time and worker."""
    dims = len(op.regions[0].blocks[0].arguments)
    exprs = [t if isinstance(t, ir.AffineExpr) else ir.AffineExpr.get_constant(t) for t in time]
    for key, results in (("schedule", exprs), ("owner", [owner])):
        op.attributes[key] = ir.AffineMapAttr.get(ir.AffineMap.get(dims, symbols, results))


def _new(names: Sequence[str], symbols: Sequence[str]) -> list[str]:
    """Names that are none of the symbols."""
    return [name + "_" if name in symbols else name for name in names]
